"""A cheap guess at where writing may be: places dense with strong strokes that go up and down again within a few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs

#: rows and columns of the stored grid
GRID_HW = (18, 32)


@dataclass(frozen=True)
class TextEdgeParams:
    """`stroke_levels`: contrast of a stroke to both its sides; `dense`: share of a cell's pixels that are strokes."""

    width_px: int = 640
    stroke_levels: int = 48
    dense: float = 0.12


class TextEdges:
    """grid uint8 [n, 18, 32]: share of stroke pixels a cell, 255 = all; cover float32 [n]: share of cells full of them.

    A stroke pixel differs from the mean of its surroundings (9 x 9) by much, and such pixels of both signs lie close
    together (outline and fill, or letter and ground); the edge of a drawn figure alone is a single line.
    """

    name, version = "text_edges", 2

    def __init__(self, params: TextEdgeParams | None = None) -> None:
        self.params = params or TextEdgeParams()
        self.needs = Needs(width_px=self.params.width_px, fps=2)
        self._index: list[int] = []
        self._grids: list[NDArray[np.uint8]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        around = cv2.blur(frame, (9, 9))
        lighter = _above(cv2.subtract(frame, around), self.params.stroke_levels)
        darker = _above(cv2.subtract(around, frame), self.params.stroke_levels)
        both = cv2.min(cv2.blur(lighter, (15, 9)), cv2.blur(darker, (15, 9)))
        strokes = cv2.bitwise_and(cv2.bitwise_or(lighter, darker), _above(both, 10))
        self._index.append(index)
        self._grids.append(np.asarray(cv2.resize(strokes, GRID_HW[::-1], interpolation=cv2.INTER_AREA)))

    def finish(self) -> dict[str, NDArray]:
        grid = np.stack(self._grids)
        cover = (grid > 255 * self.params.dense).mean(axis=(1, 2))
        return {"index": np.array(self._index, np.int64), "grid": grid, "cover": cover.astype(np.float32)}


def _above(picture: Any, level: int) -> NDArray[np.uint8]:
    """255 where a picture lies above a level."""
    import cv2

    return np.asarray(cv2.threshold(picture, level, 255, cv2.THRESH_BINARY)[1], np.uint8)
