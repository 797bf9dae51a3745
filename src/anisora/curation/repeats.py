"""Which clips of a whole run show the same, from stored signals: the one step that needs all sources at once.

The answer depends on nothing but the clips and the benchmark, so it is kept under the hash of both and made again only
when clips come or go. What to do about it (keep the best, drop openings) is decided in `select`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anisora.curation import table as clips
from anisora.curation.dedup import (
    DedupParams,
    SourceTrack,
    benchmark_fingerprints,
    find_repeats,
    find_runs,
    groups,
    leaks,
)
from anisora.curation.fingerprint import Fingerprint, fingerprint
from anisora.curation.plan import plain_params
from anisora.curation.scan import Scan
from anisora.errors import BadInput
from anisora.files import sha256_file, write_atomic
from anisora.store import content_hash

#: An opening or ending runs for so long at most and is less than half of its source; what is longer is the same video
#: twice, of which one copy is to stay.
LONGEST_OPENING_S = 150.0
#: the share of a clip that must lie in an opening or ending
_INSIDE = 0.5

MARKS = pa.schema({"clip_id": pa.string(), "repeat_group": pa.string(), "repeat_kind": pa.string()})


def find_marks(
    out: Path,
    spans: pa.Table,
    load: Callable[[str], Scan],
    *,
    benchmark: Path | None = None,
    params: DedupParams | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> pa.Table:
    """One row a clip that is not alone: its group (the first id of it), and whether it is a `repeat`, runs through
    openings and endings (`opening_ending`) or shows what the benchmark shows (`leak`).

    `load` gives the scan of a source. Raises BadInput for a benchmark that is not there, BadVideo for one that cannot be
    read: a guard that skips is none.
    """
    params = params or DedupParams()
    if not spans.num_rows:
        return MARKS.empty_table()
    key = _key(spans, benchmark, params)
    path = out / "results" / "repeats" / f"{key[:32]}.parquet"
    if path.exists():
        return pq.read_table(path)
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in spans.to_pylist():
        by_source.setdefault(row["source_sha256"], []).append(row)
    prints: list[Fingerprint] = []
    tracks: list[SourceTrack] = []
    for done, (source, rows) in enumerate(sorted(by_source.items()), start=1):
        scan = load(source)
        prints += list(_fingerprints(scan, source, rows))
        tracks.append(_track(scan, source))
        progress(done, len(by_source))
    marks = _marks(by_source, prints, tracks, benchmark, params)
    table = pa.Table.from_pylist(marks, schema=MARKS)
    for old in path.parent.glob("*.parquet") if path.parent.is_dir() else ():
        old.unlink()
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    return table


def _key(spans: pa.Table, benchmark: Path | None, params: DedupParams) -> str:
    guard = None
    if benchmark is not None:
        if not benchmark.exists():
            raise BadInput("no benchmark there", got=benchmark, expected="a folder of clips")
        guard = sorted(sha256_file(path) for path in benchmark.rglob("*") if path.is_file())
    return content_hash(["repeats", 1, sorted(spans["clip_id"].to_pylist()), plain_params(params), guard])


def _fingerprints(scan: Scan, source: str, rows: list[dict[str, Any]]) -> Iterator[Fingerprint]:
    for row, span in zip(rows, clips.spans_of(rows), strict=True):
        yield fingerprint(scan.clip(span), row["clip_id"], source)


def _track(scan: Scan, source: str) -> SourceTrack:
    signal = scan.signals.get("phash", {"index": np.zeros(0, np.int64), "hash": np.zeros(0, np.uint64)})
    times = scan.pts_T[signal["index"]] * float(scan.time_base)
    return SourceTrack(source_id=source, time_s=times, hash_N=signal["hash"])


def _marks(
    by_source: Mapping[str, list[dict[str, Any]]],
    prints: list[Fingerprint],
    tracks: list[SourceTrack],
    benchmark: Path | None,
    params: DedupParams,
) -> list[dict[str, Any]]:
    """The rows of the table; a leak says more than an opening, an opening more than a repeat."""
    kinds: dict[str, str] = {}
    group_of: dict[str, str] = {}
    for group in groups(find_repeats(prints, params)):
        for clip_id in group:
            kinds[clip_id], group_of[clip_id] = "repeat", group[0]
    for clip_id in _in_openings(by_source, tracks, params):
        kinds[clip_id] = "opening_ending"
    if benchmark is not None:
        for clip_id in leaks(prints, benchmark_fingerprints(benchmark), params):
            kinds[clip_id] = "leak"
    return [
        {"clip_id": clip_id, "repeat_group": group_of.get(clip_id), "repeat_kind": kind}
        for clip_id, kind in sorted(kinds.items())
    ]


def _in_openings(
    by_source: Mapping[str, list[dict[str, Any]]], tracks: list[SourceTrack], params: DedupParams
) -> Iterator[str]:
    """The clips that lie, for the most part, in a stretch that two sources share."""
    lengths = {track.source_id: float(np.ptp(track.time_s)) if len(track.time_s) else 0.0 for track in tracks}
    for run in find_runs(tracks, params):
        length = min(run.a_end_s - run.a_start_s, run.b_end_s - run.b_start_s)
        if length > LONGEST_OPENING_S or length > min(lengths[run.a], lengths[run.b]) / 2:
            continue
        for source, start_s, end_s in ((run.a, run.a_start_s, run.a_end_s), (run.b, run.b_start_s, run.b_end_s)):
            rows = by_source[source]
            for row, span in zip(rows, clips.spans_of(rows), strict=True):
                inside_s = min(end_s, float(span.end_s)) - max(start_s, float(span.start_s))
                if inside_s > _INSIDE * float(span.duration_s):
                    yield row["clip_id"]
