"""The public checkpoints at full size, without memory: same names and shapes as the stock classes, right facts inferred."""

from __future__ import annotations

import json
import math
import struct
from functools import cache
from pathlib import Path

import diffusers
import pytest
import torch

import anisora
from anisora.errors import BadCheckpoint
from anisora.models.catalog import KNOWN
from anisora.models.checkpoint import read_info
from anisora.models.mask_projection import MaskProjection
from anisora.models.verify import meta_shapes, verify

CONFIGS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "public_configs").glob("*.json"))
}
#: billions of parameters as they are published
BILLIONS = {
    "cogvideox-5b-i2v": 5.57,
    "cogvideox1.5-5b-i2v": 5.57,
    "wan2.1-i2v-14b-480p": 16.39,
    "wan2.1-vace-14b": 17.34,
    "wan2.2-i2v-a14b": 14.29,
}
PARTS = ("transformer", "transformer_2", "vae")


def stock_model(config):
    return _built(json.dumps(config))


@cache
def _built(config):
    config = json.loads(config)
    with torch.device("meta"):
        return getattr(diffusers, config["_class_name"]).from_config(config)


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def write_folder(folder, name, drop=()):
    """A checkpoint folder of full size: true headers, sparse files for the weights."""
    config = CONFIGS[name]
    index = {key: value for key, value in config["model_index"].items() if key != "image_encoder"}
    for part in (part for part in PARTS if part in index):
        described = config[part.removesuffix("_2")]
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(described))
        shapes = shapes_of(stock_model(described))
        write_sparse(
            folder / part / "diffusion_pytorch_model.safetensors", {n: s for n, s in shapes.items() if n not in drop}
        )
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config["scheduler"]))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_sparse(path, shapes):
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_shapes_are_those_of_the_stock_class(tmp_path, name):
    folder = write_folder(tmp_path / name, name)
    stock = stock_model(CONFIGS[name]["transformer"])
    ours, _ = meta_shapes(type(stock), folder / "transformer")
    assert ours == shapes_of(stock)
    counts = verify(folder)  # every tensor of a full-size checkpoint is where the loading path wants it
    assert counts["transformer"] == len(ours)
    params = sum(parameter.numel() for parameter in stock.parameters())
    assert params == CONFIGS[name]["transformer_params"]
    assert round(params / 1e9, 2) == BILLIONS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_its_pipeline_takes_the_stock_parts(tmp_path, name):
    info = read_info(write_folder(tmp_path / name, name), name, KNOWN[name].defaults)
    config = CONFIGS[name]
    parts = {"transformer": stock_model(config["transformer"]), "vae": stock_model(config["vae"])}
    if info.experts == 2:
        parts["transformer_2"] = stock_model(config["transformer"])
    scheduler = getattr(diffusers, config["scheduler"]["_class_name"]).from_config(config["scheduler"])
    pipeline = getattr(anisora, info.pipeline_class)(tokenizer=None, text_encoder=None, scheduler=scheduler, **parts)
    pipeline.use_checkpoint(info)
    assert shapes_of(pipeline.transformer) == shapes_of(stock_model(config["transformer"]))
    assert pipeline.checkpoint.family == KNOWN[name].family
    if info.family == "cogvideox":
        with torch.device("meta"):
            projection = MaskProjection.matching(pipeline.transformer)
        assert projection.proj.out_channels == pipeline.transformer.patch_embed.proj.weight.shape[0] == 3072


def test_what_is_inferred_from_their_configs(tmp_path):
    infos = {name: read_info(write_folder(tmp_path / name, name)) for name in CONFIGS}
    wan21, wan22, vace = infos["wan2.1-i2v-14b-480p"], infos["wan2.2-i2v-a14b"], infos["wan2.1-vace-14b"]
    assert (wan21.family, wan21.image_branch, wan21.experts, wan21.max_text_tokens) == ("wan", True, 1, 512)
    assert (wan22.family, wan22.image_branch, wan22.experts, wan22.recipe.boundary) == ("wan", False, 2, 0.9)
    assert (vace.family, vace.recipe.shift) == ("vace", 3.0)
    old, new = infos["cogvideox-5b-i2v"], infos["cogvideox1.5-5b-i2v"]
    assert (old.family, old.native.size, old.native.frames, old.max_text_tokens) == ("cogvideox", (720, 480), 49, 226)
    assert (new.native.size, new.native.frames, new.strides.patch_temporal) == ((1360, 768), 81, 2)
    assert all(info.strides.size_multiple_px == 16 for info in infos.values())


def test_one_lacking_tensor_of_a_thousand_is_named(tmp_path):
    lost = "blocks.39.attn2.to_k.weight"
    folder = write_folder(tmp_path / "checkpoint", "wan2.2-i2v-a14b", drop=[lost])
    with pytest.raises(BadCheckpoint, match=f"transformer: missing {lost}; transformer_2: missing {lost}"):
        verify(folder)
