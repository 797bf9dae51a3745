"""The benchmark of training strategies: what it says of records, and the looks that its arms are trained on."""

from __future__ import annotations

import importlib
import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from anisora import synthetic


@pytest.fixture(scope="module", autouse=True)
def _on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def records(seeds: int, arms: dict[str, float], clips: int = 10, noise: float = 0.01) -> list[dict[str, Any]]:
    """Values around those of the arms; clips differ far more from each other than arms do."""
    rng = np.random.default_rng(0)
    return [
        {"arm": arm, "seed": seed, "clip": clip, "value": 10 * clip + value + rng.normal(0, noise), "detail": value}
        for arm, value in arms.items()
        for seed in range(seeds)
        for clip in range(clips)
    ]


def said(seeds: int, arms: dict[str, float], row: str = "few-step", **more: Any) -> dict[str, Any]:
    rows = module("ablation_rows").ROWS
    args = Namespace(seeds=seeds, steps=1)
    return module("ablations").summary(rows[row], row, args, records(seeds, arms, **more))


def test_a_difference_is_called_shown_in_the_direction_that_was_claimed_only():
    nearer, farther = {"on": 1.0, "off": 2.0}, {"on": 2.0, "off": 1.0}
    assert said(3, nearer)["shown"] is True
    assert said(3, farther)["shown"] is False
    assert said(3, {"on": 1.0, "off": 1.0}, noise=0)["shown"] is False
    assert said(3, nearer)["difference"]["mean"] == pytest.approx(-1, abs=0.02)


def test_nothing_is_called_shown_by_few_seeds_or_clips():
    assert said(2, {"on": 1.0, "off": 2.0})["shown"] is None
    assert said(3, {"on": 1.0, "off": 2.0}, clips=7)["shown"] is None


def test_controls_are_compared_with_the_strategy_too():
    control = "teacher trained on, not distilled"
    told = said(3, {"on": 1.0, "off": 2.0, control: 0.5})["controls"][control]
    assert told["shown"] is False
    assert told["difference"]["mean"] == pytest.approx(0.5, abs=0.02)


def test_clips_without_a_value_count_as_such_and_not_as_zero():
    rows, args = module("ablation_rows").ROWS, Namespace(seeds=3, steps=1)
    known = records(3, {"on": 1.0, "off": 2.0})
    for record in known:
        if record["clip"] == 9 and record["arm"] == "on":
            record["value"] = None
    told = module("ablations").summary(rows["few-step"], "few-step", args, known)
    assert told["without_value"] == 3
    assert told["difference"]["n"] == 9
    assert not math.isnan(told["on"])
    assert told["off"] - told["on"] == pytest.approx(1, abs=0.02)


def test_a_subtitle_is_written_inside_of_its_area_and_nowhere_else():
    looks = module("looks")
    for seed in range(1000, 1004):
        clip = synthetic.render_clip(seed, 0, n_frames=9, fps=16, size_px=(96, 96), truth=True, split="reserved")
        changed = (looks.subtitled(clip) != clip.video_THWC).any(axis=(0, 3))
        area = looks.subtitle_area(clip)
        assert changed.any()
        assert not (changed & ~area).any()
        assert 0.01 < area.mean() < 0.5
