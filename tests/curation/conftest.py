"""What the tests of curation share: two short episodes, and a finished run over them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anisora.curation.pipeline import Curated, curate

from .runs import CONFIG
from .videos import write_episode


@pytest.fixture(scope="session")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of three shots of 2.5 s each."""
    folder = tmp_path_factory.mktemp("episodes")
    write_episode(folder / "a.mp4", [1, 2, 3])
    write_episode(folder / "b.mp4", [4, 5, 6])
    return folder


@pytest.fixture(scope="session")
def finished(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Curated]:
    """A finished run; copy it before changing it."""
    out = tmp_path_factory.mktemp("finished")
    return out, curate([episodes], out, CONFIG, workers=2)


@pytest.fixture
def copied(finished: tuple[Path, Curated], tmp_path: Path) -> Path:
    shutil.copytree(finished[0], tmp_path / "out")
    return tmp_path / "out"
