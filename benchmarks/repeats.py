"""How many planted repeats are found, how many pairs found are none, and how fast a million hashes are matched.

Clips of the procedural corpus and, where the folder is there, real ones are copied: encoded anew at a lower quality and
size, mirrored, cropped by 5 to 25 % at any place, cropped and mirrored, cut shorter. Every pair that was not planted is
a wrong one, but for pairs of real clips that are known to show the same. Openings are spliced into episodes at other
moments. One JSON object.

    python benchmarks/repeats.py --clips 60 --data ../shared/data/real_clips
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from anisora.curation.dedup import SourceTrack, find_repeats, find_runs
from anisora.curation.fingerprint import MOST_BITS, alike, fingerprint, hash_frames
from anisora.measures.clip import ClipView
from anisora.media.reader import read_video
from anisora.media.writer import write_video
from anisora.synthetic import render_clip

CHANGES = ("encoded", "mirrored", "cropped", "cropped_mirrored", "shorter")

#: Real clips that show the same scene or the same drawings, seen by eye: a pair of them is neither right nor wrong.
SAME_SCENE = (
    {"anisora/132.gif", "anisora/133.gif"},
    {"anita/00131_1_fps10.gif", "anita/00141_1_fps10.gif"},
    {"anita/00151_1_fps10.gif", "anita/00161_1_fps10.gif"},
    {"anita/051_1_fps10.gif", "anita/061_1_fps10.gif"},
    {"anita/071_1_fps10.gif", "anita/081_1_fps10.gif"},
    {"tooncrafter/04.gif", "tooncrafter/05.gif"},
    {"tooncrafter/06.gif", "tooncrafter/07.gif"},
    {"tooncrafter/08.gif", "tooncrafter/09.gif"},
    {"tooncrafter/10.gif", "tooncrafter/11.gif", "tooncrafter/12.gif"},
)


def changed(frames: np.ndarray, change: str, rng: np.random.Generator) -> np.ndarray:
    """The frames after one change; encoding comes on top of every one."""
    height, width = frames.shape[1:3]
    if "cropped" in change:
        keep = rng.uniform(0.75, 0.95)
        w, h = round(width * keep) // 2 * 2, round(height * keep) // 2 * 2
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        frames = frames[:, y : y + h, x : x + w]
    if "mirrored" in change:
        frames = frames[:, :, ::-1]
    if change == "shorter":
        cut = len(frames) // 4
        frames = frames[cut : len(frames) - cut]
    return np.ascontiguousarray(frames)


def encoded(frames: np.ndarray, fps: Fraction, folder: Path) -> np.ndarray:
    """The frames after a lossy encoder at three quarters of the size."""
    import cv2

    size = tuple(max(32, round(side * 0.75) // 2 * 2) for side in (frames.shape[2], frames.shape[1]))
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    path = folder / "copy.mp4"
    write_video(path, small, fps, quality=30)
    return read_video(path).frames_THWC


def originals(clips: int, data: Path | None, seed: int) -> Iterator[tuple[str, np.ndarray, Fraction]]:
    for index in range(clips):
        clip = render_clip(seed + index, 0, split="seen", n_frames=32, fps=8, size_px=(320, 180))
        yield f"synthetic/{index}", clip.video_THWC, Fraction(8)
    if data:
        for folder in ("animatediff", "anisora", "anita", "pypi", "realesrgan", "sakuga", "tooncrafter"):
            for path in sorted((data / folder).iterdir()):
                if path.suffix in (".gif", ".mp4") and "mask" not in path.name and "pose.gif" not in path.name:
                    video = read_video(path, num_frames=96)
                    yield f"{folder}/{path.name}", video.frames_THWC, video.fps


def planted(clips: int, data: Path | None, seed: int) -> dict:
    """Recall by change, precision over all pairs, and the pairs that were missed or wrong."""
    prints, truth, seconds = [], {}, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, frames, fps) in enumerate(originals(clips, data, seed)):
            rng = np.random.default_rng([seed, number])
            change = CHANGES[number % len(CHANGES)]
            copy = encoded(changed(frames, change, rng), fps, Path(scratch))
            started = time.process_time()
            for clip_id, pixels in ((name, frames), (f"copy of {name}", copy)):
                prints.append(fingerprint(ClipView.of_frames(pixels, fps), clip_id, clip_id))
            seconds += time.process_time() - started
            if len(prints[-2].small_KHW):
                truth[frozenset((name, f"copy of {name}"))] = change
    started = time.process_time()
    found = {frozenset((r.a, r.b)): r for r in find_repeats(prints)}
    matching = time.process_time() - started
    wrong = [sorted(pair) for pair in found if pair not in truth and not same_scene(pair)]
    missed = [[*sorted(pair), change] for pair, change in truth.items() if pair not in found]
    right = len(truth) - len(missed)
    by_change = {
        c: [sum(p in found for p, k in truth.items() if k == c), list(truth.values()).count(c)] for c in CHANGES
    }
    mirrored = [found[p].is_mirrored == ("mirrored" in c) for p, c in truth.items() if p in found]
    return {
        "clips": len(prints),
        "planted": len(truth),
        "recall": right / len(truth),
        "precision": right / max(right + len(wrong), 1),
        "recall_by_change": {change: f"{a}/{b}" for change, (a, b) in by_change.items()},
        "mirroring_told_right_frac": float(np.mean(mirrored)),
        "missed": missed,
        "wrong": wrong,
        "cpu_s": {"fingerprints": seconds, "matching": matching},
    }


def same_scene(pair: frozenset[str]) -> bool:
    names = {name.removeprefix("copy of ") for name in pair}
    return len(names) == 1 or any(names <= group for group in SAME_SCENE)


def openings(episodes: int, seed: int) -> dict:
    """Episodes with one 30 s opening spliced in at another moment each, encoded anew; how much of it is found."""
    fps = 8

    def stretch(seed: int, seconds: int) -> np.ndarray:
        parts = [
            render_clip(seed, k, split="seen", n_frames=3 * fps, fps=fps, size_px=(160, 90)).video_THWC
            for k in range(seconds // 3)
        ]
        return np.concatenate(parts)

    opening, tracks, at = stretch(seed + 2000, 30), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(episodes):
            before = 3 * (1 + number % 4)
            frames = np.concatenate([stretch(seed + 2100 + number, before), opening, stretch(seed + 2200 + number, 24)])
            frames = frames[number % 3 :]  # so that the samples fall on other moments
            pixels = encoded(frames, Fraction(fps), Path(scratch))
            _, hashes, _ = hash_frames(pixels)
            tracks.append(SourceTrack(source_id=str(number), time_s=np.arange(len(hashes)) / fps, hash_N=hashes))
            at[str(number)] = before - (number % 3) / fps
    runs = find_runs(tracks)
    pairs = episodes * (episodes - 1) // 2
    good = [r for r in runs if abs((r.a_start_s - at[r.a]) - (r.b_start_s - at[r.b])) < 0.6]
    inside = [min(r.a_end_s, at[r.a] + 30) - max(r.a_start_s, at[r.a]) for r in good]
    outside = [r.a_end_s - r.a_start_s - i for r, i in zip(good, inside, strict=True)]
    return {
        "pairs": pairs,
        "recall": len({(r.a, r.b) for r in good}) / pairs,
        "precision": len(good) / max(len(runs), 1),
        "covered_frac": float(np.mean(inside)) / 30 if inside else 0.0,
        "beyond_s_mean": float(np.mean(outside)) if outside else 0.0,
    }


def million(count: int) -> dict:
    """Seconds to find all pairs between two lists of hashes; half of the second list is the first, up to 8 bits off."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**64, count, dtype=np.uint64)
    b = rng.integers(0, 2**64, count, dtype=np.uint64)
    half = count // 2
    b[:half] = a[:half]
    flips, number = rng.integers(0, 64, (half, MOST_BITS)).astype(np.uint64), rng.integers(0, MOST_BITS + 1, half)
    for k in range(MOST_BITS):
        b[:half][number > k] ^= np.uint64(1) << flips[number > k, k]
    result = {"hashes": count}
    for bits in (5, MOST_BITS):
        started, cpu = time.perf_counter(), time.process_time()
        i, j, _ = alike(a, b, bits)
        expected = int((np.bitwise_count(a[:half] ^ b[:half]) <= bits).sum())
        result[f"within_{bits}_bits"] = {
            "wall_s": time.perf_counter() - started,
            "cpu_s": time.process_time() - cpu,
            "planted_found_frac": float(((i == j) & (i < half)).sum() / expected),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="clips of the procedural corpus")
    parser.add_argument("--data", type=Path, help="folder of real clips")
    parser.add_argument("--seed", type=int, default=5000, help="of the drawn clips and of how clips are changed")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--hashes", type=int, default=1_000_000, help="0 leaves the timing out")
    args = parser.parse_args()
    result = {"planted": planted(args.clips, args.data, args.seed), "openings": openings(args.episodes, args.seed)}
    if args.hashes:
        result["million"] = million(args.hashes)
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
