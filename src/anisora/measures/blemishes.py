"""Faults that leave a mark of their own in a picture, whatever the scene: a second image, scratches, squares, rims.

How sharp or rich a picture may be depends on what it shows; these do not. Nothing that is drawn repeats itself as a whole a
little to the side, or has even squares on both sides of nearly every step. Each is one number, larger for worse; all work on
luma in [0, 255], at the size at which looks are judged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.float32]  # [H, W]

#: A second image is looked for so far away, in pixels: nearer it is blur, farther another figure.
NEAREST_PX, FARTHEST_PX = 4, 40

#: A scratch stands off the picture by so much at `SCRATCH_PX` to both sides, on most of its way from top to bottom.
SCRATCH_LEVELS, SCRATCH_PX, SCRATCH_SHARE = 4.0, 2, 0.7

#: A step of so many levels is an edge; beside it what changes by less than a tenth of it is even, looked at so far.
STEP_LEVELS, EVEN_SHARE, EVEN_PX = 12.0, 0.1, 8

#: Edges, the steepest twentieth of the pixels, are crossed at so many places, so far to both sides.
EDGE_SHARE, CROSSINGS, CROSSED_PX = 0.05, 4000, 8


def second_image(grey_HW: Luma) -> float:
    """How far the highest peak of the cepstrum stands out of it, in its standard deviations: about 6 in a picture, above 10
    where it shows through itself a second time (the test for echoes of Bogert et al. 1963, in two dimensions)."""
    import cv2

    height, width = grey_HW.shape
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    size = np.abs(np.fft.rfft2((grey_HW - grey_HW.mean()) * window))
    cepstrum = np.fft.fftshift(np.fft.irfft2(np.log(size + 1), s=(height, width))).astype(np.float32)
    y, x = (min(FARTHEST_PX, half - 1) for half in (height // 2, width // 2))
    near = cepstrum[height // 2 - y : height // 2 + y + 1, width // 2 - x : width // 2 + x + 1]
    sharp = near - cv2.blur(near, (5, 5))
    down, across = np.mgrid[-y : y + 1, -x : x + 1]
    distance = np.hypot(down, across)
    # What is straight up or across stands out in any picture with upright lines.
    looked_at = sharp[(distance >= NEAREST_PX) & (distance <= FARTHEST_PX) & (np.abs(across) > 1)]
    return float(looked_at.max() / (looked_at.std() + 1e-6)) if looked_at.size else 0.0


def scratches(grey_HW: Luma) -> float:
    """The log of how many columns stand off those to both sides, the same way, nearly from top to bottom."""
    middle, left, right = (
        grey_HW[:, SCRATCH_PX:-SCRATCH_PX],
        grey_HW[:, : -2 * SCRATCH_PX],
        grey_HW[:, 2 * SCRATCH_PX :],
    )
    above, below = np.minimum(middle - left, middle - right), np.minimum(left - middle, right - middle)
    low = 100 * (1 - SCRATCH_SHARE)
    off = np.maximum(np.percentile(above, low, axis=0), np.percentile(below, low, axis=0))
    return float(np.log1p((off > SCRATCH_LEVELS).sum()))


def squares(grey_HW: Luma) -> float:
    """The log of how many pixels are even on both sides of a step, the mean over steps, along rows or columns, whichever has
    fewer: edges are drawn with levels in between, and what is even on one side has detail on the other somewhere."""
    return min(_even_beside_steps(grey_HW), _even_beside_steps(grey_HW.T))


def _even_beside_steps(grey_HW: Luma) -> float:
    change = np.abs(np.diff(grey_HW, axis=1))
    if change.shape[1] <= 2 * EVEN_PX:
        return 0.0
    y, x = np.nonzero(change[:, EVEN_PX:-EVEN_PX] > STEP_LEVELS)
    if not len(y):
        return 0.0
    x = x + EVEN_PX
    little, count = EVEN_SHARE * change[y, x], np.zeros(len(y))
    for side in (-1, 1):
        even = np.ones(len(y), bool)
        for far in range(1, EVEN_PX + 1):
            even &= change[y, x + side * far] < little
            count += even
    return float(np.log1p(count.mean()))


def overshoot(grey_HW: Luma) -> float:
    """How far edges overshoot on both of their sides, over their height, the lesser of the medians of the two sides: what
    sharpening leaves. Below 0 where edges go on beyond what is near, as soft ones do; sides that are white or black are
    left out, 0 without any edges."""
    import cv2

    grey = cv2.GaussianBlur(grey_HW, (0, 0), 0.5)
    slope_x, slope_y = (cv2.Sobel(grey, cv2.CV_32F, *way) / 8 for way in ((1, 0), (0, 1)))
    steep = np.hypot(slope_x, slope_y)
    inside = np.zeros(grey.shape, bool)
    border = CROSSED_PX + 1
    inside[border:-border, border:-border] = True
    y, x = np.nonzero(inside & (steep >= max(4.0, float(np.percentile(steep, 100 * (1 - EDGE_SHARE))))))
    chosen = np.linspace(0, len(y) - 1, min(len(y), CROSSINGS)).astype(int)
    y, x = y[chosen], x[chosen]
    if len(y) < 100:
        return 0.0
    # from the dark to the light side, one row of levels for each pixel of the way
    way = np.arange(-CROSSED_PX, CROSSED_PX + 1, dtype=np.float32)[:, None]
    to_x, to_y = x + way * slope_x[y, x] / steep[y, x], y + way * slope_y[y, x] / steep[y, x]
    levels = cv2.remap(grey, to_x.astype(np.float32), to_y.astype(np.float32), cv2.INTER_LINEAR)
    far_dark, dark, light, far_light = levels[:4], levels[4:8].min(0), levels[9:13].max(0), levels[13:]
    height = light - dark + 1e-3
    over = ((light - far_light.mean(0)) / height)[light < 250]
    under = ((far_dark.mean(0) - dark) / height)[dark > 5]
    return float(min(np.median(side) if len(side) > 50 else 0.0 for side in (over, under)))
