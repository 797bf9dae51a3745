"""Fine-tuning an encoder by equation 6: the loss is the equation's, what is learned holds for others, a stop is no loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from anisora.errors import BadConfig, BadInput
from anisora.evaluation.encoders import load_vision
from anisora.evaluation.identification import identification
from anisora.evaluation.identity import features
from anisora.training.identity import Cast, IdentitySettings, equation_6_loss, main, settings_of_loop

SIDE_PX = 32


def figure(rng: np.random.Generator, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Somebody in a shirt of one colour and trousers of another, and a prop of any colour, which is no identity."""
    picture = np.zeros((SIDE_PX, SIDE_PX, 3))
    x = int(rng.integers(4, 10))
    picture[2:16, x : x + 12], picture[16:30, x : x + 12] = top, bottom
    picture[8:24, x + 12 : x + 20] = rng.uniform(0, 255, 3)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def cast(root: Path, count: int, seed: int) -> dict[str, dict[str, list[Path]]]:
    """`count` characters of three pictures each."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, dict[str, list[Path]]] = {}
    for n in range(count):
        top, bottom = rng.uniform(0, 255, (2, 3))
        for k in range(3):
            path = root / f"{seed}-{n}-{k}.png"
            Image.fromarray(figure(rng, top, bottom)).save(path)
            drawn.setdefault(f"{n:02d}", {})[str(k)] = [path]
    return drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random DINOv2 in the real layout."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    out = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE_PX, patch_size=8, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(out)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    BitImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return cast(tmp_path_factory.mktemp("cast"), 24, 0)


def right(encoder: torch.nn.Module, drawn: Cast) -> float:
    """How often a picture's character is the nearest."""
    rows = [(n, source, files[0]) for n, own in enumerate(drawn.values()) for source, files in own.items()]
    found = features(encoder, [np.array(Image.open(path)) for _, _, path in rows])
    labels = np.array([n for n, _, _ in rows], np.int32)
    return identification(found, labels, [f"{n} {source}" for n, source, _ in rows], len(drawn))["accuracy"]["mean"]


def test_the_loss_is_equation_6_under_a_softmax():
    torch.manual_seed(0)
    f = functional.normalize(torch.randn(4, 2, 3, 8), dim=-1)
    slow = 0.0
    for scored, held in ((0, 1), (1, 0)):
        for c in range(4):
            scores = []
            for other in range(4):
                stored = f[other, held].mean(0)
                cosines = [functional.cosine_similarity(frame, stored, dim=0) for frame in f[c, scored]]
                scores.append(sum(cosines) / 3)
            slow -= (torch.stack(scores) / 0.1).log_softmax(0)[c] / 8
    loss, said = equation_6_loss(f, 0.1)
    assert loss.item() == pytest.approx(slow.item(), abs=1e-5)
    same = f[:, :1].expand(4, 2, 3, 8)
    assert equation_6_loss(same, 0.1)[1]["right"] == 1
    assert 0 <= said["right"] <= 1


def test_what_is_learned_holds_for_characters_never_seen(folder, pictures, tmp_path):
    others = cast(tmp_path, 16, 1)
    before = right(load_vision(folder), others)
    settings = IdentitySettings(characters=24, frames=1, loop=settings_of_loop(120, 5e-3))
    exported = main(load_vision(folder), pictures, settings, tmp_path / "run")
    after = right(load_vision(exported), others)
    assert before < 0.5
    assert after > before + 0.3
    assert {path.name for path in exported.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_a_run_that_is_stopped_ends_as_one_that_is_not(folder, pictures, tmp_path):
    def run(out: Path, **limits: float) -> Path | None:
        settings = IdentitySettings(characters=3, frames=1, loop=settings_of_loop(3, 1e-3))
        return main(load_vision(folder), pictures, settings, out, **limits)

    whole = run(tmp_path / "whole")
    assert run(tmp_path / "parts", max_minutes=0) is None
    assert not (tmp_path / "parts" / "export").exists()
    assert run(tmp_path / "parts", max_minutes=0) is None
    parts = run(tmp_path / "parts")
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_folder_with_a_run_on_others_is_refused(folder, pictures, tmp_path):
    settings = IdentitySettings(characters=3, frames=1, loop=settings_of_loop(1))
    main(load_vision(folder), pictures, settings, tmp_path)
    fewer = dict(list(pictures.items())[1:])
    with pytest.raises(BadConfig, match="other pictures"):
        main(load_vision(folder), fewer, settings, tmp_path)
    tuned = load_vision(tmp_path / "export")
    with pytest.raises(BadConfig, match="other encoder"):
        main(tuned, pictures, settings, tmp_path)


def test_characters_of_one_picture_teach_nothing(folder, pictures, tmp_path):
    single = {name: dict(list(own.items())[:1]) for name, own in pictures.items()}
    with pytest.raises(BadInput, match="too few characters"):
        main(load_vision(folder), single, IdentitySettings(), tmp_path)
