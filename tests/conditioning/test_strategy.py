"""The mask strategy's distribution against its own arithmetic."""

from collections import Counter

import numpy as np
import pytest

from anisora.conditioning.strategy import sample_guides

DRAWS = 6000


def draws(num_frames, **options):
    rng = np.random.default_rng(7)
    return [sample_guides(num_frames, rng, **options) for _ in range(DRAWS)]


def within(count, probability, sigmas=4.5):
    """Whether a binomial count lies where it should."""
    return abs(count - DRAWS * probability) <= sigmas * np.sqrt(DRAWS * probability * (1 - probability))


def text_only(k_max, empty_prob):
    """P(no guide) = q e / (1 - q (1 - e)), where one draw is empty with q = 1/4 mean of 2^-k over k."""
    q = np.mean([0.25 * 0.5**k for k in range(k_max + 1)])
    return q * empty_prob / (1 - q * (1 - empty_prob)), q


@pytest.mark.parametrize(("k_max", "empty_prob"), [(3, 0.1), (3, 1.0), (0, 0.5), (1, 0.0)])
def test_shares_of_first_last_both_inner_and_none(k_max, empty_prob):
    drawn = draws(33, k_max=k_max, empty_prob=empty_prob)
    none, q = text_only(k_max, empty_prob)
    kept = (1 - none) / (1 - q)  # how much more likely each draw with a guide is than when drawn once
    assert within(sum(not frames for frames in drawn), none)
    assert within(sum(0 in frames for frames in drawn), kept / 2)
    assert within(sum(32 in frames for frames in drawn), kept / 2)
    assert within(sum({0, 32} <= set(frames) for frames in drawn), kept / 4)
    inner = Counter(len(set(frames) - {0, 32}) for frames in drawn)
    assert max(inner) <= k_max
    if k_max == 3:  # three inner guides: k = 3, and all three of them given
        assert within(inner[3], kept / 4 / 8)


def test_inner_frames_are_uniform_distinct_and_in_order():
    drawn = draws(17)
    counts = Counter(p for frames in drawn for p in frames if 0 < p < 16)
    total = sum(counts.values())
    assert set(counts) == set(range(1, 16))
    chi_square = sum((counts[p] - total / 15) ** 2 / (total / 15) for p in range(1, 16))
    assert chi_square < 36.1  # 14 degrees of freedom, p = 0.001
    assert all(frames == sorted(set(frames)) for frames in drawn)


def test_short_clips_have_only_the_frames_they_have():
    assert {tuple(frames) for frames in draws(1)} == {(), (0,)}
    assert all(set(frames) <= set(range(5)) for frames in draws(5, k_max=9))


def test_the_same_generator_draws_the_same_guides():
    assert draws(33) == draws(33)
