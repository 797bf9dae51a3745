"""Optical flow, the camera's part in it, and moving a picture along it.

DIS (Kroeger et al. 2016) comes with OpenCV, needs no weights and takes milliseconds. A flow is [H, W, 2] in pixels, x
before y, and says where each pixel of the first picture is in the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Flow = NDArray[np.float32]  # [H, W, 2]
Affine = NDArray[np.float64]  # [2, 3]: (x, y, 1) -> (x', y')

IDENTITY: Affine = np.array([[1.0, 0, 0], [0, 1, 0]])

#: Points used for fitting the camera: more change the fit by less than a hundredth of a pixel.
CAMERA_POINTS = 2000


def dis_flow(first_HWC: NDArray[np.uint8], second_HWC: NDArray[np.uint8], *, fine: bool = True) -> Flow:
    """The flow from one picture, RGB or grey [H, W], to another of the same size.

    Without `fine` the finest scale is half the resolution: a quarter of the time.
    """
    import cv2

    grey = [
        np.ascontiguousarray(frame)
        if frame.ndim == 2
        else cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        for frame in (first_HWC, second_HWC)
    ]
    # One for each pair costs a twentieth more than one for all. But for small pictures OpenCV changes the settings of what it
    # is called on and keeps them, so that the next flow would hang on what came before; and threads must not share one.
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    if fine:
        # To the full resolution and not, as the preset has it, to half: at 96 px that takes the error of a sliding square
        # from 0.60 px to 0.24 px.
        dis.setFinestScale(0)
    return np.asarray(dis.calc(grey[0], grey[1], None))


def fit_camera(flow_HW2: Flow, where_HW: NDArray[np.bool_] | None = None) -> Affine:
    """The affine map that most pixels (of `where`) follow: RANSAC to half a pixel, then least squares on those.

    The identity when fewer than 16 pixels are selected or no affine map fits.
    """
    import cv2

    chosen = np.ones(flow_HW2.shape[:2], bool) if where_HW is None else where_HW
    y, x = np.nonzero(chosen)
    if len(x) < 16:
        return IDENTITY
    keep = np.linspace(0, len(x) - 1, min(len(x), CAMERA_POINTS)).astype(int)
    x, y = x[keep], y[keep]
    start = np.stack([x, y], axis=1).astype(np.float32)
    affine, _ = cv2.estimateAffine2D(start, start + flow_HW2[y, x], method=cv2.RANSAC, ransacReprojThreshold=0.5)
    return IDENTITY if affine is None else np.asarray(affine)


def affine_flow(affine: Affine, height: int, width: int) -> Flow:
    """The flow of every pixel under an affine map."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    target = np.stack([x, y, np.ones_like(x)], axis=-1) @ affine.T
    return (target - np.stack([x, y], axis=-1)).astype(np.float32)


def pull(picture_HWC: NDArray[Any], flow_HW2: Flow) -> NDArray[Any]:
    """The picture whose pixel p shows what `picture` shows at p + flow(p); bilinear, the border repeated."""
    import cv2

    height, width = flow_HW2.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(
        cv2.remap(picture_HWC, x + flow_HW2[..., 0], y + flow_HW2[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    )
