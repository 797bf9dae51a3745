"""Score records: what may stand in one, and that a file gives back what was written."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from anisora.errors import BadInput
from anisora.evaluation.records import MetricRecord, append_records, read_records


def record(**fields):
    given = {"run_id": "r", "sample_id": "a/b", "metric": "anime.motion", "version": 1, "unit": "diag/s"}
    return MetricRecord(**(given | {"raw": 0.2, "score": 50.0} | fields))


def test_a_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "results.jsonl"
    written = [
        record(fps=Fraction(24000, 1001), params={"side_px": 240}, per_frame=[0.1, None]),
        record(sample_id="c", raw=None, score=None, reason="too_short"),
        record(sample_id="d", score=None, reason="descriptive", details={"longest_s": 0.4}),
    ]
    append_records(path, written)
    assert read_records(path) == written


def test_a_later_line_replaces_an_earlier_one(tmp_path):
    path = tmp_path / "results.jsonl"
    append_records(path, [record(raw=0.1), record(raw=0.3), record(backend="full", raw=0.5)])
    assert [r.raw for r in read_records(path)] == [0.3, 0.5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": None},
        {"reason": "too_short"},
        {"raw": None},
        {"raw": float("nan")},
        {"score": float("nan")},
        {"score": 100.1},
    ],
)
def test_half_said_scores_are_refused(wrong):
    with pytest.raises(ValueError, match="a/b"):
        record(**wrong)


def test_a_line_of_another_kind_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"clip_id": 1}) + "\n" + json.dumps(record().to_json()) + "\n")
    with pytest.raises(BadInput, match="not a line of scores"):
        read_records(path)
