"""Each metric on clips whose answer is known by construction, and on clips at the limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from anisora.evaluation.corruptions import corrupt
from anisora.evaluation.metrics import DIMENSIONS, METRICS, measure
from anisora.evaluation.samples import Sample
from anisora.evaluation.suite import one_thread, score_sample
from anisora.measures.appeal import color_off, edges_fine, fadedness
from anisora.measures.footage import Footage
from anisora.measures.net_motion import _pairs
from anisora.measures.smoothness import LEAST_LEVELS, smoothness_features
from anisora.synthetic import render_clip

SAMPLE = Sample(id="clip", video=Path("clip.mp4"))
CLASSICAL = ("anime.smoothness", "anime.motion", "anime.appeal")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def said(name: str, frames: np.ndarray, sample: Sample = SAMPLE, **options):
    return measure(name, sample, Footage.of_frames(frames, **options))


def test_what_a_repeated_frame_or_another_stated_rate_does(moving_THWC):
    twice = Footage.of_frames(np.repeat(moving_THWC, 2, axis=0))
    assert twice.drawings == list(range(0, 24, 2))
    for name in CLASSICAL:
        assert said(name, moving_THWC, fps=8).raw == said(name, moving_THWC, fps=60).raw
    even, held = (said("anime.smoothness", frames).details for frames in (moving_THWC, twice.frames_THWC))
    signs = ("registration", "disorder", "flicker", "curvature", "takes_back", "turns_back", "goes_back")
    assert [held[s] for s in signs] == pytest.approx([even[s] for s in signs], abs=0.2)


@pytest.mark.parametrize("kind", ["flicker", "wobble", "shake", "shuffle", "boil", "tear"])
def test_unsteadiness_lowers_smoothness(moving_THWC, kind):
    scores = [said("anime.smoothness", corrupt(moving_THWC, kind, s)).raw for s in (0, 3, 5)]
    assert scores[0] > max(scores[1:])


def test_each_picture_shown_twice_moves_as_far():
    drawn = render_clip(31, 2, n_frames=16, fps=16, size_px=(256, 128)).video_THWC
    once, twice = (said("anime.motion", np.repeat(drawn, count, axis=0)) for count in (1, 2))
    assert once.raw > 0
    assert twice.raw == pytest.approx(once.raw)


def test_chance_comes_back_the_other_way_round():
    """The noise n makes the change n(t) - (n(t - 1) + n(t + 1)) / 2, of which the next one takes back 2/3."""
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.uniform(0, 255, (128, 160)), (0, 0), 6)
    ground = 128 + (ground - ground.mean()) * 60 / ground.std()
    shaken = [np.roll(ground, rng.integers(-4, 5, 2), (0, 1)) for _ in range(12)]
    sliding = [np.roll(ground, 3 * t, 1) for t in range(12)]
    swung = [np.roll(ground, 3 * (t % 2), 1) for t in range(12)]
    lit = [ground + 6 * n for n in rng.standard_normal(12)]
    signs = {}
    for name, clip in (("shaken", shaken), ("sliding", sliding), ("swung", swung), ("lit", lit)):
        frames = np.repeat(np.clip(np.stack(clip), 0, 255)[..., None], 3, axis=-1)
        signs[name] = smoothness_features(Footage.of_frames(np.rint(frames).astype(np.uint8)))
    assert signs["sliding"]["goes_back"] == pytest.approx(-1, abs=0.1)
    assert signs["swung"]["goes_back"] == pytest.approx(1, abs=0.1)
    assert signs["shaken"]["turns_back"] > 0.5 > 0.2 > signs["sliding"]["turns_back"]
    assert signs["lit"]["takes_back"] > 0.6 > 0.2 > signs["sliding"]["takes_back"]


@pytest.mark.parametrize("levels", [2, 4, 6])
def test_unrest_is_the_grain_in_levels_and_no_motion(levels):
    """In a picture of which a part moves; flow takes some of what is coarse for motion."""
    rng = np.random.default_rng(0)
    still = cv2.GaussianBlur(rng.uniform(0, 255, (128, 160)), (0, 0), 6)
    still = 128 + (still - still.mean()) * 30 / still.std()
    moving = np.stack([np.where(np.arange(160) < 60, np.roll(still, 3 * t, 1), still) for t in range(12)])

    def unrest(grain: float) -> float:
        frames = moving + grain * rng.standard_normal(moving.shape)
        frames = np.rint(np.clip(frames, 0, 255)).astype(np.uint8).repeat(2, 1).repeat(2, 2)
        return smoothness_features(Footage.of_frames(np.repeat(frames[..., None], 3, axis=-1)))["unrest"]

    assert np.exp(unrest(0)) == pytest.approx(LEAST_LEVELS, abs=0.5)
    assert np.exp(unrest(levels)) - LEAST_LEVELS == pytest.approx(levels, rel=0.25)


def test_drawings_out_of_order_make_a_detour():
    """Of a surface that grows lighter by even steps, each step counts by how many lie between its two ends."""

    def detour(order) -> float:
        frames = np.full((len(order), 128, 160, 3), 230, np.uint8)
        frames[:, :, :80] = (20 + 10 * np.array(order))[:, None, None, None]
        return smoothness_features(Footage.of_frames(frames))["detour"]

    in_order, eased = list(range(12)), [0, 1, 3, 6, 10, 14, 17, 19, 20]
    for sound in (in_order, in_order[::-1], eased, [*eased, *eased[-2::-1]] * 2, [0, 1, 2, 3, 2, 1] * 4):
        assert detour(sound) == pytest.approx(0, abs=0.03)  # also what swings to and fro
    for order in (
        [0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10, 11],
        [0, 1, 6, 3, 4, 5, 2, 7, 8, 9, 10, 11],
        [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11],
    ):
        assert detour(order) == pytest.approx(np.log(np.abs(np.diff(order)).mean()), abs=1e-2)


def test_motion_is_seen_from_part_to_part_of_the_clip():
    assert _pairs(12, 3) == [(1, 5), (3, 7), (5, 9), (7, 11)]
    for total in range(2, 60):
        pairs = _pairs(total, 12)
        assert [(a // 2, b // 2) for a, b in _pairs(2 * total, 12)] == pairs
        assert all(0 <= a <= b < total for a, b in pairs)
        assert len(pairs) == 22


def test_an_exchanged_figure_is_found_drawing_by_drawing_however_long_the_clip():
    drawn = render_clip(31, 3, n_frames=48, fps=16, size_px=(192, 128)).video_THWC
    other = render_clip(32, 3, n_frames=48, fps=16, size_px=(192, 128)).video_THWC
    found = {}
    for count in (12, 48):
        middle = drawn[24 - count // 2 : 24 + count // 2]
        for kind, frames in (("sound", middle), ("exchanged", corrupt(middle, "swap", 5, other_THWC=other[:1]))):
            found[kind, count] = said("anime.character", frames).details
    for count in (12, 48):
        assert found["exchanged", count]["switch"] > found["sound", count]["switch"] + 0.5
        assert found["exchanged", count]["at_jump"] > found["sound", count]["at_jump"] + 0.5
    # the same four drawings, and the same figure in them but for where the whole clip moves
    assert found["exchanged", 48]["switch"] == pytest.approx(found["exchanged", 12]["switch"], abs=0.3)


def test_black_bars_are_no_part_of_the_looks():
    """Pillars leave the scale as it is: what is inside of them is the picture but for six pixels at each side."""
    clip = render_clip(700, 0, n_frames=4, size_px=(384, 256)).video_THWC
    barred = np.pad(clip, ((0, 0), (0, 0), (50, 70), (0, 0)))
    inside = Footage.of_frames(barred).without_bars_THWC
    assert np.array_equal(inside, clip[:, :, 6:-6])
    assert said("anime.appeal", barred).raw == pytest.approx(said("anime.appeal", clip[:, :, 6:-6]).raw, abs=1e-6)
    for whole in (clip, np.zeros_like(clip), np.pad(clip, ((0, 0), (0, 0), (0, 500), (0, 0)))):
        assert np.array_equal(Footage.of_frames(whole).without_bars_THWC, whole)


def test_motion_is_that_of_the_figure_and_not_of_the_camera(moving_THWC):
    figure = said("anime.motion", moving_THWC).details
    assert figure["object"] > 10 * figure["camera"]
    wide = np.concatenate([moving_THWC[0], moving_THWC[0][:, ::-1]], axis=1)
    pan = np.stack([wide[:, 3 * t : 3 * t + 128] for t in range(12)])
    camera = said("anime.motion", pan).details
    assert camera["camera"] == pytest.approx(100 * 3 * 11 * 4 / 3 / np.hypot(128, 171) / 15, rel=0.1)
    assert camera["object"] < 0.2 * figure["object"]
    assert said("anime.motion", np.repeat(moving_THWC[:1], 8, axis=0)).raw == 0
    assert said("anime.motion", corrupt(moving_THWC, "slow", 4)).raw < 0.6 * said("anime.motion", moving_THWC).raw


def test_a_camera_that_moves_in_moves_no_figure_and_hides_none(moving_THWC):
    def pushed(frames_THWC):
        height, width = frames_THWC.shape[1:3]
        nearer = [
            cv2.getRotationMatrix2D((width / 2, height / 2), 0, 1 + 0.25 * t / (len(frames_THWC) - 1))
            for t in range(len(frames_THWC))
        ]
        return np.stack([cv2.warpAffine(f, m, (width, height)) for f, m in zip(frames_THWC, nearer, strict=True)])

    figure = said("anime.motion", moving_THWC).details["object"]
    still = said("anime.motion", pushed(np.repeat(moving_THWC[:1], len(moving_THWC), axis=0))).details
    assert still["camera"] > 0.2
    assert still["object"] < 0.02 * figure
    assert said("anime.motion", pushed(moving_THWC)).details["object"] > 0.6 * figure


def test_a_camera_that_pans_over_flat_colour_moves_no_figure_and_hides_none():
    def scene(at_x: float) -> np.ndarray:
        drawn = np.full((128, 192, 3), (230, 225, 240), np.uint8)
        cv2.rectangle(drawn, (20, 96), (172, 127), (120, 160, 110), -1)
        for trunk_x in (30, 120, 160):
            cv2.rectangle(drawn, (trunk_x, 60), (trunk_x + 5, 96), (90, 60, 40), -1)
            cv2.circle(drawn, (trunk_x + 2, 55), 12, (60, 120, 60), -1)
        for color, width in (((200, 90, 80), -1), ((30, 20, 30), 2)):
            cv2.circle(drawn, (round(at_x), 70), 18, color, width, cv2.LINE_AA)
        return drawn

    def panned(frames: list[np.ndarray]) -> np.ndarray:
        pans = [np.float32([[1, 0, 3.0 * t], [0, 1, 1.5 * t]]) for t in range(len(frames))]
        sides = {"borderMode": cv2.BORDER_REPLICATE}
        return np.stack([cv2.warpAffine(f, m, (192, 128), **sides) for f, m in zip(frames, pans, strict=True)])

    walks, stands = [scene(50 + 5 * t) for t in range(12)], [scene(50)] * 12
    figure = said("anime.motion", np.stack(walks)).details["object"]
    assert said("anime.motion", panned(stands)).details["object"] < 0.04 * figure
    assert said("anime.motion", panned(walks)).details["object"] > 0.6 * figure


def test_a_clip_that_stops_moves_less_than_its_way(moving_THWC):
    whole, stopped = (
        said("anime.motion", moving_THWC).details,
        said("anime.motion", corrupt(moving_THWC, "freeze", 3)).details,
    )
    assert whole["throughout"] == pytest.approx(whole["object"], rel=0.15)
    assert stopped["throughout"] < 0.5 * stopped["object"] < 0.5 * whole["object"]


def test_eased_motion_is_told_from_even_motion(moving_THWC):
    wall, square = moving_THWC[0].copy(), moving_THWC[0, 32:64, 12:44]
    wall[32:64, 12:44] = moving_THWC[11, 32:64, 12:44]

    def slide(places) -> dict:
        frames = np.repeat(wall[None], len(places), axis=0)
        for frame, place in zip(frames, np.rint(places).astype(int), strict=True):
            frame[32:64, place : place + 32] = square
        return said("anime.slow_in_out", frames)

    share = np.linspace(0, 1, 24)
    even, eased = slide(4 + 80 * share), slide(4 + 80 * (1 - np.cos(np.pi * share)) / 2)
    late = slide(4 + 80 * share**2)
    assert abs(even.raw) < 0.4
    assert eased.raw > 0.9
    assert late.details["slow_in"] > 0.9 > 0 > late.details["slow_out"]
    assert (even.score, even.reason) == (None, "descriptive")
    assert said("anime.slow_in_out", np.repeat(moving_THWC[:1], 24, axis=0)).reason == "nothing_moves"


def test_spoiled_pictures_have_less_appeal():
    # A drawn clip: of noise, as `moving_THWC` is made of, blur takes what would be grain in a picture. As large as it is
    # looked at: enlarging invents the levels between those that posterising left.
    drawn = render_clip(31, 0, n_frames=2, fps=16, size_px=(384, 256)).video_THWC
    for kind in ("blur", "wash", "posterize", "dirt", "jpeg", "speckle", "smear"):
        scores = [said("anime.appeal", corrupt(drawn, kind, severity)).raw for severity in (0, 3, 5)]
        assert scores == sorted(scores, reverse=True), kind


def test_fadedness_follows_its_definition(moving_THWC):
    halves = np.where(np.arange(64) < 32, 51, 153).astype(np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    assert fadedness(halves) == pytest.approx(0.2, abs=1e-3)
    assert fadedness(255 - halves) == pytest.approx(0.2, abs=1e-3)
    assert fadedness(np.full_like(moving_THWC[0], 128)) == pytest.approx(0.5, abs=0.01)
    assert fadedness(np.where(halves == 51, 0, halves).astype(np.uint8)) == 0


def test_colour_that_fits_is_off_by_nothing_to_the_bit():
    pictures = [render_clip(700 + i, 0, n_frames=1, size_px=(384, 256)).video_THWC for i in range(6)]
    assert [color_off(frames[0]) for frames in pictures] == [0.0] * len(pictures)
    grey = np.repeat(pictures[0][0][..., :1], 3, axis=-1)
    assert color_off(grey) == 0
    off = [[color_off(corrupt(frames, "bleed", severity)[0]) for frames in pictures] for severity in (2, 4)]
    assert all(before > 0.05 for before in off[0])
    assert np.median(off[1]) > 0.1
    for height, width in ((8, 8), (12, 300), (256, 17)):
        assert color_off(np.full((height, width, 3), 90, np.uint8)) == 0


def test_sharpness_is_seen_in_the_direction_that_lost_it(moving_THWC):
    frame = cv2.resize(moving_THWC[0], (256, 192), interpolation=cv2.INTER_CUBIC)
    rows, columns = edges_fine(frame)
    assert edges_fine(frame.transpose(1, 0, 2)) == pytest.approx((columns, rows), abs=1e-5)
    smeared = edges_fine(cv2.blur(frame, (9, 1)))
    assert smeared[0] < rows - 0.5
    assert smeared[1] == pytest.approx(columns, abs=0.2)
    assert edges_fine(cv2.blur(frame, (1, 9)))[1] < columns - 0.5


@pytest.mark.parametrize(
    ("frames", "reasons"),
    [
        (np.full((1, 64, 64, 3), 90, np.uint8), {"blank", "too_short"}),
        (np.zeros((12, 64, 64, 3), np.uint8), {"blank"}),
    ],
)
def test_one_frame_and_black_are_null_with_a_reason(frames, reasons):
    for name in DIMENSIONS:
        got = said(name, frames)
        assert got.score is None
        assert got.reason in reasons | {"no_model"}


def test_a_still_clip_has_no_smoothness_but_looks(moving_THWC):
    still = np.repeat(moving_THWC[:1], 12, axis=0)
    assert said("anime.smoothness", still).reason == "nothing_moves"
    assert said("anime.appeal", still).score is not None
    assert said("anime.held_share", still).raw == pytest.approx(11 / 12)


def test_text_video_is_null_and_says_why(moving_THWC):
    assert said("anime.text_video", moving_THWC).reason == "no_model"


def test_a_guide_is_found_where_it_landed(moving_THWC, tmp_path):
    from PIL import Image

    Image.fromarray(moving_THWC[5]).save(tmp_path / "guide.png")
    guide = str(tmp_path / "guide.png")
    asked = replace(SAMPLE, guides=({"image": guide, "at": 5},))
    assert said("anime.guide_landing", moving_THWC, asked).raw == 0
    late = replace(SAMPLE, guides=({"image": guide, "at": 3}, {"image": guide, "at": 5}))
    assert said("anime.guide_landing", moving_THWC, late).raw == 1.0
    assert said("anime.guide_landing", moving_THWC).reason == "no_guides"
    gone = replace(SAMPLE, guides=({"image": str(tmp_path / "none.png"), "at": 0},))
    assert said("anime.guide_landing", moving_THWC, gone).reason == "unreadable_input"


def test_mask_metrics_follow_what_moved(moving_THWC, tmp_path):
    from PIL import Image

    area = np.zeros((96, 128), np.uint8)
    area[28:68] = 255
    Image.fromarray(area).save(tmp_path / "mask.png")
    masked = replace(SAMPLE, mask=tmp_path / "mask.png")
    precise = said("anime.mask_precision", moving_THWC, masked)
    assert precise.raw > 0.95
    assert 0.1 < said("anime.mask_recall", moving_THWC, masked).raw < 0.9
    everywhere = corrupt(moving_THWC, "shake", 5)
    assert said("anime.mask_precision", everywhere, masked).raw < precise.raw
    assert said("anime.mask_leakage", everywhere, masked).raw > said("anime.mask_leakage", moving_THWC, masked).raw
    still = np.repeat(moving_THWC[:1], 4, axis=0)
    assert said("anime.mask_precision", still, masked).reason == "nothing_moves"
    assert said("anime.mask_recall", still, masked).raw == 0


def test_thread_count_changes_nothing(moving_THWC):
    import cv2

    first = [r.raw for r in score_sample(SAMPLE, CLASSICAL, footage=Footage.of_frames(moving_THWC))]
    cv2.setNumThreads(4)
    assert [r.raw for r in score_sample(SAMPLE, CLASSICAL, footage=Footage.of_frames(moving_THWC))] == first
    assert cv2.getNumThreads() == 4


def test_likeness_falls_when_another_clip_shows_through(moving_THWC):
    pytest.importorskip("torch")
    other = moving_THWC[:, ::-1, ::-1, ::-1]
    for name, kind in (("anime.image_video", "replace"), ("anime.character", "swap")):
        clean = said(name, moving_THWC)
        assert said(name, corrupt(moving_THWC, kind, 5, other_THWC=other)).raw < clean.raw
        assert clean.weights_sha256


def test_drawings_that_are_held_are_no_exchange_of_the_figure():
    """On twos and fours, slowed down, or with one drawing held for half of the clip, the figure stays who it is."""
    drawn = render_clip(33, 0, n_frames=24, fps=16, size_px=(256, 192)).video_THWC
    held = [np.repeat(drawn[::hold], hold, axis=0) for hold in (2, 4)]
    stopped = np.concatenate([drawn[:12], np.repeat(drawn[11:12], 12, axis=0)])
    clips = drawn, *held, stopped, corrupt(drawn, "slow", 3), corrupt(drawn, "swap", 5)
    clean, *kept, swapped = (said("anime.character", clip).details["switch"] for clip in clips)
    assert kept == pytest.approx([clean] * len(kept), abs=0.15)
    assert swapped > clean + 0.3


def test_every_metric_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in page] == []
