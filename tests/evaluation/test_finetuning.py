"""Scorers fine-tuned on small random encoders and drawn clips: the loss falls, the order of unseen prompts is learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anisora.errors import BadConfig, BadInput
from anisora.evaluation import finetuning
from anisora.evaluation.finetuning import Example, Recipe
from anisora.evaluation.look import Look
from anisora.evaluation.network_scorer import NetworkScorer
from anisora.evaluation.samples import Sample
from anisora.evaluation.votes import Vote
from anisora.measures.footage import Footage
from anisora.media.writer import write_video
from anisora.serving.scorer_loop import fit

from .tiny_encoders import COLORS, clip, write_bert, write_clip, write_vit

LOOK = Look(num_frames=3, short_px=32)
FAST: dict[str, Any] = {
    "look": LOOK, "steps": 60, "batch": 8, "learning_rate": 2e-3, "warmup_steps": 5, "held_out": 0.3, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("begun_with")
    return {"vit": write_vit(root / "vit"), "bert": write_bert(root / "bert"), "clip": write_clip(root / "clip")}


class World:
    """Drawn clips on the disk, each with where people put it."""

    def __init__(self, folder: Path, prompts: int = 40) -> None:
        self.folder, self.prompts = folder, prompts
        self._made: dict[str, list[Example]] = {}

    def __getitem__(self, dimension: str) -> list[Example]:
        """The examples of a dimension, drawn at the first use."""
        if dimension not in self._made:
            draw, colors = getattr(self, f"_{dimension}"), list(COLORS)
            self._made[dimension] = [example for p in range(self.prompts) for example in draw(p, colors)]
        return self._made[dimension]

    def _write(self, name: str, frames: np.ndarray) -> Path:
        path = self.folder / f"{name}.mp4"
        write_video(path, frames, 8, lossless=True)
        return path

    def _appeal(self, p: int, colors: list[str]) -> list[Example]:
        """Grain is ugly."""
        out = []
        for level in (0, 60):
            path = self._write(f"a{p}_{level}", clip(colors[p % 3], 8, noise=level, seed=p))
            out.append(Example(sample=Sample(id=path.stem, video=path), target=1 - level / 60, group=f"p{p}"))
        return out

    def _motion(self, p: int, colors: list[str]) -> list[Example]:
        """Two grades of three, with a caption in words."""
        out = []
        for grade in (0, 2):
            path = self._write(f"m{p}_{grade}", clip(colors[p % 3], 7 * grade, seed=p))
            words = f"the {colors[p % 3]} square " + ("stands still", "moves slowly", "moves far")[grade]
            out.append(Example(sample=Sample(id=path.stem, video=path), target=grade / 2, group=f"p{p}", caption=words))
        return out

    def _text_video(self, p: int, colors: list[str]) -> list[Example]:
        """Right where the words name the square's colour."""
        color, path = colors[p % 3], self._write(f"t{p}", clip(colors[p % 3], 4, seed=p, size_px=28))
        wrong = colors[(p + 1 + p // 3 % 2) % 3]
        return [
            Example(
                sample=Sample(id=f"t{p}_{said}", video=path, prompt=f"a {said} square"), target=target, group=f"p{p}"
            )
            for said, target in ((color, 1.0), (wrong, 0.0))
        ]

    def _image_video(self, p: int, colors: list[str]) -> list[Example]:
        """Right where the clip is of the picture's colour."""
        from PIL import Image

        image = self.folder / f"i{p}.png"
        Image.fromarray(clip(colors[p % 3], seed=p, size_px=20)[0]).save(image)
        out = []
        for color, target in ((colors[p % 3], 1.0), (colors[(p + 1 + p // 3 % 2) % 3], 0.0)):
            path = self._write(f"i{p}_{color}", clip(color, 6, seed=p + 100, size_px=20))
            out.append(Example(sample=Sample(id=path.stem, video=path, image=image), target=target, group=f"p{p}"))
        return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("drawn"))


def recipe(dimension: str, encoders: dict[str, Path], **fields: Any) -> Recipe:
    begun = {
        "appeal": {"vision": encoders["vit"]},
        "motion": {"towers": encoders["clip"], "fusion_layers": 1, "grades": 3},
        "text_video": {"vision": encoders["vit"], "text": encoders["bert"]},
        "image_video": {"vision": encoders["vit"]},
    }[dimension]
    return Recipe(**{"dimension": dimension} | begun | FAST | fields)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


#: what its toy takes: the recipe's fields, and the share of pairs of held-out prompts in order
TOYS: dict[str, tuple[dict[str, Any], float]] = {
    "appeal": ({"steps": 40, "learning_rate": 2e-3}, 0.95),
    "motion": ({"steps": 200, "learning_rate": 1e-3}, 0.85),
    "text_video": ({"steps": 200, "learning_rate": 1e-3, "loss": "squared"}, 0.85),
    "image_video": ({"steps": 80, "learning_rate": 1e-3, "loss": "squared"}, 0.85),
}


SLOW = ("motion", "text_video")
PARAMS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TOYS]


@pytest.fixture(scope="module", params=PARAMS)
def trained(
    request: pytest.FixtureRequest, world: World, encoders, tmp_path_factory
) -> tuple[str, Path, dict[str, Any]]:
    name, out = request.param, tmp_path_factory.mktemp(request.param)
    figures = finetuning.finetune(recipe(name, encoders, **TOYS[name][0]), world[name], out, fit)
    assert figures is not None
    return name, out, figures


def test_the_loss_falls_and_the_order_of_unseen_prompts_is_learnt(trained):
    name, out, figures = trained
    seen = losses(out)
    assert seen[-1] < 0.6 * seen[0]
    held_out = figures["held_out"]
    assert figures["prompts_held_out"] >= 4
    assert held_out["pairwise_accuracy"]["value"] >= TOYS[name][1]
    assert held_out["error"] < held_out["error_of_the_mean"]


def test_the_folder_scores_as_training_left_it(trained, world):
    name, out, figures = trained
    scorer = NetworkScorer(out, "cpu")
    outside = finetuning.split(world[name], 0.3, 0)[1]
    said = [scorer.prepare(e.sample, Footage.read(e.sample.video))()[f"anime.{name}"] for e in outside]
    by_target = {t: np.mean([s.score for s, e in zip(said, outside, strict=True) if e.target == t]) for t in (0.0, 1.0)}
    assert by_target[1.0] > by_target[0.0] + 10
    scale = 2 if name == "motion" else 4
    error = np.sqrt(np.mean([(s.raw * scale - e.target * scale) ** 2 for s, e in zip(said, outside, strict=True)]))
    assert error == pytest.approx(figures["held_out"]["error"], abs=1e-5)  # identical scores: the folder is the network
    text = (out / "card.md").read_text()
    assert f"# Scorer: {name}" in text
    assert "prompts that it has not seen" in text


def test_an_interrupted_run_ends_as_an_unbroken_one(world, encoders, tmp_path):
    small = recipe("appeal", encoders, steps=6, batch=2)
    whole = finetuning.finetune(small, world["appeal"], tmp_path / "whole", fit)
    stopped = finetuning.finetune(small, world["appeal"], tmp_path / "broken", fit, max_minutes=0)
    assert stopped is None
    assert not (tmp_path / "broken" / "scorer.json").exists()
    resumed = finetuning.finetune(small, world["appeal"], tmp_path / "broken", fit)
    assert resumed == whole
    for name in ("head.safetensors", "vision/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    with pytest.raises(BadConfig, match="another run"):
        finetuning.finetune(replace(small, learning_rate=1e-4), world["appeal"], tmp_path / "broken", fit)
    with pytest.raises(BadConfig, match="the examples"):
        finetuning.finetune(small, world["appeal"][2:], tmp_path / "broken", fit)


# ------------------------------------------------------------------------------------------------------------ the parts


def test_whole_prompts_are_held_out_and_real_clips_never():
    sample = Sample(id="x", video=Path("x.mp4"))
    examples = [Example(sample=sample, target=k % 2, group=f"p{p}") for p in range(50) for k in range(3)]
    real = [Example(sample=sample, target=1.0, group=f"p{p}", is_real=True) for p in range(50)]
    inside, outside = finetuning.split(examples + real, 0.2, 0)
    assert not {e.group for e in inside} & {e.group for e in outside}
    assert not any(e.is_real for e in outside)
    assert len({e.group for e in outside}) == pytest.approx(10, abs=7)
    more = [Example(sample=sample, target=1, group=f"q{p}") for p in range(50)]
    again = finetuning.split(examples + more, 0.2, 0)[1]
    assert {e.group for e in outside} == {e.group for e in again if e.group.startswith("p")}
    with pytest.raises(BadInput, match="too few prompts"):
        finetuning.split(examples[:3], 0.2, 0)


def test_every_pass_shows_each_example_once():
    shown = [i for step in range(9) for i in finetuning.drawn(step, 5, 15, seed=3)]
    assert [sorted(shown[k : k + 15]) for k in (0, 15, 30)] == [list(range(15))] * 3
    assert shown[:15] != shown[15:30]


def test_ratings_become_targets_and_real_clips_are_the_best():
    samples = [Sample(id=f"c{k}", video=Path(f"c{k}.mp4")) for k in range(25)]
    votes = [
        Vote(
            rater=r, prompt_id=f"p{k % 8}", dimension="smoothness", kind="rating", a=f"c{k}", b=None, value=1.0 + k % 5
        )
        for k in range(24)
        for r in "ab"
    ]
    found = finetuning.rated_examples(votes, samples, "smoothness")
    assert [e.target for e in found[:5]] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert len(found) == 24
    assert found[3].group == "p3"
    with pytest.raises(BadInput, match="too few clips"):
        finetuning.rated_examples(votes, samples[:10], "smoothness")
    with pytest.raises(BadInput, match="too few clips"):
        finetuning.rated_examples(votes, samples, "appeal")
    assert {e.target for e in finetuning.real_examples(samples)} == {1.0}


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_motion_captions_are_read_and_wrong_lines_named(tmp_path):
    good = [{"video": f"v/{k}.mp4", "grade": k % 6, "caption": "a girl runs"} for k in range(30)]
    found = finetuning.graded_examples(lines(tmp_path / "good.jsonl", good), 6)
    assert found[5].target == 1.0
    assert found[0].sample.video == tmp_path / "v" / "0.mp4"
    for wrong in ({"grade": 6}, {"grade": 1.5}, {"grade": True}, {"caption": " "}, {"video": None}):
        path = lines(tmp_path / "bad.jsonl", [*good, good[0] | wrong])
        with pytest.raises(BadInput, match="record 31"):
            finetuning.graded_examples(path, 6)
    with pytest.raises(BadInput, match="too few"):
        finetuning.graded_examples(lines(tmp_path / "few.jsonl", good[:4]), 6)


def test_the_motion_loss_is_least_where_it_should_be():
    far, still = [20.0, -20.0], [-20.0, 20.0]
    captions, prompts = torch.tensor([far, still]), torch.tensor([far, still])  # the first clip moves
    right, _ = finetuning.motion_loss(captions, prompts, torch.tensor([1.0, 0.0]))
    _wrong, parts = finetuning.motion_loss(captions.flip(0), prompts.flip(0), torch.tensor([1.0, 0.0]))
    assert float(right) == pytest.approx(0, abs=1e-6)
    assert min(parts.values()) > 10
    # two clips of one grade are alike: evenly spread similarities are then what is asked for, and so is the middle
    even, parts = finetuning.motion_loss(torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([0.5, 0.5]))
    assert parts["captions"] == pytest.approx(0, abs=1e-6)
    assert float(even) == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimension": "beauty"}, "dimension of the recipe"),
        ({"dimension": "character"}, "no recipe of the paper"),
        ({"dimension": "appeal"}, "vision: FOLDER"),
        ({"dimension": "motion", "grades": 1, "towers": Path("x")}, "grades 1"),
        ({"dimension": "appeal", "vision": Path("x"), "steps": 0}, "steps of the recipe"),
    ],
)
def test_a_wrong_recipe_is_one_clear_error(fields, words):
    with pytest.raises(BadConfig, match=words):
        Recipe(**fields)


def test_from_ratings_to_scores_on_the_command_line(world, encoders, tmp_path, capsys):
    from anisora.evaluation.records import read_records
    from anisora.serving.cli import run

    examples = world["appeal"]
    lines(tmp_path / "shots.jsonl", [{"id": e.sample.id, "video": str(e.sample.video)} for e in examples])
    rating = {"rater": "r", "dimension": "appeal", "kind": "rating"}
    votes = [rating | {"prompt_id": e.group, "a": e.sample.id, "value": 1 + 4 * e.target} for e in examples]
    lines(tmp_path / "votes.jsonl", votes)
    (tmp_path / "recipe.yaml").write_text("dimension: appeal\nlook: {num_frames: 2, short_px: 32}\ndevice: cpu\n")
    place = {name: str(tmp_path / name) for name in ("votes.jsonl", "shots.jsonl", "recipe.yaml", "scorer", "eval")}
    train = [
        "evaluate",
        "train-scorer",
        place["votes.jsonl"],
        "--recipe",
        place["recipe.yaml"],
        "--out",
        place["scorer"],
    ]
    fields = [f"vision={encoders['vit']}", "steps=3", "batch=2", "held_out=0.3"]
    assert run([*train, *fields, "--json"]) == 2  # ratings do not say where the clips are
    assert run([*train, "--manifest", place["shots.jsonl"], *fields, "--max-minutes", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] is False
    assert run([*train, "--manifest", place["shots.jsonl"], *fields, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held_out"]["clips"] > 0
    first = lines(tmp_path / "few.jsonl", [{"id": "a", "video": str(examples[0].sample.video)}])
    score = ["evaluate", "--manifest", str(first), "--metrics", "held_share", "--out", place["eval"]]
    assert run([*score, "--scorer", place["scorer"], "--json"]) == 0
    (record,) = [r for r in read_records(tmp_path / "eval" / "results.jsonl") if r.backend == "full"]
    assert (record.metric, record.params["frames"]) == ("anime.appeal", 2)
    assert run(["evaluate", "apply-scorer", place["scorer"], place["eval"]]) == 2  # it looks at clips
    assert run([*train, "--scores", place["eval"]]) == 2  # one or the other
    assert run([*score, "--scorer", str(tmp_path / "nowhere")]) == 2


def test_a_recipe_comes_from_a_file(tmp_path: Path, monkeypatch: Any):
    (tmp_path / "recipe.yaml").write_text("dimension: appeal\nvision: models/vit\nlook: {num_frames: 8, pick: key}\n")
    made = finetuning.load_recipe(tmp_path / "recipe.yaml", ["steps=12", "learning_rate=1e-4"])
    assert made.vision == tmp_path / "models" / "vit"
    assert (made.steps, made.learning_rate) == (12, 1e-4)
    assert made.look == Look(num_frames=8, pick="key")
