"""The synthetic corpus on disk: clips rendered once, read as memory-mapped uint8 by whatever trains.

A clip is a pure function of (seed, index), so the folder is a cache: it may be deleted, and an interrupted rendering goes
on where it stopped. One bucket per frame size; within a bucket every clip has the same shape.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from anisora.errors import BadConfig

# Clips per unit of work: small enough that an interruption loses seconds, large enough that files stay few.
_CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Which clips; the digest of these fields names the cache folder."""

    seed: int = 0
    """Must lie in synthetic.TRAIN_SEEDS."""
    clips: int = 6000
    frames: int = 33
    fps: int = 16
    buckets: tuple[tuple[int, int, float], ...] = ((96, 96, 1.0),)
    """(width, height, share of the clips) per frame size."""
    corpus_version: int = 2
    """One of synthetic.VERSIONS: which actions, things, framings and languages the clips are drawn from."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """`video_NTHWC` (uint8, memory-mapped) and the caption of each clip; `share` is how often it is drawn from."""

    video_NTHWC: np.ndarray
    captions: list[str]
    share: float


def open_corpus(settings: CorpusSettings, folder: Path, *, workers: int | None = None) -> list[Bucket]:
    """The buckets, rendered first where they are missing. Raises BadConfig if the folder holds another corpus, or
    for a seed or version that cannot be."""
    from anisora.synthetic import plan_clip

    # Refuses what cannot be before any worker starts.
    plan_clip(settings.seed, 0, version=settings.corpus_version)
    stamp = json.dumps(asdict(settings), sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "corpus.json"
    if not note.exists():
        note.write_text(stamp)
    elif note.read_text() != stamp:
        raise BadConfig("another corpus is in this folder", got=str(folder), hint="another folder, or delete this one")
    return [_open_bucket(settings, number, folder, workers) for number in range(len(settings.buckets))]


def _open_bucket(settings: CorpusSettings, number: int, folder: Path, workers: int | None) -> Bucket:
    width, height, share = settings.buckets[number]
    num = max(1, round(settings.clips * share))
    place = folder / f"{number}-{width}x{height}"
    place.mkdir(exist_ok=True)
    path, shape = place / "video.npy", (num, settings.frames, height, width, 3)
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    missing = [start for start in range(0, num, _CHUNK) if not (place / f"{start}.json").exists()]
    jobs = [(settings, number, place, start, min(start + _CHUNK, num)) for start in missing]
    if jobs:
        # Forked workers would inherit torch's threads; spawned ones start clean.
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(_render_chunk, jobs), 1):
                _say(f"rendering {width}x{height}: {done * _CHUNK} of {len(jobs) * _CHUNK} clips")
    captions = [text for start in range(0, num, _CHUNK) for text in json.loads((place / f"{start}.json").read_text())]
    return Bucket(video_NTHWC=np.load(path, mmap_mode="r"), captions=captions, share=share)


def _render_chunk(job: tuple[CorpusSettings, int, Path, int, int]) -> None:
    from anisora.synthetic import render_clip

    settings, number, place, start, stop = job
    width, height, _ = settings.buckets[number]
    video_NTHWC = np.lib.format.open_memmap(place / "video.npy", mode="r+")
    captions = []
    for index in range(start, stop):
        # Buckets take turns in the index, so no clip stands in two sizes.
        clip = render_clip(
            settings.seed,
            index * len(settings.buckets) + number,
            n_frames=settings.frames,
            fps=settings.fps,
            size_px=(width, height),
            backend="skia",  # the corpus is this backend's pixels; another one is refused, not mixed in
            version=settings.corpus_version,
        )
        video_NTHWC[index] = clip.video_THWC
        captions.append(clip.caption)
    video_NTHWC.flush()
    # Two runs may render into one folder: each writes the same bytes, and a file of its own until it is whole.
    partial = place / f"{start}.partial-{os.getpid()}"
    partial.write_text(json.dumps(captions))
    partial.rename(place / f"{start}.json")


@dataclass(frozen=True, kw_only=True)
class Flows:
    """For the first clips of the first bucket: some frames inside a window that starts with the clip, and exact flow from
    each to the window's first and last frame."""

    frames_NK: np.ndarray
    flow_NK4HW: np.ndarray
    """float16 px: (x, y) to the first frame, (x, y) to the last."""


def open_flows(
    settings: CorpusSettings, clips: int, window: int, per_clip: int, folder: Path, *, workers: int | None = None
) -> Flows:
    """Flows of the first `clips` clips within their first `window` frames, computed first where they are missing."""
    width, height, _ = settings.buckets[0]
    place = folder / f"flows-{window}-{per_clip}"
    place.mkdir(parents=True, exist_ok=True)
    path, shape = place / "flow.npy", (clips, per_clip, 4, height, width)
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape).flush()
    frames_NK = np.stack([_flow_frames(window, per_clip, index) for index in range(clips)])
    missing = [start for start in range(0, clips, _CHUNK) if not (place / f"{start}.done").exists()]
    jobs = [(settings, window, place, start, frames_NK[start : start + _CHUNK]) for start in missing]
    if jobs:
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(_flow_chunk, jobs), 1):
                _say(f"exact flow: {done * _CHUNK} of {len(jobs) * _CHUNK} clips")
    return Flows(frames_NK=frames_NK, flow_NK4HW=np.load(path, mmap_mode="r"))


def _flow_frames(num_frames: int, num: int, index: int) -> np.ndarray:
    rng = np.random.default_rng([index, 11])
    return np.sort(rng.choice(np.arange(1, num_frames - 1), size=num, replace=False))


def _flow_chunk(job: tuple[CorpusSettings, int, Path, int, np.ndarray]) -> None:
    from anisora.synthetic import flows_between

    settings, window, place, start, frames_NK = job
    width, height, _ = settings.buckets[0]
    flow_NK4HW = np.lib.format.open_memmap(place / "flow.npy", mode="r+")
    last = window - 1
    for at, frames in enumerate(frames_NK):
        pairs = [(int(t), to) for t in frames for to in (0, last)]
        flow = flows_between(
            settings.seed, (start + at) * len(settings.buckets), pairs, fps=settings.fps, size_px=(width, height),
            backend="skia", version=settings.corpus_version,
        )  # fmt: skip
        flow_NK4HW[start + at] = flow.transpose(0, 3, 1, 2).reshape(len(frames), 4, height, width)
    flow_NK4HW.flush()
    (place / f"{start}.done").touch()


def draw(buckets: list[Bucket], num: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """`num` clips [num, T, H, W, 3] uint8 of one bucket, chosen by share, with their captions."""
    shares = np.array([bucket.share for bucket in buckets])
    bucket = buckets[rng.choice(len(buckets), p=shares / shares.sum())]
    indices = rng.integers(len(bucket.captions), size=num)
    return bucket.video_NTHWC[indices], [bucket.captions[i] for i in indices]


def cut(video_NTHWC: np.ndarray, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """The same random window of every clip, [N, frames, H, W, 3]: every `stride`-th frame from a random one on."""
    reach = (frames - 1) * stride + 1
    start = int(rng.integers(video_NTHWC.shape[1] - reach + 1))
    return video_NTHWC[:, start : start + reach : stride]


def mirrored(video_NTHWC: np.ndarray, captions: list[str]) -> tuple[np.ndarray, list[str]]:
    """Clips seen in a mirror, and captions in which left and right have changed places."""
    from anisora.synthetic import captions as words

    return video_NTHWC[:, :, :, ::-1], [words.mirrored(caption) for caption in captions]


def jitter_colors(video_BCTHW: torch.Tensor, prob: float, rng: np.random.Generator) -> torch.Tensor:
    """The clips in [-1, 1], some of them (each with `prob`) with colours mixed, contrast and brightness changed, one way
    for a whole clip: real pictures do not keep to this corpus' palettes."""
    jittered = video_BCTHW.clone()
    for clip_CTHW in jittered:
        if rng.random() < prob:
            mix = (1 - (strength := rng.uniform(0, 0.5))) * np.eye(3) + strength * rng.dirichlet((1, 1, 1), size=3)
            mixed = torch.einsum("ij,jthw->ithw", clip_CTHW.new_tensor(mix), clip_CTHW)
            clip_CTHW.copy_(mixed.mul_(rng.uniform(0.6, 1.2)).add_(rng.uniform(-0.25, 0.25)).clamp_(-1, 1))
    return jittered


def numpy_rng(generator: torch.Generator) -> np.random.Generator:
    """A numpy generator seeded by the next draw of a torch one: one seed a step serves both libraries."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))


def all_captions(buckets: list[Bucket]) -> Iterator[str]:
    """Every caption, bucket by bucket."""
    for bucket in buckets:
        yield from bucket.captions


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False)
