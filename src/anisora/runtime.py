"""Device, dtype, seed and rank: asked once, passed down. The only file that may spell an accelerator's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: collective backend by device type; a CPU process group runs on gloo.
COLLECTIVES = {"cuda": "nccl", "npu": "hccl", "cpu": "gloo"}

#: what may be asked for, as error messages show it
DEVICE_EXAMPLES = "cpu, cuda, cuda:1, npu, mps"


def pick_device(wanted: str | None = None) -> torch.device:
    """`wanted`, else the accelerator torch reports (cuda, npu, mps, xpu, ...), else the CPU."""
    import torch

    if wanted:
        return torch.device(wanted)
    if torch.accelerator.is_available():
        return torch.device(torch.accelerator.current_accelerator() or "cpu")
    return torch.device("cpu")


def pick_dtype(device: torch.device, wanted: str | None = None) -> torch.dtype:
    """`wanted` by name, else bfloat16 on accelerators and float32 on the CPU, where half precision is slower."""
    import torch

    if wanted:
        return getattr(torch, wanted)
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def generator(seed: int) -> torch.Generator:
    """A CPU generator: the same seed gives the same noise on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def rank() -> int:
    """This process's rank as the launcher set it; 0 alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the launcher started; 1 alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(wanted: str | None = None) -> torch.device:
    """`pick_device`, and among several processes on one machine each its own accelerator."""
    import torch

    device = pick_device(wanted)
    if device.type == "cpu" or device.index is not None or world_size() == 1:
        return device
    device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
    torch.accelerator.set_device_index(device.index)
    return device


def peak_rss_bytes() -> int:
    """The largest resident set this process has had, in bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
