"""Scores clips: each decoded once for all metrics, each score written as soon as it is made, a bad clip no stop.

Run again on the same folder, it makes only what is missing: what was scored by another version, or from other bytes, is
scored anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from anisora.errors import AnisoraError, BadRequest, WriteFailed
from anisora.evaluation.calibration import table
from anisora.evaluation.metrics import METRICS, Measured, measure
from anisora.evaluation.records import RESULTS, MetricRecord, append_records, read_records
from anisora.evaluation.samples import Sample
from anisora.evaluation.statistics import mean_interval
from anisora.measures.footage import Footage
from anisora.store import content_hash, write_atomic

Progress = Callable[[str, int, int], None]

SUMMARY = "summary.json"


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
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores the samples into `out/results.jsonl` and returns what `out/summary.json` says.

    Raises BadRequest for unknown metrics, BadInput when `out` holds other things' results, AssetMissing when a metric's
    weights cannot be had.
    """
    names, path = known_metrics(metrics), Path(out) / RESULTS
    done = {r.key: r.params.get("input") for r in _so_far(path) if r.run_id == run_id()}
    for count, sample in enumerate(samples):
        if progress:
            progress("clips", count, len(samples))
        content = sample.content()
        missing = [name for name in names if done.get((sample.id, name, "bundled")) != content]
        if missing:
            append_records(path, score_sample(sample, missing, content=content))
    if progress:
        progress("clips", len(samples), len(samples))
    wanted = {sample.id for sample in samples}
    summary = summarise([r for r in _so_far(path) if r.sample_id in wanted and r.metric in names])
    _write_json(Path(out) / SUMMARY, summary)
    return summary


def _so_far(path: Path) -> list[MetricRecord]:
    return read_records(path) if path.exists() else []


def score_sample(
    sample: Sample, metrics: Sequence[str], *, footage: Footage | None = None, content: str | None = None
) -> Iterator[MetricRecord]:
    """The records of a sample, one a metric, in order. A clip that cannot be read gives nulls with the reason.

    `footage` is used instead of reading the file, where it is given.
    """
    problem: AnisoraError | None = None
    with one_thread():
        if footage is None:
            try:
                footage = Footage.read(sample.video)
            except WriteFailed:
                raise
            except AnisoraError as caught:
                problem = caught
        for name in metrics:
            started = time.process_time()
            if footage is None:
                reason = "unreadable" if sample.video.exists() else "no_file"
                said = Measured(unit=METRICS[name].unit, reason=reason, details={"problem": str(problem)})
            else:
                said = measure(name, sample, footage)
            yield _record(sample, name, said, footage, content, time.process_time() - started)


def _record(
    sample: Sample, name: str, said: Measured, footage: Footage | None, content: str | None, seconds: float
) -> MetricRecord:
    seen = {}
    if footage is not None:
        size = {"width_px": footage.width_px, "height_px": footage.height_px}
        seen = {"n_frames": len(footage), "fps": footage.fps, **size}
    metric = METRICS[name]
    return MetricRecord(
        run_id=run_id(),
        sample_id=sample.id,
        metric=name,
        version=metric.version,
        unit=said.unit,
        raw=said.raw,
        score=said.score,
        reason=said.reason,
        higher_is_better=metric.higher_is_better,
        weights_sha256=said.weights_sha256,
        group=sample.group,
        prompt_id=sample.prompt_id,
        model=sample.model,
        seed=sample.seed,
        seconds=round(seconds, 3),
        params={**said.params, "input": content},
        per_frame=said.per_frame,
        details=said.details,
        **seen,  # type: ignore[arg-type]
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
    """Per model and metric: how many scores there are, why the others are null, and the mean with its interval."""
    models: dict[str, dict[str, Any]] = {}
    for model in sorted({r.model or "" for r in records}):
        for name in METRICS:
            own = [r for r in records if (r.model or "") == model and r.metric == name]
            if own:
                models.setdefault(model, {})[name] = _summary(own)
    return {"calibration": table()["version"], "samples": len({r.sample_id for r in records}), "models": models}


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
