"""Names, folders, what they say of themselves, and every way in which a folder can be broken."""

from __future__ import annotations

import json
import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import anisora
from anisora.errors import BadCheckpoint, UnknownModel
from anisora.models import catalog
from anisora.models.block_vae import AutoencoderKLBlock
from anisora.models.checkpoint import info_json
from anisora.models.tiny import TINY_FAMILIES, write_tiny_checkpoint


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of a tiny checkpoint that may be broken."""

    def copy(family="wan-clip"):
        return shutil.copytree(tiny(family), tmp_path / family)

    return copy


def test_an_unknown_name_comes_with_the_nearest():
    with pytest.raises(UnknownModel, match=r"unknown model: got 'anisora-v3\.3'.*try anisora-v3") as caught:
        catalog.resolve("anisora-v3.3")
    assert caught.value.exit_code == 2


def test_a_known_name_without_weights_says_where_they_come_from(monkeypatch, tmp_path):
    monkeypatch.delenv("ANISORA_MODELS", raising=False)
    with pytest.raises(UnknownModel, match=r"Wan-AI/Wan2\.2-I2V-A14B-Diffusers"):
        catalog.resolve("wan2.2-i2v-a14b")
    monkeypatch.setenv("ANISORA_MODELS", str(tmp_path))
    with pytest.raises(UnknownModel, match=f"no folder {tmp_path}"):
        catalog.resolve("wan2.2-i2v-a14b")


def test_a_name_in_the_models_folder_brings_its_recipe(monkeypatch, tmp_path):
    write_tiny_checkpoint(tmp_path / "anisora-v3.2", "wan-experts", info=False)
    monkeypatch.setenv("ANISORA_MODELS", str(tmp_path))
    info = catalog.resolve("anisora-v3.2")
    assert (info.recipe.steps, info.recipe.guidance, info.recipe.shift, info.recipe.boundary) == (8, 1.0, 5.0, 0.9)
    assert (info.snap, info.motion_score_range, info.name) == ("anisora", (2.0, 4.0), "anisora-v3.2")
    pipeline = anisora.AniSoraWanPipeline.from_pretrained("anisora-v3.2")
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"
    assert pipeline.scheduler.config.flow_shift == 5.0
    assert pipeline.config.boundary_ratio == 0.9


def test_the_table_is_whole():
    rows = catalog.list_models()
    assert {row["name"] for row in rows} >= {"bundled", "anisora-v1", "anisora-v3.2", "wan2.1-i2v-14b-480p"}
    for row in rows:
        assert row["family"] in ("wan", "cogvideox", "vace")
        assert all(row[key] for key in ("params", "licence", "source", "note"))


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_what_a_folder_says_is_what_is_written_back(tiny, family):
    info = catalog.resolve(tiny(family))
    written = json.loads((tiny(family) / "anisora.json").read_text())
    # what the file leaves open is written back as null
    assert info_json(info) == {"negative_prompt": None} | written | {"recipe": info_json(info)["recipe"]}
    assert catalog.resolve(tiny(family, info=False)).family == info.family
    assert info.native.size == (48, 32)


def test_show_tells_size_and_hash(tiny):
    shown = catalog.show(tiny("wan-experts"))
    assert shown["experts"] == 2
    assert shown["pipeline"] == "AniSoraWanPipeline"
    assert shown["bytes"] > 100_000
    assert len(shown["weights_sha256"]) == 64
    assert catalog.show("anisora-v1")["path"] is None


def test_the_hash_goes_by_content(tiny, broken):
    folder, copy = tiny("wan-clip"), broken()
    assert catalog.weights_sha256(folder) == catalog.weights_sha256(copy)
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert catalog.weights_sha256(folder) != catalog.weights_sha256(copy)


def test_the_maker_is_reproducible(tiny, tmp_path):
    again = write_tiny_checkpoint(tmp_path / "again", "wan")
    other = write_tiny_checkpoint(tmp_path / "other", "wan", seed=1)
    hashes = [catalog.weights_sha256(folder) for folder in (tiny("wan"), again, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_shards_load_like_one_file(tiny):
    sharded = tiny("wan", max_shard_size="60KB")
    assert len(list((sharded / "transformer").glob("*.safetensors"))) > 1
    one, many = (anisora.AniSoraWanPipeline.from_pretrained(folder) for folder in (tiny("wan"), sharded))
    for name, tensor in one.transformer.state_dict().items():
        assert torch.equal(tensor, many.transformer.state_dict()[name])


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_whole_folder_passes(tiny, family):
    counts = catalog.verify(tiny(family))
    assert counts["transformer"] > 40
    assert set(counts) >= {"vae", "text_encoder"}


# Faults, each really made.


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_missing_mismatching_and_unexpected_tensors_are_named_at_once(broken):
    folder = broken()

    def harm(tensors):
        del tensors["blocks.1.ffn.net.2.weight"]
        tensors["proj_out.bias"] = torch.zeros(3)
        tensors["extra.weight"] = torch.zeros(1)

    edit(folder / "transformer" / "diffusion_pytorch_model.safetensors", harm)
    edit(folder / "text_encoder" / "model.safetensors", lambda tensors: tensors.pop("encoder.final_layer_norm.weight"))
    edit(folder / "image_encoder" / "model.safetensors", lambda tensors: tensors.pop(sorted(tensors)[0]))
    with pytest.raises(BadCheckpoint) as caught:
        anisora.AniSoraWanPipeline.from_pretrained(folder)
    message = str(caught.value)
    assert "transformer: missing blocks.1.ffn.net.2.weight" in message
    assert "transformer: proj_out.bias is [3], not [64]" in message
    assert "transformer: unexpected extra.weight" in message
    assert "text_encoder: missing encoder.final_layer_norm.weight" in message
    assert "image_encoder: missing " in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_cut_off_file_is_found(broken, keep):
    folder = broken()
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(BadCheckpoint, match="truncated or damaged"):
        catalog.verify(folder)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("model_index.json", "no model_index.json"),
        ("transformer/config.json", "no config.json"),
        ("transformer/diffusion_pytorch_model.safetensors", "no .safetensors file"),
        ("scheduler/scheduler_config.json", "no scheduler_config.json"),
    ],
)
def test_missing_files_are_named(broken, lost, said):
    folder = broken()
    (folder / lost).unlink()
    with pytest.raises(BadCheckpoint, match=said):
        anisora.AniSoraWanPipeline.from_pretrained(folder)


def test_a_missing_component_folder_is_named(broken):
    folder = broken()
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(BadCheckpoint, match="tokenizer: no such folder"):
        catalog.verify(folder)


def test_a_missing_shard_is_named(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "shards", "wan", max_shard_size="60KB")
    lost = sorted((folder / "transformer").glob("*-00001-*.safetensors"))[0]
    lost.unlink()
    with pytest.raises(BadCheckpoint, match=lost.name):
        catalog.verify(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "unreadable JSON"),
        ("[]", "expected an object"),
        ('{"stpes": 3}', "unknown field.*stpes"),
        ('{"recipe": {"stpes": 3}}', "unknown field.*stpes"),
        ('{"recipe": {"steps": "many"}}', "bad recipe.steps|mistyped"),
        ('{"native": {"size": 3}}', "mistyped"),
        ('{"family": "gan"}', "bad family"),
        ('{"capabilities": ["fly"]}', "bad capabilities"),
        ('{"snap": "near"}', "bad snap"),
    ],
)
def test_a_bad_anisora_json_is_refused(broken, content, said):
    folder = broken("wan")
    (folder / "anisora.json").write_text(content)
    with pytest.raises(BadCheckpoint, match=said):
        catalog.resolve(folder)


def test_other_kinds_of_wan_are_refused_by_name(broken):
    folder = broken("wan")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"expand_timesteps": True}))
    with pytest.raises(BadCheckpoint, match="TI2V"):
        catalog.resolve(folder)
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(BadCheckpoint, match="FluxPipeline"):
        catalog.resolve(folder)


# Classes of our own in model_index.json.


def test_a_vae_of_our_own_loads_in_ours_and_in_stock(tiny):
    folder = tiny("wan-block")
    assert json.loads((folder / "model_index.json").read_text())["vae"] == ["anisora", "AutoencoderKLBlock"]
    for pipeline_class in (anisora.AniSoraWanPipeline, diffusers.WanImageToVideoPipeline, diffusers.DiffusionPipeline):
        assert type(pipeline_class.from_pretrained(folder).vae) is AutoencoderKLBlock


def test_a_class_that_is_gone_is_named(broken):
    folder = broken("wan-block")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": ["anisora", "AutoencoderKLGone"]}))
    with pytest.raises(BadCheckpoint, match="anisora has no class AutoencoderKLGone"):
        anisora.AniSoraWanPipeline.from_pretrained(folder)
