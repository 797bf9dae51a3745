"""Means, differences and tiers: laws, the closed form, and what chance alone may do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anisora.errors import BadInput
from anisora.evaluation.power import detectable_difference, power_of, prompts_needed
from anisora.evaluation.ranking import compare_pairs, rank, scores_of
from anisora.evaluation.statistics import clustered_standard_error, holm, mean_interval, paired_interval, sign_flip_p


def table(columns: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {model: {f"prompt {k}": value for k, value in enumerate(column)} for model, column in columns.items()}


def test_clips_of_one_prompt_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 5, 40)
    values = np.repeat(prompts, 4) + rng.normal(0, 0.1, 160)
    groups = np.repeat(np.arange(40), 4).tolist()
    clustered, alone = mean_interval(values.tolist(), groups=groups), mean_interval(values.tolist())
    width = {name: i["high"] - i["low"] for name, i in (("clustered", clustered), ("alone", alone))}
    assert width["clustered"] == pytest.approx(2 * width["alone"], rel=0.1)  # sqrt(4) clips a prompt
    assert clustered["n"] == 40
    half = 1.96 * clustered_standard_error(values.tolist(), groups)
    assert width["clustered"] / 2 == pytest.approx(half, rel=0.08)


def test_the_closed_form_without_clusters_is_the_usual_error():
    values = np.random.default_rng(1).normal(size=50)
    assert clustered_standard_error(values.tolist(), range(50)) == pytest.approx(values.std() / math.sqrt(50))


def test_pairing_by_prompt_takes_away_what_prompts_share():
    rng = np.random.default_rng(2)
    prompts = np.repeat(rng.normal(0, 20, 12), 2)
    groups = np.repeat(np.arange(12), 2).tolist()
    found = paired_interval((prompts + 1 + rng.normal(0, 0.2, 24)).tolist(), prompts.tolist(), groups=groups)
    assert found["n"] == 12
    assert 0.8 < found["low"] < 1 < found["high"] < 1.2


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_sign_flips_are_exact_for_few_differences():
    assert sign_flip_p(column(1, 2, 3, 4, 5)) == [2 / 2**5]
    assert sign_flip_p(column(1, -1)) == [1.0]
    assert sign_flip_p(column(0, 0)) == [1.0]
    assert sign_flip_p(column(3, math.nan)) == [None]
    differences = np.random.default_rng(8).normal(0.5, 1, (10, 3))
    expected = [
        stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        for d in differences.T
    ]
    assert sign_flip_p(differences) == pytest.approx(expected, abs=1e-9)
    drawn = sign_flip_p(differences, permutations=1000)
    assert drawn == pytest.approx(expected, abs=0.05)
    assert drawn != expected


def test_holm_is_the_published_example_and_never_below_the_plain_p():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": None, "b": 0.02}) == {"a": None, "b": 0.02}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(p_values):
    adjusted = holm(dict(enumerate(p_values)))
    for name, p in enumerate(p_values):
        assert p <= adjusted[name] <= min(1, p * len(p_values)) + 1e-12
    by_plain = sorted(range(len(p_values)), key=lambda name: p_values[name])
    assert [adjusted[name] for name in by_plain] == sorted(adjusted.values())


def test_tiers_tell_the_clearly_different_apart_and_no_more():
    rng = np.random.default_rng(3)
    prompts = rng.normal(50, 15, 60)
    columns = {name: (prompts + shift + rng.normal(0, 3, 60)).tolist() for name, shift in
               (("best", 8), ("twin a", 0), ("twin b", 0.3), ("worst", -8))}  # fmt: skip
    ranking = rank(table(columns))
    assert ranking.models[0] == "best"
    assert ranking.models[-1] == "worst"
    assert ranking.tiers == {"best": 1, "twin a": 2, "twin b": 2, "worst": 3}
    assert ranking.places["twin a"] == (2, 3)
    # Single intervals overlap all over: it is the pairing that tells them apart.
    assert ranking.means["best"]["low"] < ranking.means["twin a"]["high"]


def test_nobody_in_a_tier_beats_another_of_it():
    rng = np.random.default_rng(4)
    columns = {f"m{k}": (rng.normal(0, 10, 25) + k * 2).tolist() for k in range(6)}
    ranking = rank(table(columns))
    for difference in ranking.differences:
        if difference.is_real:
            assert ranking.tiers[difference.a] != ranking.tiers[difference.b]


def test_equal_models_are_told_apart_no_more_often_than_promised():
    """Under the null the simultaneous intervals of all ten pairs leave 0 out in about one study of twenty."""
    rng = np.random.default_rng(5)
    found = 0
    for study in range(40):
        columns = {f"m{k}": rng.normal(0, 1, 30).tolist() for k in range(5)}
        found += any(difference.is_real for difference in rank(table(columns), seed=study).differences)
    assert found <= 6  # 95 % of studies; more than 6 of 40 have probability 0.003


def test_simultaneous_intervals_hold_the_single_ones():
    rng = np.random.default_rng(6)
    columns = {f"m{k}": rng.normal(k, 2, 20).tolist() for k in range(4)}
    for difference in rank(table(columns)).differences:
        assert difference.all_high - difference.all_low > difference.high - difference.low
        assert difference.p <= difference.p_holm


def test_only_shared_prompts_are_compared_and_too_few_say_nothing():
    scores = {"a": {k: 10.0 + k for k in range(10)}, "b": {k: float(k) for k in range(5, 15)}, "c": {99: 1.0}}
    ab, ac = compare_pairs(scores, [("a", "b"), ("a", "c")])
    assert (ab.n, ab.mean) == (5, 10.0)
    assert not ab.is_real  # five prompts, all for a: still p = 2 / 2^5
    assert (ac.n, ac.mean, ac.low, ac.p) == (0, None, None, None)
    assert rank(scores).tiers == {"a": 1, "b": 1, "c": 1}


def test_a_constant_difference_is_real():
    scores = table({"a": [1.0, 5.0, 9.0, 2.0, 4.0, 3.0], "b": [0.0, 4.0, 8.0, 1.0, 3.0, 2.0]})
    (found,) = compare_pairs(scores, [("a", "b")])
    assert (found.mean, found.all_low, found.all_high, found.is_real) == (1.0, 1.0, 1.0, True)


def test_scores_of_clips_become_means_of_prompts():
    assert scores_of([("a", 1, 2.0), ("a", 1, 4.0), ("b", 1, 5.0)]) == {"a": {1: 3.0}, "b": {1: 5.0}}


def test_power_says_how_often_a_difference_is_found():
    n = prompts_needed(1.0, 2.5)
    assert n == 50  # (1.96 + 0.84)^2 * 6.25 = 49.06
    assert power_of(n, 1.0, 2.5) == pytest.approx(0.8, abs=0.01)
    assert detectable_difference(n, 2.5) == pytest.approx(1.0, rel=0.02)
    rng = np.random.default_rng(7)
    found = np.mean([p < 0.05 for p in sign_flip_p(rng.normal(1, 2.5, (n, 150)), permutations=499)])
    assert found == pytest.approx(0.8, abs=0.1)
    assert prompts_needed(2.0, 2.5) < n < prompts_needed(0.5, 2.5)


@pytest.mark.parametrize("arguments", [(0.0, 1.0), (1.0, -1.0), (1.0, 1.0, 1.5)])
def test_power_of_what_cannot_be_is_refused(arguments):
    with pytest.raises(BadInput):
        prompts_needed(*arguments)
