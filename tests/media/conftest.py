"""Frames that carry their own number, so that a lost, doubled or swapped frame is seen through any lossy codec."""

import os
from pathlib import Path

import numpy as np
import pytest

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


@pytest.fixture(scope="session")
def numbered():
    return _numbered


@pytest.fixture(scope="session")
def numbers():
    return _numbers


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real clips, beside the checkout or where ANISORA_SHARED_DATA says; skips without it."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("ANISORA_SHARED_DATA", beside)) / "real_clips"
    if not folder.is_dir():
        pytest.skip("the shared clips are not here")
    return folder


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
