"""A folder of short clips with captions, written once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, numbered) -> Path:
    """Six clips of 64x48 px, 13 frames at 8 fps, each with its caption beside it."""
    from anisora.media.writer import write_video

    folder = tmp_path_factory.mktemp("clips")
    for index in range(6):
        frames_THWC = numbered(13 + index)[index:]
        write_video(folder / f"{index}.mp4", frames_THWC, 8)
        (folder / f"{index}.txt").write_text(f"clip number {index} drifts\n")
    return folder
