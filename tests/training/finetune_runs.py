"""Short fine-tuning runs on tiny checkpoints, runs that are killed, and what of two runs must agree."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from anisora.settings import plain
from anisora.training import finetune
from anisora.training.loop import averaged_weights

CPU = torch.device("cpu")

#: trains by the config in its first argument, on as many threads as the second says: sums differ in their last bits by it
TRAIN = """
import json, sys
import torch
from anisora.training import finetune
torch.set_num_threads(int(sys.argv[2]))
finetune.main(finetune.load_config(json.loads(sys.argv[1]), "test.yaml"))
"""


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
    """Runs the training in a process of its own and kills it (-9) as soon as `after` steps are saved.

    A new interpreter, not a fork: this one has threads, whose locks a fork would take along.
    """
    child = subprocess.Popen([sys.executable, "-c", TRAIN, json.dumps(plain(config)), str(torch.get_num_threads())])
    try:
        until = time.monotonic() + 300
        while max(steps_saved(run), default=0) < after:
            assert child.poll() is None, f"the run ended by itself: status {child.returncode}, {steps_saved(run)} saved"
            assert time.monotonic() < until, f"{steps_saved(run)} saved in five minutes"
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()


def steps_saved(run: Path) -> list[int]:
    return [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
