"""How sharp the picture is and how much of its codec's blocks it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs

#: Larger steps are edges of the drawing and say nothing of the codec.
EDGE_LEVELS = 12


@dataclass(frozen=True)
class SharpnessParams:
    """`block_px`: side of the blocks of the codec."""

    block_px: int = 8


class Sharpness:
    """laplacian float32 [n]: the 99.5th percentile of the Laplacian over that of the grey values' spread, so that the few
    lines of a flat drawing count and its contrast does not; blocking float32 [n]: mean step across the codec's block
    edges over the mean step inside blocks, 1 for none; detail float32 [n]: mean of its positive half.
    """

    name, version = "sharpness", 2

    def __init__(self, params: SharpnessParams | None = None) -> None:
        self.params = params or SharpnessParams()
        self.needs = Needs(fps=2)
        self._rows: list[tuple[float, ...]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        height = frame.shape[0]
        # The middle third is enough of a picture, and a third of the work.
        middle = np.ascontiguousarray(frame[height // 3 : height - height // 3])
        edges = cv2.Laplacian(middle, cv2.CV_8U)  # the half of it that is above 0
        counts = np.asarray(cv2.calcHist([edges[::3]], [0], None, [256], [0, 256]), np.float64).ravel()
        strongest = float(np.searchsorted(np.cumsum(counts), 0.995 * counts.sum()))
        spread = float(cv2.meanStdDev(middle)[1][0, 0])
        self._rows.append(
            (index, strongest / max(spread, 4.0), self._blocking(middle), float(counts @ np.arange(256)) / counts.sum())
        )

    def _blocking(self, picture: NDArray[np.uint8]) -> float:
        """After Wang, Bovik and Evans (2000): the step at every block_px-th column against all others."""
        import cv2

        steps = cv2.absdiff(picture[:, 1:], picture[:, :-1])
        steps = cv2.threshold(steps, EDGE_LEVELS, 255, cv2.THRESH_TRUNC)[1]
        columns = np.asarray(cv2.reduce(steps, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F))[0]
        side = self.params.block_px
        if len(columns) < side:
            return 1.0
        at = np.arange(len(columns)) % side == side - 1
        inside = float(columns[~at].mean())
        return float(columns[at].mean()) / inside if inside > 0.02 else 1.0

    def finish(self) -> dict[str, NDArray]:
        rows = np.array(self._rows, np.float64).reshape(-1, 4)
        names = ("laplacian", "blocking", "detail")
        return {"index": rows[:, 0].astype(np.int64)} | {
            n: rows[:, 1 + i].astype(np.float32) for i, n in enumerate(names)
        }
