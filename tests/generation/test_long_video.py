"""Windows cover a shot without gaps on whole latent frames; a seam is found where there is one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from anisora.errors import BadRequest
from anisora.generation.long_video import order, psnr_db, seam_report, windows


@pytest.mark.parametrize("unit", [4, 8])
@pytest.mark.parametrize("num_units", [1, 2, 5, 9, 20, 31])
@pytest.mark.parametrize("window_units", [2, 4, 8, 20])
def test_windows_cover_every_frame_and_share(num_units: int, window_units: int, unit: int):
    num_frames, window = num_units * unit + 1, window_units * unit + 1
    pieces = windows(num_frames, window, unit)
    assert sorted({frame for frames in pieces for frame in frames}) == list(range(num_frames))
    for before, frames in pairwise(pieces):
        assert len(frames) == window
        assert frames.start % unit == 0
        assert unit < before.stop - frames.start < window  # a whole latent frame and the one before it
    assert (len(pieces) == 1) == (num_frames <= window)
    own = [frames.start - before.start for before, frames in pairwise(pieces)]
    assert max(own, default=0) - min(own, default=0) <= unit  # spread evenly


@pytest.mark.parametrize("guides", [(), (0,), (40,), (20,), (0, 40), (0, 20, 40), (16,), (0, 16, 40), tuple(range(41))])
def test_the_order_makes_every_frame_and_goes_out_from_the_guides(guides: tuple[int, ...]):
    pieces = windows(41, 17)
    ordered = order(pieces, guides)
    assert sorted(ordered, key=lambda frames: frames.start) == pieces
    if guides:
        assert set(ordered[0]) & set(guides)
    for index, frames in enumerate(ordered[1:], start=1):  # each shares frames with an earlier one
        assert max(len(set(frames) & set(earlier)) for earlier in ordered[:index]) >= 5


def test_order_by_hand():
    first, middle, last = windows(41, 17)
    assert order([first, middle, last], [0]) == [first, middle, last]
    assert order([first, middle, last], [40]) == [last, middle, first]  # backwards from a last frame
    assert order([first, middle, last], [0, 20, 40]) == [middle, first, last]  # 20 leaves 8 frames on either side
    first, middle, last = windows(33, 17)
    assert order([first, middle, last], [0, 16, 32]) == [first, middle, last]  # never beside nothing


def test_a_window_that_cannot_overlap_is_refused():
    with pytest.raises(BadRequest, match="at least 9"):
        windows(17, 5)


def _pan(num_frames: int) -> np.ndarray:
    """A pattern that moves one pixel a frame: [T, 16, 24, 3]."""
    row = (np.arange(200) * 37 % 200).astype(np.uint8)
    return np.stack([np.broadcast_to(row[t : t + 24, None], (16, 24, 3)) for t in range(num_frames)])


def test_no_seam_where_there_is_none():
    (join,) = seam_report(_pan(20), [10])
    assert join["frame"] == 10
    assert join["motion_step"] <= join["motion_largest"]
    assert join["brightness_step"] <= join["brightness_largest"]
    assert seam_report(_pan(20), []) == []


def test_an_injected_seam_is_measured():
    brighter = _pan(20)
    brighter[10:] += 30
    (join,) = seam_report(brighter, [10])
    assert join["brightness_step"] > join["brightness_largest"] + 20
    frozen = _pan(20)
    frozen[10] = frozen[9]
    assert seam_report(frozen, [10])[0]["motion_step"] == 0


def test_psnr_of_equal_and_of_known_pictures():
    a = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(a, a) is None
    assert psnr_db(a, a + 255) == pytest.approx(0)
    assert psnr_db(a, a + 1) == pytest.approx(48.13, abs=0.01)
