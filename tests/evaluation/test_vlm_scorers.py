"""Vision-language models that score: read at the last token, at reward tokens or off the answer; fine-tuned, too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anisora.curation.captions.tiny import write_tiny_vlm
from anisora.errors import BadCheckpoint
from anisora.evaluation import finetuning
from anisora.evaluation.finetuning import Example, Recipe
from anisora.evaluation.look import Case, Look
from anisora.evaluation.network_scorer import NetworkScorer
from anisora.evaluation.samples import Sample
from anisora.measures.pretrained import quiet
from anisora.media.writer import write_video
from anisora.serving.scorer_loop import fit

from .tiny_encoders import clip, tokenizer

LOOK = {"num_frames": 2, "short_px": 32}


def write_card(folder: Path, **fields: Any) -> Path:
    card = {"schema": 2, "layout": "vlm", "unit": "logit", "look": LOOK, "question": "How is it?", **fields}
    (folder / "scorer.json").write_text(json.dumps(card))
    return folder


def write_idefics2(folder: Path) -> Path:
    """A Mantis sequence classifier in its published layout: an Idefics2 and `score.weight` in one file."""
    from transformers import Idefics2Config, Idefics2ImageProcessor, Idefics2Model

    torch.manual_seed(4)
    words = tokenizer(("<image>", "<fake_token_around_image>", "<end_of_utterance>"))
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Idefics2Config(
        vision_config=small | {"image_size": 32, "patch_size": 8},
        perceiver_config={
            "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2,
            "resampler_head_dim": 16, "num_key_value_heads": 1,
        },
        text_config=small | {
            "model_type": "mistral", "vocab_size": len(words), "num_key_value_heads": 1, "pad_token_id": 0,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = Idefics2Model(config)
    model.save_pretrained(folder)
    stored = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    stored["score.weight"] = torch.randn(2, 32)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    words.save_pretrained(folder)
    Idefics2ImageProcessor(size={"shortest_edge": 32, "longest_edge": 32}, do_image_splitting=False).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "qwen2")


@pytest.fixture
def case() -> Case:
    return Case(frames=list(clip(moves_px=10, frames=2)), prompt="a red square")


def with_head(vlm: Path, folder: Path, outputs: int, name: str = "rm_head.weight") -> Path:
    """The model's folder with a reward head among its tensors."""
    import shutil

    shutil.copytree(vlm, folder)
    torch.manual_seed(5)
    stored = load_file(folder / "model.safetensors") | {name: torch.randn(outputs, 64)}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_head_reads_the_last_token(vlm, tmp_path, case):
    folder = with_head(vlm, tmp_path / "reward", 2, "score.weight")
    outputs = [{"dimension": "smoothness"}, {"dimension": "appeal", "index": 1}]
    write_card(folder, outputs=outputs, parts={"backbone": "."}, head="score.weight")
    scorer = NetworkScorer(folder, "cpu")
    said = scorer.said(case)
    from transformers import Qwen2VLForConditionalGeneration

    with quiet():
        stock = Qwen2VLForConditionalGeneration.from_pretrained(vlm).eval()
    inputs = scorer.network.vlm.batch([(case.frames, "How is it?", None)])
    with torch.inference_mode():
        hidden = stock.model(**inputs).last_hidden_state[0, -1]
        expected = load_file(folder / "model.safetensors")["score.weight"] @ hidden
    assert said["anime.smoothness"].raw == pytest.approx(float(expected[0]), abs=1e-4)
    assert said["anime.appeal"].raw == pytest.approx(float(expected[1]), abs=1e-4)


def test_clips_of_other_lengths_in_one_batch_say_what_they_say_alone(vlm, tmp_path, case):
    folder = with_head(vlm, tmp_path / "reward", 1)
    write_card(folder, outputs=[{"dimension": "appeal"}], parts={"backbone": "."}, head="rm_head.weight")
    network = NetworkScorer(folder, "cpu").network
    other = replace(case, frames=[*case.frames, *case.frames, case.frames[0]])
    with torch.inference_mode():
        alone = [float(network([each])) for each in (case, other)]
        assert network([case, other])[:, 0].tolist() == pytest.approx(alone, abs=1e-4)


def test_reward_tokens_are_read_where_they_stand(vlm, tmp_path, case):
    folder = with_head(vlm, tmp_path / "reward", 2)
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

    names = ["<|VQ_reward|>", "<|MQ_reward|>"]
    words = AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"additional_special_tokens": names})
    words.save_pretrained(folder)
    head = load_file(folder / "model.safetensors")["rm_head.weight"]
    with quiet():
        model = Qwen2VLForConditionalGeneration.from_pretrained(vlm)
        model.resize_token_embeddings(len(words))
        model.save_pretrained(folder)
    save_file(
        load_file(folder / "model.safetensors") | {"rm_head.weight": head}, folder / "model.safetensors",
        metadata={"format": "pt"},
    )  # fmt: skip
    outputs = [
        {"dimension": "appeal", "index": 0, "token": names[0], "low": -3, "high": 3},
        {"dimension": "smoothness", "index": 1, "token": names[1], "low": -3, "high": 3},
    ]
    card = {"outputs": outputs, "parts": {"backbone": "."}, "head": "rm_head.weight", "read": "tokens"}
    write_card(folder, **card, question="Looks: <|VQ_reward|> END Motion: <|MQ_reward|> END of {prompt}")
    scorer = NetworkScorer(folder, "cpu")
    said = scorer.said(case)
    inputs = scorer.network.vlm.batch([(*case.asked(scorer.card.question), None)])
    with torch.inference_mode():
        hidden = scorer.network.backbone(**inputs).last_hidden_state[0]
    for row, (name, metric) in enumerate(zip(names, ("anime.appeal", "anime.smoothness"), strict=True)):
        place = int((inputs["input_ids"][0] == words.convert_tokens_to_ids(name)).nonzero())
        assert said[metric].raw == pytest.approx(float(head[row] @ hidden[place]), abs=1e-4)
    write_card(folder, **card, question="Only one: <|VQ_reward|>")
    with pytest.raises(BadCheckpoint, match="reward tokens in the question"):
        NetworkScorer(folder, "cpu")


def test_the_expected_rating_is_read_off_the_answer(vlm, tmp_path, case):
    outputs = [{"dimension": "text_video", "low": 1, "high": 5}]
    folder = tmp_path / "judge"
    folder.mkdir()
    write_card(folder, outputs=outputs, parts={"backbone": str(vlm)}, read="answer", question="{prompt}? 1 to 5:")
    scorer = NetworkScorer(folder, "cpu")
    said = scorer.said(case)["anime.text_video"]
    assert 1 < said.raw < 5
    assert said.score == pytest.approx(25 * (said.raw - 1))
    chosen = scorer.network.vlm.choose(np.stack(case.frames), "a red square? 1 to 5:", ["1", "2", "3", "4", "5"])
    # the captioner's probabilities are of the whole answer, its end included; the shares of the first token are these
    assert said.raw != 3.0
    assert chosen.shape == (5,)


def test_a_published_idefics2_classifier_opens(tmp_path, case):
    folder = write_idefics2(tmp_path / "mantis")
    outputs = [{"dimension": "smoothness", "low": 0, "high": 100}]
    write_card(
        folder, outputs=[*outputs, {"dimension": "appeal", "index": 1}], parts={"backbone": "."}, head="score.weight"
    )
    scorer = NetworkScorer(folder, "cpu")
    said = scorer.said(case)
    assert {"anime.smoothness", "anime.appeal"} == set(said)
    other = scorer.said(replace(case, frames=list(clip("blue", frames=2))))
    assert other["anime.smoothness"].raw != said["anime.smoothness"].raw  # the pictures are seen
    longer = replace(case, frames=[*case.frames, case.frames[0]])
    with torch.inference_mode():
        alone = [float(scorer.network([each])[0, 0]) for each in (case, longer)]
        assert scorer.network([case, longer])[:, 0].tolist() == pytest.approx(alone, abs=1e-4)


def test_what_does_not_fit_is_named(vlm, tmp_path, case):
    folder = tmp_path / "wrong"
    folder.mkdir()
    write_card(folder, outputs=[{"dimension": "appeal"}], parts={"backbone": str(vlm)}, head="score.weight")
    with pytest.raises(BadCheckpoint, match="the head is missing"):
        NetworkScorer(folder, "cpu")
    reward = with_head(vlm, tmp_path / "reward", 3)
    write_card(reward, outputs=[{"dimension": "appeal"}], parts={"backbone": "."}, head="rm_head.weight")
    with pytest.raises(BadCheckpoint, match=r"head.weight is \(3, 64\), not \(1, 64\)"):
        NetworkScorer(reward, "cpu")
    stored = load_file(reward / "model.safetensors")
    lacking = next(name for name in stored if name.endswith("q_proj.weight"))
    save_file(
        {k: v for k, v in stored.items() if k != lacking}, reward / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(BadCheckpoint, match=r"q_proj\.weight"):
        NetworkScorer(reward, "cpu")


# ---------------------------------------------------------------------------------------------------------- fine-tuning


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Clips that flicker and clips that do not, and real ones, which count as the best."""
    folder, found = tmp_path_factory.mktemp("shaky"), []
    for p in range(16):
        for noise, target in ((0, 0.8), (70, 0.0)):
            path = folder / f"s{p}_{noise}.mp4"
            write_video(path, clip("red" if p % 2 else "blue", 4, noise, seed=p), 8, lossless=True)
            sample = Sample(id=path.stem, video=path)
            found.append(Example(sample=sample, target=target, group=f"p{p}", is_real=False))
    return found + [replace(e, target=1.0, group=f"real{k}", is_real=True) for k, e in enumerate(found[:8:2])]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_smoothness_is_learnt_whole_and_by_lora(rank: int, vlm, shaky, tmp_path):
    recipe = Recipe(
        dimension="smoothness", backbone=vlm, look=Look(num_frames=2, short_px=32), steps=40, batch=4, warmup_steps=5,
        learning_rate=2e-3 if rank else 5e-4, lora_rank=rank, held_out=0.3, question="steady?", device="cpu",
    )  # fmt: skip
    figures = finetuning.finetune(recipe, shaky, tmp_path, fit)
    assert figures is not None
    assert (figures["real_clips"], figures["held_out"]["pairwise_accuracy"]["value"]) == (4, 1.0)
    assert figures["held_out"]["error"] < figures["held_out"]["error_of_the_mean"]
    scorer = NetworkScorer(tmp_path, "cpu")
    outside = finetuning.split(shaky, 0.3, 0)[1]
    from anisora.measures.footage import Footage

    raw = [scorer.prepare(e.sample, Footage.read(e.sample.video))()["anime.smoothness"].raw for e in outside]
    error = np.sqrt(np.mean([(4 * r - 4 * e.target) ** 2 for r, e in zip(raw, outside, strict=True)]))
    assert error == pytest.approx(figures["held_out"]["error"], abs=1e-4)  # the folder is the network
    assert ("LoRA of rank 4" if rank else "all weights") in (tmp_path / "card.md").read_text()
    assert "4 real clips that count as rated best" in (tmp_path / "card.md").read_text()
    assert (tmp_path / ("adapter" if rank else "backbone") / "config.json").exists() != bool(rank)
