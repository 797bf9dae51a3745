"""Fine-tuning a captioner: a small random model of the real class, in the real layout, learns its pairs by heart."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from anisora.curation.captions import CaptionSettings, caption_clips
from anisora.curation.captions.ask import PROSE_QUESTION
from anisora.curation.captions.tiny import TINY_FAMILIES, write_tiny_vlm
from anisora.curation.captions.vlm import VlmCaptioner, VlmSettings, load
from anisora.curation.filter import VlmFilter
from anisora.errors import BadCheckpoint, BadConfig, BadInput, UnknownModel
from anisora.measures.clip import ClipView
from anisora.media.writer import write_video
from anisora.training.captioner import CaptionerConfig, LoraSettings, load_config, main, read_pairs
from anisora.training.loop import LoopSettings

CAPTIONS = [
    "A girl waves in a meadow.", "A boy runs to the left.", "Red hair, static camera.", "The camera pans to a girl.",
    "A boy waves while the camera pans.", "Flat colors in a meadow.", "A girl with red hair runs.", "A boy in a meadow.",
]  # fmt: skip
CLIP = CaptionSettings(frames=2, longest_side_px=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "qwen2_vl", "qwen2_vl")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short clips and their captions."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    lines = []
    for number, caption in enumerate(CAPTIONS):
        blocks = rng.integers(0, 255, (1, 4, 4, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        write_video(root / f"{number}.mp4", blocks.repeat(4, 0), Fraction(8))
        verdict = "keep" if number % 2 else "drop"
        lines.append(json.dumps({"video": f"{number}.mp4", "caption": caption, "verdict": verdict}))
    (root / "pairs.jsonl").write_text("\n".join(lines))
    return root / "pairs.jsonl"


def config(folder: Path, pairs: Path, out: Path, **fields) -> CaptionerConfig:  # type: ignore[no-untyped-def]
    loop = LoopSettings(steps=80, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, weight_decay=0.0)
    lora = LoraSettings(rank=16, alpha=32, dropout=0.0, is_vision_trained=True)
    given = {"pairs": pairs, "output": out, "model": VlmSettings(folder=str(folder)), "clip": CLIP, "lora": lora}
    return CaptionerConfig(**given | {"loop": loop, "batch": 8} | fields)


def view(video: Path) -> ClipView:
    from anisora.media.reader import read_video

    clip = read_video(video)
    return ClipView.of_frames(clip.frames_THWC, clip.fps)


def test_a_small_random_model_learns_eight_pairs_by_heart(folder: Path, pairs: Path, tmp_path: Path):
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    adapter = main(config(folder, pairs, tmp_path / "run"))
    assert (adapter / "adapter_config.json").is_file()
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before

    tuned = VlmCaptioner(VlmSettings(folder=str(folder), adapter=str(adapter), answers="prose", max_tokens=60))
    rows = [{"clip_id": str(number)} for number in range(8)]
    clips = {str(number): view(pairs.parent / f"{number}.mp4") for number in range(8)}
    done = caption_clips(rows, clips, tuned, tmp_path / "captions.jsonl", CLIP)
    assert [row["caption"] for row in done] == CAPTIONS
    plain = VlmCaptioner(VlmSettings(folder=str(folder), answers="prose", max_tokens=20))
    assert plain.weights_sha256 != tuned.weights_sha256
    untuned = caption_clips(rows, clips, plain, tmp_path / "untuned.jsonl", CLIP)
    assert not [row for row in untuned if row["caption"] in CAPTIONS]


def test_the_filter_learns_keep_and_drop(folder: Path, pairs: Path, tmp_path: Path):
    loop = LoopSettings(steps=24, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, weight_decay=0.0)
    adapter = main(config(folder, pairs, tmp_path / "run", task="filter", loop=loop))
    quality = VlmFilter(VlmSettings(folder=str(folder), adapter=str(adapter)), CLIP)
    scores = [quality.score(view(pairs.parent / f"{number}.mp4")) for number in range(8)]
    assert [score.raw > 0.5 for score in scores] == [bool(number % 2) for number in range(8)]
    assert scores[0].backend == "full"
    assert len(scores[0].weights_sha256 or "") == 64


def test_stopping_and_going_on_is_one_run(folder: Path, pairs: Path, tmp_path: Path):
    loop = LoopSettings(steps=6, learning_rate=1e-2, warmup_steps=1, log_every_steps=1)
    whole = config(folder, pairs, tmp_path / "whole", loop=loop, batch=2)
    main(whole)
    stopped = config(folder, pairs, tmp_path / "stopped", loop=loop, batch=2)
    assert main(stopped, max_minutes=0) is None
    while main(stopped, max_minutes=0) is None:
        pass

    def losses(run: str) -> list[float]:
        return [json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]

    assert losses("stopped") == pytest.approx(losses("whole"), rel=1e-4)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_family_answers_trains_and_pads(family: str, tmp_path: Path):
    """Padding changes nothing: the loss of two samples is that of each alone, weighted by their words."""
    vlm = load(VlmSettings(folder=str(write_tiny_vlm(tmp_path, family))))
    rng = np.random.default_rng(1)
    small, large = (rng.integers(0, 255, (2, side, side, 3), np.uint8) for side in (56, 112))
    samples = [(small, PROSE_QUESTION, "A girl."), (large, PROSE_QUESTION, "The camera pans to a boy in a meadow.")]
    with torch.inference_mode():
        alone = [vlm.batch([sample]) for sample in samples]
        losses = torch.stack([vlm.model(**batch).loss for batch in alone])
        counts = torch.tensor([(batch["labels"] != -100).sum() for batch in alone])
        together = vlm.model(**vlm.batch(samples)).loss
    assert together.item() == pytest.approx(((losses * counts).sum() / counts.sum()).item(), rel=1e-4)
    text, _ = vlm.answer(small, PROSE_QUESTION, max_tokens=4)
    assert isinstance(text, str)
    odds = vlm.choose(small, PROSE_QUESTION, ["keep", "drop", "keep it"])
    assert odds.sum() == pytest.approx(1)


def test_only_the_answer_is_learned(folder: Path):
    vlm = load(VlmSettings(folder=str(folder)))
    batch = vlm.batch([(np.zeros((2, 56, 56, 3), np.uint8), PROSE_QUESTION, "A girl waves.")])
    learned = batch["labels"][0] != -100
    assert vlm.tokenizer.decode(batch["input_ids"][0][learned]) == "A girl waves.<|im_end|>"
    grids = batch["image_grid_thw"]
    assert batch["mm_token_type_ids"].sum() == (grids.prod(-1) // 4).sum()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"caption": "x"}, "without a video"),
        ({"video": "gone.mp4", "caption": "x"}, "does not exist"),
        ({"video": "0.mp4", "caption": " "}, "caption of"),
        ({"video": "0.mp4", "caption": {"prosa": "x"}}, "unknown key"),
    ],
)
def test_pairs_that_cannot_be_learned_from(pairs: Path, line: dict, said: str):
    bad = pairs.with_name("bad.jsonl")
    bad.write_text(json.dumps(line))
    with pytest.raises(BadInput, match=said):
        read_pairs(bad, "caption")


def test_a_verdict_is_keep_or_drop(pairs: Path):
    bad = pairs.with_name("bad.jsonl")
    bad.write_text(json.dumps({"video": "0.mp4", "verdict": "maybe"}))
    with pytest.raises(BadInput, match="maybe"):
        read_pairs(bad, "filter")


def test_folders_that_hold_no_captioner(tmp_path: Path, tiny):  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownModel):
        load(VlmSettings(folder=str(tmp_path / "none")))
    with pytest.raises(BadCheckpoint, match="umt5"):
        load(VlmSettings(folder=str(tiny("wan") / "text_encoder")))


def test_the_config_of_a_run_is_checked(tmp_path: Path):
    path = tmp_path / "captioner.yaml"
    path.write_text("pairs: pairs.jsonl\noutput: run\n")
    with pytest.raises(BadConfig, match=r"model\.folder"):
        load_config(path)
    assert load_config(path, ("model.folder=qwen", "batch=2")).batch == 2
