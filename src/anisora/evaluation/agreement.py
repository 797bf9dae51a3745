"""Does it agree: raters with each other (Krippendorff's alpha), a metric with people (correlations, pairwise accuracy,
soft pairwise accuracy). Each comes with an interval from drawing prompts (for alpha: items) anew.

A system-level correlation over fewer than six systems says little; that is why soft pairwise accuracy is here, which
compares how sure each side is of every pair of systems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from anisora.errors import BadInput
from anisora.evaluation.statistics import percentiles, sign_flips

#: correlations are slower than means: fewer draws, ends good to about 2 % of the interval's width
RESAMPLES = 2000

Level = Literal["nominal", "ordinal", "interval", "ratio"]
Kind = Literal["spearman", "kendall", "pearson"]


# ------------------------------------------------------------------------------------------------ raters among themselves


def krippendorff_alpha(ratings_RI: np.ndarray, level: Level = "ordinal") -> float | None:
    """Krippendorff's alpha = 1 - observed / expected disagreement of ratings [raters, items], NaN where there is none.

    1: the raters agree, 0: as chance would. None where fewer than two ratings can be paired, or all ratings are equal.
    (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"; the ordinal difference is squared half-ranks.)
    """
    ratings = np.asarray(ratings_RI, np.float64)
    known = ~np.isnan(ratings)
    ratings = ratings[:, known.sum(axis=0) >= 2]
    values = np.unique(ratings[~np.isnan(ratings)])
    if len(values) < 2:
        return None
    counts_IV = np.stack([(ratings == value).sum(axis=0) for value in values], axis=1).astype(np.float64)
    totals_I = counts_IV.sum(axis=1)
    coincidences_VV = (counts_IV / (totals_I - 1)[:, None]).T @ counts_IV
    coincidences_VV -= np.diag((counts_IV / (totals_I - 1)[:, None]).sum(axis=0))
    totals_V = coincidences_VV.sum(axis=1)
    distance_VV = _distances(values, totals_V, level)
    total = totals_V.sum()
    expected = (np.outer(totals_V, totals_V) - np.diag(totals_V)) / (total - 1)
    return float(1 - (coincidences_VV * distance_VV).sum() / (expected * distance_VV).sum())


def _distances(values_V: np.ndarray, totals_V: np.ndarray, level: Level) -> np.ndarray:
    """Squared differences between each two values."""
    if level == "nominal":
        return 1.0 - np.eye(len(values_V))
    if level == "ordinal":
        middle_V = np.cumsum(totals_V) - totals_V / 2
        return np.subtract.outer(middle_V, middle_V) ** 2
    if level == "interval":
        return np.subtract.outer(values_V, values_V) ** 2
    if level == "ratio":
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.subtract.outer(values_V, values_V) / np.add.outer(values_V, values_V)) ** 2
    raise BadInput("unknown level of measurement", got=level, expected="nominal, ordinal, interval or ratio")


def alpha_interval(ratings_RI: np.ndarray, level: Level = "ordinal", seed: int = 0, resamples: int = 1000) -> dict:
    """`{alpha, low, high, n_items, n_raters}`, the interval from drawing items anew."""
    ratings = np.asarray(ratings_RI, np.float64)
    rng = np.random.default_rng(seed)
    found = krippendorff_alpha(ratings, level)
    draws = [krippendorff_alpha(ratings[:, rng.integers(0, ratings.shape[1], ratings.shape[1])], level)
             for _ in range(resamples if found is not None else 0)]  # fmt: skip
    known = np.array([draw for draw in draws if draw is not None])
    low, high = percentiles(known, 0.95) if known.size else (None, None)
    return {"alpha": found, "low": low, "high": high, "n_items": ratings.shape[1], "n_raters": ratings.shape[0]}


# ------------------------------------------------------------------------------------------------- a metric with people


def correlation(
    metric: Sequence[float],
    human: Sequence[float],
    groups: Sequence[Hashable],
    kind: Kind = "spearman",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """`{value, low, high, n, n_groups}` of a correlation over clips, prompts drawn anew. `kendall` is tau-b.

    The value is None where either side does not vary or there are fewer than three clips.
    """
    from scipy import stats

    function = {"spearman": stats.spearmanr, "kendall": stats.kendalltau, "pearson": stats.pearsonr}[kind]

    def value(x: np.ndarray, y: np.ndarray) -> float:
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return math.nan
        return float(function(x, y).statistic)

    x, y = _columns(metric, human)
    return _with_interval(lambda index: value(x[index], y[index]), groups, seed, resamples)


def pairwise_accuracy(
    metric: Sequence[float], human: Sequence[float], groups: Sequence[Hashable], seed: int = 0
) -> dict[str, Any]:
    """How often the metric orders two clips of one prompt as people do: `{value, low, high, without_ties, epsilon, n_pairs}`.

    A pair is a win, a tie or a loss; the metric calls a tie where its scores differ by at most `epsilon`. Epsilon is
    chosen for the highest accuracy (Deutsch, Foster and Freitag 2023, arXiv 2305.14324), here on one half of the
    prompts and used on the other, so that the figure holds for prompts not seen; the `epsilon` returned is that of all.
    `without_ties` leaves out pairs that people call equal; there a metric that ties has half of the pair.
    """
    return accuracy_of_pairs(*_pairs(metric, human, groups), seed=seed)


def accuracy_of_pairs(
    metric_differences: np.ndarray, human_differences: np.ndarray, groups: Sequence[Hashable], seed: int = 0
) -> dict[str, Any]:
    """As `pairwise_accuracy`, of pairs that are given: what the metric and what people say of the first over the second."""
    dm, dh, prompt = metric_differences, human_differences, groups
    if not len(dm):
        return {"value": None, "low": None, "high": None, "without_ties": None, "epsilon": None, "n_pairs": 0}
    right = np.empty(len(dm))
    halves = _halves(prompt, seed)
    for half in (False, True):
        there, other = halves == half, halves != half
        epsilon = calibrate_ties(dm[other], dh[other]) if other.any() else calibrate_ties(dm, dh)
        right[there] = _called(dm[there], epsilon) == np.sign(dh[there])
    decided = dh != 0
    won = np.where(dm == 0, 0.5, np.sign(dm) == np.sign(dh))
    found = _with_interval(lambda index: float(right[index].mean()), prompt, seed)
    return {
        "value": found["value"], "low": found["low"], "high": found["high"],
        "without_ties": float(won[decided].mean()) if decided.any() else None,
        "epsilon": calibrate_ties(dm, dh), "n_pairs": len(dm),
    }  # fmt: skip


def calibrate_ties(metric_differences: np.ndarray, human_differences: np.ndarray) -> float:
    """The smallest epsilon >= 0 with the highest three-way accuracy over the pairs."""
    size = np.abs(metric_differences)
    order = np.argsort(size, kind="stable")
    is_tie = (human_differences == 0)[order]
    is_right = ((np.sign(metric_differences) == np.sign(human_differences)) & (human_differences != 0))[order]
    # With epsilon at the k-th smallest difference the first k pairs are called ties, the rest by their sign.
    correct = np.concatenate([[0], np.cumsum(is_tie)]) + np.concatenate([np.cumsum(is_right[::-1])[::-1], [0]])
    ends = np.concatenate([[0.0], size[order]])
    # Pairs of equal difference change together: only the last of each run is a real choice, and 0 takes its run along.
    real = np.append(ends[1:] != ends[:-1], True)
    return float(ends[real][np.argmax(correct[real])])


def _called(differences: np.ndarray, epsilon: float) -> np.ndarray:
    return np.where(np.abs(differences) <= epsilon, 0.0, np.sign(differences))


def soft_pairwise_accuracy(
    metric_MG: np.ndarray, human_MG: np.ndarray, seed: int = 0, permutations: int = 1000, resamples: int = 200
) -> dict[str, Any]:
    """`{value, low, high, n_systems, n_groups}` of scores [systems, prompts] by a metric and by people.

    1 - |p_human - p_metric| averaged over pairs of systems, p being the one-sided permutation p-value that the first of
    the pair is better (Thompson, Mathur, Deutsch and Khayrallah 2024, arXiv 2409.09598): a metric should be as sure as
    people are, no more and no less. The interval draws prompts anew. None below two systems or two prompts.
    """
    metric, human = np.asarray(metric_MG, np.float64), np.asarray(human_MG, np.float64)
    if metric.shape != human.shape:
        raise BadInput("scores of other systems or prompts", got=str(metric.shape), expected=str(human.shape))
    num_systems, num_groups = metric.shape
    if num_systems < 2 or num_groups < 2:
        return {"value": None, "low": None, "high": None, "n_systems": num_systems, "n_groups": num_groups}
    signs_PG, _ = sign_flips(num_groups, permutations, seed)

    def value(index: np.ndarray) -> float:
        p_human, p_metric = (pair_p_values(scores[:, index], signs_PG) for scores in (human, metric))
        return soft_accuracy(p_human, p_metric)

    found = _with_interval(value, range(num_groups), seed, resamples)
    return {
        "value": found["value"], "low": found["low"], "high": found["high"],
        "n_systems": num_systems, "n_groups": num_groups,
    }  # fmt: skip


def soft_accuracy(p_human: np.ndarray, p_metric: np.ndarray) -> float:
    """The mean of 1 - |p_human - p_metric| over pairs of systems."""
    return float(np.mean(1 - np.abs(np.asarray(p_human) - np.asarray(p_metric))))


def pair_p_values(scores_MG: np.ndarray, signs_PG: np.ndarray) -> np.ndarray:
    """For each pair of systems the share of permutations whose mean difference is at least the one seen."""
    pairs = list(combinations(range(len(scores_MG)), 2))
    differences_GK = np.stack([scores_MG[i] - scores_MG[j] for i, j in pairs], axis=1)
    seen_K = differences_GK.sum(axis=0)
    tolerance = 1e-9 * (1 + np.abs(differences_GK).sum(axis=0))
    return ((signs_PG @ differences_GK) >= seen_K - tolerance).mean(axis=0)


# ------------------------------------------------------------------------------------------------------------ their parts


def _columns(metric: Sequence[float], human: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(metric) != len(human):
        raise BadInput("scores and ratings of other clips", got=f"{len(metric)} and {len(human)}", expected="as many")
    return np.asarray(metric, np.float64), np.asarray(human, np.float64)


def _pairs(
    metric: Sequence[float], human: Sequence[float], groups: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray, list[Hashable]]:
    """Differences of the metric and of people, and the prompt, for each pair of clips of one prompt."""
    x, y = _columns(metric, human)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    pairs = [(i, j, group) for group, inside in members.items() for i, j in combinations(inside, 2)]
    left, right = [p[0] for p in pairs], [p[1] for p in pairs]
    return x[left] - x[right], y[left] - y[right], [p[2] for p in pairs]


def _halves(groups: Sequence[Hashable], seed: int) -> np.ndarray:
    """Which of two random halves of the prompts each pair lies in."""
    names = sorted(set(groups), key=str)
    order = np.random.default_rng(seed).permutation(len(names))
    second = {names[k] for k in order[: len(names) // 2]}
    return np.array([group in second for group in groups])


def _with_interval(
    value: Callable[[np.ndarray], float], groups: Sequence[Hashable], seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """`{value, low, high, n, n_groups}` of a function of row numbers, groups of rows drawn anew."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    rows = [np.array(inside) for inside in members.values()]
    found = value(np.arange(len(groups))) if len(groups) else math.nan
    if math.isnan(found):
        return {"value": None, "low": None, "high": None, "n": len(groups), "n_groups": len(rows)}
    rng = np.random.default_rng(seed)
    draws = np.array(
        [value(np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])) for _ in range(resamples)]
    )
    low, high = percentiles(draws, 0.95)
    return {"value": found, "low": low, "high": high, "n": len(groups), "n_groups": len(rows)}
