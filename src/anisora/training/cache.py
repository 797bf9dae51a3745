"""Clips encoded once and kept: the codec, the image branch and the text encoder then do no work while training.

Online, which is the default, a clip gets another window and other guides each time it is shown. Here every clip has a few
variants, each with a window and guides of its own, drawn once; a step takes one of them. Time and texts are saved for
variety and disk: what it costs is told when the folder is filled. A variant holds exactly what encoding it online gives.

FOLDER/clips/KEY.safetensors   one variant; KEY is a hash of the clip's bytes, the codec's files, size, length, rate, draws
FOLDER/texts/KEY/              states of captions, by the text encoder's files and precision
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anisora.conditioning.encode import Conditions
from anisora.errors import BadImage, BadVideo, Failed
from anisora.files import sha256_file, write_atomic
from anisora.media.frames import to_float_CTHW
from anisora.settings import plain, setting
from anisora.store import content_hash
from anisora.training.backbone import Backbone, SeenConditions
from anisora.training.data import Bucket, Dataset
from anisora.training.examples import ConditionSettings, plan_for
from anisora.training.pairs import area_of
from anisora.training.parallel import World


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What is encoded ahead of training."""

    variants: int = setting(4, "windows and guides that each clip is kept with")
    folder: Path | None = setting(None, "where; may be shared by runs; default: RUN/cache")


@dataclass(frozen=True, kw_only=True)
class CacheCost:
    """What filling a cache took: variants in it, those made now, bytes of all, seconds of this process."""

    variants: int
    made: int
    size_bytes: int
    seconds: float

    def __str__(self) -> str:
        each = f", {self.seconds / self.made:.3g} s each" if self.made else ""
        return f"{self.variants} variants, {self.size_bytes / 2**20:.4g} MiB; {self.made} of them made now{each}"


class Cache:
    """The variants of the clips of a run, by bucket, clip and number."""

    def __init__(
        self,
        settings: CacheSettings,
        backbone: Backbone,
        conditions: ConditionSettings,
        *,
        seed: int,
        folder: Path,
    ) -> None:
        self._variants, self._seed = settings.variants, seed
        self._backbone, self._conditions = backbone, conditions
        self._clips = (settings.folder or folder) / "clips"
        parts = ("vae", "image_encoder") if backbone.info.image_branch else ("vae",)
        draws = {name: value for name, value in plain(conditions).items() if name != "text_dropout"}
        info = backbone.info
        self._how = [_files_hash(info.path, parts), info.family, plain(info.strides), info.snap, draws, seed]
        self._digests: dict[tuple[int, int], str] = {}
        text = content_hash([_files_hash(info.path, ("text_encoder", "tokenizer")), str(backbone.text_dtype)])
        backbone.text_folder = self._clips.parent / "texts" / text

    def fill(self, datasets: Sequence[Dataset], world: World) -> CacheCost:
        """Encodes what is missing, each process its share; a kill loses the variant at hand. Clips that cannot be
        decoded are left to the loader, which tells of them and shows others."""
        begun = time.perf_counter()
        wanted = [
            (data.fps, bucket, index, variant)
            for data in datasets
            for bucket in data.buckets
            for index in bucket.indices
            for variant in range(self._variants)
        ]
        made = 0
        for fps, bucket, index, variant in _watched(wanted[world.rank :: world.size], world.is_first):
            if not self._path(bucket, index, variant, fps).exists():
                made += self._make(bucket, index, variant, fps)
        captions = {data.text_of(clip) for data in datasets for bucket in data.buckets for clip in bucket.clips}
        for caption in ["", *sorted(captions)][world.rank :: world.size]:
            self._backbone.text([caption])
        world.wait()
        paths = {self._path(bucket, index, variant, fps) for fps, bucket, index, variant in wanted}
        sizes = [path.stat().st_size for path in paths if path.exists()]
        seconds = time.perf_counter() - begun
        return CacheCost(variants=len(sizes), made=made, size_bytes=sum(sizes), seconds=seconds)

    def reader(self, data: Dataset) -> Callable[[Bucket, int, np.random.Generator], dict[str, Tensor]]:
        """`read(bucket, index, rng)`: the tensors of one of a clip's variants. Raises what decoding the clip raised."""

        def read(bucket: Bucket, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
            from safetensors.torch import load_file

            path = self._path(bucket, index, int(rng.integers(self._variants)), data.fps)
            if not path.exists():
                bucket.source.read(index, bucket.num_frames, bucket.size_px, data.fps, rng)
                raise Failed("a clip is gone from the cache", got=path, hint="running the same command again")
            return load_file(path)

        return read

    def encoded(self, bucket: Bucket, index: int, variant: int, fps: Fraction) -> dict[str, Tensor]:
        """What one variant of a clip is to the network, on the CPU: clean latents, conditions, the image branch's states."""
        backbone = self._backbone
        rng = np.random.default_rng([self._seed, variant, int(self._digest(bucket, index)[:15], 16)])
        video_THWC = bucket.source.read(index, bucket.num_frames, bucket.size_px, fps, rng)
        video_BCTHW = to_float_CTHW(video_THWC)[None].to(backbone.device)
        area_HW = area_of(bucket.source, index, bucket.size_px)
        plans = [plan_for(video_BCTHW[0].transpose(0, 1), self._conditions, rng, backbone.info, area_HW)]
        conditions = backbone.conditions(plans)
        found = {
            "clean": backbone.target(video_BCTHW, plans),
            "latent": conditions.latent_BCFYX,
            "mask": conditions.mask_BMFYX,
            "picture": backbone.pictures(conditions),
        }
        return {name: value[0].cpu().contiguous() for name, value in found.items() if value is not None}

    def _make(self, bucket: Bucket, index: int, variant: int, fps: Fraction) -> bool:
        from safetensors.torch import save_file

        try:
            tensors = self.encoded(bucket, index, variant, fps)
        except (BadVideo, BadImage):
            return False
        path = self._path(bucket, index, variant, fps)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda partial: save_file(tensors, partial))
        return True

    def _path(self, bucket: Bucket, index: int, variant: int, fps: Fraction) -> Path:
        shape = [list(bucket.size_px), bucket.num_frames, str(fps)]
        return self._clips / f"{content_hash([self._digest(bucket, index), shape, variant, self._how])}.safetensors"

    def _digest(self, bucket: Bucket, index: int) -> str:
        key = (id(bucket.source), index)
        if key not in self._digests:
            digest, area = bucket.source.digest(index), bucket.source.clips[index].area_sha256
            self._digests[key] = content_hash([digest, area]) if area else digest
        return self._digests[key]


def stacked(samples: Sequence[Mapping[str, Tensor]], device: torch.device) -> tuple[Tensor, Conditions]:
    """(clean_BCFYX, conditions) of several variants of one shape."""
    batch: dict[str, Any] = {name: torch.stack([s[name] for s in samples]).to(device) for name in samples[0]}
    conditions = SeenConditions(
        latent_BCFYX=batch["latent"],
        mask_BMFYX=batch.get("mask"),
        reference_images=(None,) * len(samples),
        picture_BND=batch.get("picture"),
    )
    return batch["clean"], conditions


def _files_hash(checkpoint: str | Path, parts: Iterable[str]) -> str:
    """Of all files of a checkpoint's parts, names and contents."""
    paths = sorted(path for part in parts for path in (Path(checkpoint) / part).rglob("*") if path.is_file())
    return content_hash([[str(path.relative_to(checkpoint)), sha256_file(path)] for path in paths])


def _watched(wanted: list[Any], is_shown: bool) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    return track(wanted, "encoding clips", console=Console(stderr=True), transient=True, disable=not is_shown)
