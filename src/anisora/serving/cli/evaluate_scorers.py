"""Scorers that learn from votes: `anisora evaluate train-scorer` and `apply-scorer`.

`add_to(app)` puts the verbs into the group that evaluate.py makes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anisora.errors import BadRequest
from anisora.serving.cli.console import print_json, say

_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
_Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a run.")]


def add_to(app: typer.Typer) -> None:
    """Adds the verbs of this module to a group."""
    app.command("train-scorer")(train_scorer)
    app.command("apply-scorer")(apply_scorer)


def train_scorer(
    votes: Annotated[Path, typer.Argument(metavar="VOTES.jsonl", help="Ratings of clips, or choices between two.")],
    scores: Annotated[Path, typer.Option(metavar="DIR", help="The scores of the clips that were voted on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the scorer and its card.")],
    dimension: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of several dimensions in the file, this one.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="regression|pairwise", help="Default: by what most votes are.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Train a scorer from what people said, and say how good it is on prompts that it has not seen.

    The clips must have been scored: what the metrics measured are its features; sample ids in the votes are those there.

    Example: anisora evaluate train-scorer votes.jsonl --scores eval --dimension smoothness --out scorer
    """
    from anisora.evaluation import scorers
    from anisora.evaluation.records import RESULTS, read_records
    from anisora.evaluation.votes import read_votes

    if kind not in (None, "regression", "pairwise"):
        raise BadRequest("unknown kind of scorer", got=kind, expected="regression or pairwise")
    features = scorers.features_of(read_records(scores / RESULTS))
    trained = scorers.train(read_votes(votes, dimension), features, kind)  # type: ignore[arg-type]
    path = scorers.save(trained, out)
    if as_json:
        print_json({"path": str(path), "kind": trained.head.kind, **trained.figures})
    else:
        say(scorers.card(trained))
        say(f"wrote {path}")


def apply_scorer(
    scorer: Annotated[Path, typer.Argument(metavar="SCORER", help="The --out of train-scorer.")],
    folder: _Dir,
    as_json: _Json = False,
) -> None:
    """Let a trained scorer score the clips of a folder of scores; adds lines of the backend `full` to it.

    Example: anisora evaluate apply-scorer scorer eval
    """
    from anisora.evaluation import scorers
    from anisora.evaluation.records import RESULTS, append_records, read_records

    said = scorers.apply(scorer, read_records(folder / RESULTS))
    append_records(folder / RESULTS, said)
    if as_json:
        print_json([record.to_json() for record in said])
    else:
        scored = sum(record.score is not None for record in said)
        say(f"{scored} of {len(said)} clips scored for {said[0].metric}" if said else "no clips in the folder")
