"""The answer key of a clip: who owns each pixel, where it goes next, where the joints and the camera are.

Flow is exact by construction. Every primitive keeps its key over time, so its control points at t and t+1 say how it
moved; a pixel moves by the affine map between them, plus what that map leaves over at the control points,
weighted by distance.
T frames, H W pixels, K characters, J joints; positions in pixels, the middle of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from anisora.synthetic.display import FIRST_EFFECT, SCENERY, Layer, Prim
from anisora.synthetic.rig import JOINTS
from anisora.synthetic.scene import Moment

MOVES_PX = 0.2
"""Foreground that moves more than this against the camera, from one frame to the next, counts as moving."""


class Truth(NamedTuple):
    """What is true of a clip, per frame."""

    ids_THW: np.ndarray
    """uint8: 0 background, 1.. characters, 10.. objects, 20.. effects; edges are hard."""
    foreground_THW: np.ndarray
    """bool: characters and objects, not effects."""
    motion_mask_HW: np.ndarray
    """bool: wherever moving foreground is at any time."""
    flow_THW2: np.ndarray
    """float32 (x, y): pixels each pixel moves until the next frame; the last leads to the frame that would follow."""
    joints_TKJ2: np.ndarray
    """float32 (x, y) of `rig.JOINTS` for each character."""
    camera_T23: np.ndarray
    """float32: affine map of the characters' plane from frame 0 to frame t, in pixels."""
    drawing_T: np.ndarray
    """int32: number of the drawing; equal numbers mean a held drawing."""
    drawing_fps: Fraction
    text_boxes: list
    """Empty: no text is drawn."""


def truth(moments: list[Moment], backend, drawing_fps: Fraction) -> Truth:  # type: ignore[no-untyped-def]
    """The truth of the first T of T+1 moments."""
    owners = [backend.owners(m.frame) for m in moments[:-1]]
    ids = np.stack([ids_HW(o, m) for o, m in zip(owners, moments, strict=False)])
    flow = np.stack([flow_HW2(o, a, b) for o, a, b in zip(owners, moments, moments[1:], strict=False)])
    foreground = (ids > SCENERY) & (ids < FIRST_EFFECT)
    stages = [_affine(_stage(m).matrix) for m in moments]
    return Truth(
        ids_THW=ids,
        foreground_THW=foreground,
        motion_mask_HW=_motion_mask(flow, foreground, stages),
        flow_THW2=flow.astype(np.float32),
        joints_TKJ2=np.stack([_joints(m) for m in moments[:-1]]).astype(np.float32),
        camera_T23=np.stack([(s @ np.linalg.inv(stages[0]))[:2] for s in stages[:-1]]).astype(np.float32),
        drawing_T=np.array([m.drawing for m in moments[:-1]], np.int32),
        drawing_fps=drawing_fps,
        text_boxes=[],
    )


def ids_HW(owners_HW: np.ndarray, moment: Moment) -> np.ndarray:
    """Whose each pixel is at a moment, as in `Truth.ids_THW`, of the primitives that own it."""
    groups = np.array([p.group for layer in moment.frame for p in layer.prims], np.uint8)
    return groups[owners_HW]


def _stage(moment: Moment) -> Layer:
    return next(layer for layer in moment.frame if layer.is_camera)


def _affine(matrix: tuple[float, ...]) -> np.ndarray:
    return np.array([matrix[:3], matrix[3:], (0, 0, 1)], float)


def _joints(moment: Moment) -> np.ndarray:
    m = _affine(_stage(moment).matrix)
    points = np.array([[s.joints[name] for name in JOINTS] for s in moment.skeletons], float)
    return points @ m[:2, :2].T + m[:2, 2]


def flow_HW2(owners_HW: np.ndarray, now: Moment, after: Moment) -> np.ndarray:
    """Displacement in pixels of what each pixel shows, from one moment to the next."""
    height, width = owners_HW.shape
    y, x = np.mgrid[:height, :width] + 0.5
    points = np.stack([x, y], -1)
    out = np.zeros((height, width, 2))
    number = 0
    for layer, later in zip(now.frame, after.frame, strict=True):
        inside = (owners_HW >= number) & (owners_HW < number + len(layer.prims))
        m, n = _affine(layer.matrix), _affine(later.matrix)
        local = (points[inside] - m[:2, 2]) @ np.linalg.inv(m[:2, :2]).T
        if layer.prims is not later.prims:
            local = _moved(local, owners_HW[inside] - number, layer.prims, later.prims)
        out[inside] = local @ n[:2, :2].T + n[:2, 2] - points[inside]
        number += len(layer.prims)
    return out


def _moved(points: np.ndarray, owner: np.ndarray, prims: list[Prim], later: list[Prim]) -> np.ndarray:
    """Where points on primitives are one frame later, in layer coordinates."""
    by_key = {p.key: p for p in later}
    out = points.copy()
    for k in np.unique(owner):
        mine = owner == k
        match = by_key.get(prims[k].key)
        if match is not None and _same_shape(prims[k], match):
            out[mine] = _deform(points[mine], prims[k].kind, anchors(prims[k]), anchors(match))
        else:
            # It is gone in the next frame: it goes where the rest of its owner goes.
            kin = [p for p in prims if p.group == prims[k].group and _same_shape(p, by_key.get(p.key))]
            a = np.concatenate([anchors(p) for p in kin] or [np.zeros((1, 2))])
            b = np.concatenate([anchors(by_key[p.key]) for p in kin] or [np.zeros((1, 2))])
            out[mine] = points[mine] @ _fit(a, b)[:2] + _fit(a, b)[2]
    return out


def _same_shape(prim: Prim, other: Prim | None) -> bool:
    return other is not None and prim.kind == other.kind and len(prim.pts) == len(other.pts)


def anchors(prim: Prim) -> np.ndarray:
    """Points [n, 2] that move with a primitive and pin its motion down."""
    p = np.array(prim.pts, float).reshape(-1, 2)
    if prim.kind == "ellipse":
        return np.stack([p[0], p[0] + p[1], p[0] - p[1], p[0] + p[2], p[0] - p[2]])
    if prim.kind == "stroke":
        # Both edges of the line, so that it turns as well as moves.
        along = np.gradient(p, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        across = np.stack([-along[:, 1], along[:, 0]], 1) * prim.width / 2
        return np.concatenate([p - across, p + across])
    return p


def _fit(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least-squares affine map [3, 2] from points a to points b; of the smallest change where a does not say."""
    centre = a.mean(0)
    rest, *_ = np.linalg.lstsq(a - centre, (b - b.mean(0)) - (a - centre), rcond=1e-4)
    linear = np.eye(2) + rest
    return np.concatenate([linear, (b.mean(0) - centre @ linear)[None]])


def _deform(points: np.ndarray, kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if kind in ("dots", "segments"):
        nearest = np.argmin(((points[:, None] - a[None]) ** 2).sum(-1), 1)
        return points + (b - a)[nearest]
    fit = _fit(a, b)
    moved = points @ fit[:2] + fit[2]
    left_over = b - (a @ fit[:2] + fit[2])
    if np.abs(left_over).max() < 1e-9:
        return moved
    weight = 1 / (((points[:, None] - a[None]) ** 2).sum(-1) + 1e-8) ** 1.5
    return moved + (weight / weight.sum(1, keepdims=True)) @ left_over


def camera_flow(stage: np.ndarray, later: np.ndarray, height: int, width: int) -> np.ndarray:
    """Flow [H, W, 2] of the characters' plane by the camera alone, from 3x3 maps to pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    step = later @ np.linalg.inv(stage)
    points = np.stack([x, y], -1)
    return points @ step[:2, :2].T + step[:2, 2] - points


def _motion_mask(flow: np.ndarray, foreground: np.ndarray, stages: list[np.ndarray]) -> np.ndarray:
    frames, height, width = foreground.shape
    mask = np.zeros((height, width), bool)
    for t in range(frames):
        residual = flow[t] - camera_flow(stages[t], stages[t + 1], height, width)
        moving = foreground[t] & (np.linalg.norm(residual, axis=-1) > MOVES_PX)
        mask |= moving
        y, x = np.nonzero(moving)
        to = np.round(np.stack([x, y], 1) + flow[t][y, x]).astype(int)
        to = to[((to >= 0) & (to < (width, height))).all(1)] if t + 1 < frames else to[:0]
        mask[to[:, 1], to[:, 0]] = True
    return _grown(mask)


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask and one pixel around it, for the smooth edges of what it covers."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
