"""`clips.parquet`: one row a clip, kept or dropped, and the one hash that says whether two runs made the same set.

The schema is written down here and nowhere else. Columns of a measure M come in threes: `M`, `M_backend`, `M_reason`;
M is null exactly when M_reason says why.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anisora.errors import BadInput
from anisora.files import existing_file, write_atomic
from anisora.records import Span

CLIP_NAMESPACE = uuid.UUID("6f1f4d0e-7a54-5c3e-9f0d-0d4f6b1c2a11")

_TEXT, _WHOLE = pa.string(), pa.int64()

#: what every clip has, measured or not
BASE: dict[str, pa.DataType] = {
    "clip_id": _TEXT,
    "source_id": _TEXT,
    "source_path": _TEXT,
    "source_sha256": _TEXT,
    "start_pts": _WHOLE,
    "end_pts": _WHOLE,
    "time_base_num": _WHOLE,
    "time_base_den": _WHOLE,
    "start_frame": _WHOLE,
    "end_frame": _WHOLE,
    "n_frames": _WHOLE,
    "fps_num": _WHOLE,
    "fps_den": _WHOLE,
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "crop_x_px": pa.int32(),
    "crop_y_px": pa.int32(),
    "crop_w_px": pa.int32(),
    "crop_h_px": pa.int32(),
    "caption": _TEXT,
    "caption_backend": _TEXT,
    "tags": pa.map_(_TEXT, _TEXT),
    "licence": _TEXT,
    "split": _TEXT,
    "path": _TEXT,
    "verdict": _TEXT,
    "reason": _TEXT,
}

#: beyond the contract: why a clip cannot be used at all, which clips show the same, and the bytes of its file
EXTRA: dict[str, pa.DataType] = {
    "fault": _TEXT,
    "message": _TEXT,
    "provenance": _TEXT,
    "transition_in": _TEXT,
    "transition_out": _TEXT,
    "repeat_group": _TEXT,
    "repeat_kind": _TEXT,
    "sha256": _TEXT,
    "num_bytes": _WHOLE,
}

NUMBER, WORD = pa.float32(), pa.string()

#: the measures every table has, and what their values are; a run may add others
MEASURES: dict[str, pa.DataType] = {
    "text_cover": NUMBER,
    "flow": NUMBER,
    "aesthetic": NUMBER,
    "quality": NUMBER,
    "duration_s": NUMBER,
    "drawing_fps": NUMBER,
    "camera": WORD,
    "talking": WORD,
    "motion_grade": WORD,
    "dimension": WORD,
    "quality_filter": NUMBER,
}

#: M_reason of a measure that has not looked yet, because the clip had fallen out before
NOT_MEASURED = "not_measured"

#: rows whose text is held at once for the manifest hash: few enough for the processor's cache
_ROWS_AT_ONCE = 8192

_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)


def clip_id(source_sha256: str, span: Span) -> str:
    """The id of a clip: uuid5 of the source's content and the span in pts, so that doing it twice changes nothing."""
    text = f"{source_sha256}:{span.start_pts}:{span.end_pts}:{span.time_base}"
    return str(uuid.uuid5(CLIP_NAMESPACE, text))


def fault_id(source_sha256: str) -> str:
    """The id of the row that stands for a source of which nothing could be used."""
    return str(uuid.uuid5(CLIP_NAMESPACE, f"{source_sha256}:nothing"))


def schema(measures: Mapping[str, pa.DataType] = MEASURES) -> pa.Schema:
    """The columns of `clips.parquet`, in their order."""
    fields = [pa.field(name, kind) for name, kind in BASE.items()]
    for name, kind in measures.items():
        fields += [pa.field(name, kind), pa.field(f"{name}_backend", _TEXT), pa.field(f"{name}_reason", _TEXT)]
    return pa.schema(fields + [pa.field(name, kind) for name, kind in EXTRA.items()])


def measures_of(table: pa.Table) -> list[str]:
    """The measures a table has columns for."""
    names = set(table.column_names)
    return [name for name in table.column_names if f"{name}_reason" in names and f"{name}_backend" in names]


def build(rows: Sequence[Mapping[str, Any]], measures: Mapping[str, pa.DataType] = MEASURES) -> pa.Table:
    """A table of the rows, sorted by clip_id; what a row leaves out is null, a measure then `not_measured`.

    Raises BadInput for an unknown column, for two rows of one clip, and for a measure with neither value nor reason.
    """
    kind = schema(measures)
    known = set(kind.names)
    complete = []
    for row in sorted(rows, key=lambda row: str(row["clip_id"])):
        if strange := row.keys() - known:
            raise BadInput("a clip with unknown columns", got=", ".join(sorted(strange)))
        filled = dict(row)
        for name in measures:
            if filled.get(name) is None and not filled.get(f"{name}_reason"):
                filled[f"{name}_reason"] = NOT_MEASURED
        complete.append({column: filled.get(column) for column in kind.names})
    table = pa.Table.from_pylist(complete, schema=kind)
    check(table)
    return table


def check(table: pa.Table) -> None:
    """Raises BadInput unless clips are listed once and every measure has a value or a reason, never both."""
    if pc.count_distinct(table["clip_id"]).as_py() != table.num_rows:
        raise BadInput("a clip is listed twice", got=f"{table.num_rows} rows", expected="one a clip")
    for name in measures_of(table):
        has_value, has_reason = pc.is_valid(table[name]), pc.is_valid(table[f"{name}_reason"])
        if not pc.all(pc.xor(has_value, has_reason), min_count=0).as_py():
            raise BadInput(f"the column {name} is in disorder", expected=f"a value or {name}_reason, never both")


def write(table: pa.Table, path: str | os.PathLike[str]) -> Path:
    """Writes a table as Parquet, whole or not at all."""
    return write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd", compression_level=1))


def read(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """The table that `write` wrote. Raises BadInput for a file that is none."""
    path = existing_file(path, BadInput, "the table of clips")
    try:
        return pq.read_table(path, columns=list(columns) if columns else None)
    except (pa.ArrowInvalid, OSError) as reason:
        raise BadInput("not a table that can be read", got=f"{path} ({reason})", expected="Parquet") from reason


# ------------------------------------------------------------------------------------------------------ manifest hash


def manifest_hash(table: pa.Table) -> str:
    """sha256 over rows sorted by clip_id of (clip_id, span, crop, verdict, reason, scores as float32 hex).

    Encoded bytes, times and paths stay out: it says what was chosen and why, not when or by which engine. Measures
    enter in the order of their names; a word as it is, nothing as `-`.
    """
    if not table.num_rows:
        return hashlib.sha256().hexdigest()
    ids = table["clip_id"].combine_chunks()
    if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
        table = table.take(pc.sort_indices(ids))
    digest = hashlib.sha256()
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        digest.update(_lines(table.slice(start, _ROWS_AT_ONCE)))
    return digest.hexdigest()


def _lines(table: pa.Table) -> memoryview:
    """The rows as the manifest hash reads them."""
    whole = [
        "start_pts", "end_pts", "time_base_num", "time_base_den", "start_frame", "end_frame",
        "crop_x_px", "crop_y_px", "crop_w_px", "crop_h_px",
    ]  # fmt: skip
    columns = [_as_text(table["clip_id"]), *(_as_text(table[name]) for name in whole)]
    columns += [_as_text(table[name]) for name in ("verdict", "reason")]
    for name in sorted(measures_of(table)):
        columns += [pa.scalar(f"{name}="), _as_text(table[name])]
    return _bytes_of(pc.binary_join_element_wise(*columns, pa.scalar("", _TEXT), "|"))


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    """A column as text: whole numbers in decimal, others as the hexadecimal of their float32, nothing as `-`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_floating(array.type):
        values = np.asarray(array.fill_null(0.0), dtype=np.float32) + np.float32(0)  # -0 is 0
        text = _HEX[values.astype(">f4").view(np.uint8)].reshape(len(values), 8)
        plain = pa.array(text.view("S8").reshape(-1)).cast(_TEXT)
        return pc.if_else(array.is_valid(), plain, "-")
    return array.cast(_TEXT).fill_null("-")


def _bytes_of(lines: pa.Array) -> memoryview:
    """The text of an array of strings, one behind the other, each ending in its separator."""
    lines = pa.concat_arrays([lines])
    _, offsets, data = lines.buffers()
    places = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(data)[places[0] : places[-1]]


def spans_of(rows: Iterable[Mapping[str, Any]]) -> list[Span]:
    """The span of each row."""
    return [
        Span(
            start_frame=row["start_frame"],
            end_frame=row["end_frame"],
            start_pts=row["start_pts"],
            end_pts=row["end_pts"],
            time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        )
        for row in rows
    ]
