"""Shards: WebDataset tars of the kept clips, and `index.parquet` with the place of every member.

A tar reads in order by any loader, and by offset through the index as fast as anything else. One shard holds clips of
one bucket (size, aspect, length, rate), so that a batch needs no padding. New content gets a new number and the index is
replaced in one step, so a reader never sees an index beside tars that it does not describe.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anisora.curation.select import KEEP
from anisora.errors import BadInput, Failed
from anisora.files import atomic_file, write_atomic
from anisora.settings import setting
from anisora.store import canonical_json, content_hash

INDEX = "index.parquet"

_INDEX_FIELDS = {
    "clip_id": pa.string(),
    "shard": pa.string(),
    "member": pa.string(),
    "offset": pa.int64(),
    "length": pa.int64(),
    "sha256": pa.string(),
    "bucket": pa.string(),
}

_HEIGHTS_PX = (240, 360, 480, 720, 1080, 1440, 2160)
_ASPECTS = {"21x9": 21 / 9, "16x9": 16 / 9, "3x2": 3 / 2, "4x3": 4 / 3, "1x1": 1.0, "3x4": 3 / 4, "9x16": 9 / 16}
_LENGTHS_S = (1, 2, 3, 4, 6, 8, 12, 20)


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """How large a shard may grow, and the order of clips in it."""

    max_mib: int = setting(1024, "a shard is closed before it grows larger")
    max_clips: int = setting(1000, "a shard is closed at so many clips")
    seed: int = setting(0, "the order of clips within a bucket")


def bucket_of(row: Mapping[str, Any]) -> str:
    """Size, aspect, length and rate of a clip in classes, as in `720p-16x9-4s-24fps`: rounded down, aspect to the nearest.

    The length class is the longest that the clip fills; the rate is rounded to whole frames per second.
    """
    short = min(row["crop_w_px"], row["crop_h_px"])
    height = max((h for h in _HEIGHTS_PX if h <= short), default=0)
    aspect = row["crop_w_px"] / row["crop_h_px"]
    name = min(_ASPECTS, key=lambda key: abs(np.log(aspect / _ASPECTS[key])))
    seconds = float(row["end_pts"] - row["start_pts"]) * row["time_base_num"] / row["time_base_den"]
    length = max((s for s in _LENGTHS_S if s <= seconds + 1e-6), default=0)
    return f"{height}p-{name}-{length}s-{round(row['fps_num'] / row['fps_den'])}fps"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """One shard to be: its bucket, its clips in order, and the hash of all that will be in it."""

    bucket: str
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    key: str


def write_shards(out: Path, table: pa.Table, settings: ShardSettings, progress: Any = None) -> dict[str, int]:
    """Packs the kept clips of the table that have files into `out/shards`; what is unchanged stays as it is.

    Gives the numbers of shards `written` and `kept` and of `clips`. Raises Failed for a clip whose file is missing or
    has other bytes than when it was made.
    """
    plans = _plan(table, settings)
    folder = out / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    old_index, old_keys = read_index(out), _stored_keys(out)
    name_by_key = {key: name for name, key in old_keys.items() if (folder / name).exists()}
    number = 1 + max((int(name.split(".")[0]) for name in [*old_keys, *_tars(folder)]), default=-1)
    entries: list[dict[str, Any]] = []
    keys: dict[str, str] = {}
    written = 0
    rows_by_shard: dict[str, list[dict[str, Any]]] = {}
    for row in old_index.to_pylist():
        rows_by_shard.setdefault(row["shard"], []).append(row)
    for done, plan in enumerate(plans):
        name = name_by_key.get(plan.key)
        if name is None:
            name = f"{number:06d}.tar"
            number += 1
            written += 1
            entries += _write_shard(out, folder / name, plan)
        else:
            entries += rows_by_shard[name]
        keys[name] = plan.key
        if progress:
            progress(done + 1, len(plans))
    _write_index(out / INDEX, entries, keys)
    for stale in set(_tars(folder)) - keys.keys():
        (folder / stale).unlink()
    return {"written": written, "kept": len(plans) - written, "clips": sum(len(plan.rows) for plan in plans)}


def are_behind(out: Path, table: pa.Table) -> dict[str, int]:
    """How many clips the shards hold that the table does not keep, or lack that it keeps and has files of, as `behind`.

    Empty where there are no shards.
    """
    if not (out / INDEX).exists():
        return {}
    is_packed = pc.and_(pc.equal(table["verdict"], KEEP), pc.is_valid(table["path"]))
    wanted = set(table.filter(is_packed)["clip_id"].to_pylist())
    return {"behind": len(wanted ^ set(read_index(out)["clip_id"].to_pylist()))}


def read_index(out: Path) -> pa.Table:
    """`index.parquet`, empty where there is none yet."""
    path = out / INDEX
    return pq.read_table(path) if path.exists() else pa.schema(_INDEX_FIELDS).empty_table()


def read_member(out: Path, entry: Mapping[str, Any], kind: str = "shards") -> bytes:
    """The bytes of one member by its row of the index, without reading the rest of its tar."""
    with open(out / kind / entry["shard"], "rb") as file:
        file.seek(entry["offset"])
        return file.read(entry["length"])


def _tars(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".tar") and not name.startswith(".")]


def _stored_keys(out: Path) -> dict[str, str]:
    """shard -> hash of what it was made of, as the index remembers it."""
    metadata = read_index(out).schema.metadata or {}
    return json.loads(metadata.get(b"shards", b"{}"))


def _write_index(path: Path, entries: list[dict[str, Any]], keys: dict[str, str]) -> None:
    table = pa.Table.from_pylist(entries, schema=pa.schema(_INDEX_FIELDS))
    table = table.replace_schema_metadata({"shards": canonical_json(keys)})
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def _plan(table: pa.Table, settings: ShardSettings) -> list[_Plan]:
    """The shards to be: kept clips with files, by bucket, in the order of their hash with the seed."""
    usable = table.filter(pc.and_(pc.equal(table["verdict"], KEEP), pc.is_valid(table["path"])))
    noted = _noted(usable)
    by_bucket: dict[str, list[dict[str, Any]]] = {}
    for row in usable.to_pylist():
        by_bucket.setdefault(bucket_of(row), []).append(row)
    plans = []
    for bucket, rows in sorted(by_bucket.items()):
        rows.sort(key=lambda row: hashlib.sha256(f"{settings.seed}:{row['clip_id']}".encode()).digest())
        for members in _packed(rows, settings):
            notes = tuple(_json(row, noted) for row in members)
            key = content_hash(
                [
                    bucket,
                    [
                        [row["clip_id"], row["sha256"], note, row["caption"]]
                        for row, note in zip(members, notes, strict=True)
                    ],
                ]
            )
            plans.append(_Plan(bucket=bucket, rows=tuple(members), notes=notes, key=key))
    return plans


def _packed(rows: list[dict[str, Any]], settings: ShardSettings) -> Iterator[list[dict[str, Any]]]:
    members: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        length = row["num_bytes"] or 0
        if members and (size + length > settings.max_mib * 2**20 or len(members) >= settings.max_clips):
            yield members
            members, size = [], 0
        members.append(row)
        size += length
    if members:
        yield members


#: what a sample does not say of itself: places on this machine, and verdicts, which are all the same
_UNSAID = ("path", "source_path", "verdict", "reason", "fault", "message")


def _noted(usable: pa.Table) -> list[str]:
    """The columns that go into the samples: those of words, and those of numbers that every kept clip has.

    Loaders that learn their columns from the first samples (`datasets`) want every sample to have the same ones.
    """
    fields = [field for field in usable.schema if field.name not in _UNSAID]
    return [f.name for f in fields if not usable[f.name].null_count or pa.types.is_string(f.type)]


def _json(row: Mapping[str, Any], noted: Sequence[str]) -> str:
    """What a training sample should know of itself: its row. A word that is missing is empty; tags are pairs."""
    kept = {name: "" if row[name] is None else row[name] for name in noted}
    kept["tags"] = [list(tag) for tag in row["tags"] or []]
    return canonical_json(kept)


def _write_shard(out: Path, path: Path, plan: _Plan) -> list[dict[str, Any]]:
    """Writes one tar, whole or not at all; its rows of the index."""

    def members() -> Iterator[tuple[str, str, bytes]]:
        for row, note in zip(plan.rows, plan.notes, strict=True):
            video = out / row["path"]
            try:
                data = video.read_bytes()
            except OSError as reason:
                raise Failed(
                    "a kept clip has lost its file", got=video, hint="anisora curate verify --repair"
                ) from reason
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                raise Failed("a kept clip has other bytes", got=video, hint="anisora curate verify --repair")
            yield row["clip_id"], "mp4", data
            yield row["clip_id"], "json", note.encode()
            yield row["clip_id"], "txt", (row["caption"] or "").encode()

    return write_tar(path, members(), bucket=plan.bucket)


def write_tar(path: Path, members: Iterable[tuple[str, str, bytes]], **columns: Any) -> list[dict[str, Any]]:
    """Writes (id, suffix, bytes) as a tar without times or owners, and gives the index rows, with `columns` added."""
    entries = []
    with atomic_file(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip_id, suffix, data in members:
            header = tarfile.TarInfo(f"{clip_id}.{suffix}")
            header.size, header.mode = len(data), 0o644
            entries.append(
                {
                    "clip_id": clip_id,
                    "shard": path.name,
                    "member": header.name,
                    "offset": tar.offset + tarfile.BLOCKSIZE,  # type: ignore[attr-defined]
                    "length": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    **columns,
                }
            )
            tar.addfile(header, io.BytesIO(data))
    return entries


# ----------------------------------------------------------------------------------------------------- parallel tars


def write_parallel(
    out: Path,
    kind: str,
    codec_sha256: str,
    encode: Callable[[dict[str, bytes]], np.ndarray],
    progress: Any = None,
) -> dict[str, int]:
    """Tars of arrays beside the shards: same numbers, same ids, `ID.npy`, made by a network of hash `codec_sha256`.

    `encode` gets the members of one clip by suffix (`mp4`, `json`, `txt`). Shards that have their arrays already, by
    the same network, are left alone. `KIND/index.parquet` has the places, and the hash of the network in each row.
    Re-encoding never touches the videos.
    """
    folder = out / kind
    folder.mkdir(parents=True, exist_ok=True)
    index_path = folder / INDEX
    old = pq.read_table(index_path).to_pylist() if index_path.exists() else []
    by_shard: dict[str, list[dict[str, Any]]] = {}
    for entry in read_index(out).to_pylist():
        by_shard.setdefault(entry["shard"], []).append(entry)
    keys, done_keys = _stored_keys(out), _stored_parallel_keys(index_path)
    entries: list[dict[str, Any]] = []
    written = 0
    for number, (shard, members) in enumerate(sorted(by_shard.items())):
        key = content_hash([keys[shard], codec_sha256])
        if done_keys.get(shard) == key and (folder / shard).exists():
            entries += [row for row in old if row["shard"] == shard]
        else:
            arrays = ((clip, "npy", _npy(encode(parts))) for clip, parts in _samples(out, members))
            entries += write_tar(folder / shard, arrays, codec_sha256=codec_sha256)
            written += 1
        done_keys[shard] = key
        if progress:
            progress(number + 1, len(by_shard))
    done_keys = {shard: key for shard, key in done_keys.items() if shard in by_shard}
    fields = {name: kind_ for name, kind_ in _INDEX_FIELDS.items() if name != "bucket"} | {"codec_sha256": pa.string()}
    table = pa.Table.from_pylist(entries, schema=pa.schema(fields)).replace_schema_metadata(
        {"shards": canonical_json(done_keys)}
    )
    write_atomic(index_path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    for stale in set(_tars(folder)) - by_shard.keys():
        (folder / stale).unlink()
    return {"written": written, "kept": len(by_shard) - written}


def _stored_parallel_keys(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return json.loads((pq.read_schema(path).metadata or {}).get(b"shards", b"{}"))


def _samples(out: Path, members: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    by_clip: dict[str, dict[str, bytes]] = {}
    order = []
    for entry in members:
        if entry["clip_id"] not in by_clip:
            order.append(entry["clip_id"])
        by_clip.setdefault(entry["clip_id"], {})[entry["member"].rsplit(".", 1)[1]] = entry  # type: ignore[assignment]
    for clip in order:
        yield clip, {suffix: read_member(out, entry) for suffix, entry in by_clip[clip].items()}  # type: ignore[arg-type]


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------- verifying


def damaged_shards(out: Path, kind: str = "shards") -> dict[str, str]:
    """shard -> what is wrong with it: missing, torn, or with a member of other bytes than the index says."""
    index = read_index(out) if kind == "shards" else _parallel_index(out, kind)
    problems: dict[str, str] = {}
    for entry in index.to_pylist():
        shard = entry["shard"]
        if shard in problems:
            continue
        try:
            data = read_member(out, entry, kind)
        except OSError:
            problems[shard] = "missing"
            continue
        if len(data) != entry["length"]:
            problems[shard] = "torn"
        elif hashlib.sha256(data).hexdigest() != entry["sha256"]:
            problems[shard] = f"{entry['member']} has other bytes"
    for shard in sorted(set(index["shard"].to_pylist()) - problems.keys()):
        if not _ends_as_tar(out / kind / shard):
            problems[shard] = "torn"
    return problems


def _parallel_index(out: Path, kind: str) -> pa.Table:
    path = out / kind / INDEX
    if not path.exists():
        raise BadInput("no such tars", got=path)
    return pq.read_table(path)


def _ends_as_tar(path: Path) -> bool:
    """Whether a tar has its two closing blocks of zeros."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 1024))
        return size % 512 == 0 and size >= 1024 and not file.read(1024).strip(b"\0")
