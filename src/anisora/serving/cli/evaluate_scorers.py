"""Scorers that learn from votes, scorers of others, and the package's own networks for faults: `anisora evaluate
train-scorer`, `apply-scorer`, `convert-scorer`, `train-faults`.

`add_to(app)` puts the verbs into the group that evaluate.py makes.
"""

from __future__ import annotations

import math
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
    app.command("convert-scorer")(convert_scorer)
    app.command("train-faults")(train_faults)


def train_scorer(
    votes: Annotated[
        Path,
        typer.Argument(metavar="VOTES.jsonl", help="Ratings of clips, or choices between two; graded motion captions."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the scorer and its card.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Fields of the recipe to change, as steps=500.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A head: the scores of the clips that were voted on.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Fine-tuning: the recipe, instead of --scores.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fine-tuning: the clips by the ids in the votes.")
    ] = None,
    dimension: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of several dimensions in the file, this one.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="regression|pairwise", help="A head; default: by what most votes are.")
    ] = None,
    max_minutes: Annotated[float, typer.Option(help="Fine-tuning: stop and save after so long.")] = math.inf,
    as_json: _Json = False,
) -> None:
    """Train a scorer from what people said, and say how good it is on prompts that it has not seen.

    With --scores a linear head on what the metrics measured: minutes, a few hundred votes. With --recipe a network is
    fine-tuned, encoders and all; the same command goes on where it was interrupted.

    Example: anisora evaluate train-scorer votes.jsonl --scores eval --dimension smoothness --out scorer
    """
    if (scores is None) == (recipe is None):
        raise BadRequest("what is to be trained", got="both" if scores else "neither", expected="--scores or --recipe")
    if recipe is not None:
        if kind or dimension:
            raise BadRequest("--kind and --dimension are for a head", hint="dimension: NAME in the recipe")
        _finetune(votes, out, recipe, overrides or [], manifest, max_minutes, as_json)
    elif manifest or overrides or max_minutes < math.inf:
        raise BadRequest("--manifest, --max-minutes and key=value are for fine-tuning", expected="--recipe")
    else:
        _train_head(votes, out, scores, dimension, kind, as_json)


def _finetune(
    votes: Path, out: Path, recipe: Path, overrides: list[str], manifest: Path | None, max_minutes: float, as_json: bool
) -> None:
    from anisora.evaluation import finetuning
    from anisora.serving.scorer_loop import fit

    chosen = finetuning.load_recipe(recipe, overrides)
    examples = finetuning.read_examples(chosen, votes, manifest)
    figures = finetuning.finetune(chosen, examples, out, fit, max_minutes=max_minutes)
    if as_json:
        print_json({"path": str(out), "done": figures is not None, **(figures or {})})
    elif figures is None:
        say("saved; run the same command again to go on")
    else:
        say((out / finetuning.CARD).read_text(encoding="utf-8"))
        say(f"wrote {out}")


def _train_head(
    votes: Path, out: Path, scores: Path | None, dimension: str | None, kind: str | None, as_json: bool
) -> None:
    from anisora.evaluation import scorers
    from anisora.evaluation.records import RESULTS, read_records
    from anisora.evaluation.votes import read_votes

    assert scores is not None  # the caller has looked
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
    """Let a trained head score the clips of a folder of scores; adds lines of the backend `full` to it.

    A scorer with a network of its own looks at the clips: anisora evaluate CLIPS --scorer SCORER.

    Example: anisora evaluate apply-scorer scorer eval
    """
    from anisora.evaluation import scorers
    from anisora.evaluation.records import RESULTS, append_records, read_records
    from anisora.evaluation.scorer_card import is_linear

    if not is_linear(scorer):
        raise BadRequest("a scorer that looks at clips", got=scorer, hint=f"anisora evaluate CLIPS --scorer {scorer}")
    said = scorers.apply(scorer, read_records(folder / RESULTS))
    append_records(folder / RESULTS, said)
    if as_json:
        print_json([record.to_json() for record in said])
    else:
        scored = sum(record.score is not None for record in said)
        say(f"{scored} of {len(said)} clips scored for {said[0].metric}" if said else "no clips in the folder")


def convert_scorer(
    weights: Annotated[Path, typer.Argument(metavar="FILE.pth", help="Backbone and head in one file of tensors.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The scorer's folder.")],
    layout: Annotated[str, typer.Option(metavar="frames|pair|prompts", help="How the network is laid out (docs).")],
    dimension: Annotated[str, typer.Option(metavar="NAME", help="What it scores, as text_video.")],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Of a text encoder: a folder, or CLIP's vocabulary (.txt.gz).")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=NAME", help="Where a part or layer lies, where shapes do not say so; repeatable."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Tensors that are no part of it begin so; repeatable.")
    ] = None,
    text_tokens: Annotated[int, typer.Option(min=2, metavar="N", help="Layout pair: captions are cut there.")] = 30,
    as_json: _Json = False,
) -> None:
    """Turn a scorer that was published as one file into the folder that --scorer opens. Nothing in the file is run.

    Tensors that are missing, unexpected or misfit are all named, and then nothing is written.

    Example: anisora evaluate convert-scorer checkpoint_06.pth --layout pair --dimension image_video --out scorer
    """
    from anisora.evaluation.converting import Conversion
    from anisora.evaluation.converting import convert_scorer as convert

    if wrong := [given for given in name or [] if not all(given.partition("="))]:
        raise BadRequest("--name", got=", ".join(wrong), expected="PART=NAME, as head=regressor.2")
    names = {part: where for part, _, where in (given.partition("=") for given in name or [])}
    wanted = Conversion(
        layout=layout, dimension=dimension, tokenizer=tokenizer, names=names,  # type: ignore[arg-type]
        drop=tuple(drop or ()), text_tokens=text_tokens,
    )  # fmt: skip
    made = convert(weights, out, wanted)
    if as_json:
        print_json(made)
        return
    say(f"wrote {made['path']}: " + ", ".join(f"{count} tensors of {part}" for part, count in made["tensors"].items()))
    if made["dropped"]:
        say(f"dropped {', '.join(made['dropped'])}")


def train_faults(
    subject: Annotated[str, typer.Argument(metavar="pictures|figures", help="Faults of pictures, or bent figures.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the run and the weights go; the same folder resumes.")
    ],
    stills: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Drawn pictures that are sound; repeatable.")
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Sound clips; those set apart for it are learned from.")
    ] = None,
    drawn: Annotated[int, typer.Option(min=0, metavar="N", help="How many drawn clips to learn from as well.")] = 240,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of 30 pictures.")] = 2000,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of this command's to go on from; default: none.")
    ] = None,
    max_minutes: Annotated[float, typer.Option(help="Stop and save after so long.")] = math.inf,
    as_json: _Json = False,
) -> None:
    """Train one of the two networks that know what a spoiled picture looks like, as the package's own were.

    Example: anisora evaluate train-faults pictures --stills art/ --clips shots/ --out faults
    """
    from typing import get_args

    from anisora.evaluation.fault_training import FaultSettings, gather, learn
    from anisora.evaluation.samples import find_samples
    from anisora.evaluation.validation import is_learned_from
    from anisora.measures.faults import Subject
    from anisora.media.pictures import STILL_SUFFIXES
    from anisora.serving.cli.console import progress_bars
    from anisora.serving.scorer_loop import fit
    from anisora.training.sources import files_under

    if subject not in get_args(Subject):
        raise BadRequest("unknown subject", got=subject, expected=" or ".join(get_args(Subject)))
    kinds = STILL_SUFFIXES - {".gif"}
    found = [path for folder in stills or () for path in files_under(folder, kinds, "stills", "--stills FOLDER")]
    samples = find_samples([clips]) if clips else []
    chosen = [sample.video for sample in samples if is_learned_from(sample.id)]
    settings = FaultSettings(steps=steps, start=start, max_minutes=max_minutes)
    with progress_bars(quiet=as_json) as progress:
        pictures = gather(found, chosen, drawn, progress)
    if not as_json:
        say(
            f"{len(pictures.stills)} of {len(found)} stills look sound; {len(chosen)} of {len(samples)} clips are for this"
        )
    written = learn(subject, pictures, out, fit, settings)  # type: ignore[arg-type]
    if as_json:
        print_json({"path": str(written) if written else None, "done": written is not None})
    else:
        say(f"wrote {written}" if written else "saved; run the same command again to go on")
