"""Few-step distillation: a student that makes in 8 steps without guidance what its teacher makes in many steps with it.

The student's sampler visits a few times only. Each of its steps is to end where the teacher's guided trajectory ends that
starts at the same point, so the student's network learns the mean velocity of that piece: progressive distillation
(Salimans and Ho 2022) in one round over fixed pieces, as PeRFlow (Yan et al. 2024) cuts them, with the teacher's guidance
folded in (Meng et al. 2023). Why this and neither consistency nor distribution matching: docs/decisions/distillation.md.

    x      noisy latents at the piece's first time, made from a training clip
    end    x after `substeps` Euler steps of the guided teacher to the piece's last time
    loss   |student's velocity at x - (end - x) / (last - first)|^2, which is 0 exactly where one step does what they did

A teacher is no better than its own steps, and nothing in that loss corrects what the student's earlier steps got wrong. So
a share of the training steps (`own_share`) starts where the student's own steps have led from noise, and aims at the clip:

    x      the student's own latents at the piece's first time, from noise, without gradient
    loss   |student's velocity at x - (x - clip) / first|^2

RUN/run.json, log.jsonl, checkpoints/STEP/, export/   as of any fine-tuning; the export is a diffusers folder whose
                                                      recipe has the few steps, guidance 1 and a first-order sampler
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from anisora import runtime, settings
from anisora.conditioning.encode import Conditions
from anisora.errors import BadConfig
from anisora.files import atomic_folder
from anisora.generation.prompts import NEGATIVE_PROMPTS
from anisora.models.checkpoint import Recipe
from anisora.models.sampler import make_scheduler
from anisora.settings import plain, setting
from anisora.training import finetune
from anisora.training.backbone import FORWARDS, Backbone
from anisora.training.data import Clip, DataSettings, Loader, tokens_of
from anisora.training.examples import ConditionSettings
from anisora.training.finetune import MAY_CHANGE, FineTuneConfig, FineTuneLoop
from anisora.training.loop import Task, load_averaged, train
from anisora.training.order import permuted
from anisora.training.parallel import World, join, shard
from anisora.training.record import begin
from anisora.training.stages import Course, StageSettings


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """The student's sampler, and how closely the teacher is followed between its steps."""

    steps: int = setting(8, "steps in which the student makes a shot")
    substeps: int = setting(4, "steps of the teacher in each of them")
    own_share: float = setting(
        0.0, "share of the training steps that start where the student's own steps lead, and aim at the clip"
    )
    guidance: float | None = setting(None, "of the teacher; default: its recipe's, for each of two experts")
    shift: float | None = setting(None, "of the student's times; default: the teacher's")


@dataclass(frozen=True, kw_only=True)
class DistillLoop(FineTuneLoop):
    """The loop's settings, for weights that change little."""

    learning_rate: float = 2e-5


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A distillation; see configs/distill.yaml."""

    output: Path
    method: Literal["distill"]
    model: str = setting("bundled", "the teacher, and what the student starts as: a name or a folder")
    seed: int = 0
    student: StudentSettings = field(default_factory=StudentSettings)
    data: DataSettings = field(default_factory=DataSettings)
    conditions: ConditionSettings = field(default_factory=lambda: ConditionSettings(text_dropout=0.0))
    loop: DistillLoop = field(default_factory=DistillLoop)
    stages: dict[str, StageSettings] = field(default_factory=dict)
    epochs: float | None = setting(None, "how often every clip is shown, in place of loop.steps; need not be whole")
    micro_batch: int | None = setting(None, "clips that are in memory at once on a device; default: all of its batch")
    precision: Literal["auto", "float32", "bfloat16"] = setting("auto", "of the arithmetic")
    gradient_checkpointing: bool = setting(False, "compute activations twice to hold fewer of them")
    device: str | None = None
    export_dtype: Literal["float32", "bfloat16", "float16"] = "float32"


def load_config(data: dict[str, Any], where: str) -> DistillConfig:
    """The config of plain data. Raises BadConfig for unknown keys, naming the nearest, and values that mean nothing."""
    config = settings.read(DistillConfig, data, where=where)
    student = config.student
    for good, name, got, expected in [
        (student.steps >= 1, "steps", student.steps, "1 or more"),
        (student.substeps >= 1, "substeps", student.substeps, "1 or more"),
        (0 <= student.own_share <= 1, "own_share", student.own_share, "0 to 1"),
        (student.guidance is None or student.guidance >= 1, "guidance", student.guidance, "1 or more"),
        (student.shift is None or student.shift > 0, "shift", student.shift, "above 0"),
    ]:
        if not good:
            raise BadConfig(f"{where}: student.{name}", got=got, expected=expected)
    finetune.load_config(_full_data(plain(config)), where)  # what both have in common is checked there
    return config


def as_full(config: DistillConfig) -> FineTuneConfig:
    """The fine-tuning of all weights that shares this run's model, data and stages."""
    shared = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name in _SHARED}
    return FineTuneConfig(**shared, method="full")


_SHARED = {entry.name for entry in fields(FineTuneConfig)} - {"method"}


def _full_data(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in _SHARED} | {"method": "full"}


def main(config: DistillConfig, *, max_minutes: float = math.inf) -> Path | None:
    """Trains and returns the export, or None when time is up; run again to go on."""
    return finetune.run(
        config.output,
        join(runtime.own_device(config.device)),
        lambda world: _train(config, world, max_minutes),
        lambda: export(config, config.output),
    )


def _train(config: DistillConfig, world: World, max_minutes: float) -> bool:
    full = as_full(config)
    backbone = finetune._backbone(full, world.device)
    check_can_learn(backbone, config)
    teacher = frozen_copy(backbone) if has_teacher(config.student) else {}
    trained = finetune.with_trained(backbone, full)
    course = finetune.open_course(full, backbone.info.strides, backbone.info.native, world.size)
    if world.is_first:
        begin({**plain(config), "clips": course.described()}, config.output, MAY_CHANGE)
    shard([*backbone.networks.values(), *teacher.values()], world)
    task = distill_task(backbone, teacher, trained, course, config, world)
    loop = replace(config.loop, steps=course.steps)
    return train(task, loop, config.output, seed=config.seed, max_minutes=max_minutes, world=world)


def check_can_learn(backbone: Backbone, config: DistillConfig) -> None:
    """Raises BadConfig for checkpoints that do not sample a flow, and for what `finetune` refuses."""
    kind = backbone.pipeline.scheduler.config.get("prediction_type") or "flow_prediction"
    if kind not in _SAMPLERS:
        raise BadConfig(
            "distillation of a checkpoint that does not sample a flow",
            got=f"{config.model}, which predicts {kind}",
            expected=" or ".join(_SAMPLERS),
        )
    finetune._check_capabilities(as_full(config), backbone)


def has_teacher(student: StudentSettings) -> bool:
    """Whether any training step follows the teacher, so that its weights must be at hand."""
    return student.own_share < 1


def frozen_copy(backbone: Backbone) -> dict[str, nn.Module]:
    """The networks that denoise as they are now: the teacher."""
    networks = {name: backbone.networks[name] for name in backbone.networks if name != "mask_projection"}
    return {name: copy.deepcopy(network).requires_grad_(False).eval() for name, network in networks.items()}


# -- the student's times -----------------------------------------------------------------------------------------------

#: what a checkpoint predicts -> the sampler of the student, of first order
_SAMPLERS = {"flow_prediction": "euler", "sample": "unipc"}


def student_scheduler(scheduler: Any, student: StudentSettings) -> Any:
    """The scheduler of the export: of first order, so that a step is the straight line that was learned."""
    sampler = _SAMPLERS[scheduler.config.get("prediction_type") or "flow_prediction"]
    made = make_scheduler(scheduler, sampler, student.shift)
    if sampler == "unipc":  # the line alone: no second order, no correction of the step before
        made = type(made).from_config(made.config, solver_order=1, disable_corrector=list(range(student.steps)))
    return made


def student_recipe(own: Recipe, student: StudentSettings, scheduler: Any) -> Recipe:
    """How the export is sampled by default."""
    sampler = _SAMPLERS[scheduler.config.get("prediction_type") or "flow_prediction"]
    shift = student.shift or own.shift
    return Recipe(steps=student.steps, guidance=1.0, shift=shift, sampler=sampler, boundary=own.boundary)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One step of the student: from noise level `sigmas[0]` to `sigmas[-1]`, the teacher's steps between.

    `time` in [0, 1] is what the student's network is told, as its sampler tells it.
    """

    time: float
    sigmas: tuple[float, ...]


def pieces_of(scheduler: Any, student: StudentSettings) -> list[Piece]:
    """The student's steps in their order. The teacher's lie evenly between in unshifted time, as its own sampler's do."""
    scheduler.set_timesteps(student.steps)
    sigmas = scheduler.sigmas.double().tolist()
    shift = scheduler.config.get("flow_shift") or scheduler.config.get("shift") or 1.0
    times = (scheduler.timesteps.double() / scheduler.config.num_train_timesteps).tolist()
    pieces = []
    for time, (first, last) in zip(times, pairwise(sigmas), strict=True):
        start, end = (sigma / (shift - (shift - 1) * sigma) for sigma in (first, last))
        between = np.linspace(start, end, student.substeps + 1)[1:-1].tolist()
        inner = (shift * t / (1 + (shift - 1) * t) for t in between)
        pieces.append(Piece(time=time, sigmas=(first, *inner, last)))
    return pieces


# -- the task ----------------------------------------------------------------------------------------------------------

#: velocity(noisy_BCFYX, sigma, time) of a network under its conditions
Velocity = Callable[[Tensor, float, float], Tensor]


def distill_task(
    backbone: Backbone,
    teacher: dict[str, nn.Module],
    trained: dict[str, nn.Module],
    course: Course,
    config: DistillConfig,
    world: World,
) -> Task:
    """Each optimiser step learns one piece; all of them come once in every `student.steps` steps, in shuffled order."""
    pieces = pieces_of(student_scheduler(backbone.pipeline.scheduler, config.student), config.student)
    loaders = [
        Loader(data, seed=config.seed + number, world=world, workers=stage.data.workers, folder=config.output)
        for number, (stage, data) in enumerate(zip(course.stages, course.data, strict=True))
    ]

    def loss(step: int, generator: torch.Generator) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        number, within = course.at(step)
        turn, place = divmod(step, len(pieces))
        number_of_piece = permuted(place, len(pieces), f"{config.seed}/pieces/{turn}")
        piece = pieces[number_of_piece]
        is_own = step_is_own(step, config)
        bucket = loaders[number].bucket(within)
        seeds = torch.randint(2**62, (bucket.batch,), generator=generator).tolist()
        clips, wait_s = loaders[number].batch(within)
        tokens = bucket.batch * tokens_of(backbone.info.strides, bucket.size_px, bucket.num_frames)
        figures: dict[str, Any] = {"clips": bucket.batch, "tokens": tokens, "wait_s": round(wait_s, 4)}
        figures |= {"sigma": round(piece.sigmas[0], 4)}
        if config.student.own_share:
            figures["own"] = is_own
        if config.stages:
            figures["stage"] = course.stages[number].name
        first = world.rank * len(clips)
        part = config.micro_batch or len(clips)
        for start in range(0, len(clips), part):
            own = seeds[first + start : first + min(start + part, len(clips))]
            samples = draw_samples(backbone, clips[start : start + part], own, config)
            if is_own:
                error_B = own_errors(backbone, pieces[: number_of_piece + 1], samples, config)
            else:
                error_B = piece_errors(backbone, teacher, piece, samples, config)
            yield error_B.sum() / len(clips), figures

    def rate(step: int) -> float:
        return course.stages[course.at(step)[0]].learning_rate_scale

    return Task(name="distill", modules=trained, loss=loss, rate=rate)


def step_is_own(step: int, config: DistillConfig) -> bool:
    """Whether a training step starts where the student's own steps lead; so many of every turn of the pieces, drawn anew
    each turn. A turn whose share is no whole number rounds it up or down, so that the share is kept over turns."""
    turn, place = divmod(step, config.student.steps)
    share = config.student.own_share * config.student.steps
    count = math.floor((turn + 1) * share + 1e-9) - math.floor(turn * share + 1e-9)
    return permuted(place, config.student.steps, f"{config.seed}/own/{turn}") < count


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Clips as latents, the noise drawn for each, the conditions drawn from each, and captions as text states."""

    clean_BCFYX: Tensor
    noise_BCFYX: Tensor
    conditions: Conditions
    text_BLD: Tensor

    def at(self, sigma: float) -> Tensor:
        """The clips at a noise level."""
        return (1 - sigma) * self.clean_BCFYX + sigma * self.noise_BCFYX


def draw_samples(backbone: Backbone, clips: list[Clip], seeds: list[int], config: DistillConfig) -> Samples:
    """All draws of a sample follow from its seed."""
    rngs = [np.random.default_rng(seed) for seed in seeds]
    clean, conditions = finetune.encoded_clips(backbone, clips, rngs, config.conditions)
    captions = [
        "" if rng.random() < config.conditions.text_dropout else clip.caption
        for clip, rng in zip(clips, rngs, strict=True)
    ]
    noise = [torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return Samples(
        clean_BCFYX=clean,
        noise_BCFYX=torch.stack(noise).to(clean),
        conditions=conditions,
        text_BLD=backbone.text(captions),
    )


def piece_errors(
    backbone: Backbone, teacher: dict[str, nn.Module], piece: Piece, samples: Samples, config: DistillConfig
) -> Tensor:
    """The squared error [B] of the student's velocity where a noised clip is followed by the teacher."""
    noisy = samples.at(piece.sigmas[0])
    with _autocast(backbone, config):
        with torch.no_grad():
            teach = guided(backbone, teacher, samples.conditions, samples.text_BLD, config.student.guidance)
            end = follow(teach, noisy, piece.sigmas)
        student = velocity_of(backbone, backbone.networks, samples.conditions, samples.text_BLD)
        velocity = student(noisy, piece.sigmas[0], piece.time)
    wanted = (end - noisy) / (piece.sigmas[-1] - piece.sigmas[0])
    return (velocity - wanted).square().flatten(1).mean(1)


def own_errors(backbone: Backbone, pieces: list[Piece], samples: Samples, config: DistillConfig) -> Tensor:
    """The squared error [B] of the student's velocity towards the clip, in the last of `pieces`, after its own steps through
    those before."""
    *before, last = pieces
    noisy = samples.noise_BCFYX
    with _autocast(backbone, config):
        student = velocity_of(backbone, backbone.networks, samples.conditions, samples.text_BLD)
        with torch.no_grad():
            for piece in before:
                noisy = noisy + (piece.sigmas[-1] - piece.sigmas[0]) * student(noisy, piece.sigmas[0], piece.time)
        velocity = student(noisy, last.sigmas[0], last.time)
    wanted = (noisy - samples.clean_BCFYX) / last.sigmas[0]
    return (velocity - wanted).square().flatten(1).mean(1)


def _autocast(backbone: Backbone, config: DistillConfig) -> AbstractContextManager[Any]:
    in_bfloat16 = finetune._in_bfloat16(as_full(config), backbone.device)
    return torch.autocast(backbone.device.type, torch.bfloat16) if in_bfloat16 else nullcontext()


def velocity_of(
    backbone: Backbone, networks: dict[str, nn.Module], conditions: Conditions, text_BLD: Tensor
) -> Velocity:
    """The flow's velocity as these networks see it, each at its own times, in float32."""
    forward = FORWARDS[backbone.info.family]

    def velocity(noisy: Tensor, sigma: float, time: float) -> Tensor:
        network = networks[backbone.expert(time)]
        timestep_B = backbone.objective.timestep(noisy.new_full((len(noisy),), time))
        predicted = forward(backbone, network, noisy, timestep_B, conditions, text_BLD).float()
        clean = backbone.objective.to_clean(noisy, predicted, noisy.new_tensor(1 - sigma), noisy.new_tensor(sigma))
        return (noisy - clean) / sigma

    return velocity


def guided(
    backbone: Backbone,
    teacher: dict[str, nn.Module],
    conditions: Conditions,
    text_BLD: Tensor,
    guidance: float | None,
) -> Velocity:
    """The teacher's velocity under classifier-free guidance against the checkpoint's negative prompt, as it samples."""
    info = backbone.info
    negative = NEGATIVE_PROMPTS[info.family] if info.negative_prompt is None else info.negative_prompt
    with_text = velocity_of(backbone, teacher, conditions, text_BLD)
    without = velocity_of(backbone, teacher, conditions, backbone.text([negative]).expand_as(text_BLD))

    def velocity(noisy: Tensor, sigma: float, time: float) -> Tensor:
        scale = guidance_of(info.recipe, guidance, backbone.expert(time))
        positive = with_text(noisy, sigma, time)
        if scale == 1:
            return positive
        unguided = without(noisy, sigma, time)
        return unguided + scale * (positive - unguided)

    return velocity


def guidance_of(recipe: Recipe, asked: float | None, expert: str) -> float:
    """The teacher's guidance: as asked, or as the recipe has it for an expert."""
    if asked is not None:
        return asked
    return recipe.guidance_2 if expert == "transformer_2" and recipe.guidance_2 is not None else recipe.guidance


def follow(velocity: Velocity, noisy: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Where Euler steps over the noise levels lead."""
    for here, there in pairwise(sigmas):
        noisy = noisy + (there - here) * velocity(noisy, here, here)
    return noisy


# -- what comes out ----------------------------------------------------------------------------------------------------


def export(config: DistillConfig, out: Path) -> Path:
    """Writes the averaged student of the newest checkpoint to `out/export`, whole or not at all, and returns that folder."""
    full = as_full(config)
    backbone = finetune._backbone(replace(full, precision="float32"), torch.device("cpu"))
    load_averaged(out, finetune.with_trained(backbone, full))
    make_few_step(backbone, config.student)
    with atomic_folder(out / "export", members=r"[\w.]+") as folder:
        finetune._save_whole(backbone, folder, getattr(torch, config.export_dtype))
    return out / "export"


def make_few_step(backbone: Backbone, student: StudentSettings) -> None:
    """Gives the pipeline the student's scheduler and recipe."""
    pipeline, info = backbone.pipeline, backbone.info
    scheduler = student_scheduler(pipeline.scheduler, student)
    recipe = student_recipe(info.recipe, student, pipeline.scheduler)
    pipeline.scheduler = scheduler
    pipeline.use_checkpoint(replace(info, recipe=recipe))
