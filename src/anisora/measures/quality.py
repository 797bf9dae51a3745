"""Technical quality from the stored signals: how sharp the lines are, how much of the codec shows, what is damaged."""

from __future__ import annotations

import numpy as np

from anisora.measures.clip import ClipView
from anisora.records import Score

#: The sharpness that scores 1: what full-HD drawings saved with little loss reach.
SHARP = 2.0


def damage(clip: ClipView) -> Score:
    """0 to 1: the share of frames that may show something wrong, since the file is damaged before them.

    From the signal `damage`, which every scan has. After an error that is every frame up to the next one that needs no
    other. Null where the scan has no such signal.
    """
    signal = clip.signals.get("damage")
    if signal is None:
        return Score(name="damage", version=1, unit="share", raw=None, reason="no_signal")
    return Score(name="damage", version=1, unit="share", raw=len(signal["index"]) / clip.span.num_frames)


def quality(clip: ClipView) -> Score:
    """0 to 1: sharpness, less what blocking takes away; from the signal `sharpness`.

    Flat colour is no blur: what counts are the strongest lines against the spread of grey values. A picture scaled up
    or pressed hard by its codec loses exactly those. `details`: the `sharpness` and `blocking` it is made of (medians
    over the clip; 1 is no blocking). Null where the scan has no signal for the span.
    """
    signal = clip.signals.get("sharpness")
    if signal is None or not len(signal["index"]):
        reason = "no_signal" if signal is None else "too_short"
        return Score(name="quality", version=1, unit="share", raw=None, reason=reason)
    sharpness, blocking = float(np.median(signal["laplacian"])), float(np.median(signal["blocking"]))
    return Score(
        name="quality",
        version=1,
        unit="share",
        raw=min(1.0, sharpness / SHARP) / max(1.0, blocking) ** 2,
        per_frame=signal["laplacian"],
        details={"sharpness": sharpness, "blocking": blocking},
    )
