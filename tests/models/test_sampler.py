"""Samplers and shift: ideal networks lead every one of them to the picture, and the schedules are those of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler

from anisora.errors import BadRequest
from anisora.models.checkpoint import Recipe
from anisora.models.sampler import make_scheduler


@pytest.fixture
def flow():
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


@pytest.fixture
def v_prediction(tiny_pipeline):
    return tiny_pipeline("cogvideox").scheduler


def picture_and_noise():
    drawn = torch.randn(2, 1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn[0], drawn[1]


@pytest.mark.parametrize("sampler", ["euler", "unipc"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_an_ideal_velocity_leads_flow_samplers_to_the_picture(flow, sampler, shift):
    """x_t = (1 - t) x0 + t noise; the network of a single picture says (x_t - x0) / t."""
    scheduler = make_scheduler(flow, sampler, shift)
    x0, x = picture_and_noise()
    scheduler.set_timesteps(6)
    for step, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[step].double()
        x = scheduler.step((x - x0) / sigma, t, x, return_dict=False)[0]
    assert torch.allclose(x, x0, atol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_an_ideal_v_leads_v_prediction_samplers_to_the_picture(v_prediction, sampler):
    """v = alpha noise - sigma x0 (Salimans and Ho 2022), from a last step that is pure noise."""
    scheduler = make_scheduler(v_prediction, sampler)
    x0, noise = picture_and_noise()
    # A divisor of 1000: with others diffusers' rounded step ends at t = 0 instead of at the picture itself.
    scheduler.set_timesteps(5)
    x, before = noise, None
    for step, t in enumerate(scheduler.timesteps):
        abar = scheduler.alphas_cumprod[t].double()
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        v = alpha * (x - alpha * x0) / sigma - sigma * x0
        if sampler == "ddim":
            x = scheduler.step(v, t, x, return_dict=False)[0]
        else:
            last = scheduler.timesteps[step - 1] if step else None
            x, before = scheduler.step(v, before, t, last, x, generator=torch.Generator(), return_dict=False)
    assert torch.allclose(x, x0, atol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_v_prediction_starts_from_pure_noise(v_prediction, sampler):
    scheduler = make_scheduler(v_prediction, sampler)
    scheduler.set_timesteps(50)
    assert float(scheduler.alphas_cumprod[-1]) == 0  # zero terminal SNR (Lin et al. 2023, algorithm 1)
    assert int(scheduler.timesteps[0]) == 999  # trailing (the same, table 2)
    assert scheduler.config.rescale_betas_zero_snr
    assert scheduler.config.snr_shift_scale == 1.0
    assert torch.equal(scheduler.alphas_cumprod, v_prediction.alphas_cumprod)


def test_snr_shift_divides_the_signal_to_noise_ratio():
    """CogVideoX: abar' = abar / (s + (1 - s) abar), that is, the SNR divided by s."""
    fields = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": False}
    plain, shifted = (CogVideoXDDIMScheduler(**fields, snr_shift_scale=s).alphas_cumprod for s in (1.0, 3.0))
    snr_plain, snr_shifted = plain / (1 - plain), shifted / (1 - shifted)
    assert torch.allclose(snr_shifted, snr_plain / 3, rtol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_the_shift_law(flow, shift):
    """sigma' = s sigma / (1 + (s - 1) sigma) (SD3, section 5.3.2), the same for both samplers."""
    unipc = make_scheduler(flow, "unipc", shift)
    unipc.set_timesteps(8)
    even = np.linspace(1, 1 / 1000, 9)[:-1]
    assert np.allclose(unipc.sigmas[:-1], shift * even / (1 + (shift - 1) * even), atol=2e-3)
    euler = make_scheduler(flow, "euler", shift)
    even = np.arange(1000, 0, -1) / 1000
    assert np.allclose(euler.sigmas[: len(even)], shift * even / (1 + (shift - 1) * even), atol=1e-6)


def test_the_shift_stays_when_the_sampler_changes(flow):
    assert make_scheduler(make_scheduler(flow, "unipc"), "euler").config.shift == 3.0
    assert make_scheduler(flow, "unipc").config.flow_shift == 3.0
    assert make_scheduler(flow, None, 7.0).config.shift == 7.0
    assert flow.config.shift == 3.0


def test_what_does_not_fit_is_refused(flow, v_prediction):
    with pytest.raises(BadRequest, match="euler or unipc"):
        make_scheduler(flow, "ddim")
    with pytest.raises(BadRequest, match="ddim or dpm"):
        make_scheduler(v_prediction, "euler")
    with pytest.raises(BadRequest, match="predicts v"):
        make_scheduler(v_prediction, shift=5.0)
    with pytest.raises(BadRequest, match="above 0"):
        make_scheduler(flow, shift=-1.0)


def test_a_recipe_is_set_on_a_loaded_pipeline(tiny):
    import anisora

    pipeline = anisora.AniSoraWanPipeline.from_pretrained(tiny("wan-experts"))
    pipeline.apply_recipe(Recipe(steps=3, guidance=2.0, shift=4.0, sampler="unipc", boundary=0.5))
    assert pipeline.scheduler.config.flow_shift == 4.0
    assert pipeline.config.boundary_ratio == 0.5
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("", num_frames=5).forwards == 6
