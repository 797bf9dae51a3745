"""Two processes train as one does: same losses, gradients and weights; and a run may go on with another number of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finetune_runs import config_of, losses

from anisora.errors import BadConfig
from anisora.training import finetune, loop, parallel, run
from anisora.training.loop import averaged_weights

ROOT = Path(__file__).parents[2]
SOURCE, RECIPE = ROOT / "src", ROOT / "configs" / "quickstart.yaml"


def with_sgd(monkeypatch):
    """Plain gradient steps: AdamW makes large differences of small ones where a gradient is nearly zero."""
    monkeypatch.setattr(
        loop,
        "build_optimisers",
        lambda trained, task, settings: [torch.optim.SGD(list(trained.values()), lr=settings.learning_rate)],
    )


def in_processes(num, train):
    """Calls `train` as torchrun would, in several processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(num):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                train()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * num


def close(a, b):
    for one, two in zip(losses(a), losses(b), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    weights_a, weights_b = averaged_weights(a), averaged_weights(b)
    for name, value in weights_a.items():
        torch.testing.assert_close(weights_b[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(("method", "family"), [("full", "wan"), ("lora", "cogvideox")])
def test_two_processes_equal_one(method, family, tiny, clip_folder, tmp_path, monkeypatch):
    with_sgd(monkeypatch)
    shared = {"method": method, "data": {"batch": 2}, "loop": {"steps": 3, "learning_rate": 0.1, "ema_decay": 0.0}}
    alone, together = (config_of(tiny(family), clip_folder, tmp_path / name, **shared) for name in ("one", "two"))
    finetune.main(alone)
    in_processes(2, lambda: finetune.main(together))
    close(alone.output, together.output)
    assert (together.output / "export").is_dir()


@pytest.mark.parametrize(
    ("num", "method", "family"),
    [
        (2, "full", "wan"),
        (2, "lora", "wan-clip"),
        pytest.param(4, "full", "wan", marks=pytest.mark.slow),
        pytest.param(2, "full", "wan-experts", marks=pytest.mark.slow),
    ],
)
def test_processes_that_share_the_tokens_equal_one(num, method, family, tiny, clip_folder, tmp_path, monkeypatch):
    """Two processes see the same clips, each half of their tokens; of four, two pairs see half of the clips each."""
    with_sgd(monkeypatch)
    shared = {"method": method, "data": {"batch": 2}, "loop": {"steps": 3, "learning_rate": 0.1, "ema_decay": 0.0}}
    alone = config_of(tiny(family), clip_folder, tmp_path / "one", **shared)
    samples = {"samples": {"every_steps": 2, "clips": 1, "frames": 2}}
    together = config_of(tiny(family), clip_folder, tmp_path / "many", context_parallel=2, **shared, **samples)
    finetune.main(alone)
    in_processes(num, lambda: finetune.main(together))
    close(alone.output, together.output)
    assert {path.name for path in (together.output / "samples").glob("*.png")} == {"0.png", "2.png", "3.png"}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="what fails is for want of an accelerator")
def test_the_switch_of_diffusers_still_needs_an_accelerator(tiny_pipeline):
    """Why `split_tokens` does its steps one by one; once this fails, it may call `enable_parallelism` instead."""
    import torch.distributed as dist
    from diffusers import ContextParallelConfig

    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        with pytest.raises((ZeroDivisionError, RuntimeError)):
            tiny_pipeline("wan").transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    finally:
        dist.destroy_process_group()


def test_tokens_that_cannot_be_shared_out_are_refused(tiny, clip_folder, tmp_path):
    def check(family, parts, message):
        config = config_of(tiny(family), clip_folder, tmp_path / "run", context_parallel=parts)
        backbone = finetune._backbone(config, torch.device("cpu"))
        course = finetune.open_course(config, backbone.info.strides, backbone.info.native)
        with pytest.raises(BadConfig, match=message):
            finetune._check_context(config, backbone, course)

    check("cogvideox", 2, "cannot split the tokens")
    check("vace", 2, "cannot split the tokens")
    check("wan", 5, r"heads.*a divisor of")
    with pytest.raises(BadConfig, match="a multiple of 2 processes"):
        finetune.main(config_of(tiny("wan"), clip_folder, tmp_path / "run", context_parallel=2))


def test_a_run_goes_on_with_another_number_of_processes(tiny, clip_folder, tmp_path, monkeypatch):
    shared = {"method": "full", "data": {"batch": 2}, "loop": {"steps": 3, "learning_rate": 1e-4}}
    alone, moved = (config_of(tiny("wan"), clip_folder, tmp_path / name, **shared) for name in ("one", "moved"))
    finetune.main(alone)
    in_processes(2, lambda: finetune.main(moved, max_minutes=0))
    assert [step for step, *_ in losses(moved.output)] == [0]
    assert finetune.main(moved) is not None
    for one, two in zip(losses(alone.output), losses(moved.output), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_processes_that_hold_all_weights_step_as_one_that_sees_what_they_see(tmp_path, monkeypatch):
    """From scratch: each process draws clips of its own, one of them uses a part that the other does not."""
    with_sgd(monkeypatch)
    settings = loop.LoopSettings(steps=3, learning_rate=0.1, warmup_steps=1, ema_decay=0.0, log_every_steps=1)

    def task():
        torch.manual_seed(0)
        network, seldom = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)

        def loss(step, generator):
            out = network(torch.randn(4, 3, generator=generator))
            out = seldom(out) if torch.rand((), generator=generator) < 0.5 else out
            return (out - 1).square().mean(), {}

        return loop.Task(name="toy", modules={"network": network, "seldom": seldom}, loss=loss, samples_per_step=4)

    def in_two():
        world = parallel.join(torch.device("cpu"))
        loop.train(run._own_draws(task(), world), settings, tmp_path / "two", world=world)
        parallel.leave()

    def both(step, generator):
        for seed in torch.randint(2**62, (2,), generator=generator):
            loss, figures = one.loss(step, torch.Generator().manual_seed(int(seed)))
            yield loss / 2, figures

    one = task()
    loop.train(replace(one, loss=both, samples_per_step=8), settings, tmp_path / "one")
    in_processes(2, in_two)
    close(tmp_path / "one", tmp_path / "two")
    rows = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert [row["samples"] for row in rows] == [24, 24]


@pytest.mark.slow
def test_torchrun_as_documented_gives_the_losses_of_one_process(tiny, clip_folder, tmp_path):
    """The shipped config through the command itself: one process, then two that torchrun starts."""
    overrides = [
        *(f"data.videos={clip_folder}", f"model={tiny('wan')}", "device=cpu", "data.sizes=[[48, 32]]"),
        *("data.frames=[9]", "data.fps=8", "data.workers=1", "loop.steps=3", "loop.log_every_steps=1"),
    ]

    def command(launcher, name):
        words = [*launcher, "-m", "anisora", "train", str(RECIPE), *overrides, f"output={tmp_path / name}", "--json"]
        environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"exported": str(tmp_path / name / "export")}  # said once, by one process

    command([sys.executable], "one")
    command([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], "two")
    for (step, loss, norm), other in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert other == (step, pytest.approx(loss, rel=1e-5), pytest.approx(norm, rel=1e-4))
    assert (tmp_path / "two" / "samples" / "3.png").exists()
