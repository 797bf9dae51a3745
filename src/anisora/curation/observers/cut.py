"""What shots are found by: how far each frame is from those before it, at several distances in time.

Frames are kept 48 x 27 in colour while the video is read, as TransNetV2 wants them; what is stored are differences
between them, and the small frames themselves only around places where there may be a transition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs
from anisora.curation.observers.batch import CHUNK, differences

#: Frames as TransNetV2 takes them (Soucek and Lokoc 2020): height and width.
TINY_HW = (27, 48)

#: Distances in frames at which frames are compared, and at which one is compared with the blend of two.
LAGS, BLEND_LAGS = (1, 8, 16, 32), (4, 8, 16)


@dataclass(frozen=True)
class CutParams:
    """`keep`: which small frames are stored: those within `margin` of places where there may be a transition (steps of
    `step_levels` that stand out, blends of frames `apart_levels` apart, one colour), all of them, or none."""

    keep: str = "near"
    margin: int = 45
    step_levels: float = 7.0
    apart_levels: float = 14.0
    blend: float = 0.75
    contrast: float = 4.0


class Cut:
    """Per frame t:

    difference float16 [T, 4]: mean absolute difference in colour to frame t - lag, for `LAGS`, 0 before the start;
    blend float16 [T, 3]: mean |2 x_t - x_(t-lag) - x_(t+lag)|, small for a dissolve and large for motion, for `BLEND_LAGS`;
    histogram float16 [T]: share of pixels that change their colour class (512 of them), which motion hardly changes;
    level, contrast float16 [T]: mean and standard deviation of the grey values.
    tiny uint8 [n, 27, 48, 3] are the frames `tiny_index` [n].
    """

    name, version = "cut", 3

    def __init__(self, params: CutParams | None = None) -> None:
        self.params = params or CutParams()
        self.needs = Needs(width_px=TINY_HW[1], pixels="rgb")
        self._index: list[int] = []
        self._tiny: list[NDArray[np.uint8]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        self._index.append(index)
        same = frame.shape[:2] == TINY_HW
        tiny = frame.copy() if same else cv2.resize(frame, TINY_HW[::-1], interpolation=cv2.INTER_AREA)
        self._tiny.append(np.asarray(tiny))

    def finish(self) -> dict[str, NDArray]:
        tiny = np.stack(self._tiny)
        self._tiny.clear()
        arrays: dict[str, NDArray] = {
            "index": np.array(self._index, np.int64),
            "difference": np.stack([_lagged(tiny, lag) for lag in LAGS], axis=1).astype(np.float16),
            "blend": np.stack([_blend(tiny, lag) for lag in BLEND_LAGS], axis=1).astype(np.float16),
            "histogram": _histogram_steps(tiny).astype(np.float16),
        }
        level, contrast = _level_and_contrast(tiny)
        arrays |= {"level": level.astype(np.float16), "contrast": contrast.astype(np.float16)}
        kept = self._kept(arrays)
        return arrays | {"tiny": tiny[kept], "tiny_index": arrays["index"][kept]}

    def _kept(self, arrays: dict[str, NDArray]) -> NDArray[np.int64]:
        """The positions of the frames to store."""
        count = len(arrays["index"])
        if self.params.keep != "near":
            return np.arange(count if self.params.keep == "all" else 0)
        wanted = arrays["contrast"] < self.params.contrast
        step = arrays["difference"][:, 0].astype(np.float32)
        # Two cuts a few frames apart hide one another from who asks for the largest step.
        wanted |= (step >= self.params.step_levels) & (step > 1.2 * beside(step, but=1))
        for column, lag in enumerate(BLEND_LAGS):
            apart = apart_around(arrays["difference"], lag)
            wanted |= (apart >= self.params.apart_levels) & (arrays["blend"][:, column] < self.params.blend * apart)
        near = np.zeros(count + 1, np.int64)
        at = np.flatnonzero(wanted)
        np.add.at(near, np.maximum(at - self.params.margin, 0), 1)
        np.add.at(near, np.minimum(at + self.params.margin + 1, count), -1)
        return np.flatnonzero(np.cumsum(near[:-1]) > 0)


def beside(step: NDArray[np.float32], reach: int = 4, *, but: int = 0) -> NDArray[np.float32]:
    """The largest step within `reach` frames before or after each, itself left out; `but` so many larger ones."""
    padded = np.pad(step, reach)
    shifted = [padded[reach + k : reach + k + len(step)] for k in range(-reach, reach + 1) if k]
    return np.sort(shifted, axis=0)[-1 - but]


def apart_around(difference: NDArray, lag: int) -> NDArray[np.float32]:
    """The difference between the frames `lag` before and after each, 0 where there are none."""
    apart = np.zeros(len(difference), np.float32)
    if len(apart) > 2 * lag:
        apart[lag:-lag] = difference[2 * lag :, LAGS.index(2 * lag)]
    return apart


def _lagged(tiny: NDArray[np.uint8], lag: int) -> NDArray[np.float32]:
    """Mean absolute difference of each frame to the one `lag` before."""
    out = np.zeros(len(tiny), np.float32)
    for start in range(lag, len(tiny), CHUNK):
        now = tiny[start : start + CHUNK]
        out[start : start + len(now)] = _means(differences(now, tiny[start - lag : start - lag + len(now)]))
    return out


def _means(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean of each frame."""
    import cv2

    flat = rows.reshape(len(rows), -1)
    sums = np.asarray(cv2.reduce(flat, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S))[:, 0]
    return (sums / flat.shape[1]).astype(np.float32)


def _level_and_contrast(tiny: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each frame."""
    level, contrast = np.zeros(len(tiny), np.float32), np.zeros(len(tiny), np.float32)
    for start in range(0, len(tiny), CHUNK):
        part = tiny[start : start + CHUNK].reshape(-1, tiny[0].size)
        place = slice(start, start + len(part))
        level[place] = _means(part)
        apart = part.astype(np.float32) - level[place, None]
        contrast[place] = np.sqrt(np.einsum("ti,ti->t", apart, apart) / part.shape[1])
    return level, contrast


def _blend(tiny: NDArray[np.uint8], lag: int) -> NDArray[np.float32]:
    """How far each frame is from halfway between the frames `lag` before and after."""
    out = np.zeros(len(tiny), np.float32)
    flat = tiny.reshape(len(tiny), -1)
    for start in range(lag, len(flat) - lag, CHUNK):
        stop = min(start + CHUNK, len(flat) - lag)
        off = np.add(flat[start - lag : stop - lag], flat[start + lag : stop + lag], dtype=np.int16)
        off -= flat[start:stop]
        off -= flat[start:stop]
        out[start:stop] = np.abs(off, out=off).sum(axis=1, dtype=np.int32) / np.float32(flat.shape[1])
    return out


def _histogram_steps(tiny: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Half the sum of the differences between the colour histograms of consecutive frames, as a share."""
    out, previous = np.zeros(len(tiny), np.float32), None
    pixels = tiny.shape[1] * tiny.shape[2]
    for start in range(0, len(tiny), CHUNK):
        red, green, blue = np.moveaxis(tiny[start : start + CHUNK].reshape(-1, pixels, 3) >> 5, -1, 0)
        classes = (red.astype(np.int64) << 6) | (green << 3) | blue
        classes += (np.arange(len(classes)) << 9)[:, None]
        counts = np.bincount(classes.ravel(), minlength=len(classes) << 9).reshape(-1, 512)
        before = np.concatenate([counts[:1] if previous is None else previous, counts[:-1]])
        out[start : start + len(counts)] = np.abs(counts - before).sum(axis=1) / (2 * pixels)
        previous = counts[-1:]
    return out
