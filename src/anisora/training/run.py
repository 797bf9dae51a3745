"""From a config to a trained checkpoint folder: reads the config, runs its stages in order, exports.

RUN/run.json                     the resolved config
RUN/corpus/                      the drawn clips (a cache)
RUN/STAGE/{log.jsonl, checkpoints/STEP/}
RUN/export/                      a diffusers folder, written when all stages are done
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from anisora.errors import BadConfig
from anisora.training.codec import CodecSettings, codec_task, fit_linear_code
from anisora.training.corpus import Bucket, CorpusSettings, all_captions, open_corpus
from anisora.training.denoiser import DenoiserSettings, build_denoiser, denoiser_task
from anisora.training.loop import LoopSettings, Task, load_averaged, train
from anisora.training.sharpener import SharpenerSettings, sharpener_task

STAGES = ("codec", "sharpener", "denoiser")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The parts of a checkpoint trained from scratch."""

    codec: CodecSettings = field(default_factory=CodecSettings)
    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    sharpener: SharpenerSettings = field(default_factory=SharpenerSettings)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run; see configs/bundled.yaml."""

    output: str
    method: str = "sft"
    seed: int = 0
    data: CorpusSettings = field(default_factory=CorpusSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    stages: dict[str, LoopSettings] = field(default_factory=dict)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """The config of a YAML file with `key.key=value` overrides. Raises BadConfig for unknown keys or wrong types."""
    import yaml

    if not path.is_file():
        raise BadConfig("no such config", got=path, expected="a YAML file", hint="configs/bundled.yaml")
    raw = yaml.safe_load(path.read_text())
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, leaf = key.split(".")
        place = raw
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = yaml.safe_load(value)
    stages = {name: _build(LoopSettings, value, f"stages.{name}") for name, value in raw.pop("stages", {}).items()}
    if unknown := set(stages) - set(STAGES):
        raise BadConfig("unknown stage", got=sorted(unknown), expected=", ".join(STAGES))
    config = _build(TrainConfig, raw, "config")
    if config.method != "sft":
        raise BadConfig("unknown method", got=config.method, expected="sft")
    return replace(config, stages=stages)


def _build(kind: type, raw: Any, where: str) -> Any:
    """A settings dataclass from plain data; nested dataclasses and tuples are built by the fields' defaults."""
    import difflib

    if not isinstance(raw, dict):
        raise BadConfig(f"{where} has the wrong type", got=type(raw).__name__, expected="a mapping")
    known = {f.name: f for f in fields(kind)}
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise BadConfig(
                f"unknown key in {where}", got=key, expected=", ".join(known), hint=near[0] if near else None
            )
    values = {}
    for key, value in raw.items():
        default = known[key].default_factory() if callable(known[key].default_factory) else known[key].default
        values[key] = _convert(value, default, f"{where}.{key}")
    try:
        return kind(**values)
    except TypeError as error:
        raise BadConfig(f"{where} lacks a key", got=str(error)) from None


def _convert(value: Any, default: Any, where: str) -> Any:
    if hasattr(default, "__dataclass_fields__"):
        return _build(type(default), value, where)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, (int, float, str, tuple)) and type(value) is not type(default):
        raise BadConfig(f"{where} has the wrong type", got=repr(value), expected=type(default).__name__)
    return value


def main(
    config: Path, overrides: tuple[str, ...] = (), *, stage: str | None = None, max_minutes: float = math.inf
) -> Path | None:
    """Runs the stages (or one) and returns the exported folder, or None when something is left to do."""
    settings = load_config(config, overrides)
    if stage is not None and stage not in STAGES:
        raise BadConfig("unknown stage", got=stage, expected=", ".join(STAGES))
    out = Path(settings.output)
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(asdict(settings), indent=2))
    buckets = open_corpus(settings.data, out / "corpus")
    until = time.monotonic() + max_minutes * 60
    for name in STAGES:
        if name not in settings.stages or stage not in (None, name):
            continue
        left = (until - time.monotonic()) / 60
        task = _TASKS[name](settings, buckets, out)
        if not train(task, settings.stages[name], out / name, seed=settings.seed, max_minutes=left):
            return None
    if all(_is_done(out / name, settings.stages[name]) for name in settings.stages):
        return export(settings, buckets, out, out / "export")
    return None


def _is_done(folder: Path, loop: LoopSettings) -> bool:
    return (folder / "checkpoints" / str(loop.steps)).exists()


def _linear_vae(settings: TrainConfig, buckets: list[Bucket], out: Path) -> Any:
    """The codec with its fitted linear code, kept in RUN/linear_vae so that every stage has the same one."""
    from anisora.models.block_vae import AutoencoderKLBlock

    place = out / "linear_vae"
    if not (place / "config.json").exists():
        partial = out / f"linear_vae.partial-{os.getpid()}"
        fit_linear_code(buckets, settings.model.codec, settings.seed).save_pretrained(partial)
        partial.rename(place)
    vae = AutoencoderKLBlock.from_pretrained(place)
    vae.code.requires_grad_(False)
    vae.code_mean.requires_grad_(False)
    return vae


def _trained_vae(settings: TrainConfig, buckets: list[Bucket], out: Path) -> Any:
    vae = _linear_vae(settings, buckets, out)
    load_averaged(out / "codec", {"decoder": vae.decoder})
    return vae.requires_grad_(False).eval()


def _codec(settings: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    return codec_task(_linear_vae(settings, buckets, out), buckets, settings.model.codec)


def _sharpener(settings: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    import torch

    from anisora.models.guide_decoder import GuideDecoder

    sharpener = settings.model.sharpener
    torch.manual_seed(settings.seed)
    decoder = GuideDecoder(dims=sharpener.dims, depth=sharpener.depth)
    return sharpener_task(decoder, _trained_vae(settings, buckets, out), buckets, sharpener)


def _text_and_transformer(settings: TrainConfig, buckets: list[Bucket], out: Path) -> tuple[Any, Any, Any]:
    import torch
    from transformers import AutoTokenizer

    from anisora.training.text import build_text_encoder, fit_tokenizer

    denoiser = settings.model.denoiser
    place = out / "tokenizer"
    if not place.exists():
        fit_tokenizer(all_captions(buckets), denoiser.vocab_size, denoiser.max_text_tokens).save_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    torch.manual_seed(settings.seed)
    encoder = build_text_encoder(len(tokenizer), denoiser.text_dim, denoiser.text_layers)
    return tokenizer, encoder, build_denoiser(denoiser, settings.model.codec.z_dim)


def _denoiser(settings: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    from anisora.models.codec import Codec

    tokenizer, encoder, transformer = _text_and_transformer(settings, buckets, out)
    codec = Codec(_linear_vae(settings, buckets, out))
    return denoiser_task(transformer, encoder, tokenizer, codec, buckets, settings.model.denoiser)


_TASKS = {"codec": _codec, "sharpener": _sharpener, "denoiser": _denoiser}


def export(settings: TrainConfig, buckets: list[Bucket], out: Path, folder: Path) -> Path:
    """Writes the averaged weights of every stage as a checkpoint folder in fp16 and returns it."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline

    from anisora.models.guide_decoder import GuideDecoder

    tokenizer, encoder, transformer = _text_and_transformer(settings, buckets, out)
    load_averaged(out / "denoiser", {"transformer": transformer, "text_encoder": encoder})
    pipeline = WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        transformer=transformer,
        vae=_trained_vae(settings, buckets, out),
        scheduler=UniPCMultistepScheduler(
            prediction_type=settings.model.denoiser.objective,
            use_flow_sigmas=True,
            flow_shift=RECIPE["shift"],
            solver_order=1,
        ),
    )
    for part in (transformer, encoder, pipeline.vae):
        _halve(part)
    # fp16 is for the disk only; transformers would compute in it too unless the config says otherwise.
    encoder.config.dtype = "float32"
    pipeline.save_pretrained(folder)
    if "sharpener" in settings.stages:
        decoder = GuideDecoder(dims=settings.model.sharpener.dims, depth=settings.model.sharpener.depth)
        load_averaged(out / "sharpener", {"guide_decoder": decoder})
        _halve(decoder)
        decoder.save_pretrained(folder / "guide_decoder")
    width, height, _ = settings.data.buckets[0]
    card = {
        "family": "wan",
        "capabilities": ["text", "guides", "motion_area", "keep_video"],
        "recipe": RECIPE,
        "native": {"size": [width, height], "frames": settings.data.frames, "fps": settings.data.fps},
        "motion_score_range": None,
        "max_text_tokens": settings.model.denoiser.max_text_tokens,
        "snap": "exact",
    }
    (folder / "anisora.json").write_text(json.dumps(card, indent=2) + "\n")
    return folder


def _halve(module: Any) -> None:
    """Turns every parameter to fp16, also those that diffusers keeps in float32 for computing: files need no more."""
    for parameter in module.parameters():
        parameter.data = parameter.data.half()


# Found by benchmarks/bundled_model.py on held-out clips; docs/lab-notes.md has the table.
RECIPE = {"steps": 4, "guidance": 1.0, "shift": 2.0, "sampler": "unipc", "boundary": None}
