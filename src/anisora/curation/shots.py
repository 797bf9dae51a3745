"""Shots: where one take ends and the next begins, from stored signals alone.

Most transitions are plain to see, and most frames are plainly none. Rules on the differences between frames settle
those: a cut is a step that nothing around it comes near and that is not taken back; a fade runs into one colour; halfway
through a dissolve the picture is the mean of those before and after, which motion never makes it. What the rules cannot
settle is shown to TransNetV2, in short windows around the place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anisora.curation.observers.cut import BLEND_LAGS, apart_around, beside
from anisora.curation.scan import Scan
from anisora.errors import AnisoraError, BadInput
from anisora.records import Shot, Transition

_log = logging.getLogger(__name__)

#: frames; TransNetV2 was trained on windows of so many (Soucek and Lokoc 2020)
_LONGEST_WINDOW = 100

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Small frames [T, 27, 48, 3] -> the probability of a transition at each, [T]."""


@dataclass(frozen=True)
class ShotParams:
    """Grey levels are mean absolute differences of 48 x 27 pictures; chosen on joined clips (docs, "The scan").

    `network`: "unsure" asks TransNetV2 where the rules cannot tell, "never" leaves such places uncut, "everywhere" asks
    of every frame and takes its word (the scan must have kept all small frames then). Its word is taken above
    `probability`, and above `in_doubt` at places that the rules have half believed already.
    """

    network: str = "unsure"
    probability: float = 0.5
    in_doubt: float = 0.4
    cut_levels: float = 16.0
    cut_ratio: float = 2.5
    doubt_levels: float = 7.0
    doubt_ratio: float = 1.3
    taken_back: float = 0.4
    taken_back_surely: float = 0.3
    flash_frames: int = 8
    plain_contrast: float = 2.5
    dissolve_levels: float = 14.0
    dissolve_blend: float = 0.3
    doubt_blend: float = 0.75
    dissolve_faster: float = 1.4
    doubt_faster: float = 1.0
    slower: float = 0.75
    slower_blend: float = 0.25
    slower_levels: float = 3.0
    context: int = 25
    shortest: int = 2


@dataclass(frozen=True, order=True)
class Boundary:
    """Frames [start, end) that belong to no shot; for a cut start = end, the first frame behind it."""

    start: int
    end: int
    kind: Transition
    confidence: float


def find_shots(scan: Scan, params: ShotParams | None = None, network: Network | None = None) -> list[Shot]:
    """The shots of a video, in order; a pure function of its stored signals. `network` replaces TransNetV2.

    Raises BadInput where the scan has no signal `cut`, and, for "everywhere", not all small frames. Where the network
    cannot be had, doubtful places are left uncut, which is logged.
    """
    params = params or ShotParams()
    if "cut" not in scan.signals:
        raise BadInput("no shots without the signal `cut`", got=scan.errors.get("cut", "a scan without it"))
    found = boundaries(scan.signals["cut"], params, network)
    return _between(scan, found, params)


def boundaries(
    cut: Mapping[str, NDArray], params: ShotParams | None = None, network: Network | None = None
) -> list[Boundary]:
    """The transitions of a video from its signal `cut`, in order and apart from each other."""
    params = params or ShotParams()
    if params.network == "everywhere":
        return _merged(_asked_everywhere(cut, params, network))
    found, doubts = rules(cut, params)
    if params.network == "unsure" and doubts:
        found += _asked(cut, doubts, params, network)
    return _merged(found)


def rules(cut: Mapping[str, NDArray], params: ShotParams) -> tuple[list[Boundary], list[tuple[int, int]]]:
    """What is plain to see, and the frames [start, end) that are in doubt."""
    pictures = _Pictures(cut)
    sure, doubts = _fades(cut, pictures, params)
    for search in (_dissolves, _cuts):
        more, doubtful = search(cut, pictures, params)
        sure += [b for b in more if not _touches((b.start, b.end + 1), sure)]
        doubts += doubtful
    return sure, [place for place in _joined(doubts) if not _touches(place, sure)]


def _touches(place: tuple[int, int], boundaries: list[Boundary]) -> bool:
    """Whether frames [start, end) meet a boundary, or lie within two frames of it."""
    return any(place[0] <= b.end + 2 and b.start - 2 <= place[1] for b in boundaries)


def _joined(places: list[tuple[int, int]], gap: int = 3) -> list[tuple[int, int]]:
    """Places as few stretches: those that overlap or nearly do become one."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if out and start <= out[-1][1] + gap:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((start, end))
    return out


class _Pictures:
    """The stored small frames by frame number."""

    def __init__(self, cut: Mapping[str, NDArray]) -> None:
        self._tiny, self._at = cut["tiny"], {int(index): i for i, index in enumerate(cut["tiny_index"])}

    def get(self, frame: int) -> NDArray[np.int16] | None:
        at = self._at.get(frame)
        return None if at is None else self._tiny[at].astype(np.int16)

    def difference(self, a: int, b: int) -> float:
        """Mean absolute difference of two frames; infinite where one is not stored."""
        first, second = self.get(a), self.get(b)
        return float(np.abs(first - second).mean()) if first is not None and second is not None else float("inf")

    def stretch(self, start: int, end: int) -> NDArray[np.uint8] | None:
        """Frames [start, end) together; None unless all are stored."""
        at = self._at.get(start)
        if at is None or self._at.get(end - 1) != at + end - 1 - start:
            return None
        return self._tiny[at : at + end - start]


# --------------------------------------------------------------------------------------------------------------------
# The rules


def _cuts(cut: Mapping[str, NDArray], pictures: _Pictures, params: ShotParams):  # type: ignore[no-untyped-def]
    """Steps that stand out from all around them, and are not taken back soon after, as flashes are."""
    step = cut["difference"][:, 0].astype(np.float32)
    around, others = beside(step), beside(step, but=1)
    sure, doubts = [], []
    for t in np.flatnonzero(step >= params.doubt_levels).tolist():
        ratio, ratio_but_one = (float(step[t] / (besides[t] + 2.0)) for besides in (around, others))
        is_large = step[t] >= params.cut_levels and cut["histogram"][t] >= 0.3
        back = _taken_back(pictures, t, params) / float(step[t])
        if back < params.taken_back:
            # A picture as dark as the one before the step is not the one before the step.
            if is_large and ratio >= params.doubt_ratio and back >= params.taken_back_surely:
                doubts.append((t - 1, t + 1))
        elif is_large and ratio >= params.cut_ratio:
            sure.append(Boundary(t, t, "cut", min(1.0, 0.6 + 0.1 * ratio)))
        elif ratio >= params.doubt_ratio or (is_large and ratio_but_one >= params.cut_ratio):
            doubts.append((t - 1, t + 1))
    return sure, doubts


def _taken_back(pictures: _Pictures, t: int, params: ShotParams) -> float:
    """How near the picture before the step at t comes again soon, or the one behind it was there shortly before; grey
    levels."""
    lags = range(1, params.flash_frames + 1)
    return min(min(pictures.difference(t + k, t - 1), pictures.difference(t, t - 1 - k)) for k in lags)


def _fades(cut: Mapping[str, NDArray], pictures: _Pictures, params: ShotParams):  # type: ignore[no-untyped-def]
    """Runs of one colour with a slope into or out of them."""
    contrast = cut["contrast"].astype(np.float32)
    found = []
    for start, end in _runs(contrast < params.plain_contrast):
        first, last = start, end
        while first > 0 and contrast[first - 1] > contrast[first] + 0.3:
            first -= 1
        while last < len(contrast) and contrast[last] > contrast[last - 1] + 0.3:
            last += 1
        is_sloped = start - first >= 3 or last - end >= 3
        is_short = last - first <= params.flash_frames + 2
        if is_short and pictures.difference(first - 1, last) < params.taken_back * pictures.difference(
            first - 1, start
        ):
            continue
        if is_sloped:
            found.append(Boundary(min(first + 1, start), max(last - 1, end), "fade", 0.9))
    return found, []


def _dissolves(cut: Mapping[str, NDArray], pictures: _Pictures, params: ShotParams):  # type: ignore[no-untyped-def]
    """Places where the picture is the mean of the one before and the one after, though those two differ much."""
    difference, blend = cut["difference"].astype(np.float32), cut["blend"].astype(np.float32)
    step = difference[:, 0]
    candidates: list[tuple[float, Boundary]] = []
    for column, lag in enumerate(BLEND_LAGS):
        apart = apart_around(difference, lag)
        share = np.where(apart >= params.dissolve_levels, blend[:, column] / np.maximum(apart, 1), np.inf)
        for middle in np.flatnonzero(share < params.doubt_blend).tolist():
            extent = _extent(pictures, middle, lag)
            if (
                share[middle] > share[max(0, middle - 4) : middle + 5].min()
                or extent is None
                or extent[1] - extent[0] < 3
            ):
                continue
            faster = _faster_inside(step, *extent)
            # A flash on the way is a step larger than the way.
            # The blend of two pictures that both move fast moves less than either.
            is_moving = step[extent[0] : extent[1] + 1].mean() >= params.slower_levels
            is_calmer = is_moving and faster <= params.slower and share[middle] < params.slower_blend
            is_likely = faster >= params.doubt_faster or is_calmer
            if is_likely and step[extent[0] : extent[1] + 1].max() < 0.5 * apart[middle]:
                candidates.append((faster, Boundary(*extent, "dissolve", float(1 - share[middle]))))
    return _clearest(candidates, params)


def _clearest(candidates: list[tuple[float, Boundary]], params: ShotParams):  # type: ignore[no-untyped-def]
    """Of candidates that overlap the one that stands out most from its surroundings: the sure ones, and those in doubt."""
    sure: list[Boundary] = []
    doubts: list[tuple[int, int]] = []
    taken: list[Boundary] = []
    for faster, b in sorted(candidates, key=lambda candidate: -candidate[0]):
        if any(b.start < other.end and other.start < b.end for other in taken):
            continue
        taken.append(b)
        over = [other for _, other in candidates if other.start < b.end and b.start < other.end]
        confidence = max(other.confidence for other in over)
        if confidence > 1 - params.dissolve_blend and faster >= params.dissolve_faster:
            sure.append(Boundary(b.start, b.end, "dissolve", confidence))
        else:
            doubts.append((b.start, b.end))
    return sure, doubts


def _faster_inside(step: NDArray[np.float32], start: int, end: int) -> float:
    """How much faster the picture changes within [start, end] than around it: a smooth pan goes on, a dissolve ends."""
    around = np.concatenate([step[max(1, start - 8) : start], step[end + 1 : end + 9]])
    return float(step[start : end + 1].mean() / (np.median(around) + 0.5)) if around.size else 0.0


def _extent(pictures: _Pictures, middle: int, lag: int) -> tuple[int, int] | None:
    """The frames around the middle of a dissolve that are neither all of the one picture nor of the other.

    None where the way from one to the other is made in a jump, or the small frames are not stored.
    """
    tiny = pictures.stretch(middle - lag, middle + lag + 1)
    if tiny is None:
        return None
    flat = tiny.reshape(len(tiny), -1).astype(np.float32)
    way = flat[-1] - flat[0]
    weight = (flat - flat[0]) @ way / max(float(way @ way), 1.0)
    if np.diff(weight).max() > 0.45:
        return None
    inside = (weight > 0.04) & (weight < 0.96)
    start = end = lag
    while start > 0 and inside[start - 1]:
        start -= 1
    while end < len(inside) and inside[end]:
        end += 1
    return middle - lag + start, middle - lag + end


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches [start, end) in which a flag is set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


# --------------------------------------------------------------------------------------------------------------------
# The network


def _asked(
    cut: Mapping[str, NDArray], doubts: list[tuple[int, int]], params: ShotParams, network: Network | None
) -> list[Boundary]:
    """What the network says of the places in doubt; nothing where it cannot be had."""
    pictures = _Pictures(cut)
    found: list[Boundary] = []
    for first, last, places in _windows(doubts, params.context, len(cut["index"]), pictures):
        tiny = pictures.stretch(first, last)
        assert tiny is not None  # as each part of it is stored
        try:
            probability = (network or _transnet())(tiny)
        except AnisoraError as reason:
            _log.warning("%d doubtful places are left uncut: %s", len(doubts), reason)
            return []
        for start, end in places:
            low, high = max(0, start - 3 - first), end + 3 - first
            kept = np.zeros_like(probability)
            kept[low:high] = probability[low:high]
            found += [_shifted(b, first) for b in _of_probability(kept, params.in_doubt)]
    return found


def _windows(
    doubts: list[tuple[int, int]], context: int, count: int, pictures: _Pictures
) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Stretches [first, last) to show to the network, and the places in each; those that are not stored are left out.

    Places whose surroundings overlap share one, unless it were longer than the network was trained on.
    """
    windows: list[tuple[int, int, list[tuple[int, int]]]] = []
    for start, end in doubts:
        first, last = max(0, start - context), min(count, end + context)
        if pictures.stretch(first, last) is None:
            continue
        if windows and first < windows[-1][1] and last - windows[-1][0] <= _LONGEST_WINDOW:
            windows[-1] = windows[-1][0], last, [*windows[-1][2], (start, end)]
        else:
            windows.append((first, last, [(start, end)]))
    return windows


def _asked_everywhere(cut: Mapping[str, NDArray], params: ShotParams, network: Network | None) -> list[Boundary]:
    if len(cut["tiny"]) != len(cut["index"]):
        raise BadInput(
            "not all small frames are stored",
            got=f"{len(cut['tiny'])} of {len(cut['index'])}",
            hint="CutParams(keep='all')",
        )
    return _of_probability((network or _transnet("transitions"))(cut["tiny"]), params.probability)


def _transnet(name: str = "window_transitions") -> Network:
    """A function of the network's module, which brings torch with it and so is loaded late."""
    from anisora.measures import transnet

    return getattr(transnet, name)


def _of_probability(probability: NDArray[np.float32], least: float) -> list[Boundary]:
    """Transitions from what TransNetV2 says of frames: it marks the last frame before a cut, and all of a dissolve."""
    found = []
    for start, end in _runs(probability > least):
        confidence = float(probability[start:end].max())
        if end - start <= 2:
            at = start + int(np.argmax(probability[start:end])) + 1
            found.append(Boundary(at, at, "cut", confidence))
        else:
            found.append(Boundary(start, end, "dissolve", confidence))
    return found


def _shifted(b: Boundary, by: int) -> Boundary:
    return Boundary(b.start + by, b.end + by, b.kind, b.confidence)


# --------------------------------------------------------------------------------------------------------------------
# Shots


def _merged(found: list[Boundary]) -> list[Boundary]:
    """Sorted; of those that overlap or lie next to each other, one that spans both and has the surer one's kind."""
    out: list[Boundary] = []
    for b in sorted(found):
        if out and b.start <= out[-1].end + 1:
            surer = max(out[-1], b, key=lambda x: x.confidence)
            out[-1] = Boundary(out[-1].start, max(b.end, out[-1].end), surer.kind, surer.confidence)
        else:
            out.append(b)
    return out


def _between(scan: Scan, found: list[Boundary], params: ShotParams) -> list[Shot]:
    """The stretches between transitions, with what is at their ends; shorter than `shortest` frames is none."""
    start, before = 0, Boundary(0, 0, "start", 1.0)
    shots = []
    for b in [*found, Boundary(scan.num_frames, scan.num_frames, "end", 1.0)]:
        if b.start - start >= min(params.shortest, scan.num_frames):
            span = scan.span(start, b.start)
            confidence = min(before.confidence, b.confidence)
            shots.append(Shot(span=span, transition_in=before.kind, transition_out=b.kind, confidence=confidence))
        start, before = b.end, b
    return shots
