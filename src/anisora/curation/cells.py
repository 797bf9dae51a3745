"""Every result once: (clip, what was measured, how) -> value or reason, in Parquet files that are never changed.

A worker writes one file a unit, whole or not at all. The key of a cell names the measure, its version, its parameters
and its weights; the clip's id names the source's content and the span. So a result is found again by what it is of, and a
changed parameter leaves every other column as it was. Reading is DuckDB's business.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from anisora.files import write_atomic
from anisora.records import Score
from anisora.store import content_hash

_TEXT = pa.string()

CELL = pa.schema(
    {
        "clip_id": _TEXT,
        "name": _TEXT,
        "key": _TEXT,
        "view": _TEXT,
        "number": pa.float64(),
        "word": _TEXT,
        "unit": _TEXT,
        "backend": _TEXT,
        "weights_sha256": _TEXT,
        "reason": _TEXT,
        "message": _TEXT,
        "details": _TEXT,
        "cpu_s": pa.float64(),
        "is_fault": pa.bool_(),
    }
)

SPAN = pa.schema(
    {
        "clip_id": _TEXT,
        "source_sha256": _TEXT,
        "key": _TEXT,
        "start_frame": pa.int64(),
        "end_frame": pa.int64(),
        "start_pts": pa.int64(),
        "end_pts": pa.int64(),
        "time_base_num": pa.int64(),
        "time_base_den": pa.int64(),
        "fps_num": pa.int64(),
        "fps_den": pa.int64(),
        "width_px": pa.int32(),
        "height_px": pa.int32(),
        "transition_in": _TEXT,
        "transition_out": _TEXT,
    }
)

#: files of one kind beyond which they are put together into one
COMPACT_AT = 1000


def config_key(name: str, version: int, params: Any = None, weights_sha256: str | None = None) -> str:
    """The key of everything a measure does to a clip: 16 hexadecimal digits."""
    return content_hash([name, version, params, weights_sha256])[:16]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A column: the measure's name, the key under which its cells count, and whether it is measured on the crop."""

    name: str
    key: str
    follows_crop: bool = False


def cell_of(
    clip_id: str,
    key: str,
    score: Score,
    *,
    view: str = "",
    cpu_s: float = 0.0,
    message: str = "",
    is_fault: bool = False,
) -> dict[str, Any]:
    """A score as a row; a fault is a score that is missing because something went wrong, and may be tried again."""
    is_word = isinstance(score.raw, str)
    return {
        "clip_id": clip_id,
        "name": score.name,
        "key": key,
        "view": view,
        "number": None if is_word or score.raw is None else float(score.raw),
        "word": score.raw if is_word else None,
        "unit": score.unit,
        "backend": score.backend,
        "weights_sha256": score.weights_sha256,
        "reason": score.reason,
        "message": message or None,
        "details": json.dumps(dict(score.details), sort_keys=True) if score.details else None,
        "cpu_s": cpu_s,
        "is_fault": is_fault,
    }


def word_cell(clip_id: str, name: str, key: str, word: str | None, **fields: Any) -> dict[str, Any]:
    """A row that holds a word, or the reason why there is none."""
    return {**dict.fromkeys(CELL.names), "clip_id": clip_id, "name": name, "key": key, "view": "", "word": word,
            "is_fault": False, **fields}  # fmt: skip


class CellStore:
    """The cells and spans under one output folder, in its folder `results`."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.folder = Path(out) / "results"
        _leave_pandas_alone()

    def write(self, kind: str, unit_key: str, rows: Sequence[Mapping[str, Any]]) -> Path | None:
        """Writes the rows of one unit as one file (`kind` is `cells` or `spans`); doing it twice changes nothing."""
        if not rows:
            return None
        table = pa.Table.from_pylist(list(rows), schema=SPAN if kind == "spans" else CELL)
        path = self.folder / kind / f"{unit_key[:32]}.parquet"
        return write_atomic(path, partial(_write_table, table))

    def files(self, kind: str) -> list[Path]:
        folder = self.folder / kind
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))

    def read(self, kind: str) -> pa.Table:
        """All rows of one kind."""
        kind_schema = SPAN if kind == "spans" else CELL
        files = self.files(kind)
        if not files:
            return kind_schema.empty_table()
        return pa.concat_tables([pq.read_table(path, schema=kind_schema) for path in files])

    def compact(self, kind: str, *, at: int = COMPACT_AT) -> bool:
        """Puts the files of one kind together when there are many; the new one is there before the old ones go."""
        files = self.files(kind)
        if len(files) < at:
            return False
        table = self.read(kind)
        name = "all-" + content_hash([path.name for path in files])[:24]
        write_atomic(self.folder / kind / f"{name}.parquet", partial(_write_table, table))
        for path in files:
            path.unlink()
        return True

    def remove(self, kind: str, keep: Any) -> int:
        """Rewrites the files of one kind without the rows for which the mask function is False; how many rows went."""
        removed = 0
        for path in self.files(kind):
            table = pq.read_table(path, schema=SPAN if kind == "spans" else CELL)
            kept = table.filter(keep(table))
            if kept.num_rows == table.num_rows:
                continue
            removed += table.num_rows - kept.num_rows
            if kept.num_rows:
                write_atomic(path, partial(_write_table, kept))
            else:
                path.unlink()
        return removed


@cache
def _leave_pandas_alone() -> None:
    """Has pyarrow find no pandas when it makes its first array from a list.

    It looks then, and only then, whether the list might be a Series, for which it imports pandas: half a second in every
    worker that never sees one. Asked for a DataFrame, it looks again.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """A finder of modules that says there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def columns_of(cells: pa.Table, wanted: Iterable[Wanted], crops: pa.Table | None = None) -> dict[str, pa.Table]:
    """name -> table of `clip_id, number, word, backend, reason, message, details`, one row a clip, of the cells that count.

    `crops` has `clip_id, view`: measures that follow the crop count only when they were made on that view.
    """
    import duckdb

    found = {}
    nowhere = pa.table({"clip_id": pa.array([], _TEXT), "view": pa.array([], _TEXT)})
    with duckdb.connect() as database:
        database.register("cells", cells)
        database.register("crops", nowhere if crops is None else crops)
        for column in wanted:
            view = "coalesce(crops.view, '')" if column.follows_crop else "''"
            found[column.name] = database.sql(
                f"""
                SELECT cells.clip_id, max(number) AS number, max(word) AS word, max(backend) AS backend,
                       max(reason) AS reason, max(message) AS message, max(details) AS details
                FROM cells LEFT JOIN crops ON cells.clip_id = crops.clip_id
                WHERE name = $name AND key = $key AND cells.view = {view}
                GROUP BY cells.clip_id
                """,
                params={"name": column.name, "key": column.key},
            ).to_arrow_table()
    return found
