"""What a set of scores says: means, differences and p-values, with prompts as the sample.

The prompt is the unit that is drawn anew, never the frame, and never the clip where several clips share a prompt: they
are not independent. Every prompt counts once, however many clips it has. Models are compared prompt by prompt, which
takes away what the prompts share and finds far smaller differences than two intervals side by side.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

RESAMPLES = 10_000

Interval = dict[str, float | int | None]


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0, groups: Sequence[Hashable] | None = None
) -> Interval:
    """`{mean, low, high, n}` of a mean: the percentile bootstrap (Efron 1979). All None where n is 0.

    `groups` names the prompt of each value; without it each value stands alone. With groups the mean is that of the
    prompts' means, and `n` counts prompts. With one of them the interval is its value: there is nothing to draw anew,
    and `n` says so.
    """
    data = np.asarray(values, np.float64)
    if groups is not None:
        data = np.asarray(list(group_means(values, groups).values()), np.float64)
    if data.size == 0:
        return {"mean": None, "low": None, "high": None, "n": 0}
    draws = np.random.default_rng(seed).integers(0, data.size, (RESAMPLES, data.size))
    low, high = percentiles(data[draws].mean(axis=1), confidence)
    return {"mean": float(data.mean()), "low": low, "high": high, "n": int(data.size)}


def paired_interval(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95, groups: Sequence[Hashable] | None = None
) -> Interval:
    """`mean_interval` of a - b, clip by clip; clips where either is NaN are left out, and `n` counts the rest.

    Raises ValueError when there are more of one than of the other.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs are compared: got {len(a)} and {len(b)} values")
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    known = ~np.isnan(difference)
    kept = None if groups is None else [group for group, is_known in zip(groups, known, strict=True) if is_known]
    return mean_interval(difference[known].tolist(), confidence, groups=kept)


def percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ends of the middle `confidence` share of bootstrap draws; draws that are NaN are left out."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def group_means(values: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """The mean of each group, in the order in which groups appear; NaN is no value. Raises ValueError by length."""
    if len(values) != len(groups):
        raise ValueError(f"one group a value: got {len(values)} values and {len(groups)} groups")
    found: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if not math.isnan(value):
            found.setdefault(group, []).append(value)
    return {group: sum(members) / len(members) for group, members in found.items()}


def clustered_standard_error(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Standard error of the plain mean over values that come in groups: sqrt(sum_g (sum_i (x_i - mean))^2) / n.

    Equation 4 of "Adding Error Bars to Evals" (arXiv 2411.00640): the closed form that the bootstrap is held to.
    """
    data = np.asarray(values, np.float64)
    _, index = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    sums = np.bincount(index, data - data.mean())
    return float(np.sqrt((sums**2).sum()) / data.size)


def sign_flips(num_differences: int, permutations: int, seed: int = 0) -> tuple[np.ndarray, bool]:
    """Signs [P, n] of a paired permutation test, and whether they are all there are (else they are drawn)."""
    if 2**num_differences <= permutations:
        bits = np.arange(2**num_differences)[:, None] >> np.arange(num_differences) & 1
        return 1.0 - 2.0 * bits, True
    return np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, num_differences)), False


def sign_flip_p(differences_GK: np.ndarray, seed: int = 0, permutations: int = RESAMPLES) -> list[float | None]:
    """Two-sided p-value that the mean of each column is 0: the paired permutation test, exact for up to 13 rows.

    Under the null two models could have changed names on any prompt, so each difference may have either sign. NaN is no
    difference; None where a column has fewer than two. Note the floor: n differences cannot give less than 2 / 2^n.
    """
    differences = np.asarray(differences_GK, np.float64)
    counts_K = (~np.isnan(differences)).sum(axis=0)
    filled_GK = np.nan_to_num(differences)
    signs_PG, is_all = sign_flips(len(filled_GK), permutations, seed)
    seen_K = np.abs(filled_GK.sum(axis=0)) - 1e-9 * np.abs(filled_GK).sum(axis=0)  # sums of the same numbers may differ
    extreme_K = (np.abs(signs_PG @ filled_GK) >= seen_K).sum(axis=0)
    p_K = extreme_K / len(signs_PG) if is_all else (extreme_K + 1) / (len(signs_PG) + 1)
    return [float(p) if count >= 2 else None for p, count in zip(p_K, counts_K, strict=True)]


def holm(p_values: Mapping[Hashable, float | None]) -> dict[Hashable, float | None]:
    """The p-values adjusted so that the chance of any false finding among them stays below the level (Holm 1979).

    None stays None and is not counted as a test.
    """
    tests = sorted((p, number, name) for number, (name, p) in enumerate(p_values.items()) if p is not None)
    adjusted: dict[Hashable, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, _, name) in enumerate(tests):
        largest = max(largest, min(1.0, p * (len(tests) - rank)))
        adjusted[name] = largest
    return adjusted
