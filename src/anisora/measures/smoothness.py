"""Does a shot hang together in time? The signs of flicker, boil, shake, grain and disorder, as numbers without a unit.

Differences of frames reward blur and standing still, and mostly measure how much moves. Every sign here is a ratio: of
an error to the edges it was made at, of a way to what it came to, of near frames to far ones. All of them look at
successive drawings, so that drawings held for two or three frames are no fault (`Footage.drawings`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from anisora.measures.appeal import fine_over_coarse
from anisora.measures.flow import pull
from anisora.measures.footage import Footage, spread

#: Near and far, in drawings.
LAG = 3

#: What is added below, or to both sides of, a ratio so that stillness is not divided by nothing: pixels of flow, of its
#: change, grey levels.
LEAST_PX, LEAST_TURN_PX, LEAST_LEVELS = 0.1, 0.15, 0.7

#: Changes beyond these are action or another drawing, and count no more than these.
MOST_PX, MOST_LEVELS = 4.0, 20.0

CELL_PX = 8

#: Added to the distance of two drawings, in grey levels: a tree has no steps of length 0.
LEAST_APART = 0.01


def smoothness_features(footage: Footage) -> dict[str, float] | str:
    """The signs of unsteadiness by name, each larger for worse; or the reason why there are none.

    registration: how far, in pixels and over the step, a drawing lies off the middle of its neighbours
    disorder:     differences of neighbours over those of drawings `LAG` apart
    flicker:      how far the median block's brightness is off the middle of its neighbours in time, over the contrast
    curvature:    how far flow changes from step to step, over its length
    takes_back:   how much of what a drawing has beyond its neighbours the next one has the other way round
    turns_back:   the same of how flow changes
    unrest:       by how many levels the median part of the picture changes by chance, and so comes back, as log
    goes_back:    how much of a step the next one undoes, along the flow
    softness:     coarse edges over fine ones: blur hides what the others look for, and must not pay
    freeze:       the longest hold beyond the middle one, as a share of the clip
    detour:       how much longer a step is than those that lead from the one drawing to the other over others, as log
    The first four and softness are logarithms. `registration_px` is that error in pixels, for showing.

    What changes from drawing to drawing by chance comes back at once, the other way round; what moves on, or moves as no
    flow can follow, does not. So the three signs of it tell trembling from action, in whatever scene.
    """
    if len(footage) < LAG + 1:
        return "too_short"
    if footage.is_blank:
        return "blank"
    if len(footage.drawings) < LAG + 1:
        return "nothing_moves" if len(footage.drawings) == 1 else "few_drawings"
    off = {run: _off_the_middle(footage, *run) for run in footage.in_runs(3)}
    turn = {run: _turn(footage, *run) for run in footage.in_runs(3)}
    registration_px, registration = _registration(footage, off)
    near, far = _lagged(footage, footage.luma_THW, 1), _lagged(footage, footage.luma_THW, LAG)
    return {
        "registration_px": registration_px,
        "registration": float(np.log(registration)),
        "disorder": float(np.log((near.mean() + 0.01) / (far.mean() + 0.01))),
        "flicker": _flicker(footage),
        "curvature": _curvature(footage, turn),
        "takes_back": _back(footage, off, MOST_LEVELS, LEAST_LEVELS, 80),
        "turns_back": _back(footage, turn, MOST_PX, LEAST_TURN_PX, 70),
        "goes_back": _goes_back(footage),
        "unrest": _unrest(footage, off),
        "softness": _softness(footage),
        "freeze": _longest_hold(footage),
        "detour": _detour(footage),
    }


def _off_the_middle(footage: Footage, before: int, t: int, after: int) -> NDArray[np.float32]:
    """What a drawing has beyond the middle of its neighbours, [H, W, 1] in levels; each is moved half way along the flow
    between them."""
    way, luma = footage.flow(before, after), footage.luma_THW
    middle = (pull(luma[before], -0.5 * way) + pull(luma[after], 0.5 * way)) / 2
    return (luma[t] - middle)[..., None]


def _turn(footage: Footage, before: int, t: int, after: int) -> NDArray[np.float32]:
    """How flow changes along itself from one step to the next, [H, W, 2] in pixels."""
    first = footage.flow(before, t)
    return pull(footage.flow(t, after), first) - first


Changes = dict[tuple[int, ...], NDArray[np.float32]]


def _registration(footage: Footage, off: Changes) -> tuple[float, float]:
    """The error of the frame between two in pixels of mis-registration (grey levels over edge slope), and over the step.

    Dividing by the slope makes blur neither better nor worse: it takes from both.
    """
    errors, steps = [], []
    for (before, t, after), beyond in off.items():
        slope = np.hypot(*np.gradient(footage.luma_THW[t])).mean()
        errors.append(float(np.abs(beyond).mean() / (slope + 0.5)))
        steps.append(_length(footage, before, after) / 2)
    return float(np.mean(errors)), float(np.mean(errors) / (np.mean(steps) + LEAST_PX))


def _length(footage: Footage, a: int, b: int) -> float:
    return float(np.linalg.norm(footage.flow(a, b), axis=-1).mean())


def _back(footage: Footage, changes: Changes, most: float, least: float, percentile: float) -> float:
    """How much of the change at a drawing is undone at the next one, cell by cell, in [-1, 1]: less the covariance of the two
    over their variance. At a percentile of the cells, so that a figure in action does not hide a trembling ground.

    Of changes by chance 2/3: the noise n makes the change n(t) - (n(t - 1) + n(t + 1)) / 2. Changes count up to `most`, and
    those well below `least` as none.
    """
    shares = [undone / (size + least**2) for undone, size in _undone(footage, changes, most)]
    return float(np.percentile(np.concatenate(shares), percentile))


def _undone(footage: Footage, changes: Changes, most: float) -> Iterator[tuple[NDArray, NDArray]]:
    """At each drawing and the next, less the covariance of their two changes and their variance, of all cells."""
    for a, b, c, d in footage.in_runs(4):
        first, second = _at_most(changes[a, b, c], most), _at_most(changes[b, c, d], most)
        yield _cells(-(first * second).sum(-1)).ravel(), _cells((first**2 + second**2).sum(-1) / 2).ravel()


def _unrest(footage: Footage, off: Changes) -> float:
    """By how many levels the median cell changes by chance, as log: what is undone of its changes, which for noise is the
    noise's own variance, and for what moves on nothing or less. Shares of change do not see grain on a picture that
    moves as no flow can follow; this does not see how large the other changes are."""
    median = float(np.median(np.concatenate([undone for undone, _ in _undone(footage, off, MOST_LEVELS)])))
    return float(np.log(np.sqrt(max(median, 0.0)) + LEAST_LEVELS))


def _at_most(change_HWC: NDArray[np.float32], most: float) -> NDArray[np.float32]:
    """The change with its length cut to `most`."""
    length = np.linalg.norm(change_HWC, axis=-1, keepdims=True)
    return change_HWC * np.minimum(1, most / (length + 1e-6))


def _cells(values_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The means over cells of `CELL_PX`."""
    import cv2

    height, width = values_HW.shape
    grid = (max(1, width // CELL_PX), max(1, height // CELL_PX))
    return np.asarray(cv2.resize(values_HW, grid, interpolation=cv2.INTER_AREA))


def _goes_back(footage: Footage) -> float:
    """How much of a step the next one undoes, in [-1, 1]: less the covariance of successive steps along the flow over their
    variance; -1 for even motion, up to 1 to and fro."""
    undone, size = [], []
    for a, b, c in footage.in_runs(3):
        first = footage.flow(a, b)
        second = _at_most(pull(footage.flow(b, c), first), MOST_PX)
        first = _at_most(first, MOST_PX)
        undone.append(-(first * second).sum(-1).mean())
        size.append((first**2 + second**2).sum(-1).mean() / 2)
    return float(np.mean(undone) / (np.mean(size) + LEAST_PX**2))


def _lagged(footage: Footage, values_T: NDArray[np.float32], lag: int) -> NDArray[np.float64]:
    """The mean absolute difference of drawings `lag` apart."""
    return np.array([np.abs(values_T[run[-1]] - values_T[run[0]]).mean() for run in footage.in_runs(lag + 1)])


def _flicker(footage: Footage) -> float:
    """How far the median block departs from the middle of its neighbours in time, over the contrast, as log."""
    blocks = footage.blocks_Tyx
    bends = [np.median(np.abs(blocks[a] - 2 * blocks[b] + blocks[c])) for a, b, c in footage.in_runs(3)]
    contrast = float(footage.luma_THW[footage.drawings[0]].std())
    return float(np.log(np.mean(bends) / (contrast + 3) + 0.001))


def _curvature(footage: Footage, turn: Changes) -> float:
    """The change of flow along itself, over its length, on pixels with texture."""
    ratios = []
    for (a, b, c), change in turn.items():
        textured = np.hypot(*np.gradient(footage.luma_THW[a])) > 4
        if not textured.any():
            continue
        lengths = [np.linalg.norm(footage.flow(*step), axis=-1)[textured] for step in ((a, b), (b, c))]
        ratios.append(float(np.linalg.norm(change, axis=-1)[textured].mean() / (np.mean(lengths) + LEAST_PX)))
    return float(np.log(np.mean(ratios) + 0.05)) if ratios else float(np.log(0.05))


def _softness(footage: Footage) -> float:
    """The strongest coarse edges over the strongest fine ones, as log, the mean over a few drawings."""
    drawings = footage.drawings
    few = [footage.frames_THWC[drawings[i]] for i in spread(len(drawings), 4)]
    return -float(np.mean([fine_over_coarse(frame) for frame in few]))


def _longest_hold(footage: Footage) -> float:
    """How much longer than the middle hold the longest is, as a share of the clip."""
    holds = np.diff([*footage.drawings, len(footage)])
    return float((holds.max() - np.median(holds)) / len(footage))


def _detour(footage: Footage) -> float:
    """How much longer the steps from drawing to drawing are than those of the way that leads between the two over others, as
    log: 0 where no drawing lies between two successive ones, also for what swings to and fro and comes by again.

    That way is the one in the shortest tree that joins all drawings; its steps are averaged by their length, so that
    drawings that are all but equal are no steps.
    """
    from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree
    from scipy.spatial.distance import pdist, squareform

    steps, hops = 0.0, 0.0
    for run in footage.runs:
        flat = footage.soft_THW[run].reshape(len(run), -1)
        apart = squareform(pdist(flat, "cityblock")) / flat.shape[1] + LEAST_APART
        tree = minimum_spanning_tree(np.triu(apart, 1))
        squares = tree.multiply(tree).tocsr()
        along, squared = (np.diag(dijkstra(graph, directed=False), 1) for graph in (tree, squares))
        steps += float(np.diag(apart, 1).sum())
        hops += float((squared / along).sum())
    return float(np.log(steps / hops))


def held_share(footage: Footage) -> float:
    """The share of frames that hold the drawing before them, in [0, 1]."""
    return 1 - len(footage.drawings) / len(footage)
