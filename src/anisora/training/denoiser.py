"""Training a Wan-family denoiser (with its text encoder) on clips: guides by the mask strategy, motion areas, text dropout.

Conditions are made by `conditioning.encode`, the function that generation uses, so the two cannot drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from anisora.conditioning.encode import encode
from anisora.conditioning.plan import plan_from_tensors
from anisora.conditioning.strategy import sample_guides
from anisora.models.codec import Codec
from anisora.training.codec import pixels
from anisora.training.corpus import Bucket, draw
from anisora.training.loop import Task
from anisora.training.objectives import NUM_TRAIN_TIMESTEPS, OBJECTIVES, draw_t, like
from anisora.training.text import build_text_encoder, embed, tokenize


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings:
    """The network and what it is shown."""

    dim: int = 192
    num_layers: int = 6
    num_heads: int = 3
    ffn_dim: int = 768
    text_dim: int = 128
    text_layers: int = 2
    vocab_size: int = 2000
    max_text_tokens: int = 48
    batch: int = 16
    t_shift: float = 2.0
    """Training times lean towards noise by this shift (objectives.shift_t)."""
    text_dropout: float = 0.1
    motion_area_prob: float = 0.25
    """Share of samples in which only an area may move and the target stands still outside it (paper 4.2.2)."""
    frames: tuple[int, ...] = (17, 17, 17, 13, 9)
    """Lengths, one drawn per batch."""
    k_max: int = 3
    """Most inner guides that the mask strategy draws."""


def build_denoiser(settings: DenoiserSettings, z_dim: int) -> WanTransformer3DModel:
    """The stock Wan transformer without image branch: [noise C | mask 4 | condition C] in, velocity C out."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=settings.num_heads,
        attention_head_dim=settings.dim // settings.num_heads,
        in_channels=2 * z_dim + 4,
        out_channels=z_dim,
        text_dim=settings.text_dim,
        freq_dim=128,
        ffn_dim=settings.ffn_dim,
        num_layers=settings.num_layers,
        cross_attn_norm=True,
    )


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training example: clean latents [C, F, Y, X], mask [4, F, Y, X], condition [C, F, Y, X]."""

    clean: Tensor
    mask: Tensor
    condition: Tensor


def make_example(video_CTHW: Tensor, codec: Codec, settings: DenoiserSettings, rng: np.random.Generator) -> Example:
    """Guides, or a motion area around frame 0, drawn for one clip; the target follows the conditions."""
    t = video_CTHW.shape[1]
    video_TCHW = video_CTHW.transpose(0, 1)
    area_THW = None
    frames = sample_guides(t, rng, k_max=settings.k_max)
    if rng.random() < settings.motion_area_prob:
        area_THW = draw_area(video_TCHW, rng).expand(t, -1, -1)
        frames = sorted({0, *frames}) if rng.random() < 0.3 else [0]
    keep_T1HW = torch.zeros(t, 1, *video_TCHW.shape[2:])
    given_TCHW = video_TCHW
    if area_THW is not None:
        # The target stands still outside the area, so guides there show frame 0 as well (design: R's static area).
        given_TCHW = torch.where(area_THW[:, None] > 0, video_TCHW, video_TCHW[:1])
        keep_T1HW = (area_THW[:, None] <= 0).float()
    keep_T1HW[frames] = 1
    conditions = encode(plan_from_tensors(given_TCHW, keep_T1HW), codec, "wan")
    clean = codec.encode(given_TCHW.transpose(0, 1)[None])[0]
    return Example(clean=clean, mask=conditions.mask_BMFYX[0], condition=conditions.latent_BCFYX[0])


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


def denoiser_task(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    codec: Codec,
    buckets: list[Bucket],
    settings: DenoiserSettings,
) -> Task:
    """Flow matching on latents of random clips under random conditions."""
    objective = OBJECTIVES["flow"]

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng(torch.randint(2**62, (1,), generator=generator).item())
        video_NTHWC, captions = draw(buckets, settings.batch, rng)
        length = settings.frames[rng.integers(len(settings.frames))]
        first = int(rng.integers(video_NTHWC.shape[1] - length + 1))
        with torch.no_grad():
            examples = [
                make_example(video, codec, settings, rng) for video in pixels(video_NTHWC[:, first : first + length])
            ]
            clean = torch.stack([example.clean for example in examples])
            condition = torch.stack([torch.cat([example.mask, example.condition]) for example in examples])
        captions = ["" if rng.random() < settings.text_dropout else caption for caption in captions]
        text = embed(text_encoder, *tokenize(tokenizer, captions, settings.max_text_tokens))
        t = draw_t(settings.batch, settings.t_shift, generator)
        noise = torch.randn(clean.shape, generator=generator)
        alpha, sigma = objective.mix(like(t, clean))
        noisy = alpha * clean + sigma * noise
        predicted = transformer(torch.cat([noisy, condition], 1), t * NUM_TRAIN_TIMESTEPS, text, return_dict=False)[0]
        error = (predicted - objective.target(clean, noise, alpha, sigma)).square()
        return error.mean(), {}

    return Task(
        name="denoiser",
        modules={"transformer": transformer, "text_encoder": text_encoder},
        loss=loss,
        samples_per_step=settings.batch,
    )


__all__ = ["DenoiserSettings", "build_denoiser", "build_text_encoder", "denoiser_task", "draw_area", "make_example"]
