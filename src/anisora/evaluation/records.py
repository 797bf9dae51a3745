"""The noun of evaluation: what one metric says of one sample, and the file that holds such lines.

`results.jsonl` has one line per sample and metric. It is written line by line as the scores come, so that an interrupted
run goes on where it stopped, and it is all that statistics and reports read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from anisora.errors import BadInput
from anisora.records import Backend
from anisora.store import append_jsonl, read_jsonl

SCHEMA = 1
RESULTS = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """One metric of one sample.

    `raw` is in `unit` and finite, or None; `score` is on the scale from 0 to 100 where higher is better. `reason` says,
    as a short code, why there is no score, and is None exactly when there is one: no score is not a low score. A raw
    value may stand without a score ("descriptive": neither more nor less of it is better; "uncalibrated").
    `sample_id` is the path relative to the input without suffix; `group` the prompt (or whatever samples of several
    models have in common), by which statistics pair and cluster. `seconds` is the CPU time of the metric, without what
    it shares with others. `params` are the settings that the value depends on.
    """

    run_id: str
    sample_id: str
    metric: str
    version: int
    unit: str
    raw: float | None = None
    score: float | None = None
    reason: str | None = None
    higher_is_better: bool | None = None
    backend: Backend = "bundled"
    weights_sha256: str | None = None
    group: str | None = None
    prompt_id: str | None = None
    model: str | None = None
    seed: int | None = None
    n_frames: int | None = None
    fps: Fraction | None = None
    width_px: int | None = None
    height_px: int | None = None
    seconds: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    per_frame: Sequence[float | None] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        where = f"{self.sample_id}, {self.metric}"
        if (self.score is None) != (self.reason is not None):
            raise ValueError(f"{where}: there is either a score or a reason, not {self.score!r} and {self.reason!r}")
        if self.raw is None and self.score is not None:
            raise ValueError(f"{where}: a score needs the raw value it was made of")
        if self.raw is not None and not math.isfinite(self.raw):
            raise ValueError(f"{where}: {self.raw} is no value; give a reason")
        if self.score is not None and not 0 <= self.score <= 100:
            raise ValueError(f"{where}: scores lie in [0, 100], not {self.score}")

    @property
    def key(self) -> tuple[str, str, str]:
        """What a run does once: (sample, metric, backend)."""
        return self.sample_id, self.metric, self.backend

    def to_json(self) -> dict[str, Any]:
        """The line of this record; `per_frame` and `details` only where there are any."""
        line = {f.name: getattr(self, f.name) for f in fields(self)}
        line["fps"] = None if self.fps is None else str(self.fps)
        for name in ("per_frame", "details"):
            if not line[name]:
                del line[name]
        return {"schema": line.pop("schema"), **line}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> MetricRecord:
        """The record of a line. Raises BadInput for lines of another kind, naming what is wrong with them."""
        known = {f.name for f in fields(cls)}
        wrong = [f"unknown {name}" for name in line if name not in known]
        if line.get("schema") != SCHEMA:
            wrong = [f"schema {line.get('schema')!r}"]
        if not wrong:
            try:
                fps = line.get("fps")
                return cls(**{**line, "fps": None if fps is None else Fraction(fps)})
            except (TypeError, ValueError, ZeroDivisionError) as reason:
                wrong = [str(reason)]
        raise BadInput(
            "not a line of scores",
            got="; ".join(wrong),
            expected=f"a line of {RESULTS}, schema {SCHEMA}",
            hint="scoring the clips again with this version",
        )


def append_records(path: str | os.PathLike[str], records: Iterable[MetricRecord]) -> None:
    """Appends the records, each on the disk before the next."""
    for record in records:
        append_jsonl(path, record.to_json())


def read_records(path: str | os.PathLike[str]) -> list[MetricRecord]:
    """All records of a results file; a torn last line, as a crash leaves it, is dropped.

    Where a sample was scored again for the same metric and backend, the last line counts. Raises BadInput.
    """
    found = {record.key: record for record in map(MetricRecord.from_json, read_jsonl(path))}
    return list(found.values())
