"""Measures of stored signals: what is put in comes out again, and no signal is no score."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from anisora.curation.observers.borders import Borders
from anisora.curation.observers.flow import Flow
from anisora.curation.observers.held import Held
from anisora.curation.observers.phash import Phash
from anisora.curation.observers.sharpness import Sharpness
from anisora.measures.borders import borders
from anisora.measures.camera import camera
from anisora.measures.clip import ClipView
from anisora.measures.flow_score import flow
from anisora.measures.quality import quality
from anisora.measures.timing import drawing_fps, duration_s, holds
from anisora.synthetic.clip import render_plan
from anisora.synthetic.plan import plan_clip

FPS = Fraction(24)
ALL = {"drawing_fps": drawing_fps, "camera": camera, "quality": quality, "borders": borders, "flow": flow}


def watched(frames_THWC, *observers, every=1):
    """The clip with what observers see of its luma, as the scan would feed them."""
    luma = [np.rint(frame @ (0.299, 0.587, 0.114) * 219 / 255 + 16).astype(np.uint8) for frame in frames_THWC]
    for observer in observers:
        width = observer.needs.width_px or frames_THWC.shape[2]
        size = width, round(width * frames_THWC.shape[1] / frames_THWC.shape[2])
        for index in range(0, len(luma), every):
            observer.feed(index, index, cv2.resize(luma[index], size, interpolation=cv2.INTER_AREA))
    return ClipView.of_frames(frames_THWC, FPS, {observer.name: observer.finish() for observer in observers})


def drawn(index, drawing, move, frames=40, size=(320, 180)):
    plan = plan_clip(77, index, "train")
    plan = replace(plan, drawing=drawing, view=plan.view._replace(camera=move))
    return render_plan(plan, frames, FPS, size).video_THWC


def swept(picture, frames, *, x=0.0, y=0.0, zoom=0.0, width=320, height=180):
    """A camera over a still: the picture moves by x, y widths and grows by zoom, a second."""
    centre = np.array([picture.shape[1] / 2, picture.shape[0] / 2])
    out = []
    for t in range(frames):
        scale = np.exp(zoom * t / float(FPS))
        shift = (
            np.array([width / 2 + x * width * t / float(FPS), height / 2 + y * width * t / float(FPS)]) - scale * centre
        )
        matrix = np.float32([[scale, 0, shift[0]], [0, scale, shift[1]]])
        out.append(cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR))
    return np.stack(out)


@pytest.fixture(scope="module")
def still():
    """A large drawn picture."""
    return drawn(2, "ones", "static", frames=1, size=(720, 480))[0]


@pytest.mark.parametrize("name", sorted(ALL))
def test_without_a_signal_there_is_no_score(name):
    score = ALL[name](ClipView.of_frames(np.zeros((4, 8, 8, 3), np.uint8), FPS))
    assert (score.raw, score.reason, score.name) == (None, "no_signal", name)


@pytest.mark.parametrize(("drawing", "rate"), [("ones", 24), ("twos", 12), ("threes", 8)])
@pytest.mark.parametrize(("index", "move"), [(0, "static"), (1, "pan"), (5, "zoom_in")])
def test_the_drawing_rate_is_that_of_the_drawing_not_of_the_camera(drawing, rate, index, move):
    score = drawing_fps(watched(drawn(index, drawing, move), Held()))
    assert score.raw == pytest.approx(rate, abs=1)
    assert score.per_frame.shape == (40,)


def test_a_camera_over_a_still_draws_nothing(still):
    clip = watched(swept(still, 36, x=0.3), Held())
    assert drawing_fps(clip).raw == 0
    assert camera(clip).details["kind"] == "panned_still"
    clip = watched(swept(still, 36), Held())
    assert (drawing_fps(clip).raw, camera(clip).raw, camera(clip).details["kind"]) == (0, "static", "still")


def test_pictures_that_replace_each_other_are_a_slideshow(still):
    frames = np.concatenate([np.repeat(drawn(number, "ones", "static", 1), 24, axis=0) for number in (3, 8, 14)])
    assert camera(watched(frames, Held())).details["kind"] == "slideshow"


@pytest.mark.parametrize(
    ("move", "word"),
    [
        ({"x": 0.25}, "pan"), ({"x": -0.1}, "pan"), ({"y": 0.2}, "tilt"), ({"zoom": 0.3}, "zoom_in"),
        ({"zoom": -0.2}, "zoom_out"), ({}, "static"),
    ],
)  # fmt: skip
def test_the_camera_is_recovered(still, move, word):
    score = camera(watched(swept(still, 30, **move), Held()))
    assert score.raw == word
    seconds = 29 / 24
    assert score.details["shift_x"] == pytest.approx(move.get("x", 0) * seconds, abs=0.02)
    assert score.details["shift_y"] == pytest.approx(move.get("y", 0) * seconds, abs=0.02)
    assert np.log(score.details["scale"]) == pytest.approx(move.get("zoom", 0) * seconds, abs=0.05)


def test_shaking_comes_to_nothing(still):
    offsets = 6 * np.sin(np.arange(36) * 1.3)
    shaken = [np.roll(still, round(offset), axis=1)[100:280, 100:420] for offset in offsets]
    assert camera(watched(np.stack(shaken), Held())).raw == "shake"


def test_holds_lie_between_walls():
    level = np.array([9, 3, 9, 3, 3, 9, 8, 9, 3, 9.0])
    assert holds(level).tolist() == [False, True, False, True, True, False, False, False, True, False]
    assert not holds(np.linspace(3, 60, 20)).any()
    assert not holds(np.full(20, 7.0)).any()


def test_flow_counts_pairs_of_different_drawings_only(still):
    """A shift by so much a second has that flow, on ones and held for three frames alike."""
    ones = swept(still, 48, x=0.2)
    threes = np.repeat(ones[::3], 3, axis=0)
    for frames in (ones, threes):
        score = flow(watched(frames, Flow(), every=3))
        assert score.raw == pytest.approx(20, rel=0.15)
    held = flow(watched(np.repeat(ones[:1], 48, axis=0), Flow(), every=3))
    assert (held.raw, held.details["drawn"]) == (0, 0)


def test_flow_does_not_cross_into_the_clip(still):
    clip = watched(swept(still, 48, x=0.2), Flow(), every=3)
    part = replace(clip, span=replace(clip.span, start_frame=24, start_pts=24))
    part.signals["flow"].update({key: values[8:] for key, values in clip.signals["flow"].items()})
    assert len(flow(part).per_frame) == 7


def test_blur_and_pressing_lower_quality(still):
    def score(picture):
        return quality(watched(np.stack([picture] * 2), Sharpness())).raw

    blurred = cv2.GaussianBlur(still, (0, 0), 3)
    pressed = cv2.imdecode(cv2.imencode(".jpg", still, [cv2.IMWRITE_JPEG_QUALITY, 4])[1], 1)
    assert score(blurred) < 0.6 * score(still)
    assert score(pressed) < 0.8 * score(still)


@pytest.mark.parametrize(
    ("edges", "kind"),
    [
        ({"top": 60, "bottom": 60}, "letterbox"), ({"left": 90, "right": 90}, "pillarbox"),
        ({"top": 20, "bottom": 24, "left": 40, "right": 44}, "windowbox"), ({}, "none"),
    ],
)  # fmt: skip
def test_plain_borders_are_measured_to_the_pixel(still, edges, kind):
    framed = still.copy()
    height, width = framed.shape[:2]
    inside = np.zeros((height, width), bool)
    inside[
        edges.get("top", 0) : height - edges.get("bottom", 0), edges.get("left", 0) : width - edges.get("right", 0)
    ] = True
    framed[~inside] = 16
    score = borders(watched(np.stack([framed] * 3), Borders()))
    assert score.details["kind"] == kind
    for edge in ("top", "bottom", "left", "right"):
        assert abs(score.details[edge] - edges.get(edge, 0)) <= 1
    assert score.raw == pytest.approx(1 - inside.mean(), abs=0.01)


def test_blurred_borders_are_found(still):
    inner = cv2.resize(still, (400, 480))
    wide = cv2.GaussianBlur(cv2.resize(still, (720, 480)), (0, 0), 25)
    wide[:, 160:560] = inner
    score = borders(watched(np.stack([wide] * 2), Borders()))
    assert score.details["kind"] == "blurred"
    assert abs(score.details["left"] - 160) <= 16
    assert abs(score.details["right"] - 160) <= 16


def test_a_hash_stays_under_pressing_and_turns_with_the_mirror(still):
    def hashes(picture):
        signal = watched(picture[None], Phash()).signals["phash"]
        return int(signal["hash"][0]), int(signal["mirrored"][0])

    plain, mirrored = hashes(still)
    pressed, _ = hashes(cv2.imdecode(cv2.imencode(".jpg", still, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1))
    turned, _ = hashes(np.ascontiguousarray(still[:, ::-1]))
    other, _ = hashes(drawn(9, "ones", "static", 1, (720, 480))[0])
    assert (plain ^ pressed).bit_count() <= 6
    assert (mirrored ^ turned).bit_count() <= 6
    assert (plain ^ other).bit_count() > 14


def test_duration_is_exact():
    assert duration_s(ClipView.of_frames(np.zeros((36, 8, 8, 3), np.uint8), FPS)).raw == 1.5
