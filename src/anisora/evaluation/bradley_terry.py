"""Strengths from pairwise votes with ties: who is liked how much, as a scale, from who was preferred to whom.

P(a beats b) = sigma(theta_a - theta_b), the thetas summing to 0. Ties enter by one of three models:

- `davidson`: P(a) : P(tie) : P(b) = e^(d/2) : nu : e^(-d/2), d = theta_a - theta_b (Davidson 1970);
- `rao_kupper`: P(a) = sigma(d - log k), P(b) = sigma(-d - log k), k >= 1, the rest being ties (Rao and Kupper 1967);
- `half`: a tie is half a win for each (plain Bradley and Terry 1952).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from anisora.errors import BadInput

Ties = Literal["davidson", "rao_kupper", "half"]
WIN, TIE, LOSS = 0, 1, 2
OUTCOMES = {"a": WIN, "tie": TIE, "b": LOSS}

#: weight of the ridge on thetas: keeps models that won or lost all their votes, or were never compared, finite
PRIOR = 0.01


class Comparison(NamedTuple):
    """One vote: `outcome` is "a", "b" or "tie"; `group` is what its vote shares with others, usually the prompt."""

    a: str
    b: str
    outcome: str
    group: Hashable = None


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """theta of each model with its 95 % interval, on the logit scale; `tie` is log nu or log k, None for `half`.

    `elo` of a model is 1000 + 400 theta / ln 10.
    """

    theta: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    tie: float | None
    n: int

    def elo(self, model: str) -> float:
        """The strength on the scale of chess: 400 points are odds of 10 to 1."""
        return 1000 + 400 * self.theta[model] / math.log(10)


def bradley_terry(
    votes: Sequence[Comparison], ties: Ties = "davidson", *, prior: float = PRIOR, resamples: int = 400, seed: int = 0
) -> Strengths:
    """The strengths that make the votes likeliest, with intervals from drawing groups (else votes) anew.

    Raises BadInput without votes, for an outcome that is none, and for a model compared with itself.
    """
    _check(votes)
    models = sorted({name for vote in votes for name in (vote.a, vote.b)})
    counts_GABO = _counts(votes, models)
    theta, tie = fit_counts(counts_GABO.sum(axis=0), ties, prior)
    draws = _draws(counts_GABO, ties, prior, resamples, seed) if len(counts_GABO) > 1 and resamples else theta[None]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return Strengths(
        theta=dict(zip(models, theta.tolist(), strict=True)),
        low=dict(zip(models, low.tolist(), strict=True)),
        high=dict(zip(models, high.tolist(), strict=True)),
        tie=tie,
        n=len(votes),
    )


def _check(votes: Sequence[Comparison]) -> None:
    if not votes:
        raise BadInput("no votes", expected="at least one comparison of two")
    for vote in votes:
        if vote.outcome not in OUTCOMES:
            raise BadInput("no such outcome of a vote", got=repr(vote.outcome), expected=", ".join(OUTCOMES))
        if vote.a == vote.b:
            raise BadInput("a vote between a model and itself", got=vote.a, expected="two models")


def _counts(votes: Sequence[Comparison], models: Sequence[str]) -> np.ndarray:
    """Votes [G, A, B, outcome] by group; those without a group are one each."""
    place = {model: index for index, model in enumerate(models)}
    groups: dict[Hashable, int] = {}
    index = [groups.setdefault(("own", n) if v.group is None else v.group, len(groups)) for n, v in enumerate(votes)]
    counts = np.zeros((len(groups), len(models), len(models), 3))
    for group, vote in zip(index, votes, strict=True):
        counts[group, place[vote.a], place[vote.b], OUTCOMES[vote.outcome]] += 1
    return counts


def _draws(counts_GABO: np.ndarray, ties: Ties, prior: float, resamples: int, seed: int) -> np.ndarray:
    num_groups = len(counts_GABO)
    weights_RG = np.random.default_rng(seed).multinomial(num_groups, np.full(num_groups, 1 / num_groups), resamples)
    drawn = np.tensordot(weights_RG.astype(float), counts_GABO, axes=1)
    return np.stack([fit_counts(counts, ties, prior)[0] for counts in drawn])


def fit_counts(counts_ABO: np.ndarray, ties: Ties, prior: float = PRIOR) -> tuple[np.ndarray, float | None]:
    """(theta of each model, summing to 0; the tie parameter) from counts of a-wins, ties and b-wins for each pair."""
    from scipy.optimize import minimize

    a, b = np.nonzero(counts_ABO.sum(axis=2))
    counts = counts_ABO[a, b].astype(np.float64)
    if ties == "half":
        counts = np.stack(
            [counts[:, WIN] + counts[:, TIE] / 2, 0 * counts[:, TIE], counts[:, LOSS] + counts[:, TIE] / 2], 1
        )
    num_models = len(counts_ABO)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        theta = x[:num_models]
        value, slope, slope_tie = LOSSES[ties](theta[a] - theta[b], x[num_models], counts)
        gradient = np.bincount(a, slope, num_models) - np.bincount(b, slope, num_models) + 2 * prior * theta
        # Both keep the fit finite where the votes do not fix it: no ties at all, or a shift of all thetas.
        tie_pull = 1e-6 * x[num_models]
        return (
            value + prior * theta @ theta + 0.5 * 1e-6 * x[num_models] ** 2,
            np.append(gradient, slope_tie + tie_pull),
        )

    found = minimize(
        loss, np.zeros(num_models + 1), jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 0, "maxiter": 2000}
    )
    theta = found.x[:num_models] - found.x[:num_models].mean()
    return theta, None if ties == "half" else _tie_parameter(ties, float(found.x[num_models]))


def _tie_parameter(ties: Ties, x: float) -> float:
    return float(np.logaddexp(0.0, x)) if ties == "rao_kupper" else x


def _half(d: np.ndarray, _x: float, n: np.ndarray) -> tuple[float, np.ndarray, float]:
    p = _sigma(d)
    value = -(n[:, WIN] @ _log_sigma(d) + n[:, LOSS] @ _log_sigma(-d))
    return float(value), n.sum(axis=1) * p - n[:, WIN], 0.0


def _davidson(d: np.ndarray, log_nu: float, n: np.ndarray) -> tuple[float, np.ndarray, float]:
    logits = np.stack([d / 2, np.full_like(d, log_nu), -d / 2], axis=1)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    residual = n.sum(axis=1, keepdims=True) * np.exp(log_p) - n
    return float(-(n * log_p).sum()), (residual[:, WIN] - residual[:, LOSS]) / 2, float(residual[:, TIE].sum())


def _rao_kupper(d: np.ndarray, x: float, n: np.ndarray) -> tuple[float, np.ndarray, float]:
    """log k = softplus(x) is never below 0. P(tie) = sigma(d - e) sigma(-d - e) (k^2 - 1), e = log k."""
    e, de_dx = np.logaddexp(0.0, x), float(_sigma(np.asarray(x)))
    win, loss = n[:, WIN] + n[:, TIE], n[:, LOSS] + n[:, TIE]
    value = -(win @ _log_sigma(d - e) + loss @ _log_sigma(-d - e) + n[:, TIE].sum() * np.log(np.expm1(2 * e)))
    up, down = win * _sigma(e - d), loss * _sigma(e + d)
    slope_e = (up + down).sum() - n[:, TIE].sum() * 2 / -np.expm1(-2 * e)
    return float(value), down - up, float(slope_e * de_dx)


def _sigma(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(x)


def _log_sigma(x: np.ndarray) -> np.ndarray:
    from scipy.special import log_expit

    return log_expit(x)


#: (differences, tie variable, counts) -> (negative log likelihood, its slope in each difference, in the tie variable)
LOSSES = {"half": _half, "davidson": _davidson, "rao_kupper": _rao_kupper}
