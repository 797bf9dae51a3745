"""How far things move in a shot: what the figures do beyond the camera, over the clip and not a second.

The sum of small steps grows with every artefact; what counts is what it comes to. The clip is seen at a few moments, as
the paper's motion model sees it, as many of every clip, and flow from one to the next counts the less the farther from its
start it leads back. That is independent of frame rate, held drawings and size, and noise moves nothing. And it counts how
much of the clip moves: one that comes to a stop after half of the way has less motion than one that covers the same way in
all of its time.
"""

from __future__ import annotations

import itertools

import numpy as np

from anisora.measures.flow import Flow, affine_flow, fit_camera, pull
from anisora.measures.footage import MOMENTS, Footage
from anisora.measures.motion import off_the_way_back

#: What moves most is looked at: this share of the picture.
TOP_SHARE = 0.05

#: Motion is added up over so many steps but one, whatever the clip's length and however long its drawings are held: over
#: longer steps less of it is found (docs/lab-notes.md).
STEPS = 12

#: Motion is given over this share of the clip, however many steps were looked at.
SHARE = 1 / 15

#: Where the camera moves nearer or turns, flow is off by a share of that, most where nothing is to be seen in the picture: less
#: than this share of how far the camera's flow is off its mean is no motion of the figures (docs/lab-notes.md).
BEND_SHARE = 0.8

#: The camera is read off all of the picture, and off places where there is something to see: luma has this spread, in levels,
#: within so many pixels. In flat colour flow is a guess, mostly 0, so that much seems to stay behind where a camera pans over
#: a drawing; but of a plain ground with a figure the second map is the figure's. It counts where it leaves less than this
#: share of what differs by the first.
TEXTURE_LEVELS, TEXTURE_PX, LEFT_SHARE = 2, 7, 0.4

#: Where the camera's map leaves so many levels of difference at most, flow may be off it by as much as the camera moves: in
#: flat colour what goes with the camera and what stays look alike.
EXPLAINED_LEVELS = 4

#: Where speeds are compared, steps are so many frames at least, so that drawings held for two frames lie evenly between them.
LEAST_STEP = 2

#: The clip is looked at in so many parts, and their motion averaged as this power: below 1, parts that stand still weigh.
PARTS, POWER = 5, 1 / 4

#: Slow in and slow out are looked for in this share of the clip at either end (AnimationBench, arXiv 2604.15299, has 20 %);
#: added to both sides of the ratio, in percent of the diagonal, so that trembling divides by something.
END_SHARE, LEAST_PERCENT = 0.2, 0.1


def motion_features(footage: Footage) -> dict[str, float] | str:
    """Motion over a fifteenth of the clip, in percent of the diagonal; or the reason why there is none.

    `object`: of the fastest `TOP_SHARE` of the picture beyond the camera and what its flow may be off by, the mean over
    steps; `throughout`: the same, its power mean over `PARTS` parts of the clip, which is `object` where motion is even;
    `camera`: the mean length of the camera's own flow (the affine map that most of the picture follows); `all`: the fastest
    share without taking the camera out; `area`: the share of the picture that moves by itself. A still clip has 0.
    """
    if len(footage) < 2:
        return "too_short"
    if footage.is_blank:
        return "blank"
    rows = _steps(footage, STEPS)
    names = ("object", "camera", "all", "area")
    return dict(zip(names, map(float, rows.mean(axis=0)), strict=True)) | {"throughout": _throughout(rows[:, 0])}


def slow_in_out(footage: Footage) -> dict[str, float] | str:
    """Whether motion sets in and dies away slowly, as an animator eases it; or the reason why that cannot be said.

    `slow_in`, `slow_out`: how much faster the figures are in the middle of the clip than at its beginning and at its end, as
    log2: 0 for even motion, 1 for twice as fast. For a shot of one movement; of several it says little.
    """
    if len(footage) < 2 * PARTS * LEAST_STEP:
        return "too_short"
    if footage.is_blank:
        return "blank"
    speed = _steps(footage, min(MOMENTS, len(footage) // LEAST_STEP))[:, 0]
    if not speed.any():
        return "nothing_moves"
    ends = max(1, round(END_SHARE * len(speed)))
    first, middle, last = (
        float(part.mean()) + LEAST_PERCENT for part in (speed[:ends], speed[ends:-ends], speed[-ends:])
    )
    return {"slow_in": float(np.log2(middle / first)), "slow_out": float(np.log2(middle / last))}


def _steps(footage: Footage, count: int) -> np.ndarray:
    """What moves from one part of the clip to the next, of so many parts, [2 (count - 1), 4]: the fastest of the figures, the
    camera, the fastest of all, the area; as much as it would be over `SHARE` of the clip."""
    rows = np.array([_step(footage, a, b) for a, b in _pairs(len(footage), count)])
    rows[:, :3] *= count * SHARE
    return rows


def _pairs(total: int, count: int) -> list[tuple[int, int]]:
    """Frames of each of so many equal parts and of the next: those a quarter into the part, and those three quarters into it.
    Where flow fails is chance, and twice as many chances even out; showing every picture twice changes none of them."""
    places = [[(4 * i + quarter) * total // (4 * count) for i in range(count)] for quarter in (1, 3)]
    return [pair for pairs in zip(*(itertools.pairwise(place) for place in places), strict=True) for pair in pairs]


def _throughout(motion_M: np.ndarray) -> float:
    parts = np.array([part.mean() for part in np.array_split(motion_M, min(PARTS, len(motion_M)))])
    return float((parts**POWER).mean() ** (1 / POWER))


def _step(footage: Footage, a: int, b: int) -> tuple[float, float, float, float]:
    if np.array_equal(footage.luma_THW[a], footage.luma_THW[b]):
        return 0.0, 0.0, 0.0, 0.0
    flow, back = _flow(footage, a, b), _flow(footage, b, a)
    off = off_the_way_back(flow, back)
    camera, differs = _camera(flow, off <= 1, footage.luma_THW[a], footage.luma_THW[b])
    percent = 100 / footage.diagonal_px
    sure = 1 / (1 + off)
    bend = np.linalg.norm(camera - camera.mean((0, 1)), axis=-1)
    doubt = BEND_SHARE * bend + np.linalg.norm(camera, axis=-1) * (differs <= EXPLAINED_LEVELS)
    own = np.maximum(0, np.linalg.norm(flow - camera, axis=-1) - doubt) * _stays(camera) * sure * percent
    whole = np.linalg.norm(flow, axis=-1) * sure * percent
    return _top(own), float(np.linalg.norm(camera, axis=-1).mean() * percent), _top(whole), float((own > 0.5).mean())


def _camera(flow: Flow, sure_HW: np.ndarray, first_HW: np.ndarray, second_HW: np.ndarray) -> tuple[Flow, np.ndarray]:
    """The flow of the camera's affine map, and how many levels [H, W] the second picture, pulled back along it, is off the
    first."""
    import cv2

    maps = [affine_flow(fit_camera(flow, seen), *flow.shape[:2]) for seen in (sure_HW, sure_HW & _textured(first_HW))]
    differ = [cv2.blur(np.abs(pull(second_HW, camera) - first_HW), (3, 3)) for camera in maps]
    better = int(differ[1].mean() < LEFT_SHARE * differ[0].mean())
    return maps[better], differ[better]


def _textured(luma_HW: np.ndarray) -> np.ndarray:
    import cv2

    mean, square = (cv2.blur(plane, (TEXTURE_PX, TEXTURE_PX)) for plane in (luma_HW, luma_HW**2))
    return np.asarray(square - mean**2 > TEXTURE_LEVELS**2)


def _stays(flow_HW2: Flow) -> np.ndarray:
    """Where what is seen is still in the picture afterwards, by this flow: where it is not, flow is a guess."""
    height, width = flow_HW2.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = x + flow_HW2[..., 0], y + flow_HW2[..., 1]
    return np.asarray((to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1))


def _flow(footage: Footage, a: int, b: int) -> Flow:
    """The mean of the flow of the pictures as they are and softened: where thin lines on white decide, good compression
    changes either much, and both little."""
    return np.asarray((footage.flow(a, b) + footage.flow(a, b, soft=True)) / 2, np.float32)


def _top(length_HW: np.ndarray) -> float:
    count = max(1, round(TOP_SHARE * length_HW.size))
    return float(np.partition(length_HW.ravel(), -count)[-count:].mean())
