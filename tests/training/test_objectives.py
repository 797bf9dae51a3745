"""Laws of the two objectives, and their agreement with the schedulers that sample."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler

from anisora.training.objectives import OBJECTIVES, draw_t, like, shift_t


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
