"""Encoded once and kept: the same tensors and losses as encoding online, and nothing left to decode while training."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from finetune_runs import CPU, config_of, losses, same_run

from anisora.store import read_jsonl
from anisora.training import finetune
from anisora.training.backbone import Backbone
from anisora.training.cache import Cache, CacheSettings, stacked
from anisora.training.data import Clip
from anisora.training.parallel import World
from anisora.training.sources import VideoFolder


def opened(settings):
    backbone = finetune._backbone(settings, CPU)
    course = finetune.open_course(settings, backbone.info.strides, backbone.info.native)
    cache = Cache(settings.cache, backbone, settings.conditions, seed=settings.seed, folder=settings.output / "cache")
    return backbone, course.data[0], cache


@pytest.mark.parametrize("family", ["wan", "wan-clip", "cogvideox-mask", "vace"])
def test_a_variant_is_what_online_encoding_gives(family, tiny, clip_folder, tmp_path):
    areas = {"conditions": {"motion_area_prob": 0.5}}
    settings = config_of(tiny(family), clip_folder, tmp_path / "run", cache={"variants": 2}, **areas)
    backbone, data, cache = opened(settings)
    cost = cache.fill([data], World())
    assert (cost.variants, cost.made) == (12, 12)
    assert cost.size_bytes == sum(path.stat().st_size for path in (tmp_path / "run/cache/clips").iterdir())
    assert cache.fill([data], World()).made == 0
    (bucket,) = data.buckets
    for variant in range(2):
        rng = np.random.default_rng([settings.seed, variant, int(bucket.source.digest(3)[:15], 16)])
        video_THWC = bucket.source.read(3, bucket.num_frames, bucket.size_px, data.fps, rng)
        clip = Clip(name="3", video_THWC=video_THWC, caption="")
        online_clean, online = finetune.encoded_clips(backbone, [clip], [rng], settings.conditions)
        pick = type("Pick", (), {"integers": lambda self, n, variant=variant: variant})()
        clean, kept = stacked([cache.reader(data)(bucket, 3, pick)], CPU)
        assert torch.equal(clean, online_clean)
        text, t_B = backbone.text([""]), torch.tensor([0.5])
        (name, *_) = backbone.networks
        both = [backbone.predict(name, clean, t_B, conditions, text) for conditions in (online, kept)]
        assert torch.equal(*both)


def test_training_reads_it_alone_and_any_run_may(tiny, clip_folder, tmp_path, monkeypatch, capsys):
    shared = {"cache": {"variants": 3, "folder": str(tmp_path / "cache")}, "loop": {"steps": 4}}
    first, second, cut = (config_of(tiny("wan"), clip_folder, tmp_path / name, **shared) for name in "abc")
    finetune.main(first)
    assert "18 variants" in " ".join(capsys.readouterr().err.split())

    def never(*args, **kwargs):
        raise AssertionError("this was to be kept")

    monkeypatch.setattr(VideoFolder, "read", never)
    monkeypatch.setattr(Backbone, "_states", never)
    monkeypatch.setattr(Backbone, "conditions", never)
    finetune.main(second)
    assert "0 of them made now" in " ".join(capsys.readouterr().err.split())
    same_run(first.output, second.output)
    assert finetune.main(cut, max_minutes=0) is None
    finetune.main(cut)
    same_run(first.output, cut.output)


def test_a_changed_clip_or_other_draws_are_encoded_anew(tiny, clip_folder, tmp_path):
    clips = tmp_path / "clips"
    shutil.copytree(clip_folder, clips)
    settings = config_of(tiny("wan"), clips, tmp_path / "run", cache={"variants": 1})
    _, data, cache = opened(settings)
    assert cache.fill([data], World()).made == 6
    shutil.copy(clips / "1.mp4", clips / "0.mp4")
    _, data, cache = opened(settings)
    cost = cache.fill([data], World())
    assert (cost.variants, cost.made) == (5, 0)  # two clips of the same bytes are one
    other = replace(settings, conditions=replace(settings.conditions, k_max=1))
    _, data, cache = opened(other)
    assert cache.fill([data], World()).made == 5


def test_a_clip_that_cannot_be_decoded_is_replaced_as_online(tiny, clip_folder, tmp_path):
    clips = tmp_path / "clips"
    shutil.copytree(clip_folder, clips)
    broken = bytearray((clips / "2.mp4").read_bytes())
    start = broken.find(b"mdat") + 4
    broken[start : start + 3000] = bytes(len(broken[start : start + 3000]))
    (clips / "2.mp4").write_bytes(bytes(broken))
    settings = config_of(tiny("wan"), clips, tmp_path / "run", loop={"steps": 6}, cache={"variants": 2})
    finetune.main(settings)
    assert [row["name"] for row in read_jsonl(tmp_path / "run" / "unusable.jsonl")] == ["2.mp4"]
    assert len(losses(tmp_path / "run")) == 6


def test_settings(tiny, clip_folder, tmp_path):
    assert config_of(tiny("wan"), clip_folder, tmp_path / "run").cache is None
    assert config_of(tiny("wan"), clip_folder, tmp_path / "run", cache={}).cache == CacheSettings()
