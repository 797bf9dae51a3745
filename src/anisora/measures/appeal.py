"""How well made a shot's pictures are: sharp lines, clean flats, full colour; not whether anyone likes them.

The features are those that trainable heads read (`appearance.picture_features`) and, because scenes differ in how much
detail they have, ratios of fine to coarse detail. Taste needs a head that was trained on people's ratings.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anisora.measures.appearance import grid_excess, picture_features
from anisora.measures.blemishes import color_off, overshoot, raggedness, scratches, screen, second_image, squares
from anisora.measures.footage import Footage
from anisora.measures.similarity import luma

#: What is finer than the first blur radius, in pixels, is fine detail; what lies between the other two is coarse. Far
#: apart, so that blur takes the one long before the other, also of a clip that was small to begin with.
FINE_PX, COARSE_PX = 1.5, (3.0, 10.0)

#: The seams of compression are fainter than outlines.
FAINT_LEVELS = 8

#: A speck is less than about 8 pixels wide: it stands off everything on a ring of these radii around it, by so many grey
#: levels and by no less than the ring itself spans. A line crosses the ring; what lies in texture has no even ring.
RING_PX, SPECK_LEVELS = (4.6, 6.3), 12

#: Where a channel spans at least so many levels within 3 x 3 pixels, the picture changes: edges, shading, texture.
CHANGING_LEVELS = 8


def appeal_features(footage: Footage) -> dict[str, float] | str:
    """The features of looks by name, the mean over a few frames without black bars; or the reason why there are none.

    Beyond `picture_features`:

    edge_fine:   the strongest fine edges over the strongest coarse ones, along rows or along columns, whichever has less:
                 blur lowers it whatever the scene, also blur in one direction
    one_way:     how far rows and columns are apart in it
    detail_fine: the same of middling detail, which noise and compression raise
    grid:        `blocking` of faint steps alone, so that outlines do not hide what lies on flat colour
    specks:      the log of how many spots stand alone
    levels:      the log of how many levels of a channel are in use where the picture changes, which posterising takes
                 away and flat colours do not
    faded:       how far the picture stays away from both black and white: paper has the one, night the other
    second_image, scratches, squares, raggedness, screen, color_off: as in `blemishes`
    rims:        `blemishes.overshoot` times the ratio of `edge_fine`, so over coarse edges: soft edges have rims by nature
    """
    if footage.is_blank:
        return "blank"
    frames_THWC = footage.without_bars_THWC[footage.deep_moments]
    each = [_own_features(frame) for frame in frames_THWC]
    own = {name: float(np.mean([features[name] for features in each])) for name in each[0]}
    return picture_features(frames_THWC) | own


def _own_features(frame_HWC: NDArray[np.uint8]) -> dict[str, float]:
    rows, columns = edges_fine(frame_HWC)
    grey = luma(frame_HWC)
    return {
        "edge_fine": min(rows, columns),
        "one_way": abs(rows - columns),
        "detail_fine": fine_over_coarse(frame_HWC)[1],
        "grid": faint_grid(frame_HWC),
        "specks": float(np.log1p(specks(frame_HWC))),
        "levels": levels_in_use(frame_HWC),
        "faded": fadedness(frame_HWC),
        "second_image": second_image(grey),
        "scratches": scratches(grey),
        "squares": squares(grey),
        "raggedness": raggedness(grey),
        "screen": screen(grey),
        "color_off": color_off(frame_HWC),
        "rims": max(0.0, overshoot(grey)) * math.exp(min(rows, columns)),
    }


def fine_over_coarse(frame_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """log ratios of the 99th and of the 50th percentile of band-pass detail, fine over coarse."""
    import cv2

    grey = luma(frame_HWC)
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), FINE_PX))
    coarse = np.abs(cv2.GaussianBlur(grey, (0, 0), COARSE_PX[0]) - cv2.GaussianBlur(grey, (0, 0), COARSE_PX[1]))
    strong, middling = ((np.percentile(fine, q) + 0.02) / (np.percentile(coarse, q) + 1) for q in (99, 50))
    return float(np.log(strong)), float(np.log(middling))


def edges_fine(frame_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """log ratios of the 99th percentile of band-pass detail, fine over coarse: along rows, and along columns.

    A picture that is drawn out one way keeps its edges along that way as sharp as they were, and no others.
    """
    grey = luma(frame_HWC)
    return _sharpness_of_rows(grey), _sharpness_of_rows(np.ascontiguousarray(grey.T))


def _sharpness_of_rows(grey_HW: NDArray[np.float32]) -> float:
    fine = np.abs(grey_HW - _blurred_rows(grey_HW, FINE_PX))
    coarse = np.abs(_blurred_rows(grey_HW, COARSE_PX[0]) - _blurred_rows(grey_HW, COARSE_PX[1]))
    return float(np.log((np.percentile(fine, 99) + 0.02) / (np.percentile(coarse, 99) + 1)))


def _blurred_rows(grey_HW: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.GaussianBlur(grey_HW, (2 * int(np.ceil(3 * sigma_px)) + 1, 1), sigma_px))


def faint_grid(frame_HWC: NDArray[np.uint8]) -> float:
    """`appearance.grid_excess` of rows and columns together, of steps of luma that count up to `FAINT_LEVELS`."""
    grey = luma(frame_HWC)
    across, along = (np.minimum(np.abs(np.diff(grey, axis=axis)), FAINT_LEVELS) for axis in (1, 0))
    return grid_excess(across) + grid_excess(along.T)


def specks(frame_HWC: NDArray[np.uint8]) -> float:
    """How many small spots, darker or lighter than all that is around them, stand alone on something even, for each
    square of the short side.

    Lines, however thin, and corners reach beyond the ring; grain and foliage have no even ring. Dust does, and so have
    stars and dotted eyes, of which there are few.
    """
    import cv2

    grey, ring = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY), _ring()
    lightest, darkest = cv2.dilate(grey, ring), cv2.erode(grey, ring)
    off = cv2.max(cv2.subtract(grey, lightest), cv2.subtract(darkest, grey))
    alone = off >= np.maximum(cv2.subtract(lightest, darkest), SPECK_LEVELS)
    count = cv2.connectedComponents(alone.astype(np.uint8))[0] - 1
    return count * min(grey.shape) ** 2 / grey.size


def _ring() -> NDArray[np.uint8]:
    inner, outer = RING_PX
    y, x = np.mgrid[-int(outer) : int(outer) + 1, -int(outer) : int(outer) + 1]
    return ((np.hypot(x, y) > inner) & (np.hypot(x, y) <= outer)).astype(np.uint8)


def levels_in_use(frame_HWC: NDArray[np.uint8]) -> float:
    """The entropy of the levels of a channel over the pixels where it changes, the mean over channels: its exponential is
    the effective number of levels. 0 where nothing changes.

    Pictures are antialiased, and so have levels in between at every edge, however few colours were painted.
    """
    return float(np.mean([_entropy(_changing(frame_HWC[..., channel])) for channel in range(frame_HWC.shape[2])]))


def _changing(channel_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The values of the pixels about which a channel changes."""
    import cv2

    channel, around = np.ascontiguousarray(channel_HW), np.ones((3, 3), np.uint8)
    return channel[cv2.subtract(cv2.dilate(channel, around), cv2.erode(channel, around)) >= CHANGING_LEVELS]


def _entropy(values: NDArray[np.uint8]) -> float:
    counts = np.bincount(values, minlength=256)
    shares = counts[counts > 0] / max(1, len(values))
    return float(-(shares * np.log(shares)).sum())


def fadedness(frame_HWC: NDArray[np.uint8]) -> float:
    """The distance of the darkest luma from black or of the brightest from white, whichever is less, in [0, 0.5]; the
    extreme thousandth of the pixels is left out."""
    dark, bright = np.percentile(luma(frame_HWC), (0.1, 99.9)) / 255
    return float(min(dark, 1 - bright))
