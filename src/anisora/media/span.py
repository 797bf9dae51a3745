"""Frames out of the middle of a video, exact to the frame: found by seeking, checked by their time stamps.

A seek lands on a key frame before the place, wherever the container thinks that is; what is decoded from there on is
compared, stamp by stamp, with what the span says. Files that cannot be sought in (raw streams, broken indices, pictures)
are decoded from their start and counted. Either way it is the frames asked for, or an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadVideo
from anisora.files import existing_file
from anisora.media.container import _decoded, _pixels, _rate, _upright, _video_stream, opened
from anisora.media.image import WHITE
from anisora.media.pictures import is_picture, is_sequence
from anisora.media.reader import iter_frames
from anisora.records import Span

#: without an index, decoding on is taken to be cheaper than a seek for gaps up to this
_GAP_S = 2
#: containers index by decoding time, so a key frame may be shown after the place that was asked for: further back then
_BACK_S = (0, 1, 10)


@dataclass(frozen=True)
class Decoded:
    """One frame as the decoder gave it: an `av.VideoFrame`, or uint8 RGB [H, W, 3] of a source that is no container.

    `pts` and `duration` are in units of the span's time base.
    """

    index: int
    pts: int
    duration: int
    frame: Any

    def rgb_HWC(self) -> NDArray[np.uint8]:
        """The upright picture, uint8 RGB [H, W, 3]."""
        if isinstance(self.frame, np.ndarray):
            return self.frame
        from av.video.reformatter import VideoReformatter

        return _upright(_pixels(VideoReformatter(), self.frame, WHITE), self.frame)


class _Misplaced(Exception):
    """What a seek led to is not what the span says."""


class SpanReader:
    """Spans of one file, each decoded once; cheapest in ascending order, when decoding runs on from one to the next.

    A context: the file is closed behind the block. Raises BadVideo for a file that cannot be read.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path = Path(path)
        self._threads = threads
        self._is_container = not is_sequence(self.path) and not is_picture(existing_file(path, BadVideo, "the video"))
        self._stack = contextlib.ExitStack()
        self._frames: Iterator[Any] | None = None
        self._last_pts: int | None = None

    def __enter__(self) -> SpanReader:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    def frames(self, span: Span, pts_T: Sequence[int] | None = None) -> list[Decoded]:
        """All frames of the span, as decoded; `pts_T`, where known, must be their time stamps. Raises BadVideo."""
        return list(self.iter(span, pts_T))

    def iter(self, span: Span, pts_T: Sequence[int] | None = None) -> Iterator[Decoded]:
        """As `frames`, one by one where the file can be sought in."""
        if self._is_container:
            given = 0
            try:
                for decoded in self._sought(span, pts_T):
                    yield decoded
                    given += 1
                return
            except _Misplaced:
                self._stack.close()
                self._frames = None
            yield from self._counted(span, given)
        else:
            yield from self._counted(span, 0)

    # -------------------------------------------------------------------------------------------------- by seeking

    def _sought(self, span: Span, pts_T: Sequence[int] | None) -> Iterator[Decoded]:
        self._go_to(span)
        assert self._frames is not None
        count = 0
        for frame in self._frames:
            self._last_pts = frame.pts
            if frame.pts is None or (frame.time_base or span.time_base) != span.time_base:
                raise _Misplaced
            if frame.pts < span.start_pts:
                continue
            expected = span.start_pts if count == 0 else pts_T[count] if pts_T is not None else frame.pts
            if frame.pts != expected or frame.pts >= span.end_pts:
                raise _Misplaced
            duration = frame.duration or max(1, round(1 / (_rate(self._stream) * span.time_base)))
            yield Decoded(span.start_frame + count, frame.pts, duration, frame)
            count += 1
            if count == span.num_frames:
                return
        raise _Misplaced

    def _go_to(self, span: Span) -> None:
        """Puts the decoder before the span: where it is, if that is short of it and near, else at a key frame."""
        import av

        if self._frames is None:
            self._open()
        is_ahead = self._last_pts is not None and self._last_pts >= span.start_pts
        is_near = not is_ahead and self._last_pts is not None and self._runs_on(span)
        if is_near or (self._last_pts is None and self._starts_before_key(span)):
            return
        for back_s in _BACK_S:
            target = span.start_pts - round(back_s / span.time_base)
            try:
                self._container.seek(target, stream=self._stream, backward=True)
            except av.error.FFmpegError:
                continue
            frames = _decoded(self._container, self._stream, self.path, [])
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= span.start_pts:
                self._frames = chain([first], frames)
                return
        self._stack.close()
        self._open()

    def _runs_on(self, span: Span) -> bool:
        """Whether the nearest key frame before the span lies behind us already."""
        key_pts = self._key_before(span.start_pts)
        if key_pts is not None:
            return key_pts <= (self._last_pts or 0)
        return (span.start_pts - (self._last_pts or 0)) * span.time_base < _GAP_S

    def _starts_before_key(self, span: Span) -> bool:
        """Whether a fresh file needs no seek: its first frame is what would be sought."""
        return span.start_frame == 0

    def _key_before(self, pts: int) -> int | None:
        entries = getattr(self._stream, "index_entries", None)
        if entries is None or not len(entries):
            return None
        place = entries.search_timestamp(pts, backward=True, any_frame=False)
        return entries[place].timestamp if place >= 0 else None

    def _open(self) -> None:
        self._container = self._stack.enter_context(opened(self.path))
        self._stream = _video_stream(self._container, self.path)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = self._threads
        self._frames = _decoded(self._container, self._stream, self.path, [])
        self._last_pts = None

    # -------------------------------------------------------------------------------------------------- by counting

    def _counted(self, span: Span, skip: int) -> Iterator[Decoded]:
        """The span's frames from number `skip` on, by decoding from the start. Raises BadVideo when there are fewer."""
        count = 0
        for number, frame in enumerate(iter_frames(self.path, keep_damaged=True, threads=self._threads)):
            if number < span.start_frame:
                continue
            if count >= skip:
                scale = frame.time_base / span.time_base
                yield Decoded(number, round(frame.pts * scale), max(1, round(frame.duration * scale)), frame.rgb_HWC)
            count += 1
            if count == span.num_frames:
                return
        raise BadVideo(
            "the video has fewer frames than its span", got=f"{self.path}, {count}", expected=span.num_frames
        )


def read_frames(path: Path, span: Span, indices: Sequence[int]) -> NDArray[np.uint8]:
    """The frames of those numbers (counted from the start of the file, ascending, inside the span), uint8 RGB.

    Raises BadVideo for a file that cannot be read, or that has fewer frames than the span says.
    """
    wanted = set(indices)
    with SpanReader(path) as reader:
        frames = [decoded.rgb_HWC() for decoded in reader.iter(span) if decoded.index in wanted]
    if len(frames) != len(wanted):
        raise BadVideo("the video has fewer frames than its span", got=f"{path}, {len(frames)}", expected=len(wanted))
    return np.stack(frames)
