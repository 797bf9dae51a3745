"""Does a shot hang together in time? The signs of flicker, boil, shake, jumps and disorder, as numbers without a unit.

Differences of frames reward blur and standing still, and mostly measure how much moves. Every sign here is a ratio: of
an error to the edges it was made at, of a way to what it came to, of near frames to far ones. All of them look at
successive drawings, so that drawings held for two or three frames are no fault (`Footage.drawings`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anisora.measures.appeal import fine_over_coarse
from anisora.measures.flow import pull
from anisora.measures.footage import Footage, spread

#: Near and far, in drawings.
LAG = 3

#: What is added to both sides of a ratio so that stillness is not divided by nothing: pixels of flow, grey levels.
LEAST_PX, LEAST_LEVELS = 0.1, 0.3


def smoothness_features(footage: Footage) -> dict[str, float] | str:
    """The signs of unsteadiness by name, each larger for worse; or the reason why there are none.

    registration: how far, in pixels and over the step, a drawing lies off the middle of its neighbours
    jitter:       the way over what it comes to, along the flow
    disorder:     differences of neighbours over those of drawings `LAG` apart
    returns:      how near the next but one is, against the next, at the worst fifth of the steps
    flicker:      how far the median block's brightness is off the middle of its neighbours in time, over the contrast
    curvature:    how far flow changes from step to step, over its length
    shake:        the change of the camera's step, in pixels
    jump:         the largest step over the middle one
    softness:     coarse edges over fine ones: blur hides what the others look for, and must not pay
    freeze:       the longest hold beyond the middle one, as a share of the clip
    All are logarithms but the last. `registration_px` is that error in pixels, for showing.
    """
    if len(footage) < LAG + 1:
        return "too_short"
    if footage.is_blank:
        return "blank"
    if len(footage.drawings) < LAG + 1:
        return "nothing_moves" if len(footage.drawings) == 1 else "few_drawings"
    registration_px, registration = _registration(footage)
    near, far = _lagged(footage, footage.luma_THW, 1), _lagged(footage, footage.luma_THW, LAG)
    return {
        "registration_px": registration_px,
        "registration": float(np.log(registration)),
        "jitter": _jitter(footage),
        "disorder": float(np.log((near.mean() + 0.01) / (far.mean() + 0.01))),
        "returns": _returns(footage),
        "flicker": _flicker(footage),
        "curvature": _curvature(footage),
        "shake": _shake(footage),
        "jump": float(np.log((near.max() + LEAST_LEVELS) / (np.median(near) + LEAST_LEVELS))),
        "softness": _softness(footage),
        "freeze": _longest_hold(footage),
    }


def _registration(footage: Footage) -> tuple[float, float]:
    """The error of the frame between two in pixels of mis-registration (grey levels over edge slope), and over the step.

    Each neighbour is moved half way along the flow between them. Dividing by the slope makes blur neither better nor
    worse: it takes from both.
    """
    errors, steps = [], []
    for before, t, after in footage.in_runs(3):
        way = footage.flow(before, after)
        luma = footage.luma_THW
        middle = (pull(luma[before], -0.5 * way) + pull(luma[after], 0.5 * way)) / 2
        slope = np.hypot(*np.gradient(luma[t])).mean()
        errors.append(float(np.abs(middle - luma[t]).mean() / (slope + 0.5)))
        steps.append(float(np.linalg.norm(way, axis=-1).mean()) / 2)
    return float(np.mean(errors)), float(np.mean(errors) / (np.mean(steps) + LEAST_PX))


def _jitter(footage: Footage) -> float:
    """log(path / net) over two steps: 0 for even motion in one direction."""
    path = np.mean([_length(footage, a, b) for a, b in footage.in_runs(2)]) * 2
    net = np.mean([_length(footage, a, c) for a, _, c in footage.in_runs(3)])
    return float(np.log((path + LEAST_PX) / (net + LEAST_PX)))


def _length(footage: Footage, a: int, b: int) -> float:
    return float(np.linalg.norm(footage.flow(a, b), axis=-1).mean())


def _lagged(footage: Footage, values_T: NDArray[np.float32], lag: int) -> NDArray[np.float64]:
    """The mean absolute difference of drawings `lag` apart."""
    return np.array([np.abs(values_T[run[-1]] - values_T[run[0]]).mean() for run in footage.in_runs(lag + 1)])


def _returns(footage: Footage) -> float:
    """How much nearer the next drawing but one is than the next, as log, at the worst fifth: what moves on, moves away,
    and what trembles or is out of order comes back."""
    luma = footage.luma_THW
    ratios = [
        2 * np.abs(luma[c] - luma[a]).mean() / (np.abs(luma[b] - luma[a]).mean() + np.abs(luma[c] - luma[b]).mean())
        for a, b, c in footage.in_runs(3)
    ]
    return float(-np.log(np.percentile(ratios, 20) + 0.05))


def _flicker(footage: Footage) -> float:
    """How far the median block departs from the middle of its neighbours in time, over the contrast, as log."""
    blocks = footage.blocks_Tyx
    bends = [np.median(np.abs(blocks[a] - 2 * blocks[b] + blocks[c])) for a, b, c in footage.in_runs(3)]
    contrast = float(footage.luma_THW[footage.drawings[0]].std())
    return float(np.log(np.mean(bends) / (contrast + 3) + 0.001))


def _curvature(footage: Footage) -> float:
    """The change of flow along itself, over its length, on pixels with texture."""
    ratios = []
    for a, b, c in footage.in_runs(3):
        first, second = footage.flow(a, b), footage.flow(b, c)
        textured = np.hypot(*np.gradient(footage.luma_THW[a])) > 4
        if not textured.any():
            continue
        change = np.linalg.norm(pull(second, first) - first, axis=-1)[textured].mean()
        length = (np.linalg.norm(first, axis=-1) + np.linalg.norm(second, axis=-1))[textured].mean() / 2
        ratios.append(float(change / (length + LEAST_PX)))
    return float(np.log(np.mean(ratios) + 0.05)) if ratios else float(np.log(0.05))


def _shake(footage: Footage) -> float:
    """How much the step of the picture as a whole (the median flow) changes, as log pixels."""
    changes = []
    for a, b, c in footage.in_runs(3):
        first, second = (np.median(footage.flow(*pair), axis=(0, 1)) for pair in ((a, b), (b, c)))
        changes.append(float(np.linalg.norm(second - first)))
    return float(np.log(np.mean(changes) + 0.05))


def _softness(footage: Footage) -> float:
    """The strongest coarse edges over the strongest fine ones, as log, the mean over a few drawings."""
    drawings = footage.drawings
    few = [footage.frames_THWC[drawings[i]] for i in spread(len(drawings), 4)]
    return -float(np.mean([fine_over_coarse(frame)[0] for frame in few]))


def _longest_hold(footage: Footage) -> float:
    """How much longer than the middle hold the longest is, as a share of the clip."""
    holds = np.diff([*footage.drawings, len(footage)])
    return float((holds.max() - np.median(holds)) / len(footage))


def held_share(footage: Footage) -> float:
    """The share of frames that hold the drawing before them, in [0, 1]."""
    return 1 - len(footage.drawings) / len(footage)
