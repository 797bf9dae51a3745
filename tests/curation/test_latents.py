"""Latents and text states beside the shards are those that the checkpoint's own networks make."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from anisora.curation import table as clips
from anisora.curation.latents import LatentSettings, write_latents
from anisora.curation.shards import ShardSettings, read_member, write_shards
from anisora.media.frames import to_float_CTHW
from anisora.media.reader import read_video
from anisora.media.writer import write_video

from .test_table import row
from .videos import FPS, take


def test_latents_and_text_are_the_networks_own(tiny: Callable[..., Path], tmp_path: Path):
    from diffusers import AutoencoderKLWan
    from transformers import AutoTokenizer, UMT5EncoderModel

    from anisora.models.codec import Codec

    video = write_video(tmp_path / "clips/0.mp4", take(1, 12), FPS)
    data = video.read_bytes()
    size = {"width_px": 160, "height_px": 96, "crop_w_px": 160, "crop_h_px": 96, "fps_num": FPS}
    made = row(
        0, path="clips/0.mp4", sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data), caption="a red disk",
        verdict="keep", **size,
    )  # fmt: skip
    table = clips.build([made])
    clips.write(table, tmp_path / "clips.parquet")
    write_shards(tmp_path, table, ShardSettings())
    folder = tiny("wan")
    settings = LatentSettings(height_px=96, fps=FPS, most_frames=9)
    assert write_latents(tmp_path, str(folder), settings) == {k: {"written": 1, "kept": 0} for k in ("latents", "text")}

    (entry,) = pq.read_table(tmp_path / "latents/index.parquet").to_pylist()
    latent_CFYX = np.load(io.BytesIO(read_member(tmp_path, entry, "latents")))
    codec = Codec(AutoencoderKLWan.from_pretrained(folder / "vae").eval())
    frames_THWC = read_video(video).frames_THWC[:9]
    expected = codec.encode(to_float_CTHW(frames_THWC)[None])[0].numpy().astype(np.float16)
    assert latent_CFYX.shape == (codec.channels, 3, 96 // codec.strides.spatial, 160 // codec.strides.spatial)
    np.testing.assert_array_equal(latent_CFYX, expected)

    (entry,) = pq.read_table(tmp_path / "text/index.parquet").to_pylist()
    states = np.load(io.BytesIO(read_member(tmp_path, entry, "text")))
    ids = AutoTokenizer.from_pretrained(folder / "tokenizer")("a red disk", return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()(ids).last_hidden_state[0]
    np.testing.assert_allclose(states, wanted.numpy().astype(np.float16), atol=1e-2)

    assert write_latents(tmp_path, str(folder), settings)["latents"] == {"written": 0, "kept": 1}
    other = LatentSettings(height_px=48, fps=FPS, most_frames=9)
    assert write_latents(tmp_path, str(folder), other, text=False) == {"latents": {"written": 1, "kept": 0}}
