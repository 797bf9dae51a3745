"""Do the metrics say what people say? Scores of a folder against a file of votes, dimension by dimension, with intervals.

Ratings give every clip a place of its own: correlations over clips, and the order of clips of one prompt. Choices between
two clips give the order only. Where several models were judged on the same prompts, soft pairwise accuracy asks whether
the metric is as sure as people are of which model is better. The statistics are those of `agreement`; nothing is fitted
here but the size of a difference that counts as a tie, on other prompts than it is judged on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anisora.evaluation.agreement import (
    accuracy_of_pairs,
    alpha_interval,
    correlation,
    pairwise_accuracy,
    soft_pairwise_accuracy,
)
from anisora.evaluation.leaderboard import Row, backends
from anisora.evaluation.votes import BEST, WORST, Vote, opinion_scores, rating_table

#: bootstrap draws of a correlation: ends good to about 4 % of an interval's width
DRAWS = 500

#: what a pair vote says of a over b
SIGNS = {"a": 1.0, "tie": 0.0, "b": -1.0}

#: a dimension of votes that is people's judgement of a clip as a whole
OVERALL = "overall"

Figure = Mapping[str, Any]


def with_people(rows: Sequence[Row], votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """One line a dimension, backend and kind of vote: how far the scores of `anime.DIMENSION` agree with the votes.

    `{dimension, backend, kind, raters, votes, left_out, clips, prompts, alpha, spearman, kendall, pairwise, soft}`; the last
    five are `{value, low, high, ...}` or None where the kind of vote does not give them. `left_out` counts votes on clips
    without a score. Dimensions that nobody scored have no line.
    """
    lines = []
    for dimension in sorted({vote.dimension for vote in votes}):
        metric = f"anime.{dimension.removeprefix('anime.')}"
        for backend in backends(rows):
            scored = {
                row.record.sample_id: row
                for row in rows
                if row.record.metric == metric and row.record.backend == backend and row.record.score is not None
            }
            for kind in ("rating", "pair"):
                own = [vote for vote in votes if vote.dimension == dimension and vote.kind == kind]
                if own and scored:
                    lines.append({"dimension": metric, "backend": backend, "kind": kind} | _agree(own, scored, kind))
    return lines


def human_scores(votes: Sequence[Vote]) -> dict[str, float]:
    """clip -> what people said of it, 0 to 100: its opinion score (1 is 0, 5 is 100), averaged over the dimensions that it was
    rated in; of ratings of a dimension `overall`, where there are any, those alone. Choices give no place on the scale."""
    rated: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.kind == "rating":
            rated.setdefault(vote.dimension, []).append(vote)
    said: dict[str, list[float]] = {}
    for own in [rated[OVERALL]] if OVERALL in rated else rated.values():
        ratings_RC, _, clips = rating_table(own)
        for clip, opinion in zip(clips, opinion_scores(ratings_RC).tolist(), strict=True):
            said.setdefault(clip, []).append(100 * (opinion - WORST) / (BEST - WORST))
    return {clip: float(np.mean(values)) for clip, values in said.items()}


def _agree(votes: Sequence[Vote], scored: Mapping[str, Row], kind: str) -> dict[str, Any]:
    known = [v for v in votes if v.a in scored and (v.b is None or v.b in scored)]
    counts = {
        "raters": len({v.rater for v in known}),
        "votes": len(known),
        "left_out": len(votes) - len(known),
        "clips": len({clip for v in known for clip in (v.a, v.b) if clip is not None}),
        "prompts": len({v.prompt_id for v in known}),
    }
    nothing = dict.fromkeys(("alpha", "spearman", "kendall", "pairwise", "soft"))
    if not known:
        return counts | nothing
    return counts | nothing | (_by_ratings if kind == "rating" else _by_choices)(known, scored)


def _by_ratings(votes: Sequence[Vote], scored: Mapping[str, Row]) -> dict[str, Figure | None]:
    ratings_RC, raters, clips = rating_table(votes)
    people = opinion_scores(ratings_RC)
    prompt_of = {vote.a: vote.prompt_id for vote in votes}
    metric, prompts = [_score(scored[clip]) for clip in clips], [prompt_of[clip] for clip in clips]
    alpha = alpha_interval(ratings_RC, resamples=DRAWS) if len(raters) > 1 else None
    systems = [(scored[clip].model, prompt) for clip, prompt in zip(clips, prompts, strict=True)]
    return {
        "alpha": None if alpha is None else alpha | {"value": alpha["alpha"]},
        "spearman": correlation(metric, people.tolist(), prompts, resamples=DRAWS),
        "kendall": correlation(metric, people.tolist(), prompts, "kendall", resamples=DRAWS),
        "pairwise": pairwise_accuracy(metric, people.tolist(), prompts),
        "soft": _soft(_means(systems, people.tolist()), _means(systems, metric)),
    }


def _by_choices(votes: Sequence[Vote], scored: Mapping[str, Row]) -> dict[str, Figure | None]:
    """Of several votes on one pair the majority counts, a draw of them is a tie."""
    sums: dict[tuple[str, str, str], float] = {}
    for vote in votes:
        a, b, sign = vote.a, vote.b or "", SIGNS[str(vote.value)]
        key, turned = ((a, b), sign) if a < b else ((b, a), -sign)
        sums[(*key, vote.prompt_id)] = sums.get((*key, vote.prompt_id), 0.0) + turned
    metric = np.array([_score(scored[a]) - _score(scored[b]) for a, b, _ in sums])
    people = np.sign(np.array(list(sums.values())))
    return {
        "pairwise": accuracy_of_pairs(metric, people, [prompt for _, _, prompt in sums]),
        "soft": _soft(*_systems(votes, scored)),
    }


System = tuple[str, str]  # a model on a prompt


def _systems(votes: Sequence[Vote], scored: Mapping[str, Row]) -> tuple[dict[System, float], dict[System, float]]:
    """The share of its votes that each model won on each prompt, ties half; and the mean score of the clips voted on."""
    shown = [(clip, vote.prompt_id) for vote in votes for clip in (vote.a, vote.b or "")]
    won = [(1 + way * SIGNS[str(vote.value)]) / 2 for vote in votes for way in (1, -1)]
    clips = sorted(set(shown))
    scores = _means(
        [(scored[clip].model, prompt) for clip, prompt in clips], [_score(scored[clip]) for clip, _ in clips]
    )
    return _means([(scored[clip].model, prompt) for clip, prompt in shown], won), scores


def _means(systems: Sequence[System], values: Sequence[float]) -> dict[System, float]:
    found: dict[System, list[float]] = {}
    for system, value in zip(systems, values, strict=True):
        found.setdefault(system, []).append(value)
    return {system: float(np.mean(own)) for system, own in found.items()}


def _soft(people: Mapping[System, float], metric: Mapping[System, float]) -> Figure | None:
    """Soft pairwise accuracy over the prompts that all models have; None for one model."""
    models = sorted({model for model, _ in people})
    prompts = [p for p in sorted({p for _, p in people}) if all((model, p) in people for model in models)]
    if len(models) < 2:
        return None
    metric_MG, people_MG = (
        np.array([[said[model, p] for p in prompts] for model in models]).reshape(len(models), len(prompts))
        for said in (metric, people)
    )
    return soft_pairwise_accuracy(metric_MG, people_MG)


def _score(row: Row) -> float:
    assert row.record.score is not None  # rows without one were left out
    return row.record.score
