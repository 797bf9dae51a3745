"""VBench's formulas, totals and files, against its own functions on the same arrays.

Its wheel is downloaded into the cache and read (`vbench` in conftest.py); nothing of it is installed or kept here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anisora.errors import BadInput
from anisora.evaluation import vbench as ours

SAME = pytest.approx
EXACT = {"abs": 1e-6}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """uint8 [11, 40, 56, 3]: a picture that drifts, with noise."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (40, 90, 3), dtype=np.uint8), (0, 0), 4)
    moved = np.stack([picture[:, t * 3 : t * 3 + 56] for t in range(11)]).astype(int)
    return np.clip(moved + rng.integers(-6, 7, moved.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clips() -> dict[str, np.ndarray]:
    """Stored features [T, D] of three clips; of neighbours alike, some opposed."""
    rng = np.random.default_rng(1)
    walks = {f"clip {n}": rng.normal(size=(n, 24)).cumsum(axis=0) for n in (5, 9, 2)}
    walks["turns"] = np.stack([np.eye(24)[0], -np.eye(24)[0], np.eye(24)[1]]) * 3.0
    return walks


def same(x, *args, **kwargs):
    """Stands for a transform or a network: the features are stored."""
    return x


def names(clips: dict[str, np.ndarray]) -> dict:
    """What VBench's files import, with the decoder answering stored features."""
    return {
        "np": np, "torch": torch, "F": F, "cv2": cv2, "tqdm": lambda x, **_: x, "get_rank": lambda: 0,
        "load_video": lambda path, **_: torch.from_numpy(clips[path]).float(), "batch_size": 4,
        "dino_transform": lambda _: same, "dino_transform_internet": lambda: same,
        "dino_transform_Image_internet": lambda: same, "clip_transform": lambda _: same,
        "dreamsim_transform": lambda _: same, "dreamsim_transform_Image": lambda _: same,
        "Image": SimpleNamespace(open=lambda name: torch.from_numpy(clips[name][0]).float()),
    }  # fmt: skip


def test_temporal_flickering(vbench, frames):
    theirs = vbench("vbench/temporal_flickering.py", **names({}))
    expected = (255.0 - np.mean(theirs["mae_seq"](list(frames))).item()) / 255.0
    assert ours.temporal_flickering(frames) == SAME(expected, **EXACT)
    assert ours.temporal_flickering(frames[:1]) is None
    assert ours.temporal_flickering(frames[:1].repeat(3, 0)) == 1


@pytest.mark.parametrize("num_frames", [11, 10, 3, 2])
def test_motion_smoothness(vbench, frames, num_frames):
    smoothness = vbench("vbench/motion_smoothness.py", **names({}))
    judge = smoothness["MotionSmoothness"].__new__(smoothness["MotionSmoothness"])
    judge.fp = smoothness["FrameProcess"]()
    clip = frames[:num_frames]
    even = clip[::2].astype(int)
    predicted = ((even[:-1] + even[1:]) // 2).astype(np.uint8)
    if not len(predicted):
        assert ours.motion_smoothness(clip, predicted) is None
        return
    interleaved = [x for a, b in zip(clip[::2], [*predicted, None], strict=True) for x in (a, b) if x is not None]
    expected = (255.0 - judge.vfi_score(list(clip), interleaved)) / 255.0
    assert ours.motion_smoothness(clip, predicted) == SAME(expected, **EXACT)


def test_dynamic_degree(vbench):
    theirs = vbench("vbench/dynamic_degree.py", **names({}))
    rng = np.random.default_rng(2)
    for num_frames in (1, 2, 3, 6, 10, 14, 30):
        for strength in (2.0, 2.6, 3.2, 8.0):
            judge = theirs["DynamicDegree"].__new__(theirs["DynamicDegree"])
            judge.set_params(torch.zeros(1, 3, 96, 130), num_frames)
            flows = rng.normal(0, 1, (num_frames - 1, 96, 130, 2)).astype(np.float32) * rng.uniform(0, strength / 2)
            as_theirs = [torch.from_numpy(flow).permute(2, 0, 1)[None] for flow in flows]
            expected = [judge.get_score(flow, flow) for flow in as_theirs]
            scores = [ours.dynamic_pair_score(flow) for flow in flows]
            assert scores == SAME(expected, rel=1e-6)
            assert ours.dynamic_degree(scores, 130, 96) == judge.check_move(expected)


@pytest.mark.parametrize("dimension", ["subject", "background"])
def test_subject_and_background_consistency(vbench, clips, dimension):
    theirs = vbench(f"vbench/{dimension}_consistency.py", **names(clips))
    if dimension == "subject":
        overall, each = theirs["subject_consistency"](same, list(clips), "cpu", False)
    else:
        network = SimpleNamespace(encode_image=same)
        overall, each = theirs["background_consistency"](network, None, list(clips), "cpu", False)
    found = [ours.feature_consistency(features) for features in clips.values()]
    assert found == SAME([entry["video_results"] for entry in each], **EXACT)
    lengths = [len(features) for features in clips.values()]
    assert ours.aggregate(f"{dimension}_consistency", found, lengths) == SAME(overall, **EXACT)
    assert ours.feature_consistency(clips["turns"][:1]) is None


@pytest.mark.parametrize("dimension", ["subject", "background"])
def test_consistency_with_the_input_picture(vbench, clips, dimension):
    theirs = vbench(f"vbench2_beta_i2v/i2v_{dimension}.py", **names(clips))
    pairs = [("turns", name) for name in clips]
    if dimension == "subject":
        overall, each = theirs["i2v_subject"](same, pairs, "cpu")
    else:
        overall, each = theirs["i2v_background"](SimpleNamespace(embed=same), pairs, "cpu")
    found = [ours.image_consistency(clips["turns"][0], features) for features in clips.values()]
    assert found == SAME([entry["video_results"] for entry in each], **EXACT)
    assert ours.aggregate(f"i2v_{dimension}", found) == SAME(overall, **EXACT)


def test_aesthetic_quality(vbench, clips):
    theirs = vbench("vbench/aesthetic_quality.py", **names(clips))
    torch.manual_seed(0)
    head = torch.nn.Linear(24, 1)
    network = SimpleNamespace(encode_image=same, eval=lambda: None)
    overall, each = theirs["laion_aesthetic"](head, network, list(clips), "cpu")
    with torch.no_grad():
        scores = [
            head(F.normalize(torch.from_numpy(x).float(), dim=-1)).squeeze(-1).numpy().astype(float)
            for x in clips.values()
        ]
    found = [ours.aesthetic_quality(score) for score in scores]
    assert found == SAME([entry["video_results"] for entry in each], **EXACT)
    assert ours.aggregate("aesthetic_quality", found) == SAME(overall, **EXACT)


def test_imaging_quality(vbench, clips):
    pictures = {name: np.random.default_rng(3).uniform(0, 255, (len(x), 3, 8, 8)) for name, x in clips.items()}
    theirs = vbench("vbench/imaging_quality.py", **names(pictures))
    network = lambda frame: 100 * frame.mean()  # noqa: E731
    overall, each = theirs["technical_quality"](network, list(pictures), "cpu")
    found = [ours.imaging_quality([100 * float(frame.mean()) / 255 for frame in x]) for x in pictures.values()]
    assert found == SAME([entry["video_results"] for entry in each], rel=1e-6)
    assert ours.aggregate("imaging_quality", found) == SAME(overall, **EXACT)


def test_overall_consistency(vbench, clips):
    stored = names(clips) | {"read_frames_decord_by_fps": lambda path, **_: torch.from_numpy(clips[path]).float()}
    theirs = vbench("vbench/overall_consistency.py", **stored)
    text = np.random.default_rng(4).normal(size=24)
    network = SimpleNamespace(
        encode_vision=lambda x, **_: x.mean(dim=1), encode_text=lambda _: torch.from_numpy(text)[None].float()
    )
    listed = [{"prompt": "a cat", "video_list": list(clips)}]
    overall, each = theirs["overall_consistency"](network, listed, None, "cpu")
    found = [ours.overall_consistency(features.mean(axis=0), text) for features in clips.values()]
    assert found == SAME([entry["video_results"] for entry in each], **EXACT)
    assert ours.aggregate("overall_consistency", found) == SAME(overall, **EXACT)


def test_camera_motion(vbench):
    theirs = vbench("vbench2_beta_i2v/camera_motion.py", np=np, ceil=math.ceil)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:90:10j, 0:150:10j]
    first = np.stack([x, y], axis=-1)
    judge = theirs["CameraPredict"].__new__(theirs["CameraPredict"])
    judge.grid_size, judge.number_points, judge.scale = 10, 1, 100
    seen = set()
    for trial in range(300):
        shift, zoom = rng.integers(-3, 4, 2), rng.choice([0.9, 1.0, 1.0, 1.1])
        last = (first - [75, 45]) * zoom + [75, 45] + shift + rng.normal(0, 0.6, first.shape) * (trial % 3)
        expected = judge.camera_classify(first.astype(int), np.trunc(last).astype(int))
        found = ours.camera_moves(first, last, 150, 100)
        assert found == set(expected)
        seen |= found
    assert seen == {"pan_left", "pan_right", "tilt_up", "tilt_down", "zoom_in", "zoom_out", "static", "None"}


# Made by scripts/cal_final_score.py and cal_i2v_final_score.py of the VBench repository at 45e79ec, which its package lacks:
# the n-th dimension in their order (TASK_INFO, I2VKEY) has 0.35 + 0.03 n.
T2V_ORDER = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
    "aesthetic_quality", "imaging_quality", "object_class", "multiple_objects", "human_action", "color",
    "spatial_relationship", "scene", "appearance_style", "temporal_style", "overall_consistency",
)  # fmt: skip
I2V_ORDER = (
    "camera_motion", "i2v_subject", "i2v_background", "subject_consistency", "background_consistency",
    "motion_smoothness", "dynamic_degree", "aesthetic_quality", "imaging_quality",
)  # fmt: skip


def test_totals_are_the_boards():
    found = ours.totals({name: 0.35 + 0.03 * n for n, name in enumerate(T2V_ORDER)})
    assert found["quality"] == SAME(0.024623545912036852, **EXACT)
    assert found["semantic"] == SAME(1.208189097841425, **EXACT)
    assert found["total"] == SAME(0.26133665629791447, **EXACT)
    found = ours.totals({name: 0.35 + 0.03 * n for n, name in enumerate(I2V_ORDER)}, "i2v")
    assert found["quality"] == SAME(0.24268149073524636, **EXACT)
    assert found["i2v"] == SAME(0.2428180469542492, **EXACT)
    assert found["total"] == SAME(0.24274976884474778, **EXACT)
    assert found["complete"]


def test_what_was_not_run_is_missing_not_zero():
    """VBench fills in 0 for the rest of this and prints a quality of -0.54."""
    found = ours.totals({"subject_consistency": 0.97, "scene": None})
    assert (found["quality"], found["semantic"], found["total"], found["complete"]) == (None, None, None, False)
    assert "motion_smoothness" in found["missing"]
    assert "scene" in found["missing"]
    assert found["normalised"] == {"subject_consistency": SAME((0.97 - 0.1462) / (1 - 0.1462))}
    with pytest.raises(BadInput, match="unknown VBench dimensions"):
        ours.totals({"beauty": 1.0})


def test_its_files_go_out_and_come_in(tmp_path):
    results = {
        "imaging_quality": [ours.ClipResult(path="a-0.mp4", value=60.0), ours.ClipResult(path="b-0.mp4", value=70.0)],
        "subject_consistency": [
            ours.ClipResult(path="a-0.mp4", value=0.9, n_frames=2),
            ours.ClipResult(path="b-0.mp4", value=0.5, n_frames=4),
        ],
        "scene": [],
    }
    path = ours.write_results(tmp_path / "run_eval_results.json", results)
    written = json.loads(path.read_text())
    assert written["imaging_quality"] == [
        0.65,
        [{"video_path": "a-0.mp4", "video_results": 60.0}, {"video_path": "b-0.mp4", "video_results": 70.0}],
    ]
    assert "scene" not in written
    values, clips = ours.read_results(path)
    assert values == {"imaging_quality": SAME(0.65), "subject_consistency": SAME(0.6)}
    assert [clip.value for clip in clips["subject_consistency"]] == [0.9, 0.5]


def test_files_that_vbench_writes_are_read(tmp_path):
    """Camera motion has a third part, dynamic degree has booleans, and what found nothing is NaN."""
    path = tmp_path / "x_eval_results.json"
    path.write_text(
        '{"camera_motion": [1.0, {"pan_left": 1.0, "static": NaN}, [{"video_path": "a.mp4", "video_results": 1.0}]],'
        ' "dynamic_degree": [0.5, [{"video_path": "a.mp4", "video_results": true},'
        ' {"video_path": "b.mp4", "video_results": false}]],'
        ' "color": [NaN, []]}'
    )
    values, clips = ours.read_results(path)
    assert values == {"camera_motion": 1.0, "dynamic_degree": 0.5}
    assert [clip.value for clip in clips["dynamic_degree"]] == [1.0, 0.0]
    assert clips["camera_motion"][0].path == "a.mp4"


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"color": 3}', '{"color": [1, [{"path": "x"}]]}', "not json"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(BadInput):
        ours.read_results(path)


def test_names_are_vbenchs(vbench):
    import os
    import re

    theirs = vbench("vbench/utils.py", re=re, Path=Path, os=os)["get_prompt_from_filename"]
    for name in ("a cat-0.mp4", "a cat.mp4", "sci-fi city-12.gif", "1-2-3.mp4", "x-.mp4", "folder/a dog-4.mp4"):
        assert ours.prompt_of(name) == theirs(name)
    assert ours.prompt_of(ours.standard_name("sci-fi city", 3)) == "sci-fi city"


def test_export_from_clips_and_stored_features(tmp_path, frames, clips, capsys):
    from anisora.media.writer import write_video
    from anisora.serving.cli import run

    for name in ("a", "b"):
        write_video(tmp_path / "clips" / f"{name}.mp4", frames, 8, lossless=True)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "features").mkdir()
    dino = clips["clip 9"][[*range(9), 0, 1]]  # a row for each of the 11 frames
    np.savez(tmp_path / "features" / "a.npz", dino_TD=dino, i2v_dino_TD=dino, image_dino_D=clips["turns"][0])
    where = [str(tmp_path / name) for name in ("clips", "x_eval_results.json", "features")]
    assert run(["evaluate", "export-vbench", where[0], "--out", where[1], "--features", where[2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["values"]) == {"temporal_flickering", "subject_consistency", "i2v_subject"}
    assert found["values"]["temporal_flickering"] == SAME(ours.temporal_flickering(frames), **EXACT)
    assert found["values"]["subject_consistency"] == SAME(ours.feature_consistency(dino), **EXACT)
    assert list(found["unreadable"]) == ["broken"]
    assert not found["t2v"]["complete"]
    assert found["t2v"]["total"] is None
    for wrong in ({"dino": dino}, {"dino_TD": dino[:4]}, {"image_dino_D": np.zeros(3), "i2v_dino_TD": dino}):
        np.savez(tmp_path / "features" / "b.npz", **wrong)
        assert run(["evaluate", "export-vbench", where[0], "--out", where[1], "--features", where[2]]) == 2
