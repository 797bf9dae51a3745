"""What of a training clip is given to the network: guides by the mask strategy, motion areas, and what is left out.

One home for fine-tuning and for the bundled model, so that both learn the same tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anisora import geometry
from anisora.conditioning.checks import SLOT_FAMILIES
from anisora.conditioning.plan import DEFAULT_STRIDES, ConditionPlan, plan_from_tensors
from anisora.conditioning.strategy import sample_guides
from anisora.geometry import Strides
from anisora.models.checkpoint import CheckpointInfo
from anisora.settings import setting


@dataclass(frozen=True, kw_only=True)
class ConditionSettings:
    """The mask strategy (paper 4.3), dropout for guidance, and motion areas (paper 4.2.2)."""

    k_max: int = setting(3, "most inner guides that are drawn; first and last are drawn besides")
    empty_prob: float = setting(0.1, "how often a draw without any guide is kept")
    ends_prob: float = setting(0.0, "share of samples given their two ends alone, in place of the mask strategy")
    first_prob: float = setting(0.0, "share given frame 0 alone; 1 is how plain image-to-video models are trained")
    guide_dropout: float = setting(0.05, "share of samples that lose all guides")
    text_dropout: float = setting(0.1, "share of samples that lose their caption")
    motion_area_prob: float = setting(0.0, "share of samples in which only an area may move")


def draw_plan(
    video_TCHW: Tensor,
    settings: ConditionSettings,
    rng: np.random.Generator,
    *,
    family: str = "wan",
    strides: Strides = DEFAULT_STRIDES,
    snap: str = "exact",
    area_HW: np.ndarray | None = None,
) -> ConditionPlan:
    """Guides by the mask strategy, or a motion area around frame 0 with or without more guides, drawn for one clip.

    Where a latent frame holds one guide, it gets one. A still (T = 1) is given in half of the samples: with it the
    network learns to keep a drawing's look, without it to draw one. `area_HW` is the clip's own motion area, of a
    video-mask pair; without one an area is drawn.
    """
    if len(video_TCHW) == 1:
        frames = [0] if rng.random() < 0.5 else []
    else:
        frames = _draw_guides(len(video_TCHW), settings, rng, strides.temporal if family in SLOT_FAMILIES else 1)
    if settings.guide_dropout and rng.random() < settings.guide_dropout:
        frames = []
    how: dict[str, Any] = {"family": family, "strides": strides, "snap": snap}
    if rng.random() >= settings.motion_area_prob:
        return plan_from_tensors(video_TCHW, guide_frames=_snapped(frames, video_TCHW, snap), **how)
    frames = sorted({0, *frames}) if rng.random() < 0.3 else [0]
    area_1HW = draw_area(video_TCHW, rng) if area_HW is None else torch.from_numpy(area_HW).to(video_TCHW)[None]
    return plan_from_tensors(
        video_TCHW, guide_frames=_snapped(frames, video_TCHW, snap), motion_T1HW=area_1HW[None], **how
    )


def _draw_guides(num_frames: int, settings: ConditionSettings, rng: np.random.Generator, slot_stride: int) -> list[int]:
    """The guide frames of one clip of more than a frame."""
    if settings.ends_prob or settings.first_prob:
        which = rng.random()
        if which < settings.ends_prob:
            return [0, num_frames - 1]
        if which < settings.ends_prob + settings.first_prob:
            return [0]
    return sample_guides(num_frames, rng, settings.k_max, settings.empty_prob, slot_stride)


def plan_for(
    video_TCHW: Tensor,
    settings: ConditionSettings,
    rng: np.random.Generator,
    info: CheckpointInfo,
    area_HW: np.ndarray | None = None,
) -> ConditionPlan:
    """`draw_plan` as a checkpoint wants its guides."""
    return draw_plan(
        video_TCHW, settings, rng, family=info.family, strides=info.strides, snap=info.snap, area_HW=area_HW
    )


def _snapped(frames: list[int], video_TCHW: Tensor, snap: str) -> list[int]:
    if snap != "anisora":
        return frames
    return sorted({geometry.snap_to_eighth(frame, len(video_TCHW)) for frame in frames})


def draw_area(video_TCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """A motion area [1, H, W] in {0, 1}: what changes in the clip, grown a little, or an ellipse anywhere.

    Where nearly everything changes (a moving camera) the ellipse is used: an area that holds all teaches nothing.
    """
    _, _, h, w = video_TCHW.shape
    changes = ((video_TCHW - video_TCHW[:1]).abs().amax((0, 1)) > 0.2).float()[None]
    grow = 2 * int(rng.integers(1, 6)) + 1
    area = functional.max_pool2d(changes[None], grow, stride=1, padding=grow // 2)[0]
    if 0.02 < float(area.mean()) < 0.7 and rng.random() < 0.6:
        return area
    y, x = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    (cy, cx), (ry, rx) = rng.uniform(0.3, 0.7, 2), rng.uniform(0.2, 0.5, 2)
    return ((((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2) < 1).float()[None]
