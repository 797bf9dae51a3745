"""Where training clips come from: a folder of videos or stills with captions, or the shards that curation wrote.

A source knows of every clip its name, caption and length before anything is decoded, and reads one by number: a random
window of it, at the rate and size asked for. What cannot be decoded raises BadVideo or BadImage; what to do then is the
caller's to say.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from anisora.errors import AnisoraError, BadInput, BadVideo, Failed
from anisora.files import sha256_file
from anisora.media.frames import fit

#: a caption file of its own beside a clip, or one table for the whole folder
CAPTION_TABLES = ("captions.jsonl", "captions.csv")


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What is known of a clip before it is decoded: `num_frames` is at the source's own rate, `caption` None without one.

    `area_sha256` is of the motion area that comes with it, if one does.
    """

    name: str
    caption: str | None
    num_frames: int
    fps: Fraction
    size_px: tuple[int, int]
    area_sha256: str | None = None

    def frames_at(self, fps: Fraction) -> int:
        """How many frames it fills at another rate, as `media` reads it; a still is one frame at any."""
        return 1 if self.num_frames == 1 else math.ceil(self.num_frames * fps / self.fps)


class Source(Protocol):
    """Clips by number. `unusable` are names that could not even be looked at, and why."""

    clips: list[ClipInfo]
    unusable: dict[str, str]

    def read(
        self, index: int, num_frames: int, size_px: tuple[int, int], fps: Fraction, rng: np.random.Generator
    ) -> np.ndarray:
        """uint8 [num_frames, H, W, 3]: a window of the clip that `rng` chooses, cropped to the size's aspect."""
        ...

    def digest(self, index: int) -> str:
        """The sha256 of what the clip is read from."""
        ...


class VideoFolder:
    """The videos under a folder, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        from anisora.curation.sources import SUFFIXES
        from anisora.media.reader import probe

        self.folder = folder
        self.clips: list[ClipInfo] = []
        self.unusable: dict[str, str] = {}
        paths = files_under(folder, SUFFIXES, "videos")
        captions = read_captions(folder, paths)
        for path in paths:
            name = str(path.relative_to(folder))
            try:
                video = probe(path)
            except AnisoraError as problem:
                self.unusable[name] = str(problem)
                continue
            self.clips.append(
                ClipInfo(
                    name=name,
                    caption=captions.get(name),
                    num_frames=video.num_frames,
                    fps=video.fps,
                    size_px=(video.width_px, video.height_px),
                )
            )

    def read(
        self, index: int, num_frames: int, size_px: tuple[int, int], fps: Fraction, rng: np.random.Generator
    ) -> np.ndarray:
        clip = self.clips[index]
        return read_window(self.folder / clip.name, clip, num_frames, size_px, fps, rng)

    def digest(self, index: int) -> str:
        return sha256_file(self.folder / self.clips[index].name)


class StillFolder:
    """The stills under a folder: clips of one frame."""

    def __init__(self, folder: Path) -> None:
        from anisora.media.pictures import STILL_SUFFIXES

        self.folder = folder
        self.unusable: dict[str, str] = {}
        paths = files_under(folder, STILL_SUFFIXES - {".gif"}, "images")
        captions = read_captions(folder, paths)
        self.clips = [
            ClipInfo(
                name=name,
                caption=captions.get(name),
                num_frames=1,
                fps=Fraction(1),
                size_px=_still_size(self.folder / name),
            )
            for name in (str(path.relative_to(folder)) for path in paths)
        ]

    def read(
        self, index: int, num_frames: int, size_px: tuple[int, int], fps: Fraction, rng: np.random.Generator
    ) -> np.ndarray:
        from anisora.media.image import load_image

        picture = np.array(load_image(self.folder / self.clips[index].name))  # a copy: PIL's own cannot be written to
        return fit(picture[None], size_px, "cover")[0]

    def digest(self, index: int) -> str:
        return sha256_file(self.folder / self.clips[index].name)


class Shards:
    """The clips of a finished `anisora curate` run, read from its tars by offset.

    With a mixture (a table of curation's `mixtures/`) a clip stands as often as the mixture draws it. Raises BadInput,
    naming it, for a shard that is missing or shorter than the index says. Reading raises BadVideo for a clip whose bytes
    are not those of the index, Failed for a shard that has gone meanwhile.
    """

    def __init__(self, folder: Path, mixture: Path | None = None) -> None:
        from anisora.curation import table
        from anisora.curation.shards import INDEX
        from anisora.curation.upkeep import existing_run

        self.folder = existing_run(folder)
        self.unusable: dict[str, str] = {}
        self._members: dict[str, dict[str, dict]] = {}
        index = self.folder / INDEX
        for entry in table.read(index).to_pylist() if index.exists() else []:
            self._members.setdefault(entry["clip_id"], {})[entry["member"].rsplit(".", 1)[1]] = entry
        if not self._members:
            raise BadInput(
                "no shards to train on", got=folder, expected="index.parquet with clips", hint="curate first"
            )
        self._check_whole()
        draws = _read_mixture(mixture, self._members.keys()) if mixture else dict.fromkeys(self._members, 1)
        columns = ["clip_id", "caption", "n_frames", "fps_num", "fps_den", "crop_w_px", "crop_h_px"]
        rows = table.read(self.folder / "clips.parquet", columns).to_pylist()
        infos = {row["clip_id"]: _info_of(row) for row in rows if row["clip_id"] in draws}
        self.clips = [infos[clip_id] for clip_id in sorted(draws) for _ in range(draws[clip_id])]

    def _check_whole(self) -> None:
        ends: dict[str, int] = {}
        for members in self._members.values():
            for entry in members.values():
                ends[entry["shard"]] = max(ends.get(entry["shard"], 0), entry["offset"] + entry["length"])
        for shard, end in sorted(ends.items()):
            path = self.folder / "shards" / shard
            size = path.stat().st_size if path.exists() else None
            if size is None or size < end:
                raise BadInput(
                    f"the shard {shard} is {'missing' if size is None else 'torn'}",
                    got=f"no {path}" if size is None else f"{size} bytes in {path}",
                    expected=f"{end} bytes or more",
                    hint=f"anisora curate verify {self.folder} --repair",
                )

    def _bytes(self, entry: dict) -> bytes:
        from anisora.curation.shards import read_member

        try:
            data = read_member(self.folder, entry)
        except OSError as reason:
            hint = "running the same command again once it is back"
            raise Failed(f"the shard {entry['shard']} cannot be read any more", got=reason, hint=hint) from reason
        if sha256(data).hexdigest() != entry["sha256"]:
            raise BadVideo(
                f"the clip is damaged in its shard {entry['shard']}",
                got="other bytes than the index has",
                hint=f"anisora curate verify {self.folder} --repair",
            )
        return data

    def read(
        self, index: int, num_frames: int, size_px: tuple[int, int], fps: Fraction, rng: np.random.Generator
    ) -> np.ndarray:
        clip = self.clips[index]
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(self._bytes(self._members[clip.name]["mp4"]))
            file.flush()
            return read_window(Path(file.name), clip, num_frames, size_px, fps, rng)

    def digest(self, index: int) -> str:
        return self._members[self.clips[index].name]["mp4"]["sha256"]


def _info_of(row: dict) -> ClipInfo:
    return ClipInfo(
        name=row["clip_id"],
        caption=row["caption"] or None,
        num_frames=row["n_frames"],
        fps=Fraction(row["fps_num"], row["fps_den"]),
        size_px=(row["crop_w_px"], row["crop_h_px"]),
    )


def read_window(
    path: Path,
    clip: ClipInfo,
    num_frames: int,
    size_px: tuple[int, int],
    fps: Fraction,
    rng: np.random.Generator,
) -> np.ndarray:
    """uint8 [num_frames, H, W, 3]: a random window of a video at `fps`, centre-cropped to the size. Raises BadVideo."""
    from anisora.media.reader import iter_frames

    start = int(rng.integers(clip.frames_at(fps) - num_frames + 1))
    # the last frames seen: where a file holds fewer than its header says, the window moves forward instead of failing
    frames = islice(iter_frames(path, at_fps=fps, threads=1), start + num_frames)
    window = deque((frame.rgb_HWC for frame in frames), maxlen=num_frames)
    if len(window) < num_frames:
        raise BadVideo("the clip is shorter than its file says", got=f"{len(window)} frames", expected=num_frames)
    return fit(np.stack(window), size_px, "cover")[0]


def files_under(folder: Path, suffixes: frozenset[str] | set[str], what: str, hint: str | None = None) -> list[Path]:
    """The files with these suffixes anywhere under a folder, by name. Raises BadInput for no folder, and for none."""
    if not folder.is_dir():
        raise BadInput(f"no folder of {what}", got=folder, expected="a folder", hint=hint or f"data.{what}=FOLDER")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise BadInput(f"no {what} to train on", got=folder, expected=f"files like {', '.join(sorted(suffixes)[:4])}")
    return paths


def read_captions(folder: Path, paths: list[Path]) -> dict[str, str]:
    """name relative to the folder -> caption, for those that have one: `NAME.txt` beside the file, else the folder's table.

    The table is captions.jsonl (`{video, caption}` a line) or captions.csv (columns `video`, `caption`). Raises BadInput
    for a row without them, and for one whose file is not there.
    """
    captions = _caption_table(folder, {str(path.relative_to(folder)) for path in paths})
    for path in paths:
        beside = path.with_suffix(".txt")
        if beside.is_file():
            captions[str(path.relative_to(folder))] = beside.read_text(encoding="utf-8").strip()
    return {name: caption for name, caption in captions.items() if caption}


def _caption_table(folder: Path, names: set[str]) -> dict[str, str]:
    tables = [folder / name for name in CAPTION_TABLES if (folder / name).is_file()]
    if not tables:
        return {}
    rows = _csv_rows(tables[0]) if tables[0].suffix == ".csv" else _jsonl_rows(tables[0])
    captions: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{tables[0]}, row {number}"
        name, caption = row.get("video", row.get("image")), row.get("caption")
        if not isinstance(name, str) or not isinstance(caption, str):
            raise BadInput(f"{where} is no caption", got=sorted(map(str, row)), expected="video and caption")
        name = str(Path(name))
        if name not in names:
            raise BadInput(f"{where} names a file that is not there", got=name, expected=f"a file in {folder}")
        captions[name] = caption.strip()
    return captions


def _jsonl_rows(path: Path) -> list[dict]:
    from anisora.store import read_jsonl

    return list(read_jsonl(path))


def _csv_rows(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _still_size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError):
        return (1, 1)  # reading it will say what is wrong; it is counted there


def _read_mixture(path: Path, known: Collection[str]) -> dict[str, int]:
    from anisora.curation import table

    draws = {row["clip_id"]: row["draws"] for row in table.read(path, ["clip_id", "draws"]).to_pylist()}
    if unknown := sorted(set(draws) - set(known)):
        raise BadInput(
            "the mixture draws clips that the shards do not hold",
            got=f"{len(unknown)} of {len(draws)}, {unknown[0]} for one",
            hint="a mixture made from these shards' clips.parquet",
        )
    return draws
