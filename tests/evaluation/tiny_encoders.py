"""Small random encoders in the layout of the real ones, drawn clips of which the truth is known, and folders of scorers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIDE_PX = 32
_WORDS = (
    "the a red green blue square moves far stands still in place jumps runs protagonist has large range of movement such as"
    " running jumping dancing or waving arms remains stationary video with no apparent is what it shows slowly 1 2 3 4 5"
)


def tokenizer(special: tuple[str, ...] = ()) -> Any:
    """Whole words of a short list."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *special, *dict.fromkeys(_WORDS.split()), *",.?:"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="[SEP]", **names)


_VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": SIDE_PX,
    "patch_size": 8, "initializer_range": 0.1,
}  # fmt: skip
_TEXT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 48, "initializer_range": 0.1,
}  # fmt: skip


def write_vit(folder: Path) -> Path:
    """A ViT without its pooler, as an encoder is saved; frames are stretched to a square, as the published scorers do."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(**_VISION), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)
    return folder


def write_bert(folder: Path) -> Path:
    """A BERT as it is published, with its pooler."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    words = tokenizer()
    BertModel(BertConfig(vocab_size=len(words), pad_token_id=0, **_TEXT)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    """A CLIP of both towers."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(2)
    words = tokenizer()
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = _TEXT | {"vocab_size": len(words)} | ids
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=dict(_VISION), projection_dim=16, logit_scale_init_value=2.0)
    ).save_pretrained(folder)
    words.save_pretrained(folder)
    crop = {"height": SIDE_PX, "width": SIDE_PX}
    CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=crop).save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    """A SigLIP of both towers."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(3)
    words = tokenizer()
    vision = {name: value for name, value in _VISION.items() if name != "initializer_range"}
    text = {name: value for name, value in _TEXT.items() if name != "initializer_range"}
    text |= {"vocab_size": len(words), "projection_size": 32, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    words.save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)
    return folder


COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


def clip(
    color: str = "red", moves_px: int = 0, noise: float = 0.0, frames: int = 6, seed: int = 0, size_px: int = 10
) -> np.ndarray:
    """A square of a colour on grey paper, [T, 32, 32, 3]; it goes `moves_px` to the right; noise is fresh on every frame."""
    rng = np.random.default_rng(seed)
    left, top = int(rng.integers(1, 6)), int(rng.integers(1, SIDE_PX - size_px))
    video = np.full((frames, SIDE_PX, SIDE_PX, 3), 150.0)
    for t in range(frames):
        x = left + round(moves_px * t / (frames - 1))
        video[t, top : top + size_px, x : x + size_px] = COLORS[color]
    return np.clip(video + rng.normal(0, noise, video.shape) if noise else video, 0, 255).astype(np.uint8)


def timm_vit(
    width: int = 32, *, patch: int = 8, places: int = 17, blocks: int = 1, seed: int = 1, with_norm: bool = False
) -> dict[str, torch.Tensor]:
    """The tensors of a random ViT under timm's names; `with_norm` has the norm before its blocks that makes it a CLIP."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width), "pos_embed": (1, places, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
    }  # fmt: skip
    for number in range(blocks):
        for part, rows, columns in (
            ("attn.qkv", 3 * width, width), ("attn.proj", width, width), ("mlp.fc1", 2 * width, width),
            ("mlp.fc2", width, 2 * width),
        ):  # fmt: skip
            shapes[f"blocks.{number}.{part}.weight"] = (rows, columns)
            shapes[f"blocks.{number}.{part}.bias"] = (rows,)
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{number}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
    for norm in ("norm", "pos_drop") if with_norm else ("norm",):
        shapes |= {f"{norm}.{kind}": (width,) for kind in ("weight", "bias")}
    return {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}


def write_dreamsim(folder: Path, dino: dict[str, torch.Tensor], rank: int = 2) -> None:
    """DreamSim's two CLIPs of the width and depth of a DINO, and its adapter on all three."""
    width, places = dino["pos_embed"].shape[-1], dino["pos_embed"].shape[1]
    blocks = len({name.split(".")[1] for name in dino if name.startswith("blocks.")})
    patch = dino["patch_embed.proj.weight"].shape[-1]
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(9)
    for number, name in enumerate(("clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar")):
        state = timm_vit(width, patch=patch, places=places, blocks=blocks, seed=20 + number, with_norm=True)
        state["proj"] = torch.randn(width, 12, generator=generator) * 0.2
        torch.save({"state_dict": state}, folder / name)
    (folder / "ensemble_lora").mkdir(exist_ok=True)
    config = {"r": rank, "lora_alpha": 1.0, "lora_dropout": 0.3, "bias": "none", "target_modules": ["qkv"]}
    (folder / "ensemble_lora" / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LORA"}))
    matrices = {
        f"base_model.model.extractor_list.{n}.model.blocks.{b}.attn.qkv.lora_{half}.weight": torch.randn(
            (rank, width) if half == "A" else (3 * width, rank), generator=generator
        )
        for n in range(3)
        for b in range(blocks)
        for half in "AB"
    }
    torch.save(matrices, folder / "ensemble_lora" / "adapter_model.bin")
