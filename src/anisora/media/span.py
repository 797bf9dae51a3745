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
from anisora.media import container as files
from anisora.media.image import WHITE
from anisora.media.pictures import is_picture, is_sequence
from anisora.media.stream import Remarks, iter_decoded
from anisora.records import Span

#: without an index, decoding on is taken to be cheaper than a seek for gaps up to this
_GAP_S = 2
#: containers index by decoding time, so a key frame may be shown after the place that was asked for: further back then
_BACK_S = (0, 1, 10)


@dataclass(frozen=True)
class SpanFrame:
    """One frame by its number in the source: `picture` is PyAV's, `pts` and `duration` in the span's time base."""

    index: int
    pts: int
    duration: int
    picture: Any

    def rgb_HWC(self) -> NDArray[np.uint8]:
        """The upright picture, uint8 RGB [H, W, 3]."""
        from av.video.reformatter import VideoReformatter

        stored = files.pixels(VideoReformatter(), self.picture, WHITE)
        return files.upright(stored, files.display_matrix(self.picture))


class _Misplaced(Exception):
    """What a seek led to is not what the span says."""


class SpanReader:
    """Spans of one file, each decoded once; cheapest in ascending order, when decoding runs on from one to the next.

    A context: the file is closed behind the block. Raises BadVideo for a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._can_seek = not is_sequence(self.path) and not is_picture(existing_file(path, BadVideo, "the video"))
        self._stack = contextlib.ExitStack()
        self._frames: Iterator[Any] | None = None
        self._last_pts: int | None = None

    def __enter__(self) -> SpanReader:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    def iter(self, span: Span, pts_T: Sequence[int] | None = None) -> Iterator[SpanFrame]:
        """The frames of the span, one by one; `pts_T`, where known, must be their time stamps. Raises BadVideo."""
        given = 0
        if self._can_seek:
            try:
                for frame in self._sought(span, pts_T):
                    yield frame
                    given += 1
                return
            except _Misplaced:
                self._stack.close()
                self._frames = None
        yield from self._counted(span, given)

    # -------------------------------------------------------------------------------------------------- by seeking

    def _sought(self, span: Span, pts_T: Sequence[int] | None) -> Iterator[SpanFrame]:
        self._go_to(span)
        assert self._frames is not None
        step = files.frame_step(self._stream)
        count = 0
        for picture in self._frames:
            self._last_pts = picture.pts
            if picture.pts is None or (picture.time_base or span.time_base) != span.time_base:
                raise _Misplaced
            if picture.pts < span.start_pts:
                continue
            expected = span.start_pts if count == 0 else pts_T[count] if pts_T is not None else picture.pts
            if picture.pts != expected or picture.pts >= span.end_pts:
                raise _Misplaced
            yield SpanFrame(span.start_frame + count, picture.pts, picture.duration or step, picture)
            count += 1
            if count == span.num_frames:
                return
        raise _Misplaced

    def _go_to(self, span: Span) -> None:
        """Puts the decoder before the span: where it is, if that is short of it and near, else at a key frame."""
        import av

        if self._frames is None:
            self._open()
            if span.start_frame == 0:
                return
        elif self._last_pts is not None and self._last_pts < span.start_pts and self._runs_on(span):
            return
        for back_s in _BACK_S:
            target = span.start_pts - round(back_s / span.time_base)
            try:
                self._container.seek(target, stream=self._stream, backward=True)
            except av.error.FFmpegError:
                continue
            frames = files.decoded(self._container, self._stream, self.path, [])
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= span.start_pts:
                self._frames = chain([first], frames)
                return
        self._stack.close()
        self._open()

    def _runs_on(self, span: Span) -> bool:
        """Whether the nearest key frame before the span lies behind us already."""
        last_pts = self._last_pts or 0
        entries = getattr(self._stream, "index_entries", None)
        if entries is not None and len(entries):
            place = entries.search_timestamp(span.start_pts, backward=True, any_frame=False)
            if place >= 0:
                return entries[place].timestamp <= last_pts
        return (span.start_pts - last_pts) * span.time_base < _GAP_S

    def _open(self) -> None:
        self._container = self._stack.enter_context(files.opened(self.path))
        self._stream = files.video_stream(self._container, self.path)
        self._stream.thread_type, self._stream.codec_context.thread_count = "NONE", 1
        self._frames = files.decoded(self._container, self._stream, self.path, [])
        self._last_pts = None

    # -------------------------------------------------------------------------------------------------- by counting

    def _counted(self, span: Span, skip: int) -> Iterator[SpanFrame]:
        """The span's frames from number `skip` on, decoding from the start. Raises BadVideo when there are fewer."""
        count = 0
        for number, frame in enumerate(iter_decoded(self.path, Remarks())):
            if number < span.start_frame:
                continue
            if count >= skip:
                scale = frame.time_base / span.time_base
                yield SpanFrame(number, round(frame.pts * scale), max(1, round(frame.duration * scale)), frame.picture)
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
    frames = []
    with SpanReader(path) as reader:
        for frame in reader.iter(span):
            if frame.index in wanted:
                frames.append(frame.rgb_HWC())
                if len(frames) == len(wanted):
                    break
    if len(frames) != len(wanted):
        raise BadVideo("the video has fewer frames than its span", got=f"{path}, {len(frames)}", expected=len(wanted))
    return np.stack(frames)
