"""The fingerprint of a clip, and finding equal ones among a million.

A fingerprint holds the perceptual hash of every drawing of the clip (64 bits, stored by the scan) and a few small grey
pictures of it. Two pictures are alike when few of their bits differ; all pairs that differ in at most eight are found
exactly, by the pigeonhole: of three parts of 21 or 22 bits, one differs in at most two.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from anisora.measures.clip import ClipView

Hashes = NDArray[np.uint64]

#: The most bits in which `alike` can find all pairs.
MOST_BITS = 8
#: Up to so many pairs are simply all compared.
COMPARED_OUTRIGHT = 20_000_000
#: Pictures with a smaller spread of grey levels are blank: their hashes say nothing.
LEAST_SPREAD = 6.0
#: (width, height) of the small pictures.
SMALL_PX = (64, 36)

#: Parts of a picture that a copy may show, as left, top, right, bottom in [0, 1]: zooms at nine places, and one or two
#: sides cut off. Steps are fine enough for the hash of a part to be near that of any crop between them.
PARTS: tuple[tuple[float, float, float, float], ...] = (
    (0.0, 0.0, 1.0, 1.0),
    *(
        (round(x * (1 - s), 4), round(y * (1 - s), 4), round(x * (1 - s) + s, 4), round(y * (1 - s) + s, 4))
        for s in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
        for x, y in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=2)
    ),
    *((0.0, 0.0, 1.0, 1 - cut) for cut in (0.06, 0.12, 0.18, 0.24)),
    *((0.0, cut, 1.0, 1.0) for cut in (0.06, 0.12, 0.18, 0.24)),
    *((0.0, cut, 1.0, 1 - cut) for cut in (0.05, 0.1, 0.125)),
    *((cut, 0.0, 1 - cut, 1.0) for cut in (0.05, 0.1, 0.125)),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fingerprint:
    """What is kept of a clip for finding its repeats.

    `hash_N` and `mirrored_N` are those of its distinct drawings, first seen in frames `frame_N` of its source;
    `small_KHW` uint8 are grey pictures of frames `small_frame_K`, blank ones left out.
    """

    clip_id: str
    source_id: str
    frame_N: NDArray[np.int64]
    hash_N: Hashes
    mirrored_N: Hashes
    small_frame_K: NDArray[np.int64]
    small_KHW: NDArray[np.uint8]

    @property
    def num_frames(self) -> int:
        return int(self.frame_N[-1] - self.frame_N[0]) + 1 if len(self.frame_N) else 0


def fingerprint(clip: ClipView, clip_id: str, source_id: str, *, num_small: int = 6) -> Fingerprint:
    """The fingerprint of a clip from the scan's signals `phash` and `thumbnails`; decodes only where they are missing.

    Raises BadVideo.
    """
    frames, hashes, mirrored = _hashes(clip)
    pictures = _small(clip, num_small)
    kept = {index: small for index, small in pictures.items() if small.std() >= LEAST_SPREAD}
    new = np.concatenate([[True], np.bitwise_count(hashes[1:] ^ hashes[:-1]) > 0]) if len(hashes) else np.zeros(0, bool)
    return Fingerprint(
        clip_id=clip_id,
        source_id=source_id,
        frame_N=frames[new],
        hash_N=hashes[new],
        mirrored_N=mirrored[new],
        small_frame_K=np.array(list(kept), np.int64),
        small_KHW=np.stack(list(kept.values())) if kept else np.zeros((0, *SMALL_PX[::-1]), np.uint8),
    )


def _hashes(clip: ClipView) -> tuple[NDArray[np.int64], Hashes, Hashes]:
    signal = clip.signals.get("phash")
    if signal is not None and len(signal["index"]):
        return signal["index"], signal["hash"], signal["mirrored"]
    return hash_frames(clip.frames_THWC, clip.span.start_frame)


def hash_frames(frames_THWC: NDArray[np.uint8], first: int = 0) -> tuple[NDArray[np.int64], Hashes, Hashes]:
    """(frame numbers, hashes, hashes of the mirror images) of pictures in memory, as the scan makes them."""

    from anisora.curation.observers.phash import PICTURE_PX, Phash

    observer = Phash()
    for t, frame in enumerate(frames_THWC):
        size = PICTURE_PX, max(2, round(PICTURE_PX * frame.shape[0] / frame.shape[1]))
        observer.feed(first + t, 0, _grey(frame, size))
    found = observer.finish()
    return found["index"], found["hash"], found["mirrored"]


def _small(clip: ClipView, count: int) -> dict[int, NDArray[np.uint8]]:
    """Frame number -> small grey picture of frames spread over the span."""

    signal = clip.signals.get("thumbnails")
    if signal is not None and len(signal["index"]):
        from anisora.curation.observers.thumbnails import thumbnails

        pictures = thumbnails(signal)
        looks = list(pictures)
        looks = [looks[i] for i in sorted({(2 * k + 1) * len(looks) // (2 * count) for k in range(count)})]
        return {index: _grey(pictures[index], SMALL_PX) for index in looks}
    looks = clip.spread(count)
    return {i: _grey(frame, SMALL_PX) for i, frame in zip(looks, clip.frames_at(looks), strict=True)}


def _grey(frame_HWC: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size_px, interpolation=cv2.INTER_AREA))


def part_hashes(small_HW: NDArray[np.uint8]) -> Hashes:
    """The hashes of all `PARTS` of a small picture, then those of their mirror images: uint64 [2 x parts]."""
    import cv2

    from anisora.curation.observers.phash import hash_bits

    height, width = small_HW.shape
    pictures_NYX = np.empty((len(PARTS), 32, 32), np.float32)
    for number, placed in enumerate(_placed_parts(width, height)):
        if placed is None:
            pictures_NYX[number] = cv2.resize(small_HW, (32, 32), interpolation=cv2.INTER_AREA)
        else:
            how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            pictures_NYX[number] = cv2.warpAffine(
                small_HW, placed, (32, 32), flags=how, borderMode=cv2.BORDER_REPLICATE
            )
    # the cosine transform in two dimensions is that along rows, and then along columns: of all parts at once
    along_x_NYU = np.asarray(cv2.dct(pictures_NYX.reshape(-1, 32), flags=cv2.DCT_ROWS)).reshape(-1, 32, 32)[..., :8]
    columns = np.ascontiguousarray(along_x_NYU.swapaxes(1, 2)).reshape(-1, 32)
    low_NUV = np.asarray(cv2.dct(columns, flags=cv2.DCT_ROWS)).reshape(-1, 8, 32)[..., :8]
    coefficients = low_NUV.swapaxes(1, 2).reshape(len(PARTS), -1).astype(np.float32, copy=False)
    mirror = np.tile(np.where(np.arange(8) % 2, -1, 1), 8).astype(np.float32)
    return np.concatenate([hash_bits(coefficients), hash_bits(coefficients * mirror)])


@cache
def _placed_parts(width_px: int, height_px: int) -> list[NDArray[np.float64] | None]:
    """For each of `PARTS` the affine map from 32 x 32 pixels into a picture of that size; None for all of it."""
    found: list[NDArray[np.float64] | None] = []
    for left, top, right, bottom in PARTS:
        scale_x, scale_y = (right - left) * width_px / 32, (bottom - top) * height_px / 32
        if (scale_x * 32, scale_y * 32) == (width_px, height_px):
            found.append(None)
            continue
        middle_x, middle_y = (left + right) / 2 * width_px - 0.5, (top + bottom) / 2 * height_px - 0.5
        found.append(np.array([[scale_x, 0, middle_x - scale_x * 15.5], [0, scale_y, middle_y - scale_y * 15.5]]))
    return found


def alike(
    a_N: Hashes, b_M: Hashes, most_bits: int = MOST_BITS
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """All pairs (i, j) with at most `most_bits` bits between a[i] and b[j], ordered, and that number: exact.

    Equal values are compared once. Time grows with the pairs that share a part, memory with the pairs found.
    """
    if not 0 <= most_bits <= MOST_BITS:
        raise ValueError(f"0 to {MOST_BITS} bits can be told, not {most_bits}")
    a_unique, a_of = np.unique(a_N, return_inverse=True)
    b_unique, b_of = np.unique(b_M, return_inverse=True)
    i, j = _alike_unique(a_unique, b_unique, most_bits)
    rows, columns = _members(i, j, a_of, b_of)
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    return rows, columns, np.bitwise_count(a_N[rows] ^ b_M[columns])


def _alike_unique(a: Hashes, b: Hashes, most_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of distinct values, by their numbers."""
    if len(a) * len(b) <= COMPARED_OUTRIGHT:
        return _compared(a, b, most_bits)
    found = []
    for start, bits in ((0, 22), (22, 21), (43, 21)):
        flips = _flips(bits, most_bits // 3)
        key_a, key_b = ((values >> np.uint64(start)).astype(np.int64) & ((1 << bits) - 1) for values in (a, b))
        a_order, b_order = (
            np.argsort(key_a),
            np.argsort(key_b),
        )  # sorted, as neighbours in memory are looked up together
        a_sorted, a_keys, b_sorted = a[a_order], key_a[a_order].astype(np.int32), b[b_order]
        starts = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(np.bincount(key_b, minlength=1 << bits), out=starts[1:])
        for flip in flips:
            keys = a_keys ^ flip
            first = starts[keys]
            count = starts[keys + 1] - first
            rows = np.nonzero(count)[0]
            for part in _chunks(count[rows]):
                some, size = rows[part], count[rows[part]]
                own = np.repeat(some, size)
                place = np.arange(len(own)) - np.repeat(np.cumsum(size) - size - first[some], size)
                near = np.nonzero(np.bitwise_count(a_sorted[own] ^ b_sorted[place]) <= most_bits)[0]
                found.append(a_order[own[near]] * len(b) + b_order[place[near]])
    return np.divmod(np.unique(np.concatenate(found)), len(b))


def _compared(a: Hashes, b: Hashes, most_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same pairs by comparing all with all, in blocks of rows."""
    block = max(1, 4_000_000 // max(len(b), 1))
    none = np.zeros(0, np.int64)
    near = [np.nonzero(np.bitwise_count(a[k : k + block, None] ^ b) <= most_bits) for k in range(0, len(a), block)]
    rows = [found[0] + number * block for number, found in enumerate(near)]
    return np.concatenate([none, *rows]), np.concatenate([none, *(found[1] for found in near)])


def _flips(bits: int, most: int) -> list[np.int32]:
    """Every number with at most `most` of its `bits` bits set."""
    return [
        np.int32(sum(1 << k for k in places))
        for n in range(most + 1)
        for places in itertools.combinations(range(bits), n)
    ]


def _chunks(count: NDArray[np.int32], most: int = 4_000_000) -> list[slice]:
    """Runs of rows whose counts add up to about `most`, so that memory stays small."""
    total = np.cumsum(count, dtype=np.int64)
    if not len(total):
        return []
    cuts = np.searchsorted(total, np.arange(most, int(total[-1]), most)) + 1
    edges = sorted({0, *(int(cut) for cut in cuts), len(count)})
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _members(
    i: NDArray[np.int64], j: NDArray[np.int64], a_of: NDArray[np.int64], b_of: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All combinations of the places that hold value i with those that hold value j, for each pair."""
    a_order, b_order = np.argsort(a_of, kind="stable"), np.argsort(b_of, kind="stable")
    a_count, b_count = np.bincount(a_of), np.bincount(b_of)
    a_start, b_start = np.cumsum(a_count) - a_count, np.cumsum(b_count) - b_count
    size = a_count[i] * b_count[j]
    within = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    by = np.repeat(b_count[j], size)
    return a_order[np.repeat(a_start[i], size) + within // by], b_order[np.repeat(b_start[j], size) + within % by]
