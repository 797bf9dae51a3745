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


def appeal_features(footage: Footage) -> dict[str, float] | str:
    """The features of looks by name, the mean over a few frames; or the reason why there are none.

    Beyond `picture_features`: `edge_fine`, the strongest fine edges over the strongest coarse ones, which blur lowers
    whatever the scene; `detail_fine`, the same of middling detail, which noise and compression raise.
    """
    if footage.is_blank:
        return "blank"
    frames_THWC = footage.frames_THWC[footage.deep_moments]
    ratios = np.array([fine_over_coarse(frame) for frame in frames_THWC]).mean(axis=0)
    return picture_features(frames_THWC) | {"edge_fine": float(ratios[0]), "detail_fine": float(ratios[1])}


def fine_over_coarse(frame_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """log ratios of the 99th and of the 50th percentile of band-pass detail, fine over coarse."""
    import cv2

    grey = luma(frame_HWC)
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), FINE_PX))
    coarse = np.abs(cv2.GaussianBlur(grey, (0, 0), COARSE_PX[0]) - cv2.GaussianBlur(grey, (0, 0), COARSE_PX[1]))
    strong, middling = ((np.percentile(fine, q) + 0.02) / (np.percentile(coarse, q) + 1) for q in (99, 50))
    return float(np.log(strong)), float(np.log(middling))
