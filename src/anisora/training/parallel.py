"""Several processes training one model: who there is, what they agree on, and how the weights are spread over them.

torchrun starts the processes and names them in the environment; alone, everything here does nothing. Weights, gradients
and optimiser state are sharded block by block by torch's `fully_shard`: the same code on CPUs, with which it is tested,
and on accelerators. (accelerate would quietly make plain data parallelism of it on a CPU.)

With context parallelism, neighbouring processes form a share: they see the same clips, each a part of their tokens, which
meet in attention (diffusers' Ulysses: all-to-all over the heads). Weights are sharded over all processes in any case.

    rank        0  1 | 2  3        4 processes, context 2
    share       0    | 1           what of a batch they see
    tokens      a  b | a  b        which part of it
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from anisora import runtime
from anisora.errors import BadConfig


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: Any = None
    context: int = 1
    context_mesh: Any = None

    @property
    def share(self) -> int:
        """Which part of a batch this process sees."""
        return self.rank // self.context

    @property
    def shares(self) -> int:
        """How many parts a batch is seen in."""
        return self.size // self.context

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def summed(self, *values: float) -> list[float]:
        """Each value's sum over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()


def join(device: torch.device, context: int = 1) -> World:
    """The world that torchrun names in the environment; joins its process group where there are several processes.

    `context` of them share the tokens of a clip. Raises BadConfig for a number of processes that is no multiple of it.
    """
    size = runtime.world_size()
    if size % context:
        raise BadConfig(
            "context_parallel with processes that it does not divide",
            got=f"context_parallel {context}, {size} processes",
            expected=f"a multiple of {context} processes",
            hint=f"torchrun --nproc_per_node {context}",
        )
    if size == 1:
        return World(device=device)
    if not dist.is_initialized():
        dist.init_process_group(runtime.COLLECTIVES[device.type])
    build = dist.device_mesh.init_device_mesh
    return World(
        rank=dist.get_rank(),
        size=size,
        device=device,
        mesh=build(device.type, (size,), mesh_dim_names=("shard",)),
        context=context,
        # named as diffusers asks for it
        context_mesh=build(device.type, (size // context, 1, context), mesh_dim_names=("share", "ring", "ulysses")),
    )


def leave() -> None:
    """Leaves the process group, if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shard(networks: Iterable[nn.Module], world: World) -> None:
    """Spreads every block of the networks, then what is left of each, over the processes; alone nothing happens."""
    if world.size == 1:
        return
    from torch.distributed.fsdp import fully_shard

    # The view is a network's prediction, which losses read and nothing writes into.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for network in networks:
        for child in network.children():
            if isinstance(child, nn.ModuleList):
                for block in child:
                    fully_shard(block, mesh=world.mesh)
        fully_shard(network, mesh=world.mesh)


def split_tokens(networks: Iterable[nn.Module], world: World) -> None:
    """Makes each process of a share compute its part of the tokens; without context parallelism nothing happens.

    What diffusers' `enable_parallelism` does, less its first step, which takes the rank modulo the number of
    accelerators and so fails where there is none.
    """
    if world.context == 1:
        return
    from diffusers import ContextParallelConfig, ParallelConfig
    from diffusers.hooks import apply_context_parallel

    context = ContextParallelConfig(ulysses_degree=world.context, mesh=world.context_mesh)
    config = ParallelConfig(context_parallel_config=context)
    config.setup(world.rank, world.size, world.device, mesh=world.context_mesh)
    for network in networks:
        for module in network.modules():
            processor: Any = getattr(module, "processor", None)
            if hasattr(processor, "_parallel_config"):
                processor._parallel_config = config
        apply_context_parallel(network, context, network._cp_plan)  # type: ignore[arg-type]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Makes the gradients of weights that every process holds whole the mean over the processes; those of sharded weights
    come so from their backward pass, and alone nothing happens."""
    if world.size == 1:
        return
    own = [parameter for parameter in parameters if not hasattr(parameter, "to_local")]
    if not own:
        return
    # A part that a process did not use has no gradient there, and may have one elsewhere.
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in own])
    dist.all_reduce(flat)
    flat /= world.size
    for parameter, mean in zip(own, flat.split([p.numel() for p in own]), strict=True):
        parameter.grad = mean.view_as(parameter)


def reshard(networks: Iterable[nn.Module]) -> None:
    """Gives up every gathered weight, so that the next pass gathers it anew.

    torch keeps those outside of the blocks from a forward pass for its backward pass, and without one for good.
    """
    from torch.distributed.fsdp import FSDPModule

    for network in networks:
        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
