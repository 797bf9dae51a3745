"""Faults that leave a mark of their own in a picture, whatever the scene: a second image, scratches, squares, rims, ragged
lines, a screen, colour beside the lines.

How sharp or rich a picture may be depends on what it shows; these do not. Nothing that is drawn repeats itself as a whole a
little to the side, or has even squares on both sides of nearly every step. Each is one number, larger for worse; all work on
luma in [0, 255] but the last, at the size at which looks are judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.float32]  # [H, W]

#: A second image is looked for so far away, in pixels: nearer it is blur, farther another figure.
NEAREST_PX, FARTHEST_PX = 4, 40

#: A scratch stands off the picture by so much at `SCRATCH_PX` to both sides, on most of its way from top to bottom.
SCRATCH_LEVELS, SCRATCH_PX, SCRATCH_SHARE = 4.0, 2, 0.7

#: A step of so many levels is an edge; beside it what changes by less than a tenth of it is even, looked at so far.
STEP_LEVELS, EVEN_SHARE, EVEN_PX = 12.0, 0.1, 8

#: Edges, the steepest twentieth of the pixels, are crossed at so many places, so far to both sides; fewer edges than these,
#: or fewer of them with room beyond them for overshoot, say nothing.
EDGE_SHARE, CROSSINGS, CROSSED_PX, LEAST_EDGES, LEAST_SIDES = 0.05, 4000, 8, 100, 50

#: Colour is looked for up to so many pixels away from light. Edges of light and of colour count up to so many levels a
#: pixel, so that one outline does not decide; below so many on the mean there is no colour.
FARTHEST_COLOR_PX, MOST_LIGHT, MOST_COLOR, LEAST_COLOR = 10, 12, 8, 0.05


def second_image(grey_HW: Luma) -> float:
    """How far the highest peak of the cepstrum stands out of it, in its standard deviations: 5 in the middle clean clip, 8 in
    one of ten, more where the picture shows through itself a second time, to the side or aslant (the test for echoes of
    Bogert et al. 1963, in two dimensions). One straight above or below is not looked for: upright lines stand out there in
    any picture."""
    import cv2

    height, width = grey_HW.shape
    size = np.abs(np.fft.rfft2(_faded_out(grey_HW)))
    cepstrum = np.fft.fftshift(np.fft.irfft2(np.log(size + 1), s=(height, width))).astype(np.float32)
    y, x = (min(FARTHEST_PX, half - 1) for half in (height // 2, width // 2))
    near = cepstrum[height // 2 - y : height // 2 + y + 1, width // 2 - x : width // 2 + x + 1]
    sharp = near - cv2.blur(near, (5, 5))
    down, across = np.mgrid[-y : y + 1, -x : x + 1]
    distance = np.hypot(down, across)
    looked_at = sharp[(distance >= NEAREST_PX) & (distance <= FARTHEST_PX) & (np.abs(across) > 1)]
    return float(looked_at.max() / (looked_at.std() + 1e-6)) if looked_at.size else 0.0


def scratches(grey_HW: Luma) -> float:
    """The log of how many columns stand off those to both sides, the same way, nearly from top to bottom, by more than those
    two are apart: the edge of a black bar is none."""
    middle, left, right = (
        grey_HW[:, SCRATCH_PX:-SCRATCH_PX],
        grey_HW[:, : -2 * SCRATCH_PX],
        grey_HW[:, 2 * SCRATCH_PX :],
    )
    above, below = np.minimum(middle - left, middle - right), np.minimum(left - middle, right - middle)
    apart, low = np.abs(left - right), 100 * (1 - SCRATCH_SHARE)
    off = np.maximum(*(np.percentile(np.where(side > apart, side, 0), low, axis=0) for side in (above, below)))
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
    slope_x, slope_y = _slopes(grey)
    steep = np.hypot(slope_x, slope_y)
    inside = np.zeros(grey.shape, bool)
    border = CROSSED_PX + 1
    inside[border:-border, border:-border] = True
    y, x = np.nonzero(inside & (steep >= max(4.0, float(np.percentile(steep, 100 * (1 - EDGE_SHARE))))))
    chosen = np.linspace(0, len(y) - 1, min(len(y), CROSSINGS)).astype(int)
    y, x = y[chosen], x[chosen]
    if len(y) < LEAST_EDGES:
        return 0.0
    # from the dark to the light side, one row of levels for each pixel of the way
    way = np.arange(-CROSSED_PX, CROSSED_PX + 1, dtype=np.float32)[:, None]
    to_x, to_y = x + way * slope_x[y, x] / steep[y, x], y + way * slope_y[y, x] / steep[y, x]
    levels = cv2.remap(grey, to_x.astype(np.float32), to_y.astype(np.float32), cv2.INTER_LINEAR)
    far_dark, dark, light, far_light = levels[:4], levels[4:8].min(0), levels[9:13].max(0), levels[13:]
    height = light - dark + 1e-3
    over = ((light - far_light.mean(0)) / height)[light < 250]
    under = ((far_dark.mean(0) - dark) / height)[dark > 5]
    return float(min(np.median(side) if len(side) > LEAST_SIDES else 0.0 for side in (over, under)))


def raggedness(grey_HW: Luma) -> float:
    """How unlike fine detail is to what lies up to two pixels on along the lines, from 0 to 1 (up to 2 for teeth), where
    the picture changes most: lines go on, and grain, teeth and splinters do not."""
    import cv2

    fine = grey_HW - cv2.GaussianBlur(grey_HW, (0, 0), 1.0)
    slope_x, slope_y = _slopes(cv2.GaussianBlur(grey_HW, (0, 0), 1.2))
    xx, xy, yy = (cv2.GaussianBlur(part, (0, 0), 2) for part in (slope_x**2, slope_x * slope_y, slope_y**2))
    along = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    y, x = np.mgrid[: grey_HW.shape[0], : grey_HW.shape[1]].astype(np.float32)
    next_to = [
        cv2.remap(fine, x + step * np.cos(along), y + step * np.sin(along), cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
        for step in (-2, -1, 1, 2)
    ]
    changing = (xx + yy) >= np.percentile(xx + yy, 80)
    goes_on, all_of_it = (float(part[changing].sum()) for part in (fine * np.mean(next_to, axis=0), fine**2))
    return (all_of_it - goes_on) / (all_of_it + 50)


def screen(grey_HW: Luma) -> float:
    """How far the highest peak of the spectrum beyond a twelfth of a cycle a pixel stands out of its surroundings, as log:
    about 1 in a picture, more under a regular pattern."""
    import cv2

    size = np.abs(np.fft.fftshift(np.fft.fft2(_faded_out(grey_HW))))
    log = np.log(size + 1.25 * np.sqrt(grey_HW.size)).astype(np.float32)
    down, across = (np.abs(np.fft.fftshift(np.fft.fftfreq(n))) for n in grey_HW.shape)
    fine = np.hypot(down[:, None], across[None]) > 1 / 12
    upright = (down[:, None] <= 0.01) | (across[None] <= 0.01)  # where walls and horizons have theirs
    standing_out = (cv2.blur(log, (3, 3)) - cv2.blur(log, (19, 19)))[fine & ~upright]
    return float(standing_out.max()) if standing_out.size else 0.0


def color_off(frame_HWC: NDArray[np.uint8]) -> float:
    """How much better the edges of colour lie on those of light when they are shifted by two to ten pixels, as a difference of
    correlations; 0 where they fit as they are, or where there is no colour."""
    import cv2

    lab = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2LAB).astype(np.float32)
    light, *colors = (_edges(lab[..., channel]) for channel in range(3))
    light, color = np.minimum(light, MOST_LIGHT), np.minimum(colors[0] + colors[1], MOST_COLOR)
    if color.mean() < LEAST_COLOR:
        return 0.0
    light, color = (edges - cv2.GaussianBlur(edges, (0, 0), 12) for edges in (light, color))
    both = np.fft.rfft2(light) * np.conj(np.fft.rfft2(color))
    alike = np.fft.fftshift(np.fft.irfft2(both, s=light.shape)) / (np.linalg.norm(light) * np.linalg.norm(color) + 1e-6)
    middle_y, middle_x = light.shape[0] // 2, light.shape[1] // 2
    far_y, far_x = (min(FARTHEST_COLOR_PX, middle - 1) for middle in (middle_y, middle_x))
    near = alike[middle_y - far_y : middle_y + far_y + 1, middle_x - far_x : middle_x + far_x + 1]
    in_place = near[far_y - 1 : far_y + 2, far_x - 1 : far_x + 2]
    return float(near.max() - in_place.max())


def _faded_out(grey_HW: Luma) -> Luma:
    """The picture about its mean, fading towards its edges, which would otherwise be steps in its spectrum."""
    height, width = grey_HW.shape
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    return np.asarray((grey_HW - grey_HW.mean()) * window)


def _edges(channel_HW: Luma) -> Luma:
    import cv2

    return np.asarray(np.hypot(*_slopes(cv2.GaussianBlur(channel_HW, (0, 0), 1))))


def _slopes(grey_HW: NDArray[Any]) -> tuple[Luma, Luma]:
    """Along rows and along columns, in levels a pixel."""
    import cv2

    return np.asarray(cv2.Sobel(grey_HW, cv2.CV_32F, 1, 0) / 8), np.asarray(cv2.Sobel(grey_HW, cv2.CV_32F, 0, 1) / 8)
