"""Encoders of pictures and of text from local folders, in the layout of transformers, for the networks that score.

A folder is loaded whole or refused (`measures.pretrained`). Nothing is ever downloaded, and no code from a folder is run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from anisora.errors import BadCheckpoint
from anisora.measures.pretrained import load_strict, quiet

#: Where the one feature of a picture or a text is found: the first token after the last norm, or what the model pools.
Place = Literal["first", "pooled"]


@dataclass(frozen=True)
class _Family:
    """How the models of one `model_type` are opened as an encoder."""

    class_name: str
    place: Place
    is_pooler_optional: bool = False


_BARE = {"place": "first", "is_pooler_optional": True}

VISION = {
    "vit": _Family("ViTModel", **_BARE),  # type: ignore[arg-type]
    "deit": _Family("DeiTModel", **_BARE),  # type: ignore[arg-type]
    "dinov2": _Family("Dinov2Model", "first"),
    "clip": _Family("CLIPVisionModel", "pooled"),
    "clip_vision_model": _Family("CLIPVisionModel", "pooled"),
    "siglip": _Family("SiglipVisionModel", "pooled"),
    "siglip_vision_model": _Family("SiglipVisionModel", "pooled"),
    "blip": _Family("BlipVisionModel", "pooled"),
    "blip_vision_model": _Family("BlipVisionModel", "pooled"),
}
TEXT = {
    "bert": _Family("BertModel", **_BARE),  # type: ignore[arg-type]
    "roberta": _Family("RobertaModel", **_BARE),  # type: ignore[arg-type]
    "xlm-roberta": _Family("XLMRobertaModel", **_BARE),  # type: ignore[arg-type]
    "clip": _Family("CLIPTextModel", "pooled"),
    "clip_text_model": _Family("CLIPTextModel", "pooled"),
    "siglip": _Family("SiglipTextModel", "pooled"),
    "siglip_text_model": _Family("SiglipTextModel", "pooled"),
}
TOWERS = {"clip": _Family("CLIPModel", "pooled"), "siglip": _Family("SiglipModel", "pooled")}


class VisionEncoder(nn.Module):
    """Pictures -> one feature each, [N, width]."""

    def __init__(self, model: Any, processor: Any, place: Place) -> None:
        super().__init__()
        self.model, self.processor, self.place = model, processor, place
        self.width: int = model.config.hidden_size

    def forward(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Features of pictures, uint8 RGB [H, W, 3] each."""
        said = self.model(pixel_values=pixels(self.processor, frames, self.model))
        return said.pooler_output if self.place == "pooled" else said.last_hidden_state[:, 0]

    def save(self, folder: Path) -> None:
        """Writes the folder that `load_vision` opens."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


class TextEncoder(nn.Module):
    """Texts -> one feature each, [N, width]."""

    def __init__(self, model: Any, tokenizer: Any, place: Place, max_tokens: int | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer, self.place = model, tokenizer, place
        self.width: int = model.config.hidden_size
        longest = getattr(model.config, "max_position_embeddings", 512)
        if model.config.model_type in ("roberta", "xlm-roberta"):
            longest -= 2  # their positions begin behind the padding's
        self.max_tokens = min(max_tokens or longest, longest)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Features of texts; what is longer than `max_tokens` is cut (see `is_cut`)."""
        said = self.model(**tokens(self.tokenizer, texts, self.max_tokens, self.model))
        return said.pooler_output if self.place == "pooled" else said.last_hidden_state[:, 0]

    def is_cut(self, text: str) -> bool:
        """Whether the end of a text is not seen."""
        return len(self.tokenizer(text).input_ids) > self.max_tokens

    def save(self, folder: Path) -> None:
        """Writes the folder that `load_text` opens."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class Towers(nn.Module):
    """A picture and a text encoder that share a space, as CLIP and SigLIP have them: unit features [N, width]."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.processor, self.tokenizer = model, processor, tokenizer
        text = model.config.text_config
        self.max_tokens: int = text.max_position_embeddings
        self.width: int = getattr(text, "projection_size", None) or model.config.projection_dim

    def of_frames(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Features of pictures, uint8 RGB [H, W, 3] each, before they are brought to unit length."""
        return self.model.get_image_features(pixel_values=pixels(self.processor, frames, self.model)).pooler_output

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features of texts."""
        return unit(self.model.get_text_features(**self._tokens(texts)).pooler_output)

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        if self.model.config.model_type == "siglip":  # trained on texts padded to the end, without a mask
            ids = self.tokenizer(
                list(texts), padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
            ).input_ids
            return {"input_ids": ids.to(self.model.device)}
        return tokens(self.tokenizer, texts, self.max_tokens, self.model)

    def is_cut(self, text: str) -> bool:
        """Whether the end of a text is not seen."""
        return len(self.tokenizer(text).input_ids) > self.max_tokens

    def save(self, folder: Path) -> None:
        """Writes the folder that `load_towers` opens."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def unit(features: Tensor) -> Tensor:
    """The features at unit length."""
    return features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def pixels(processor: Any, frames: Sequence[NDArray[np.uint8]], model: Any) -> Tensor:
    """The processor's tensor of pictures of any sizes, where the model is and as it calculates."""
    made = processor(images=list(frames), return_tensors="pt")["pixel_values"]
    return made.to(model.device, model.dtype)


def tokens(tokenizer: Any, texts: Sequence[str], max_tokens: int, model: Any) -> dict[str, Tensor]:
    """The tokenizer's tensors of texts, padded to the longest."""
    made = tokenizer(list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    return {name: tensor.to(model.device) for name, tensor in made.items() if name != "token_type_ids"}


# --------------------------------------------------------------------------------------------------------------- loading


def load_vision(folder: Path) -> VisionEncoder:
    """The picture encoder of a folder (of one that holds two towers, the picture tower). Raises BadCheckpoint."""
    family = _family(folder, VISION, "a picture encoder")
    return VisionEncoder(_encoder(folder, family), load_processor(folder), family.place).eval()


def load_text(folder: Path, max_tokens: int | None = None) -> TextEncoder:
    """The text encoder of a folder, texts cut at `max_tokens` or where the model ends. Raises BadCheckpoint."""
    family = _family(folder, TEXT, "a text encoder")
    return TextEncoder(_encoder(folder, family), load_tokenizer(folder), family.place, max_tokens).eval()


def load_towers(folder: Path) -> Towers:
    """The CLIP or SigLIP of a folder. Raises BadCheckpoint."""
    family = _family(folder, TOWERS, "an encoder of pictures and text in one space")
    return Towers(_encoder(folder, family), load_processor(folder), load_tokenizer(folder)).eval()


def load_processor(folder: Path) -> Any:
    """What turns pictures into a model's tensors, the one on Pillow. Raises BadCheckpoint."""
    from transformers import AutoImageProcessor

    return _opened(AutoImageProcessor, folder, "preprocessor_config.json", backend="pil")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises BadCheckpoint."""
    from transformers import AutoTokenizer

    return _opened(AutoTokenizer, folder, "a tokenizer")


def model_type(folder: Path, what: str) -> str:
    """`model_type` of the folder's config. Raises BadCheckpoint where there is none."""
    config = folder / "config.json"
    if not config.is_file():
        raise BadCheckpoint(
            f"no folder of {what}", got=folder, expected="config.json and weights", hint="a local folder"
        )
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"])
    except (ValueError, KeyError, TypeError) as reason:
        raise BadCheckpoint(f"no config of {what}", got=f"{config} ({reason!r})", expected="a model_type") from reason


def _family(folder: Path, families: dict[str, _Family], what: str) -> _Family:
    kind = model_type(folder, what)
    if kind not in families:
        raise BadCheckpoint(f"not {what}", got=f"{folder}: {kind}", expected=", ".join(families))
    return families[kind]


def _encoder(folder: Path, family: _Family) -> Any:
    import transformers

    options: dict[str, Any] = {"add_pooling_layer": False} if family.is_pooler_optional else {}
    return load_strict(getattr(transformers, family.class_name), folder, **options)


def _opened(auto_class: Any, folder: Path, what: str, **options: Any) -> Any:
    try:
        with quiet():
            return auto_class.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as reason:
        first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise BadCheckpoint(f"{what} is missing or cannot be read", got=f"{folder} ({first})") from reason
