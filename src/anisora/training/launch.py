"""Which trainer a config asks for, by its `method`: the bundled model from nothing, or a checkpoint that is there already.

sft         `training.run`: codec, denoiser and guide decoder of the bundled model, from scratch (configs/bundled.yaml)
lora, full  `training.finetune`: any checkpoint that the catalog loads
distill     `training.distill`: a student of few steps and no guidance
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anisora import settings
from anisora.errors import BadConfig
from anisora.generation.runner import hush_libraries
from anisora.training.presets import expanded

if TYPE_CHECKING:
    from anisora.training.budget import Budget

METHODS = ("sft", "lora", "full", "distill")


def main(
    path: Path, overrides: tuple[str, ...] = (), *, stage: str | None = None, max_minutes: float = math.inf
) -> Path | None:
    """Trains as the YAML file with `key.key=value` overrides says, and returns what was exported; None when it is not done.

    Raises BadConfig for an unknown method, and what the trainers raise.
    """
    data = read(path, overrides)
    hush_libraries()  # before the trainers are imported: what they import has advice to give
    if data["method"] == "sft":
        from anisora.training import run

        return run.main(path, overrides, stage=stage, max_minutes=max_minutes)
    if stage is not None:
        raise BadConfig("--stage is for configs that train from scratch", got=f"method {data['method']}")
    if data["method"] == "distill":
        from anisora.training import distill

        return distill.main(distill.load_config(data, path.name), max_minutes=max_minutes)
    from anisora.training import finetune

    return finetune.main(finetune.load_config(data, path.name), max_minutes=max_minutes)


def cost(path: Path, overrides: tuple[str, ...] = (), *, devices: int = 1) -> Budget:
    """What the run of a config would cost, training nothing. Raises BadConfig for training from scratch."""
    data = read(path, overrides)
    if data["method"] == "sft":
        raise BadConfig(
            "--dry-run is for checkpoints that are there already",
            got=f"method {data['method']}",
            expected="lora, full or distill",
        )
    hush_libraries()
    from anisora.training import budget, distill, finetune

    load = distill.load_config if data["method"] == "distill" else finetune.load_config
    return budget.budget(load(data, path.name), devices=devices)


def read(path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The plain data of a config, its method known. Raises BadConfig."""
    data = expanded(settings.override(_mapping(settings.load(path), path), overrides), path.name)
    method = data.setdefault("method", "sft")
    if method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, n=1, cutoff=0.5)
        raise BadConfig(
            f"{path.name}: unknown method", got=method, expected=" or ".join(METHODS), hint=near[0] if near else None
        )
    return data


def _mapping(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise BadConfig(f"{path.name} is no config", got=type(data).__name__, expected="keys and values")
    return data
