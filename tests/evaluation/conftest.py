"""A small moving clip that all tests of evaluation share."""

from __future__ import annotations

import numpy as np
import pytest


def _texture(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with detail at all scales."""
    import cv2

    rng = np.random.default_rng(seed)
    octaves = [rng.normal(size=(height // size, width // size, 3)) * size for size in (2, 4, 8, 16)]
    picture = sum(cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) for octave in octaves)
    return np.clip(128 + 4 * picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def moving_THWC() -> np.ndarray:
    """12 frames of 128x96: a textured square slides evenly over a textured wall."""
    wall, square = _texture(96, 128, 0), _texture(32, 32, 5) // 2 + 100
    frames = np.repeat(wall[None], 12, axis=0)
    for t in range(12):
        frames[t, 32:64, 12 + 4 * t : 44 + 4 * t] = square
    return frames
