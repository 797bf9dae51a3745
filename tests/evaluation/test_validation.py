"""The figures of a validation and the fit of heads, on records whose answer is known; and one run on a drawn clip."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from anisora.errors import BadInput
from anisora.evaluation.calibration import head_score, head_value
from anisora.evaluation.calibration import table as shipped
from anisora.evaluation.fitting import FEATURES, fit_table
from anisora.evaluation.plots import matrix_svg
from anisora.evaluation.records import MetricRecord
from anisora.evaluation.validation import Plan, clip_use, figures, validate

SMOOTH = "anime.smoothness"


def record(clip: str, kind: str, severity: int, score: float, metric: str = SMOOTH, **more):
    uses = {"clip_use": more.pop("clip_use", "held_out"), "kind_use": more.pop("kind_use", "fitting")}
    params = {"clip": clip, "kind": kind, "severity": severity, **uses}
    about = {"run_id": "r", "sample_id": f"{kind}-{severity}/{clip}", "metric": metric, "version": 1, "unit": "u"}
    return MetricRecord(**about, raw=score, score=score, params=params, **more)


def test_figures_follow_their_definitions():
    records = [record(clip, "clean", 0, score) for clip, score in (("a", 80), ("b", 60))]
    records += [record("a", "flicker", s, score) for s, score in ((1, 70), (3, 75), (5, 20))]
    records += [record("b", "flicker", s, score) for s, score in ((1, 60), (3, 50), (5, 10))]
    records += [record("a", "half_size", 0, 77), record("b", "half_size", 0, 60)]
    got = figures(records)
    # a: 1 of 6 pairs is the wrong way round; b: 1 of 6 is a tie
    assert got["all"]["order"]["flicker"][SMOOTH] == pytest.approx((5 + 5.5) / 12)
    # a's 75 against b's clean 60, b's 50 against a's clean 80
    assert got["all"]["across"]["flicker"][SMOOTH] == 0.5
    assert got["all"]["improved"]["flicker"][SMOOTH] == pytest.approx(0.5 / 6)
    # the range is the clean mean less the mean at the worst: 70 - 15
    assert got["changed"]["half_size"][SMOOTH] == pytest.approx([100 * 1.5 / 55, 100 * 2.85 / 55])
    # a fell by 5 points at severity 3, b by 10
    assert got["all"]["fallen"]["flicker"][SMOOTH] == 7.5
    assert got["clips"] == got["clips_held_out"] == 2


def test_the_matrix_shows_every_fall_and_frames_its_own():
    fallen = {"blur": {"anime.appeal": 30.4, SMOOTH: -2.0}, "slow": {"anime.appeal": None, SMOOTH: 0.0}}
    drawing = ElementTree.fromstring(matrix_svg(fallen, {"blur": "anime.appeal", "slow": "anime.motion"}))
    words = [part.text for part in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["appeal", "smoothness", "blur", "-30", "+2", "slow", "+0"]
    cells = [part.attrib for part in drawing.iter("{http://www.w3.org/2000/svg}rect")]
    assert [cell["fill"] for cell in cells].count("none") == 1  # slow's own dimension was not measured
    fell, rose = cells[0], cells[2]
    assert fell["fill"] != rose["fill"]
    assert float(fell["fill-opacity"]) > float(rose["fill-opacity"]) > 0


def test_a_fit_uses_what_is_marked_for_it_and_keeps_signs():
    rng = np.random.default_rng(0)

    def marked(clip: str, kind: str, severity: int, use: str):
        """Only `jitter` knows of severity; `shake` says the contrary, as chance may have it."""
        size = 0.0 if kind == "blur" else severity
        features = {name: float(rng.normal()) for metric in FEATURES for name in FEATURES[metric]}
        features |= {"jitter": size + 0.1 * float(rng.normal()), "shake": -size}
        features |= {"edge_fine": -size, "mean": size, "worst": size, "switch": size}
        return [
            record(clip, kind, severity, 50.0, metric, details=features, clip_use=use)
            for metric in (*FEATURES, "anime.motion")
        ]

    kinds = ("flicker", "blur", "jpeg", "replace", "swap")
    records = []
    for number in range(12):
        use = "fitting" if number < 8 else "held_out"
        for kind, severities in (("clean", (0,)), *((kind, (1, 3, 5)) for kind in kinds)):
            for severity in severities:
                records += marked(f"c{number}", kind, severity, use)
    table = fit_table(records)
    assert table[SMOOTH]["fitted_on"]["clips"] == [f"c{n}" for n in range(8)]
    head = table[SMOOTH]
    weights = {name: part["weight"] for name, part in head["features"].items()}
    assert weights["jitter"] < -0.5
    assert weights["shake"] == 0  # would have to be positive to be of use
    assert all(sign * table[m]["features"][n]["weight"] >= 0 for m in FEATURES for n, sign in FEATURES[m].items())
    held = [r for r in records if r.params["clip_use"] == "held_out" and r.metric == SMOOTH]
    clean, worst = (
        [head_score(head, head_value(head, r.details)) for r in held if (r.params["kind"], r.params["severity"]) == key]
        for key in (("clean", 0), ("flicker", 5))
    )
    assert min(clean) > max(worst)
    assert fit_table([r for r in records if r.metric == SMOOTH])["anime.appeal"] == shipped()["anime.appeal"]
    with pytest.raises(BadInput, match="too few clips"):
        fit_table(records[:30])


def test_no_virtue_pays_for_a_fault():
    parts = {"center": 1.0, "scale": 2.0}
    head = {
        "bias": 0.5,
        "virtue": 0.2,
        "features": {"lines": {**parts, "weight": 3.0}, "grain": {**parts, "weight": -1.0}},
    }
    assert head_value(head, {"lines": 1.0, "grain": 1.0}) == 0.5
    assert head_value(head, {"lines": 5.0, "grain": 5.0}) == pytest.approx(0.5 + 0.2 * 6 - 2)
    assert head_value(head, {"lines": -1.0, "grain": -1.0}) == pytest.approx(0.5 - 3 + 0.2 * 1)
    assert head_value(head, {"lines": -1.0}) == pytest.approx(0.5 - 3)


def test_a_clip_is_held_out_by_its_name():
    uses = [clip_use(f"clip{n}") for n in range(200)]
    assert 70 < uses.count("held_out") < 130
    assert uses == [clip_use(f"clip{n}") for n in range(200)]


def test_a_validation_runs_and_resumes(tmp_path):
    plan = Plan(
        kinds=("flicker", "slow"),
        severities=(3,),
        metrics=(SMOOTH, "anime.motion"),
        num_frames=8,
        short_px=64,
        matrix=False,
        synthetic=1,
    )
    result = validate([], tmp_path, plan)
    assert result["clips"] == 1
    assert json.loads((tmp_path / "validation.json").read_text()) == result
    assert (tmp_path / "matrix.svg").read_bytes() == matrix_svg(
        result["all"]["fallen"], {"flicker": SMOOTH, "slow": "anime.motion"}
    )
    lines = (tmp_path / "results.jsonl").read_text()
    assert validate([], tmp_path, plan) == result
    assert (tmp_path / "results.jsonl").read_text() == lines
    # Scores by another calibration are made again from what was measured, and nothing is measured twice.
    records = [json.loads(line) for line in lines.splitlines()]
    other = [line | {"run_id": "other", "raw": 1.0, "score": 1.0} for line in records if line["score"] is not None]
    stale = [line for line in records if line["score"] is None]
    text = "".join(json.dumps(line) + "\n" for line in [*other, *stale])
    (tmp_path / "results.jsonl").write_text(text)
    assert validate([], tmp_path, plan) == result
    assert (tmp_path / "results.jsonl").read_text() == text
    assert [by_metric[SMOOTH] for by_metric in [result["changed"]["double_fps"]]] in ([[0.0, 0.0]], [None])
