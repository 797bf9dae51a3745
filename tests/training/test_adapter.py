"""Going on from a LoRA file: the first step sees the model that the file makes, whatever its spelling, rank and alpha."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from finetune_runs import CPU, config_of
from peft import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anisora.errors import BadCheckpoint, BadConfig
from anisora.models.lora import load_lora
from anisora.training import finetune
from anisora.training.adapter import FILE, _order_header
from anisora.training.parallel import World

TARGETS = ("to_q", "to_v")


@pytest.fixture
def config(tiny, clip_folder, tmp_path):
    return lambda family="wan", **more: config_of(tiny(family), clip_folder, tmp_path / "run", **more)


@pytest.fixture
def lora_file(config, tmp_path):
    """`lora_file(family, alpha)`: the folder of a random LoRA of rank 2 on q and v, saved by diffusers."""

    def write(family="wan", alpha=6):
        backbone = finetune._backbone(config(family), CPU)
        lora = replace(config().lora, alpha=alpha, targets=TARGETS)
        trained = finetune.with_trained(backbone, replace(config(family), lora=lora))
        torch.manual_seed(7)
        for network in trained.values():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.data.normal_()
        return finetune.save_lora(backbone.pipeline, list(trained), tmp_path / f"lora-{family}", torch.float32)

    return write


def test_a_file_is_the_same_to_the_byte_whoever_writes_it(lora_file):
    """peft keeps the targets in a set and safetensors its metadata in a map: both in another order in each process."""
    path = lora_file() / FILE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    targets = json.loads(metadata["lora_adapter_metadata"])["transformer.target_modules"]
    assert len(targets) > 1
    assert targets == sorted(targets)
    written = path.read_bytes()
    tensors = load_file(path)
    for _ in range(8):
        save_file(tensors, path, metadata)  # in any order
        _order_header(path)
        assert path.read_bytes() == written
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(path).items())


def changes(network):
    """module -> what its adapters add to its matrix."""
    added = {}
    for name, module in network.named_modules():
        for adapter in getattr(module, "lora_A", {}):
            down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            added[name] = (up.detach() @ down.detach()) * module.scaling[adapter]
    return added


def begun(settings):
    backbone = finetune._backbone(settings, CPU)
    return backbone, finetune._prepared(backbone, settings, World())


@pytest.mark.parametrize("family", ["wan", "wan-experts", "cogvideox"])
def test_the_first_step_sees_the_model_that_the_file_makes(family, config, lora_file, capsys):
    folder = lora_file(family)
    lora = {"rank": 5, "alpha": 3, "start": str(folder)}
    backbone, trained = begun(config(family, lora=lora))
    truth = finetune._backbone(config(family), CPU)
    report = load_lora(truth.pipeline, folder)
    for name, network in trained.items():
        wanted, got = changes(truth.networks[name]), changes(network)
        assert {module for module in got if module.endswith(TARGETS)} == set(wanted)
        for module, change in got.items():
            torch.testing.assert_close(change, wanted.get(module, torch.zeros_like(change)), rtol=1e-5, atol=1e-6)
    matched = len(report.matched)
    assert f"{matched} of {matched} modules begin with" in " ".join(capsys.readouterr().err.split())
    assert all(p.requires_grad == ("lora_" in n) for net in trained.values() for n, p in net.named_parameters())
    assert list(get_peft_model_state_dict(trained["transformer"], adapter_name="default"))
    assert set(backbone.pipeline.get_list_adapters()["transformer"]) == {"default"}


def test_a_foreign_spelling_is_read_and_what_is_left_out_is_told(config, tmp_path, capsys):
    torch.manual_seed(0)
    keys = {}
    for block in range(2):
        for attention in ("self_attn", "cross_attn"):
            for side in "qkvo":
                at = f"diffusion_model.blocks.{block}.{attention}.{side}"
                keys |= {f"{at}.lora_down.weight": torch.randn(2, 24), f"{at}.lora_up.weight": torch.randn(24, 2)}
                keys |= {f"{at}.alpha": torch.tensor(4.0)}
        at = f"diffusion_model.blocks.{block}.ffn"
        keys |= {f"{at}.0.lora_down.weight": torch.randn(2, 24), f"{at}.0.lora_up.weight": torch.randn(32, 2)}
        keys |= {f"{at}.2.lora_down.weight": torch.randn(2, 32), f"{at}.2.lora_up.weight": torch.randn(24, 2)}
    save_file(keys, tmp_path / "foreign.safetensors")
    settings = config(lora={"start": str(tmp_path / "foreign.safetensors")})
    _, trained = begun(settings)
    at = "diffusion_model.blocks.1.self_attn.q"
    change = changes(trained["transformer"])["blocks.1.attn1.to_q"]
    truth = 4.0 / 2 * keys[f"{at}.lora_up.weight"] @ keys[f"{at}.lora_down.weight"]
    torch.testing.assert_close(change, truth, rtol=1e-4, atol=1e-5)
    said = " ".join(capsys.readouterr().err.split())
    assert "16 of 20 modules begin with" in said
    assert "blocks.0.ffn.net.0.proj" in said


def test_training_goes_on_from_it_and_resumes_without_it(config, lora_file, tmp_path):
    folder = lora_file()
    settings = config(lora={"start": str(folder)}, loop={"steps": 3})
    fresh = replace(settings, lora=replace(settings.lora, start=None), output=tmp_path / "fresh")
    whole = replace(settings, output=tmp_path / "whole")
    finetune.main(whole)
    finetune.main(fresh)
    assert finetune.main(settings, max_minutes=0) is None
    shutil.rmtree(folder)  # the run's own checkpoint holds its weights by now
    exported = finetune.main(settings)
    once, resumed, other = (
        load_file(path / FILE) for path in (whole.output / "export", exported, fresh.output / "export")
    )
    assert all(torch.equal(once[key], resumed[key]) for key in once)
    assert any(not torch.equal(once[key], other[key]) for key in once)


def test_what_does_not_fit_is_refused(config, lora_file, tmp_path):
    folder = lora_file()
    with pytest.raises(BadConfig, match=r"higher rank.*lora.rank=2"):
        begun(config(lora={"rank": 1, "start": str(folder)}))
    with pytest.raises(BadConfig, match="is trained"):
        begun(config(lora={"targets": ["to_k"], "start": str(folder)}))
    weights = {key.replace("blocks", "layers"): value for key, value in load_file(folder / FILE).items()}
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(BadCheckpoint, match="none of its modules is in this network"):
        begun(config(lora={"start": str(tmp_path / "other.safetensors")}))
    with pytest.raises(BadConfig, match=r"lora\.start.*method: lora"):
        config(method="full", lora={"start": str(folder)})
