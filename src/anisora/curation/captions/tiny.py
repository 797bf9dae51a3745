"""Small random vision-language models in the layout of the real ones: the real classes, a real tokenizer, no knowledge.

Tests and dry runs need a folder that loads, trains and answers within seconds. What it says is noise; how it is wired is
exact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anisora.curation.captions.vlm import _CHATML
from anisora.errors import BadRequest

TINY_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
            "<|video_pad|>")  # fmt: skip
_TEXT = (
    "Describe this animated clip: characters, action, scene, camera, style and effects. user assistant\n"
    "A girl with red hair waves in a meadow, static camera, flat colors. A boy runs to the left while the camera pans."
)


def write_tiny_vlm(folder: str | Path, family: str = "qwen2_vl", seed: int = 0) -> Path:
    """The folder, now holding a random model of `family` (one of `TINY_FAMILIES`); the same seed gives the same one."""
    import torch

    if family not in TINY_FAMILIES:
        raise BadRequest("unknown tiny family", got=repr(family), expected=", ".join(TINY_FAMILIES))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(family, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _image_processor(family).save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": _CHATML}))
    return folder


def _tokenizer() -> Any:
    """Byte-level BPE with the families' special tokens, its merges learned on two sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in _SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
    )


def _model(family: str, tokenizer: Any) -> Any:
    import transformers

    token = tokenizer.convert_tokens_to_ids
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0},
        "bos_token_id": token("<|endoftext|>"), "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        # A frozen random head must be able to say something clearly; at the usual 0.02 all its answers are alike.
        "initializer_range": 0.15,
    }  # fmt: skip
    ids = {
        "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
    }  # fmt: skip
    vision: dict[str, dict[str, Any]] = {
        "qwen2_vl": {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "mlp_ratio": 2},
        "qwen2_5_vl": {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
                       "fullatt_block_indexes": [1], "window_size": 56},
        "qwen3_vl": {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
                     "deepstack_visual_indexes": [0], "num_position_embeddings": 64},
    }  # fmt: skip
    if family == "qwen3_vl":
        text |= {"head_dim": 16}
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[family]
    config_class = getattr(transformers, f"{name}Config")
    vision_config = vision[family] | {"patch_size": _PATCH_PX[family], "initializer_range": 0.15}
    config = config_class(text_config=text, vision_config=vision_config, tie_word_embeddings=False, **ids)
    return getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()


def _image_processor(family: str) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    side = 2 * _PATCH_PX[family]
    return Qwen2VLImageProcessorPil(
        patch_size=_PATCH_PX[family], size={"shortest_edge": side**2, "longest_edge": 16 * side**2}
    )


_PATCH_PX = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16}
