"""What a shot's conditions must fulfil beyond each part being sound: no contradictions, collisions or empty masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from anisora import geometry
from anisora.conditioning.mask import AREA_THRESHOLD, area_of
from anisora.errors import BadMask, BadPosition, BadRequest
from anisora.geometry import Strides
from anisora.records import Guide

#: families whose guides are encoded one by one, so that a latent frame can hold one only
SLOT_FAMILIES = ("cogvideox", "cogvideox_mask")

CHOICES = {
    "family": ("wan", "vace", *SLOT_FAMILIES),
    "snap": ("exact", "anisora"),
    "fit": ("cover", "contain"),
}


def check_choices(**chosen: str) -> None:
    """Raises BadRequest for a value that is none of its `CHOICES`."""
    for name, got in chosen.items():
        if got not in CHOICES[name]:
            raise BadRequest(f"unknown {name}", got=repr(got), expected=", ".join(CHOICES[name]))


def check_combination(guides: Sequence[Guide], motion_mask: Any, video: Any, keep_mask: Any, family: str) -> None:
    """Raises BadRequest for parts that contradict each other, lack one another, or that the family cannot use."""
    if (video is None) != (keep_mask is None):
        got, missing = ("a video", "its keep mask") if keep_mask is None else ("a keep mask", "its video")
        raise BadRequest("a video and its keep mask come together", got=f"{got} alone", expected=f"{missing} too")
    if motion_mask is not None and video is not None:
        raise BadRequest(
            "a motion mask and a keep mask both say what may change",
            got="both",
            expected="one of them",
            hint="painting the motion area black in the keep mask",
        )
    if motion_mask is not None and not guides:
        raise BadRequest(
            "a motion mask without a guide", got="no guide", expected="the picture that stays outside the area"
        )
    if video is not None and family in SLOT_FAMILIES:
        raise BadRequest(
            "this model family cannot keep parts of a video", got=family, expected="wan or vace", hint="guides instead"
        )


def check_apart(frames: Sequence[int], asked: Sequence[int | str], strides: Strides, family: str) -> None:
    """Raises BadPosition, naming both, for two guides on one frame or, where guides fill slots, in one slot."""
    taken: dict[int, int] = {}
    for index, frame in enumerate(frames):
        place = geometry.slot(frame, strides.temporal) if family in SLOT_FAMILIES else frame
        if place not in taken:
            taken[place] = index
            continue
        first = taken[place]
        both = " and ".join(f"guide {i + 1} at {asked[i]} (frame {frames[i]})" for i in (first, index))
        if frames[first] == frame:
            raise BadPosition(
                "two guides on one frame", got=both, expected="one guide a frame", hint="another position"
            )
        together = geometry.slot_frames(place, strides.temporal)
        raise BadPosition(
            f"two guides in one latent frame, which {family} cannot tell apart",
            got=both,
            expected=f"one guide among frames {together[0]} to {together[-1]}",
            hint=f"a frame before {together[0]} or after {together[-1]}",
        )


def check_moves_some(motion_T1HW: Tensor) -> None:
    """Raises BadMask for a motion mask without any pixel of the area."""
    if not area_of(motion_T1HW).any():
        raise BadMask(
            "an empty motion mask: nothing may move",
            got=f"at most {float(motion_T1HW.max()):.2f}",
            expected=f"{AREA_THRESHOLD} or more somewhere (white = may move)",
            hint="inverting it, or no motion mask",
        )


def check_keeps_some(keep_T1HW: Tensor) -> None:
    """Raises BadMask for a keep mask that leaves nothing of the video, or nothing to do."""
    given = ~area_of(1 - keep_T1HW)
    if given.any() and not given.all():
        return
    raise BadMask(
        "a keep mask that keeps " + ("everything" if given.any() else "nothing"),
        got="white" if given.any() else "black",
        expected="white where the video stays, black where it is made anew",
        hint="inverting it, or leaving the video out" if not given.any() else "painting the part to change black",
    )
