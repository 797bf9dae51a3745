"""SAM 2 as a tracker: a small random one in the real layout, opened, asked, refused; and what the pairs make of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anisora.assets import locate
from anisora.errors import AssetMissing, BadCheckpoint
from anisora.measures.foreground import follow_with
from anisora.measures.tracker import open_sam2
from anisora.media.writer import write_video
from anisora.training.masks import MaskSettings, build_masks

SIDE = 64


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """All parts of the published network, each as small as it can be, that never think the thing is hidden."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    trunk = Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 2, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=trunk,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_hidden_size=128,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )
    torch.manual_seed(0)
    model = Sam2VideoModel(config)
    torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 10.0)
    folder = tmp_path_factory.mktemp("sam2")
    model.save_pretrained(folder)
    return folder


def square_clip(frames=6, size=(40, 56)):
    """A bright square that goes right by 3 px a frame, and where it is."""
    masks = np.zeros((frames, *size), bool)
    for t in range(frames):
        masks[t, 12:26, 6 + 3 * t : 20 + 3 * t] = True
    noise = np.random.default_rng(0).integers(0, 40, (frames, *size, 3))
    return (noise + 200 * masks[..., None]).astype(np.uint8), masks


def bright(picture_HWC):
    return (picture_HWC.mean(-1) > 120).astype(np.float32)


def test_masks_come_back_at_the_frames_size_and_the_first_is_what_was_asked_for(sam2):
    frames, masks = square_clip()
    track = open_sam2(sam2)
    followed = track(frames, masks[0])
    assert followed.shape == masks.shape
    assert followed.dtype == bool
    np.testing.assert_array_equal(followed[0], masks[0])
    np.testing.assert_array_equal(track(frames, masks[0]), followed)


def test_what_is_followed_depends_on_what_was_marked_and_on_the_frames(sam2):
    frames, masks = square_clip()
    track = open_sam2(sam2)
    followed = track(frames, masks[0])
    assert 0 < followed[1:].mean() < 1
    assert (track(frames, ~masks[0])[1:] != followed[1:]).any()
    assert (track(frames[:, ::-1], masks[0])[1:] != followed[1:]).any()


def test_a_folder_that_is_not_whole_or_of_another_kind_is_refused(sam2, tmp_path):
    with pytest.raises(BadCheckpoint, match="no SAM 2 there"):
        open_sam2(tmp_path)
    config = json.loads((sam2 / "config.json").read_text())
    (tmp_path / "config.json").write_text("{ torn")
    with pytest.raises(BadCheckpoint, match="cannot be opened"):
        open_sam2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(BadCheckpoint, match="not a SAM 2 for videos"):
        open_sam2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(sam2 / "model.safetensors")
    weights.pop(next(name for name in weights if name.startswith("memory_attention")))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match="memory_attention"):
        open_sam2(tmp_path)


def test_the_detector_says_whether_the_tracker_is_still_on_it():
    frames, masks = square_clip()
    right = follow_with(frames, bright, 2, lambda frames_THWC, start_HW: masks)
    np.testing.assert_array_equal(right.mask_THW, masks)
    assert (right.looked, right.found) == (3, 3)
    stuck = follow_with(frames, bright, 2, lambda frames_THWC, start_HW: np.stack([start_HW] * len(frames_THWC)))
    assert stuck.looked == 3
    assert stuck.found < 3
    nothing = follow_with(np.zeros_like(frames), bright, 2, lambda frames_THWC, start_HW: 1 / 0)
    assert not nothing.mask_THW.any()


def test_pairs_are_made_anew_with_a_tracker_and_kept_with_the_same_one(sam2, tmp_path):
    try:
        locate("u2netp")
    except AssetMissing as missing:
        pytest.skip(str(missing))
    write_video(tmp_path / "clips" / "a.mp4", square_clip(size=(64, 96))[0], 8)
    out = tmp_path / "pairs"
    plain = build_masks([tmp_path / "clips"], out)
    tracked = build_masks([tmp_path / "clips"], out, MaskSettings(tracker=sam2))
    again = build_masks([tmp_path / "clips"], out, MaskSettings(tracker=sam2))
    assert plain[0]["key"] != tracked[0]["key"] == again[0]["key"]
    assert tracked == again
