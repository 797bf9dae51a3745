"""A vision-language model that scores: the published scorers of smoothness and appeal, and the reward models of today.

Three ways to read it. `last`: a linear head on the last token, as Mantis-Idefics2 (VideoScore, and the paper's two) has it.
`tokens`: a head on reward tokens in the question, one output each, as VideoAlign has it. `answer`: no head; the expected
rating under the model's own probabilities of answering 1 to 5 (Q-Align; VideoScore2 without its train of thought).
Frames go in as pictures, each with its own place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anisora.curation.captions.vlm import FAMILIES, VisionLanguage, chat_template
from anisora.errors import BadCheckpoint
from anisora.evaluation.encoders import load_processor, load_tokenizer, model_type
from anisora.evaluation.look import Case
from anisora.evaluation.networks import Network
from anisora.measures.pretrained import load_strict

Read = Literal["last", "tokens", "answer"]

#: What a model is asked to answer with when its answer is the score, from worst to best.
RATINGS = ("1", "2", "3", "4", "5")

#: Linear layers of the language models and of their picture encoders, for LoRA.
_ADAPTED = r".*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class VlmNetwork(Network):
    """[clips, outputs]: what the head says, unbounded; or for `answer` the expected rating, 1 to 5."""

    def __init__(
        self, vlm: VisionLanguage | Idefics2, question: str, *, outputs: int = 1, read: Read = "last",
        reward_tokens: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.vlm, self.question, self.read = vlm, question, read
        self.backbone = vlm.model
        text = vlm.config.get_text_config()
        self.head = None if read == "answer" else nn.Linear(text.hidden_size, outputs, bias=False)
        self.reward_ids = [_single_token(vlm, token) for token in reward_tokens]
        if read == "tokens" and len(self.reward_ids) != outputs:
            raise BadCheckpoint(
                "reward tokens", got=len(self.reward_ids), expected=f"one for each of {outputs} outputs"
            )
        if any(question.count(token) != 1 for token in reward_tokens):
            raise BadCheckpoint("the reward tokens in the question", got=question[-80:], expected="each of them once")
        self.rating_ids = [_single_token(vlm, rating) for rating in RATINGS] if read == "answer" else []

    def parts(self) -> dict[str, Any]:
        return {"backbone": self.backbone}

    def forward(self, cases: Sequence[Case]) -> Tensor:
        inputs = self.vlm.batch([(*case.asked(self.question), None) for case in cases])
        if self.head is None:
            return self._expected(self.backbone(**inputs).logits, inputs["attention_mask"])
        hidden = self.backbone(**inputs).last_hidden_state
        if self.read == "last":
            return self.head(_at_last(hidden, inputs["attention_mask"]).float())
        columns = [
            (_at_token(hidden, inputs["input_ids"], token).float() @ weight)
            for token, weight in zip(self.reward_ids, self.head.weight, strict=True)
        ]
        return torch.stack(columns, dim=1)

    def _expected(self, logits: Tensor, mask: Tensor) -> Tensor:
        odds = _at_last(logits, mask)[:, self.rating_ids].float().softmax(dim=1)
        return odds @ torch.arange(1.0, 1 + len(RATINGS), device=odds.device)[:, None]


def _single_token(vlm: Any, text: str) -> int:
    ids = vlm.tokenizer(text, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise BadCheckpoint(f"{text!r} is not a token of the model", got=f"{len(ids)} tokens", expected="one")
    return ids[0]


def _at_last(values_BLC: Tensor, mask_BL: Tensor) -> Tensor:
    """What stands at the last token that is not padding, whichever side is padded."""
    last = (mask_BL * torch.arange(mask_BL.shape[1], device=mask_BL.device)).argmax(dim=1)
    return values_BLC[torch.arange(len(values_BLC), device=last.device), last]


def _at_token(values_BLC: Tensor, ids_BL: Tensor, token: int) -> Tensor:
    """What stands where a token does; it must be there once in each row."""
    found = ids_BL == token
    if (found.sum(dim=1) != 1).any():
        raise BadCheckpoint("a reward token in the question", got=found.sum(dim=1).tolist(), expected="once each")
    return values_BLC[found]


class Idefics2:
    """An Idefics2 (Mantis) with what makes its inputs: the words, then one place a picture, without a chat around them."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        from transformers import Idefics2Processor

        self.model, self.tokenizer = model, tokenizer
        length = model.config.perceiver_config.resampler_n_latents
        self.processor = Idefics2Processor(image_processor, tokenizer, image_seq_len=length)

    @property
    def config(self) -> Any:
        return self.model.config

    def batch(self, samples: Sequence[tuple[Any, str, str | None]]) -> dict[str, Tensor]:
        """Model inputs of (frames, words, no answer)."""
        from PIL import Image

        texts = [words + "<image> " * len(frames) for frames, words, _ in samples]
        pictures = [[Image.fromarray(frame) for frame in frames] for frames, _, _ in samples]
        made = self.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        found = {name: tensor.to(self.model.device) for name, tensor in made.items()}
        return found | {"pixel_values": found["pixel_values"].to(self.model.dtype)}

    def save_processors(self, folder: Path) -> None:
        """Writes the tokenizer and the picture processor beside a model."""
        self.tokenizer.save_pretrained(folder)
        self.processor.image_processor.save_pretrained(folder)


def load_vlm(
    folder: Path, *, with_answers: bool, adapter: Path | None = None, device: Any = None, dtype: Any = None
) -> Any:
    """The model of a folder with what makes its inputs; `with_answers` opens it as one that writes. Raises BadCheckpoint.

    A folder of a sequence classifier or reward model opens too: its head is a tensor beside the model's own.
    """
    import transformers

    kind = model_type(folder, "a vision-language model")
    if kind not in (*FAMILIES, "idefics2"):
        raise BadCheckpoint(
            "not a model that scores here", got=f"{folder}: {kind}", expected=", ".join((*FAMILIES, "idefics2"))
        )
    auto = transformers.AutoModelForImageTextToText if with_answers else transformers.AutoModel
    model = load_strict(auto, folder, dtype=dtype or torch.float32)
    if adapter:
        model = _adapted(model, adapter)
    model = model.to(device or "cpu").eval()
    tokenizer, processor = load_tokenizer(folder), load_processor(folder)
    if kind == "idefics2":
        return Idefics2(model, tokenizer, processor)
    return VisionLanguage(
        model=model, tokenizer=tokenizer, image_processor=processor, template=chat_template(folder, tokenizer),
        folder=folder, adapter=adapter,
    )  # fmt: skip


def _adapted(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    if not (adapter / "adapter_config.json").is_file():
        raise BadCheckpoint("not an adapter", got=adapter, expected="a folder with adapter_config.json")
    try:
        return PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError, OSError) as reason:
        first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise BadCheckpoint("the adapter does not fit", got=f"{adapter} ({first})") from reason


def with_lora(network: VlmNetwork, rank: int) -> None:
    """Puts fresh LoRA matrices of that rank over the backbone's linear layers; only they and the head learn."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=_ADAPTED)
    network.backbone = network.vlm.model = get_peft_model(network.backbone, config)


def stored_tensor(folder: Path, name: str) -> Tensor:
    """One tensor of a folder's .safetensors files. Raises BadCheckpoint where none holds it."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / file for key, file in json.loads(index.read_text())["weight_map"].items() if key == name]
    else:
        files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, "pt") as stored:
            if name in stored.keys():  # noqa: SIM118 (it is no dict)
                return stored.get_tensor(name)
    raise BadCheckpoint("the head is missing", got=folder, expected=f"a tensor {name} in its .safetensors files")
