"""How much moves: optical flow between distinct drawings.

Over consecutive frames a flow score mostly measures how long drawings are held: most pairs of anime frames are equal.
Here only pairs of different drawings count, each over the time that lies between them.
"""

from __future__ import annotations

import numpy as np

from anisora.measures.clip import ClipView
from anisora.records import Score


def flow(clip: ClipView) -> Score:
    """Mean length of the flow over picture and time, in percent of the picture's width a second; from the signal `flow`.

    The camera's move is part of it, as in the paper. `details`: `top`, the same of the fastest twentieth of the picture;
    `drawn`: the share of samples with a new drawing. 0 for a still. Null where the scan has no signal of two samples.
    """
    signal = clip.signals.get("flow")
    if signal is None or len(signal["index"]) < 2:
        reason = "no_signal" if signal is None else "too_short"
        return Score(name="flow", version=1, unit="% of width / s", raw=None, reason=reason)
    # A pair that begins before the span crosses a cut.
    own = (signal["since"] >= clip.span.start_frame) & (signal["since"] < signal["index"])
    seconds = (signal["index"] - signal["since"])[own] / float(clip.fps)
    per_s = signal["mean"][own] / seconds
    top = float((signal["top"][own] / seconds).mean()) if own.any() else 0.0
    return Score(
        name="flow",
        version=1,
        unit="% of width / s",
        raw=100 * float(per_s.mean()) if own.any() else 0.0,
        per_frame=(100 * per_s).astype(np.float32),
        details={"top": 100 * top, "drawn": float(own.sum() / (len(signal["index"]) - 1))},
    )
