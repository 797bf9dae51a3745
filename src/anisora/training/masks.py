"""Video-mask pairs for motion-area training: where things move in a clip, from its foreground (paper 4.2.2).

The foreground of the first frame is found, followed through the clip, and united; what that says of a clip is stored with
its verdict. Clips that would teach something false are dropped: nothing to see, nothing that moves, a background that
moves as well, a figure that was lost on the way.

DIR/pairs.jsonl       a line for each video: verdict, reason, figures, the area's file, hashes
DIR/areas/NAME.png    the motion area, white may move, of the video's size: also a --motion-mask for `anisora generate`
DIR/looks/NAME.jpg    moments of the clip with the outline that was followed, and the area
DIR/sheets/NNN.png    these together, to look at
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import AnisoraError, AssetMissing, BadCheckpoint, BadConfig, BadVideo
from anisora.files import remove_partials, sha256_file, write_atomic
from anisora.geometry import round_half_up
from anisora.measures.foreground import Foreground, Mask, follow, follow_with
from anisora.measures.motion import MaskMotion, mask_motion
from anisora.measures.tracker import Tracker, open_sam2
from anisora.settings import plain, read, setting
from anisora.store import append_jsonl, canonical_json, content_hash, read_jsonl, weights_hash

if TYPE_CHECKING:
    from anisora.curation.sources import Source

PAIRS = "pairs.jsonl"

#: changes with what a line of pairs.jsonl means or how it is reached
VERSION = 1

#: clips on one sheet
_SHEET_CLIPS = 24

#: progress(phase, done, total)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """How the foreground is followed, and which clips make a pair."""

    salience: Path | None = setting(
        None, "salient-object network in ONNX (U2-Net, IS-Net, BiRefNet, InSPyReNet) instead of the bundled one",
        metavar="FILE.onnx",
    )  # fmt: skip
    tracker: Path | None = setting(
        None, "SAM 2 that follows the foreground, in transformers' layout, instead of optical flow", metavar="FOLDER"
    )
    side_px: int = setting(320, "longer side at which motion is followed")
    look_every_s: float = setting(0.25, "how often the network looks again")
    grow_frac: float = setting(0.01, "how far the area is grown, as a share of the longer side")
    min_foreground: float = setting(0.005, "least share of the first frame that is foreground")
    max_area: float = setting(0.85, "largest share of the picture that may move")
    min_recall: float = setting(0.02, "least share of the area that changes visibly")
    min_precision: float = setting(0.6, "least share of the visible change that lies in the area")
    min_found: float = setting(0.5, "least share of the looks that find what was followed")


@dataclass(frozen=True, kw_only=True, eq=False)
class Followed:
    """What was found in a clip, at the size at which it was followed."""

    frames_THWC: NDArray[np.uint8]
    foreground: Foreground
    area_HW: Mask
    motion: MaskMotion
    size_px: tuple[int, int]
    fps: Fraction

    @property
    def figures(self) -> dict[str, Any]:
        """What pairs.jsonl says of it; a share is None where nothing moved."""
        mask_THW = self.foreground.mask_THW
        return {
            "frames": len(self.frames_THWC),
            "fps": str(self.fps),
            "size": list(self.size_px),
            "foreground": float(mask_THW[0].mean()),
            "area": float(self.area_HW.mean()),
            "precision": _number(self.motion.precision),
            "recall": _number(self.motion.recall),
            "found": self.foreground.found_share,
        }


def build_masks(
    videos: Sequence[str | Path],
    out: Path,
    settings: MaskSettings | None = None,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """The lines of `out/pairs.jsonl`, one for each video under the names given; run again, it goes on where it was.

    A video that was done with the same bytes and settings is not looked at again. One that cannot be read is a line with
    that reason and stops nothing. Raises BadInput for names without videos; AssetMissing and BadCheckpoint for the network;
    Failed where another run works in the folder.
    """
    from anisora.curation.ledger import locked
    from anisora.curation.sources import find_sources

    settings = settings or MaskSettings()
    sources = find_sources(videos)[0]
    with locked(out):
        remove_partials(out)
        detect = _detector(settings)
        track, tracker = (
            (open_sam2(settings.tracker), weights_hash(settings.tracker)) if settings.tracker else (None, None)
        )
        known = {record["key"]: record for record in _read(out)}
        records = []
        for number, source in enumerate(sources):
            if progress:
                progress("videos", number, len(sources))
            record = _record(source, out, settings, detect, known, track, tracker)
            records.append(record)
            if record["key"] not in known:
                append_jsonl(out / PAIRS, record)
                known[record["key"]] = record
                if record["verdict"] == "drop":
                    say(f"dropped: {record['video']}: {record['reason']}")
        _write(out / PAIRS, records)
        write_sheets(out, records)
        if progress:
            progress("videos", len(sources), len(sources))
    return records


def read_settings(data: Any, salience: Path | None = None, tracker: Path | None = None) -> MaskSettings:
    """The settings of plain data, with other networks than they name. Raises BadConfig for values that mean nothing."""
    chosen = read(MaskSettings, data, where="build-masks")
    chosen = replace(chosen, salience=salience or chosen.salience, tracker=tracker or chosen.tracker)
    checks: list[tuple[bool, str, Any, str]] = [
        (chosen.side_px >= 64, "side_px", chosen.side_px, "64 or more"),
        (chosen.look_every_s > 0, "look_every_s", chosen.look_every_s, "above 0"),
    ]
    checks += [
        (0 <= value <= 1, name, value, "0 to 1")
        for name, value in plain(chosen).items()
        if name not in ("salience", "tracker", "side_px", "look_every_s")
    ]
    for good, name, got, expected in checks:
        if not good:
            raise BadConfig(f"build-masks: {name}", got=got, expected=expected)
    return chosen


def _read(out: Path) -> list[dict[str, Any]]:
    """What an earlier run did: lines whose area is still there as it was written."""
    if not (out / PAIRS).exists():
        return []
    return [
        record
        for record in read_jsonl(out / PAIRS)
        if record["area_file"] is None
        or ((out / record["area_file"]).exists() and sha256_file(out / record["area_file"]) == record["area_sha256"])
    ]


def _write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """The lines of this run alone, in the order of their videos."""
    write_atomic(path, "".join(canonical_json(record) + "\n" for record in records).encode())


def _detector(settings: MaskSettings) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    from anisora.measures.salience import salience

    return lambda picture_HWC: salience(picture_HWC, settings.salience)


def _record(
    source: Source,
    out: Path,
    settings: MaskSettings,
    detect: Callable[..., Any],
    known: dict[str, dict[str, Any]],
    track: Tracker | None,
    tracker_sha256: str | None,
) -> dict[str, Any]:
    """The line of one video: the known one where neither its bytes nor the settings have changed."""
    from anisora.curation.sources import text_of
    from anisora.measures.salience import weights_sha256

    path = source.path
    sha256, fault = _hashed(source)
    network = weights_sha256(settings.salience)
    how = {**plain(settings), "salience": network, "tracker": tracker_sha256}
    if tracker_sha256 is None:
        del how["tracker"]  # a line without one is called as it was before there were any
    key = content_hash([VERSION, sha256 or str(path), how])
    if key in known:
        return known[key] | {"video": text_of(path)}
    record: dict[str, Any] = {
        "key": key,
        "video": text_of(path),
        "sha256": sha256,
        "network_sha256": network,
        "verdict": "drop",
        "reason": "unreadable",
        "message": fault,
        "area_file": None,
        "area_sha256": None,
    }
    if fault:
        return record
    try:
        followed = follow_clip(path, settings, detect, track)
    except (AssetMissing, BadCheckpoint):  # of the network, not of this video
        raise
    except (AnisoraError, OSError, MemoryError) as problem:
        return record | {"message": str(problem)}
    reason = verdict(followed.figures, settings)
    name = re.sub(r"[^\w.-]", "_", path.stem)[:80] + f"-{key[:8]}"
    write_atomic(out / "looks" / f"{name}.jpg", _picture_bytes(look(followed, reason), "JPEG"))
    record |= followed.figures | {"reason": reason, "look_file": f"looks/{name}.jpg"}
    if reason is None:
        area = write_atomic(out / "areas" / f"{name}.png", _picture_bytes(_full_size(followed), "PNG"))
        record |= {"verdict": "keep", "area_file": f"areas/{name}.png", "area_sha256": sha256_file(area)}
    return record


def _hashed(source: Source) -> tuple[str | None, str | None]:
    """The sha256 of a video's bytes, or why they cannot be read."""
    if source.fault is not None:
        return None, source.fault
    try:
        return sha256_file(source.path), None
    except OSError as reason:
        return None, reason.strerror


def follow_clip(
    path: Path, settings: MaskSettings, detect: Callable[..., Any], track: Tracker | None = None
) -> Followed:
    """The foreground of a video, followed at `settings.side_px`. Raises BadVideo for one that has fewer than two frames."""
    frames, size_px, fps = read_small(path, settings.side_px)
    if len(frames) < 2:
        raise BadVideo("a clip of one frame, in which nothing can move", got=path, expected="2 frames or more")
    every = max(1, round_half_up(Fraction(settings.look_every_s) * fps))
    foreground = follow_with(frames, detect, every, track) if track else follow(frames, detect, every)
    area_HW = grown(foreground.area_HW, round_half_up(Fraction(settings.grow_frac * max(frames.shape[1:3]))))
    motion = mask_motion(frames, area_HW) if area_HW.any() else _NOTHING
    return Followed(
        frames_THWC=frames, foreground=foreground, area_HW=area_HW, motion=motion, size_px=size_px, fps=fps
    )  # fmt: skip


_NAN = float("nan")
_NOTHING = MaskMotion(precision=_NAN, recall=_NAN, precision_rectangles=_NAN, leakage=_NAN)


def read_small(path: Path, side_px: int) -> tuple[NDArray[np.uint8], tuple[int, int], Fraction]:
    """All frames of a video shrunk to a longer side of `side_px`, its own (width, height), and its rate."""
    import cv2

    from anisora.media.reader import iter_frames, probe

    video = probe(path)
    scale = min(1.0, side_px / max(video.width_px, video.height_px))
    size = (max(8, round(video.width_px * scale)), max(8, round(video.height_px * scale)))
    frames = [cv2.resize(frame.rgb_HWC, size, interpolation=cv2.INTER_AREA) for frame in iter_frames(path, threads=1)]
    return np.stack(frames), (video.width_px, video.height_px), video.fps


def verdict(figures: dict[str, Any], settings: MaskSettings) -> str | None:
    """Why a clip makes no pair; None where it makes one. Follows from its line alone."""
    if figures["foreground"] < settings.min_foreground:
        return "no_foreground"
    if figures["found"] < settings.min_found:
        return "lost"
    if figures["area"] > settings.max_area:
        return "area_too_large"
    if figures["recall"] is None or figures["precision"] is None or figures["recall"] < settings.min_recall:
        return "nothing_moves"
    return "background_moves" if figures["precision"] < settings.min_precision else None


def grown(mask_HW: Mask, by_px: int) -> Mask:
    """A mask that reaches `by_px` further in every direction, so that outlines lie inside it."""
    import cv2

    if by_px < 1:
        return mask_HW
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by_px + 1, 2 * by_px + 1))
    return cv2.dilate(mask_HW.astype(np.uint8), disc).astype(bool)


def _full_size(followed: Followed) -> NDArray[np.uint8]:
    """The area at the video's size, black and white."""
    import cv2

    soft = cv2.resize(followed.area_HW.astype(np.float32), followed.size_px, interpolation=cv2.INTER_LINEAR)
    return np.where(soft >= 0.5, 255, 0).astype(np.uint8)


# -- to look at --------------------------------------------------------------------------------------------------------


def look(followed: Followed, reason: str | None) -> NDArray[np.uint8]:
    """First, middle and last frame with the outline that was followed; then the first one, darkened where nothing may move."""
    import cv2

    last = len(followed.frames_THWC) - 1
    shown = []
    for t in (0, last // 2, last):
        outline, _ = cv2.findContours(
            followed.foreground.mask_THW[t].astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        shown.append(cv2.drawContours(followed.frames_THWC[t].copy(), outline, -1, (255, 0, 80), 1))
    first = followed.frames_THWC[0].copy()
    first[~followed.area_HW] //= 4
    if reason is not None:
        first[:6] = (200, 30, 30)
    return np.concatenate([*shown, first], axis=1)


def write_sheets(out: Path, records: Sequence[dict[str, Any]]) -> list[Path]:
    """`out/sheets/NNN.png`: what was followed in every clip, with its verdict below; sheets of earlier runs are replaced."""
    from anisora.files import atomic_folder
    from anisora.media.frames import contact_sheet
    from anisora.media.image import load_image

    seen = [record for record in records if record.get("look_file") and (out / record["look_file"]).exists()]
    if not seen:
        return []
    with atomic_folder(out / "sheets", members=r"\d+\.png") as folder:
        for number, start in enumerate(range(0, len(seen), _SHEET_CLIPS)):
            page = seen[start : start + _SHEET_CLIPS]
            looks = [np.asarray(load_image(out / record["look_file"])) for record in page]
            contact_sheet(looks, columns=2, labels=[_label(record) for record in page]).save(
                folder / f"{number:03d}.png"
            )
    return sorted((out / "sheets").glob("*.png"))


def _label(record: dict[str, Any]) -> str:
    said = record["reason"] or "kept"
    return f"{Path(record['video']).name[-60:]}: {said}, area {record['area']:.0%}"


def _picture_bytes(picture: NDArray[np.uint8], kind: str) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
