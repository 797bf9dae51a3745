"""The synthetic corpus on disk: clips rendered once, read as memory-mapped uint8 by whatever trains.

A clip is a pure function of (seed, index), so the folder is a cache: it may be deleted, and an interrupted rendering goes
on where it stopped. One bucket per frame size; within a bucket every clip has the same shape.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anisora.errors import BadConfig

if TYPE_CHECKING:
    from anisora.synthetic import ClipPlan

# Clips per unit of work: small enough that an interruption loses seconds, large enough that files stay few.
_CHUNK = 100

# Clips chosen for what they show are looked for from here on, in each bucket.
_WHOLE_BODIES_FROM = 10_000_000


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
    whole_bodies: float = 0.0
    """Share of the clips that show somebody alone, as a whole body, before a camera that stands still, every action that can be
    seen so as often as the others. In the rest such clips are few, and those of some actions one in thousands: too seldom for
    their word to be learnt."""
    taken_up: float = 0.0
    """Share of those clips that begin in the pose of another action and go over to their own at once. In all others the first
    frame is a pose of the action itself, so that what a drawing and the prompt for something else ask for is never seen.
    Only the first window of a clip shows it: `frames` should be no more than the denoiser's."""


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
    for name in ("whole_bodies", "taken_up"):
        if not 0 <= (share := getattr(settings, name)) <= 1:
            raise BadConfig(f"data.{name} is a share", got=share, expected="0 to 1")
    stamp = json.dumps(_told(settings), sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "corpus.json"
    if not note.exists():
        note.write_text(stamp)
    elif note.read_text() != stamp:
        raise BadConfig("another corpus is in this folder", got=str(folder), hint="another folder, or delete this one")
    return [_open_bucket(settings, number, folder, workers) for number in range(len(settings.buckets))]


def _told(settings: CorpusSettings) -> dict[str, Any]:
    """The fields that name a corpus; what came later is told where it is used, so that older ones are still known."""
    told = asdict(settings)
    return {name: told[name] for name in told if told[name] or name not in ("whole_bodies", "taken_up")}


def _open_bucket(settings: CorpusSettings, number: int, folder: Path, workers: int | None) -> Bucket:
    width, height, share = settings.buckets[number]
    num = max(1, round(settings.clips * share))
    place = folder / f"{number}-{width}x{height}"
    place.mkdir(exist_ok=True)
    path, shape = place / "video.npy", (num, settings.frames, height, width, 3)
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    missing = [start for start in range(0, num, _CHUNK) if not (place / f"{start}.json").exists()]
    indices = clip_indices(settings, number, num) if missing else []
    jobs = [(settings, number, place, start, indices[start : start + _CHUNK]) for start in missing]
    if jobs:
        # Forked workers would inherit torch's threads; spawned ones start clean.
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(_render_chunk, jobs), 1):
                _say(f"rendering {width}x{height}: {_clips_of(done, num)} of {_clips_of(len(jobs), num)} clips")
    captions = [text for start in range(0, num, _CHUNK) for text in json.loads((place / f"{start}.json").read_text())]
    return Bucket(video_NTHWC=np.load(path, mmap_mode="r"), captions=captions, share=share)


def clip_indices(settings: CorpusSettings, number: int, num: int) -> list[int]:
    """Which clips of the seed the first `num` of a bucket are."""
    step = len(settings.buckets)
    # Buckets take turns in the index, so no clip stands in two sizes.
    usual = (number + step * k for k in itertools.count())
    if not settings.whole_bodies:
        return list(itertools.islice(usual, num))
    chosen = [int((k + 1) * settings.whole_bodies) > int(k * settings.whole_bodies) for k in range(num)]
    whole = iter(_whole_bodies(settings, number, sum(chosen)))
    return [next(whole if is_whole else usual) for is_whole in chosen]


def _whole_bodies(settings: CorpusSettings, number: int, num: int) -> list[int]:
    """The first `num` clips that show a whole body, action by action in turns, from an index on that usual ones never reach."""
    from anisora.synthetic import plan_clip, whole_body_actions

    found: dict[str, list[int]] = {action: [] for action in whole_body_actions(settings.corpus_version)}
    each = math.ceil(num / len(found))
    for index in itertools.count(_WHOLE_BODIES_FROM * len(settings.buckets) + number, len(settings.buckets)):
        if all(len(indices) == each for indices in found.values()):
            break
        plan = plan_clip(settings.seed, index, version=settings.corpus_version)
        if plan.shows_whole_body and len(found[plan.action]) < each:
            found[plan.action].append(index)
    return [index for turn in zip(*found.values(), strict=True) for index in turn][:num]


def planned(settings: CorpusSettings, index: int) -> ClipPlan:
    """The plan of one of the `clip_indices`."""
    from anisora.synthetic import may_take_up, plan_clip, taken_up

    plan = plan_clip(settings.seed, index, version=settings.corpus_version)
    rng = np.random.default_rng([settings.seed, index])
    if index < _WHOLE_BODIES_FROM or rng.random() >= settings.taken_up:
        return plan
    return taken_up(plan, str(rng.choice(may_take_up(plan))))


def _render_chunk(job: tuple[CorpusSettings, int, Path, int, list[int]]) -> None:
    from anisora.synthetic import render_plan

    settings, number, place, start, indices = job
    width, height, _ = settings.buckets[number]
    video_NTHWC = np.lib.format.open_memmap(place / "video.npy", mode="r+")
    captions = []
    for at, index in enumerate(indices, start):
        clip = render_plan(
            planned(settings, index),
            settings.frames,
            Fraction(settings.fps),
            (width, height),
            backend="skia",  # the corpus is this backend's pixels; another one is refused, not mixed in
        )
        video_NTHWC[at] = clip.video_THWC
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
    indices = clip_indices(settings, 0, clips) if missing else []
    chunks = [(start, slice(start, start + _CHUNK)) for start in missing]
    jobs = [(settings, window, place, start, frames_NK[chunk], indices[chunk]) for start, chunk in chunks]
    if jobs:
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(_flow_chunk, jobs), 1):
                _say(f"exact flow: {_clips_of(done, clips)} of {_clips_of(len(jobs), clips)} clips")
    return Flows(frames_NK=frames_NK, flow_NK4HW=np.load(path, mmap_mode="r"))


def _flow_frames(num_frames: int, num: int, index: int) -> np.ndarray:
    rng = np.random.default_rng([index, 11])
    return np.sort(rng.choice(np.arange(1, num_frames - 1), size=num, replace=False))


def _flow_chunk(job: tuple[CorpusSettings, int, Path, int, np.ndarray, list[int]]) -> None:
    from anisora.synthetic import flows_between

    settings, window, place, start, frames_NK, indices = job
    width, height, _ = settings.buckets[0]
    flow_NK4HW = np.lib.format.open_memmap(place / "flow.npy", mode="r+")
    last = window - 1
    for at, (index, frames) in enumerate(zip(indices, frames_NK, strict=True), start):
        pairs = [(int(t), to) for t in frames for to in (0, last)]
        flow = flows_between(planned(settings, index), pairs, settings.fps, (width, height), backend="skia")
        flow_NK4HW[at] = flow.transpose(0, 3, 1, 2).reshape(len(frames), 4, height, width)
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


def _clips_of(chunks: int, most: int) -> int:
    """About how many clips those chunks hold; the last one may be a smaller one."""
    return min(chunks * _CHUNK, most)


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False)
