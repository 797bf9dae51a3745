"""`anisora train CONFIG`: a thin door to the training run."""

from __future__ import annotations

from typing import Any

import typer


def train(
    config: str = typer.Argument(..., metavar="CONFIG.yaml", help="What to train, on what, and how."),
    overrides: list[str] = typer.Argument(None, metavar="[key=value]...", help="Fields to change, as data.batch=4."),
    max_minutes: float = typer.Option(None, help="Stop and save after so long; run again to go on."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything and show the plan, train nothing."),
) -> Any:
    """Train or fine-tune a model; running the same command again resumes.

    Example: anisora train configs/quickstart.yaml optimiser.lr=1e-4 --max-minutes 30
    """
    from anisora.training.run import main

    return main(config, list(overrides or ()), max_minutes=max_minutes, dry_run=dry_run)
