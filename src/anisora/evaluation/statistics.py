"""What a set of measurements says: means and intervals over clips, by the bootstrap.

The clip is the unit that is drawn anew, never the frame: frames of one clip are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


def mean_interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> dict[str, float | int | None]:
    """`{mean, low, high, n}` of a mean over clips: the percentile bootstrap (Efron 1979). None where n is 0.

    With one value the interval is that value: there is nothing to draw anew, and `n` says so.
    """
    data = np.asarray(values, np.float64)
    if data.size == 0:
        return {"mean": None, "low": None, "high": None, "n": 0}
    draws = np.random.default_rng(seed).integers(0, data.size, (RESAMPLES, data.size))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(data[draws].mean(axis=1), [tail, 100 - tail])
    return {"mean": float(data.mean()), "low": float(low), "high": float(high), "n": int(data.size)}


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> dict[str, float | int | None]:
    """`mean_interval` of a - b, clip by clip; clips where either is NaN are left out, and `n` counts the rest."""
    if len(a) != len(b):
        raise ValueError(f"pairs are compared: got {len(a)} and {len(b)} values")
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return mean_interval(difference[~np.isnan(difference)].tolist(), confidence)
