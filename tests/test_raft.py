"""The network of RAFT: its names are those of the published files, its parts keep their laws."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from anisora.errors import BadCheckpoint
from anisora.measures.clip import ClipView
from anisora.measures.raft import (
    LEVELS,
    RADIUS,
    Raft,
    correlation_pyramid,
    flow_by_raft,
    load,
    look_up,
    positions,
    raft_flow,
    upsample,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Raft().eval()


def test_names_and_sizes_are_the_published_ones(network):
    """A sample of each part of `raft-things.pth`, and its 5.26 million parameters (the paper's table 2 says 5.3)."""
    state = network.state_dict()
    for name, shape in {
        "fnet.conv1.weight": (64, 3, 7, 7), "fnet.layer2.0.downsample.0.weight": (96, 64, 1, 1),
        "fnet.conv2.weight": (256, 128, 1, 1), "cnet.norm1.running_mean": (64,), "cnet.layer3.0.norm3.weight": (128,),
        "cnet.layer3.0.downsample.1.weight": (128,), "update_block.encoder.convc1.weight": (256, 324, 1, 1),
        "update_block.encoder.conv.weight": (126, 256, 3, 3), "update_block.gru.convq2.weight": (128, 384, 5, 1),
        "update_block.flow_head.conv2.weight": (2, 256, 3, 3), "update_block.mask.2.weight": (576, 256, 1, 1),
    }.items():  # fmt: skip
        assert tuple(state[name].shape) == shape
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_257_536


def test_files_load_with_and_without_the_prefix_and_others_are_refused(network, tmp_path):
    state = network.state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "things.pth")
    loaded = load(tmp_path / "things.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "things.pth").read_bytes()[:999])
    for name in ("other.pth", "cut.pth"):
        with pytest.raises(BadCheckpoint, match="large RAFT"):
            load(tmp_path / name)


def test_the_window_holds_the_products_of_the_neighbours():
    """Against a loop over every place and offset, on the finest level."""
    torch.manual_seed(1)
    first, second = torch.randn(2, 1, 6, 16, 16)
    found = look_up(correlation_pyramid(first, second), positions(16, 16))
    assert found.shape == (1, LEVELS * (2 * RADIUS + 1) ** 2, 16, 16)
    y, x = 7, 8
    for channel, (dx, dy) in enumerate(
        (dx, dy) for dx in range(-RADIUS, RADIUS + 1) for dy in range(-RADIUS, RADIUS + 1)
    ):
        expected = float(first[0, :, y, x] @ second[0, :, y + dy, x + dx]) / 6**0.5
        assert float(found[0, channel, y, x]) == pytest.approx(expected, abs=1e-4)


def test_upsampling_keeps_an_even_flow_and_scales_it():
    even = torch.tensor([1.5, -2.0])[None, :, None, None].expand(1, 2, 6, 7)
    up = upsample(even, torch.randn(1, 576, 6, 7))
    assert up.shape == (1, 2, 48, 56)
    inner = up[..., 8:-8, 8:-8]
    assert torch.allclose(inner, 8 * even[..., :1, :1].expand_as(inner), atol=1e-4)


def test_any_size_and_a_score_with_its_weights(network, tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 70, 129, 3), np.uint8)
    flow = raft_flow(network, frames[0], frames[1])
    assert flow.shape == (70, 129, 2)
    assert np.isfinite(flow).all()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    signal = {"index": np.arange(0, 4), "since": np.array([0, 0, 2, 2]), "mean": np.zeros(4), "top": np.zeros(4)}
    clip = ClipView.of_frames(frames, Fraction(8), {"flow": signal})
    score = flow_by_raft(clip, tmp_path / "raft.pth")
    assert score.raw > 0
    assert score.backend == "full"
    assert len(score.weights_sha256) == 64
    assert len(score.per_frame) == 2
    assert flow_by_raft(ClipView.of_frames(frames, Fraction(8)), tmp_path / "raft.pth").reason == "no_signal"
