"""Pixels in memory: the one door between uint8 THWC and float CTHW, fitting to a size, and contact sheets.

Everything outside a network is uint8 [T, H, W, 3]; everything inside is float [C, T, H, W] in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from anisora.errors import BadSize, Failed
from anisora.geometry import round_half_up

if TYPE_CHECKING:
    import torch
    from PIL import Image

Fit = Literal["cover", "contain"]


def to_float_CTHW(frames_THWC: np.ndarray) -> torch.Tensor:
    """float32 [3, T, H, W] in [-1, 1] of uint8 [T, H, W, 3]: 0 becomes -1, 255 becomes 1. `to_uint8_THWC` undoes it."""
    import torch

    _check_uint8(frames_THWC)
    frames_CTHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(3, 0, 1, 2)
    # In the order of diffusers' image processor, so that a guide is the same to the last bit.
    return frames_CTHW.to(torch.float32).div_(255).mul_(2).sub_(1)


def to_uint8_THWC(frames_CTHW: torch.Tensor) -> np.ndarray:
    """uint8 [T, H, W, 3] of float [3, T, H, W]: rounded to the nearest level; this is where [-1, 1] is enforced.

    Networks overshoot the range a little, so values beyond it become the nearest end. Raises Failed for not-a-numbers,
    which would come out as black or noise.
    """
    import torch

    levels = frames_CTHW.detach().to("cpu", torch.float32).add(1).mul_(127.5)
    if not torch.isfinite(levels).all():
        raise Failed("the frames hold values that are not numbers", hint="float32 or bfloat16 in place of float16")
    return levels.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def _check_uint8(frames_THWC: np.ndarray) -> None:
    """An own slip, not the user's: frames of another kind never get here from a file."""
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise TypeError(f"expected uint8 [T, H, W, 3], got {frames_THWC.dtype} {list(frames_THWC.shape)}")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a picture of `source_px` lands in one of `size_px`: the part `crop_px` of it fills the place `paste_px`.

    Both boxes are (left, top, right, bottom). Only `crop_px` may be fractional: the part is exactly of the place's
    aspect, so nothing is stretched by rounding.
    """

    source_px: tuple[int, int]
    size_px: tuple[int, int]
    crop_px: tuple[float, float, float, float]
    paste_px: tuple[int, int, int, int]

    @property
    def is_identity(self) -> bool:
        return self.source_px == self.size_px and self.crop_px == (0, 0, *self.source_px)

    @property
    def covered_HW(self) -> np.ndarray:
        """True where the source shows, False on the bars that `contain` leaves: bool [H, W]."""
        covered = np.zeros(self.size_px[::-1], dtype=bool)
        left, top, right, bottom = self.paste_px
        covered[top:bottom, left:right] = True
        return covered


def place(source_px: tuple[int, int], size_px: tuple[int, int], mode: Fit = "cover") -> Placement:
    """How a picture of (width, height) `source_px` is brought to `size_px`.

    `cover` scales until both sides are filled and crops the rest evenly; `contain` scales until all of it is seen and
    leaves even bars (an odd pixel goes right or below). Raises BadSize for sizes without pixels.
    """
    if min(*source_px, *size_px) < 1:
        raise BadSize("a size without pixels", got=f"{source_px} to {size_px}", expected="1x1 or more")
    if mode not in ("cover", "contain"):
        raise BadSize("unknown way to fit", got=repr(mode), expected="cover or contain")
    scales = [Fraction(target, source) for source, target in zip(source_px, size_px, strict=True)]
    if mode == "contain":
        sides = [max(1, round_half_up(side * min(scales))) for side in source_px]
        left, top = [(target - side) // 2 for side, target in zip(sides, size_px, strict=True)]
        paste = (left, top, left + sides[0], top + sides[1])
        return Placement(source_px=source_px, size_px=size_px, crop_px=(0, 0, *source_px), paste_px=paste)
    parts = [target / max(scales) for target in size_px]
    starts = [(side - part) / 2 for side, part in zip(source_px, parts, strict=True)]
    (x0, x1), (y0, y1) = [(float(start), float(start + part)) for start, part in zip(starts, parts, strict=True)]
    return Placement(source_px=source_px, size_px=size_px, crop_px=(x0, y0, x1, y1), paste_px=(0, 0, *size_px))


def fit(
    frames_THWC: np.ndarray, size_px: tuple[int, int], mode: Fit = "cover", *, pad: tuple[int, int, int] = (0, 0, 0)
) -> tuple[np.ndarray, Placement]:
    """Frames uint8 [T, H, W, 3] at (width, height) `size_px`, and where they landed (for their masks: `fit_mask`).

    Lanczos resampling (Pillow's, antialiased). The bars of `contain` are `pad`, black unless said otherwise.
    """
    _check_uint8(frames_THWC)
    placement = place((frames_THWC.shape[2], frames_THWC.shape[1]), size_px, mode)
    if placement.is_identity:
        return frames_THWC, placement
    width, height = size_px
    fitted = np.empty((len(frames_THWC), height, width, 3), np.uint8)
    fitted[:] = pad
    left, top, right, bottom = placement.paste_px
    for source, target in zip(frames_THWC, fitted, strict=True):
        target[top:bottom, left:right] = _resize(source, placement, "LANCZOS")
    return fitted, placement


def fit_mask(mask_THW: np.ndarray, placement: Placement, *, pad: float = 0.0) -> np.ndarray:
    """A mask float [T, H, W] or [H, W] in [0, 1] moved as `fit` moved its picture; the bars are `pad`.

    Box resampling: the mean of the area when shrinking, the nearest value when enlarging. It never rings, and a black
    and white mask stays one at whole factors.
    """
    size_px = (mask_THW.shape[-1], mask_THW.shape[-2])
    if size_px != placement.source_px:
        raise ValueError(f"a mask of {size_px} for a picture of {placement.source_px}: resize the mask first")
    if placement.is_identity:
        return mask_THW
    left, top, right, bottom = placement.paste_px
    width, height = placement.size_px
    fitted = np.full((*mask_THW.shape[:-2], height, width), pad, np.float32)
    for index in np.ndindex(mask_THW.shape[:-2]):
        resized = _resize(mask_THW[index].astype(np.float32), placement, "BOX")
        fitted[index][top:bottom, left:right] = np.clip(resized, 0, 1)  # sums of weights are off by a last bit
    return fitted


def _resize(picture: np.ndarray, placement: Placement, resampling: str) -> np.ndarray:
    from PIL import Image

    left, top, right, bottom = placement.paste_px
    image = Image.fromarray(np.ascontiguousarray(picture))
    size = (right - left, bottom - top)
    return np.asarray(image.resize(size, Image.Resampling[resampling], box=placement.crop_px))


def contact_sheet(
    frames: Sequence[np.ndarray] | np.ndarray,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    *,
    gap_px: int = 4,
) -> Image.Image:
    """One RGB picture of all frames in rows of `columns` (near a square unless said), each with its label below.

    Frames are uint8 [H, W, 3] and may differ in size: each lies at the top left of its cell. A label wider than its cell
    is cut there and ends in dots.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not len(frames) or (labels is not None and len(labels) != len(frames)):
        raise ValueError(f"{len(frames)} frames and {'no' if labels is None else len(labels)} labels")
    columns = min(columns or math.ceil(math.sqrt(len(frames))), len(frames))
    label_px = 16 if labels else 0
    cell_width = max(frame.shape[1] for frame in frames) + gap_px
    cell_height = max(frame.shape[0] for frame in frames) + gap_px + label_px
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (columns * cell_width + gap_px, rows * cell_height + gap_px), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, frame in enumerate(frames):
        x_px = gap_px + index % columns * cell_width
        y_px = gap_px + index // columns * cell_height
        sheet.paste(Image.fromarray(np.ascontiguousarray(frame)), (x_px, y_px))
        if labels:
            label = _fitted(labels[index], cell_width - gap_px, font)
            draw.text((x_px, y_px + cell_height - gap_px - label_px), label, fill="black", font=font)
    return sheet


def _fitted(label: str, width_px: int, font: Any) -> str:
    """The label, or as much of its beginning as the width holds, and dots."""
    if font.getlength(label) <= width_px:
        return label
    kept = next((n for n in range(len(label), 0, -1) if font.getlength(f"{label[:n]}...") <= width_px), 0)
    return f"{label[:kept].rstrip()}..."
