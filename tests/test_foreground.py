"""The foreground: found in a picture by the bundled network, and followed through a clip by motion."""

from __future__ import annotations

import numpy as np
import pytest

from anisora.assets import locate
from anisora.errors import AssetMissing, BadCheckpoint, BadInput
from anisora.measures.foreground import carried, follow, same_thing, without_specks
from anisora.measures.salience import FOREGROUND, salience

RED = np.array([220, 40, 30])


def disc_clip(centres, radius=18, size=(96, 128), background=None):
    """A red disc with a stripe at each (x, y) before a quiet pattern, and its masks."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    if background is None:
        background = np.stack([90 + 10 * np.sin(x / 5), 140 + 10 * np.sin(y / 4), 170 + 0 * x], -1)
    frames, masks = [], []
    for cx, cy in centres:
        mask = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        stripe = mask & (np.abs(x - cx - 4) < 3)
        frames.append(np.where(stripe[..., None], (250, 240, 60), np.where(mask[..., None], RED, background)))
        masks.append(mask)
    return np.array(frames).astype(np.uint8), np.array(masks)


def reddish(picture_HWC):
    """A detector that is always right about discs."""
    return (picture_HWC[..., 0].astype(float) > picture_HWC[..., 2] + 40).astype(np.float32)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def only_at_first(detect):
    """A detector that sees one picture and then nothing more."""
    seen = []

    def once(picture_HWC):
        seen.append(1)
        return detect(picture_HWC) * (len(seen) == 1)

    return once


def test_motion_alone_carries_the_mask_when_nothing_is_seen_any_more():
    frames, masks = disc_clip([(30 + 3 * t, 48) for t in range(13)])
    found = follow(frames, only_at_first(reddish), every=4)
    assert (found.looked, found.found, found.found_share) == (3, 0, 0)
    assert iou(found.mask_THW[-1], masks[-1]) > 0.8
    assert iou(found.area_HW, masks.any(0)) > 0.85
    assert iou(masks[0], masks[-1]) < 0.3  # it did go somewhere


def test_looking_again_makes_the_mask_right():
    frames, masks = disc_clip([(30 + 3 * t, 48) for t in range(13)])
    found = follow(frames, reddish, every=4)
    assert found.found_share == 1
    assert all(np.array_equal(found.mask_THW[t], masks[t]) for t in (0, 4, 8, 12))
    assert min(iou(a, b) for a, b in zip(found.mask_THW, masks, strict=True)) > 0.85


def test_held_drawings_hold_the_mask_to_the_pixel():
    frames, masks = disc_clip([(40, 48)] * 3)
    assert np.array_equal(carried(masks[0], frames[0], frames[1]), masks[0])


def test_what_appears_elsewhere_is_not_followed():
    frames, masks = disc_clip([(30 + t, 48) for t in range(9)])
    others, other_masks = disc_clip([(105, 30)] * 9, radius=12)
    frames[4:] = np.where(other_masks[4:, ..., None], others[4:], frames[4:])
    found = follow(frames, reddish, every=4)
    assert found.found_share == 1
    assert not (found.area_HW & other_masks[0]).any()
    assert iou(found.mask_THW[-1], masks[-1]) > 0.95


def test_of_what_leaves_the_picture_no_more_than_a_rim_stays():
    frames, masks = disc_clip([(100 + 5 * t, 48) for t in range(12)])
    found = follow(frames, reddish, every=3)
    assert not masks[-1].any()
    assert not found.mask_THW[-1][:, :110].any()
    assert found.mask_THW[-1].sum() < 0.2 * masks[0].sum()
    assert iou(found.area_HW, masks.any(0)) > 0.9


def test_another_thing_in_its_place_is_not_the_same_thing():
    small, large = np.zeros((40, 40), bool), np.ones((40, 40), bool)
    small[:8, :8] = True
    assert same_thing(large, small) is None
    assert same_thing(np.zeros((40, 40), bool), small) is None
    assert np.array_equal(same_thing(small, small), small)


def test_specks_go():
    mask = np.zeros((100, 100), bool)
    mask[10:40, 10:40] = mask[80, 80] = True
    assert without_specks(mask).sum() == 900


@pytest.fixture(scope="module")
def network():
    """The file of the bundled network; what needs it is skipped where it cannot be had."""
    try:
        locate("pp-ocr-rec")
        return locate("u2netp")
    except AssetMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.usefixtures("network")
def test_the_bundled_network_sees_a_figure_and_not_what_is_none():
    frames, masks = disc_clip([(64, 48)], radius=26)
    seen = salience(frames[0])
    assert seen.shape == masks[0].shape
    assert iou(seen >= FOREGROUND, masks[0]) > 0.8
    assert (salience(np.full((96, 128, 3), 128, np.uint8)) >= FOREGROUND).mean() < 0.05


def test_a_network_by_path_is_the_network_that_looks_and_other_files_are_refused(network, tmp_path):
    frames, _ = disc_clip([(64, 48)], radius=26)
    assert np.array_equal(salience(frames[0], network), salience(frames[0]))
    weights = tmp_path / "inspyrenet.pth"
    weights.write_bytes(b"no network in onnx")
    with pytest.raises(BadCheckpoint, match=r"an \.onnx file"):
        salience(frames[0], weights)
    with pytest.raises(BadInput, match="does not exist"):
        salience(frames[0], tmp_path / "gone.onnx")
    with pytest.raises(BadCheckpoint, match=r"no map of shares|one picture"):
        salience(frames[0], locate("pp-ocr-rec"))
