"""Training the block autoencoder: the linear code is fitted in closed form, then the decoder's residual is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anisora.errors import BadConfig
from anisora.media.frames import to_float_CTHW
from anisora.models.block_vae import AutoencoderKLBlock, to_blocks
from anisora.training.corpus import Bucket, cut, draw, numpy_rng
from anisora.training.loop import Task


@dataclass(frozen=True, kw_only=True)
class CodecSettings:
    """The code's size and how its decoder is trained."""

    z_dim: int = 48
    fit_clips: int = 1200
    """Clips from which the principal components are taken."""
    decoder_dims: tuple[int, int, int] = (128, 48, 24)
    batch: int = 4
    crop_px: int = 64
    crop_frames: int = 9
    latent_noise: float = 0.1
    """Standard deviation of noise on the normalised latents while the decoder learns; samples are not exact either."""


def pixels(video_NTHWC: np.ndarray) -> Tensor:
    """float32 [N, 3, T, H, W] in [-1, 1] of uint8 clips, through the one door that pictures take too."""
    return torch.stack([to_float_CTHW(video_THWC) for video_THWC in video_NTHWC])


def fit_linear_code(buckets: list[Bucket], settings: CodecSettings, seed: int) -> AutoencoderKLBlock:
    """An autoencoder whose code is the `z_dim` principal components of causal pixel blocks of the clips.

    Latents are scaled by the root of their standard deviation: at unit variance the finest channels, which carry least,
    would weigh as much in the diffusion loss as the coarsest.
    """
    rng = np.random.default_rng([seed, 1])
    vae = AutoencoderKLBlock(z_dim=settings.z_dim, decoder_dims=settings.decoder_dims)
    total, second, num = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for _ in range(settings.fit_clips // 8):
        # At half the rate: the code then holds the larger motion too.
        video_NTHWC = draw(buckets, 8, rng)[0]
        video_NTHWC = cut(video_NTHWC, (video_NTHWC.shape[1] + 1) // 2, 2, rng)
        block_NK = to_blocks(pixels(video_NTHWC), 4, 8).flatten(0, 3)
        total = total + block_NK.sum(0, dtype=torch.float64)
        second = second + (block_NK.T @ block_NK).double()
        num += len(block_NK)
    mean = total / num
    variance, vectors = torch.linalg.eigh(second / num - torch.outer(mean, mean))
    top = torch.arange(len(variance) - 1, len(variance) - 1 - settings.z_dim, -1)
    # Eigenvectors have no sign of their own; the largest entry is made positive so that a refit gives the same code.
    code = vectors[:, top].T
    code = code * code.gather(1, code.abs().argmax(1, keepdim=True)).sign()
    deviation = variance[top].clamp_min(1e-8).sqrt()
    with torch.no_grad():
        vae.code.copy_(code)
        vae.code_mean.copy_(mean)
    vae.register_to_config(latents_std=(deviation.sqrt() * deviation.mean().sqrt()).tolist())
    vae.code.requires_grad_(False)
    vae.code_mean.requires_grad_(False)
    return vae


def codec_task(vae: AutoencoderKLBlock, buckets: list[Bucket], settings: CodecSettings) -> Task:
    """The decoder learns to reconstruct crops from slightly noisy latents; L1 on pixels and on their gradients. Raises
    BadConfig where clips are smaller than the crops."""
    least_px = min(side for bucket in buckets for side in bucket.video_NTHWC.shape[2:4])
    if settings.crop_px > least_px:
        raise BadConfig(
            "model.codec.crop_px: larger than the clips",
            got=f"{settings.crop_px} px",
            expected=f"at most {least_px} px, the least side of data.buckets",
        )
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        video = draw_pixels(buckets, settings.batch, settings.crop_frames, generator)
        video = random_crops(video, settings.crop_px, generator)
        with torch.no_grad():
            latent = vae.encode_mode(video)
            noise = torch.randn(latent.shape, generator=generator) * std
            latent = latent + noise * settings.latent_noise * torch.rand(len(video), 1, 1, 1, 1, generator=generator)
        residual = vae.decoder(latent / std)
        difference = vae.decode_linear(latent) + residual - video
        psnr = -10 * torch.log10(difference.detach().square().mean() / 4)
        return sharpness_loss(difference), {"psnr_db": round(psnr.item(), 3)}

    return Task(name="codec", modules={"decoder": vae.decoder}, loss=loss, samples_per_step=settings.batch)


def draw_pixels(buckets: list[Bucket], num: int, frames: int, generator: torch.Generator) -> Tensor:
    """`num` random clips of `frames` frames, at the full or at half the rate, as float [num, 3, T, H, W]."""
    rng = numpy_rng(generator)
    video_NTHWC = draw(buckets, num, rng)[0]
    return pixels(cut(video_NTHWC, frames, int(rng.integers(1, 3)), rng))


def random_crops(video_BCTHW: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One random crop of `side` px squares per clip."""

    def start(length: int) -> int:
        return int(torch.randint(length - side + 1, (1,), generator=generator))

    _, _, _, h, w = video_BCTHW.shape
    places = [(start(h), start(w)) for _ in video_BCTHW]
    return torch.stack([v[..., y : y + side, x : x + side] for v, (y, x) in zip(video_BCTHW, places, strict=True)])


def sharpness_loss(difference: Tensor) -> Tensor:
    """L1 of a difference and of its horizontal and vertical gradients, so that outlines weigh more than flat areas."""
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    return difference.abs().mean() + across + down
