"""How far things move in a shot: what the figures do beyond the camera, over the clip and not a second.

The sum of small steps grows with every artefact; what counts is what it comes to. The clip is seen at a few moments, as
the paper's motion model sees it, and flow from one to the next is kept only where it leads back. That is independent of
frame rate, held drawings and size, and noise moves nothing.
"""

from __future__ import annotations

import itertools

import numpy as np

from anisora.measures.flow import affine_flow, fit_camera
from anisora.measures.footage import Footage
from anisora.measures.motion import leads_back

#: What moves most is looked at: this share of the picture.
TOP_SHARE = 0.05


def motion_features(footage: Footage) -> dict[str, float] | str:
    """Motion from moment to moment, in percent of the diagonal; or the reason why there is none.

    `object`: of the fastest `TOP_SHARE` of the picture beyond the camera, the mean over moments; `camera`: the mean
    length of the camera's own flow (the affine map that most of the picture follows); `all`: the fastest share without
    taking the camera out; `area`: the share of the picture that moves by itself. A still clip has 0.
    """
    if len(footage) < 2:
        return "too_short"
    if footage.is_blank:
        return "blank"
    rows = np.array([_step(footage, a, b) for a, b in itertools.pairwise(footage.moments)])
    names = ("object", "camera", "all", "area")
    return dict(zip(names, map(float, rows.mean(axis=0)), strict=True))


def _step(footage: Footage, a: int, b: int) -> tuple[float, float, float, float]:
    if np.array_equal(footage.luma_THW[a], footage.luma_THW[b]):
        return 0.0, 0.0, 0.0, 0.0
    flow = footage.flow(a, b)
    sure = leads_back(flow, footage.flow(b, a))
    camera = affine_flow(fit_camera(flow, sure), *flow.shape[:2])
    percent = 100 / footage.diagonal_px
    own = np.linalg.norm(flow - camera, axis=-1) * sure * percent
    whole = np.linalg.norm(flow, axis=-1) * sure * percent
    return _top(own), float(np.linalg.norm(camera, axis=-1).mean() * percent), _top(whole), float((own > 0.5).mean())


def _top(length_HW: np.ndarray) -> float:
    count = max(1, round(TOP_SHARE * length_HW.size))
    return float(np.partition(length_HW.ravel(), -count)[-count:].mean())
