"""Tables and pages from records of known truth: who leads, what is real, what is left out, and that files say the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anisora.errors import BadInput
from anisora.evaluation.leaderboard import (
    DIMENSIONS,
    board,
    compare,
    load_rows,
    metrics,
    mixed_versions,
    nulls,
    table_1,
    table_4,
)
from anisora.evaluation.records import MetricRecord, append_records
from anisora.evaluation.report import write_report
from anisora.evaluation.run_suite import FACTS, REAL, add_lines

MODELS = {"old": 40.0, "new": 55.0, "twin": 55.3, REAL: 80.0}
PROMPTS = 16


def record(model: str, prompt: int, metric: str, score: float | None, **more) -> MetricRecord:
    return MetricRecord(
        run_id="r", sample_id=f"{model}/{prompt}", metric=metric, version=more.pop("version", 1), unit="share",
        raw=None if score is None else score / 100, score=score, reason=None if score is not None else "no_model",
        group=f"p{prompt}", prompt_id=f"p{prompt}", model=model, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four systems on sixteen prompts; old is clearly worse, twin is like new, nothing pairs text and picture."""
    out = tmp_path_factory.mktemp("eval")
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 12, PROMPTS)
    records, facts = [], []
    for model, mean in MODELS.items():
        for prompt in range(PROMPTS):
            dimension, setting = "3d" if prompt % 4 == 0 else "2d", ("first", "first+last")[prompt % 2]
            facts.append({
                "sample_id": f"{model}/{prompt}", "action": ("walk", "run")[prompt // 8], "style": "cel",
                "dimension": dimension, "setting": REAL if model == REAL else setting, "video": "gone.mp4", "prompt": "<b>",
            })  # fmt: skip
            for metric in DIMENSIONS:
                score = None
                if metric != "anime.text_video":
                    score = float(np.clip(mean + hard[prompt] + rng.normal(0, 2) + 5 * (dimension == "3d"), 0, 100))
                records.append(record(model, prompt, metric, score))
    append_records(out / "results.jsonl", records)
    add_lines(out / FACTS, facts, "sample_id")
    return out


def test_the_board_finds_the_truth(folder):
    rankings = board(load_rows(folder))
    assert list(rankings) == [name for name in DIMENSIONS if name != "anime.text_video"]
    tiers = rankings["anime.smoothness"].tiers
    assert (tiers[REAL], tiers["new"], tiers["twin"], tiers["old"]) == (1, 2, 2, 3)
    assert rankings["anime.smoothness"].means["old"]["n"] == PROMPTS
    assert nulls(load_rows(folder))["old", "anime.text_video"] == {"no_model": PROMPTS}


def test_the_papers_tables(folder):
    rows = load_rows(folder)
    lines = {line["system"]: line for line in table_1(rows)}
    assert next(iter(lines)) == "new (I2V)"
    assert list(lines)[-1] == REAL
    both = lines["old (Interpolated Average)"]["anime.motion"]
    parts = [lines[f"old ({title})"]["anime.motion"] for title in ("I2V", "KeyFrame Interpolation")]
    assert both["n"] == sum(part["n"] for part in parts) == PROMPTS
    assert both["mean"] == pytest.approx(np.mean([part["mean"] for part in parts]))
    assert lines["new (I2V)"]["anime.text_video"]["mean"] is None
    split = table_4(rows, "new")["anime.appeal"]
    assert (split["3d"]["n"], split["2d"]["n"], split["all"]["n"]) == (4, 12, 16)


def test_compare_says_what_is_real(folder):
    rows = load_rows(folder)
    better = {verdict.metric: verdict.better for verdict in compare(rows, "old", "new")}
    assert set(better.values()) == {"new"}
    twins = compare(rows, "twin", "new")
    assert {verdict.better for verdict in twins} == {None}
    assert all(0 < verdict.would_see < 5 for verdict in twins)
    with pytest.raises(BadInput, match="no scores of this model"):
        compare(rows, "old", "future")


def test_systems_without_common_prompts_are_not_compared(tmp_path):
    append_records(
        tmp_path / "results.jsonl", [record("a", 1, "anime.motion", 5.0), record("b", 2, "anime.motion", 6.0)]
    )
    with pytest.raises(BadInput, match="share no prompts"):
        compare(load_rows(tmp_path), "a", "b")


def test_backends_and_versions_are_kept_apart(tmp_path):
    append_records(
        tmp_path / "results.jsonl",
        [
            record("a", 1, "anime.motion", 10.0),
            record("a", 1, "anime.motion", 90.0, backend="full"),
            record("a", 2, "anime.motion", 20.0, version=2),
        ],
    )
    written = write_report(tmp_path)
    with (tmp_path / "leaderboard.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {(line["backend"], float(line["mean"])) for line in lines} == {("bundled", 15.0), ("full", 90.0)}
    assert mixed_versions(load_rows(tmp_path)) == ["anime.motion"]
    assert "more than one version" in written[0].read_text()


def test_the_files_say_the_same(folder):
    from openpyxl import load_workbook

    write_report(folder)
    ranking = board(load_rows(folder))["anime.appeal"]
    with (folder / "leaderboard.csv").open() as file:
        line = next(x for x in csv.DictReader(file) if (x["metric"], x["model"]) == ("anime.appeal", "new"))
    assert float(line["mean"]) == ranking.means["new"]["mean"]
    book = load_workbook(folder / "report.xlsx")
    assert book.sheetnames == ["leaderboard", "differences", "table 1", "table 4", "scores"]
    cells = [cell.value for cell in book["scores"]["A"]]
    assert len(cells) == 1 + len(MODELS) * PROMPTS * len(DIMENSIONS)
    page = (folder / "report.html").read_text()
    assert f"{ranking.means['new']['mean']:.1f}" in page
    assert "<b>" not in page.replace("&lt;b&gt;", "")
    assert 'src="http' not in page
    for heading in ("Leaderboard", "Which differences are real", "Table 1", "Table 4", "By action", "Not scored"):
        assert heading in page


def test_texts_are_not_formulas(tmp_path):
    append_records(tmp_path / "results.jsonl", [record("=HYPERLINK(1)", 1, "anime.motion", 5.0)])
    write_report(tmp_path)
    assert "'=HYPERLINK(1)" in (tmp_path / "leaderboard.csv").read_text()


def test_the_clips_are_shown_where_they_are(tmp_path, numbered: Callable[..., np.ndarray]):
    from anisora.media.writer import write_video

    for name in ("good", "bad"):
        write_video(tmp_path / f"{name}.mp4", numbered(6), 8)
    append_records(
        tmp_path / "results.jsonl",
        [record("m", k, "anime.motion", 10.0 + 80 * k) for k in (0, 1)],
    )
    write_report(tmp_path, videos={"m/0": tmp_path / "bad.mp4", "m/1": tmp_path / "good.mp4"})
    page = (tmp_path / "report.html").read_text()
    assert "worst: 10.0, m/0" in page
    assert "best: 90.0, m/1" in page
    assert page.count("data:image/png") == 2


def test_a_folder_without_scores_is_told(tmp_path):
    with pytest.raises(BadInput, match="no scores in the folder"):
        load_rows(tmp_path)
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(BadInput, match="no scores in the folder"):
        load_rows(tmp_path)


def test_compare_by_folder_on_the_command_line(tmp_path, folder, capsys):
    from anisora.serving.cli import run

    for name, shift in (("before", 0.0), ("after", 6.0)):
        records = [record("", p, "anime.motion", 30.0 + p + shift).to_json() | {"model": None} for p in range(8)]
        append_records(tmp_path / name / "results.jsonl", map(MetricRecord.from_json, records))
    arguments = ["evaluate", "compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"]
    assert run(arguments) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["better"], line["difference"], line["prompts"]) == ("after", -6.0, 8)
    assert run(["evaluate", "compare", "old", "new", "--in", str(folder), "--json"]) == 0
    assert {entry["better"] for entry in json.loads(capsys.readouterr().out)} == {"new"}
    assert run(["evaluate", "compare", str(folder), str(folder)]) == 2
    assert metrics(load_rows(tmp_path / "before")) == ["anime.motion"]
