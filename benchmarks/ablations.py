"""Does each training strategy do what it is for? Two arms that differ in it alone, on held-out clips, over several seeds.

    python benchmarks/ablations.py mask-strategy --seeds 3 --steps 400 --json

Both arms start from one checkpoint, see the same training clips in the same order for the same steps, and make the same
shots from the same noise. What is measured stands in `ablation_rows.ROWS` before a row is run. Of each held-out clip and
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ablation_rows import ROWS, Arm, Row, Setting, half_size
from checkpoint_shots import Checkpoint, render
from numpy.typing import NDArray
from PIL import Image

from anisora import synthetic
from anisora.evaluation.statistics import mean_interval, paired_interval
from anisora.media.frames import contact_sheet
from anisora.store import append_jsonl, content_hash, read_jsonl

#: fewer are for trying the code out
LEAST_SEEDS, LEAST_CLIPS = 3, 8

#: clips and frames of each on a row's sheet
SHEET_CLIPS, SHEET_FRAMES = 3, 6


def train_arm(arm: Arm, base: str, setting: Setting, out: Path, seed: int) -> Path | None:
    """The export of an arm, trained at the size and length that is measured; None for the base itself."""
    if arm.config is None:
        return None
    from anisora.training import distill, finetune

    more = arm.more(setting)
    data = {**setting.data(), **more.pop("data", {})}
    loop = {"steps": setting.steps, "decay_frac": 0.3, **arm.config.get("loop", {})}
    config = {**arm.config, "model": base, "output": str(out), "seed": seed, "data": data, "loop": loop, **more}
    trainer: Any = distill if config["method"] == "distill" else finetune
    return trainer.main(trainer.load_config(config, "ablation"))


def open_arm(arm: Arm, base: str, export: Path | None, row: Row, like: Checkpoint) -> Checkpoint:
    """The arm's checkpoint at work, making shots of the base's size and length by the row's recipe."""
    from anisora.models.lora import load_lora
    from anisora.training.distill import StudentSettings, student_scheduler

    is_lora = export is not None and (export / "pytorch_lora_weights.safetensors").exists()
    model = base if export is None or is_lora else str(export)
    checkpoint = Checkpoint(model, half_size(like) if arm.makes_small else like.size_px, like.num_frames, like.fps)
    if export is not None and is_lora:
        load_lora(checkpoint.pipeline, export)
    if arm.sampler_of_student:
        scheduler = checkpoint.pipeline.scheduler
        checkpoint.pipeline.scheduler = student_scheduler(scheduler, StudentSettings(steps=arm.sampler_of_student))
    checkpoint.info = replace(checkpoint.info, recipe=replace(checkpoint.info.recipe, **row.recipe))
    return checkpoint


def run_row(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures the arms of a row for every seed, and says what came of it."""
    row = ROWS[name]
    like = Checkpoint(args.base, tuple(args.size), args.frames, args.fps)
    configs = [arm.config for arm in row.arms.values()]
    how = [like.about(), args.train_clips, row.claim, row.unit, *configs, row.recipe]
    out = args.out / name / f"{args.steps}-steps-{content_hash(how)[:8]}"
    setting = Setting(like=like, folder=out, num_clips=args.train_clips, steps=args.steps)
    path = out / "records.jsonl"
    records = read_jsonl(path) if path.exists() else []
    done = {(record["arm"], record["seed"], record["clip"]) for record in records}
    held_out = [
        seed for seed in range(args.first_seed, args.first_seed + args.clips) if seed in synthetic.HELD_OUT_SEEDS
    ]
    base = row.base(setting, args.base) if row.base else args.base
    for seed, (arm_name, arm) in itertools.product(range(args.seeds), row.arms.items()):
        if all((arm_name, seed, clip) in done for clip in held_out):
            continue
        export = train_arm(arm, base, setting, out / f"{arm_name.replace(' ', '-')}-{seed}", seed)
        checkpoint = open_arm(arm, base, export, row, like)
        for clip_seed in [clip for clip in held_out if (arm_name, seed, clip) not in done]:
            clip = render(like, clip_seed, split="reserved", truth=True)
            made = row.measure(checkpoint, clip, clip_seed)
            if seed == 0 and clip_seed in held_out[:SHEET_CLIPS] and arm_name in ("on", "off"):
                keep_frames(out / "frames", clip_seed, truth=made.truth_THWC, **{arm_name: made.made_THWC})
            record = {"arm": arm_name, "seed": seed, "clip": clip_seed}
            record |= {name: none_of_nan(getattr(made, name)) for name in ("value", "detail")}
            append_jsonl(path, record)
            records.append(record)
    sheets = [out / "sheet.png", *([args.sheets / f"{name}.webp"] if args.sheets else [])]
    write_sheet(out / "frames", held_out[:SHEET_CLIPS], sheets)
    return summary(row, name, args, [record for record in records if record["clip"] in held_out])


def keep_frames(folder: Path, clip_seed: int, **frames: NDArray[np.uint8]) -> None:
    """Puts some frames of each video side by side into a picture of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames_THWC in frames.items():
        places = np.linspace(0, len(frames_THWC) - 1, SHEET_FRAMES).round().astype(int)
        Image.fromarray(np.concatenate(list(frames_THWC[places]), axis=1)).save(folder / f"{clip_seed}-{name}.png")


def write_sheet(folder: Path, clip_seeds: list[int], paths: list[Path]) -> None:
    """The pictures under each other, clip by clip: the truth, the arm with the strategy, the one without."""
    strips = [
        (f"{seed} {name}", folder / f"{seed}-{name}.png") for seed in clip_seeds for name in ("truth", "on", "off")
    ]
    pictures = [np.asarray(Image.open(strip)) for _, strip in strips]
    sheet = contact_sheet(pictures, 1, [label for label, _ in strips])
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, quality=85)


def none_of_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def summary(row: Row, name: str, args: argparse.Namespace, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the arms and the interval of on - off, and of on - each control; clips are the sample, seeds their
    repetitions."""
    values = {
        (record["arm"], record["seed"], record["clip"]): math.nan if record["value"] is None else record["value"]
        for record in records
    }
    off = compared(row, args, values, "off")
    details = {
        arm: mean_interval([r["detail"] for r in records if r["arm"] == arm and r.get("detail") is not None])["mean"]
        for arm in row.arms
    }
    return {
        "row": name,
        "claim": row.claim,
        "measure": row.unit,
        "lower_is_better": row.is_lower_better,
        "seeds": args.seeds,
        "steps": args.steps,
        **off,
        "controls": {arm: compared(row, args, values, arm) for arm in row.controls},
        "fine_detail_over_truth": {arm: detail for arm, detail in details.items() if detail is not None},
    }


def compared(
    row: Row, args: argparse.Namespace, values: dict[tuple[str, int, int], float], other: str
) -> dict[str, Any]:
    """Means of the arm with the strategy and of another, their paired difference, and whether it is shown."""
    pairs = [key[1:] for key in values if key[0] == "on" and (other, *key[1:]) in values]
    on, off = ([values[arm, *pair] for pair in pairs] for arm in ("on", other))
    groups = [clip for _, clip in pairs]
    difference = paired_interval(on, off, groups=groups)
    known = [not math.isnan(a + b) for a, b in zip(on, off, strict=True)]
    on_mean, off_mean = (mean_interval(list(itertools.compress(list_, known)))["mean"] for list_ in (on, off))
    better = None
    is_enough = args.seeds >= LEAST_SEEDS and (difference["n"] or 0) >= LEAST_CLIPS
    if is_enough and difference["low"] is not None and difference["high"] is not None:
        sign = -1 if row.is_lower_better else 1
        better = min(sign * difference["low"], sign * difference["high"]) > 0
    return {
        "on": on_mean,
        "off": off_mean,
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
    parser.add_argument("--first-seed", type=int, default=synthetic.HELD_OUT_SEEDS.start, help="of them")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 96], metavar=("W", "H"))
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--fps", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument(
        "--sheets", type=Path, default=None, metavar="DIR", help="also write each row's sheet to DIR/ROW.webp"
    )
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
