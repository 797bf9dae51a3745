"""What a curation run is asked to do: one dataclass, read from YAML and flags alike.

Settings of what is measured go into the keys of results; thresholds and proportions do not, so that they can be changed
without measuring anything again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from anisora.curation.materialise import Encoding
from anisora.curation.mixture import PRESETS, Stage
from anisora.curation.select import DEFAULT_BETWEEN, Rules
from anisora.curation.shards import ShardSettings
from anisora.errors import BadConfig
from anisora.settings import setting


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Cutting overlays off: the largest rectangle without them, any side."""

    enabled: bool = setting(True, "crop clips with subtitles or logos instead of dropping them")
    aspect: str | None = setting(None, "W:H of the crop, as 16:9; default: the picture's own")
    least_area: float = setting(0.6, "the share of the picture that must be left")


@dataclass(frozen=True, kw_only=True)
class AestheticSettings:
    """The aesthetic score: plain features, or LAION's predictor with weights of the user's; null leaves it out."""

    clip_model: str | None = setting(None, "folder of a transformers CLIP")
    head: str | None = setting(None, "a LAION predictor's .pth")


@dataclass(frozen=True, kw_only=True)
class CaptionChoice:
    """Which captioner writes."""

    backend: Literal["none", "bundled", "full", "service"] = setting(
        "bundled", "bundled: composed from tags; full: a model by path; service: an endpoint"
    )
    model: str | None = setting(None, "folder of a Qwen2-VL, 2.5-VL or 3-VL checkpoint, or the endpoint's model name")
    adapter: str | None = setting(None, "LoRA folder that `anisora train captioner` made")
    url: str | None = setting(None, "an OpenAI-compatible endpoint, as http://127.0.0.1:8000/v1")


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """Everything `anisora curate --config` may set."""

    longest_s: float = setting(8.0, "longer shots are cut into equal parts no longer than this")
    shots: dict[str, Any] = field(default_factory=dict, metadata={"help": "settings of the shot detector"})
    text: Literal["fast", "accurate", "none"] = setting(
        "fast", "text cover of survivors: by PP-OCR, by CRAFT, or not at all, and without its bound then"
    )
    aesthetic: AestheticSettings | None = field(default_factory=lambda: AestheticSettings())
    crop: CropSettings = field(default_factory=CropSettings)
    benchmark: str | None = setting(None, "folder of clips that training must not see; what shows the same is dropped")
    caption: CaptionChoice = field(default_factory=CaptionChoice)
    heads: str | None = setting(
        None, "folder of trained heads (talking, motion grade, ...), or `none`; default: the bundled"
    )
    encode: Encoding = field(default_factory=Encoding)
    select: Rules = field(default_factory=Rules)
    stages: tuple[Stage | str, ...] = setting((), "training stages, or the names of presets")
    shards: ShardSettings = field(default_factory=ShardSettings)
    licence: str | None = setting(None, "of sources that the table of licences does not name")
    licences: str | None = setting(None, "CSV: path, licence, provenance, split")
    validation: float = setting(0.0, "share of sources set aside as the split `validation`")
    memory_gib: float = setting(6.0, "a worker that holds more is ended")
    deadline_factor: float = setting(60.0, "seconds of work allowed for a second of video, beside two minutes a unit")

    def __post_init__(self) -> None:
        if self.longest_s <= 0:
            raise BadConfig("longest_s out of range", got=self.longest_s, expected="above 0")
        if not 0 <= self.validation < 1:
            raise BadConfig("validation out of range", got=self.validation, expected="0 or more, below 1")
        if self.text == "none" and self.select.between.get("text_cover") == DEFAULT_BETWEEN["text_cover"]:
            # nobody asked for this bound, and without the measure no clip could meet it
            between = {name: bounds for name, bounds in self.select.between.items() if name != "text_cover"}
            object.__setattr__(self, "select", replace(self.select, between=between))
        for stage in self.stages:
            if isinstance(stage, str) and stage not in PRESETS:
                raise BadConfig("no such stage", got=stage, expected=" or ".join(PRESETS))

    def all_stages(self) -> list[Stage]:
        """The stages, presets looked up."""
        return [PRESETS[stage] if isinstance(stage, str) else stage for stage in self.stages]


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
