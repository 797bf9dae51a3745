"""Equation 1's mask branch: nothing until trained, alive from the first step, and stock's weights untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anisora.generation.pipeline import AniSoraCogVideoXPipeline
from anisora.models.mask_projection import MaskProjection, mask_added
from anisora.models.tiny import write_tiny_checkpoint
from anisora.records import Guide


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def network_inputs(num_latent_frames=4):
    latent = torch.randn(1, num_latent_frames, 32, 4, 6, generator=noise(1))
    text = torch.randn(1, 16, 32, generator=noise(2))
    return {"hidden_states": latent, "encoder_hidden_states": text, "timestep": torch.tensor([500])}


def masks(num_latent_frames=4):
    mask = (torch.rand(2, 4, num_latent_frames, 4, 6, generator=noise(3)) > 0.5).float()
    return mask[:1], mask[1:]


@pytest.fixture(params=["cogvideox", "cogvideox-packed"])
def network_and_projection(request, tiny_pipeline):
    network = tiny_pipeline(request.param).transformer
    with torch.random.fork_rng():
        torch.manual_seed(4)
        projection = MaskProjection.matching(network)
    return network, projection, {"ofs": torch.tensor([2.0])} if request.param.endswith("packed") else {}


def test_untrained_it_changes_nothing(network_and_projection):
    network, projection, more = network_and_projection
    with torch.no_grad():
        bare = network(**network_inputs(), **more).sample
        with mask_added(network, projection, masks()[0]):
            masked = network(**network_inputs(), **more).sample
        after = network(**network_inputs(), **more).sample
    assert torch.equal(bare, masked)
    assert torch.equal(bare, after)


def test_one_step_of_training_wakes_it(network_and_projection):
    network, projection, more = network_and_projection
    optimiser = torch.optim.AdamW(projection.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(2):
        optimiser.zero_grad()
        with mask_added(network, projection, masks()[0]):
            network(**network_inputs(), **more).sample.square().mean().backward()
        gradients = {name: float(p.grad.abs().sum()) for name, p in projection.named_parameters()}
        assert gradients["proj.weight"] > 0
        assert gradients["proj.bias"] > 0
        optimiser.step()
        network.zero_grad(set_to_none=True)
    assert gradients["conv_in.weight"] > 0  # from the second step on, the convolutions learn too
    assert projection.proj.weight.abs().sum() > 0
    with torch.no_grad():
        seen = []
        for mask in masks():
            with mask_added(network, projection, mask):
                seen.append(network(**network_inputs(), **more).sample)
    assert not torch.allclose(*seen, atol=1e-4)


def test_it_equals_extra_input_channels(tiny_pipeline):
    """Equation 1 concatenates the re-projected mask with the other channels: a wider patch embedding does the same."""
    network = tiny_pipeline("cogvideox").transformer
    projection = MaskProjection.matching(network)
    torch.nn.init.normal_(projection.proj.weight, std=0.1)
    inputs, mask = network_inputs(), masks()[0]
    embed = network.patch_embed
    wide = torch.nn.Conv2d(32 + 16, embed.proj.out_channels, 2, stride=2)
    silu = torch.nn.functional.silu
    with torch.no_grad():
        wide.weight.copy_(torch.cat([embed.proj.weight, projection.proj.weight[:, :, 0]], dim=1))
        wide.bias.copy_(embed.proj.bias)
        channels = silu(projection.conv_out(silu(projection.conv_in(mask))))
        both = torch.cat([inputs["hidden_states"], channels.transpose(1, 2)], dim=2)
        truth = wide(both[0]).flatten(2).transpose(1, 2).flatten(0, 1)
        with mask_added(network, projection, mask):
            ours = embed(inputs["encoder_hidden_states"], inputs["hidden_states"])[0, 16:]
    assert torch.allclose(ours, truth, atol=1e-5)


def test_in_the_checkpoint_the_transformer_is_stocks_byte_for_byte(tiny):
    stock, masked = (
        load_file(tiny(family) / "transformer" / "diffusion_pytorch_model.safetensors")
        for family in ("cogvideox", "cogvideox-mask")
    )
    assert stock.keys() == masked.keys()
    assert all(torch.equal(stock[name], masked[name]) for name in stock)
    config = MaskProjection.load_config(tiny("cogvideox-mask") / "mask_projection")
    fields = {"mask_channels": 4, "hidden_channels": 64, "out_channels": 16, "patch_size": 2, "patch_size_t": None}
    assert {key: config[key] for key in fields} == fields
    assert config["_class_name"] == "MaskProjection"


def test_a_trained_projection_makes_the_pipeline_see_the_mask(tmp_path, picture):
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", "cogvideox-mask")
    pipeline = AniSoraCogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    left, right = np.zeros((2, 32, 48), np.uint8)
    left[:, :24], right[:, 24:] = 255, 255

    def shot(mask, guidance=1.0):
        kwargs = {"generator": noise(), "guidance_scale": guidance, "composite": False, "output_type": "latent"}
        return pipeline("", [Guide(picture())], motion_mask=mask, **kwargs).frames

    assert torch.equal(shot(left), shot(right))
    torch.nn.init.normal_(pipeline.mask_projection.proj.weight, std=0.1)
    for guidance in (1.0, 3.0):
        assert not torch.allclose(shot(left, guidance), shot(right, guidance), atol=1e-4)
    assert not pipeline.transformer.patch_embed._forward_hooks  # nothing is left behind
