"""How hard and how fast the synthetic corpus is, as one JSON object.

Given only the first and the last frame of held-out clips, how well do a cross-fade and a DIS-flow warp guess the frames
between (mean PSNR, dB)? How much of the picture is foreground, and how far does it move beyond the camera? How many
frames a second of processor time does each backend draw, and how much longer does this version of the corpus take than
the default one (clips drawn by turns, in one process)?

    python benchmarks/synthetic.py --clips 48
    python benchmarks/synthetic.py --clips 48 --corpus-version 3
"""

from __future__ import annotations

import argparse
import json
import time
from fractions import Fraction

import cv2
import numpy as np

from anisora.synthetic import CORPUS_VERSION, VERSIONS, SyntheticClip, render_clip
from anisora.synthetic.truth import camera_flow


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-2)))


def cross_fade(first: np.ndarray, last: np.ndarray, u: float) -> np.ndarray:
    return (1 - u) * first + u * last


def flow_warp(first: np.ndarray, last: np.ndarray, u: float, there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Both ends moved along their share of the flow to the other end, then blended."""
    height, width = first.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))

    def moved(image: np.ndarray, flow: np.ndarray, share: float) -> np.ndarray:
        at = (x - share * flow[..., 0], y - share * flow[..., 1])
        return cv2.remap(image, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return (1 - u) * moved(first, there, u).astype(float) + u * moved(last, back, 1 - u).astype(float)


def in_between(clip: SyntheticClip) -> tuple[float, float]:
    """(cross-fade, flow warp): mean PSNR in dB over the frames between first and last."""
    video = clip.video_THWC
    first, last = video[0], video[-1]
    gray = [cv2.cvtColor(v, cv2.COLOR_RGB2GRAY) for v in (first, last)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = dis.calc(gray[0], gray[1], None), dis.calc(gray[1], gray[0], None)
    shares = [(t, t / (len(video) - 1)) for t in range(1, len(video) - 1)]
    fade = [psnr_db(cross_fade(first, last, u), video[t]) for t, u in shares]
    warp = [psnr_db(flow_warp(first, last, u, there, back), video[t]) for t, u in shares]
    return float(np.mean(fade)), float(np.mean(warp))


def foreground(clip: SyntheticClip) -> tuple[float, float]:
    """(part of the picture, median over frames; pixels a frame it moves beyond the camera, mean)."""
    truth = clip.truth
    assert truth is not None
    frames, height, width = truth.foreground_THW.shape
    stages = [np.vstack([m, (0, 0, 1)]) for m in truth.camera_T23]
    steps = []
    for t in range(frames - 1):
        residual = truth.flow_THW2[t] - camera_flow(stages[t], stages[t + 1], height, width)
        steps.append(np.linalg.norm(residual, axis=-1)[truth.foreground_THW[t]])
    moves = np.concatenate(steps)
    return float(np.median(truth.foreground_THW.mean((1, 2)))), float(moves.mean()) if moves.size else 0.0


def hardness(first_seed: int, clips: int, split: str, version: int) -> dict:
    rows = []
    for k in range(clips):
        clip = render_clip(
            first_seed + k, 0, split=split, n_frames=33, fps=16, size_px=(128, 128), truth=True, version=version
        )
        rows.append((*in_between(clip), *foreground(clip)))
    fade, warp, cover, moves = np.array(rows).T
    return {
        "clips": clips,
        "cross_fade_psnr_db": fade.mean(),
        "flow_warp_psnr_db": warp.mean(),
        "foreground_frac_median": float(np.median(cover)),
        "foreground_frac_p5_p95": np.percentile(cover, (5, 95)).tolist(),
        "clips_with_foreground_in_band_frac": float(np.mean((cover >= 0.1) & (cover <= 0.6))),
        "foreground_px_per_frame_median": float(np.median(moves)),
        "clips_moving_1px_frac": float(np.mean(moves >= 1)),
    }


def cpu_s(index: int, size: int, version: int, backend: str = "skia", truth: bool = False) -> float:
    """What one clip of 17 frames takes."""
    start = time.process_time()
    render_clip(0, index, size_px=(size, size), backend=backend, truth=truth, fps=Fraction(8), version=version)
    return time.process_time() - start


def speed(backend: str, clips: int, size: int, truth: bool, version: int) -> float:
    cpu_s(0, size, version, backend, truth)
    return clips * 17 / sum(cpu_s(index, size, version, backend, truth) for index in range(clips))


def times_the_default(clips: int, size: int, version: int) -> float:
    both = [[cpu_s(index, size, each) for each in (CORPUS_VERSION, version)] for index in range(clips)]
    usual, this = np.array(both[1:]).mean(0)
    return this / usual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--corpus-version", type=int, default=CORPUS_VERSION, choices=VERSIONS)
    args = parser.parse_args()
    version = args.corpus_version
    result = {"corpus_version": version}
    result |= {split: hardness(args.first_seed, args.clips, split, version) for split in ("seen", "reserved")}
    result["frames_per_cpu_s"] = {
        "skia_96px": speed("skia", 40, 96, False, version),
        "skia_128px": speed("skia", 40, 128, False, version),
        "skia_128px_truth": speed("skia", 4, 128, True, version),
        "pillow_96px": speed("pillow", 3, 96, False, version),
    }
    result["cpu_times_the_default_version"] = {"96px": times_the_default(80, 96, version)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
