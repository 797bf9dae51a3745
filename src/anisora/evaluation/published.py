"""Networks in the files of their first releases, opened as transformers' classes: DINO, OpenAI's CLIP, ViCLIP.

What VBench measures with came out before or beside transformers, under names of its own. Sizes are read off the tensors.
T frames, C channels, H W pixels, L tokens of a frame, D features.
"""

from __future__ import annotations

import gzip
import html
import math
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anisora.errors import BadCheckpoint
from anisora.evaluation.weight_files import fill, read_tensors, without_prefix
from anisora.files import existing_file
from anisora.measures.pretrained import quiet

# ------------------------------------------------------------------------------------------------------------------ DINO

_DINO_LAYER = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_DINO = {
    "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias",
    "pos_drop.weight": "embeddings.dropout.weight", "pos_drop.bias": "embeddings.dropout.bias",
}  # fmt: skip


def load_dino(path: str | Path) -> Any:
    """The ViTModel of a file of DINO's release (`dino_vitbase16_pretrain.pth`); its feature is the first token.

    It takes pictures of any sides: places are stretched as DINO's own code does it. Raises BadCheckpoint.
    """
    model, named = vit_of(read_tensors(path, "DINO's weights"), path)
    fill(model, named, path)
    return with_dino_places(model).eval().requires_grad_(False)


def vit_of(
    state: Mapping[str, Tensor], where: object, *, eps: float = 1e-6, hidden_act: str = "gelu"
) -> tuple[Any, dict[str, Tensor]]:
    """(a ViTModel of the sizes of a state under timm's names, as DINO, DeiT and BLIP have it; the state under its own).

    With `pos_drop` in the state, a norm stands before the blocks, as in a CLIP under these names.
    """
    from transformers import ViTConfig, ViTModel

    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("blocks.") and name.count(".") > 2:
            _, number, rest = name.split(".", 2)
            part, kind = rest.rsplit(".", 1)
            if part == "attn.qkv" and len(tensor) % 3 == 0:
                named |= {
                    f"layers.{number}.attention.{letter}_proj.{kind}": third
                    for letter, third in zip("qkv", tensor.chunk(3), strict=True)
                }
            else:
                named[f"layers.{number}.{_DINO_LAYER.get(part, part)}.{kind}"] = tensor
        else:
            named[_DINO.get(name, name)] = tensor
    patches, places = _sized(state, where, ("patch_embed.proj.weight", 4), ("pos_embed", 3))
    first = _sized(state, where, ("blocks.0.mlp.fc1.weight", 2))[0]
    width, patch = patches.shape[0], patches.shape[-1]
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=_layers(state, "blocks."), num_attention_heads=max(1, width // 64),
        intermediate_size=len(first), patch_size=patch, image_size=_side(places.shape[1] - 1) * patch,
        layer_norm_eps=eps, hidden_act=hidden_act,
    )  # fmt: skip
    model = ViTModel(config, add_pooling_layer=False)
    if "pos_drop.weight" in state:
        model.embeddings.dropout = nn.LayerNorm(width, eps=eps)
    return model, named


def with_dino_places(model: Any) -> Any:
    """The ViT, its places stretched to other sides as DINO does: by (rows + 0.1) / rows stored, not to a number of rows."""
    model.embeddings.interpolate_pos_encoding = MethodType(_dino_places, model.embeddings)
    return model


def _dino_places(self: Any, embeddings: Tensor, height: int, width: int) -> Tensor:
    stored = self.position_embeddings
    rows = math.isqrt(stored.shape[1] - 1)
    wanted = height // self.patch_size, width // self.patch_size
    if wanted == (rows, rows):
        return stored
    grid = stored[:, 1:].reshape(1, rows, rows, -1).permute(0, 3, 1, 2)
    scale = [(number + 0.1) / rows for number in wanted]
    stretched = functional.interpolate(grid, scale_factor=scale, mode="bicubic").permute(0, 2, 3, 1)
    return torch.cat([stored[:, :1], stretched.flatten(1, 2)], dim=1)


# ------------------------------------------------------------------------------------------------------------------ CLIP

_CLIP_LAYER = {
    "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_VISION = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "temporal_positional_embedding": "vision_model.embeddings.temporal_embedding",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight", "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight", "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",
}  # fmt: skip
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight", "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}  # fmt: skip


def load_clip_vision(path: str | Path) -> Any:
    """The CLIPVisionModelWithProjection of a file of OpenAI's release (`ViT-B-32.pt`), in float32. Raises BadCheckpoint."""
    state = without_prefix(read_tensors(path, "CLIP's weights"), "visual.")
    model = _vision_model(state, path)
    fill(model, _renamed(state, _VISION, "vision_model.encoder."), path)
    return model.float().eval().requires_grad_(False)


def clip_of(state: Mapping[str, Tensor], where: object, marks: Mapping[str, int]) -> tuple[Any, dict[str, Tensor]]:
    """(a CLIPModel of the sizes of a state under OpenAI's names; the state under its own). `marks` are the tokenizer's
    `bos_token_id`, `eos_token_id` and `pad_token_id`."""
    from transformers import CLIPConfig, CLIPModel

    seen = without_prefix(state, "visual.")
    said = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
    scale = {"logit_scale": said.pop("logit_scale")} if "logit_scale" in said else {}
    text, vision = _text_config(said, where, marks), _vision_config(seen, where)
    both = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=vision.projection_dim)
    named = _renamed(seen, _VISION, "vision_model.encoder.") | _renamed(said, _TEXT, "text_model.encoder.")
    return CLIPModel(both), named | scale


def _text_config(state: Mapping[str, Tensor], where: object, marks: Mapping[str, int]) -> Any:
    from transformers import CLIPTextConfig

    words, places, projection, first = _sized(
        state, where, ("token_embedding.weight", 2), ("positional_embedding", 2), ("text_projection", 2),
        ("transformer.resblocks.0.mlp.c_fc.weight", 2),
    )  # fmt: skip
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=places.shape[1], intermediate_size=len(first),
        num_hidden_layers=_layers(state, "transformer.resblocks."), num_attention_heads=max(1, places.shape[1] // 64),
        max_position_embeddings=len(places), projection_dim=projection.shape[1], **marks,
    )  # fmt: skip


def marks_of(tokenizer: Any) -> dict[str, int]:
    """What a CLIP must know of its tokenizer."""
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _vision_model(state: Mapping[str, Tensor], where: object) -> Any:
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(_vision_config(state, where))


def _vision_config(state: Mapping[str, Tensor], path: object) -> Any:
    from transformers import CLIPVisionConfig

    places, projection, first = _sized(
        state, path, ("positional_embedding", 2), ("proj", 2), ("transformer.resblocks.0.mlp.c_fc.weight", 2)
    )
    if state.get("conv1.weight") is None:
        raise _other(path, "conv1.weight")
    width, patch = places.shape[1], state["conv1.weight"].shape[-1]
    return CLIPVisionConfig(
        hidden_size=width, num_hidden_layers=_layers(state, "transformer.resblocks."),
        num_attention_heads=max(1, width // 64), intermediate_size=len(first), patch_size=patch,
        image_size=_side(len(places) - 1) * patch, projection_dim=projection.shape[1],
    )  # fmt: skip


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str], encoder: str) -> dict[str, Tensor]:
    """transformers' names; the joint projection of attention in three, and projections turned, as nn.Linear has them."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("transformer.resblocks.") and name.count(".") > 3:
            _, _, number, rest = name.split(".", 3)
            layer = f"{encoder}layers.{number}."
            if rest in ("attn.in_proj_weight", "attn.in_proj_bias") and len(tensor) % 3 == 0:
                kind = rest.removeprefix("attn.in_proj_")
                thirds = zip("qkv", tensor.chunk(3), strict=True)
                found |= {f"{layer}self_attn.{letter}_proj.{kind}": third for letter, third in thirds}
            else:
                part, kind = rest.rsplit(".", 1)
                found[f"{layer}{_CLIP_LAYER.get(part, part)}.{kind}"] = tensor
        else:
            found[names.get(name, name)] = tensor.T if name in ("proj", "text_projection") else tensor
    return found


# ---------------------------------------------------------------------------------------------------------------- ViCLIP


class ViClip(nn.Module):
    """ViCLIP (InternVid, arXiv 2307.06942): a CLIP whose picture tower reads the tokens of all frames at once."""

    def __init__(self, vision: Any, text: Any, tokenizer: Any) -> None:
        super().__init__()
        self.vision, self.text, self.tokenizer = vision, text, tokenizer
        self.num_frames: int = vision.vision_model.embeddings.temporal_embedding.shape[1]
        self.max_tokens: int = text.config.max_position_embeddings

    def of_frames(self, pixels_TCHW: Tensor) -> Tensor:
        """The feature [D] of a clip of `num_frames` frames."""
        return self.vision(pixel_values=pixels_TCHW).image_embeds[0]

    def of_text(self, text: str) -> Tensor:
        """The feature [D] of a text, cut at `max_tokens` tokens."""
        ids = self.tokenizer(_cleaned(text), truncation=True, max_length=self.max_tokens, return_tensors="pt").input_ids
        return self.text(input_ids=ids.to(self.text.device)).text_embeds[0]


class _ClipEmbeddings(nn.Module):
    """Frames [T, C, H, W] -> [1, 1 + T L, D]: one class token, then each frame's tokens at their place and time."""

    def __init__(self, of_pictures: Any, num_frames: int) -> None:
        super().__init__()
        self.patch_embedding, self.position_embedding = of_pictures.patch_embedding, of_pictures.position_embedding
        self.class_embedding = of_pictures.class_embedding
        self.temporal_embedding = nn.Parameter(torch.zeros(1, num_frames, of_pictures.embed_dim))

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        tokens_TLD = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2) + self.position_embedding.weight[1:]
        tokens_TLD = tokens_TLD + self.temporal_embedding[0, :, None]
        first = self.class_embedding + self.position_embedding.weight[0]
        return torch.cat([first[None], tokens_TLD.flatten(0, 1)])[None]


def load_viclip(path: str | Path, vocabulary: str | Path) -> ViClip:
    """ViCLIP of its release (`ViClip-InternVid-10M-FLT.pth`) with CLIP's `bpe_simple_vocab_16e6.txt.gz`.

    Raises BadCheckpoint.
    """
    from transformers import CLIPTextModelWithProjection

    state = read_tensors(path, "ViCLIP's weights")
    tokenizer = load_bpe(vocabulary)
    seen, said = without_prefix(state, "vision_encoder."), without_prefix(state, "text_encoder.")
    times = _sized(seen, path, ("temporal_positional_embedding", 3))[0]
    kernel = seen.get("conv1.weight")
    if kernel is not None and kernel.ndim == 5 and kernel.shape[2] == 1:
        seen["conv1.weight"] = kernel[:, :, 0]  # a convolution over one frame
    vision = _vision_model(seen, path)
    vision.vision_model.embeddings = _ClipEmbeddings(vision.vision_model.embeddings, times.shape[1])
    fill(vision, _renamed(seen, _VISION, "vision_model.encoder."), path)
    config = _text_config(said, path, marks_of(tokenizer))
    if config.vocab_size != len(tokenizer):
        raise BadCheckpoint("the vocabulary is another's", got=f"{len(tokenizer)} words", expected=config.vocab_size)
    text = CLIPTextModelWithProjection(config)
    fill(text, _renamed(said, _TEXT, "text_model.encoder."), path)
    return ViClip(vision, text, tokenizer).float().eval().requires_grad_(False)


#: The words of CLIP's vocabulary: 256 bytes, the same at a word's end, and the pairs that are joined; 2 marks.
_JOINS = 49152 - 256 - 2
_MARKS = ("<|startoftext|>", "<|endoftext|>")


def load_bpe(path: str | Path) -> Any:
    """CLIP's tokenizer of `bpe_simple_vocab_16e6.txt.gz`: a line that says nothing, then a pair to join a line.

    Raises BadCheckpoint.
    """
    from transformers import CLIPTokenizer

    file = existing_file(path, BadCheckpoint, "CLIP's vocabulary")
    try:
        lines = gzip.decompress(file.read_bytes()).decode().split("\n")
        joins = [(first, second) for first, second in (line.split() for line in lines[1 : _JOINS + 1] if line)]
        letters = _byte_names()
        words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, joins), *_MARKS]
        with quiet():
            return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=joins)
    except Exception as reason:  # tokenizers raises nothing narrower
        raise BadCheckpoint("CLIP's vocabulary cannot be read", got=f"{file} ({reason})") from reason


def _byte_names() -> list[str]:
    """A letter for each byte, as GPT-2 has them: printable ones are themselves and come first, the rest lie from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, plain), *(chr(256 + number) for number in range(256 - len(plain)))]


def _cleaned(text: str) -> str:
    """As CLIP cleans text before it is cut in words."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


# ----------------------------------------------------------------------------------------------------------------- sizes


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})


def _side(places: int) -> int:
    return math.isqrt(places)


def _sized(state: Mapping[str, Tensor], where: object, *wanted: tuple[str, int]) -> list[Tensor]:
    """The tensors that say how large a network is; raises BadCheckpoint where one is not there with so many axes."""
    for name, axes in wanted:
        if name not in state or state[name].ndim != axes:
            raise _other(where, name)
    return [state[name] for name, _ in wanted]


def _other(where: object, name: str) -> BadCheckpoint:
    return BadCheckpoint("the weights of another network", got=where, expected=f"a tensor {name} among them")
