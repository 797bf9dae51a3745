"""The crop against a slow truth that tries every rectangle, and its transform of frames, masks and boxes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anisora.curation.crop import Crop, CropParams, blocked_HW, free_crop, largest_free
from anisora.errors import BadSize


def slow_truth(blocked: np.ndarray, aspect: Fraction, step: int) -> int:
    """The largest area of any rectangle of the aspect (height rounded to the step) that holds no blocked pixel."""
    height, width = blocked.shape
    best = 0
    for w in range(step, width + 1, step):
        h = max(step, int(Fraction(w, step) / aspect + Fraction(1, 2)) * step)
        for y in range(0, height - h + 1, step):
            for x in range(0, width - w + 1, step):
                if not blocked[y : y + h, x : x + w].any():
                    best = max(best, w * h)
    return best


corner, side = st.floats(-5, 25), st.floats(0, 9)
boxes = st.lists(
    st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(4, 22), st.integers(4, 22)),
    boxes=boxes,
    aspect=st.sampled_from([Fraction(1), Fraction(16, 9), Fraction(9, 16), Fraction(4, 3)]),
    step=st.sampled_from([1, 2]),
)
def test_no_larger_rectangle_is_free(size, boxes, aspect, step):
    blocked = blocked_HW(size, boxes)
    crop = largest_free(blocked, CropParams(aspect=aspect, multiple_px=step))
    truth = slow_truth(blocked, aspect, step)
    assert (crop.width_px * crop.height_px if crop else 0) == truth
    if crop:
        assert not crop.of_mask(blocked).any()
        assert crop.x_px % step == crop.y_px % step == crop.width_px % step == crop.height_px % step == 0


def test_a_clean_picture_is_kept_whole():
    for size in ((1280, 720), (853, 480), (720, 405)):
        crop, reason = free_crop(size, [])
        assert reason is None
        assert crop.xywh_px == (0, 0, size[0] // 2 * 2, size[1] // 2 * 2)


def test_any_side_may_give_way():
    wide = (640, 360)
    for box, side in (
        ((100, 320, 540, 350), "bottom"),
        ((100, 10, 540, 40), "top"),
        ((0, 50, 30, 300), "left"),
        ((610, 50, 640, 300), "right"),
    ):
        crop, _ = free_crop(wide, [box])
        assert crop is not None, side
        assert crop.of_box(box) is None
        assert crop.kept_area > 0.75, side


def test_a_line_across_the_middle_leaves_too_little():
    assert free_crop((640, 360), [(0, 170, 640, 190)]) == (None, "crop_too_small")
    assert free_crop((640, 360), [(0, 0, 640, 360)]) == (None, "no_free_area")


def test_the_wanted_aspect_is_met_to_a_pixel():
    crop, _ = free_crop((1280, 720), [(200, 640, 1000, 700)], CropParams(aspect=Fraction(3, 2), min_kept_area=0.4))
    assert abs(crop.width_px / 1.5 - crop.height_px) <= 1
    assert crop.height_px == 638 or crop.height_px == 636


def test_frames_masks_and_boxes_move_together(picture):
    frames = np.stack([picture(seed, 48, 32) for seed in range(3)])
    mask = frames[..., 0] > 128
    crop = Crop(x_px=6, y_px=4, width_px=30, height_px=20, source_px=(48, 32))
    assert ((crop.of_frames(frames)[..., 0] > 128) == crop.of_mask(mask)).all()
    box = (10, 8, 20, 12)
    left, top, right, bottom = (int(v) for v in crop.of_box(box))
    assert (crop.of_frames(frames)[:, top:bottom, left:right] == frames[:, 8:12, 10:20]).all()
    assert crop.of_box((0, 0, 6, 32)) is None
    assert crop.of_box((0, 0, 7, 5)) == (0, 0, 1, 1)


def test_another_picture_is_refused():
    crop = Crop(x_px=0, y_px=0, width_px=4, height_px=4, source_px=(8, 8))
    with pytest.raises(BadSize, match="expected 8x8"):
        crop.of_mask(np.zeros((8, 9), bool))
    with pytest.raises(BadSize):
        Crop(x_px=6, y_px=0, width_px=4, height_px=4, source_px=(8, 8))
