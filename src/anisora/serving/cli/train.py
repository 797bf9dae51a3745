"""`anisora train`: the model by default; `captioner`, `heads`, `build-masks` for its data. Thin doors to `training`."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from anisora.serving.cli.console import print_json, progress_bars, say, show_pairs, show_table
from anisora.serving.cli.default import DEFAULT, WithDefault

app = typer.Typer(
    cls=WithDefault,
    help="Train or fine-tune: a model (anisora train CONFIG.yaml), the captioner, the heads of curation, masks to train on.",
    epilog="Example: anisora train configs/quickstart.yaml data.videos=my_clips",
    no_args_is_help=True,
)
_Config = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train, on what, and how.")]
_Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Fields to change, as data.clips=100.")
]
_MaxMinutes = Annotated[float, typer.Option(help="Stop and save after so long.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


@app.command(DEFAULT, hidden=True)
def train(
    config: _Config,
    overrides: _Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Run one stage of a training from scratch alone.")] = None,
    max_minutes: _MaxMinutes = math.inf,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what fine-tuning or distilling would cost; train nothing.")
    ] = False,
    devices: Annotated[int, typer.Option(help="With --dry-run: how many devices it would run on.", min=1)] = 1,
    as_json: _Json = False,
) -> None:
    """Train or fine-tune a model; running the same command again resumes.

    Example: anisora train configs/quickstart.yaml data.videos=my_clips
    """
    from anisora.training.launch import cost, main

    if dry_run:
        facts = dataclasses.asdict(cost(config, tuple(overrides or ()), devices=devices))
        print_json(facts) if as_json else show_pairs(readable(facts))
        return
    exported = main(config, tuple(overrides or ()), stage=stage, max_minutes=max_minutes)
    _told(exported, as_json)


@app.command()
def captioner(
    config: _Config,
    overrides: _Overrides = None,
    max_minutes: _MaxMinutes = math.inf,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check pairs and model, and say what would train.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Fine-tune a vision-language model on pairs of clips and captions (or keep/drop verdicts); resumes.

    Example: anisora train captioner configs/captioner.yaml pairs=pairs.jsonl model.folder=models/Qwen2.5-VL-7B-Instruct
    """
    from anisora.training import captioner as recipe

    settings = recipe.load_config(config, tuple(overrides or ()))
    if dry_run:
        facts = recipe.dry_run(settings)
        print_json(facts) if as_json else say(", ".join(f"{name} {value}" for name, value in facts.items()))
        return
    _told(recipe.main(settings, max_minutes=max_minutes), as_json)


@app.command("build-masks")
def build_masks(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Files, or folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where pairs.jsonl, areas/ and sheets/ go.")],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML with fields of the settings below; see the docs.")
    ] = None,
    salience: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx", help="Another salient-object network than the bundled U2-Net."),
    ] = None,
    tracker: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="SAM 2 in transformers' layout that follows it, instead of optical flow."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make video-mask pairs for motion-area training: where the foreground of each clip moves; resumes.

    Example: anisora train build-masks my_clips --out my_pairs
    """
    from anisora import settings
    from anisora.training.masks import MaskSettings, read_settings
    from anisora.training.masks import build_masks as build

    chosen: MaskSettings = read_settings(settings.load(config) if config else {}, salience, tracker)
    with progress_bars(quiet=as_json) as progress:
        records = build(videos, out, chosen, progress=progress, say=say)
    reasons = Counter(record["reason"] or "kept" for record in records)
    if as_json:
        print_json({"pairs": str(out / "pairs.jsonl"), "videos": len(records), **reasons})
        return
    say(", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
    say(f"written to {out}; look at {out / 'sheets'}")


@app.command()
def heads(
    labels: Annotated[Path, typer.Argument(metavar="LABELS.csv", help="As the review page exports it.")],
    features: Annotated[Path, typer.Option(help="The stored features of the clips.", metavar="FILE.parquet")],
    out: Annotated[Path, typer.Option(help="The folder of the heads.", metavar="DIR")],
    groups: Annotated[
        Path | None,
        typer.Option(help="A clips.parquet: clips of one source never stand on both sides of a test.", metavar="FILE"),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Train the heads that there are labels for, and say how good each is on clips it has not seen.

    Example: anisora train heads labels.csv --features data/features.parquet --out heads
    """
    from anisora.curation.heads import read_features, read_labels, train_head

    table, by_head = read_features(features), read_labels(labels)
    sources = _sources(groups) if groups else None
    results: dict[str, Any] = {}
    for name, known in by_head.items():
        head, evaluation = train_head(name, table, known, sources)
        head.save(out)
        results[name] = dataclasses.asdict(evaluation)
    if as_json:
        print_json(results)
        return
    columns = ("labels", "accuracy", "majority", "balanced_accuracy", "auc", "calibration_error")
    rows = [
        (name, *(f"{r[c]:.3f}" if isinstance(r[c], float) else r[c] for c in columns)) for name, r in results.items()
    ]
    show_table(("head", *columns), rows)
    say(f"written to {out}")


def _sources(path: Path) -> dict[str, str]:
    """clip_id -> source_id of a clips.parquet."""
    import pyarrow.parquet

    from anisora.errors import BadInput
    from anisora.files import existing_file

    try:
        table = pyarrow.parquet.read_table(
            existing_file(path, BadInput, "the table of clips"), columns=["clip_id", "source_id"]
        )
    except (pyarrow.ArrowException, ValueError) as reason:
        raise BadInput("not a table of clips", got=f"{path} ({reason})", expected="clip_id and source_id") from reason
    return dict(zip(*(table.column(name).to_pylist() for name in ("clip_id", "source_id")), strict=True))


def readable(facts: dict[str, Any]) -> dict[str, Any]:
    """The figures of a dry run in the units that one speaks of."""
    used = {use.replace("_", " "): _size(count) for use, count in facts["memory_bytes"].items()}
    return facts | {
        "buckets": "; ".join(facts["buckets"]),
        "epochs": f"{facts['epochs']:.2f}",
        "tokens_a_step": f"{facts['tokens_a_step']:,.0f}",
        "trained_parameters": f"{facts['trained_parameters']:,}",
        "parameters": f"{facts['parameters']:,}",
        "flops_a_step": f"{facts['flops_a_step']:.3g}",
        "memory_bytes": used,
        "cache_bytes": _size(facts["cache_bytes"]) if facts["cache_bytes"] else "none: clips are encoded online",
        "measured_flops_a_second": f"{facts['measured_flops_a_second']:.3g} (matrix ceiling of this machine's device)",
        "seconds_a_step": f"{facts['seconds_a_step']:.3g} at that ceiling, which no run reaches",
        "hours": f"{facts['hours']:.3g} at that ceiling",
    }


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.2f} MiB"


def _told(exported: Path | None, as_json: bool) -> None:
    from anisora.runtime import rank

    if rank() > 0:
        return  # one of several processes speaks
    if as_json:
        print_json({"exported": str(exported) if exported else None})
    say(f"exported to {exported}" if exported else "saved; run the same command again to go on")
