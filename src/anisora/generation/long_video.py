"""Shots of any length from a network with one length: overlapping windows that share guides, and what the joins look like.

    window 0   |0 ............... 32|
    window 1                |28 ............... 60|      28..32 are made once; whichever window comes later has them as guides
    shot       |0 ............... 32|33 ........ 60|      the join is at 33

The shot grows from where most is known: first the window that the user's guides leave least to invent, then its neighbours
to the left and to the right. A window that ends in made frames and in a guide is an in-between, so light and motion
arrive where the shot goes on; a shot with a last frame alone grows backwards.
Windows start on whole latent frames, so that every guide keeps its place in its slot. One window is the plain case:
nothing here then does anything.

    T pixel frames, H W pixels
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from anisora.errors import BadRequest
from anisora.records import Guide

#: made(window: Material, window index) -> (frames_THWC uint8, ShotOutput of the pipeline)
MakeWindow = Callable[["Material", int], tuple[np.ndarray, Any]]

#: weights of red, green and blue in brightness (ITU-R BT.709)
_LUMA = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a shot, or one window of it, is made from: guides at whole frames, and arrays in time.

    motion_mask and keep_mask: float [1 or T, H, W]; video_THWC uint8.
    """

    num_frames: int
    guides: tuple[Guide, ...]
    motion_mask_THW: np.ndarray | None = None
    video_THWC: np.ndarray | None = None
    keep_mask_THW: np.ndarray | None = None


@dataclass(kw_only=True)
class LongShot:
    """All windows put together: frames uint8 [T, H, W, 3], one pipeline output a window in the order in which they were
    made, each guide's PSNR, the joins (first frames of another window's stretch), whether a window's light was matched."""

    frames_THWC: np.ndarray
    outputs: list[Any] = field(default_factory=list)
    psnr_db: dict[int, float | None] = field(default_factory=dict)
    joins: list[int] = field(default_factory=list)
    matched: list[bool] = field(default_factory=list)


def plan_windows(material: Material, window: int, unit: int = 4) -> list[range]:
    """The windows of a shot in the order in which they are made; see `windows` and `order`."""
    return order(windows(material.num_frames, window, unit), [int(guide.frame) for guide in material.guides])


def windows(num_frames: int, window: int, unit: int = 4) -> list[range]:
    """The frames of the shot that each window shows, first to last.

    `num_frames` and `window` are unit * n + 1; so is the least overlap, about an eighth of a window and at least one unit.
    As few windows as that allows, spread evenly: a last window with a few frames of its own would have to reach the last
    guide in a jump. Starts are multiples of `unit`: every frame keeps its place in its latent frame. Raises BadRequest
    where a window is too short to share anything and still go on.
    """
    if num_frames <= window:
        return [range(num_frames)]
    overlap = 1 + unit * max(1, (window - 1) // unit // 8)
    if window <= overlap:
        raise BadRequest(
            "a window too short to overlap", got=f"{window} frames", expected=f"at least {overlap + unit} frames",
            hint=f"--window {overlap + unit}",
        )  # fmt: skip
    units = (num_frames - window) // unit
    gaps = math.ceil((num_frames - window) / (window - overlap))
    starts = [unit * (i * units // gaps) for i in range(gaps + 1)]
    return [range(start, start + window) for start in starts]


def order(pieces: Sequence[range], guide_frames: Sequence[int]) -> list[range]:
    """The windows in the order in which they are made.

    First the one whose farthest frame is nearest to a guide, then always the neighbour on the left or on the right whose
    farthest frame is nearest to a guide or to a made frame; of equals the earlier in time. Each shares frames with the
    one it is made beside, so that motion carries over.
    """
    known = set(guide_frames)
    first = last = min(range(len(pieces)), key=lambda at: _farthest(pieces[at], known))
    result = [pieces[first]]
    while len(result) < len(pieces):
        known |= set(result[-1])
        at = min(
            (at for at in (first - 1, last + 1) if 0 <= at < len(pieces)), key=lambda at: _farthest(pieces[at], known)
        )
        first, last = min(first, at), max(last, at)
        result.append(pieces[at])
    return result


def _farthest(frames: range, known: set[int]) -> float:
    """How far the frame of a window that is farthest from any known frame of it lies from that; inf if none is known."""
    here = sorted(known & set(frames))
    if not here:
        return math.inf
    gaps = [(b - a) // 2 for a, b in pairwise(here)]
    return max(here[0] - frames.start, frames.stop - 1 - here[-1], *gaps)


def make(material: Material, planned: Sequence[range], make_window: MakeWindow, *, step: int = 1) -> LongShot:
    """The whole shot, window by window as planned.

    Of the frames made before, those at every `step`-th place of the window are given: all of them, or the last of each
    latent frame where a family holds one guide a latent frame.
    """
    shot: LongShot | None = None
    by_T = np.full(material.num_frames, -1)
    for index, frames in enumerate(planned):
        here = slice(frames.start, frames.stop)
        is_made_T = by_T[here] >= 0
        before_THWC = None if shot is None else shot.frames_THWC[here]
        part = _window(material, frames, before_THWC, is_made_T, step)
        made_THWC, output = make_window(part, index)
        psnr_db = _guide_psnr(material, frames, is_made_T, made_THWC, output.plan)
        if shot is None:
            shot = LongShot(frames_THWC=np.zeros((material.num_frames, *made_THWC.shape[1:]), np.uint8))
        elif before_THWC is not None:
            made_THWC, matched = _match(before_THWC, made_THWC, is_made_T, output.plan, part)
            shot.matched.append(matched)
        shot.frames_THWC[here][~is_made_T] = made_THWC[~is_made_T]
        by_T[here][~is_made_T] = index
        shot.outputs.append(output)
        shot.psnr_db.update(psnr_db)
    assert shot is not None
    shot.joins = [int(t) for t in np.flatnonzero(np.diff(by_T)) + 1]
    return shot


def _window(
    material: Material, frames: range, before_THWC: np.ndarray | None, is_made_T: np.ndarray, step: int
) -> Material:
    """What one window is made from: its stretch of everything, and the frames made before as guides."""
    places = [] if before_THWC is None else [p for p in range(0, len(frames), step) if is_made_T[p]]
    carried = [Guide(before_THWC[p], p) for p in places]  # type: ignore[index]  # places are of what was made
    own = [
        Guide(guide.image, int(guide.frame) - frames.start, guide.strength)
        for guide in material.guides
        if int(guide.frame) in frames and not is_made_T[int(guide.frame) - frames.start]
    ]
    return Material(
        num_frames=len(frames),
        guides=tuple(sorted([*carried, *own], key=lambda guide: int(guide.frame))),
        motion_mask_THW=_stretch(material.motion_mask_THW, frames),
        video_THWC=_stretch(material.video_THWC, frames),
        keep_mask_THW=_stretch(material.keep_mask_THW, frames),
    )


def _stretch(array: np.ndarray | None, frames: range) -> np.ndarray | None:
    """The window's part of an array in time; a still one stays as it is."""
    return array if array is None or len(array) == 1 else array[frames.start : frames.stop]


def _guide_psnr(
    material: Material, frames: range, is_made_T: np.ndarray, made_THWC: np.ndarray, plan: Any
) -> dict[int, float | None]:
    """Frame of the shot -> PSNR in dB against the fitted guide, for the guides that this window made."""
    result = {}
    for frame in (int(guide.frame) for guide in material.guides):
        local = frame - frames.start
        if frame in frames and not is_made_T[local]:
            given_CHW = plan.video_TCHW[local].permute(1, 2, 0).numpy()
            given_HWC = np.rint((given_CHW + 1) * 127.5).astype(np.uint8)
            result[frame] = psnr_db(made_THWC[local], given_HWC)
    return result


def psnr_db(a: np.ndarray, b: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio of two uint8 pictures in dB; None when they are equal (it is infinite)."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return None if error == 0 else float(10 * np.log10(255**2 / error))


# -- the joins ---------------------------------------------------------------------------------------------------------


def _match(
    before_THWC: np.ndarray, made_THWC: np.ndarray, is_made_T: np.ndarray, plan: Any, part: Material
) -> tuple[np.ndarray, bool]:
    """The window with its light moved to that of its neighbours, fading out until the next guide; only if that helps.

    The offset is what the two versions of the shared frames differ by, at either end. Windows with pixels that must stay
    exact (a motion area, a kept video) are left alone.
    """
    if plan.still_TCHW is not None:
        return made_THWC, False
    apart_TC = (before_THWC.astype(np.float64) - made_THWC).mean((1, 2))
    offset_C = {-1: np.zeros(3), len(made_THWC): np.zeros(3)}
    offset_C |= {int(guide.frame): np.zeros(3) for guide in part.guides if not is_made_T[int(guide.frame)]}
    for first, last in _runs(is_made_T):
        offset_C |= dict.fromkeys((first, last), apart_TC[first : last + 1].mean(0))
    at = sorted(offset_C)
    moved_THWC = made_THWC + np.stack(
        [np.interp(np.arange(len(made_THWC)), at, [offset_C[t][c] for t in at]) for c in range(3)], axis=-1
    ).reshape(-1, 1, 1, 3)
    moved_THWC = np.clip(np.rint(moved_THWC), 0, 255).astype(np.uint8)
    seen = [np.where(is_made_T[:, None, None, None], before_THWC, version) for version in (made_THWC, moved_THWC)]
    steps = [sum(abs(_brightness(x[t]) - _brightness(x[t - 1])) for t in _seams(is_made_T)) for x in seen]
    return (moved_THWC, True) if steps[1] < steps[0] else (made_THWC, False)


def _runs(is_made_T: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of every stretch of made frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_made_T.astype(int), [0]])))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def _seams(is_made_T: np.ndarray) -> list[int]:
    """Indices at which what was made before begins or ends."""
    return [int(t) for t in np.flatnonzero(np.diff(is_made_T.astype(int))) + 1]


def _brightness(frame_HWC: np.ndarray) -> float:
    """Mean brightness of a frame in 8-bit levels."""
    return float(frame_HWC.reshape(-1, 3).mean(0) @ _LUMA)


def seam_report(frames_THWC: np.ndarray, joins: Sequence[int]) -> list[dict[str, float]]:
    """How each join (the first frame of a new window) compares with the steps inside windows.

    brightness_step, motion_step: change of mean brightness, and mean absolute change of pixels, from the frame before,
    in 8-bit levels; the `_usual` values are the median over all other steps, `_largest` their largest. A seam shows when
    a join's step stands out from both.
    """
    if not joins:
        return []
    brightness_T = np.array([_brightness(frame) for frame in frames_THWC])
    steps = {
        "brightness": np.abs(np.diff(brightness_T)),
        "motion": np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames_THWC)]),
    }
    inside = np.array([step + 1 not in joins for step in range(len(frames_THWC) - 1)])
    report = []
    for join in joins:
        entry: dict[str, float] = {"frame": join}
        for name, values in steps.items():
            entry[f"{name}_step"] = round(float(values[join - 1]), 4)
            entry[f"{name}_usual"] = round(float(np.median(values[inside])), 4)
            entry[f"{name}_largest"] = round(float(values[inside].max()), 4)
        report.append(entry)
    return report
