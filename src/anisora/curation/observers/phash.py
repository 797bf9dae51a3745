"""Perceptual hashes of every frame, so that any shot's first, middle and last have theirs, and of the mirror image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs


@dataclass(frozen=True)
class PhashParams:
    """`side`: the picture is shrunk to side x side, of whose cosine transform 8 x 8 signs are kept."""

    side: int = 32


class Phash:
    """hash, mirrored uint64 [T]: the DCT hash of the frame and of its mirror image (Zauner 2010, section 3.2.1).

    A bit says whether one of the 8 x 8 lowest frequencies lies above their median. Mirroring a picture turns the sign
    of the odd horizontal frequencies, so its hash comes for free. Equal frames have equal hashes.
    """

    name, version = "phash", 1

    def __init__(self, params: PhashParams | None = None) -> None:
        self.params = params or PhashParams()
        self.needs = Needs(width_px=160)
        self._index: list[int] = []
        self._low: list[NDArray[np.float32]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        side = self.params.side
        small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
        basis = _cosines(side)
        self._index.append(index)
        self._low.append((basis @ np.asarray(small, np.float32) @ basis.T).ravel())

    def finish(self) -> dict[str, NDArray]:
        low = np.stack(self._low)
        mirror = np.tile(np.where(np.arange(8) % 2, -1, 1), 8).astype(np.float32)
        return {"index": np.array(self._index, np.int64), "hash": hash_bits(low), "mirrored": hash_bits(low * mirror)}


@cache
def _cosines(side: int) -> NDArray[np.float32]:
    """The eight lowest cosines of the DCT-II, [8, side]: all that a hash needs of it."""
    k, n = np.mgrid[:8, :side]
    return (np.cos(np.pi * k * (n + 0.5) / side) * np.where(k, np.sqrt(2), 1) / np.sqrt(side)).astype(np.float32)


def hash_bits(low: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The signs of 64 coefficients against their median, the constant one left out, as one number a row."""
    median = np.partition(low[:, 1:], 31, axis=1)[:, 31:32]
    bits = low > median
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
