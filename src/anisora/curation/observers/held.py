"""What changes from each frame to the next, once the camera's move is taken out: the raw material of timing and camera.

Anime holds its drawings for two or three frames while the camera may move on every one, so a plain difference of frames
sees a new picture where there is only a pan. Here every pair of frames is registered first. Line art is sparse: what
counts is the block that changes most, not the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs
from anisora.curation.observers.batch import CHUNK, block_means, differences

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

    name, version = "held", 2

    def __init__(self, params: HeldParams | None = None) -> None:
        import cv2

        self.params = params or HeldParams()
        self.needs = Needs(width_px=self.params.width_px)
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # type: ignore[attr-defined]
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(6)  # 4 is the preset; the camera fits as well and costs half
        self._index: list[int] = []
        self._frames: list[NDArray[np.uint8]] = []
        self._rows: list[NDArray[np.float64]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        if self._frames and self._frames[-1].shape != frame.shape:
            self._compare()
            self._frames.clear()
        if not self._frames:
            self._rows.append(np.array([[0.0, 0.0, 0.0, *NO_CAMERA]]))
        self._index.append(index)
        self._frames.append(frame.copy())
        if len(self._frames) > CHUNK:
            self._compare()

    def _compare(self) -> None:
        """The rows of the frames that wait; the last one stays, to be compared with the next."""
        if len(self._frames) > 1:
            self._rows.append(self._compared(np.stack(self._frames)))
            del self._frames[:-1]

    def _compared(self, frames_THW: NDArray[np.uint8]) -> NDArray[np.float64]:
        """difference, residual, mean, the camera and how well it fits, of each pair of neighbours: [T - 1, 8]."""
        before, after = frames_THW[:-1], frames_THW[1:]
        blocks = self._blocks(differences(before, after), self.params.block_px)
        rows = np.tile(np.array([0.0, 0.0, 0.0, *NO_CAMERA]), (len(blocks), 1))
        rows[:, 0] = rows[:, 1] = _most(blocks)
        rows[:, 2] = blocks.mean(axis=(1, 2))
        at = np.flatnonzero(rows[:, 0] >= self.params.still_levels)
        if not len(at) or min(frames_THW.shape[1:]) < LEAST_PX:
            return rows
        halves = {t: _half(frames_THW[t]) for t in sorted({*at.tolist(), *(at + 1).tolist()})}
        texture = self._texture(np.stack([halves[t + 1] for t in at.tolist()]))
        # Most drawings move before a camera that does not, which needs no flow to see.
        textured = texture > 1
        still = ((blocks[at] < 0.05 * texture + 0.3) & textured).sum(axis=(1, 2)) > 0.5 * textured.sum(axis=(1, 2))
        at, texture, textured = at[~still], texture[~still], textured[~still]
        if not len(at):
            return rows
        flow = np.stack([self._dis.calc(halves[t], halves[t + 1], None) for t in at.tolist()])
        flow = np.stack([2 * block_means(flow[..., axis], *texture.shape[1:]) for axis in (0, 1)], axis=-1)
        camera, error = fit_similarities(flow, texture, *frames_THW.shape[:0:-1])
        moved = np.stack([_moved(before[t], after[t], *row) for t, row in zip(at.tolist(), camera, strict=True)])
        residual = _most(self._blocks(differences(moved, after[at]), self.params.block_px))
        rows[at, 1] = np.minimum(residual, rows[at, 0])
        rows[at, 3:7] = camera / (1, 1, frames_THW.shape[2], frames_THW.shape[2])
        count = textured.sum(axis=(1, 2))
        rows[at, 7] = np.where(count, ((error < 0.5) & textured).sum(axis=(1, 2)) / np.maximum(count, 1), 1.0)
        return rows

    def _texture(self, half_THW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The mean step between neighbouring pixels of the blocks of pictures of half the size."""
        right, left, lower, upper = half_THW[:, 1:, 1:], half_THW[:, 1:, :-1], half_THW[:, 1:, 1:], half_THW[:, :-1, 1:]
        across, down = (np.maximum(a, b) - np.minimum(a, b) for a, b in ((right, left), (lower, upper)))
        return self._blocks((across.astype(np.uint16) + down) / np.float32(2), self.params.block_px // 2)

    def _blocks(self, picture_THW: NDArray, side_px: int) -> NDArray[np.float32]:
        """The means of blocks of about `side_px`, in whole grey levels."""
        _, height, width = picture_THW.shape
        return np.rint(block_means(picture_THW, max(2, (height + 1) // side_px), max(2, (width + 1) // side_px)))

    def finish(self) -> dict[str, NDArray]:
        self._compare()
        rows = np.concatenate(self._rows)
        names = {"difference": 0, "residual": 1, "mean": 2, "fit": 7}
        arrays = {name: rows[:, column].astype(np.float32) for name, column in names.items()}
        return {"index": np.array(self._index, np.int64), **arrays, "camera": rows[:, 3:7].astype(np.float32)}


def _most(blocks_TRC: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the three largest of each frame."""
    flat = blocks_TRC.reshape(len(blocks_TRC), -1)
    return np.partition(flat, -3, axis=1)[:, -3:].mean(axis=1)


def _half(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width = picture.shape
    return np.asarray(
        cv2.resize(picture, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA), np.uint8
    )


def _moved(a: NDArray, b: NDArray, zoom: float, turn: float, x: float, y: float) -> NDArray[np.uint8]:
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


def fit_similarities(
    flow_KHW2: NDArray, weight_KHW: NDArray, width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(zoom, turn, x, y) about the middle that most of each flow follows [K, 4], and how far off each block is, in
    pixels [K, H, W].

    Least squares from the weighted median, with weights that are taken anew each time (Geman-McClure), ever stricter.
    """
    design = _design(weight_KHW.shape[1:], width, height)  # type: ignore[arg-type]
    frames, blocks = len(flow_KHW2), weight_KHW[0].size
    target = flow_KHW2.reshape(frames, blocks, 2).astype(np.float64).swapaxes(1, 2)
    base = np.minimum(weight_KHW.reshape(frames, blocks), 12.0).astype(np.float64) + 1e-3
    camera = np.zeros((frames, 4))
    camera[:, 2], camera[:, 3] = (_weighted_medians(target[:, axis], base) for axis in (0, 1))
    for scale in (2.0, 1.0, 0.5, 0.25):
        error = target - (camera @ design.T).reshape(frames, 2, blocks)
        weight = base / (1 + (error**2).sum(axis=1) / scale**2) ** 2
        weighted = design.T * np.concatenate([weight, weight], axis=1)[:, None]
        camera = np.linalg.solve(weighted @ design + RIDGE, weighted @ target.reshape(frames, -1, 1))[..., 0]
    error = target - (camera @ design.T).reshape(frames, 2, blocks)
    return camera, np.hypot(error[:, 0], error[:, 1]).reshape(weight_KHW.shape)


def _weighted_medians(values_KN: NDArray, weights_KN: NDArray) -> NDArray[np.float64]:
    order = np.argsort(values_KN, axis=1)
    total = np.take_along_axis(weights_KN, order, 1).cumsum(axis=1)
    middle = np.argmax(total >= total[:, -1:] / 2, axis=1)[:, None]
    return np.take_along_axis(values_KN, np.take_along_axis(order, middle, 1), 1)[:, 0]
