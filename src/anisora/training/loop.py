"""The loop: steps, learning rate, EMA, log, checkpoints, resume, in one process or several. It knows nothing of what is
being trained.

A task is a dict of modules and a function from a step's generator to a loss. Every step draws from a generator seeded by
(seed, step), so a resumed run draws what an uninterrupted one would have drawn, and no generator needs saving.
"""

from __future__ import annotations

import fcntl
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from anisora.errors import BadConfig, Diverged
from anisora.training import checkpoint
from anisora.training.checkpoint import averaged_weights, load_averaged
from anisora.training.log import RunLog
from anisora.training.parallel import World, average_gradients, local, reshard, whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "LoopSettings",
    "Task",
    "averaged_weights",
    "build_optimisers",
    "learning_rate_factor",
    "load_averaged",
    "locked",
    "train",
]

#: a loss, and figures to log with it
Loss = tuple[Tensor, dict[str, Any]]
_ALONE = World()


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how fast; a sentence under each field."""

    steps: int
    """Optimiser steps in all."""
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    """Steps in which the learning rate rises from 0."""
    decay_frac: float = 0.3
    """Share of the steps, at the end, in which the learning rate falls linearly to 0."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    muon_learning_rate: float = 0.0
    """Above 0, a task's `matrices` are stepped by Muon (Jordan et al. 2024) at this rate, on AdamW's scale; the rest
    stays with AdamW."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    ema_decay: float = 0.999
    """How slowly the averaged weights, which are the ones exported, follow."""
    save_every_minutes: float = 5.0
    log_every_steps: int = 20


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained: modules by name, and a loss for one step.

    The loss may come in parts, yielded one by one, whose sum it is: each is turned into gradients before the next one is
    computed, so that one part's activations are in memory at a time. Of several processes each gives the mean over the
    samples that it sees, as many as the others do.
    """

    name: str
    modules: dict[str, nn.Module]
    loss: Callable[[int, torch.Generator], Loss | Iterator[Loss]]
    samples_per_step: int | None = None
    """Where every step shows as many; else the loss gives figures of its own."""
    rate: Callable[[int], float] = lambda step: 1.0
    """Times the learning rate of a step."""
    matrices: Callable[[str], bool] = lambda name: False
    """Which parameters, by `module.name`, are matrices inside a transformer's blocks."""
    sheet: Callable[[], Image] | None = None
    """A picture of what the modules make; it is asked for with the averaged weights in them, by all processes at once."""
    sheet_every_steps: int = 0
    """Steps between two of them, besides one before the first step and one after the last; 0 makes none."""


def learning_rate_factor(step: int, settings: LoopSettings) -> float:
    """What the learning rates are multiplied by: warm-up, plateau, then a linear fall to 0 over the last `decay_frac`."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left = (settings.steps - step) / max(1.0, settings.steps * settings.decay_frac)
    return warm * min(1.0, left)


def build_optimisers(
    trained: dict[str, nn.Parameter], task: Task, settings: LoopSettings
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the task's matrices and AdamW for the rest."""
    by_muon = {name for name in trained if settings.muon_learning_rate > 0 and task.matrices(name)}
    optimisers: list[torch.optim.Optimizer] = []
    if by_muon:
        optimisers.append(
            torch.optim.Muon(
                [parameter for name, parameter in trained.items() if name in by_muon],
                lr=settings.muon_learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    rest = [parameter for name, parameter in trained.items() if name not in by_muon]
    optimisers.append(
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay)
    )
    return optimisers


def train(
    task: Task,
    settings: LoopSettings,
    folder: Path,
    *,
    seed: int = 0,
    max_minutes: float = math.inf,
    world: World = _ALONE,
) -> bool:
    """True when all steps are done, False when time or a signal ended them early; run again to go on.

    Writes `folder/checkpoints/STEP/` (the newest only) and what `training.log` says. Raises Diverged when the loss is
    not finite; the last good checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{part}.{name}": p for part, module in task.modules.items() for name, p in module.named_parameters()}
    trained = {name: p for name, p in named.items() if p.requires_grad}
    optimisers = build_optimisers(trained, task, settings)
    full_rates = [optimiser.defaults["lr"] for optimiser in optimisers]
    average = {name: p.detach().clone() for name, p in trained.items()}
    first_step = checkpoint.resume(folder, trained, average, optimisers, world)
    started = saved = time.monotonic()
    with (
        _logged(folder, first_step, world) as log,
        _stop_requested() as stop,
        _progress(task.name, first_step, settings.steps, world.is_first) as advance,
    ):
        if first_step == 0:
            _show(task, 0, trained, average, log)
        for step in range(first_step, settings.steps):
            begun = time.monotonic()
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            own_loss, extra = _backward(task, step, generator, world.context)
            now = time.monotonic()
            # Time and signals reach the processes apart; one asking is enough, and all do the same.
            loss, asked, due = world.summed(
                own_loss / world.size,
                now - started > max_minutes * 60 or stop(),
                now - saved > settings.save_every_minutes * 60,
            )
            average_gradients(trained.values(), world)
            norm = _clip(trained, settings.clip_norm)
            _check_finite(f"the loss of {task.name} at step {step}", loss, folder)
            _check_finite(f"the gradient of {task.name} at step {step}", norm, folder)
            if due and step > first_step:  # before the step: these weights have just given a good loss
                if log:
                    log.flush()
                checkpoint.save(folder, step, trained, average, optimisers, world)
                saved = time.monotonic()
            for optimiser, full_rate in zip(optimisers, full_rates, strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = full_rate * task.rate(step) * learning_rate_factor(step, settings)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            _follow(average, trained, min(settings.ema_decay, (1 + step) / (10 + step)))
            is_last = step == settings.steps - 1
            if log and (step % settings.log_every_steps == 0 or is_last):
                row: dict[str, Any] = {"step": step}
                if task.samples_per_step is not None:
                    row["samples"] = (step + 1) * task.samples_per_step
                row |= {"loss": loss, "grad_norm": norm, "seconds": round(time.monotonic() - begun, 4), **extra}
                log.row(row)
            advance(loss)
            if is_last or (task.sheet_every_steps and (step + 1) % task.sheet_every_steps == 0):
                _show(task, step + 1, trained, average, log)
            if asked or is_last:
                sizes = [local(parameter.detach()).float().abs().sum() for parameter in trained.values()]
                (size,) = world.summed(torch.stack(sizes).sum().item())
                _check_finite(f"the weights of {task.name} after step {step}", size, folder)
                if log:
                    log.flush()
                checkpoint.save(folder, step + 1, trained, average, optimisers, world)
                return is_last
    return True


def _backward(task: Task, step: int, generator: torch.Generator, context: int) -> tuple[float, dict[str, Any]]:
    """The loss of a step, turned into gradients part by part, and its figures.

    Gradients are averaged over all processes; those of a share each hold a part of one, and parts are to be summed.
    """
    result = task.loss(step, generator)
    total = 0.0
    figures: dict[str, Any] = {}
    for loss, extra in [result] if isinstance(result, tuple) else result:
        (loss * context).backward()  # also of what is no number: the other processes wait for it
        total += loss.item()
        figures |= extra
    return total, figures


def _clip(trained: dict[str, nn.Parameter], most: float) -> float:
    """Scales the gradients down to a norm of at most `most`; their norm before that."""
    gradients = [parameter.grad for parameter in trained.values() if parameter.grad is not None]
    norm = whole(nn.utils.get_total_norm(gradients))
    nn.utils.clip_grads_with_norm_(trained.values(), most, norm)
    return norm.item()


def _check_finite(what: str, value: float, folder: Path) -> None:
    """Raises Diverged, saying where the last good state is, for what is not a number."""
    if not math.isfinite(value):
        place = checkpoint.newest(folder)
        kept = f"the last good state is {place}" if place else "there is no earlier state"
        raise Diverged(f"{what} is not finite", got=value, expected="a number", hint=f"a lower learning_rate; {kept}")


@contextmanager
def locked(folder: Path, world: World = _ALONE) -> Iterator[None]:
    """Raises BadConfig where another process trains in the folder; keeps others out until the block ends.

    A folder made for a run that was then refused, and so left nothing in it, goes again.
    """
    if not world.is_first:
        yield
        return
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadConfig(
                "another run trains in this folder", got=folder, hint="waiting for it, or another output folder"
            ) from None
        try:
            yield
        finally:
            if not was_there and [path.name for path in folder.iterdir()] == [".lock"]:
                shutil.rmtree(folder)


def _follow(average: dict[str, Tensor], trained: dict[str, nn.Parameter], decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(
            [local(a) for a in average.values()], [local(p.detach()) for p in trained.values()], 1 - decay
        )


@contextmanager
def _logged(folder: Path, first_step: int, world: World) -> Iterator[RunLog | None]:
    """The run's log in the first process, None in the others."""
    if not world.is_first:
        yield None
        return
    log = RunLog(folder, first_step)
    try:
        yield log
    finally:
        log.close()


def _show(
    task: Task, steps_done: int, trained: dict[str, nn.Parameter], average: dict[str, Tensor], log: RunLog | None
) -> None:
    """Makes the task's sheet with the averaged weights, and logs it."""
    if task.sheet is None or task.sheet_every_steps < 1:
        return
    with _averaged(task.modules, trained, average):
        picture = task.sheet()
    if log:
        log.sheet(steps_done, picture)


@contextmanager
def _averaged(
    modules: dict[str, nn.Module], trained: dict[str, nn.Parameter], average: dict[str, Tensor]
) -> Iterator[None]:
    """The averaged weights in the place of the trained ones until the block ends; no third copy of them is held."""
    _swap(trained, average)
    try:
        yield
    finally:
        reshard(modules.values())  # a shard may have been gathered: it is of the weights that go now
        _swap(trained, average)


@torch.no_grad()
def _swap(trained: dict[str, nn.Parameter], average: dict[str, Tensor]) -> None:
    for name, parameter in trained.items():
        here, there = local(parameter.detach()), local(average[name])
        held = here.clone()
        here.copy_(there)
        there.copy_(held)


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM and Ctrl-C into a wish that the loop grants after the step at hand, with its state saved."""
    asked: list[int] = []
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(which, lambda number, frame: asked.append(number)) for which in wanted]
    try:
        yield lambda: bool(asked)
    finally:
        for which, handler in zip(wanted, before, strict=True):
            signal.signal(which, handler)


@contextmanager
def _progress(name: str, first_step: int, steps: int, is_shown: bool) -> Iterator[Callable[[float], None]]:
    figures = TextColumn("loss {task.fields[loss]:.4f}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), figures)
    smooth: list[float] = []
    console = Console(stderr=True)  # stdout is for results
    with Progress(*columns, console=console, refresh_per_second=1, disable=not is_shown) as progress:
        bar = progress.add_task(name, total=steps, completed=first_step, loss=float("nan"))

        def advance(loss: float) -> None:
            smooth[:] = [0.98 * smooth[0] + 0.02 * loss] if smooth else [loss]
            progress.update(bar, advance=1, loss=smooth[0])

        yield advance
