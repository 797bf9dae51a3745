"""CCIP's folder: its networks say who is alike, its threshold who is known, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anisora.errors import BadCheckpoint
from anisora.evaluation import ccip, characters, gallery, identity
from anisora.evaluation.character import CharacterScorer
from anisora.evaluation.identification import stored_features
from anisora.evaluation.samples import Sample
from anisora.measures.footage import Footage
from anisora.serving.cli import run

from .drawn_shots import shot
from .tiny_onnx import write_differences, write_features


def write_ccip(folder: Path, threshold: float = 0.45) -> Path:
    """The files of one of the published folders, small and random."""
    folder.mkdir(parents=True)
    write_features(folder / "model_feat.onnx")
    write_differences(folder / "model_metrics.onnx")
    (folder / "metrics.json").write_text(json.dumps({"threshold": threshold, "f1": 0.9, "precision": 0.9}))
    (folder / "cluster.json").write_text(json.dumps({"dbscan_2": {"eps": 0.17, "min_samples": 2}}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ccip(tmp_path_factory.mktemp("ccip") / "ccip-caformer-24-randaug-pruned")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((40, 30, 3), (384, 384, 3), (500, 410, 3))]


def test_features_are_the_networks_of_squeezed_pictures(folder, pictures):
    """Field by field, by hand; lengths are kept."""
    found = identity.features(identity.load_encoder(folder), pictures)
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(48, 6)), rng.normal(size=6)
    for picture, feature in zip(pictures, found, strict=True):
        small = np.asarray(Image.fromarray(picture).resize((384, 384), Image.Resampling.BILINEAR), np.float64) / 255
        normed = (small - ccip._MEAN) / ccip._SPREAD
        fields = normed.reshape(4, 96, 4, 96, 3).mean(axis=(1, 3)).transpose(2, 0, 1).reshape(-1)
        assert feature == pytest.approx(fields @ weight + bias, abs=1e-4)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).min() > 0.01


def test_alike_is_one_less_the_difference_of_each_pair(folder):
    rng = np.random.default_rng(1)
    one, other = (rng.normal(size=(n, 6)).astype(np.float32) for n in (ccip._ROWS + 9, 3))
    found = identity.alike_of(folder)(one, other)
    assert found == pytest.approx(0.5 + 0.5 * np.tanh(one @ other.T / 8), abs=1e-6)
    assert identity.alike_of(folder)(one[:0], other).shape == (0, 3)
    assert identity.alike_of()(one, other) == pytest.approx(one @ other.T)


def test_features_are_merged_as_imgutils_merges_them():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(5, 6)).astype(np.float32) * [[1], [2], [3], [4], [5]]
    lengths = np.linalg.norm(features, axis=1)
    merged = (features / lengths[:, None]).mean(axis=0)
    expected = merged / np.linalg.norm(merged) * lengths.mean()
    assert stored_features(features, np.zeros(5, np.int32), 1)[0] == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of two drawn characters."""
    out = tmp_path_factory.mktemp("gallery")
    characters.draw_characters(2, out)
    gallery.build(out, characters.known(out), str(folder))
    return out


def test_a_gallery_scores_by_the_network_and_knows_by_its_threshold(built, folder):
    loaded = gallery.load(built)
    assert loaded.facts.alike == "ccip"
    assert loaded.facts.threshold == pytest.approx(1 - 0.45)
    scorer = CharacterScorer(built)
    name = scorer.stored.names[0]
    sample = Sample(id="x", video=Path("x.mp4"), characters=(name,))
    said = scorer.prepare(sample, Footage.of_frames(shot(name, 3), 4))()["anime.character"]
    assert said.unit == "1 - CCIP difference"
    assert said.score == pytest.approx(100 * said.raw)
    assert said.weights_sha256 == ccip.weights_sha256(folder)
    (moments,) = said.details["cosines"]
    assert said.raw == pytest.approx(np.mean(moments["cosines"]), abs=1e-5)


def opened(folder: Path) -> tuple[ccip.Encoder, ccip.Alike]:
    return ccip.Encoder(folder), ccip.Alike(folder)


def test_files_that_are_wrong_are_refused(tmp_path, built):
    for number, (name, content, words) in enumerate((
        ("model_metrics.onnx", None, "does not exist"),
        ("model_feat.onnx", b"no network", "not a network in ONNX"),
        ("metrics.json", b'{"f1": 0.9}', "no threshold"),
        ("metrics.json", b'{"threshold": 3}', "between 0 and 1"),
        ("metrics.json", b"{", "no threshold"),
    )):  # fmt: skip
        folder = write_ccip(tmp_path / str(number))
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(BadCheckpoint, match=words):
            opened(folder)
    folder = write_ccip(tmp_path / "widths")
    write_differences(folder / "model_metrics.onnx", width=7)
    with pytest.raises(BadCheckpoint, match="do not fit each other"):
        gallery.build(tmp_path / "out", characters.known(built), str(folder))
    folder = write_ccip(tmp_path / "turned")
    write_differences(folder / "model_feat.onnx")
    with pytest.raises(BadCheckpoint, match="one input of 4 axes"):
        identity.load_encoder(folder)


def test_it_cannot_be_fine_tuned(folder, tmp_path, capsys):
    command = ["evaluate", "gallery", "--drawn", "2", "--fine-tune", "1", "--encoder", str(folder), "--out"]
    assert run([*command, str(tmp_path / "out")]) == 2
    assert "cannot learn" in capsys.readouterr().err
