"""Looking after a finished folder: is it whole, what may be tried again, what must go. Nothing here decodes a video."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation import table as clips
from anisora.curation.cells import CellStore
from anisora.curation.config import CurateConfig
from anisora.curation.ledger import Ledger, locked
from anisora.curation.pipeline import CLIPS, LEDGER, PURGED, RUN, SOURCES
from anisora.curation.shards import INDEX, damaged_shards, write_shards
from anisora.errors import BadInput
from anisora.files import write_atomic
from anisora.settings import load, read


def stored_config(out: Path) -> CurateConfig:
    """The settings of the run that made a folder."""
    path = out / RUN
    if not path.exists():
        return CurateConfig()
    return read(CurateConfig, load(path)["config"], where=path.name)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was looked at and what is wrong: clip files and shards by name, with the reason."""

    clips: int
    shards: int
    bad_clips: dict[str, str]
    bad_shards: dict[str, str]
    repaired: bool = False

    @property
    def is_whole(self) -> bool:
        return not self.bad_clips and not self.bad_shards


def existing_run(out: str | os.PathLike[str]) -> Path:
    """The folder when a run has finished there. Raises BadInput."""
    folder = Path(out).absolute()
    if not (folder / CLIPS).exists():
        raise BadInput("no finished curation there", got=out, expected=f"a folder with {CLIPS}", hint="anisora curate")
    return folder


def verify(out: str | os.PathLike[str], *, repair: bool = False) -> Verified:
    """Reads every clip file and shard and compares sizes and hashes with what was written down.

    With `repair`, files with other bytes are removed together with their results, so that the next run makes them again;
    damaged shards are made again at once from the clips that are whole.
    """
    folder = existing_run(out)
    with locked(folder):
        table = clips.read(folder / CLIPS)
        rows = table.filter(pc.is_valid(table["path"])).select(["clip_id", "path", "sha256", "num_bytes"]).to_pylist()
        with ThreadPoolExecutor(2) as pool:
            verdicts = list(pool.map(lambda row: _file_problem(folder, row), rows))
        bad_clips = {row["path"]: problem for row, problem in zip(rows, verdicts, strict=True) if problem}
        bad_shards = damaged_shards(folder)
        for kind in ("latents", "text"):
            if (folder / kind / INDEX).exists():
                bad_shards |= {f"{kind}/{name}": why for name, why in damaged_shards(folder, kind).items()}
        num_shards = len(_shard_names(folder))
        if repair and (bad_clips or bad_shards):
            _repair(folder, table, bad_clips, bad_shards)
    return Verified(
        clips=len(rows), shards=num_shards, bad_clips=bad_clips, bad_shards=bad_shards,
        repaired=repair and bool(bad_clips or bad_shards),
    )  # fmt: skip


def _shard_names(folder: Path) -> set[str]:
    shards = folder / "shards"
    return {name for name in os.listdir(shards) if name.endswith(".tar")} if shards.is_dir() else set()


def _file_problem(folder: Path, row: dict[str, Any]) -> str | None:
    try:
        with (folder / row["path"]).open("rb") as file:
            if os.fstat(file.fileno()).st_size != row["num_bytes"]:
                return "other size"
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"
    return None if digest == row["sha256"] else "other bytes"


def _repair(folder: Path, table: pa.Table, bad_clips: dict[str, str], bad_shards: dict[str, str]) -> None:
    store = CellStore(folder)
    bad = pa.array(sorted(bad_clips), pa.string())
    store.remove(
        "cells", lambda cells: pc.invert(pc.and_(pc.equal(cells["name"], "file"), pc.is_in(cells["word"], bad)))
    )
    for path in bad_clips:
        (folder / path).unlink(missing_ok=True)
    lost = pc.is_in(table["path"], bad)
    for name in ("path", "sha256", "num_bytes"):
        place = table.column_names.index(name)
        column = pc.if_else(lost, pa.scalar(None, table.schema.field(name).type), table[name])
        table = table.set_column(place, table.schema.field(name), column)
    clips.write(table, folder / CLIPS)
    for name in bad_shards:
        (folder / (name if "/" in name else f"shards/{name}")).unlink(missing_ok=True)
    write_shards(folder, table, stored_config(folder).shards)


def retry(out: str | os.PathLike[str], *, failed: bool = True, quarantined: bool = True) -> int:
    """Forgets what went wrong, so that the next run tries it again; the number of results forgotten."""
    folder = Path(out).absolute()
    if not (folder / LEDGER).exists():
        raise BadInput("no run to try again", got=out, expected="the --out of a run", hint="anisora curate")
    crashes = pa.array(["crashed", "timed_out", "memory", "node_lost"], pa.string())
    with locked(folder), Ledger(folder / LEDGER) as ledger:

        def stays(cells: pa.Table) -> Any:
            is_crash = pc.is_in(cells["reason"], crashes)
            wanted = pc.or_(pc.and_(is_crash, quarantined), pc.and_(pc.invert(is_crash), failed))
            return pc.invert(pc.and_(pc.fill_null(cells["is_fault"], False), wanted))

        forgotten = CellStore(folder).remove("cells", stays)
        states = [name for name, wanted in (("failed", failed), ("quarantined", quarantined)) if wanted]
        ledger.retry(states)
    return forgotten


def purge(out: str | os.PathLike[str], *, sources: Sequence[str] = (), licences: Sequence[str] = ()) -> dict[str, int]:
    """Takes sources out for good: their clips, signals, results and shards, and keeps them out of later runs.

    `sources` are ids, hashes or patterns of paths; `licences` patterns. Raises BadInput when nothing fits.
    """
    folder = existing_run(out)
    with locked(folder):
        known = clips.read(folder / SOURCES)
        gone = [row for row in known.to_pylist() if _fits(row, sources, licences)]
        if not gone:
            raise BadInput(
                "no source fits",
                got=", ".join([*sources, *licences]) or "nothing",
                expected="an id, a path or a licence",
            )
        hashes = {row["source_sha256"] for row in gone}
        _keep_out(folder, hashes)
        table = clips.read(folder / CLIPS)
        is_gone = pc.is_in(table["source_sha256"], pa.array(sorted(hashes), pa.string()))
        removed = table.filter(is_gone)
        rest = table.filter(pc.invert(is_gone))
        clips.write(
            known.filter(pc.invert(pc.is_in(known["source_sha256"], pa.array(sorted(hashes))))), folder / SOURCES
        )
        clips.write(rest, folder / CLIPS)
        shards = write_shards(folder, rest, stored_config(folder).shards)
        files = [path for path in removed["path"].to_pylist() if path]
        _remove_results(folder, hashes, set(removed["clip_id"].to_pylist()))
        for path in files:
            (folder / path).unlink(missing_ok=True)
        for sha in hashes:
            for path in (folder / "signals" / sha[:2]).glob(f"{sha[:16]}-*.npz"):
                path.unlink()
    return {"sources": len(gone), "clips": removed.num_rows, "files": len(files), "shards_written": shards["written"]}


def _fits(row: dict[str, Any], sources: Sequence[str], licences: Sequence[str]) -> bool:
    by_name = any(
        pattern in (row["source_id"], row["source_sha256"], row["source_path"])
        or fnmatch.fnmatch(row["source_path"], pattern)
        for pattern in sources
    )
    return by_name or any(fnmatch.fnmatch(row["licence"] or "", pattern) for pattern in licences)


def _keep_out(folder: Path, hashes: set[str]) -> None:
    path = folder / PURGED
    known = set(path.read_text().split()) if path.exists() else set()
    write_atomic(path, ("\n".join(sorted(known | hashes)) + "\n").encode())


def _remove_results(folder: Path, hashes: set[str], ids: set[str]) -> None:
    store = CellStore(folder)
    gone = pa.array(sorted(hashes | ids), pa.string())
    store.remove("cells", lambda cells: pc.invert(pc.is_in(cells["clip_id"], gone)))
    store.remove("spans", lambda spans: pc.invert(pc.is_in(spans["source_sha256"], gone)))
