"""Agreement against the libraries replaced, slow truths and what is known of the formulas."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from anisora.errors import BadInput
from anisora.evaluation.agreement import (
    alpha_interval,
    calibrate_ties,
    correlation,
    krippendorff_alpha,
    pair_p_values,
    pairwise_accuracy,
    soft_accuracy,
    soft_pairwise_accuracy,
)

LEVELS = ("nominal", "ordinal", "interval", "ratio")


def panel(seed: int, raters: int = 4, items: int = 30, missing: float = 0.2) -> np.ndarray:
    """Ratings 1 to 5 that share a truth, with holes."""
    rng = np.random.default_rng(seed)
    ratings = np.clip(np.rint(rng.normal(3, 1, items) + rng.normal(0, 0.8, (raters, items))), 1, 5)
    ratings[rng.random(ratings.shape) < missing] = np.nan
    return ratings


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_evalicas(level, seed):
    evalica, pandas = pytest.importorskip("evalica"), pytest.importorskip("pandas")
    expected = evalica.alpha(pandas.DataFrame(panel(seed)), distance=level).alpha
    assert krippendorff_alpha(panel(seed), level) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_is_the_reference_packages(level):
    krippendorff = pytest.importorskip("krippendorff")
    expected = krippendorff.alpha(panel(7), level_of_measurement=level)
    assert krippendorff_alpha(panel(7), level) == pytest.approx(expected, abs=1e-6)


def test_alpha_knows_agreement_chance_and_nothing():
    same = np.tile([1.0, 2, 3, 4, 5, 1, 2], (3, 1))
    assert krippendorff_alpha(same) == 1
    noise = np.random.default_rng(0).integers(1, 6, (4, 400)).astype(float)
    assert abs(krippendorff_alpha(noise)) < 0.06
    assert krippendorff_alpha(np.full((3, 5), 2.0)) is None  # nothing varies
    assert krippendorff_alpha(np.array([[1.0, np.nan], [np.nan, 2.0]])) is None  # nothing is rated twice
    with pytest.raises(BadInput):
        krippendorff_alpha(same, "vague")


def test_alphas_interval_holds_it():
    found = alpha_interval(panel(1, items=60), resamples=200)
    assert found["low"] < found["alpha"] < found["high"]
    assert (found["n_items"], found["n_raters"]) == (60, 4)


@pytest.mark.parametrize(("kind", "function"), [("spearman", stats.spearmanr), ("kendall", stats.kendalltau)])
def test_correlations_are_scipys_with_an_interval_by_prompt(kind, function):
    rng = np.random.default_rng(2)
    prompts = np.repeat(np.arange(20), 3)
    human = rng.normal(size=60)
    metric = human + rng.normal(0, 0.7, 60)
    found = correlation(metric, human, prompts.tolist(), kind)
    assert found["value"] == pytest.approx(function(metric, human).statistic, abs=1e-12)
    assert found["low"] < found["value"] < found["high"]
    assert (found["n"], found["n_groups"]) == (60, 20)
    assert correlation([1.0, 1, 1], [1.0, 2, 3], [0, 1, 2], kind)["value"] is None


def slow_accuracy(dm, dh, epsilon):
    """The definition, pair by pair."""
    return np.mean([(0 if abs(m) <= epsilon else np.sign(m)) == np.sign(h) for m, h in zip(dm, dh, strict=True)])


@pytest.mark.parametrize("seed", range(5))
def test_epsilon_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    human = rng.integers(1, 6, 60).astype(float)
    dh = np.subtract(*rng.choice(human, (2, 60)))
    dm = np.round(dh + rng.normal(0, 1.5, 60), 1)
    epsilon = calibrate_ties(dm, dh)
    best = max(slow_accuracy(dm, dh, e) for e in [0.0, *np.abs(dm)])
    assert slow_accuracy(dm, dh, epsilon) == best


def test_pairwise_accuracy_compares_within_prompts_only():
    # Across the two prompts the metric is wrong; within each it is right.
    metric, human = [1.0, 2.0, 11.0, 12.0], [4.0, 5.0, 1.0, 2.0]
    found = pairwise_accuracy(metric, human, ["p", "p", "q", "q"])
    assert (found["value"], found["without_ties"], found["n_pairs"]) == (1, 1, 2)
    assert pairwise_accuracy(metric, human, [0, 1, 2, 3])["value"] is None


def test_a_metric_of_noise_is_not_made_good_by_calibration():
    rng = np.random.default_rng(3)
    prompts = np.repeat(np.arange(60), 4)
    found = pairwise_accuracy(rng.normal(size=240), rng.normal(size=240), prompts.tolist())
    assert found["low"] < 0.5 < found["high"]
    assert found["without_ties"] == pytest.approx(0.5, abs=0.1)


def slow_soft_accuracy(metric, human, signs):
    """The definition: for each pair of systems both permutation p-values, one permutation after the other."""
    total = []
    for i, j in combinations(range(len(metric)), 2):
        p = []
        for scores in (human, metric):
            difference = scores[i] - scores[j]
            p.append(np.mean([(sign * difference).mean() >= difference.mean() - 1e-9 for sign in signs]))
        total.append(1 - abs(p[0] - p[1]))
    return np.mean(total)


def test_soft_pairwise_accuracy_is_its_definition():
    rng = np.random.default_rng(4)
    human = rng.normal(size=(4, 8)) + np.arange(4)[:, None] / 2
    metric = human + rng.normal(0, 1, human.shape)
    signs = np.array([[1.0 if bits >> k & 1 else -1.0 for k in range(8)] for bits in range(256)])
    found = soft_pairwise_accuracy(metric, human, resamples=20)
    assert found["value"] == pytest.approx(slow_soft_accuracy(metric, human, signs), abs=1e-6)
    assert (found["n_systems"], found["n_groups"]) == (4, 8)


def test_its_p_values_are_scipys_exact_permutation_tests():
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(3, 9)) + np.array([[0.0], [0.4], [1.0]])
    signs = np.array([[1.0 if bits >> k & 1 else -1.0 for k in range(9)] for bits in range(512)])
    expected = [
        stats.permutation_test(
            (scores[i], scores[j]), lambda x, y: np.mean(x - y), permutation_type="samples",
            alternative="greater", n_resamples=np.inf,
        ).pvalue
        for i, j in combinations(range(3), 2)
    ]  # fmt: skip
    assert pair_p_values(scores, signs) == pytest.approx(expected, abs=1e-6)


def test_soft_accuracy_is_1_for_people_themselves_and_low_for_the_reverse():
    rng = np.random.default_rng(6)
    human = rng.normal(size=(5, 30)) + np.arange(5)[:, None]
    assert soft_pairwise_accuracy(human, human, resamples=10)["value"] == 1
    assert soft_pairwise_accuracy(-human, human, resamples=10)["value"] < 0.1
    assert soft_accuracy([0.0, 0.5], [0.25, 0.5]) == 0.875
    with pytest.raises(BadInput):
        soft_pairwise_accuracy(human, human[:, :4])
