"""Scorers with networks: every layout opens from real folders, says what its equation says, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anisora.errors import BadCheckpoint, BadRequest
from anisora.evaluation import encoders
from anisora.evaluation.look import Case, Look, key_frames
from anisora.evaluation.network_scorer import NetworkScorer, new_network, save_network
from anisora.evaluation.networks import MOTION_PROMPTS
from anisora.evaluation.records import read_records
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import Card, Output, read_card
from anisora.evaluation.scoring import open_scorers
from anisora.evaluation.suite import evaluate
from anisora.measures.footage import Footage
from anisora.media.writer import write_video

from .tiny_encoders import clip, write_bert, write_clip, write_siglip, write_vit

FRAMES = Look(num_frames=4, short_px=32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    makers: dict[str, Callable[[Path], Path]] = {
        "vit": write_vit, "bert": write_bert, "clip": write_clip, "siglip": write_siglip,
    }  # fmt: skip
    return {name: maker(root / name) for name, maker in makers.items()}


CARDS: dict[str, dict[str, Any]] = {
    "frames": {"layout": "frames", "outputs": [{"dimension": "appeal"}], "parts": {"vision": "vit"}},
    "text": {"layout": "pair", "outputs": [{"dimension": "text_video"}], "parts": {"vision": "vit", "text": "bert"}},
    "image": {"layout": "pair", "outputs": [{"dimension": "image_video"}], "parts": {"vision": "clip"}},
    "motion": {"layout": "prompts", "outputs": [{"dimension": "motion"}], "parts": {"towers": "clip"}, "fusion_layers": 2},
    "siglip": {
        "layout": "similarity", "outputs": [{"dimension": "text_video", "low": -1, "high": 1}], "unit": "cosine",
        "parts": {"towers": "siglip"},
    },
}  # fmt: skip


def card(name: str, **fields: Any) -> Card:
    from anisora import settings

    return settings.read(Card, CARDS[name] | {"look": {"num_frames": 4, "short_px": 32}} | fields)


@pytest.fixture
def scorer_folder(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A folder as training leaves it: encoders copied, fresh heads."""

    def make(name: str) -> Path:
        torch.manual_seed(7)
        own = card(name)
        network = new_network(own, folders["vit"].parent)
        save_network(network, own, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture(scope="module")
def case() -> Case:
    frames = list(clip(moves_px=12))
    return Case(frames=frames, prompt="the red square moves far", image=frames[-1])


@pytest.mark.parametrize("name", CARDS)
def test_a_folder_says_what_was_saved(name: str, scorer_folder, folders, case):
    torch.manual_seed(7)
    before = new_network(card(name), folders["vit"].parent).eval()
    scorer = NetworkScorer(scorer_folder(name), "cpu")
    with torch.inference_mode():
        expected = before([case])
    ((metric, said),) = scorer.said(case).items()
    assert metric == card(name).outputs[0].metric
    assert said.raw == float(expected[0, 0])
    assert 0 <= said.score <= 100
    assert said.weights_sha256 == scorer.weights_sha256
    assert len(scorer.run_id) == 12


def test_equation_3_is_the_mean_over_key_frames(folders, case):
    network = new_network(card("frames"), folders["vit"].parent).eval()
    with torch.inference_mode():
        alone = [float(network([Case(frames=[frame])])) for frame in case.frames]
        assert float(network([case])) == pytest.approx(np.mean(alone), abs=1e-6)
        pair = network([case, Case(frames=case.frames[:2])])  # clips of other lengths, together
    assert pair[:, 0].tolist() == pytest.approx([np.mean(alone), np.mean(alone[:2])], abs=1e-6)


def test_equation_4_as_released_is_a_sum_and_cannot_tell_a_match(folders, case):
    network = new_network(card("text", is_joint=False), folders["vit"].parent).eval()
    other = Case(frames=list(clip("blue")), prompt="the blue square stands still")
    crossed = [replace(case, prompt=other.prompt), replace(other, prompt=case.prompt)]
    with torch.inference_mode():
        video, text = network.vision(case.frames).mean(0), network.text([case.prompt])[0]
        both = torch.cat([network.project_video(video), network.project_other(text)])
        assert float(network([case])) == pytest.approx(float(network.head(both).sigmoid()), abs=1e-6)
        right, wrong = network([case, other]).logit().sum(), network(crossed).logit().sum()
        assert float(right) == pytest.approx(float(wrong), abs=1e-5)
        joint = new_network(card("text"), folders["vit"].parent).eval()
        torch.nn.init.normal_(joint.head.weight)
        assert abs(float(joint([case, other]).logit().sum() - joint(crossed).logit().sum())) > 1e-3


def test_equation_2_is_a_softmax_over_the_two_sentences(folders, case):
    network = new_network(card("motion"), folders["vit"].parent).eval()
    assert network.prompts == MOTION_PROMPTS
    from transformers import CLIPModel

    stock = CLIPModel.from_pretrained(folders["clip"]).eval()
    with torch.inference_mode():
        image = stock.get_image_features(encoders.pixels(network.towers.processor, case.frames, stock)).pooler_output
        text = stock.get_text_features(
            **encoders.tokens(network.towers.tokenizer, MOTION_PROMPTS, 48, stock)
        ).pooler_output
        # a fresh transformer over frames adds its position embeddings to the features, and nothing else
        image = 2 * image + network.fusion.frame_position_embeddings.weight[: len(image)]
        video = encoders.unit(image.mean(0))
        expected = (stock.logit_scale.exp() * encoders.unit(text) @ video).softmax(0)[0]
        assert float(network([case])) == pytest.approx(float(expected), abs=1e-5)


def test_similarity_is_the_mean_cosine_of_the_stock_model(folders, case):
    from transformers import SiglipModel

    network = new_network(card("siglip"), folders["vit"].parent).eval()
    stock = SiglipModel.from_pretrained(folders["siglip"]).eval()
    ids = network.towers.tokenizer(case.prompt, padding="max_length", max_length=48, return_tensors="pt").input_ids
    with torch.inference_mode():
        said = stock(input_ids=ids, pixel_values=encoders.pixels(network.towers.processor, case.frames, stock))
        cosines = said.image_embeds @ said.text_embeds.T
        assert float(network([case])) == pytest.approx(float(cosines.mean()), abs=1e-5)


def test_the_published_look_and_key_frames():
    still, moving = np.repeat(clip()[:1], 30, axis=0), clip(moves_px=14, frames=10)
    footage = Footage.of_frames(np.concatenate([still, moving]))
    assert len(Look().frames(footage, Path())) == 24
    assert len(Look(first_frames=6).frames(footage, Path())) == 6
    chosen = key_frames(footage, 4)
    assert len(chosen) == 4
    assert sum(t < 30 for t in chosen) <= 1
    assert key_frames(Footage.of_frames(still), 4) == [0]


# ---------------------------------------------------------------------------------------------------- what does not fit


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / "scorer.json").read_text())
    change(data)
    (folder / "scorer.json").write_text(json.dumps(data))


def test_missing_and_misshapen_tensors_are_named(scorer_folder):
    folder = scorer_folder("text")
    head = load_file(folder / "head.safetensors")
    wrong = head | {"head.weight": head["head.weight"][:, :5], "head.bias": head["head.bias"] * torch.nan}
    wrong |= {"extra": torch.ones(1)}
    del wrong["project_video.weight"]
    save_file({k: v.contiguous() for k, v in wrong.items()}, folder / "head.safetensors")
    with pytest.raises(BadCheckpoint) as problem:
        NetworkScorer(folder, "cpu")
    for part in (
        "project_video.weight is missing", "extra is unknown", "head.weight is (1, 5), not (1, 96)",
        "head.bias is not finite",
    ):  # fmt: skip
        assert part in str(problem.value)


def test_an_encoder_that_lacks_tensors_is_refused(scorer_folder):
    folder = scorer_folder("frames")
    file = folder / "vit" / "model.safetensors"
    stored = load_file(file)
    lacking = next(name for name in stored if name.endswith(("q_proj.weight", "query.weight")))
    save_file({k: v for k, v in stored.items() if k != lacking}, file, metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=r"do not fit the model.*without"):
        NetworkScorer(folder, "cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(layout="pear"), "pear"),
        (lambda d: d.update(outputs=[{"dimension": "beauty"}]), "unknown dimension"),
        (lambda d: d.update(outputs=[]), "a scorer of nothing"),
        (lambda d: d.update(parts={}), "the parts of a frames scorer"),
        (lambda d: d.update(schema=9), "another schema"),
        (lambda d: d.update(colour=1), "unknown key"),
        (lambda d: d["parts"].update(vision="nowhere"), "no folder of a picture encoder"),
        (lambda d: d["outputs"][0].update(low=3.0, high=3.0), "range of an output"),
    ],
)
def test_a_wrong_card_is_one_clear_error(scorer_folder, change, words):
    folder = scorer_folder("frames")
    edit(folder, change)
    with pytest.raises(BadCheckpoint, match=words):
        NetworkScorer(folder, "cpu")


def test_no_scorer_and_a_torn_head(scorer_folder, tmp_path):
    with pytest.raises(BadCheckpoint, match="does not exist"):
        read_card(tmp_path)
    folder = scorer_folder("frames")
    (folder / "head.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        NetworkScorer(folder, "cpu")
    (folder / "head.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="no head"):
        NetworkScorer(folder, "cpu")


def test_a_value_beyond_the_range_says_so_and_none_is_uncalibrated():
    from anisora.evaluation.network_scorer import measured

    said = measured(Output(dimension="appeal", low=0, high=10), 12.0, "logit", None, {})
    assert (said.raw, said.score, said.params["beyond_range"]) == (12.0, 100.0, True)
    said = measured(Output(dimension="appeal", low=None, high=None), 12.0, "logit", None, {})
    assert (said.raw, said.score, said.reason) == (12.0, None, "uncalibrated")
    assert measured(Output(dimension="appeal"), float("nan"), "logit", None, {}).reason == "not_a_number"


# ------------------------------------------------------------------------------------------------------------ the suite


def test_the_suite_scores_with_folders_and_resumes(scorer_folder, tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", np.repeat(np.repeat(clip("red", 10), 2, 1), 2, 2), 8, lossless=True)
    samples = [
        Sample(id="a", video=tmp_path / "a.mp4", prompt="the red square moves"),
        Sample(id="b", video=tmp_path / "b.mp4"),
        Sample(id="c", video=tmp_path / "c.mp4", prompt="nothing"),
    ]
    scorers = open_scorers([scorer_folder("text"), scorer_folder("frames")], "cpu")
    out = tmp_path / "out"
    summary = evaluate(samples, out, metrics=["brightness_drift"], scorers=scorers)
    records = {(r.sample_id, r.metric): r for r in read_records(out / "results.jsonl") if r.backend == "full"}
    assert records["a", "anime.text_video"].score is not None
    assert records["b", "anime.text_video"].reason == "no_prompt"
    assert records["b", "anime.appeal"].score == records["a", "anime.appeal"].score  # the same clip
    assert records["c", "anime.appeal"].reason == "no_file"
    assert summary["models"][""]["anime.appeal (full)"]["score"]["n"] == 2
    lines = (out / "results.jsonl").read_bytes()
    evaluate(samples, out, metrics=["brightness_drift"], scorers=scorers)
    assert (out / "results.jsonl").read_bytes() == lines  # nothing was scored twice


def test_two_scorers_of_one_dimension_are_refused(scorer_folder, tmp_path):
    folder = scorer_folder("frames")
    with pytest.raises(BadRequest, match="two scorers of one dimension"):
        open_scorers([folder, shutil.copytree(folder, tmp_path / "copy")], "cpu")
