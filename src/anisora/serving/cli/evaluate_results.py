"""What scores say: `anisora evaluate report`, `compare` and `export-vbench`.

`add_to(app)` puts the verbs into the group that evaluate.py makes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from anisora.errors import BadRequest
from anisora.serving.cli.console import print_json, progress_bars, say, show_table

_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
_Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a run.")]


def add_to(app: typer.Typer) -> None:
    """Adds the verbs of this module to a group."""
    app.command("report")(report)
    app.command("compare")(compare)
    app.command("export-vbench")(export_vbench)


def report(
    folder: _Dir,
    clips: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where the clips lie, to show the best and worst; repeatable."),
    ] = None,
    votes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What people said of the clips; default: votes.jsonl in DIR, where there is one."
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make the page and the tables of a folder of scores: report.html, report.xlsx, leaderboard.csv, scores.csv.

    With votes also how far each dimension agrees with people: correlations, order within a prompt, how sure of the models.

    Example: anisora evaluate report eval --clips shots
    """
    from anisora.evaluation.report import write_report
    from anisora.evaluation.samples import find_samples

    videos = {sample.id: sample.video for sample in find_samples(clips)} if clips else None
    written = write_report(folder, videos=videos, votes=votes)
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        for path in written:
            say(f"wrote {path}")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A folder of scores, or a model in --in.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other.")],
    within: Annotated[
        Path | None, typer.Option("--in", metavar="DIR", help="The folder of scores that holds both models.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Say whether two systems differ, metric by metric, on the prompts that both have.

    Clips belong together when they have the same group: the prompt of a manifest, else the file name.

    Example: anisora evaluate compare eval_old eval_new
    """
    from anisora.evaluation.leaderboard import backends
    from anisora.evaluation.leaderboard import compare as compare_models
    from anisora.evaluation.report import verdict_lines

    rows, a, b = _two(a, b, within)
    lines: list[dict[str, Any]] = []
    for backend in backends(rows):
        own = [row for row in rows if row.record.backend == backend]
        if {a, b} <= {row.model for row in own}:
            lines += [{"backend": backend, **line} for line in verdict_lines(compare_models(own, a, b))]
    if not lines:
        raise BadRequest("nothing to compare", got=f"no backend scored both {a} and {b}")
    if as_json:
        print_json(lines)
        return
    show_table(
        ("metric", a, b, "difference", "95 %", "p (Holm)", "prompts", "says"), [_compared(line) for line in lines]
    )


def _two(a: str, b: str, within: Path | None) -> tuple[list[Any], str, str]:
    """The rows of both systems and their names; of two folders, each is one system called by its folder."""
    from dataclasses import replace

    from anisora.evaluation.leaderboard import Row, load_rows

    if within is not None:
        return load_rows(within), a, b
    if Path(a).resolve() == Path(b).resolve():
        raise BadRequest("a folder compared with itself", got=a, expected="two folders")
    folders = {a: Path(a), b: Path(b)}
    names = {key: path.resolve().name for key, path in folders.items()}
    if names[a] == names[b]:
        names = {key: str(path) for key, path in folders.items()}
    rows = []
    for key, path in folders.items():
        own = load_rows(path)
        if len({row.model for row in own}) > 1:
            models = ", ".join(sorted({row.model for row in own}))
            raise BadRequest(
                f"{path} holds several models", got=models, hint=f"--in {path}, and two of them as A and B"
            )
        rows += [Row(record=replace(row.record, model=names[key]), facts=row.facts) for row in own]
    return rows, names[a], names[b]


def _compared(line: dict[str, Any]) -> tuple[Any, ...]:
    if line["better"]:
        says = f"{line['better']} is better"
    elif line["would_see"] is None:
        says = "too few shared prompts"
    else:
        says = f"no difference shown; {line['would_see']:.2f} would be, 4 times of 5"
    ends = "-" if line["low"] is None else f"{line['low']:+.2f} to {line['high']:+.2f}"
    numbers = ["-" if line[key] is None else f"{line[key]:.2f}" for key in ("mean_a", "mean_b", "difference")]
    p = "-" if line["p_holm"] is None else f"{line['p_holm']:.4f}"
    return line["metric"], *numbers, ends, p, line["prompts"], says


def export_vbench(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file: NAME_eval_results.json.")],
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Videos and folders of them.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines with prompts and input pictures; instead of CLIPS.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="DIR", help="VBench's networks, as in its cache ~/.cache/vbench (docs).")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="ID.npz a clip: what networks said (docs); with --weights it is kept there."),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the accelerator, else cpu.")] = None,
    as_json: _Json = False,
) -> None:
    """Write VBench's results file for clips: temporal flickering, and every dimension whose network or features there are.

    A dimension that was not run is absent, and the totals say what they lack instead of counting it as 0.

    Example: anisora evaluate export-vbench shots --out mine_eval_results.json
    """
    from anisora.evaluation.samples import find_samples, read_manifest
    from anisora.evaluation.vbench_export import export

    if bool(clips) == bool(manifest):
        raise BadRequest("clips and a manifest" if clips else "nothing to measure", expected="CLIPS or --manifest")
    samples = read_manifest(manifest) if manifest else find_samples(clips or [])
    with progress_bars(quiet=as_json) as progress:
        found = export(samples, out, features, weights, device=device, progress=progress)
    if as_json:
        print_json(found)
        return
    rows = [(name, f"{value:.6f}", found["clips"][name]) for name, value in sorted(found["values"].items())]
    show_table(("dimension", "value", "clips"), rows)
    for name, problem in found["unreadable"].items():
        say(f"left out {name}: {problem}")
    for name, reason in found["without"].items():
        say(f"without {name}: {reason}")
    for board in ("t2v", "i2v"):
        said = found[board]
        total = f"{said['total']:.6f}" if said["complete"] else f"incomplete, lacks {', '.join(said['missing'])}"
        say(f"total {board}: {total}")
    say(f"wrote {found['path']}")
