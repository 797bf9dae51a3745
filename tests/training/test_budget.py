"""What a dry run says against what is counted: parameters, tokens, passes."""

from dataclasses import replace

import pytest
import torch
from finetune_runs import CPU, config_of
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anisora.errors import BadConfig, UnknownModel
from anisora.generation import planner
from anisora.settings import plain
from anisora.training import distill, finetune
from anisora.training.adapter import LoraSettings
from anisora.training.budget import budget, lora_parameters
from anisora.training.cache import Cache
from anisora.training.parallel import World


def test_the_paper_s_motion_lora_has_264_million_numbers():
    """Rank 256 on q, k, v and o of CogVideoX-5B: 42 layers, 4 matrices, 256 * (3072 + 3072) each; the paper says 0.27 B."""
    config, _, _ = planner.PUBLIC["anisora-v1"]
    assert lora_parameters(config, "cogvideox", 256, LoraSettings().targets) == 42 * 4 * 256 * 6144 == 264_241_152


@pytest.mark.parametrize("method", ["lora", "full"])
def test_trained_parameters_are_those_that_train(method, tiny, clip_folder, tmp_path):
    settings = config_of(tiny("wan-experts"), clip_folder, tmp_path / "run", method=method)
    backbone = finetune._backbone(settings, CPU)
    trained = finetune.with_trained(backbone, settings)
    count = sum(p.numel() for network in trained.values() for p in network.parameters() if p.requires_grad)
    cost = budget(settings)
    assert cost.trained_parameters == count
    assert (cost.clips, cost.steps, cost.epochs) == (6, 3, 1.0)
    assert cost.tokens_a_step == 2 * 18
    assert cost.memory_bytes["all"] == sum(value for use, value in cost.memory_bytes.items() if use != "all")
    assert not (tmp_path / "run").exists()


def test_operations_are_those_that_torch_counts(tiny, clip_folder, tmp_path):
    """Forward and backward of one full step, as torch's counter sees them; the inputs need no gradient."""
    settings = config_of(tiny("wan"), clip_folder, tmp_path / "run", method="full", data={"batch": 1})
    backbone = finetune._backbone(settings, CPU)
    network = finetune.with_trained(backbone, settings)["transformer"]
    noisy = torch.zeros(1, network.config.in_channels, 3, 4, 6)
    # torch counts plain products only, not those inside its fused attention
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(
            hidden_states=noisy, timestep=torch.ones(1), encoder_hidden_states=torch.zeros(1, 24, 32)
        ).sample.sum().backward()
    assert budget(settings).flops_a_step == pytest.approx(counter.get_total_flops(), rel=0.08)


@pytest.mark.parametrize("family", ["wan", "wan-clip", "cogvideox-packed", "cogvideox-mask", "vace"])
def test_the_cache_takes_the_bytes_that_were_foretold(family, tiny, clip_folder, tmp_path):
    settings = config_of(tiny(family), clip_folder, tmp_path / "run", cache={"variants": 2})
    backbone = finetune._backbone(settings, CPU)
    course = finetune.open_course(settings, backbone.info.strides, backbone.info.native)
    Cache(settings.cache, backbone, settings.conditions, seed=0, folder=tmp_path / "cache").fill(course.data, World())
    files = (tmp_path / "cache").rglob("*.safetensors")
    kept = sum(tensor.nbytes for path in files for tensor in load_file(path).values())
    assert budget(settings).cache_bytes == kept
    assert budget(replace(settings, cache=None)).cache_bytes == 0


def test_a_student_costs_its_teacher_s_passes_and_weights(tiny, clip_folder, tmp_path):
    settings = config_of(tiny("wan"), clip_folder, tmp_path / "run", method="full")
    student = {"method": "distill", "student": {"substeps": 2, "guidance": 4.0}}
    data = {
        key: value for key, value in plain(settings).items() if key in {"output", "model", "device", "data", "loop"}
    }
    distilled = distill.load_config(data | student, "test.yaml")
    alone, both = budget(settings), budget(distilled)
    assert both.flops_a_step == pytest.approx(alone.flops_a_step * (3 + 2 * 2) / 3)
    unguided = replace(distilled, student=replace(distilled.student, guidance=1.0))
    assert budget(unguided).flops_a_step == pytest.approx(alone.flops_a_step * (3 + 2) / 3)
    half = replace(distilled, student=replace(distilled.student, steps=7, own_share=0.5))  # (4 + 3) / 2 forwards before
    assert budget(half).flops_a_step == pytest.approx(alone.flops_a_step * (3 + 3.5) / 3)
    by_itself = replace(distilled, student=replace(distilled.student, own_share=1.0))
    assert "teacher" not in budget(by_itself).memory_bytes
    assert both.memory_bytes["teacher"] == both.memory_bytes["weights"] == alone.memory_bytes["weights"]
    assert both.trained_parameters == alone.trained_parameters


def test_public_models_need_no_weights(clip_folder, tmp_path):
    more = {"data": {"batch": 8, "frames": [9], "sizes": [[832, 480]]}, "lora": {"rank": 256}}
    alone, eight = (budget(config_of("anisora-v1", clip_folder, tmp_path, **more), devices=n) for n in (1, 8))
    assert alone.trained_parameters == 264_241_152
    assert eight.memory_bytes["weights"] == alone.memory_bytes["weights"] // 8
    assert eight.flops_a_step == alone.flops_a_step
    with pytest.raises(UnknownModel):
        budget(config_of("anisora-v9", clip_folder, tmp_path))
    with pytest.raises(BadConfig, match="a multiple of 3"):
        budget(config_of("anisora-v1", clip_folder, tmp_path, **more), devices=3)
