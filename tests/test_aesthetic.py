"""The plain features follow what they are named after; LAION's predictors load in their real layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from anisora.errors import BadCheckpoint
from anisora.measures.aesthetic import aesthetic, load_head, picture_features
from anisora.measures.clip import ClipView


@pytest.fixture(scope="module")
def drawing(picture) -> np.ndarray:
    """A colourful picture with a red square and a railing."""
    frame = picture(3, 320, 180).copy()
    frame[60:120, 100:200] = (250, 30, 30)
    frame[20:60, 100:260:5] = 0
    return frame


def test_features_follow_their_names(drawing: np.ndarray):
    import cv2

    whole = picture_features(drawing)
    grey = picture_features(np.repeat(drawing.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8))
    pale = picture_features((drawing // 4 + 96).astype(np.uint8))
    soft = picture_features(cv2.GaussianBlur(drawing, (0, 0), 4))
    noise = picture_features(np.random.default_rng(0).integers(0, 256, drawing.shape, dtype=np.uint8))
    assert grey["colourfulness"] == grey["saturation"] == 0 < whole["colourfulness"]
    assert pale["contrast"] < whole["contrast"] / 2
    assert soft["sharpness"] < whole["sharpness"]
    assert whole["clutter"] < noise["clutter"] / 2


def test_the_score_is_the_mean_over_frames_and_says_where_it_comes_from(drawing: np.ndarray):
    flat = np.full_like(drawing, 128)
    score = aesthetic(ClipView.of_frames(np.stack([drawing, flat]), 8), num_frames=2)
    assert score.backend == "bundled"
    assert score.weights_sha256 is None
    assert score.raw == pytest.approx(score.per_frame.mean())
    assert score.per_frame[0] > score.per_frame[1] == 0


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP, saved as transformers saves the real one: both towers and the preprocessing."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        text_config={**tower, "vocab_size": 64},
        projection_dim=12,
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["linear", "improved"])
def test_clip_and_head_give_the_score_of_the_published_code(
    kind: str, clip_folder: Path, drawing: np.ndarray, tmp_path: Path
):
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(1)
    sizes = [(12, 1)] if kind == "linear" else [(12, 8), (8, 6), (6, 4), (4, 3), (3, 1)]
    linear = [torch.nn.Linear(*size) for size in sizes]
    names = [""] if kind == "linear" else [f"layers.{n}." for n in (0, 2, 4, 6, 7)]
    state = {
        f"{name}{key}": value
        for name, layer in zip(names, linear, strict=True)
        for key, value in layer.state_dict().items()
    }
    torch.save(state, tmp_path / "head.pth")

    score = aesthetic(
        ClipView.of_frames(drawing[None], 8), clip_model=clip_folder, head=tmp_path / "head.pth", num_frames=1
    )

    inputs = CLIPImageProcessorPil.from_pretrained(clip_folder)(images=drawing, return_tensors="pt")
    with torch.inference_mode():
        features = CLIPModel.from_pretrained(clip_folder).eval().get_image_features(**inputs)
        value = getattr(features, "pooler_output", features)
        value = value / value.norm(dim=-1, keepdim=True)
        for layer in linear:
            value = layer(value)
    assert score.backend == "full"
    assert score.raw == pytest.approx(float(value), abs=1e-5)


def test_the_published_heads_load(shared_data: Path):
    widths = {
        "laion_sa_0_4_vit_l_14_linear": 768,
        "laion_sa_0_4_vit_b_32_linear": 512,
        "sac+logos+ava1-l14-linearMSE": 768,
    }
    for name, width in widths.items():
        head = load_head(shared_data / "small_weights" / f"{name}.pth")
        assert next(head.parameters()).shape[1] == width


def test_what_does_not_fit_is_named(clip_folder: Path, drawing: np.ndarray, tmp_path: Path):
    import torch

    clip = ClipView.of_frames(drawing[None], 8)
    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "wide.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(BadCheckpoint, match="for another CLIP: got embeddings of 12; expected 768"):
        aesthetic(clip, clip_model=clip_folder, head=tmp_path / "wide.pth")
    for name in ("other", "junk", "missing"):
        with pytest.raises(BadCheckpoint):
            load_head(tmp_path / f"{name}.pth")
    with pytest.raises(BadCheckpoint, match="a CLIP folder and a head, or neither"):
        aesthetic(clip, head=tmp_path / "wide.pth")
    with pytest.raises(BadCheckpoint, match="no CLIP there"):
        aesthetic(clip, clip_model=tmp_path, head=tmp_path / "wide.pth")
    weights = tmp_path / "clip" / "model.safetensors"
    shutil.copytree(clip_folder, tmp_path / "clip")
    tensors = load_file(weights)
    gone = next(name for name in tensors if name.startswith("visual_projection"))
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, weights, metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=r"without visual_projection\.weight"):
        aesthetic(clip, clip_model=tmp_path / "clip", head=tmp_path / "wide.pth")
