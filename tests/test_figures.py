"""Figures of a clip: found, followed, cut out whole."""

from __future__ import annotations

import numpy as np
import pytest

from anisora.measures.figures import CUT_PX, cut_out, find_figures, instances


def two_walkers(frames: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """A red disc that goes right and a smaller blue bar that stands, on a quiet pattern; and whose each pixel is."""
    y, x = np.mgrid[:96, :160]
    wall = np.stack([150 + 10 * np.sin(x / 5), 160 + 10 * np.sin(y / 4), 150 + 0.0 * x], -1)
    clip, ids = [], []
    for t in range(frames):
        own = np.zeros((96, 160), np.uint8)
        own[(x - 30 - 3 * t) ** 2 + (y - 50) ** 2 < 20**2] = 1
        own[30:60, 120:135] = 2
        picture = np.where((own == 1)[..., None], (220, 40, 30), np.where((own == 2)[..., None], (30, 40, 220), wall))
        clip.append(picture)
        ids.append(own)
    return np.array(clip).astype(np.uint8), np.array(ids)


def vivid(picture_HWC: np.ndarray) -> np.ndarray:
    """A detector whose answer is known."""
    return (np.ptp(picture_HWC.astype(int), axis=-1) > 60).astype(np.float32)


def test_each_figure_is_followed_by_itself():
    clip, ids = two_walkers()
    looks: list[int] = []

    def counted(picture: np.ndarray) -> np.ndarray:
        looks.append(1)
        return vivid(picture)

    disc, bar = find_figures(clip, [0, 4, 8], counted)
    assert list(disc.mask_HW) == list(bar.mask_HW) == [0, 4, 8]
    for figure, who in ((disc, 1), (bar, 2)):
        for t, mask in figure.mask_HW.items():
            assert (mask & (ids[t] == who)).sum() / (mask | (ids[t] == who)).sum() > 0.9
    assert disc.found_share == 1
    assert len(looks) <= 5  # each picture once, for both


def test_who_is_not_there_at_first_is_found_when_he_comes():
    clip, _ = two_walkers()
    clip[:3] = clip[0, 0, 0]
    found = find_figures(clip, [0, 4, 8], vivid)
    assert [list(figure.mask_HW) for figure in found] == [[4, 8], [4, 8]]
    assert find_figures(clip[:3], [0, 2], vivid) == []


def test_a_figure_that_leaves_is_not_seen_any_more():
    clip, ids = two_walkers(9)
    clip[5:] = np.where((ids[5:] == 1)[..., None], clip[0, 0, 0], clip[5:])
    shown = {figure.mask_HW[0].sum(): list(figure.mask_HW) for figure in find_figures(clip, [0, 4, 8], vivid)}
    assert shown[min(shown)] == [0, 4, 8]


def test_instances_are_the_large_parts_in_order():
    mask = np.zeros((100, 100), bool)
    mask[0:5, 0:5] = True  # a quarter of a percent
    mask[20:40, 20:40], mask[60:90, 60:90] = True, True
    assert [part.sum() for part in instances(mask)] == [900, 400]


@pytest.mark.parametrize("size", [(40, 12), (7, 90), (300, 200)])
def test_a_cut_out_is_whole_square_and_keeps_its_proportions(size):
    height, width = size
    rng = np.random.default_rng(0)
    picture = rng.integers(100, 255, (320, 320, 3)).astype(np.uint8)
    mask = np.zeros((320, 320), bool)
    mask[5 : 5 + height, 9 : 9 + width] = True
    square = cut_out(picture, mask)
    assert square.shape == (CUT_PX, CUT_PX, 3)
    inside = square.max(-1) > 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == round(CUT_PX * 7 / 8)
    assert (np.ptp(rows) + 1) / (np.ptp(columns) + 1) == pytest.approx(height / width, rel=0.08)
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    for edge in (rows, columns):
        assert abs(edge[0] - (CUT_PX - 1 - edge[-1])) <= 1  # in the middle


def test_nothing_but_the_figure_is_cut_out():
    clip, ids = two_walkers(1)
    square = cut_out(clip[0], ids[0] == 1)
    lit = square[square.max(-1) > 8].astype(int)
    assert (lit[:, 0] >= lit[:, 2]).all()
