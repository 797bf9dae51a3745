"""A video VAE behind one interface: normalised latents in and out, its strides and channel count read from its config.

Conditioning, training and decoding need the same three facts of every VAE (how far it folds, how many channels it has,
how its latents are normalised), and diffusers spells them differently in each class. Here they are spelled once.

    B batch, C channels, T pixel frames, H W pixels, F latent frames, Y X latents
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anisora import geometry
from anisora.geometry import Strides


class Codec:
    """A diffusers video VAE (AutoencoderKLWan and its kin, or AutoencoderKLCogVideoX) that speaks normalised latents.

    `channels` is C of the latents, `strides` how far it folds time and space (its patch strides are those of a
    transformer that does not patchify: the VAE cannot know them).
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.channels: int = vae.config["z_dim" if "z_dim" in vae.config else "latent_channels"]
        self.strides = vae_strides(vae.config)

    @property
    def device(self) -> torch.device:
        """Where the VAE wants its input: with offloading, not where its weights lie."""
        from diffusers.utils.torch_utils import get_module_execution_device

        return get_module_execution_device(self.vae)

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised latents [B, C, F, Y, X] in float32 of a video in [-1, 1]: the posterior's mode, or a sample of it.

        A generator asks for the sample, as stock CogVideoX draws it.
        """
        return self.normalise(self._posterior_BCFYX(video_BCTHW, generator))

    @torch.no_grad()
    def encode_condition(self, video_BCTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As `encode`, scaled as the transformer was taught to read its condition channels.

        The two differ for CogVideoX 1.5 alone, whose config says `invert_scale_latents`: its image latents were divided
        by the scaling factor in training (CogVideoXImageToVideoPipeline.prepare_latents).
        """
        latent_BCFYX = self._posterior_BCFYX(video_BCTHW, generator)
        if self.vae.config.get("invert_scale_latents"):
            return latent_BCFYX / self.vae.config.scaling_factor
        return self.normalise(latent_BCFYX)

    def decode(self, latent_BCFYX: Tensor) -> Tensor:
        """The video [B, 3, T, H, W] of normalised latents, about [-1, 1], in the VAE's dtype.

        Gradients flow only where the latents ask for them.
        """
        num_frames = geometry.pixel_frames(latent_BCFYX.shape[2], self.strides.temporal)
        with torch.set_grad_enabled(torch.is_grad_enabled() and latent_BCFYX.requires_grad):
            latent_BCFYX = self.denormalise(latent_BCFYX.to(self.device, torch.float32))
            if self.needs_odd_frames and latent_BCFYX.shape[2] % 2 == 0:
                latent_BCFYX = torch.cat([latent_BCFYX, latent_BCFYX[:, :, -1:]], dim=2)
            return self.vae.decode(latent_BCFYX.to(self.vae.dtype), return_dict=False)[0][:, :, :num_frames]

    @property
    def needs_odd_frames(self) -> bool:
        """Whether the VAE makes 4F - 3 pixel frames of F latent frames for odd F only, as AutoencoderKLCogVideoX does.

        It decodes in pairs and takes a first frame apart only when one is left over; of an even F it makes 4F frames.
        `decode` therefore adds a latent frame at the end and cuts its pixel frames off.
        """
        return "temporal_compression_ratio" in self.vae.config

    def normalise(self, latent_BCFYX: Tensor) -> Tensor:
        """Raw VAE latents to the scale that the transformer sees: (z - mean) / std, or z times the scaling factor."""
        if (statistics := self._statistics(latent_BCFYX)) is None:
            return latent_BCFYX * self.vae.config.scaling_factor
        mean, std = statistics
        # In stock's order of operations, so that its pipelines and ours agree to the last bit.
        return (latent_BCFYX - mean) * (1 / std)

    def denormalise(self, latent_BCFYX: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        if (statistics := self._statistics(latent_BCFYX)) is None:
            return latent_BCFYX / self.vae.config.scaling_factor
        mean, std = statistics
        return latent_BCFYX / (1 / std) + mean

    def _posterior_BCFYX(self, video_BCTHW: Tensor, generator: torch.Generator | None) -> Tensor:
        posterior = self.vae.encode(video_BCTHW.to(self.device, self.vae.dtype)).latent_dist
        return (posterior.mode() if generator is None else posterior.sample(generator)).float()

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.vae.config.latents_mean is None:
            return None
        mean, std = (
            torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)
            for values in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return mean, std


def vae_strides(config: Any) -> Strides:
    """How far a VAE with this config folds time and space; patch strides are 1."""
    if "scale_factor_spatial" in config:
        temporal, spatial = config.scale_factor_temporal, config.scale_factor_spatial
    else:  # CogVideoX halves the picture between its blocks, and writes its time stride as a float
        temporal, spatial = int(config.temporal_compression_ratio), 2 ** (len(config.block_out_channels) - 1)
    return Strides(temporal=temporal, spatial=spatial, patch_temporal=1, patch_spatial=1)
