"""A student of few steps: what it is taught is what its teacher does, what it learns is what its sampler does with it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from finetune_runs import CPU, losses
from test_finetune import opened, shot

from anisora.errors import BadConfig
from anisora.models.catalog import resolve
from anisora.settings import plain
from anisora.training import distill, finetune, launch
from anisora.training.distill import StudentSettings, follow, guided, pieces_of, student_scheduler, velocity_of
from anisora.training.loop import Task, train
from anisora.training.parallel import World


@pytest.fixture
def config(tiny, clip_folder, tmp_path):
    def make(family="wan", **more):
        data = {
            "output": str(tmp_path / "run"),
            "method": "distill",
            "model": str(tiny(family)),
            "device": "cpu",
            "student": {"steps": 3, "substeps": 2, "guidance": 4.0},
            "data": {"videos": str(clip_folder), "batch": 2, "workers": 1},
            "loop": {"steps": 3, "log_every_steps": 1, "learning_rate": 0.003, "warmup_steps": 1},
        }
        for key, value in more.items():
            data[key] = {**data[key], **value} if isinstance(data.get(key), dict) else value
        return distill.load_config(data, "test.yaml")

    return make


def setting_of(config):
    """(backbone, teacher, trained, the task) of a run."""
    full = distill.as_full(config)
    backbone = finetune._backbone(full, CPU)
    teacher = distill.frozen_copy(backbone)
    trained = finetune.with_trained(backbone, full)
    course = finetune.open_course(full, backbone.info.strides, backbone.info.native)
    return backbone, teacher, trained, distill.distill_task(backbone, teacher, trained, course, config, World())


def one_loss(task, step=0):
    parts = [loss for loss, _ in task.loss(step, torch.Generator().manual_seed(0))]
    return sum(parts)


def test_a_teacher_is_its_own_student_where_it_makes_one_step_without_guidance(config):
    _, _, _, task = setting_of(config(student={"substeps": 1, "guidance": 1.0}))
    assert [one_loss(task, step).item() for step in range(3)] == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("change", [{"guidance": 1.0}, {"substeps": 1}, {"steps": 6}])
def test_guidance_and_steps_are_what_there_is_to_learn(change, config):
    usual = one_loss(setting_of(config())[3]).item()
    other = one_loss(setting_of(config(student=change))[3]).item()
    assert usual > 1e-6
    assert other != pytest.approx(usual, rel=1e-3)


def test_every_piece_comes_once_in_each_turn(config):
    _, _, _, task = setting_of(config(student={"substeps": 1, "guidance": 1.0}, loop={"steps": 6}))
    seen = [next(task.loss(step, torch.Generator().manual_seed(step)))[1]["sigma"] for step in range(6)]
    assert sorted(seen[:3]) == sorted(seen[3:])
    assert len(set(seen[:3])) == 3


@pytest.mark.parametrize("family", ["wan", "wan-experts", "vace"])
def test_the_loss_falls_on_a_fixed_batch(family, config):
    settings = config(family, loop={"steps": 30})
    _, _, trained, task = setting_of(settings)
    fixed = Task(name="fixed", modules=trained, loss=lambda step, _: task.loss(0, torch.Generator().manual_seed(0)))
    train(fixed, settings.loop, settings.output)
    values = [loss for _, loss, _ in losses(settings.output)]
    assert values[-1] < 0.5 * values[0]


def test_one_step_of_the_student_comes_closer_to_the_teachers_guided_steps(config):
    settings = config(student={"steps": 1, "substeps": 4, "guidance": 4.0}, loop={"steps": 60})
    backbone, teacher, trained, task = setting_of(settings)
    (piece,) = pieces_of(student_scheduler(backbone.pipeline.scheduler, settings.student), settings.student)
    clip = finetune.open_course(distill.as_full(settings), backbone.info.strides, backbone.info.native).data[0]
    from anisora.training.data import Loader

    clips, _ = Loader(clip, seed=5, world=World(), workers=1, folder=settings.output).batch(0)
    held_out = [101, 102]

    def distance():
        with torch.no_grad():
            samples = distill.draw_samples(backbone, clips, held_out, settings)
            noisy = samples.at(piece.sigmas[0])
            wanted = follow(guided(backbone, teacher, samples.conditions, samples.text_BLD, 4.0), noisy, piece.sigmas)
            student = velocity_of(backbone, backbone.networks, samples.conditions, samples.text_BLD)
            own = student(noisy, piece.sigmas[0], piece.time)
            made = noisy + (piece.sigmas[-1] - piece.sigmas[0]) * own
            return (made - wanted).square().mean().item()

    before = distance()
    train(Task(name="distill", modules=trained, loss=task.loss), settings.loop, settings.output)
    assert distance() < 0.6 * before


def test_own_steps_are_kept_to_their_share(config):
    settings = config(student={"steps": 4, "own_share": 0.3})
    own = [distill.step_is_own(step, settings) for step in range(40)]
    assert sum(own) == 12
    assert {sum(own[turn : turn + 4]) for turn in range(0, 40, 4)} == {1, 2}
    assert not any(distill.step_is_own(step, config()) for step in range(12))


def test_a_student_starts_from_its_own_steps_and_aims_at_the_clip(config):
    """Where all pieces but the last are followed by hand, the loss is that of the last step; and it falls with training."""
    settings = config(student={"own_share": 1.0}, loop={"steps": 40})
    backbone, _, trained, task = setting_of(settings)
    pieces = pieces_of(student_scheduler(backbone.pipeline.scheduler, settings.student), settings.student)
    from anisora.training.data import Loader

    clip = finetune.open_course(distill.as_full(settings), backbone.info.strides, backbone.info.native).data[0]
    clips, _ = Loader(clip, seed=5, world=World(), workers=1, folder=settings.output).batch(0)
    samples = distill.draw_samples(backbone, clips, [101, 102], settings)
    student = velocity_of(backbone, backbone.networks, samples.conditions, samples.text_BLD)

    def missed():
        with torch.no_grad():
            state = samples.noise_BCFYX
            for piece in pieces:
                state, first = (
                    state + (piece.sigmas[-1] - piece.sigmas[0]) * student(state, piece.sigmas[0], piece.time),
                    state,
                )
            error_B = distill.own_errors(backbone, pieces, samples, settings)
            # a velocity that is off by e ends off by e * sigma
            ended = (state - samples.clean_BCFYX).square().flatten(1).mean(1) / pieces[-1].sigmas[0] ** 2
            torch.testing.assert_close(error_B, ended, rtol=1e-4, atol=1e-6)
            assert not torch.equal(first, samples.at(pieces[-1].sigmas[0]))
            return ended.mean().item()

    before = missed()
    train(Task(name="distill", modules=trained, loss=task.loss), settings.loop, settings.output)
    assert missed() < 0.6 * before


@pytest.mark.parametrize("family", ["wan", "wan-experts", "vace"])
def test_the_pieces_are_the_steps_that_generation_takes(family, config, picture):
    """The stock loop, with the export's scheduler, visits the pieces' ends and goes straight between them."""
    settings = config(family)
    backbone, *_ = setting_of(settings)
    distill.make_few_step(backbone, settings.student)
    pipeline = backbone.pipeline.to(CPU)
    pieces = pieces_of(student_scheduler(pipeline.scheduler, settings.student), settings.student)
    pipeline.set_progress_bar_config(disable=True)
    seen, states, velocities = [], [], []
    for name in ("transformer", "transformer_2"):
        if (network := backbone.networks.get(name)) is not None:
            network.register_forward_hook(lambda _network, _given, made: velocities.append(made[0]))

    def listen(_pipeline, _step, timestep, tensors):
        seen.append(float(timestep) / 1000)
        states.append(tensors["latents"].clone())
        return {}

    from anisora import Guide

    pipeline(
        "a girl", guides=[Guide(picture(1), 0)], num_frames=9, width=48, height=32, output_type="latent",
        generator=torch.Generator().manual_seed(0), callback_on_step_end=listen,
    )  # fmt: skip
    assert seen == pytest.approx([piece.time for piece in pieces])
    assert pieces[-1].sigmas[-1] == 0
    assert all(len(piece.sigmas) == settings.student.substeps + 1 for piece in pieces)
    assert all(np.diff(piece.sigmas).max() < 0 for piece in pieces)
    assert len(velocities) == settings.student.steps  # no guidance
    for before, after, velocity, piece in zip(states[:-1], states[1:], velocities[1:], pieces[1:], strict=True):
        straight = before + (piece.sigmas[-1] - piece.sigmas[0]) * velocity
        torch.testing.assert_close(after, straight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["wan", "wan-experts", "vace"])
def test_the_teacher_goes_where_generation_goes_with_guidance(family, config, picture):
    from anisora import Guide
    from anisora.conditioning.plan import plan
    from anisora.generation.prompts import NEGATIVE_PROMPTS

    settings = config(family)
    backbone, teacher, *_ = setting_of(settings)
    pipeline, info = backbone.pipeline, backbone.info
    pipeline.set_progress_bar_config(disable=True)
    shown = plan(
        num_frames=9, size_px=(48, 32), guides=[Guide(picture(1), 0)], strides=info.strides, family=info.family
    )
    conditions = backbone.conditions([shown])
    clean = backbone.codec.encode(torch.zeros(1, 3, 9, 32, 48))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    made = pipeline(
        "a girl", negative_prompt=NEGATIVE_PROMPTS[info.family], guides=[Guide(picture(1), 0)], guidance_scale=4.0,
        num_frames=9, width=48, height=32, num_inference_steps=5, latents=noise, output_type="latent",
    ).frames  # fmt: skip
    sigmas = tuple(pipeline.scheduler.sigmas.tolist())
    with torch.no_grad():
        led = follow(guided(backbone, teacher, conditions, backbone.text(["a girl"]), 4.0), noise, sigmas)
    torch.testing.assert_close(led, torch.as_tensor(made).to(led).reshape(led.shape), rtol=1e-4, atol=1e-4)


def test_run_export_and_generate(config, tmp_path, picture):
    settings = config(loop={"steps": 4}, student={"steps": 8})
    exported = distill.main(settings)
    assert exported == tmp_path / "run" / "export"
    info = resolve(exported)
    assert (info.recipe.steps, info.recipe.guidance, info.recipe.sampler) == (8, 1.0, "euler")
    assert info.recipe.shift == resolve(settings.model).recipe.shift
    student, teacher = opened(exported), opened(settings.model)
    assert student.checkpoint.recipe.steps == 8
    assert not np.array_equal(shot(student, picture), shot(teacher, picture))

    from diffusers import WanImageToVideoPipeline

    stock = WanImageToVideoPipeline.from_pretrained(exported)
    assert type(stock.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    from PIL import Image

    from anisora.serving.cli import run

    Image.fromarray(picture(1)).save(tmp_path / "first.png")
    words = ["generate", "--model", str(exported), "--prompt", "a girl", "--guide", f"{tmp_path / 'first.png'}@0"]
    assert run([*words, "--size", "48x32", "--frames", "9", "--out", str(tmp_path / "shot.mp4"), "--json"]) == 0
    facts = json.loads((tmp_path / "shot.json").read_text())
    assert facts["forwards"] == 8


def test_stopped_and_resumed_is_the_uninterrupted_run(config, tmp_path):
    from finetune_runs import same_run

    whole = config()
    distill.main(whole)
    cut = replace(whole, output=tmp_path / "cut")
    assert distill.main(cut, max_minutes=0) is None
    assert distill.main(cut) is not None
    same_run(tmp_path / "run", tmp_path / "cut")


def test_a_network_that_predicts_the_clean_sample_gets_first_order_steps(tiny):
    from diffusers import UniPCMultistepScheduler

    own = UniPCMultistepScheduler(
        prediction_type="sample", use_flow_sigmas=True, flow_shift=3.0, solver_order=2, final_sigmas_type="zero"
    )
    student = StudentSettings(steps=4, substeps=3)
    scheduler = student_scheduler(own, student)
    pieces = pieces_of(scheduler, student)
    state = start = torch.randn(1, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(4)
    clean = [torch.randn(start.shape, generator=torch.Generator().manual_seed(n)) for n in range(1, 5)]
    for timestep, predicted in zip(scheduler.timesteps, clean, strict=True):
        state = scheduler.step(predicted, timestep, state, return_dict=False)[0]
    straight = start
    for piece, predicted in zip(pieces, clean, strict=True):
        first, last = piece.sigmas[0], piece.sigmas[-1]
        straight = straight + (last - first) * (straight - predicted) / first
    torch.testing.assert_close(state, straight, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_distilled_is_refused(config, tmp_path):
    with pytest.raises(BadConfig, match="v_prediction"):
        distill.main(config("cogvideox"))
    for change in ({"steps": 0}, {"substeps": 0}, {"own_share": 1.5}, {"guidance": 0.5}, {"shift": 0.0}):
        with pytest.raises(BadConfig, match=rf"student\.{next(iter(change))}"):
            config(student=change)
    with pytest.raises(BadConfig, match="substeps"):
        distill.load_config({"output": "o", "method": "distill", "student": {"substep": 2}}, "c.yaml")


def test_the_command_knows_the_method(config, tmp_path):
    from pathlib import Path

    recipe = Path(__file__).parents[2] / "configs" / "distill.yaml"
    data = launch.read(recipe, ("data.videos=clips",))
    assert distill.load_config(data, recipe.name).student == StudentSettings(steps=8, substeps=4, own_share=1.0)
    assert plain(distill.load_config(data, recipe.name))["method"] == "distill"
    clips = f"data.videos={config().data.videos}"
    cost = launch.cost(recipe, (clips, "data.frames=[9]", "data.sizes=[[48, 32]]", "data.fps=8"))
    assert (cost.steps, cost.clips) == (400, 6)
    with pytest.raises(BadConfig, match="lora, full or distill"):
        launch.cost(recipe.with_name("bundled.yaml"))
