"""Agreement with people, on votes whose truth is known: a metric that sees it, one that does not, and what is left out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anisora.errors import BadInput
from anisora.evaluation.leaderboard import load_rows, table_1
from anisora.evaluation.people import human_scores, with_people
from anisora.evaluation.records import MetricRecord, append_records
from anisora.evaluation.report import write_report
from anisora.evaluation.votes import opinion_scores, rating_table, read_votes

PROMPTS, MODELS = 24, {"plain": 0.0, "better": 0.6, "best": 1.2}


def _record(sample: str, model: str, prompt: str, metric: str, score: float | None) -> MetricRecord:
    return MetricRecord(
        run_id="r", sample_id=sample, metric=metric, version=1, unit="share", raw=score, score=score, group=prompt,
        reason="too_short" if score is None else None, prompt_id=prompt, model=model,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models on the same prompts: smoothness sees their true quality, motion is noise, one clip has no score."""
    out, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    truth, records, votes = {}, [], []
    for prompt in range(PROMPTS):
        hard = rng.normal(0, 0.3)
        for model, better in MODELS.items():
            sample = f"{model}/{prompt}"
            truth[sample] = 3 + better + hard + rng.normal(0, 0.2)
            sees = None if sample == "best/0" else 15 * truth[sample] + rng.normal(0, 1)
            records.append(_record(sample, model, f"p{prompt}", "anime.smoothness", sees))
            records.append(_record(sample, model, f"p{prompt}", "anime.motion", rng.uniform(0, 100)))
    for number, (sample, quality) in enumerate(truth.items()):
        prompt = f"p{sample.split('/')[1]}"
        for rater, strict in (("ann", -0.5), ("bob", 0.0), ("eve", 0.5)):
            value = float(np.clip(np.rint(quality + strict + rng.normal(0, 0.4)), 1, 5))
            for dimension in ("smoothness", "motion", "appeal"):
                votes.append({"rater": rater, "dimension": dimension, "kind": "rating", "a": sample, "value": value,
                              "prompt_id": prompt})  # fmt: skip
        other = list(truth)[(number // 3) * 3 + (number + 1) % 3]
        said = truth[sample] - truth[other] + rng.normal(0, 0.2)
        for rater in ("ann", "bob"):
            votes.append({"rater": rater, "dimension": "smoothness", "kind": "pair", "a": sample, "b": other,
                          "value": "tie" if abs(said) < 0.15 else "ab"[said < 0], "prompt_id": prompt})  # fmt: skip
    append_records(out / "results.jsonl", records)
    (out / "votes.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    return out


@pytest.fixture(scope="module")
def lines(folder):
    return with_people(load_rows(folder), read_votes(folder / "votes.jsonl"))


def test_a_metric_that_sees_the_truth_agrees_and_noise_does_not(lines):
    assert [(line["dimension"], line["kind"]) for line in lines] == [
        ("anime.motion", "rating"), ("anime.smoothness", "rating"), ("anime.smoothness", "pair"),
    ]  # fmt: skip
    noise, sees, pairs = lines
    assert sees["spearman"]["value"] > sees["spearman"]["low"] > 0.6
    assert noise["spearman"]["low"] < 0 < noise["spearman"]["high"]
    assert 0 < sees["kendall"]["value"] < sees["spearman"]["value"]
    assert sees["pairwise"]["value"] > 0.8 > 0.65 > noise["pairwise"]["value"]
    assert sees["soft"]["value"] > 0.95 > noise["soft"]["value"]
    assert 0.2 < sees["alpha"]["value"] < 0.9
    assert pairs["pairwise"]["value"] > 0.7
    assert pairs["pairwise"]["epsilon"] > 0
    assert pairs["soft"]["value"] > 0.9
    assert pairs["spearman"] is pairs["kendall"] is pairs["alpha"] is None


def test_what_has_no_score_is_left_out_and_counted(folder, lines):
    _, sees, pairs = lines
    assert (sees["clips"], sees["votes"], sees["left_out"]) == (3 * PROMPTS - 1, 9 * PROMPTS - 3, 3)
    assert pairs["left_out"] == 4
    assert sees["soft"]["n_groups"] == PROMPTS - 1
    assert with_people(load_rows(folder), read_votes(folder / "votes.jsonl", "appeal")) == []


def test_turning_a_pair_round_changes_nothing(folder, lines):
    votes = [vote for vote in read_votes(folder / "votes.jsonl", "smoothness") if vote.kind == "pair"]
    turned = [
        type(v)(rater=v.rater, prompt_id=v.prompt_id, dimension=v.dimension, kind="pair", a=v.b, b=v.a,
                value={"a": "b", "b": "a", "tie": "tie"}[v.value])
        for v in votes
    ]  # fmt: skip
    assert with_people(load_rows(folder), turned) == lines[2:]


def test_the_report_says_it(folder, tmp_path):
    written = write_report(folder)
    assert (folder / "agreement.csv") in written
    page = (folder / "report.html").read_text()
    assert "Agreement with people" in page
    with (folder / "agreement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dimension"] for row in rows] == ["anime.motion", "anime.smoothness", "anime.smoothness"]
    assert float(rows[1]["spearman_low"]) < float(rows[1]["spearman"]) < float(rows[1]["spearman_high"])
    assert rows[2]["spearman"] == ""
    with pytest.raises(BadInput, match=r"none\.jsonl"):
        write_report(folder, votes=tmp_path / "none.jsonl")


def test_the_papers_human_column_is_what_people_gave(folder, tmp_path):
    """Mean opinion scores as 0 to 100, strictness taken out; a clip that nobody rated is left out, choices have no place."""
    rows, votes = load_rows(folder), read_votes(folder / "votes.jsonl")
    human = human_scores(votes)
    by_dimension = [rating_table([v for v in votes if v.dimension == d]) for d in ("smoothness", "motion", "appeal")]
    first = [100 * (opinion_scores(table)[clips.index("best/3")] - 1) / 4 for table, _, clips in by_dimension]
    assert human["best/3"] == pytest.approx(np.mean(first))
    lines = {line["system"]: line["human"] for line in table_1(rows, human)}
    assert lines["plain"]["n"] == PROMPTS
    assert lines["best"]["mean"] == pytest.approx(np.mean([human[f"best/{n}"] for n in range(PROMPTS)]))
    assert lines["plain"]["mean"] < lines["better"]["mean"] < lines["best"]["mean"]
    assert {line["human"]["mean"] for line in table_1(rows)} == {None}
    assert human_scores([v for v in votes if v.kind == "pair"]) == {}
    overall = [replace(v, dimension="overall") for v in votes if v.dimension == "motion"]
    assert human_scores([*votes, *overall]) == human_scores(overall)
    few = [v for v in overall if v.a != "best/3"]
    assert "best/3" not in human_scores(few)

    copied = tmp_path / "eval"
    copied.mkdir()
    (copied / "results.jsonl").write_bytes((folder / "results.jsonl").read_bytes())
    write_report(copied)
    assert "Human evaluation stands empty" in (copied / "report.html").read_text()
    write_report(copied, votes=folder / "votes.jsonl")
    assert "each rater&#39;s strictness taken out), 1 to 5 as 0 to 100" in (copied / "report.html").read_text()
    from openpyxl import load_workbook

    head, *cells = load_workbook(copied / "report.xlsx")["table 1"].iter_rows(values_only=True)
    assert head[:2] == ("Models", "Human Evaluation")
    assert {row[0]: row[1] for row in cells}["best"] == pytest.approx(lines["best"]["mean"])
