"""A model through a benchmark, and one made for motion masks: `anisora evaluate run-suite` and `build-mask-set`.

`add_to(app)` puts the verbs into the group that evaluate.py makes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anisora.errors import Failed
from anisora.serving.cli.console import print_json, progress_bars, say

_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


def add_to(app: typer.Typer) -> None:
    """Adds the verbs of this module to a group."""
    app.command("run-suite")(run_suite)
    app.command("build-mask-set")(build_mask_set)


def run_suite(
    model: Annotated[str, typer.Option(metavar="NAME_OR_PATH", help="The model to try.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Shots, scores, report; the same folder resumes.")],
    guides: Annotated[
        str,
        typer.Option(
            metavar="first|middle|last|first+last|first+mid+last|all-equal",
            help="Which pictures of the real clip are given; all-equal gives each way to as many items.",
        ),
    ] = "first",
    suite: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="A manifest, or a folder in the paper's layout; default: drawn here."),
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Give the motion masks, of the items that have one.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="So many items, evenly spread.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Some of the metrics; default: all.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Denoising steps; default: the model's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="The seed of all shots.")] = 0,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the accelerator, else cpu.")] = None,
    as_json: _Json = False,
) -> None:
    """Take a model through a benchmark: make its shots, score them beside the real clips, write the report.

    Run again with another --model or other --guides and the same --out, it adds to the report.

    Example: anisora evaluate run-suite --model bundled --guides first+last --limit 24 --out suite
    """
    from anisora.evaluation.run_suite import run
    from anisora.evaluation.suite import known_metrics

    names = known_metrics([name.strip() for name in metrics.split(",")]) if metrics else None
    with progress_bars(quiet=as_json) as progress:
        result = run(
            model, out, setting=guides, suite=suite, with_masks=masks, limit=limit, metrics=names, steps=steps,
            seed=seed, device=device, progress=progress, say=say,
        )  # fmt: skip
    if as_json:
        print_json(result)
    else:
        say(
            f"{result['made']} shots, {len(result['failed'])} failed, {len(result['skipped'])} without a picture; {out}"
        )
    if not result["made"]:
        raise Failed("no shot was made", got=next(iter(result["failed"] or result["skipped"]), None))


def build_mask_set(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="A manifest, or a folder of pictures and clips.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Masks, manifest and the page to look through.")],
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop at so many samples.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another salient-object network, ONNX; default: the bundled one."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make samples for motion-mask precision from first pictures: what stands out, a box around each part of it.

    Look through DIR/review.html, write the ids that are no good into DIR/drop.txt, run again. Then run-suite with --suite DIR,
    with --masks and without, measures how far masks are kept.

    Example: anisora evaluate build-mask-set stills/ --out mask_set
    """
    from functools import partial

    from anisora.evaluation.benchmark import read_benchmark
    from anisora.evaluation.mask_set import build_mask_set as build
    from anisora.measures.salience import salience

    detect = partial(salience, weights=weights) if weights else salience
    with progress_bars(quiet=as_json) as progress:
        made = build(read_benchmark(suite), out, detect=detect, limit=limit, progress=progress)
    if as_json:
        print_json(made)
        return
    say(
        f"{made['samples']} samples, {len(made['dropped'])} dropped, {len(made['empty'])} pictures in which nothing stands out"
    )
    for name, problem in made["unreadable"].items():
        say(f"left out {name}: {problem}")
    say(f"look through {made['page']}")
