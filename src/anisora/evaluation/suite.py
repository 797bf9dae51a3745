"""Scores clips: each decoded once for all metrics and scorers, each score written as soon as it is made, a bad clip no stop.

Run again on the same folder, it makes only what is missing: what was scored by another version, or from other bytes, is
scored anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from anisora.errors import AnisoraError, BadRequest, WriteFailed
from anisora.evaluation.calibration import table
from anisora.evaluation.metrics import METRICS, Measured, measure
from anisora.evaluation.records import RESULTS, MetricRecord, append_records, read_records
from anisora.evaluation.samples import Sample
from anisora.evaluation.scoring import Said, Scorer, Waiting
from anisora.evaluation.statistics import mean_interval
from anisora.measures.footage import Footage
from anisora.records import Backend
from anisora.store import content_hash, write_atomic

Progress = Callable[[str, int, int], None]

SUMMARY = "summary.json"

#: Reasons that another run may not meet; a record with one of them is made again.
PASSING = frozenset({"no_answer"})


def run_id() -> str:
    """The hash of everything but the clips that scores depend on: the metrics' versions and the calibration."""
    versions = {name: METRICS[name].version for name in sorted(METRICS)}
    return content_hash({"versions": versions, "calibration": table()})[:12]


def known_metrics(names: Sequence[str] | None) -> list[str]:
    """The metrics named (with or without `anime.`), or all. Raises BadRequest for unknown ones."""
    full = [name if name in METRICS else f"anime.{name}" for name in names or METRICS]
    if unknown := [name for name in full if name not in METRICS]:
        raise BadRequest("unknown metric", got=", ".join(unknown), expected=", ".join(METRICS))
    return full


def evaluate(
    samples: Sequence[Sample],
    out: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    scorers: Sequence[Scorer] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores the samples into `out/results.jsonl` and returns what `out/summary.json` says.

    `scorers` add lines of their own backends for their dimensions. Raises BadRequest for unknown metrics, BadInput when
    `out` holds other things' results, AssetMissing when a metric's weights cannot be had, BadConfig for an endpoint that
    refuses every clip.
    """
    names, path = known_metrics(metrics), Path(out) / RESULTS
    ids = {run_id(), *(scorer.run_id for scorer in scorers)}
    done = {(r.run_id, *r.key): r.params.get("input") for r in _so_far(path) if r.run_id in ids}
    with Waiting(scorers) as waiting:
        for count, sample in enumerate(samples):
            if progress:
                progress("clips", count, len(samples))
            content = sample.content()
            missing = [name for name in names if done.get((run_id(), sample.id, name, "bundled")) != content]
            due = [scorer for scorer in scorers if not _has_said(scorer, sample, content, done)]
            if missing or due:
                footage, problem = _footage(sample)
                append_records(path, score_sample(sample, missing, footage=footage, problem=problem, content=content))
                for scorer in due:
                    append_records(path, ask(scorer, sample, footage, problem, content, waiting))
        append_records(path, answers(waiting))
    if progress:
        progress("clips", len(samples), len(samples))
    wanted, scored = {sample.id for sample in samples}, {(s.backend, o.metric) for s in scorers for o in s.outputs}
    asked = {("bundled", name) for name in names} | scored
    summary = summarise([r for r in _so_far(path) if r.sample_id in wanted and (r.backend, r.metric) in asked])
    _write_json(Path(out) / SUMMARY, summary)
    return summary


def _has_said(scorer: Scorer, sample: Sample, content: str, done: Mapping[tuple[str, str, str, str], Any]) -> bool:
    keys = [(scorer.run_id, sample.id, output.metric, scorer.backend) for output in scorer.outputs]
    return all(done.get(key) == content for key in keys)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A question to a scorer, and what its records need beside the answer."""

    scorer: Scorer
    sample: Sample
    seen: _Seen | None
    content: str | None


def ask(
    scorer: Scorer,
    sample: Sample,
    footage: Footage | None,
    problem: AnisoraError | None,
    content: str | None,
    waiting: Waiting,
) -> Iterator[MetricRecord]:
    """The records of what has been said by now, of this clip or of earlier ones that waited for an answer."""
    seen = None if footage is None else _Seen.of(footage)
    asked = _Asked(scorer=scorer, sample=sample, seen=seen, content=content)
    if footage is None:
        yield from _said(asked, {o.metric: (_not_read(sample, "", problem), 0.0) for o in scorer.outputs})
        return
    for earlier, said in waiting.submit(asked, scorer, sample, footage):
        yield from _said(earlier, said)


def answers(waiting: Waiting) -> Iterator[MetricRecord]:
    """The records of what is still waited for, as it is said."""
    for asked, said in waiting.rest():
        yield from _said(asked, said)


def _said(asked: _Asked, said: Said) -> Iterator[MetricRecord]:
    """The records of what a scorer said of a sample; those that may come better at another run are not kept as done."""
    for metric, (measured, seconds) in said.items():
        kept = asked.content if measured.reason not in PASSING else None
        of = {"metric": metric, "version": 1, "backend": asked.scorer.backend, "run_id": asked.scorer.run_id}
        yield _record(asked.sample, measured, asked.seen, kept, seconds, higher_is_better=True, **of)


def _so_far(path: Path) -> list[MetricRecord]:
    return read_records(path) if path.exists() else []


def _footage(sample: Sample) -> tuple[Footage | None, AnisoraError | None]:
    """The sample's footage, or why there is none."""
    with one_thread():
        try:
            return Footage.read(sample.video), None
        except WriteFailed:
            raise
        except AnisoraError as problem:
            return None, problem


def score_sample(
    sample: Sample,
    metrics: Sequence[str],
    *,
    footage: Footage | None = None,
    problem: AnisoraError | None = None,
    content: str | None = None,
) -> Iterator[MetricRecord]:
    """The records of a sample, one a metric, in order. A clip that cannot be read gives nulls with the reason.

    `footage` is used instead of reading the file, where it is given; `problem` says why it could not be read.
    """
    if footage is None and problem is None:
        footage, problem = _footage(sample)
    seen = None if footage is None else _Seen.of(footage)
    with one_thread():
        for name in metrics:
            metric, started = METRICS[name], time.process_time()
            said = _not_read(sample, metric.unit, problem) if footage is None else measure(name, sample, footage)
            of = {"metric": name, "version": metric.version, "backend": "bundled", "run_id": run_id()}
            spent = round(time.process_time() - started, 3)
            yield _record(sample, said, seen, content, spent, higher_is_better=metric.higher_is_better, **of)


def _not_read(sample: Sample, unit: str, problem: AnisoraError | None) -> Measured:
    reason = "unreadable" if sample.video.exists() else "no_file"
    return Measured(unit=unit, reason=reason, details={"problem": str(problem)})


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What stands of a clip in each of its records."""

    n_frames: int
    fps: Fraction
    width_px: int
    height_px: int

    @classmethod
    def of(cls, footage: Footage) -> _Seen:
        return cls(n_frames=len(footage), fps=footage.fps, width_px=footage.width_px, height_px=footage.height_px)


def _record(
    sample: Sample, said: Measured, seen: _Seen | None, content: str | None, seconds: float, **of: Any
) -> MetricRecord:
    return MetricRecord(
        sample_id=sample.id,
        unit=said.unit,
        raw=said.raw,
        score=said.score,
        reason=said.reason,
        weights_sha256=said.weights_sha256,
        group=sample.group,
        prompt_id=sample.prompt_id,
        model=sample.model,
        seed=sample.seed,
        seconds=seconds,
        params={**said.params, "input": content},
        per_frame=said.per_frame,
        details=said.details,
        **({} if seen is None else vars(seen)),
        **of,
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV with one thread: DIS depends on how its work is shared out, scores must not."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def summarise(records: Sequence[MetricRecord]) -> dict[str, Any]:
    """Per model and metric: how many scores there are, why the others are null, and the mean with its interval.

    Backends are never averaged together: those other than `bundled` stand behind the metric's name.
    """
    models: dict[str, dict[str, Any]] = {}
    for model in sorted({r.model or "" for r in records}):
        for name, backend in ((name, backend) for name in METRICS for backend in get_args(Backend)):
            own = [r for r in records if (r.model or "", r.metric, r.backend) == (model, name, backend)]
            if own:
                models.setdefault(model, {})[label(name, backend)] = _summary(own)
    return {"calibration": table()["version"], "samples": len({r.sample_id for r in records}), "models": models}


def label(metric: str, backend: str) -> str:
    """What a metric's numbers of a backend are shown under: of another than `bundled`, with its name behind."""
    return metric if backend == "bundled" else f"{metric} ({backend})"


def _summary(records: Sequence[MetricRecord]) -> dict[str, Any]:
    raw = [r.raw for r in records if r.raw is not None]
    return {
        "score": mean_interval([r.score for r in records if r.score is not None]),
        "raw": mean_interval(raw),
        "null": dict(Counter(r.reason for r in records if r.reason)),
    }


def _write_json(path: Path, value: Any) -> None:
    import json

    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")
