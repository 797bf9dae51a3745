"""Training a Wan-family denoiser (with its text encoder) on clips: guides by the mask strategy, motion areas, text dropout.

Conditions are made by `conditioning.encode`, the function that generation uses, so the two cannot drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from anisora.conditioning.encode import encode, static_target
from anisora.errors import BadConfig
from anisora.generation.prompts import whole_sentence
from anisora.models.codec import Codec
from anisora.training.adversary import Judge, judged
from anisora.training.codec import pixels
from anisora.training.corpus import Bucket, cut, draw, jitter_colors, mirrored, numpy_rng
from anisora.training.examples import ConditionSettings, draw_plan
from anisora.training.loop import Task
from anisora.training.objectives import OBJECTIVES, draw_t, like, own_path, predictor
from anisora.training.text import embed, tokenize


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
    objective: str = "sample"
    """A key of objectives.OBJECTIVES; the exported scheduler's prediction_type."""
    t_shift: float = 2.0
    """Training times lean towards noise by this shift (objectives.shift_t)."""
    pure_noise_prob: float = 0.5
    """Share of samples that see noise alone, as the first step of every shot does: what moves, and where to, is decided
    there, and a recipe of two steps has few others to correct it in."""
    own_path_prob: float = 0.0
    """Share of batches that start where the denoiser's own steps lead from noise alone, and aim at the clip. Noise over true
    clips never shows what the steps before got wrong."""
    own_path_from_step: int = 0
    """Before this step there is none of that: a path that leads nowhere yet teaches little."""
    judge_weight: float = 0.0
    """Above 0, a judge looks at half of what is predicted on the own path (training.adversary); how long its gradient is
    there, over the error's."""
    judge_warmup_steps: int = 100
    """The first steps with an own path, in which that weight rises from 0 while the judge learns."""
    text_dropout: float = 0.1
    jitter_prob: float = 0.35
    """Share of clips shown in other colours (corpus.jitter_colors)."""
    motion_area_prob: float = 0.25
    """Share of samples in which only an area may move and the target stands still outside it (paper 4.2.2)."""
    frames: tuple[int, ...] = (17, 17, 17, 13, 9)
    """Lengths, one drawn per batch."""
    half_rate_steps: int = 1700
    """The first steps see every second frame: half the rate first, then the full one, as the paper goes from 8 to 16
    frames a second (its "weak to strong")."""
    k_max: int = 3
    """Most inner guides that the mask strategy draws."""
    usual_from_step: int = 5800
    """From this step on most samples are given what most shots are: the mask strategy gives exactly a clip's two ends to
    one sample in eight."""
    ends_prob: float = 0.6
    """From then on, share of the samples outside motion areas that are given their two ends."""
    first_prob: float = 0.15
    """And share of those that are given frame 0 alone."""
    mirror_prob: float = 0.5
    """Share of batches shown mirrored, with left and right changed over in their captions."""
    choosing_from_step: int = 6700
    """From this step on errors count as `choosing_error` counts them."""
    choosing_reach: float = 1.0
    """Its `reach`."""
    compile_blocks: bool = False
    """Compiles the transformer's blocks: 13 % less time a step on a CPU, after a minute of compiling; needs a C++ compiler."""


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


def conditions_of(settings: DenoiserSettings, step: int) -> ConditionSettings:
    """What a denoiser trained from scratch is given in a step."""
    is_usual = step >= settings.usual_from_step
    return ConditionSettings(
        k_max=settings.k_max,
        guide_dropout=0.0,
        text_dropout=settings.text_dropout,
        motion_area_prob=settings.motion_area_prob,
        ends_prob=settings.ends_prob if is_usual else 0.0,
        first_prob=settings.first_prob if is_usual else 0.0,
    )


def choosing_error(missed_BCFYX: Tensor, reach: float) -> Tensor:
    """The error of each sample [B]: squares where a latent place is missed by less than `reach` (the length of its vector),
    lengths where by more (pseudo-Huber, of vectors).

    What makes squares smallest is the mean of all that may happen, a limb at every place that it could have. What makes
    lengths smallest is the geometric median: of two places the likelier one.
    """
    length_BFYX = (missed_BCFYX.square().sum(dim=1) + reach**2).sqrt()
    return 2 * reach * (length_BFYX - reach).flatten(1).mean(1) / missed_BCFYX.shape[1]


def denoiser_task(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    codec: Codec,
    buckets: list[Bucket],
    settings: DenoiserSettings,
    times: tuple[float, ...] = (1.0,),
) -> Task:
    """The objective on latents of random clips under random conditions. `times`, falling from 1, are those of the steps in
    which shots will be made; see `own_path_prob`. Raises BadConfig for a judge without an own path to look at."""
    objective = OBJECTIVES[settings.objective]
    if settings.judge_weight > 0 and settings.own_path_prob == 0:
        raise BadConfig(
            "model.denoiser.judge_weight without own_path_prob",
            got=f"{settings.judge_weight:g} and 0",
            expected="own_path_prob above 0: a judge sees nothing but the own path",
        )
    judge = Judge(transformer, text_encoder, objective) if settings.judge_weight > 0 else None
    if settings.compile_blocks:
        for block in transformer.blocks:
            block.compile()

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = numpy_rng(generator)
        video_NTHWC, captions = draw(buckets, settings.batch, rng)
        if rng.random() < settings.mirror_prob:
            video_NTHWC, captions = mirrored(video_NTHWC, captions)
        conditioned = conditions_of(settings, step)
        length = settings.frames[rng.integers(len(settings.frames))]
        stride = 2 if step < settings.half_rate_steps else 1
        with torch.no_grad():
            video_BCTHW = jitter_colors(pixels(cut(video_NTHWC, length, stride, rng)), settings.jitter_prob, rng)
            plans = [draw_plan(video_TCHW, conditioned, rng) for video_TCHW in video_BCTHW.transpose(1, 2)]
            conditions = encode(plans, codec, "wan")
            condition = torch.cat([conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1)  # type: ignore[list-item]  # wan has a mask
            clean = static_target(codec.encode(video_BCTHW), plans, codec)
        captions = ["" if rng.random() < settings.text_dropout else whole_sentence(caption) for caption in captions]
        tokens = tokenize(tokenizer, captions, settings.max_text_tokens)
        predict = predictor(transformer, condition, embed(text_encoder, *tokens))
        on_own_path = step >= settings.own_path_from_step and rng.random() < settings.own_path_prob
        if on_own_path:
            noise = torch.randn(clean.shape, generator=generator)
            levels = [noise.new_full((len(noise),), time) for time in times[: rng.integers(len(times)) + 1]]
            with torch.no_grad():
                noisy = own_path(predict, noise, levels, objective)
            t = levels[-1]
            alpha, sigma = objective.mix(like(t, clean))
            noise = (noisy - alpha * clean) / sigma  # what would have led from the clip to the same place
        else:
            t = draw_t(settings.batch, settings.t_shift, generator)
            t[torch.rand(settings.batch, generator=generator) < settings.pure_noise_prob] = 1.0
            noise = torch.randn(clean.shape, generator=generator)
            alpha, sigma = objective.mix(like(t, clean))
            noisy = alpha * clean + sigma * noise
        predicted = predict(noisy, t)
        missed_BCFYX = predicted - objective.target(clean, noise, alpha, sigma)
        if step < settings.choosing_from_step:
            error = missed_BCFYX.square().flatten(1).mean(1)
        else:
            error = choosing_error(missed_BCFYX, settings.choosing_reach)
        whole = (error * objective.weight(t)).mean()
        if judge is None or not on_own_path:
            return whole, {}
        made = objective.to_clean(noisy, predicted, alpha, sigma)
        warm = (step - settings.own_path_from_step) / max(1, settings.judge_warmup_steps)
        weight = settings.judge_weight * min(1.0, warm)
        return judged(whole, predicted, made, judge, weight, clean, condition, tokens, generator)

    return Task(
        name="denoiser",
        modules={"transformer": transformer, "text_encoder": text_encoder} | ({"judge": judge} if judge else {}),
        loss=loss,
        samples_per_step=settings.batch,
        matrices=lambda name: (
            name.startswith("transformer.blocks.") and name.endswith(".weight") and "norm" not in name
        ),
    )
