"""Other thresholds and pages for a set that is there: columns are read, verdicts are written, no video is opened."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation import table as clips
from anisora.curation.ledger import locked
from anisora.curation.mixture import PRESETS, mix, save
from anisora.curation.pipeline import CLIPS, Curated, remember
from anisora.curation.select import KEEP, Bounds, Rules, Selection, merged, select
from anisora.curation.shards import are_behind, write_shards
from anisora.curation.upkeep import existing_run, stored_config
from anisora.errors import BadConfig


def reselect(
    out: str | os.PathLike[str],
    rules: Rules | None = None,
    *,
    between: Mapping[str, Bounds] | None = None,
    without: Mapping[str, tuple[str, ...]] | None = None,
    stages: Sequence[str] = (),
    dry_run: bool = False,
    pack: bool = False,
) -> Curated:
    """Decides every clip of a finished run anew and writes `clips.parquet`, mixtures and the run's settings.

    `rules` replace those of the run; `between` and `without` change single ones. Clips that the new rules would keep but
    that were never measured or encoded are counted as `unmeasured`: running the pipeline again makes them. Shards follow
    with `pack`, at the next run, or through a mixture; until then `shards` counts the clips that are `behind`.
    Raises BadInput without a finished run, BadConfig for rules about what the table does not have.
    """
    started = time.monotonic()
    folder = existing_run(out)
    with locked(folder):
        config = stored_config(folder)
        new = merged(rules or config.select, between or {}, without or {})
        table = clips.read(folder / CLIPS)
        selection = select(table, new)
        mixtures = _mixtures(folder, selection.table, stages, dry_run)
        result = _result(folder, selection, mixtures, time.monotonic() - started)
        if not dry_run:
            clips.write(selection.table, folder / CLIPS)
            remember(folder, replace(config, select=new), result)
            from anisora.curation.report import write_report

            write_report(folder, selection, replace(config, select=new))
            if pack:
                return replace(result, shards=write_shards(folder, selection.table, config.shards))
            return replace(result, shards=are_behind(folder, selection.table))
    return result


def _mixtures(folder: Path, table: pa.Table, stages: Sequence[str], dry_run: bool) -> dict[str, int]:
    made = {}
    for name in stages:
        if name not in PRESETS:
            raise BadConfig("no such stage", got=name, expected=" or ".join(PRESETS))
        mixture = mix(table, PRESETS[name])
        made[name] = mixture.num_draws
        if not dry_run:
            save(mixture, folder / "mixtures")
    return made


def _result(folder: Path, selection: Selection, mixtures: dict[str, int], seconds: float) -> Curated:
    table = selection.table
    is_kept = pc.equal(table["verdict"], KEEP)
    faults = pc.value_counts(table["fault"].drop_null()).to_pylist()
    without_file = pc.sum(pc.and_(is_kept, pc.is_null(table["path"]))).as_py() or 0
    return Curated(
        out=str(folder),
        sources=pc.count_distinct(table["source_sha256"]).as_py(),
        clips=table.num_rows,
        kept=selection.num_kept,
        kept_s=float(pc.sum(pc.if_else(is_kept, table["duration_s"], 0.0)).as_py() or 0.0),
        manifest_hash=clips.manifest_hash(table),
        funnel=selection.funnel,
        shards={},
        mixtures=mixtures,
        faults={entry["values"]: entry["counts"] for entry in faults},
        unmeasured=selection.unmeasured + int(without_file),
        nearest_miss=selection.nearest_miss,
        passed_over=0,
        seconds=seconds,
    )


def rewrite_report(out: str | os.PathLike[str]) -> Path:
    """The report of a finished run, written again from its table. Raises BadInput."""
    from anisora.curation.report import write_report

    folder = existing_run(out)
    with locked(folder):
        config = stored_config(folder)
        return write_report(folder, select(clips.read(folder / CLIPS), config.select), config)


def rewrite_review(
    out: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    heads: Sequence[str] = (),
    limit: int = 200,
    seed: int = 0,
) -> tuple[Path, int]:
    """The page to label the clips of a finished run on, and how many clips it shows.

    `labels` is a CSV of labels given before; `heads` those asked about, all by default. Raises BadInput, also where no
    clip has a file.
    """
    from anisora.curation.heads import HEADS, apply_heads, label_rows, read_features
    from anisora.curation.review import FEATURES, PAGE, write_review

    folder = existing_run(out)
    given = label_rows(labels) if labels else []
    with locked(folder):
        rows = [row for row in clips.read(folder / CLIPS).to_pylist() if row["path"]]
        features = read_features(folder / FEATURES) if (folder / FEATURES).exists() else {}
        scores = apply_heads(features, stored_config(folder).heads)
        page = write_review(
            rows, folder / PAGE, scores=scores, heads=heads or HEADS, labels=given, limit=limit, seed=seed
        )
    return page, min(limit, len(rows))
