"""Perceptual hashes of every frame, so that any shot's first, middle and last have theirs, and of the mirror image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs
from anisora.curation.observers.batch import CHUNK, along_both, area_weights

#: Width of the pictures that are hashed.
PICTURE_PX = 80


@dataclass(frozen=True)
class PhashParams:
    """`side`: the picture is shrunk to side x side, of whose cosine transform 8 x 8 signs are kept."""

    side: int = 32


class Phash:
    """hash, mirrored uint64 [T]: the DCT hash of the frame and of its mirror image (Zauner 2010, section 3.2.1).

    A bit says whether one of the 8 x 8 lowest frequencies lies above their median. Mirroring a picture turns the sign
    of the odd horizontal frequencies, so its hash comes for free. Equal frames have equal hashes.
    """

    name, version = "phash", 2

    def __init__(self, params: PhashParams | None = None) -> None:
        self.params = params or PhashParams()
        self.needs = Needs(width_px=PICTURE_PX)
        self._index: list[int] = []
        self._frames: list[NDArray[np.uint8]] = []
        self._low: list[NDArray[np.float32]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        if self._frames and (len(self._frames) == CHUNK or self._frames[0].shape != frame.shape):
            self._transform()
        self._index.append(index)
        self._frames.append(frame.copy())

    def _transform(self) -> None:
        """The lowest frequencies of the frames that wait: those of their means in side x side blocks."""
        frames_THW = np.stack(self._frames)
        down, across = (_cosines(self.params.side) @ area_weights(n, self.params.side) for n in frames_THW.shape[1:])
        self._low.append(along_both(frames_THW, down, across).reshape(len(frames_THW), -1))
        self._frames.clear()

    def finish(self) -> dict[str, NDArray]:
        self._transform()
        low = np.concatenate(self._low)
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
