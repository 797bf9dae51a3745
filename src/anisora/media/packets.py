"""A span as it is stored: the packets that decode to exactly its frames, where there are such. Nothing is decoded for it.

H.264 alone, as MP4 and Matroska hold it. Behind an IDR picture nothing looks back over it (ITU-T H.264, 7.4.1.2.4), and a
picture is decoded from pictures that come before it in decoding order. So a span can be taken as it is where its first
frame is an IDR picture, and the packets from there on, up to the first one that is shown behind the span, are those of all
its frames and of no other: the decoder then sees what it saw in the source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from anisora.errors import BadVideo
from anisora.files import existing_file
from anisora.media import container as files
from anisora.media.pictures import is_picture, is_sequence
from anisora.records import Span

#: NAL units (ITU-T H.264, table 7-1)
_IDR, _PARAMETERS = 5, (7, 8)


class PacketReader:
    """Spans of one file as packets. A context: the file is closed behind the block, and opened when it is first asked."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.stream: Any = None
        self._pixel_format: str | None = None
        self._is_opened = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PacketReader:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    @property
    def pixel_format(self) -> str | None:
        """That of a file whose spans may be taken as they are; None for all else.

        All else: what is not H.264 with its parameters beside the stream, is turned, interlaced, or has pixels that are
        not square. Raises BadVideo for a file that cannot be read.
        """
        if not self._is_opened:
            self._open()
            self._is_opened = True
        return self._pixel_format

    def _open(self) -> None:
        if is_sequence(self.path) or is_picture(existing_file(self.path, BadVideo, "the video")):
            return
        self._container = self._stack.enter_context(files.opened(self.path))
        self.stream = files.video_stream(self._container, self.path)
        context = self.stream.codec_context
        self.stream.thread_type, context.thread_count = "NONE", 1
        self._parameters = bytes(context.extradata or b"")
        if context.name != "h264" or self._parameters[:1] != b"\x01":  # AVCDecoderConfigurationRecord, ISO/IEC 14496-15
            return
        first = next(files.decoded(self._container, self.stream, self.path, []), None)
        has_square_pixels = self.stream.sample_aspect_ratio in (None, 0, 1)
        if first is None or first.interlaced_frame or not has_square_pixels:
            return
        if files.display_matrix(first) == (1, 0, 0, 1):
            self._pixel_format = first.format.name

    def packets(self, span: Span, pts_T: Sequence[int]) -> list[Any] | None:
        """The packets of the span in decoding order, as the source has them; None where they give not just its frames.

        `pts_T` are the time stamps of its frames.
        """
        import av

        if self.pixel_format is None or self.stream.time_base != span.time_base:
            return None
        try:
            self._container.seek(span.start_pts, stream=self.stream, backward=True)
            found = list(self._between(span))
        except av.error.FFmpegError:
            return None
        if sorted(packet.pts for packet in found) != list(pts_T) or any(map(_is_unsound, found)):
            return None
        units = [self._units(packet) for packet in found]
        if found[0].pts != span.start_pts or _IDR not in units[0] or any(None in kinds for kinds in units):
            return None
        return found

    def _between(self, span: Span) -> Iterator[Any]:
        """From the packet that is shown first on, those up to one that is shown behind the span."""
        has_begun = False
        for packet in self._container.demux(self.stream):
            if not packet.size or packet.pts is None or packet.pts >= span.end_pts:
                return
            has_begun = has_begun or packet.pts >= span.start_pts
            if has_begun:
                yield packet

    def _units(self, packet: Any) -> list[int | None]:
        """The kinds of the NAL units of a packet; None for parameters that are not those beside the stream."""
        data, width, at = bytes(packet), (self._parameters[4] & 3) + 1, 0
        kinds: list[int | None] = []
        while at + width < len(data):
            start = at + width
            at = start + int.from_bytes(data[at:start], "big")
            kind = data[start] & 31
            kinds.append(None if kind in _PARAMETERS and data[start:at] not in self._parameters else kind)
        return kinds


def _is_unsound(packet: Any) -> bool:
    return bool(packet.is_corrupt or packet.is_discard)


def decoding_times(pts: Sequence[int]) -> list[int]:
    """Times at which to decode packets of these time stamps, in their order: ascending, and none behind its showing.

    The time stamps in order, as many places late as pictures have to wait for each other at most.
    """
    shown = sorted(pts)
    place = {stamp: number for number, stamp in enumerate(shown)}
    late = max(number - place[stamp] for number, stamp in enumerate(pts))
    step = min((b - a for a, b in pairwise(shown)), default=1)
    return [shown[0] - step * number for number in range(late, 0, -1)] + shown[: len(shown) - late]
