"""A run in stages: spans of steps with data of their own, one after the other, on the same weights and optimiser.

The paper goes from 480p at 8 frames a second over 16 to 720p, then to the best clips and to clips without subtitles
("weak to strong", section 4.3 and S2.1). A stage changes what is shown and how fast is learned, and nothing else; how long
it lasts is said in steps or in epochs, which need not be whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

from anisora import settings
from anisora.errors import BadConfig
from anisora.geometry import Strides, round_half_up
from anisora.models.checkpoint import Native
from anisora.settings import plain, setting
from anisora.store import content_hash
from anisora.training.data import Dataset, DataSettings, open_data
from anisora.training.sources import ClipInfo

_480P = [[832, 480], [480, 832], [624, 624]]
_720P = [[1280, 720], [720, 1280], [960, 960]]
#: 2, 4, 6 and 8 seconds (paper S2.1: lengths of 2 to 8 seconds, mixed)
_AT_8_FPS, _AT_16_FPS = [17, 33, 49, 65], [33, 65, 97, 129]


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """A stage of a run; what it does not say is as the run says, or as its preset does."""

    preset: str | None = setting(None, "a key of PRESETS whose fields it starts from")
    steps: int | None = setting(None, "how long it lasts; or")
    epochs: float | None = setting(None, "how often its clips are shown; need not be whole")
    learning_rate_scale: float = setting(1.0, "times the run's learning rate")
    data: dict[str, Any] = field(default_factory=dict)


#: the stages of the paper, each with its length; `mixture` names what `anisora curate select` writes for it
PRESETS: dict[str, dict[str, Any]] = {
    "sft-480p8": {"epochs": 3.0, "data": {"sizes": _480P, "frames": _AT_8_FPS, "fps": 8, "mixture": "480p-8fps"}},
    "sft-480p16": {"epochs": 1.9, "data": {"sizes": _480P, "frames": _AT_16_FPS, "fps": 16, "mixture": "480p-16fps"}},
    "sft-720p16": {"epochs": 2.3, "data": {"sizes": _720P, "frames": _AT_16_FPS, "fps": 16, "mixture": "720p-16fps"}},
    "sft-hq": {"epochs": 1.0, "data": {"sizes": _720P, "frames": _AT_16_FPS, "fps": 16, "mixture": "high-quality"}},
    "sft-clean": {"steps": 5500, "data": {"sizes": _480P, "frames": _AT_16_FPS, "fps": 16, "mixture": "subtitle-free"}},
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage with nothing left open. One of `steps` and `epochs` is not None."""

    name: str
    data: DataSettings
    steps: int | None
    epochs: float | None
    learning_rate_scale: float = 1.0

    def num_steps(self, epoch_steps: Fraction | int) -> int:
        """Its steps, where one epoch takes `epoch_steps`."""
        return self.steps if self.steps is not None else max(1, round_half_up(Fraction(self.epochs or 0) * epoch_steps))


def resolve(stages: Mapping[str, StageSettings], data: DataSettings) -> list[Stage]:
    """The stages in their order, presets filled in and laid over the run's data. Raises BadConfig, naming the stage."""
    return [_resolved(name, stage, data) for name, stage in stages.items()]


def _resolved(name: str, stage: StageSettings, data: DataSettings) -> Stage:
    where = f"stages.{name}"
    preset: dict[str, Any] = {}
    if stage.preset is not None:
        settings.check_keys({stage.preset: None}, PRESETS, where=f"{where}.preset")
        preset = PRESETS[stage.preset]
    fields = {**preset.get("data", {}), **stage.data}
    if fields.get("mixture") and data.shards is None and "mixture" not in stage.data:
        del fields["mixture"]  # a folder of videos is its own mixture
    steps, epochs = stage.steps, stage.epochs
    if steps is None and epochs is None:
        steps, epochs = preset.get("steps"), preset.get("epochs")
    if (steps is None) == (epochs is None):
        raise BadConfig(f"{where}: its length", got=f"steps {steps}, epochs {epochs}", expected="one of them")
    if min(x for x in (steps, epochs, stage.learning_rate_scale) if x is not None) <= 0:
        raise BadConfig(f"{where}: steps, epochs and learning_rate_scale", expected="above 0")
    shown = settings.read(DataSettings, {**plain(data), **fields}, where=f"{where}.data")
    if shown.mixture is not None and shown.shards is not None:
        shown = replace(shown, mixture=_mixture(shown.shards, shown.mixture))
    return Stage(
        name=name, data=shown, steps=steps, epochs=epochs, learning_rate_scale=stage.learning_rate_scale
    )  # fmt: skip


def _mixture(shards: Path, named: Path) -> Path:
    """A mixture by its path, or by the name that curation gave it."""
    by_name = shards / "mixtures" / f"{named}.parquet"
    return by_name if not named.exists() and by_name.exists() else named


@dataclass(frozen=True, kw_only=True)
class Course:
    """The stages of a run with their clips opened, and the step after each one's last."""

    stages: tuple[Stage, ...]
    data: tuple[Dataset, ...]
    ends: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.ends[-1]

    def at(self, step: int) -> tuple[int, int]:
        """The number of a step's stage, and the step within it."""
        number = bisect_right(self.ends, step)
        return number, step - (self.ends[number - 1] if number else 0)

    def described(self) -> dict[str, Any]:
        """Which clips are shown, in which shapes, with which captions and motion areas: how many, and a hash of it all."""
        shown = [
            [str(bucket), bucket.batch, [_identity(clip) for clip in bucket.clips]]
            for data in self.data
            for bucket in data.buckets
        ]
        return {"number": sum(data.num_clips for data in self.data), "sha256": content_hash(shown)}


def _identity(clip: ClipInfo) -> list[str | None]:
    return [clip.name, clip.caption, *([clip.area_sha256] if clip.area_sha256 else [])]


def open_stages(
    stages: Sequence[Stage], strides: Strides, native: Native, *, seed: int, cache: Path, world_size: int = 1
) -> Course:
    """The stages with their clips, each in an order of its own. Raises what `open_data` raises."""
    shape = (native.size, native.frames, Fraction(native.fps).limit_denominator(1001))
    data = [
        open_data(stage.data, strides, shape, seed=seed + number, cache=cache, world_size=world_size)
        for number, stage in enumerate(stages)
    ]
    steps = [stage.num_steps(shown.epoch_steps) for stage, shown in zip(stages, data, strict=True)]
    return Course(stages=tuple(stages), data=tuple(data), ends=tuple(accumulate(steps)))
