"""The largest part of the picture that no overlay touches, in the aspect that is wanted.

The paper's subtitle-free set comes from "proportional cropping"; upstream keeps what is above the top-most box, so a
line of text at the top deletes the picture. Here any side may give way: the rectangle is the largest of its aspect that
fits anywhere, found exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadSize

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, half-open


@dataclass(frozen=True, kw_only=True)
class CropParams:
    """How a crop may be."""

    aspect: Fraction | None = None
    """width over height; None keeps that of the picture"""
    min_kept_area: float = 0.5
    """least share of the picture's area that a crop must keep"""
    multiple_px: int = 2
    """position and size are multiples of this; video with halved colour needs 2"""
    margin_px: int = 2
    """distance kept from overlays, whose soft edges reach beyond their boxes"""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of a picture: `x_px, y_px` its top left pixel, in a source of `source_px` (width, height)."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    source_px: tuple[int, int]

    def __post_init__(self) -> None:
        width, height = self.source_px
        inside = self.x_px + self.width_px <= width and self.y_px + self.height_px <= height
        if min(self.x_px, self.y_px) < 0 or min(self.width_px, self.height_px) < 1 or not inside:
            raise BadSize("a crop outside of its picture", got=self.xywh_px, expected=f"inside {width}x{height}")

    @property
    def xywh_px(self) -> tuple[int, int, int, int]:
        return self.x_px, self.y_px, self.width_px, self.height_px

    @property
    def kept_area(self) -> float:
        """The share of the source's area that is kept."""
        return self.width_px * self.height_px / (self.source_px[0] * self.source_px[1])

    def of_frames(self, frames_THWC: NDArray[Any]) -> NDArray[Any]:
        """The part of frames [..., H, W, C]: a view, no pixel is resampled."""
        self._check(frames_THWC.shape[-2], frames_THWC.shape[-3])
        return frames_THWC[..., self._rows, self._columns, :]

    def of_mask(self, mask_HW: NDArray[Any]) -> NDArray[Any]:
        """The same part of a mask [..., H, W]: pixel for pixel what `of_frames` does to its picture."""
        self._check(mask_HW.shape[-1], mask_HW.shape[-2])
        return mask_HW[..., self._rows, self._columns]

    def of_box(self, box: Box) -> Box | None:
        """A box in the pixels of the crop, cut off at its edges; None when nothing of it is left."""
        left, top = max(box[0] - self.x_px, 0), max(box[1] - self.y_px, 0)
        right, bottom = min(box[2] - self.x_px, self.width_px), min(box[3] - self.y_px, self.height_px)
        return (left, top, right, bottom) if left < right and top < bottom else None

    @property
    def _rows(self) -> slice:
        return slice(self.y_px, self.y_px + self.height_px)

    @property
    def _columns(self) -> slice:
        return slice(self.x_px, self.x_px + self.width_px)

    def _check(self, width: int, height: int) -> None:
        if (width, height) != self.source_px:
            raise BadSize(
                "a crop of another picture", got=f"{width}x{height}", expected="{}x{}".format(*self.source_px)
            )


def free_crop(
    size_px: tuple[int, int], boxes: Iterable[Box], params: CropParams = CropParams()
) -> tuple[Crop | None, str | None]:
    """The largest crop of a picture of (width, height) that no box touches, or None and why: `(crop, reason)`.

    `boxes` are those of the whole clip. The reasons: "no_free_area" when nothing fits, "crop_too_small" when less than
    `min_kept_area` would be left.
    """
    crop = largest_free(blocked_HW(size_px, boxes, params.margin_px), params)
    if crop is None:
        return None, "no_free_area"
    return (crop, None) if crop.kept_area >= params.min_kept_area else (None, "crop_too_small")


def blocked_HW(size_px: tuple[int, int], boxes: Iterable[Box], margin_px: int = 0) -> NDArray[np.bool_]:
    """True on every pixel that a box touches, widened by the margin: [H, W] of a picture of (width, height)."""
    width, height = size_px
    blocked = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        rows = slice(max(0, int(np.floor(top)) - margin_px), max(0, int(np.ceil(bottom)) + margin_px))
        columns = slice(max(0, int(np.floor(left)) - margin_px), max(0, int(np.ceil(right)) + margin_px))
        blocked[rows, columns] = True
    return blocked


def largest_free(blocked: NDArray[np.bool_], params: CropParams = CropParams()) -> Crop | None:
    """The largest crop of the wanted aspect without a blocked pixel; of equals, the nearest to the picture's middle.

    Exact: a smaller size fits wherever a larger one does, so the largest is found by halving, and each size is tried at
    every position at once by sums over the picture. None when not even the smallest size fits.
    """
    height, width = blocked.shape
    step = params.multiple_px
    sizes = _sizes(width, height, params.aspect, step)
    sums = np.zeros((height + 1, width + 1), np.int32)
    sums[1:, 1:] = blocked.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    low, high, best = 0, len(sizes) - 1, None
    while low <= high:
        middle = (low + high) // 2
        free = _free_at(sums, sizes[middle], step)
        if free.any():
            best, low = (sizes[middle], free), middle + 1
        else:
            high = middle - 1
    if best is None:
        return None
    (crop_width, crop_height), free = best
    y, x = _nearest_middle(free, (width - crop_width) / 2 / step, (height - crop_height) / 2 / step)
    return Crop(
        x_px=x * step, y_px=y * step, width_px=crop_width, height_px=crop_height, source_px=(width, height)
    )  # fmt: skip


def _sizes(width: int, height: int, aspect: Fraction | None, step: int) -> Sequence[tuple[int, int]]:
    """All sizes of the aspect that fit, from small to large; the height is rounded to the multiple, half up.

    Without an aspect, that of the picture is kept, and the whole picture (less an odd pixel) is the largest size.
    """
    found = []
    for w in range(step, width + 1, step):
        h = max(step, int(Fraction(w, step) / (aspect or Fraction(width, height)) + Fraction(1, 2)) * step)
        if h <= height:
            found.append((w, h))
    if aspect is None and min(width, height) >= step:
        whole = (width - width % step, height - height % step)
        found = [size for size in found if size[0] < whole[0] and size[1] <= whole[1]] + [whole]
    return found


def _free_at(sums: NDArray[np.int32], size: tuple[int, int], step: int) -> NDArray[np.bool_]:
    """Where a rectangle of this size, at multiples of `step`, holds no blocked pixel: bool [rows, columns] of places."""
    w, h = size
    inside = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    return inside[::step, ::step] == 0


def _nearest_middle(free: NDArray[np.bool_], x_middle: float, y_middle: float) -> tuple[int, int]:
    """The (row, column) of the free place nearest to the middle; of equals, the first row by row."""
    rows, columns = np.nonzero(free)
    nearest = int(np.argmin((rows - y_middle) ** 2 + (columns - x_middle) ** 2))
    return int(rows[nearest]), int(columns[nearest])
