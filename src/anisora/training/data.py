"""What a step shows: clips in buckets of one shape, stills among them in their proportion, read ahead of the training.

Everything follows from (seed, step): the bucket, the clips, the window of each. A clip that cannot be decoded is replaced
by the next one of its bucket, counted and written down; which one that is follows from the file alone, so a resumed run
shows the same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora import geometry
from anisora.errors import BadConfig, BadImage, BadInput, BadVideo, Failed
from anisora.generation.prompts import whole_sentence
from anisora.geometry import Strides
from anisora.media.frames import fit
from anisora.settings import setting
from anisora.training.corpus import Bucket as CorpusBucket
from anisora.training.corpus import CorpusSettings
from anisora.training.order import Schedule, Share
from anisora.training.pairs import PairedVideos, area_of
from anisora.training.parallel import World
from anisora.training.sources import ClipInfo, Shards, Source, StillFolder, VideoFolder

#: file of a run: a line {name, problem} for every clip that could not be used
UNUSABLE = "unusable.jsonl"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is shown, at which sizes; paths are relative to where the command runs. One of the first three."""

    videos: Path | None = setting(None, "folder of videos with captions: NAME.txt each, captions.jsonl or captions.csv")
    shards: Path | None = setting(None, "what `anisora curate` made")
    synthetic: CorpusSettings | None = setting(None, "procedural clips, drawn once and kept in the run's folder")
    mixture: Path | None = setting(None, "with shards: which clips how often, a file of their mixtures/")
    pairs: Path | None = setting(None, "with videos: the motion areas that `anisora train build-masks` made of them")
    images: Path | None = setting(None, "folder of stills with captions, trained as clips of one frame")
    image_share: float = setting(0.2, "share of the steps that show stills, where there are any")
    caption: str | None = setting(None, "caption of clips that have none; without it they are refused")
    sizes: tuple[tuple[int, int], ...] = setting(
        (), "(width, height) each; a clip goes to the nearest aspect; default: native"
    )
    frames: tuple[int, ...] = setting((), "lengths; a clip goes to the longest that it fills; default: native")
    fps: float | None = setting(None, "frames a second at which clips are read; default: native")
    batch: int = setting(1, "clips a step, over all devices")
    max_tokens: int | None = setting(
        None, "video tokens a step: instead of `batch`, short and small clips come in larger batches"
    )
    workers: int = setting(2, "threads that read ahead")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sample of a step: uint8 [T, H, W, 3], or what a cache holds of it (`training.cache`), and its caption; the motion
    area, bool [H, W], where its source knows it."""

    name: str
    video_THWC: np.ndarray | None
    caption: str
    area_HW: np.ndarray | None = None
    encoded: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Clips of one source that are read in one shape."""

    source: Source
    indices: tuple[int, ...]
    size_px: tuple[int, int]
    num_frames: int
    batch: int
    is_stills: bool = False

    @property
    def clips(self) -> list[ClipInfo]:
        """What is known of its clips."""
        return [self.source.clips[index] for index in self.indices]

    def __str__(self) -> str:
        return f"{self.size_px[0]}x{self.size_px[1]}, {self.num_frames} frames"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The buckets of a run, and how many clips stayed out because they are too short.

    A cycle of the schedule shows every clip `passes` times: as often as it takes for the stills to have their share.
    """

    buckets: tuple[Bucket, ...]
    schedule: Schedule
    passes: int
    fps: Fraction
    caption: str | None
    too_short: int
    unusable: dict[str, str]

    @property
    def num_clips(self) -> int:
        return sum(len(bucket.indices) for bucket in self.buckets)

    @property
    def epoch_steps(self) -> Fraction:
        """Steps in which every clip is shown once."""
        return Fraction(self.schedule.cycle_steps, self.passes)

    def text_of(self, clip: ClipInfo) -> str:
        """What the network reads of a clip: its caption, or the one for all, written as generation writes a prompt."""
        return whole_sentence(clip.caption or self.caption or "")


class _Synthetic:
    """Clips of the procedural corpus, of one size; they hold `frames` frames at `fps` and are read at that rate."""

    def __init__(self, bucket: CorpusBucket, fps: int, number: int) -> None:
        self._video_NTHWC = bucket.video_NTHWC
        _, num_frames, height, width, _ = bucket.video_NTHWC.shape
        self.unusable: dict[str, str] = {}
        self.clips = [
            ClipInfo(
                name=f"synthetic/{number}/{index}",
                caption=caption,
                num_frames=num_frames,
                fps=Fraction(fps),
                size_px=(width, height),
            )
            for index, caption in enumerate(bucket.captions)
        ]

    def read(
        self, index: int, num_frames: int, size_px: tuple[int, int], fps: Fraction, rng: np.random.Generator
    ) -> np.ndarray:
        stride = self.clips[index].fps / fps
        if stride.denominator != 1:
            raise BadConfig("a rate that synthetic clips cannot be read at", got=fps, expected=f"{stride * fps} over n")
        start = int(rng.integers(self.clips[index].num_frames - (num_frames - 1) * int(stride)))
        window = slice(start, start + (num_frames - 1) * int(stride) + 1, int(stride))
        return fit(np.array(self._video_NTHWC[index, window]), size_px, "cover")[0]

    def digest(self, index: int) -> str:
        return hashlib.sha256(self._video_NTHWC[index].tobytes()).hexdigest()


def open_data(
    settings: DataSettings,
    strides: Strides,
    native: tuple[tuple[int, int], int, Fraction],
    *,
    seed: int,
    cache: Path,
    world_size: int = 1,
) -> Dataset:
    """The dataset of a run: clips looked at (not decoded), captions checked, every clip in its bucket.

    `native` is the checkpoint's (size, frames, fps). Raises BadInput for folders without clips and for clips without a
    caption, BadConfig for illegal sizes and batches, BadSize for lengths that the codec cannot fold.
    """
    sources = list(_open_sources(settings, cache))
    sizes, frames = settings.sizes or (native[0],), settings.frames or (native[1],)
    fps = Fraction(settings.fps).limit_denominator(1001) if settings.fps else native[2]
    for size in sizes:
        geometry.check_size(size, strides.size_multiple_px)
    for length in frames:
        geometry.check_num_frames(length, strides.temporal)
    for source, _ in sources:
        _check_captions(source, settings.caption)
    buckets: list[Bucket] = []
    too_short = 0
    for source, is_stills in sources:
        places, short = _places(source, sizes, (1,) if is_stills else frames, fps)
        too_short += short
        for (size, length), indices in sorted(places.items()):
            batch = _batch(settings, strides, size, length, world_size)
            buckets.append(
                Bucket(
                    source=source,
                    indices=tuple(indices),
                    size_px=size,
                    num_frames=length,
                    batch=batch,
                    is_stills=is_stills,
                )
            )
    if not any(source.clips for source, is_stills in sources if not is_stills):
        unusable = {name: why for source, _ in sources for name, why in source.unusable.items()}
        first = next(iter(unusable), None)
        raise BadInput(
            "no clip can be used",
            got=f"{len(unusable)} that cannot be read; {first}: {unusable[first]}" if first else "none",
            expected="a clip that can be decoded",
        )
    if not any(not bucket.is_stills for bucket in buckets):
        raise BadInput(
            "no clip is long enough", got=f"{too_short} shorter ones", expected=f"{min(frames)} frames at {float(fps):g} fps",
            hint="fewer frames, or a lower fps",
        )  # fmt: skip
    shares, passes = _shares(buckets, settings.image_share)
    return Dataset(
        buckets=tuple(buckets),
        schedule=Schedule(shares, seed),
        passes=passes,
        fps=fps,
        caption=settings.caption,
        too_short=too_short,
        unusable={name: why for source, _ in sources for name, why in source.unusable.items()},
    )


def _open_sources(settings: DataSettings, cache: Path) -> Iterator[tuple[Source, bool]]:
    from anisora.training.corpus import open_corpus

    if settings.pairs is not None and settings.videos is None:
        raise BadConfig("pairs without their videos", got=f"data.pairs {settings.pairs}", expected="data.videos")
    named = [name for name in ("videos", "shards", "synthetic") if getattr(settings, name) is not None]
    if len(named) != 1:
        raise BadConfig("data", got=" and ".join(named) or "nothing", expected="one of videos, shards, synthetic")
    if settings.mixture is not None and settings.shards is None:
        raise BadConfig("a mixture without shards", expected="data.shards")
    if settings.videos is not None and settings.pairs is not None:
        yield PairedVideos(settings.videos, settings.pairs), False
    elif settings.videos is not None:
        yield VideoFolder(settings.videos), False
    elif settings.shards is not None:
        yield Shards(settings.shards, settings.mixture), False
    elif settings.synthetic is not None:
        for number, bucket in enumerate(open_corpus(settings.synthetic, cache)):
            yield _Synthetic(bucket, settings.synthetic.fps, number), False
    if settings.images is not None:
        yield StillFolder(settings.images), True


def _check_captions(source: Source, default: str | None) -> None:
    silent = [clip.name for clip in source.clips if clip.caption is None]
    if silent and default is None:
        raise BadInput(
            "clips without a caption",
            got=f"{len(silent)} of {len(source.clips)}, {silent[0]} for one",
            expected="NAME.txt beside each, or captions.jsonl or captions.csv in the folder",
            hint='data.caption="..." for one caption for all of them',
        )


def _places(
    source: Source, sizes: Sequence[tuple[int, int]], lengths: Sequence[int], fps: Fraction
) -> tuple[dict[tuple[tuple[int, int], int], list[int]], int]:
    """(size, length) -> the clips that are read so, and how many clips are shorter than every length."""
    places: dict[tuple[tuple[int, int], int], list[int]] = {}
    short = 0
    for index, clip in enumerate(source.clips):
        filled = [length for length in lengths if length <= clip.frames_at(fps)]
        if not filled:
            short += 1
            continue
        aspect = np.log(clip.size_px[0] / clip.size_px[1])
        size = min(sizes, key=lambda size: (abs(np.log(size[0] / size[1]) - aspect), size))
        places.setdefault((size, max(filled)), []).append(index)
    return places, short


def _batch(settings: DataSettings, strides: Strides, size: tuple[int, int], length: int, world_size: int) -> int:
    """Clips a step of this shape: `batch`, or as many as fit the token budget. Raises BadConfig."""
    if settings.max_tokens is None:
        if settings.batch < 1 or settings.batch % world_size:
            raise BadConfig(
                "a batch that the processes cannot share",
                got=f"batch {settings.batch}, {world_size} processes",
                expected=f"a multiple of {world_size}",
            )
        return settings.batch
    tokens = tokens_of(strides, size, length)
    fitting = settings.max_tokens // tokens // world_size * world_size
    if fitting < 1:
        raise BadConfig(
            "a token budget that a step of these clips does not fit",
            got=f"max_tokens {settings.max_tokens}",
            expected=f"{tokens * world_size} or more, for {world_size} of {size[0]}x{size[1]} with {length} frames",
        )
    return fitting


def tokens_of(strides: Strides, size_px: tuple[int, int], num_frames: int) -> int:
    """Video tokens that the transformer sees of one clip."""
    width, height = (side // strides.size_multiple_px for side in size_px)
    frames = -(-geometry.latent_frames(num_frames, strides.temporal) // strides.patch_temporal)
    return frames * width * height


def _shares(buckets: Sequence[Bucket], image_share: float) -> tuple[tuple[Share, ...], int]:
    """Batches of every bucket in a cycle, and how often it shows each clip; stills get their share of all of them."""
    batches = [-(-len(bucket.indices) // bucket.batch) for bucket in buckets]
    stills = [n for n, bucket in enumerate(buckets) if bucket.is_stills]
    passes = 1
    if stills:
        if not 0 <= image_share < 1:
            raise BadConfig("data.image_share out of range", got=image_share, expected="0 or more, below 1")
        videos = sum(batches) - sum(batches[n] for n in stills)
        share = Fraction(image_share).limit_denominator(10_000)
        passes, wanted = _passes(videos, share / (1 - share))
        if image_share > 0 and not wanted:
            raise BadConfig(
                "data.image_share is too small for so few clips",
                got=f"{image_share} beside {videos} steps of clips a pass",
                expected=f"a still in {_MOST_PASSES} passes at least",
            )
        split = dict(zip(stills, _split(wanted, [batches[n] for n in stills]), strict=True))
        batches = [split.get(n, passes * count) for n, count in enumerate(batches)]
    shares = (
        Share(num_samples=len(bucket.indices), batch=bucket.batch, num_batches=count)
        for bucket, count in zip(buckets, batches, strict=True)
    )
    return tuple(shares), passes


#: a cycle holds at most so many passes over the clips, for the sake of the stills' share
_MOST_PASSES = 20


def _passes(videos: int, ratio: Fraction) -> tuple[int, int]:
    """(passes over the clips, batches of stills) of the shortest cycle with `ratio` stills a step of video, or the nearest."""
    counts = [(passes, geometry.round_half_up(ratio * passes * videos)) for passes in range(1, _MOST_PASSES + 1)]
    return min(counts, key=lambda count: abs(Fraction(count[1], count[0] * videos) - ratio))


def _split(total: int, weights: Sequence[int]) -> list[int]:
    from anisora.curation.mixture import largest_remainder

    return [int(count) for count in largest_remainder(np.array(weights, float), total)]


class Loader:
    """`batch(step)`: the clips of a step that this process trains on, read ahead by threads.

    `read_encoded(bucket, index, rng)` reads them from a cache instead of decoding them.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        seed: int,
        world: World,
        workers: int,
        folder: Path,
        read_encoded: Callable[[Bucket, int, np.random.Generator], dict[str, Any]] | None = None,
    ) -> None:
        self._data, self._seed = data, seed
        self._read_encoded = read_encoded
        self.world = world
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="clips")  # starts no thread before its work
        self._ahead: dict[int, list[Future[Clip]]] = {}
        self._broken: dict[tuple[int, int], str] = {}
        self._record = folder / UNUSABLE
        for name, problem in data.unusable.items():
            self._note(name, problem)

    def bucket(self, step: int) -> Bucket:
        """The bucket of a step."""
        return self._data.buckets[self._data.schedule.batch(step)[0]]

    def batch(self, step: int) -> tuple[list[Clip], float]:
        """This process's clips of a step, and the seconds that were waited for them; reading of the next step's begins.

        Raises Failed where nothing can be read.
        """
        begun = time.perf_counter()
        mine = self._ahead.pop(step, None) or self._submit(step)
        self._ahead = {step + 1: self._ahead.get(step + 1) or self._submit(step + 1)}
        clips = [clip.result() for clip in mine]
        return clips, time.perf_counter() - begun

    def _submit(self, step: int) -> list[Future[Clip]]:
        number, samples = self._data.schedule.batch(step)
        share = len(samples) // self.world.shares
        places = range(self.world.share * share, (self.world.share + 1) * share)
        return [self._pool.submit(self._read, number, samples[place], step, place) for place in places]

    def _read(self, number: int, sample: int, step: int, place: int) -> Clip:
        """The clip, or the next of its bucket that can be read."""
        bucket = self._data.buckets[number]
        for turn in range(len(bucket.indices)):
            index = bucket.indices[(sample + turn) % len(bucket.indices)]
            if (number, index) in self._broken:
                continue
            clip = bucket.source.clips[index]
            rng = np.random.default_rng([self._seed, step, place])
            video_THWC: np.ndarray | None = None
            area_HW: np.ndarray | None = None
            encoded: dict[str, Any] | None = None
            try:
                if self._read_encoded:
                    encoded = self._read_encoded(bucket, index, rng)
                else:
                    video_THWC = bucket.source.read(index, bucket.num_frames, bucket.size_px, self._data.fps, rng)
                    area_HW = area_of(bucket.source, index, bucket.size_px)
            except (BadVideo, BadImage) as problem:
                self._broken[number, index] = str(problem)
                self._note(clip.name, str(problem))
                continue
            text = self._data.text_of(clip)
            return Clip(name=clip.name, video_THWC=video_THWC, caption=text, area_HW=area_HW, encoded=encoded)
        raise Failed(f"no clip of {bucket} can be decoded", got=f"{len(bucket.indices)} tried", hint=f"{self._record}")

    def _note(self, name: str, problem: str) -> None:
        """Says once a run which clip stays out and why, and writes it down."""
        from rich.console import Console

        from anisora.store import append_jsonl, read_jsonl

        known = {record["name"] for record in read_jsonl(self._record)} if self._record.exists() else set()
        if name not in known:
            append_jsonl(self._record, {"name": name, "problem": problem})
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"left out: {name}: {problem}", markup=False)

    @property
    def num_unusable(self) -> int:
        """Clips that this process found undecodable so far, and those that could not be looked at."""
        return len(self._broken) + len(self._data.unusable)
