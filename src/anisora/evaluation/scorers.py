"""Scorers that learn from people: a linear head on what the metrics measured, fitted to ratings or to choices.

`regression` is ridge regression on the clips' opinion scores; `pairwise` makes the votes likeliest under Bradley and
Terry with ties, the strength of a clip being linear in its features. A head is judged on prompts that it has not seen
(cross-validation by prompt), its probabilities or ratings are checked against what people said, and a card goes with it.
A few hundred labels are enough for a head of this size (VisionReward, arXiv 2412.21059).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anisora.errors import BadInput
from anisora.evaluation.agreement import alpha_interval, correlation, pairwise_accuracy
from anisora.evaluation.bradley_terry import LOSSES, OUTCOMES, TIE
from anisora.evaluation.records import MetricRecord
from anisora.evaluation.statistics import mean_interval
from anisora.evaluation.votes import BEST, WORST, Vote, opinion_scores, rating_table
from anisora.files import existing_file, sha256_file, write_atomic

Kind = Literal["regression", "pairwise"]

SCHEMA = 1
HEAD, CARD = "scorer.json", "card.md"

#: strengths of the ridge that cross-validation chooses among; features are in standard deviations
_RIDGES = (0.1, 1.0, 10.0, 100.0)
_FOLDS = 5
#: bootstrap draws of the figures on a card: ends good to about 4 % of an interval's width
_DRAWS = 500
#: a feature that fewer clips than this share have is not used; the rest are filled in with the median
_PRESENT = 0.9

Features = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Head:
    """A linear head: value = bias + sum weight (feature - centre) / scale. What a file holds, all of it.

    For `regression` the value is a rating, 1 to 5; for `pairwise` a strength on the logit scale, 0 for the mean clip of
    training, with `tie` the logarithm of Davidson's nu. `centre` also stands in for a feature that a clip lacks.
    """

    schema: int
    dimension: str
    kind: Kind
    features: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    tie: float | None

    def value(self, features: Mapping[str, float]) -> float:
        """The head's answer for one clip."""
        filled = [features.get(name, centre) for name, centre in zip(self.features, self.centre, strict=True)]
        steps = (np.array(filled) - self.centre) / self.scale
        return float(self.bias + steps @ np.array(self.weights))

    def score(self, features: Mapping[str, float]) -> float:
        """The answer from 0 to 100: a rating's place between 1 and 5 (ratings end there, so does the score), or the
        chance in percent to be preferred to the mean clip of training where one is preferred at all."""
        value = self.value(features)
        if self.kind == "regression":
            return 100 * (min(max(value, WORST), BEST) - WORST) / (BEST - WORST)
        return 100 / (1 + math.exp(-min(max(value, -700.0), 700.0)))


def features_of(records: Sequence[MetricRecord]) -> dict[str, dict[str, float]]:
    """sample id -> features: raw values of the metrics, and the numbers among their details, of the bundled backend."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if record.backend != "bundled":
            continue  # a head must not learn from itself
        own = found.setdefault(record.sample_id, {})
        values = {record.metric: record.raw} | {f"{record.metric}.{k}": v for k, v in record.details.items()}
        own |= {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
    return found


# ------------------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head and how well it does on prompts that it has not seen (`figures`)."""

    head: Head
    figures: dict[str, Any]


def train(votes: Sequence[Vote], features: Features, kind: Kind | None = None, seed: int = 0) -> Trained:
    """A head for the votes of one dimension; `kind` by what there is more of, ratings or pairs.

    Raises BadInput for votes of several dimensions, too few clips with features, fewer than five prompts, or labels that
    do not vary.
    """
    dimensions = sorted({vote.dimension for vote in votes})
    if len(dimensions) != 1:
        raise BadInput("a scorer is for one dimension", got=", ".join(dimensions) or "no votes", expected="one")
    pairs = sum(vote.kind == "pair" for vote in votes)
    kind = kind or ("pairwise" if 2 * pairs > len(votes) else "regression")
    known = [v for v in votes if v.a in features and (v.b is None or v.b in features)]
    wanted = [v for v in known if v.kind == ("pair" if kind == "pairwise" else "rating")]
    if len(wanted) < 20:
        raise BadInput(
            "too few votes on clips with features",
            got=f"{len(wanted)} of {len(votes)} votes fit {kind}",
            expected="at least 20, on sample ids of the scores",
        )
    data = (_pairwise_data if kind == "pairwise" else _regression_data)(wanted, features)
    if len(set(data.groups)) < _FOLDS:
        raise BadInput("too few prompts to validate", got=len(set(data.groups)), expected=f"at least {_FOLDS}")
    figures = {"votes": len(wanted), "left_out": len(votes) - len(wanted), "raters": len({v.rater for v in wanted}),
               "prompts": len(set(data.groups)), "features": len(data.names)} | _validate(data, kind, seed)  # fmt: skip
    if kind == "regression":
        figures["alpha"] = alpha_interval(rating_table(wanted)[0], resamples=_DRAWS)
    fit = _fit(data, np.arange(len(data.groups)), kind, seed)
    head = Head(
        schema=SCHEMA, dimension=dimensions[0], kind=kind, features=data.names,
        centre=tuple(data.centre.tolist()), scale=tuple(data.scale.tolist()),
        weights=tuple(fit.weights.tolist()), bias=fit.bias, tie=fit.tie if kind == "pairwise" else None,
    )  # fmt: skip
    return Trained(head=head, figures=figures)


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Rows to fit: for regression a clip (its features and opinion score), for pairs a vote (difference of features and
    outcome). Features are centred and in standard deviations."""

    names: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    x: np.ndarray
    y: np.ndarray
    groups: list[str]


@dataclass(frozen=True, kw_only=True)
class _Fit:
    weights: np.ndarray
    bias: float = 0.0
    tie: float = 0.0


def _table(clips: Sequence[str], features: Features) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    """(names, centre, scale, standardised features [clips, names]); features that are rare or never vary are left out."""
    every = sorted({name for clip in clips for name in features[clip]})
    raw = np.array([[features[clip].get(name, math.nan) for name in every] for clip in clips], np.float64)
    present = np.isfinite(raw).mean(axis=0) >= _PRESENT
    centre = np.zeros(len(every))
    centre[present] = np.nanmedian(raw[:, present], axis=0)
    filled = np.where(np.isfinite(raw), raw, centre)
    scale = filled.std(axis=0)
    used = present & (scale > 1e-12)
    if not used.any():
        raise BadInput("no feature varies among the rated clips", got=f"{len(clips)} clips, {len(every)} features")
    names = tuple(name for name, is_used in zip(every, used, strict=True) if is_used)
    return names, centre[used], scale[used], (filled[:, used] - centre[used]) / scale[used]


def _regression_data(votes: Sequence[Vote], features: Features) -> _Data:
    ratings_RC, _, clips = rating_table(votes)
    prompt_of = {vote.a: vote.prompt_id for vote in votes}
    names, centre, scale, x = _table(clips, features)
    y = opinion_scores(ratings_RC)
    if np.ptp(y) == 0:
        raise BadInput("all clips are rated alike", got=f"{y[0]:.2f}", expected="ratings that differ")
    return _Data(names=names, centre=centre, scale=scale, x=x, y=y, groups=[prompt_of[clip] for clip in clips])


def _pairwise_data(votes: Sequence[Vote], features: Features) -> _Data:
    clips = sorted({clip for vote in votes for clip in (vote.a, vote.b or "")})
    names, centre, scale, x = _table(clips, features)
    # 0 is the mean clip of training, not the median one that fills gaps.
    centre, x = centre + scale * x.mean(axis=0), x - x.mean(axis=0)
    row = {clip: index for index, clip in enumerate(clips)}
    difference = np.stack([x[row[vote.a]] - x[row[vote.b or ""]] for vote in votes])
    y = np.array([OUTCOMES[str(vote.value)] for vote in votes])
    if (y == TIE).all():
        raise BadInput("all votes are ties", got=f"{len(y)} votes", expected="choices")
    return _Data(names=names, centre=centre, scale=scale, x=difference, y=y, groups=[vote.prompt_id for vote in votes])


def _fit(data: _Data, rows: np.ndarray, kind: Kind, seed: int) -> _Fit:
    """The head on some rows, its ridge chosen by cross-validation by prompt within them."""
    losses = {ridge: 0.0 for ridge in _RIDGES}
    for inside, outside in _folds([data.groups[row] for row in rows], seed):
        for ridge in _RIDGES:
            losses[ridge] += _loss(data, rows[outside], _fit_once(data, rows[inside], kind, ridge), kind)
    return _fit_once(data, rows, kind, min(losses, key=lambda ridge: losses[ridge]))


def _fit_once(data: _Data, rows: np.ndarray, kind: Kind, ridge: float) -> _Fit:
    if kind == "regression":
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=ridge).fit(data.x[rows], data.y[rows])
        return _Fit(weights=model.coef_, bias=float(model.intercept_))
    from scipy.optimize import minimize

    x, counts = data.x[rows], np.eye(3)[data.y[rows]]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope, slope_tie = LOSSES["davidson"](x @ w[:-1], w[-1], counts)
        penalty = np.append(ridge * w[:-1], 1e-3 * w[-1])  # the tie parameter stays finite where nobody ties
        return value + 0.5 * penalty @ w, np.append(x.T @ slope, slope_tie) + penalty

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return _Fit(weights=found[:-1], tie=float(found[-1]))


def _loss(data: _Data, rows: np.ndarray, fit: _Fit, kind: Kind) -> float:
    if kind == "regression":
        return float(((data.x[rows] @ fit.weights + fit.bias - data.y[rows]) ** 2).sum())
    return LOSSES["davidson"](data.x[rows] @ fit.weights, fit.tie, np.eye(3)[data.y[rows]])[0]


def _folds(groups: Sequence[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit, rows to judge) of up to five folds; a prompt is never on both sides."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[place]: number % min(_FOLDS, len(names)) for number, place in enumerate(order)}
    of_row = np.array([fold[group] for group in groups])
    return [(np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)) for k in range(of_row.max() + 1)]


def _validate(data: _Data, kind: Kind, seed: int) -> dict[str, Any]:
    """Figures from predictions for prompts that were left out of the fit, ridge and all."""
    value, tie = np.empty(len(data.y)), np.empty(len(data.y))
    for inside, outside in _folds(data.groups, seed):
        fit = _fit(data, inside, kind, seed + 1)
        value[outside] = data.x[outside] @ fit.weights + fit.bias
        tie[outside] = fit.tie
    if kind == "regression":
        return regression_figures(value, data.y, data.groups)
    return _pairwise_figures(data, value, tie)


def regression_figures(predicted: np.ndarray, seen: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """How predictions for clips agree with what people said of them, with intervals by group (prompt)."""
    slope, intercept = np.polyfit(predicted, seen, 1) if np.ptp(predicted) > 0 else (0.0, float(seen.mean()))
    return {
        "clips": len(seen),
        "spearman": correlation(predicted.tolist(), seen.tolist(), groups, resamples=_DRAWS),
        "kendall": correlation(predicted.tolist(), seen.tolist(), groups, "kendall", resamples=_DRAWS),
        "pairwise_accuracy": pairwise_accuracy(predicted.tolist(), seen.tolist(), groups),
        "error": float(np.sqrt(((predicted - seen) ** 2).mean())),
        "error_of_the_mean": float(seen.std()),
        "calibration": {"slope": float(slope), "intercept": float(intercept), "bins": _bins(predicted, seen)},
    }


def _pairwise_figures(data: _Data, difference: np.ndarray, tie: np.ndarray) -> dict[str, Any]:
    logits = np.stack([difference / 2, tie, -difference / 2], axis=1)
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    decided = data.y != TIE
    right = (p.argmax(axis=1) == data.y).astype(float)
    preferred = np.where(difference == 0, 0.5, (difference > 0) == (data.y == OUTCOMES["a"]))
    shares = np.bincount(data.y, minlength=3) / len(data.y)
    p_a = p[:, 0] / (p[:, 0] + p[:, 2])
    return {
        "ties": int((~decided).sum()),
        "accuracy": mean_interval(right.tolist(), groups=data.groups),
        "accuracy_without_ties": mean_interval(
            preferred[decided].tolist(), groups=[g for g, d in zip(data.groups, decided, strict=True) if d]
        ),
        "majority": float(shares.max()),
        "log_loss": float(-np.log(np.maximum(p[np.arange(len(p)), data.y], 1e-12)).mean()),
        "log_loss_of_shares": float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
        "calibration": {"bins": _bins(p_a[decided], (data.y[decided] == OUTCOMES["a"]).astype(float))},
    }


def _bins(predicted: np.ndarray, seen: np.ndarray, count: int = 5) -> list[dict[str, float]]:
    """Mean prediction and mean truth in bins of as many each, from the lowest prediction to the highest."""
    parts = [part for part in np.array_split(np.argsort(predicted, kind="stable"), count) if len(part)]
    return [{"predicted": float(predicted[i].mean()), "seen": float(seen[i].mean()), "n": len(i)} for i in parts]


# ------------------------------------------------------------------------------------------------------- files and use


def save(trained: Trained, folder: str | os.PathLike[str]) -> Path:
    """Writes `scorer.json` and its card; returns the path of the first."""
    folder = Path(folder)
    content = {**asdict(trained.head), "figures": trained.figures}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path = write_atomic(folder / HEAD, text.encode() + b"\n")
    write_atomic(folder / CARD, card(trained).encode())
    return path


def load(folder: str | os.PathLike[str]) -> Head:
    """The head in a folder. Raises BadInput for a missing file, another schema, or numbers that do not fit together."""
    path = existing_file(Path(folder) / HEAD, BadInput, "the scorer")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content.pop("figures", None)
        content |= {name: tuple(content[name]) for name in ("features", "centre", "scale", "weights")}
        head = Head(**content)
        numbers = np.array([head.centre, head.scale, head.weights], np.float64)  # ragged lists raise
        if numbers.shape[1] != len(head.features) or not np.isfinite([*numbers.ravel(), head.bias]).all():
            raise ValueError(f"{numbers.shape[1]} numbers for {len(head.features)} features, or not-a-numbers")
        if head.schema != SCHEMA or head.kind not in ("regression", "pairwise") or min(head.scale, default=0) <= 0:
            raise ValueError(f"schema {head.schema}, kind {head.kind}, scales {head.scale}")
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise BadInput(
            "not a scorer", got=f"{path}: {problem}", expected=f"a {HEAD} as train-scorer writes it"
        ) from problem
    return head


def apply(folder: str | os.PathLike[str], records: Sequence[MetricRecord]) -> list[MetricRecord]:
    """What the scorer in a folder says of each sample: records of `anime.DIMENSION`, backend `full`.

    A sample that lacks more than half of the features has no score, with that reason.
    """
    head, sha256 = load(folder), sha256_file(Path(folder) / HEAD)
    features = features_of(records)
    first = {record.sample_id: record for record in reversed(records)}
    return [_said(head, sha256, first[sample], own) for sample, own in features.items()]


def _said(head: Head, sha256: str, like: MetricRecord, features: Mapping[str, float]) -> MetricRecord:
    lacking = [name for name in head.features if name not in features]
    knows = 2 * len(lacking) <= len(head.features)
    return MetricRecord(
        run_id=like.run_id, sample_id=like.sample_id, metric=f"anime.{head.dimension.removeprefix('anime.')}", version=1,
        unit="rating" if head.kind == "regression" else "log-odds", raw=head.value(features) if knows else None,
        score=head.score(features) if knows else None, reason=None if knows else "features_missing",
        higher_is_better=True, backend="full", weights_sha256=sha256, group=like.group, prompt_id=like.prompt_id,
        model=like.model, seed=like.seed, n_frames=like.n_frames, fps=like.fps, width_px=like.width_px,
        height_px=like.height_px, params={"scorer": head.kind, "features_missing": len(lacking)},
    )  # fmt: skip


def card(trained: Trained) -> str:
    """The model card, as Markdown: what it is for, what it was made from, how good it is, what it must not be used for."""
    head, f = trained.head, trained.figures
    strongest = sorted(zip(head.features, head.weights, strict=True), key=lambda entry: -abs(entry[1]))[:10]
    lines = [
        f"# Scorer: {head.dimension}",
        "",
        f"A linear head ({head.kind}) on {len(head.features)} features that the metrics of the bundled backend measure.",
        f"Trained on {f['votes']} votes of {f['raters']} raters on {f['prompts']} prompts"
        f" ({f['left_out']} votes were left out: other kind, or clips without features).",
        "",
        "## How good it is",
        "",
        f"On prompts that it has not seen ({_FOLDS}-fold cross-validation by prompt), with 95 % intervals by prompt:",
        "",
        *(regression_lines(f) if head.kind == "regression" else _pairwise_lines(f)),
        "",
        "Calibration, in bins of as many each (predicted: seen): "
        + ", ".join(f"{b['predicted']:.2f}: {b['seen']:.2f}" for b in f["calibration"]["bins"]) + ".",
        "",
        "## What it looks at",
        "",
        *(f"- `{name}`: {weight:+.3f} for a standard deviation" for name, weight in strongest),
        "",
        "## Limits",
        "",
        "It knows what its raters saw: other styles, lengths and models than theirs are outside of what was measured here."
        " Compare models by prompt and with intervals; a model trained on this score needs another one to be judged by.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def regression_lines(f: Mapping[str, Any]) -> list[str]:
    """The figures of `regression_figures`, and the raters' agreement where it is known, as lines of a card."""
    raters = "- the raters among themselves: Krippendorff's alpha (ordinal) "
    return [
        f"- Spearman {_range(f['spearman'])}, Kendall {_range(f['kendall'])} over {f['clips']} clips",
        f"- order of two clips of one prompt, ties counted: {_range(f['pairwise_accuracy'])}"
        f" ({f['pairwise_accuracy']['n_pairs']} pairs)",
        *([raters + _range(f["alpha"])] if "alpha" in f else []),
        f"- root mean square error {f['error']:.3f}; always saying the mean: {f['error_of_the_mean']:.3f}",
        f"- seen = {f['calibration']['intercept']:.2f} + {f['calibration']['slope']:.2f} predicted",
    ]


def _pairwise_lines(f: Mapping[str, Any]) -> list[str]:
    return [
        f"- right about preferred, tied or not: {_range(f['accuracy'])}; always saying the commonest: {f['majority']:.3f}",
        f"- right about who is preferred, ties left out: {_range(f['accuracy_without_ties'])}",
        f"- log loss {f['log_loss']:.3f}; of the plain shares: {f['log_loss_of_shares']:.3f}",
    ]


def _range(figure: Mapping[str, Any]) -> str:
    value = next((figure[name] for name in ("value", "mean", "alpha") if name in figure), None)
    if value is None or figure["low"] is None:
        return "not known" if value is None else f"{value:.3f}"
    return f"{value:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
