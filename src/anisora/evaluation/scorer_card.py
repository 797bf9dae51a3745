"""The card of a scorer's folder: which dimensions it scores, how its network is laid out, and where its weights lie.

`scorer.json` of schema 2. A linear head (`scorers`) has schema 1. Weights of others are used by writing a card for them:
the parts may lie anywhere, `head` names the tensor that scores.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from anisora import settings
from anisora.errors import BadCheckpoint, BadInput
from anisora.evaluation.look import Look
from anisora.evaluation.metrics import DIMENSIONS
from anisora.evaluation.scorers import HEAD as FILE
from anisora.files import existing_file
from anisora.settings import setting

SCHEMA = 2

Layout = Literal["frames", "pair", "prompts", "similarity", "vlm", "endpoint"]

#: layout -> the parts that it must have, and those that it may have
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "frames": (("vision",), ()),
    "pair": (("vision",), ("text",)),
    "prompts": (("towers",), ()),
    "similarity": (("towers",), ()),
    "vlm": (("backbone",), ("adapter",)),
    "endpoint": ((), ()),
}


@dataclass(frozen=True, kw_only=True)
class Output:
    """One number that the network gives, and the dimension that it scores."""

    dimension: str = setting("", "one of the six, with or without `anime.`")
    index: int = setting(0, "which of the network's outputs")
    low: float | None = setting(0.0, "the raw value that scores 0; null leaves the score open")
    high: float | None = setting(1.0, "the raw value that scores 100")
    token: str | None = setting(None, "for a model read at reward tokens: the token of this output")

    def __post_init__(self) -> None:
        if self.metric not in DIMENSIONS:
            short = ", ".join(name.removeprefix("anime.") for name in DIMENSIONS)
            raise BadCheckpoint("an output of an unknown dimension", got=repr(self.dimension), expected=short)
        if (self.low is None) != (self.high is None) or self.low == self.high is not None:
            raise BadCheckpoint(
                "the range of an output", got=f"{self.low} to {self.high}", expected="two numbers, or none"
            )

    @property
    def metric(self) -> str:
        return f"anime.{self.dimension.removeprefix('anime.')}"

    def score(self, raw: float) -> float | None:
        """The place of a raw value in the range, 0 to 100; values beyond count as at its end. None without a range."""
        if self.low is None or self.high is None:
            return None
        return 100 * min(max((raw - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What `scorer.json` says."""

    schema: int = setting(SCHEMA, "2")
    layout: Layout = setting("frames", "how the network is laid out")
    outputs: tuple[Output, ...] = setting((), "what it scores")
    unit: str = setting("0-1", "of the raw values")
    parts: dict[str, str] = field(default_factory=dict, metadata={"help": "part -> folder, relative to the card"})
    look: Look = field(default_factory=Look, metadata={"help": "which frames it is shown"})
    prompts: tuple[str, ...] = setting((), "layout prompts: the two sentences; default: the paper's")
    fusion_layers: int = setting(
        0, "layout prompts: layers of ActionCLIP's transformer over frames; 0 takes their mean"
    )
    fusion_frames: int = setting(77, "layout prompts: frames that this transformer has a place for")
    text_tokens: int | None = setting(None, "layout pair: captions are cut there; the published scorer: 30")
    is_joint: bool = setting(True, "layout pair: the head reads the features' product too; false as released")
    of: Literal["text", "image"] = setting("text", "layout similarity: what the frames are compared with")
    question: str = setting("", "layouts vlm and endpoint: what is asked, with {prompt} and {image}")
    read: Literal["last", "tokens", "answer"] = setting("last", "layout vlm: where the value is read off")
    head: str | None = setting(None, "layout vlm: the head's tensor among the backbone's; default: head.safetensors")
    endpoint: dict[str, Any] = field(default_factory=dict, metadata={"help": "layout endpoint: its settings"})
    trained: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "what it was trained on, and how good it is"}
    )

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise BadCheckpoint("a card of another schema", got=self.schema, expected=SCHEMA)
        must, may = PARTS[self.layout]
        lacking, strange = [p for p in must if p not in self.parts], [p for p in self.parts if p not in (*must, *may)]
        if lacking or strange:
            raise BadCheckpoint(f"the parts of a {self.layout} scorer", got=", ".join(self.parts) or "none",
                                expected=", ".join(must) + (f" (and {', '.join(may)})" if may else ""))  # fmt: skip
        if not self.outputs:
            raise BadCheckpoint("a scorer of nothing", expected='outputs: [{"dimension": "smoothness"}]')
        if len({output.metric for output in self.outputs}) < len(self.outputs):
            raise BadCheckpoint("two outputs of one dimension", got=[output.metric for output in self.outputs])
        if self.layout in ("vlm", "endpoint") and not self.question.strip():
            raise BadCheckpoint(f"no question in the card of a {self.layout} scorer", expected="question: ...")
        if self.prompts and len(self.prompts) < 2:
            raise BadCheckpoint("one prompt has nothing to be compared with", got=self.prompts, expected="two or more")

    @property
    def needs_prompt(self) -> bool:
        """Whether a clip without a prompt cannot be scored."""
        is_asked = self.layout in ("vlm", "endpoint") and "{prompt}" in self.question
        of_text = (self.layout == "pair" and "text" in self.parts) or (
            self.layout == "similarity" and self.of == "text"
        )
        return is_asked or of_text

    @property
    def has_reference(self) -> bool:
        """Whether the picture that the clip was made from is looked at."""
        is_asked = self.layout in ("vlm", "endpoint") and "{image}" in self.question
        is_pair = self.layout == "pair" and "text" not in self.parts
        return is_asked or is_pair or (self.layout == "similarity" and self.of == "image")

    def part(self, name: str, folder: Path) -> Path | None:
        """The folder of a part, None for one that there is not."""
        return Path(os.path.abspath(folder / self.parts[name])) if name in self.parts else None


def read_card(place: str | os.PathLike[str]) -> tuple[Card, Path]:
    """(card, the folder it lies in) of a scorer's folder or of a card file itself (JSON or YAML). Raises BadCheckpoint."""
    path = Path(place) / FILE if Path(place).is_dir() else Path(place)
    existing_file(path, BadCheckpoint, "the scorer's card")
    data = settings.load(path, error=BadCheckpoint)
    return settings.read(Card, data, where=path.name, error=BadCheckpoint), path.parent


def is_linear(place: str | os.PathLike[str]) -> bool:
    """Whether a scorer is a linear head on what the metrics measured. Raises BadInput where there is no scorer."""
    path = Path(place) / FILE if Path(place).is_dir() else Path(place)
    data = settings.load(existing_file(path, BadInput, "the scorer"), error=BadInput)
    return isinstance(data, dict) and data.get("schema") == 1


def card_text(card: Card) -> bytes:
    """The bytes of `scorer.json`."""
    plain = settings.plain(card, skip_defaults=True)
    return json.dumps({"schema": SCHEMA, **plain}, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
