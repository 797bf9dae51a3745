"""Optical flow between distinct drawings, sampled a few times a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs

#: DIS compares patches of 8 pixels: smaller pictures have no flow.
LEAST_PX = 20


@dataclass(frozen=True)
class FlowParams:
    """`fps`: how often; `still_levels`: a picture in which no block differs by more is the same drawing, held.

    80 px wide, DIS looks as closely as its fastest preset does at 320 px, which computes at a quarter of the size.
    """

    fps: float = 8.0
    width_px: int = 80
    still_levels: float = 1.5


class Flow:
    """DIS (Kroeger et al. 2016) from the last distinct drawing to each new one:

    since int64 [n]: the frame it is measured from (the row's own frame for a held drawing and for the first);
    mean, top float32 [n]: length of the flow over the picture, its mean and that of its fastest twentieth, in widths of
    the picture; 0 for a held drawing. seconds float32 [n]: the time between the two.
    """

    name, version = "flow", 3

    def __init__(self, params: FlowParams | None = None) -> None:
        import cv2

        self.params = params or FlowParams()
        self.needs = Needs(width_px=self.params.width_px, fps=self.params.fps)
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # type: ignore[attr-defined]
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(6)  # 4 is the preset: as near to DIS at 320 px, and costs half as much again
        self._last: tuple[int, NDArray[np.uint8]] | None = None
        self._rows: list[tuple[float, ...]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        frame = frame.copy()  # in one piece, as OpenCV wants it, and ours to keep
        if self._last is None or self._last[1].shape != frame.shape or min(frame.shape) < LEAST_PX:
            self._last = index, frame
            self._rows.append((index, index, 0.0, 0.0))
            return
        since, before = self._last
        size = frame.shape[1] // 4, frame.shape[0] // 4
        blocks = cv2.resize(
            cv2.absdiff(before, frame), (max(1, size[0]), max(1, size[1])), interpolation=cv2.INTER_AREA
        )
        if blocks.max() <= self.params.still_levels:
            self._rows.append((index, index, 0.0, 0.0))
            return
        flow = self._dis.calc(before, frame, None)
        length = lengths(flow).ravel() / frame.shape[1]
        fastest = max(1, length.size // 20)
        self._rows.append((index, since, float(length.mean()), float(np.partition(length, -fastest)[-fastest:].mean())))
        self._last = index, frame

    def finish(self) -> dict[str, NDArray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 4)
        whole = {"index": rows[:, 0].astype(np.int64), "since": rows[:, 1].astype(np.int64)}
        return whole | {"mean": rows[:, 2].astype(np.float32), "top": rows[:, 3].astype(np.float32)}


def lengths(flow_HW2: NDArray[np.float32]) -> NDArray[np.float32]:
    """How long each vector is, to the bit the same whenever it is asked.

    cv2.magnitude is not: its vector code multiplies and adds in one rounding, the code for what is left at either end
    in two, and where the ends are depends on where in memory the array happens to lie.
    """
    across, down = flow_HW2[..., 0], flow_HW2[..., 1]
    return np.sqrt(across * across + down * down)
