"""What the benchmark of a checkpoint writes down for one clip, so that every figure can be computed again from it.

DIR/run.json                     settings, checkpoint, recipe: the same for all clips
DIR/clips/SEED/clip.json         caption, split, guides, seconds; written last, so a folder without it is unfinished
DIR/clips/SEED/ARM.png           the frames of one arm side by side, lossless: frame t is at x = t * width
DIR/clips/SEED/foreground.png    the truth's foreground per frame, in the same way; 255 is foreground
DIR/clips/SEED/area.png          the motion area given to the masked arms; 255 may move
DIR/clips/SEED/latents.npz       normalised latents [C, F, Y, X] by arm
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PLANES = ("foreground", "area")


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One clip: `about` is the content of clip.json, `arms` the frames uint8 THWC by name, among them "truth"."""

    about: dict[str, Any]
    arms: dict[str, NDArray[np.uint8]]
    foreground_THW: NDArray[np.bool_]
    area_HW: NDArray[np.bool_]
    latents: Mapping[str, NDArray[np.float32]]


def clip_folder(run: Path, seed: int) -> Path:
    """Where a clip's files are."""
    return run / "clips" / f"{seed:06d}"


def write(record: ClipRecord, run: Path) -> None:
    """Writes all files of a clip; clip.json comes last and in one rename."""
    folder = clip_folder(run, record.about["seed"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames_THWC in record.arms.items():
        Image.fromarray(np.concatenate(list(frames_THWC), axis=1)).save(folder / f"{name}.png")
    Image.fromarray(np.concatenate(list(record.foreground_THW), axis=1)).save(folder / "foreground.png")
    Image.fromarray(record.area_HW).save(folder / "area.png")
    np.savez_compressed(folder / "latents.npz", **record.latents)  # type: ignore[arg-type]
    half = folder / "clip.json.part"
    half.write_text(json.dumps(record.about | {"arms": sorted(record.arms)}, indent=2) + "\n")
    os.replace(half, folder / "clip.json")


def read(folder: Path) -> ClipRecord:
    """The inverse of `write`."""
    about = json.loads((folder / "clip.json").read_text())
    frames = about["num_frames"]

    def strip(name: str) -> NDArray[np.uint8]:
        with Image.open(folder / f"{name}.png") as picture:
            return np.stack(np.split(np.asarray(picture), frames, axis=1))

    with np.load(folder / "latents.npz") as file:
        latents = {name: file[name] for name in file.files}
    with Image.open(folder / "area.png") as picture:
        area_HW = np.asarray(picture) > 0
    arms = {name: strip(name) for name in about["arms"]}
    return ClipRecord(about=about, arms=arms, foreground_THW=strip("foreground") > 0, area_HW=area_HW, latents=latents)


def finished(run: Path) -> list[Path]:
    """The folders of all finished clips, by seed."""
    return sorted(path.parent for path in (run / "clips").glob("*/clip.json"))
