"""Does each training strategy do what it is for? Two arms that differ in it alone, on held-out clips, over several seeds.

    python benchmarks/ablations.py mask-strategy --seeds 3 --steps 400 --json

Both arms start from one checkpoint, see the same training clips in the same order for the same steps, and make the same
shots from the same noise. What is measured stands in `ROWS` and was chosen before any run. Of each held-out clip and
seed one value an arm; the interval is of their paired difference, with clips as the sample. Runs are resumed: a folder
OUT/ROW/STEPS-steps-HASH/ for each way of running a row holds the clips, the runs and records.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_shots import Checkpoint, motion_area, render

from anisora import synthetic
from anisora.evaluation.statistics import mean_interval, paired_interval
from anisora.media.writer import write_video
from anisora.store import append_jsonl, content_hash, read_jsonl

#: fewer are for trying the code out
LEAST_SEEDS, LEAST_CLIPS = 3, 8

#: measure(checkpoint, rendered clip, seed) -> a value of one shot; NaN where it has none
Measure = Callable[[Checkpoint, Any, int], float]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one arm is trained: fields laid over the row's config; None is the base as it is."""

    config: dict[str, Any] | None
    is_paired_with_masks: bool = False


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


def in_between_distance(checkpoint: Checkpoint, clip: Any, seed: int) -> float:
    """Perceptual distance to the truth of the frames between a first and a last guide."""
    from anisora.measures.perceptual import perceptual_distance

    truth = clip.video_THWC
    ends = {0: truth[0], len(truth) - 1: truth[-1]}
    made, _ = checkpoint.shot(clip.caption, ends, seed)
    return float(perceptual_distance(made, truth)[1:-1].mean())


def mask_precision(checkpoint: Checkpoint, clip: Any, seed: int) -> float:
    """Share of what moved that lies in the motion area, without compositing; NaN where nothing moved."""
    from anisora.measures.motion import mask_motion

    area_HW = motion_area(clip.truth)
    if not area_HW.any() or area_HW.all():
        return math.nan
    mask = area_HW.astype(np.float32)
    made, _ = checkpoint.shot(clip.caption, {0: clip.video_THWC[0]}, seed, motion_mask=mask, composite=False)
    return mask_motion(made, area_HW).precision


LORA = {"method": "lora", "lora": {"rank": 16}, "loop": {"learning_rate": 5e-4, "warmup_steps": 20}}

ROWS = {
    "mask-strategy": Row(
        claim="guides drawn at any frame teach in-betweening; frame 0 alone does not",
        measure=in_between_distance,
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA),
        off=Arm(config={**LORA, "conditions": {"given": "first"}}),
    ),
    "motion-lora": Row(
        claim="a LoRA on video-mask pairs keeps what lies outside of the area still",
        measure=mask_precision,
        unit="mask precision",
        is_lower_better=False,
        on=Arm(config={**LORA, "conditions": {"motion_area_prob": 0.9}}, is_paired_with_masks=True),
        off=Arm(config={**LORA, "conditions": {"given": "first"}}),
    ),
    "few-step": Row(
        claim="at 8 steps and guidance 1 the student is nearer to the truth than its teacher",
        measure=in_between_distance,
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config={"method": "distill", "student": {"steps": 8}, "loop": {"learning_rate": 2e-5}}),
        off=Arm(config=None),
        recipe={"steps": 8, "guidance": 1.0, "guidance_2": None},
    ),
}


def training_clips(folder: Path, checkpoint: Checkpoint, count: int) -> Path:
    """A folder of `count` drawn clips with captions at the checkpoint's size and rate, from the seeds for training."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in itertools.islice(synthetic.TRAIN_SEEDS, count):
        path = folder / f"{seed:06d}.mp4"
        if not path.with_suffix(".txt").exists():  # written last
            clip = render(checkpoint, seed, split="train")
            write_video(path, clip.video_THWC, checkpoint.fps)
            path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")
    return folder


def train_arm(arm: Arm, base: str, like: Checkpoint, clips: Path, out: Path, seed: int, steps: int) -> Path | None:
    """The export of an arm, trained at the size and length that is measured; None for the base itself."""
    if arm.config is None:
        return None
    from anisora.training import distill, finetune
    from anisora.training.masks import build_masks

    data: dict[str, Any] = {"videos": str(clips), "batch": 4, "workers": 1}
    data |= {"sizes": [list(like.size_px)], "frames": [like.num_frames], "fps": float(like.fps)}
    if arm.is_paired_with_masks:
        build_masks([clips], clips.with_name("pairs"))
        data["pairs"] = str(clips.with_name("pairs"))
    loop = {"steps": steps, "decay_frac": 0.3, **arm.config.get("loop", {})}
    config = {**arm.config, "model": base, "output": str(out), "seed": seed, "data": data, "loop": loop}
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
    how = [args.base, args.size, args.frames, args.fps, args.train_clips]
    out = args.out / name / f"{args.steps}-steps-{content_hash(how)[:8]}"
    like = Checkpoint(args.base, tuple(args.size), args.frames, args.fps)
    clips = training_clips(out / "clips", like, args.train_clips)
    path = out / "records.jsonl"
    records = read_jsonl(path) if path.exists() else []
    done = {(record["arm"], record["seed"], record["clip"]) for record in records}
    held_out = list(itertools.islice(synthetic.HELD_OUT_SEEDS, args.clips))
    for seed, (arm_name, arm) in itertools.product(range(args.seeds), [("on", row.on), ("off", row.off)]):
        if all((arm_name, seed, clip) in done for clip in held_out):
            continue
        export = train_arm(arm, args.base, like, clips, out / f"{arm_name}-{seed}", seed, args.steps)
        checkpoint = open_arm(args.base, export, row, like)
        for clip_seed in held_out:
            if (arm_name, seed, clip_seed) in done:
                continue
            clip = render(like, clip_seed, split="reserved", truth=True)
            value = row.measure(checkpoint, clip, clip_seed)
            record = {"arm": arm_name, "seed": seed, "clip": clip_seed, "value": None if math.isnan(value) else value}
            append_jsonl(path, record)
            records.append(record)
    return summary(row, name, args, records)


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
