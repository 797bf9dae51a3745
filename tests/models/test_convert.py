"""Conversion: forward parity with the makers' layout, exact splits, sharding, and refusal of what is not whole."""

from __future__ import annotations

import json
import math

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from reference_wan import ReferenceWan
from safetensors.torch import load_file, save_file

import anisora
from anisora.errors import BadCheckpoint, BadRequest, WriteFailed
from anisora.models import catalog
from anisora.models.convert import convert_checkpoint
from anisora.records import Guide


def write_upstream(folder, image_dim=None, seed=0):
    """A random network saved as its makers save theirs: several files, a config.json with num_heads."""
    torch.manual_seed(seed)
    network = ReferenceWan(image_dim=image_dim)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folder.mkdir(parents=True)
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: state[name] for name in part}, folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_heads": 2, "dim": 24}))
    return network


def compared(network, folder, image_dim=None):
    """(truth, converted) outputs for one input."""
    converted = WanTransformer3DModel.from_pretrained(folder)
    noise = torch.Generator().manual_seed(1)
    x, text = torch.randn(36, 3, 4, 6, generator=noise), torch.randn(512, 32, generator=noise)
    image = None if image_dim is None else torch.randn(17, image_dim, generator=noise)
    with torch.no_grad():
        truth = network(x, 437.5, text, image)
        more = {} if image is None else {"encoder_hidden_states_image": image[None]}
        ours = converted(x[None], torch.tensor([437.5]), text[None], **more).sample[0]
    return truth, ours


def test_the_wan_network_computes_what_its_makers_does(tiny, tmp_path):
    network = write_upstream(tmp_path / "source", image_dim=32)
    seen = []
    report = convert_checkpoint(
        {"transformer": tmp_path / "source"},
        tiny("wan-clip"),
        tmp_path / "out",
        name="anisora-v3",
        dtype="float32",
        shard_bytes=20_000,
        progress=lambda done, total: seen.append((done, total)),
    )
    truth, ours = compared(network, tmp_path / "out" / "transformer", image_dim=32)
    assert truth.std() > 0.1
    assert torch.allclose(ours, truth, atol=1e-5)
    assert report.params == {"transformer": sum(p.numel() for p in network.parameters())}
    assert report.num_files > 2
    assert report.num_bytes > 4 * report.params["transformer"]
    assert seen[-1] == (report.tensors["transformer"],) * 2
    info = catalog.resolve(tmp_path / "out")
    assert (info.recipe.steps, info.recipe.guidance, info.snap) == (8, 1.0, "anisora")


def test_two_experts_and_a_shot(tiny, tmp_path, picture):
    networks = [write_upstream(tmp_path / name, seed=seed) for seed, name in enumerate(("high", "low"))]
    sources = {"transformer": tmp_path / "high", "transformer_2": tmp_path / "low"}
    report = convert_checkpoint(sources, tiny("wan-experts"), tmp_path / "out", dtype="float32", name="anisora-v3.2")
    for network, name in zip(networks, sources, strict=True):
        truth, ours = compared(network, tmp_path / "out" / name)
        assert torch.allclose(ours, truth, atol=1e-5)
    pipeline = anisora.AniSoraWanPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline("she waves", [Guide(picture())], width=48, height=32, num_frames=9, max_sequence_length=24)
    assert out.forwards == 8  # the recipe that the name brought
    assert set(report.tensors) == {"transformer", "transformer_2"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_casts(tiny, tmp_path, dtype):
    network = write_upstream(tmp_path / "source")
    convert_checkpoint({"transformer": tmp_path / "source"}, tiny("wan-experts"), tmp_path / "out", dtype=dtype)
    stored = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    truth = network.blocks[0].ffn[0].weight.detach().to(getattr(torch, dtype))
    assert torch.equal(stored["blocks.0.ffn.net.0.proj.weight"], truth)
    assert catalog.resolve(tmp_path / "out").experts == 1  # one source: the base's second expert is not taken over


def test_torch_files_are_read_and_too_large_values_refused(tiny, tmp_path):
    network = write_upstream(tmp_path / "source")
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "model.pth")
    (tmp_path / "config.json").write_text('{"num_heads": 2}')
    convert_checkpoint({"transformer": tmp_path / "model.pth"}, tiny("wan-experts"), tmp_path / "out", dtype="float32")
    truth, ours = compared(network, tmp_path / "out" / "transformer")
    assert torch.allclose(ours, truth, atol=1e-5)
    network.head.head.weight.data[0, 0] = 1e6
    torch.save(network.state_dict(), tmp_path / "model.pth")
    with pytest.raises(BadRequest, match=r"proj_out.weight does not fit float16: got values up to 1e\+06"):
        convert_checkpoint(
            {"transformer": tmp_path / "model.pth"}, tiny("wan-experts"), tmp_path / "o2", dtype="float16"
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.pth", "out", "source"]


def sat_from(network):
    """A CogVideoX network in SwissArmyTransformer's layout: the conversion's inverse, written by hand."""
    state, sat = network.state_dict(), {}
    prefix = "model.diffusion_model."
    plain = {
        "attn1.to_out.0": "transformer.layers.{}.attention.dense",
        "ff.net.0.proj": "transformer.layers.{}.mlp.dense_h_to_4h",
        "ff.net.2": "transformer.layers.{}.mlp.dense_4h_to_h",
        "norm1.norm": "transformer.layers.{}.input_layernorm",
        "norm2.norm": "transformer.layers.{}.post_attention_layernorm",
        "attn1.norm_q": "mixins.adaln_layer.query_layernorm_list.{}",
        "attn1.norm_k": "mixins.adaln_layer.key_layernorm_list.{}",
    }
    for layer in range(network.config.num_layers):
        block = f"transformer_blocks.{layer}."
        for end in ("weight", "bias"):
            for ours, theirs in plain.items():
                sat[f"{theirs.format(layer)}.{end}"] = state[f"{block}{ours}.{end}"]
            qkv = [state[f"{block}attn1.to_{side}.{end}"] for side in "qkv"]
            sat[f"transformer.layers.{layer}.attention.query_key_value.{end}"] = torch.cat(qkv)
            one, two = (state[f"{block}norm{n}.linear.{end}"].chunk(6) for n in (1, 2))
            twelve = [*one[:3], *two[:3], *one[3:], *two[3:]]
            sat[f"mixins.adaln_layer.adaLN_modulations.{layer}.1.{end}"] = torch.cat(twelve)
    top = {
        "norm_final": "transformer.final_layernorm",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "patch_embed.proj": "mixins.patch_embed.proj",
        "patch_embed.text_proj": "mixins.patch_embed.text_proj",
        "norm_out.norm": "mixins.final_layer.norm_final",
        "norm_out.linear": "mixins.final_layer.adaLN_modulation.1",
        "proj_out": "mixins.final_layer.linear",
    }
    for ours, theirs in top.items():
        for end in ("weight", "bias"):
            sat[f"{theirs}.{end}"] = state[f"{ours}.{end}"]
    sat["mixins.pos_embed.freqs_sin"] = torch.zeros(3)
    sat["transformer.word_embeddings.embed_tokens.weight"] = torch.zeros(3)
    return {prefix + name: tensor.clone().contiguous() for name, tensor in sat.items()}


def test_the_sat_layout_of_cogvideox(tiny, tmp_path):
    base = tiny("cogvideox")
    network = CogVideoXTransformer3DModel.from_pretrained(base / "transformer")
    with torch.no_grad():  # every tensor different from the base's
        for parameter in network.parameters():
            parameter += torch.rand_like(parameter)
    torch.save({"module": sat_from(network)}, tmp_path / "mp_rank_00_model_states.pt")
    source = tmp_path / "mp_rank_00_model_states.pt"
    report = convert_checkpoint({"transformer": source}, base, tmp_path / "out", dtype="float32")
    stored = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert report.layout == "sat"
    assert report.dropped == ("mixins.pos_embed.freqs_sin", "transformer.word_embeddings.embed_tokens.weight")
    assert stored.keys() == network.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in network.state_dict().items())


def test_all_names_of_the_full_size_weights_find_their_place(tmp_path):
    """The published 14 B layout, on the meta device: shapes alone go through the conversion's plan."""
    from anisora.models.convert import _check_coverage, _Tensor, _wan_config, _wan_tensors

    for image_dim, billions in ((1280, 16.39), (None, 14.29)):
        with torch.device("meta"):
            network = ReferenceWan(5120, 40, 13824, 40, (36, 16), 4096, image_dim, 256)
        found = {name: _Tensor(tuple(tensor.shape), None) for name, tensor in network.state_dict().items()}
        config, tensors = _wan_config(found, tmp_path), _wan_tensors(found)
        assert (config["num_attention_heads"], config["attention_head_dim"], config["num_layers"]) == (40, 128, 40)
        _check_coverage("transformer", {name: tensor.shape for name, tensor in tensors.items()}, config)
        assert round(sum(math.prod(tensor.shape) for tensor in tensors.values()) / 1e9, 2) == billions


def test_what_is_not_whole_is_refused_and_nothing_is_left(tiny, tmp_path):
    write_upstream(tmp_path / "source")
    base, out = tiny("wan-experts"), tmp_path / "out"
    file = tmp_path / "source" / "model-00001-of-00002.safetensors"
    state = load_file(file)
    lost = "blocks.1.ffn.0.weight"
    assert lost in state
    save_file({name: t for name, t in state.items() if name != lost} | {"stray": torch.zeros(1)}, file)
    with pytest.raises(BadCheckpoint, match=r"missing blocks.1.ffn.net.0.proj.weight; unexpected stray"):
        convert_checkpoint({"transformer": tmp_path / "source"}, base, out)
    save_file({"anything": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BadCheckpoint, match="unknown layout"):
        convert_checkpoint({"transformer": tmp_path / "other.safetensors"}, base, out)
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(BadCheckpoint, match="unreadable"):
        convert_checkpoint({"transformer": tmp_path / "cut.pt"}, base, out)
    with pytest.raises(BadRequest, match="no weights"):
        convert_checkpoint({"transformer": tmp_path / "absent"}, base, out)
    with pytest.raises(BadRequest, match="dtype"):
        convert_checkpoint({"transformer": tmp_path / "source"}, base, out, dtype="int3")
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_in_use_is_not_overwritten(tiny, tmp_path):
    write_upstream(tmp_path / "source")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(WriteFailed, match="holds other files"):
        convert_checkpoint({"transformer": tmp_path / "source"}, tiny("wan-experts"), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
