"""What a fine-tuning run or a distillation costs before it is launched: steps, tokens, operations, memory, disk and time.

Arithmetic on configs and on the clips' headers; no weights are read. Operations are those of the denoising network
(`generation.planner` counts a pass); the VAE and the text encoder are not in it. Memory is an estimate: its fixed part is
exact to the tensors, its activations follow Korthikanti et al. 2022 ("Reducing activation recomputation"). The cache on
disk is exact to the tensors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anisora import geometry, runtime
from anisora.errors import UnknownModel
from anisora.generation import planner
from anisora.geometry import Strides
from anisora.models import catalog
from anisora.models.checkpoint import Native, Recipe, infer, read_json
from anisora.training.adapter import matching_linears
from anisora.training.data import Bucket, tokens_of
from anisora.training.distill import DistillConfig, StudentSettings, as_full, guidance_of, has_teacher
from anisora.training.finetune import FineTuneConfig, open_course
from anisora.training.stages import Course

#: bytes a trained number holds beside what the network itself needs: gradient, two moments and the average in float32
_TRAINED_BYTES = 4 + 8 + 4


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The cost of a run on `devices`; `memory_bytes` by use, on each of them; times are at the machine's matrix ceiling.

    `cache_bytes` is what encoding ahead of training would put on the disk, 0 where clips are encoded online.
    """

    steps: int
    epochs: float
    clips: int
    too_short: int
    buckets: tuple[str, ...]
    trained_parameters: int
    parameters: int
    tokens_a_step: float
    flops_a_step: float
    devices: int
    memory_bytes: dict[str, int]
    cache_bytes: int
    measured_flops_a_second: float
    seconds_a_step: float
    hours: float


def budget(config: FineTuneConfig | DistillConfig, *, devices: int = 1) -> Budget:
    """The cost of the run that a config describes. Raises what opening its model's configs and its clips raises."""
    student = config.student if isinstance(config, DistillConfig) else None
    config = as_full(config) if isinstance(config, DistillConfig) else config
    transformer, info, parts = _described(config.model)
    network = planner.network_of(transformer, text_tokens=info["max_text_tokens"])
    network = replace(network, image_tokens=info.get("image_tokens", network.image_tokens))
    experts = [name for name in parts if name.startswith("transformer")]
    strides, native = info["strides"], info["native"]
    shares = max(1, devices // config.context_parallel)
    course = open_course(config, strides, replace(native, size=tuple(native.size)), shares)
    trained = _num_trained(config, transformer, network, experts, parts)
    shown = [
        _Shown(
            bucket=bucket,
            share=stage_steps / course.steps * share.num_batches / data.schedule.cycle_steps,
            tokens=tokens_of(strides, bucket.size_px, bucket.num_frames),
        )
        for data, stage_steps in zip(course.data, np.diff([0, *course.ends]).tolist(), strict=True)
        for bucket, share in zip(data.buckets, data.schedule.shares, strict=True)
    ]
    forward = {s.tokens: planner.forward_flops(network, s.tokens) for s in shown}
    passes = passes_of(config) + (passes_before(student, info["recipe"], experts) if student else 0)
    flops = sum(s.share * s.bucket.batch * passes * forward[s.tokens] for s in shown)
    at_once = max(s.tokens * min(s.bucket.batch // shares, config.micro_batch or s.bucket.batch) for s in shown)
    at_once = -(-at_once // config.context_parallel)
    rate = matrix_rate(config)
    seconds = flops / devices / rate
    follows = student is not None and has_teacher(student)
    memory = _memory(config, network, parts, trained, at_once, devices, has_teacher=follows)
    return Budget(
        steps=course.steps,
        epochs=sum(
            float(stage_steps / data.epoch_steps)
            for data, stage_steps in zip(course.data, np.diff([0, *course.ends]).tolist(), strict=True)
        ),
        clips=sum(data.num_clips for data in course.data),
        too_short=sum(data.too_short for data in course.data),
        buckets=tuple(
            f"{stage.name}{': ' if stage.name else ''}{bucket}: "
            f"{len(bucket.indices)} {'stills' if bucket.is_stills else 'clips'}, {bucket.batch} a step"
            for stage, data in zip(course.stages, course.data, strict=True)
            for bucket in data.buckets
        ),
        trained_parameters=trained,
        parameters=sum(parts.values()),
        tokens_a_step=sum(s.share * s.bucket.batch * s.tokens for s in shown),
        flops_a_step=flops,
        devices=devices,
        memory_bytes=memory,
        cache_bytes=_cache_bytes(config, network, parts, strides, course, info["max_text_tokens"]),
        measured_flops_a_second=rate,
        seconds_a_step=seconds,
        hours=course.steps * seconds / 3600,
    )


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A bucket, the share of all steps that show it, and the video tokens of one of its clips."""

    bucket: Bucket
    share: float
    tokens: int


def passes_of(config: FineTuneConfig) -> int:
    """Forward passes that a step of one sample is worth: itself, the gradient of activations, that of the weights (for
    adapters it is next to nothing), and the second forward of checkpointing."""
    return 2 + (config.method == "full") + config.gradient_checkpointing


def passes_before(student: StudentSettings, recipe: Recipe, experts: list[str]) -> float:
    """Forward passes without gradient in a step of one sample, on average: the teacher's steps, twice where it is guided, or
    the student's own earlier steps."""
    is_guided = any(guidance_of(recipe, student.guidance, expert) != 1 for expert in experts)
    of_teacher = student.substeps * (1 + is_guided)
    return (1 - student.own_share) * of_teacher + student.own_share * (student.steps - 1) / 2


def matrix_rate(config: FineTuneConfig) -> float:
    """Operations a second of a large matrix product on this machine's device, in the run's precision, as measured now."""
    device = runtime.own_device(config.device)
    dtype = runtime.pick_dtype(device, None if config.precision == "auto" else config.precision)
    side = 512 if device.type == "cpu" else 8192
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        (a @ b).sum().item()
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def _described(model: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """(transformer config, what its configs tell, parameters by part) of a checkpoint that is here or known publicly."""
    try:
        info = catalog.resolve(model)
    except UnknownModel:
        if model not in planner.PUBLIC:
            raise
        config, experts, parts = planner.PUBLIC[model]
        return config, _public_facts(model, config), {**_experts(config, experts), **parts}
    config = read_json(Path(info.path) / "transformer" / "config.json")
    facts = {
        "max_text_tokens": info.max_text_tokens,
        "strides": info.strides,
        "native": info.native,
        "recipe": info.recipe,
    }
    if info.image_branch:
        facts["image_tokens"] = _image_tokens(Path(info.path))
    return config, facts, planner.params_here(Path(info.path))


def _image_tokens(folder: Path) -> int:
    """The states that the checkpoint's CLIP makes of a picture: one a patch, and one of all."""
    config = read_json(folder / "image_encoder" / "config.json")
    vision = config.get("vision_config", config)
    return (vision["image_size"] // vision["patch_size"]) ** 2 + 1


def _experts(config: Mapping[str, Any], experts: int) -> dict[str, int]:
    count = planner.num_params(planner.network_of(config))
    return {f"transformer{'_2' if n else ''}": count for n in range(experts)}


def _public_facts(model: str, config: dict[str, Any]) -> dict[str, Any]:
    stock = {"cogvideox": "CogVideoXImageToVideoPipeline", "wan": "WanImageToVideoPipeline", "vace": "WanVACEPipeline"}
    index = {"_class_name": stock[planner.network_of(config).kind]}
    facts = infer(index, config, {"block_out_channels": (1, 1, 1, 1)}, {}, masked=False)
    native = catalog.KNOWN[model].defaults.get("native")
    return facts | ({"native": Native(**native)} if native else {})


def _num_trained(
    config: FineTuneConfig,
    transformer: Mapping[str, Any],
    network: planner.Network,
    experts: list[str],
    parts: Mapping[str, int],
) -> int:
    learning = [name for name in config.parts or (*experts, "mask_projection") if name in parts]
    if config.method == "full":
        return sum(parts[name] for name in learning)
    return lora_parameters(transformer, network.kind, config.lora.rank, config.lora.targets) * len(
        [name for name in learning if name in experts]
    )


def lora_parameters(transformer: Mapping[str, Any], kind: str, rank: int, targets: tuple[str, ...]) -> int:
    """The numbers of the adapters on one network: `rank` times the sides of every matrix, counted on the stock class."""
    import diffusers

    names = {
        "wan": "WanTransformer3DModel",
        "vace": "WanVACETransformer3DModel",
        "cogvideox": "CogVideoXTransformer3DModel",
    }
    with torch.device("meta"):
        network = getattr(diffusers, names[kind]).from_config(dict(transformer))
    linears = dict(network.named_modules())
    return sum(
        rank * (linears[name].in_features + linears[name].out_features) for name in matching_linears(network, targets)
    )


def _memory(
    config: FineTuneConfig,
    network: planner.Network,
    parts: Mapping[str, int],
    trained: int,
    tokens: int,
    devices: int,
    *,
    has_teacher: bool,
) -> dict[str, int]:
    """Bytes on each device: `tokens` are those that are in memory at once there."""
    size = _low_bytes(config)
    sharded = sum(count for name, count in parts.items() if name.startswith("transformer"))
    others = sum(
        count * (4 if name == "vae" else size) for name, count in parts.items() if not name.startswith("transformer")
    )
    held = size if config.method == "lora" else 4
    inside = tokens * size * (20 * network.width + 2 * network.ffn_width)
    layers = network.num_layers + network.control_layers
    kept = tokens * size * network.width * layers + inside if config.gradient_checkpointing else inside * layers
    memory = {
        "weights": (sharded * held + (trained * 4 if config.method == "lora" else 0)) // devices,
        "gradients_optimiser_average": trained * _TRAINED_BYTES // devices,
        "text_encoder_vae_and_others": others,
        "activations_estimate": kept,
    }
    if has_teacher:
        memory["teacher"] = sharded * held // devices
    return memory | {"all": sum(memory.values())}


def _low_bytes(config: FineTuneConfig) -> int:
    """Bytes of a number in the run's precision."""
    wanted = None if config.precision == "auto" else config.precision
    return runtime.pick_dtype(runtime.pick_device(config.device), wanted).itemsize


def _cache_bytes(
    config: FineTuneConfig,
    network: planner.Network,
    parts: Mapping[str, int],
    strides: Strides,
    course: Course,
    text_tokens: int,
) -> int:
    """Bytes of the tensors that `training.cache` keeps: latents and conditions in float32, states of pictures and texts."""
    if config.cache is None:
        return 0
    has_mask = "mask_projection" in parts or config.mask_projection
    condition = network.in_channels - network.out_channels + network.control_channels + 4 * has_mask
    low = _low_bytes(config)
    variants: dict[tuple, int] = {}
    captions = {""}
    for data in course.data:
        for bucket in data.buckets:
            width, height = (side // strides.spatial for side in bucket.size_px)
            frames = geometry.latent_frames(bucket.num_frames, strides.temporal)
            padded = -(-frames // strides.patch_temporal) * strides.patch_temporal
            count = width * height * (padded * network.out_channels + frames * condition)
            size = 4 * count + low * network.image_tokens * (network.image_width or 0)
            variants |= {(clip.name, str(bucket), data.fps): size for clip in bucket.clips}
            captions |= {data.text_of(clip) for clip in bucket.clips}
    return config.cache.variants * sum(variants.values()) + len(captions) * text_tokens * network.text_width * low
