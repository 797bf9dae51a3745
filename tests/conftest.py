"""What the tests share: one torch thread, tiny checkpoints written once, pictures, and the folder of real material."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny networks are slower on many threads, and results do not depend on the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny(family, **options)`: the folder of a tiny random checkpoint, written once a session. Do not write into it."""
    from anisora.models.tiny import write_tiny_checkpoint

    root = tmp_path_factory.mktemp("tiny")

    @cache
    def write(family: str = "wan", **options: Any) -> Path:
        name = "-".join([family, *(f"{key}={value}" for key, value in sorted(options.items()))])
        return write_tiny_checkpoint(root / name, family, **options)

    return write


@pytest.fixture(scope="session")
def tiny_pipeline(tiny: Callable[..., Path]) -> Callable[[str], Any]:
    """`tiny_pipeline(family)`: the loaded pipeline of `tiny(family)`, shared by the session. Leave it as it is."""
    import anisora
    from anisora.models.catalog import resolve

    @cache
    def load(family: str = "wan") -> Any:
        folder = tiny(family)
        pipeline = getattr(anisora, resolve(folder).pipeline_class).from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """`picture(seed, width, height)`: a smooth random RGB picture, uint8 [H, W, 3]."""

    def draw(seed: int = 0, width: int = 48, height: int = 32) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-2, 2, (3, 3))]
        return np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips and stills; tests that want it are skipped where it is absent."""
    named = os.environ.get("ANISORA_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real material: set ANISORA_SHARED_DATA")
    return folder
