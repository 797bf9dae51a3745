"""Rows, events and sheets of a run: the same steps in all of them, each once, whatever stopped it; and no number changed."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from finetune_runs import config_of, killed, same_run
from PIL import Image
from torch import nn

import anisora
from anisora.errors import BadConfig, BadInput
from anisora.generation.request import resolve
from anisora.generation.runner import make_shot
from anisora.records import Guide, Request
from anisora.training import finetune, sheets
from anisora.training.log import RunLog
from anisora.training.loop import LoopSettings, Task, averaged_weights, train

STEPS = LoopSettings(steps=40, warmup_steps=5, log_every_steps=1, learning_rate=0.05)


class Crash(Exception):
    """Ends a run as a power cut does: rows after its checkpoint stay."""


def regression(crash_at=None, seen=None):
    torch.manual_seed(0)
    module = nn.Linear(3, 2)

    def loss(step, generator):
        if step == crash_at:
            raise Crash
        x = torch.randn(8, 3, generator=generator)
        return (module(x) - x[:, :2]).square().mean(), {"word": "left out of the events"}

    def sheet():
        if seen is not None:
            seen.append(module.weight.detach().clone())
        return Image.new("RGB", (4, 2), (int(255 * module.weight[0, 0].abs().clamp(max=1)), 0, 0))

    return Task(name="regression", modules={"map": module}, loss=loss, sheet=sheet, sheet_every_steps=10)


def events_of(run):
    """({tag: [(step, value)]}, [steps of sheets]) as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, [e.step for e in events.Images("samples")]


def test_a_run_that_crashed_and_went_on_has_every_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    assert not train(regression(), STEPS, tmp_path, max_minutes=0)  # saved after one step
    time.sleep(1.1)  # event files are read in the order of their names, which tell seconds
    with pytest.raises(Crash):
        train(regression(crash_at=25), STEPS, tmp_path)  # logged up to 24, nothing saved
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(25))
    time.sleep(1.1)
    assert train(regression(), STEPS, tmp_path)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(40))
    scalars, pictures = events_of(tmp_path)
    assert scalars.keys() == {"train/loss", "train/grad_norm", "train/seconds"}
    assert scalars["train/loss"] == [(row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows]
    assert pictures == [0, 9, 19, 29, 39]
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"0.png", "10.png", "20.png", "30.png", "40.png"}


def rows_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").open()]


def test_sheets_show_the_averaged_weights_and_change_nothing(tmp_path):
    seen: list[torch.Tensor] = []
    task = regression(seen=seen)
    assert train(task, STEPS, tmp_path / "with")
    assert train(replace(regression(), sheet=None), STEPS, tmp_path / "without")
    assert torch.equal(seen[-1], averaged_weights(tmp_path / "with")["map.weight"])
    assert not torch.equal(seen[-1], task.modules["map"].weight)
    with_, without = averaged_weights(tmp_path / "with"), averaged_weights(tmp_path / "without")
    assert all(torch.equal(with_[name], without[name]) for name in with_)


def test_without_the_package_a_run_says_so_and_logs_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, 0)
    log.row({"step": 0, "loss": 1.0})
    log.flush()
    log.close()
    assert "anisora[tensorboard]" in capsys.readouterr().err
    assert rows_of(tmp_path) == [{"step": 0, "loss": 1.0}]
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_fine_tuning_draws_what_its_export_makes(method, tiny, clip_folder, tmp_path):
    plain = config_of(tiny("wan"), clip_folder, tmp_path / "plain", method=method, loop={"steps": 4})
    shown = replace(plain, output=tmp_path / "shown", samples=sheets.SampleSettings(every_steps=2, clips=2, frames=3))
    finetune.main(plain)
    cut = replace(shown, loop=replace(shown.loop, save_every_minutes=0.0))
    killed(cut.output, cut, 2)
    exported = finetune.main(cut)
    same_run(plain.output, cut.output)
    assert {path.name for path in (cut.output / "samples").glob("*.png")} == {"0.png", "2.png", "4.png"}
    pipeline = anisora.AniSoraWanPipeline.from_pretrained(exported if method == "full" else plain.model)
    if method == "lora":
        from anisora.models.lora import load_lora

        load_lora(pipeline, exported)
    guide = Guide(str(cut.output / "samples" / "guides" / "0.png"), 0)
    request = Request(prompt="clip number 0 drifts", guides=(guide,), size=(48, 32), frames=9, fps=Fraction(8))
    made = make_shot(resolve(request, pipeline.checkpoint, ""), pipeline)[0].frames_THWC
    drawn = np.asarray(Image.open(cut.output / "samples" / "4.png"))[4 : 4 + 32, 4 : 4 + 48]
    assert np.abs(drawn.astype(int) - made[0]).max() <= 1
    last = np.asarray(Image.open(cut.output / "samples" / "4.png"))[4 : 4 + 32, 4 + 2 * 52 : 4 + 2 * 52 + 48]
    assert np.abs(last.astype(int) - made[-1]).max() <= 1


def test_sheets_of_a_request_file(tiny, clip_folder, tmp_path, picture):
    Image.fromarray(picture(3)).save(tmp_path / "girl.png")
    shots = tmp_path / "shots.yaml"
    shots.write_text("[{prompt: a girl waves, guides: [{image: girl.png, at: 0}, {image: girl.png, at: -1}]}]")
    config = config_of(tiny("cogvideox"), clip_folder, tmp_path / "run", loop={"steps": 1})
    finetune.main(replace(config, samples=sheets.SampleSettings(every_steps=5, shots=shots, frames=2)))
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == {"0.png", "1.png"}
    shots.write_text("{prompt: a girl waves, lora: [{path: x}]}")
    with pytest.raises(BadConfig, match="bring a LoRA"):
        finetune.main(replace(config, samples=sheets.SampleSettings(every_steps=5, shots=shots)))
    shots.write_text("{prompt: a girl waves, guides: [{image: gone.png, at: 0}]}")
    with pytest.raises(BadInput, match=r"gone\.png"):
        finetune.main(replace(config, samples=sheets.SampleSettings(every_steps=5, shots=shots)))
