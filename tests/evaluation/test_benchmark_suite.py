"""Benchmarks as data: manifests, the paper's layout, the drawn suite, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anisora.errors import BadInput, BadRequest
from anisora.evaluation.benchmark import (
    Item,
    Keyframe,
    check,
    drawn_plans,
    from_folder,
    read_benchmark,
    spread,
    write_benchmark,
    write_drawn_suite,
)
from anisora.evaluation.run_suite import (
    REAL,
    SETTINGS,
    add_lines,
    model_name,
    plan_items,
    requests_of,
    run,
    samples_of,
    settings_of_items,
)
from anisora.media.writer import write_video
from anisora.store import read_jsonl


@pytest.fixture
def clip(tmp_path: Path, numbered: Callable[..., np.ndarray]) -> Path:
    """A clip of 9 frames that carry their numbers."""
    return write_video(tmp_path / "real" / "walk.mp4", numbered(9), 8, lossless=True)


def test_a_manifest_comes_back_as_it_was(tmp_path, clip):
    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(picture)
    items = [
        Item(id="a", prompt="a girl waves", video=str(clip), action="wave", dimension="2d", style="cel"),
        Item(id="b", image=str(picture), guides=(Keyframe(image=str(picture), at="100%"),), dimension="3d"),
    ]
    path = write_benchmark(tmp_path / "set" / "suite.jsonl", items)
    assert str(tmp_path) not in path.read_text()  # it can be moved together with its files
    assert read_benchmark(path) == items
    assert read_benchmark(path.parent) == items


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], "id a comes 2 times"),
        ([{"id": "a", "video": "gone.mp4"}], "gone.mp4"),
        ([{"id": "a"}], "neither prompt nor picture"),
        ([{"id": "a", "prompt": "x", "dimension": "4d"}], "dimension"),
        ([{"id": "a", "prompt": "x", "colour": 1}], "unknown key"),
        ([{"prompt": "x"}], "id"),
        ([], "empty benchmark"),
    ],
)
def test_manifests_that_cannot_be_used_are_refused(tmp_path, lines, message):
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) or "\n")
    with pytest.raises(BadInput, match=message):
        read_benchmark(path)


def test_checks_say_what_is_thin_and_what_is_double(tmp_path, clip):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clip.read_bytes())
    items = [Item(id="a", video=str(clip), action="walk"), Item(id="b", video=str(copy), action="walk")]
    notes = [problem.text for problem in check(items, by_content=True)]
    assert "2 items of action walk" in notes
    assert "a, b show the same clip" in notes
    assert any("2D or 3D" in note for note in notes)
    assert not any(problem.is_fatal for problem in check(items))


def test_the_papers_layout(tmp_path, clip):
    for name in ("cartoon_films_shuo_hua_26", "motion_comics_pao_5", "zou_lu_3"):
        (tmp_path / "set" / "videos").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "videos" / f"{name}.mp4").write_bytes(clip.read_bytes())
        Image.new("RGB", (16, 16)).save(tmp_path / "set" / f"{name}.png")
        (tmp_path / "set" / f"{name}.txt").write_text(f"someone does {name}\n", encoding="utf-8")
    (tmp_path / "set" / "labels.csv").write_text("id,dimension\nmotion_comics_pao_5,3D\n")
    items = {item.id: item for item in read_benchmark(tmp_path / "set")}
    assert {name: item.action for name, item in items.items()} == {
        "cartoon_films_shuo_hua_26": "shuo_hua", "motion_comics_pao_5": "pao", "zou_lu_3": "zou_lu",
    }  # fmt: skip
    pao = items["motion_comics_pao_5"]
    assert (pao.style, pao.dimension, pao.prompt) == ("motion_comics", "3d", "someone does motion_comics_pao_5")
    assert Path(pao.image or "").name == "motion_comics_pao_5.png"
    assert items["zou_lu_3"].dimension is None
    with pytest.raises(BadInput, match="no benchmark in the folder"):
        from_folder(tmp_path / "real" / "nothing")


def test_the_drawn_suite_has_every_action_in_every_style():
    plans = drawn_plans()
    cells = {(label, plan.style) for label, plan in plans}
    assert len(plans) == len(cells) == 21 * 4
    assert plans == drawn_plans()
    assert not any(plan.is_reserved for _, plan in plans)
    assert all(plan.seed >= 1000 for _, plan in plans)  # never a training seed


def test_drawn_clips_are_the_same_every_time_and_resume(tmp_path):
    options = {"size_px": (48, 48), "num_frames": 5, "fps": 8, "limit": 3}
    items = write_drawn_suite(tmp_path / "a", **options)
    again = write_drawn_suite(tmp_path / "b", **options)
    for one, other in zip(items, again, strict=True):
        assert Path(one.video).read_bytes() == Path(other.video).read_bytes()
        assert (one.mask is None) == (other.mask is None)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "clips").iterdir()}
    assert write_drawn_suite(tmp_path / "a", **options) == items == read_benchmark(tmp_path / "a")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "clips").iterdir()}
    with pytest.raises(BadInput, match="another drawn suite"):
        write_drawn_suite(tmp_path / "a", **{**options, "num_frames": 9})


def test_equal_shares_of_all_settings():
    assert settings_of_items("all-equal", 12)[:6] == [*SETTINGS, "first"]
    assert settings_of_items("last", 2) == ["last", "last"]
    with pytest.raises(BadRequest, match="unknown guides"):
        settings_of_items("frist", 3)
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 9) == [0, 1, 2]


def test_keyframes_are_the_clips_own_frames(tmp_path, clip, numbers):
    item = Item(id="walk", prompt="walks", video=str(clip))
    for setting, expected in (("first+mid+last", [0, 4, 8]), ("middle", [4]), ("last", [8])):
        (plan,) = plan_items([item], setting, tmp_path / "keyframes")
        pictures = np.stack([np.asarray(Image.open(guide.image)) for guide in plan.guides])
        assert numbers(pictures) == expected
        assert [guide.frame for guide in plan.guides] == list(SETTINGS[setting])


def test_own_keyframes_come_before_the_clips(tmp_path, clip):
    picture = tmp_path / "own.png"
    Image.new("RGB", (16, 16)).save(picture)
    item = Item(id="walk", video=str(clip), image=str(picture), guides=(Keyframe(image=str(picture), at=-1),))
    (plan,) = plan_items([item], "first+last", tmp_path / "keyframes")
    assert [guide.image for guide in plan.guides] == [str(picture)] * 2
    (plan,) = plan_items([replace(item, video=None)], "first+mid+last", tmp_path / "keyframes")
    assert plan.problem == "no picture for 50%"
    assert requests_of([plan], "bundled", tmp_path) == []


def test_requests_and_samples_of_a_plan(tmp_path, clip):
    items = [
        Item(id="walk", prompt="walks", video=str(clip), action="walk", mask=str(clip)),
        Item(id="hop", prompt="", video=str(clip)),
    ]
    plans = plan_items(items, "first+last", tmp_path / "keyframes")
    requests = requests_of(plans, "models/mine", tmp_path, seed=3)
    assert [Path(r.out or "").relative_to(tmp_path).as_posix() for r in requests] == [
        "shots/mine/first+last/walk.mp4", "shots/mine/first+last/hop.mp4",
    ]  # fmt: skip
    (masked,) = requests_of(plans, "models/mine", tmp_path, with_masks=True)
    assert "mine-masked" in (masked.out or "")
    Path(requests[0].out or "").parent.mkdir(parents=True)
    Path(requests[0].out or "").write_bytes(clip.read_bytes())
    entries = samples_of(plans, requests, tmp_path)
    assert [(sample.model, sample.group) for sample, _ in entries] == [("mine", "walk"), (REAL, "walk"), (REAL, "hop")]
    sample, facts = entries[0]
    assert [guide["at"] for guide in sample.guides] == ["0%", "100%"]
    assert (facts["action"], facts["setting"], facts["sample_id"]) == ("walk", "first+last", "mine/first+last/walk")


def test_names_and_lines(tmp_path):
    assert model_name("/models/My Model/") == "My_Model"
    assert model_name("bundled") == "bundled"
    add_lines(tmp_path / "f.jsonl", [{"k": 1, "v": 1}, {"k": 2, "v": 1}], "k")
    add_lines(tmp_path / "f.jsonl", [{"k": 1, "v": 2}], "k")
    assert read_jsonl(tmp_path / "f.jsonl") == [{"k": 1, "v": 2}, {"k": 2, "v": 1}]


def test_a_model_through_the_suite(tiny: Callable[..., Path], tmp_path):
    """The whole verb on a tiny model: shots, scores, real clips beside them, report; run again it makes nothing."""
    options = {"setting": "all-equal", "limit": 2, "metrics": ["motion"], "steps": 1}
    first = run(str(tiny("wan")), tmp_path, **options)
    assert (first["made"], first["failed"], first["skipped"]) == (2, [], [])
    assert len(first["summary"]["models"]) == 2
    assert REAL in first["summary"]["models"]
    assert (tmp_path / "report.html").is_file()
    shots = {path: path.stat().st_mtime_ns for path in (tmp_path / "shots").rglob("*.mp4")}
    lines = (tmp_path / "results.jsonl").read_text()
    assert len(shots) == 2
    run(str(tiny("wan")), tmp_path, **options)
    assert shots == {path: path.stat().st_mtime_ns for path in (tmp_path / "shots").rglob("*.mp4")}
    assert lines == (tmp_path / "results.jsonl").read_text()
