"""The loop's promises: resume is exact, a signal saves, a bad loss keeps the last good state."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from anisora.errors import BadConfig, Diverged, WriteFailed
from anisora.training.checkpoint import resume
from anisora.training.loop import (
    LoopSettings,
    Task,
    averaged_weights,
    build_optimisers,
    learning_rate_factor,
    load_averaged,
    train,
)
from anisora.training.parallel import World


def regression(poison_at=None, kill_at=None):
    """A linear map learnt from random pairs; may turn to NaN, or send itself SIGTERM, at a step."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2)

    def loss(step, generator):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(8, 3, generator=generator)
        error = (module(x) - x[:, :2]).square().mean()
        return error * (float("nan") if step == poison_at else 1), {}

    return Task(
        name="regression",
        modules={"map": module},
        loss=loss,
        samples_per_step=8,
        matrices=lambda name: "weight" in name,
    )


SETTINGS = LoopSettings(steps=40, warmup_steps=5, log_every_steps=1, learning_rate=0.05)


@pytest.mark.parametrize("muon_learning_rate", [0.0, 0.05])
def test_stop_and_resume_is_bit_for_bit_the_uninterrupted_run(tmp_path, muon_learning_rate):
    settings = replace(SETTINGS, muon_learning_rate=muon_learning_rate)
    assert train(regression(), settings, tmp_path / "whole")
    assert not train(regression(kill_at=17), settings, tmp_path / "cut")
    assert train(regression(), settings, tmp_path / "cut")
    whole, cut = averaged_weights(tmp_path / "whole"), averaged_weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)

    def losses(run):
        return [(row["step"], row["loss"]) for row in map(json.loads, (tmp_path / run / "log.jsonl").open())]

    assert losses("whole") == losses("cut")
    assert [step for step, _ in losses("cut")] == list(range(40))


def test_muon_steps_the_matrices_alone():
    """A first Muon step is as large in every direction of a matrix (its singular values are equal); AdamW's is not."""
    settings = replace(SETTINGS, muon_learning_rate=0.05, weight_decay=0.0)
    task = regression()
    module = task.modules["map"]
    before = module.weight.detach().clone()
    optimisers = build_optimisers({f"map.{name}": p for name, p in module.named_parameters()}, task, settings)
    assert [type(optimiser).__name__ for optimiser in optimisers] == ["Muon", "AdamW"]
    task.loss(0, torch.Generator().manual_seed(0))[0].backward()
    for optimiser in optimisers:
        optimiser.step()
    sizes = torch.linalg.svdvals(module.weight.detach() - before)
    assert sizes.min() > 0.5 * sizes.max()


def test_time_out_saves_and_says_unfinished(tmp_path):
    assert train(regression(), SETTINGS, tmp_path, max_minutes=0) is False
    assert (tmp_path / "checkpoints" / "1" / ".metadata").exists()


def test_loss_falls(tmp_path):
    train(regression(), SETTINGS, tmp_path)
    rows = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").open()]
    assert sum(rows[-5:]) < 0.5 * sum(rows[:5])


def test_nan_stops_and_keeps_the_last_good_state(tmp_path):
    train(regression(kill_at=9), SETTINGS, tmp_path)
    with pytest.raises(Diverged, match="step 15"):
        train(regression(poison_at=15), SETTINGS, tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["10"]
    assert train(regression(), SETTINGS, tmp_path)


def test_a_half_written_checkpoint_is_not_resumed_from(tmp_path):
    train(regression(kill_at=9), SETTINGS, tmp_path)
    (tmp_path / "checkpoints" / "30.partial").mkdir()
    assert train(regression(), SETTINGS, tmp_path)


def test_another_model_in_the_folder_is_refused(tmp_path):
    train(regression(kill_at=9), SETTINGS, tmp_path)
    other = Task(name="other", modules={"net": nn.Linear(3, 2)}, loss=regression().loss, samples_per_step=8)
    with pytest.raises(BadConfig, match="other tensors"):
        train(other, SETTINGS, tmp_path)


def test_loading_averages(tmp_path):
    train(regression(), SETTINGS, tmp_path)
    module = nn.Linear(3, 2)
    load_averaged(tmp_path, {"map": module})
    assert torch.equal(module.weight, averaged_weights(tmp_path)["map.weight"])
    with pytest.raises(BadConfig, match="does not fit"):
        load_averaged(tmp_path, {"elsewhere": module})


def test_learning_rate_rises_stays_and_falls():
    rates = [learning_rate_factor(step, SETTINGS) for step in range(40)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5:28] == [1.0] * 23
    assert rates[39] == pytest.approx(1 / 12)


def test_a_state_of_one_file_as_earlier_versions_wrote_it_is_resumed(tmp_path):
    """The old format holds the same tensors, so the run goes on bit for bit."""
    assert train(regression(), SETTINGS, tmp_path / "whole")
    assert not train(regression(kill_at=17), SETTINGS, tmp_path / "old")
    task = regression()
    named = {f"map.{name}": p for name, p in task.modules["map"].named_parameters()}
    average = {name: p.detach().clone() for name, p in named.items()}
    optimisers = build_optimisers(named, task, SETTINGS)
    assert resume(tmp_path / "old", named, average, optimisers, World()) == 18
    state = {"model": {n: p.detach() for n, p in named.items()}, "average": average}
    state["optimisers"] = [optimiser.state_dict() for optimiser in optimisers]
    for path in (tmp_path / "old" / "checkpoints" / "18").iterdir():
        path.unlink()
    torch.save(state, tmp_path / "old" / "checkpoints" / "18" / "state.pt")
    assert train(regression(), SETTINGS, tmp_path / "old")
    whole, old = averaged_weights(tmp_path / "whole"), averaged_weights(tmp_path / "old")
    assert all(torch.equal(whole[name], old[name]) for name in whole)


def test_a_full_disk_leaves_the_last_state_whole(tmp_path):
    import resource

    def large(kill_at):
        task = regression(kill_at=kill_at)
        task.modules["ballast"] = nn.Linear(300, 300)
        return task

    assert not train(large(kill_at=9), SETTINGS, tmp_path)
    before = averaged_weights(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # no file may grow larger: it fails as on a full disk
    try:
        with pytest.raises(WriteFailed, match="checkpoints/16 could not be written"):
            train(large(kill_at=15), SETTINGS, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]
    after = averaged_weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_loss_in_parts_is_their_sum(tmp_path):
    def halves(task):
        def loss(step, generator):
            x = torch.randn(8, 3, generator=generator)
            for part in x.split(2):
                yield (task.modules["map"](part) - part[:, :2]).square().sum() / 16, {}

        return Task(name="halves", modules=task.modules, loss=loss)

    train(regression(), replace(SETTINGS, steps=3), tmp_path / "whole")
    train(halves(regression()), replace(SETTINGS, steps=3), tmp_path / "parts")
    whole, parts = averaged_weights(tmp_path / "whole"), averaged_weights(tmp_path / "parts")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
