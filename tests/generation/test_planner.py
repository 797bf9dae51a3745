"""The planner's arithmetic against torch's own counter on the stock networks, small and at their published size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from anisora.generation import planner
from anisora.geometry import Strides
from anisora.models import catalog

SMALL_WAN = dict(
    num_attention_heads=2, attention_head_dim=12, num_layers=2, ffn_dim=32, in_channels=20, out_channels=8,
    text_dim=16, freq_dim=32, patch_size=(1, 2, 2), rope_max_seq_len=32,
)  # fmt: skip
SMALL_COG = dict(
    num_attention_heads=2, attention_head_dim=16, num_layers=2, in_channels=32, out_channels=16, time_embed_dim=16,
    text_embed_dim=32, max_text_seq_length=8, sample_width=8, sample_height=6, sample_frames=9,
    use_rotary_positional_embeddings=True, attention_bias=True,
)  # fmt: skip
SMALL_VACE = dict(SMALL_WAN, in_channels=16, out_channels=16, vace_layers=[0], vace_in_channels=96)
TEXT = 8


def built(config: dict, kind: str):
    import diffusers

    names = {
        "wan": "WanTransformer3DModel",
        "vace": "WanVACETransformer3DModel",
        "cogvideox": "CogVideoXTransformer3DModel",
    }
    with torch.device("meta"):
        return getattr(diffusers, names[kind])(**config).eval()


def run(model, kind: str, config: dict, frames: int, rows: int, columns: int, text: int) -> FlopCounterMode:
    """One pass on the meta device, counted."""
    meta = {"device": "meta"}
    words = torch.zeros(1, text, config.get("text_dim", config.get("text_embed_dim", 4096)), **meta)
    when = torch.zeros(1, **meta)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        if kind == "cogvideox":
            video = torch.zeros(1, frames, config["in_channels"], rows, columns, **meta)
            tokens = frames * rows * columns // 4
            rope = (torch.zeros(tokens, config["attention_head_dim"], **meta),) * 2
            model(video, words, when, image_rotary_emb=rope)
        else:
            video = torch.zeros(1, config["in_channels"], frames, rows, columns, **meta)
            more = {}
            if config.get("image_dim"):
                more["encoder_hidden_states_image"] = torch.zeros(1, 257, config["image_dim"], **meta)
            if kind == "vace":
                more["control_hidden_states"] = torch.zeros(
                    1, config["vace_in_channels"], frames, rows, columns, **meta
                )
            model(hidden_states=video, timestep=when, encoder_hidden_states=words, **more)
    return counter


SMALL = [
    ("wan", SMALL_WAN),
    ("wan", dict(SMALL_WAN, image_dim=12, added_kv_proj_dim=24)),
    ("vace", SMALL_VACE),
    ("cogvideox", SMALL_COG),
]


@pytest.mark.parametrize(("kind", "config"), SMALL)
def test_operations_and_parameters_equal_torchs_count(kind: str, config: dict):
    network = planner.network_of(config, text_tokens=TEXT)
    model = built(config, kind)
    tokens = planner.num_tokens(network, Strides(), (64, 48), 9)
    counted = run(model, kind, config, 3, 6, 8, TEXT).get_total_flops()
    assert network.kind == kind
    assert planner.forward_flops(network, tokens) == counted
    assert planner.num_params(network) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", sorted(planner.PUBLIC))
def test_published_sizes(name: str):
    """The 14 B class on the meta device has the parameters that the formula gives."""
    config, _, _ = planner.PUBLIC[name]
    network = planner.network_of(config)
    if network.kind == "cogvideox":
        config = dict(config, attention_bias=True, use_rotary_positional_embeddings=True)
    small_enough = dict(config, num_layers=2)
    if network.kind == "vace":
        small_enough["vace_layers"] = [0]
        network = planner.network_of(small_enough)
    one_less = sum(p.numel() for p in built(small_enough, network.kind).parameters())
    assert planner.num_params(planner.network_of(small_enough)) == pytest.approx(one_less, rel=2e-5)
    if "i2v-14b" in name:
        assert planner.num_params(network) == pytest.approx(16.39e9, rel=1e-3)  # counted elsewhere on the full model


def test_known_totals():
    """Wan 14B: 32,760 tokens at 480p and 81 frames, 75,600 at 720p; about 1.8 and 6.8 PFLOP a pass."""
    network = planner.network_of(planner.PUBLIC["wan2.1-i2v-14b-480p"][0])
    small = planner.num_tokens(network, Strides(), (832, 480), 81)
    large = planner.num_tokens(network, Strides(), (1280, 720), 81)
    assert (small, large) == (32760, 75600)
    assert planner.forward_flops(network, small) == pytest.approx(1.8e15, rel=0.1)
    assert planner.forward_flops(network, large) == pytest.approx(6.8e15, rel=0.1)


def test_larger_shots_never_cost_less():
    network = planner.network_of(SMALL_WAN, text_tokens=TEXT)
    params = {"transformer": planner.num_params(network)}
    shots = [((48, 32), 9), ((64, 48), 9), ((64, 48), 17)]
    costs = [
        planner.estimate(network, params, Strides(), size_px=size, num_frames=frames, steps=2, guidance=1)
        for size, frames in shots
    ]
    assert [c.tokens for c in costs] == sorted(c.tokens for c in costs)
    assert [c.flops for c in costs] == sorted(c.flops for c in costs)
    assert costs[0].fits(10**12) == ("bfloat16", "resident")
    assert costs[0].fits(0) is None


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "models" / "public_configs").glob("*.json")), ids=lambda p: p.stem
)
def test_the_table_of_public_networks_agrees_with_their_configs(path: Path):
    published = json.loads(path.read_text())
    config, experts, _ = planner.PUBLIC[path.stem]
    assert planner.network_of(config) == planner.network_of(published["transformer"])
    assert experts == (2 if "transformer_2" in published["model_index"] else 1)


@pytest.mark.parametrize("name", sorted(planner.PUBLIC))
def test_every_public_model_has_a_cost(name: str):
    cost = planner.cost_of_public(name, catalog.KNOWN[name].defaults)
    assert cost.flops > 0
    assert cost.needs_bytes["bfloat16", "blocks"] < cost.needs_bytes["bfloat16", "parts"]
    assert cost.needs_bytes["bfloat16", "parts"] < cost.needs_bytes["bfloat16", "resident"]
