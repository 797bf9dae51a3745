"""The optional arms of the benchmark: guides that are compared fairly, RIFE by halving, and a judge of actions."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


# -------------------------------------------------------------------------------------------------------------- guides


@pytest.mark.parametrize("num_frames", [9, 17, 33, 49])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_more_guides_are_the_same_and_one_more_and_some_frames_are_given_in_no_arm(num_frames: int, seed: int):
    arms = module("extra_arms")
    sets = arms.guide_sets(num_frames, seed)
    sizes = [len(set(sets[count])) for count in arms.COUNTS]
    assert sizes == [2, 3, 4, 5]
    assert all(set(sets[a]) < set(sets[b]) for a, b in zip(arms.COUNTS, arms.COUNTS[1:], strict=False))
    assert sets["two"] == [0, num_frames - 1]
    assert sets["three"][1] == num_frames // 2, "the guide in the middle of the usual run's three_guides"
    free = arms.free_frames(num_frames)
    assert sorted([*free, *sets["five"]]) == list(range(num_frames))


def test_the_fourth_guide_is_not_always_on_the_same_side():
    guide_sets = module("extra_arms").guide_sets
    assert {tuple(guide_sets(17, seed)["four"]) for seed in range(4)} == {(0, 4, 8, 16), (0, 8, 12, 16)}


# ---------------------------------------------------------------------------------------------------------------- RIFE


def test_halving_a_straight_line_gives_a_fade():
    """Where the middle of two pictures is their mean, the way from one to the other is a cross-fade."""
    rife = module("rife")
    from anisora.measures.baselines import cross_fade

    rng = np.random.default_rng(0)
    guides = {frame: rng.integers(0, 256, (8, 12, 3), dtype=np.uint8) for frame in (2, 10, 14)}
    made = rife.in_between(guides, 17, middle=lambda a, b: (a + b) / 2)
    assert np.abs(made.astype(int) - cross_fade(guides, 17)).max() <= 1
    assert all((made[frame] == picture).all() for frame, picture in guides.items())


def test_halving_comes_near_to_any_moment():
    import torch

    rife = module("rife")
    moments = [Fraction(k, 11) for k in range(1, 11)]
    made = rife.moments_between(torch.zeros(1), torch.ones(1), moments, lambda a, b: (a + b) / 2)
    assert all(abs(float(x) - m) <= rife.NEAR_ENOUGH for x, m in zip(made, moments, strict=True))


def test_no_picture_between_two_is_made_twice():
    import torch

    asked: list[tuple[float, float]] = []

    def middle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        asked.append((float(a), float(b)))
        return (a + b) / 2

    moments = [Fraction(k, 16) for k in range(1, 16)]
    module("rife").moments_between(torch.zeros(1), torch.ones(1), moments, middle)
    assert len(asked) == len(set(asked)) == 15


def test_the_network_does_not_mind_which_picture_comes_first():
    import torch

    torch.manual_seed(0)
    net = module("rife").IFNet(channels=8).eval()
    a, b = torch.rand(2, 1, 3, 32, 64)
    with torch.no_grad():
        assert torch.allclose(net(a, b), net(b, a), atol=1e-5)
        assert not torch.allclose(net(a, a), a, atol=1e-3), "random flow moves pictures"
        assert net(a, b, finer=2.0).shape == a.shape


@pytest.mark.slow  # fetches 20 MB where they have not been yet
def test_the_published_network_finds_the_middle_of_a_slide():
    """A textured square that slides by 8 px is half way in the middle frame, where a fade shows it twice."""
    rife = module("rife")
    from anisora.errors import AssetMissing
    from anisora.measures.similarity import psnr_db

    rng = np.random.default_rng(1)
    square = np.kron(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), np.ones((5, 5, 1), np.uint8))

    def at(x: int) -> np.ndarray:
        picture = np.full((70, 90, 3), 200, np.uint8)
        picture[20:50, x : x + 30] = square
        return picture

    try:
        made = rife.in_between({0: at(20), 2: at(28)}, 3)
    except AssetMissing as missing:
        pytest.skip(str(missing))
    fade = (at(20).astype(int) + at(28)) // 2
    assert psnr_db(made[1:2], at(24)[None]) > psnr_db(fade[None].astype(np.uint8), at(24)[None]) + 5


# ------------------------------------------------------------------------------------------------------------- actions


def test_scenes_show_one_whole_body_and_keep_the_seed_ranges_apart():
    judge = module("action_classifier")
    from anisora.errors import BadConfig

    known = itertools.product(judge.ACTIONS, (("train", judge.TAUGHT_SEED), ("seen", 9_000), ("reserved", 9_001)))
    for version, (split, seed) in known:
        plans = judge.scenes(seed, split, version=version)
        for plan in (next(plans) for _ in range(5)):
            assert len(plan.people) == 1
            assert (plan.framing, plan.view.camera, plan.item, plan.effect) == ("full", "static", None, None)
            assert plan.action in judge.ACTIONS[version]
            assert plan.version == version
    with pytest.raises(BadConfig):
        next(judge.scenes(judge.JUDGED_SEEDS["seen"], "train"))


def test_the_body_is_where_the_character_stands():
    judge = module("action_classifier")
    from anisora.synthetic import render_plan

    shape = judge.Shape(size_px=(64, 64), num_frames=1, fps=8)
    for version, seed in itertools.product(judge.ACTIONS, range(9_000, 9_006, 2)):
        plan = next(judge.scenes(seed, "seen", version=version))
        body = judge.body_of(plan, shape)
        truth = render_plan(plan, 1, Fraction(8), (64, 64), True).truth
        y, x = np.nonzero(truth.foreground_THW[0])
        longest = 0.3 if plan.action == "crawl" else 0.15  # who crawls lies behind the place of the hands
        assert abs(x.mean() + 0.5 - body.x_px) < longest * body.height_px
        assert abs(y.max() + 1 - body.ground_px) < 0.3 * body.height_px


def test_motion_is_measured_in_body_heights_a_second_whatever_the_size_and_rate():
    """A texture that slides to the right, at two sizes and rates."""
    judge = module("action_classifier")
    import cv2

    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), (0, 0), 1.5)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    for side, fps in ((64, 8), (128, 16)):
        speed_px = side / 64 * 16 / fps  # a quarter of the picture a second
        picture = cv2.resize(texture, (side, side), interpolation=cv2.INTER_CUBIC)
        shift = [np.float32([[1, 0, t * speed_px], [0, 1, 0]]) for t in range(5)]
        frames = np.stack([cv2.warpAffine(picture, m, (side, side), borderMode=cv2.BORDER_REFLECT) for m in shift])
        body = judge.Body(x_px=side / 2, ground_px=0.9 * side, height_px=0.6 * side)
        middle = np.median(judge.motion_features(frames, body, fps)[:, :, 2:-2, 1:-1], axis=(0, 2, 3))
        assert middle == pytest.approx([0.25 / 0.6, 0, 0.25 / 0.6], abs=0.05)


def test_a_still_clip_has_no_motion():
    judge = module("action_classifier")
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8), 5, axis=0)
    features = judge.motion_features(frames, judge.Body(x_px=16, ground_px=30, height_px=24), 8)
    assert np.abs(features).max() < 1e-3


def test_prompts_of_a_frame_differ_in_the_action():
    arms, judge = module("extra_arms"), module("action_classifier")
    from anisora.synthetic import caption, captions, captions_chinese, taken_up

    for seed, version in itertools.product(range(9_000, 9_010, 2), judge.ACTIONS):
        plan = next(judge.scenes(seed, "seen", first_index=1, version=version))
        asked = arms.asked_actions(plan)
        assert asked[0] == plan.action
        assert len(set(asked)) == len(asked) == judge.ASKED >= 4
        right = plan.people[0].facing > 0
        for action in asked:
            words = caption(taken_up(plan, action)).lower()
            phrases = [
                p.format(side="to the right" if right else "to the left") for p in captions.ACTION_PHRASES[action]
            ]
            phrases += [p.format(side="右" if right else "左") for p in captions_chinese.ACTION_PHRASES[action]]
            assert any(phrase in words for phrase in phrases)


def test_what_shuffled_prompts_reach_is_the_mean_over_all_ways_to_shuffle():

    figures = module("clip_figures")
    rng = np.random.default_rng(3)
    asked, others = ["walk", "jump", "sit"], ["bow", "spin"]
    for _ in range(5):
        scores = {a: dict(zip(asked + others, rng.random(5), strict=True)) for a in asked}
        named = [figures.best(scores[a]) for a in asked]
        every = [
            np.mean([n == p for n, p in zip(named, dealt, strict=True)]) for dealt in itertools.permutations(asked)
        ]
        found = figures._recognised("", scores)
        assert found["actions.shuffled"] == pytest.approx(np.mean(every))
        assert found["actions.recognised"] == np.mean([n == p for n, p in zip(named, asked, strict=True)])


def test_one_answer_for_all_prompts_of_a_frame_chooses_by_chance():
    """What the first frame tells is the same for every prompt, so it is right for exactly one of them."""
    figures = module("clip_figures")
    answer = {"walk": 0.5, "jump": 0.2, "sit": 0.1, "bow": 0.9}
    found = figures._recognised("first_frame.", dict.fromkeys(["walk", "jump", "sit"], answer))
    assert found["actions.first_frame.chosen"] == pytest.approx(1 / 3)
    assert found["actions.first_frame.recognised"] == found["actions.first_frame.shuffled"] == 0


# ---------------------------------------------------------------------------------------- trained beside random weights


def output(seeds: list[int], psnr_db: list[float | None], *, randomised: bool, **more: object) -> dict:
    same = {"model": "m", "weights_sha256": "w", "recipe_sha256": "r", "size_px": [32, 32], "frames": 9, "fps": 8}
    return {
        **same, "corpus_version": 2, "randomised_dit": randomised,
        "per_clip": {"seeds": seeds, "inbetween.psnr_db.model": psnr_db, **more},
    }  # fmt: skip


def test_two_runs_are_compared_on_the_clips_that_both_have():
    bench = module("bundled_model")
    trained = output([1, 2, 3, 4], [20.0, 22.0, 21.0, None], randomised=False)
    random = output([2, 3, 4, 5], [18.0, 19.0, 17.0, 1.0], randomised=True)
    for pair in ((trained, random), (random, trained)):
        compared = bench.compare(*pair)
        assert compared["clips"] == 3
        row = compared["figures"]["inbetween.psnr_db.model"]
        assert row == {"trained": 21.5, "random": 18.0, "difference": row["difference"]}
        assert row["difference"]["mean"] == 3.0
        assert row["difference"]["n"] == 2
        assert compared["targets"][0]["reached"] == 3.0
        assert compared["targets"][0]["met"] is True


def test_actions_of_random_weights_are_at_chance_when_the_interval_says_so():
    bench = module("bundled_model")
    seeds, psnr = [1, 2, 3, 4], [20.0] * 4
    shuffled = {"actions.shuffled": [0.25] * 4}
    trained = output(seeds, psnr, randomised=False, **{"actions.recognised": [1.0] * 4}, **shuffled)
    by_chance = output(seeds, psnr, randomised=True, **{"actions.recognised": [0.0, 0.5, 0.25, 0.25]}, **shuffled)
    told = output(seeds, psnr, randomised=True, **{"actions.recognised": [1.0] * 4}, **shuffled)
    assert bench.compare(trained, by_chance)["targets"][-1]["met"] is True
    assert bench.compare(trained, told)["targets"][-1]["met"] is False


def test_runs_that_cannot_be_compared_are_refused():
    bench = module("bundled_model")
    trained, random = output([1], [2.0], randomised=False), output([1], [1.0], randomised=True)
    with pytest.raises(SystemExit, match="randomise-dit"):
        bench.compare(trained, trained)
    with pytest.raises(SystemExit, match="frames differ"):
        bench.compare(trained, random | {"frames": 17})
    with pytest.raises(SystemExit, match="no clips in common"):
        bench.compare(trained, output([9], [1.0], randomised=True))
    with pytest.raises(SystemExit, match="per_clip"):
        bench.compare(trained, {k: v for k, v in random.items() if k != "per_clip"})


@pytest.mark.parametrize("text", [None, "not json", "[]", "{}"])
def test_a_file_that_is_no_output_is_named(tmp_path: Path, text: str | None):
    path = tmp_path / "trained.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=r"trained\.json"):
        module("bundled_model").read_output(path)


def test_a_goal_is_told_from_what_is_wanted_at_least():
    bench = module("bundled_model")
    row = bench._row("drift", 0.03, bench.below(0.05), bench.below(0.02))
    assert (row["met"], row["goal_met"]) == (True, False)
    assert bench._row("drift", None, bench.below(0.05), None)["met"] is False
    assert bench._row("recall", 0.7, None, bench.at_least(0.6))["met"] is None
