"""The checked plan of a shot: which pixels are given, what they show, and where every guide lands.

Generation and training make their conditions from the same plan, so a rule that holds here holds in both. One
convention throughout: `keep` is 1 where a pixel is given and 0 where it is to be generated.

    guides         keep = 1 over their whole frame
    motion area    elsewhere keep = 1 outside the area, showing R, the earliest guide; inside it keep = 0.
                   Outside the area every guide frame shows R too: what other guides show there is reported, not used
    keep video     keep = the keep mask, showing the video; a guide wins on its frame
    neither        keep = 0

    T pixel frames, H W pixels, C = 3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anisora import geometry
from anisora.conditioning import inputs, mask
from anisora.errors import BadMask, BadPosition, BadRequest
from anisora.geometry import Strides
from anisora.records import Guide

if TYPE_CHECKING:
    import PIL.Image

#: families whose guides are encoded one by one, so that a latent frame can hold one only
SLOT_FAMILIES = ("cogvideox", "cogvideox_mask")
FAMILIES = ("wan", "vace", *SLOT_FAMILIES)
SNAPS = ("exact", "anisora")
DEFAULT_STRIDES = Strides()


@dataclass(frozen=True, kw_only=True)
class Landing:
    """Where a guide landed: pixel frame, latent frame and channel within it (None where a family has slots only).

    `static_difference_levels` is how far the guide is from the still area outside the motion area on average, in
    8-bit levels: None without such an area or for the guide that the still area shows.
    """

    asked: int | str
    frame: int
    slot: int
    channel: int | None
    strength: float = 1.0
    static_difference_levels: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionPlan:
    """What is given of a shot of T frames, all float32, on the CPU unless made of a clip elsewhere.

    video_TCHW       the given pixels in [-1, 1]; exactly 0 (mid-grey) where nothing is given
    keep_T1HW        1 given, 0 to generate
    strength_T       the guides' strengths, 1 on all other frames
    motion_T1HW      the area that may change, in [0, 1]; None if there is none
    still_TCHW       what stays outside that area: the earliest guide repeated, or the kept video
    feather_px       how far the blend reaches into the area
    reference_frame  the frame whose picture the image branch sees; None without any picture
    landings         in the order of the guides
    """

    video_TCHW: Tensor
    keep_T1HW: Tensor
    strength_T: Tensor
    motion_T1HW: Tensor | None
    still_TCHW: Tensor | None
    feather_px: int
    reference_frame: int | None
    landings: tuple[Landing, ...]
    strides: Strides
    snap: str
    guides: tuple[Guide, ...] = ()

    @property
    def num_frames(self) -> int:
        return self.video_TCHW.shape[0]

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)"""
        return self.video_TCHW.shape[-1], self.video_TCHW.shape[-2]

    @cached_property
    def blend_T1HW(self) -> Tensor | None:
        """How much of the generated picture shows in the composite, in [0, 1]: exactly 0 outside the area."""
        if self.motion_T1HW is None:
            return None
        if self.feather_px == 0:
            return mask.area_of(self.motion_T1HW).float()
        return mask.feather_T1HW(self.motion_T1HW, self.feather_px)

    @property
    def reference_image(self) -> PIL.Image.Image | None:
        """The picture for the image branch, at the shot's size, as the shot shows it."""
        if self.reference_frame is None:
            return None
        from PIL import Image

        picture_HWC = (self.video_TCHW[self.reference_frame].permute(1, 2, 0) + 1) * 127.5
        return Image.fromarray(picture_HWC.round().to(torch.uint8).cpu().numpy())


def plan(
    *,
    num_frames: int,
    size_px: tuple[int, int],
    guides: Sequence[Guide] = (),
    motion_mask: Any = None,
    video: Any = None,
    keep_mask: Any = None,
    fps: Fraction | int = 16,
    strides: Strides = DEFAULT_STRIDES,
    family: str = "wan",
    fit: str = "cover",
    snap: str = "exact",
    feather_px: int | None = None,
) -> ConditionPlan:
    """The checked plan of a shot of `num_frames` at `size_px` = (width, height).

    A guide's `image` is a path, a PIL picture or uint8 [H, W, 3]; `motion_mask` (1 = may move) and `keep_mask`
    (1 = given) are a path, a PIL picture, [H, W] or [T, H, W], bool, uint8 or float in [0, 1]; `video` is uint8
    [T, H, W, 3]. `fit` says how pictures and masks of another aspect come to the shot's: "cover" scales and crops the
    centre, "contain" scales and letterboxes, the bars being part of the picture. `snap="anisora"` moves guides to
    multiples of 8, for checkpoints trained so. `feather_px` defaults to a 64th of the shorter side.

    Raises BadSize for an illegal size or length; BadPosition for a guide outside the shot, two guides on one frame,
    and for CogVideoX two guides in one latent frame; BadMask for a mask of another aspect or length or that selects
    nothing; BadVideo, BadImage; BadRequest for combinations that mean nothing.
    """
    geometry.check_num_frames(num_frames, strides.temporal)
    geometry.check_size(size_px, strides.size_multiple_px)
    _check_combination(guides, motion_mask, video, keep_mask, family, snap, fit)

    frames = [_frame_of(guide, num_frames, fps, snap) for guide in guides]
    _check_apart(guides, frames, strides, family)

    video_TCHW = torch.zeros(num_frames, 3, size_px[1], size_px[0])
    motion_T1HW = keep_T1HW = None
    if video is not None:
        video_THWC = inputs.read_video(video, num_frames)
        keep_THW = inputs.read_mask(keep_mask, num_frames, "keep mask")
        inputs.check_same_aspect(keep_THW, video_THWC.shape[2:0:-1], "keep mask", "the video")
        video_TCHW = inputs.to_float_TCHW(inputs.fitted(video_THWC, size_px, fit))
        keep_T1HW = _mask_T1HW(keep_THW, num_frames, size_px, fit)
        _check_keeps_some(keep_T1HW)

    pictures_HWC = [inputs.read_picture(guide.image) for guide in guides]
    for frame, picture_HWC in zip(frames, pictures_HWC, strict=True):
        video_TCHW[frame] = inputs.to_float_TCHW(inputs.fitted(picture_HWC[None], size_px, fit))[0]

    if motion_mask is not None:
        motion_THW = inputs.read_mask(motion_mask, num_frames, "motion mask")
        earliest_HWC = pictures_HWC[frames.index(min(frames))]
        inputs.check_same_aspect(motion_THW, earliest_HWC.shape[1::-1], "motion mask", "the earliest guide")
        motion_T1HW = _mask_T1HW(motion_THW, num_frames, size_px, fit)
        _check_moves_some(motion_T1HW)

    made = plan_from_tensors(
        video_TCHW,
        keep_T1HW,
        guide_frames=frames,
        motion_T1HW=motion_T1HW,
        strengths=[guide.strength for guide in guides],
        strides=strides,
        family=family,
        snap=snap,
        feather_px=feather_px,
    )
    landings = tuple(replace(at, asked=guide.frame) for at, guide in zip(made.landings, guides, strict=True))
    return replace(made, landings=landings, guides=tuple(guides))


def plan_from_tensors(
    video_TCHW: Tensor,
    keep_T1HW: Tensor | None = None,
    *,
    guide_frames: Sequence[int] = (),
    motion_T1HW: Tensor | None = None,
    strengths: Sequence[float] | None = None,
    strides: Strides = DEFAULT_STRIDES,
    family: str = "wan",
    snap: str = "exact",
    feather_px: int | None = None,
) -> ConditionPlan:
    """The plan of a clip that is already at size: training's way in, and what `plan` ends in.

    `video_TCHW` in [-1, 1] shows at each of `guide_frames` (distinct, in the shot, in the order listed) the guide's
    picture; all else of it is used only where `keep_T1HW` keeps it. Either a keep mask or a motion area, float or bool,
    [T or 1, 1, H, W]. The plan lies on the video's device. Nothing is checked here but what would go unnoticed.
    """
    num_frames, frames = video_TCHW.shape[0], list(guide_frames)
    strengths = [1.0] * len(frames) if strengths is None else strengths
    strength_T = video_TCHW.new_ones(num_frames)
    strength_T[frames] = video_TCHW.new_tensor(strengths)

    still_TCHW: Tensor | None = None
    differences: list[float | None] = [None] * len(frames)
    given_T1HW, shown_TCHW = torch.zeros_like(video_TCHW[:, :1]), video_TCHW
    if keep_T1HW is not None:
        motion_T1HW, still_TCHW = 1 - keep_T1HW.float(), video_TCHW
    elif motion_T1HW is not None:
        still_TCHW = video_TCHW[min(frames)].expand_as(video_TCHW)
    if motion_T1HW is not None and still_TCHW is not None:
        motion_T1HW = motion_T1HW.float().expand(num_frames, -1, -1, -1)
        static_T1HW = ~mask.area_of(motion_T1HW)
        given_T1HW, shown_TCHW = static_T1HW.float(), torch.where(static_T1HW, still_TCHW, video_TCHW)
        if keep_T1HW is None:
            differences = [_levels_apart(video_TCHW[p], still_TCHW[p], static_T1HW[p]) for p in frames]
    given_T1HW[frames] = 1

    return ConditionPlan(
        # not shown * given: that makes -0 of negative pixels
        video_TCHW=torch.where(given_T1HW > 0, shown_TCHW, 0.0),
        keep_T1HW=given_T1HW,
        strength_T=strength_T,
        motion_T1HW=motion_T1HW,
        still_TCHW=still_TCHW,
        feather_px=_feather_px(video_TCHW, feather_px) if keep_T1HW is None else 0,
        reference_frame=_reference_frame(frames, given_T1HW, snap),
        landings=tuple(
            Landing(
                asked=frame,
                frame=frame,
                slot=slot,
                channel=None if family == "cogvideox" else channel,
                strength=strength,
                static_difference_levels=None if frame == min(frames) else difference,
            )
            for (frame, slot, channel), strength, difference in zip(
                geometry.landings(frames, strides.temporal), strengths, differences, strict=True
            )
        ),
        strides=strides,
        snap=snap,
    )


def _frame_of(guide: Guide, num_frames: int, fps: Fraction | int, snap: str) -> int:
    frame = geometry.resolve_position(guide.frame, num_frames, fps)
    return geometry.snap_to_eighth(frame, num_frames) if snap == "anisora" else frame


def _check_combination(
    guides: Sequence[Guide], motion_mask: Any, video: Any, keep_mask: Any, family: str, snap: str, fit: str
) -> None:
    for what, got, known in (("model family", family, FAMILIES), ("snap", snap, SNAPS), ("fit", fit, inputs.FITS)):
        if got not in known:
            raise BadRequest(f"unknown {what}", got=got, expected=", ".join(known))
    if (video is None) != (keep_mask is None):
        missing = "a keep mask" if keep_mask is None else "a video"
        raise BadRequest("a video and its keep mask come together", got=f"no {missing[2:]}", expected=missing)
    if motion_mask is not None and video is not None:
        raise BadRequest(
            "a motion mask and a keep mask both say what may change",
            got="both",
            expected="one of them",
            hint="draw the motion area into the keep mask (black = may change)",
        )
    if motion_mask is not None and not guides:
        raise BadRequest(
            "a motion mask without a guide", got="no guide", expected="the picture that stays outside the area"
        )
    if video is not None and family in SLOT_FAMILIES:
        raise BadRequest(
            "this model family cannot keep parts of a video", got=family, expected="wan or vace", hint="guides instead"
        )


def _check_apart(guides: Sequence[Guide], frames: Sequence[int], strides: Strides, family: str) -> None:
    """Raises BadPosition, naming both, for two guides on one frame or, where guides fill slots, in one slot."""
    taken: dict[int, int] = {}
    for index, frame in enumerate(frames):
        place = geometry.slot(frame, strides.temporal) if family in SLOT_FAMILIES else frame
        if place not in taken:
            taken[place] = index
            continue
        first = taken[place]
        both = " and ".join(f"guide {i + 1} at {guides[i].frame} (frame {frames[i]})" for i in (first, index))
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


def _mask_T1HW(mask_THW: Any, num_frames: int, size_px: tuple[int, int], fit: str) -> Tensor:
    fitted_THWC = inputs.fitted(mask_THW[..., None], size_px, fit)
    mask_T1HW = torch.from_numpy(fitted_THWC).permute(0, 3, 1, 2).clamp(0, 1)
    return mask_T1HW.expand(num_frames, -1, -1, -1)


def _check_moves_some(motion_T1HW: Tensor) -> None:
    if not mask.area_of(motion_T1HW).any():
        raise BadMask(
            "an empty motion mask: nothing may move",
            got=f"at most {float(motion_T1HW.max()):.2f}",
            expected=f"{mask.AREA_THRESHOLD} or more somewhere (white = may move)",
            hint="inverting it, or no motion mask",
        )


def _check_keeps_some(keep_T1HW: Tensor) -> None:
    given = ~mask.area_of(1 - keep_T1HW)
    if given.any() and not given.all():
        return
    raise BadMask(
        "a keep mask that keeps " + ("everything" if given.any() else "nothing"),
        got="white" if given.any() else "black",
        expected="white where the video stays, black where it is made anew",
        hint="inverting it, or leaving the video out" if not given.any() else "painting the part to change black",
    )


def _levels_apart(picture_3HW: Tensor, still_3HW: Tensor, static_1HW: Tensor) -> float | None:
    """Mean absolute difference of two pictures over the static pixels, in 8-bit levels; None without such pixels."""
    if not static_1HW.any():
        return None
    return float((picture_3HW - still_3HW).abs().mean(0)[static_1HW[0]].mean() * 127.5)


def _reference_frame(frames: Sequence[int], given_T1HW: Tensor, snap: str) -> int | None:
    """The earliest guide (anisora: the first listed); without guides the frame of which most is kept, if any is."""
    if frames:
        return frames[0] if snap == "anisora" else min(frames)
    share_T = given_T1HW.flatten(1).mean(1).tolist()
    return share_T.index(max(share_T)) if max(share_T) > 0 else None


def _feather_px(video_TCHW: Tensor, feather_px: int | None) -> int:
    return max(1, round(min(video_TCHW.shape[-2:]) / 64)) if feather_px is None else feather_px
