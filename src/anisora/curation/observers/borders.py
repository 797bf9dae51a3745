"""The raw material of border detection: for each edge, how far a plain margin reaches, and where the picture is soft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs

EDGES = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class BorderParams:
    """`plain_levels`: a row is plain when its grey values lie this close together (codecs spoil plain rows by a few)."""

    plain_levels: int = 14
    step: int = 12
    profile_columns: int = 96
    profile_rows: int = 54


class Borders:
    """top, bottom, left, right int16 [n]: rows and columns of one colour at each edge, in pixels of the upright picture;
    columns float16 [n, 96], rows float16 [n, 54]: mean step between neighbouring pixels, along x and y, of strips.
    """

    name, version = "borders", 2

    def __init__(self, params: BorderParams | None = None) -> None:
        self.params = params or BorderParams()
        self.needs = Needs(fps=2)
        self._rows: list[tuple[int, ...]] = []
        self._profiles: list[tuple[NDArray, NDArray]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        step = min(self.params.step, max(1, min(frame.shape) // 16))
        # Samples along the first axis, which numpy and OpenCV go through fastest; lines along the second.
        of_rows, of_columns = np.ascontiguousarray(frame[:, ::step].T), np.ascontiguousarray(frame[::step])
        self._rows.append((index, *self._margins(of_rows), *self._margins(of_columns)))
        across = _strips(cv2.absdiff(of_columns[:, 1:], of_columns[:, :-1]), self.params.profile_columns)
        down = _strips(cv2.absdiff(of_rows[:, 1:], of_rows[:, :-1]), self.params.profile_rows)
        self._profiles.append((across, down))

    def _margins(self, lines: NDArray[np.uint8]) -> tuple[int, int]:
        """How many lines at the start and at the end are plain and of one colour; all and 0 where the picture is."""
        low, high = lines.min(axis=0).astype(int), lines.max(axis=0).astype(int)
        return self._margin(low, high), self._margin(low[::-1], high[::-1])

    def _margin(self, low: NDArray, high: NDArray) -> int:
        spread = np.maximum.accumulate(high) - np.minimum.accumulate(low)
        return int(np.searchsorted(spread, self.params.plain_levels, side="right"))

    def finish(self) -> dict[str, NDArray]:
        rows = np.array(self._rows, np.int64).reshape(-1, 5)
        margins = {edge: rows[:, 1 + i].astype(np.int16) for i, edge in enumerate(EDGES)}
        columns, lines = (np.stack(profiles).astype(np.float16) for profiles in zip(*self._profiles, strict=True))
        return {"index": rows[:, 0], **margins, "columns": columns, "rows": lines}


def _strips(steps: Any, count: int) -> NDArray[np.float32]:
    """The means of `count` equal strips along the second axis."""
    import cv2

    means = cv2.reduce(steps, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
    return np.asarray(cv2.resize(means, (count, 1), interpolation=cv2.INTER_AREA))[0]
