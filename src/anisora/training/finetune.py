"""Fine-tuning a checkpoint of any family: all of its networks (`method: full`) or low-rank adapters on them (`lora`).

The catalog loads the checkpoint, conditioning makes what the network is given, the checkpoint's own scheduler says what it
predicts, and the loop steps. What comes out is a diffusers folder or a LoRA file that diffusers loads.

RUN/run.json, checkpoints/STEP/              see `training.loop`; run.json also names the clips by a hash
RUN/log.jsonl, tensorboard/, samples/        see `training.log`
RUN/cache/                                   see `training.cache`, where it is asked for
RUN/unusable.jsonl                           clips that could not be decoded
RUN/export/                                  a diffusers folder, or pytorch_lora_weights.safetensors
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from anisora import runtime, settings
from anisora.conditioning.encode import Conditions
from anisora.errors import BadConfig
from anisora.files import atomic_folder
from anisora.geometry import Strides
from anisora.media.frames import to_float_CTHW
from anisora.models.checkpoint import Native
from anisora.settings import plain, setting
from anisora.training import checkpoint
from anisora.training.adapter import LoraSettings, add_lora, begin_with, read_start, save_lora
from anisora.training.backbone import Backbone, load_backbone
from anisora.training.cache import Cache, CacheSettings, stacked
from anisora.training.data import Clip, DataSettings, Loader, tokens_of
from anisora.training.examples import ConditionSettings, plan_for
from anisora.training.loop import LoopSettings, Task, load_averaged, locked, train
from anisora.training.objectives import WEIGHTINGS, draw_t, like, share_below
from anisora.training.pairs import check_used
from anisora.training.parallel import World, join, leave, shard, split_tokens
from anisora.training.presets import say_size
from anisora.training.record import begin
from anisora.training.sheets import SampleSettings, sheet_maker
from anisora.training.stages import Course, Stage, StageSettings, open_stages, resolve

#: fields that may differ when a run goes on: they change no number, or only how long it goes on
MAY_CHANGE = frozenset(
    {
        *("output", "device", "context_parallel"),
        *("loop.steps", "epochs", "loop.save_every_minutes", "loop.log_every_steps"),
        # where the clips lie; which they are is `clips.sha256`
        *("data.workers", "data.videos", "data.pairs", "data.shards", "data.images", "data.mixture"),
        "cache.folder",
        *("samples", *(f"samples.{name}" for name in ("every_steps", "shots", "clips", "frames"))),
    }
)


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Which times are trained on; what is predicted is the checkpoint's to say."""

    shift: float | None = setting(
        None, "how far times lean towards noise; default: the checkpoint's own shift, or none"
    )
    density: Literal["uniform", "logit_normal"] = setting("uniform", "of times before the shift")
    weighting: Literal["none", "bell", "cosmap", "min_snr"] = setting("none", "more weight on some times")


@dataclass(frozen=True, kw_only=True)
class FineTuneLoop(LoopSettings):
    """The loop's settings, with defaults for weights that know their work already."""

    steps: int = 1000
    learning_rate: float = 1e-4
    warmup_steps: int = 50
    decay_frac: float = 0.0
    ema_decay: float = 0.99


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """A fine-tuning run; see configs/quickstart.yaml."""

    output: Path
    method: Literal["lora", "full"]
    model: str = setting("bundled", "checkpoint: a name or a folder")
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    conditions: ConditionSettings = field(default_factory=ConditionSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    loop: FineTuneLoop = field(default_factory=FineTuneLoop)
    samples: SampleSettings = field(default_factory=SampleSettings)
    cache: CacheSettings | None = setting(None, "encode clips and captions once, before training; default: online")
    stages: dict[str, StageSettings] = field(default_factory=dict)
    epochs: float | None = setting(None, "how often every clip is shown, in place of loop.steps; need not be whole")
    parts: tuple[str, ...] = setting(
        (), "of transformer, transformer_2, mask_projection: what learns; default: all there is"
    )
    mask_projection: bool = setting(False, "give a CogVideoX checkpoint the paper's mask projection")
    context_parallel: int = setting(
        1, "processes that share the tokens of each clip: for clips too long for one device"
    )
    micro_batch: int | None = setting(None, "clips that are in memory at once on a device; default: all of its batch")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "of the arithmetic; auto: bfloat16 on accelerators"
    )
    gradient_checkpointing: bool = setting(False, "compute activations twice to hold fewer of them")
    device: str | None = None
    export_dtype: Literal["float32", "bfloat16", "float16"] = "float32"


def load_config(data: dict[str, Any], where: str) -> FineTuneConfig:
    """The config of plain data. Raises BadConfig for unknown keys, naming the nearest, and values that mean nothing."""
    config = settings.read(FineTuneConfig, data, where=where)
    checks = [
        (config.loop.steps >= 1, "loop.steps", config.loop.steps, "1 or more"),
        (config.epochs is None or config.epochs > 0, "epochs", config.epochs, "above 0"),
        (config.context_parallel >= 1, "context_parallel", config.context_parallel, "1 or more"),
        (config.micro_batch is None or config.micro_batch >= 1, "micro_batch", config.micro_batch, "1 or more"),
        (config.method == "full" or not config.mask_projection, "mask_projection", "with method lora", "method: full"),
        (config.method == "lora" or config.lora.start is None, "lora.start", "with method full", "method: lora"),
        (config.lora.rank >= 1, "lora.rank", config.lora.rank, "1 or more"),
        (config.samples.every_steps >= 0, "samples.every_steps", config.samples.every_steps, "0 or more"),
        (config.cache is None or config.cache.variants >= 1, "cache.variants", config.cache, "1 or more"),
        (config.samples.clips >= 1, "samples.clips", config.samples.clips, "1 or more"),
        (config.samples.frames >= 1, "samples.frames", config.samples.frames, "1 or more"),
        (config.objective.shift is None or config.objective.shift > 0, "objective.shift", config.objective.shift, "above 0"),
        (config.loop.muon_learning_rate == 0, "loop.muon_learning_rate", config.loop.muon_learning_rate, "0: AdamW alone"),
    ]  # fmt: skip
    checks += [
        (0 <= value <= 1, f"conditions.{name}", value, "0 to 1")
        for name, value in plain(config.conditions).items()
        if name != "k_max"
    ]
    for good, name, got, expected in checks:
        if not good:
            raise BadConfig(f"{where}: {name}", got=got, expected=expected)
    return config


def main(config: FineTuneConfig, *, max_minutes: float = math.inf) -> Path | None:
    """Trains and returns the export, or None when time is up; run again to go on."""
    return run(
        config.output,
        join(runtime.own_device(config.device), config.context_parallel),
        lambda world: _train(config, world, max_minutes),
        lambda: export(config, config.output),
    )


def run(output: Path, world: World, train_in: Callable[[World], bool], export_it: Callable[[], object]) -> Path | None:
    """Trains in a world that has been joined, exports when that is done, and leaves; None when something is left to do."""
    try:
        with locked(output, world):
            if not train_in(world):
                return None
            if world.is_first:
                export_it()
            world.wait()
            return output / "export"
    finally:
        leave()


def _train(config: FineTuneConfig, world: World, max_minutes: float) -> bool:
    out = config.output
    backbone = _backbone(config, world.device)
    _check_capabilities(config, backbone)
    trained = _prepared(backbone, config, world)
    course = open_course(config, backbone.info.strides, backbone.info.native, world.shares)
    _check_context(config, backbone, course)
    if world.is_first:
        begin({**plain(config), "clips": course.described()}, out, MAY_CHANGE)
        if config.method == "lora":
            say_size(trained, config.lora.rank)
    split_tokens(backbone.networks.values(), world)
    shard(backbone.networks.values(), world)
    cache = _filled(config, backbone, course, world) if config.cache else None
    task = fine_tune_task(backbone, trained, course, config, world, cache)
    if config.samples.every_steps:
        in_bfloat16 = _in_bfloat16(config, world.device)
        make = sheet_maker(config.samples, backbone, course.data[0], out, world, in_bfloat16=in_bfloat16)
        task = replace(task, sheet=make, sheet_every_steps=config.samples.every_steps)
    loop = replace(config.loop, steps=course.steps)
    return train(task, loop, out, seed=config.seed, max_minutes=max_minutes, world=world)


def _filled(config: FineTuneConfig, backbone: Backbone, course: Course, world: World) -> Cache:
    """The cache with everything in it that the run will read; what it cost is told."""
    assert config.cache
    cache = Cache(config.cache, backbone, config.conditions, seed=config.seed, folder=config.output / "cache")
    cost = cache.fill(course.data, world)
    if world.is_first:
        _say(f"cache: {cost}")
    return cache


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, markup=False)


def _backbone(config: FineTuneConfig, place: torch.device) -> Backbone:
    low = torch.bfloat16 if _in_bfloat16(config, place) else torch.float32
    return load_backbone(
        config.model,
        device=place,
        frozen_dtype=low,
        trained_dtype=torch.float32 if config.method == "full" else low,
        mask_projection=config.mask_projection,
    )


def _in_bfloat16(config: FineTuneConfig, device: torch.device) -> bool:
    wanted = None if config.precision == "auto" else config.precision
    return runtime.pick_dtype(device, wanted) == torch.bfloat16


def _prepared(backbone: Backbone, config: FineTuneConfig, world: World) -> dict[str, nn.Module]:
    """The parts that learn as the first step finds them; a run that goes on has its weights in its checkpoint."""
    if config.lora.start is None or checkpoint.newest(config.output) is not None:
        return with_trained(backbone, config)
    networks = config.parts or [name for name in backbone.networks if name != "mask_projection"]
    start = read_start(backbone.pipeline, config.lora.start, networks)
    trained = with_trained(backbone, config)
    said = begin_with(trained, start, config.lora)
    if world.is_first:
        _say(f"lora.start: {said}")
    return trained


def with_trained(backbone: Backbone, config: FineTuneConfig) -> dict[str, nn.Module]:
    """The parts that learn, made ready to: all weights, or fresh adapters. Raises BadConfig for parts that are not there."""
    present = [name for name in backbone.networks if config.method == "full" or name != "mask_projection"]
    if unknown := [name for name in config.parts if name not in present]:
        raise BadConfig("parts", got=", ".join(unknown), expected=f"of {', '.join(present)} for method {config.method}")
    trained = {name: backbone.networks[name] for name in config.parts or present}
    if config.method == "lora":
        add_lora(trained, config.lora, seed=config.seed)
    else:
        for network in trained.values():
            network.requires_grad_(True)
    for name, network in backbone.networks.items():
        if config.gradient_checkpointing and name != "mask_projection":
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        network.train()
    return trained


def _check_capabilities(config: FineTuneConfig, backbone: Backbone) -> None:
    info = backbone.info
    if config.conditions.motion_area_prob > 0 and info.family == "cogvideox":
        raise BadConfig(
            "motion areas on a network that reads no masks",
            got=f"conditions.motion_area_prob {config.conditions.motion_area_prob}",
            expected="0 for this checkpoint",
            hint="mask_projection: true",
        )
    predicts_v = backbone.pipeline.scheduler.config.get("prediction_type") == "v_prediction"
    if predicts_v and config.objective.shift not in (None, 1.0):
        raise BadConfig("objective.shift on a checkpoint that predicts v", got=config.objective.shift, expected="none")


def _check_context(config: FineTuneConfig, backbone: Backbone, course: Course) -> None:
    """Raises BadConfig where a network's heads, or a clip's tokens, cannot be shared out evenly."""
    parts = config.context_parallel
    if parts == 1:
        return
    networks: dict[str, Any] = {**backbone.networks}
    for name, network in networks.items():
        if getattr(network, "_cp_plan", None) is None:
            raise BadConfig(
                f"context_parallel: diffusers cannot split the tokens of {name}",
                got=f"{type(network).__name__}, family {backbone.info.family}",
                expected="a Wan image-to-video checkpoint",
            )
        if (heads := network.config.num_attention_heads) % parts:
            raise BadConfig(f"context_parallel: {name} has {heads} heads", got=parts, expected=f"a divisor of {heads}")
    for bucket in (bucket for data in course.data for bucket in data.buckets):
        if (tokens := tokens_of(backbone.info.strides, bucket.size_px, bucket.num_frames)) % parts:
            raise BadConfig(
                f"context_parallel: {bucket} is {tokens} tokens", got=parts, expected=f"a divisor of {tokens}"
            )


def open_course(config: FineTuneConfig, strides: Strides, native: Native, world_size: int = 1) -> Course:
    """The run's stages, or its one stage where it names none, with their clips. Raises what opening the clips raises."""
    alone = Stage(name="", data=config.data, steps=None if config.epochs else config.loop.steps, epochs=config.epochs)
    stages = resolve(config.stages, config.data) or [alone]
    check_used([stage.data for stage in stages], config.conditions.motion_area_prob)
    return open_stages(stages, strides, native, seed=config.seed, cache=config.output / "corpus", world_size=world_size)


# -- the task ----------------------------------------------------------------------------------------------------------


def fine_tune_task(
    backbone: Backbone,
    trained: dict[str, nn.Module],
    course: Course,
    config: FineTuneConfig,
    world: World,
    cache: Cache | None = None,
) -> Task:
    """The checkpoint's objective on clips under drawn conditions; whole batches come in parts that fit in memory.

    All draws of a sample follow from a seed of its own, so that how a batch is split over parts and processes changes
    no number of it.
    """
    experts = [name for name in trained if name != "mask_projection"] or list(backbone.pipeline.networks)
    shift = config.objective.shift or _own_shift(backbone)
    in_bfloat16 = _in_bfloat16(config, backbone.device)
    loaders = [
        Loader(
            data,
            seed=config.seed + number,
            world=world,
            workers=stage.data.workers,
            folder=config.output,
            read_encoded=cache.reader(data) if cache else None,
        )
        for number, (stage, data) in enumerate(zip(course.stages, course.data, strict=True))
    ]

    def loss(step: int, generator: torch.Generator) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        number, within = course.at(step)
        bucket = loaders[number].bucket(within)
        size = bucket.batch
        expert, between = _draw_expert(backbone, experts, shift, config.objective.density, generator)
        t_B = draw_t(size, shift, generator, density=config.objective.density, between=between)
        seeds = torch.randint(2**62, (size,), generator=generator).tolist()
        clips, wait_s = loaders[number].batch(within)
        tokens = size * tokens_of(backbone.info.strides, bucket.size_px, bucket.num_frames)
        figures: dict[str, Any] = {"clips": size, "tokens": tokens, "wait_s": round(wait_s, 4)}
        if config.stages:
            figures["stage"] = course.stages[number].name
        first = world.share * len(clips)
        part = config.micro_batch or len(clips)
        for start in range(0, len(clips), part):
            here = slice(start, start + part)
            there = slice(first + start, first + min(start + part, len(clips)))
            error_B = _errors(backbone, expert, clips[here], t_B[there], seeds[there], config, in_bfloat16)
            yield error_B.sum() / len(clips), figures

    def rate(step: int) -> float:
        return course.stages[course.at(step)[0]].learning_rate_scale

    return Task(name=config.method, modules=trained, loss=loss, rate=rate)


def _own_shift(backbone: Backbone) -> float:
    """The shift that the checkpoint is sampled with; 1, which is none, for v-prediction."""
    scheduler = backbone.pipeline.scheduler.config
    if scheduler.get("prediction_type") == "v_prediction":
        return 1.0
    return backbone.info.recipe.shift or scheduler.get("flow_shift") or scheduler.get("shift") or 1.0


def _draw_expert(
    backbone: Backbone, experts: list[str], shift: float, density: str, generator: torch.Generator
) -> tuple[str, tuple[float, float]]:
    """The network of a step and the times it works at: of two experts each as often as its times are drawn."""
    boundary = backbone.boundary
    if boundary is None:
        return experts[0], (0.0, 1.0)
    times = {"transformer": (boundary, 1.0), "transformer_2": (0.0, boundary)}
    is_low = torch.rand((), generator=generator) < share_below(boundary, shift, density)
    name = ("transformer_2" if is_low else "transformer") if len(experts) == 2 else experts[0]
    return name, times[name]


def _errors(
    backbone: Backbone,
    expert: str,
    clips: list[Clip],
    t_B: Tensor,
    seeds: list[int],
    config: FineTuneConfig,
    in_bfloat16: bool,
) -> Tensor:
    """The weighted squared error of each sample, [B]."""
    objective, device = backbone.objective, backbone.device
    rngs = [np.random.default_rng(seed) for seed in seeds]
    clean, conditions = encoded_clips(backbone, clips, rngs, config.conditions)
    captions = [
        "" if rng.random() < config.conditions.text_dropout else clip.caption
        for clip, rng in zip(clips, rngs, strict=True)
    ]
    text = backbone.text(captions)
    noise = torch.stack([torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    noise, t_B = noise.to(device), t_B.to(device)
    alpha, sigma = objective.mix(like(t_B, clean))
    autocast = torch.autocast(device.type, torch.bfloat16) if in_bfloat16 else nullcontext()
    with autocast:
        predicted = backbone.predict(expert, alpha * clean + sigma * noise, t_B, conditions, text)
    error_B = (predicted - objective.target(clean, noise, alpha, sigma)).square().flatten(1).mean(1)
    weight_B = WEIGHTINGS[config.objective.weighting](t_B, *objective.mix(t_B))
    return error_B * objective.weight(t_B) * weight_B


def encoded_clips(
    backbone: Backbone, clips: list[Clip], rngs: list[np.random.Generator], settings: ConditionSettings
) -> tuple[Tensor, Conditions]:
    """Clean latents and conditions: encoded now under drawn guides, or as the cache holds them."""
    encoded = [clip.encoded for clip in clips if clip.encoded is not None]
    if encoded:
        return stacked(encoded, backbone.device)
    videos = [to_float_CTHW(clip.video_THWC) for clip in clips if clip.video_THWC is not None]
    video_BCTHW = torch.stack(videos).to(backbone.device)
    plans = [
        plan_for(video_TCHW, settings, rng, backbone.info, clip.area_HW)
        for video_TCHW, rng, clip in zip(video_BCTHW.transpose(1, 2), rngs, clips, strict=True)
    ]
    return backbone.target(video_BCTHW, plans), backbone.conditions(plans)


# -- what comes out ----------------------------------------------------------------------------------------------------


def export(config: FineTuneConfig, out: Path) -> Path:
    """Writes the averaged weights of the newest checkpoint to `out/export`, whole or not at all, and returns that folder."""
    backbone = _backbone(replace(config, precision="float32"), torch.device("cpu"))
    trained = with_trained(backbone, config)
    load_averaged(out, trained)
    dtype = getattr(torch, config.export_dtype)
    with atomic_folder(out / "export", members=r"[\w.]+") as folder:
        if config.method == "lora":
            save_lora(backbone.pipeline, list(trained), folder, dtype)
        else:
            _save_whole(backbone, folder, dtype)
    return out / "export"


def _save_whole(backbone: Backbone, folder: Path, dtype: torch.dtype) -> None:
    pipeline = backbone.pipeline
    for part in (*pipeline.components.values(), pipeline.mask_projection, pipeline.guide_decoder):
        if isinstance(part, nn.Module):
            part.to(dtype)
    pipeline.save_pretrained(folder)
