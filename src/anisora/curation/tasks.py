"""What workers do: one function a stage, on one source or on some of its clips.

Each takes small things (paths, spans, settings) and leaves files behind; what it returns is small too. Before each part
that could take the process down it says so (`note`), and parts in `skip` are left out with the reason in their column.
Nothing here imports torch: what needs it does so when it is called.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from anisora.curation import table as clips
from anisora.curation.cells import CellStore, cell_of, word_cell
from anisora.curation.executors.worker import reason_code
from anisora.curation.ledger import hash_file
from anisora.curation.materialise import Encoding, Job, materialise
from anisora.curation.scan import Scan
from anisora.errors import AnisoraError, WriteFailed
from anisora.measures.clip import ClipView
from anisora.media.span import SpanReader
from anisora.records import Score, Span

Note = Callable[[str], None]
Skip = Mapping[str, str]

#: what a scan is doing between two observers
DECODING = "decode"


# --------------------------------------------------------------------------------------------------------------- hash


def hash_source(path: Path, *, note: Note, skip: Skip) -> dict[str, Any]:
    """Content hash, size, time and length of a file: `{size, mtime_ns, sha256, duration_s}`; the length may be None."""
    from anisora.media.container import opened

    note("hash")
    size, mtime_ns, digest = hash_file(path)
    note("probe")
    duration_s = None
    try:
        with opened(path) as container:
            if container.duration:
                duration_s = container.duration / 1e6
    except AnisoraError:
        pass  # the scan will say what is wrong with it
    return {"size": size, "mtime_ns": mtime_ns, "sha256": digest, "duration_s": duration_s}


# --------------------------------------------------------------------------------------------------------------- scan


@dataclass(frozen=True, kw_only=True)
class Watch:
    """One observer of a scan: its name, its key, and how a fresh one is made."""

    name: str
    key: str
    make: Callable[[], Any] = field(repr=False)


class _Noted:
    """An observer that says when it is at work, so that a crash is laid at the right door."""

    def __init__(self, observer: Any, note: Note) -> None:
        self.name, self.version = observer.name, observer.version
        self.params, self.needs = observer.params, observer.needs
        self._observer, self._note = observer, note

    def feed(self, index: int, pts: int, frame: np.ndarray) -> None:
        self._note(self.name)
        self._observer.feed(index, pts, frame)
        self._note(DECODING)

    def finish(self) -> dict[str, np.ndarray]:
        self._note(self.name)
        try:
            return self._observer.finish()
        finally:
            self._note(DECODING)


def scan_source(
    out: Path, unit_key: str, path: Path, sha256: str, watches: Sequence[Watch], *, note: Note, skip: Skip
) -> dict[str, Any]:
    """Decodes a source once for all these observers; `signals/...npz`, and a cell for each observer that says where."""
    from anisora.curation.scan import scan

    note(DECODING)
    started = time.process_time()
    at_work = [watch for watch in watches if watch.name not in skip]
    found = scan(path, [_Noted(watch.make(), note) for watch in at_work])
    relative = f"signals/{sha256[:2]}/{sha256[:16]}-{unit_key[:8]}.npz"
    found.save(out / relative)
    cpu_s = (time.process_time() - started) / max(1, len(at_work))
    counts = {"num_frames": found.num_frames, "read_errors": len(found.read_errors)}
    cells = []
    for watch in watches:
        reason = skip.get(watch.name) or ("observer_failed" if watch.name in found.errors else None)
        message = found.errors.get(watch.name)
        cells.append(
            word_cell(
                sha256, f"signal:{watch.name}", watch.key, None if reason else relative,
                reason=reason, message=message, cpu_s=cpu_s, is_fault=reason is not None, details=json.dumps(counts),
            )
        )  # fmt: skip
    CellStore(out).write("cells", unit_key, cells)
    return counts


def load_signals(out: Path, files: Mapping[str, str], errors: Mapping[str, str], path: Path) -> Scan:
    """The signals of one source from the scans that hold them: `files` says which file has which observer."""
    from dataclasses import replace

    scans = {name: Scan.load(out / name) for name in sorted(set(files.values()))}
    first = next(iter(scans.values()))
    signals = {"damage": first.signals["damage"]}
    signals |= {name: scans[file].signals[name] for name, file in files.items()}
    return replace(first, info=replace(first.info, path=path), signals=signals, errors=dict(errors))


# ------------------------------------------------------------------------------------------- spans and cheap measures


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """One measure to be made: its name, the key of its cells, and the function from a ClipView to a Score."""

    name: str
    key: str
    version: int
    measure: Callable[[ClipView], Score] = field(repr=False)
    follows_crop: bool = False


def measure_source(
    out: Path,
    unit_key: str,
    path: Path,
    sha256: str,
    files: Mapping[str, str],
    errors: Mapping[str, str],
    spans_key: str,
    find: Callable[[Scan], Sequence[Any]],
    longest_s: float,
    measures: Sequence[Measuring],
    *,
    note: Note,
    skip: Skip,
) -> dict[str, Any]:
    """The shots of a scanned source and every cheap measure of each: nothing is decoded."""
    note("shots")
    scan = load_signals(out, files, errors, path)
    spans = []
    for shot in find(scan):
        parts = split_long(scan, shot.span, longest_s)
        for number, span in enumerate(parts):
            spans.append(
                _span_row(
                    scan, span, sha256, spans_key,
                    shot.transition_in if number == 0 else "cut",
                    shot.transition_out if number == len(parts) - 1 else "cut",
                )
            )  # fmt: skip
    store = CellStore(out)
    cells = []
    for row, view in ((row, scan.clip(span)) for row, span in zip(spans, clips.spans_of(spans), strict=True)):
        cells += [_measured(row["clip_id"], use, view, "", note, skip, use.name) for use in measures]
    store.write("cells", unit_key, cells)
    store.write("spans", unit_key, spans)  # last: it says that the unit is whole
    return {"num_clips": len(spans)}


def split_long(scan: Scan, span: Span, longest_s: float) -> list[Span]:
    """The span, or its equal parts none of which is longer than `longest_s`."""
    parts = -(-span.duration_s // Fraction(longest_s).limit_denominator(10**6))
    if parts <= 1:
        return [span]
    bounds = [span.start_frame + round(Fraction(span.num_frames * part, int(parts))) for part in range(int(parts) + 1)]
    return [scan.span(a, b) for a, b in pairwise(bounds) if a < b]


def _span_row(scan: Scan, span: Span, sha256: str, key: str, transition_in: str, transition_out: str) -> dict[str, Any]:
    return {
        "clip_id": clips.clip_id(sha256, span),
        "source_sha256": sha256,
        "key": key,
        "start_frame": span.start_frame,
        "end_frame": span.end_frame,
        "start_pts": span.start_pts,
        "end_pts": span.end_pts,
        "time_base_num": span.time_base.numerator,
        "time_base_den": span.time_base.denominator,
        "fps_num": scan.fps.numerator,
        "fps_den": scan.fps.denominator,
        "width_px": scan.info.width_px,
        "height_px": scan.info.height_px,
        "transition_in": transition_in,
        "transition_out": transition_out,
    }


def _measured(
    clip_id: str, use: Measuring, view: ClipView, crop: str, note: Note, skip: Skip, part: str
) -> dict[str, Any]:
    """The cell of one measure of one clip; whatever it raises becomes its reason."""
    if part in skip:
        return _without(clip_id, use, crop, skip[part], "it took its worker down")
    note(part)
    started = time.process_time()
    try:
        score = use.measure(view)
        if score.version != use.version:
            raise RuntimeError(f"{use.name} is of version {score.version}, its key says {use.version}")
    except WriteFailed:
        raise
    except Exception as problem:
        return _without(clip_id, use, crop, reason_code(problem), f"{type(problem).__name__}: {problem}"[:300])
    return {**cell_of(clip_id, use.key, score, view=crop, cpu_s=time.process_time() - started), "name": use.name}


def _without(clip_id: str, use: Measuring, crop: str, reason: str, message: str) -> dict[str, Any]:
    score = Score(name=use.name, version=use.version, unit="", raw=None, reason=reason)
    return cell_of(clip_id, use.key, score, view=crop, message=message, is_fault=True)


# --------------------------------------------------------------------------------------------- measures that see pixels


@dataclass(frozen=True, kw_only=True)
class ClipTask:
    """One clip of a unit: its row of the table (span, size, crop) and the names of the measures it still lacks."""

    row: Mapping[str, Any]
    lacks: tuple[str, ...] = ()

    @cached_property
    def span(self) -> Span:
        return clips.spans_of([self.row])[0]

    @property
    def clip_id(self) -> str:
        return str(self.row["clip_id"])

    @property
    def crop_xywh_px(self) -> tuple[int, int, int, int] | None:
        """The crop, None for the whole picture."""
        x, y, width, height = (self.row[f"crop_{side}_px"] for side in "xywh")
        whole = (0, 0, self.row["width_px"], self.row["height_px"])
        return None if (x, y, width, height) == whole else (x, y, width, height)

    @property
    def view(self) -> str:
        """The crop as the text by which cells know it."""
        return crop_text(self.crop_xywh_px)


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Some clips of one source that a worker takes together.

    `out` is the run's folder and `key` what the batch's results are filed under; `files` say which file holds the
    signals of which observer, `errors` why one has none.
    """

    out: Path
    key: str
    path: Path
    files: Mapping[str, str]
    errors: Mapping[str, str]
    tasks: Sequence[ClipTask]

    def load_signals(self) -> Scan:
        """The signals of the source."""
        return load_signals(self.out, self.files, self.errors, self.path)

    def write(self, cells: Sequence[Mapping[str, Any]]) -> None:
        """Files the cells of the batch."""
        CellStore(self.out).write("cells", self.key, cells)


def crop_text(crop: tuple[int, int, int, int] | None) -> str:
    """A crop as text, empty for the whole picture."""
    return "" if crop is None else ",".join(map(str, crop))


def clip_views(scan: Scan, tasks: Sequence[ClipTask], reader: SpanReader) -> list[tuple[ClipTask, ClipView]]:
    """The views of some clips of one source, that share one open file."""
    from dataclasses import replace

    found = []
    for task in sorted(tasks, key=lambda task: task.span):
        view = scan.clip(task.span, task.crop_xywh_px)
        found.append((task, replace(view, load=_loader(reader, task.span, scan.pts_T))))
    return found


def _loader(reader: SpanReader, span: Span, pts_T: np.ndarray) -> Callable[[Sequence[int]], np.ndarray]:
    stamps = [int(pts) for pts in pts_T[span.start_frame : span.end_frame]]

    def load(indices: Sequence[int]) -> np.ndarray:
        wanted, found = set(indices), []
        for decoded in reader.iter(span, stamps):
            if decoded.index in wanted:
                found.append(decoded.rgb_HWC())
                if len(found) == len(wanted):
                    break
        return np.stack(found)

    return load


def score_clips(batch: ClipBatch, measures: Sequence[Measuring], *, note: Note, skip: Skip) -> dict[str, Any]:
    """The measures that need pixels, of some clips of one source."""
    note("open")
    scan = batch.load_signals()
    by_name = {use.name: use for use in measures}
    cells = []
    with SpanReader(batch.path) as reader:
        for task, view in clip_views(scan, batch.tasks, reader):
            for name in task.lacks:
                use = by_name[name]
                crop = task.view if use.follows_crop else ""
                cells.append(_measured(task.clip_id, use, view, crop, note, skip, f"{name} of {task.clip_id}"))
    batch.write(cells)
    return {"num_cells": len(cells)}


# --------------------------------------------------------------------------------------------------------------- crop


def crop_clips(
    batch: ClipBatch, settings: Any, key: str, middles: Sequence[int], *, note: Note, skip: Skip
) -> dict[str, Any]:
    """For each clip the largest part of the picture that no overlay touches, as `x,y,w,h`, or why there is none.

    `middles` are the middle frames of all clips of the source, by which its logos are known.
    """
    note("open")
    scan = batch.load_signals()
    cells = []
    with SpanReader(batch.path) as reader:
        logos = source_logos(scan, middles, reader)
        for task, view in clip_views(scan, batch.tasks, reader):
            if (part := f"crop {task.clip_id}") in skip:
                cells.append(word_cell(task.clip_id, "crop", key, None, reason=skip[part], is_fault=True))
                continue
            note(part)
            try:
                cells.append(_cropped(task, view, settings, key, logos))
            except Exception as problem:
                words = f"{type(problem).__name__}: {problem}"[:300]
                cells.append(
                    word_cell(
                        task.clip_id, "crop", key, None, reason=reason_code(problem), message=words, is_fault=True
                    )
                )
    batch.write(cells)
    return {"num_crops": sum(cell["word"] is not None for cell in cells)}


def source_logos(scan: Scan, middles: Sequence[int], reader: SpanReader) -> list[Any]:
    """The logos (`overlays.Logo`) that a source shows over its shots; none where the scan has no hashes to choose by."""
    from anisora.curation.overlays import LEAST_SHOTS, find_logos, shots_apart

    signal = scan.signals.get("phash")
    if signal is None:
        return []
    at = np.searchsorted(signal["index"], middles)
    chosen = [middles[n] for n in shots_apart(signal["hash"][at])]
    if len(chosen) < LEAST_SHOTS:
        return []
    return find_logos(np.stack([_loader(reader, scan.span(n, n + 1), scan.pts_T)([n])[0] for n in chosen]))


def _cropped(task: ClipTask, view: ClipView, settings: Any, key: str, logos: Sequence[Any]) -> dict[str, Any]:
    from dataclasses import replace

    from anisora.curation.crop import CropParams
    from anisora.curation.overlays import crop_without, find_overlays

    whole = replace(view, crop_xywh_px=None)
    overlays = [overlay for overlay in find_overlays(whole, logos=logos) if overlay.is_overlay]
    kinds = sorted({overlay.kind for overlay in overlays})
    details = {"overlays": " ".join(kinds)} if kinds else {}
    if not overlays:
        return word_cell(task.clip_id, "crop", key, None, reason="no_overlay")
    aspect = Fraction(settings.aspect.replace(":", "/")) if settings.aspect else None
    params = CropParams(aspect=aspect, min_kept_area=settings.least_area)
    crop, reason = crop_without(overlays, (view.width_px, view.height_px), params)
    score = Score(
        name="crop", version=1, unit="class", raw=None if crop is None else crop_text(crop.xywh_px), reason=reason,
        details=details,
    )  # fmt: skip
    return cell_of(task.clip_id, key, score)


# ------------------------------------------------------------------------------------------------------------- encode


def encode_clips(batch: ClipBatch, encoding: Encoding, key: str, *, note: Note, skip: Skip) -> dict[str, Any]:
    """The files of some clips of one source, and a cell for each that says where it is and what is in it."""
    note("open")
    pts_T = Scan.load(batch.out / next(iter(batch.files.values()))).pts_T
    cells = []
    jobs = []
    for task in batch.tasks:
        if (part := f"encode {task.clip_id}") in skip:
            cells.append(word_cell(task.clip_id, "file", key, None, view=task.view, reason=skip[part], is_fault=True))
            continue
        relative = clip_path(task.clip_id, key, task.view, encoding.suffix)
        fps = Fraction(task.row["fps_num"], task.row["fps_den"])
        jobs.append(
            Job(
                clip_id=task.clip_id, span=task.span, crop_xywh_px=task.crop_xywh_px, path=batch.out / relative, fps=fps
            )
        )
    views = {task.clip_id: task.view for task in batch.tasks}
    made_by_id = {}
    for made in materialise(batch.path, jobs, encoding, pts_T, before=lambda job: note(f"encode {job.clip_id}")):
        made_by_id[made.clip_id] = made
    for job in jobs:
        made = made_by_id[job.clip_id]
        word = None if made.reason else str(job.path.relative_to(batch.out))
        details: dict[str, float | int | str] = {
            "sha256": made.sha256 or "", "num_bytes": made.num_bytes, "is_copied": made.is_copied,
        }  # fmt: skip
        score = Score(
            name="file", version=1, unit="class", raw=word, reason=made.reason, details={} if made.reason else details
        )
        fault = made.reason is not None
        cells.append(cell_of(job.clip_id, key, score, view=views[job.clip_id], message=made.message, is_fault=fault))
    batch.write(cells)
    return {"num_files": sum(made.reason is None for made in made_by_id.values())}


def clip_path(clip_id: str, key: str, view: str, suffix: str) -> str:
    """Where a clip's file lies under the output folder; another crop or encoding is another file."""
    from anisora.store import content_hash

    return f"clips/{clip_id[:2]}/{clip_id}-{content_hash([key, view])[:8]}{suffix}"


# ----------------------------------------------------------------------------------------------------------- captions


def caption_files(
    batch: ClipBatch, key: str, make_captioner: Callable[[], Any], *, note: Note, skip: Skip
) -> dict[str, Any]:
    """Captions of clips that have files: a cell each, joined by id and frame digest."""
    from anisora.curation.captions import caption_clips

    note("captioner")
    rows = [caption_row(task.row) for task in batch.tasks]
    by_id = {task.clip_id: task for task in batch.tasks}
    captioned = caption_clips(
        rows,
        lambda clip_id: file_view(batch.out, by_id[clip_id].row),
        make_captioner(),
        batch.out / "captions" / f"{batch.key[:16]}.jsonl",
    )
    batch.write([caption_cell(row, by_id[row["clip_id"]], key) for row in captioned])
    return {"num_captions": sum(row["caption"] is not None for row in captioned)}


def caption_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a captioner is told of a clip: its tags, and the words that were measured of it."""
    tags = dict(row["tags"] or [])
    tags |= {name: value for name in clips.MEASURES if (value := row.get(name)) is not None}
    crop = {name: row[name] for name in ("crop_x_px", "crop_y_px", "crop_w_px", "crop_h_px")}
    return {"clip_id": row["clip_id"], "tags": {key: str(value) for key, value in tags.items()}, **crop}


def file_view(out: Path, row: Mapping[str, Any]) -> ClipView:
    """The view of a clip's own file, whole."""
    base = Fraction(row["time_base_num"], row["time_base_den"])
    span = Span(
        start_frame=0,
        end_frame=row["end_frame"] - row["start_frame"],
        start_pts=0,
        end_pts=row["end_pts"] - row["start_pts"],
        time_base=base,
    )
    return ClipView(
        path=out / row["path"],
        span=span,
        fps=Fraction(row["fps_num"], row["fps_den"]),
        width_px=row["crop_w_px"],
        height_px=row["crop_h_px"],
    )


def caption_cell(row: Mapping[str, Any], task: ClipTask, key: str) -> dict[str, Any]:
    """The caption of a row of `caption_clips` as a cell; the tags it adds are its details."""
    added = {name: text for name, text in row["tags"].items() if name.startswith("caption_")}
    return word_cell(
        task.clip_id, "caption", key, row["caption"], view=task.view, backend=row["caption_backend"],
        reason=row["caption_reason"], details=json.dumps(added, sort_keys=True) if added else None,
        is_fault=row["caption_reason"] is not None,
    )  # fmt: skip
