"""The benchmark as data: what is to be generated and compared, as a file of JSON lines, and where such files come from.

Three sources give the same items: a manifest of one's own, the paper's set of 948 clips for those who were given it
(`from_folder`), and a suite drawn here (`write_drawn_suite`), whose clips are known to the pixel and belong to everybody.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

from anisora import settings
from anisora.errors import BadInput
from anisora.files import existing_file, write_atomic
from anisora.store import read_jsonl, sha256_file

MANIFEST = "suite.jsonl"

#: fewer clips of an action than this say little about it; the paper has 10 to 30 of each label (README)
_FEW = 10


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """A picture and where in the shot it belongs: an index, "50%" or "1.5s"."""

    image: str
    at: int | str = 0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One shot of a benchmark. Paths in a manifest are relative to it; here they are absolute.

    `video` is the real clip, `image` its first picture, `guides` keyframes that are not to be taken from the video,
    `mask` the area that may move. `action` is the label, `dimension` whether it is drawn in 2D or 3D.
    """

    id: str
    prompt: str = ""
    video: str | None = None
    image: str | None = None
    guides: tuple[Keyframe, ...] = ()
    mask: str | None = None
    action: str | None = None
    dimension: Literal["2d", "3d"] | None = None
    style: str | None = None

    @property
    def files(self) -> list[str]:
        """Every file that the item names."""
        return [path for path in (self.video, self.image, self.mask) if path] + [guide.image for guide in self.guides]


def read_benchmark(path: str | os.PathLike[str]) -> list[Item]:
    """The items of a manifest, or of the folder that holds one as `suite.jsonl`, or of a folder in the paper's layout.

    Raises BadInput for lines that are no items, ids that come twice, and files that are absent: all of them at once.
    """
    path = Path(path)
    if path.is_dir():
        items = read_benchmark(path / MANIFEST) if (path / MANIFEST).is_file() else from_folder(path)
    else:
        lines = read_jsonl(existing_file(path, BadInput, "the benchmark"))
        items = [_item(line, path.parent, f"{path.name}, record {number}") for number, line in enumerate(lines, 1)]
    if problems := [problem for problem in check(items) if problem.is_fatal]:
        shown = "; ".join(problem.text for problem in problems[:5])
        raise BadInput(
            f"{len(problems)} problems in the benchmark",
            got=shown + ("; ..." if len(problems) > 5 else ""),
            expected="distinct ids and files that are there",
        )
    if not items:
        raise BadInput("an empty benchmark", got=path, expected="one JSON object a line, with an `id`")
    return items


def _item(line: Mapping[str, Any], folder: Path, where: str) -> Item:
    item = settings.read(Item, line, where=where, error=BadInput)
    return replace(
        item,
        video=_absolute(folder, item.video),
        image=_absolute(folder, item.image),
        mask=_absolute(folder, item.mask),
        guides=tuple(replace(guide, image=_absolute(folder, guide.image)) for guide in item.guides),
    )


def _absolute(folder: Path, path: str | None) -> Any:
    return None if path is None else os.path.abspath(folder / path)


def write_benchmark(path: str | os.PathLike[str], items: Sequence[Item]) -> Path:
    """Writes a manifest, paths made relative to it."""
    folder = Path(path).absolute().parent

    def near(file: str | None) -> Any:
        return None if file is None else os.path.relpath(file, folder)

    moved = [
        replace(
            item,
            video=near(item.video),
            image=near(item.image),
            mask=near(item.mask),
            guides=tuple(replace(guide, image=near(guide.image)) for guide in item.guides),
        )
        for item in items
    ]
    lines = [json.dumps(settings.plain(item, skip_defaults=True), ensure_ascii=False) + "\n" for item in moved]
    return write_atomic(path, "".join(lines).encode())


# --------------------------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something about a benchmark that must be mended (`is_fatal`), or known when its figures are read."""

    text: str
    is_fatal: bool


def check(items: Sequence[Item], *, by_content: bool = False) -> list[Problem]:
    """What is wrong with the items: ids that come twice, absent files, nothing to generate from; and what is thin.

    `by_content` also reads the pictures and videos and finds those that are the same under two names.
    """
    fatal = [f"id {name} comes {n} times" for name, n in Counter(item.id for item in items).items() if n > 1]
    fatal += [f"{item.id}: no {path}" for item in items for path in item.files if not os.path.isfile(path)]
    fatal += [f"{item.id}: neither prompt nor picture" for item in items if not item.prompt.strip() and not item.files]
    notes = [f"{count} items of action {name}" for name, count in Counter(i.action for i in items).items()
             if name and count < _FEW]  # fmt: skip
    if unlabelled := sum(item.dimension is None for item in items):
        notes.append(f"{unlabelled} of {len(items)} items are not said to be 2D or 3D")
    if by_content:
        notes += _same_files(items)
    return [Problem(text=text, is_fatal=True) for text in fatal] + [Problem(text=t, is_fatal=False) for t in notes]


def _same_files(items: Sequence[Item]) -> list[str]:
    """One line for each video or picture that several items use."""
    users: dict[str, list[str]] = {}
    for item in items:
        main = item.video or item.image
        if main and os.path.isfile(main):
            users.setdefault(sha256_file(main), []).append(item.id)
    return [f"{', '.join(names)} show the same clip" for names in users.values() if len(names) > 1]


# --------------------------------------------------------------------------------------------------- the paper's layout

#: SOURCE_ACTION_NUMBER, the source (cartoon_films, motion_comics) left out for some: `motion_comics_pao_5`
_PAPER_NAME = re.compile(
    r"^(?:(?P<source>cartoon_films|motion_comics)_)?(?P<action>[A-Za-z][A-Za-z_]*?)_(?P<number>\d+)$"
)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def from_folder(folder: str | os.PathLike[str]) -> list[Item]:
    """The items of a folder in the paper's layout: files SOURCE_ACTION_N with .mp4, .png (first frame) and .txt (prompt),
    in one folder or in several, matched by name.

    `labels.csv` in the folder may say more: a column `id`, and any of `prompt, action, dimension, style`. The set itself
    is given by its authors against a signed form; nothing of it is here. Raises BadInput without a clip or picture.
    """
    folder = Path(folder)
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        kind = (
            "image"
            if path.suffix.lower() in _PICTURES
            else {".mp4": "video", ".txt": "prompt"}.get(path.suffix.lower())
        )
        if kind:
            if other := found.setdefault(path.stem, {}).get(kind):
                raise BadInput("two files of one name", got=f"{other} and {path}", expected="one of them")
            found[path.stem][kind] = path
    labels = _labels(folder / "labels.csv")
    items = [
        _paper_item(name, files, labels.get(name, {}))
        for name, files in found.items()
        if {"video", "image"} & files.keys()
    ]
    if not items:
        raise BadInput(
            "no benchmark in the folder", got=folder, expected=f"{MANIFEST}, or clips and pictures named ACTION_N"
        )
    return items


def _paper_item(name: str, paths: Mapping[str, Path], label: Mapping[str, str]) -> Item:
    match = _PAPER_NAME.match(name)
    prompt = paths["prompt"].read_text(encoding="utf-8").strip() if "prompt" in paths else ""
    known: dict[str, Any] = {
        "prompt": prompt,
        "action": match["action"] if match else None,
        "style": match["source"] if match else None,
    }
    known |= {column: text for column, text in label.items() if text}
    files = {kind: os.path.abspath(path) for kind, path in paths.items() if kind in ("video", "image")}
    return settings.read(Item, {"id": name, **known, **files}, where=name, error=BadInput)


def _labels(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    allowed = {"id", "prompt", "action", "dimension", "style"}
    if rows and (not rows[0].keys() <= allowed or "id" not in rows[0]):
        raise BadInput(f"unknown columns in {path.name}", got=", ".join(rows[0]), expected=", ".join(sorted(allowed)))
    return {
        row.pop("id"): {name: text.lower() if name == "dimension" else text for name, text in row.items()}
        for row in rows
    }


# ------------------------------------------------------------------------------------------------------ the drawn suite

#: held-out seed of the drawn suite: no training clip ever has it
SUITE_SEED = 4000
#: actions that two people do side by side are labels of their own
TOGETHER = ("talk", "dance")


def drawn_plans(per_cell: int = 1) -> list[tuple[str, Any]]:
    """(action label, plan) of the drawn suite: `per_cell` clips for each action in each style, in a fixed order.

    The labels are the corpus' actions done alone, and talking and dancing together: 21 in 4 styles.
    """
    from anisora.synthetic import CORPUS_VERSION, STYLES, VERSIONS, plan_clip

    labels = [*VERSIONS[CORPUS_VERSION].actions, *(f"{name} together" for name in TOGETHER)]
    wanted = Counter({(label, style): per_cell for label in labels for style in STYLES})
    chosen, index = [], 0
    while wanted.total():
        plan = plan_clip(SUITE_SEED, index, "seen")
        label = plan.action + (" together" if len(plan.people) > 1 else "")
        if wanted[label, plan.style]:
            wanted[label, plan.style] -= 1
            chosen.append((label, plan))
        index += 1
    return sorted(chosen, key=lambda entry: (labels.index(entry[0]), STYLES.index(entry[1].style), entry[1].index))


def write_drawn_suite(
    folder: str | os.PathLike[str],
    *,
    per_cell: int = 1,
    size_px: tuple[int, int] = (192, 192),
    num_frames: int = 33,
    fps: Fraction | int = 16,
    limit: int | None = None,
    progress: Any = None,
) -> list[Item]:
    """Draws the suite into a folder and returns its items: clips (lossless), captions, and exact masks of what moves.

    Masks are there where the camera stands still. `limit` takes evenly spread items. Clips that are there are kept: the
    same arguments always draw the same pixels, and other arguments of an earlier call are refused (BadInput).
    """
    plans = drawn_plans(per_cell)
    plans = plans if limit is None else spread(plans, limit)
    folder = Path(folder)
    made_with = {
        "per_cell": per_cell,
        "size": list(size_px),
        "frames": num_frames,
        "fps": str(Fraction(fps)),
        "limit": limit,
    }
    _claim(folder, made_with)
    items = []
    for number, (label, plan) in enumerate(plans):
        if progress:
            progress("draw", number, len(plans))
        items.append(_draw(folder, label, plan, size_px, num_frames, Fraction(fps)))
    if progress:
        progress("draw", len(plans), len(plans))
    write_benchmark(folder / MANIFEST, items)
    return items


def spread(items: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` of the items, evenly spread over them."""
    if limit >= len(items):
        return list(items)
    return [items[k * len(items) // limit] for k in range(limit)]


def _claim(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Notes what a folder of drawn clips is made with, and refuses one that was made otherwise."""
    note = folder / "drawn.json"
    if note.is_file() and (before := json.loads(note.read_text(encoding="utf-8"))) != made_with:
        raise BadInput(
            "the folder holds another drawn suite",
            got=f"{folder}: {before}",
            expected=str(dict(made_with)),
            hint="another folder",
        )
    write_atomic(note, json.dumps(dict(made_with)).encode())


def _draw(folder: Path, label: str, plan: Any, size_px: tuple[int, int], num_frames: int, fps: Fraction) -> Item:
    from anisora.media.writer import write_video
    from anisora.synthetic import caption
    from anisora.synthetic.clip import render_plan

    name = f"{label.replace(' ', '_')}_{plan.style}_{plan.index}"
    video, mask = folder / "clips" / f"{name}.mp4", folder / "masks" / f"{name}.png"
    is_still = plan.view.camera == "static"
    if not video.is_file() or (is_still and not mask.is_file()):
        clip = render_plan(plan, num_frames, fps, size_px, with_truth=is_still)
        if clip.truth is not None:
            write_atomic(mask, partial(_save_mask, clip.truth.motion_mask_HW))
        write_video(video, clip.video_THWC, fps, lossless=True)
    return Item(
        id=name,
        prompt=caption(plan),
        video=os.path.abspath(video),
        mask=os.path.abspath(mask) if is_still else None,
        action=label,
        dimension="2d",
        style=plan.style,
    )


def _save_mask(mask_HW: Any, path: Path) -> None:
    from PIL import Image

    Image.fromarray(mask_HW.astype("uint8") * 255).save(path)
