"""Bootstrap intervals against what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anisora.evaluation.statistics import mean_interval, paired_interval


def test_the_interval_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(1).normal(3, 2, 400)
    interval = mean_interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval["mean"] == pytest.approx(values.mean())
    assert interval["low"] == pytest.approx(values.mean() - half, abs=0.02)
    assert interval["high"] == pytest.approx(values.mean() + half, abs=0.02)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = sum(i["low"] <= 0 <= i["high"] for i in (mean_interval(rng.normal(0, 1, 40).tolist()) for _ in range(60)))
    assert held >= 50


def test_pairing_takes_away_what_the_clips_share():
    rng = np.random.default_rng(3)
    clips = rng.normal(0, 10, 30)
    worse, better = clips, clips + 1 + rng.normal(0, 0.1, 30)
    interval = paired_interval(better.tolist(), worse.tolist())
    assert interval["low"] > 0.9
    assert interval["n"] == 30


def test_missing_values_are_left_out_and_counted():
    interval = paired_interval([1.0, math.nan, 3.0], [0.0, 0.0, math.nan])
    assert (interval["mean"], interval["n"]) == (1.0, 1)
    assert mean_interval([]) == {"mean": None, "low": None, "high": None, "n": 0}


def test_the_same_values_give_the_same_interval():
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])
