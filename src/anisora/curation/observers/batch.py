"""Work on many frames at once: what a call costs is paid once for all of them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

#: Frames worked on at once: few enough to stay in the processor's cache.
CHUNK = 64


@cache
def area_weights(length: int, count: int) -> NDArray[np.float32]:
    """[count, length]: the means of `count` equal parts of a line of pixels, shared pixels by their share."""
    import cv2

    eye = np.eye(length, dtype=np.float32)
    return np.asarray(cv2.resize(eye, (length, count), interpolation=cv2.INTER_AREA), np.float32)


def along_both(frames_THW: NDArray, down: NDArray[np.float32], across: NDArray[np.float32]) -> NDArray[np.float32]:
    """`down` @ frame @ `across`.T for each frame: float32 [T, m, n] for weights [m, H] and [n, W]."""
    count, height, width = frames_THW.shape
    rows = frames_THW.reshape(-1, width).astype(np.float32) @ across.T
    return down @ rows.reshape(count, height, len(across))


def block_means(frames_THW: NDArray, rows: int, columns: int) -> NDArray[np.float32]:
    """The means of `rows` x `columns` equal blocks of each frame: float32 [T, rows, columns]."""
    _, height, width = frames_THW.shape
    return along_both(frames_THW, area_weights(height, rows), area_weights(width, columns))


def differences(a_THW: NDArray[np.uint8], b_THW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """|a - b| of each pair of frames, in the shape of a."""
    import cv2

    flat = (len(a_THW), -1)
    return np.asarray(cv2.absdiff(a_THW.reshape(flat), b_THW.reshape(flat)), np.uint8).reshape(a_THW.shape)
