"""Shots of any length from a network with one length: overlapping windows that share guides, and what the joins look like.

    window 0   |0 ............... 32|
    window 1                |28 ............... 60|      28..32 made by window 0 are guides of window 1
    shot       |0 ............... 32|33 ........ 60|      the join is at 33

The last frames of a window are given to the next one as guides, so motion and light carry over; a user's guides land in
the window that makes their frame. Windows start on whole latent frames, so that every guide keeps its place in its slot.
One window is the plain case: nothing here then does anything.

    T pixel frames, H W pixels
"""

from __future__ import annotations

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

    motion_mask and keep_mask: float [1 or T, H, W]; video_THWC uint8. `first_own`: frames before it are given by the
    window before.
    """

    num_frames: int
    guides: tuple[Guide, ...]
    motion_mask_THW: np.ndarray | None = None
    video_THWC: np.ndarray | None = None
    keep_mask_THW: np.ndarray | None = None
    first_own: int = 0


@dataclass(kw_only=True)
class LongShot:
    """All windows put together: frames uint8 [T, H, W, 3], one pipeline output a window, each guide's PSNR, the joins."""

    frames_THWC: np.ndarray
    outputs: list[Any] = field(default_factory=list)
    psnr_db: dict[int, float | None] = field(default_factory=dict)
    joins: list[int] = field(default_factory=list)
    matched: list[bool] = field(default_factory=list)


def windows(num_frames: int, window: int, unit: int = 4) -> list[tuple[range, int]]:
    """(frames of the shot, how many of them the window before has made) for each window, first to last.

    `num_frames` and `window` are unit * n + 1; so is the overlap, about an eighth of a window and at least one unit. The
    last window ends with the shot and shares more. Starts are multiples of `unit`: every frame keeps its place in its
    latent frame. Raises BadRequest where a window is too short to share anything and still go on.
    """
    if num_frames <= window:
        return [(range(num_frames), 0)]
    overlap = 1 + unit * max(1, (window - 1) // unit // 8)
    if window <= overlap:
        raise BadRequest(
            "a window too short to overlap", got=f"{window} frames", expected=f"at least {overlap + unit} frames",
            hint=f"--window {overlap + unit}",
        )  # fmt: skip
    starts = list(range(0, num_frames - window, window - overlap)) + [num_frames - window]
    ends = [0, *(start + window for start in starts[:-1])]
    return [(range(start, start + window), max(0, end - start)) for start, end in zip(starts, ends, strict=True)]


def make(material: Material, make_window: MakeWindow, *, window: int, unit: int = 4, step: int = 1) -> LongShot:
    """The whole shot, window by window.

    Of the shared frames every `step`-th is given, from the first: all of them, or the last of each latent frame where a
    family holds one guide a latent frame.
    """
    pieces = windows(material.num_frames, window, unit)
    shot: LongShot | None = None
    for index, (frames, shared) in enumerate(pieces):
        before = None if shot is None else shot.frames_THWC[frames.start : frames.start + shared]
        part = _window(material, frames, before, step)
        made_THWC, output = make_window(part, index)
        psnr_db = _guide_psnr(material, frames, shared, made_THWC, output.plan)
        if shot is None:
            shot = LongShot(frames_THWC=np.empty((material.num_frames, *made_THWC.shape[1:]), np.uint8))
        else:
            shot.joins.append(frames.start + shared)
            made_THWC, matched = _match(shot.frames_THWC[: frames.start + shared], made_THWC, shared, output.plan, part)
            shot.matched.append(matched)
        shot.frames_THWC[frames.start + shared : frames.stop] = made_THWC[shared:]
        shot.outputs.append(output)
        shot.psnr_db.update(psnr_db)
    assert shot is not None
    return shot


def _window(material: Material, frames: range, before: np.ndarray | None, step: int) -> Material:
    """What one window is made from: its stretch of everything, and the shared frames as guides."""
    shared = 0 if before is None else len(before)
    carried = [] if before is None else [Guide(before[p], p) for p in range(0, shared, step)]
    own = [
        Guide(guide.image, int(guide.frame) - frames.start, guide.strength)
        for guide in material.guides
        if frames.start + shared <= int(guide.frame) < frames.stop
    ]
    return Material(
        num_frames=len(frames),
        guides=(*carried, *own),
        motion_mask_THW=_stretch(material.motion_mask_THW, frames),
        video_THWC=_stretch(material.video_THWC, frames),
        keep_mask_THW=_stretch(material.keep_mask_THW, frames),
        first_own=shared,
    )


def _stretch(array: np.ndarray | None, frames: range) -> np.ndarray | None:
    """The window's part of an array in time; a still one stays as it is."""
    return array if array is None or len(array) == 1 else array[frames.start : frames.stop]


def _guide_psnr(
    material: Material, frames: range, shared: int, made_THWC: np.ndarray, plan: Any
) -> dict[int, float | None]:
    """Frame of the shot -> PSNR in dB against the fitted guide, for the guides that this window made."""
    result = {}
    for guide in material.guides:
        local = int(guide.frame) - frames.start
        if shared <= local < len(frames):
            given_CHW = plan.video_TCHW[local].permute(1, 2, 0).numpy()
            given_HWC = np.rint((given_CHW + 1) * 127.5).astype(np.uint8)
            result[int(guide.frame)] = psnr_db(made_THWC[local], given_HWC)
    return result


def psnr_db(a: np.ndarray, b: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio of two uint8 pictures in dB; None when they are equal (it is infinite)."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return None if error == 0 else float(10 * np.log10(255**2 / error))


# -- the joins ---------------------------------------------------------------------------------------------------------


def _match(
    before_THWC: np.ndarray, made_THWC: np.ndarray, shared: int, plan: Any, part: Material
) -> tuple[np.ndarray, bool]:
    """The window with its light moved to that of the one before, fading out until its next guide; only if that helps.

    The offset is what the two versions of the shared frames differ by. Windows with pixels that must stay exact (a
    motion area, a kept video) are left alone.
    """
    if plan.still_TCHW is not None:
        return made_THWC, False
    offset_C = (before_THWC[-shared:].astype(np.float64) - made_THWC[:shared]).mean((0, 1, 2))
    ends = [int(guide.frame) for guide in part.guides if int(guide.frame) >= shared]
    end = min(ends, default=len(made_THWC))
    weight_T = np.clip((end - np.arange(len(made_THWC))) / max(1, end - shared + 1), 0, 1)
    moved_THWC = made_THWC + weight_T[:, None, None, None] * offset_C
    moved_THWC = np.clip(np.rint(moved_THWC), 0, 255).astype(np.uint8)
    steps = [abs(_brightness(x[shared]) - _brightness(before_THWC[-1])) for x in (made_THWC, moved_THWC)]
    return (moved_THWC, True) if steps[1] < steps[0] else (made_THWC, False)


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
