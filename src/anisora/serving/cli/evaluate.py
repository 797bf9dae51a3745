"""`anisora evaluate`: clips in, scores out; and clips spoiled on purpose, to see whether scores notice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from anisora.errors import BadRequest
from anisora.serving.cli.console import print_json, progress_bars, say, show_table
from anisora.serving.cli.default import DEFAULT, WithDefault

app = typer.Typer(
    cls=WithDefault,
    help="Clips in, scores out: anisora evaluate CLIPS... --out DIR.",
    epilog="Example: anisora evaluate shots/ --out eval",
    no_args_is_help=True,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


@app.command(DEFAULT, hidden=True)
def run(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Videos and folders of them.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where scores are written; the same folder resumes.")] = Path(
        "eval"
    ),
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines with prompts, guides, masks; instead of CLIPS.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Some of the metrics; default: all.")] = None,
    scorer: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A scorer's folder, or its card; an endpoint's too. Repeatable."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Score clips: smoothness, motion, appeal, image-video, character, and control where guides or masks are known.

    Scores are 0 to 100, higher is better; what cannot be measured is left open, with the reason. Resumable: run it again.
    Scores of --scorer stand beside the others as backend full or service.

    Example: anisora evaluate shots/ --out eval
    """
    from anisora.evaluation.report import write_report
    from anisora.evaluation.samples import find_samples, read_manifest
    from anisora.evaluation.scoring import open_scorers
    from anisora.evaluation.suite import evaluate, known_metrics

    if bool(clips) == bool(manifest):
        raise BadRequest("nothing to score" if not clips else "clips and a manifest", expected="CLIPS or --manifest")
    names = known_metrics([name.strip() for name in metrics.split(",")] if metrics else None)
    samples = read_manifest(manifest) if manifest else find_samples(clips or [])
    with progress_bars(quiet=as_json) as progress:
        scorers = open_scorers(scorer or [])
        summary = evaluate(samples, out, metrics=names, scorers=scorers, progress=progress)
    page = write_report(out, videos={sample.id: sample.video for sample in samples})[0]
    if as_json:
        print_json(summary)
    else:
        _show(summary, out)
        for asked in scorers:
            if spent := getattr(asked, "spent", None):
                say("the endpoint: " + ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in spent.items()))
        say(f"the page: {page}")


def _show(summary: dict[str, Any], out: Path) -> None:
    for model, metrics in summary["models"].items():
        rows = [_row(name, said) for name, said in metrics.items()]
        show_table(("metric", "score", "95 % interval", "clips", "not scored"), rows, title=model or None)
    say(f"{summary['samples']} clips, {out / 'results.jsonl'}")


def _row(name: str, said: dict[str, Any]) -> tuple[Any, ...]:
    score = said["score"]
    null = ", ".join(f"{count} {reason}" for reason, count in said["null"].items())
    if score["mean"] is None:
        return name, "-", "-", 0, null
    return name, f"{score['mean']:.1f}", f"{score['low']:.1f} to {score['high']:.1f}", score["n"], null


@app.command()
def corrupt(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIPS...", help="Videos and folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where spoiled clips are written.")],
    kind: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A corruption, repeatable; default: all.")
    ] = None,
    severity: Annotated[
        list[int] | None, typer.Option(min=1, max=5, metavar="1..5", help="Repeatable; default: all five.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed spoils in another pattern.")] = 0,
    as_json: _Json = False,
) -> None:
    """Spoil clips on purpose, in one way at a time and in five degrees, to see whether scores notice.

    Writes DIR/KIND-SEVERITY/CLIP.mp4, losslessly, and the clean clips as DIR/clean-0/CLIP.mp4.

    Example: anisora evaluate corrupt shots/ --out spoiled --kind blur --kind flicker --severity 3
    """
    from anisora.evaluation.samples import find_samples
    from anisora.evaluation.spoil import write_corrupted

    with progress_bars(quiet=as_json) as progress:
        written = write_corrupted(
            find_samples(clips), out, kinds=kind, severities=severity, seed=seed, progress=progress
        )
    if as_json:
        print_json({"clips": written})
    else:
        say(f"{len(written)} clips in {out}")


@app.command()
def validate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where records and figures go; the same folder resumes.")],
    clips: Annotated[Path | None, typer.Option(metavar="DIR", help="Real clips to try, beside drawn ones.")] = None,
    synthetic: Annotated[int, typer.Option(min=0, metavar="N", help="How many drawn clips to try.")] = 12,
    frames: Annotated[int, typer.Option(min=8, metavar="N", help="Clips are cut to so many frames.")] = 32,
    size: Annotated[int, typer.Option(min=64, metavar="PX", help="And shrunk to this short side.")] = 256,
    kind: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Some corruptions; repeatable.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Some of the dimensions.")] = None,
    severity: Annotated[list[int] | None, typer.Option(min=1, max=5, metavar="1..5", help="Repeatable.")] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix/--own", help="Measure every dimension, or the one that must fall only.")
    ] = True,
    invariances: Annotated[
        bool, typer.Option("--invariances/--no-invariances", help="Also try what no score may notice.")
    ] = True,
    scorer: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Also try a scorer's folder or card; repeatable.")
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a calibration table fitted to the fitting half.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Spoil clips in many ways and see that the right score falls, and no other.

    Half of the clips and some of the corruptions are never used for fitting; their figures stand apart. With --scorer the
    same is asked of scorers of yours, beside the metrics.

    Example: anisora evaluate validate --clips shots/ --out check --own
    """
    from anisora.evaluation.corruptions import CORRUPTIONS, SEVERITIES
    from anisora.evaluation.samples import find_samples
    from anisora.evaluation.scoring import open_scorers
    from anisora.evaluation.suite import known_metrics
    from anisora.evaluation.validation import SCORED, Plan, validate

    named = known_metrics([name.strip() for name in metrics.split(",")] if metrics else SCORED)
    if unscored := set(named) - set(SCORED):
        raise BadRequest("no dimension that is scored", got=", ".join(sorted(unscored)), expected=", ".join(SCORED))
    if unknown := set(kind or ()) - set(CORRUPTIONS):
        raise BadRequest("unknown corruption", got=", ".join(sorted(unknown)), expected=", ".join(CORRUPTIONS))
    plan = Plan(
        kinds=tuple(kind or CORRUPTIONS),
        severities=tuple(sorted(severity or SEVERITIES)),
        metrics=tuple(named),
        num_frames=frames,
        short_px=size,
        matrix=matrix,
        invariances=invariances,
        synthetic=synthetic,
    )
    with progress_bars(quiet=as_json) as progress:
        samples, scorers = find_samples([clips]) if clips else [], open_scorers(scorer or [])
        result = validate(samples, out, plan, scorers=scorers, progress=progress)
    if fit:
        _fit(out, fit)
    if as_json:
        print_json(result)
    else:
        _show_validation(result)


def _fit(out: Path, target: Path) -> None:
    import yaml

    from anisora.evaluation.fitting import fit_table
    from anisora.evaluation.records import RESULTS
    from anisora.evaluation.validation import measured_so_far
    from anisora.store import write_atomic

    fitted = fit_table(measured_so_far(out / RESULTS))
    write_atomic(target, yaml.safe_dump(fitted, sort_keys=False).encode())
    say(f"wrote {target}")


def _show_validation(result: dict[str, Any]) -> None:
    from anisora.evaluation.corruptions import CORRUPTIONS

    rows = []
    for kind, corruption in CORRUPTIONS.items():
        for label in result["all"]["order"].get(kind, {}):
            metric = label.partition(" ")[0]
            if metric in (corruption.dimension, corruption.spares):
                shares = [
                    result[part][table].get(kind, {}).get(label)
                    for part in ("all", "held_out")
                    for table in ("order", "across", "improved")
                ]
                use = "falls" if metric == corruption.dimension else "spared"
                rows.append((kind, label, use, corruption.use, *map(_two, shares)))
    for label, own in result["all"]["by_dimension"].items():
        if own["order"] is not None:
            free, unseen = (result[part]["by_dimension"].get(label, {}) for part in ("held_out", "unseen"))
            shares = [part.get(table) for part in (own, free, unseen) for table in ("order", "across", "improved")]
            rows.append(("all of its own", label, "falls", "", *map(_two, shares[:6])))
            rows.append(("those held out", label, "falls", "held_out", "-", "-", "-", *map(_two, shares[6:])))
    head = ("corruption", "dimension", "", "kind", "order", "across", "improved", "order*", "across*", "improved*")
    show_table(head, rows, title=f"{result['clips']} clips; * the {result['clips_held_out']} held-out clips alone")
    changes = [
        (kind, *("-" if pair is None else f"{pair[0]:.1f} / {pair[1]:.1f}" for pair in by_metric.values()))
        for kind, by_metric in result["changed"].items()
    ]
    names = tuple(next(iter(result["changed"].values())))
    show_table(("no change", *names), changes, title="median / 95th percentile of the change, % of the range")


def _two(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"
