"""How a shot moves: how much, in one piece or in pops, truly or as a blend, and inside or outside of an area.

Each function measures one thing on uint8 frames [T, H, W, 3]; none has a threshold for good or bad. What cannot be
measured (nothing moved, nothing selected) is NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.measures.flow import Affine, Flow, affine_flow, dis_flow, fit_camera, pull
from anisora.measures.similarity import Frames, Mask, luma

#: A pixel has moved when its grey value differs from the first frame's by more than this: the threshold of the
#: AnimateAnything utilities, with which the paper measures its motion masks.
MOVED_GREY_LEVELS = 20

#: Steps between frames below this mean difference are not seen; so that a still neighbourhood divides by something.
UNSEEN_STEP_GREY_LEVELS = 0.25

#: How many steps on each side of a guide are its neighbours.
POP_NEIGHBOURS = 4


def foreground_motion_px(frames_THWC: Frames, foreground_THW: Mask) -> float:
    """How far the foreground moves beyond the camera, in pixels per frame: the mean over steps and foreground pixels.

    The camera is the affine map that fits the flow of the background best. The foreground of a step is that of either
    of its frames. Flow that does not lead back to where it came from (Sundaram et al. 2010, equation 5) counts as no
    motion: flow between frames of noise is long and means nothing. NaN when no step has any foreground.
    """
    return amount_px(own_motion(frames_THWC, foreground_THW))


def amount_px(steps: Sequence[Flow]) -> float:
    """`foreground_motion_px` of the `own_motion` of a shot."""
    return float(np.mean([np.linalg.norm(own, axis=-1).mean() for own in steps])) if steps else float("nan")


def motion_along(made: Sequence[Flow], true: Sequence[Flow]) -> float:
    """How much of the truth's motion is made where, when and in which direction the truth moves, as a share of it.

    Both are `own_motion` with the truth's foreground; one is projected onto the other, place by place. The truth has 1,
    a still shot and one that moves about at random 0, one that moves the other way less. NaN when the truth does not move.
    """
    whole = sum(float((wanted**2).sum()) for wanted in true)
    along = sum(float((own * wanted).sum()) for own, wanted in zip(made, true, strict=True))
    return along / whole if whole > 0 else float("nan")


def own_motion(frames_THWC: Frames, foreground_THW: Mask) -> list[Flow]:
    """Of each step with any foreground, the motion [N, 2] of its foreground pixels beyond the camera."""
    steps = []
    for t in range(len(frames_THWC) - 1):
        foreground = foreground_THW[t] | foreground_THW[t + 1]
        if not foreground.any():
            continue
        flow = dis_flow(frames_THWC[t], frames_THWC[t + 1])
        background = ~foreground if (~foreground).mean() >= 0.05 else None
        own = flow - affine_flow(fit_camera(flow, background), *flow.shape[:2])
        own = own * leads_back(flow, dis_flow(frames_THWC[t + 1], frames_THWC[t]))[..., None]
        steps.append(own[foreground])
    return steps


def leads_back(forward_HW2: Flow, backward_HW2: Flow) -> Mask:
    """Where going forward and back again ends within half a pixel, or a tenth of the way, of the start: bool [H, W]."""
    return off_the_way_back(forward_HW2, backward_HW2) <= 1


def off_the_way_back(forward_HW2: Flow, backward_HW2: Flow) -> NDArray[np.float32]:
    """How far from the start going forward and back again ends, squared, over what `leads_back` allows, [H, W]."""
    returned = pull(backward_HW2, forward_HW2)
    miss = ((forward_HW2 + returned) ** 2).sum(axis=-1)
    way = (forward_HW2**2).sum(axis=-1) + (returned**2).sum(axis=-1)
    return np.asarray(miss / (0.01 * way + 0.5))


def blend_residual(frames_THWC: Frames, guides_THWC: Frames, at: Sequence[int]) -> float:
    """What is left of the frames between guides beyond the best blend of the two neighbours, in grey levels.

    For each frame, both neighbouring guides are moved by the affine map that fits best and blended with the weight that
    fits best; the root of the mean squared difference over all those frames is returned. A cross-fade leaves 0, also
    under a moving camera. `guides_THWC` are the pictures at frames `at`, in order.
    """
    errors = []
    for (left, a), (right, b) in itertools.pairwise(zip(at, guides_THWC, strict=True)):
        for frame in frames_THWC[left + 1 : right]:
            errors.append(_blend_error(frame.astype(np.float32), _moved_onto(frame, a), _moved_onto(frame, b)))
    return float(np.sqrt(np.mean(errors))) if errors else float("nan")


def _moved_onto(frame: NDArray[np.uint8], guide: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The guide under the affine map that brings it nearest to the frame; as it is when no map helps."""
    still = guide.astype(np.float32)
    affine: Affine = fit_camera(dis_flow(frame, guide))
    moved = pull(still, affine_flow(affine, *frame.shape[:2]))
    target = frame.astype(np.float32)
    return min((still, moved), key=lambda candidate: float(((candidate - target) ** 2).mean()))


def _blend_error(frame: NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The mean squared error of w a + (1 - w) b with the best w in [0, 1]."""
    apart = a - b
    weight = float(((frame - b) * apart).sum() / max(float((apart**2).sum()), 1e-9))
    return float(((frame - b - min(max(weight, 0.0), 1.0) * apart) ** 2).mean())


def guide_pop(frames_THWC: Frames, guide: int) -> float:
    """The larger of the steps into and out of a guide's frame, over the median of its neighbours (the next
    `POP_NEIGHBOURS` steps on each side). 1 is even motion; a guide that flashes up is far above.

    A step is the mean absolute difference of two frames. NaN when the guide has no neighbours.
    """
    steps = frame_steps(frames_THWC)
    into, out = guide - 1, guide
    own = [s for s in (into, out) if 0 <= s < len(steps)]
    near = [s for s in range(into - POP_NEIGHBOURS, out + POP_NEIGHBOURS + 1) if 0 <= s < len(steps) and s not in own]
    if not own or not near:
        return float("nan")
    return float(steps[own].max() / max(float(np.median(steps[near])), UNSEEN_STEP_GREY_LEVELS))


def frame_steps(frames_THWC: Frames) -> NDArray[np.float64]:
    """The mean absolute difference between each frame and the next, [T - 1], in grey levels."""
    video = frames_THWC.astype(np.float32)
    return np.abs(video[1:] - video[:-1]).mean(axis=(1, 2, 3), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class MaskMotion:
    """Where a shot moved, against the area that was to move. Shares in [0, 1]; NaN where undefined."""

    precision: float  # share of the moved pixels that lie in the area; NaN when nothing moved
    recall: float  # share of the area that moved: a frozen shot has precision NaN and recall 0
    precision_rectangles: float  # precision as the paper measures it: of the bounding rectangles of what moved
    leakage: float  # mean difference to the first frame outside the area, over that inside


def mask_motion(frames_THWC: Frames, area_HW: Mask) -> MaskMotion:
    """Motion-mask precision and recall. A pixel moved when it differs from the first frame at any time.

    The paper (section 5.4, after AnimateAnything) fills the bounding rectangles of the moved regions first, which
    swells both sets; that form is given beside the plain one.
    """
    grey = luma(frames_THWC)
    difference_THW = np.abs(grey - grey[0])
    moved = (difference_THW > MOVED_GREY_LEVELS).any(axis=0)
    inside, outside = difference_THW[1:, area_HW].mean(), difference_THW[1:, ~area_HW].mean() if (~area_HW).any() else 0
    return MaskMotion(
        precision=_share(area_HW, moved),
        recall=_share(moved, area_HW),
        precision_rectangles=_share(area_HW, _rectangles(moved)),
        leakage=float(outside / inside) if inside > 0 else float("nan"),
    )


def _share(part: Mask, whole: Mask) -> float:
    return float((part & whole).sum() / whole.sum()) if whole.any() else float("nan")


def _rectangles(moved: Mask) -> Mask:
    """The bounding rectangles of all contours, filled."""
    import cv2

    contours, _ = cv2.findContours(moved.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros(moved.shape, bool)
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        filled[y : y + height, x : x + width] = True
    return filled


def explained_by_flow(frames_THWC: Frames, area_HW: Mask) -> float:
    """The share of the change inside an area that is motion: what optical flow takes away of the squared difference of
    consecutive frames, after their brightness has been matched there (gain and offset by least squares).

    Flicker and fading are no motion: a shot that only changes in brightness has nothing left to explain, so NaN. Noise
    is explained to a small part only.
    """
    before = after = 0.0
    for earlier, later in itertools.pairwise(frames_THWC):
        matched = _match_brightness(earlier.astype(np.float32), later.astype(np.float32), area_HW)
        rounded = np.rint(matched).clip(0, 255).astype(np.uint8)
        moved = pull(matched, dis_flow(later, rounded))
        before += float(((matched - later)[area_HW] ** 2).sum())
        after += float(((moved - later)[area_HW] ** 2).sum())
    unseen = UNSEEN_STEP_GREY_LEVELS**2 * 3 * float(area_HW.sum()) * (len(frames_THWC) - 1)
    return 1 - after / before if before > unseen else float("nan")


def _match_brightness(picture: NDArray[np.float32], target: NDArray[np.float32], area_HW: Mask) -> NDArray[np.float32]:
    """gain * picture + offset, nearest to the target inside the area."""
    x, y = picture[area_HW].ravel(), target[area_HW].ravel()
    spread = float(x.var())
    gain = float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 1e-6 else 1.0
    return (picture * gain + (float(y.mean()) - gain * float(x.mean()))).astype(np.float32)
