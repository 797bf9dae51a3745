"""What shots are found by: how far each frame is from those before it, at several distances in time.

Frames are kept 48 x 27 in colour while the video is read, as TransNetV2 wants them; what is stored are differences
between them, and the small frames themselves only around places where there may be a transition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers import Needs

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

    name, version = "cut", 1

    def __init__(self, params: CutParams | None = None) -> None:
        self.params = params or CutParams()
        self.needs = Needs(width_px=TINY_HW[1], pixels="rgb")
        self._index: list[int] = []
        self._tiny: list[NDArray[np.uint8]] = []

    def feed(self, index: int, pts: int, frame: NDArray[np.uint8]) -> None:
        import cv2

        self._index.append(index)
        self._tiny.append(np.asarray(cv2.resize(frame, TINY_HW[::-1], interpolation=cv2.INTER_AREA)))

    def finish(self) -> dict[str, NDArray]:
        tiny = np.stack(self._tiny)
        self._tiny.clear()
        grey = tiny.reshape(len(tiny), -1)
        arrays: dict[str, NDArray] = {
            "index": np.array(self._index, np.int64),
            "difference": np.stack([_lagged(tiny, lag) for lag in LAGS], axis=1).astype(np.float16),
            "blend": np.stack([_blend(tiny, lag) for lag in BLEND_LAGS], axis=1).astype(np.float16),
            "histogram": _histogram_steps(tiny).astype(np.float16),
            "level": _chunked(grey, lambda part: part.mean(axis=1)).astype(np.float16),
            "contrast": _chunked(grey, lambda part: part.std(axis=1)).astype(np.float16),
        }
        kept = self._kept(arrays)
        return arrays | {"tiny": tiny[kept], "tiny_index": arrays["index"][kept]}

    def _kept(self, arrays: dict[str, NDArray]) -> NDArray[np.int64]:
        """The positions of the frames to store."""
        count = len(arrays["index"])
        if self.params.keep != "near":
            return np.arange(count if self.params.keep == "all" else 0)
        wanted = arrays["contrast"] < self.params.contrast
        step = arrays["difference"][:, 0].astype(np.float32)
        wanted |= (step >= self.params.step_levels) & (step > 1.2 * beside(step))
        for column, lag in enumerate(BLEND_LAGS):
            apart = apart_around(arrays["difference"], lag)
            wanted |= (apart >= self.params.apart_levels) & (arrays["blend"][:, column] < self.params.blend * apart)
        near = np.zeros(count + 1, np.int64)
        at = np.flatnonzero(wanted)
        np.add.at(near, np.maximum(at - self.params.margin, 0), 1)
        np.add.at(near, np.minimum(at + self.params.margin + 1, count), -1)
        return np.flatnonzero(np.cumsum(near[:-1]) > 0)


def beside(step: NDArray[np.float32], reach: int = 4) -> NDArray[np.float32]:
    """The largest step within `reach` frames before or after each, itself left out."""
    padded = np.pad(step, reach)
    shifted = [padded[reach + k : reach + k + len(step)] for k in range(-reach, reach + 1) if k]
    return np.max(shifted, axis=0)


def apart_around(difference: NDArray, lag: int) -> NDArray[np.float32]:
    """The difference between the frames `lag` before and after each, 0 where there are none."""
    apart = np.zeros(len(difference), np.float32)
    if len(apart) > 2 * lag:
        apart[lag:-lag] = difference[2 * lag :, LAGS.index(2 * lag)]
    return apart


#: frames worked on at once: small enough to stay in the processor's cache
CHUNK = 64


def _chunked(rows: NDArray, function) -> NDArray:  # type: ignore[no-untyped-def]
    return np.concatenate([function(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)])


def _lagged(tiny: NDArray[np.uint8], lag: int) -> NDArray[np.float32]:
    """Mean absolute difference of each frame to the one `lag` before."""
    out = np.zeros(len(tiny), np.float32)
    flat = tiny.reshape(len(tiny), -1)
    for start in range(lag, len(flat), CHUNK):
        now, before = flat[start : start + CHUNK], flat[start - lag : start - lag + CHUNK]
        before = before[: len(now)]
        out[start : start + len(now)] = (np.maximum(now, before) - np.minimum(now, before)).mean(axis=1)
    return out


def _blend(tiny: NDArray[np.uint8], lag: int) -> NDArray[np.float32]:
    """How far each frame is from halfway between the frames `lag` before and after."""
    out = np.zeros(len(tiny), np.float32)
    flat = tiny.reshape(len(tiny), -1)
    for start in range(lag, len(flat) - lag, CHUNK):
        stop = min(start + CHUNK, len(flat) - lag)
        ends = flat[start - lag : stop - lag].astype(np.int16) + flat[start + lag : stop + lag]
        out[start:stop] = np.abs(ends - (flat[start:stop].astype(np.int16) << 1)).mean(axis=1)
    return out


def _histogram_steps(tiny: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Half the sum of the differences between the colour histograms of consecutive frames, as a share."""
    colour = tiny >> 5
    classes = (colour[..., 0].astype(np.int32) << 6) | (colour[..., 1] << 3) | colour[..., 2]
    classes = classes.reshape(len(tiny), -1)
    out, previous = np.zeros(len(tiny), np.float32), None
    for number, row in enumerate(classes):
        histogram = np.bincount(row, minlength=512)
        if previous is not None:
            out[number] = np.abs(histogram - previous).sum() / (2 * row.size)
        previous = histogram
    return out
