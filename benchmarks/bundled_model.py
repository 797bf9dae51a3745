"""How good a checkpoint is, on clips whose every frame is known: one JSON object.

    python benchmarks/bundled_model.py --first-seed 9000 --clips 24 --json
    python benchmarks/bundled_model.py --clips 64 --keep runs/bench --json   # frames of every arm stay; resumable
    python benchmarks/bundled_model.py --from runs/bench --json              # the same figures from those files

Each seed gives one synthetic clip, by turns of the kinds seen in training and of those reserved for measuring, and the
checkpoint makes from it: in-betweens of its first and last frame (with the recipe of `anisora generate` without flags,
and in one step), a shot through three guides, and a shot from its first frame alone with a motion area, with the same
area but without compositing, and without any area, from the same noise. Beside these stand what the VAE makes of the
truth, a cross-fade through the same VAE, an uncompressed cross-fade, an optical-flow warp and the best linear code.
What each figure is, is said in `clip_figures` and in docs/benchmark.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # for `python -m` and tests; a script has it already

import clip_record
from clip_figures import INBETWEEN_ARMS, Figures, measure_clip

from anisora.evaluation.statistics import paired_interval

#: Ratios and pops are summed up by their median: one clip that hardly moves must not decide.
BY_MEDIAN = ("motion_ratio", "i2v.motion_ratio", "guide_pop", "blend_residual", "i2v.brightness_drift")

#: (name, a, b): clip by clip a - b, with its interval. The fade is the one through the VAE, the guided one also through the
#: guide decoder.
PAIRS = (
    ("perceptual: model - fade", "inbetween.perceptual.model", "inbetween.perceptual.vae_cross_fade"),
    ("perceptual: model - guided fade", "inbetween.perceptual.model", "inbetween.perceptual.guided_cross_fade"),
    ("psnr_db: model - guided fade", "inbetween.psnr_db.model", "inbetween.psnr_db.guided_cross_fade"),
    ("latent_mse: model - fade", "inbetween.latent_mse.model", "inbetween.latent_mse.vae_cross_fade"),
    ("latent_mse: one step - fade", "inbetween.latent_mse.model_one_step", "inbetween.latent_mse.vae_cross_fade"),
    ("psnr_db: model - fade", "inbetween.psnr_db.model", "inbetween.psnr_db.vae_cross_fade"),
    ("psnr_db: one step - fade", "inbetween.psnr_db.model_one_step", "inbetween.psnr_db.vae_cross_fade"),
    ("psnr_db: model - flow_warp", "inbetween.psnr_db.model", "inbetween.psnr_db.flow_warp"),
    ("perceptual: model - flow_warp", "inbetween.perceptual.model", "inbetween.perceptual.flow_warp"),
    ("mask precision: raw - no control", "mask.precision_raw", "mask.precision_no_control"),
    ("mask leakage: raw - no control", "mask.leakage_raw", "mask.leakage_no_control"),
)  # fmt: skip


def main() -> None:
    options = parse()
    if options.source:
        about, clips = read_run(options.source)
        print_result(summarise(about, clips), options.json)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = options.keep or Path(scratch)
        record_run(run, options)
        about, clips = read_run(run)
        print_result(summarise(about, clips), options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=9000, metavar="N")
    parser.add_argument("--clips", type=int, default=24, metavar="K", help="seeds N to N+K-1, one clip each")
    parser.add_argument("--size", type=int, default=96, metavar="PX", help="side of the square clips")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--fps", type=int, help="default: the checkpoint's own rate")
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the frames of every arm; run again to go on")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="measure what --keep wrote")
    parser.add_argument("--randomise-dit", action="store_true", help="random transformer weights: what must get worse")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else there")
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------------- making the shots


def record_run(run: Path, options: argparse.Namespace) -> None:
    """Makes the shots of every seed that is not yet finished in `run`, and writes them there."""
    from checkpoint_shots import Checkpoint, linear_code_for, make_record

    checkpoint = Checkpoint(options.model, (options.size, options.size), options.frames, options.fps)
    if options.randomise_dit:
        checkpoint.randomise_transformer()
    about = checkpoint.about() | {"randomised_dit": options.randomise_dit}
    same_run(run, about)
    code = linear_code_for(checkpoint)
    for seed in range(options.first_seed, options.first_seed + options.clips):
        if not (clip_record.clip_folder(run, seed) / "clip.json").exists():
            start = time.perf_counter()
            clip_record.write(make_record(checkpoint, seed, code), run)
            tell(f"clip {seed - options.first_seed + 1} of {options.clips}: {time.perf_counter() - start:.1f} s")


def same_run(run: Path, about: dict[str, Any]) -> None:
    """Writes run.json, or makes sure that the clips already in the folder were made in the same way."""
    path = run / "run.json"
    if path.exists():
        before = json.loads(path.read_text())
        if different := [key for key in about if before.get(key) != about[key]]:
            sys.exit(f"{run} holds clips of another run: {', '.join(different)} differ; give another --keep folder")
        return
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=2) + "\n")


# --------------------------------------------------------------------------------------------------------- summing up


def read_run(run: Path) -> tuple[dict[str, Any], list[tuple[dict[str, Any], Figures]]]:
    """What run.json says, and (clip.json, figures) of every finished clip."""
    folders = clip_record.finished(run)
    if not folders:
        sys.exit(f"no finished clips in {run}: expected DIR/clips/SEED/clip.json, as --keep DIR writes them")
    clips = []
    for index, folder in enumerate(folders):
        record = clip_record.read(folder)
        clips.append((record.about, measure_clip(record)))
        tell(f"measured {index + 1} of {len(folders)}")
    return json.loads((run / "run.json").read_text()), clips


def summarise(about: dict[str, Any], clips: list[tuple[dict[str, Any], Figures]]) -> dict[str, Any]:
    """The object that is printed."""
    from anisora.measures import perceptual

    seeds = [clip["seed"] for clip, _ in clips]
    by_split = {
        split: [figures for clip, figures in clips if clip["split"] == split]
        for split in sorted({clip["split"] for clip, _ in clips})
    }
    figures = [each for _, each in clips]
    return {
        "benchmark": "bundled_model/1",
        **about,
        "clips": len(clips),
        "seeds": {"first": min(seeds), "last": max(seeds), **held_out(about, seeds)},
        **nest(sum_up(figures)),
        "motion_ratio_in_band_share": share_between(figures, "motion_ratio.model", 0.6, 1.4),
        "guide_pop_share": {
            "inner": share_between(figures, "guide_pop.inner", 0, 1.5),
            "inner_truth": share_between(figures, "guide_pop.inner_truth", 0, 1.5),
            "ends": share_between(figures, "guide_pop.ends", 0, 1.5),
            "ends_truth": share_between(figures, "guide_pop.ends_truth", 0, 1.5),
        },
        "paired_95": {name: paired(figures, a, b) for name, a, b in PAIRS},
        "by_split": {
            split: {"clips": len(part), **nest(sum_up(part)), "paired_95": {n: paired(part, a, b) for n, a, b in PAIRS}}
            for split, part in by_split.items()
        },
        "targets": targets(figures),
        "not_measurable": {
            name: missing for name in names(figures) if (missing := len(figures) - count(figures, name))
        },
        "seconds_per_shot": float(np.median([clip["seconds"]["model"] for clip, _ in clips])),
        "seconds_per_clip": float(np.median([clip["seconds"]["clip"] for clip, _ in clips])),
        "peak_rss_bytes": max(clip["peak_rss_bytes"] for clip, _ in clips),
        "perceptual_weights_sha256": perceptual.weights_sha256(),
    }


def targets(figures: list[Figures]) -> list[dict[str, Any]]:
    """The project's targets, what was reached, and whether that is enough. A target without a figure is not met."""
    value = sum_up(figures)
    precision = paired(figures, "mask.precision_raw", "mask.precision_no_control")
    rows: list[tuple[str, float | None, str, Callable[[float], bool]]] = [
        ("guide frames below the VAE's own reconstruction, dB", value.get("guide_gap_db"), "<= 1", lambda x: x <= 1),
        *(
            (
                f"in-between {metric} over that of the cross-fade through the VAE",
                _over(value, f"inbetween.{metric}.model", f"inbetween.{metric}.vae_cross_fade"),
                "< 1",
                lambda x: x < 1,
            )
            for metric in ("perceptual", "latent_mse")
        ),
        ("in-between perceptual over that of the cross-fade through the VAE and the guide decoder",
         _over(value, "inbetween.perceptual.model", "inbetween.perceptual.guided_cross_fade"), "< 1", lambda x: x < 1),
        ("fine detail over the VAE-reconstructed truth", value.get("inbetween.hf_energy.model"), "0.8 to 1.2",
         lambda x: 0.8 <= x <= 1.2),
        ("amount of motion over the truth, median", value.get("motion_ratio.model"), "0.6 to 1.4",
         lambda x: 0.6 <= x <= 1.4),
        ("share of clips with it in 0.6 to 1.4", share_between(figures, "motion_ratio.model", 0.6, 1.4), ">= 0.6",
         lambda x: x >= 0.6),
        ("residual beyond a blend over that of the truth", value.get("blend_residual_ratio.model"), ">= 0.5",
         lambda x: x >= 0.5),
        ("the same beyond what the codec leaves of a fade", value.get("blend_residual_beyond_codec"), ">= 0.5",
         lambda x: x >= 0.5),
        ("step at an inner guide over its neighbours", value.get("guide_pop.inner"), "<= 1.5", lambda x: x <= 1.5),
        ("step at the first and last guide over its neighbours", value.get("guide_pop.ends"), "<= 1.5",
         lambda x: x <= 1.5),
        ("mask precision, raw - no control, lower end of the 95 % interval", precision["low"], "> 0", lambda x: x > 0),
        ("composited: largest difference outside the area", max_of(figures, "mask.outside_max_difference"), "0",
         lambda x: x == 0),
        ("share of the change in the mask that flow explains", value.get("mask.explained_by_flow_raw"), ">= 0.5",
         lambda x: x >= 0.5),
    ]  # fmt: skip
    return [
        {"target": name, "reached": reached, "wanted": wanted, "met": reached is not None and met(reached)}
        for name, reached, wanted, met in rows
    ]


def sum_up(figures: list[Figures]) -> dict[str, float]:
    """One number per figure over the clips that have it: the mean, or the median for `BY_MEDIAN`."""
    return {
        name: float((np.median if name.startswith(BY_MEDIAN) else np.mean)(values_of(figures, name)))
        for name in names(figures)
        if count(figures, name)
    }


def values_of(figures: Iterable[Figures], name: str) -> list[float]:
    """The values of one figure; clips without it are left out."""
    return [each[name] for each in figures if not math.isnan(each.get(name, math.nan))]


def names(figures: Iterable[Figures]) -> list[str]:
    return list(dict.fromkeys(name for each in figures for name in each))


def count(figures: Iterable[Figures], name: str) -> int:
    return len(values_of(figures, name))


def max_of(figures: list[Figures], name: str) -> float | None:
    return max(values_of(figures, name), default=None)


def share_between(figures: list[Figures], name: str, low: float, high: float) -> float | None:
    """The share of the clips that have a figure in which it lies between two bounds."""
    values = values_of(figures, name)
    return sum(low <= value <= high for value in values) / len(values) if values else None


def paired(figures: list[Figures], a: str, b: str) -> dict[str, float | int | None]:
    pick = [(each.get(a, math.nan), each.get(b, math.nan)) for each in figures]
    return paired_interval([x for x, _ in pick], [y for _, y in pick])


def _over(value: dict[str, float], a: str, b: str) -> float | None:
    return value[a] / value[b] if a in value and value.get(b) else None


def held_out(about: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """Whether the checkpoint was trained on any of these seeds; None where it does not say on which it was."""
    if not (trained := about.get("training_seeds")):
        return {"trained_on": None, "overlap": None, "held_out": None}
    overlap = sum(trained[0] <= seed < trained[1] for seed in seeds)
    return {"trained_on": trained, "overlap": overlap, "held_out": overlap == 0}


def nest(flat: dict[str, float]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree


# ------------------------------------------------------------------------------------------------------------ printing


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False))
        return
    print(f"{result['clips']} clips, seeds {result['seeds']['first']} to {result['seeds']['last']}, {result['model']}")
    print(f"VAE {result['vae_psnr_db']:.2f} dB, best linear code of its rate {result['pca_psnr_db']:.2f} dB\n")
    print(f"{'':16s}" + "".join(f"{arm:>16s}" for arm in INBETWEEN_ARMS))
    for metric, by_arm in result["inbetween"].items():
        print(f"{metric:22s}" + "".join(f"{by_arm.get(arm, math.nan):16.4f}" for arm in INBETWEEN_ARMS))
    print()
    for row in result["targets"]:
        reached = "not measured" if row["reached"] is None else f"{row['reached']:.3f}"
        print(f"{'ok ' if row['met'] else 'NOT'}  {row['target']}: {reached} (wanted {row['wanted']})")
    print(f"\n{result['seconds_per_shot']:.1f} s a shot, {result['peak_rss_bytes'] / 1e9:.2f} GB resident at most")
    for name, interval in result["paired_95"].items():
        if interval["n"]:
            print(f"{name}: {interval['mean']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})")


if __name__ == "__main__":
    main()
