"""How well features tell characters apart: is a figure known again from other pictures of its character?

A stored feature is the mean of the features of a character's pictures (the paper's section 5.2), here always without
those of the clip that is asked about: neighbouring frames would know each other whatever the encoder.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.evaluation.identity import Alike, cosine
from anisora.evaluation.statistics import mean_interval


def stored_features(features_ND: NDArray[np.float32], labels_N: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """The stored feature [C, D] of each of `count` characters: the mean direction of its features, at their mean length."""
    lengths = np.linalg.norm(features_ND.astype(np.float64), axis=1)
    sums, total = np.zeros((count, features_ND.shape[1]), np.float64), np.zeros(count)
    np.add.at(sums, labels_N, _unit(features_ND.astype(np.float64)))
    np.add.at(total, labels_N, lengths)
    pictures = np.maximum(np.bincount(labels_N, minlength=count), 1)
    return (_unit(sums) * (total / pictures)[:, None]).astype(np.float32)


def apart(
    features_ND: NDArray[np.float32],
    labels_N: NDArray[np.int32],
    sources: Sequence[Hashable],
    count: int,
    alike: Alike = cosine,
) -> NDArray[np.float64]:
    """How alike [N, C] each feature is to each character's stored feature, its own without its own source: NaN where
    nothing is left of it then."""
    found = alike(features_ND, stored_features(features_ND, labels_N, count)).astype(np.float64)
    keys = np.array([f"{label} {source}" for label, source in zip(labels_N, sources, strict=True)])
    for key in np.unique(keys):
        inside = keys == key
        label = labels_N[inside][0]
        rest = features_ND[(labels_N == label) & ~inside]
        without = stored_features(rest, np.zeros(len(rest), np.int32), 1)
        found[inside, label] = alike(features_ND[inside], without)[:, 0] if len(rest) else np.nan
    return found


def identification(
    features_ND: NDArray[np.float32],
    labels_N: NDArray[np.int32],
    sources: Sequence[Hashable],
    count: int,
    alike: Alike = cosine,
) -> dict[str, Any]:
    """Figures of how characters are told apart; those that cannot be had (one character, one clip each) are None.

    `accuracy`: how often the nearest stored feature is the right one, as an interval by character; `chance` of that.
    `auc`: how often a figure is nearer to its own character than another figure to a character that it is not. `same`,
    `nearest_other`: how alike on average. `threshold`: what of it best tells a character from the nearest other one.
    """
    said = {"characters": count, "pictures": len(features_ND)}
    nothing = {"accuracy": None, "chance": None, "auc": None, "same": None, "nearest_other": None, "threshold": None}
    cosines = apart(features_ND, labels_N, sources, count, alike)
    rows = np.arange(len(labels_N))
    own = cosines[rows, labels_N]
    asked = np.isfinite(own)
    if count < 2 or not asked.any():
        return said | nothing
    cosines[rows, labels_N] = -np.inf
    others = cosines[asked]
    own, nearest = own[asked], others.max(axis=1)
    right = (own > nearest).astype(float)
    return said | {
        "accuracy": mean_interval(right.tolist(), groups=labels_N[asked].tolist()),
        "chance": 1 / count,
        "auc": _auc(own, others[np.isfinite(others)]),
        "same": float(own.mean()),
        "nearest_other": float(nearest.mean()),
        "threshold": _threshold(own, nearest),
    }


def _auc(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The share of pairs in which the first is larger, ties counted half (Mann and Whitney 1947)."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    return float(below.mean() / 2 / len(others))


def _threshold(own: NDArray[np.float64], nearest: NDArray[np.float64]) -> float:
    """The middle of the gap with the largest balanced accuracy of `own` above and `nearest` below."""
    values = np.unique(np.concatenate([own, nearest]))
    middles = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    kept = 1 - np.searchsorted(np.sort(own), middles) / len(own)
    refused = np.searchsorted(np.sort(nearest), middles) / len(nearest)
    return float(middles[np.argmax(kept + refused)])


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
