"""What a denoiser is asked to predict, in three forms that share one shape, named as diffusers' schedulers name them.

All mix a clean latent with noise, `x_t = alpha_t * x_0 + sigma_t * noise`, for t in [0, 1] (1 = pure noise), and every
target is linear in (x_0, noise). The sampling side uses diffusers' schedulers; tests hold the two together.

Sources: flow matching, Lipman et al. 2023, with the timestep shift of SD3 (Esser et al. 2024, equation 23), as Wan uses
it; v-prediction, Salimans and Ho 2022, with zero terminal SNR, Lin et al. 2024, as CogVideoX uses it; the clean sample on
the flow's path, as in Li and He 2025 ("Let denoising generative models denoise"): a narrow network need not carry the
noise of a wide token through every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# The models take t on the scale of the schedulers' training steps.
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Objective:
    """`mix(t) -> (alpha_t, sigma_t)`; `target` and `to_clean` are inverse to each other given x_t; `weight` of the loss."""

    mix: Callable[[Tensor], tuple[Tensor, Tensor]]
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    to_clean: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    weight: Callable[[Tensor], Tensor] = torch.ones_like


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
    # x_0 itself, weighted as the velocity it implies, velocity = (x_t - x_0) / t; small t would drown all others
    "sample": Objective(
        mix=_flow_mix,
        target=lambda clean, noise, alpha, sigma: clean,
        to_clean=lambda noisy, predicted, alpha, sigma: predicted,
        weight=lambda t: t.clamp_min(0.25) ** -2,
    ),
}


def shift_t(t: Tensor, shift: float) -> Tensor:
    """t moved towards noise: shift * t / (1 + (shift - 1) * t), as the flow schedulers do (SD3, equation 23)."""
    return shift * t / (1 + (shift - 1) * t)


def draw_t(num: int, shift: float, generator: torch.Generator) -> Tensor:
    """`num` values of t in (0, 1): one from each of `num` equal strata, then shifted; fewer lucky batches than uniform."""
    strata = (torch.randperm(num, generator=generator) + torch.rand(num, generator=generator)) / num
    return shift_t(strata, shift)


def like(values_B: Tensor, latent_BCFYX: Tensor) -> Tensor:
    """Per-sample values shaped so that they multiply latents."""
    return values_B.to(latent_BCFYX).view(-1, *[1] * (latent_BCFYX.dim() - 1))
