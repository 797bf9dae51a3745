"""`anisora models`: which checkpoints there are, what one can do, converting one, checking one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anisora.serving.cli.console import print_json, say, show_pairs, show_table

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
    source: Annotated[str, typer.Argument(metavar="FILE_OR_FOLDER", help="Weights in their makers' own layout.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="The diffusers folder to write.")],
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "bfloat16",
    components: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A diffusers folder that lends what SOURCE lacks.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Turn published weights into a folder that diffusers and this package open.

    Example: anisora models convert ./Index-anisora/V3.1 --components ./Wan2.1-I2V-14B-Diffusers --out ./anisora-v3
    """
    from anisora.models.convert import convert as run

    _result(run(source, out, dtype=dtype, components=components), as_json)


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
