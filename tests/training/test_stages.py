"""Stages: presets laid over a run's data, spans of steps, and a run of several that resumes exactly."""

import json

import pytest
from finetune_runs import config_of, same_run

from anisora.errors import BadConfig
from anisora.training import finetune
from anisora.training.data import DataSettings
from anisora.training.stages import PRESETS, StageSettings, resolve

TWO = {
    "short": {"epochs": 0.5, "data": {"frames": [5]}},
    "long": {"steps": 3, "data": {"batch": 1}, "learning_rate_scale": 0.1},
}


def test_presets_are_the_stages_of_the_paper(tmp_path):
    stages = resolve({name: StageSettings(preset=name) for name in PRESETS}, DataSettings(videos=tmp_path, batch=8))
    assert [(stage.epochs, stage.steps) for stage in stages] == [
        (3.0, None),
        (1.9, None),
        (2.3, None),
        (1.0, None),
        (None, 5500),
    ]
    assert [stage.data.fps for stage in stages] == [8, 16, 16, 16, 16]
    assert all(stage.data.batch == 8 and stage.data.mixture is None for stage in stages)
    for stage in stages:  # 2 to 8 seconds, and legal for every family that folds four frames into one
        assert [(length - 1) / stage.data.fps for length in stage.data.frames] == [2, 4, 6, 8]
        assert all(side % 16 == 0 for size in stage.data.sizes for side in size)


def test_presets_name_curation_s_mixtures(tmp_path):
    from anisora.curation.mixture import PRESETS as MIXTURES

    (tmp_path / "mixtures").mkdir()
    for name in MIXTURES:
        (tmp_path / "mixtures" / f"{name}.parquet").touch()
    for stage in resolve({name: StageSettings(preset=name) for name in PRESETS}, DataSettings(shards=tmp_path)):
        assert stage.data.mixture is not None
        assert stage.data.mixture.exists()


def test_a_stage_says_what_differs(tmp_path):
    stage = StageSettings(preset="sft-480p16", steps=7, data={"fps": 12, "batch": 2})
    (resolved,) = resolve({"a": stage}, DataSettings(videos=tmp_path, batch=1, caption="c"))
    assert (resolved.steps, resolved.epochs) == (7, None)
    assert (resolved.data.fps, resolved.data.batch, resolved.data.caption) == (12, 2, "c")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (StageSettings(preset="sft-480p9", steps=1), "sft-480p8"),
        (StageSettings(), "stages.a: its length: got steps None, epochs None"),
        (StageSettings(steps=1, epochs=1.0), "expected one of them"),
        (StageSettings(steps=0), "above 0"),
        (StageSettings(steps=1, data={"frame": [5]}), "frames"),
    ],
)
def test_stages_that_mean_nothing_are_refused(stage, message):
    with pytest.raises(BadConfig, match=message):
        resolve({"a": stage}, DataSettings())


def test_stages_follow_each_other_and_resume_exactly(tiny, clip_folder, tmp_path):
    def config(name):
        return config_of(tiny("wan"), clip_folder, tmp_path / name, stages=TWO)

    finetune.main(config("whole"))
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    # six clips in batches of two: half an epoch is 1.5 steps, rounded up
    assert [(row["step"], row["stage"], row["clips"], row["tokens"]) for row in rows] == [
        *((step, "short", 2, 2 * 12) for step in (0, 1)),
        *((step, "long", 1, 18) for step in (2, 3, 4)),
    ]
    for _ in range(3):  # one step each: the third is in the second stage
        assert finetune.main(config("cut"), max_minutes=0) is None
    assert finetune.main(config("cut")) is not None
    same_run(tmp_path / "whole", tmp_path / "cut")
