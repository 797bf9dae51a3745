"""Masks: packed and unpacked, pooled, unshuffled, feathered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anisora import geometry
from anisora.conditioning import mask
from anisora.errors import BadSize

LENGTHS = range(1, 130, 4)


def test_every_frame_of_every_length_lands_at_its_slot_and_channel_and_only_there():
    for num_frames in LENGTHS:
        keep_TT = torch.eye(num_frames)  # all positions at once: one latent cell for each
        mask_MFYX = mask.pack_MFYX(keep_TT.view(num_frames, 1, 1, num_frames))
        expected = torch.zeros_like(mask_MFYX)
        expected[:, 0, 0, 0] = 1
        for frame in range(1, num_frames):
            expected[(frame - 1) % 4, (frame - 1) // 4 + 1, 0, frame] = 1
            assert (geometry.channel(frame), geometry.slot(frame)) == ((frame - 1) % 4, (frame - 1) // 4 + 1)
        assert torch.equal(mask_MFYX, expected)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_unpacking_gives_back_the_keep_it_came_from(stride):
    for num_latent_frames in range(1, 34):
        keep_T1YX = torch.rand(geometry.pixel_frames(num_latent_frames, stride), 1, 2, 3)
        mask_MFYX = mask.pack_MFYX(keep_T1YX, stride)
        assert mask_MFYX.shape == (stride, num_latent_frames, 2, 3)
        assert torch.equal(mask.unpack_T1YX(mask_MFYX), keep_T1YX)


def test_packing_refuses_an_illegal_length():
    with pytest.raises(BadSize):
        mask.pack_MFYX(torch.ones(8, 1, 1, 1))


def test_a_half_given_cell_is_not_given():
    keep_T1HW = torch.ones(1, 1, 16, 24)
    keep_T1HW[0, 0, 3, 10] = 0  # one pixel of the cell in row 0, column 1
    pooled = mask.pool_T1YX(keep_T1HW, 8)
    assert pooled[0, 0].tolist() == [[1, 0, 1], [1, 1, 1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_pooling_is_the_least_of_each_cell(seed, share):
    keep = (np.random.default_rng(seed).random((5, 1, 16, 24)) < share).astype(np.float32)
    truth = keep.reshape(5, 1, 2, 8, 3, 8).min((3, 5))
    assert np.array_equal(mask.pool_T1YX(torch.from_numpy(keep), 8).numpy(), truth)


def test_anisora_pooling_takes_the_nearest_pixel():
    keep_T1HW = torch.rand(3, 1, 16, 24)
    assert torch.equal(mask.pool_T1YX(keep_T1HW, 8, "anisora"), keep_T1HW[..., ::8, ::8])


def test_unshuffling_is_the_stock_folding_and_loses_nothing():
    mask_T1HW = torch.rand(5, 1, 16, 24)
    folded_MTYX = mask.unshuffle_MTYX(mask_T1HW, 8)
    # WanVACEPipeline.prepare_masks, spelled out
    truth = mask_T1HW[:, 0].view(5, 2, 8, 3, 8).permute(2, 4, 0, 1, 3).flatten(0, 1)
    assert torch.equal(folded_MTYX, truth)
    assert torch.equal(torch.pixel_shuffle(folded_MTYX.transpose(0, 1), 8), mask_T1HW)


def disc(height=40, width=60, radius=15):
    y, x = np.mgrid[:height, :width]
    return torch.from_numpy((np.hypot(y - height / 2, x - width / 2) < radius).astype(np.float32))[None]


@pytest.mark.parametrize("feather_px", [1, 3, 8])
def test_the_feather_lies_inside_the_area(feather_px):
    area_1HW = disc()
    blend_1HW = mask.feather_T1HW(area_1HW.expand(3, 1, -1, -1), feather_px)[2]
    assert torch.equal(blend_1HW > 0, area_1HW > 0)
    assert blend_1HW.max() == 1
    # the truth, pixel by pixel: distance to the nearest pixel outside
    outside = np.argwhere(area_1HW[0].numpy() == 0)
    for y, x in np.argwhere(area_1HW[0].numpy() > 0)[::17]:
        depth = np.hypot(*(outside - (y, x)).T).min()
        assert float(blend_1HW[0, y, x]) == pytest.approx(min(1, depth / (feather_px + 1)), abs=1e-5)


def test_soft_values_below_a_half_are_outside_and_above_it_they_blend():
    motion_T1HW = torch.linspace(0, 1, 101).expand(2, 1, 20, -1)
    blend_T1HW = mask.feather_T1HW(motion_T1HW, 2)
    assert not blend_T1HW[motion_T1HW < 0.5].any()
    assert (blend_T1HW <= motion_T1HW).all()
    assert torch.equal(blend_T1HW[..., 60:], motion_T1HW[..., 60:])


def test_a_mask_video_is_feathered_frame_by_frame_and_a_full_mask_not_at_all():
    small, large, full = disc(radius=8), disc(radius=16), torch.ones(1, 40, 60)
    video = mask.feather_T1HW(torch.stack([small, large, full]), 3)
    for frame, still in zip(video, (small, large, full), strict=True):
        assert torch.equal(frame, mask.feather_T1HW(still[None], 3)[0])
    assert torch.equal(video[2], full)


def test_static_cells_are_those_where_nothing_moves_in_any_of_their_frames():
    motion_T1HW = torch.zeros(9, 1, 16, 16)
    motion_T1HW[6, 0, 0, 0] = 1  # slot 2, cell (0, 0)
    motion_T1HW[0, 0, 15, 15] = 0.4  # below the threshold
    static_FYX = mask.static_cells_FYX(motion_T1HW, 4, 8)
    assert static_FYX.shape == (3, 2, 2)
    assert (~static_FYX).nonzero().tolist() == [[2, 0, 0]]
