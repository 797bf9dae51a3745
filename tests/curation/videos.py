"""Small videos whose shots are known, and ways of breaking them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anisora.media.writer import write_video

WIDTH_PX, HEIGHT_PX, FPS = 160, 96, 12


def take(seed: int, num_frames: int = 30) -> np.ndarray:
    """One shot: coloured disks that move over a textured ground, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    ground = rng.integers(40, 215, 3) + 25 * np.sin(x / rng.uniform(5, 12) + y / rng.uniform(5, 12))[..., None]
    frames = np.repeat(ground[None], num_frames, axis=0)
    for _ in range(4):
        cx, cy, vx, vy = rng.uniform(20, 140), rng.uniform(20, 76), rng.uniform(-2, 2), rng.uniform(-1, 1)
        color, radius = rng.integers(0, 255, 3), rng.uniform(8, 18)
        for t in range(num_frames):
            frames[t][(x - cx - vx * t) ** 2 + (y - cy - vy * t) ** 2 < radius**2] = color
    return np.clip(frames, 0, 255).astype(np.uint8)


def write_episode(path: Path, seeds: list[int], num_frames: int = 30) -> Path:
    """A video of one shot a seed."""
    frames = np.concatenate([take(seed, num_frames) for seed in seeds])
    return write_video(path, frames, FPS, quality=18)
