"""Vision-language models of the Qwen-VL families from a local folder: Qwen2-VL, Qwen2.5-VL, Qwen3-VL.

Stock transformers classes, found by the folder's config; an adapter (LoRA) may lie over them. Frames go in as pictures, not
as a video: transformers' video processors need torchvision, and pictures keep each frame's own place in the prompt. One
question is built here for captioning, for training and for the keep/drop filter alike, so that they cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anisora.curation.captions.ask import PROSE_QUESTION, Ask, Reply, question
from anisora.errors import BadCheckpoint, OutOfMemory, UnknownModel
from anisora.records import Backend
from anisora.runtime import pick_device, pick_dtype
from anisora.settings import setting
from anisora.store import weights_hash

#: `model_type` of the families, whose pictures are all packed the same way
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")

#: What a label of -100 says to the loss of every transformers model: not to be learned.
_IGNORED = -100

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The families' template for one message of pictures and text, for folders that lost theirs."""


@dataclass(frozen=True, kw_only=True)
class VlmSettings:
    """Which model captions, and how."""

    folder: str = setting("", "a local Qwen2-VL, Qwen2.5-VL or Qwen3-VL folder", metavar="FOLDER")
    adapter: str | None = setting(None, "a LoRA folder that `anisora train captioner` made", metavar="FOLDER")
    answers: Literal["json", "prose"] = setting("json", "ask for fields and prose, or for prose alone")
    max_pixels: int = setting(200_704, "a frame with more is made smaller; 28 x 28 of them are a token")
    max_tokens: int = setting(512, "the longest answer")
    device: str | None = setting(None, "default: the accelerator there is")
    dtype: str | None = setting(None, "default: bfloat16 on an accelerator, float32 on the CPU")


@dataclass(kw_only=True)
class VisionLanguage:
    """A loaded model with what turns pictures and words into its inputs."""

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    image_processor: Any = field(repr=False)
    template: str = field(repr=False)
    folder: Path
    adapter: Path | None = None

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def prompt_ids(self, grids_N3: Tensor, words: str) -> list[int]:
        """The token ids of N pictures of those patch grids, then words, up to where the answer begins."""
        pictures = [{"type": "image"}] * len(grids_N3)
        messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": words}]}]
        text = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
        )
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        counts = iter((grids_N3.prod(dim=1) // self.image_processor.merge_size**2).tolist())
        image_token = self.config.image_token_id
        if sum(token == image_token for token in ids) != len(grids_N3):
            raise BadCheckpoint(
                "the chat template does not place the pictures", got=str(self.folder), expected="one place a picture"
            )
        return [token for each in ids for token in ([each] * next(counts) if each == image_token else [each])]

    def pixels(self, frames: Iterable[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
        """Patches and patch grids [N, 3] of frames, of one size or of several."""
        batch = self.image_processor(images=list(frames), return_tensors="pt")
        return batch["pixel_values"], batch["image_grid_thw"]

    def batch(self, samples: Sequence[tuple[Iterable[NDArray[np.uint8]], str, str | None]]) -> dict[str, Tensor]:
        """Model inputs of (frames, question, answer or None): padded on the left without answers, on the right with.

        With answers there are `labels`: those of the answer and its end, so that nothing else is learned.
        """
        ends = [self.tokenizer.eos_token_id]
        rows: list[tuple[list[int], list[int]]] = []
        patches, grids = [], []
        for frames, words, answer in samples:
            pixel_values, grid_N3 = self.pixels(frames)
            patches.append(pixel_values)
            grids.append(grid_N3)
            prompt = self.prompt_ids(grid_N3, words)
            target = [] if answer is None else self.tokenizer(answer, add_special_tokens=False).input_ids + ends
            rows.append((prompt, target))
        is_training = any(answer is not None for _, _, answer in samples)
        longest = max(len(prompt) + len(target) for prompt, target in rows)
        ids, mask, labels = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
        ids += self._pad_id
        labels += _IGNORED
        for number, (prompt, target) in enumerate(rows):
            length = len(prompt) + len(target)
            place = slice(0, length) if is_training else slice(longest - length, longest)
            ids[number, place] = torch.tensor(prompt + target)
            mask[number, place] = 1
            labels[number, len(prompt) : length] = torch.tensor(target, dtype=torch.long)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == self.config.image_token_id).int(),
            "pixel_values": torch.cat(patches).to(self.model.dtype),
            "image_grid_thw": torch.cat(grids),
        }
        inputs |= {"labels": labels} if is_training else {}
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @cached_property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def save_processors(self, folder: Path) -> None:
        """Writes the tokenizer, with the template, and the picture processor beside a model."""
        self.tokenizer.chat_template = self.template
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    @torch.inference_mode()
    def answer(self, frames_THWC: NDArray[np.uint8], words: str, *, max_tokens: int, seed: int = 0) -> tuple[str, bool]:
        """The model's answer, and whether it came to an end. Greedy at seed 0; other seeds draw, with less repetition."""
        inputs = self.batch([(frames_THWC, words, None)])
        drawn = (
            {"do_sample": False} if seed == 0 else {"do_sample": True, "temperature": 0.7, "repetition_penalty": 1.1}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            ids = self.model.generate(
                **inputs, max_new_tokens=max_tokens, pad_token_id=self._pad_id,
                eos_token_id=self.tokenizer.eos_token_id, **drawn,
            )  # fmt: skip
        new = ids[0, inputs["input_ids"].shape[1] :].tolist()
        return self.tokenizer.decode(new, skip_special_tokens=True).strip(), self.tokenizer.eos_token_id in new

    @torch.inference_mode()
    def choose(self, frames_THWC: NDArray[np.uint8], words: str, options: Sequence[str]) -> NDArray[np.float64]:
        """The probability of each option as the whole answer, among the options."""
        scores = []
        for option in options:
            inputs = self.batch([(frames_THWC, words, option)])
            labels = inputs.pop("labels")[0]
            logits = self.model(**inputs).logits[0, :-1].float().log_softmax(-1)
            learned = labels[1:] != _IGNORED
            scores.append(logits[learned].gather(1, labels[1:][learned, None]).sum())
        return torch.stack(scores).softmax(0).double().cpu().numpy()


def load(settings: VlmSettings) -> VisionLanguage:
    """The model of a folder. Raises UnknownModel or BadCheckpoint; nothing is ever downloaded."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    folder = Path(settings.folder)
    _check(folder)
    device = pick_device(settings.device)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    image_processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    image_processor.size = {**dict(image_processor.size), "longest_edge": settings.max_pixels}
    model = AutoModelForImageTextToText.from_pretrained(
        folder, local_files_only=True, dtype=pick_dtype(device, settings.dtype)
    )
    if settings.adapter:
        from peft import PeftModel

        if not (Path(settings.adapter) / "adapter_config.json").is_file():
            raise BadCheckpoint("not an adapter", got=settings.adapter, expected="a folder with adapter_config.json")
        model = PeftModel.from_pretrained(model, settings.adapter)
    return VisionLanguage(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        image_processor=image_processor,
        template=chat_template(folder, tokenizer),
        folder=folder,
        adapter=Path(settings.adapter) if settings.adapter else None,
    )


def _check(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise UnknownModel(
            "no model folder", got=str(folder), expected="a local folder with config.json", hint="downloading it first"
        )
    family = json.loads(config.read_text()).get("model_type")
    if family not in FAMILIES:
        raise BadCheckpoint("not a model that captions here", got=f"{folder}: {family}", expected=", ".join(FAMILIES))


def chat_template(folder: Path, tokenizer: Any) -> str:
    """The folder's own chat template, where it lies in older folders too; else that of the families."""
    legacy = folder / "chat_template.json"
    if legacy.is_file():
        return json.loads(legacy.read_text())["chat_template"]
    return tokenizer.chat_template or _CHATML


class VlmCaptioner:
    """Captions with a local model, one clip at a time."""

    backend: Backend = "full"

    def __init__(self, settings: VlmSettings) -> None:
        self.settings = settings
        self.answers = settings.answers
        self.vlm = load(settings)

    @cached_property
    def weights_sha256(self) -> str:
        """The hash of the hashes of all weight files, adapter included."""
        return weights_hash(self.vlm.folder, self.vlm.adapter)

    @property
    def key(self) -> Mapping[str, Any]:
        names = ("answers", "max_pixels", "max_tokens")
        fixed = {"name": "vlm", "version": 1, "weights_sha256": self.weights_sha256}
        return fixed | {name: getattr(self.settings, name) for name in names}

    def caption(self, asks: Iterable[Ask]) -> Iterator[Reply]:
        """One reply an ask, in order. Raises OutOfMemory with what to lower."""
        for ask in asks:
            words = question(ask) if self.answers == "json" else PROSE_QUESTION
            try:
                text, is_whole = self.vlm.answer(
                    ask.frames_THWC, words, max_tokens=self.settings.max_tokens, seed=ask.attempt
                )
            except torch.OutOfMemoryError as problem:
                raise OutOfMemory(
                    "the captioner does not fit",
                    got=f"{len(ask.frames_THWC)} frames",
                    hint="a lower max_pixels or frames",
                ) from problem
            whole = is_whole or self.answers == "json"  # an open JSON is told apart by its reader
            reply: dict[str, Any] = {"text": text} if whole else {"reason": "truncated", "detail": text[:200]}
            yield Reply(clip_id=ask.clip_id, frame_digest=ask.frame_digest, **reply)
