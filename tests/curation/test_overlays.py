"""Overlays told from writing in the scene, by rules (with a reader that knows the truth) and with the real networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from anisora.curation.crop import CropParams
from anisora.curation.overlays import (
    Overlay,
    border_boxes,
    cover,
    crop_without,
    find_logos,
    find_overlays,
)
from anisora.errors import AssetMissing
from anisora.measures.clip import ClipView
from anisora.measures.text_reader import TextLine, read_text
from anisora.synthetic import render_clip
from anisora.synthetic.lettering import FONTS, HELD_OUT_FONTS, TUNING_FONTS, font_path, has_glyphs, languages, letter

SIZE = (320, 180)


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """A shot that moves all over: every pixel differs from look to look."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (24, 20, 44, 3), dtype=np.uint8).repeat(12, axis=1).repeat(12, axis=2)
    return np.ascontiguousarray(base[:, : SIZE[1], : SIZE[0]])


def reader(lines: Callable[[int], Sequence[tuple[str, tuple[float, float, float, float]]]]):
    """Reads what `lines` says for the number of the look: the tracking is tried apart from the networks."""
    looks = iter(range(1000))

    def read(_frame: np.ndarray) -> list[TextLine]:
        return [
            TextLine(corners=np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32), text=text, confidence=0.95)
            for text, (x0, y0, x1, y1) in lines(next(looks))
        ]

    return read


def kinds(clip: np.ndarray, lines) -> list[str]:
    return [overlay.kind for overlay in find_overlays(ClipView.of_frames(clip, 8), read=reader(lines))]


def test_where_and_how_text_stands_says_what_it_is(moving: np.ndarray):
    assert kinds(moving, lambda t: [("Where is it?", (90, 150, 230, 165))]) == ["subtitle"]
    assert kinds(moving, lambda t: [("Above all", (90, 8, 230, 23))]) == ["subtitle"]
    assert kinds(moving, lambda t: [("TOON", (270, 10, 310, 22))]) == ["logo"]
    assert kinds(moving, lambda t: [("Chapter One", (90, 80, 230, 105))]) == ["title"]
    rows = ["Director", "Jane Milford", "Music", "Otto Brandt", "Editor"]
    assert set(kinds(moving, lambda t: [(r, (90, 20 + 30 * i, 200, 34 + 30 * i)) for i, r in enumerate(rows)])) == {
        "credits"
    }
    roll = lambda t: [(r, (90, 150 + 40 * i - 30 * t, 200, 164 + 40 * i - 30 * t)) for i, r in enumerate(rows)]  # noqa: E731
    assert set(kinds(moving, roll)) == {"credits"}


def test_writing_in_the_scene_is_no_overlay(moving: np.ndarray):
    pan = kinds(moving, lambda t: [("HARBOUR INN", (20 + 25 * t, 140, 90 + 25 * t, 155))])
    still = np.repeat(moving[:1], 24, axis=0)
    assert pan == kinds(still, lambda t: [("HARBOUR INN", (120, 80, 190, 95))]) == ["text"]
    shelf = [(40, 15, 120, 30), (140, 70, 200, 90), (75, 110, 190, 122), (210, 40, 290, 52), (12, 135, 60, 150)]
    assert "credits" not in kinds(still, lambda t: [(f"Volume {box[0]}", box) for box in shelf])
    assert kinds(moving, lambda t: [("CO", (120, 80, 150, 95))] if t == 2 else []) == []


def test_a_subtitle_has_its_time(moving: np.ndarray):
    (found,) = find_overlays(
        ClipView.of_frames(moving, 8),
        read=reader(lambda t: [("Wait for me!", (90, 150, 230, 165))] if t in (2, 3) else []),
    )
    assert 4 <= found.start_frame <= 9
    assert 16 <= found.end_frame <= 21


def test_a_misread_letter_or_a_missed_look_does_not_split_a_line(moving: np.ndarray):
    said = [
        "Where did they go?",
        "Where did thay go?",
        None,
        "Where did they g0?",
        "Where did they go?",
        "Where did they go?",
    ]
    found = find_overlays(
        ClipView.of_frames(moving, 8), read=reader(lambda t: [(said[t], (90, 150, 230, 165))] if said[t] else [])
    )
    assert [overlay.text for overlay in found] == ["Where did they go?"]


def test_cover_counts_what_lies_over_the_picture():
    lines = [
        Overlay(kind="subtitle", box_px=(0, 90, 100, 100), start_frame=0, end_frame=1),
        Overlay(kind="text", box_px=(0, 0, 100, 50), start_frame=0, end_frame=1),
    ]
    assert cover(lines, (100, 100)) == 0.1


def shots(count: int) -> np.ndarray:
    """One frame of each of several shots."""
    return np.stack(
        [render_clip(4000 + k, 0, split="seen", n_frames=1, size_px=SIZE).video_THWC[0] for k in range(count)]
    )


def signed(frames: np.ndarray, alpha: float) -> np.ndarray:
    """The frames under a half transparent ring with a bar, in the upper right corner."""
    import cv2

    sign = np.zeros((*frames.shape[1:3], 1), np.float32)
    cv2.circle(sign, (295, 20), 10, 1.0, 3)
    cv2.rectangle(sign, (293, 14), (297, 26), 1.0, -1)
    return np.rint(frames * (1 - alpha * sign) + 255 * alpha * sign).astype(np.uint8)


def test_borders_stay_where_too_little_would_be_left_without_them():
    def over(kind, *box):
        return Overlay(kind=kind, box_px=box, start_frame=0, end_frame=8)

    subtitle, borders = (
        over("subtitle", 100, 150, 220, 165),
        [over("border", 0, 0, 50, 180), over("border", 270, 0, 320, 180)],
    )
    params = CropParams(min_kept_area=0.6)
    beside_both, _ = crop_without([subtitle, *borders], SIZE, CropParams(min_kept_area=0.1))
    assert beside_both
    assert beside_both.x_px >= 50
    free, _ = crop_without([subtitle, *borders], SIZE, params)
    assert free
    assert free.y_px + free.height_px <= 150
    assert free == crop_without([subtitle], SIZE, params)[0]
    assert crop_without(borders, SIZE, params) == (None, "crop_too_small")


def test_a_sign_that_stays_over_many_shots_is_a_logo():
    frames = shots(10)
    assert find_logos(frames) == []
    (logo,) = find_logos(signed(frames, 0.7))
    assert np.allclose(logo.box_px, (284, 9, 306, 31), atol=5)
    assert find_logos(signed(frames, 0.7)[:3]) == []
    with_it = ClipView.of_frames(signed(frames[:6], 0.7), 8)
    nothing = reader(lambda t: [])
    assert [o.kind for o in find_overlays(with_it, logos=[logo], read=nothing)] == ["logo"]
    assert find_overlays(ClipView.of_frames(frames[:6], 8), logos=[logo], read=nothing) == []


def test_borders_are_those_that_the_scan_measured():
    margins = {"top": [20, 20, 21], "bottom": [20, 20, 20], "left": [0, 0, 0], "right": [0, 0, 0]}
    signal = {"index": np.arange(3)} | {edge: np.array(px) for edge, px in margins.items()}
    signal |= {"columns": np.ones((3, 96)), "rows": np.ones((3, 54))}
    clip = ClipView.of_frames(shots(5), 8, {"borders": signal})
    assert border_boxes(clip) == [(0, 0, 320, 20), (0, 160, 320, 180)]
    assert border_boxes(ClipView.of_frames(shots(5), 8)) == []


# --------------------------------------------------------------------------------------------------------------------
# With the real networks and fonts


@pytest.fixture(scope="module")
def networks() -> None:
    try:
        read_text(np.zeros((64, 64, 3), np.uint8))
        for name in TUNING_FONTS:
            font_path(name)
    except AssetMissing as missing:
        pytest.skip(str(missing))


def test_fonts_are_used_only_for_what_they_can_draw(networks: None):
    assert not set(TUNING_FONTS) & set(HELD_OUT_FONTS)
    assert set(TUNING_FONTS) | set(HELD_OUT_FONTS) == set(FONTS)
    assert languages("source-serif") == ["en"]
    assert languages("ipaex-gothic") == ["en", "ja"]
    assert not has_glyphs("ipaex-gothic", "这")


def test_burnt_in_boxes_are_exact(networks: None, moving: np.ndarray):
    lettered = letter(moving, "subtitle", "ipaex-gothic", "ja", seed=3)
    for before, after, box in zip(moving, lettered.frames_THWC, lettered.box_T, strict=True):
        differs = (before != after).any(axis=-1)
        if box is None:
            assert not differs.any()
        else:
            left, top, right, bottom = box
            assert differs[top:bottom, left:right].any()
            differs[top:bottom, left:right] = False
            assert not differs.any()


@pytest.mark.parametrize(
    ("kind", "font", "language"), [("subtitle", "ipaex-gothic", "ja"), ("credits", "source-serif", "en")]
)
def test_lettering_is_found_where_it_is(networks: None, kind: str, font: str, language: str):
    film = render_clip(3100, 0, split="seen", n_frames=16, fps=8, size_px=(480, 270)).video_THWC
    assert not any(o.is_overlay for o in find_overlays(ClipView.of_frames(film, 8)))
    lettered = letter(film, kind, font, language, seed=2)
    found = [o for o in find_overlays(ClipView.of_frames(lettered.frames_THWC, 8)) if o.is_overlay]
    assert {o.kind for o in found} == {kind}
    from anisora.curation.crop import blocked_HW

    seen = blocked_HW((480, 270), [o.box_px for o in found], 2)
    truth = blocked_HW((480, 270), [box for box in lettered.box_T if box])
    assert (seen & truth).sum() / truth.sum() > 0.9
