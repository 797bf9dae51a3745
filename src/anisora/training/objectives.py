"""What a denoiser is asked to predict, in three forms that share one shape, named as diffusers' schedulers name them.

All mix a clean latent with noise, `x_t = alpha_t * x_0 + sigma_t * noise`, for t in [0, 1] (1 = pure noise), and every
target is linear in (x_0, noise). The sampling side uses diffusers' schedulers; tests hold the two together.

Sources: flow matching, Lipman et al. 2023, with the timestep shift of SD3 (Esser et al. 2024, equation 23), as Wan uses
it; v-prediction, Salimans and Ho 2022, with zero terminal SNR, Lin et al. 2024, as CogVideoX uses it; the clean sample on
the flow's path, as in Li and He 2025 ("Let denoising generative models denoise"): a narrow network need not carry the
noise of a wide token through every layer.

A checkpoint is fine-tuned by the objective that its own scheduler samples by: `objective_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

# The models take t on the scale of the schedulers' training steps.
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Objective:
    """`mix(t) -> (alpha_t, sigma_t)`; `target` and `to_clean` are inverse to each other given x_t; `weight` of the loss;
    `timestep` is what the network reads for t."""

    mix: Callable[[Tensor], tuple[Tensor, Tensor]]
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    to_clean: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    weight: Callable[[Tensor], Tensor] = torch.ones_like
    timestep: Callable[[Tensor], Tensor] = lambda t: t * NUM_TRAIN_TIMESTEPS


def _flow_mix(t: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - t, t


def _cosine_zero_snr_mix(t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cos(t * torch.pi / 2), torch.sin(t * torch.pi / 2)


OBJECTIVES = {
    # velocity: noise - x_0, so x_0 = x_t - sigma_t * velocity
    "flow_prediction": Objective(
        mix=_flow_mix,
        target=lambda clean, noise, alpha, sigma: noise - clean,
        to_clean=lambda noisy, predicted, alpha, sigma: noisy - sigma * predicted,
    ),
    # v: alpha_t * noise - sigma_t * x_0, so x_0 = alpha_t * x_t - sigma_t * v
    "v_prediction": Objective(
        mix=_cosine_zero_snr_mix,
        target=lambda clean, noise, alpha, sigma: alpha * noise - sigma * clean,
        to_clean=lambda noisy, predicted, alpha, sigma: alpha * noisy - sigma * predicted,
    ),
    # x_0 itself, weighted as the velocity it implies, velocity = (x_t - x_0) / t, down to t = 1/2: with the weights of
    # smaller t most of the gradient came from steps in which the clip can be seen through the noise
    "sample": Objective(
        mix=_flow_mix,
        target=lambda clean, noise, alpha, sigma: clean,
        to_clean=lambda noisy, predicted, alpha, sigma: predicted,
        weight=lambda t: t.clamp_min(0.5) ** -2,
    ),
}


def objective_of(scheduler: Any) -> Objective:
    """The objective that a checkpoint's diffusers scheduler samples by; v-prediction on the scheduler's own noise levels."""
    kind = scheduler.config.get("prediction_type") or "flow_prediction"  # FlowMatchEuler does not say it
    return v_prediction_on(scheduler.alphas_cumprod) if kind == "v_prediction" else OBJECTIVES[kind]


def v_prediction_on(alphas_cumprod_K: Tensor) -> Objective:
    """v-prediction on K noise levels, of which the last has none of the signal left: CogVideoX's (zero terminal SNR).

    Its published loss is |x0 - x0_predicted|^2 / (1 - alphas_cumprod), which is the squared error of v, so `weight` is 1.
    """

    def level(t: Tensor) -> Tensor:
        return (t * len(alphas_cumprod_K)).long().clamp(max=len(alphas_cumprod_K) - 1)

    def mix(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_squared = alphas_cumprod_K.to(t)[level(t)]
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt()

    plain = OBJECTIVES["v_prediction"]
    return Objective(mix=mix, target=plain.target, to_clean=plain.to_clean, timestep=level)


# of exp(-2 (t - 1/2)^2): its value at t = 0 and 1, its mean between
_BELL_ENDS = math.exp(-0.5)
_BELL_MEAN = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5))

#: more weight on some times than on others, on top of the objective's own: name -> weight of (t, alpha_t, sigma_t)
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "none": lambda t, alpha, sigma: torch.ones_like(t),
    # middle times most, the ends not at all, 1 on average over uniform t
    "bell": lambda t, alpha, sigma: ((-2 * (t - 0.5) ** 2).exp() - _BELL_ENDS) / (_BELL_MEAN - _BELL_ENDS),
    # SD3 (Esser et al. 2024), section 3.1
    "cosmap": lambda t, alpha, sigma: 2 / (math.pi * (alpha**2 + sigma**2)),
    # min(SNR, 5) / (SNR + 1) for v-prediction: Hang et al. 2023, written without a division by sigma
    "min_snr": lambda t, alpha, sigma: torch.minimum(alpha**2, 5 * sigma**2) / (alpha**2 + sigma**2),
}


def shift_t(t: Tensor, shift: float) -> Tensor:
    """t moved towards noise: shift * t / (1 + (shift - 1) * t), as the flow schedulers do (SD3, equation 23)."""
    return shift * t / (1 + (shift - 1) * t)


def sampling_times(steps: int, shift: float) -> tuple[float, ...]:
    """The times at which diffusers' flow schedulers call the network for a shot of that many steps, falling from 1."""
    return tuple(shift_t(torch.linspace(1, 1 / NUM_TRAIN_TIMESTEPS, steps + 1)[:-1], shift).tolist())


def predictor(transformer: Any, condition_BCFYX: Tensor, text_BLD: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """`predict(noisy, t_B)` of a Wan-family transformer under these conditions."""

    def predict(noisy: Tensor, t_B: Tensor) -> Tensor:
        stacked = torch.cat([noisy, condition_BCFYX], 1)
        return transformer(stacked, t_B * NUM_TRAIN_TIMESTEPS, text_BLD, return_dict=False)[0]

    return predict


def away_from(
    alone: Callable[[Tensor, Tensor], Tensor], asked: Callable[[Tensor, Tensor], Tensor], guidance: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Classifier-free guidance (Ho & Salimans 2022): `guidance` times as far from what is predicted without a prompt."""

    def predict(noisy: Tensor, t_B: Tensor) -> Tensor:
        return torch.lerp(alone(noisy, t_B), asked(noisy, t_B), guidance)

    return predict


def own_path(
    predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, levels: list[Tensor], objective: Objective
) -> Tensor:
    """What a sampler of the first order has made of noise at `levels[0]` when it comes to the last level: the clean part
    replaced by the network's prediction `predict(noisy, t_B)`, the noise kept."""
    noisy = noise
    for t, below in pairwise(levels):
        alpha, sigma = objective.mix(like(t, noise))
        clean = objective.to_clean(noisy, predict(noisy, t), alpha, sigma)
        kept = (noisy - alpha * clean) / sigma
        alpha, sigma = objective.mix(like(below, noise))
        noisy = alpha * clean + sigma * kept
    return noisy


def draw_t(
    num: int,
    shift: float,
    generator: torch.Generator,
    *,
    density: str = "uniform",
    between: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """`num` values of t in `between`: one from each of `num` equal strata of the density, then shifted; fewer lucky batches.

    "logit_normal" leans to middle times (SD3, section 3.1). `between` is for one of two experts.
    """
    strata = (torch.randperm(num, generator=generator) + torch.rand(num, generator=generator)) / num
    low, high = (share_below(t, shift, density) for t in between)
    u = low + (high - low) * strata
    return shift_t(torch.special.ndtri(u).sigmoid() if density == "logit_normal" else u, shift)


def share_below(t: float, shift: float, density: str = "uniform") -> float:
    """How much of the shifted density lies below t."""
    t = t / (shift - (shift - 1) * t)
    if density == "uniform" or t in (0.0, 1.0):
        return t
    return float(torch.special.ndtr(torch.logit(torch.tensor(t, dtype=torch.float64))))


def like(values_B: Tensor, latent_BCFYX: Tensor) -> Tensor:
    """Per-sample values shaped so that they multiply latents."""
    return values_B.to(latent_BCFYX).view(-1, *[1] * (latent_BCFYX.dim() - 1))
