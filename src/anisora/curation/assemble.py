"""From spans and cells to the table of clips: a join, by id, of everything that is known under the present settings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation import table as clips
from anisora.curation.cells import Wanted, columns_of
from anisora.curation.table import NOT_MEASURED

_TEXT = pa.string()

#: what is known of each source
SOURCE = pa.schema(
    {
        "source_sha256": _TEXT,
        "source_id": _TEXT,
        "source_path": _TEXT,
        "path_bytes": pa.binary(),
        "num_bytes": pa.int64(),
        "duration_s": pa.float64(),
        "licence": _TEXT,
        "provenance": _TEXT,
        "split": _TEXT,
        "fault": _TEXT,
        "message": _TEXT,
        "num_frames": pa.int64(),
        "read_errors": pa.int64(),
    }
)


def assemble(
    sources: pa.Table,
    spans: pa.Table,
    cells: pa.Table,
    *,
    spans_key: str,
    measures: Sequence[Wanted],
    kinds: Mapping[str, pa.DataType],
    crop: Wanted,
    cropped: Collection[str],
    file: Wanted,
    caption: Wanted,
    marks: pa.Table,
    tags: Sequence[Wanted] = (),
) -> pa.Table:
    """The table of clips without verdicts (see `table.BASE`): one row a clip of the present spans, one a useless source.

    `measures` are the columns and the keys under which their cells count; `cropped` are the clips whose crop counts;
    `marks` say which clips repeat others; the details of `tags` go into the map of tags.
    """
    spans = unique_spans(spans, spans_key, sources)
    crops = columns_of(cells, [crop])[crop.name]
    crops = crops.filter(pc.is_in(crops["clip_id"], pa.array(sorted(cropped), _TEXT)))
    views = pa.table({"clip_id": crops["clip_id"], "view": pc.fill_null(crops["word"], "")})
    found = columns_of(cells, [*measures, file, caption, *tags], views)
    rows = _sourced(spans, sources)
    columns: dict[str, Any] = {
        name: rows[name] for name in rows.column_names if name in clips.BASE or name in clips.EXTRA
    }
    columns["n_frames"] = pc.subtract(rows["end_frame"], rows["start_frame"])
    ids = rows["clip_id"]
    columns |= _crop_columns(rows, _aligned(ids, crops))
    for name, kind in kinds.items():
        columns |= _measure_columns(name, kind, _aligned(ids, found[name]) if name in found else None, rows.num_rows)
    made = _aligned(ids, found[file.name])
    columns |= _file_columns(made)
    again = _aligned(ids, marks)
    columns |= {name: again[name] for name in ("repeat_group", "repeat_kind")}
    told = _aligned(ids, found[caption.name])
    columns["caption"], columns["caption_backend"] = told["word"], told["backend"]
    named = {column.name: _aligned(ids, found[column.name]) for column in (*measures, caption, *tags)}
    columns["tags"] = _tags(named, {column.name for column in (caption, *tags)}, rows.num_rows)
    kind = clips.schema(kinds)
    blank = {field.name: pa.nulls(rows.num_rows, field.type) for field in kind if field.name not in columns}
    whole = pa.table([_cast({**columns, **blank}[field.name], field.type) for field in kind], schema=kind)
    faults = _fault_rows(sources, spans)
    if faults:
        whole = pa.concat_tables([whole, clips.build(faults, kinds)])
    return whole.take(pc.sort_indices(whole["clip_id"]))


def _cast(column: Any, kind: pa.DataType) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array if array.type == kind else array.cast(kind)


def unique_spans(spans: pa.Table, spans_key: str, sources: pa.Table) -> pa.Table:
    """The spans of these sources under that key, one row a clip: units that were done twice wrote the same."""
    known = sources["source_sha256"].combine_chunks()
    spans = spans.filter(pc.and_(pc.equal(spans["key"], spans_key), pc.is_in(spans["source_sha256"], known)))
    _, first = np.unique(np.array(spans["clip_id"].to_pylist(), dtype=object), return_index=True)
    return spans.take(pa.array(first, pa.int64()))


def _sourced(spans: pa.Table, sources: pa.Table) -> pa.Table:
    place = pc.index_in(spans["source_sha256"], sources["source_sha256"].combine_chunks())
    for name in ("source_id", "source_path", "licence", "provenance", "split"):
        spans = spans.append_column(name, sources[name].take(place))
    return spans


def _aligned(ids: pa.ChunkedArray, found: pa.Table) -> pa.Table:
    """The rows of a column in the order of the ids; null where there is none."""
    if not found.num_rows:
        return pa.table({field.name: pa.nulls(len(ids), field.type) for field in found.schema})
    place = pc.index_in(ids, found["clip_id"].combine_chunks())
    return found.take(place)


def _measure_columns(name: str, kind: pa.DataType, found: pa.Table | None, count: int) -> dict[str, Any]:
    if found is None:
        reasons = pa.array([NOT_MEASURED] * count, _TEXT)
        return {name: pa.nulls(count, kind), f"{name}_backend": pa.nulls(count, _TEXT), f"{name}_reason": reasons}
    values = found["number"] if pa.types.is_floating(kind) else found["word"]
    has_value = pc.is_valid(values)
    reasons = pc.if_else(has_value, pa.scalar(None, _TEXT), pc.fill_null(found["reason"], NOT_MEASURED))
    return {name: values, f"{name}_backend": pc.if_else(has_value, found["backend"], None), f"{name}_reason": reasons}


def _crop_columns(rows: pa.Table, crops: pa.Table) -> dict[str, Any]:
    """The crop of each clip, the whole picture where there is none."""
    count = rows.num_rows
    whole = [np.zeros(count, np.int64), np.zeros(count, np.int64)]
    whole += [np.asarray(rows["width_px"]).copy(), np.asarray(rows["height_px"]).copy()]
    words = crops["word"].to_pylist()
    for row in (number for number, word in enumerate(words) if word):
        for side, text in zip(whole, words[row].split(","), strict=True):
            side[row] = int(text)
    names = ("crop_x_px", "crop_y_px", "crop_w_px", "crop_h_px")
    return dict(zip(names, (pa.array(side, pa.int64()) for side in whole), strict=True))


def _file_columns(made: pa.Table) -> dict[str, Any]:
    details = [json.loads(text) if text else {} for text in made["details"].to_pylist()]
    return {
        "path": made["word"],
        "sha256": pa.array([entry.get("sha256") for entry in details], _TEXT),
        "num_bytes": pa.array([entry.get("num_bytes") for entry in details], pa.int64()),
        "fault": made["reason"],
        "message": made["message"],
    }


def _tags(named: Mapping[str, pa.Table], plain: set[str], count: int) -> pa.Array:
    """The map of tags: details of captions and tag columns as they are, those of measures as `measure.detail`."""
    entries: list[dict[str, str]] = [{} for _ in range(count)]
    for name, found in sorted(named.items()):
        before = "" if name in plain else f"{name}."
        for row, text in enumerate(found["details"].to_pylist()):
            if text:
                entries[row] |= {f"{before}{key}": str(value) for key, value in json.loads(text).items()}
    return pa.array([sorted(entry.items()) for entry in entries], pa.map_(_TEXT, _TEXT))


def _fault_rows(sources: pa.Table, spans: pa.Table) -> list[dict[str, Any]]:
    """One row for each source of which there is no clip, with the reason."""
    useful = set(spans["source_sha256"].to_pylist())
    return [
        {
            **{
                name: row[name]
                for name in ("source_id", "source_path", "source_sha256", "licence", "provenance", "split")
            },
            "clip_id": clips.fault_id(row["source_sha256"]),
            "fault": row["fault"] or "no_shots",
            "message": row["message"],
        }
        for row in sources.to_pylist()
        if row["source_sha256"] not in useful
    ]
