"""How good a checkpoint is, on clips whose every frame is known: one JSON object.

    python benchmarks/bundled_model.py --first-seed 9000 --clips 24 --json
    python benchmarks/bundled_model.py --clips 64 --keep runs/bench --json   # frames of every arm stay; resumable
    python benchmarks/bundled_model.py --from runs/bench --json              # the same figures from those files
    python benchmarks/bundled_model.py --keep runs/bench --arms guides rife actions    # and what the usual run leaves out
    python benchmarks/bundled_model.py --compare trained.json randomised.json          # what the trained network adds
    python benchmarks/bundled_model.py --clips 256 --keep runs/bench --workers 2       # two clips at a time

Each seed gives one synthetic clip, by turns of the kinds seen in training and of those reserved for measuring, and the
checkpoint makes from it: in-betweens of its first and last frame (with the recipe of `anisora generate` without flags,
and in one step), a shot through three guides, and a shot from its first frame alone with a motion area, with the same
area but without compositing, and without any area, from the same noise. Beside these stand what the VAE makes of the
truth, a cross-fade through the same VAE, an uncompressed cross-fade, an optical-flow warp and the best linear code.
`--arms` adds groups that take longer (`extra_arms`), to the clips of an earlier run too. What each figure is, is said in
`clip_figures` and in docs/benchmark.md.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # for `python -m` and tests; a script has it already

import clip_record
from clip_figures import COUNTS, GUIDED_ARMS, INBETWEEN_ARMS, Figures, measure_clip

from anisora import synthetic
from anisora.evaluation.statistics import Interval, mean_interval, paired_interval

#: What is wanted of a figure: in words, and as a test.
Bound = tuple[str, Callable[[float], bool]]

#: (name, what was reached, what is wanted at least, what is aimed at)
Target = tuple[str, float | None, Bound | None, Bound | None]

#: Ratios and pops are summed up by their median: one clip that hardly moves must not decide.
BY_MEDIAN = ("motion_ratio", "motion_along", "i2v.motion_ratio", "guide_pop", "blend_residual", "i2v.brightness_drift")

#: What two to five guides are compared by, and whether more of it is better.
GUIDED_METRICS = {"psnr_db": True, "ssim": True, "perceptual": False, "latent_mse": False}

#: With fewer, five guides leave no frame to compare.
LEAST_FRAMES = 9

#: Each number of guides and the one before, and the most against the fewest.
GUIDE_STEPS = (*((more, fewer) for fewer, more in itertools.pairwise(COUNTS)), ("five", "two"))

#: Figures whose values of every clip are in the JSON, so that two runs can be compared clip by clip.
PER_CLIP = (
    *(f"inbetween.{metric}.{arm}" for metric in GUIDED_METRICS for arm in ("model", "model_one_step", "vae_cross_fade")),
    "motion_ratio.model", "motion_along.model", "i2v.perceptual", "actions.recognised", "actions.shuffled", "actions.chosen",
)  # fmt: skip

#: (name, a, b): clip by clip a - b, with its interval. The fade is the one through the VAE, the guided one also through the
#: guide decoder.
PAIRS = (
    ("perceptual: model - fade", "inbetween.perceptual.model", "inbetween.perceptual.vae_cross_fade"),
    ("perceptual: model - guided fade", "inbetween.perceptual.model", "inbetween.perceptual.guided_cross_fade"),
    ("psnr_db: model - guided fade", "inbetween.psnr_db.model", "inbetween.psnr_db.guided_cross_fade"),
    ("latent_mse: model - fade", "inbetween.latent_mse.model", "inbetween.latent_mse.vae_cross_fade"),
    ("latent_mse: one step - fade", "inbetween.latent_mse.model_one_step", "inbetween.latent_mse.vae_cross_fade"),
    ("psnr_db: model - fade", "inbetween.psnr_db.model", "inbetween.psnr_db.vae_cross_fade"),
    ("motion along the truth: model - guided fade", "motion_along.model", "motion_along.guided_cross_fade"),
    ("motion along the truth: model - flow_warp", "motion_along.model", "motion_along.flow_warp"),
    ("psnr_db: one step - fade", "inbetween.psnr_db.model_one_step", "inbetween.psnr_db.vae_cross_fade"),
    ("psnr_db: model - flow_warp", "inbetween.psnr_db.model", "inbetween.psnr_db.flow_warp"),
    ("perceptual: model - flow_warp", "inbetween.perceptual.model", "inbetween.perceptual.flow_warp"),
    ("ssim: model - flow_warp", "inbetween.ssim.model", "inbetween.ssim.flow_warp"),
    ("latent_mse: model - flow_warp", "inbetween.latent_mse.model", "inbetween.latent_mse.flow_warp"),
    ("psnr_db: model - rife", "inbetween.psnr_db.model", "inbetween.psnr_db.rife"),
    ("ssim: model - rife", "inbetween.ssim.model", "inbetween.ssim.rife"),
    ("perceptual: model - rife", "inbetween.perceptual.model", "inbetween.perceptual.rife"),
    ("latent_mse: model - rife", "inbetween.latent_mse.model", "inbetween.latent_mse.rife"),
    *(
        (f"{metric}, {count} guides: model - {arm}", f"guided.{metric}.model.{count}", f"guided.{metric}.{arm}.{count}")
        for arm in ("flow_warp", "rife")
        for metric in GUIDED_METRICS
        for count in COUNTS
    ),
    *(
        (f"{metric}: {more} guides - {fewer}", f"guided.{metric}.model.{more}", f"guided.{metric}.model.{fewer}")
        for metric in GUIDED_METRICS
        for more, fewer in GUIDE_STEPS
    ),
    ("actions: asked for - shuffled", "actions.recognised", "actions.shuffled"),
    ("mask precision: raw - no control", "mask.precision_raw", "mask.precision_no_control"),
    ("mask leakage: raw - no control", "mask.leakage_raw", "mask.leakage_no_control"),
)  # fmt: skip


def main() -> None:
    options = parse()
    if options.compare:
        print_comparison(compare(*map(read_output, options.compare)), options.json)
        return
    if options.source:
        about, clips = read_run(options.source, options.workers)
        print_result(summarise(about, clips), options.json)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = options.keep or Path(scratch)
        record_run(run, options)
        about, clips = read_run(run, options.workers)
        print_result(summarise(about, clips), options.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=9000, metavar="N")
    parser.add_argument("--clips", type=int, default=24, metavar="K", help="seeds N to N+K-1, one clip each")
    parser.add_argument("--size", type=int, default=96, metavar="PX", help="side of the square clips")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--fps", type=int, help="default: the checkpoint's own rate")
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument(
        "--corpus-version", type=int, default=synthetic.TRAINED_VERSION, choices=synthetic.VERSIONS, help="of the clips"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the frames of every arm; run again to go on")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="measure what --keep wrote")
    parser.add_argument("--randomise-dit", action="store_true", help="random transformer weights: what must get worse")
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=("guides", "rife", "actions"),
        default=[],
        metavar="GROUP",
        help="optional arms too: two to five guides; RIFE (its weights are fetched); actions by prompt",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("TRAINED.json", "RANDOMISED.json"),
        help="two outputs of --json, one of them with --randomise-dit: what the trained network adds, clip by clip",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that make and measure clips")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else there")
    options = parser.parse_args()
    if options.arms and options.source:
        parser.error("--from measures what is there; --arms goes with --keep, also to add to clips that are made")
    if options.workers < 1:
        parser.error(f"--workers: expected 1 or more, got {options.workers}")
    if {"guides", "rife"} & set(options.arms) and options.frames < LEAST_FRAMES:
        parser.error(f"five guides want shots of {LEAST_FRAMES} frames or more: got --frames {options.frames}")
    if "rife" in options.arms and "guides" not in options.arms:
        options.arms = ["guides", *options.arms]  # RIFE is compared with the checkpoint at every number of guides
    return options


# ---------------------------------------------------------------------------------------------------- making the shots


def record_run(run: Path, options: argparse.Namespace) -> None:
    """Makes the shots of every seed that is not yet finished in `run`, and writes them there."""
    seeds = range(options.first_seed, options.first_seed + options.clips)
    own = [seeds[first :: options.workers] for first in range(options.workers)]
    checkpoint = open_checkpoint(options)
    same_run(run, checkpoint.about() | {"randomised_dit": options.randomise_dit})
    if options.workers == 1:
        make_clips(run, options, seeds, checkpoint)
        return
    del checkpoint
    with spawned(options.workers) as pool:
        list(pool.map(make_clips, [run] * len(own), [options] * len(own), own))


def open_checkpoint(options: argparse.Namespace) -> Any:
    """The checkpoint that is measured, at the size that is asked for."""
    from checkpoint_shots import Checkpoint

    size_px = options.size, options.size
    checkpoint = Checkpoint(options.model, size_px, options.frames, options.fps, options.corpus_version)
    if options.randomise_dit:
        checkpoint.randomise_transformer()
    return checkpoint


def make_clips(run: Path, options: argparse.Namespace, seeds: range, checkpoint: Any = None) -> None:
    """The clips of some seeds, and their optional arms; those that are there already are left as they are."""
    from checkpoint_shots import linear_code_for, make_record

    checkpoint = checkpoint or open_checkpoint(options)
    code = linear_code_for(checkpoint)
    for seed in seeds:
        if not (clip_record.clip_folder(run, seed) / "clip.json").exists():
            start = time.perf_counter()
            clip_record.write(make_record(checkpoint, seed, code), run)
            tell(f"clip {seed - options.first_seed + 1} of {options.clips}: {time.perf_counter() - start:.1f} s")
        if options.arms:
            add_arms(checkpoint, clip_record.clip_folder(run, seed), options.arms)


def spawned(workers: int) -> ProcessPoolExecutor:
    """So many fresh processes, one thread each: forked ones would inherit torch's threads."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=one_thread)


def one_thread() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def add_arms(checkpoint: Any, folder: Path, names: list[str]) -> None:
    """Makes the groups of optional arms that a clip does not have yet."""
    import extra_arms

    for name in names:
        if not clip_record.has_extra(folder, name):
            extra = extra_arms.make(name, checkpoint, clip_record.read(folder))
            clip_record.write_extra(folder, name, extra)
            tell(f"clip {folder.name}, {name}: {extra.about['seconds']:.1f} s")


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


def read_run(run: Path, workers: int = 1) -> tuple[dict[str, Any], list[tuple[dict[str, Any], Figures]]]:
    """What run.json says, and (clip.json, figures) of every finished clip."""
    folders = clip_record.finished(run)
    if not folders:
        sys.exit(f"no finished clips in {run}: expected DIR/clips/SEED/clip.json, as --keep DIR writes them")
    with contextlib.ExitStack() as stack:
        each = map if workers == 1 else stack.enter_context(spawned(workers)).map
        clips = []
        for index, measured in enumerate(each(measure_folder, folders)):
            clips.append(measured)
            tell(f"measured {index + 1} of {len(folders)}")
    return json.loads((run / "run.json").read_text()), clips


def measure_folder(folder: Path) -> tuple[dict[str, Any], Figures]:
    """clip.json of one clip, and its figures."""
    record = clip_record.read(folder)
    return record.about, measure_clip(record)


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
        "paired_95": {name: paired(figures, a, b) for name, a, b in pairs_of(figures)},
        "by_split": {
            split: {
                "clips": len(part),
                **nest(sum_up(part)),
                "paired_95": {n: paired(part, a, b) for n, a, b in pairs_of(part)},
            }
            for split, part in by_split.items()
        },
        "by_action": by_action(clips),
        **({"prompts_95": prompts_95(about, figures)} if count(figures, "actions.recognised") else {}),
        "targets": targets(figures, about),
        "per_clip": per_clip(seeds, figures),
        "not_measurable": {
            name: missing for name in names(figures) if (missing := len(figures) - count(figures, name))
        },
        "seconds_per_shot": float(np.median([clip["seconds"]["model"] for clip, _ in clips])),
        "seconds_per_clip": float(np.median([clip["seconds"]["clip"] for clip, _ in clips])),
        "peak_rss_bytes": max(clip["peak_rss_bytes"] for clip, _ in clips),
        "perceptual_weights_sha256": perceptual.weights_sha256(),
    }


def by_action(clips: list[tuple[dict[str, Any], Figures]]) -> dict[str, Any]:
    """The usual figures of the clips of each action; prompts are given to other scenes, and have their own."""
    parts: dict[str, list[Figures]] = {}
    for clip, figures in clips:
        kept = {name: value for name, value in figures.items() if not name.startswith("actions.")}
        parts.setdefault(clip["action"], []).append(kept)
    return {action: {"clips": len(part), **nest(sum_up(part))} for action, part in sorted(parts.items())}


def prompts_95(about: dict[str, Any], figures: list[Figures]) -> dict[str, Any]:
    """How often the action of a prompt is recognised, with intervals over first frames, and how good the judge is."""
    from action_classifier import ASKED, Shape, judge_for

    told = (
        "recognised",
        "shuffled",
        "chosen",
        "first_frame.recognised",
        "first_frame.chosen",
        "own",
        "other",
        "truth_asked",
        "truth",
        "truth_vae",
    )
    shape = Shape(
        size_px=tuple(about["size_px"]),
        num_frames=about["frames"],
        fps=about["fps"],
        corpus_version=about["corpus_version"],
    )
    judge = judge_for(shape)
    return {
        "actions": len(shape.actions),
        "chance": 1 / len(shape.actions),
        "prompts_a_frame": ASKED,
        "chosen_chance": 1 / ASKED,
        **{name: mean_interval(values_of(figures, f"actions.{name}")) for name in told},
        "judge": judge.accuracy,
    }


def per_clip(seeds: list[int], figures: list[Figures]) -> dict[str, Any]:
    """`PER_CLIP` of every clip; null where it has none."""
    known = [name for name in PER_CLIP if count(figures, name)]
    return {"seeds": seeds} | {name: [_or_none(each.get(name, math.nan)) for each in figures] for name in known}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def at_least(bound: float) -> Bound:
    return f">= {bound:g}", lambda value: value >= bound


def at_most(bound: float) -> Bound:
    return f"<= {bound:g}", lambda value: value <= bound


def above(bound: float) -> Bound:
    return f"> {bound:g}", lambda value: value > bound


def below(bound: float) -> Bound:
    return f"< {bound:g}", lambda value: value < bound


def within(low: float, high: float) -> Bound:
    return f"{low:g} to {high:g}", lambda value: low <= value <= high


def targets(figures: list[Figures], about: dict[str, Any]) -> list[dict[str, Any]]:
    """What the project wants at least and aims at, what was reached, and whether that is enough. A target without a
    figure is not met; null where there is nothing wanted, or nothing more."""
    prompted = _prompt_targets(figures, about["corpus_version"])
    rows = [*_usual_targets(figures), *_comparisons(figures, about["frames"]), *prompted]
    return [_row(*row) for row in rows]


def _row(name: str, reached: float | None, wanted: Bound | None, goal: Bound | None) -> dict[str, Any]:
    return {
        "target": name,
        "reached": reached,
        "wanted": wanted and wanted[0],
        "met": _is_met(reached, wanted),
        "goal": goal and goal[0],
        "goal_met": _is_met(reached, goal),
    }


def _is_met(reached: float | None, bound: Bound | None) -> bool | None:
    return None if bound is None else reached is not None and bound[1](reached)


def _usual_targets(figures: list[Figures]) -> list[Target]:
    value = sum_up(figures)
    precision = paired(figures, "mask.precision_raw", "mask.precision_no_control")
    along = paired(figures, "motion_along.model", "motion_along.flow_warp")
    fade = "inbetween.{}.vae_cross_fade"
    return [
        ("VAE above the best linear code of its rate, dB", _minus(value, "vae_psnr_db", "pca_psnr_db"),
         at_least(2), at_least(5)),
        ("the same, of weights trained on CPUs alone, dB", _minus(value, "vae_psnr_db", "pca_psnr_db"), at_least(1), None),
        ("guide frames below the VAE's own reconstruction, dB", value.get("guide_gap_db"), at_most(1), at_most(0.3)),
        *(
            (
                f"in-between {metric} over that of the cross-fade through the VAE",
                _over(value, f"inbetween.{metric}.model", fade.format(metric)), below(1), None,
            )
            for metric in ("perceptual", "latent_mse")
        ),
        ("in-between perceptual over that of the cross-fade through the VAE and the guide decoder",
         _over(value, "inbetween.perceptual.model", "inbetween.perceptual.guided_cross_fade"), below(1), None),
        ("fine detail over the VAE-reconstructed truth", value.get("inbetween.hf_energy.model"), within(0.8, 1.2), None),
        ("amount of motion over the truth, median", value.get("motion_ratio.model"), within(0.7, 1.4),
         within(0.85, 1.15)),
        ("amount of motion from the first frame alone", value.get("i2v.motion_ratio"), within(0.7, 1.4), within(0.85, 1.15)),
        ("share of clips with it in 0.6 to 1.4", share_between(figures, "motion_ratio.model", 0.6, 1.4), at_least(0.6),
         None),
        ("motion along the truth, model - flow warp, lower end of the 95 % interval", along["low"], above(0), None),
        ("brightness drift", value.get("brightness_drift"), below(0.05), below(0.02)),
        ("brightness drift from the first frame alone", value.get("i2v.brightness_drift"), below(0.05), below(0.02)),
        ("residual beyond a blend over that of the truth", value.get("blend_residual_ratio.model"), at_least(0.5), None),
        ("the same beyond what the codec leaves of a fade", value.get("blend_residual_beyond_codec"), at_least(0.5),
         None),
        ("step at an inner guide over its neighbours", value.get("guide_pop.inner"), at_most(1.5), None),
        ("step at the first and last guide over its neighbours", value.get("guide_pop.ends"), at_most(1.5), None),
        ("mask precision, raw - no control, lower end of the 95 % interval", precision["low"], above(0), None),
        ("mask precision, raw", value.get("mask.precision_raw"), None, at_least(0.96)),
        ("mask recall, raw", value.get("mask.recall_raw"), None, at_least(0.6)),
        ("composited: largest difference outside the area", max_of(figures, "mask.outside_max_difference"), at_most(0),
         None),
        ("share of the change in the mask that flow explains", value.get("mask.explained_by_flow_raw"), at_least(0.5),
         None),
    ]  # fmt: skip


def _comparisons(figures: list[Figures], num_frames: int) -> list[Target]:
    """By how much the checkpoint is better than what it has to beat, and with more guides; above 0 is better."""
    value = sum_up(figures)
    rows: list[Target] = []
    for arm in ("flow_warp", "rife"):
        if f"inbetween.psnr_db.{arm}" not in value:
            continue
        for metric in GUIDED_METRICS:
            gain = _gain(value, metric, f"inbetween.{metric}.model", f"inbetween.{metric}.{arm}")
            rows.append((f"in-between {metric}, better than {arm} by", gain, None, above(0)))
        detail = [abs(value[f"inbetween.hf_energy.{each}"] - 1) for each in (arm, "model")]
        rows.append((f"fine detail nearer to 1 than that of {arm} by", detail[0] - detail[1], None, above(0)))
    # Two, three and five guides are so far apart; the spaces between four differ.
    apart = {"two": num_frames - 1, "three": (num_frames - 1) // 2, "five": (num_frames - 1) // 4}
    for guides, gap in apart.items():
        for metric in GUIDED_METRICS if gap >= 8 and f"guided.psnr_db.rife.{guides}" in value else ():
            gain = _gain(value, metric, f"guided.{metric}.model.{guides}", f"guided.{metric}.rife.{guides}")
            rows.append((f"guides {gap} frames apart, {metric}, better than rife by", gain, None, above(0)))
    for metric in GUIDED_METRICS if "guided.psnr_db.model.two" in value else ():
        gains = {
            (more, fewer): _gain(value, metric, f"guided.{metric}.model.{more}", f"guided.{metric}.model.{fewer}")
            for more, fewer in GUIDE_STEPS
        }
        rows.append((f"five guides, {metric}, better than two by", gains.pop(("five", "two")), above(0), None))
        rows.append((f"{metric}, the least that one more guide brings", min(gains.values()), None, above(0)))
    return rows


def _prompt_targets(figures: list[Figures], corpus_version: int) -> list[Target]:
    if not (values := values_of(figures, "actions.recognised")):
        return []
    from action_classifier import ACTIONS

    share = mean_interval(values)
    more = paired(figures, "actions.recognised", "actions.shuffled")
    return [
        ("action of the prompt recognised", share["mean"], at_least(0.5), at_least(0.8)),
        (
            "the same over chance, lower end of the 95 % interval",
            share["low"] * len(ACTIONS[corpus_version]),
            at_least(3),
            None,
        ),
        ("the same - prompts shuffled, lower end of the 95 % interval", more["low"], above(0), None),
    ]


def _gain(value: dict[str, float], metric: str, a: str, b: str) -> float:
    """How much better a is than b."""
    return (value[a] - value[b]) * (1 if GUIDED_METRICS[metric] else -1)


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


def pairs_of(figures: list[Figures]) -> list[tuple[str, str, str]]:
    """`PAIRS` without those of groups that were not made."""
    known = set(names(figures))
    return [(name, a, b) for name, a, b in PAIRS if {a, b} <= known]


def _minus(value: dict[str, float], a: str, b: str) -> float | None:
    return value[a] - value[b] if a in value and b in value else None


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
    arms = [*INBETWEEN_ARMS, *(["rife"] if "rife" in result["inbetween"]["psnr_db"] else [])]
    print_table("first and last frame given", arms, result["inbetween"])
    if guided := result.get("guided"):
        print_guided(guided, result["frames"])
    print_by_action(result)
    if prompts := result.get("prompts_95"):
        print_prompts(prompts, result["actions"]["asked"])
    for row in result["targets"]:
        print(target_line(row))
    print(f"\n{result['seconds_per_shot']:.1f} s a shot, {result['peak_rss_bytes'] / 1e9:.2f} GB resident at most")
    for name, interval in result["paired_95"].items():
        if interval["n"]:
            print(f"{name}: {signed(interval)}")


def print_table(title: str, columns: Iterable[str], rows: dict[str, dict[str, float]]) -> None:
    """A line a row; "-" where it has no value."""
    widths = {column: max(12, len(column) + 2) for column in columns}
    left = max(len(title), *map(len, rows)) + 2
    print(f"{title:{left}s}" + "".join(f"{column:>{width}s}" for column, width in widths.items()))
    for name, values in rows.items():
        print(f"{name:{left}s}" + "".join(f"{_short(values.get(c)):>{width}s}" for c, width in widths.items()))
    print()


def _short(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def print_guided(guided: dict[str, Any], num_frames: int) -> None:
    """By number of guides; the frames are those that no arm was given."""
    whole, half, quarter = num_frames - 1, (num_frames - 1) // 2, (num_frames - 1) // 4
    apart = dict(zip(COUNTS, (f"{whole}", f"{half}", f"{quarter} and {half}", f"{quarter}"), strict=True))
    heads = {guides: f"{guides}, {apart[guides]} apart" for guides in COUNTS}
    for metric, by_arm in guided.items():
        rows = {arm: {heads[g]: by_arm[arm][g] for g in COUNTS} for arm in GUIDED_ARMS if arm in by_arm}
        print_table(f"{metric} by number of guides", heads.values(), rows)


def print_by_action(result: dict[str, Any]) -> None:
    shown: dict[str, tuple[str, ...]] = {"clips": ("clips",)}
    shown |= {
        f"{metric} {word}": ("inbetween", metric, arm)
        for metric in ("psnr_db", "perceptual", "latent_mse")
        for word, arm in (("model", "model"), ("warp", "flow_warp"))
    }
    shown |= {"motion model": ("motion_ratio", "model"), "along the truth": ("motion_along", "model")}
    parts = {**result["by_action"], "all": result}
    rows = {
        action: {title: value for title, path in shown.items() if (value := _at(part, path)) is not None}
        for action, part in parts.items()
    }
    print_table("action of the clip", shown, rows)


def _at(tree: dict[str, Any], path: tuple[str, ...]) -> float | None:
    for key in path:
        tree = tree.get(key, {})
    return tree if isinstance(tree, int | float) else None


def print_prompts(prompts: dict[str, Any], asked: dict[str, float]) -> None:
    """What of the prompts is seen, beside chance, the first frame alone, and the truth."""
    judge = prompts["judge"]
    print(f"One first frame, {prompts['prompts_a_frame']} prompts; which of {prompts['actions']} actions is seen")
    for name, words in {
        "recognised": "the action of the prompt, by its motion",
        "shuffled": "the same, prompts of a frame shuffled",
        "first_frame.recognised": "by the first frame alone",
        "own": "prompts that ask for the frame's own action",
        "other": "prompts that ask for another",
        "truth_asked": "true clips of what each prompt asks for",
        "truth": "true clips of the first frames' own action",
        "truth_vae": "those through the VAE, first frame given",
    }.items():
        print(f"  {words:48s}{percent(prompts[name])}")
    print(f"  {'one guessed of all':48s}{prompts['chance']:7.1%}")
    print(f"  {'first among the actions asked of the frame':48s}{percent(prompts['chosen'])}")
    print(f"  {'the same by the first frame alone':48s}{percent(prompts['first_frame.chosen'])}")
    print(f"  {'one guessed of those':48s}{prompts['chosen_chance']:7.1%}")
    print(f"  {'the judge on held-out truth, by motion':48s}{percent(judge['motion'])}")
    print(f"  {'  where another pose begins it':48s}{percent(judge['going_over'])}")
    print(f"  {'  first among as many actions':48s}{percent(judge['motion_chosen'])}")
    print(f"  {'the judge on held-out truth, first frame alone':48s}{percent(judge['first_frame'])}")
    columns = {"asked for": asked, "truth": judge["by_action"]}
    print()
    print_table("recognised, by action", columns, {
        action: {title: by[action] for title, by in columns.items() if action in by} for action in judge["by_action"]
    })  # fmt: skip


def percent(interval: Interval) -> str:
    return f"{interval['mean']:7.1%} ({interval['low']:.1%} to {interval['high']:.1%}, n {interval['n']})"


def signed(interval: Interval) -> str:
    return f"{interval['mean']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"


def target_line(row: dict[str, Any]) -> str:
    reached = "not measured" if row["reached"] is None else f"{row['reached']:.3f}"
    verdicts = {None: "-", True: "ok", False: "NOT"}
    wanted = f"wanted {row['wanted'] or '-'}; goal {row['goal'] or '-'}"
    return f"{verdicts[row['met']]:4s}{verdicts[row['goal_met']]:4s}{row['target']}: {reached} ({wanted})"


# ------------------------------------------------------------------------------------- trained beside random weights


def read_output(path: Path, has: str = "randomised_dit") -> dict[str, Any]:
    """What --json printed into a file, of the kind that has a certain key."""
    try:
        output = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        sys.exit(f"{path} cannot be read: expected what --json prints; got: {problem}")
    if not isinstance(output, dict) or has not in output:
        sys.exit(f"{path} is not an output of this benchmark: expected one JSON object as --json prints it")
    return output


def compare(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """What a trained network has over the same one with random weights, on the clips that both runs have."""
    trained, random = sorted((a, b), key=lambda each: each["randomised_dit"])
    if trained["randomised_dit"] or not random["randomised_dit"]:
        sys.exit("--compare wants the output of a usual run and of one with --randomise-dit, in any order")
    if not ("per_clip" in trained and "per_clip" in random):
        sys.exit("an output without per_clip cannot be compared: make it again, from its --keep folder with --from")
    same = ("model", "weights_sha256", "recipe_sha256", "size_px", "frames", "fps", "corpus_version")
    if different := [key for key in same if trained[key] != random[key]]:
        sys.exit(f"the two runs cannot be compared: {', '.join(different)} differ")
    seeds = [seed for seed in trained["per_clip"]["seeds"] if seed in random["per_clip"]["seeds"]]
    if not seeds:
        sys.exit("the two runs have no clips in common: give both the same --first-seed")
    figures = {}
    for name in PER_CLIP:
        if name in trained["per_clip"] and name in random["per_clip"]:
            pair = [_of_seeds(run["per_clip"], name, seeds) for run in (trained, random)]
            ours, theirs = (sum_up([{name: value} for value in values]).get(name) for values in pair)
            figures[name] = {"trained": ours, "random": theirs, "difference": paired_interval(*pair)}
    rows: list[Target] = []
    if psnr := figures.get("inbetween.psnr_db.model"):
        rows.append(("in-between PSNR falls by, dB", psnr["difference"]["mean"], at_least(2), None))
    if "actions.recognised" in figures:
        chance = paired_interval(
            *(_of_seeds(random["per_clip"], f"actions.{name}", seeds) for name in ("recognised", "shuffled"))
        )
        figures["random weights: recognised - shuffled"] = {"trained": None, "random": None, "difference": chance}
        rows.append(("random weights: actions above shuffled prompts, lower end", chance["low"], at_most(0), None))
    return {
        "benchmark": "bundled_model/1 compared",
        "model": trained["model"],
        "clips": len(seeds),
        "figures": figures,
        "targets": [_row(*row) for row in rows],
    }


def _of_seeds(per_clip: dict[str, Any], name: str, seeds: list[int]) -> list[float]:
    """The values of these seeds; NaN where a clip has none."""
    by_seed = dict(zip(per_clip["seeds"], per_clip[name], strict=True))
    return [math.nan if by_seed[seed] is None else by_seed[seed] for seed in seeds]


def print_comparison(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False))
        return
    print(f"{result['clips']} clips, {result['model']}: its own transformer weights and random ones\n")
    print(f"{'':40s}{'trained':>10s}{'random':>10s}  difference, 95 %")
    for name, row in result["figures"].items():
        means = "".join(f"{'-':>10s}" if row[arm] is None else f"{row[arm]:10.4f}" for arm in ("trained", "random"))
        print(f"{name:40s}{means}  {signed(row['difference']) if row['difference']['n'] else '-'}")
    print()
    for row in result["targets"]:
        print(target_line(row))


if __name__ == "__main__":
    main()
