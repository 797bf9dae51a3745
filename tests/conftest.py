"""What the tests share: one torch thread, tiny checkpoints written once, pictures, and the folder of real material."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Frames that carry their own number, so that a lost, doubled or swapped frame is seen through any lossy codec.
BITS, BLOCK_PX = 6, 8


def _numbered(num_frames: int, width_px: int = 64, height_px: int = 48) -> np.ndarray:
    """uint8 [T, H, W, 3]: a soft gradient that drifts, and the frame's number as black and white blocks on top."""
    y, x = np.mgrid[:height_px, :width_px]
    frames = np.empty((num_frames, height_px, width_px, 3), np.uint8)
    for t in range(num_frames):
        frames[t] = np.stack([(x * 2 + t * 3) % 160 + 40, y * 3 % 128 + 60, (x + y) % 100 + 80], -1)
        for bit in range(BITS):
            frames[t, :BLOCK_PX, bit * BLOCK_PX : (bit + 1) * BLOCK_PX] = 255 * (t >> bit & 1)
    return frames


def _numbers(frames_THWC: np.ndarray) -> list[int]:
    """The number that each frame carries."""
    blocks = [frames_THWC[:, 2:6, bit * BLOCK_PX + 2 : bit * BLOCK_PX + 6].mean((1, 2, 3)) for bit in range(BITS)]
    return [int(n) for n in sum((block > 127).astype(int) << bit for bit, block in enumerate(blocks))]


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


@pytest.fixture(scope="session")
def numbered():
    return _numbered


@pytest.fixture(scope="session")
def numbers():
    return _numbers


@pytest.fixture(scope="session")
def encode():
    """Writes a video with PyAV alone, for what the writer never makes: odd tags, times and pixel formats."""

    def write(path, frames, codec="libx264", pixel_format="yuv420p", pts=None, time_base=None, options=None, **stream):
        from fractions import Fraction

        import av

        time_base = time_base or Fraction(1, 24)
        with av.open(str(path), "w") as container:
            video = container.add_stream(codec, rate=stream.pop("rate", 24), options=options or {})
            rotation = stream.pop("rotation", None)
            if rotation:
                video.set_display_rotation(*rotation)
            first = next(iter(frames))
            video.height, video.width = (first.height, first.width) if hasattr(first, "width") else first.shape[:2]
            video.pix_fmt = pixel_format
            video.codec_context.time_base = time_base
            for name, value in stream.items():
                setattr(video.codec_context, name, value)
            for index, frame in enumerate(frames):
                if not hasattr(frame, "width"):
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
                frame.pts, frame.time_base = (pts[index] if pts else index), time_base
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        return path

    return write
