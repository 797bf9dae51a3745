"""The loop: steps, learning rate, EMA, log, checkpoints, resume. It knows nothing of what is being trained.

A task is a dict of modules and a function from a step's generator to a loss. Every step draws from a generator seeded by
(seed, step), so a resumed run draws what an uninterrupted one would have drawn, and no generator needs saving.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from anisora.errors import BadConfig, Diverged


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
    """What is trained: modules by name, a loss for one step, and what to call when it is over."""

    name: str
    modules: dict[str, nn.Module]
    loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]
    samples_per_step: int
    matrices: Callable[[str], bool] = lambda name: False
    """Which parameters, by `module.name`, are matrices inside a transformer's blocks."""


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


def train(task: Task, settings: LoopSettings, folder: Path, *, seed: int = 0, max_minutes: float = math.inf) -> bool:
    """True when all steps are done, False when time or a signal ended them early; run again to go on.

    Writes `folder/log.jsonl` and `folder/checkpoints/STEP/state.pt` (the newest only). Raises Diverged when the loss is
    not finite; the last good checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{part}.{name}": p for part, module in task.modules.items() for name, p in module.named_parameters()}
    trained = {name: p for name, p in named.items() if p.requires_grad}
    optimisers = build_optimisers(trained, task, settings)
    full_rates = [optimiser.defaults["lr"] for optimiser in optimisers]
    average = {name: p.detach().clone() for name, p in trained.items()}
    first_step = _resume(folder, trained, average, optimisers)
    _trim_log(folder, first_step)
    started = saved = time.monotonic()
    with _stop_requested() as stop, _progress(task.name, first_step, settings.steps) as advance:
        for step in range(first_step, settings.steps):
            begun = time.monotonic()
            loss, extra = task.loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
            if not torch.isfinite(loss):
                raise Diverged(
                    f"the loss of {task.name} is not finite at step {step}",
                    got=loss.item(),
                    expected="a number",
                    hint="a lower learning_rate; the last good checkpoint is kept",
                )
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trained.values(), settings.clip_norm)
            for optimiser, full_rate in zip(optimisers, full_rates, strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = full_rate * learning_rate_factor(step, settings)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            _follow(average, trained, min(settings.ema_decay, (1 + step) / (10 + step)))
            if step % settings.log_every_steps == 0 or step == settings.steps - 1:
                row = {"step": step, "samples": (step + 1) * task.samples_per_step, "loss": loss.item()}
                row |= {"grad_norm": norm.item(), "seconds": round(time.monotonic() - begun, 4), **extra}
                _log(folder, row)
            advance(loss.item())
            now = time.monotonic()
            out_of_time = now - started > max_minutes * 60 or stop()
            if out_of_time or step == settings.steps - 1 or now - saved > settings.save_every_minutes * 60:
                _save(folder, step + 1, trained, average, optimisers)
                saved = now
            if out_of_time and step < settings.steps - 1:
                return False
    return True


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the newest checkpoint, by `part.name`. Raises BadConfig when there is none."""
    state = _newest(folder)
    if state is None:
        raise BadConfig(
            "nothing trained yet", got=str(folder), expected="a folder with checkpoints", hint="train first"
        )
    return torch.load(state / "state.pt", weights_only=True, mmap=True)["average"]


def load_averaged(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Loads the averaged weights of the newest checkpoint into the modules that were trained."""
    average = averaged_weights(folder)
    for part, module in modules.items():
        own = {name.removeprefix(f"{part}."): value for name, value in average.items() if name.startswith(f"{part}.")}
        unexpected = module.load_state_dict(own, strict=False).unexpected_keys
        if unexpected or not own:
            raise BadConfig(f"the checkpoint does not fit {part}", got=unexpected[:3] or "no tensors", hint=str(folder))


def _follow(average: dict[str, Tensor], trained: dict[str, nn.Parameter], decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in trained.values()], 1 - decay)


def _newest(folder: Path) -> Path | None:
    found = [p for p in (folder / "checkpoints").glob("*") if p.name.isdigit() and (p / "state.pt").exists()]
    return max(found, key=lambda path: int(path.name), default=None)


def _resume(folder: Path, trained: dict, average: dict, optimisers: list[torch.optim.Optimizer]) -> int:
    newest = _newest(folder)
    if newest is None:
        return 0
    state = torch.load(newest / "state.pt", weights_only=True)
    if set(state["model"]) != set(trained):
        differ = sorted(set(state["model"]) ^ set(trained))
        raise BadConfig(
            "the run in this folder trains other tensors",
            got=differ[:3],
            hint="another output folder, or the old config",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state["model"][name])
            average[name].copy_(state["average"][name])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(newest.name)


def _save(folder: Path, step: int, trained: dict, average: dict, optimisers: list[torch.optim.Optimizer]) -> None:
    """Writes the whole state beside the old one, then takes the old one away: a kill at any point leaves one whole."""
    checkpoints = folder / "checkpoints"
    partial, whole = checkpoints / f"{step}.partial", checkpoints / str(step)
    partial.mkdir(parents=True, exist_ok=True)
    model = {name: p.detach() for name, p in trained.items()}
    states = [optimiser.state_dict() for optimiser in optimisers]
    torch.save({"model": model, "average": average, "optimisers": states}, partial / "state.pt")
    shutil.rmtree(whole, ignore_errors=True)
    partial.rename(whole)
    for old in checkpoints.iterdir():
        if old != whole:
            shutil.rmtree(old)


def _log(folder: Path, row: dict[str, Any]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _trim_log(folder: Path, first_step: int) -> None:
    """Drops rows after the checkpoint: those steps will be done, and logged, again."""
    path = folder / "log.jsonl"
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if line and json.loads(line)["step"] < first_step]
        path.write_text("".join(row + "\n" for row in rows))


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
def _progress(name: str, first_step: int, steps: int) -> Iterator[Callable[[float], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    smooth: list[float] = []
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.4f}"), refresh_per_second=1) as progress:
        bar = progress.add_task(name, total=steps, completed=first_step, loss=float("nan"))

        def advance(loss: float) -> None:
            smooth[:] = [0.98 * smooth[0] + 0.02 * loss] if smooth else [loss]
            progress.update(bar, advance=1, loss=smooth[0])

        yield advance
