"""Characters to know again: each one's figure, cut out of pictures and clips of it, or drawn here.

A folder holds a sub-folder a character, and that holds pictures and clips; in each, the largest figure is taken for the
character. Drawn ones (`anisora.synthetic`) have an exact identity and an exact outline. What is cut out lies in the
gallery's folder to be looked at; names of cut-outs that are no good go into `drop.txt`, one a line.

OUT/cutouts.jsonl           a line for each picture or clip: character, source, hashes, files or the reason why there are none
OUT/cutouts/NAME/....png    the figures on black
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.curation.sources import SUFFIXES, text_of
from anisora.errors import AnisoraError, BadInput
from anisora.files import remove_partials, sha256_file, write_atomic
from anisora.measures.figures import cut_out, find_figures
from anisora.measures.footage import Footage
from anisora.measures.salience import salience, weights_sha256
from anisora.media.pictures import STILL_SUFFIXES
from anisora.store import append_jsonl, canonical_json, content_hash, read_jsonl

CUTOUTS, DROP = "cutouts.jsonl", "drop.txt"

#: The file of features that `gallery` writes beside them.
GALLERY = "gallery.safetensors"

#: Changes with how cut-outs are made.
VERSION = 1

#: Of a drawn character so many clips, of each so many moments half a second apart, so large.
DRAWN_CLIPS, DRAWN_MOMENTS, DRAWN_FPS, DRAWN_PX = 4, 3, 2, 256

Progress = Callable[[str, int, int], None]
Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """One figure, cut out: whose, of which picture or clip, and where it lies."""

    character: str
    source: str
    path: Path


def cut_characters(
    characters: str | os.PathLike[str], out: Path, weights: Path | None = None, progress: Progress | None = None
) -> list[Line]:
    """The lines of `out/cutouts.jsonl` for a folder of characters; run again, it makes only what is new or has changed.

    `weights` is a salient-object network instead of the bundled one. What cannot be read, and what has no figure, is a line
    with that reason. Raises BadInput where there is no character at all; AssetMissing, BadCheckpoint for the network.
    """
    sources = find_characters(Path(characters))
    network = weights_sha256(weights)
    root = Path(characters).absolute()

    def lines() -> Iterator[tuple[Line, Callable[[], Cuts]]]:
        for character, path in sources:
            sha256 = _hashed(path)
            source = text_of(path.relative_to(root))
            key = content_hash([VERSION, character, source, sha256, network])
            yield (
                {"key": key, "character": character, "source": source, "sha256": sha256, "network_sha256": network},
                partial(_cut, path, weights),
            )

    return _written(lines(), len(sources), out, progress)


def draw_characters(count: int, out: Path, *, seed: int = 0, progress: Progress | None = None) -> list[Line]:
    """The same lines for `count` drawn characters, each in clips of its own: other action, place, style and light.

    A character's name tells what it is made of. The same arguments give the same pictures.
    """
    from anisora.synthetic.parts import Character, draw_character

    rng = np.random.default_rng(np.random.SeedSequence((VERSION, seed)))
    cast: dict[str, Character] = {}
    while len(cast) < count:
        character = draw_character(rng, with_reserved=False)
        cast[character.id.replace("/", "-")] = character

    def lines() -> Iterator[tuple[Line, Callable[[], Cuts]]]:
        for number, (name, character) in enumerate(cast.items()):
            for clip in range(DRAWN_CLIPS):
                index = number * DRAWN_CLIPS + clip
                source = f"drawn/{seed}/{index}"
                key = content_hash([VERSION, name, source])
                yield (
                    {"key": key, "character": name, "source": source, "sha256": None, "network_sha256": None},
                    partial(_drawn, character, seed, index),
                )

    return _written(lines(), count * DRAWN_CLIPS, out, progress)


def known(out: Path) -> list[CutOut]:
    """The cut-outs of a folder, without those that `drop.txt` names. Raises BadInput for names that there are not."""
    found = [
        CutOut(character=line["character"], source=line["source"], path=out / file)
        for line in read_jsonl(out / CUTOUTS)
        for file in line["files"]
    ]
    drop = out / DROP
    dropped = set(drop.read_text(encoding="utf-8").split()) if drop.is_file() else set()
    if unknown := dropped - {cut.path.stem for cut in found}:
        raise BadInput(f"no such cut-outs in {DROP}", got=", ".join(sorted(unknown)), expected="names of the page")
    return [cut for cut in found if cut.path.stem not in dropped]


def find_characters(folder: Path) -> list[tuple[str, Path]]:
    """(character, file), sorted, of a folder with a sub-folder of pictures and clips a character. Raises BadInput."""
    if not folder.is_dir():
        raise BadInput("no folder of characters", got=folder, expected="a sub-folder of pictures or clips for each")
    kinds = STILL_SUFFIXES | SUFFIXES
    found = [
        (text_of(own.name), file)
        for own in sorted(folder.absolute().iterdir())
        if own.is_dir() and not own.name.startswith(".")
        for file in sorted(own.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.suffix.lower() in kinds
    ]
    if not found:
        raise BadInput(
            "no characters", got=f"{folder} without pictures or clips in its sub-folders",
            expected="FOLDER/NAME/picture.png",
        )  # fmt: skip
    return found


# -- one picture or clip -----------------------------------------------------------------------------------------------

#: cut-outs, or a reason and its words
Cuts = Sequence[NDArray[np.uint8]] | tuple[str, str]


def _cut(path: Path, weights: Path | None) -> Cuts:
    """The largest figure at the moments of a picture or clip, or why there is none."""
    try:
        footage = Footage.read(path)
    except AnisoraError as problem:
        return "unreadable", str(problem)
    figures = find_figures(footage.frames_THWC, footage.deep_moments, partial(salience, weights=weights))
    if not figures:
        return "no_character", "nothing stands out"
    return [cut_out(footage.frames_THWC[t], mask_HW) for t, mask_HW in figures[0].mask_HW.items()]


def _drawn(character: Any, seed: int, index: int) -> Cuts:
    """The character in a clip that `plan_clip` makes for one person, at its moments."""
    from anisora.synthetic import plan_clip, render_ids
    from anisora.synthetic.display import FIRST_CHARACTER

    drawn = (plan_clip(seed % 1000, 64 * index + attempt) for attempt in range(64))
    plan = next(plan for plan in drawn if len(plan.people) == 1)
    plan = replace(plan, people=(plan.people[0]._replace(character=character),))
    frames_THWC, ids_THW = render_ids(plan, DRAWN_MOMENTS, DRAWN_FPS, (DRAWN_PX, DRAWN_PX))
    masks = ids_THW == FIRST_CHARACTER
    cuts = [cut_out(frame, mask) for frame, mask in zip(frames_THWC, masks, strict=True) if mask.mean() > 0.005]
    return cuts or ("no_character", "out of the picture")


def _hashed(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:
        return None  # reading it will say why


# -- files -------------------------------------------------------------------------------------------------------------


def _written(
    sources: Iterator[tuple[Line, Callable[[], Cuts]]], total: int, out: Path, progress: Progress | None
) -> list[Line]:
    """The lines, each with its cut-outs written; those of an earlier run that still stand are not made again."""
    from anisora.curation.ledger import locked

    with locked(out):
        remove_partials(out)
        before = {line["key"]: line for line in _earlier(out)}
        lines = []
        for number, (line, cut) in enumerate(sources):
            if progress:
                progress("figures", number, total)
            if line["key"] not in before:
                before[line["key"]] = _made(line, cut, out)
                append_jsonl(out / CUTOUTS, before[line["key"]])
            lines.append(before[line["key"]])
        write_atomic(out / CUTOUTS, "".join(canonical_json(line) + "\n" for line in lines).encode())
        if progress:
            progress("figures", total, total)
    return lines


def _earlier(out: Path) -> list[Line]:
    if not (out / CUTOUTS).exists():
        return []
    return [line for line in read_jsonl(out / CUTOUTS) if all((out / file).is_file() for file in line["files"])]


def _made(line: Line, cut: Callable[[], Cuts], out: Path) -> Line:
    from PIL import Image

    cuts = cut()
    if isinstance(cuts, tuple):
        return {**line, "reason": cuts[0], "message": cuts[1], "files": []}
    folder = re.sub(r"[^\w-]", "_", line["character"])[:80]
    files = []
    for number, picture in enumerate(cuts):
        file = f"cutouts/{folder}/{line['key'][:8]}-{number}.png"
        write_atomic(out / file, partial(Image.fromarray(picture).save, format="PNG"))
        files.append(file)
    return {**line, "reason": None, "message": None, "files": files}
