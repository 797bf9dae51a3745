"""The raw material of border detection: for each edge, how far a plain margin reaches, and where the picture is soft."""

from __future__ import annotations

from dataclasses import dataclass

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

    name, version = "borders", 1

    def __init__(self, params: BorderParams | None = None) -> None:
        self.params = params or BorderParams()
        self.needs = Needs(fps=2)
        self._rows: list[tuple[int, ...]] = []
        self._profiles: list[tuple[NDArray, NDArray]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        step = min(self.params.step, max(1, min(frame.shape) // 16))
        by_row, by_column = np.ascontiguousarray(frame[:, ::step]), np.ascontiguousarray(frame[::step].T)
        self._rows.append((index, *self._margins(by_row), *self._margins(by_column)))
        across, down = cv2.absdiff(by_column[1:], by_column[:-1]), cv2.absdiff(by_row[1:], by_row[:-1])
        self._profiles.append(
            (
                _strips(np.asarray(across), self.params.profile_columns),
                _strips(np.asarray(down), self.params.profile_rows),
            )
        )

    def _margins(self, lines: NDArray[np.uint8]) -> tuple[int, int]:
        """How many lines at the start and at the end are plain and of one colour; all and 0 where the picture is."""
        low, high = lines.min(axis=1).astype(int), lines.max(axis=1).astype(int)
        return self._margin(low, high), self._margin(low[::-1], high[::-1])

    def _margin(self, low: NDArray, high: NDArray) -> int:
        spread = np.maximum.accumulate(high) - np.minimum.accumulate(low)
        return int(np.searchsorted(spread, self.params.plain_levels, side="right"))

    def finish(self) -> dict[str, NDArray]:
        rows = np.array(self._rows, np.int64).reshape(-1, 5)
        margins = {edge: rows[:, 1 + i].astype(np.int16) for i, edge in enumerate(EDGES)}
        columns, lines = (np.stack(profiles).astype(np.float16) for profiles in zip(*self._profiles, strict=True))
        return {"index": rows[:, 0], **margins, "columns": columns, "rows": lines}


def _strips(steps: NDArray, count: int) -> NDArray[np.float32]:
    """The means of `count` equal strips along the first axis."""
    import cv2

    means = steps.mean(axis=1, dtype=np.float32)[None]
    return np.asarray(cv2.resize(means, (count, 1), interpolation=cv2.INTER_AREA))[0]
