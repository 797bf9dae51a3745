"""Repeats: the same drawings used again, whole or changed a little, inside a source, between sources, or in a benchmark.

Anime repeats itself: openings and endings in every episode, bank cuts, flashbacks; and collections hold the same film
twice, mirrored, cropped or encoded anew. A copy is proposed by perceptual hashes (of the picture, of its parts, of its
mirror image) and believed when several pictures of the clip agree on which part was copied and the pixels agree too, or
the whole order of the drawings does.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anisora.curation.fingerprint import PARTS, Fingerprint, Hashes, alike, fingerprint, part_hashes
from anisora.measures.clip import ClipView

RepeatKind = Literal["copy", "crop"]


@dataclass(frozen=True, kw_only=True)
class DedupParams:
    """When two clips count as one."""

    most_bits: int = 8
    """of 64 that may differ between a part of one picture and another picture"""
    least_share: float = 0.5
    """of a clip's pictures that must be found in the other"""
    least_likeness: float = 0.85
    """correlation of the aligned pictures, the median over those found"""
    most_changed: float = 0.12
    """share of the aligned picture that may differ by more than `changed_levels` (room for a subtitle)"""
    changed_levels: float = 16.0
    least_in_step: float = 0.7
    """of a clip's drawings that must be found in the other by one shift in time, where no two pictures are of one moment"""
    least_told_apart: int = 4
    """of those that must differ from each other by more than `most_bits`"""
    run_s: float = 20.0
    """least length of an opening or ending"""
    run_bits: int = 5
    """of 64 that may differ between frames of two showings of one"""


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Clip `a` shows the same as `b`, or as the part (left, top, right, bottom in [0, 1]) of `b`, perhaps mirrored.

    `likeness` in [0, 1] is the correlation of the aligned pictures.
    """

    a: str
    b: str
    kind: RepeatKind
    is_mirrored: bool = False
    part: tuple[float, float, float, float] = PARTS[0]
    likeness: float = 1.0


def find_repeats(clips: Sequence[Fingerprint], params: DedupParams = DedupParams()) -> list[Repeat]:
    """All pairs of clips of which one shows the same as the other or a part of it, each pair once, ordered by ids."""
    best: dict[tuple[str, str], Repeat] = {}
    for repeat in _parts_of(clips, clips, params):
        key = (min(repeat.a, repeat.b), max(repeat.a, repeat.b))
        best[key] = max(best.get(key, repeat), repeat, key=lambda r: r.likeness)
    return [best[key] for key in sorted(best)]


def _parts_of(wholes: Sequence[Fingerprint], parts: Sequence[Fingerprint], params: DedupParams) -> list[Repeat]:
    """The clips of `parts` that show a part of one of `wholes`, or all of it: Repeat(a=part, b=whole)."""
    if not wholes or not parts:
        return []
    variants = [part_hashes(small) for clip in wholes for small in clip.small_KHW]
    if not variants:
        return []
    clip_of_small = np.repeat(np.arange(len(wholes)), [len(clip.small_KHW) for clip in wholes])
    number_of_small = np.concatenate([np.arange(len(clip.small_KHW)) for clip in wholes])
    queries = np.concatenate(variants)
    drawings = np.concatenate([clip.hash_N for clip in parts])
    clip_of_drawing = np.repeat(np.arange(len(parts)), [len(clip.hash_N) for clip in parts])
    drawing_number = np.concatenate([np.arange(len(clip.hash_N)) for clip in parts])
    i, j, bits = alike(queries, drawings, params.most_bits)
    small, variant = np.divmod(i, 2 * len(PARTS))
    hits: dict[tuple[int, int], list[tuple[int, int, int, int]]] = defaultdict(list)
    rows = (clip_of_small[small], clip_of_drawing[j], number_of_small[small], variant, drawing_number[j], bits)
    for whole, part, number, which, drawing, differing in zip(*(row.tolist() for row in rows), strict=True):
        if wholes[whole] is not parts[part]:
            hits[whole, part].append((differing, number, which, drawing))
    found = [_judge(wholes[w], parts[p], sorted(h), params) for (w, p), h in sorted(hits.items())]
    return [repeat for repeat in found if repeat]


def _judge(
    whole: Fingerprint, part: Fingerprint, hits: Sequence[tuple[int, int, int, int]], params: DedupParams
) -> Repeat | None:
    """The repeat that the hits (bits, picture of the whole, part, drawing of the part clip) speak for, if pixels agree.

    The best hit of each picture votes for mirrored or not; then the small pictures of the two clips are aligned, the
    nearest in time to the hit drawing, from the part that was hit.
    """
    if not len(part.small_KHW):
        return None
    by_mirror: dict[bool, dict[int, tuple[int, int, int, int]]] = {False: {}, True: {}}
    for hit in hits:
        by_mirror[hit[2] >= len(PARTS)].setdefault(hit[1], hit)
    is_mirrored, best = max(
        by_mirror.items(), key=lambda item: (len(item[1]), -sum(hit[0] for hit in item[1].values()))
    )
    looked_at = min(len(whole.small_KHW), _shown_of(whole, part))
    if len(best) < max(1, params.least_share * looked_at):
        return None
    aligned = []
    for _, number, which, drawing in sorted(best.values())[:3]:
        near = np.argsort(np.abs(part.small_frame_K - part.frame_N[drawing]), kind="stable")[:2]
        picture = whole.small_KHW[number][:, ::-1] if is_mirrored else whole.small_KHW[number]
        box = _mirrored_part(PARTS[which - len(PARTS)]) if is_mirrored else PARTS[which]
        aligned.append(max((_align(picture, part.small_KHW[k], box, params) for k in near), key=lambda a: a[0]))
    likeness = float(np.median([score for score, _ in aligned]))
    if likeness < params.least_likeness:
        share = shared_in_step(whole, part, is_mirrored, params)
        if share < params.least_in_step:
            return None
        return Repeat(a=part.clip_id, b=whole.clip_id, kind="copy", is_mirrored=is_mirrored, likeness=share)
    box = max(aligned, key=lambda a: a[0])[1]
    kind: RepeatKind = "copy" if min(box[2] - box[0], box[3] - box[1]) > 0.975 else "crop"
    return Repeat(a=part.clip_id, b=whole.clip_id, kind=kind, is_mirrored=is_mirrored, part=box, likeness=likeness)


def shared_in_step(whole: Fingerprint, part: Fingerprint, is_mirrored: bool, params: DedupParams) -> float:
    """The share of a clip's drawings that the other shows too, all by one shift in time; 0 where they are too alike or
    too few to tell.

    The small pictures of two showings are not of the same moments, and in a fast shot none fits another; the hashes are
    of every drawing. Only for pictures shown whole, at one frame rate.
    """
    of_whole = whole.mirrored_N if is_mirrored else whole.hash_N
    bits = np.bitwise_count(part.hash_N[:, None] ^ of_whole[None])
    i, j = np.nonzero(bits <= params.run_bits)
    if not len(i):
        return 0.0
    shift = part.frame_N[i] - whole.frame_N[j]
    # A drawing may be seen a frame sooner. One shift at a time: a long still has as many pairs as drawings squared.
    matched = max((np.unique(i[np.abs(shift - value) <= 1]) for value in np.unique(shift)), key=len)
    told_apart: list[np.uint64] = []
    for drawing in part.hash_N[matched]:
        if all(np.bitwise_count(drawing ^ other) > params.most_bits for other in told_apart):
            told_apart.append(drawing)
    return len(matched) / len(part.hash_N) if len(told_apart) >= params.least_told_apart else 0.0


def _shown_of(whole: Fingerprint, part: Fingerprint) -> int:
    """How many of the whole's pictures a shorter part can show: a cut-out of a long clip is a repeat too."""
    share = min(1.0, part.num_frames / max(whole.num_frames, 1))
    return max(1, round(share * len(whole.small_KHW)))


def _mirrored_part(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return 1 - box[2], box[1], 1 - box[0], box[3]


def _align(
    whole_HW: NDArray[np.uint8],
    part_HW: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    params: DedupParams,
) -> tuple[float, tuple[float, float, float, float]]:
    """(likeness, box): how like a picture is to the part of another, after the box has been refined by ECC.

    ECC (Evangelidis and Psarakis 2008) finds the map that correlates best; it starts from the box. The likeness is 0
    where too much of the picture differs or the map is no crop (sheared, or stretched by more than a tenth).
    """
    import cv2

    height, width = whole_HW.shape
    start = np.array(
        [[box[2] - box[0], 0, box[0] * width], [0, box[3] - box[1], box[1] * height]], np.float32
    )  # from pixels of the part to pixels of the whole
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    everywhere = np.full_like(whole_HW, 255)
    candidates = [start]
    try:
        _, refined = cv2.findTransformECC(part_HW, whole_HW, start.copy(), cv2.MOTION_AFFINE, criteria, everywhere, 3)
        if np.abs(refined[[0, 1], [1, 0]]).max() < 0.06 and abs(refined[0, 0] / refined[1, 1] - 1) < 0.45:
            candidates.append(np.asarray(refined, np.float32))
    except cv2.error:  # it did not converge: the pictures have little in common
        pass
    scored = [(_likeness(whole_HW, part_HW, m, params), m) for m in candidates]
    score, m = max(scored, key=lambda item: item[0])
    left, top = float(m[0, 2]) / width, float(m[1, 2]) / height
    return score, (left, top, left + float(m[0, 0]), top + float(m[1, 1]))


def _likeness(
    whole_HW: NDArray[np.uint8], part_HW: NDArray[np.uint8], to_whole: NDArray[np.float32], params: DedupParams
) -> float:
    """The correlation of a picture with what lies under it; 0 where too much of it differs in brightness."""
    import cv2

    size = part_HW.shape[::-1]
    moved = cv2.warpAffine(
        whole_HW, to_whole, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    a = cv2.GaussianBlur(moved, (3, 3), 0).astype(np.float32)
    b = cv2.GaussianBlur(part_HW, (3, 3), 0).astype(np.float32)
    a0, b0 = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a0**2).sum() * (b0**2).sum()))
    if spread == 0:
        return 0.0
    changed = (np.abs(a0 * (b0.std() / max(a0.std(), 1e-6)) - b0) > params.changed_levels).mean()
    return max(0.0, float((a0 * b0).sum()) / spread) if changed <= params.most_changed else 0.0


# --------------------------------------------------------------------------------------------------------------------
# What to keep


def groups(repeats: Iterable[Repeat]) -> list[list[str]]:
    """Clips joined by repeats, each group sorted, the groups too."""
    parent: dict[str, str] = {}

    def root(clip_id: str) -> str:
        while parent.setdefault(clip_id, clip_id) != clip_id:
            parent[clip_id] = parent[parent[clip_id]]
            clip_id = parent[clip_id]
        return clip_id

    for repeat in repeats:
        a, b = sorted((root(repeat.a), root(repeat.b)))
        parent[b] = a
    members: dict[str, list[str]] = defaultdict(list)
    for clip_id in parent:
        members[root(clip_id)].append(clip_id)
    return sorted(sorted(group) for group in members.values() if len(group) > 1)


# --------------------------------------------------------------------------------------------------------------------
# Openings and endings: the same run in several sources


@dataclass(frozen=True, kw_only=True)
class SourceTrack:
    """All hashes of a source over time: `time_s` float [n], `hash_N` uint64 [n]; a few a second will do."""

    source_id: str
    time_s: NDArray[np.float64]
    hash_N: Hashes


@dataclass(frozen=True, kw_only=True)
class Run:
    """The same stretch in two sources: [a_start_s, a_end_s) of one is [b_start_s, b_end_s) of the other."""

    a: str
    b: str
    a_start_s: float
    a_end_s: float
    b_start_s: float
    b_end_s: float


def find_runs(sources: Sequence[SourceTrack], params: DedupParams = DedupParams()) -> list[Run]:
    """Stretches of at least `run_s` that two sources share: openings, endings, recaps.

    Frames that are alike vote for the time between their showings; along a winning difference the votes are joined over
    gaps of up to 4 s (moving pictures are sampled at other moments in each source).
    """
    tracks = [_distinct(track) for track in sources]
    times = np.concatenate([t for t, _ in tracks])
    owner = np.repeat(np.arange(len(tracks)), [len(t) for t, _ in tracks])
    hashes = np.concatenate([h for _, h in tracks])
    i, j, _ = alike(hashes, hashes, params.run_bits)
    forward = owner[i] < owner[j]
    i, j = i[forward], j[forward]
    runs = []
    for a, b in sorted(set(zip(owner[i].tolist(), owner[j].tolist(), strict=True))):
        of_pair = (owner[i] == a) & (owner[j] == b)
        for run in _runs_of(times[i[of_pair]], times[j[of_pair]], params):
            runs.append(Run(a=sources[a].source_id, b=sources[b].source_id, a_start_s=run[0], a_end_s=run[1],
                            b_start_s=run[2], b_end_s=run[3]))  # fmt: skip
    return runs


def _distinct(track: SourceTrack) -> tuple[NDArray[np.float64], Hashes]:
    """Times and hashes, at most four a second; blank pictures, whose hashes say nothing, left out."""
    keep = np.zeros(len(track.time_s), bool)
    last = -1.0
    for n, time in enumerate(track.time_s):
        if n == 0 or time - last >= 0.25:
            keep[n], last = True, float(time)
    informative = (np.bitwise_count(track.hash_N) > 8) & (np.bitwise_count(track.hash_N) < 56)
    return track.time_s[keep & informative], track.hash_N[keep & informative]


def _runs_of(
    a_s: NDArray[np.float64], b_s: NDArray[np.float64], params: DedupParams, gap_s: float = 4.0
) -> list[tuple[float, float, float, float]]:
    """The runs among the pairs of times of two sources, the longest first; none uses a moment twice."""
    found: list[tuple[float, float, float, float]] = []
    shift = b_s - a_s
    left = np.ones(len(a_s), bool)
    while left.any():
        bins = np.round(shift[left] * 2).astype(int)  # half seconds
        values, counts = np.unique(bins, return_counts=True)
        best = values[np.argmax(counts)] / 2
        near = left & (np.abs(shift - best) <= 0.5)
        times = np.unique(a_s[near])
        if times[-1] - times[0] < params.run_s:
            left &= ~near
            continue
        pieces = np.split(times, np.nonzero(np.diff(times) > gap_s)[0] + 1)
        middle = float(np.median(shift[near]))
        for piece in pieces:
            # Real runs are matched most of the way; chance hits are thin.
            is_dense = len(piece) >= (piece[-1] - piece[0]) * 1.0
            if piece[-1] - piece[0] >= params.run_s - gap_s and is_dense:
                found.append((float(piece[0]), float(piece[-1]), float(piece[0]) + middle, float(piece[-1]) + middle))
        left &= ~near
    return sorted(found)


# --------------------------------------------------------------------------------------------------------------------
# Leak guard


def benchmark_fingerprints(folder: str | os.PathLike[str]) -> list[Fingerprint]:
    """The fingerprints of all videos and pictures under a folder, named by their path in it.

    Raises BadVideo for a file that cannot be read: a guard that skips is none.
    """
    from pathlib import Path

    from anisora.media.pictures import is_picture
    from anisora.media.reader import read_video

    root = Path(folder)
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and (path.suffix.lower() in _VIDEOS or is_picture(path)):
            video = read_video(path)
            name = str(path.relative_to(root))
            found.append(fingerprint(ClipView.of_frames(video.frames_THWC, video.fps), name, name))
    return found


_VIDEOS = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".ts", ".mpg", ".ogv", ".wmv", ".flv"}


def leaks(
    clips: Sequence[Fingerprint], benchmark: Sequence[Fingerprint], params: DedupParams = DedupParams()
) -> dict[str, str]:
    """The clips that show what a benchmark shows, whole or in part, and what that is: they must not be trained on."""
    found = {repeat.a: repeat.b for repeat in _parts_of(benchmark, clips, params)}
    return {repeat.b: repeat.a for repeat in _parts_of(clips, benchmark, params)} | found
