"""Frames as the decoder leaves them, and small pictures made of them without ever making a large one.

A scan looks at every frame of a video, but at few of its pixels. Here a frame stays in the decoder's memory: its luma
plane is looked at in place, and small pictures are made inside FFmpeg's scaler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadVideo
from anisora.files import existing_file
from anisora.media import container as files
from anisora.media.color import BT709, LIMITED, SMPTE170M, UNSPECIFIED
from anisora.media.image import MAX_PX
from anisora.media.pictures import is_picture, is_sequence
from anisora.media.reader import iter_frames

#: Pictures this wide or narrower are made from one that is LADDER_PX wide, which is made once a frame.
SMALL_PX, LADDER_PX = 256, 320

#: Colour planes that are planar and 8 bit, so that the first one is the luma as it is shown.
_LUMA_FIRST = {"yuv420p", "yuv422p", "yuv444p", "nv12", "gray", "yuvj420p", "yuvj422p", "yuvj444p", "yuv411p"}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One decoded frame: `picture` is PyAV's, shown from `pts` for `duration`. `is_damaged`: shown wrong, or perhaps.

    Its memory belongs to the decoder: it is good until the next frame is asked for.
    """

    picture: Any
    pts: int
    duration: int
    time_base: Fraction
    is_damaged: bool = False


@dataclass(kw_only=True)
class Remarks:
    """What was found on the way through a file: damage, and what a viewer would want to know."""

    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def iter_decoded(path: Path, remarks: Remarks, *, max_px: int = MAX_PX) -> Iterator[Decoded]:
    """The frames of a video in the order in which they are shown, decoded by one thread; damage goes into `remarks`.

    Time stamps ascend strictly: those that stand still or run backwards are moved on by the least step, which a note
    says. After an error, frames count as damaged until the next one that needs no other. Raises BadVideo for what is no
    video, or holds not a single frame that can be decoded.
    """
    if is_sequence(path) or is_picture(existing_file(path, BadVideo, "the video")):
        frames = _from_pictures(path, remarks, max_px)
    else:
        frames = _from_container(path, remarks, max_px)
    last, num_frames, is_moved = None, 0, False
    for frame in frames:
        if last is not None and frame.pts <= last:
            frame, is_moved = replace(frame, pts=last + 1), True
        yield frame
        last, num_frames = frame.pts, num_frames + 1
    if is_moved:
        remarks.notes.append("time stamps stand still or run backwards in places: moved on by the least step")
    if not num_frames:
        reason = remarks.damage[0] if remarks.damage else "no frames"
        raise BadVideo("no frame could be decoded", got=f"{path} ({reason})", expected="a video")


def _from_pictures(path: Path, remarks: Remarks, max_px: int) -> Iterator[Decoded]:
    """Animated pictures and folders of stills, which come as RGB."""
    import av

    for frame in iter_frames(path, keep_damaged=True, max_px=max_px, notes=remarks.notes):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb_HWC), "rgb24")
        yield Decoded(picture=picture, pts=frame.pts, duration=frame.duration, time_base=frame.time_base)
    remarks.damage += [note for note in remarks.notes if note.startswith("damaged")]


def _from_container(path: Path, remarks: Remarks, max_px: int) -> Iterator[Decoded]:
    with files.opened(path) as container:
        stream = files.video_stream(container, path)
        files.check_area(path, stream.width, stream.height, max_px)
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        end, num_damages, is_damaged = 0, 0, False
        time_base, step = stream.time_base, files.frame_step(stream)
        for number, picture in enumerate(files.decoded(container, stream, path, remarks.damage)):
            if number == 0:
                remarks.notes += files.remarks(stream, picture)
            if len(remarks.damage) > num_damages:
                num_damages, is_damaged = len(remarks.damage), True
            if picture.key_frame and not picture.is_corrupt:
                is_damaged = False
            pts = end if picture.pts is None else picture.pts
            duration = picture.duration or step
            end = pts + duration
            yield Decoded(picture=picture, pts=pts, duration=duration, time_base=time_base, is_damaged=is_damaged)
        if missing := files.missing_bytes(path):
            remarks.damage.append(f"the file ends {missing} bytes early")


class SmallPictures:
    """Small upright pictures of one frame after another, each made when it is asked for, at most once a frame.

    `luma(None)` is the full-size luma: the decoder's own memory where that has it. All luma is in 16..235 or what the
    file has of it, as video stores it. What one caller asks for never changes what another gets.
    """

    def __init__(self) -> None:
        self._reformatters: dict[tuple[int | None, str], Any] = {}
        self._made: dict[tuple[int | None, str], Any] = {}
        self._luma: dict[int | None, NDArray[np.uint8]] = {}
        self._frame: Any = None

    def show(self, picture: Any) -> None:
        """The frame that counts from now on."""
        self._frame = picture
        self._made.clear()
        self._luma.clear()
        if self._lacks_matrix:
            picture.colorspace = BT709 if picture.width >= 1280 or picture.height >= 720 else SMPTE170M

    def luma(self, width_px: int | None = None) -> NDArray[np.uint8]:
        """uint8 [h, w]. Do not write to it or keep it."""
        width_px = self._clipped(width_px)
        if width_px not in self._luma:
            self._luma[width_px] = self._upright(self._stored_luma(width_px))
        return self._luma[width_px]

    def rgb(self, width_px: int | None = None) -> NDArray[np.uint8]:
        """uint8 [h, w, 3]. Do not write to it or keep it."""
        width_px = self._clipped(width_px)
        source = self._ladder() if self._is_small(width_px) else self._frame
        return self._upright(_plane(self._scaled(source, width_px, "rgb24"), channels=3))

    def _clipped(self, width_px: int | None) -> int | None:
        """The width, or None where the picture is no wider."""
        return None if width_px is None or width_px >= self._width_px else width_px

    def _stored_luma(self, width_px: int | None) -> NDArray[np.uint8]:
        import cv2

        if width_px is None:
            return _plane(self._frame if self._has_luma else self._scaled(self._frame, None, "yuv420p"))
        if width_px == LADDER_PX:
            return _plane(self._ladder())
        # OpenCV halves a plane faster than FFmpeg's scaler does, which would make the colours as well.
        source = _plane(self._ladder()) if self._is_small(width_px) else self._stored_luma(None)
        return np.asarray(cv2.resize(source, self._stored_size(width_px), interpolation=cv2.INTER_AREA), np.uint8)

    def _is_small(self, width_px: int | None) -> bool:
        """What a picture is made from depends on its width alone, so never on what else is made."""
        return width_px is not None and width_px <= SMALL_PX and self._width_px > LADDER_PX

    def _ladder(self) -> Any:
        return self._scaled(self._frame, LADDER_PX, "yuv420p")

    def _scaled(self, frame: Any, width_px: int | None, pixel_format: str) -> Any:
        from av.video.reformatter import VideoReformatter

        key = (width_px, pixel_format)
        if key not in self._made:
            reformatter = self._reformatters.setdefault(key, VideoReformatter())
            width, height = self._stored_size(width_px)
            self._made[key] = reformatter.reformat(
                frame, width, height, pixel_format, interpolation="AREA",
                dst_color_range=LIMITED if pixel_format == "yuv420p" else None, threads=1,
            )  # fmt: skip
        return self._made[key]

    @cached_property
    def _has_luma(self) -> bool:
        return self._frame.format.name in _LUMA_FIRST

    @cached_property
    def _lacks_matrix(self) -> bool:
        return self._frame.colorspace == UNSPECIFIED and not self._frame.format.is_rgb

    @property
    def _width_px(self) -> int:
        return int(self._frame.height if self._is_turned else self._frame.width)

    def _stored_size(self, width_px: int | None) -> tuple[int, int]:
        """Width and height to scale to, before turning, so that the upright picture is `width_px` wide."""
        width, height = self._frame.width, self._frame.height
        if width_px is None:
            return width, height
        other = max(2, round(width_px * (width / height if self._is_turned else height / width)))
        return (other, width_px) if self._is_turned else (width_px, other)

    @cached_property
    def _matrix(self) -> tuple[int, int, int, int]:
        return files.display_matrix(self._frame)

    @cached_property
    def _is_turned(self) -> bool:
        return self._matrix[1] != 0 and self._matrix[0] == 0

    def _upright(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return picture if self._matrix == (1, 0, 0, 1) else files.upright(picture, self._matrix)


def _plane(frame: Any, channels: int = 1) -> NDArray[np.uint8]:
    """The first plane of a frame as an array over its memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : frame.width * channels]
    return rows.reshape(plane.height, frame.width, 3) if channels == 3 else rows
