"""What the denoiser is shown, and how its errors count: shares, mirrors, and which of two answers is the best."""

import numpy as np
import pytest
import torch

from anisora.training.corpus import mirrored
from anisora.training.denoiser import DenoiserSettings, choosing_error, conditions_of
from anisora.training.examples import ConditionSettings, draw_plan


def test_a_mirror_twice_is_the_clip_and_its_caption():
    video = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 6, 3), dtype=np.uint8)
    captions = ["a girl runs to the right, left of a tree", "女孩向右跑"]
    turned, told = mirrored(video, captions)
    assert np.array_equal(turned[:, :, :, 0], video[:, :, :, -1])
    assert told == ["a girl runs to the left, right of a tree", "女孩向左跑"]
    back, again = mirrored(turned, told)
    assert np.array_equal(back, video)
    assert again == captions


def guides_of(settings: ConditionSettings, draws: int) -> list[tuple[int, ...]]:
    rng, video_TCHW = np.random.default_rng(0), torch.zeros(9, 3, 16, 16)
    plans = [draw_plan(video_TCHW, settings, rng) for _ in range(draws)]
    return [tuple(landing.frame for landing in plan.landings) for plan in plans]


def test_shares_of_what_is_given():
    plain = ConditionSettings(guide_dropout=0.0)
    drawn = guides_of(plain, 400)
    asked = guides_of(ConditionSettings(guide_dropout=0.0, ends_prob=0.6, first_prob=0.2), 400)
    assert drawn.count((0, 8)) < 60  # one in ten of the mask strategy's, at this length
    # What the strategy gives in the rest comes on top; four standard deviations of 400 draws are 0.1.
    assert asked.count((0, 8)) / 400 == pytest.approx(0.6 + 0.2 * drawn.count((0, 8)) / 400, abs=0.1)
    assert asked.count((0,)) / 400 == pytest.approx(0.2 + 0.2 * drawn.count((0,)) / 400, abs=0.1)
    assert set(guides_of(ConditionSettings(guide_dropout=0.0, first_prob=1.0), 20)) == {(0,)}


def test_the_usual_shots_come_from_their_step_on():
    settings = DenoiserSettings(usual_from_step=10)
    assert conditions_of(settings, 9).ends_prob == 0
    assert conditions_of(settings, 10).ends_prob == settings.ends_prob > 0


def test_small_errors_count_by_their_squares():
    missed = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 1e-2
    torch.testing.assert_close(choosing_error(missed, 1.0), missed.square().flatten(1).mean(1), rtol=1e-2, atol=0)


def test_of_two_answers_the_likelier_one_is_best():
    """A place that is one of two vectors: squares ask for the mean of both, weighted; lengths for the likelier."""
    torch.manual_seed(0)
    often, seldom = torch.randn(2, 8) * 4
    answer = torch.zeros(8, requires_grad=True)
    optimiser = torch.optim.Adam([answer], lr=0.05)
    for _ in range(800):
        missed = torch.stack([answer - often, answer - often, answer - seldom])  # twice as likely
        choosing_error(missed[:, :, None, None, None], 0.1).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    apart = (often - seldom).norm()
    assert (answer - often).norm() < 0.05 * apart
    assert (answer - (2 * often + seldom) / 3).norm() > 0.25 * apart
