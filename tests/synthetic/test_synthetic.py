"""Laws of the synthetic corpus: purity, splits, time, truth, two drawing backends that agree, captions."""

from fractions import Fraction

import numpy as np
import pytest

from anisora.errors import BadConfig
from anisora.synthetic import (
    ACTIONS,
    CAMERAS,
    RESERVED,
    RESERVED_COMBINATIONS,
    STYLES,
    caption,
    flows_between,
    plan_clip,
    render_clip,
    render_plan,
)
from anisora.synthetic.captions import ACTION_PHRASES
from anisora.synthetic.display import Prim
from anisora.synthetic.draw_pillow import PillowBackend
from anisora.synthetic.parts import EXTRAS, HAIRS, KINDS, OUTFITS, PALETTES
from anisora.synthetic.scene import Scene
from anisora.synthetic.truth import anchors


def find(**wanted):
    """The first training plan with these fields; person fields included."""
    for index in range(3000):
        plan = plan_clip(0, index)
        facts = {**vars(plan), "action": plan.action, "camera": plan.view.camera}
        if all(facts[k] == v for k, v in wanted.items()):
            return plan
    raise AssertionError(wanted)


@pytest.fixture(scope="module")
def clips():
    return [render_clip(1000, k, split="seen", n_frames=5, fps=8, size_px=(80, 80), truth=True) for k in range(8)]


# --- a pure function ------------------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_bytes():
    a, b = (render_clip(3, 5, n_frames=5, size_px=(64, 48)) for _ in range(2))
    assert a.video_THWC.shape == (5, 48, 64, 3)
    assert a.video_THWC.dtype == np.uint8
    assert a.video_THWC.tobytes() == b.video_THWC.tobytes()
    assert (a.caption, a.character) == (b.caption, b.character)


def test_other_indices_seeds_and_splits_are_other_clips():
    plans = {plan_clip(3, 5), plan_clip(3, 6), plan_clip(4, 5), plan_clip(1000, 5, "seen"), plan_clip(3, 5, "reserved")}
    assert len({p.rng_seed for p in plans}) == 5


def test_two_rates_sample_one_story():
    for index in range(6):
        slow = render_clip(0, index, n_frames=17, fps=8, size_px=(48, 48))
        fast = render_clip(0, index, n_frames=33, fps=Fraction(16), size_px=(48, 48))
        assert np.array_equal(slow.video_THWC, fast.video_THWC[::2])


def test_it_moves(clips):
    for clip in clips:
        assert np.abs(np.diff(clip.video_THWC.astype(int), axis=0)).mean() > 0.2


# --- splits ---------------------------------------------------------------------------------------------------------


def test_enough_is_reserved():
    assert len(RESERVED_COMBINATIONS) >= 0.15 * len(ACTIONS) * len(STYLES) * len(CAMERAS)
    tables = {"palette": PALETTES, "hair": HAIRS, "outfit": OUTFITS, "kind": KINDS, "extra": EXTRAS}
    for name, reserved in RESERVED.items():
        assert set(reserved) <= set(tables[name])
        assert len(reserved) >= 0.15 * len(tables[name])


@pytest.mark.parametrize(("split", "seed"), [("train", 0), ("seen", 1000)])
def test_nothing_reserved_occurs_in_training_or_seen(split, seed):
    plans = [plan_clip(seed + k % 7, k, split) for k in range(1500)]
    assert not any(p.combinations & RESERVED_COMBINATIONS or p.has_reserved_part for p in plans)
    assert {p.action for p in plans} == set(ACTIONS)


def test_reserved_clips_are_new_in_exactly_one_way():
    plans = [plan_clip(1000, k, "reserved") for k in range(300)]
    by_part = [p.has_reserved_part for p in plans]
    assert all(p.has_reserved_part != bool(p.combinations & RESERVED_COMBINATIONS) for p in plans)
    assert 0.35 < np.mean(by_part) < 0.65


@pytest.mark.parametrize(
    ("seed", "index", "split"),
    [(1000, 0, "train"), (999, 0, "seen"), (0, 0, "test"), (0, -1, "train"), (-1, 0, "reserved")],
)
def test_wrong_splits_and_seeds_are_refused(seed, index, split):
    with pytest.raises(BadConfig, match="got"):
        plan_clip(seed, index, split)


@pytest.mark.parametrize("wrong", [{"n_frames": 0}, {"fps": 0}, {"size_px": (4, 96)}, {"backend": "crayon"}])
def test_impossible_clips_are_refused(wrong):
    with pytest.raises(BadConfig, match="got"):
        render_clip(0, 0, **wrong)


# --- truth ----------------------------------------------------------------------------------------------------------


def test_foreground_covers_its_band(clips):
    cover = [np.median(c.truth.foreground_THW.mean((1, 2))) for c in clips]
    assert all(0.08 < c < 0.66 for c in cover), cover


def _look_up(image_HW, points_HW2):
    height, width = image_HW.shape[:2]
    x, y = np.floor(points_HW2[..., 0]).astype(int), np.floor(points_HW2[..., 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return image_HW[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)], inside


def test_flow_leads_to_the_same_owner_and_colour(clips):
    same, errors = [], []
    for clip in clips:
        t, (height, width) = clip.truth, clip.video_THWC.shape[1:3]
        y, x = np.mgrid[:height, :width] + 0.5
        for k in range(len(clip.video_THWC) - 1):
            to = np.stack([x, y], -1) + t.flow_THW2[k]
            ids, inside = _look_up(t.ids_THW[k + 1], to)
            colour, _ = _look_up(clip.video_THWC[k + 1], to)
            mine = inside & t.foreground_THW[k]
            same.append(np.mean(ids[mine] == t.ids_THW[k][mine]))
            errors.append(np.median(np.abs(colour[mine].astype(int) - clip.video_THWC[k][mine]).max(-1)))
    assert np.mean(same) > 0.93
    assert np.mean(errors) < 6


def test_flow_beats_standing_still(clips):
    flow, still = [], []
    for clip in clips:
        t = clip.truth
        y, x = np.mgrid[: t.ids_THW.shape[1], : t.ids_THW.shape[2]] + 0.5
        for k in range(len(clip.video_THWC) - 1):
            colour, inside = _look_up(clip.video_THWC[k + 1], np.stack([x, y], -1) + t.flow_THW2[k])
            now = clip.video_THWC[k].astype(int)
            flow.append(np.abs(colour - now)[inside].mean())
            still.append(np.abs(clip.video_THWC[k + 1] - now)[inside].mean())
    assert np.mean(flow) < 0.55 * np.mean(still)


def test_flow_between_any_two_frames_is_that_of_the_answer_key_for_neighbours(clips):
    flow = flows_between(1000, 0, [(1, 2), (4, 0)], split="seen", size_px=(80, 80))
    np.testing.assert_allclose(flow[0], clips[0].truth.flow_THW2[1], atol=1e-5)
    video = clips[0].video_THWC.astype(float)
    y, x = np.mgrid[:80, :80]
    colour, inside = _look_up(video[0], np.stack([x, y], -1) + flow[1])
    assert np.abs(colour - video[4])[inside].mean() < 0.8 * np.abs(video[0] - video[4])[inside].mean()


def test_camera_truth_is_the_flow_of_the_ground():
    plan = find(camera="pan", effect=None, framing="full", drawing="ones", background="room")
    clip = render_plan(plan, 5, Fraction(8), (96, 96), with_truth=True)
    t = clip.truth
    corner = np.array([2.5, 93.5, 1.0])  # the floor, in the plane of the characters
    for k in range(4):
        if t.ids_THW[k][93, 2] == 0:
            world = np.linalg.inv(np.vstack([t.camera_T23[k], (0, 0, 1)])) @ corner
            expected = t.camera_T23[k + 1] @ world - corner[:2]
            assert t.flow_THW2[k][93, 2] == pytest.approx(expected, abs=1e-3)


def test_static_camera_does_not_move_the_background():
    plan = find(camera="static", effect=None, drawing="ones", framing="full")
    t = render_plan(plan, 4, Fraction(8), (96, 96), with_truth=True).truth
    assert np.array_equal(t.camera_T23, np.broadcast_to(t.camera_T23[0], t.camera_T23.shape))
    top = t.ids_THW[:, 2] == 0
    assert np.abs(t.flow_THW2[:, 2][top]).max() < 1e-6


def test_held_drawings_are_held():
    plan = find(camera="static", drawing="threes")
    clip = render_plan(plan, 13, Fraction(24), (64, 64), with_truth=True)
    held = np.diff(clip.truth.drawing_T) == 0
    assert clip.truth.drawing_fps == 8
    assert held.sum() == 8
    for k in np.flatnonzero(held):
        assert np.array_equal(clip.video_THWC[k], clip.video_THWC[k + 1])
        assert np.abs(clip.truth.flow_THW2[k]).max() < 1e-9
    for k in np.flatnonzero(~held):
        assert not np.array_equal(clip.video_THWC[k], clip.video_THWC[k + 1])


def test_what_changes_under_a_static_camera_lies_in_the_motion_mask():
    plan = find(camera="static", effect=None, drawing="ones", framing="full", action="wave")
    clip = render_plan(plan, 9, Fraction(8), (64, 64), with_truth=True)
    changed = (np.ptp(clip.video_THWC.astype(int), axis=0) > 40).any(-1)
    assert np.mean(clip.truth.motion_mask_HW[changed]) > 0.95
    assert clip.truth.motion_mask_HW.mean() < 0.8


def test_feet_on_the_ground_do_not_slip():
    plan = find(camera="static", drawing="ones", action="walk")
    t = render_plan(plan, 17, Fraction(16), (128, 128), with_truth=True).truth
    feet = t.joints_TKJ2[:, 0, (11, 14)]
    step = np.abs(np.diff(feet[..., 0], axis=0)).min(1)  # the foot that moves least
    body = np.abs(np.diff(t.joints_TKJ2[:, 0, 0, 0]))
    assert np.median(step) < 0.15 * np.median(body)


def test_every_part_has_a_name_of_its_own():
    for index in range(150):
        for layer in Scene(plan_clip(1000, index, "reserved"), 64, 64).moment(3, Fraction(1, 3)).frame:
            keys = [p.key for p in layer.prims]
            assert len(keys) == len(set(keys)), sorted(k for k in keys if keys.count(k) > 1)


def test_anchors_pin_down_a_turn():
    bar = Prim("stroke", "bar", 1, (0.0, 0.0, 1.0, 0.0), 0.2, (0, 0, 0))
    assert np.linalg.matrix_rank(anchors(bar) - anchors(bar).mean(0)) == 2


# --- backends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_both_backends_draw_the_same_picture(style):
    skia_backend = pytest.importorskip("anisora.synthetic.draw_skia").SkiaBackend(96, 96)
    frame = Scene(find(style=style, effect=None), 96, 96).moment(3, Fraction(3, 8)).frame
    pillow = PillowBackend(96, 96)
    a, b = skia_backend.draw(frame).astype(float), pillow.draw(frame).astype(float)
    assert np.abs(a - b).mean() < 6
    assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) > 24
    assert np.mean(skia_backend.owners(frame) == pillow.owners(frame)) > 0.86


# --- captions -------------------------------------------------------------------------------------------------------


def test_captions_paraphrase():
    plan = find(action="walk")
    words = {caption(plan, variant) for variant in range(100)}
    assert len(words) > 75


def test_captions_name_the_action():
    assert set(ACTION_PHRASES) == set(ACTIONS)
    for index in range(300):
        plan = plan_clip(0, index)
        options = [p.format(side=s) for p in ACTION_PHRASES[plan.action] for s in ("to the left", "to the right")]
        text = caption(plan)
        assert any(o.lower() in text.lower() for o in options), text
        assert "{" not in text
        assert "  " not in text
