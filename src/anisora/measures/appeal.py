"""How well made a shot's pictures are: sharp lines, clean flats, full colour; not whether anyone likes them.

The features are those that trainable heads read (`appearance.picture_features`) and, because scenes differ in how much
detail they have, ratios of fine to coarse detail. Taste needs a head that was trained on people's ratings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anisora.measures.appearance import picture_features
from anisora.measures.footage import Footage
from anisora.measures.similarity import luma

#: What is finer than the first blur radius, in pixels, is fine detail; what lies between the other two is coarse. Far
#: apart, so that blur takes the one long before the other, also of a clip that was small to begin with.
FINE_PX, COARSE_PX = 1.5, (3.0, 10.0)

#: Where a channel spans at least so many levels within 3 x 3 pixels, the picture changes: edges, shading, texture.
CHANGING_LEVELS = 8


def appeal_features(footage: Footage) -> dict[str, float] | str:
    """The features of looks by name, the mean over a few frames; or the reason why there are none.

    Beyond `picture_features`: `edge_fine`, the strongest fine edges over the strongest coarse ones, which blur lowers
    whatever the scene; `detail_fine`, the same of middling detail, which noise and compression raise; `levels`, the log of
    how many levels of a channel are in use where the picture changes, which posterising takes away and flat colours do
    not; `faded`, how far the picture stays away from both black and white: paper has the one, night the other.
    """
    if footage.is_blank:
        return "blank"
    frames_THWC = footage.frames_THWC[footage.deep_moments]
    ratios = np.array([fine_over_coarse(frame) for frame in frames_THWC]).mean(axis=0)
    return picture_features(frames_THWC) | {
        "edge_fine": float(ratios[0]),
        "detail_fine": float(ratios[1]),
        "levels": float(np.mean([levels_in_use(frame) for frame in frames_THWC])),
        "faded": float(np.mean([fadedness(frame) for frame in frames_THWC])),
    }


def fine_over_coarse(frame_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """log ratios of the 99th and of the 50th percentile of band-pass detail, fine over coarse."""
    import cv2

    grey = luma(frame_HWC)
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), FINE_PX))
    coarse = np.abs(cv2.GaussianBlur(grey, (0, 0), COARSE_PX[0]) - cv2.GaussianBlur(grey, (0, 0), COARSE_PX[1]))
    strong, middling = ((np.percentile(fine, q) + 0.02) / (np.percentile(coarse, q) + 1) for q in (99, 50))
    return float(np.log(strong)), float(np.log(middling))


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
