"""What a caption is: six fields of an anime clip and prose, and how one is read out of what a model wrote.

Tags are kept apart from prose, as productions do: a mixture is drawn by tags, a text encoder reads prose.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any

from anisora.errors import UnusableReply

SCHEMA_VERSION = 1

#: The answer that is asked for, as JSON schema; endpoints that can are held to it.
JSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "clip": {"type": "string", "description": "the code of the clip, copied from the question"},
        "characters": {"type": "array", "items": {"type": "string"}, "description": "each one's looks and clothes"},
        "action": {"type": "string", "description": "who does what, in the order in which it happens"},
        "scene": {"type": "string", "description": "place, time of day, weather"},
        "camera": {"type": "string", "description": "framing and movement: static, pan, tilt, zoom, tracking, shake"},
        "style": {"type": "string", "description": "2D or 3D, line, colour, shading, era"},
        "effects": {"type": "array", "items": {"type": "string"}, "description": "speed lines, smoke, glow, impacts"},
        "prose": {"type": "string", "description": "the clip in one to four plain sentences"},
    },
    "required": ["clip", "characters", "action", "scene", "camera", "style", "effects", "prose"],
    "additionalProperties": False,
}

#: Openings that say nothing of the clip; what follows them is kept.
_STOCK_OPENING = re.compile(
    r"^(?:in (?:this|the) (?:short )?(?:animated |anime )?(?:video|clip|animation|scene)\s*,\s*"
    r"|(?:this|the) (?:short )?(?:animated |anime )?(?:video|clip|animation|sequence)(?: clip)? "
    r"(?:shows|depicts|features|presents|captures|portrays)(?: us)?(?: that)?\s+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class AnimeCaption:
    """A clip in words. `prose` is never empty; a field that nothing is known about is."""

    prose: str
    characters: tuple[str, ...] = ()
    action: str = ""
    scene: str = ""
    camera: str = ""
    style: str = ""
    effects: tuple[str, ...] = ()

    def tags(self) -> dict[str, str]:
        """The fields that say something, as text by name: lists are joined by "; "."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "prose"}
        texts = {name: "; ".join(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: text for name, text in texts.items() if text}

    def to_json(self, clip: str | None = None) -> str:
        """The answer a captioner would have given; `clip` is the code it copies."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in self.__dict__.items()}
        head = {} if clip is None else {"clip": clip}
        return json.dumps(head | {key: values[key] for key in JSON_SCHEMA["properties"] if key in values})


def parse(text: str) -> tuple[AnimeCaption, str | None]:
    """The caption in a model's answer, and the code of the clip it says it is of (None when it says none).

    Reads the first JSON object; further keys are left aside. Raises UnusableReply "truncated", "not_json" or "not_schema".
    """
    answer = first_object(text)
    clip = answer.pop("clip", None)
    known = {field.name for field in fields(AnimeCaption)}
    try:
        values: dict[str, Any] = {key: _value(key, value) for key, value in answer.items() if key in known}
    except TypeError as reason:
        raise UnusableReply("not_schema", str(reason)) from reason
    if "prose" not in values:
        raise UnusableReply("not_schema", "no prose")
    values["prose"] = without_stock_opening(values["prose"])
    return AnimeCaption(**values), None if clip is None else str(clip)


def first_object(text: str) -> dict[str, Any]:
    """The first JSON object in a model's answer, whatever stands around it (fences, thoughts, politeness).

    Raises UnusableReply "truncated" or "not_json".
    """
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    start = text.find("{")
    if start < 0:
        raise UnusableReply("not_json", text)
    try:
        return json.JSONDecoder(strict=False).raw_decode(text[start:])[0]
    except json.JSONDecodeError as reason:
        raise UnusableReply("truncated" if _is_open(text[start:]) else "not_json", text) from reason


def parse_prose(text: str) -> AnimeCaption:
    """An answer in prose alone, as a captioner trained on plain pairs gives."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    return AnimeCaption(prose=without_stock_opening(" ".join(text.split())))


def without_stock_opening(prose: str) -> str:
    """The prose without "This video shows" and its kin, beginning with a capital again."""
    rest = _STOCK_OPENING.sub("", prose.strip(), count=1)
    return rest[:1].upper() + rest[1:]


def _value(key: str, value: Any) -> str | tuple[str, ...]:
    """A text or list of texts, as the field wants it; one for the other is mended, anything else is a TypeError."""
    wants_list = JSON_SCHEMA["properties"][key]["type"] == "array"
    if value is None:
        return () if wants_list else ""
    if isinstance(value, str):
        return ((value.strip(),) if value.strip() else ()) if wants_list else " ".join(value.split())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(item.strip() for item in value if item.strip()) if wants_list else "; ".join(value)
    raise TypeError(f"{key}: {type(value).__name__}")


def _is_open(text: str) -> bool:
    """Whether the JSON ends inside of a string or before its last bracket: it was cut off, not malformed."""
    depth, in_string, escaped = 0, False, False
    for letter in text:
        if in_string:
            escaped, in_string = (not escaped and letter == "\\"), (escaped or letter != '"')
        elif letter == '"':
            in_string = True
        else:
            depth += (letter in "{[") - (letter in "}]")
    return in_string or depth > 0
