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

MIDDLE = np.array([0.5, 0.5])

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
    blocks that follow the camera; own float32 [T]: how far the fastest blocks go beyond the camera, in widths.
    """

    name, version = "held", 1

    def __init__(self, params: HeldParams | None = None) -> None:
        import cv2

        self.params = params or HeldParams()
        self.needs = Needs(width_px=self.params.width_px)
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # type: ignore[attr-defined]
        self._dis.setFinestScale(0)
        self._previous: NDArray[np.uint8] | None = None
        self._rows: list[tuple[Any, ...]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        previous, self._previous = self._previous, frame.copy()
        if previous is None or previous.shape != frame.shape:
            self._rows.append((index, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))
            return
        difference, mean = self._most(previous, self._previous)
        if difference < self.params.still_levels or min(frame.shape) < LEAST_PX:
            self._rows.append((index, difference, difference, mean, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))
            return
        self._rows.append((index, difference, *self._registered(previous, self._previous, difference, mean)))

    def _most(self, a: NDArray, b: NDArray) -> tuple[float, float]:
        """The mean of the three most different blocks, and the mean of all."""
        import cv2

        blocks = self._blocks(np.asarray(cv2.absdiff(a, b)))
        return float(np.partition(blocks.ravel(), -3)[-3:].mean()), float(blocks.mean())

    def _blocks(self, picture: NDArray, shrunk: int = 1) -> NDArray[np.float32]:
        """The means of blocks of a picture, or of one `shrunk` by a factor."""
        import cv2

        side = self.params.block_px // shrunk
        size = max(2, picture.shape[1] // side), max(2, picture.shape[0] // side)
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)

    def _registered(self, a: NDArray, b: NDArray, difference: float, mean: float) -> tuple[float, ...]:
        import cv2

        height, width = a.shape
        half = (width + 1) // 2, (height + 1) // 2
        halves = [cv2.resize(picture, half, interpolation=cv2.INTER_AREA) for picture in (a, b)]
        flow = self._dis.calc(*halves, None)
        across, down = cv2.absdiff(halves[1][:, 1:], halves[1][:, :-1]), cv2.absdiff(halves[1][1:], halves[1][:-1])
        texture = self._blocks(np.asarray(cv2.addWeighted(across[1:], 0.5, down[:, 1:], 0.5, 0)), 2)
        block_flow = 2 * cv2.resize(flow, texture.shape[::-1], interpolation=cv2.INTER_AREA)
        (zoom, turn, x, y), error = fit_similarity(block_flow, texture, width, height)
        matrix = np.array([[1 + zoom, -turn, x], [turn, 1 + zoom, y]])
        matrix[:, 2] += MIDDLE * (width - 1, height - 1) - matrix[:, :2] @ (MIDDLE * (width - 1, height - 1))
        moved = cv2.warpAffine(a, matrix, (width, height), b.copy(), cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
        residual, _ = self._most(moved, b)
        apart = error[texture > 1]
        fit = float((apart < 0.5).mean()) if apart.size else 1.0
        own = float(np.partition(apart, -3)[-3:].mean()) if apart.size >= 3 else 0.0
        return min(residual, difference), mean, zoom, turn, x / width, y / width, fit, own / width

    def finish(self) -> dict[str, NDArray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 10)
        names = {"difference": 1, "residual": 2, "mean": 3, "fit": 8, "own": 9}
        arrays = {name: rows[:, column].astype(np.float32) for name, column in names.items()}
        return {"index": rows[:, 0].astype(np.int64), **arrays, "camera": rows[:, 4:8].astype(np.float32)}


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
    for scale in (2.0, 1.0, 0.5, 0.25, 0.25):
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
