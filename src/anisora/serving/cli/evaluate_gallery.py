"""Characters to know again: `anisora evaluate gallery`.

`add_to(app)` puts the verb into the group that evaluate.py makes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anisora.errors import BadInput, BadRequest
from anisora.serving.cli.console import print_json, progress_bars, say, show_table

if TYPE_CHECKING:
    from anisora.evaluation.characters import CutOut

#: Share of the characters that fine-tuning never sees, and how many at least.
_HELD_OUT, _LEAST_HELD_OUT = 0.2, 2


def add_to(app: typer.Typer) -> None:
    """Adds the verb of this module to a group."""
    app.command("gallery")(gallery)


def gallery(
    characters: Annotated[
        Path | None, typer.Argument(metavar="CHARACTERS", help="A folder of pictures and clips for each character.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The gallery's folder; the same folder resumes.")] = Path(
        "gallery"
    ),
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="CCIP, CLIP, SigLIP, DINOv2, ViT or BLIP; default: the embedded EfficientNet."
        ),
    ] = None,
    salience: Annotated[
        Path | None, typer.Option(metavar="FILE.onnx", help="Salient-object network instead of the bundled one.")
    ] = None,
    drawn: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="So many drawn characters instead of CHARACTERS.")
    ] = None,
    fine_tune: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="First fine-tune the encoder on the characters.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(min=0, metavar="X", help="Of the fine-tuning.")] = 1e-4,
    batch: Annotated[
        int, typer.Option(min=2, metavar="N", help="Characters of a step, told apart from each other.")
    ] = 8,
    max_minutes: Annotated[
        float, typer.Option(min=0, metavar="M", help="Stop fine-tuning then; run again to go on.")
    ] = math.inf,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Of drawn characters and of fine-tuning.")] = 0,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the accelerator, else cpu.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")] = False,
) -> None:
    """Build a gallery of characters, against which `anisora evaluate --scorer DIR` holds clips; look at gallery.html first.

    In each picture and clip the largest figure is cut out. Without characters, clips are held against their input picture.

    Example: anisora evaluate gallery characters/ --out gallery
    """
    from anisora.evaluation import characters as cast
    from anisora.evaluation import gallery as galleries
    from anisora.evaluation.ccip import is_ccip
    from anisora.evaluation.identity import EMBEDDED

    if characters and drawn:
        raise BadRequest("CHARACTERS and --drawn", expected="one of them")
    if fine_tune and not (characters or drawn):
        raise BadRequest("nothing to fine-tune on", expected="CHARACTERS or --drawn")
    named = encoder or EMBEDDED
    if fine_tune and is_ccip(named):
        raise BadRequest(
            "an encoder in ONNX cannot learn", got=named, expected="a folder of transformers' with weights"
        )
    with progress_bars(quiet=as_json) as progress:
        if drawn:
            lines = cast.draw_characters(drawn, out, seed=seed, progress=progress)
        else:
            lines = cast.cut_characters(characters, out, salience, progress) if characters else []
    cuts = cast.known(out) if lines else []
    if lines and not cuts:
        problems = "; ".join(sorted({line["message"] for line in lines if line["reason"]}))
        raise BadInput("no figures", got=problems or "all dropped", expected="pictures with a figure in them")
    figures: dict[str, Any] = {}
    if fine_tune:
        loop = {"steps": fine_tune, "learning_rate": learning_rate}
        tuned, figures = _fine_tuned(out, cuts, named, batch, seed, max_minutes, loop, device)
        if tuned is None:
            say(f"stopped; run the same command again to go on ({out / 'identity'})")
            if as_json:
                print_json({"gallery": None, "steps": fine_tune, "finished": False})
            return
        named = tuned
    with progress_bars(quiet=as_json) as progress:
        built, figures["gallery"] = galleries.build(out, cuts, named, salience, device=device, progress=progress)
    page = galleries.write_page(out, lines, cuts, figures) if cuts else None
    if as_json:
        without = [{key: line[key] for key in ("character", "source", "reason")} for line in lines if line["reason"]]
        print_json({"gallery": str(out / cast.GALLERY), "page": page and str(page), "encoder": built.facts.encoder,
                    "characters": list(built.facts.names), "without": without, **figures})  # fmt: skip
        return
    if cuts:
        rows = [(name.replace("_", " "), *map(_cell, galleries.row(said))) for name, said in figures.items()]
        show_table(("", *galleries.COLUMNS), rows)
        say(f"look at what was cut out: {page}")
    say(f"wrote {out / cast.GALLERY}")


def _fine_tuned(
    out: Path,
    cuts: Sequence[CutOut],
    encoder: str,
    batch: int,
    seed: int,
    minutes: float,
    loop: dict[str, Any],
    device: str | None,
) -> tuple[str | None, dict[str, Any]]:
    """(the new encoder's folder, how well it and the one before tell the held-out characters apart); None when stopped."""
    from anisora.evaluation.gallery import figures_of
    from anisora.evaluation.identity import load_encoder
    from anisora.training.identity import IdentitySettings, main, settings_of_loop

    held_out = _held_out(cuts)
    asked = [cut for cut in cuts if cut.character in held_out]
    pictures: dict[str, dict[str, list[Path]]] = {}
    for cut in cuts:
        if cut.character not in held_out:
            pictures.setdefault(cut.character, {}).setdefault(cut.source, []).append(cut.path)
    settings = IdentitySettings(characters=batch, seed=seed, loop=settings_of_loop(**loop))
    tuned = main(load_encoder(encoder, device), pictures, settings, out / "identity", max_minutes=minutes)
    if tuned is None:
        return None, {}
    before, after = (figures_of(asked, named, device) for named in (encoder, str(tuned)))
    return str(tuned), {"held_out_before": before, "held_out_after": after}


def _held_out(cuts: Sequence[CutOut]) -> set[str]:
    """The characters that are kept from fine-tuning, by a hash of their names, of those that can be asked about."""
    sources: dict[str, set[str]] = {}
    for cut in cuts:
        sources.setdefault(cut.character, set()).add(cut.source)
    able = sorted((name for name, own in sources.items() if len(own) > 1), key=_order)
    count = max(_LEAST_HELD_OUT, round(_HELD_OUT * len(able)))
    if len(able) < count + 2:
        raise BadInput(
            "too few characters to fine-tune on", got=f"{len(able)} with a figure in two pictures or clips",
            expected=f"at least {_LEAST_HELD_OUT + 2}: two to learn from, two to be asked about",
        )  # fmt: skip
    return set(able[:count])


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
