"""Training the guide decoder: given what the codec blurred and clean guides elsewhere in the clip, give back the frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anisora.models.block_vae import AutoencoderKLBlock
from anisora.models.guide_decoder import GuideDecoder, neighbours, training_rows
from anisora.training.codec import CodecSettings, draw_pixels, random_crops, sharpness_loss
from anisora.training.corpus import Bucket, numpy_rng
from anisora.training.loop import Task


@dataclass(frozen=True, kw_only=True)
class SharpenerSettings:
    """The guide decoder's size and what it is shown."""

    dims: tuple[int, int] = (64, 32)
    depth: int = 4
    batch: int = 4
    rows: int = 8
    """Target frames per clip."""
    crop_px: int = 64
    latent_noise: float = 0.6
    """Largest standard deviation of noise on the normalised latents: decoded samples are less exact than decoded truth."""


def sharpener_task(
    decoder: GuideDecoder, vae: AutoencoderKLBlock, buckets: list[Bucket], settings: SharpenerSettings
) -> Task:
    """Random guides, random target frames, noisy latents; L1 on pixels and on their gradients."""
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    frames = buckets[0].video_NTHWC.shape[1]
    crop = CodecSettings(crop_px=settings.crop_px, crop_frames=frames)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = numpy_rng(generator)
        video = random_crops(draw_pixels(buckets, settings.batch, generator), crop, generator)
        with torch.no_grad():
            latent = vae.encode_mode(video)
            level = settings.latent_noise * torch.rand(len(video), 1, 1, 1, 1, generator=generator) ** 2
            decoded = vae.decode(latent + torch.randn(latent.shape, generator=generator) * std * level, False)[0]
        rows = [_rows(d, v, rng, settings.rows) for d, v in zip(decoded, video, strict=True)]
        target = torch.cat([row[0] for row in rows])
        inputs = [torch.cat(column) for column in zip(*[row[1] for row in rows], strict=True)]
        difference = decoder(*inputs) - target
        gain = 10 * torch.log10((inputs[0] - target).square().mean() / difference.detach().square().mean())
        return sharpness_loss(difference), {"gain_db": round(gain.item(), 3)}

    return Task(
        name="sharpener",
        modules={"guide_decoder": decoder},
        loss=loss,
        samples_per_step=settings.batch * settings.rows,
    )


def _rows(
    decoded_CTHW: Tensor, video_CTHW: Tensor, rng: np.random.Generator, num: int
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """`num` random frames of one clip: the true frames, and the decoder's inputs under a random set of guides."""
    t = video_CTHW.shape[1]
    given = rng.random(t) < rng.choice([0.0, 0.1])
    given[0] |= rng.random() < 0.9
    given[-1] |= rng.random() < 0.5
    given[0] |= not given.any()
    chosen = sorted(rng.choice(t, size=num, replace=False).tolist())
    inputs = training_rows(decoded_CTHW, video_CTHW, neighbours(given.tolist()), chosen)
    return video_CTHW.transpose(0, 1)[chosen], inputs
