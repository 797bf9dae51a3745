"""What was laid over the picture afterwards: subtitles, credits, logos, and the borders around it.

An overlay differs from writing in the scene by how it behaves: it stands still while the picture moves, stands where
overlays stand, or rolls upwards evenly. So text is read on a few frames of a clip and followed from one to the next;
what follows neither rule is `text`: writing, but nobody's overlay. Logos are found over many shots of a source, as what
stays when everything else changes, and looked for in each clip again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anisora.curation.crop import Crop, CropParams, blocked_HW, free_crop
from anisora.measures.borders import borders
from anisora.measures.clip import ClipView
from anisora.measures.text_reader import TextLine, read_text

Kind = Literal["subtitle", "credits", "logo", "title", "text", "border"]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, half-open
Frames = NDArray[np.uint8]  # [T, H, W, 3]
Reader = Callable[[NDArray[np.uint8]], list[TextLine]]

#: Kinds that were laid over the picture. `text` is writing of which that cannot be said.
OVERLAYS: tuple[Kind, ...] = ("subtitle", "credits", "logo", "title", "border")


@dataclass(frozen=True, kw_only=True)
class OverlayParams:
    """How overlays are looked for. Lengths are shares of the picture's height or width."""

    frames_per_s: float = 2.0
    """frames looked at"""
    least_frames: int = 5
    """frames looked at in the shortest clip"""
    most_frames: int = 12
    """and in the longest"""
    still: float = 0.008
    """a line whose middle moves by less, between two looks, stands still"""
    subtitle_zone: tuple[float, float] = (0.2, 0.66)
    """a subtitle's middle lies above the first or below the second of these heights"""
    corner: tuple[float, float] = (0.34, 0.22)
    """a logo's middle lies within these shares of the width and height of a corner"""
    credits_lines: int = 4
    """lines shown at once in one column that make a card of credits"""
    column: float = 0.02
    """lines whose left, middle or right differs by less stand in one column"""


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Something over the picture in frames [start_frame, end_frame) of the source; the box holds all its places."""

    kind: Kind
    box_px: Box
    start_frame: int
    end_frame: int
    text: str = ""
    confidence: float = 1.0

    @property
    def is_overlay(self) -> bool:
        return self.kind in OVERLAYS


@dataclass(frozen=True, kw_only=True, eq=False)
class Logo:
    """A sign that a source shows over many shots: its box, and the gradients [h, w, 2] of it that stay.

    Both are in pixels of the frames it was found in, of (width, height) `source_px`.
    """

    box_px: tuple[int, int, int, int]
    gradient_HW2: NDArray[np.float32]
    source_px: tuple[int, int]


@dataclass
class _Track:
    """One line of text, followed over the frames looked at."""

    sightings: list[tuple[int, TextLine]] = field(default_factory=list)  # (number of the look, line)

    @property
    def last(self) -> TextLine:
        return self.sightings[-1][1]

    @property
    def middles(self) -> NDArray[np.float64]:
        """Centres of the boxes, [n, 2] as x, y."""
        return np.array([[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2] for b in self.boxes])

    @property
    def boxes(self) -> list[Box]:
        return [line.box_xyxy for _, line in self.sightings]

    @property
    def best(self) -> TextLine:
        return max((line for _, line in self.sightings), key=lambda line: line.confidence)


def find_overlays(
    clip: ClipView,
    params: OverlayParams = OverlayParams(),
    *,
    logos: Sequence[Logo] = (),
    read: Reader = read_text,
) -> list[Overlay]:
    """The overlays of a clip, in the pixels of the upright source, from top to bottom.

    `logos` are those that `find_logos` saw in the source. Borders come from the scan's signal. Raises AssetMissing,
    BadVideo.
    """
    count = int(np.clip(round(params.frames_per_s * clip.span.duration_s), params.least_frames, params.most_frames))
    last = clip.span.end_frame - 1  # the ends are looked at too: a line may come up just before the cut
    looks = sorted({int(look) for look in np.linspace(clip.span.start_frame, last, count).round()})
    frames_THWC = clip.frames_at(looks)
    tracks = _follow([read(frame) for frame in frames_THWC], frames_THWC.shape[1])
    kinds = _classify(tracks, frames_THWC, looks, params)
    found = [_overlay(track, kind, looks, clip) for track, kind in zip(tracks, kinds, strict=True) if kind]
    found += [_whole(clip, "logo", box) for box in _shown_logos(frames_THWC, logos)]
    found += [_whole(clip, "border", box) for box in border_boxes(clip)]
    return sorted(found, key=lambda overlay: (overlay.box_px[1], overlay.box_px[0]))


def crop_without(
    overlays: Sequence[Overlay], size_px: tuple[int, int], params: CropParams
) -> tuple[Crop | None, str | None]:
    """The largest crop of a picture of (width, height) that none of these touches, or None and why, as `free_crop` says it.

    Where nothing is left without writing and borders, the borders stay: they spoil a clip less.
    """
    crop, reason = free_crop(size_px, [overlay.box_px for overlay in overlays], params)
    written = [overlay.box_px for overlay in overlays if overlay.kind != "border"]
    if crop is None and 0 < len(written) < len(overlays):
        return free_crop(size_px, written, params)
    return crop, reason


def cover(overlays: Iterable[Overlay], size_px: tuple[int, int]) -> float:
    """The share of a picture of (width, height) that overlays touch; writing in the scene does not count."""
    return float(blocked_HW(size_px, [o.box_px for o in overlays if o.is_overlay]).mean())


# --------------------------------------------------------------------------------------------------------------------
# Lines of text over time


def _follow(lines_by_look: Sequence[Sequence[TextLine]], height: int) -> list[_Track]:
    """Lines of neighbouring looks that say nearly the same joined into tracks, the nearest first.

    A line may be missed in one look. Readings differ by a letter now and then, so likeness is enough.
    """
    tracks: list[_Track] = []
    for look, lines in enumerate(lines_by_look):
        open_tracks = [track for track in tracks if look - track.sightings[-1][0] <= 2]
        pairs = [
            (_apart(track.last, line), i, j)
            for i, track in enumerate(open_tracks)
            for j, line in enumerate(lines)
            if _alike(track.last, line)
        ]
        taken_tracks: set[int] = set()
        taken_lines: set[int] = set()
        for apart, i, j in sorted(pairs):
            if i in taken_tracks or j in taken_lines or apart > 0.5 * height:
                continue
            taken_tracks.add(i)
            taken_lines.add(j)
            open_tracks[i].sightings.append((look, lines[j]))
        tracks += [_Track([(look, line)]) for j, line in enumerate(lines) if j not in taken_lines]
    return tracks


def _alike(a: TextLine, b: TextLine) -> bool:
    """The same line: nearly the same reading, or nearly the same box with a reading in common."""
    likeness = difflib.SequenceMatcher(None, a.text, b.text, autojunk=False).ratio()
    return likeness >= 0.7 or (likeness >= 0.35 and _overlap(a.box_xyxy, b.box_xyxy) >= 0.6)


def _apart(a: TextLine, b: TextLine) -> float:
    (ax, ay), (bx, by) = a.corners.mean(axis=0), b.corners.mean(axis=0)
    return float(np.hypot(ax - bx, ay - by))


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _classify(
    tracks: Sequence[_Track], frames_THWC: Frames, looks: Sequence[int], params: OverlayParams
) -> list[Kind | None]:
    """The kind of each track; None for a single, short reading, which is more often line work than writing."""
    height, width = frames_THWC.shape[1:3]
    still = [track for track in tracks if _is_still(track, height, width, params)]
    credited = _rolling(tracks, looks, height, width, params) or _card(still, height, width, len(frames_THWC), params)
    kinds: list[Kind | None] = []
    for track in tracks:
        if _in_column(track, credited):
            kinds.append("credits")
        elif len(track.sightings) < 2 and (len(track.best.text) < 4 or track.best.confidence < 0.8):
            kinds.append(None)
        elif track not in still:
            kinds.append("text")
        else:
            kinds.append(_still_kind(track, frames_THWC, params))
    return kinds


def _is_still(track: _Track, height: int, width: int, params: OverlayParams) -> bool:
    """Whether top and bottom edges stay within the tolerance; readings of different length move the sides."""
    boxes = np.array(track.boxes)
    slack = max(params.still * height, 1.5)
    middle = np.median(boxes[:, [1, 3]], axis=0)
    near = (np.abs(boxes[:, [1, 3]] - middle) <= 2 * slack).all(axis=1)
    sides = np.abs(boxes[:, [0, 2]] - np.median(boxes[:, [0, 2]], axis=0)).min(axis=1) <= 3 * slack
    return bool((near & sides).mean() >= 0.75)


def _rolling(
    tracks: Sequence[_Track], looks: Sequence[int], height: int, width: int, params: OverlayParams
) -> list[_Track]:
    """The lines that go up or down together: at least three at one even speed, and not sideways.

    Speed is per frame: the looks are a frame more or less apart. A line that is coming or going is cut off by the edge
    of the picture, so its place there does not count.
    """
    moving: list[tuple[_Track, float]] = []
    for track in tracks:
        inside = [n for n, box in enumerate(track.boxes) if box[1] > 0.005 * height and box[3] < 0.995 * height]
        if len(inside) < 2:
            continue
        frame = np.array([looks[track.sightings[n][0]] for n in inside], float)
        x, y = track.middles[inside].T
        slope = np.polyfit(frame, y, 1)
        evenly = np.abs(np.polyval(slope, frame) - y).max() <= 0.012 * height
        if np.ptp(y) > max(params.still * height, 1.5) and evenly and np.ptp(x) <= 0.03 * width:
            moving.append((track, float(slope[0])))
    if len(moving) < 3:
        return []
    speed = float(np.median([v for _, v in moving]))
    together = [track for track, v in moving if abs(v - speed) <= 0.15 * abs(speed)]
    return together if len(together) >= 3 else []


def _card(still: Sequence[_Track], height: int, width: int, looks: int, params: OverlayParams) -> list[_Track]:
    """The still lines that stand together as a card: enough of them at once, over a good part of the height, in columns.

    Writing in a scene (stamps, signs, a shelf of books) stands anyhow; type is set upright, flush left or right or centred.
    """
    for look in range(looks):
        shown = [track for track in still if track.sightings[0][0] <= look <= track.sightings[-1][0]]
        shown = [track for track in shown if len(track.sightings) >= 2 and _is_upright(track)]
        for column in _columns(shown, params.column * width):
            middles = [float(track.middles[:, 1].mean()) for track in column]
            if len(column) >= params.credits_lines and max(middles) - min(middles) >= 0.3 * height:
                return shown
    return []


def _is_upright(track: _Track) -> bool:
    """Whether the line runs level, within three degrees."""
    left, right = track.best.corners[[0, 3]].mean(axis=0), track.best.corners[[1, 2]].mean(axis=0)
    return bool(abs(right[1] - left[1]) <= 0.05 * abs(right[0] - left[0]))


def _columns(tracks: Sequence[_Track], slack: float) -> list[list[_Track]]:
    """For each line and each of its left, middle and right: the lines that have theirs at the same place."""
    boxes = np.array([np.median(np.array(track.boxes), axis=0) for track in tracks]).reshape(-1, 4)
    places = np.stack([boxes[:, 0], boxes[:, [0, 2]].mean(axis=1), boxes[:, 2]], axis=1)
    same = np.abs(places[:, None] - places[None]) <= slack
    return [[tracks[int(j)] for j in np.flatnonzero(same[i, :, k])] for i in range(len(tracks)) for k in range(3)]


def _in_column(track: _Track, credited: Sequence[_Track]) -> bool:
    """Whether a line is one of the credits, or stands in their column: some are met once only, or read too unevenly."""
    if not credited:
        return False
    boxes = [box for other in credited for box in other.boxes]
    left, right = min(box[0] for box in boxes), max(box[2] for box in boxes)
    x = float(track.middles[:, 0].mean())
    return any(track is other for other in credited) or left <= x <= right


def _still_kind(track: _Track, frames_THWC: Frames, params: OverlayParams) -> Kind:
    """Where overlays stand, writing that stands still is one; elsewhere only if the picture around it changes."""
    count, height, width = frames_THWC.shape[:3]
    left, top, right, bottom = np.median(np.array(track.boxes), axis=0)
    x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
    size = (bottom - top) / height
    x_edge, y_edge = min(x, 1 - x), min(y, 1 - y)
    in_corner = x_edge <= params.corner[0] and y_edge <= params.corner[1] and (right - left) / width <= 0.4
    if in_corner and abs(x - 0.5) > 0.16 and len(track.sightings) >= 0.8 * count and size <= 0.14:
        return "logo"
    in_zone = y <= params.subtitle_zone[0] or y >= params.subtitle_zone[1]
    if in_zone and size <= 0.14:
        return "subtitle"
    return "title" if len(track.sightings) >= 2 and _changes_around(track, frames_THWC) else "text"


def _changes_around(track: _Track, frames_THWC: Frames) -> bool:
    """Whether more than half of a ring around the line changes between the looks at which it stands there."""
    height, width = frames_THWC.shape[1:3]
    left, top, right, bottom = np.median(np.array(track.boxes), axis=0)
    reach = bottom - top
    y0, y1 = int(max(0, top - reach)), int(min(height, bottom + reach))
    x0, x1 = int(max(0, left - reach)), int(min(width, right + reach))
    looks = [look for look, _ in track.sightings]
    part = frames_THWC[looks][:, y0:y1, x0:x1].astype(np.int16).mean(axis=-1)
    ring = np.ones(part.shape[1:], bool)
    ring[int(max(top - y0, 0)) : int(bottom - y0) + 1, int(max(left - x0, 0)) : int(right - x0) + 1] = False
    return bool(ring.any() and (np.ptp(part, axis=0)[ring] > 20).mean() > 0.5)


def _overlay(track: _Track, kind: Kind, looks: Sequence[int], clip: ClipView) -> Overlay:
    """The track's box over all its places, and its time: half-way to the looks at which it is not there."""
    boxes = np.array(track.boxes)
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    if kind == "credits" and len(track.sightings) > 1:  # it is under way between the looks, and before and after them
        step = float(np.abs(np.diff(boxes[:, 1])).max())
        top, bottom = max(0.0, top - step), min(float(clip.height_px), bottom + step)
    first, last = track.sightings[0][0], track.sightings[-1][0]
    start = clip.span.start_frame if first == 0 else (looks[first - 1] + looks[first] + 1) // 2
    end = clip.span.end_frame if last == len(looks) - 1 else (looks[last] + looks[last + 1] + 1) // 2
    return Overlay(
        kind=kind,
        box_px=(float(left), float(top), float(right), float(bottom)),
        start_frame=start,
        end_frame=max(end, start + 1),
        text=track.best.text,
        confidence=track.best.confidence,
    )


def _whole(clip: ClipView, kind: Kind, box: Box) -> Overlay:
    return Overlay(kind=kind, box_px=box, start_frame=clip.span.start_frame, end_frame=clip.span.end_frame)


# --------------------------------------------------------------------------------------------------------------------
# Logos: what stays when everything else changes

#: Shots needed before something that stays is believed to be a logo.
LEAST_SHOTS = 6
#: Grey levels a pixel of gradient that must stay, and the share of the usual gradient there that it must make up.
STAYS, STAYS_SHARE = 5.0, 0.5
#: How like a sign's gradients those of half of the shots are at least (cosine): 0.95 and more for signs, planted in real
#: pictures; chance, which leaves a median of its own where lines cross, came to 0.5.
LIKE = 0.65
#: The same for the median look of one clip that shows it, however faint it is on a bright picture.
SHOWN = 0.5
#: Frames looked at, and bits of 64 by which their perceptual hashes must differ: shots of one set-up share its scenery.
MOST_SHOTS, APART_BITS = 12, 14


def shots_apart(hash_N: NDArray[np.uint64]) -> list[int]:
    """Which of these frames, one of each shot, to show to `find_logos`: up to `MOST_SHOTS`, spread evenly over those that
    look like none before them."""
    apart: list[int] = []
    for n, value in enumerate(hash_N):
        if not apart or np.bitwise_count(hash_N[apart] ^ value).min() >= APART_BITS:
            apart.append(n)
    chosen = np.linspace(0, len(apart) - 1, min(len(apart), MOST_SHOTS)).round().astype(int)
    return [apart[k] for k in chosen]


def find_logos(frames_THWC: Frames) -> list[Logo]:
    """The signs that stand in all of these frames, one from each of at least `LEAST_SHOTS` different shots of a source.

    The median over the shots of the gradient keeps what is always there and loses the pictures (after Dekel et al.
    2017). A sign lies near the edge of the picture and is small; borders and their edges are none. Empty with too few
    shots.
    """
    import cv2

    if len(frames_THWC) < LEAST_SHOTS:
        return []
    height, width = frames_THWC.shape[1:3]
    gradient = _gradients(frames_THWC)
    median_HW2 = np.median(gradient, axis=0)
    strength = np.linalg.norm(median_HW2, axis=-1)
    usual = np.median(np.linalg.norm(gradient, axis=-1), axis=0)
    stays = ((strength >= STAYS) & (strength >= STAYS_SHARE * usual)).astype(np.uint8)
    stays[_lines(stays)] = 0
    reach = max(3, round(0.02 * height)) | 1
    joined = cv2.morphologyEx(stays, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    least = max(4, (0.008 * height) ** 2)  # specks that stay by chance would join what stands apart
    boxes = [tuple(int(v) for v in stats[k][:4]) for k in range(1, count) if stats[k][4] >= least]
    logos = []
    for x, y, w, h in _joined(boxes, reach):
        inside = stays[y : y + h, x : x + w]
        is_small = w <= 0.4 * width and h <= 0.2 * height and min(w, h) >= max(6, 0.015 * height)
        at_edge = (
            min(x + w / 2, width - x - w / 2) <= 0.3 * width and min(y + h / 2, height - y - h / 2) <= 0.25 * height
        )
        if is_small and at_edge and inside.sum() >= max(12, 0.06 * w * h):
            part = median_HW2[y : y + h, x : x + w].astype(np.float32)
            if np.median(_likeness(gradient[:, y : y + h, x : x + w], part)) < LIKE:
                continue
            logos.append(Logo(box_px=(x, y, x + w, y + h), gradient_HW2=part, source_px=(width, height)))
    return logos


def _likeness(gradient_THW2: NDArray[np.float32], sign_HW2: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine between the gradients of each frame and those of a sign, [T]."""
    both = (gradient_THW2 * sign_HW2).sum(axis=(1, 2, 3))
    return both / np.maximum(np.linalg.norm(sign_HW2) * np.sqrt((gradient_THW2**2).sum(axis=(1, 2, 3))), 1e-6)


def _gradients(frames_THWC: Frames) -> NDArray[np.float32]:
    """Central differences of the luma: float32 [T, H, W, 2]."""
    import cv2

    luma = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames_THWC]
    return np.stack(
        [
            np.stack([cv2.Sobel(y, cv2.CV_32F, 1, 0, scale=1 / 4), cv2.Sobel(y, cv2.CV_32F, 0, 1, scale=1 / 4)], -1)
            for y in luma
        ]
    )


def _lines(stays: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], ...] | NDArray[np.bool_]:
    """Pixels on rows or columns that stay for most of their length: the edges of borders, not of signs."""
    rows, columns = stays.mean(axis=1) > 0.35, stays.mean(axis=0) > 0.35
    lines = np.zeros(stays.shape, bool)
    lines[rows] = True
    lines[:, columns] = True
    return lines


def _joined(boxes: Sequence[tuple[int, ...]], gap: int) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, w, h) nearer to each other than the gap made one, until none are: the letters of one name."""
    rest = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    merged = True
    while merged:
        merged = False
        for i, a in enumerate(rest):
            near = [
                j for j, b in enumerate(rest)
                if j != i and a[0] - 2 * gap < b[2] and b[0] < a[2] + 2 * gap and a[1] - gap < b[3] and b[1] < a[3] + gap
            ]  # fmt: skip
            if near:
                group = [rest[j] for j in [i, *near]]
                low, high = np.min(group, axis=0), np.max(group, axis=0)
                rest = [b for j, b in enumerate(rest) if j != i and j not in near]
                rest.append((int(low[0]), int(low[1]), int(high[2]), int(high[3])))
                merged = True
                break
    return [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in rest]


def _shown_logos(frames_THWC: Frames, logos: Sequence[Logo]) -> list[Box]:
    """The boxes of those logos of the source that this clip shows: their gradients are there in the median look."""
    height, width = frames_THWC.shape[1:3]
    boxes: list[Box] = []
    for logo in logos:
        if logo.source_px != (width, height):
            raise ValueError(f"a logo of frames of {logo.source_px} in a clip of {(width, height)}")
        x0, y0, x1, y1 = logo.box_px
        here = np.median(_gradients(frames_THWC)[:, y0:y1, x0:x1], axis=0)
        if _likeness(here[None], logo.gradient_HW2)[0] >= SHOWN:
            boxes.append((float(x0), float(y0), float(x1), float(y1)))
    return boxes


# --------------------------------------------------------------------------------------------------------------------
# Borders


def border_boxes(clip: ClipView) -> list[Box]:
    """What of a clip is letterbox, pillarbox or a blurred border, as the measure `borders` says; none without a signal."""
    margins = borders(clip).details
    if not margins:
        return []
    top, bottom, left, right = (float(margins[side]) for side in ("top", "bottom", "left", "right"))
    width, height = float(clip.width_px), float(clip.height_px)
    sides: list[Box] = [
        (0, 0, width, top), (0, height - bottom, width, height), (0, 0, left, height), (width - right, 0, width, height)
    ]  # fmt: skip
    return [box for box in sides if box[2] > box[0] and box[3] > box[1]]
