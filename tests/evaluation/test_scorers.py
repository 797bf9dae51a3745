"""Scorers trained on simulated raters whose truth is known: the order comes back, noise does not become knowledge."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from anisora.errors import BadInput
from anisora.evaluation import scorers
from anisora.evaluation.records import MetricRecord, append_records, read_records
from anisora.evaluation.votes import Vote, comparisons, opinion_scores, rating_table, read_votes

PROMPTS, SYSTEMS, NAMES = 30, 4, 6
WEIGHTS = np.array([1.0, -0.7, 0.4, 0.0, 0.0, 0.2])


class World:
    """120 clips with features, a true quality that is linear in some of them, and raters who see it with noise."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.clips = [f"m{system}/p{prompt}" for prompt in range(PROMPTS) for system in range(SYSTEMS)]
        x = rng.normal(size=(len(self.clips), NAMES)) * [1, 5, 0.1, 1, 2, 30] + [0, 3, 1, 0, 9, 100]
        self.truth = dict(zip(self.clips, ((x - x.mean(0)) / x.std(0)) @ WEIGHTS, strict=True))
        self.features = {
            clip: {f"metric.f{k}": float(value) for k, value in enumerate(row)}
            for clip, row in zip(self.clips, x, strict=True)
        }
        self.rng = rng

    def ratings(self, raters: int = 4, noise: float = 0.5) -> list[Vote]:
        """Each rater rates each clip on a scale of 1 to 5, some strictly, some kindly."""
        bias = self.rng.normal(0, 0.6, raters)
        return [
            Vote(
                rater=f"r{r}", prompt_id=clip.split("/")[1], dimension="smoothness", kind="rating", a=clip, b=None,
                value=float(np.clip(round(3 + 0.8 * truth + bias[r] + self.rng.normal(0, noise)), 1, 5)),
            )
            for r in range(raters) for clip, truth in self.truth.items()
        ]  # fmt: skip

    def pairs(self, raters: int = 3, nu: float = 0.5) -> list[Vote]:
        """Each rater compares all pairs of each prompt, by Davidson's model."""
        votes = []
        for r in range(raters):
            for prompt in range(PROMPTS):
                for i, j in combinations(range(SYSTEMS), 2):
                    a, b = f"m{i}/p{prompt}", f"m{j}/p{prompt}"
                    d = 2 * (self.truth[a] - self.truth[b])
                    p = np.array([math.exp(d / 2), nu, math.exp(-d / 2)])
                    value = str(self.rng.choice(["a", "tie", "b"], p=p / p.sum()))
                    votes.append(
                        Vote(
                            rater=f"r{r}",
                            prompt_id=f"p{prompt}",
                            dimension="smoothness",
                            kind="pair",
                            a=a,
                            b=b,
                            value=value,
                        )
                    )
        return votes

    def order(self, head: scorers.Head) -> float:
        """The share of pairs of clips that the head orders as the truth does."""
        scores = [head.score(self.features[clip]) for clip in self.clips]
        truth = [self.truth[clip] for clip in self.clips]
        agree = [(scores[i] - scores[j]) * (truth[i] - truth[j]) > 0 for i, j in combinations(range(len(truth)), 2)]
        return float(np.mean(agree))


@pytest.fixture(scope="module")
def regression() -> tuple[World, scorers.Trained]:
    world = World(0)
    return world, scorers.train(world.ratings(), world.features)


@pytest.fixture(scope="module")
def pairwise() -> tuple[World, scorers.Trained]:
    world = World(1)
    return world, scorers.train(world.pairs(), world.features)


def test_ratings_give_back_the_true_order(regression):
    world, trained = regression
    assert trained.head.kind == "regression"
    assert world.order(trained.head) >= 0.95
    assert World(7).order(trained.head) >= 0.93  # other clips, the same truth


def test_choices_give_back_the_true_order(pairwise):
    world, trained = pairwise
    assert trained.head.kind == "pairwise"
    assert world.order(trained.head) >= 0.95
    assert math.exp(trained.head.tie) == pytest.approx(0.5, rel=0.4)


def test_figures_are_those_of_unseen_prompts(regression, pairwise):
    _, trained = regression
    figures = trained.figures
    assert figures["spearman"]["low"] > 0.85
    assert figures["error"] < 0.5 * figures["error_of_the_mean"]
    assert figures["calibration"]["slope"] == pytest.approx(1, abs=0.15)
    assert (figures["prompts"], figures["raters"], figures["votes"]) == (PROMPTS, 4, 480)
    _, trained = pairwise
    figures = trained.figures
    assert figures["accuracy_without_ties"]["low"] > 0.75
    assert figures["log_loss"] < figures["log_loss_of_shares"]
    for part in figures["calibration"]["bins"]:
        assert part["predicted"] == pytest.approx(part["seen"], abs=0.15)


def test_noise_is_not_learnt():
    world = World(2)
    mixed = world.rng.permutation(world.clips)
    features = {clip: world.features[other] for clip, other in zip(world.clips, mixed, strict=True)}
    figures = scorers.train(world.ratings(raters=2), features).figures
    assert figures["spearman"]["value"] is None or figures["spearman"]["low"] < 0.1
    assert figures["error"] == pytest.approx(figures["error_of_the_mean"], rel=0.1)


def test_strictness_of_raters_is_taken_out():
    quality = np.array([1.0, 2.0, 3.0, 4.0])
    ratings = quality + np.array([[-0.5], [0.5]])
    ratings[0, :2] = np.nan  # the strict one saw only the good clips
    found = opinion_scores(ratings)
    assert np.diff(found) == pytest.approx(np.ones(3), abs=1e-6)


def test_a_scorer_is_saved_and_loaded_and_says_the_same(regression, tmp_path):
    world, trained = regression
    scorers.save(trained, tmp_path)
    assert scorers.load(tmp_path) == trained.head
    text = (tmp_path / "card.md").read_text()
    for word in ("480 votes", "Spearman", "Calibration", "metric.f0", "Limits"):
        assert word in text
    assert all(0 <= trained.head.score(world.features[clip]) <= 100 for clip in world.clips)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1.0]},
        {"weights": ["x"] * 6},
        {"bias": float("nan")},
        {"schema": 9},
        {"kind": "magic"},
        {"scale": [0.0] * 6},
        {"extra": 1},
    ],
)
def test_scorers_with_wrong_numbers_are_refused(regression, tmp_path, change):
    scorers.save(regression[1], tmp_path)
    path = tmp_path / scorers.HEAD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match="not a scorer"):
        scorers.load(tmp_path)


def records_of(world: World) -> list[MetricRecord]:
    return [
        MetricRecord(
            run_id="r", sample_id=clip, metric="metric", version=1, unit="x", raw=None, reason="descriptive",
            group=clip.split("/")[1], model=clip.split("/")[0],
            details={name.removeprefix("metric."): value for name, value in world.features[clip].items()},
        )
        for clip in world.clips
    ]  # fmt: skip


def test_from_votes_to_scores_on_the_command_line(tmp_path, capsys):
    from anisora.serving.cli import run

    world = World(3)
    append_records(tmp_path / "eval" / "results.jsonl", records_of(world)[:40])
    lines = [
        {"vote_id": str(n), **vars(vote)}
        for n, vote in enumerate(world.ratings(raters=2))
        if vote.a in world.clips[:40]
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    where = [str(tmp_path / name) for name in ("votes.jsonl", "eval", "scorer")]
    assert run(["evaluate", "train-scorer", where[0], "--scores", where[1], "--out", where[2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["votes"] == 80
    assert run(["evaluate", "apply-scorer", where[2], where[1], "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 40
    scored = [record for record in read_records(tmp_path / "eval" / "results.jsonl") if record.backend == "full"]
    assert {record.metric for record in scored} == {"anime.smoothness"}
    assert len({record.weights_sha256 for record in scored}) == 1
    assert (
        run(["evaluate", "train-scorer", where[0], "--scores", where[1], "--out", where[2], "--dimension", "taste"])
        == 2
    )


def test_what_lacks_its_features_is_not_scored(regression, tmp_path):
    world, trained = regression
    scorers.save(trained, tmp_path)
    whole, bare = records_of(world)[:2]
    said = scorers.apply(tmp_path, [whole, replace(bare, details={"f0": 1.0})])
    assert said[0].score is not None
    assert (said[1].score, said[1].reason) == (None, "features_missing")


@pytest.mark.parametrize(
    "line",
    [
        {"rater": "r", "dimension": "d", "kind": "rating", "a": "x", "value": 6},
        {"rater": "r", "dimension": "d", "kind": "rating", "a": "x", "value": True},
        {"rater": "r", "dimension": "d", "kind": "pair", "a": "x", "b": "x", "value": "a"},
        {"rater": "r", "dimension": "d", "kind": "pair", "a": "x", "b": "y", "value": "left"},
        {"rater": "r", "dimension": "d", "kind": "stars", "a": "x", "value": 3},
        {"dimension": "d", "kind": "rating", "a": "x", "value": 3},
    ],
)
def test_lines_that_are_no_votes_are_refused(tmp_path, line):
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(BadInput, match="not a vote"):
        read_votes(path)


def test_votes_as_tables(tmp_path: Path):
    world = World(4)
    assert len(comparisons(world.pairs(raters=1))) == PROMPTS * 6
    ratings, raters, clips = rating_table(world.ratings(raters=2))
    assert ratings.shape == (len(raters), len(clips)) == (2, 120)
    path = tmp_path / "v.jsonl"
    path.write_text(
        json.dumps({"rater": "r", "dimension": "d", "kind": "pair", "a": "x", "b": "y", "value": "skip"}) + "\n"
    )
    with pytest.raises(BadInput, match="no votes"):
        read_votes(path)


def test_too_little_is_told():
    world = World(5)
    votes = world.ratings(raters=1)
    with pytest.raises(BadInput, match="too few votes"):
        scorers.train(votes[:10], world.features)
    with pytest.raises(BadInput, match="too few prompts"):
        scorers.train([replace(vote, prompt_id="p") for vote in votes], world.features)
    with pytest.raises(BadInput, match="rated alike"):
        scorers.train([replace(vote, value=3.0) for vote in votes], world.features)
    with pytest.raises(BadInput, match="one dimension"):
        scorers.train([votes[0], replace(votes[1], dimension="appeal")], world.features)
