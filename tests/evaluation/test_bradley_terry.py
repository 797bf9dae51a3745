"""Strengths from votes: parity with a library, laws, and recovery of known strengths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from anisora.errors import BadInput
from anisora.evaluation.bradley_terry import LOSSES, Comparison, bradley_terry, fit_counts

NAMES = ("ada", "bob", "cy", "dot", "eve")
TRUE = np.array([1.2, 0.5, 0.0, -0.5, -1.2])


def votes(num: int, seed: int = 0, nu: float = 0.6, prompts: int = 40) -> list[Comparison]:
    """Votes by Davidson's model with the strengths `TRUE`."""
    rng = np.random.default_rng(seed)
    cast = []
    for n in range(num):
        a, b = rng.choice(len(NAMES), 2, replace=False)
        d = TRUE[a] - TRUE[b]
        p = np.array([math.exp(d / 2), nu, math.exp(-d / 2)])
        outcome = rng.choice(["a", "tie", "b"], p=p / p.sum())
        cast.append(Comparison(NAMES[a], NAMES[b], str(outcome), n % prompts))
    return cast


def evalica_thetas(cast, method, **options):
    evalica = pytest.importorskip("evalica")
    code = {"a": evalica.Winner.X, "b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    result = getattr(evalica, method)(
        [v.a for v in cast],
        [v.b for v in cast],
        [code[v.outcome] for v in cast],
        tolerance=1e-14,
        limit=100_000,
        **options,
    )
    theta = np.log(result.scores[list(NAMES)].to_numpy())
    return theta - theta.mean(), result


def test_plain_strengths_are_evalicas():
    cast = votes(600)
    expected, _ = evalica_thetas(cast, "bradley_terry")
    found = bradley_terry(cast, "half", prior=0, resamples=0).theta
    assert [found[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)


def test_strengths_with_ties_are_evalicas():
    cast = votes(600, seed=1)
    expected, result = evalica_thetas(cast, "newman")
    found = bradley_terry(cast, "davidson", prior=0, resamples=0)
    assert [found.theta[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)
    assert math.exp(found.tie) == pytest.approx(2 * result.v, abs=1e-5)  # Newman writes 2 v where Davidson writes nu


@pytest.mark.parametrize("ties", LOSSES)
def test_slopes_are_those_of_the_loss(ties):
    rng = np.random.default_rng(2)
    d, counts = rng.normal(size=4), rng.integers(1, 9, (4, 3)).astype(float)
    value = lambda x: LOSSES[ties](x[:4], x[4], counts)[0]  # noqa: E731
    _, slope, slope_tie = LOSSES[ties](d, 0.3, counts)
    numeric = approx_fprime(np.append(d, 0.3), value, 1e-7)
    if ties == "half":
        counts[:, 1] = 0
        _, slope, slope_tie = LOSSES[ties](d, 0.3, counts)
        numeric = approx_fprime(np.append(d, 0.3), value, 1e-7)
    assert np.append(slope, slope_tie) == pytest.approx(numeric, abs=1e-4)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_the_three_outcomes_are_all_there_is(ties):
    """Probabilities, read off the loss of one vote each, sum to 1."""
    for d, x in ((0.7, 0.2), (-2.0, -1.0), (0.0, 1.5)):
        p = [math.exp(-LOSSES[ties](np.array([d]), x, np.eye(3)[[k]])[0]) for k in range(3)]
        assert sum(p) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("ties", LOSSES)
def test_known_strengths_are_recovered_within_their_intervals(ties):
    found = bradley_terry(votes(3000, seed=3), ties, resamples=100)
    assert sorted(NAMES, key=lambda name: -found.theta[name]) == list(NAMES)
    assert sum(found.theta.values()) == pytest.approx(0, abs=1e-9)
    assert all(found.low[name] < found.theta[name] < found.high[name] for name in NAMES)
    if ties == "davidson":
        inside = [found.low[n] <= t <= found.high[n] for n, t in zip(NAMES, TRUE, strict=True)]
        assert sum(inside) >= 4
        assert math.exp(found.tie) == pytest.approx(0.6, abs=0.08)


def test_who_wins_every_vote_is_first_and_finite():
    cast = [Comparison("best", "mid", "a")] * 5 + [Comparison("mid", "last", "a")] * 5
    found = bradley_terry(cast, resamples=40)
    assert found.theta["best"] > found.theta["mid"] > found.theta["last"]
    assert all(math.isfinite(value) for value in (*found.low.values(), *found.high.values()))
    assert found.elo("best") > 1000 > found.elo("last")


def test_the_order_of_a_vote_does_not_matter():
    cast = votes(200, seed=4)
    turn = {"a": "b", "b": "a", "tie": "tie"}
    turned = [Comparison(v.b, v.a, turn[v.outcome], v.group) for v in cast]
    assert bradley_terry(cast, resamples=0).theta == pytest.approx(bradley_terry(turned, resamples=0).theta, abs=1e-7)


def test_no_votes_or_strange_ones_are_refused():
    for wrong in ([], [Comparison("a", "a", "tie")], [Comparison("a", "b", "left")]):
        with pytest.raises(BadInput):
            bradley_terry(wrong)


def test_a_fit_takes_counts_as_well():
    counts = np.zeros((2, 2, 3))
    counts[0, 1] = (30, 0, 10)
    theta, tie = fit_counts(counts, "half", prior=0)
    assert theta[0] - theta[1] == pytest.approx(math.log(3), abs=1e-6)
    assert tie is None
