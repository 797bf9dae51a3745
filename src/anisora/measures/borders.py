"""Letterbox, pillarbox and blurred borders: how much of the picture is not picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anisora.measures.clip import ClipView
from anisora.records import Score

#: Margins of fewer pixels than this share of the side are the file's ragged edge, not a border.
LEAST_SHARE = 0.01

#: Borders filled with a blurred copy are softer than the busier parts of the picture by this factor, and take at least
#: this much of the side.
SOFTER, LEAST_BLURRED = 4.0, 0.06


def borders(clip: ClipView) -> Score:
    """The share of the picture's area that plain or blurred borders take, from the signal `borders`.

    An edge counts for as many pixels as are border in nine frames of ten, so that a dark scene does not count and one
    flash does not hide it. `details`: `kind` (none, letterbox, pillarbox, windowbox, blurred), and `top`, `bottom`,
    `left`, `right` in pixels. Null where the scan has no signal for the span.
    """
    signal = clip.signals.get("borders")
    if signal is None or not len(signal["index"]):
        reason = "no_signal" if signal is None else "too_short"
        return Score(name="borders", version=1, unit="share", raw=None, reason=reason)
    size = {"top": clip.height_px, "bottom": clip.height_px, "left": clip.width_px, "right": clip.width_px}
    plain = _picture_rows(signal, clip)
    edges = {edge: int(np.quantile(signal[edge][plain], 0.1)) if plain.any() else 0 for edge in size}
    edges = {edge: px if px >= LEAST_SHARE * size[edge] else 0 for edge, px in edges.items()}
    kind = _kind(edges)
    if kind == "none":
        edges |= _blurred(signal["columns"], ("left", "right"), clip.width_px)
        edges |= _blurred(signal["rows"], ("top", "bottom"), clip.height_px)
        kind = "blurred" if any(edges.values()) else "none"
    inner = (clip.width_px - edges["left"] - edges["right"]) * (clip.height_px - edges["top"] - edges["bottom"])
    share = 1 - inner / (clip.width_px * clip.height_px)
    return Score(name="borders", version=1, unit="share", raw=max(0.0, share), details={"kind": kind, **edges})


def _picture_rows(signal, clip: ClipView) -> NDArray[np.bool_]:  # type: ignore[no-untyped-def]
    """Which samples show a picture at all: a plain one is all border and says nothing."""
    return (signal["top"] < clip.height_px) & (signal["left"] < clip.width_px)


def _kind(edges: dict[str, int]) -> str:
    upright, across = bool(edges["top"] or edges["bottom"]), bool(edges["left"] or edges["right"])
    return "windowbox" if upright and across else "letterbox" if upright else "pillarbox" if across else "none"


def _blurred(profiles: NDArray, edges: tuple[str, str], size_px: int) -> dict[str, int]:
    """Both borders of a pair when both are far softer than the middle, up to where the picture begins; else 0.

    The picture's own edge stands out in such a profile: a single line between soft and busy.
    """
    profile = np.median(profiles.astype(np.float32), axis=0)
    strips = len(profile)
    middle = float(np.quantile(profile[strips // 3 : -(strips // 3)], 0.75))
    busy = profile > middle / SOFTER
    start, end = int(np.argmax(busy)), int(np.argmax(busy[::-1]))
    if middle < 1.0 or min(start, end) < LEAST_BLURRED * strips or abs(start - end) > 0.04 * strips:
        return dict.fromkeys(edges, 0)
    return {edges[0]: start * size_px // strips, edges[1]: end * size_px // strips}
