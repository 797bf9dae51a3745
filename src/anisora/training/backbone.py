"""A checkpoint as training sees it: what its network reads for noisy latents, conditions and text, for every family.

Generation lets stock pipelines call the network; here the call is made once, with gradients. That both hand the network the
same tensors is held by a test that listens to a pipeline.

    B batch, C latent channels, M mask channels, F latent frames, Y X latents, L text tokens, N image tokens, D their width
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import anisora
from anisora.conditioning.encode import Conditions, encode, static_target
from anisora.conditioning.plan import ConditionPlan
from anisora.errors import BadConfig
from anisora.files import write_atomic
from anisora.generation.pipeline import padded_condition
from anisora.models import catalog
from anisora.models.checkpoint import CheckpointInfo
from anisora.models.codec import Codec
from anisora.models.mask_projection import MaskProjection, mask_added
from anisora.store import content_hash
from anisora.training.objectives import Objective, objective_of

#: captions whose states stay in memory: the text encoder is frozen, so they never change
_MOST_TEXTS = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenConditions(Conditions):
    """Conditions whose pictures the image branch has looked at before: its states, None without such a branch."""

    picture_BND: Tensor | None


@dataclass
class Backbone:
    """A loaded checkpoint: the pipeline that holds its parts, what it says about itself, and how it is trained."""

    pipeline: Any
    info: CheckpointInfo
    codec: Codec
    objective: Objective
    device: torch.device
    text_folder: Path | None = None
    """Where states of captions are kept from one run to the next; None keeps them in memory alone."""
    _texts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The parts that can learn, by name: one or two experts, and the mask projection."""
        names = (*self.pipeline.networks, "mask_projection")
        return {name: part for name in names if (part := getattr(self.pipeline, name, None)) is not None}

    @property
    def boundary(self) -> float | None:
        """The time above which the first of two experts works."""
        return self.pipeline.config.get("boundary_ratio") if self.info.experts == 2 else None

    def expert(self, t: float) -> str:
        """The name of the network for a time."""
        return "transformer" if self.boundary is None or t >= self.boundary else "transformer_2"

    @torch.no_grad()
    def target(self, video_BCTHW: Tensor, plans: list[ConditionPlan]) -> Tensor:
        """Clean latents [B, C, F, Y, X], the still where a motion area lets nothing move; CogVideoX 1.5's padding in front."""
        clean_BCFYX = static_target(self.codec.encode(video_BCTHW), plans, self.codec)
        padding = self._padding(clean_BCFYX.shape[2])
        return torch.cat([clean_BCFYX[:, :, :1].expand(-1, -1, padding, -1, -1), clean_BCFYX], dim=2)

    @torch.no_grad()
    def conditions(self, plans: list[ConditionPlan]) -> Conditions:
        """What the network reads beside its noise, as generation makes it."""
        return encode(plans, self.codec, self.info.family)

    @torch.no_grad()
    def text(self, captions: list[str]) -> Tensor:
        """States [B, L, D] of captions, each encoded by itself, so that a batch changes nothing."""
        for caption in captions:
            if caption not in self._texts:
                if len(self._texts) >= _MOST_TEXTS:
                    self._texts.clear()
                self._texts[caption] = self._kept_states(caption)
        return torch.cat([self._texts[caption] for caption in captions])

    @property
    def text_dtype(self) -> torch.dtype:
        """What the text encoder computes in."""
        return self.pipeline.text_encoder.dtype

    def _kept_states(self, caption: str) -> Tensor:
        from safetensors.torch import load_file, save_file

        if self.text_folder is None:
            return self._states(caption)
        path = self.text_folder / f"{content_hash(caption)}.safetensors"
        if not path.exists():
            states = self._states(caption).cpu().contiguous()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda partial: save_file({"states": states}, partial))
        return load_file(path)["states"].to(self.device)

    def _states(self, caption: str) -> Tensor:
        """[1, L, D]"""
        return self.pipeline.encode_prompt(
            caption,
            do_classifier_free_guidance=False,
            max_sequence_length=self.info.max_text_tokens,
            device=self.device,
        )[0]

    @torch.no_grad()
    def pictures(self, conditions: Conditions) -> Tensor | None:
        """What the image branch sees of each sample: its earliest guide, zeros without one; None without such a branch."""
        if isinstance(conditions, SeenConditions):
            return conditions.picture_BND
        if not self.info.image_branch:
            return None
        shown = [
            self.pipeline.encode_image(image, self.device) if image else None for image in conditions.reference_images
        ]
        blank = next((seen for seen in shown if seen is not None), None)
        if blank is None:
            from PIL import Image

            blank = self.pipeline.encode_image(Image.new("RGB", (32, 32)), self.device)
        return torch.cat([torch.zeros_like(blank) if seen is None else seen for seen in shown])

    def predict(self, name: str, noisy_BCFYX: Tensor, t_B: Tensor, conditions: Conditions, text_BLD: Tensor) -> Tensor:
        """What the named network predicts [B, C, F, Y, X] for noisy latents at times t, in float32."""
        timestep_B = self.objective.timestep(t_B)
        forward = FORWARDS[self.info.family]
        return forward(self, self.networks[name], noisy_BCFYX, timestep_B, conditions, text_BLD).float()

    def _padding(self, num_latent_frames: int) -> int:
        return -num_latent_frames % self.info.strides.patch_temporal


def load_backbone(
    model: str,
    *,
    device: torch.device,
    frozen_dtype: torch.dtype,
    trained_dtype: torch.dtype,
    mask_projection: bool = False,
) -> Backbone:
    """The checkpoint with everything frozen: networks in `trained_dtype`, text encoder and the like in `frozen_dtype`.

    The VAE stays in float32 (its sums overflow and blur in half precision). With `mask_projection` a CogVideoX
    checkpoint without one gets a new one, which starts without effect. Raises UnknownModel, BadCheckpoint; BadConfig.
    """
    info = catalog.resolve(model)
    pipeline = getattr(anisora, info.pipeline_class).from_pretrained(model, dtype=trained_dtype)
    if mask_projection and pipeline.mask_projection is None:
        _add_mask_projection(pipeline)
        info = pipeline.checkpoint
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            dtype = torch.float32 if name == "vae" else frozen_dtype
            if (
                name not in pipeline.networks and part.dtype != dtype
            ):  # those have theirs, and layers that stay in float32
                part.to(dtype)
            part.to(device).requires_grad_(False).eval()
    for part in (pipeline.mask_projection, pipeline.guide_decoder):
        if part is not None:
            part.to(device).requires_grad_(False).eval()
    return Backbone(
        pipeline=pipeline,
        info=info,
        codec=Codec(pipeline.vae),
        objective=objective_of(pipeline.scheduler),
        device=device,
    )


def _add_mask_projection(pipeline: Any) -> None:
    info = pipeline.checkpoint
    if info.family != "cogvideox":
        raise BadConfig("mask_projection", got=f"a checkpoint of family {info.family}", expected="cogvideox")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline.mask_projection = MaskProjection.matching(pipeline.transformer)
    capabilities = tuple(dict.fromkeys((*info.capabilities, "motion_area")))
    pipeline.use_checkpoint(replace(info, family="cogvideox_mask", capabilities=capabilities))


# -- what each family's network reads ----------------------------------------------------------------------------------


def _wan(
    backbone: Backbone, network: Any, noisy_BCFYX: Tensor, timestep_B: Tensor, conditions: Conditions, text_BLD: Tensor
) -> Tensor:
    assert conditions.mask_BMFYX is not None
    return network(
        hidden_states=torch.cat([noisy_BCFYX, conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1),
        timestep=timestep_B,
        encoder_hidden_states=text_BLD,
        encoder_hidden_states_image=backbone.pictures(conditions),
        return_dict=False,
    )[0]


def _vace(
    backbone: Backbone, network: Any, noisy_BCFYX: Tensor, timestep_B: Tensor, conditions: Conditions, text_BLD: Tensor
) -> Tensor:
    assert conditions.mask_BMFYX is not None
    return network(
        hidden_states=noisy_BCFYX,
        timestep=timestep_B,
        encoder_hidden_states=text_BLD,
        control_hidden_states=torch.cat([conditions.latent_BCFYX, conditions.mask_BMFYX], dim=1),
        control_hidden_states_scale=noisy_BCFYX.new_ones(len(network.config.vace_layers)),
        return_dict=False,
    )[0]


def _cogvideox(
    backbone: Backbone, network: Any, noisy_BCFYX: Tensor, timestep_B: Tensor, conditions: Conditions, text_BLD: Tensor
) -> Tensor:
    pipeline, config = backbone.pipeline, network.config
    num_frames, rows, columns = noisy_BCFYX.shape[2:]
    padding = num_frames - conditions.latent_BCFYX.shape[2]
    condition_BCFYX = padded_condition(conditions.latent_BCFYX, padding)
    spatial = backbone.info.strides.spatial
    rotary = None
    if config.use_rotary_positional_embeddings:
        rotary = pipeline._prepare_rotary_positional_embeddings(
            rows * spatial, columns * spatial, num_frames, backbone.device
        )
    masked = nullcontext()
    if conditions.mask_BMFYX is not None:
        masked = mask_added(network, pipeline.mask_projection, padded_condition(conditions.mask_BMFYX, padding))  # type: ignore[assignment]
    with masked:
        predicted_BFCYX = network(
            hidden_states=torch.cat([noisy_BCFYX, condition_BCFYX], dim=1).transpose(1, 2),
            timestep=timestep_B,
            encoder_hidden_states=text_BLD,
            ofs=None if config.ofs_embed_dim is None else noisy_BCFYX.new_full((1,), 2.0),
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
    return predicted_BFCYX.transpose(1, 2)


FORWARDS: dict[str, Callable[[Backbone, Any, Tensor, Tensor, Conditions, Tensor], Tensor]] = {
    "wan": _wan,
    "vace": _vace,
    "cogvideox": _cogvideox,
    "cogvideox_mask": _cogvideox,
}
