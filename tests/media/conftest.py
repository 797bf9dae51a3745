"""The real clips, where they are."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real clips, beside the checkout or where ANISORA_SHARED_DATA says; skips without it."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("ANISORA_SHARED_DATA", beside)) / "real_clips"
    if not folder.is_dir():
        pytest.skip("the shared clips are not here")
    return folder
