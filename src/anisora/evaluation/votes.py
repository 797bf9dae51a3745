"""What people said: `votes.jsonl`, one line a rating of one clip or a choice between two, read and checked.

`{vote_id, study, rater, prompt_id, dimension, kind: rating|pair, a, b, value, ms, ts}`; `a` and `b` are sample ids, the
value of a rating is 1 to 5 (5 is best), that of a pair a, b, tie or skip.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anisora.errors import BadInput
from anisora.evaluation.bradley_terry import OUTCOMES, Comparison
from anisora.store import read_jsonl

VOTES = "votes.jsonl"
KINDS = ("rating", "pair")
BEST, WORST = 5, 1


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One answer of one rater. `b` is None for a rating; `value` is a number for a rating, a word for a pair."""

    rater: str
    prompt_id: str
    dimension: str
    kind: str
    a: str
    b: str | None
    value: float | str


def read_votes(path: str | os.PathLike[str], dimension: str | None = None) -> list[Vote]:
    """The votes of a file, of one dimension where one is named; skipped ones are left out.

    Raises BadInput for lines that are no votes, by their number, and where none is left.
    """
    votes = [_vote(line, f"{path}, record {number}") for number, line in enumerate(read_jsonl(path), 1)]
    found = [v for v in votes if v.value != "skip" and dimension in (None, v.dimension)]
    if not found:
        there = sorted({vote.dimension for vote in votes})
        raise BadInput("no votes", got=f"{path} with {', '.join(there) or 'nothing'}", expected=dimension or "votes")
    return found


def _vote(line: Mapping[str, Any], where: str) -> Vote:
    kind, value = line.get("kind"), line.get("value")
    wrong = [name for name in ("rater", "dimension", "a") if not isinstance(line.get(name), str) or not line[name]]
    if kind not in KINDS:
        wrong.append(f"kind {kind!r}")
    elif kind == "rating" and (
        isinstance(value, bool) or not isinstance(value, int | float) or not WORST <= value <= BEST
    ):
        wrong.append(f"value {value!r} of a rating")
    elif kind == "pair" and (value not in (*OUTCOMES, "skip") or not isinstance(line.get("b"), str)):
        wrong.append(f"value {value!r} of a pair, b {line.get('b')!r}")
    elif kind == "pair" and line["a"] == line["b"]:
        wrong.append("a clip compared with itself")
    if wrong:
        raise BadInput(
            f"not a vote in {where}",
            got=", ".join(wrong),
            expected="rater, dimension, kind rating|pair, a (and b), value 1 to 5 or a|b|tie|skip",
        )
    return Vote(
        rater=line["rater"],
        prompt_id=str(line.get("prompt_id") or line["a"]),
        dimension=line["dimension"],
        kind=str(kind),
        a=line["a"],
        b=line["b"] if kind == "pair" else None,
        value=value if isinstance(value, str) else float(value or 0),
    )


def comparisons(votes: Sequence[Vote]) -> list[Comparison]:
    """The pair votes, grouped by prompt."""
    return [Comparison(v.a, v.b or "", str(v.value), v.prompt_id) for v in votes if v.kind == "pair"]


def rating_table(votes: Sequence[Vote]) -> tuple[np.ndarray, list[str], list[str]]:
    """(ratings [raters, clips] with NaN where there is none, raters, clips); of several by one rater, the mean."""
    ratings = [vote for vote in votes if vote.kind == "rating"]
    raters, clips = sorted({vote.rater for vote in ratings}), sorted({vote.a for vote in ratings})
    sums, counts = np.zeros((len(raters), len(clips))), np.zeros((len(raters), len(clips)))
    for vote in ratings:
        place = raters.index(vote.rater), clips.index(vote.a)
        sums[place] += float(vote.value)
        counts[place] += 1
    with np.errstate(invalid="ignore"):
        return sums / counts, raters, clips


def opinion_scores(ratings_RC: np.ndarray) -> np.ndarray:
    """The mean rating of each clip with each rater's own strictness taken out: q of u = q_clip + b_rater + noise.

    Fitted by alternating means, sum of b zero (the additive part of the model in ITU-T P.913, 12.6). NaN where a clip has
    no rating.
    """
    known = ~np.isnan(ratings_RC)
    bias_R = np.zeros(len(ratings_RC))
    for _ in range(100):
        quality_C = _means(ratings_RC - bias_R[:, None], known, axis=0)
        found_R = _means(ratings_RC - quality_C[None], known, axis=1)
        found_R -= found_R.mean()
        if np.abs(found_R - bias_R).max() < 1e-9:
            break
        bias_R = found_R
    return quality_C


def _means(values: np.ndarray, known: np.ndarray, axis: int) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis)
