"""A small moving clip that all tests of evaluation share, and the functions of VBench's own package."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .packages import Package, defined_in, fetched

VBENCH = Package(
    requirement="vbench==0.1.5",
    file="vbench-0.1.5-py3-none-any.whl",
    sha256="13266ed4715d91a7669ab58484b9e010bc91bb96e129d414fb512d4937890023",
)


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


@pytest.fixture(scope="session")
def vbench() -> Callable[..., dict[str, Any]]:
    """`vbench(member, **names)`: the functions and classes of one of its files, run with `names` for what it imports.

    The file's imports are left out (they want another numpy, transformers of 2023 and detectors), its code is run as it
    stands; the networks and decoders it would call are handed in by the test, as functions that return stored arrays.
    """
    archive = zipfile.ZipFile(fetched(VBENCH, "--only-binary=:all:"))
    return lambda member, **names: defined_in(archive.read(member), member, names)
