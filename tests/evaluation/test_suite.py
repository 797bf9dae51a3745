"""A run over clips: bad ones are null with a reason, an interrupted one goes on, manifests are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anisora.errors import BadInput, BadRequest
from anisora.evaluation.records import RESULTS, read_records
from anisora.evaluation.samples import find_samples, read_manifest
from anisora.evaluation.suite import evaluate
from anisora.media.writer import write_video
from anisora.serving.cli import run

QUICK = ["anime.motion", "anime.held_share"]


@pytest.fixture
def clips(tmp_path, moving_THWC) -> Path:
    """A folder with two clips of different size and rate, and one file that is none."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "a.mp4", moving_THWC, 12)
    write_video(folder / "b.mp4", moving_THWC[:, ::2, ::2], "24000/1001")
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def test_a_bad_clip_is_null_and_the_others_are_scored(clips, tmp_path):
    summary = evaluate(find_samples([clips]), tmp_path / "out", metrics=QUICK)
    records = {(r.sample_id, r.metric): r for r in read_records(tmp_path / "out" / RESULTS)}
    assert {key[0] for key in records} == {"a", "b", "broken"}
    broken = records["broken", "anime.motion"]
    assert (broken.score, broken.reason) == (None, "unreadable")
    assert broken.details["problem"]
    assert records["a", "anime.motion"].score > 10
    assert (records["b", "anime.motion"].width_px, str(records["b", "anime.motion"].fps)) == (64, "24000/1001")
    assert summary["models"][""]["anime.motion"]["score"]["n"] == 2
    assert summary["models"][""]["anime.motion"]["null"] == {"unreadable": 1}
    assert "NaN" not in (tmp_path / "out" / RESULTS).read_text()


def test_a_run_goes_on_where_it_stopped_and_scores_changed_clips_anew(clips, tmp_path, moving_THWC):
    out, samples = tmp_path / "out", find_samples([clips])
    evaluate(samples[:1], out, metrics=QUICK)
    lines = (out / RESULTS).read_text().splitlines()
    (out / RESULTS).write_text("\n".join([*lines, lines[0][:40]]))  # as a crash leaves it
    evaluate(samples, out, metrics=QUICK)
    whole = (out / RESULTS).read_text()
    assert whole.startswith("\n".join(lines))
    assert len(whole.splitlines()) == 6
    evaluate(samples, out, metrics=QUICK)
    assert (out / RESULTS).read_text() == whole
    write_video(clips / "a.mp4", moving_THWC[::-1], 12)
    evaluate(samples, out, metrics=QUICK)
    assert len((out / RESULTS).read_text().splitlines()) == 8


def test_a_manifest_says_more_and_is_checked(clips, tmp_path):
    def manifest(*lines: dict) -> Path:
        path = tmp_path / "m.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    samples = read_manifest(
        manifest(
            {"video": "clips/a.mp4", "prompt": "a square slides", "model": "x"},
            {"id": "gone", "video": "clips/none.mp4"},
        )
    )
    assert [(s.id, s.group, s.model) for s in samples] == [
        ("clips/a", "a square slides", "x"),
        ("gone", "gone", None),
    ]
    evaluate(samples, tmp_path / "out", metrics=QUICK)
    reasons = {r.sample_id: r.reason for r in read_records(tmp_path / "out" / RESULTS) if r.metric == "anime.motion"}
    assert reasons == {"clips/a": None, "gone": "no_file"}
    with pytest.raises(BadInput, match="two samples of one id"):
        read_manifest(manifest({"video": "a.mp4"}, {"video": "a.mp4"}))
    with pytest.raises(BadInput, match="unknown field"):
        read_manifest(manifest({"video": "a.mp4", "promt": "typo"}))
    with pytest.raises(BadInput, match="no video"):
        read_manifest(manifest({"id": "a"}))
    with pytest.raises(BadRequest, match="unknown metric"):
        evaluate(samples, tmp_path / "out", metrics=["beauty"])


def test_the_command_scores_and_spoils(clips, tmp_path, capsys):
    (clips / "broken.mp4").unlink()
    (clips / "b.mp4").unlink()
    out = str(tmp_path / "out")
    assert run(["evaluate", str(clips), "--out", out, "--metrics", "motion", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1
    spoil = ["evaluate", "corrupt", str(clips), "--out", out, "--kind", "freeze", "--severity", "5", "--json"]
    assert run(spoil) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == ["clean-0/a.mp4", "freeze-5/a.mp4"]
    assert run(["evaluate", out, "--out", out, "--metrics", "motion", "--json"]) == 0
    scores = {r.sample_id: r.score for r in read_records(tmp_path / "out" / RESULTS)}
    assert scores["freeze-5/a"] < scores["clean-0/a"] == pytest.approx(scores["a"], abs=5)
    assert run(["evaluate", "--out", out]) == 2
