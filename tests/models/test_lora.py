"""LoRAs through diffusers' loaders: exact effect, scale, and refusal of those that fit nothing."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from anisora.errors import BadCheckpoint, BadRequest
from anisora.models.catalog import resolve
from anisora.models.lora import load_lora

FILE = "pytorch_lora_weights.safetensors"


def write_lora(folder, pipeline, seed=0, alpha=4):
    """A random LoRA of rank 2 for the pipeline's network, saved by diffusers; the network is left as it was."""
    network = pipeline.transformer
    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=alpha, target_modules=["to_q", "to_v"], init_lora_weights=False)
    network.add_adapter(config, adapter_name="made")
    layers = get_peft_model_state_dict(network, adapter_name="made")
    pipeline.save_lora_weights(folder, layers, transformer_lora_adapter_metadata=config.to_dict())
    network.delete_adapters("made")
    pipeline.unload_lora_weights()
    return folder


@pytest.fixture
def fresh(tiny):
    def load(family):
        folder = tiny(family)
        pipeline = getattr(anisora, resolve(folder).pipeline_class).from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


def run(pipeline, name="transformer"):
    network = getattr(pipeline, name)
    config = network.config
    noise = torch.Generator().manual_seed(5)
    if "Cog" in type(network).__name__:
        inputs = {"hidden_states": torch.randn(1, 3, 32, 4, 6, generator=noise), "timestep": torch.tensor([500])}
        inputs["encoder_hidden_states"] = torch.randn(1, 16, 32, generator=noise)
    else:
        inputs = {"hidden_states": torch.randn(1, config.in_channels, 3, 4, 6, generator=noise)}
        inputs |= {"timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, 24, 32, generator=noise)}
    with torch.no_grad():
        return network(**inputs).sample


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_it_adds_scale_times_b_a_exactly(fresh, tmp_path, family):
    pipeline, truth = fresh(family), fresh(family)
    folder, alpha, scale = write_lora(tmp_path, pipeline), 4, 0.5
    before = run(pipeline)
    report = load_lora(pipeline, folder, scale)
    assert report.unmatched == ()
    weights = load_file(folder / FILE)
    assert len(report.matched) == len(weights) // 2 > 0
    with torch.no_grad():
        for name in report.matched:
            a, b = (weights[f"transformer.{name}.lora_{side}.weight"] for side in "AB")
            truth.transformer.get_submodule(name).weight += scale * alpha / 2 * b @ a
    assert torch.allclose(run(pipeline), run(truth), atol=1e-5)
    assert not torch.allclose(run(pipeline), before, atol=1e-3)


def test_several_keep_their_own_scales(fresh, tmp_path):
    pipeline = fresh("wan")
    before = run(pipeline)
    folders = [write_lora(tmp_path / str(seed), pipeline, seed) for seed in (1, 2)]
    first, second = load_lora(pipeline, folders[0], 0.0), load_lora(pipeline, folders[1], 0.0)
    assert first.name != second.name
    assert torch.allclose(run(pipeline), before, atol=1e-6)
    load_lora(pipeline, folders[1], 1.0)
    assert not torch.allclose(run(pipeline), before, atol=1e-3)


def test_it_goes_into_both_experts_or_the_named_one(fresh, tmp_path):
    pipeline = fresh("wan-experts")
    folder = write_lora(tmp_path, pipeline)
    before = {name: run(pipeline, name) for name in ("transformer", "transformer_2")}
    assert load_lora(pipeline, folder, experts=["transformer_2"]).networks == ("transformer_2",)
    assert torch.equal(run(pipeline), before["transformer"])
    assert not torch.allclose(run(pipeline, "transformer_2"), before["transformer_2"], atol=1e-3)
    assert load_lora(pipeline, folder).networks == ("transformer", "transformer_2")
    assert not torch.allclose(run(pipeline), before["transformer"], atol=1e-3)
    with pytest.raises(BadRequest, match="expert"):
        load_lora(pipeline, folder, experts=["transformer_3"])


def test_the_original_spelling_is_read(fresh, tmp_path):
    pipeline = fresh("wan")
    a, b = torch.randn(2, 24), torch.randn(24, 2)
    spelled = {"lora_down": a, "lora_up": b, "alpha": torch.tensor(2.0)}
    keys = {}
    for block in range(2):
        for attention in ("self_attn", "cross_attn"):
            for side in "qkvo":
                for name, tensor in spelled.items():
                    end = "" if name == "alpha" else ".weight"
                    keys[f"diffusion_model.blocks.{block}.{attention}.{side}.{name}{end}"] = tensor.clone()
        for ffn, (down, up) in {"ffn.0": (a, torch.randn(32, 2)), "ffn.2": (torch.randn(2, 32), b)}.items():
            keys |= {f"diffusion_model.blocks.{block}.{ffn}.lora_down.weight": down.clone()}
            keys |= {f"diffusion_model.blocks.{block}.{ffn}.lora_up.weight": up.clone()}
    save_file(keys, tmp_path / "original.safetensors")
    before = run(pipeline)
    report = load_lora(pipeline, tmp_path / "original.safetensors")
    assert "blocks.1.attn2.to_out.0" in report.matched
    assert report.unmatched == ()
    assert not torch.allclose(run(pipeline), before, atol=1e-3)


def test_what_fits_nothing_is_refused(fresh, tmp_path):
    pipeline = fresh("wan")
    write_lora(tmp_path, pipeline)
    weights = load_file(tmp_path / FILE)

    def renamed(name, change):
        save_file({change(key): tensor.clone() for key, tensor in weights.items()}, tmp_path / name)
        return tmp_path / name

    with pytest.raises(BadCheckpoint, match="another model"):
        load_lora(pipeline, renamed("other.safetensors", lambda key: key.replace("blocks", "layers")))
    with pytest.raises(BadCheckpoint, match="not a LoRA"):
        load_lora(pipeline, renamed("none.safetensors", lambda key: key.replace("lora", "full")))
    save_file({key: torch.zeros(3, 3) for key in weights}, tmp_path / "shapes.safetensors")
    with pytest.raises(BadCheckpoint, match="3 in, 3 out; expected 24 in, 24 out"):
        load_lora(pipeline, tmp_path / "shapes.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / FILE).read_bytes()[:100])
    with pytest.raises(BadCheckpoint, match="unreadable"):
        load_lora(pipeline, tmp_path / "cut.safetensors")
    with pytest.raises(BadRequest, match="no file"):
        load_lora(pipeline, tmp_path / "absent.safetensors")
    with pytest.raises(BadRequest, match=r"\d files|5 .safetensors"):
        load_lora(pipeline, tmp_path)
    assert pipeline.get_list_adapters() == {}


def test_modules_that_fit_nothing_are_told(fresh, tmp_path):
    pipeline = fresh("wan")
    write_lora(tmp_path / "whole", pipeline)
    weights = load_file(tmp_path / "whole" / FILE)
    stray = {"transformer.blocks.9.attn1.to_q.lora_A.weight": torch.zeros(2, 24)}
    stray |= {"transformer.blocks.9.attn1.to_q.lora_B.weight": torch.zeros(24, 2)}
    save_file(weights | stray, tmp_path / "stray.safetensors")
    assert load_lora(pipeline, tmp_path / "stray.safetensors").unmatched == ("blocks.9.attn1.to_q",)


def test_alpha_travels_in_the_file(fresh, tmp_path):
    pipeline = fresh("wan")
    folder = write_lora(tmp_path, pipeline, alpha=8)
    name = load_lora(pipeline, folder).name
    assert pipeline.transformer.blocks[0].attn1.to_q.scaling[name] == 8 / 2
    assert json.dumps(pipeline.lora_scales) == json.dumps({name: 1.0})
