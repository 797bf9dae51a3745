"""What the benchmark of a checkpoint writes down for one clip, so that every figure can be computed again from it.

DIR/run.json                     settings, checkpoint, recipe: the same for all clips
DIR/clips/SEED/clip.json         caption, split, guides, seconds; written last, so a folder without it is unfinished
DIR/clips/SEED/ARM.png           the frames of one arm side by side, lossless: frame t is at x = t * width
DIR/clips/SEED/foreground.png    the truth's foreground per frame, in the same way; 255 is foreground
DIR/clips/SEED/area.png          the motion area given to the masked arms; 255 may move
DIR/clips/SEED/latents.npz       normalised latents [C, F, Y, X] by arm
DIR/clips/SEED/EXTRA.json        what is said of a group of optional arms, EXTRA; written after its files
DIR/clips/SEED/EXTRA_ARM.png     the frames of one of its arms
DIR/clips/SEED/EXTRA.npz         their latents
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PLANES = ("foreground", "area")

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A group of optional arms of a clip: `about` is the content of EXTRA.json."""

    about: dict[str, Any]
    arms: Mapping[str, Frames]
    latents: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One clip: `about` is the content of clip.json, `arms` the frames uint8 THWC by name, among them "truth"; `extras`
    are the optional groups that were made, by name."""

    about: dict[str, Any]
    arms: dict[str, Frames]
    foreground_THW: NDArray[np.bool_]
    area_HW: NDArray[np.bool_]
    latents: Mapping[str, NDArray[np.float32]]
    extras: Mapping[str, Extra] = field(default_factory=dict)


def clip_folder(run: Path, seed: int) -> Path:
    """Where a clip's files are."""
    return run / "clips" / f"{seed:06d}"


def write(record: ClipRecord, run: Path) -> None:
    """Writes all files of a clip; clip.json comes last and in one rename, those of its extras after it."""
    folder = clip_folder(run, record.about["seed"])
    folder.mkdir(parents=True, exist_ok=True)
    _write_arms(folder, "", record.arms)
    Image.fromarray(np.concatenate(list(record.foreground_THW), axis=1)).save(folder / "foreground.png")
    Image.fromarray(record.area_HW).save(folder / "area.png")
    np.savez_compressed(folder / "latents.npz", **record.latents)  # type: ignore[arg-type]
    _write_about(folder / "clip.json", record.about, record.arms)
    for name, extra in record.extras.items():
        write_extra(folder, name, extra)


def write_extra(folder: Path, name: str, extra: Extra) -> None:
    """Writes a group of optional arms beside what a clip's folder holds."""
    _write_arms(folder, f"{name}_", extra.arms)
    np.savez_compressed(folder / f"{name}.npz", **extra.latents)  # type: ignore[arg-type]
    _write_about(folder / f"{name}.json", extra.about, extra.arms)


def _write_arms(folder: Path, prefix: str, arms: Mapping[str, Frames]) -> None:
    for name, frames_THWC in arms.items():
        Image.fromarray(np.concatenate(list(frames_THWC), axis=1)).save(folder / f"{prefix}{name}.png")


def _write_about(path: Path, about: dict[str, Any], arms: Mapping[str, Frames]) -> None:
    half = path.with_name(f"{path.name}.part")
    half.write_text(json.dumps(about | {"arms": sorted(arms)}, indent=2) + "\n")
    os.replace(half, path)


def read(folder: Path) -> ClipRecord:
    """The inverse of `write`."""
    about = json.loads((folder / "clip.json").read_text())
    frames = about["num_frames"]

    def strip(name: str) -> Frames:
        with Image.open(folder / f"{name}.png") as picture:
            return np.stack(np.split(np.asarray(picture), frames, axis=1))

    def extra(name: str) -> Extra:
        told = json.loads((folder / f"{name}.json").read_text())
        arms = {arm: strip(f"{name}_{arm}") for arm in told["arms"]}
        return Extra(about=told, arms=arms, latents=_read_latents(folder / f"{name}.npz"))

    with Image.open(folder / "area.png") as picture:
        area_HW = np.asarray(picture) > 0
    return ClipRecord(
        about=about,
        arms={name: strip(name) for name in about["arms"]},
        foreground_THW=strip("foreground") > 0,
        area_HW=area_HW,
        latents=_read_latents(folder / "latents.npz"),
        extras={path.stem: extra(path.stem) for path in sorted(folder.glob("*.json")) if path.stem != "clip"},
    )


def _read_latents(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def has_extra(folder: Path, name: str) -> bool:
    """Whether a group of optional arms is there, and whole."""
    return (folder / f"{name}.json").exists()


def finished(run: Path) -> list[Path]:
    """The folders of all finished clips, by seed."""
    return sorted(path.parent for path in (run / "clips").glob("*/clip.json"))
