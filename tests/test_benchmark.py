"""The benchmark of a checkpoint: what it writes down is what it measures, and what it measures is the checkpoint."""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CLIPS = 2


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The script as a module, with the perceptual network on small pictures: its values mean less and come sooner."""
    from anisora.measures import perceptual

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr(perceptual, "SHORTER_SIDE_PX", 64)
        yield importlib.import_module("bundled_model")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> argparse.Namespace:
    from anisora.models.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("benchmark")
    model = write_tiny_checkpoint(folder / "tiny", "wan")
    return argparse.Namespace(
        first_seed=9000,
        clips=CLIPS,
        size=32,
        frames=5,
        fps=8,
        model=str(model),
        randomise_dit=False,
        arms=[],
        corpus_version=2,
        workers=1,
    )


@pytest.fixture(scope="module")
def run(benchmark: ModuleType, options: argparse.Namespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept run of two clips."""
    pytest.importorskip("anisora.synthetic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANISORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        import checkpoint_shots

        patch.setattr(checkpoint_shots, "LINEAR_CODE_CLIPS", 2)
        folder = tmp_path_factory.mktemp("run")
        benchmark.record_run(folder, options)
    return folder


@pytest.fixture(scope="module")
def result(benchmark: ModuleType, run: Path) -> dict:
    from anisora.errors import AssetMissing

    try:
        return benchmark.summarise(*benchmark.read_run(run))
    except AssetMissing as missing:
        pytest.skip(str(missing))


def test_it_prints_what_it_promises_as_json(result: dict):
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    arms = {"model", "model_one_step", "vae_cross_fade", "guided_cross_fade", "cross_fade", "flow_warp"}
    for metric in ("psnr_db", "ssim", "perceptual", "latent_mse", "hf_energy"):
        assert set(result["inbetween"][metric]) == arms
    assert {"precision", "recall", "precision_raw", "recall_raw", "precision_no_control"} <= set(result["mask"])
    for key in ("vae_psnr_db", "pca_psnr_db", "guide_gap_db", "motion_ratio", "seconds_per_shot", "peak_rss_bytes"):
        assert result[key]
    assert set(result["by_split"]) == {"seen", "reserved"}
    assert result["seeds"]["held_out"] is True
    assert len(result["recipe_sha256"]) == 64
    assert all(row["met"] is False for row in result["targets"] if row["reached"] is None)


def test_the_frames_kept_give_the_same_figures(benchmark: ModuleType, run: Path, result: dict, tmp_path: Path):
    shutil.copytree(run, tmp_path / "elsewhere")
    assert benchmark.summarise(*benchmark.read_run(tmp_path / "elsewhere")) == result


def test_two_processes_measure_what_one_does(benchmark: ModuleType, run: Path):
    (about, alone), (about_two, together) = (benchmark.read_run(run, workers) for workers in (1, 2))
    assert about == about_two
    for (clip, figures), (clip_two, figures_two) in zip(alone, together, strict=True):
        assert clip == clip_two
        # What `benchmark` has patched is as usual in a fresh process.
        figures, figures_two = (
            {name: value for name, value in each.items() if "perceptual" not in name} for each in (figures, figures_two)
        )
        assert len(figures) > 40
        assert figures == pytest.approx(figures_two, rel=1e-5, nan_ok=True)  # sums over other numbers of threads


def test_the_figures_come_from_the_frames(benchmark: ModuleType, run: Path, result: dict, tmp_path: Path):
    """The truth put in place of the model's frames is at the ceiling; nothing else about the run has changed."""
    folder = tmp_path / "forged"
    shutil.copytree(run, folder)
    for clip in (folder / "clips").iterdir():
        shutil.copy(clip / "truth.png", clip / "model.png")
    forged = benchmark.summarise(*benchmark.read_run(folder))
    assert forged["inbetween"]["psnr_db"]["model"] > 58
    assert forged["inbetween"]["perceptual"]["model"] < 1e-4
    assert forged["inbetween"]["psnr_db"]["cross_fade"] == result["inbetween"]["psnr_db"]["cross_fade"]
    assert forged["motion_ratio"]["model"] == 1
    assert forged["motion_along"]["model"] == 1
    assert forged["blend_residual_ratio"]["model"] == 1


def test_a_record_comes_back_as_it_was_written(benchmark: ModuleType, run: Path, tmp_path: Path):
    import clip_record

    record = clip_record.read(clip_record.finished(run)[0])
    clip_record.write(record, tmp_path)
    again = clip_record.read(clip_record.finished(tmp_path)[0])
    assert again.about == record.about
    assert all((again.arms[arm] == record.arms[arm]).all() for arm in record.arms)
    assert all((again.latents[arm] == record.latents[arm]).all() for arm in record.latents)
    assert (again.area_HW == record.area_HW).all()
    assert (again.foreground_THW == record.foreground_THW).all()


def test_composited_shots_equal_the_guide_outside_the_area(run: Path):
    import clip_record

    for folder in clip_record.finished(run):
        record = clip_record.read(folder)
        outside = ~record.area_HW
        assert outside.any()
        assert (record.arms["mask_composited"][:, outside] == record.arms["truth"][0][outside]).all()
        assert not np.array_equal(record.arms["mask_raw"], record.arms["mask_composited"])


def test_an_interrupted_run_makes_only_what_is_missing(
    benchmark: ModuleType, run: Path, options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import checkpoint_shots
    import clip_record

    folder = tmp_path / "half"
    shutil.copytree(run, folder)
    lost = clip_record.clip_folder(folder, options.first_seed + 1)
    (lost / "clip.json").unlink()
    kept = (clip_record.clip_folder(folder, options.first_seed) / "clip.json").stat().st_mtime_ns
    monkeypatch.setattr(checkpoint_shots, "LINEAR_CODE_CLIPS", 2)
    monkeypatch.setenv("ANISORA_CACHE", str(tmp_path / "cache"))
    benchmark.record_run(folder, options)
    before, after = (clip_record.read(clip_record.clip_folder(f, options.first_seed + 1)) for f in (run, folder))
    assert all((before.arms[arm] == after.arms[arm]).all() for arm in before.arms)
    assert (clip_record.clip_folder(folder, options.first_seed) / "clip.json").stat().st_mtime_ns == kept


def test_a_folder_of_another_run_is_refused(benchmark: ModuleType, run: Path):
    about = json.loads((run / "run.json").read_text())
    with pytest.raises(SystemExit, match="weights_sha256 differ"):
        benchmark.same_run(run, about | {"weights_sha256": "0" * 64})


def test_random_weights_change_the_model_and_nothing_else(
    benchmark: ModuleType, run: Path, options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import checkpoint_shots
    import clip_record

    monkeypatch.setattr(checkpoint_shots, "LINEAR_CODE_CLIPS", 2)
    monkeypatch.setenv("ANISORA_CACHE", str(tmp_path / "cache"))
    benchmark.record_run(
        tmp_path / "random", argparse.Namespace(**{**vars(options), "clips": 1, "randomise_dit": True})
    )
    trained, random = (clip_record.read(clip_record.finished(f)[0]) for f in (run, tmp_path / "random"))
    same = {arm for arm in trained.arms if (trained.arms[arm] == random.arms[arm]).all()}
    assert same == {
        "truth",
        "pca",
        "vae",
        "vae_guided",
        "vae_cross_fade",
        "guided_cross_fade",
        "cross_fade",
        "flow_warp",
    }


@pytest.fixture(scope="module")
def arms_run(
    benchmark: ModuleType, options: argparse.Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """One clip of nine frames, made without optional arms first; then those are added, and judged by a judge that has
    seen next to nothing."""
    from anisora.errors import AssetMissing

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANISORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        import action_classifier
        import checkpoint_shots
        import rife

        patch.setattr(checkpoint_shots, "LINEAR_CODE_CLIPS", 2)
        patch.setattr(action_classifier, "TAUGHT_CLIPS", 1)
        patch.setattr(action_classifier, "JUDGED_CLIPS", 1)
        patch.setattr(rife, "network", functools.cache(lambda: rife.IFNet(channels=4).eval()))
        folder, settings = tmp_path_factory.mktemp("arms"), {**vars(options), "clips": 1, "frames": 9}
        try:
            benchmark.record_run(folder, argparse.Namespace(**settings))
            made = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
            benchmark.record_run(folder, argparse.Namespace(**settings | {"arms": ["guides", "rife", "actions"]}))
        except AssetMissing as missing:
            pytest.skip(str(missing))
        assert made == {path: path.stat().st_mtime_ns for path in made}, "what was there has not been made again"
        yield folder


def test_optional_arms_bring_their_figures(benchmark: ModuleType, arms_run: Path, capsys: pytest.CaptureFixture):
    result = benchmark.summarise(*benchmark.read_run(arms_run))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for metric in ("psnr_db", "ssim", "perceptual", "latent_mse"):
        assert "rife" in result["inbetween"][metric]
        assert set(result["guided"][metric]) == {"model", "cross_fade", "flow_warp", "rife"}
        for counts in result["guided"][metric].values():
            assert set(counts) == {"two", "three", "four", "five"}
    assert result["actions"]["first_frame"]["chosen"] == pytest.approx(1 / result["prompts_95"]["prompts_a_frame"])
    assert result["prompts_95"]["judge"]["motion"]["n"] == result["prompts_95"]["judge"]["clips"]
    told = [row["target"] for row in result["targets"]]
    for words in ("better than rife", "five guides", "one more guide", "action of the prompt recognised"):
        assert any(words in target for target in told), words
    benchmark.print_result(result, as_json=False)
    printed = capsys.readouterr().out
    assert "by number of guides" in printed
    assert "the judge on held-out truth" in printed


def test_a_record_with_optional_arms_comes_back(arms_run: Path, tmp_path: Path):
    import clip_record

    record = clip_record.read(clip_record.finished(arms_run)[0])
    clip_record.write(record, tmp_path)
    again = clip_record.read(clip_record.finished(tmp_path)[0])
    assert set(again.extras) == set(record.extras) == {"guides", "rife", "actions"}
    for name, extra in record.extras.items():
        assert again.extras[name].about == extra.about
        assert all((again.extras[name].arms[arm] == frames).all() for arm, frames in extra.arms.items())
        assert all((again.extras[name].latents[arm] == latent).all() for arm, latent in extra.latents.items())


def test_numbers_of_guides_are_compared_where_none_was_given(arms_run: Path):
    """Frames that some arm was given do not count, in pixels or in latents; the truth in place of the others is at the
    ceiling."""
    import clip_figures
    import clip_record
    from extra_arms import free_frames, freed

    record = clip_record.read(clip_record.finished(arms_run)[0])
    before = clip_figures._guide_counts(record)
    given = [frame for frame in range(9) if frame not in free_frames(9)]
    truth, five = record.arms["truth"], record.extras["guides"].arms["model_five"]
    was = freed(five, truth)
    five[given] = 0
    assert (freed(five, truth) == was).all()
    assert clip_figures._guide_counts(record) == before
    five[:] = truth
    assert (freed(five, truth) == truth).all()
    assert clip_figures._guide_counts(record)["guided.psnr_db.model.five"] > 58


def test_seeds_that_were_trained_on_are_named(benchmark: ModuleType):
    assert benchmark.held_out({"training_seeds": [0, 1000]}, [998, 1001]) == {
        "trained_on": [0, 1000], "overlap": 1, "held_out": False,
    }  # fmt: skip
    assert benchmark.held_out({}, [1])["held_out"] is None


def test_the_model_card_shows_every_target_of_a_run(result: dict, benchmark: ModuleType, tmp_path: Path):
    card = importlib.import_module("model_card")
    page = card.with_figures(f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n", card.table(result))
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert card.with_figures(page, card.table(result)) == page
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if "|" in line]
    shown = {line[0]: line[1] for line in lines[2:]}
    for row in result["targets"]:
        assert shown[row["target"]] == ("not measured" if row["reached"] is None else f"{row['reached']:.3f}")
    assert f"--first-seed {result['seeds']['first']} --clips {CLIPS}" in page
    with pytest.raises(SystemExit, match="no place for figures"):
        card.with_figures("a card without marks", "")
