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
from anisora.conditioning import checks, inputs, mask
from anisora.geometry import Strides
from anisora.media.frames import Fit
from anisora.records import Guide

if TYPE_CHECKING:
    import PIL.Image

DEFAULT_STRIDES = Strides()


@dataclass(frozen=True, kw_only=True)
class Landing:
    """Where a guide landed: pixel frame, latent frame and channel within it (None where a family has slots only).

    `static_difference_levels` says how far the guide's own picture is from what the shot shows at its frame outside the
    motion area, on average in 8-bit levels: 0 for a guide that agrees with the earliest, None without such an area.
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
    fit: Fit = "cover",
    snap: str = "exact",
    feather_px: int | None = None,
) -> ConditionPlan:
    """The checked plan of a shot of `num_frames` at `size_px` = (width, height).

    A guide's `image` is a path, a PIL picture or uint8 [H, W, 3]; `motion_mask` (1 = may move) and `keep_mask`
    (1 = given) are a path, a PIL picture, [H, W] or [T, H, W], bool, uint8 or float in [0, 1]; `video` is a path or
    uint8 [T, H, W, 3]. `fit` says how pictures and masks of another aspect come to the shot's: "cover" scales and crops
    the centre, "contain" scales and letterboxes, the black bars being part of the picture: given with it, and never in
    the motion area. `snap="anisora"` moves guides to multiples of 8, for checkpoints trained so. `feather_px` is how
    far the composite's blend reaches into the area, a 64th of the shorter side unless said.

    Raises BadSize for an illegal size or length; BadPosition for a guide outside the shot, two guides on one frame,
    and for CogVideoX two guides in one latent frame; BadMask for a mask of another aspect or length or that selects
    nothing; BadVideo, BadImage; BadRequest for combinations that mean nothing.
    """
    geometry.check_num_frames(num_frames, strides.temporal)
    geometry.check_size(size_px, strides.size_multiple_px)
    checks.check_combination(guides, motion_mask, video, keep_mask, family)
    checks.check_choices(family=family, snap=snap, fit=fit)

    frames = [_frame_of(guide, num_frames, fps, snap) for guide in guides]

    video_TCHW = torch.zeros(num_frames, 3, size_px[1], size_px[0])
    motion_T1HW = keep_T1HW = None
    if video is not None:
        video_THWC = inputs.read_frames(video, num_frames)
        keep_THW = inputs.read_mask(keep_mask, num_frames, "keep mask")
        inputs.check_same_aspect(keep_THW, video_THWC, "keep mask", "the video")
        video_TCHW = inputs.picture_TCHW(video_THWC, size_px, fit)
        keep_T1HW = inputs.mask_T1HW(keep_THW, size_px, fit, bars=1.0)
        checks.check_keeps_some(keep_T1HW)

    pictures_THWC = [inputs.read_picture(guide.image)[None] for guide in guides]
    for frame, picture_THWC in zip(frames, pictures_THWC, strict=True):
        video_TCHW[frame] = inputs.picture_TCHW(picture_THWC, size_px, fit)[0]

    if motion_mask is not None:
        motion_THW = inputs.read_mask(motion_mask, num_frames, "motion mask")
        earliest_THWC = pictures_THWC[frames.index(min(frames))]
        inputs.check_same_aspect(motion_THW, earliest_THWC, "motion mask", "the earliest guide")
        motion_T1HW = inputs.mask_T1HW(motion_THW, size_px, fit, bars=0.0)
        checks.check_moves_some(motion_T1HW)

    made = plan_from_tensors(
        video_TCHW,
        frames,
        motion_T1HW=motion_T1HW,
        keep_T1HW=keep_T1HW,
        asked=[guide.frame for guide in guides],
        strengths=[guide.strength for guide in guides],
        strides=strides,
        family=family,
        snap=snap,
        feather_px=feather_px,
    )
    return replace(made, guides=tuple(guides))


def plan_from_tensors(
    video_TCHW: Tensor,
    guide_frames: Sequence[int] = (),
    *,
    motion_T1HW: Tensor | None = None,
    keep_T1HW: Tensor | None = None,
    asked: Sequence[int | str] | None = None,
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
    if keep_T1HW is not None and motion_T1HW is not None:
        raise ValueError("a keep mask and a motion area both say what may change: give one")
    frames = list(guide_frames)
    asked = frames if asked is None else asked
    strengths = [1.0] * len(frames) if strengths is None else strengths
    checks.check_apart(frames, asked, strides, family)

    shown_TCHW = torch.zeros_like(video_TCHW)
    shown_TCHW[frames] = video_TCHW[frames]
    still_TCHW = _still_TCHW(video_TCHW, frames, keep_T1HW, motion_T1HW)
    if keep_T1HW is not None:
        motion_T1HW = 1 - keep_T1HW.float()
    static_T1HW = torch.zeros_like(video_TCHW[:, :1], dtype=torch.bool)
    if motion_T1HW is not None and still_TCHW is not None:
        motion_T1HW = motion_T1HW.float().expand_as(static_T1HW)
        static_T1HW = ~mask.area_of(motion_T1HW)
        shown_TCHW = torch.where(static_T1HW, still_TCHW, shown_TCHW)
    given_T1HW = static_T1HW.clone()
    given_T1HW[frames] = True

    strength_T = video_TCHW.new_ones(len(video_TCHW))
    strength_T[frames] = video_TCHW.new_tensor(strengths)
    return ConditionPlan(
        video_TCHW=shown_TCHW,
        keep_T1HW=given_T1HW.float(),
        strength_T=strength_T,
        motion_T1HW=motion_T1HW,
        still_TCHW=still_TCHW,
        # beside a kept video lies what it is to be rid of: no feather may bring that back
        feather_px=_feather_px(video_TCHW, feather_px) if keep_T1HW is None else 0,
        reference_frame=_reference_frame(frames, given_T1HW, snap),
        landings=tuple(
            Landing(
                asked=asked[index],
                frame=frame,
                slot=slot,
                channel=None if family == "cogvideox" else channel,
                strength=strengths[index],
                static_difference_levels=None
                if keep_T1HW is not None
                else _levels_apart(video_TCHW[frame], shown_TCHW[frame], static_T1HW[frame]),
            )
            for index, (frame, slot, channel) in enumerate(geometry.landings(frames, strides.temporal))
        ),
        strides=strides,
        snap=snap,
    )


def _still_TCHW(
    video_TCHW: Tensor, frames: Sequence[int], keep_T1HW: Tensor | None, motion_T1HW: Tensor | None
) -> Tensor | None:
    """What stays where nothing may change: the kept video itself, or the earliest guide in every frame."""
    if keep_T1HW is not None:
        return video_TCHW
    if motion_T1HW is not None:
        return video_TCHW[min(frames)].expand_as(video_TCHW)
    return None


def _frame_of(guide: Guide, num_frames: int, fps: Fraction | int, snap: str) -> int:
    frame = geometry.resolve_position(guide.frame, num_frames, fps)
    return geometry.snap_to_eighth(frame, num_frames) if snap == "anisora" else frame


def _levels_apart(picture_3HW: Tensor, still_3HW: Tensor, static_1HW: Tensor) -> float | None:
    """Mean absolute difference of two pictures over the static pixels, in 8-bit levels; None without such pixels."""
    if not static_1HW.any():
        return None
    return float((picture_3HW - still_3HW).abs().mean(0)[static_1HW[0]].mean() * 127.5)


def _reference_frame(frames: Sequence[int], given_T1HW: Tensor, snap: str) -> int | None:
    """The earliest guide (anisora: the first listed); without guides the frame of which most is kept, if any is."""
    if frames:
        return frames[0] if snap == "anisora" else min(frames)
    share_T = given_T1HW.float().flatten(1).mean(1).tolist()
    return share_T.index(max(share_T)) if max(share_T) > 0 else None


def _feather_px(video_TCHW: Tensor, feather_px: int | None) -> int:
    return max(1, round(min(video_TCHW.shape[-2:]) / 64)) if feather_px is None else feather_px
