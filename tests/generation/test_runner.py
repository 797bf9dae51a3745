"""Shots from real pipelines on tiny random checkpoints: what is written, what is skipped, what is left after a failure."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anisora import settings
from anisora.errors import BadMask, BadRequest, UnknownModel, WriteFailed
from anisora.generation.request_files import load_requests
from anisora.generation.runner import Outcome, Session, finished, json_path, resolve_request, run_shots
from anisora.media.metadata import read_metadata
from anisora.media.reader import probe, read_video
from anisora.media.writer import write_video
from anisora.records import Generation, Guide, Request

#: the object of `generate --json`, in this order
CONTRACT = [
    "out", "request", "request_hash", "model", "weights_sha256", "guides", "frames", "fps", "size", "forwards", "tokens",
    "seconds", "peak_rss_bytes", "composite",
]  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(device="cpu")


@pytest.fixture
def pictures(tmp_path: Path, picture: Callable[..., np.ndarray]) -> list[str]:
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed)).save(path)
    return paths


@pytest.fixture
def request_(tiny: Callable[..., Path], pictures: list[str], tmp_path: Path) -> Request:
    return Request(
        prompt="a girl", guides=(Guide(pictures[0]),), model=str(tiny("wan")), steps=2, out=str(tmp_path / "shot.mp4")
    )


def made(request: Request, session: Session, **options: Any) -> Generation:
    (outcome,) = run_shots([request], session, **options)
    if outcome.problem is not None:
        raise outcome.problem
    assert outcome.generation is not None
    return outcome.generation


def leftovers(folder: Path) -> list[str]:
    """Hidden files: what a writer that was stopped would leave."""
    return [path.name for path in folder.rglob(".*")]


def test_what_a_shot_leaves(request_: Request, pictures: list[str], session: Session, tmp_path: Path):
    guides = (Guide(pictures[0]), Guide(pictures[1], "37%"), Guide(pictures[2], -1))
    generation = made(replace(request_, guides=guides), session)
    beside = json.loads(json_path(generation.out).read_text())
    assert list(beside)[: len(CONTRACT)] == CONTRACT
    assert list(beside["guides"][0]) == ["image_sha256", "asked", "frame", "slot", "channel", "psnr_db"]
    assert list(beside["seconds"]) == ["load", "text", "encode", "denoise", "decode", "write"]
    assert settings.read(Generation, beside) == generation
    assert [(guide["asked"], guide["frame"]) for guide in beside["guides"]] == [(0, 0), ("37%", 3), (-1, 8)]
    assert [(guide["slot"], guide["channel"]) for guide in beside["guides"]] == [(0, 0), (1, 2), (2, 3)]
    assert beside["forwards"] == 2  # two steps at guidance 1
    assert beside["tokens"] == 3 * 2 * 3
    info = probe(generation.out)
    assert (info.num_frames, info.width_px, info.height_px, info.fps) == (9, *generation.size, generation.fps)
    assert read_metadata(generation.out)["anisora"]["request_hash"] == generation.request_hash
    assert not leftovers(tmp_path)


def test_forwards_are_counted_not_computed(request_: Request, session: Session):
    assert made(replace(request_, guidance=3.0, steps=3), session).forwards == 6


def test_same_seed_same_shot_other_seed_another(request_: Request, session: Session, tmp_path: Path):
    outs = [str(tmp_path / name) for name in ("one", "two", "three")]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        made(replace(request_, out=out, seed=seed), session)
    one, two, three = (read_video(out).frames_THWC for out in outs)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_a_shot_is_made_again_from_itself(request_: Request, session: Session, tmp_path: Path):
    mp4 = made(request_, session)
    pictures = made(replace(request_, out=str(tmp_path / "pictures")), session)
    (again,) = load_requests(mp4.out)
    assert again.out is None
    second = made(replace(again, out=str(tmp_path / "again")), session)
    assert second.request_hash == mp4.request_hash
    assert np.array_equal(read_video(pictures.out).frames_THWC, read_video(second.out).frames_THWC)


def test_a_shot_whose_pictures_changed_is_not_made_again(request_: Request, session: Session, pictures: list[str]):
    first = made(request_, session)
    Image.new("RGB", (48, 32)).save(pictures[0])
    with pytest.raises(BadRequest, match="another version"):
        load_requests(first.out)
    Path(pictures[0]).unlink()
    with pytest.raises(BadRequest, match="gone"):
        load_requests(first.out)


def test_psnr_is_of_the_frames_before_video_encoding(request_: Request, session: Session, tmp_path: Path):
    generation = made(replace(request_, out=str(tmp_path / "pictures")), session)
    frame = read_video(generation.out).frames_THWC[0].astype(float)
    guide = np.asarray(Image.open(request_.guides[0].image), float)
    expected = 10 * np.log10(255**2 / np.mean((frame - guide) ** 2))
    assert generation.guides[0].psnr_db == pytest.approx(expected, abs=1e-3)


# -- masks, video, long shots ------------------------------------------------------------------------------------------


def test_outside_the_motion_mask_nothing_changes(request_: Request, session: Session, tmp_path: Path):
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    request = replace(request_, motion_mask=str(tmp_path / "mask.png"), out=str(tmp_path / "pictures"))
    generation = made(request, session)
    frames = read_video(generation.out).frames_THWC
    guide = np.asarray(Image.open(request_.guides[0].image))
    assert generation.composite
    assert np.abs(frames[:, mask == 0].astype(int) - guide[mask == 0]).max() == 0
    assert np.abs(frames[:, mask > 0].astype(int) - guide[mask > 0]).max() > 0


def test_a_kept_video_is_kept(request_: Request, session: Session, tmp_path: Path, picture: Callable[..., np.ndarray]):
    clip = np.stack([picture(seed) for seed in range(10)])  # one frame more than is legal
    write_video(tmp_path / "clip.mkv", clip, 12, lossless=True)
    keep = np.full((32, 48), 255, np.uint8)
    keep[8:24, 8:24] = 0
    Image.fromarray(keep).save(tmp_path / "keep.png")
    request = replace(
        request_,
        guides=(),
        video=str(tmp_path / "clip.mkv"),
        keep_mask=str(tmp_path / "keep.png"),
        out=str(tmp_path / "p"),
    )
    generation = made(request, session)
    frames = read_video(generation.out).frames_THWC
    assert (generation.frames, generation.fps) == (9, 12)
    assert np.array_equal(frames[:, keep == 255], clip[:9, keep == 255])
    assert any("first 9 are used" in warning for warning in generation.warnings)


@pytest.mark.parametrize(("family", "length", "seams"), [("wan", 21, [4, 8, 17]), ("cogvideox", 17, [4, 8])])
def test_long_shots_grow_from_their_guides(
    family: str,
    length: int,
    seams: list[int],
    request_: Request,
    pictures: list[str],
    session: Session,
    tiny: Callable[..., Path],
):
    guides = (Guide(pictures[0]), Guide(pictures[1], 11), Guide(pictures[2], -1))
    generation = made(replace(request_, model=str(tiny(family)), guides=guides, frames=length, window=9), session)
    assert probe(generation.out).num_frames == length
    assert [guide.frame for guide in generation.guides] == [0, 11, length - 1]
    assert [seam["frame"] for seam in generation.seams] == seams
    assert generation.forwards == 2 * (1 + len(generation.seams)) * (1 if generation.request.guidance == 1 else 2)


def test_windows_share_what_was_made(request_: Request, session: Session):
    """Each window's given frames are those the one before made, to the last bit."""
    from anisora.generation import long_video, runner

    request = replace(request_, frames=13, window=9)
    resolved = resolve_request(request)
    pipeline, _ = session.pipeline(request.model)
    material, _ = runner._material(resolved)
    planned = long_video.plan_windows(material, 9)
    shot = long_video.make(material, planned, runner._window_maker(resolved, pipeline, runner._silent, 2))
    plan = shot.outputs[1].plan
    given = np.rint((plan.video_TCHW.permute(0, 2, 3, 1).numpy() + 1) * 127.5).astype(np.uint8)
    assert plan.keep_T1HW[:5].min() == 1
    assert np.array_equal(given[:5], shot.frames_THWC[4:9])
    assert plan.keep_T1HW[5:].max() == 0


# -- many shots --------------------------------------------------------------------------------------------------------


def test_one_failing_shot_stops_no_other_and_models_load_once(
    request_: Request, session: Session, tiny: Callable[..., Path], tmp_path: Path
):
    own = Session(device="cpu")
    requests = [
        replace(request_, out=str(tmp_path / "1.mp4")),
        replace(request_, out=str(tmp_path / "2.mp4"), model=str(tiny("cogvideox"))),
        replace(request_, out=str(tmp_path / "3.mp4"), frames=10),
        replace(request_, out=str(tmp_path / "4.mp4"), model="nobody"),
        replace(request_, out=str(tmp_path / "5.mp4"), seed=5),
    ]
    heard: list[Outcome] = []
    outcomes = run_shots(requests, own, told=heard.append)
    assert [Path(str(outcome.request.out)).stem for outcome in outcomes] == list("12345")
    assert [outcome.problem is None for outcome in outcomes] == [True, True, False, False, True]
    assert isinstance(outcomes[3].problem, UnknownModel)
    assert len(heard) == 5
    loads = [outcome.generation.seconds["load"] > 0 for outcome in outcomes if outcome.generation]
    assert loads == [True, True, False]  # the last shot found its model loaded
    again = run_shots(requests, own)
    assert [outcome.skipped for outcome in again] == [True, True, False, False, True]
    assert again[0].generation == outcomes[0].generation


@pytest.mark.parametrize("damage", ["cut", "swapped", "no json", "other request"])
def test_only_whole_shots_of_this_very_request_count_as_finished(damage: str, request_: Request, session: Session):
    generation = made(request_, session)
    out = Path(generation.out)
    assert finished(resolve_request(request_)) == generation
    if damage == "cut":
        out.write_bytes(out.read_bytes()[:-600])
    elif damage == "swapped":
        write_video(out, np.zeros((9, 32, 48, 3), np.uint8), 8)
    elif damage == "no json":
        json_path(out).unlink()
    changed = replace(request_, seed=2) if damage == "other request" else request_
    assert finished(resolve_request(changed)) is None


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_mask_of_another_aspect_writes_nothing(request_: Request, session: Session, tmp_path: Path):
    Image.new("L", (32, 32), 255).save(tmp_path / "mask.png")
    with pytest.raises(BadMask, match="aspect"):
        made(replace(request_, motion_mask=str(tmp_path / "mask.png")), session)
    assert not Path(str(request_.out)).exists()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("out", ["a.png/shot.mp4", "/proc/shot.mp4"])
def test_places_that_cannot_be_written_are_told_before_the_work(
    out: str, request_: Request, session: Session, tmp_path: Path
):
    begun: list[str] = []
    watching = Session(device="cpu", progress=lambda phase, done, total: begun.append(phase))
    with pytest.raises(WriteFailed):
        made(replace(request_, out=str(tmp_path / out)), watching)
    assert not begun
    with pytest.raises(BadRequest, match=r"shot\.mp4"):
        made(replace(request_, out=str(tmp_path / "shot.jpg")), session)


def test_a_full_disk_leaves_nothing_half_written(request_: Request, session: Session, tmp_path: Path):
    """The real thing: this process may for a while not write files beyond 2 kB, so the encoder's write fails half way."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(WriteFailed, match="could not be written"):
            made(request_, session)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not Path(str(request_.out)).exists()
    assert not json_path(str(request_.out)).exists()
    assert not leftovers(tmp_path)
