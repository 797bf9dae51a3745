"""Training clips that come with their motion area: a folder of videos beside what `anisora train build-masks` made of it.

A pair's area says what may move in its samples, in place of one that is drawn (`training.examples`); outside of it the
target is the still. Videos without a pair stay out, each with the reason that their line has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadConfig, BadInput
from anisora.files import existing_file, sha256_file
from anisora.media.frames import fit_mask, place
from anisora.training.masks import PAIRS
from anisora.training.sources import Source, VideoFolder

if TYPE_CHECKING:
    from anisora.training.data import DataSettings


class PairedVideos(VideoFolder):
    """The videos under a folder that have a motion area in `pairs`.

    Raises BadInput where none has, where pairs.jsonl is missing or no such table, and for an area whose file is missing
    or is another one than was written.
    """

    def __init__(self, folder: Path, pairs: Path) -> None:
        super().__init__(folder)
        records = read_pairs(pairs)
        self._areas: list[Path] = []
        clips, reasons = self.clips, []
        self.clips = []
        for clip in clips:
            record = records.get(os.path.realpath(folder / clip.name))
            reason = "not in pairs.jsonl" if record is None else record["reason"]
            if record is None or reason is not None:
                self.unusable[clip.name] = f"no motion area: {reason}"
                reasons.append(reason)
                continue
            self._areas.append(_checked_area(pairs, record))
            self.clips.append(replace(clip, area_sha256=record["area_sha256"]))
        if not self.clips:
            raise BadInput(
                "no video has a motion area",
                got=f"{len(clips)} videos in {folder}, {reasons[0] if reasons else 'none of them readable'} for one",
                expected=f"pairs of these videos in {pairs}",
                hint=f"anisora train build-masks {folder} --out {pairs}",
            )

    def area(self, index: int, size_px: tuple[int, int]) -> NDArray[np.bool_]:
        """The area [H, W] of a clip, moved as `read` moves its frames."""
        from anisora.media.image import load_mask

        mask_HW = load_mask(self._areas[index])
        return fit_mask(mask_HW, place((mask_HW.shape[1], mask_HW.shape[0]), size_px)) >= 0.5


def area_of(source: Source, index: int, size_px: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The motion area of a clip whose source knows it."""
    return source.area(index, size_px) if isinstance(source, PairedVideos) else None


def read_pairs(folder: Path) -> dict[str, dict[str, Any]]:
    """video's real path -> its line of `folder/pairs.jsonl`. Raises BadInput."""
    from anisora.store import read_jsonl

    path = existing_file(folder / PAIRS, BadInput, "the table of video-mask pairs")
    records = read_jsonl(path)
    for number, record in enumerate(records, start=1):
        if missing := {"video", "verdict", "reason", "area_file", "area_sha256"} - record.keys():
            raise BadInput(f"{path}, line {number} is no pair", got=sorted(record), expected=", ".join(sorted(missing)))
    return {os.path.realpath(record["video"]): record for record in records}


def _checked_area(folder: Path, record: dict[str, Any]) -> Path:
    path = existing_file(folder / record["area_file"], BadInput, "a motion area")
    if sha256_file(path) != record["area_sha256"]:
        raise BadInput(
            "a motion area is not the one that was made", got=path, expected=f"sha256 {record['area_sha256']}",
            hint="anisora train build-masks again",
        )  # fmt: skip
    return path


def check_used(shown: Iterable[DataSettings], motion_area_prob: float) -> None:
    """Raises BadConfig for pairs whose areas no sample would be given."""
    if motion_area_prob == 0 and any(data.pairs is not None for data in shown):
        raise BadConfig(
            "data.pairs without samples that use their areas",
            got="conditions.motion_area_prob 0",
            expected="above 0",
            hint="preset: motion",
        )
