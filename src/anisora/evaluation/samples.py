"""What is to be scored: clips in folders, or the lines of a manifest that say more about each.

A manifest is a file of JSON lines. Only `video` must be there; what else is known (prompt, guides, mask, model) lets
more be measured.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from anisora.curation.sources import find_sources
from anisora.errors import BadInput
from anisora.store import content_hash, read_jsonl, sha256_file


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip to score, and what is known of it.

    `image` is the picture it was made from; `guides` are pictures with the frame each was asked for at (`{image, at}`,
    `at` as in a request: an index, "50%" or "1.5s"); `mask` the area that was to move; `characters` the names, as in a
    gallery, of who is in it. `group` is what samples of
    several models have in common, the prompt by default.
    """

    id: str
    video: Path
    prompt: str | None = None
    prompt_id: str | None = None
    group: str | None = None
    image: Path | None = None
    mask: Path | None = None
    guides: tuple[Mapping[str, Any], ...] = ()
    characters: tuple[str, ...] = ()
    model: str | None = None
    seed: int | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Every file that the scores depend on, by its part in the sample."""
        named = {"video": self.video, "image": self.image, "mask": self.mask}
        named |= {f"guide at {guide['at']}": Path(guide["image"]) for guide in self.guides}
        return {part: path for part, path in named.items() if path is not None}

    def content(self) -> str:
        """A hash of the files' bytes and of what the scores depend on besides; missing files count as such."""
        hashes = {part: sha256_file(path) if path.is_file() else None for part, path in self.files.items()}
        said = {"files": hashes, "at": [guide["at"] for guide in self.guides], "prompt": self.prompt}
        return content_hash(said | ({"characters": list(self.characters)} if self.characters else {}))


def find_samples(named: Sequence[str | os.PathLike[str]]) -> list[Sample]:
    """The clips under files and folders, sorted; an id is the path within the folder named, without suffix.

    Raises BadInput when there is no clip, or when two would have one id.
    """
    samples = [
        Sample(id=_id(source.path, named), video=source.path, group=source.path.stem)
        for source in find_sources(named)[0]
    ]
    return _distinct(samples, ", ".join(map(str, named)))


def _id(path: Path, named: Iterable[str | os.PathLike[str]]) -> str:
    roots = [Path(name).absolute() for name in named]
    root = next((root for root in roots if root.is_dir() and path.is_relative_to(root)), path.parent)
    return path.relative_to(root).with_suffix("").as_posix()


def read_manifest(path: str | os.PathLike[str]) -> list[Sample]:
    """The samples of a manifest; relative paths are relative to it. Raises BadInput for lines that cannot be used.

    A video that is absent stays in: its scores are null with that reason, and the others are made.
    """
    path = Path(path)
    samples = [
        _sample(line, path.parent, f"{path}, record {number}") for number, line in enumerate(read_jsonl(path), 1)
    ]
    if not samples:
        raise BadInput("an empty manifest", got=path, expected="one JSON object a line, with a `video`")
    return _distinct(samples, str(path))


def _sample(line: Mapping[str, Any], folder: Path, where: str) -> Sample:
    known = [f.name for f in fields(Sample)]
    if strange := [name for name in line if name not in known]:
        raise BadInput(f"unknown field in {where}", got=", ".join(strange), expected=", ".join(known))
    if not isinstance(line.get("video"), str):
        raise BadInput(f"no video in {where}", got=line.get("video"), expected="the path of a clip")
    guides = line.get("guides") or []
    if not all(isinstance(guide, dict) and {"image", "at"} <= guide.keys() for guide in guides):
        raise BadInput(f"unreadable guides in {where}", got=guides, expected='[{"image": PATH, "at": 0}, ...]')
    characters = line.get("characters") or []
    if not isinstance(characters, list) or not all(isinstance(name, str) for name in characters):
        raise BadInput(f"unreadable characters in {where}", got=characters, expected='["NAME", ...]')
    paths = {name: folder / line[name] for name in ("video", "image", "mask") if line.get(name)}
    at = tuple({"image": str(folder / guide["image"]), "at": guide["at"]} for guide in guides)
    identity = line.get("id") or Path(line["video"]).with_suffix("").as_posix()
    group = line.get("group") or line.get("prompt_id") or line.get("prompt") or identity
    own = {"guides": at, "characters": tuple(dict.fromkeys(characters))}
    return Sample(**{**line, **paths, **own, "id": str(identity), "group": str(group)})


def _distinct(samples: list[Sample], where: str) -> list[Sample]:
    if twice := [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]:
        raise BadInput(
            "two samples of one id",
            got=f"{', '.join(twice[:3])} in {where}",
            expected="a different id for each",
            hint="a manifest with an `id` for each line",
        )
    return samples
