"""What reading a video yields: its description, single frames, and whole clips, with time as exact fractions.

A frame's time is `pts * time_base`; frame rates are fractions too (24000/1001, never 23.976). Floats are for showing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import BadVideo

#: Matroska and WebM round times to milliseconds: a frame may miss its moment by half of one
ROUNDING_S = Fraction(1, 2000)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file says about its video before all of it is decoded.

    `width_px` and `height_px` are of the upright picture; `duration_s` is None where the file does not say;
    `sample_aspect` is the width of a pixel over its height; `bit_depth` that of the file, frames come out with 8.
    """

    path: Path
    container: str
    codec: str
    pixel_format: str
    width_px: int
    height_px: int
    fps: Fraction
    num_frames: int
    duration_s: Fraction | None
    time_base: Fraction
    bit_depth: int = 8
    rotation_deg: int = 0
    sample_aspect: Fraction = Fraction(1)
    is_interlaced: bool = False
    has_alpha: bool = False
    has_audio: bool = False


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture in time: `rgb_HWC` uint8, shown from `pts` for `duration` (both in units of `time_base` seconds)."""

    rgb_HWC: np.ndarray
    pts: int
    duration: int
    time_base: Fraction

    @property
    def time_s(self) -> Fraction:
        return self.pts * self.time_base

    @property
    def end_s(self) -> Fraction:
        return (self.pts + self.duration) * self.time_base


@dataclass(frozen=True, kw_only=True)
class VideoFrames:
    """A clip in memory: `frames_THWC` uint8, one presentation time each.

    `fps` is the file's rate, for a variable one its mean. `notes` say what a viewer would want to know: interlacing,
    pixels that are not square, frames that could not be decoded.
    """

    frames_THWC: np.ndarray
    pts: tuple[int, ...]
    time_base: Fraction
    fps: Fraction
    duration_s: Fraction
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames_THWC)

    @property
    def times_s(self) -> tuple[Fraction, ...]:
        """The presentation time of each frame, exact."""
        return tuple(pts * self.time_base for pts in self.pts)

    @property
    def is_vfr(self) -> bool:
        """Whether any frame lies more than one unit of time (at least a millisecond) off an even grid at `fps`."""
        slack_s = max(self.time_base, 2 * ROUNDING_S)
        return any(abs(time - self.times_s[0] - i / self.fps) > slack_s for i, time in enumerate(self.times_s))

    def __repr__(self) -> str:
        frames, height, width, _ = self.frames_THWC.shape
        return f"VideoFrames({frames} frames of {width}x{height} at {self.fps} fps)"


def at_rate(frames: Iterable[Frame], fps: Fraction) -> Iterator[Frame]:
    """The frames seen at 0, 1/fps, 2/fps, ... after the first: held or dropped by presentation time, never blended."""
    start_s, tick, held = Fraction(0), 0, None

    def held_until(end_s: Fraction) -> Iterator[Frame]:
        nonlocal tick
        while held is not None and start_s + tick / fps < end_s - ROUNDING_S:
            yield replace(held, pts=tick, duration=1, time_base=1 / fps)
            tick += 1

    for frame in frames:
        if held is None:
            start_s = frame.time_s
        yield from held_until(frame.time_s)
        held = frame
    if held is not None:
        yield from held_until(held.end_s)


def parse_fps(fps: Any) -> Fraction:
    """The exact fraction of 24, "24000/1001", 23.976 (read as the decimal it prints as) or a Fraction.

    Raises BadVideo unless it lies in (0, 1000].
    """
    try:
        exact = Fraction(str(fps)) if isinstance(fps, float) else Fraction(fps)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        exact = Fraction(0)
    if not 0 < exact <= 1000:
        raise BadVideo("unusable frame rate", got=repr(fps), expected="above 0, at most 1000", hint="24 or 24000/1001")
    return exact
