"""The best linear video code of a given rate: what a learned codec has to beat.

A causal block transform: each block of 4 frames x 8 x 8 pixels x RGB is coded by its projections on the K principal
components of such blocks (Karhunen-Loeve; no linear code of K numbers a block has a smaller mean squared error). The
first frame, which a causal codec keeps in a latent frame of its own, is repeated four times. With K latent channels and
strides 4 x 8 x 8 a video autoencoder has the same rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.measures.similarity import Frames


@dataclass(frozen=True, kw_only=True)
class LinearCode:
    """`mean` [D] and orthonormal `basis` [D, K] of blocks of D = temporal x spatial x spatial x 3 values."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    temporal: int = 4
    spatial: int = 8

    def reconstruct(self, frames_THWC: Frames) -> Frames:
        """The video after coding and decoding; T = 4n + 1, sides multiples of 8."""
        blocks = to_blocks(frames_THWC, self.temporal, self.spatial)
        coded = ((blocks - self.mean) @ self.basis) @ self.basis.T + self.mean
        return from_blocks(coded, frames_THWC.shape, self.temporal, self.spatial)


def fit(videos: Iterable[Frames], channels: int, temporal: int = 4, spatial: int = 8) -> LinearCode:
    """The principal components of all blocks of the videos, streamed: only one video is in memory at a time."""
    size = temporal * spatial * spatial * 3
    count, total, outer = 0, np.zeros(size), np.zeros((size, size))
    for frames_THWC in videos:
        blocks = to_blocks(frames_THWC, temporal, spatial)
        count += len(blocks)
        total += blocks.sum(axis=0, dtype=np.float64)
        outer += blocks.T @ blocks
    mean = total / count
    _, vectors = np.linalg.eigh(outer / count - np.outer(mean, mean))
    basis = vectors[:, ::-1][:, :channels]
    return LinearCode(mean=mean.astype(np.float32), basis=basis.astype(np.float32), temporal=temporal, spatial=spatial)


def to_blocks(frames_THWC: Frames, temporal: int = 4, spatial: int = 8) -> NDArray[np.float32]:
    """[N, D] blocks in [-1, 1], the first frame repeated `temporal` times."""
    led = np.concatenate([np.repeat(frames_THWC[:1], temporal, axis=0), frames_THWC[1:]])
    frames, height, width, channels = led.shape
    shape = (frames // temporal, temporal, height // spatial, spatial, width // spatial, spatial, channels)
    blocks = led.reshape(shape).transpose(0, 2, 4, 1, 3, 5, 6).astype(np.float32)
    return blocks.reshape(-1, temporal * spatial * spatial * channels) / 127.5 - 1


def from_blocks(blocks: NDArray[np.floating], shape: tuple[int, ...], temporal: int = 4, spatial: int = 8) -> Frames:
    """The inverse of `to_blocks`; the first frame is the mean of its repetitions."""
    frames, height, width, channels = shape
    grid = (1 + (frames - 1) // temporal, height // spatial, width // spatial, temporal, spatial, spatial, channels)
    led = blocks.reshape(grid).transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, height, width, channels)
    video = np.concatenate([led[:temporal].mean(axis=0, keepdims=True), led[temporal:]])
    return np.rint((video + 1) * 127.5).clip(0, 255).astype(np.uint8)
