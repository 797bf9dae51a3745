"""`anisora models`: which checkpoints there are, what one can do, converting one, checking one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from anisora.serving.cli.console import print_json, progress_bars, say, show_pairs, show_table
from anisora.settings import plain

app = typer.Typer(help="Checkpoints: list, show, convert, verify.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
_Model = Annotated[str, typer.Argument(metavar="NAME_OR_PATH")]


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """Every model known by name, and which are here.

    Example: anisora models list
    """
    from anisora.models import catalog

    rows = catalog.list_models()
    if as_json:
        print_json(rows)
        return
    show_table(
        ("name", "family", "parameters", "licence", "here"),
        [(row["name"], row["family"], row["params"], row["licence"], "yes" if row["path"] else "-") for row in rows],
    )
    say("A checkpoint folder works as a name too: anisora generate --model ./folder ...")


@app.command()
def show(model: _Model, as_json: _Json = False) -> None:
    """What one model can do and how it likes to be used.

    Example: anisora models show bundled
    """
    from anisora.models import catalog

    facts = catalog.show(model)
    if as_json:
        print_json(facts)
    else:
        show_pairs(facts)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="FILE_OR_FOLDER", help="A network in its makers' own layout.")],
    base: Annotated[str, typer.Option(metavar="FOLDER", help="A diffusers folder that has all the rest.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="The diffusers folder to write.")],
    low_noise: Annotated[
        str | None, typer.Option(metavar="FILE_OR_FOLDER", help="The second expert; SOURCE then is the high-noise one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name from `anisora models list`, for its recipe.")] = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "bfloat16",
    as_json: _Json = False,
) -> None:
    """Turn published weights into a folder that diffusers and this package open.

    Example: anisora models convert ./V3.1 --base ./Wan2.1-I2V-14B-Diffusers --name anisora-v3 --out ./anisora-v3
    """
    from anisora.models.convert import convert_checkpoint

    networks: dict[str, str | Path] = {"transformer": source}
    if low_noise is not None:
        networks["transformer_2"] = low_noise
    with progress_bars(quiet=as_json) as progress:
        report = convert_checkpoint(
            networks, base, out, name=name, dtype=dtype, progress=lambda done, total: progress("convert", done, total)
        )
    _result(plain(report), as_json)


@app.command()
def verify(model: _Model, as_json: _Json = False) -> None:
    """Check that every tensor a checkpoint needs is there and fits; the network is not run.

    Example: anisora models verify ./anisora-v3
    """
    from anisora.models import catalog

    _result(catalog.verify(catalog.resolve(model).path), as_json)


def _result(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        show_pairs(facts)
