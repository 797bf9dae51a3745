"""What fine-tuning is for: a LoRA on clips of a look that the bundled model has not seen helps on other clips of that look."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from finetune_runs import CPU, config_of

from anisora import synthetic
from anisora.evaluation.statistics import paired_interval
from anisora.media.writer import write_video
from anisora.training import finetune
from anisora.training.loop import load_averaged
from anisora.training.parallel import World

SIZE_PX, FRAMES, FPS = (48, 48), 9, 16

#: the same draws of guides, noise and times for each held-out clip, with and without the LoRA
DRAWS = 6


@pytest.fixture
def looks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import looks

    return looks.LOOKS


def drawn_folder(folder: Path, look, seeds: range, split: str) -> Path:
    folder.mkdir()
    for seed in seeds:
        clip = synthetic.render_clip(seed, 0, n_frames=FRAMES, fps=FPS, size_px=SIZE_PX, split=split)
        write_video(folder / f"{seed}.mp4", look(clip), FPS)
        (folder / f"{seed}.txt").write_text(clip.caption + "\n", encoding="utf-8")
    return folder


def clip_losses(settings, folder: Path, trained_in: Path | None) -> list[float]:
    """The mean loss of each clip of a folder over fixed draws, by the bundled model or with a trained LoRA."""
    data = {
        "videos": str(folder),
        "batch": 1,
        "sizes": [list(SIZE_PX)],
        "frames": [FRAMES],
        "fps": float(FPS),
        "workers": 1,
    }
    shown = config_of(
        "bundled", folder, settings.output.with_name("shown"), data=data, lora={"rank": 8}, loop={"steps": 8}
    )
    backbone = finetune._backbone(shown, CPU)
    trained = finetune.with_trained(backbone, shown)
    if trained_in is not None:
        load_averaged(trained_in, trained)
    course = finetune.open_course(shown, backbone.info.strides, backbone.info.native)
    task = finetune.fine_tune_task(backbone, trained, course, shown, World())
    losses = []
    with torch.no_grad():
        for step in range(shown.loop.steps):
            draws = [next(task.loss(step, torch.Generator().manual_seed(n)))[0].item() for n in range(DRAWS)]
            losses.append(sum(draws) / DRAWS)
    return losses


def test_a_lora_lowers_the_loss_on_held_out_clips_of_its_look(looks, tmp_path):
    pencil = looks["pencil"]
    shown = drawn_folder(tmp_path / "shown_clips", pencil, range(16), "train")
    held_out = drawn_folder(tmp_path / "held_out_clips", pencil, range(1000, 1008), "reserved")
    data = {"batch": 4, "sizes": [list(SIZE_PX)], "frames": [FRAMES], "fps": float(FPS)}
    loop = {"steps": 40, "learning_rate": 2e-3}
    settings = config_of("bundled", shown, tmp_path / "run", data=data, lora={"rank": 8}, loop=loop)
    finetune.main(settings)
    before = clip_losses(settings, held_out, None)
    after = clip_losses(settings, held_out, settings.output)
    assert len(set(before)) == len(before)  # eight clips, each once
    gain = paired_interval(after, before)
    assert gain["high"] < 0
