"""`anisora train CONFIG`: a thin door to the training run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from anisora.serving.cli.console import print_json, say


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train, on what, and how.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Fields to change, as data.clips=100.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Run one stage alone.")] = None,
    max_minutes: Annotated[float, typer.Option(help="Stop and save after so long.")] = math.inf,
    as_json: Annotated[bool, typer.Option("--json", help="Print the exported folder as JSON on stdout.")] = False,
) -> None:
    """Train or fine-tune a model; running the same command again resumes.

    Example: anisora train configs/bundled.yaml --max-minutes 30
    """
    from anisora.training.run import main

    exported = main(config, tuple(overrides or ()), stage=stage, max_minutes=max_minutes)
    if as_json:
        print_json({"exported": str(exported) if exported else None})
    say(f"exported to {exported}" if exported else "saved; run the same command again to go on")
