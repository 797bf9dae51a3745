"""A strip of small JPEG pictures, for scorers that look at a few frames and for the report, without a second decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs


@dataclass(frozen=True)
class ThumbnailParams:
    """`fps`: how often; `width_px` and `quality` of the JPEG files."""

    fps: float = 2.0
    width_px: int = 256
    quality: int = 85


class Thumbnails:
    """jpeg uint8 [bytes]: the files, one behind the other; start, end int64 [n]: where each lies in it."""

    name, version = "thumbnails", 2

    def __init__(self, params: ThumbnailParams | None = None) -> None:
        self.params = params or ThumbnailParams()
        self.needs = Needs(width_px=self.params.width_px, fps=self.params.fps, pixels="rgb")
        self._index: list[int] = []
        self._files: list[NDArray[np.uint8]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self.params.quality])
        self._index.append(index)
        self._files.append(data.ravel())

    def finish(self) -> dict[str, NDArray]:
        ends = np.cumsum([len(data) for data in self._files])
        starts = np.concatenate([[0], ends[:-1]])
        return {"index": np.array(self._index), "jpeg": np.concatenate(self._files), "start": starts, "end": ends}


def thumbnails(signal: Mapping[str, NDArray]) -> dict[int, NDArray[np.uint8]]:
    """frame number -> picture, uint8 RGB [h, w, 3], of a stored signal or a span's part of it."""
    import cv2

    rows = zip(signal["index"], signal["start"], signal["end"], strict=True)
    files = {int(index): signal["jpeg"][start:end] for index, start, end in rows}
    return {index: np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1] for index, data in files.items()}
