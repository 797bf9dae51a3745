"""Does each training strategy do what it is for? Two arms that differ in it alone, on held-out clips, over several seeds.

    python benchmarks/ablations.py mask-strategy --seeds 3 --steps 400 --json

Both arms start from one checkpoint, see the same training clips in the same order for the same steps, and make the same
shots from the same noise. What is measured stands in `ROWS` and was chosen before any run. Of each held-out clip and
seed one value an arm; the interval is of their paired difference, with clips as the sample. Runs are resumed: a folder
OUT/ROW/STEPS-steps-HASH/ for each way of running a row holds the clips, the runs, records.jsonl and sheet.png: of the
first held-out clips what was to be made, what the arm with the strategy made, and what the one without.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_shots import Checkpoint, motion_area, render
from looks import LOOKS
from numpy.typing import NDArray
from PIL import Image

from anisora import geometry, synthetic
from anisora.evaluation.statistics import mean_interval, paired_interval
from anisora.media.frames import contact_sheet
from anisora.media.writer import write_video
from anisora.store import append_jsonl, content_hash, read_jsonl

#: fewer are for trying the code out
LEAST_SEEDS, LEAST_CLIPS = 3, 8

#: clips and frames of each on a row's sheet
SHEET_CLIPS, SHEET_FRAMES = 3, 6


@dataclass(frozen=True, kw_only=True)
class Made:
    """One shot of a held-out clip: what was to be made, what was made, and its value; NaN where it has none."""

    value: float
    truth_THWC: NDArray[np.uint8]
    made_THWC: NDArray[np.uint8]


#: measure(checkpoint, rendered clip, seed)
Measure = Callable[[Checkpoint, Any, int], Made]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the arms of a row have in common: the measured size, length and rate, the clips' folder, their number, the steps."""

    like: Checkpoint
    folder: Path
    num_clips: int
    steps: int

    def clips(self, look: str = "drawn") -> str:
        """The folder of training clips in a look."""
        return str(training_clips(self.folder / f"clips-{look}", self.like, self.num_clips, look))

    def stills(self, look: str) -> str:
        """A folder of stills in a look: the middle frame of each training clip."""
        return str(training_stills(self.folder / f"stills-{look}", self.like, self.num_clips, look))

    @property
    def tokens(self) -> int:
        """Video tokens of a clip as it is measured."""
        return self._tokens(self.like.size_px, self.like.num_frames)

    def weak(self) -> tuple[dict[str, Any], int]:
        """(the data of clips at about half the side and half the rate, video tokens of one)."""
        strides = self.like.info.strides
        side = strides.size_multiple_px
        size = tuple(max(side, length // 2 // side * side) for length in self.like.size_px)
        frames = (self.like.num_frames - 1) // 2 // strides.temporal * strides.temporal + 1
        data = {"sizes": [list(size)], "frames": [frames], "fps": self.like.fps / 2}
        return data, self._tokens(size, frames)

    def _tokens(self, size_px: tuple[int, ...], num_frames: int) -> int:
        from anisora.training.data import tokens_of

        return tokens_of(self.like.info.strides, (size_px[0], size_px[1]), num_frames)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one arm is trained: a config, and fields laid over it that depend on the setting; None is the base as it is."""

    config: dict[str, Any] | None
    more: Callable[[Setting], dict[str, Any]] = lambda setting: {}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy: what it should do, how that is measured, and the arms with and without it."""

    claim: str
    measure: Measure
    unit: str
    is_lower_better: bool
    on: Arm
    off: Arm
    recipe: dict[str, Any] = field(default_factory=dict)


def in_between_distance(look: str) -> Measure:
    """Perceptual distance to the truth of the frames between a first and a last guide, of clips in a look."""

    def distance(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
        from anisora.measures.perceptual import perceptual_distance

        truth = LOOKS[look](clip)
        ends = {0: truth[0], len(truth) - 1: truth[-1]}
        made, _ = checkpoint.shot(clip.caption, ends, seed)
        return Made(value=float(perceptual_distance(made, truth)[1:-1].mean()), truth_THWC=truth, made_THWC=made)

    return distance


def illustration_distance(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
    """Perceptual distance to the truth of what follows a drawing in a look of which no clip was shown."""
    from anisora.measures.perceptual import perceptual_distance

    truth = LOOKS[NEW_LOOK](clip)
    made, _ = checkpoint.shot(clip.caption, {0: truth[0]}, seed)
    return Made(value=float(perceptual_distance(made, truth)[1:].mean()), truth_THWC=truth, made_THWC=made)


def letters(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
    """Share of the picture under letters (CRAFT, as in the paper) in what follows a first frame without any."""
    from anisora.measures.clip import ClipView
    from anisora.measures.text_cover import text_cover

    truth = clip.video_THWC
    made, _ = checkpoint.shot(clip.caption, {0: truth[0]}, seed)
    cover = text_cover(ClipView.of_frames(made[1:], checkpoint.fps), detector="craft").raw
    return Made(value=math.nan if cover is None else cover, truth_THWC=truth, made_THWC=made)


def mask_precision(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
    """Share of what moved that lies in the motion area, without compositing; NaN where nothing moved."""
    from anisora.measures.motion import mask_motion

    truth, area_HW = clip.video_THWC, motion_area(clip.truth)
    if not area_HW.any() or area_HW.all():
        return Made(value=math.nan, truth_THWC=truth, made_THWC=truth)
    mask = area_HW.astype(np.float32)
    made, _ = checkpoint.shot(clip.caption, {0: truth[0]}, seed, motion_mask=mask, composite=False)
    return Made(value=mask_motion(made, area_HW).precision, truth_THWC=truth, made_THWC=made)


def with_masks(setting: Setting) -> dict[str, Any]:
    """Video-mask pairs of the training clips."""
    from anisora.training.masks import build_masks

    pairs = setting.folder / "pairs"
    build_masks([Path(setting.clips())], pairs)
    return {"data": {"pairs": str(pairs)}}


def with_stills(look: str) -> Callable[[Setting], dict[str, Any]]:
    """A fifth of the steps show stills of a look, none of the clips has it."""
    return lambda setting: {"data": {"images": setting.stills(look), "image_share": 0.2}}


def from_weak_to_strong(setting: Setting) -> dict[str, Any]:
    """Half of the video tokens on small clips at half the rate, then half of them as measured."""
    weak, tokens = setting.weak()
    strong_steps = math.ceil(setting.steps / 2)
    weak_steps = max(1, geometry.round_half_up((setting.steps - strong_steps) * Fraction(setting.tokens, tokens)))
    return {"stages": {"weak": {"steps": weak_steps, "data": weak}, "strong": {"steps": strong_steps}}}


def small(setting: Setting) -> dict[str, Any]:
    """Clips at half the side, at full length and rate."""
    return {"data": {"sizes": setting.weak()[0]["sizes"]}}


def in_look(look: str) -> Callable[[Setting], dict[str, Any]]:
    """Training clips in another look."""
    return lambda setting: {"data": {"videos": setting.clips(look)}}


def subtitled_then(last: str) -> Callable[[Setting], dict[str, Any]]:
    """Clips with burnt-in subtitles for half of the steps, then clips in the look `last`."""

    def stages(setting: Setting) -> dict[str, Any]:
        first_steps = max(1, setting.steps // 2)
        return {
            "stages": {
                "first": {"steps": first_steps, "data": {"videos": setting.clips("subtitled")}},
                "last": {"steps": max(1, setting.steps - first_steps), "data": {"videos": setting.clips(last)}},
            }
        }

    return stages


def all_of(*parts: Callable[[Setting], dict[str, Any]]) -> Callable[[Setting], dict[str, Any]]:
    """The fields of several, laid over each other; those of `data` too."""

    def fields(setting: Setting) -> dict[str, Any]:
        laid: dict[str, Any] = {}
        for part in parts:
            more = part(setting)
            laid |= {**more, "data": {**laid.get("data", {}), **more.get("data", {})}}
        return laid

    return fields


#: A look that the base has not seen: what a strategy is for shows where there is something to learn.
NEW_LOOK = "pencil"

LORA = {"method": "lora", "lora": {"rank": 16}, "loop": {"learning_rate": 5e-4, "warmup_steps": 20}}

ROWS = {
    "mask-strategy": Row(
        claim="guides drawn at any frame teach in-betweening of a new look; frame 0 alone does not",
        measure=in_between_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=in_look(NEW_LOOK)),
        off=Arm(config={**LORA, "conditions": {"first_prob": 1.0}}, more=in_look(NEW_LOOK)),
    ),
    "motion-lora": Row(
        claim="a LoRA on video-mask pairs keeps what lies outside of the area still",
        measure=mask_precision,
        unit="mask precision",
        is_lower_better=False,
        on=Arm(config={**LORA, "conditions": {"motion_area_prob": 0.9}}, more=with_masks),
        off=Arm(config={**LORA, "conditions": {"first_prob": 1.0}}),
    ),
    "few-step": Row(
        claim="at 8 steps and guidance 1 the student is nearer to the truth than its teacher",
        measure=in_between_distance("drawn"),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(
            config={"method": "distill", "student": {"steps": 8, "own_share": 0.5}, "loop": {"learning_rate": 2e-5}}
        ),
        off=Arm(config=None),
        recipe={"steps": 8, "guidance": 1.0, "guidance_2": None},
    ),
    "image-video": Row(
        claim="stills of a look among the clips teach to move illustrations in it",
        measure=illustration_distance,
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=with_stills(NEW_LOOK)),
        off=Arm(config=LORA),
    ),
    "weak-to-strong": Row(
        claim="small clips at a low rate first teach a new look better than the same number of tokens at full size and rate",
        measure=in_between_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=all_of(in_look(NEW_LOOK), from_weak_to_strong)),
        off=Arm(config=LORA, more=in_look(NEW_LOOK)),
    ),
    "resolution": Row(
        claim="clips of a new look at the size that is asked for teach what clips at half the side do not",
        measure=in_between_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=in_look(NEW_LOOK)),
        off=Arm(config=LORA, more=all_of(in_look(NEW_LOOK), small)),
    ),
    "2d-3d": Row(
        claim="drawn clips teach to move drawings; as many of the same clips with rounded, lit bodies do not",
        measure=in_between_distance("drawn"),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA),
        off=Arm(config=LORA, more=in_look("volumes")),
    ),
    "subtitle-free": Row(
        claim="a last stage on clips without subtitles takes letters out of the shots",
        measure=letters,
        unit="share of the picture under letters",
        is_lower_better=True,
        on=Arm(config=LORA, more=subtitled_then("drawn")),
        off=Arm(config=LORA, more=subtitled_then("subtitled")),
    ),
}


def training_clips(folder: Path, checkpoint: Checkpoint, count: int, look: str) -> Path:
    """A folder of `count` clips with captions at the checkpoint's size and rate, from the seeds for training."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in itertools.islice(synthetic.TRAIN_SEEDS, count):
        path = folder / f"{seed:06d}.mp4"
        if not path.with_suffix(".txt").exists():  # written last
            clip = render(checkpoint, seed, split="train", truth=True)
            write_video(path, LOOKS[look](clip), checkpoint.fps)
            path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")
    return folder


def training_stills(folder: Path, checkpoint: Checkpoint, count: int, look: str) -> Path:
    """A folder of the middle frames of those clips with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in itertools.islice(synthetic.TRAIN_SEEDS, count):
        path = folder / f"{seed:06d}.png"
        if not path.with_suffix(".txt").exists():
            clip = render(checkpoint, seed, split="train", truth=True)
            Image.fromarray(LOOKS[look](clip)[checkpoint.num_frames // 2]).save(path)
            path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")
    return folder


def train_arm(arm: Arm, base: str, setting: Setting, out: Path, seed: int) -> Path | None:
    """The export of an arm, trained at the size and length that is measured; None for the base itself."""
    if arm.config is None:
        return None
    from anisora.training import distill, finetune

    like, more = setting.like, arm.more(setting)
    data: dict[str, Any] = {"batch": 4, "workers": 1}
    data |= {"sizes": [list(like.size_px)], "frames": [like.num_frames], "fps": float(like.fps)}
    data |= more.pop("data", {})
    data.setdefault("videos", setting.clips())
    loop = {"steps": setting.steps, "decay_frac": 0.3, **arm.config.get("loop", {})}
    config = {**arm.config, "model": base, "output": str(out), "seed": seed, "data": data, "loop": loop, **more}
    trainer: Any = distill if config["method"] == "distill" else finetune
    return trainer.main(trainer.load_config(config, "ablation"))


def open_arm(base: str, export: Path | None, row: Row, like: Checkpoint) -> Checkpoint:
    """The arm's checkpoint at work, making shots of the base's size and length by the row's recipe."""
    from anisora.models.lora import load_lora

    is_lora = export is not None and (export / "pytorch_lora_weights.safetensors").exists()
    model = base if export is None or is_lora else str(export)
    checkpoint = Checkpoint(model, like.size_px, like.num_frames, like.fps)
    if export is not None and is_lora:
        load_lora(checkpoint.pipeline, export)
    checkpoint.info = replace(checkpoint.info, recipe=replace(checkpoint.info.recipe, **row.recipe))
    return checkpoint


def run_row(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures both arms of a row for every seed, and says what came of it."""
    row = ROWS[name]
    like = Checkpoint(args.base, tuple(args.size), args.frames, args.fps)
    how = [like.about(), args.train_clips, row.claim, row.on.config, row.off.config, row.recipe]
    out = args.out / name / f"{args.steps}-steps-{content_hash(how)[:8]}"
    setting = Setting(like=like, folder=out, num_clips=args.train_clips, steps=args.steps)
    path = out / "records.jsonl"
    records = read_jsonl(path) if path.exists() else []
    done = {(record["arm"], record["seed"], record["clip"]) for record in records}
    held_out = list(itertools.islice(synthetic.HELD_OUT_SEEDS, args.clips))
    for seed, (arm_name, arm) in itertools.product(range(args.seeds), [("on", row.on), ("off", row.off)]):
        if all((arm_name, seed, clip) in done for clip in held_out):
            continue
        export = train_arm(arm, args.base, setting, out / f"{arm_name}-{seed}", seed)
        checkpoint = open_arm(args.base, export, row, like)
        for clip_seed in [clip for clip in held_out if (arm_name, seed, clip) not in done]:
            clip = render(like, clip_seed, split="reserved", truth=True)
            made = row.measure(checkpoint, clip, clip_seed)
            if seed == 0 and clip_seed in held_out[:SHEET_CLIPS]:
                keep_frames(out / "frames", clip_seed, truth=made.truth_THWC, **{arm_name: made.made_THWC})
            value = None if math.isnan(made.value) else made.value
            record = {"arm": arm_name, "seed": seed, "clip": clip_seed, "value": value}
            append_jsonl(path, record)
            records.append(record)
    write_sheet(out / "frames", held_out[:SHEET_CLIPS], out / "sheet.png")
    return summary(row, name, args, records)


def keep_frames(folder: Path, clip_seed: int, **frames: NDArray[np.uint8]) -> None:
    """Puts some frames of each video side by side into a picture of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames_THWC in frames.items():
        places = np.linspace(0, len(frames_THWC) - 1, SHEET_FRAMES).round().astype(int)
        Image.fromarray(np.concatenate(list(frames_THWC[places]), axis=1)).save(folder / f"{clip_seed}-{name}.png")


def write_sheet(folder: Path, clip_seeds: list[int], path: Path) -> None:
    """The pictures under each other, clip by clip: the truth, the arm with the strategy, the one without."""
    strips = [
        (f"{seed} {name}", folder / f"{seed}-{name}.png") for seed in clip_seeds for name in ("truth", "on", "off")
    ]
    pictures = [np.asarray(Image.open(strip)) for _, strip in strips]
    contact_sheet(pictures, 1, [label for label, _ in strips]).save(path)


def summary(row: Row, name: str, args: argparse.Namespace, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of both arms and the interval of on - off; clips are the sample, seeds their repetitions."""
    values = {
        (record["arm"], record["seed"], record["clip"]): math.nan if record["value"] is None else record["value"]
        for record in records
    }
    pairs = [key[1:] for key in values if key[0] == "on" and ("off", *key[1:]) in values]
    on, off = ([values[arm, *pair] for pair in pairs] for arm in ("on", "off"))
    groups = [clip for _, clip in pairs]
    difference = paired_interval(on, off, groups=groups)
    known = [not math.isnan(a + b) for a, b in zip(on, off, strict=True)]
    means = {arm: mean_interval(list(itertools.compress(list_, known))) for arm, list_ in (("on", on), ("off", off))}
    better = None
    is_enough = args.seeds >= LEAST_SEEDS and (difference["n"] or 0) >= LEAST_CLIPS
    if is_enough and difference["low"] is not None and difference["high"] is not None:
        sign = -1 if row.is_lower_better else 1
        better = min(sign * difference["low"], sign * difference["high"]) > 0
    return {
        "row": name,
        "claim": row.claim,
        "measure": row.unit,
        "lower_is_better": row.is_lower_better,
        "seeds": args.seeds,
        "steps": args.steps,
        "on": means["on"]["mean"],
        "off": means["off"]["mean"],
        "difference": difference,
        "shown": better,
        "without_value": len(known) - sum(known),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", choices=[*ROWS, "all"])
    parser.add_argument("--base", default="bundled", help="the checkpoint that both arms start from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="training steps of an arm")
    parser.add_argument("--train-clips", type=int, default=96)
    parser.add_argument("--clips", type=int, default=16, help="held-out clips")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 96], metavar=("W", "H"))
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--fps", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.seeds < LEAST_SEEDS or args.clips < LEAST_CLIPS:
        enough = f"{LEAST_SEEDS} seeds and {LEAST_CLIPS} clips"
        print(f"fewer than {enough} try the code out: nothing will be called shown", file=sys.stderr)
    rows = list(ROWS) if "all" in args.rows else args.rows
    results = [run_row(name, args) for name in rows]
    if args.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        low, high = result["difference"]["low"], result["difference"]["high"]
        print(f"{result['row']}: {result['measure']} on {result['on']}, off {result['off']}, on - off [{low}, {high}]")


if __name__ == "__main__":
    main()
