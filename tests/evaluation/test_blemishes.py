"""Blemishes: exact on pictures made for them, and each seen in a drawn picture that has it and in no other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anisora.evaluation.corruptions import corrupt
from anisora.measures.blemishes import color_off, overshoot, raggedness, scratches, screen, second_image, squares
from anisora.measures.similarity import luma
from anisora.synthetic import render_clip

MARKS = {
    "ghost": second_image, "scratch": scratches, "mosaic": squares, "halo": overshoot, "crackle": raggedness,
    "comb": raggedness, "weave": screen,
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures():
    return [render_clip(700 + i, 0, n_frames=1, size_px=(384, 256)).video_THWC for i in range(6)]


@pytest.mark.parametrize("kind", MARKS)
def test_each_mark_is_seen_where_it_is(pictures, kind):
    sound, spoiled = (
        [MARKS[kind](luma(corrupt(frames, kind, severity)[0])) for frames in pictures] for severity in (0, 4)
    )
    assert all(after > before for before, after in zip(sound, spoiled, strict=True))
    assert np.median(spoiled) > max(sound)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_scratches_are_counted(count):
    grey = np.tile(np.linspace(40, 200, 96, dtype=np.float32)[:, None], (1, 128))
    grey[:, 10 : 10 + 12 * count : 12] += 20
    assert scratches(grey) == pytest.approx(np.log1p(count))
    grey[50:, :] = 90  # half of the way is none
    assert scratches(grey) == 0
    barred = np.full((96, 128), 12, np.float32)
    barred[:, 24:-24], barred[:, 24], barred[:, -25] = 180, 200, 200
    assert scratches(barred) == 0


@pytest.mark.parametrize("side", [2, 4, 6])
def test_squares_are_measured_by_what_is_even_about_them(side):
    levels = (60 + 100 * (np.indices((40, 40)).sum(0) % 2)).astype(np.float32)
    grey = np.repeat(np.repeat(levels, side, 0), side, 1)
    assert squares(grey) == pytest.approx(np.log1p(2 * (side - 1)))
    soft = cv2.GaussianBlur(grey, (0, 0), 2)
    assert squares(soft) < 0.5


def test_a_second_image_is_seen_to_the_side_and_aslant():
    rng = np.random.default_rng(0)
    grey = cv2.GaussianBlur(rng.uniform(0, 255, (128, 160)).astype(np.float32), (0, 0), 1)
    alone = second_image(grey)
    for down, across in ((0, 9), (7, -7), (-12, 5)):
        assert second_image(0.7 * grey + 0.3 * np.roll(grey, (down, across), (0, 1))) > 2 * alone


def test_rims_are_what_sharpening_leaves():
    grey = np.full((96, 96), 80, np.float32)
    grey[:, 48:] = 180
    soft = cv2.GaussianBlur(grey, (0, 0), 1.2)
    sharpened = soft + 3 * (soft - cv2.GaussianBlur(soft, (0, 0), 1.5))
    assert overshoot(soft) == pytest.approx(0, abs=0.02)
    assert overshoot(sharpened) > 0.1
    assert overshoot(np.full((96, 96), 80, np.float32)) == 0


def test_lines_go_on_and_grain_does_not():
    y, x = np.mgrid[:96, :128].astype(np.float32)
    ring = 128 + 100 * np.exp(-((np.hypot(x - 64, y - 48) - 30) ** 2) / 4)
    grain = 128 + 40 * np.random.default_rng(0).standard_normal(ring.shape).astype(np.float32)
    teeth = ring.copy()
    teeth[1::2] = np.roll(ring[1::2], 3, axis=1)
    assert raggedness(ring) < 0.2
    assert raggedness(grain) > 0.6
    assert raggedness(teeth) > 0.6


def test_a_screen_is_seen_whatever_its_angle():
    y, x = np.mgrid[:128, :160].astype(np.float32)
    ground = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (128, 160)).astype(np.float32), (0, 0), 3)
    plain = screen(ground)
    for angle in (0.3, 0.8, 2.0):
        assert screen(ground + 8 * np.sin(1.4 * (np.cos(angle) * x + np.sin(angle) * y))) > plain + 0.5


def test_colour_that_fits_is_off_by_nothing_to_the_bit(pictures):
    assert [color_off(frames[0]) for frames in pictures] == [0.0] * len(pictures)
    grey = np.repeat(pictures[0][0][..., :1], 3, axis=-1)
    assert color_off(grey) == 0
    off = [[color_off(corrupt(frames, "bleed", severity)[0]) for frames in pictures] for severity in (2, 4)]
    assert all(before > 0.05 for before in off[0])
    assert np.median(off[1]) > 0.1


def test_small_and_flat_pictures_have_none():
    for height, width in ((8, 8), (12, 300), (256, 17)):
        flat = np.full((height, width), 90, np.float32)
        marks = [mark(flat) for mark in (second_image, scratches, squares, overshoot, raggedness, screen)]
        assert max(marks) <= 0.01
        assert color_off(np.repeat(flat[..., None], 3, axis=-1).astype(np.uint8)) == 0
