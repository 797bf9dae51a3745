"""Fine-tuning end to end on tiny checkpoints: exact resume, exact exports, effects where they belong, clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_runs import CPU, config_of, killed, losses, same_run
from safetensors.torch import load_file

import anisora
from anisora import Guide
from anisora.errors import BadConfig, Diverged
from anisora.models.catalog import resolve
from anisora.models.lora import load_lora
from anisora.training import finetune, launch
from anisora.training.checkpoint import newest
from anisora.training.loop import Task, load_averaged, locked, train
from anisora.training.parallel import World

RECIPE = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture
def config(tiny, clip_folder, tmp_path):
    return lambda family="wan", **more: config_of(tiny(family), clip_folder, tmp_path / "run", **more)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_killed_twice_and_resumed_is_bit_for_bit_the_uninterrupted_run(method, config, tmp_path):
    whole = config(method=method, loop={"steps": 6})
    assert finetune.main(whole) == tmp_path / "run" / "export"
    cut = replace(whole, output=tmp_path / "cut", loop=replace(whole.loop, save_every_minutes=0.0))
    for after in (2, 4):
        killed(cut.output, cut, after)
        assert not (cut.output / "export").exists()
    assert finetune.main(cut) == tmp_path / "cut" / "export"
    same_run(tmp_path / "run", tmp_path / "cut")


def test_stopped_by_time_and_resumed_likewise(config, tmp_path):
    whole = config("cogvideox")
    finetune.main(whole)
    cut = replace(whole, output=tmp_path / "cut")
    assert finetune.main(cut, max_minutes=0) is None
    assert finetune.main(cut) is not None
    same_run(tmp_path / "run", tmp_path / "cut")


FAST = {
    ("lora", "wan-clip"),
    ("lora", "vace"),
    ("lora", "wan-experts"),
    ("full", "wan-experts"),
    ("full", "cogvideox-mask"),
}
ALL = [
    pytest.param(method, family, marks=() if (method, family) in FAST else pytest.mark.slow)
    for method in ("lora", "full")
    for family in ("wan", "wan-block", "wan-clip", "wan-experts", "cogvideox", "cogvideox-packed", "cogvideox-mask", "vace")
]  # fmt: skip


@pytest.mark.parametrize(("method", "family"), ALL)
def test_every_family_trains_and_its_export_is_what_was_trained(method, family, config, picture):
    """The exported checkpoint, or the LoRA on the base, makes the video that the trained weights make."""
    settings = config(family, method=method, loop={"steps": 4})
    exported = finetune.main(settings)
    backbone = finetune._backbone(settings, CPU)
    trained = finetune.with_trained(backbone, settings)
    load_averaged(settings.output, trained)
    trained_video = shot(backbone.pipeline, picture)
    base = opened(settings.model)
    base_video = shot(base, picture)
    if method == "full":
        video = shot(opened(exported), picture)
        assert resolve(exported).family == resolve(settings.model).family
    else:
        report = load_lora(base, exported)
        assert report.unmatched == ()
        video = shot(base, picture)
        base.disable_lora()
        assert np.array_equal(shot(base, picture), base_video)  # off is the base
    np.testing.assert_allclose(video, trained_video, atol=1e-4)
    assert np.abs(video - base_video).max() > 1e-4


def opened(folder):
    pipeline = getattr(anisora, resolve(folder).pipeline_class).from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def shot(pipeline, picture):
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        "a girl",
        guides=[Guide(picture(1), 0)],
        num_frames=9,
        width=48,
        height=32,
        generator=torch.Generator().manual_seed(0),
    )
    return np.asarray(output.frames)


def test_each_expert_has_its_own_lora_and_stock_diffusers_loads_them(config):
    from diffusers import WanImageToVideoPipeline

    settings = config("wan-experts", loop={"steps": 4})
    exported = finetune.main(settings)
    first, second = (
        load_file(exported / place / "pytorch_lora_weights.safetensors") for place in ("", "transformer_2")
    )
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[key], second[key]) for key in first)
    stock = WanImageToVideoPipeline.from_pretrained(settings.model)
    stock.load_lora_weights(exported)
    stock.load_lora_weights(exported / "transformer_2", load_into_transformer_2=True, adapter_name="low")
    name = "blocks.0.attn1.to_q"
    loaded = stock.transformer_2.get_submodule(name).lora_A["low"].weight
    torch.testing.assert_close(loaded, second[f"transformer.{name}.lora_A.weight"])


def task_of(settings):
    backbone = finetune._backbone(settings, CPU)
    trained = finetune.with_trained(backbone, settings)
    course = finetune.open_course(settings, backbone.info.strides, backbone.info.native)
    return finetune.fine_tune_task(backbone, trained, course, settings, World())


def test_loss_on_a_fixed_batch_falls(config):
    settings = config(method="full", conditions={"text_dropout": 0.0}, loop={"steps": 25})
    task = task_of(settings)
    fixed = Task(
        name="fixed", modules=task.modules, loss=lambda step, generator: task.loss(0, torch.Generator().manual_seed(0))
    )
    train(fixed, settings.loop, settings.output)
    values = [loss for _, loss, _ in losses(settings.output)]
    assert values[-1] < 0.8 * values[0]


def test_parts_of_a_batch_add_up_to_the_batch(config):
    gradients, totals = [], []
    for micro_batch in (None, 1):
        task = task_of(config(method="full", micro_batch=micro_batch, data={"batch": 3}))
        total = 0.0
        for loss, _ in task.loss(0, torch.Generator().manual_seed(0)):
            loss.backward()
            total += loss.item()
        totals.append(total)
        gradients.append(task.modules["transformer"].proj_out.weight.grad)
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_experts_are_drawn_as_often_as_their_times(config):
    backbone = finetune._backbone(config("wan-experts"), CPU)
    draws = [
        finetune._draw_expert(
            backbone, ["transformer", "transformer_2"], 3.0, "uniform", torch.Generator().manual_seed(n)
        )
        for n in range(400)
    ]
    high = sum(name == "transformer" for name, _ in draws) / len(draws)
    share = 1 - 0.9 / (3 - 2 * 0.9)  # of uniform draws whose shifted time is above the boundary of 0.9
    assert abs(high - share) < 4 * (share * (1 - share) / len(draws)) ** 0.5
    assert all(between == ((0.9, 1.0) if name == "transformer" else (0.0, 0.9)) for name, between in draws)


def test_half_precision_and_checkpointing_compute_about_the_same(config):
    plain, other = (
        next(task_of(config(method=method, **more)).loss(0, torch.Generator().manual_seed(0)))[0].item()
        for method, more in (("lora", {}), ("lora", {"precision": "bfloat16", "gradient_checkpointing": True}))
    )
    assert other == pytest.approx(plain, rel=0.05)


def test_a_diverged_run_keeps_its_last_good_state(config):
    settings = config(method="full", loop={"save_every_minutes": 0.0, "steps": 6})
    good = replace(settings, loop=replace(settings.loop, steps=2))
    finetune.main(good)
    wild = replace(settings.loop, learning_rate=1e30)
    task = task_of(settings)
    with pytest.raises(Diverged, match=r"step \d.*the last good state is .*checkpoints/\d"):
        train(task, wild, settings.output)
    assert int(newest(settings.output).name) >= 2


def test_two_runs_in_one_folder_are_refused(config):
    settings = config()
    with locked(settings.output), pytest.raises(BadConfig, match="another run trains in this folder"):
        finetune.main(settings)


def test_a_refused_run_leaves_no_folder(config, tmp_path):
    with pytest.raises(BadConfig, match="parts"):
        finetune.main(config(parts=["decoder"]))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(BadConfig, match="parts"):
        finetune.main(config(parts=["decoder"]))
    assert (tmp_path / "run").exists()  # it was there before


def test_another_config_or_other_clips_are_refused_and_named(config, clip_folder, tmp_path):
    settings = config()
    assert finetune.main(settings, max_minutes=0) is None
    other = replace(settings, lora=replace(settings.lora, rank=4), seed=1)
    with pytest.raises(BadConfig, match=r"lora.rank 4 \(was 2\)|seed 1 \(was 0\)"):
        finetune.main(other)
    longer = replace(settings, loop=replace(settings.loop, steps=2))
    few = tmp_path / "few"
    few.mkdir()
    for name in ("0.mp4", "0.txt"):
        (few / name).write_bytes((clip_folder / name).read_bytes())
    for name in ("1.mp4", "1.txt"):
        (few / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(BadConfig, match=r"clips\.number 2 \(was 6\)"):
        finetune.main(replace(settings, data=replace(settings.data, videos=few)))
    assert finetune.main(longer) is not None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.learning_rat=1", "learning_rate"),
        ("lora.ranks=3", "rank"),
        ("data.video=clips", "videos"),
        ("method=loar", "try lora"),
        ("objective.density=unifrom", "uniform"),
        ("conditions.text_dropout=2", "0 to 1"),
        ("lora.targets=[to_x]", None),
    ],
)
def test_mistyped_configs_name_the_nearest(override, message, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"output: {tmp_path / 'run'}\nmethod: lora\ndata: {{videos: clips}}\n")
    if message is None:
        assert finetune.load_config(launch.read(path, (override,)), "c.yaml").lora.targets == ("to_x",)
        return
    with pytest.raises(BadConfig, match=message):
        finetune.load_config(launch.read(path, (override,)), "c.yaml")


def test_the_shipped_config_is_valid_and_fits_the_bundled_model():
    config = finetune.load_config(launch.read(RECIPE, ()), RECIPE.name)
    info = resolve(config.model)
    assert all(side % info.strides.size_multiple_px == 0 for size in config.data.sizes for side in size)
    assert all((length - 1) % info.strides.temporal == 0 for length in config.data.frames)


def test_targets_that_match_nothing_are_named(config):
    settings = config(lora={"targets": ["to_q", "to_x"]})
    with pytest.raises(BadConfig, match=r"got to_x; expected ends of .*to_k"):
        finetune.main(settings)


PLAIN = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "anisora":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import diffusers, numpy, torch
from PIL import Image

folder, picture, prompt, out = sys.argv[1:]
pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
asked = {"prompt": prompt, "width": 48, "height": 32, "num_frames": 9, "num_inference_steps": 2}
noise = torch.Generator().manual_seed(3)
made = pipeline(
    image=Image.open(picture), **asked, guidance_scale=1.0, max_sequence_length=24, generator=noise, output_type="np"
)
numpy.save(out, (made.frames[0] * 255).round().astype("uint8"))
"""


@pytest.mark.slow
def test_plain_diffusers_opens_an_export_and_makes_what_generate_makes(config, tmp_path, picture):
    """In a process that has no anisora; the tiny checkpoint's VAE is diffusers' own, as that of every public one is."""
    from PIL import Image

    from anisora.serving.cli import run

    exported = finetune.main(config(method="full"))
    still, out = tmp_path / "still.png", tmp_path / "plain.npy"
    prompt = "It drifts. aesthetic score: 5.5. motion score: 2.0. There is no text in the video."
    Image.fromarray(picture()).save(still)
    subprocess.run([sys.executable, "-c", PLAIN, str(exported), str(still), prompt, str(out)], check=True)
    words = ["generate", "--model", str(exported), "--guide", f"{still}@0", "--prompt", prompt, "--seed", "3"]
    asked = ["--size", "48x32", "--frames", "9", "--steps", "2", "--guidance", "1", "--no-composite"]
    assert run([*words, *asked, "--out", f"{tmp_path / 'ours'}/"]) == 0
    ours = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "ours").glob("*.png"))])
    assert np.array_equal(np.load(out), ours)


@pytest.mark.slow
def test_quickstart_on_real_clips_killed_twice_and_used(shared_data, tmp_path, capsys):
    """The acceptance of a new user: 30 real clips, the bundled model, two kills, resume, generate with the LoRA."""
    import csv

    from anisora.serving.cli import run

    root = shared_data / "real_clips"
    rows = [row for row in csv.DictReader((root / "manifest.csv").open()) if row["codec"] == "h264"]
    clips = tmp_path / "clips"
    clips.mkdir()
    for row in [row for row in rows if int(row["frames"]) >= 20][:30]:
        name = row["file"].replace("/", "-")
        (clips / name).symlink_to(root / row["file"])
        (clips / name).with_suffix(".txt").write_text(row["what"])
    overrides = (
        f"data.videos={clips}",
        "loop.steps=6",
        "loop.log_every_steps=1",
        "loop.save_every_minutes=0",
        "device=cpu",
    )

    def settings(name):
        return finetune.load_config(launch.read(RECIPE, (*overrides, f"output={tmp_path / name}")), "quickstart.yaml")

    finetune.main(settings("whole"))
    for after in (2, 4):
        killed(tmp_path / "cut", settings("cut"), after)
    exported = finetune.main(settings("cut"))
    same_run(tmp_path / "whole", tmp_path / "cut")
    words = ["generate", "--prompt", "a girl waves", "--lora", str(exported), "--steps", "1", "--frames", "9"]
    assert run([*words, "--out", str(tmp_path / "shot.mp4"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 9
