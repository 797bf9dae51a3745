"""Motion-area training: the pair's area is what the network is told and graded by, and outside of it nothing moves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from finetune_runs import CPU, config_of
from PIL import Image

from anisora.errors import BadConfig, BadInput
from anisora.files import sha256_file
from anisora.geometry import Strides
from anisora.media.frames import to_float_CTHW
from anisora.training import finetune
from anisora.training.data import DataSettings, Loader, open_data
from anisora.training.examples import ConditionSettings, draw_plan
from anisora.training.pairs import PairedVideos
from anisora.training.parallel import World
from anisora.training.presets import PRESETS, expanded

NATIVE = ((48, 32), 9, Fraction(8))


def write_pairs(folder, clips, areas):
    """pairs.jsonl of these videos: an area [H, W] each, or the reason why there is none."""
    lines = []
    for name, area in areas.items():
        line = {"key": name, "video": str(clips / f"{name}.mp4"), "verdict": "drop", "reason": area}
        line |= {"area_file": None, "area_sha256": None}
        if not isinstance(area, str):
            path = folder / "areas" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(area, 255, 0).astype(np.uint8)).save(path)
            line |= {"verdict": "keep", "reason": None, "area_file": f"areas/{name}.png"}
            line |= {"area_sha256": sha256_file(path)}
        lines.append(json.dumps(line))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def half(side):
    """The left or the right half of a clip of 64x48."""
    area = np.zeros((48, 64), bool)
    area[:, :32] = True
    return area if side == "left" else ~area


@pytest.fixture
def pairs(clip_folder, tmp_path):
    return write_pairs(
        tmp_path / "pairs", clip_folder, {"0": half("left"), "1": half("right"), "2": "background_moves"}
    )


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    (tmp_path / "pairs").mkdir()


def test_videos_with_an_area_are_shown_and_the_others_are_named(clip_folder, pairs):
    videos = PairedVideos(clip_folder, pairs)
    assert [clip.name for clip in videos.clips] == ["0.mp4", "1.mp4"]
    assert videos.unusable["2.mp4"] == "no motion area: background_moves"
    assert videos.unusable["5.mp4"] == "no motion area: not in pairs.jsonl"


def test_an_area_is_fitted_as_its_frames_are(clip_folder, pairs):
    videos = PairedVideos(clip_folder, pairs)
    area = videos.area(0, (48, 32))  # 64x48 covers it at 48x36, cropped above and below
    assert area.shape == (32, 48)
    assert area[:, :24].all()
    assert not area[:, 24:].any()
    # a mark of the picture is where its area says after any fit
    spot = np.zeros((48, 64), bool)
    spot[20:28, 40:56] = True
    write_pairs(pairs, clip_folder, {"0": spot})
    frames = np.repeat(np.where(spot, 255, 0).astype(np.uint8)[None, ..., None], 3, -1)
    from anisora.media.frames import fit

    for size in [(48, 32), (32, 48), (64, 64)]:
        fitted = fit(frames, size, "cover")[0][0, ..., 0] > 127
        assert (fitted != PairedVideos(clip_folder, pairs).area(0, size)).mean() < 0.02


def test_what_is_no_table_of_pairs_is_one_message(clip_folder, pairs, tmp_path):
    (pairs / "areas" / "0.png").write_bytes((pairs / "areas" / "1.png").read_bytes())
    with pytest.raises(BadInput, match="not the one that was made"):
        PairedVideos(clip_folder, pairs)
    with pytest.raises(BadInput, match="table of video-mask pairs"):
        PairedVideos(clip_folder, tmp_path / "gone")
    write_pairs(pairs, clip_folder, {"0": "lost"})
    with pytest.raises(BadInput, match="no video has a motion area"):
        PairedVideos(clip_folder, pairs)
    with pytest.raises(BadConfig, match="pairs without their videos"):
        open_data(DataSettings(pairs=pairs), Strides(), NATIVE, seed=0, cache=tmp_path)


def test_a_step_shows_clips_with_their_own_areas(clip_folder, pairs, tmp_path):
    settings = DataSettings(videos=clip_folder, pairs=pairs, batch=2)
    data = open_data(settings, Strides(), NATIVE, seed=0, cache=tmp_path)
    clips, _ = Loader(data, seed=0, world=World(), workers=1, folder=tmp_path).batch(0)
    left = {clip.name: clip.area_HW[:, :24].mean() for clip in clips}
    assert left == {"0.mp4": 1.0, "1.mp4": 0.0}
    plain = open_data(replace(settings, pairs=None), Strides(), NATIVE, seed=0, cache=tmp_path)
    assert Loader(plain, seed=0, world=World(), workers=1, folder=tmp_path).batch(0)[0][0].area_HW is None


def test_the_plan_says_given_outside_of_the_pairs_area_and_shows_the_still_there(clip_folder, pairs):
    videos = PairedVideos(clip_folder, pairs)
    rng = np.random.default_rng(0)
    video = to_float_CTHW(videos.read(0, 9, (48, 32), Fraction(8), rng)).transpose(0, 1)
    conditions = ConditionSettings(motion_area_prob=1.0, guide_dropout=0.0)
    area = videos.area(0, (48, 32))
    plan = draw_plan(video, conditions, np.random.default_rng(1), area_HW=area)
    static = torch.from_numpy(~area)
    guides = [landing.frame for landing in plan.landings]
    between = [t for t in range(9) if t not in guides]
    assert (plan.keep_T1HW[between][..., static] == 1).all()
    assert (plan.keep_T1HW[between][..., ~static] == 0).all()
    assert torch.equal(plan.video_TCHW[..., static], video[:1].expand_as(video)[..., static])


def losses_with(backbone, config, clip, area_HW):
    clips = [replace(clip, area_HW=area_HW)]
    return finetune._errors(backbone, "transformer", clips, torch.tensor([0.6]), [11], config, False)


@pytest.mark.parametrize("family", ["wan", "cogvideox-mask"])
def test_the_pairs_area_changes_the_loss_and_the_target_outside_stands_still(
    family, tiny, clip_folder, pairs, tmp_path
):
    conditions = {"motion_area_prob": 1.0, "text_dropout": 0.0}
    config = config_of(tiny(family), clip_folder, tmp_path / "run", conditions=conditions)
    backbone = finetune._backbone(config, CPU)
    videos = PairedVideos(clip_folder, pairs)
    video_THWC = videos.read(0, 9, (48, 32), Fraction(8), np.random.default_rng(0))
    from anisora.training.data import Clip

    clip = Clip(name="0.mp4", video_THWC=video_THWC, caption="drifts")
    areas = [videos.area(index, (48, 32)) for index in (0, 1)]
    left, right = (losses_with(backbone, config, clip, area) for area in areas)
    assert torch.equal(left, losses_with(backbone, config, clip, areas[0]))
    assert not torch.equal(left, right)
    assert not torch.equal(left, losses_with(backbone, config, clip, None))

    video_BCTHW = to_float_CTHW(video_THWC)[None]
    how = {"family": backbone.info.family, "strides": backbone.info.strides, "area_HW": areas[0]}
    plan = draw_plan(video_BCTHW[0].transpose(0, 1), config.conditions, np.random.default_rng(1), **how)
    target = backbone.target(video_BCTHW, [plan])
    still = backbone.codec.encode(video_BCTHW[:, :, :1].expand_as(video_BCTHW))
    clean = backbone.codec.encode(video_BCTHW)
    stride = backbone.info.strides.spatial
    columns = target.shape[-1] * 24 // 48
    padding = target.shape[2] - still.shape[2]
    assert torch.equal(target[:, :, padding:, :, columns:], still[..., columns:])
    assert torch.equal(target[:, :, padding:, :, :columns], clean[..., :columns])
    assert not torch.equal(clean[..., columns:], still[..., columns:])
    assert stride * target.shape[-1] == 48


def test_the_motion_preset_trains_on_pairs_and_says_its_size(tiny, clip_folder, pairs, tmp_path, capsys):
    from anisora.training.launch import main

    text = f"preset: motion\nmodel: {tiny('wan')}\noutput: {tmp_path / 'run'}\n"
    (tmp_path / "motion.yaml").write_text(text)
    overrides = [f"data.videos={clip_folder}", f"data.pairs={pairs}", "lora.rank=2", "loop.steps=2", "device=cpu"]
    assert main(tmp_path / "motion.yaml", tuple(overrides)) == tmp_path / "run" / "export"
    assert "LoRA of rank 2 on transformer: " in capsys.readouterr().err
    resolved = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (resolved["method"], resolved["conditions"]["motion_area_prob"]) == ("lora", 0.9)


def test_pairs_whose_areas_no_sample_uses_are_refused_and_other_areas_are_another_run(
    tiny, clip_folder, pairs, tmp_path
):
    def config(**more):
        data = {"pairs": str(pairs), "batch": 2, "workers": 1}
        return config_of(tiny("wan"), clip_folder, tmp_path / "run", data=data, loop={"steps": 1}, **more)

    with pytest.raises(BadConfig, match="preset: motion"):
        finetune.main(config())
    with_areas = config(conditions={"motion_area_prob": 1.0})
    finetune.main(with_areas)
    write_pairs(pairs, clip_folder, {"0": half("right"), "1": half("right")})
    with pytest.raises(BadConfig, match="clips"):
        finetune.main(with_areas)


def test_presets_fill_in_what_a_config_does_not_say():
    assert expanded({"preset": "motion", "lora": {"alpha": 4}}, "c.yaml") == {
        **PRESETS["motion"],
        "lora": {"rank": 256, "alpha": 4},
    }
    assert expanded({"preset": "motion", "lora": {"rank": 8}}, "c.yaml")["lora"] == {"rank": 8}
    assert expanded({"method": "full"}, "c.yaml") == {"method": "full"}
    with pytest.raises(BadConfig, match="motion"):
        expanded({"preset": "moton"}, "c.yaml")


def test_moved_folders_keep_their_pairs(clip_folder, pairs, tmp_path):
    """A folder that was linked to is the folder itself."""
    link = tmp_path / "link"
    link.symlink_to(clip_folder)
    assert len(PairedVideos(link, pairs).clips) == 2
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    with pytest.raises(BadInput, match="no video has a motion area"):
        PairedVideos(copy, pairs)
