"""Fits the heads of the calibration table, on the corruptions and clips that are marked for it and on no others.

A head is to tell clean clips from spoiled ones across scenes, to fall with severity within a scene, and not to move with
what it must spare. Weights keep the sign that their feature was made with, so that no fit can turn a fault into a virtue;
and what is better than nearly all clean clips are hardly counts, so that rich colours do not make up for blur.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadInput
from anisora.evaluation.calibration import head_value, table
from anisora.evaluation.corruptions import CORRUPTIONS
from anisora.evaluation.records import MetricRecord
from anisora.evaluation.validation import is_learned_from

#: Features that a head may use, with the sign of their weight.
FEATURES: dict[str, dict[str, int]] = {
    "anime.smoothness": dict.fromkeys(
        (
            "registration", "disorder", "flicker", "curvature", "takes_back", "turns_back", "goes_back", "unrest", "softness",
            "freeze",
        ),
        -1,
    ),
    "anime.appeal": {"spoiled": -1, "edge_fine": 1, "color_off": -1},
    "anime.image_video": {"mean": -1, "worst": -1, "color": -1, "drift": -1},
    "anime.character": {"mean": -1, "worst": -1, "switch": -1, "at_jump": -1},
}  # fmt: skip

#: What leaves a mark of its own has a head of its own beside the other, and the worse of the two decides: in one sum of all,
#: each fault would drown in what else is to be said (docs/lab-notes.md). Its features, and the kinds that it is fitted on.
MARKS: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "anime.smoothness": ({"detour": -1}, ("shuffle",)),
    "anime.image_video": ({"hues": -1}, ("recolor",)),
    "anime.character": ({"bent": -1}, ("melt",)),
}

#: What networks for faults are sure of in the clips that they learned from says nothing, so heads that read them are
#: fitted on the others.
READS_FAULTS = ("anime.appeal", "anime.character")

#: How much falling with severity, not rising where spared, not moving there at all, and small weights count beside telling
#: clean from spoiled; a lone weight has none to be even with, and may be as large as it likes.
PAIRS, RISE, MOVE, SMALL = 1.0, 4.0, 0.05, 0.02

#: The place of a feature is where the worst of clean clips are, this share of them being worse; beyond it on the good side
#: a feature counts only so much. Chosen on ten fitting clips, each left out in turn (docs/lab-notes.md).
WORST, VIRTUE = 0.1, 0.2

#: Fewer clips say nothing about scenes that were not seen.
LEAST_CLIPS = 4

#: The median clean clip gets 100 / (1 + exp(-CLEAN)), 88, and the median spoiled one 12.
CLEAN = 2.0


@dataclass
class _Rows:
    """Standardised features of clean, spoiled and spared clips; pairs are (better, worse)."""

    clean: NDArray
    spoiled: NDArray
    pairs: NDArray  # [n, 2, features]
    spared: NDArray  # [n, 2, features]


def fit_table(records: Sequence[MetricRecord]) -> dict[str, Any]:
    """A calibration table from the records of a validation; what was not measured keeps its entry of the table in use.

    Raises BadInput where a dimension was measured on too few clips.
    """
    usable = [
        r for r in records
        if r.params.get("clip_use") == "fitting" and r.params.get("kind_use") == "fitting" and r.score is not None
    ]  # fmt: skip
    usable = [r for r in usable if r.metric not in READS_FAULTS or not is_learned_from(r.params["clip"])]
    by_metric = {name: [r for r in usable if r.metric == name] for name in ("anime.motion", *FEATURES)}
    fits = {"anime.motion": _fit_motion} | {name: partial(_fit_head, name) for name in FEATURES}
    fitted = {name: fits[name](own) | _fitted_on(own) for name, own in by_metric.items() if own}
    return {"version": table()["version"] + 1, **{name: fitted.get(name, table()[name]) for name in by_metric}}


def _fitted_on(records: Sequence[MetricRecord]) -> dict[str, Any]:
    kinds = {r.params["kind"] for r in records} - {"clean"}
    return {"fitted_on": {"clips": sorted({r.params["clip"] for r in records}), "corruptions": sorted(kinds)}}


def _fit_motion(records: Sequence[MetricRecord]) -> dict[str, Any]:
    """The motion that scores 50: the median of clean clips."""
    moved = [r.raw for r in records if r.params["kind"] == "clean" and r.raw is not None]
    if len(moved) < LEAST_CLIPS:
        raise BadInput("too few clips to fit anime.motion", got=len(moved), expected=f"{LEAST_CLIPS} or more")
    return {"half": _rounded(float(np.median(moved)))}


def _fit_head(metric: str, records: Sequence[MetricRecord]) -> dict[str, Any]:
    """The head of a dimension, and the one for its marks, that in use where their kinds were not tried; on a scale where the
    median clean clip is at `CLEAN`, and the median spoiled one as far on the other side."""
    own = [kind for kind, corruption in CORRUPTIONS.items() if corruption.dimension == metric]
    head = _fitted_head(metric, records, FEATURES[metric], own)
    if metric in MARKS:
        signs, kinds = MARKS[metric]
        was_tried = any(r.params["kind"] in kinds for r in records)
        head["marks"] = _fitted_head(metric, records, signs, kinds) if was_tried else table()[metric]["marks"]
    clean = np.median([head_value(head, r.details) for r in records if r.params["kind"] == "clean"])
    spoiled = np.median([head_value(head, r.details) for r in records if r.params["kind"] in own])
    scale = {
        "midpoint": _rounded((clean + spoiled) / 2),
        "temperature": _rounded(max(clean - spoiled, 0.1) / (2 * CLEAN)),
    }
    return scale | head


def _fitted_head(
    metric: str, records: Sequence[MetricRecord], signs: Mapping[str, int], own: Collection[str]
) -> dict[str, Any]:
    from scipy.optimize import minimize

    by_key = {(r.params["clip"], r.params["kind"], r.params["severity"]): _vector(r, signs) for r in records}
    clean = {clip: x for (clip, kind, _), x in by_key.items() if kind == "clean"}
    if len(clean) < LEAST_CLIPS:
        raise BadInput(f"too few clips to fit {metric}", got=len(clean), expected=f"{LEAST_CLIPS} or more for fitting")
    if not {kind for _, kind, _ in by_key} & set(own):
        raise BadInput(f"nothing to fit {metric} on", got="clean clips alone", expected=f"some of {', '.join(own)}")
    values, sign = np.array(list(by_key.values())), np.array(list(signs.values()))
    center = sign * np.quantile(sign * np.array(list(clean.values())), WORST, axis=0)
    scale = np.maximum(values.std(axis=0), 1e-3)
    standard = {key: _bent((x - center) / scale, sign) for key, x in by_key.items()}
    rows = _rows(metric, standard, own)
    bounds = [(None, None)] + [{1: (0, None), -1: (None, 0)}[way] for way in signs.values()]
    best = minimize(_loss, np.array([1.0, *(0.5 * sign)]), args=(rows,), method="L-BFGS-B", bounds=bounds).x
    parts = zip(signs, center, scale, best[1:], strict=True)
    return {
        "bias": _rounded(best[0]),
        "virtue": VIRTUE,
        "features": {
            name: {"center": _rounded(c), "scale": _rounded(s), "weight": _rounded(w)} for name, c, s, w in parts
        },
    }


def _bent(standard: NDArray, sign: NDArray) -> NDArray:
    """As `calibration.head_value` counts standardised features: what is better than the place, by `VIRTUE`."""
    return np.where(sign * standard > 0, VIRTUE * standard, standard)


def _rounded(value: float) -> float:
    return round(float(value), 5)


def _vector(record: MetricRecord, signs: Mapping[str, int]) -> NDArray:
    return np.array([record.details[name] for name in signs], float)


def _rows(metric: str, by_key: Mapping[tuple[str, str, int], NDArray], own: Collection[str]) -> _Rows:
    spared = [kind for kind, corruption in CORRUPTIONS.items() if corruption.spares == metric]
    clean = {clip: x for (clip, kind, _), x in by_key.items() if kind == "clean"}
    spoiled, pairs, kept = [], [], []
    for clip, sound in clean.items():
        for kind in own:
            levels = [(s, by_key[clip, kind, s]) for s in range(1, 6) if (clip, kind, s) in by_key]
            spoiled += [x for severity, x in levels if severity >= 3]
            steps = [sound, *(x for _, x in levels)]
            pairs += [(a, b) for i, a in enumerate(steps) for b in steps[i + 1 :]]
        kept += [(sound, by_key[clip, kind, s]) for kind in spared for s in range(1, 6) if (clip, kind, s) in by_key]
    width = len(next(iter(clean.values())))
    return _Rows(
        clean=np.array(list(clean.values())),
        spoiled=np.array(spoiled),
        pairs=np.array(pairs),
        spared=np.array(kept).reshape(-1, 2, width),
    )


def _loss(parameters: NDArray, rows: _Rows) -> float:
    bias, weights = parameters[0], parameters[1:]
    told = (
        np.logaddexp(0, -(rows.clean @ weights + bias)).mean() + np.logaddexp(0, rows.spoiled @ weights + bias).mean()
    )
    fallen = np.logaddexp(0, -4 * (rows.pairs[:, 0] - rows.pairs[:, 1]) @ weights).mean()
    change = (rows.spared[:, 1] - rows.spared[:, 0]) @ weights if len(rows.spared) else np.zeros(1)
    spared = RISE * (np.maximum(change, 0) ** 2).mean() + MOVE * (change**2).mean()
    small = SMALL * (weights**2).sum() if len(weights) > 1 else 0.0
    return float(told + PAIRS * fallen + spared + small)
