"""From a checked plan to what the transformer reads beside its noise, for each model family.

wan              pixels x keep encoded jointly | keep packed to 4 channels
cogvideox        each guide encoded as a one-frame clip at its latent frame, zeros elsewhere
cogvideox_mask   the same | keep packed to 4 channels, for the mask projection
vace             pixels x keep and pixels x (1 - keep), each encoded jointly | 1 - keep unshuffled to 64 channels

B batch, C latent channels, M mask channels, T pixel frames, H W pixels, F latent frames, Y X latents
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anisora import geometry
from anisora.conditioning import mask
from anisora.conditioning.plan import ConditionPlan
from anisora.models.codec import Codec

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Condition tensors, float32 on the VAE's device.

    latent_BCFYX      C is the codec's channels; twice that for vace (inactive, then reactive)
    mask_BMFYX        M = the temporal stride for wan and cogvideox_mask (1 = given); None for cogvideox; the spatial
                      stride squared for vace (1 = generate)
    reference_images  one per sample of the batch: for the image branch, where a checkpoint has one
    """

    latent_BCFYX: Tensor
    mask_BMFYX: Tensor | None
    reference_images: tuple[PIL.Image.Image | None, ...]

    @property
    def reference_image(self) -> PIL.Image.Image | None:
        """The first sample's."""
        return self.reference_images[0]


def encode(
    plans: ConditionPlan | Sequence[ConditionPlan],
    codec: Codec,
    family: str,
    generator: torch.Generator | None = None,
) -> Conditions:
    """The conditions of one plan (B = 1) or of several of one size, encoded together.

    Latents are the posterior's mode; a generator asks for samples instead, which is what stock CogVideoX draws.
    """
    plans = [plans] if isinstance(plans, ConditionPlan) else list(plans)
    latent_BCFYX, mask_BMFYX = ENCODERS[family](plans, codec, generator)
    return Conditions(
        latent_BCFYX=latent_BCFYX,
        mask_BMFYX=None if mask_BMFYX is None else mask_BMFYX.to(latent_BCFYX.device),
        reference_images=tuple(plan.reference_image for plan in plans),
    )


def _encode_wan(
    plans: list[ConditionPlan], codec: Codec, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    video_BCTHW = torch.stack([_weakened_TCHW(plan) for plan in plans]).transpose(1, 2)
    return codec.encode_condition(video_BCTHW, generator), _packed_BMFYX(plans)


def _encode_cogvideox(
    plans: list[ConditionPlan], codec: Codec, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    (width, height), strides = plans[0].size_px, codec.strides
    num_latent_frames = geometry.latent_frames(plans[0].num_frames, strides.temporal)
    latent_BCFYX = torch.zeros(
        len(plans),
        codec.channels,
        num_latent_frames,
        height // strides.spatial,
        width // strides.spatial,
        device=codec.device,
    )
    for sample, plan in enumerate(plans):
        video_TCHW = _weakened_TCHW(plan)
        for landing in plan.landings:
            clip_BCTHW = video_TCHW[landing.frame, None, :, None]
            latent_BCFYX[sample, :, landing.slot] = codec.encode_condition(clip_BCTHW, generator)[0, :, 0]
    return latent_BCFYX, None


def _encode_cogvideox_mask(
    plans: list[ConditionPlan], codec: Codec, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    return _encode_cogvideox(plans, codec, generator)[0], _packed_BMFYX(plans)


def _encode_vace(
    plans: list[ConditionPlan], codec: Codec, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """As WanVACEPipeline.prepare_video_latents and prepare_masks, on 1 - keep."""
    video_BCTHW = torch.stack([_weakened_TCHW(plan) for plan in plans]).transpose(1, 2)
    keep_BCTHW = torch.stack([plan.keep_T1HW for plan in plans]).transpose(1, 2)
    halves = [video_BCTHW * keep_BCTHW, video_BCTHW * (1 - keep_BCTHW)]
    latent_BCFYX = torch.cat([codec.encode_condition(half, generator) for half in halves], dim=1)
    masks = [mask.unshuffle_MTYX(1 - _weakened_keep_T1HW(plan), plan.strides.spatial) for plan in plans]
    return latent_BCFYX, torch.stack([mask.resize_time_MFYX(m, codec.strides.temporal) for m in masks])


ENCODERS = {
    "wan": _encode_wan,
    "cogvideox": _encode_cogvideox,
    "cogvideox_mask": _encode_cogvideox_mask,
    "vace": _encode_vace,
}


def static_target(
    latent_BCFYX: Tensor, plans: Sequence[ConditionPlan], codec: Codec, generator: torch.Generator | None = None
) -> Tensor:
    """A clip's latents with those of the still where the motion area lets nothing move: the training target.

    AniSora, section 4.2.2, "video latent post-processing". The still is encoded as a video of T equal frames, since a
    causal codec gives later latent frames other values than the first. Plans without a motion area change nothing.
    """
    target_BCFYX = latent_BCFYX.clone()
    for sample, plan in enumerate(plans):
        if plan.motion_T1HW is None or plan.still_TCHW is None:
            continue
        static_FYX = mask.static_cells_FYX(plan.motion_T1HW, plan.strides.temporal, plan.strides.spatial)
        still_CFYX = codec.encode(plan.still_TCHW.transpose(0, 1)[None], generator)[0].to(target_BCFYX)
        target_BCFYX[sample] = torch.where(static_FYX.to(still_CFYX.device), still_CFYX, target_BCFYX[sample])
    return target_BCFYX


def _weakened_TCHW(plan: ConditionPlan) -> Tensor:
    return plan.video_TCHW * plan.strength_T.view(-1, 1, 1, 1)


def _weakened_keep_T1HW(plan: ConditionPlan) -> Tensor:
    return plan.keep_T1HW * plan.strength_T.view(-1, 1, 1, 1)


def _packed_BMFYX(plans: list[ConditionPlan]) -> Tensor:
    return torch.stack(
        [
            mask.pack_MFYX(
                mask.pool_T1YX(_weakened_keep_T1HW(plan), plan.strides.spatial, plan.snap), plan.strides.temporal
            )
            for plan in plans
        ]
    )
