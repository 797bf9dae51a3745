"""What the rows of `ablations.py` measure: one value of one shot of a held-out clip, made under the row's conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from checkpoint_shots import Checkpoint, motion_area
from looks import LOOKS, subtitle_area
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Made:
    """One shot of a held-out clip: what was to be made, what was made, and its value; NaN where it has none.

    `detail` is the fine detail over that of the truth as the decoder, given the same guides, can show it: a value that
    is bought with blur is seen in it.
    """

    value: float
    detail: float = math.nan
    truth_THWC: NDArray[np.uint8]
    made_THWC: NDArray[np.uint8]


#: measure(checkpoint, rendered clip, seed)
Measure = Callable[[Checkpoint, Any, int], Made]


def in_between_distance(look: str, *, at_half: bool = False) -> Measure:
    """Perceptual distance to the truth of the frames between a first and a last guide, of clips in a look; `at_half`: of
    both when they have been shrunk to half the side and enlarged again, so that no arm gains by sharpness alone."""

    def distance(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
        from anisora.measures.perceptual import perceptual_distance
        from anisora.measures.similarity import hf_energy

        truth = LOOKS[look](clip)
        ends = {0: truth[0], len(truth) - 1: truth[-1]}
        made = shot_shown_large(checkpoint, clip.caption, ends, seed)
        best = hf_energy(checkpoint.decode(checkpoint.encode(truth), ends)[1:-1])
        compared = [through_half(frames) if at_half else frames for frames in (made, truth)]
        return Made(
            value=float(perceptual_distance(*compared)[1:-1].mean()),
            detail=hf_energy(made[1:-1]) / best if best else math.nan,
            truth_THWC=truth,
            made_THWC=made,
        )

    return distance


def shot_shown_large(
    checkpoint: Checkpoint, caption: str, guides: dict[int, NDArray[np.uint8]], seed: int
) -> NDArray[np.uint8]:
    """The shot at the guides' size: an arm that makes smaller ones gets smaller guides, and is enlarged for the screen."""
    height, width = next(iter(guides.values())).shape[:2]
    small = {at: resized(guide[None], checkpoint.size_px)[0] for at, guide in guides.items()}
    made, _ = checkpoint.shot(caption, small, seed)
    return resized(made, (width, height))


def through_half(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames shrunk to half the side and enlarged again."""
    height, width = frames_THWC.shape[1:3]
    return resized(resized(frames_THWC, (width // 2, height // 2)), (width, height))


def resized(frames_THWC: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The frames at another size (width, height), or as they are."""
    import cv2

    width, height = size_px
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    method = cv2.INTER_AREA if width < frames_THWC.shape[2] else cv2.INTER_LANCZOS4
    return np.stack([cv2.resize(frame, size_px, interpolation=method) for frame in frames_THWC])


def illustration_distance(look: str) -> Measure:
    """Perceptual distance to the truth of what follows a drawing in a look."""

    def distance(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
        from anisora.measures.perceptual import perceptual_distance

        truth = LOOKS[look](clip)
        made, _ = checkpoint.shot(clip.caption, {0: truth[0]}, seed)
        value = float(perceptual_distance(made, truth)[1:].mean())
        return Made(value=value, truth_THWC=truth, made_THWC=made)

    return distance


def marks(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
    """How far what follows a first frame without letters is from the truth, in grey levels, where a subtitle would stand.

    A small model writes smears where it expects letters, which no detector takes for text: CRAFT found as much in either
    arm. Other errors are in the area too, and in both arms.
    """
    truth, area_HW = clip.video_THWC, subtitle_area(clip)
    made, _ = checkpoint.shot(clip.caption, {0: truth[0]}, seed)
    error = np.abs(made[1:, area_HW].astype(np.float64) - truth[1:, area_HW]).mean()
    return Made(value=float(error), truth_THWC=truth, made_THWC=made)


def leakage(look: str) -> Measure:
    """How much changes outside of the motion area over how much inside, without compositing; NaN where nothing moved.

    Not the paper's precision: a shot in which little moves at all is precise.
    """

    def leaked(checkpoint: Checkpoint, clip: Any, seed: int) -> Made:
        from anisora.measures.motion import mask_motion

        truth, area_HW = LOOKS[look](clip), motion_area(clip.truth)
        if not area_HW.any() or area_HW.all():
            return Made(value=math.nan, truth_THWC=truth, made_THWC=truth)
        mask = area_HW.astype(np.float32)
        made, _ = checkpoint.shot(clip.caption, {0: truth[0]}, seed, motion_mask=mask, composite=False)
        return Made(value=mask_motion(made, area_HW).leakage, truth_THWC=truth, made_THWC=made)

    return leaked
