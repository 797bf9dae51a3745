"""What the camera does, and what is left to the drawing: pan, tilt, zoom, shake, static; still, panned still, slideshow.

The scan fits one similarity (scale, turn, shift) to every pair of frames. Here they are put together over a span.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anisora.measures.clip import ClipView
from anisora.measures.timing import SEEN_LEVELS, new_drawings
from anisora.records import Score

#: Slower than these nobody calls it a move: widths a second for shifts, a second for the logarithm of scale.
LEAST_SHIFT_PER_S, LEAST_ZOOM_PER_S = 0.02, 0.02

#: A move whose way there and back is this many times what it comes to is a shake.
SHAKE_RATIO = 4.0

#: What a clip is, by what is drawn anew in it.
KINDS = ("moving", "still", "panned_still", "slideshow")


def camera(clip: ClipView) -> Score:
    """The camera's move as a word: static, pan, tilt, zoom_in, zoom_out, shake, mixed; from the signal `held`.

    `details`: `kind` is one of `KINDS`: moving (something is drawn anew), still, panned_still (only the camera moves) and
    slideshow (pictures that only replace each other); `shift_x`, `shift_y` in widths of the picture and `scale`, over
    the clip, as the picture moves; `shake` in widths a second there and back. `per_frame` [T, 4]: the camera by step.
    Null for clips of one frame, and where the scan has no signal.
    """
    held = clip.signals.get("held")
    if held is None or len(held["index"]) < 2:
        reason = "no_signal" if held is None else "too_short"
        return Score(name="camera", version=1, unit="class", raw=None, reason=reason)
    steps = _trusted(held)
    seconds = float(clip.span.duration_s)
    zoom, x, y = (float(steps[:, column].sum()) for column in (0, 2, 3))
    path = float(np.hypot(np.diff(steps[:, 2], prepend=0), np.diff(steps[:, 3], prepend=0)).sum())
    length = float(np.hypot(steps[:, 2], steps[:, 3]).sum())
    return Score(
        name="camera",
        version=1,
        unit="class",
        raw=_word(zoom / seconds, x / seconds, y / seconds, length / seconds),
        per_frame=steps,
        details={
            "kind": _kind(held, clip.fps),
            "shift_x": x,
            "shift_y": y,
            "scale": float(np.exp(zoom)),
            "shake": path / seconds,
        },
    )


def _trusted(held) -> NDArray[np.float32]:  # type: ignore[no-untyped-def]
    """The camera of each step; none where fewer than a third of the blocks follow it."""
    return np.where(held["fit"][1:, None] >= 1 / 3, held["camera"][1:], 0.0)


def _word(zoom: float, x: float, y: float, length: float) -> str:
    """The move that stands out; speeds a second."""
    shift = float(np.hypot(x, y))
    if length > LEAST_SHIFT_PER_S * 2 and length > SHAKE_RATIO * shift and length > SHAKE_RATIO * abs(zoom) / 2:
        return "shake"
    shares = {
        "pan": abs(x) / LEAST_SHIFT_PER_S,
        "tilt": abs(y) / LEAST_SHIFT_PER_S,
        "zoom_in" if zoom > 0 else "zoom_out": abs(zoom) / LEAST_ZOOM_PER_S,
    }
    first, second = sorted(shares, key=lambda name: -shares[name])[:2]
    if shares[first] < 1:
        return "static"
    return "mixed" if shares[second] > max(1, 0.7 * shares[first]) else first


def _kind(held, fps) -> str:  # type: ignore[no-untyped-def]
    difference, residual = held["difference"][1:], held["residual"][1:]
    is_new = new_drawings(residual, difference)
    rare = is_new.sum() <= max(1, len(is_new) / float(fps))
    if not is_new.any() or (rare and not _whole(held, is_new)):
        return "panned_still" if (difference >= SEEN_LEVELS).mean() > 0.25 else "still"
    return "slideshow" if rare else "moving"


def _whole(held, is_new: NDArray[np.bool_]) -> bool:  # type: ignore[no-untyped-def]
    """Whether the few new pictures replace the whole picture, not a part of it."""
    return bool(np.median(held["mean"][1:][is_new]) > 10)
