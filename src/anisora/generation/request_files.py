"""Requests as people write them: `IMG@POS`, YAML/JSON/JSONL files, upstream prompt lists, a finished shot.

A request file holds one request, a list of them, or `{defaults: {...}, shots: [...]}`. Relative paths in it are
relative to the file. Every reader gives plain `Request`s with absolute paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from anisora import settings
from anisora.errors import BadPosition, BadRequest
from anisora.geometry import is_position
from anisora.records import Guide, Lora, Request

#: suffixes that hold a finished shot, whose embedded request is read
SHOT_SUFFIXES = (".mp4", ".webm", ".gif", ".mkv", ".mov")
VIDEO_SUFFIXES = (*SHOT_SUFFIXES, ".avi")


# -- one word on the command line --------------------------------------------------------------------------------------


def parse_guide(text: str) -> Guide:
    """The guide written `IMG@POS`, or `IMG` for frame 0.

    Splits at the last `@` if what follows is a position; a text that exists as a file is a path.
    """
    image, at, position = text.rpartition("@")
    if not at or Path(text).exists():
        return Guide(text)
    if is_position(position):
        return Guide(image, int(position) if re.fullmatch(r"[+-]?\d+", position.strip()) else position.strip())
    if Path(image).exists():
        raise BadPosition(
            "unreadable guide position",
            got=repr(position),
            expected="a frame index, a percentage or a time",
            hint=f"{image}@0, {image}@50% or {image}@1.5s",
        )
    return Guide(text)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of `WxH`."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX×*]\s*(\d+)\s*", text)
    if not match:
        raise BadRequest("unreadable size", got=repr(text), expected="WxH", hint="832x480")
    return int(match[1]), int(match[2])


def parse_lora(text: str) -> Lora:
    """The low-rank weights written `PATH[:SCALE]`; a text that exists as a file is a path."""
    path, colon, scale = text.rpartition(":")
    if colon and re.fullmatch(r"[+-]?\d+(\.\d+)?", scale) and not Path(text).exists():
        return Lora(path=path, scale=float(scale))
    return Lora(path=text)


# -- files -------------------------------------------------------------------------------------------------------------


def load_requests(path: str | Path) -> list[Request]:
    """The requests in a file, at least one: .yaml, .json, .jsonl, .txt (upstream prompt list) or a finished shot.

    Raises BadRequest for unknown keys (naming the nearest), wrong types and unreadable files.
    """
    path = Path(path)
    if path.suffix.lower() in SHOT_SUFFIXES:
        return [request_of_shot(path)]
    if path.suffix.lower() == ".txt":
        return parse_upstream(_read_text(path), base=path.parent)
    data = settings.load(path, error=BadRequest)
    entries = _entries(data, path.name)
    names = [f"{path.name}, shot {number}" if len(entries) > 1 else path.name for number in range(1, len(entries) + 1)]
    return [
        absolute(settings.read(Request, entry, where=name, error=BadRequest), path.parent)
        for entry, name in zip(entries, names, strict=True)
    ]


def _entries(data: Any, name: str) -> list[Any]:
    """The plain data of each shot, defaults put in."""
    defaults: Mapping[str, Any] = {}
    if isinstance(data, Mapping) and ("shots" in data or "defaults" in data):
        settings.check_keys(data, ("defaults", "shots"), where=name, error=BadRequest)
        defaults, data = data.get("defaults") or {}, data.get("shots")
        if not isinstance(defaults, Mapping) or not isinstance(data, list):
            raise BadRequest(f"{name} does not hold shots", expected="{defaults: {...}, shots: [...]}")
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise BadRequest(f"{name} holds no shots", expected="a request, a list of them, or {defaults, shots}")
    return [{**defaults, **entry} if isinstance(entry, Mapping) else entry for entry in entries]


def absolute(request: Request, base: Path) -> Request:
    """The request with every relative path made absolute, seen from the folder `base`."""

    def full(path: Any) -> str:
        return os.path.abspath(os.path.join(base, os.path.expanduser(str(path))))

    model = request.model
    paths: dict[str, Any] = {
        name: full(value)
        for name in ("motion_mask", "video", "keep_mask", "out")
        if (value := getattr(request, name)) is not None
    }
    return replace(
        request,
        guides=tuple(replace(guide, image=full(guide.image)) for guide in request.guides),
        lora=tuple(replace(lora, path=full(lora.path)) for lora in request.lora),
        model=full(model) if model.startswith((".", "~", "/")) or Path(full(model)).is_dir() else model,
        **paths,
    )


def request_of_shot(path: Path) -> Request:
    """The request embedded in a finished shot, without `out`, so that it is never made over by accident.

    Raises BadRequest if there is none, or if a picture it names is gone or is no longer the one that was used.
    """
    from anisora.files import sha256_file
    from anisora.media.metadata import read_metadata

    embedded = read_metadata(path).get("anisora")
    if not isinstance(embedded, Mapping) or "request" not in embedded:
        raise BadRequest(
            f"{path.name} holds no request", got="a video without one", expected="a shot made by `anisora generate`"
        )
    request = settings.read(Request, embedded["request"], where=path.name, error=BadRequest)
    for name, sha256 in embedded.get("inputs", {}).items():
        if not Path(name).exists():
            raise BadRequest(f"{path.name} was made from a file that is gone", got=name, hint="putting it back")
        if Path(name).is_file() and sha256_file(name) != sha256:
            raise BadRequest(f"{path.name} was made from another version of a file", got=name, hint="putting it back")
    return replace(request, out=None)


# -- prompt lists of the public AniSora code ---------------------------------------------------------------------------

_SCORE = r"\b{name} score\s*:\s*(\d+(?:\.\d+)?)\s*\.?\s*"
_NO_TEXT = re.compile(r"\s*(There is no text in the video|The video has no subtitles)\s*\.?\s*", re.IGNORECASE)


def parse_upstream(text: str, base: Path) -> list[Request]:
    """One request a line of `prompt@@a.png,b.png&&0,1`, as the public AniSora scripts read them.

    Times are fractions of the shot in [0, 1] and become percentages; without them the pictures are at 0. A video
    instead of pictures has its keep mask beside it as `NAME_mask.mp4`. Scores typed into the prompt become fields.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    requests = [_upstream_line(line, f"line {number}", base) for number, line in lines if line]
    if not requests:
        raise BadRequest("the prompt list is empty", expected="lines of prompt@@a.png,b.png&&0,1")
    return requests


def _upstream_line(line: str, where: str, base: Path) -> Request:
    line = line.removesuffix("\\n")
    prompt, has_pictures, rest = line.rpartition("@@")
    if not has_pictures:
        prompt, rest = line, ""
    names, _, times = rest.partition("&&")
    pictures = [name.strip() for name in names.split(",") if name.strip()]
    if len(pictures) == 1 and pictures[0].lower().endswith(VIDEO_SUFFIXES):
        video = Path(pictures[0])
        given: dict[str, Any] = {"video": str(video), "keep_mask": str(video.with_name(video.stem + "_mask.mp4"))}
    else:
        given = {"guides": _upstream_guides(pictures, times, where)}
    return absolute(Request(**_fields_of_prompt(prompt), **given), base)


def _upstream_guides(pictures: list[str], times: str, where: str) -> tuple[Guide, ...]:
    positions = [time.strip() for time in times.split(",") if time.strip()] or ["0"] * min(1, len(pictures))
    if len(positions) != len(pictures):
        raise BadPosition(
            f"{where}: pictures and times do not match",
            got=f"{len(pictures)} pictures, {len(positions)} times",
            expected="one time for each picture",
        )
    for position in positions:
        if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", position) or not 0 <= Decimal(position) <= 1:
            raise BadPosition(f"{where}: unreadable time", got=repr(position), expected="a fraction from 0 to 1")
    return tuple(
        Guide(picture, f"{(Decimal(position) * 100).normalize():f}%")
        for picture, position in zip(pictures, positions, strict=True)
    )


def _fields_of_prompt(prompt: str) -> dict[str, Any]:
    """`prompt` without the scores and sentences that the public scripts have people type, and the fields they mean."""
    fields: dict[str, Any] = {}
    for name in ("aesthetic", "motion"):
        pattern = re.compile(_SCORE.format(name=name), re.IGNORECASE)
        if match := pattern.search(prompt):
            fields[f"{name}_score"] = float(match[1])
            prompt = pattern.sub(" ", prompt)
    prompt = _NO_TEXT.sub(" ", prompt)
    return {"prompt": " ".join(prompt.split()), **fields}


def _read_text(path: Path) -> str:
    """The text of a prompt list: UTF-8, else GBK, which the public scripts write."""
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise BadRequest("cannot read the prompt list", got=f"{path}: {problem.strerror}") from None
    for encoding in ("utf-8-sig", "gbk"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadRequest(f"{path.name} is not text", expected="UTF-8 or GBK")
