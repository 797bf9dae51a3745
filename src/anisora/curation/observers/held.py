"""What changes from each frame to the next, once the camera's move is taken out: the raw material of timing and camera.

Anime holds its drawings for two or three frames while the camera may move on every one, so a plain difference of frames
sees a new picture where there is only a pan. Here every pair of frames is registered first. Line art is sparse: what
counts is the block that changes most, not the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs

#: zoom, turn, x, y and the fit of a camera that does not move
NO_CAMERA = (0.0, 0.0, 0.0, 0.0, 1.0)

#: Smaller pictures are compared as they are: DIS finds no patches in them.
LEAST_PX = 40

#: Keeps a picture without texture from having a camera.
RIDGE = np.diag([1e-2, 1e-2, 1e-6, 1e-6])


@dataclass(frozen=True)
class HeldParams:
    """`block_px`: side of the blocks whose mean is looked at. `still_levels`: below it in all blocks, nothing moved."""

    width_px: int = 160
    block_px: int = 8
    still_levels: float = 0.75


class Held:
    """Per frame, against the frame before (the first row is zeros and the identity):

    difference, residual float32 [T]: the mean of the three most different blocks, in grey levels, before and after the
    camera's move is taken out; mean float32 [T]: the mean of all differences; camera float32 [T, 4]: scale - 1, turn
    (radians), shift in x and y in widths of the picture, about its middle; fit float32 [T]: share of the textured
    blocks that follow the camera.
    """

    name, version = "held", 1

    def __init__(self, params: HeldParams | None = None) -> None:
        import cv2

        self.params = params or HeldParams()
        self.needs = Needs(width_px=self.params.width_px)
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # type: ignore[attr-defined]
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(6)  # 4 is the preset; the camera fits as well and costs half
        self._previous: NDArray[np.uint8] | None = None
        self._rows: list[tuple[Any, ...]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        previous, self._previous = self._previous, frame.copy()
        if previous is None or previous.shape != frame.shape:
            self._rows.append((index, 0.0, 0.0, 0.0, *NO_CAMERA))
        else:
            self._rows.append((index, *self._compared(previous, self._previous)))

    def _compared(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float, ...]:
        """difference, residual, mean, the camera and how well it fits."""
        blocks = self._differences(a, b)
        difference, mean = _most(blocks), float(blocks.mean())
        if difference < self.params.still_levels or min(a.shape) < LEAST_PX:
            return difference, difference, mean, *NO_CAMERA
        halves = [_half(picture) for picture in (a, b)]
        texture = self._texture(halves[1])
        # Most drawings move before a camera that does not, which needs no flow to see.
        if (textured := texture > 1).any() and (blocks < 0.05 * texture + 0.3)[textured].mean() > 0.5:
            return difference, difference, mean, *NO_CAMERA
        flow = 2 * _resized(self._dis.calc(*halves, None), texture.shape[::-1])
        (zoom, turn, x, y), error = fit_similarity(flow, texture, *a.shape[::-1])
        residual = _most(self._differences(_moved(a, b, zoom, turn, x, y), b))
        fit = float((error[textured] < 0.5).mean()) if textured.any() else 1.0
        return difference, min(residual, difference), mean, zoom, turn, x / a.shape[1], y / a.shape[1], fit

    def _differences(self, a: NDArray, b: NDArray) -> NDArray[np.float32]:
        """How much the blocks of two pictures differ."""
        import cv2

        return self._blocks(np.asarray(cv2.absdiff(a, b)), self.params.block_px)

    def _texture(self, half: NDArray) -> NDArray[np.float32]:
        """The mean step between neighbouring pixels of the blocks of a picture of half the size."""
        import cv2

        across, down = cv2.absdiff(half[:, 1:], half[:, :-1]), cv2.absdiff(half[1:], half[:-1])
        return self._blocks(
            np.asarray(cv2.addWeighted(across[1:], 0.5, down[:, 1:], 0.5, 0)), self.params.block_px // 2
        )

    def _blocks(self, picture: NDArray, side_px: int) -> NDArray[np.float32]:
        height, width = picture.shape
        return _resized(picture, (max(2, (width + 1) // side_px), max(2, (height + 1) // side_px))).astype(np.float32)

    def finish(self) -> dict[str, NDArray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 9)
        names = {"difference": 1, "residual": 2, "mean": 3, "fit": 8}
        arrays = {name: rows[:, column].astype(np.float32) for name, column in names.items()}
        return {"index": rows[:, 0].astype(np.int64), **arrays, "camera": rows[:, 4:8].astype(np.float32)}


def _most(blocks: NDArray[np.float32]) -> float:
    """The mean of the three largest."""
    return float(np.partition(blocks.ravel(), -3)[-3:].mean())


def _resized(picture: Any, size: tuple[int, ...]) -> NDArray:
    import cv2

    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _half(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape
    return _resized(picture, ((width + 1) // 2, (height + 1) // 2))


def _moved(a: NDArray, b: NDArray, zoom: float, turn: float, x: float, y: float) -> NDArray:
    """Picture `a` moved by the camera onto `b`, whose pixels show where `a` has none."""
    import cv2

    height, width = a.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.array([[1 + zoom, -turn, x], [turn, 1 + zoom, y]])
    matrix[:, 2] += middle - matrix[:, :2] @ middle
    return np.asarray(cv2.warpAffine(a, matrix, (width, height), b.copy(), cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT))


@cache
def _design(shape: tuple[int, int], width: int, height: int) -> NDArray[np.float64]:
    """How (zoom, turn, x, y) move the middles of blocks: [2 x blocks, 4], first across, then down."""
    rows, columns = shape
    y, x = ((np.mgrid[:rows, :columns] + 0.5) / np.array([rows, columns])[:, None, None] - 0.5).reshape(2, -1)
    x, y, one, zero = x * width, y * height, np.ones(x.size), np.zeros(x.size)
    return np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])


def fit_similarity(
    flow_HW2: NDArray, weight_HW: NDArray, width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(zoom, turn, x, y) about the middle that most of the flow follows, and how far off each block is, in pixels.

    Least squares from the weighted median, with weights that are taken anew each time (Geman-McClure), ever stricter.
    """
    design = _design(weight_HW.shape, width, height)  # type: ignore[arg-type]
    count = weight_HW.size
    target = flow_HW2.reshape(count, 2).T.reshape(-1).astype(np.float64)
    base = np.minimum(weight_HW.ravel(), 12.0) + 1e-3
    camera = np.array([0, 0, _weighted_median(target[:count], base), _weighted_median(target[count:], base)])
    for scale in (2.0, 1.0, 0.5, 0.25):
        error = target - design @ camera
        weight = base / (1 + (error[:count] ** 2 + error[count:] ** 2) / scale**2) ** 2
        weighted = design.T * np.concatenate([weight, weight])
        camera = np.linalg.solve(weighted @ design + RIDGE, weighted @ target)
    error = target - design @ camera
    return camera, np.hypot(error[:count], error[count:]).reshape(weight_HW.shape)


def _weighted_median(values: NDArray, weights: NDArray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
