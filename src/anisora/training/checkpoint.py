"""The state of a run on disk: weights, their average and the optimisers' memory, whole or not at all.

torch's distributed checkpoints hold it, one process or many: every process writes its shards, and a run may go on with
another number of them. A single-process `state.pt`, as earlier versions wrote it, is resumed from too.

FOLDER/checkpoints/STEP/     the newest only; STEP.partial while it is written
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader

from anisora.errors import BadConfig, WriteFailed
from anisora.files import write_failed
from anisora.training.parallel import World

_SINGLE = "state.pt"


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, None where there is none."""
    found = [path for path in (folder / "checkpoints").glob("*") if path.name.isdigit() and _is_whole(path)]
    return max(found, key=lambda path: int(path.name), default=None)


def _is_whole(path: Path) -> bool:
    return (path / ".metadata").exists() or (path / _SINGLE).exists()


def save(
    folder: Path,
    step: int,
    trained: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimisers: list[torch.optim.Optimizer],
    world: World,
) -> None:
    """Writes the whole state beside the old one, then takes the old one away: a kill at any point leaves one whole.

    Raises WriteFailed when the disk is full; the old state is intact then.
    """
    checkpoints = folder / "checkpoints"
    partial, whole = checkpoints / f"{step}.partial", checkpoints / str(step)
    if world.is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    world.wait()
    state = {f"model/{name}": parameter.detach() for name, parameter in trained.items()}
    state |= {f"average/{name}": value for name, value in average.items()} | _memory(trained, optimisers)
    try:
        with _quiet():
            dcp.save(state, checkpoint_id=partial, no_dist=world.size == 1)
    except (CheckpointException, OSError) as problem:
        shutil.rmtree(partial, ignore_errors=True)
        raise _write_failed(whole, problem) from problem
    world.wait()
    if world.is_first:
        shutil.rmtree(whole, ignore_errors=True)
        partial.rename(whole)
        for old in checkpoints.iterdir():
            if old != whole:
                shutil.rmtree(old)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _write_failed(whole: Path, problem: BaseException) -> BaseException:
    """The first error under torch's bundle of what failed on which process, told as a failed write."""
    while isinstance(problem, CheckpointException) and problem.failures:
        problem = next(iter(problem.failures.values()))[0]
    if isinstance(problem, OSError):
        return write_failed(whole, problem)
    if isinstance(problem, RuntimeError):  # torch's writer: it noticed that less was written than it gave, not why
        hint = "freeing disk space or another folder"
        return WriteFailed(f"{whole} could not be written", got=str(problem).splitlines()[0], hint=hint)
    return problem


def _memory(trained: dict[str, nn.Parameter], optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What the optimisers remember of each parameter; those that had no gradient yet have nothing."""
    return {
        f"optimiser/{name}/{key}": value
        for optimiser in optimisers
        for name, parameter in trained.items()
        if parameter in optimiser.state
        for key, value in optimiser.state[parameter].items()
    }


def resume(
    folder: Path,
    trained: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimisers: list[torch.optim.Optimizer],
    world: World,
) -> int:
    """Takes over the newest state and returns the step to go on with, 0 without one. Raises BadConfig for other tensors."""
    place = newest(folder)
    if place is None:
        return 0
    if (place / _SINGLE).exists():
        _resume_single(place / _SINGLE, trained, average, optimisers)
        return int(place.name)
    saved = _tensors_in(place)
    shapes = {name.removeprefix("model/"): tuple(saved[name].size) for name in saved if name.startswith("model/")}
    _check_same(shapes, {name: tuple(parameter.shape) for name, parameter in trained.items()})
    memory = {name: _like(saved[name], name, trained) for name in saved if name.startswith("optimiser/")}
    state = {f"model/{name}": parameter.detach() for name, parameter in trained.items()}
    state |= {f"average/{name}": value for name, value in average.items()} | memory
    with _quiet():
        dcp.load(state, checkpoint_id=place, no_dist=world.size == 1)
    owners = {id(parameter): o for o in optimisers for group in o.param_groups for parameter in group["params"]}
    for name, value in memory.items():
        parameter_name, _, key = name.removeprefix("optimiser/").rpartition("/")
        parameter = trained[parameter_name]
        owners[id(parameter)].state[parameter][key] = value
    return int(place.name)


def _tensors_in(place: Path) -> dict[str, Any]:
    """name -> size and dtype of every tensor of a distributed checkpoint."""
    return dict(FileSystemReader(place).read_metadata().state_dict_metadata)


def _like(saved: Any, name: str, trained: dict[str, nn.Parameter]) -> Tensor:
    """Room for one tensor of an optimiser's memory: sharded as its parameter where it has its shape."""
    parameter = trained[name.removeprefix("optimiser/").rpartition("/")[0]]
    if tuple(saved.size) == tuple(parameter.shape) and len(saved.size):
        return torch.zeros_like(parameter, dtype=saved.properties.dtype).detach()
    return torch.zeros(saved.size, dtype=saved.properties.dtype)


def _check_same(saved: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    differ = sorted(name for name in {*saved, *wanted} if saved.get(name) != wanted.get(name))
    if differ:
        raise BadConfig(
            "the run in this folder trains other tensors",
            got=", ".join(f"{name} {saved.get(name, 'not there')}" for name in differ[:3]),
            expected=", ".join(f"{name} {wanted.get(name, 'not there')}" for name in differ[:3]),
            hint="another output folder, or the old config",
        )


def _resume_single(path: Path, trained: dict, average: dict, optimisers: list[torch.optim.Optimizer]) -> None:
    state = torch.load(path, weights_only=True)
    _check_same(
        {name: tuple(value.shape) for name, value in state["model"].items()},
        {name: tuple(parameter.shape) for name, parameter in trained.items()},
    )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state["model"][name])
            average[name].copy_(state["average"][name])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the newest checkpoint, by `part.name`, whole. Raises BadConfig when there is none."""
    place = newest(folder)
    if place is None:
        raise BadConfig(
            "nothing trained yet", got=str(folder), expected="a folder with checkpoints", hint="train first"
        )
    if (place / _SINGLE).exists():
        return torch.load(place / _SINGLE, weights_only=True, mmap=True)["average"]
    saved = _tensors_in(place)
    state = {
        name: torch.empty(saved[name].size, dtype=saved[name].properties.dtype)
        for name in saved
        if name.startswith("average/")
    }
    with _quiet():
        dcp.load(state, checkpoint_id=place, no_dist=True)
    return {name.removeprefix("average/"): value for name, value in state.items()}


def load_averaged(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Loads the averaged weights of the newest checkpoint into the modules that were trained."""
    average = averaged_weights(folder)
    for part, module in modules.items():
        own = {name.removeprefix(f"{part}."): value for name, value in average.items() if name.startswith(f"{part}.")}
        unexpected = module.load_state_dict(own, strict=False).unexpected_keys
        if unexpected or not own:
            raise BadConfig(f"the checkpoint does not fit {part}", got=unexpected[:3] or "no tensors", hint=str(folder))
