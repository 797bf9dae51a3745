"""The door between pixels and tensors, fitting to a size, contact sheets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anisora.errors import BadSize, Failed
from anisora.media.frames import contact_sheet, fit, fit_mask, place, to_float_CTHW, to_uint8_THWC

sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


def test_every_level_comes_back():
    levels = np.arange(256, dtype=np.uint8)
    frames_THWC = np.stack([levels, levels[::-1], np.roll(levels, 7)], -1).reshape(2, 8, 16, 3)
    frames_CTHW = to_float_CTHW(frames_THWC)
    assert frames_CTHW.shape == (3, 2, 8, 16)
    assert frames_CTHW.dtype == torch.float32
    assert (frames_CTHW.min(), frames_CTHW.max()) == (-1, 1)
    assert np.array_equal(to_uint8_THWC(frames_CTHW), frames_THWC)


def test_overshoot_becomes_the_nearest_end_and_nan_is_refused():
    frames = torch.tensor([-1.2, -1.0, 0.0, 1.0, 3.0]).expand(3, 1, 1, 5)
    assert to_uint8_THWC(frames)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
    for bad in (torch.nan, torch.inf):
        with pytest.raises(Failed):
            to_uint8_THWC(torch.full((3, 1, 2, 2), bad))


@given(sizes, sizes)
def test_cover_fills_and_crops_evenly(source_px, size_px):
    placement = place(source_px, size_px, "cover")
    left, top, right, bottom = placement.crop_px
    assert placement.paste_px == (0, 0, *size_px)
    assert (right - left) * size_px[1] == pytest.approx((bottom - top) * size_px[0])  # nothing is stretched
    assert left == pytest.approx(source_px[0] - right)
    assert top == pytest.approx(source_px[1] - bottom)
    assert min(left, top) == 0  # one side is used whole
    assert placement.covered_HW.all()


@given(sizes, sizes)
def test_contain_shows_all_within_even_bars(source_px, size_px):
    placement = place(source_px, size_px, "contain")
    left, top, right, bottom = placement.paste_px
    assert placement.crop_px == (0, 0, *source_px)
    assert 0 <= (size_px[0] - right) - left <= 1
    assert 0 <= (size_px[1] - bottom) - top <= 1
    assert min(left, top) == 0
    assert placement.covered_HW.sum() == (right - left) * (bottom - top)


def test_the_same_size_is_left_alone():
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    for mode in ("cover", "contain"):
        fitted, placement = fit(frames, (7, 9), mode)
        assert fitted is frames
        assert placement.is_identity


def test_cover_without_crop_is_pillows_lanczos():
    frames = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), dtype=np.uint8)
    fitted, _ = fit(frames, (15, 10), "cover")
    truth = Image.fromarray(frames[0]).resize((15, 10), Image.Resampling.LANCZOS)
    assert np.array_equal(fitted[0], np.asarray(truth))


def test_bars_are_black_unless_said_otherwise():
    frames = np.full((1, 4, 8, 3), 255, np.uint8)
    fitted, placement = fit(frames, (8, 8), "contain")
    assert np.array_equal(fitted[0].any(-1), placement.covered_HW)
    fitted, _ = fit(frames, (8, 8), "contain", pad=(9, 9, 9))
    assert fitted[0, 0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize("mode", ["cover", "contain"])
@pytest.mark.parametrize("size_px", [(32, 32), (64, 40), (16, 48), (128, 96)])
def test_masks_move_with_their_picture(mode, size_px):
    """The picture is its own mask: after both are fitted the edges still agree within a pixel's blur."""
    mask_HW = np.zeros((48, 64), np.float32)
    mask_HW[12:30, 20:50] = 1
    frames = np.repeat((mask_HW * 255).astype(np.uint8)[None, ..., None], 3, -1)
    fitted, placement = fit(frames, size_px, mode)
    moved = fit_mask(mask_HW, placement)
    assert moved.shape == size_px[::-1]
    assert 0 <= moved.min() <= moved.max() <= 1
    assert ((fitted[0, ..., 0] > 127) != (moved >= 0.5)).mean() < 0.03


@given(sizes, sizes, st.sampled_from(["cover", "contain"]))
def test_a_full_mask_stays_full_where_the_picture_is(source_px, size_px, mode):
    placement = place(source_px, size_px, mode)
    moved = fit_mask(np.ones(source_px[::-1], np.float32), placement)
    assert np.allclose(moved, placement.covered_HW, atol=1e-6)


def test_masks_at_whole_factors_stay_black_and_white():
    mask_THW = (np.random.default_rng(0).random((2, 6, 8)) > 0.5).astype(np.float32)
    moved = fit_mask(mask_THW, place((8, 6), (24, 18)))
    assert np.array_equal(moved, mask_THW.repeat(3, 1).repeat(3, 2))


def test_impossible_sizes():
    for bad in ((0, 5), (5, -1)):
        with pytest.raises(BadSize):
            place((4, 4), bad)
    with pytest.raises(BadSize, match="cover or contain"):
        place((4, 4), (2, 2), "stretch")
    with pytest.raises(TypeError):
        to_float_CTHW(np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(ValueError, match="mask"):
        fit_mask(np.zeros((3, 3)), place((4, 4), (2, 2)))


def test_contact_sheet_lays_frames_in_rows():
    frames = np.zeros((5, 10, 20, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(50, 255, 45)[:, None, None]
    sheet = np.asarray(contact_sheet(frames, columns=2, gap_px=4))
    assert sheet.shape == (3 * 14 + 4, 2 * 24 + 4, 3)
    assert [sheet[4 + i // 2 * 14 + 5, 4 + i % 2 * 24 + 5, 0] for i in range(5)] == list(range(50, 255, 45))
    labelled = contact_sheet(frames, columns=2, labels=list("abcde"))
    assert labelled.height == sheet.shape[0] + 3 * 16
    with pytest.raises(ValueError, match="5 frames and 1 labels"):
        contact_sheet(frames, labels=["a"])


def test_a_label_stays_in_its_cell():
    frames = [np.full((20, 60, 3), 255, np.uint8)] * 2
    alone, beside = (
        np.asarray(contact_sheet(frames, 2, ["a caption that is far too long", label])) for label in ("", "x")
    )
    assert (alone[:, :64] < 128).any()
    assert (alone[:, 64:] == 255).all()
    np.testing.assert_array_equal(alone[:, :64], beside[:, :64])
