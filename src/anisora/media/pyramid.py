"""Small upright pictures of decoded frames, for those who look at every frame but at few of its pixels.

Planes are looked at where the decoder left them and halved again and again, which costs a fraction of any other way to
shrink them; each halved picture is made once a frame, whoever asks. Colours are worked out on the small planes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.media import container as files
from anisora.media.color import BT709, FULL, LIMITED, RGB, UNSPECIFIED, assumed_matrix, rgb_of_yuv

Plane = NDArray[np.uint8]

#: What is looked at in place; all else is converted to the first of them.
_IN_PLACE = ("yuv420p", "yuv422p", "yuv444p")


class Pyramid:
    """Pictures of one frame after another, in any width, each made when it is asked for.

    `luma(None)` is the full-size luma: the decoder's own memory for most files. All luma is in 16..235, as video stores
    it. A picture depends on the frame and its width alone, never on what else is asked for.
    """

    def __init__(self) -> None:
        self._planes: list[Plane] = []
        self._memory: dict[tuple[int, int], Plane] = {}
        self._is_made: set[tuple[int, int]] = set()

    def show(self, picture: Any) -> None:
        """The frame that counts from now on, PyAV's; its memory must stay until the next one is shown."""
        if picture.colorspace == UNSPECIFIED and _is_yuv(picture):
            picture.colorspace = assumed_matrix(picture.width, picture.height)
        self._frame = picture
        self._planes.clear()
        self._is_made.clear()

    def luma(self, width_px: int | None = None) -> Plane:
        """uint8 [h, w], not enlarged. Do not write to it or keep it."""
        return self._upright(self._shrunk(0, self._stored_size(width_px)))

    def rgb(self, width_px: int | None = None) -> NDArray[np.uint8]:
        """uint8 [h, w, 3], not enlarged. Do not write to it or keep it."""
        import cv2

        size = self._stored_size(width_px)
        yuv = cv2.merge([self._shrunk(number, size) for number in range(3)])
        return self._upright(np.asarray(cv2.transform(yuv, rgb_of_yuv(self._source.colorspace)), np.uint8))

    def _shrunk(self, number: int, size: tuple[int, int]) -> Plane:
        """A plane in a size: halved while it is twice as large, then interpolated; less than halving needs no more."""
        import cv2

        plane, level = self._plane(number), 0
        while min(plane.shape[1] // size[0], plane.shape[0] // size[1]) >= 2:
            level += 1
            plane = self._halved(plane, number, level)
        if plane.shape[::-1] == size:
            return plane
        is_large = max(plane.shape[1] // size[0], plane.shape[0] // size[1]) >= 2  # on one side, as 4:2:2 colours are
        way = cv2.INTER_AREA if is_large else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(plane, size, interpolation=way), np.uint8)

    def _halved(self, plane: Plane, number: int, level: int) -> Plane:
        """A plane halved once more, made once a frame, in the memory of that of the frame before."""
        import cv2

        if (number, level) not in self._is_made:
            height, width = plane.shape
            way = cv2.INTER_LINEAR if height % 2 or width % 2 else cv2.INTER_AREA
            memory = self._memory.get((number, level))
            made = cv2.resize(plane, ((width + 1) // 2, (height + 1) // 2), memory, interpolation=way)
            self._memory[number, level] = np.asarray(made, np.uint8)
            self._is_made.add((number, level))
        return self._memory[number, level]

    def _plane(self, number: int) -> Plane:
        if not self._planes:
            self._source = self._frame if self._is_in_place else self._converted()
            self._planes = [_memory(plane) for plane in self._source.planes]
        return self._planes[number]

    @property
    def _is_in_place(self) -> bool:
        return self._frame.format.name in _IN_PLACE and self._frame.color_range != FULL

    def _converted(self) -> Any:
        if self._frame.format.is_rgb:
            self._frame.colorspace, self._frame.color_range = RGB, FULL
        return self._reformatter.reformat(
            self._frame,
            format=_IN_PLACE[0],
            dst_colorspace=None if _is_yuv(self._frame) else BT709,
            dst_color_range=LIMITED,
            threads=1,
        )

    @cached_property
    def _reformatter(self) -> Any:
        from av.video.reformatter import VideoReformatter

        return VideoReformatter()

    def _stored_size(self, width_px: int | None) -> tuple[int, int]:
        """Width and height before turning, so that the upright picture is `width_px` wide, or the file's if that is less."""
        width, height = self._frame.width, self._frame.height
        if width_px is None or width_px >= (height if self._is_turned else width):
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


def _is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and frame.format.name != "pal8"


def _memory(plane: Any) -> Plane:
    """A plane as an array over the decoder's memory."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
