"""The figures of a validation and the fit of heads, on records whose answer is known; and one run on a drawn clip."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from anisora.errors import BadInput
from anisora.evaluation.calibration import head_score, head_value
from anisora.evaluation.calibration import table as shipped
from anisora.evaluation.fitting import FEATURES, MARKS, fit_table
from anisora.evaluation.look import Look
from anisora.evaluation.network_scorer import new_network, save_network
from anisora.evaluation.plots import matrix_svg
from anisora.evaluation.records import RESULTS, MetricRecord, read_records
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import Card, Output
from anisora.evaluation.scoring import open_scorers
from anisora.evaluation.validation import (
    Plan,
    clip_seed,
    clip_use,
    figures,
    is_learned_from,
    measured_so_far,
    validate,
)
from anisora.measures.footage import LOOK_PX
from anisora.media.writer import write_video
from anisora.synthetic import render_clip

from .tiny_encoders import write_vit

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
    # and a wobble that a alone has: one pair more of each, right
    wobbled = figures([*records, record("a", "wobble", 3, 2.0)])["all"]["by_dimension"][SMOOTH]
    assert wobbled == pytest.approx({"order": (5 + 5.5 + 1) / 13, "across": 2 / 3})
    assert got["all"]["improved"]["flicker"][SMOOTH] == pytest.approx(0.5 / 6)
    # the range is the clean mean less the mean at the worst: 70 - 15
    assert got["changed"]["half_size"][SMOOTH] == pytest.approx([100 * 1.5 / 55, 100 * 2.85 / 55])
    # a fell by 5 points at severity 3, b by 10
    assert got["all"]["fallen"]["flicker"][SMOOTH] == 7.5
    assert got["clips"] == got["clips_held_out"] == 2
    # of these kinds only a tear is held out, of these clips not c
    torn = [record("a", "tear", 3, 90), record("b", "tear", 3, 5), record("c", "tear", 3, 99, clip_use="fitting")]
    unseen = figures([*records, *torn, record("c", "clean", 0, 1, clip_use="fitting")])["unseen"]
    assert list(unseen["order"]) == ["tear"]
    assert unseen["by_dimension"][SMOOTH] == {"order": 0.5, "across": 0.5}


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
        """Only `disorder` knows of severity; `flicker` says the contrary, as chance may have it."""
        size = 0.0 if kind == "blur" else severity
        features = {
            name: float(rng.normal())
            for signs in (*FEATURES.values(), *(m for m, _ in MARKS.values()))
            for name in signs
        }
        features |= {"disorder": size + 0.1 * float(rng.normal()), "flicker": -size}
        features |= {
            "edge_fine": -size,
            "mean": size,
            "worst": size,
            "switch": size,
            "bent": severity * (kind == "melt"),
            "detour": 0.0,  # its kind is not tried, so its head stays the one in use
        }
        return [
            record(clip, kind, severity, 50.0, metric, details=features, clip_use=use)
            for metric in (*FEATURES, "anime.motion")
        ]

    kinds = ("flicker", "blur", "jpeg", "replace", "swap", "melt")
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
    assert weights["disorder"] < -0.5
    assert weights["flicker"] == 0  # would have to be positive to be of use
    assert all(sign * table[m]["features"][n]["weight"] >= 0 for m in FEATURES for n, sign in FEATURES[m].items())
    marks = table["anime.character"]["marks"]["features"]
    assert list(marks) == ["bent"]
    assert marks["bent"]["weight"] < -0.5
    unlearned = [f"c{n}" for n in range(8) if not is_learned_from(f"c{n}")]
    assert 4 <= len(unlearned) < 8
    assert table["anime.appeal"]["fitted_on"]["clips"] == table["anime.character"]["fitted_on"]["clips"] == unlearned
    held = [r for r in records if r.params["clip_use"] == "held_out" and r.metric == SMOOTH]
    clean, worst = (
        [head_score(head, head_value(head, r.details)) for r in held if (r.params["kind"], r.params["severity"]) == key]
        for key in (("clean", 0), ("flicker", 5))
    )
    assert min(clean) > max(worst)
    assert fit_table([r for r in records if r.metric == SMOOTH])["anime.appeal"] == shipped()["anime.appeal"]
    with pytest.raises(BadInput, match="too few clips"):
        fit_table(records[:30])
    with pytest.raises(BadInput, match="nothing to fit"):
        fit_table([r for r in records if r.metric == SMOOTH and r.params["kind"] == "clean"])


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


@pytest.mark.parametrize(("own", "marks"), [(3.0, -4.0), (-4.0, 3.0), (800.0, 1.0), (1.0, 1.0)])
def test_the_worse_of_two_heads_decides(own, marks):
    head = {"bias": own, "virtue": 0.2, "features": {}, "marks": {"bias": marks, "virtue": 0.2, "features": {}}}
    low = min(own, marks)
    assert low - np.log(2) - 1e-12 <= head_value(head, {}) <= low
    if own != 800:
        assert head_value(head, {}) == pytest.approx(-np.log(np.exp(-own) + np.exp(-marks)))


@pytest.mark.parametrize(
    ("short_px", "fps", "tried"), [(256, 16, set()), (512, 16, {"half_size"}), (256, 24, {"on_twos"})]
)
def test_what_would_take_away_what_there_is_to_see_is_not_tried(tmp_path, short_px, fps, tried):
    clip = render_clip(3, 0, n_frames=8, fps=fps, size_px=(short_px, short_px)).video_THWC
    video = write_video(tmp_path / "clip.mp4", clip, fps, lossless=True)
    plan = Plan(kinds=(), metrics=("anime.motion",), num_frames=8, synthetic=0)
    validate([Sample(id="clip", video=video)], tmp_path / "out", plan)
    kinds = {r.params["kind"] for r in read_records(tmp_path / "out" / RESULTS)}
    assert kinds & {"half_size", "on_twos"} == tried
    assert kinds >= {"clean", "double_size", "encoded", "held_twice", "double_fps"}


def test_a_clip_is_held_out_by_its_name():
    clips = [f"clip{n}" for n in range(200)]
    uses = [clip_use(clip) for clip in clips]
    assert 70 < uses.count("held_out") < 130
    assert uses == [clip_use(clip) for clip in clips]
    learned = {clip for clip in clips if is_learned_from(clip)}
    assert 30 < len(learned) < 70
    assert {clip_use(clip) for clip in learned} == {"fitting"}
    assert not any(is_learned_from(f"synthetic/{n}") for n in range(200))  # drawn clips learned from have other seeds
    assert len({clip_seed(clip) for clip in clips}) == 200


def write_scorer(folder: Path, seed: int, short_px: int = 32) -> Path:
    """A small random regressor on frames, of the appeal of a clip."""
    torch.manual_seed(seed)
    card = Card(
        layout="frames", outputs=(Output(dimension="appeal"),), parts={"vision": "vision"},
        look=Look(num_frames=2, short_px=short_px),
    )  # fmt: skip
    write_vit(folder / "vision")
    save_network(new_network(card, folder), card, folder)
    return folder


def test_scorers_are_tried_beside_the_metrics(tmp_path):
    """By dimension and backend, resumed, and never mixed with another's."""
    plan = Plan(
        kinds=("blur", "slow"), severities=(3,), metrics=(SMOOTH,), num_frames=8, short_px=64, matrix=False,
        invariances=False, synthetic=1,
    )  # fmt: skip
    one = open_scorers([write_scorer(tmp_path / "one", 1)], "cpu")
    result = validate([], tmp_path / "out", plan, scorers=one)
    label = "anime.appeal (full)"
    assert result["all"]["order"]["blur"][label] in (0.0, 1.0)
    assert result["all"]["order"]["blur"][SMOOTH] in (0.0, 0.5, 1.0)
    assert result["changed"]["half_size"][label] is None
    text = (tmp_path / "out" / "results.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    own = {line["sample_id"]: line for line in lines if line["backend"] == "full"}
    assert set(own) == {"clean-0/synthetic/700", "blur-3/synthetic/700"}  # slow is of another dimension
    about = {name: own["blur-3/synthetic/700"]["params"][name] for name in ("clip", "kind", "severity", "clip_use")}
    assert about == {"clip": "synthetic/700", "kind": "blur", "severity": 3, "clip_use": clip_use("synthetic/700")}
    assert validate([], tmp_path / "out", plan, scorers=one) == result
    assert (tmp_path / "out" / "results.jsonl").read_text() == text
    # One that looks closer finds the spoiled clip in a file; its answers are its own.
    other = open_scorers([write_scorer(tmp_path / "other", 2, short_px=2 * LOOK_PX)], "cpu")
    validate([], tmp_path / "out", plan, scorers=other)
    made = measured_so_far(tmp_path / "out" / "results.jsonl", {other[0].run_id})
    assert {r.sample_id for r in made if r.backend == "full"} == set(own)
    assert all(r.score is not None for r in made if r.backend == "full")
    assert label not in validate([], tmp_path / "out", plan)["all"]["order"]["blur"]


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
