"""Which of several models is better, and how sure that is: all pairs at once, and the tiers that follow.

Models are compared on the prompts that they share. The intervals of all pairs hold together with 95 %, not each alone
(max-t bootstrap: Westfall and Young 1993, as in Chernozhukov, Chetverikov and Kato 2013), so that among many models the
luckiest is not taken for the best. A tier holds models none of which is known to be better than another of it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from anisora.evaluation.statistics import RESAMPLES, group_means, holm, mean_interval, percentiles, sign_flip_p

#: below 6 prompts even a difference of the same sign on all of them has p >= 2 / 2^5 > 0.05: nothing can be said
MIN_PROMPTS = 6

#: {model: {prompt: mean score}}
Scores = Mapping[str, Mapping[Hashable, float]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """a - b over the `n` prompts that both have. `low, high` hold for this pair alone, `all_low, all_high` for all pairs
    together; `p` is the permutation test's, `p_holm` adjusted for the number of pairs. None where n is too small."""

    a: str
    b: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    all_low: float | None
    all_high: float | None
    p: float | None
    p_holm: float | None

    @property
    def is_real(self) -> bool:
        """Whether the interval that holds for all pairs together leaves 0 out, on at least `MIN_PROMPTS` prompts."""
        if self.n < MIN_PROMPTS or self.all_low is None or self.all_high is None:
            return False
        return self.all_low > 0 or self.all_high < 0


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The models from best to worst mean, the mean of each with its interval, their tiers, and all differences.

    `places` gives the best and worst place of each that the differences allow (1 is first).
    """

    models: tuple[str, ...]
    means: Mapping[str, Mapping[str, float | int | None]]
    tiers: Mapping[str, int]
    places: Mapping[str, tuple[int, int]]
    differences: tuple[Difference, ...]


def scores_of(rows: Sequence[tuple[str, Hashable, float]]) -> dict[str, dict[Hashable, float]]:
    """`Scores` from (model, prompt, score) rows: the mean of each model's clips of a prompt."""
    by_model: dict[str, tuple[list[float], list[Hashable]]] = {}
    for model, prompt, score in rows:
        values, prompts = by_model.setdefault(model, ([], []))
        values.append(score)
        prompts.append(prompt)
    return {model: group_means(*columns) for model, columns in by_model.items()}


def rank(scores: Scores, confidence: float = 0.95, seed: int = 0) -> Ranking:
    """The ranking of the models by their mean over prompts."""
    means = {model: mean_interval(list(prompts.values()), confidence, seed) for model, prompts in scores.items()}
    known = [model for model in scores if means[model]["mean"] is not None]
    models = tuple(sorted(known, key=lambda model: (-float(means[model]["mean"] or 0.0), model)))
    differences = compare_pairs(scores, tuple(combinations(models, 2)), confidence, seed)
    better = _better(models, differences)
    return Ranking(
        models=models,
        means={model: means[model] for model in models},
        tiers=_tiers(models, better),
        places={
            model: (
                1 + sum(model in worse for worse in better.values()),
                len(models) - len(better[model]),
            )
            for model in models
        },
        differences=differences,
    )


def compare_pairs(
    scores: Scores, pairs: Sequence[tuple[str, str]], confidence: float = 0.95, seed: int = 0
) -> tuple[Difference, ...]:
    """The difference of each pair of models. The same prompts are drawn for all pairs, so the pairs' errors move as one."""
    prompts = sorted({prompt for model in scores.values() for prompt in model}, key=str)
    values_GM = {
        model: np.array([own.get(prompt, math.nan) for prompt in prompts], np.float64) for model, own in scores.items()
    }
    differences_GK = np.stack([values_GM[a] - values_GM[b] for a, b in pairs], axis=1) if pairs else np.empty((0, 0))
    p_values: dict[Hashable, float | None] = dict(enumerate(sign_flip_p(differences_GK, seed)))
    adjusted = holm(p_values)
    counts = (~np.isnan(differences_GK)).sum(axis=0)
    enough = [k for k in range(len(pairs)) if counts[k] >= 2]
    bounds = dict(zip(enough, _bounds(differences_GK[:, enough], confidence, seed), strict=True)) if enough else {}
    return tuple(
        Difference(
            a=a,
            b=b,
            n=int(counts[k]),
            mean=float(np.nanmean(differences_GK[:, k])) if counts[k] else None,
            **(bounds.get(k) or dict.fromkeys(("low", "high", "all_low", "all_high"))),
            p=p_values[k],
            p_holm=adjusted[k],
        )
        for k, (a, b) in enumerate(pairs)
    )


def _bounds(differences_GK: np.ndarray, confidence: float, seed: int) -> list[dict[str, float]]:
    """For each column of differences (NaN: not shared) the ends of its own interval and of the simultaneous one."""
    means_K = np.nanmean(differences_GK, axis=0)
    draws_RK = bootstrap_means(differences_GK, seed)
    errors_K = np.nanstd(draws_RK, axis=0)
    # A column that never varies has no error: whatever it is, it is that.
    with np.errstate(invalid="ignore", divide="ignore"):
        t_RK = np.where(errors_K > 0, np.abs(draws_RK - means_K) / errors_K, 0.0)
    critical = np.nanquantile(np.nan_to_num(t_RK).max(axis=1), confidence)
    ends = []
    for k, mean in enumerate(means_K):
        low, high = percentiles(draws_RK[:, k], confidence)
        half = critical * errors_K[k]
        ends.append({"low": low, "high": high, "all_low": float(mean - half), "all_high": float(mean + half)})
    return ends


def bootstrap_means(values_GK: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Means [R, K] of the columns over `resamples` draws of rows with replacement; NaN values do not count."""
    num_rows = len(values_GK)
    drawn = np.random.default_rng(seed).multinomial(num_rows, np.full(num_rows, 1 / num_rows), resamples)
    weights_RG = drawn.astype(np.float64)
    known_GK = ~np.isnan(values_GK)
    with np.errstate(invalid="ignore"):
        return (weights_RG @ np.where(known_GK, values_GK, 0.0)) / (weights_RG @ known_GK)


def _better(models: Sequence[str], differences: Sequence[Difference]) -> dict[str, set[str]]:
    """For each model those that it is known to beat."""
    beats: dict[str, set[str]] = {model: set() for model in models}
    for difference in differences:
        if difference.is_real and difference.mean is not None:
            winner, loser = (difference.a, difference.b) if difference.mean > 0 else (difference.b, difference.a)
            beats[winner].add(loser)
    return beats


def _tiers(models: Sequence[str], beats: Mapping[str, set[str]]) -> dict[str, int]:
    """Tier 1 holds those whom nobody beats, tier 2 those whom only tier 1 beats, and so on."""
    tiers: dict[str, int] = {}
    tier = 1
    while left := [model for model in models if model not in tiers]:
        unbeaten = [model for model in left if not any(model in beats[other] for other in left)]
        # Three models that share no prompts may beat each other in a ring; no order is told then.
        tiers |= dict.fromkeys(unbeaten or left, tier)
        tier += 1
    return tiers
