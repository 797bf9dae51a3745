"""Scorers in one file become folders that score the same; what does not fit is named, and nothing is written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anisora.errors import BadCheckpoint, BadRequest
from anisora.evaluation import published
from anisora.evaluation.converting import Conversion, convert_scorer
from anisora.evaluation.look import Case
from anisora.evaluation.network_scorer import NetworkScorer
from anisora.evaluation.networks import FrameFusion
from anisora.serving.cli import run

from .tiny_encoders import SIDE_PX, clip, timm_vit, tokenizer

WIDTH = 32


def _random(network: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(t.shape, generator=generator) * 0.2 for n, t in network.state_dict().items()}


def _vit(prefix: str = "visual_encoder.") -> dict[str, Tensor]:
    """A ViT as BLIP has it."""
    return {prefix + name: tensor for name, tensor in timm_vit(WIDTH).items()}


def _linear(name: str, rows: int, columns: int, seed: int) -> dict[str, Tensor]:
    return {f"{name}.{kind}": tensor for kind, tensor in _random(nn.Linear(columns, rows), seed).items()}


def _bert(prefix: str = "text_encoder.", width: int = 16) -> dict[str, Tensor]:
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(vocab_size=len(tokenizer()), hidden_size=width, num_hidden_layers=1, num_attention_heads=1,
                   intermediate_size=32, max_position_embeddings=40)
    )  # fmt: skip
    state = {prefix + name: tensor for name, tensor in _random(model, 2).items()}
    return state | {f"{prefix}embeddings.position_ids": torch.arange(40)[None]}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def case() -> Case:
    frames = list(clip(moves_px=12))
    return Case(frames=frames, prompt="the red square moves far", image=frames[-1])


def _features(state: dict[str, Tensor], prefix: str, frames: list[np.ndarray]) -> Tensor:
    """First tokens of a ViT under timm's names: the network once more, written out."""
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    mean, spread = (torch.tensor(v)[:, None, None] for v in (published_mean, published_spread))
    pixels = (torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255 - mean) / spread
    x = nn.functional.conv2d(pixels, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], stride=8)
    x = torch.cat([own["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1) + own["pos_embed"]

    def linear(x: Tensor, name: str) -> Tensor:
        return nn.functional.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"], 1e-6)

    q, k, v = linear(norm(x, "blocks.0.norm1"), "blocks.0.attn.qkv").chunk(3, dim=-1)
    x = x + linear((q @ k.transpose(1, 2) / WIDTH**0.5).softmax(dim=-1) @ v, "blocks.0.attn.proj")
    x = x + linear(nn.functional.gelu(linear(norm(x, "blocks.0.norm2"), "blocks.0.mlp.fc1")), "blocks.0.mlp.fc2")
    return norm(x, "norm")[:, 0]


published_mean, published_spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_a_regressor_on_frames_scores_as_written_out(tmp_path, case):
    """Equation 3, of a file in which the ViT has no name of its own."""
    state = _vit("") | _linear("head", 1, WIDTH, 3)
    torch.save({"model": state, "epoch": 6}, tmp_path / "x.pth")
    wanted = Conversion(layout="frames", dimension="appeal")
    made = convert_scorer(tmp_path / "x.pth", tmp_path / "out", wanted)
    assert made["tensors"] == {"vision": len(state) - 2 + 4, "head": 2}  # the joint projection in three
    said = NetworkScorer(tmp_path / "out", "cpu").said(case)["anime.appeal"]
    values = _features(state, "", case.frames) @ state["head.weight"][0] + state["head.bias"]
    assert said.raw == pytest.approx(float(values.sigmoid().mean()), abs=1e-5)


def test_image_video_scores_as_written_out(tmp_path, case):
    """Equation 5; two layers of one shape: the user says which is which, both else are named."""
    state = _vit() | _linear("vision_proj", WIDTH, WIDTH, 3) | _linear("key_proj", WIDTH, WIDTH, 4)
    state |= _linear("out", 1, 2 * WIDTH, 5)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadRequest, match=r"project_video.*key_proj.weight.*vision_proj.weight"):
        convert_scorer(tmp_path / "x.pth", tmp_path / "out", Conversion(layout="pair", dimension="image_video"))
    wanted = Conversion(layout="pair", dimension="image_video", names={"project_video": "vision_proj"})
    convert_scorer(tmp_path / "x.pth", tmp_path / "out", wanted)
    said = NetworkScorer(tmp_path / "out", "cpu").said(case)["anime.image_video"]
    video = _features(state, "visual_encoder.", case.frames).mean(dim=0) @ state["vision_proj.weight"].T
    other = _features(state, "visual_encoder.", [case.image])[0] @ state["key_proj.weight"].T
    both = torch.cat([video + state["vision_proj.bias"], other + state["key_proj.bias"]])
    expected = (both @ state["out.weight"][0] + state["out.bias"]).sigmoid()
    assert said.raw == pytest.approx(float(expected), abs=1e-5)
    assert said.params["reference"] == "image"


def test_text_video_takes_a_tokenizer_and_drops_by_name(tmp_path, words, case, capsys):
    """Layers of other shapes tell themselves apart; BERT's pooler and a momentum copy are dropped, by name."""
    state = _vit() | _vit("visual_encoder_m.") | _bert()
    state |= _linear("a", WIDTH, WIDTH, 3) | _linear("b", WIDTH, 16, 4) | _linear("c", 1, 2 * WIDTH, 5)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "x.pth")
    command = ["evaluate", "convert-scorer", str(tmp_path / "x.pth"), "--layout", "pair", "--dimension", "text_video"]
    command += ["--out", str(tmp_path / "out"), "--json"]
    assert run(command) == 2
    assert "several that could be the vision" in capsys.readouterr().err
    command += ["--drop", "visual_encoder_m."]
    assert run(command) == 2
    assert "no tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*command, "--tokenizer", str(words)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert "text_encoder.pooler.dense.weight" in made["dropped"]
    assert "text_encoder.embeddings.position_ids" in made["dropped"]
    assert "visual_encoder_m.cls_token" in made["dropped"]
    scorer = NetworkScorer(tmp_path / "out", "cpu")
    assert scorer.card.text_tokens == 30
    assert not scorer.card.is_joint
    assert 0 < scorer.said(case)["anime.text_video"].raw < 1
    assert torch.equal(scorer.network.project_other.weight, state["b.weight"])
    assert torch.equal(
        scorer.network.text.model.embeddings.word_embeddings.weight,
        state["text_encoder.embeddings.word_embeddings.weight"],
    )


def _openai(tokens: int) -> dict[str, Tensor]:
    """A CLIP of both towers under OpenAI's names."""
    state = {
        "visual.class_embedding": (WIDTH,), "visual.conv1.weight": (WIDTH, 3, 8, 8),
        "visual.positional_embedding": (17, WIDTH), "visual.proj": (WIDTH, 16), "positional_embedding": (20, WIDTH),
        "text_projection": (WIDTH, 16), "token_embedding.weight": (tokens, WIDTH), "logit_scale": (),
    }  # fmt: skip
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for tower in ("visual.", ""):
        at = f"{tower}transformer.resblocks.0."
        state |= {f"{at}attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{at}attn.in_proj_bias": (3 * WIDTH,)}
        state |= {f"{at}attn.out_proj.weight": (WIDTH, WIDTH), f"{at}attn.out_proj.bias": (WIDTH,)}
        state |= {f"{at}mlp.c_fc.weight": (64, WIDTH), f"{at}mlp.c_fc.bias": (64,)}
        state |= {f"{at}mlp.c_proj.weight": (WIDTH, 64), f"{at}mlp.c_proj.bias": (WIDTH,)}
        state |= {f"{at}ln_{n}.{kind}": (WIDTH,) for n in (1, 2) for kind in ("weight", "bias")}
    generator = torch.Generator().manual_seed(6)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in state.items()}


@pytest.mark.parametrize("form", ["mmaction2", "ActionCLIP"])
def test_motion_takes_clip_and_its_transformer(tmp_path, case, form):
    """As both of ActionCLIP's code bases save it; the picture's feature is that of the tower alone."""
    joins = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    joins.write_bytes(gzip.compress(b"#version\nt h\nth e</w>"))
    both, fused = _openai(len(published.load_bpe(joins))), _random(FrameFusion(16, 2, max_frames=8), 7)
    if form == "mmaction2":
        state = {f"clip.{n}": t for n, t in both.items()} | {f"adapter.{n}": t for n, t in fused.items()}
        torch.save({"meta": {"epoch": 3}, "state_dict": state}, tmp_path / "x.pth")
    else:
        torch.save({"model_state_dict": both, "fusion_model_state_dict": fused}, tmp_path / "x.pth")
    wanted = Conversion(layout="prompts", dimension="motion", tokenizer=joins)
    made = convert_scorer(tmp_path / "x.pth", tmp_path / "out", wanted)
    assert made["tensors"] == {"towers": len(both) + 8, "fusion": len(fused)}
    scorer = NetworkScorer(tmp_path / "out", "cpu")
    assert (scorer.card.fusion_layers, scorer.card.fusion_frames, scorer.card.look.num_frames) == (2, 8, 8)
    assert 0 <= scorer.said(case)["anime.motion"].raw <= 1
    assert torch.equal(
        scorer.network.fusion.state_dict()["transformer.resblocks.1.ln_2.bias"],
        fused["transformer.resblocks.1.ln_2.bias"],
    )
    towers, said = published.clip_of(both, "x", {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1})
    towers.load_state_dict(said)
    pixels = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    with torch.no_grad():
        found = scorer.network.towers.model.get_image_features(pixels).pooler_output
        assert torch.allclose(found, towers.eval().get_image_features(pixels).pooler_output, atol=1e-6)


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    state = _vit() | _linear("head", 1, WIDTH, 3) | _linear("bn", 4, 4, 4)
    del state["visual_encoder.norm.bias"]
    state["visual_encoder.extra"] = torch.zeros(3)
    state["visual_encoder.blocks.0.mlp.fc2.bias"] = torch.zeros(5)
    state["visual_encoder.cls_token"] = torch.full((1, 1, WIDTH), torch.nan)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint) as problem:
        convert_scorer(tmp_path / "x.pth", tmp_path / "out", Conversion(layout="frames", dimension="appeal"))
    said = str(problem.value)
    for words in (
        "missing: vision.model.layernorm.bias", "unexpected: bn.bias, bn.weight, vision.model.extra",
        "misfit: vision.model.layers.0.mlp.fc2.bias (5,) for (32,)", "not finite: vision.model.embeddings.cls_token",
    ):  # fmt: skip
        assert words in said
    assert not (tmp_path / "out").exists()


def test_wrong_files_and_wishes_are_refused(tmp_path, capsys):
    torch.save(_linear("head", 1, WIDTH, 3), tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match="no vision in the file"):
        convert_scorer(tmp_path / "x.pth", tmp_path / "out", Conversion(layout="frames", dimension="appeal"))
    with pytest.raises(BadRequest, match="no parts of a frames scorer"):
        Conversion(layout="frames", dimension="appeal", names={"towers": "x"})
    (tmp_path / "y.pth").write_bytes(b"not one")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        convert_scorer(tmp_path / "y.pth", tmp_path / "out", Conversion(layout="frames", dimension="appeal"))
    torch.save(_vit() | _linear("head", 1, WIDTH, 3), tmp_path / "z.pth")
    with pytest.raises(BadCheckpoint, match="unknown dimension"):
        convert_scorer(tmp_path / "z.pth", tmp_path / "out", Conversion(layout="frames", dimension="beauty"))
    command = ["evaluate", "convert-scorer", str(tmp_path / "z.pth"), "--out", str(tmp_path / "out")]
    assert run([*command, "--layout", "frames", "--dimension", "appeal", "--name", "head"]) == 2
    assert run([*command, "--layout", "frame", "--dimension", "appeal"]) == 2
    assert "unknown layout" in capsys.readouterr().err
