"""Laws of the two objectives, and their agreement with the schedulers that sample."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler

from anisora.training.objectives import (
    OBJECTIVES,
    WEIGHTINGS,
    draw_t,
    like,
    objective_of,
    own_path,
    share_below,
    shift_t,
)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_target_and_clean_are_inverse(name):
    objective = OBJECTIVES[name]
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 3, 2, 4, 4, generator=generator)
    alpha, sigma = objective.mix(like(torch.linspace(0, 1, 5), clean))
    noisy = alpha * clean + sigma * noise
    target = objective.target(clean, noise, alpha, sigma)
    torch.testing.assert_close(objective.to_clean(noisy, target, alpha, sigma), clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ends_are_clean_and_pure_noise(name):
    alpha, sigma = OBJECTIVES[name].mix(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(alpha, torch.tensor([1.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(sigma, torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)


def test_flow_mix_is_the_schedulers():
    scheduler = FlowMatchEulerDiscreteScheduler()
    clean, noise = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    for index in (0, 250, 999):
        t = scheduler.timesteps[index : index + 1]
        alpha, sigma = OBJECTIVES["flow_prediction"].mix(t / 1000)
        torch.testing.assert_close(scheduler.scale_noise(clean, t, noise), alpha * clean + sigma * noise)


def test_v_is_the_schedulers():
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    clean, noise = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    step = torch.tensor([500])
    alpha = scheduler.alphas_cumprod[step].sqrt()
    ours = OBJECTIVES["v_prediction"].target(clean, noise, alpha, (1 - alpha**2).sqrt())
    torch.testing.assert_close(scheduler.get_velocity(clean, noise, step), ours.float(), check_dtype=False)
    assert scheduler.alphas_cumprod[-1] == 0, "zero terminal SNR: the last step is pure noise"


def test_shift_keeps_the_ends_and_matches_the_scheduler():
    t = torch.linspace(0, 1, 11)
    assert shift_t(t, 5.0)[[0, -1]].tolist() == [0.0, 1.0]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    torch.testing.assert_close(scheduler.sigmas, shift_t(torch.linspace(1, 0.001, 1000), 5.0))


def test_draws_fill_every_stratum():
    t = draw_t(64, 1.0, torch.Generator().manual_seed(3))
    assert sorted((t * 64).long().tolist()) == list(range(64))


def test_v_prediction_on_a_scheduler_is_the_scheduler_s_noise_and_velocity():
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, snr_shift_scale=1.0,
    )  # fmt: skip
    objective = objective_of(scheduler)
    clean, noise = torch.randn(2, 4, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0005, 0.25, 0.9, 0.9999])
    steps = objective.timestep(t)
    assert steps.tolist() == [0, 250, 900, 999]
    alpha, sigma = objective.mix(like(t, clean))
    noisy = alpha * clean + sigma * noise
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, steps).float(), rtol=1e-4, atol=1e-5)
    target = objective.target(clean, noise, alpha, sigma)
    torch.testing.assert_close(target, scheduler.get_velocity(clean, noise, steps).float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(noisy[3], noise[3]), "zero terminal SNR: nothing of the clip is left"
    # the published loss, |x0 - x0_predicted|^2 / (1 - alphas_cumprod), is the squared error of v
    predicted = target + torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    published = (clean - objective.to_clean(noisy, predicted, alpha, sigma)).square() / sigma**2
    torch.testing.assert_close(published[1:], (target - predicted).square()[1:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("density", ["uniform", "logit_normal"])
def test_draws_have_the_density_and_stay_between(density):
    t = draw_t(2000, 3.0, torch.Generator().manual_seed(0), density=density)
    for bound in (0.2, 0.6, 0.9):
        assert float((t < bound).float().mean()) == pytest.approx(share_below(bound, 3.0, density), abs=2e-3)
    high = draw_t(64, 3.0, torch.Generator().manual_seed(0), density=density, between=(0.9, 1.0))
    assert 0.9 - 1e-5 <= float(high.min()) < 0.91
    assert float(high.max()) <= 1.0


def test_weightings_are_what_their_sources_say():
    t = torch.linspace(0, 1, 1001)
    alpha, sigma = 1 - t, t
    bell = WEIGHTINGS["bell"](t, alpha, sigma)
    assert float(bell.mean()) == pytest.approx(1, abs=2e-3)
    assert float(bell[0]) == pytest.approx(0, abs=1e-6)
    assert int(bell.argmax()) == 500
    cosmap = WEIGHTINGS["cosmap"](t, alpha, sigma)
    torch.testing.assert_close(cosmap, 2 / (torch.pi * (1 - 2 * sigma + 2 * sigma**2)))
    inside = slice(1, -1)
    snr = (alpha / sigma)[inside] ** 2
    torch.testing.assert_close(WEIGHTINGS["min_snr"](t, alpha, sigma)[inside], snr.clamp(max=5) / (snr + 1))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_who_predicts_the_clip_walks_over_its_own_noise(name: str):
    objective = OBJECTIVES[name]
    clean, noise = torch.randn(2, 3, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0))

    def predict(noisy: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        return objective.target(clean, noise, *objective.mix(like(t_B, clean)))

    levels = [torch.full((3,), t) for t in (1.0, 0.8, 0.5, 0.1)]
    alpha, sigma = objective.mix(like(levels[-1], clean))
    found = own_path(predict, objective.mix(torch.ones(()))[1] * noise, levels, objective)
    torch.testing.assert_close(found, alpha * clean + sigma * noise)
    assert torch.equal(own_path(predict, noise, levels[:1], objective), noise)
