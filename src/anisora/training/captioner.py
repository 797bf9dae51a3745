"""Fine-tuning a vision-language model on pairs of clips and answers: the captioner, and the keep/drop filter.

The paper fine-tunes Qwen2-VL on 0.5M video-text pairs to caption, and again to tell professional from user-made footage
(section 3). Here both are LoRA over any model that `curation.captions.vlm` loads, and one recipe: only the answer is
learned, the question is the one that will be asked.

RUN/run.json                     the resolved settings
RUN/{log.jsonl, checkpoints/}    see `training.loop`
RUN/export/                      an adapter folder of peft, for `VlmSettings.adapter`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anisora.curation.captions.ask import PROSE_QUESTION, Ask, question
from anisora.curation.captions.run import CaptionSettings, make_ask
from anisora.curation.captions.schema import AnimeCaption
from anisora.curation.captions.vlm import VisionLanguage, VlmSettings, load
from anisora.curation.filter import ANSWERS, QUESTION
from anisora.errors import BadConfig, BadInput
from anisora.files import existing_file, write_atomic
from anisora.measures.clip import ClipView
from anisora.settings import plain, read, setting
from anisora.store import canonical_json, read_jsonl
from anisora.training.loop import LoopSettings, Task, load_averaged, locked, train
from anisora.training.order import permuted

#: Linear layers of the language model, by name's end; with `vision` also those of the picture encoder and its merger.
_LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_VISION = (
    r".*visual\.(blocks|merger|deepstack_merger_list).*"
    r"\.(qkv|proj|fc1|fc2|gate_proj|up_proj|down_proj|linear_fc1|linear_fc2|mlp\.0|mlp\.2)"
)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The size and place of the adapter."""

    rank: int = setting(16, "rank of the added matrices")
    alpha: int = setting(32, "their scale is alpha / rank")
    dropout: float = setting(0.05, "share of their inputs dropped while training")
    is_vision_trained: bool = setting(False, "adapt the picture encoder too: for styles it has never seen")


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """A fine-tuning run; see configs/captioner.yaml."""

    pairs: Path = setting(Path(), "JSON lines of {video, caption} or {video, verdict}; paths relative to the file")
    output: Path = setting(Path(), "the folder of the run")
    task: Literal["caption", "filter"] = setting("caption", "learn captions, or keep and drop")
    model: VlmSettings = field(default_factory=VlmSettings)
    clip: CaptionSettings = field(default_factory=CaptionSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=1000, learning_rate=1e-4, warmup_steps=30))
    batch: int = setting(4, "pairs a step")
    is_checkpointing: bool = setting(False, "gradient checkpointing: less memory, a third slower")
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clip and what is to be said of it."""

    video: str
    answer: str | AnimeCaption


def main(config: CaptionerConfig, *, max_minutes: float = math.inf) -> Path | None:
    """Trains and returns the adapter's folder, or None when time is up; run again to go on.

    Raises BadInput for pairs that cannot be read, before anything is loaded.
    """
    out = Path(config.output)
    pairs = read_pairs(config.pairs, config.task)
    with locked(out):
        return _train(config, pairs, out, max_minutes)


def _train(config: CaptionerConfig, pairs: list[Pair], out: Path, max_minutes: float) -> Path | None:
    write_atomic(out / "run.json", (canonical_json(plain(config)) + "\n").encode())
    vlm = with_lora(load(config.model), config.lora, seed=config.seed, is_checkpointing=config.is_checkpointing)
    task = captioner_task(vlm, pairs, config)
    if not train(task, config.loop, out, seed=config.seed, max_minutes=max_minutes):
        return None
    load_averaged(out, {"model": vlm.model})
    vlm.model.save_pretrained(out / "export")
    return out / "export"


def read_pairs(path: Path, task: str) -> list[Pair]:
    """The pairs of a file. Raises BadInput, naming the line, for missing videos, empty or unknown answers, and for none."""
    pairs = []
    for number, record in enumerate(read_jsonl(path), start=1):
        where = f"{path}, pair {number}"
        if "video" not in record:
            raise BadInput("a pair without a video", got=where, expected="{video, caption} or {video, verdict}")
        video = existing_file(path.parent / record["video"], BadInput, f"the video of {where}")
        pairs.append(Pair(video=str(video), answer=_answer(record, task, where)))
    if not pairs:
        raise BadInput("no pairs to learn from", got=str(path), expected="one JSON object a line")
    return pairs


def _answer(record: Mapping[str, Any], task: str, where: str) -> str | AnimeCaption:
    if task == "filter":
        if record.get("verdict") not in ANSWERS:
            raise BadInput(f"the verdict of {where}", got=repr(record.get("verdict")), expected=" or ".join(ANSWERS))
        return record["verdict"]
    said = record.get("caption")
    caption: Any = read(AnimeCaption, said, where=where, error=BadInput) if isinstance(said, dict) else said
    prose = caption.prose if isinstance(caption, AnimeCaption) else caption
    if not isinstance(prose, str) or not prose.strip():
        raise BadInput(f"the caption of {where}", got=repr(said), expected="text, or the fields of a caption")
    return caption


def with_lora(vlm: VisionLanguage, lora: LoraSettings, *, seed: int, is_checkpointing: bool = False) -> VisionLanguage:
    """The model with fresh LoRA matrices that train; the rest is frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    targets = f"({_LANGUAGE}|{_VISION})" if lora.is_vision_trained else _LANGUAGE
    peft_config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    vlm.model = get_peft_model(vlm.model, peft_config)
    if is_checkpointing:
        vlm.model.enable_input_require_grads()
        vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return vlm


def captioner_task(vlm: VisionLanguage, pairs: list[Pair], config: CaptionerConfig) -> Task:
    """The loss of a step: cross entropy of the answers of `config.batch` pairs, each epoch in its own order."""
    ask = _asks(config.clip)
    if config.task == "caption" and len({type(pair.answer) for pair in pairs}) > 1:
        raise BadConfig("captions of two kinds", got="text and fields", expected="one of them in all pairs")

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        vlm.model.train()
        samples = [_sample(ask(pairs[index].video), pairs[index], config) for index in _drawn(step, len(pairs), config)]
        return vlm.model(**vlm.batch(samples)).loss, {}

    return Task(name=config.task, modules={"model": vlm.model}, loss=loss, samples_per_step=config.batch)


def _drawn(step: int, num_pairs: int, config: CaptionerConfig) -> list[int]:
    """The pairs of a step: every epoch goes through all of them once, in an order of its own."""
    places = range(step * config.batch, (step + 1) * config.batch)
    return [permuted(place % num_pairs, num_pairs, f"{config.seed}/{place // num_pairs}") for place in places]


def _asks(settings: CaptionSettings) -> Callable[[str], Ask]:
    """`ask(video)`, the same that a captioner of clips gets; the last few stay in memory."""

    @lru_cache(maxsize=64)
    def ask(video: str) -> Ask:
        from anisora.media.reader import read_video

        clip = read_video(video)
        return make_ask(video, ClipView.of_frames(clip.frames_THWC, clip.fps), settings)

    return ask


def _sample(ask: Ask, pair: Pair, config: CaptionerConfig) -> tuple[NDArray[np.uint8], str, str]:
    if config.task == "filter":
        return ask.frames_THWC, QUESTION, str(pair.answer)
    if isinstance(pair.answer, AnimeCaption):
        return ask.frames_THWC, question(ask), pair.answer.to_json(ask.code)
    return ask.frames_THWC, PROSE_QUESTION, pair.answer


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> CaptionerConfig:
    """The config of a YAML file with `key.key=value` overrides. Raises BadConfig."""
    from anisora import settings

    config = settings.read(CaptionerConfig, settings.override(settings.load(path), overrides), where=path.name)
    for name in ("pairs", "output"):
        if getattr(config, name) == Path():
            raise BadConfig(f"{path.name}: {name} is missing", expected="a path", hint=f"{name}=PATH")
    if not config.model.folder:
        raise BadConfig(
            f"{path.name}: model.folder is missing", expected="a local model folder", hint="model.folder=PATH"
        )
    return config


def dry_run(config: CaptionerConfig) -> dict[str, Any]:
    """What a run would do, without training: pairs, and how many of the model's numbers would learn."""
    pairs = read_pairs(config.pairs, config.task)
    vlm = with_lora(load(config.model), config.lora, seed=config.seed)
    trained = sum(p.numel() for p in vlm.model.parameters() if p.requires_grad)
    return {"pairs": len(pairs), "trained_parameters": trained, "epochs": config.loop.steps * config.batch / len(pairs)}
