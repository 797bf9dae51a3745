"""`anisora train` and its subcommands: which one is meant, what they print, how they fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anisora.curation.heads import HEADS, load_head, write_features
from anisora.serving.cli import run


def labelled(folder: Path) -> tuple[Path, Path]:
    """A table of features and labels that one of them explains."""
    rng = np.random.default_rng(0)
    features = {f"clip-{n}": {"speed": n % 2 + 0.1 * rng.normal(), "noise": rng.normal()} for n in range(40)}
    lines = [f"clip-{n},talking,{HEADS['talking'][n % 2]},mei" for n in range(40)]
    (folder / "labels.csv").write_text("\n".join(["clip_id,head,label,rater", *lines]))
    return folder / "labels.csv", write_features(folder / "features.parquet", features)


def test_heads_are_trained_from_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels, features = labelled(tmp_path)
    words = ["train", "heads", str(labels), "--features", str(features), "--out", str(tmp_path / "heads"), "--json"]
    assert run(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["talking"]["accuracy"] > 0.9
    head = load_head(tmp_path / "heads" / "talking.json")
    assert head.probabilities({"speed": 1.0, "noise": 0.0})[1] > 0.8


def test_labels_that_do_not_do_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels, features = labelled(tmp_path)
    labels.write_text("clip_id,head,label\nclip-1,talking,yes\n")
    assert run(["train", "heads", str(labels), "--features", str(features), "--out", str(tmp_path / "heads")]) == 2
    assert "too few labels for talking" in capsys.readouterr().err
    assert not (tmp_path / "heads").exists()


@pytest.mark.parametrize("words", [["gone.yaml"], ["--stage", "codec", "gone.yaml"], ["captioner", "gone.yaml"]])
def test_what_is_no_subcommand_is_a_config(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(["train", *words]) == 2
    assert "gone.yaml" in capsys.readouterr().err


def fine_tuning(tmp_path: Path, tiny, method: str = "lora") -> list[str]:
    from anisora.media.writer import write_video

    clips = tmp_path / "clips"
    clips.mkdir()
    write_video(clips / "a.mp4", np.zeros((9, 32, 48, 3), np.uint8), 8)
    (clips / "a.txt").write_text("black")
    config = tmp_path / "c.yaml"
    config.write_text(f"output: {tmp_path / 'run'}\nmethod: {method}\nmodel: {tiny('wan')}\n")
    return ["train", str(config), f"data.videos={clips}", "device=cpu", "loop.steps=1", "lora.rank=2"]


def test_a_dry_run_says_the_cost_and_trains_nothing(tmp_path: Path, tiny, capsys: pytest.CaptureFixture[str]):
    words = fine_tuning(tmp_path, tiny)
    assert run([*words, "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert (cost["steps"], cost["clips"], cost["tokens_a_step"]) == (1, 1, 18)
    assert cost["buckets"] == ["48x32, 9 frames: 1 clips, 1 a step"]
    assert run([*words, "--dry-run"]) == 0
    assert "matrix ceiling" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_lora_is_trained_and_where_it_lies_is_told(tmp_path: Path, tiny, capsys: pytest.CaptureFixture[str]):
    assert run([*fine_tuning(tmp_path, tiny), "--json"]) == 0
    exported = Path(json.loads(capsys.readouterr().out)["exported"])
    assert (exported / "pytorch_lora_weights.safetensors").is_file()


def test_flags_that_do_not_fit_the_method_are_refused(tmp_path: Path, tiny, capsys: pytest.CaptureFixture[str]):
    assert run([*fine_tuning(tmp_path, tiny), "--stage", "codec"]) == 2
    assert "--stage is for configs that train from scratch" in capsys.readouterr().err
    bundled = Path(__file__).parents[2] / "configs" / "bundled.yaml"
    assert run(["train", str(bundled), "--dry-run"]) == 2
    assert "--dry-run is for checkpoints that are there already" in capsys.readouterr().err


def test_build_masks_prints_what_became_of_each_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from anisora.assets import locate
    from anisora.errors import AssetMissing
    from anisora.media.writer import write_video

    try:
        locate("u2netp")
    except AssetMissing as missing:
        pytest.skip(str(missing))
    write_video(tmp_path / "clips" / "grey.mp4", np.full((3, 32, 48, 3), 128, np.uint8), 8)
    words = ["train", "build-masks", str(tmp_path / "clips"), "--out", str(tmp_path / "pairs")]
    assert run([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["videos"], said["no_foreground"]) == (1, 1)
    (tmp_path / "s.yaml").write_text("max_are: 0.5\n")
    assert run([*words, "--config", str(tmp_path / "s.yaml")]) == 2
    assert "max_area" in capsys.readouterr().err
    assert run(["train", "build-masks", str(tmp_path / "gone"), "--out", str(tmp_path / "pairs")]) == 2
