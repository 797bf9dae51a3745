"""How well made a shot's pictures are: sharp lines, clean flats, full colour; not whether anyone likes them.

What tells a fault from a scene is mostly learned (`faults`); beside it stand the sharpness of edges and how colour lies on
the lines, which mean the same in every scene. Taste needs a head that was trained on people's ratings, and reads
`appearance.picture_features` too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anisora.measures.appearance import picture_features
from anisora.measures.footage import Footage, spread
from anisora.measures.similarity import luma

#: How many pictures, evenly spread over the clip, stand for its looks.
PICTURES = 4

#: What is finer than the first blur radius, in pixels, is fine detail; what lies between the other two is coarse. Far
#: apart, so that blur takes the one long before the other, also of a clip that was small to begin with.
FINE_PX, COARSE_PX = 1.5, (3.0, 10.0)

#: Colour is looked for up to so many pixels away from light. Edges of light and of colour count up to so many levels a
#: pixel, so that one outline does not decide; below so many on the mean there is no colour.
FARTHEST_COLOR_PX, MOST_LIGHT, MOST_COLOR, LEAST_COLOR = 16, 12, 8, 0.05


def appeal_features(footage: Footage) -> dict[str, float] | str:
    """The features of looks by name, the mean over a few frames without black bars; or the reason why there are none.

    Beyond `picture_features`:

    spoiled:   the log-odds that a picture is spoiled, in the eyes of a network (`faults`)
    edge_fine: the strongest fine edges over the strongest coarse ones, along rows or along columns, whichever has less:
               blur lowers it whatever the scene, also blur in one direction
    color_off: how far colour lies beside the lines
    """
    from anisora.measures.faults import fault_odds

    if footage.is_blank:
        return "blank"
    frames_THWC = footage.without_bars_THWC[spread(len(footage), PICTURES)]
    own = {
        "spoiled": fault_odds("pictures", frames_THWC).mean(),
        "edge_fine": np.mean([min(edges_fine(frame)) for frame in frames_THWC]),
        "color_off": np.mean([color_off(frame) for frame in frames_THWC]),
    }
    return picture_features(frames_THWC) | {name: float(value) for name, value in own.items()}


def fine_over_coarse(frame_HWC: NDArray[np.uint8]) -> float:
    """The log ratio of the 99th percentile of band-pass detail, fine over coarse."""
    import cv2

    grey = luma(frame_HWC)
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), FINE_PX))
    coarse = np.abs(cv2.GaussianBlur(grey, (0, 0), COARSE_PX[0]) - cv2.GaussianBlur(grey, (0, 0), COARSE_PX[1]))
    return float(np.log((np.percentile(fine, 99) + 0.02) / (np.percentile(coarse, 99) + 1)))


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


def fadedness(frame_HWC: NDArray[np.uint8]) -> float:
    """The distance of the darkest luma from black or of the brightest from white, whichever is less, in [0, 0.5]; the
    extreme thousandth of the pixels is left out."""
    dark, bright = np.percentile(luma(frame_HWC), (0.1, 99.9)) / 255
    return float(min(dark, 1 - bright))


def color_off(frame_HWC: NDArray[np.uint8]) -> float:
    """How much better the edges of colour lie on those of light when they are shifted by two to sixteen pixels, as a
    difference of correlations; 0 where they fit as they are, or where there is no colour."""
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


def _edges(channel_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The length of the slope at each pixel, in levels a pixel."""
    import cv2

    smooth = cv2.GaussianBlur(channel_HW, (0, 0), 1)
    along, down = (cv2.Sobel(smooth, cv2.CV_32F, *direction) / 8 for direction in ((1, 0), (0, 1)))
    return np.asarray(np.hypot(along, down))
