"""Laws of guide-aware decoding: warps move what they should, nothing is invented, no guide means no change."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from anisora.models.guide_decoder import (
    GuideDecoder,
    Parts,
    along_path,
    expected_offset,
    local_cost,
    neighbours,
    path_cost,
    path_share,
    warp,
)


def test_warp_looks_up_at_pixel_plus_flow():
    image = torch.arange(30.0).view(1, 1, 5, 6)
    flow = torch.zeros(1, 2, 5, 6)
    flow[:, 0] = 1
    torch.testing.assert_close(warp(image, flow)[..., :5], image[..., 1:])


def test_neighbours_are_the_nearest_given_frames():
    assert neighbours([True, False, False, True, False]) == [(0, 0), (0, 3), (0, 3), (3, 3), (3, 3)]
    assert neighbours([False, True]) == [(1, 1), (1, 1)]
    assert neighbours([False, False]) == []


def test_local_cost_equals_gathering_every_neighbourhood():
    a, b = torch.randn(2, 2, 8, 6, 10, generator=torch.Generator().manual_seed(0))
    gathered = functional.unfold(b, 5, padding=2).view(2, 8, 25, 60) * a.reshape(2, 8, 1, 60)
    torch.testing.assert_close(local_cost(a, b, 2), gathered.sum(1).view(2, 25, 6, 10))


def test_likeness_points_to_where_the_picture_went():
    """Features shifted by 2 cells right and 1 up are found there: the cost's order and the offset's agree."""
    a = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    b = torch.roll(a, (-1, 2), dims=(2, 3))
    a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    offset = expected_offset(40 * local_cost(a, b, 3), 3)[0, :, 4:-4, 4:-4]
    torch.testing.assert_close(offset, torch.tensor([2.0, -1.0]).view(2, 1, 1).expand_as(offset), atol=0.1, rtol=0)


def test_path_cost_equals_looking_both_ends_up():
    """Half of the way done: the ends of even paths lie on cells, and a loop finds the same products there."""
    before, after = torch.randn(2, 1, 8, 6, 7, generator=torch.Generator().manual_seed(0))
    cost = path_cost(before, after, torch.tensor([0.5]), 2).view(5, 5, 6, 7)
    for dy, dx in itertools.product((-2, 0, 2), repeat=2):
        for y, x in itertools.product(range(6), range(7)):
            places = (y - dy // 2, x - dx // 2), (y + dy // 2, x + dx // 2)
            inside = all(0 <= a < 6 and 0 <= b < 7 for a, b in places)
            found = sum(before[0, :, *places[0]] * after[0, :, *places[1]]) if inside else torch.tensor(0.0)
            torch.testing.assert_close(cost[dy + 2, dx + 2, y, x], found)


def test_a_path_leads_to_both_guides():
    """What moved by 4 cells between the guides is found 1 cell back and 3 ahead when a quarter of the way is done."""
    before = torch.randn(1, 16, 14, 14, generator=torch.Generator().manual_seed(0))
    after = torch.roll(before, 4, dims=3)
    before, after = functional.normalize(before, dim=1), functional.normalize(after, dim=1)
    share, is_pair = path_share(torch.tensor([[-0.4, 1.2], [0.3, 0.3]]))
    assert is_pair.tolist() == [1, 0]
    assert share.tolist() == pytest.approx([0.25, 0])
    path = expected_offset(40 * path_cost(before, after, share[:1], 4), 4)
    ends = along_path(path, share[:1])[0, :, 5:-5, 5:-5]
    torch.testing.assert_close(ends, torch.tensor([-1.0, 0, 3, 0]).view(4, 1, 1).expand_as(ends), atol=0.1, rtol=0)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return GuideDecoder(dims=(8, 8, 8), features=4).eval()


def test_without_a_whole_guide_nothing_changes(decoder):
    video = torch.rand(1, 3, 5, 16, 16)
    keep = torch.zeros(1, 5, 16, 16)
    keep[:, 0, :8] = 1
    assert torch.equal(decoder.refine(video, video, keep), video)


def test_an_untrained_decoder_blends_its_guides_evenly(decoder):
    """No residual and little of the decoded frame: where guides are of one colour, the mean of both but for that."""
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, 5, 16, 16, generator=generator)
    truth = torch.rand(1, 3, 5, 1, 1, generator=generator).expand(-1, -1, -1, 16, 16)
    keep = torch.zeros(1, 5, 16, 16)
    keep[:, 0] = keep[:, 4] = 1
    with torch.no_grad():
        out = decoder.refine(video, truth, keep)
    little = math.exp(-4) / (2 + math.exp(-4))
    both = (truth[:, :, 0] + truth[:, :, 4]) / 2
    torch.testing.assert_close(out[:, :, 2], torch.lerp(both, video[:, :, 2], little))


def test_the_warped_guides_keep_each_others_share_and_nothing_of_the_decoded_frame(decoder):
    generator = torch.Generator().manual_seed(0)
    moved, decoded = torch.rand(1, 12, 8, 8, generator=generator), torch.rand(1, 3, 8, 8, generator=generator)
    weight = torch.tensor([0.6, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    nothing = torch.zeros(1, 3, 8, 8)
    parts = Parts(moved, weight, nothing, nothing, decoder.matched(decoded, moved[:, 6:], torch.tensor([[-0.1, 0.3]])))
    warped = torch.lerp(moved[:, 3:6], moved[:, :3], 0.75)
    torch.testing.assert_close(parts.warped(), warped, atol=1e-3, rtol=0)
    torch.testing.assert_close(parts.frame(decoded), torch.lerp(warped, decoded, 0.2), atol=1e-3, rtol=0)


def test_a_frame_does_not_depend_on_frames_that_are_neither_it_nor_its_guides(decoder):
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(decoder.out.weight, std=0.05, generator=generator)
    video = torch.rand(1, 3, 5, 16, 16, generator=generator)
    keep = torch.zeros(1, 5, 16, 16)
    keep[:, 0] = 1
    other = video.clone()
    other[:, :, 3] = 0
    with torch.no_grad():
        one, two = decoder.refine(video, video, keep), decoder.refine(other, other, keep)
    assert torch.equal(one[:, :, 2], two[:, :, 2])
    assert not torch.equal(one[:, :, 3], two[:, :, 3])


def test_a_frame_given_whole_comes_out_as_given(decoder):
    video, truth = torch.rand(2, 1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(1, 5, 16, 16)
    keep[:, 0] = keep[:, 3] = 1
    with torch.no_grad():
        out = decoder.refine(video, truth, keep)
    assert torch.equal(out[:, :, [0, 3]], truth[:, :, [0, 3]])
    assert not torch.equal(out[:, :, 1], truth[:, :, 1])
