"""Pixel frames and latent frames, strides, legal sizes and positions: pure integers, and the only home of these rules.

A causal video codec keeps pixel frame 0 in a latent frame of its own and folds every following `stride` frames into one:

    p   0 | 1 2 3 4 | 5 6 7 8 | ...
    f   0 |    1    |    2    | ...          T = 4n + 1 pixel frames, F = n + 1 latent frames

The public reference spells these rules out in some twenty places and misses the last frame for 16 of 32 legal lengths;
here they stand once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from anisora.errors import BadPosition, BadSize


@dataclass(frozen=True, kw_only=True)
class Strides:
    """How a checkpoint folds pixels: read from its VAE and transformer configs, never assumed."""

    temporal: int = 4
    spatial: int = 8
    patch_temporal: int = 1
    patch_spatial: int = 2

    @property
    def size_multiple_px(self) -> int:
        """Width and height must be multiples of this."""
        return self.spatial * self.patch_spatial


def latent_frames(num_frames: int, stride: int = 4) -> int:
    """F for T = stride * n + 1 pixel frames. Raises BadSize for any other T."""
    check_num_frames(num_frames, stride)
    return (num_frames - 1) // stride + 1


def pixel_frames(num_latent_frames: int, stride: int = 4) -> int:
    """T for F latent frames: the inverse of `latent_frames`."""
    return (num_latent_frames - 1) * stride + 1


def check_num_frames(num_frames: int, stride: int = 4) -> None:
    """Raises BadSize, naming the nearest legal lengths, unless T = stride * n + 1 >= 1."""
    if num_frames >= 1 and (num_frames - 1) % stride == 0:
        return
    below = (num_frames - 1) // stride * stride + 1
    nearest = [below, below + stride] if below > 0 else [1]
    raise BadSize(
        "illegal number of frames",
        got=num_frames,
        expected=f"{stride}n+1",
        hint=" or ".join(map(str, nearest)),
    )


def slot(frame: int, stride: int = 4) -> int:
    """The latent frame that holds pixel frame `frame`."""
    return 0 if frame == 0 else (frame - 1) // stride + 1


def channel(frame: int, stride: int = 4) -> int:
    """The place of a pixel frame within its latent frame: 0 for frame 0 (which fills all of them), else (p-1) % stride."""
    return 0 if frame == 0 else (frame - 1) % stride


def slot_frames(latent_frame: int, stride: int = 4) -> range:
    """The pixel frames that share a latent frame."""
    return range(1) if latent_frame == 0 else range((latent_frame - 1) * stride + 1, latent_frame * stride + 1)


def check_size(size_px: tuple[int, int], multiple_px: int) -> None:
    """Raises BadSize, naming the nearest legal size, unless width and height are positive multiples."""
    if all(side > 0 and side % multiple_px == 0 for side in size_px):
        return
    width, height = (max(multiple_px, round_half_up(Fraction(side, multiple_px)) * multiple_px) for side in size_px)
    raise BadSize(
        "illegal size",
        got=f"{size_px[0]}x{size_px[1]}",
        expected=f"multiples of {multiple_px}",
        hint=f"{width}x{height}",
    )


def size_for_aspect(aspect: Fraction, area_px: int, multiple_px: int) -> tuple[int, int]:
    """The legal (width, height) of about `area_px` whose aspect (width / height) comes nearest to `aspect`.

    Every legal width that keeps the area within a factor of 1.25 is tried; the nearest aspect wins, then the nearest area.
    """
    candidates = []
    for columns in range(1, math.isqrt(area_px) * 4 // multiple_px + 2):
        rows = max(1, round_half_up(Fraction(area_px, columns * multiple_px * multiple_px)))
        width, height = columns * multiple_px, rows * multiple_px
        area_off = abs(math.log(width * height / area_px))
        aspect_off = abs(math.log(Fraction(width, height) / aspect))
        candidates.append((area_off > math.log(1.25), round(aspect_off, 9), area_off, (width, height)))
    return min(candidates)[-1]


def round_half_up(value: Fraction | int) -> int:
    """Rounds .5 upwards, unlike `round`, which goes to even."""
    return math.floor(Fraction(value) + Fraction(1, 2))


_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_SECONDS = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*s\s*$")
_INDEX = re.compile(r"^\s*[+-]?\d+\s*$")


def is_position(text: str) -> bool:
    """Whether `text` reads as a position: a frame index, a percentage or a time."""
    return any(pattern.match(text) for pattern in (_PERCENT, _SECONDS, _INDEX))


def resolve_position(at: int | str, num_frames: int, fps: Fraction | int) -> int:
    """The pixel frame in [0, T) of a position: index (negative from the end), "37%" of T - 1, or "1.5s" times fps.

    Percentages and times round half up. Raises BadPosition outside the shot or for anything else.
    """
    text = str(at)
    if match := _PERCENT.match(text):
        share = Fraction(match[1]) / 100
        frame = round_half_up(share * (num_frames - 1)) if share <= 1 else num_frames  # 100.1% is not the last frame
    elif match := _SECONDS.match(text):
        frame = round_half_up(Fraction(match[1]) * Fraction(fps))
    elif _INDEX.match(text) and not isinstance(at, bool):
        frame = int(text) + (num_frames if int(text) < 0 else 0)
    else:
        raise BadPosition(
            "unreadable guide position",
            got=repr(at),
            expected="a frame index, a percentage or a time",
            hint="0, -1, 50% or 1.5s",
        )
    if not 0 <= frame < num_frames:
        raise BadPosition(
            "a guide lies outside the shot",
            got=f"{at} (frame {frame})",
            expected=f"frames 0 to {num_frames - 1} ({float((num_frames - 1) / Fraction(fps)):.2f} s)",
            hint=f"{num_frames - 1} or -1 for the last frame",
        )
    return frame


def snap_to_eighth(frame: int, num_frames: int) -> int:
    """The multiple of 8 nearest to `frame` that lies in the shot, for checkpoints trained on such positions.

    Ties go up. The public code takes `round(int((T - 1) * p) / 8) * 8` instead: of the 32 lengths 5, 9, ... 129 it
    misses the last frame for the 16 that are not 8k + 1, and for 8 of those it lands past the end.
    """
    return min(range(0, num_frames, 8), key=lambda legal: (abs(legal - frame), -legal))


def landings(frames: Iterable[int], stride: int = 4) -> list[tuple[int, int, int]]:
    """(frame, slot, channel) of each pixel frame: what is reported for every guide."""
    return [(frame, slot(frame, stride), channel(frame, stride)) for frame in frames]
