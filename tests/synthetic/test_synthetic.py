"""Laws of the synthetic corpus: purity, splits, time, truth, two drawing backends that agree, captions."""

import itertools
import re
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from anisora.errors import BadConfig
from anisora.synthetic import (
    ACTIONS,
    CAMERAS,
    CORPUS_VERSION,
    RESERVED,
    RESERVED_COMBINATIONS,
    STYLES,
    VERSIONS,
    caption,
    captions,
    captions_chinese,
    flows_between,
    may_take_up,
    plan_clip,
    render_clip,
    render_plan,
    taken_up,
    whole_body_actions,
)
from anisora.synthetic.actions import TURN_S, acted
from anisora.synthetic.display import Prim
from anisora.synthetic.draw_pillow import PillowBackend
from anisora.synthetic.finish import PAPERS, Finish, finished
from anisora.synthetic.parts import BUILDS, EXTRAS, HAIRS, KINDS, OUTFITS, PALETTES
from anisora.synthetic.person import near_hand
from anisora.synthetic.pose import ARM, reach
from anisora.synthetic.rig import _direction, skeleton
from anisora.synthetic.scene import Scene
from anisora.synthetic.truth import anchors


@cache
def known_plan(index, version):
    return plan_clip(0, index, version=version)


def find(version=2, **wanted):
    """The first training plan with these fields; person fields included."""
    for index in range(6000):
        plan = known_plan(index, version)
        facts = {**vars(plan), "action": plan.action, "camera": plan.view.camera}
        if all(facts[k] == v for k, v in wanted.items()):
            return plan
    raise AssertionError(wanted)


def still_camera(plan, **changed):
    """The plan on ones, seen by a camera that stands still, with nothing in the air."""
    return replace(plan, view=plan.view._replace(camera="static"), drawing="ones", effect=None, **changed)


NEW = sorted(set(VERSIONS[3].actions) - set(VERSIONS[2].actions))


@pytest.fixture(scope="module")
def clips():
    return [render_clip(1000, k, split="seen", n_frames=5, fps=8, size_px=(80, 80), truth=True) for k in range(8)]


@pytest.fixture(scope="module")
def new_clips():
    """One of every action that version 3 added."""
    plans = {action: still_camera(find(version=3, action=action)) for action in NEW}
    return {action: render_plan(plan, 5, Fraction(8), (72, 72), with_truth=True) for action, plan in plans.items()}


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


def test_versions_are_other_clips_and_one_that_is_unknown_is_refused():
    plans = [plan_clip(0, 5, version=version) for version in VERSIONS]
    assert len({plan.rng_seed for plan in plans}) == len(VERSIONS)
    assert plan_clip(0, 5) == plan_clip(0, 5, version=CORPUS_VERSION)
    with pytest.raises(BadConfig, match="got 1"):
        plan_clip(0, 5, version=1)


@pytest.mark.parametrize("version", VERSIONS)
def test_two_rates_sample_one_story(version):
    for index in range(4):
        slow = render_clip(0, index, n_frames=17, fps=8, size_px=(48, 48), version=version)
        fast = render_clip(0, index, n_frames=33, fps=Fraction(16), size_px=(48, 48), version=version)
        assert np.array_equal(slow.video_THWC, fast.video_THWC[::2])


def test_it_moves(clips, new_clips):
    for clip in [*clips, *new_clips.values()]:
        assert np.abs(np.diff(clip.video_THWC.astype(int), axis=0)).mean() > 0.2


# --- splits ---------------------------------------------------------------------------------------------------------


def test_enough_is_reserved():
    assert len(RESERVED_COMBINATIONS) >= 0.15 * len(ACTIONS) * len(STYLES) * len(CAMERAS)
    tables = {"palette": PALETTES, "hair": HAIRS, "outfit": OUTFITS, "kind": KINDS, "extra": EXTRAS}
    for name, reserved in RESERVED.items():
        assert set(reserved) <= set(tables[name])
        assert len(reserved) >= 0.15 * len(tables[name])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("split", "seed"), [("train", 0), ("seen", 1000)])
def test_nothing_reserved_occurs_in_training_or_seen(split, seed, version):
    plans = [plan_clip(seed + k % 7, k, split, version) for k in range(1500)]
    assert not any(p.combinations & RESERVED_COMBINATIONS or p.has_reserved_part for p in plans)
    assert {p.action for p in plans} == set(VERSIONS[version].actions) <= set(ACTIONS)


def test_there_are_twenty_actions_and_each_is_drawn_by_a_version():
    assert {action for version in VERSIONS.values() for action in version.actions} == set(ACTIONS)
    assert len(VERSIONS[2].actions) == 19
    assert len(VERSIONS[3].actions) >= 20


@pytest.mark.parametrize("version", VERSIONS)
def test_reserved_clips_are_new_in_exactly_one_way(version):
    plans = [plan_clip(1000, k, "reserved", version) for k in range(300)]
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


@pytest.mark.parametrize("which", ["version 2", "new actions"])
def test_flow_leads_to_the_same_owner_and_colour(clips, new_clips, which):
    same, errors = [], []
    for clip in clips if which == "version 2" else new_clips.values():
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


@pytest.mark.parametrize("which", ["version 2", "new actions"])
def test_flow_beats_standing_still(clips, new_clips, which):
    flow, still = [], []
    for clip in clips if which == "version 2" else new_clips.values():
        t = clip.truth
        y, x = np.mgrid[: t.ids_THW.shape[1], : t.ids_THW.shape[2]] + 0.5
        for k in range(len(clip.video_THWC) - 1):
            colour, inside = _look_up(clip.video_THWC[k + 1], np.stack([x, y], -1) + t.flow_THW2[k])
            now = clip.video_THWC[k].astype(int)
            moves = inside & (np.linalg.norm(t.flow_THW2[k], axis=-1) > 1)
            flow += np.abs(colour - now)[moves].tolist()
            still += np.abs(clip.video_THWC[k + 1] - now)[moves].tolist()
    assert np.mean(flow) < 0.5 * np.mean(still)


def test_flow_between_any_two_frames_is_that_of_the_answer_key_for_neighbours(clips):
    flow = flows_between(plan_clip(1000, 0, "seen"), [(1, 2), (4, 0)], 8, (80, 80))
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


def test_what_changes_lies_in_the_motion_mask_of_the_new_actions_too(new_clips):
    for action, clip in new_clips.items():
        changed = (np.ptp(clip.video_THWC.astype(int), axis=0) > 40).any(-1)
        assert np.mean(clip.truth.motion_mask_HW[changed]) > 0.9, action


@pytest.mark.parametrize(("version", "action"), [(2, "walk"), (3, "walk"), (3, "push"), (3, "crawl")])
def test_feet_on_the_ground_do_not_slip(version, action):
    plan = still_camera(find(version=version, action=action))
    t = render_plan(plan, 17, Fraction(16), (128, 128), with_truth=True).truth
    feet = t.joints_TKJ2[:, 0, (11, 14)]
    step = np.abs(np.diff(feet[..., 0], axis=0)).min(1)  # the foot that moves least
    body = np.abs(np.diff(t.joints_TKJ2[:, 0, 0, 0]))
    assert np.median(step) < 0.15 * np.median(body)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_part_has_a_name_of_its_own(version):
    for index in range(150):
        for layer in Scene(plan_clip(1000, index, "reserved", version), 64, 64).moment(3, Fraction(1, 3)).frame:
            keys = [p.key for p in layer.prims]
            assert len(keys) == len(set(keys)), sorted(k for k in keys if keys.count(k) > 1)


def test_anchors_pin_down_a_turn():
    bar = Prim("stroke", "bar", 1, (0.0, 0.0, 1.0, 0.0), 0.2, (0, 0, 0))
    assert np.linalg.matrix_rank(anchors(bar) - anchors(bar).mean(0)) == 2


# --- backends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("style", "version"), [*((style, 2) for style in STYLES), ("cel", 3)])
def test_both_backends_draw_the_same_picture(style, version):
    skia_backend = pytest.importorskip("anisora.synthetic.draw_skia").SkiaBackend(96, 96)
    frame = Scene(find(version=version, style=style, effect=None), 96, 96).moment(3, Fraction(3, 8)).frame
    pillow = PillowBackend(96, 96)
    a, b = skia_backend.draw(frame).astype(float), pillow.draw(frame).astype(float)
    assert np.abs(a - b).mean() < 6
    assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) > 24
    assert np.mean(skia_backend.owners(frame) == pillow.owners(frame)) > 0.86


# --- what happens in the new actions --------------------------------------------------------------------------------


def test_a_hand_is_where_it_reaches():
    rng = np.random.default_rng(0)
    for _ in range(50):
        spot = rng.normal(size=3)
        spot *= rng.uniform(0.3, 0.99) * ARM / np.linalg.norm(spot)
        swing, spread, more_swing, more_spread = reach(tuple(spot))
        bones = [_direction(swing, spread, 1), _direction(swing + more_swing, spread + more_spread, 1)]
        np.testing.assert_allclose(ARM / 2 * np.sum(bones, axis=0), spot, atol=1e-3)
        right = _direction(swing, spread, -1)
        assert right == pytest.approx((-bones[0][0], *bones[0][1:]))


def moments_of(plan, seconds=4.0, steps=80):
    scene = Scene(still_camera(plan), 64, 64)
    return [(k / steps * seconds, scene.moment(k, Fraction(k) * Fraction(seconds) / steps)) for k in range(steps)]


def part(moment, key):
    """The points [n, 2] of the part of this name; its first name, up to the colon, says whose it is."""
    return next(np.array(p.pts).reshape(-1, 2) for layer in moment.frame for p in layer.prims if p.key == key)


def test_food_goes_to_the_mouth_and_the_mouth_opens_for_it():
    plan = find(version=3, action="eat")
    near, wide = [], []
    for _, moment in moments_of(plan, seconds=3.0):
        (s,) = moment.skeletons
        mouth = s.on_head(0.3 * np.sin(s.head_yaw), 0.6 + 0.5 * s.pose.nod)
        hand = s.joints[f"{near_hand(plan.people[0])}_hand"]
        near.append(np.hypot(hand[0] - mouth[0], hand[1] - mouth[1]))
        wide.append(s.pose.mouth)
    assert min(near) < 0.45 * max(near)
    assert min(near) < 0.14
    assert near[int(np.argmax(wide))] < np.median(near)


def test_a_ball_lies_until_it_is_picked_up_and_flies_when_it_is_thrown():
    ball = [part(m, "object:ball")[0] for _, m in moments_of(find(version=3, action="pick_up"), seconds=2.0)]
    assert np.abs(np.diff(ball[:15], axis=0)).max() < 0.01
    assert ball[0][1] > -0.12
    assert min(y for _, y in ball) < -0.3
    plan = find(version=3, action="throw")
    ball = np.array([part(m, "object:ball")[0] for _, m in moments_of(plan, seconds=2.0)])
    assert (plan.people[0].facing * (ball[:, 0] - ball[0, 0])).max() > 0.5
    # From hand to air without a jump: no step is longer than one of an arm that throws.
    assert np.linalg.norm(np.diff(ball, axis=0), axis=1).max() < 0.2


def test_a_box_moves_with_the_hands_that_push_it():
    plan = find(version=3, action="push")
    steps = moments_of(plan, seconds=2.0)
    box = np.array([part(m, "object:side")[:, 0].mean() for _, m in steps])
    hands = np.array(
        [np.mean([m.skeletons[0].joints[f"{side}_hand"][0] for side in ("left", "right")]) for _, m in steps]
    )
    assert plan.people[0].facing * (box[-1] - box[0]) > 0.1
    assert np.ptp(box - hands) < 0.03


def test_a_blow_meets_the_other_who_recoils():
    plan = find(version=3, action="fight")
    first, second = plan.people
    assert first.tempo == second.tempo
    assert second.phase == pytest.approx((first.phase + 0.5) % 1.0)
    steps = moments_of(plan)
    gap = []
    for _, moment in steps:
        a, b = moment.skeletons
        fist, face = a.joints["right_hand"], b.joints["head"]
        gap.append(np.hypot(fist[0] - face[0], fist[1] - face[1]) - b.head_r)
    hurt = [m.skeletons[1].pose.blink for _, m in steps]
    assert min(gap) < 0.16
    assert max(gap) > 0.25
    # The face is drawn by the blow within a quarter of a second, and not long before it.
    landed = int(np.argmin(gap))
    assert max(hurt[landed : landed + 6]) > 0.6 > hurt[max(landed - 6, 0)]


@pytest.mark.parametrize("action", ["hug", "high_five"])
def test_two_meet_in_the_middle(action):
    steps = moments_of(find(version=3, action=action))
    apart = []
    for _, moment in steps:
        a, b = moment.skeletons
        hand, other = a.joints["right_hand"], b.joints["hips" if action == "hug" else "left_hand"]
        apart.append(np.hypot(hand[0] - other[0], hand[1] - other[1]))
    assert min(apart) < 0.15 < 0.3 < max(apart)


@pytest.mark.parametrize(
    ("action", "field", "change"),
    [("surprise", "wonder", 0.8), ("brighten", "smile", 1.2), ("sadden", "smile", -1.2), ("anger", "brow", -0.8)],
)
def test_a_face_changes_its_feeling(action, field, change):
    plan = find(version=3, action=action)
    assert plan.framing in ("close", "face")
    values = [getattr(m.skeletons[0].pose, field) for _, m in moments_of(plan, seconds=2.0)]
    assert np.sign(change) * (np.mean(values[-10:]) - np.mean(values[:5])) > abs(change)


def test_tears_are_shed_by_those_who_cry_only():
    def has_tears(plan):
        return any("tear" in p.key for layer in Scene(plan, 64, 64).moment(8, Fraction(1)).frame for p in layer.prims)

    assert has_tears(find(version=3, action="cry", style="cel"))
    assert not has_tears(find(version=3, action="laugh"))


@pytest.mark.parametrize("build", BUILDS)
def test_a_body_is_as_high_as_it_should_be_and_stands_on_the_ground(build):
    plan = find(version=3, action="blink")
    (person,) = plan.people
    person = person._replace(character=person.character._replace(build=build), yaw=0.0)
    s = skeleton(person, 0.0)
    assert s.joints["head"][1] - s.head_r == pytest.approx(-1, abs=0.06)
    assert s.joints["left_foot"][1] == pytest.approx(0, abs=0.02)


# --- finish ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ["none", *PAPERS])
def test_a_finish_is_the_same_in_every_frame_and_keeps_the_range(paper):
    video = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8)
    video[0], video[1] = 0, 255
    for light in (0.0, 1.0):
        finish = Finish(paper=paper, light=light)
        made = finished(video, finish, "sunset", np.random.default_rng(1))
        assert made.dtype == np.uint8
        assert np.array_equal(finished(video[2:], finish, "sunset", np.random.default_rng(1)), made[2:])
        # What was lighter is lighter still, and between the darkest and the lightest.
        assert (made[0] <= made[2]).all()
        assert (made[2] <= made[1]).all()
        assert np.array_equal(made, video) == (paper == "none" and not light)


# --- captions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_captions_paraphrase(version):
    plan = find(version=version, action="walk")
    words = {caption(plan, variant) for variant in range(100)}
    assert len(words) > 75


def phrases_of(plan, phrases):
    """The parts of the action's wordings that stand in every caption which uses them."""
    return {piece.strip() for p in phrases[plan.action] for piece in re.split(r"\{\w+\}", p) if piece.strip()}


@pytest.mark.parametrize("version", VERSIONS)
def test_captions_name_the_action(version):
    assert set(captions.ACTION_PHRASES) == set(captions_chinese.ACTION_PHRASES) == set(ACTIONS)
    in_chinese = 0
    for index in range(400):
        plan = plan_clip(0, index, version=version)
        text = caption(plan)
        is_chinese = not text.isascii()
        in_chinese += is_chinese
        phrases = captions_chinese.ACTION_PHRASES if is_chinese else captions.ACTION_PHRASES
        assert any(piece.lower() in text.lower() for piece in phrases_of(plan, phrases)), text
        assert "{" not in text
        assert "  " not in text
        # One language in one caption.
        assert not (is_chinese and re.search("[a-zA-Z]", text)), text
    assert in_chinese / 400 == pytest.approx(VERSIONS[version].languages.get("zh", 0.0), abs=0.09)


def test_a_mirror_changes_sides_in_both_languages():
    assert captions.mirrored("A girl runs to the right, left of a tree") == "A girl runs to the left, right of a tree"
    assert captions.mirrored("一个女孩向右跑，球向左滚") == "一个女孩向左跑，球向右滚"
    assert captions.mirrored("一个女孩左右张望") == "一个女孩左右张望"
    sided = 0
    for index in range(300):
        plan = plan_clip(0, index, version=3)
        seen = replace(plan, people=tuple(p._replace(facing=-p.facing) for p in plan.people))
        for variant in range(2):
            text, other = caption(plan, variant), caption(seen, variant)
            assert captions.mirrored(captions.mirrored(text)) == text
            if "left and right" not in text:
                assert captions.mirrored(text) == other
            sided += text != other
    assert sided > 60


def whole_body(index, version=3):
    """The plan of somebody alone who is seen as a whole body, and an action to go over to."""
    plans = (known_plan(number, version) for number in itertools.count(index))
    plan = next(plan for plan in plans if plan.shows_whole_body)
    others = may_take_up(plan)
    return plan, others[index % len(others)]


@pytest.mark.parametrize("index", range(0, 600, 100))
def test_who_takes_up_another_action_begins_as_it_was_drawn(index):
    plan, action = whole_body(index)
    then = taken_up(plan, action)
    drawn, going_over = (render_plan(p, 9, Fraction(8), (64, 64)).video_THWC for p in (plan, then))
    assert np.array_equal(drawn[0], going_over[0])
    assert not np.array_equal(drawn[-1], going_over[-1])
    assert then.action == action
    assert caption(then) == caption(replace(plan, people=(plan.people[0]._replace(action=action),)))


@pytest.mark.parametrize("index", range(0, 600, 100))
def test_who_takes_up_another_action_does_it_after_a_moment_and_gets_there_in_small_steps(index):
    plan, action = whole_body(index)
    (person,) = taken_up(plan, action).people
    for time_s in (TURN_S, 0.5, 1.0):
        assert acted(time_s, person) == ACTIONS[action](time_s, person)
    times = np.arange(-0.1, TURN_S + 0.1, 1 / 240)
    joints = np.array([[*skeleton(person, float(time_s)).joints.values()] for time_s in times])
    steps = np.abs(np.diff(joints, axis=0)).max(axis=(1, 2))
    assert steps.max() < 0.05, "no joint goes farther than a twentieth of the body between two of 240 pictures a second"


def test_outside_the_reserved_split_nobody_takes_up_what_is_reserved():
    for index in range(0, 600, 50):
        plan, _ = whole_body(index)
        assert plan.action not in may_take_up(plan)
        assert not any(taken_up(plan, action).is_reserved for action in may_take_up(plan))
        assert set(may_take_up(replace(plan, split="reserved"))) == {*whole_body_actions(3)} - {plan.action}
