"""`anisora demo`: from nothing to a page of shots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anisora.serving.cli.console import print_json, progress_bars, say


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to fill.")] = Path("demo"),
    model: Annotated[
        str, typer.Option(metavar="NAME_OR_PATH", help="The checkpoint that makes the shots.")
    ] = "bundled",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON on stdout.")] = False,
) -> None:
    """Draw pictures, make four shots from them, and put everything on one page.

    Example: anisora demo --out demo
    """
    from anisora.serving.demo import make_demo

    with progress_bars(quiet=as_json) as progress:
        page, results = make_demo(out, model=model, progress=progress)
    if as_json:
        print_json({"page": str(page), "shots": results})
    say(f"open {page} in a browser")
