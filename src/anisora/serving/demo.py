"""The demo: pictures drawn on the spot, shots made from them, and one page that shows and measures everything.

Nothing from outside is needed: the inputs come from the synthetic corpus, from seeds that training never sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anisora import settings
from anisora.errors import Failed
from anisora.generation.runner import Progress, Session, json_path, run_shots
from anisora.models import catalog
from anisora.models.checkpoint import CheckpointInfo
from anisora.records import Generation, Guide, Request

#: held out from training (see synthetic.HELD_OUT_SEEDS); the clips drawn from it are the same everywhere
SEED_OFFSET = 7
SHOWN_PX = 256

#: Which of those clips each scene begins with: the page says how they were found.
PICKED = {"still": 20, "keyframes": 23, "area": 13, "long": 19}
PICKED_AMONG = 24


@dataclass(kw_only=True)
class Scene:
    """One shot of the demo: what is asked, what a reader is told, and what it is compared with."""

    title: str
    told: str
    request: Request
    inputs: list[tuple[Path, str]]
    truth_THWC: np.ndarray
    mask_HW: np.ndarray | None = None
    measured: list[tuple[str, Any]] = field(default_factory=list)


def make_demo(
    out: Path, *, model: str = "bundled", progress: Progress = lambda phase, done, total: None
) -> tuple[Path, list[dict[str, Any]]]:
    """(the page, the JSON object of each shot): draws inputs, makes the shots, writes out/index.html.

    Running it again makes only what is missing. Raises UnknownModel or BadCheckpoint where the model is not here, and
    Failed with the reasons if no shot could be made.
    """
    from anisora.files import write_atomic
    from anisora.store import report_page

    info = catalog.resolve(model)
    scenes = _scenes(Path(out), info, model)
    outcomes = run_shots([scene.request for scene in scenes], Session(progress=progress))
    if problems := [outcome.problem for outcome in outcomes if outcome.problem is not None]:
        raise Failed("the demo could not be made", got="; ".join(map(str, problems))) from problems[0]
    made = [outcome.generation for outcome in outcomes if outcome.generation is not None]
    sections = [_section(scene, generation, Path(out)) for scene, generation in zip(scenes, made, strict=True)]
    page = report_page("What this model draws", [*sections, _summary(scenes, made)], lead=_lead(info, made))
    index = write_atomic(Path(out) / "index.html", page.encode())
    return index.resolve(), [settings.plain(generation) for generation in made]


# -- what is asked -----------------------------------------------------------------------------------------------------


def _scenes(out: Path, info: CheckpointInfo, model: str) -> list[Scene]:
    """The shots that this checkpoint can make, their inputs drawn and written."""
    makers: list[tuple[str, Callable[[Path, CheckpointInfo, str], Scene]]] = [
        ("guides", _from_one_still),
        ("guides", _in_between),
        ("motion_area", _motion_area),
        ("guides", _long),
    ]
    return [maker(out, info, model) for capability, maker in makers if capability in info.capabilities]


def _from_one_still(out: Path, info: CheckpointInfo, model: str) -> Scene:
    clip = _clip(info, PICKED["still"])
    still = _save(out / "inputs" / "still.png", clip.video_THWC[0])
    return Scene(
        title="One still",
        told="The first frame is given; everything after it is the model's own.",
        request=Request(
            prompt=clip.caption, guides=(Guide(str(still)),), out=str(out / "one_still.mp4"), **_shape(info, model)
        ),
        inputs=[(still, "given at frame 0")],
        truth_THWC=clip.video_THWC,
    )


def _in_between(out: Path, info: CheckpointInfo, model: str) -> Scene:
    clip = _clip(info, PICKED["keyframes"])
    positions: tuple[int | str, ...] = (0, "50%", -1)
    frames = (0, len(clip.video_THWC) // 2, -1)
    keys = [_save(out / "inputs" / f"key_{n}.png", clip.video_THWC[frame]) for n, frame in enumerate(frames)]
    return Scene(
        title="Three keyframes",
        told="The first, the middle and the last frame are given; the model draws the frames between them.",
        request=Request(
            prompt=clip.caption,
            guides=tuple(Guide(str(key), at) for key, at in zip(keys, positions, strict=True)),
            out=str(out / "keyframes.mp4"),
            **_shape(info, model),
        ),
        inputs=[(key, f"given at {at}") for key, at in zip(keys, ("frame 0", "50 %", "the last frame"), strict=True)],
        truth_THWC=clip.video_THWC,
    )


def _motion_area(out: Path, info: CheckpointInfo, model: str) -> Scene:
    clip = _clip(info, PICKED["area"], camera="static", with_truth=True)
    mask_HW = clip.truth.motion_mask_HW
    still = _save(out / "inputs" / "scene.png", clip.video_THWC[0])
    mask = _save(out / "inputs" / "area.png", np.repeat(mask_HW[..., None] * np.uint8(255), 3, axis=2))
    return Scene(
        title="A motion area",
        told="A still and a mask are given: only the white area may move, all else stays as it was drawn.",
        request=Request(
            prompt=clip.caption,
            guides=(Guide(str(still)),),
            motion_mask=str(mask),
            out=str(out / "motion_area"),  # a folder of pictures: what is measured has been through no video encoder
            **_shape(info, model),
        ),
        inputs=[(still, "given at frame 0"), (mask, "white may move")],
        truth_THWC=clip.video_THWC,
        mask_HW=mask_HW,
    )


def _long(out: Path, info: CheckpointInfo, model: str) -> Scene:
    """Twice as long as the checkpoint's own length."""
    length = 2 * (info.native.frames - 1) + 1
    clip = _clip(info, PICKED["long"], num_frames=length)
    keys: list[tuple[int | str, int, str]] = [
        (0, 0, "frame 0"),
        *((f"{25 * n}%", n * length // 4, f"{25 * n} %") for n in (1, 2, 3)),
        (-1, -1, "the last frame"),
    ]
    paths = [_save(out / "inputs" / f"long_{n}.png", clip.video_THWC[frame]) for n, (_, frame, _) in enumerate(keys)]
    return Scene(
        title="A long shot",
        told="Longer than the model makes at once, with five keyframes: windows that overlap, put together at the keys.",
        request=Request(
            prompt=clip.caption,
            guides=tuple(Guide(str(path), at) for path, (at, _, _) in zip(paths, keys, strict=True)),
            out=str(out / "long.mp4"),
            **_shape(info, model) | {"frames": length},
        ),
        inputs=[(path, f"given at {told}") for path, (_, _, told) in zip(paths, keys, strict=True)],
        truth_THWC=clip.video_THWC,
    )


def _shape(info: CheckpointInfo, model: str) -> dict[str, Any]:
    return {"model": model, "size": info.native.size, "frames": info.native.frames, "seed": SEED_OFFSET}


def _clip(
    info: CheckpointInfo, index: int, *, camera: str | None = None, num_frames: int = 0, with_truth: bool = False
) -> Any:
    """A held-out clip at the checkpoint's own size and rate: the first from `index` on with the camera asked for."""
    from fractions import Fraction

    from anisora.synthetic import HELD_OUT_SEEDS, TRAINED_VERSION, plan_clip, render_clip

    seed = HELD_OUT_SEEDS[0] + SEED_OFFSET
    while camera is not None and plan_clip(seed, index, "seen", TRAINED_VERSION).view.camera != camera:
        index += 1
    return render_clip(
        seed,
        index,
        split="seen",
        n_frames=num_frames or info.native.frames,
        fps=Fraction(str(info.native.fps)),
        size_px=info.native.size,
        truth=with_truth,
        version=TRAINED_VERSION,
    )


def _save(path: Path, rgb_HWC: np.ndarray) -> Path:
    """Writes a picture and returns its path."""
    from PIL import Image

    from anisora.files import write_atomic

    image = Image.fromarray(np.ascontiguousarray(rgb_HWC))
    return write_atomic(path, lambda partial: image.save(partial))


# -- what is shown -----------------------------------------------------------------------------------------------------


def _section(scene: Scene, made: Generation, out: Path) -> Any:
    """The part of the page about one shot."""
    from anisora.media.frames import contact_sheet
    from anisora.media.reader import read_video
    from anisora.media.writer import write_video
    from anisora.store import Figure, Section, Table

    frames_THWC = read_video(made.out).frames_THWC
    movie = Path(made.out)
    if movie.is_dir():
        movie = write_video(movie.with_suffix(".mp4"), frames_THWC, made.fps)
    drawn = write_video(movie.with_name(f"{movie.stem}_drawn.mp4"), scene.truth_THWC, made.fps)
    picks = np.unique(np.linspace(0, len(frames_THWC) - 1, 9).round().astype(int))
    sheet = contact_sheet(frames_THWC[picks], columns=len(picks), labels=[f"frame {index}" for index in picks])
    scene.measured = _measured(scene, made, frames_THWC)
    width = SHOWN_PX
    return Section(
        heading=scene.title,
        paragraphs=[scene.told, f"Asked for: “{made.request.prompt}”"],
        figures=[
            *(Figure(source=path, caption=caption, width_px=width // 2) for path, caption in scene.inputs),
            Figure(source=movie.relative_to(out), caption="the model's shot", width_px=width, is_beside=True),
            Figure(source=drawn.relative_to(out), caption="as it was drawn", width_px=width, is_beside=True),
            Figure(source=sheet, caption="the model's frames in order"),
        ],
        tables=[Table(columns=("measured", ""), rows=scene.measured)],
    )


def _measured(scene: Scene, made: Generation, frames_THWC: np.ndarray) -> list[tuple[str, Any]]:
    """What was measured of a shot, in words."""
    seconds = made.seconds
    rows: list[tuple[str, Any]] = [
        ("frames, size, rate", f"{made.frames} of {made.size[0]}x{made.size[1]} at {made.fps} a second"),
        ("seconds to make it, loading aside", round(sum(seconds.values()) - seconds["load"], 2)),
        ("passes of the network", made.forwards),
    ]
    for guide in made.guides:
        rows.append((
            f"likeness to the given picture at frame {guide.frame} (PSNR in dB; above 30 is close)",
            "equal" if guide.psnr_db is None else round(guide.psnr_db, 1),
        ))  # fmt: skip
    if scene.mask_HW is not None:
        given = scene.truth_THWC[0].astype(int)
        change = np.abs(frames_THWC.astype(int) - given)
        rows.append(("largest difference outside the area (0 to 255)", int(change[:, ~scene.mask_HW].max(initial=0))))
        rows.append(("mean difference inside the area (0 to 255)", round(float(change[:, scene.mask_HW].mean()), 2)))
    for seam in made.seams:
        rows.append((
            f"brightness step where two windows meet, at frame {seam['frame']} (elsewhere: usual, largest)",
            f"{seam['brightness_step']:.2f} ({seam['brightness_usual']:.2f}, {seam['brightness_largest']:.2f})",
        ))  # fmt: skip
        rows.append((
            f"change of the picture there (elsewhere: usual, largest), at frame {seam['frame']}",
            f"{seam['motion_step']:.2f} ({seam['motion_usual']:.2f}, {seam['motion_largest']:.2f})",
        ))  # fmt: skip
    return rows


def _summary(scenes: list[Scene], made: list[Generation]) -> Any:
    from anisora.store import Section, Table

    rows = [
        (scene.title, " ".join(_command(generation.request)), json_path(generation.out).name)
        for scene, generation in zip(scenes, made, strict=True)
    ]
    return Section(
        heading="Make them yourself",
        paragraphs=["Each shot is one command, run in this folder; the JSON beside it says how it was made."],
        tables=[Table(columns=("shot", "command", "details"), rows=rows)],
    )


def _command(request: Request) -> list[str]:
    """The words of the command that makes a shot like this."""
    import shlex

    words = ["anisora", "generate", "--prompt", shlex.quote(request.prompt)]
    for guide in request.guides:
        words += ["--guide", shlex.quote(f"inputs/{Path(str(guide.image)).name}@{guide.frame}")]
    if request.motion_mask:
        words += ["--motion-mask", shlex.quote(f"inputs/{Path(request.motion_mask).name}")]
    if request.model != "bundled":
        words += ["--model", shlex.quote(request.model)]
    return [*words, "--frames", str(request.frames), "--seed", str(request.seed), "--out", "mine.mp4"]


def _lead(info: CheckpointInfo, made: list[Generation]) -> str:
    total = sum(sum(generation.seconds.values()) for generation in made)
    memory = max(generation.peak_rss_bytes for generation in made) / 1e9
    return (
        f"{len(made)} shots by the model “{info.name}”, made in {total:.0f} seconds with {memory:.1f} GB of memory. The "
        "pictures it was given were drawn for this page by a program, from scenes the model was not trained on; beside "
        "each shot stands the scene as the program drew it. Like any reel this one is a choice: the scenes were picked by "
        f"eye among {PICKED_AMONG} for what the bundled model draws well. How it does on hundreds that nobody picked, what it "
        "does badly among them, stands in docs/benchmark.md."
    )
