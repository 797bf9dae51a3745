"""DreamSim from its files, against the classes of its own package: downloaded into the cache and read, never installed."""

from __future__ import annotations

import functools
import math
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anisora.errors import BadCheckpoint
from anisora.evaluation import dreamsim, published

from .packages import Package, defined_in, fetched
from .tiny_encoders import timm_vit, write_dreamsim

DREAMSIM = Package(
    requirement="dreamsim==0.2.1",
    file="dreamsim-0.2.1.tar.gz",
    sha256="36c655ee1bb5dbbf1730f03a59ac0d0180922f2151dfbdfb4f058b1756903d14",
)
WIDTH, BLOCKS = 32, 12  # it reads its twelfth block


@pytest.fixture(scope="module")
def package() -> Callable[..., dict[str, Any]]:
    """`package(member, **names)`: the functions and classes of one of its files, run with `names` for what it imports."""
    path = fetched(DREAMSIM, "--no-build-isolation")

    def load(member: str, **names: Any) -> dict[str, Any]:
        with tarfile.open(path) as archive:
            file = archive.extractfile(f"dreamsim-0.2.1/dreamsim/{member}.py")
            assert file is not None
            return defined_in(file.read(), member, names)

    return load


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(DINO's file, DreamSim's folder), small and random."""
    root = tmp_path_factory.mktemp("dreamsim")
    dino = timm_vit(WIDTH, patch=16, places=197, blocks=BLOCKS)
    torch.save(dino, root / "dino.pth")
    write_dreamsim(root / "ensemble", dino)
    return root / "dino.pth", root / "ensemble"


def test_features_are_its_own(package, files):
    """Its ViTs, its way of reading them, peft's adapter: the same features of the same files."""
    from peft import LoraConfig, PeftModel, get_peft_model

    dino, folder = files
    names = {"torch": torch, "nn": nn, "F": F, "math": math, "os": os, "partial": functools.partial}
    names["trunc_normal_"] = lambda *_, **__: None
    vit = package("feature_extraction/vision_transformer", **names)["VisionTransformer"]
    tiny = functools.partial(
        vit, patch_size=16, embed_dim=WIDTH, depth=BLOCKS, num_heads=1, mlp_ratio=2, qkv_bias=True,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    made = {"torch": torch, "os": os, "vit_base": lambda patch_size: tiny(), "VisionTransformer": vit}
    clips = [
        package(f"feature_extraction/load_{kind}_as_dino", **made)[f"load_{kind}_as_dino"](16, str(folder))
        for kind in ("clip", "open_clip")
    ]
    plain = tiny()
    plain.load_state_dict(torch.load(dino, weights_only=True))
    extractor = package("feature_extraction/extractor", **names, List=list, Tuple=tuple)["ViTExtractor"]
    constants = {"IMAGENET_DEFAULT_MEAN": imagenet_mean, "IMAGENET_DEFAULT_STD": imagenet_spread}
    constants |= {"OPENAI_CLIP_MEAN": clip_mean, "OPENAI_CLIP_STD": clip_spread}
    normed = lambda mean, std: lambda x: (x - _column(mean)) / _column(std)  # noqa: E731
    model = package("model", **names, **constants, transforms=SimpleNamespace(Normalize=normed))["PerceptualModel"]
    theirs = model.__new__(model)
    nn.Module.__init__(theirs)
    theirs.extractor_list, theirs.extract_feats_list = nn.ModuleList(), []
    theirs.mlp, theirs.normalize_embeds, theirs.is_patch = nn.Identity(), True, False
    for name, network, projection in (
        ("dino_vitb16", plain, None), ("clip_vitb16", *clips[0]), ("open_clip_vitb16", *clips[1]),
    ):  # fmt: skip
        reader = extractor.__new__(extractor)
        nn.Module.__init__(reader)
        reader.model_type, reader.device, reader.model, reader.proj = name, "cpu", network, projection
        reader.p, reader.stride, reader._feats, reader.hook_handlers = 16, (16, 16), [], []
        theirs.extractor_list.append(reader)
        theirs.extract_feats_list.append(theirs._get_extract_fn(name, "cls" if "dino" in name else "embedding")[0])
    config = LoraConfig(r=2, lora_alpha=1, lora_dropout=0.3, bias="none", target_modules=["qkv"])
    with_adapter = get_peft_model(theirs, config)
    with_adapter = PeftModel.from_pretrained(with_adapter.base_model.model, str(folder / "ensemble_lora")).eval()

    ours = dreamsim.load(dino, folder)
    pictures = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = with_adapter.base_model.model.embed(pictures)
        assert torch.allclose(ours(pictures), expected, atol=1e-5)
        assert expected.shape == (3, WIDTH + 2 * 12)
        bare = published.load_dino(dino)(pictures).last_hidden_state[:, 0]
    assert not torch.allclose(F.normalize(bare), F.normalize(ours(pictures)[:, :WIDTH]), atol=1e-2)


imagenet_mean, imagenet_spread = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
clip_mean, clip_spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _column(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(np.array(values), dtype=torch.float32)[:, None, None]


def test_files_that_do_not_fit_are_refused(files, tmp_path):
    dino, _ = files

    def copied(name: str) -> Path:
        write_dreamsim(tmp_path / name, torch.load(dino, weights_only=True))
        return tmp_path / name

    lora = copied("alpha") / "ensemble_lora"
    (lora / "adapter_config.json").write_text('{"r": 2}')
    with pytest.raises(BadCheckpoint, match="no LoRA"):
        dreamsim.load(dino, lora.parent)
    lora = copied("half") / "ensemble_lora"
    state = torch.load(lora / "adapter_model.bin", weights_only=True)
    torch.save(dict(list(state.items())[1:]), lora / "adapter_model.bin")
    with pytest.raises(BadCheckpoint, match="half of a LoRA"):
        dreamsim.load(dino, lora.parent)
    torch.save({name.replace("qkv", "key"): value for name, value in state.items()}, lora / "adapter_model.bin")
    with pytest.raises(BadCheckpoint, match="adapter does not fit"):
        dreamsim.load(dino, lora.parent)
    (lora / "adapter_model.bin").unlink()
    with pytest.raises(BadCheckpoint, match="does not exist"):
        dreamsim.load(dino, lora.parent)
    other = copied("clip") / dreamsim.CLIP
    torch.save({"state_dict": timm_vit(WIDTH, patch=16, places=197, blocks=BLOCKS, with_norm=True)}, other)
    with pytest.raises(BadCheckpoint, match="half of a CLIP"):
        dreamsim.load(dino, other.parent)
