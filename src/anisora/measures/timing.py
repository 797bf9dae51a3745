"""How many drawings a second a clip has: on ones, twos, threes, with what holds. The camera does not count as drawing.

A new drawing shows as a step in what the scan calls the residual: the difference of two frames after the camera's move
has been taken out. Under a moving camera a held drawing leaves a residual too (parallax, resampling, the codec), so no
threshold will do: a hold is a stretch that lies well below the frames at both its ends.
"""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from anisora.measures.clip import ClipView
from anisora.records import Score

#: Below it, in grey levels of the most different blocks, nothing was drawn anew: what codecs leave of a held drawing.
SEEN_LEVELS = 3.0

#: A hold lies below both its ends by this factor.
WALL = 1.6

#: Holds longer than this are pauses between drawings, not their rhythm.
LONGEST_HOLD_S = Fraction(1, 2)

#: With fewer holds than this share a clip is drawn on ones: motion that slows down looks like a hold here and there.
FEWEST_HOLDS = 0.2

#: The share of holds of one length that makes it the clip's.
MOSTLY = 0.6

#: The share of beats that must stand out for a rhythm.
BEATS = 0.6

#: A residual above this share of the plain difference is more than the camera leaves: something moves by itself.
OWN_SHARE = 0.3


def drawing_fps(clip: ClipView) -> Score:
    """Drawings a second while something is being drawn, from the signal `held`; 0 for a still, also under a camera.

    `details`: `on`, the commonest hold in frames; `hold_1` .. `hold_9`: how many holds of so many frames there are;
    `camera_fps`: how often the picture as a whole changes. `per_frame`: 1 where a new drawing comes.
    Null for clips of one frame, and where the scan has no signal.
    """
    held = clip.signals.get("held")
    if held is None:
        return _null("no_signal")
    if len(held["index"]) < 3:
        return _null("too_short")
    is_new = new_drawings(held["residual"][1:], held["difference"][1:])
    fps = Fraction(clip.fps)
    at = np.flatnonzero(is_new)
    lengths = _resolved([int(n) for n in np.diff(at) if n <= fps * LONGEST_HOLD_S])
    counts = Counter(lengths)
    rate = _rate(lengths, counts, fps) if lengths else len(at) / (len(is_new) / fps)
    moved = int((held["difference"][1:] >= SEEN_LEVELS).sum())
    return Score(
        name="drawing_fps",
        version=1,
        unit="drawings/s",
        raw=float(rate),
        per_frame=np.concatenate([[True], is_new]),
        details={
            "on": counts.most_common(1)[0][0] if counts else 0,
            "camera_fps": float(moved / (len(is_new) / fps)),
            **{f"hold_{n}": counts[n] for n in range(1, 10) if counts[n]},
        },
    )


def _resolved(lengths: list[int]) -> list[int]:
    """The holds without the stretches in which none could be told: several steps in a row that all look new, in a clip
    that holds most of its drawings otherwise. A single step between two holds is a drawing on ones."""
    runs = [list(run) for _, run in itertools.groupby(lengths, key=lambda n: n == 1)]
    told = [n for run in runs for n in run if run[0] > 1 or len(run) == 1]
    return told if sum(n for n in told if n > 1) >= sum(lengths) / 3 else lengths


def _rate(lengths: list[int], counts: Counter[int], fps: Fraction) -> Fraction:
    """The rate of the commonest hold where most are of its length, else of the mean hold."""
    length, times = counts.most_common(1)[0]
    return fps / length if times >= MOSTLY * len(lengths) else fps * len(lengths) / sum(lengths)


def new_drawings(residual: NDArray, difference: NDArray) -> NDArray[np.bool_]:
    """Which steps between frames bring a new drawing, [T - 1], from the signals of the same name."""
    level = np.maximum(residual, SEEN_LEVELS)
    is_hold = holds(level)
    seen = residual >= SEEN_LEVELS
    active = seen | is_hold
    if not active.any() or (is_hold & active).sum() >= FEWEST_HOLDS * active.sum():
        is_new = seen & ~is_hold
        lengths = _resolved(np.diff(np.flatnonzero(is_new)).tolist())
        uneven = bool(lengths) and Counter(lengths).most_common(1)[0][1] < MOSTLY * len(lengths)
        beats = rhythm(residual) if uneven else None
        return is_new if beats is None else beats & seen
    if (beats := rhythm(residual)) is not None:
        return beats & seen
    # No holds: on ones, or the camera alone.
    share = residual[seen] / np.maximum(difference[seen], SEEN_LEVELS)
    return seen if np.median(share) > OWN_SHARE else np.zeros_like(seen)


def rhythm(residual: NDArray) -> NDArray[np.bool_] | None:
    """The steps of a steady beat of two, three or four, in which most beats stand out from the steps beside them, by
    however little; None without one. Chance makes one step in three stand out.

    What a fast camera leaves of parallax can be as large as what is drawn: then no single hold can be told, but all of
    them together can.
    """
    higher = 1.1 * np.maximum(residual[:-2], residual[2:]) < residual[1:-1]
    for period in (2, 3, 4):
        shares = [float(higher[phase::period].mean()) if len(higher) >= 6 * period else 0.0 for phase in range(period)]
        phase = int(np.argmax(shares))
        if shares[phase] >= BEATS and shares[phase] > 2 * np.mean(np.delete(shares, phase)):
            return (np.arange(len(residual)) - 1) % period == phase
    return None


def holds(level: NDArray, longest: int = 12) -> NDArray[np.bool_]:
    """The steps that lie within a hold: below the steps at both its ends by `WALL`. Short holds are found first, and
    what walls them in is a drawing, so that it cannot lie within a longer one."""
    is_hold, is_wall = np.zeros(len(level), bool), np.zeros(len(level), bool)
    for length in range(1, longest + 1):
        for start in range(1, len(level) - length):
            inside = slice(start, start + length)
            if is_wall[inside].any() or is_hold[start]:
                continue
            ends = level[start - 1], level[start + length]
            if min(ends) >= WALL * level[inside].max() and not (is_hold[start - 1] or is_hold[start + length]):
                is_hold[inside] = True
                is_wall[[start - 1, start + length]] = True
    return is_hold


def _null(reason: str) -> Score:
    return Score(name="drawing_fps", version=1, unit="drawings/s", raw=None, reason=reason)


def duration_s(clip: ClipView) -> Score:
    """How long the clip is shown, in seconds."""
    return Score(name="duration_s", version=1, unit="s", raw=float(clip.span.duration_s))
