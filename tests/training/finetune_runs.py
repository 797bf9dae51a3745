"""Short fine-tuning runs on tiny checkpoints, runs that are killed, and what of two runs must agree."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import torch

from anisora.training import finetune
from anisora.training.loop import averaged_weights

CPU = torch.device("cpu")


def config_of(model, clips, output, **more):
    data = {
        "output": str(output),
        "method": "lora",
        "model": str(model),
        "device": "cpu",
        "data": {"videos": str(clips), "batch": 2, "workers": 1},
        "loop": {"steps": 3, "log_every_steps": 1, "learning_rate": 0.01, "warmup_steps": 1},
        "lora": {"rank": 2},
    }
    for key, value in more.items():
        data[key] = {**data[key], **value} if isinstance(data.get(key), dict) else value
    return finetune.load_config(data, "test.yaml")


def losses(run):
    return [(row["step"], row["loss"], row["grad_norm"]) for row in map(json.loads, (run / "log.jsonl").open())]


def same_run(a, b):
    weights_a, weights_b = averaged_weights(a), averaged_weights(b)
    assert losses(a) == losses(b)
    assert weights_a.keys() == weights_b.keys()
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)


def killed(run: Path, config, after: int) -> None:
    """Runs the training in a process of its own and kills it (-9) as soon as `after` steps are saved."""
    child = os.fork()
    if child == 0:
        try:
            finetune.main(config)
        finally:
            os._exit(0)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        saved = [int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdigit()]
        if max(saved, default=0) >= after or os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
