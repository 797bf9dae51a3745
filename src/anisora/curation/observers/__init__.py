"""What watches a video while it is decoded once: the contract of an observer.

An observer says how it wants its frames, gets them in the order in which they are shown, and hands back arrays. It
never opens a file; the scan decodes for all observers and resizes once for each distinct wish. An observer that raises
loses only its own column.

What the default scan stores (each with "index"; names and shapes are a contract with those who read signals):

    cut         every frame    see `curation.shots`
    held        every frame    see `measures.timing`
    borders     2/s            top, bottom, left, right: uniform margin of the frame, in pixels of the upright picture
    phash       every frame    hash, mirrored: uint64 [n], of the picture and of its mirror image
    flow        8/s            see `measures.flow_score`
    text_edges  2/s            cover float32 [n] in [0, 1]; grid uint8 [n, 18, 32]: text-like edges a cell, 255 = all of it
    sharpness   2/s            laplacian, blocking: float32 [n]
    thumbnails  2/s            jpeg uint8 [bytes], start and end int64 [n] in it: RGB pictures, see `observers.thumbnails`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Needs:
    """How an observer wants its frames.

    `width_px` is the width they are resized to, the height following the aspect; None for the size of the file.
    Pictures are never enlarged. `fps` is the least rate that will do; None for every frame. `pixels` is "luma" for
    uint8 [h, w], which costs next to nothing, or "rgb" for uint8 [h, w, 3].
    """

    width_px: int | None = None
    fps: float | None = None
    pixels: Literal["luma", "rgb"] = "luma"


class Observer(Protocol):
    """One look at a video. A fresh one is made for each video; `params` is a frozen dataclass, part of the result key.

    `version` is too: it goes up with every change of what is stored, or of the pictures shown, by more than rounding.
    Otherwise new values would be taken for old ones. `tests/curation/test_signals.py` sees to it.
    """

    name: str
    version: int
    params: Any
    needs: Needs

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        """One frame, by its number and time stamp. Its memory is used again: copy what is to be kept."""

    def finish(self) -> dict[str, NDArray]:
        """The arrays, first axis the frames seen; "index" (int64) is always among them."""
        ...
