"""The tables that follow from `results.jsonl`: who leads in what, how sure that is, and by which kind of shot.

Scores of different backends are never averaged together: a board is that of one backend. Higher is better throughout;
what was not scored is left out and counted, never taken as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anisora.errors import BadInput
from anisora.evaluation.power import detectable_difference
from anisora.evaluation.ranking import MIN_PROMPTS, Difference, Ranking, Scores, compare_pairs, rank, scores_of
from anisora.evaluation.records import RESULTS, MetricRecord, read_records
from anisora.evaluation.run_suite import FACTS, REAL, SETTINGS
from anisora.evaluation.statistics import holm, mean_interval
from anisora.store import read_jsonl

#: the paper's six, in the order of its Table 1, with its column names
DIMENSIONS = {
    "anime.smoothness": "Visual Smooth",
    "anime.motion": "Visual Motion",
    "anime.appeal": "Visual Appeal",
    "anime.text_video": "Text-Video Consistency",
    "anime.image_video": "Image-Video Consistency",
    "anime.character": "Character Consistency",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A record with what is known of its sample besides (action, style, dimension, setting, video, prompt)."""

    record: MetricRecord
    facts: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model; samples without one belong together under one name."""
        return self.record.model or "clips"

    @property
    def prompt(self) -> str:
        """What is drawn anew and paired: the group, else the sample itself."""
        return self.record.group or self.record.sample_id


def load_rows(folder: str | Path) -> list[Row]:
    """The rows of a folder of results. Raises BadInput where there are none."""
    folder = Path(folder)
    if not (folder / RESULTS).is_file():
        raise BadInput(
            "no scores in the folder", got=folder, expected=RESULTS, hint="anisora evaluate CLIPS --out DIR first"
        )
    facts = {line["sample_id"]: line for line in read_jsonl(folder / FACTS)} if (folder / FACTS).is_file() else {}
    rows = [Row(record=record, facts=facts.get(record.sample_id, {})) for record in read_records(folder / RESULTS)]
    if not rows:
        raise BadInput("no scores in the folder", got=f"{folder / RESULTS}, empty", expected="lines of scores")
    return rows


def backends(rows: Sequence[Row]) -> list[str]:
    """The backends that measured anything."""
    return sorted({row.record.backend for row in rows})


def metrics(rows: Sequence[Row]) -> list[str]:
    """The metrics that have a score of any clip: the six first, in their order, then the others by name."""
    found = {row.record.metric for row in rows if row.record.score is not None}
    return [name for name in DIMENSIONS if name in found] + sorted(found - DIMENSIONS.keys())


def scores_by(rows: Sequence[Row], metric: str, of: Callable[[Row], str | None]) -> dict[str, dict[Hashable, float]]:
    """Mean score of each prompt under each name that `of` gives a row; rows that it gives None are left out."""
    named = ((of(row), row.prompt, row.record.score) for row in rows if row.record.metric == metric)
    return scores_of([(name, prompt, score) for name, prompt, score in named if name is not None and score is not None])


def board(rows: Sequence[Row]) -> dict[str, Ranking]:
    """The ranking of the models in each metric that has scores."""
    return {metric: rank(scores_by(rows, metric, lambda row: row.model)) for metric in metrics(rows)}


def nulls(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, int]]:
    """(model, metric) -> {reason: number of clips} for what was not scored."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if row.record.reason:
            counted.setdefault((row.model, row.record.metric), Counter())[row.record.reason] += 1
    return {key: dict(counter) for key, counter in counted.items()}


def mixed_versions(rows: Sequence[Row]) -> list[str]:
    """Metrics whose scores come from more than one version of it: they do not compare."""
    seen: dict[str, set[tuple[int, str | None]]] = {}
    for row in rows:
        if row.record.score is not None:
            seen.setdefault(row.record.metric, set()).add((row.record.version, row.record.weights_sha256))
    return sorted(name for name, versions in seen.items() if len(versions) > 1)


# ------------------------------------------------------------------------------------------------ the paper's tables


def paper_rows(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """(name, rows) of the lines of the paper's Table 1: for a model guided in several ways its shots from the first
    picture alone, from all settings (interpolated average) and from two pictures or more (keyframe interpolation)."""
    several = {name for name, places in SETTINGS.items() if len(places) > 1}
    lines = []
    for model in sorted({row.model for row in rows}, key=lambda name: (name == REAL, name)):
        own = [row for row in rows if row.model == model]
        used = {row.facts.get("setting") for row in own}
        if len(used) < 2:
            lines.append((model, own))
            continue
        kinds = (("I2V", {"first"}), ("Interpolated Average", used), ("KeyFrame Interpolation", several))
        for title, settings in kinds:
            if chosen := [row for row in own if row.facts.get("setting") in settings]:
                lines.append((f"{model} ({title})", chosen))
    return lines


def table_1(rows: Sequence[Row], human: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """One line a system: `{system, human, <dimension>: interval}`, the intervals by prompt.

    `human` says what people gave each clip, 0 to 100 (`people.human_scores`); the mean over the system's clips that were
    rated. Without it that interval is empty, as are those of what nobody scored.
    """
    return [
        {"system": name, "human": _by_people(own, human or {})}
        | {metric: _interval(own, metric) for metric in DIMENSIONS}
        for name, own in paper_rows(rows)
    ]


def _by_people(rows: Sequence[Row], human: Mapping[str, float]) -> dict[str, Any]:
    prompts = {row.record.sample_id: row.prompt for row in rows if row.record.sample_id in human}
    return mean_interval([human[clip] for clip in prompts], groups=list(prompts.values()))


def table_4(rows: Sequence[Row], model: str) -> dict[str, dict[str, Any]]:
    """metric -> {"3d": interval, "2d": interval, "all": interval} of a model's clips."""
    own = [row for row in rows if row.model == model]
    parts = {
        "3d": [row for row in own if row.facts.get("dimension") == "3d"],
        "2d": [row for row in own if row.facts.get("dimension") == "2d"],
        "all": own,
    }
    return {metric: {name: _interval(part, metric) for name, part in parts.items()} for metric in DIMENSIONS}


def by_fact(rows: Sequence[Row], metric: str, fact: str) -> dict[str, dict[str, dict[str, Any]]]:
    """{value of the fact: {model: interval}}: a metric by action, style, setting or dimension."""
    values = sorted({str(row.facts[fact]) for row in rows if row.facts.get(fact) is not None})
    models = sorted({row.model for row in rows})
    return {
        value: {
            model: _interval([r for r in rows if r.model == model and str(r.facts.get(fact)) == value], metric)
            for model in models
        }
        for value in values
    }


def _interval(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    known = [row for row in rows if row.record.metric == metric and row.record.score is not None]
    scores = [row.record.score or 0.0 for row in known]
    return mean_interval(scores, groups=[row.prompt for row in known])


# ------------------------------------------------------------------------------------------------------- two of them


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One metric of two systems: their means over shared prompts, the difference, and what may be said of it.

    `p_holm` is adjusted for the number of metrics looked at. `better` is None where no difference is shown; then
    `would_see` is the difference that as many prompts find four times out of five.
    """

    metric: str
    mean_a: float | None
    mean_b: float | None
    difference: Difference
    p_holm: float | None
    better: str | None
    would_see: float | None


def compare(rows: Sequence[Row], a: str, b: str) -> list[Verdict]:
    """Whether model `a` and model `b` differ, metric by metric. Raises BadInput for unknown models or none shared."""
    models = sorted({row.model for row in rows})
    if missing := [name for name in (a, b) if name not in models]:
        raise BadInput("no scores of this model", got=", ".join(missing), expected=" or ".join(models))
    tables = {metric: scores_by(rows, metric, lambda row: row.model) for metric in metrics(rows)}
    tables = {metric: table for metric, table in tables.items() if a in table and b in table}
    found = {metric: compare_pairs(table, [(a, b)])[0] for metric, table in tables.items()}
    if not any(difference.n for difference in found.values()):
        raise BadInput(
            f"{a} and {b} share no prompts",
            expected="clips of the same prompts",
            hint="the same file names, or a `group`",
        )
    tests: dict[Hashable, float | None] = {metric: difference.p for metric, difference in found.items()}
    adjusted = holm(tests)
    return [_verdict(metric, tables[metric], difference, adjusted[metric]) for metric, difference in found.items()]


def _verdict(metric: str, scores: Scores, difference: Difference, p_holm: float | None) -> Verdict:
    a, b = difference.a, difference.b
    shared = [prompt for prompt in scores[a] if prompt in scores[b]]
    is_real = difference.is_real and p_holm is not None and p_holm < 0.05
    steps = [scores[a][prompt] - scores[b][prompt] for prompt in shared]
    return Verdict(
        metric=metric,
        mean_a=mean_interval([scores[a][prompt] for prompt in shared])["mean"],
        mean_b=mean_interval([scores[b][prompt] for prompt in shared])["mean"],
        difference=difference,
        p_holm=p_holm,
        better=(a if (difference.mean or 0) > 0 else b) if is_real else None,
        would_see=detectable_difference(len(steps), _deviation(steps)) if len(steps) >= MIN_PROMPTS else None,
    )


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
