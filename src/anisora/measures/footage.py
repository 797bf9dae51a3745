"""A clip as evaluation looks at it: decoded once, at one working size, and everything that two measures need made once.

Sizes and rates differ from model to model, scores must not. So every clip is brought to the same short side, whatever it
came in, and time is counted in drawings or in shares of the clip, never in seconds: a clip that states another frame
rate, or that holds each drawing twice, is the same clip.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadVideo
from anisora.measures.flow import Flow, dis_flow
from anisora.measures.similarity import luma

#: The short side at which looks are judged, and the one for flow and differences.
LOOK_PX, FLOW_PX = 256, 128

#: The blur, in pixels at `FLOW_PX`, of the softened pictures for flow.
SOFT_PX = 1.0

#: Frames beyond this are refused: a shot is scored, not a film (0.4 MB a frame).
MAX_FRAMES = 2000

#: A frame is a new drawing when its three most different blocks are off by more than this, in grey levels: what codecs
#: leave of a held drawing stays below it (`timing.SEEN_LEVELS`).
NEW_DRAWING_LEVELS = 3.0
BLOCK_PX = 8

#: Longer clips are looked at in so many runs of so many drawings, evenly spread.
RUNS, RUN_DRAWINGS = 4, 12

#: Edges that are never brighter than this, in grey levels, are black bars, and so are as many pixels more, which ring.
BAR_LEVELS, BAR_EDGE_PX = 24.0, 6

#: How many moments, evenly spread over the clip, stand for it where neighbours do not matter.
MOMENTS, DEEP_MOMENTS = 16, 8

#: Below this standard deviation of luma, in grey levels, a picture has nothing to measure.
BLANK_LEVELS = 2.0


@dataclass(kw_only=True)
class Footage:
    """One clip: `frames_THWC` uint8 RGB with the short side `LOOK_PX`, and the size and rate that it came with."""

    frames_THWC: NDArray[np.uint8]
    fps: Fraction
    width_px: int
    height_px: int
    notes: tuple[str, ...] = ()
    _flows: dict[tuple[int, int, bool], Flow] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Footage:
        """A clip from any file that `media.reader` reads, decoded once. Raises BadVideo."""
        from anisora.media.reader import iter_frames, probe

        notes: list[str] = []
        frames: list[NDArray[np.uint8]] = []
        size = (0, 0)
        for frame in iter_frames(path, threads=1, notes=notes):
            if len(frames) == MAX_FRAMES:
                raise BadVideo("a clip too long to score", got=f"over {MAX_FRAMES} frames", hint="single shots")
            size = (frame.rgb_HWC.shape[1], frame.rgb_HWC.shape[0])
            frames.append(resized(frame.rgb_HWC, LOOK_PX))
        if len({frame.shape for frame in frames}) > 1:
            raise BadVideo("the picture changes its size within the clip", got=path, expected="one size")
        return cls(
            frames_THWC=np.stack(frames), fps=probe(path).fps, width_px=size[0], height_px=size[1], notes=tuple(notes)
        )

    @classmethod
    def of_frames(cls, frames_THWC: NDArray[np.uint8], fps: Fraction | int = 16) -> Footage:
        """A clip that is in memory already."""
        height, width = frames_THWC.shape[1:3]
        small = np.stack([resized(frame, LOOK_PX) for frame in frames_THWC])
        return cls(frames_THWC=small, fps=Fraction(fps), width_px=width, height_px=height)

    def __len__(self) -> int:
        return len(self.frames_THWC)

    # ------------------------------------------------------------------------------------------------ pictures

    @cached_property
    def luma_THW(self) -> NDArray[np.float32]:
        """Luma in [0, 255] with the short side `FLOW_PX`."""
        return np.stack([luma(resized(frame, FLOW_PX)) for frame in self.frames_THWC])

    @cached_property
    def blocks_Tyx(self) -> NDArray[np.float32]:
        """Mean luma of a grid of 12 x 12 blocks."""
        import cv2

        return np.stack([cv2.resize(frame, (12, 12), interpolation=cv2.INTER_AREA) for frame in self.luma_THW])

    @cached_property
    def is_blank(self) -> bool:
        """Whether there is nothing to see: black, or one flat colour, throughout."""
        return bool(max(float(self.luma_THW[i].std()) for i in self.moments) < BLANK_LEVELS)

    @cached_property
    def without_bars_THWC(self) -> NDArray[np.uint8]:
        """The frames without black bars at their edges; as they are where the bars would be most of the picture."""
        brightest_HW = np.max([luma(self.frames_THWC[i]) for i in self.moments], axis=0)
        inside = [slice(*_inner(brightest_HW.max(axis=axis))) for axis in (1, 0)]
        cut = self.frames_THWC[:, inside[0], inside[1]]
        return cut if 2 * cut.size >= self.frames_THWC.size else self.frames_THWC

    # ------------------------------------------------------------------------------------------------ time

    @cached_property
    def moments(self) -> list[int]:
        """Up to `MOMENTS` frames evenly spread over the clip, the first and the last among them."""
        return spread(len(self), MOMENTS)

    @cached_property
    def deep_moments(self) -> list[int]:
        """Up to `DEEP_MOMENTS` frames, likewise: for what costs a network's pass."""
        return spread(len(self), DEEP_MOMENTS)

    @cached_property
    def drawings(self) -> list[int]:
        """The frames that show a new drawing: visibly other than the last such frame. The first frame is one."""
        found = [0]
        for t in range(1, len(self)):
            if _most_different(self.luma_THW[t], self.luma_THW[found[-1]]) >= NEW_DRAWING_LEVELS:
                found.append(t)
        return found

    @cached_property
    def runs(self) -> list[list[int]]:
        """Stretches of successive drawings: all of them in a short clip, else `RUNS` of `RUN_DRAWINGS`."""
        drawings = self.drawings
        if len(drawings) <= RUNS * RUN_DRAWINGS:
            return [drawings]
        starts = np.linspace(0, len(drawings) - RUN_DRAWINGS, RUNS).astype(int)
        return [drawings[start : start + RUN_DRAWINGS] for start in starts]

    def in_runs(self, count: int) -> list[tuple[int, ...]]:
        """All tuples of `count` successive drawings that lie within one run."""
        return [tuple(run[i : i + count]) for run in self.runs for i in range(len(run) - count + 1)]

    # ------------------------------------------------------------------------------------------------ flow

    def flow(self, start: int, end: int, *, soft: bool = False) -> Flow:
        """The flow from one frame to another at `FLOW_PX`, in its pixels, with `soft` of the two blurred by `SOFT_PX`; each is
        computed once."""
        if (start, end, soft) not in self._flows:
            grey = self.soft_THW if soft else self._grey_THW
            self._flows[start, end, soft] = dis_flow(grey[start], grey[end], fine=False)
        return self._flows[start, end, soft]

    @cached_property
    def _grey_THW(self) -> NDArray[np.uint8]:
        return np.rint(self.luma_THW).astype(np.uint8)

    @cached_property
    def soft_THW(self) -> NDArray[np.uint8]:
        """Luma blurred by `SOFT_PX`, which a small shift of lines changes less."""
        import cv2

        return np.stack([cv2.GaussianBlur(frame, (0, 0), SOFT_PX) for frame in self._grey_THW])

    @property
    def diagonal_px(self) -> float:
        """The diagonal of the picture at `FLOW_PX`: flow divided by it does not depend on the size."""
        return float(np.hypot(*self.luma_THW.shape[1:]))


def _inner(brightest: NDArray[np.float32]) -> tuple[int, int]:
    """Where the picture begins and ends between bars, from the brightest level of each row or column."""
    seen = np.flatnonzero(brightest > BAR_LEVELS)
    if not len(seen):
        return 0, len(brightest)
    first, last = int(seen[0]), int(seen[-1]) + 1
    end = last if last == len(brightest) else last - BAR_EDGE_PX
    return (first + BAR_EDGE_PX if first else 0), end


def spread(total: int, count: int) -> list[int]:
    """Up to `count` indices of `total`, evenly spread from the first to the last."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def resized(picture: NDArray[np.uint8], short_px: int) -> NDArray[np.uint8]:
    """The picture with that short side: averaged when it shrinks, bicubic when it grows."""
    import cv2

    height, width = picture.shape[:2]
    scale = short_px / min(height, width)
    if scale == 1:
        return np.array(picture)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=kind))


def _most_different(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The mean difference of the three most different blocks."""
    import cv2

    grid = (max(2, a.shape[1] // BLOCK_PX), max(2, a.shape[0] // BLOCK_PX))
    blocks = cv2.resize(np.abs(a - b), grid, interpolation=cv2.INTER_AREA)
    return float(np.partition(blocks.ravel(), -3)[-3:].mean())


def mean_or_none(values: Sequence[float]) -> float | None:
    """The mean of what could be measured; None without any."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
