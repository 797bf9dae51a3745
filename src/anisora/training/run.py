"""From a config to a trained checkpoint folder: reads the config, runs its stages in order, exports.

Under torchrun every process holds the whole of so small a model and sees clips of its own; gradients are averaged.

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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from anisora import settings
from anisora.errors import BadConfig
from anisora.training.codec import CodecSettings, codec_task, fit_linear_code
from anisora.training.corpus import Bucket, CorpusSettings, all_captions, open_corpus, open_flows
from anisora.training.denoiser import DenoiserSettings, build_denoiser, denoiser_task
from anisora.training.joint import JointSettings, joint_task
from anisora.training.loop import LoopSettings, Task, load_averaged, locked, train
from anisora.training.objectives import sampling_times
from anisora.training.parallel import World, join, leave
from anisora.training.sharpener import Predict, SharpenerSettings, predict_with, sharpener_task

STAGES = ("codec", "denoiser", "sharpener", "joint")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The parts of a checkpoint trained from scratch."""

    codec: CodecSettings = field(default_factory=CodecSettings)
    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    sharpener: SharpenerSettings = field(default_factory=SharpenerSettings)
    joint: JointSettings = field(default_factory=JointSettings)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run; see configs/bundled.yaml."""

    output: str
    method: str = "sft"
    start_from: str | None = None
    """A checkpoint that such a recipe made, a name or a folder: parts that no stage trains are taken from it, and the
    others begin as they are there. Words of its vocabulary keep their vectors."""
    seed: int = 0
    data: CorpusSettings = field(default_factory=CorpusSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    stages: dict[str, LoopSettings] = field(default_factory=dict)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """The config of a YAML file with `key.key=value` overrides. Raises BadConfig for unknown keys or wrong types."""
    config = settings.read(TrainConfig, settings.override(settings.load(path), overrides), where=path.name)
    if config.method != "sft":
        raise BadConfig("unknown method", got=config.method, expected="sft")
    if unknown := set(config.stages) - set(STAGES):
        raise BadConfig("unknown stage", got=", ".join(sorted(unknown)), expected=", ".join(STAGES))
    return config


def main(
    path: Path, overrides: tuple[str, ...] = (), *, stage: str | None = None, max_minutes: float = math.inf
) -> Path | None:
    """Runs the stages (or one) and returns the exported folder, or None when something is left to do."""
    config = load_config(path, overrides)
    if stage is not None and stage not in STAGES:
        raise BadConfig("unknown stage", got=stage, expected=", ".join(STAGES))
    world = join(torch.device("cpu"))
    try:
        return _run(config, stage, max_minutes, world)
    finally:
        leave()


def _run(config: TrainConfig, stage: str | None, max_minutes: float, world: World) -> Path | None:
    out = Path(config.output)
    out.mkdir(parents=True, exist_ok=True)
    if world.is_first:
        (out / "run.json").write_text(json.dumps(asdict(config), indent=2))
    buckets = _in_turn(world, lambda: open_corpus(config.data, out / "corpus"))
    until = time.monotonic() + max_minutes * 60
    for name in STAGES:
        if name not in config.stages or stage not in (None, name):
            continue
        with locked(out / name, world):
            task = _own_draws(_in_turn(world, partial(_TASKS[name], config, buckets, out)), world)
            left = (until - time.monotonic()) / 60
            if not train(task, config.stages[name], out / name, seed=config.seed, max_minutes=left, world=world):
                return None
    if all(_is_done(out / name, config.stages[name]) for name in config.stages):
        if world.is_first:
            export(config, buckets, out, out / "export")
        world.wait()
        return out / "export"
    return None


def _in_turn(world: World, make: Callable[[], Any]) -> Any:
    """What `make` gives, called in the first process before the others: what it writes is written once."""
    if not world.is_first:
        world.wait()
    made = make()
    if world.is_first:
        world.wait()
    return made


def _own_draws(task: Task, world: World) -> Task:
    """The task with draws of this process's own, so that every process sees other clips; alone, the task as it is."""
    if world.size == 1:
        return task

    def loss(step: int, generator: torch.Generator) -> Any:
        seeds = torch.randint(2**62, (world.size,), generator=generator)
        return task.loss(step, torch.Generator().manual_seed(int(seeds[world.rank])))

    samples = task.samples_per_step and task.samples_per_step * world.size
    return replace(task, loss=loss, samples_per_step=samples)


def _is_done(folder: Path, loop: LoopSettings) -> bool:
    return (folder / "checkpoints" / str(loop.steps)).exists()


def _linear_vae(config: TrainConfig, buckets: list[Bucket], out: Path) -> Any:
    """The codec with its fitted linear code, or the one that is begun with; kept in RUN/linear_vae so that every stage has
    the same one."""
    from anisora.models.block_vae import AutoencoderKLBlock

    place = out / "linear_vae"
    if not (place / "config.json").exists():
        written = out / f"linear_vae.partial-{os.getpid()}"
        if start := _start(config):
            AutoencoderKLBlock.from_pretrained(start / "vae").save_pretrained(written)
        else:
            fit_linear_code(buckets, config.model.codec, config.seed).save_pretrained(written)
        written.rename(place)
    vae = AutoencoderKLBlock.from_pretrained(place)
    vae.code.requires_grad_(False)
    vae.code_mean.requires_grad_(False)
    return vae


def _trained_vae(config: TrainConfig, buckets: list[Bucket], out: Path) -> Any:
    vae = _linear_vae(config, buckets, out)
    _load_stage(config, out, "codec", {"decoder": vae.decoder})
    return vae.requires_grad_(False).eval()


def _codec(config: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    return codec_task(_linear_vae(config, buckets, out), buckets, config.model.codec)


def _sharpener(config: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    decoder = _guide_decoder(config)
    if config.model.sharpener.predicted_prob == 0:
        return _sharpener_task(config, buckets, out, decoder, None)
    tokenizer, encoder, transformer = _text_and_transformer(config, buckets, out)
    _load_stage(config, out, "denoiser", {"transformer": transformer, "text_encoder": encoder})
    for part in (transformer, encoder):
        part.requires_grad_(False).eval()
    sampled_prob = config.model.sharpener.sampled_prob
    predict = _predict(config, buckets, out, (tokenizer, encoder, transformer), sampled_prob=sampled_prob, guided=True)
    return _sharpener_task(config, buckets, out, decoder, predict)


def _sharpener_task(
    config: TrainConfig, buckets: list[Bucket], out: Path, decoder: Any, predict: Predict | None, before: Any = None
) -> Task:
    """The guide decoder's task, on the predictions of a denoiser or without."""
    from anisora.models.codec import Codec

    settings = config.model.sharpener
    codec = Codec(_trained_vae(config, buckets, out))
    num_clips = min(settings.flow_clips, len(buckets[0].captions))
    flows = open_flows(config.data, num_clips, settings.frames, settings.flow_frames, out / "corpus")
    return sharpener_task(decoder, codec, buckets, flows, settings, predict, before=before)


def _predict(
    config: TrainConfig,
    buckets: list[Bucket],
    out: Path,
    denoiser: Any,
    *,
    sampled_prob: float = 0.0,
    guided: bool = False,
) -> Predict:
    """Predictions of (tokenizer, text encoder, transformer); `sampled_prob` of them by the steps of the recipe, and those
    with its guidance where `guided`."""
    from anisora.models.codec import Codec
    from anisora.training.text import embed, tokenize

    tokenizer, encoder, transformer = denoiser

    def embed_texts(captions: list[str]) -> Any:
        return embed(encoder, *tokenize(tokenizer, captions, config.model.denoiser.max_text_tokens))

    codec = Codec(_linear_vae(config, buckets, out))  # nothing is decoded
    return predict_with(
        transformer,
        embed_texts,
        codec,
        config.model.denoiser.objective,
        times=recipe_times(),
        sampled_prob=sampled_prob,
        guidance=RECIPE["guidance"] if guided else 1.0,
    )


def _joint(config: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    from anisora.models.codec import Codec

    settings = config.model.joint
    denoisers = []
    for _ in range(2):
        tokenizer, encoder, transformer = _text_and_transformer(config, buckets, out)
        _load_stage(config, out, "denoiser", {"transformer": transformer, "text_encoder": encoder})
        denoisers.append((tokenizer, encoder, transformer))
    learning, before = denoisers
    for part in before[1:]:
        part.requires_grad_(False).eval()
    decoder, decoder_before = _guide_decoder(config), _guide_decoder(config)
    for each in (decoder, decoder_before):
        _load_stage(config, out, "sharpener", {"guide_decoder": each})
    decoder_before.requires_grad_(False).eval()
    shown = replace(
        config.model.sharpener,
        match_steps=0,
        predicted_prob=settings.predicted_prob,
        change_weight=settings.change_weight,
        change_quantile=settings.change_quantile,
    )
    sharpened = replace(config, model=replace(config.model, sharpener=shown))
    predict = _predict(config, buckets, out, learning)
    sharpener = _sharpener_task(sharpened, buckets, out, decoder, predict, decoder_before)
    own = replace(
        config.model.denoiser,
        batch=settings.denoiser_batch,
        pure_noise_prob=settings.pure_noise_prob,
        half_rate_steps=0,
        usual_from_step=0,
        choosing_from_step=0,
        own_path_from_step=0,
        judge_weight=0.0,  # frames are judged by their own losses here
        compile_blocks=False,  # batches of three sorts meet in it: compiling for each would take longer than it saves
    )
    tokenizer, encoder, transformer = learning
    codec = Codec(_linear_vae(config, buckets, out))
    denoiser = denoiser_task(transformer, encoder, tokenizer, codec, buckets, own, recipe_times())
    held = [_predict(config, buckets, out, each, sampled_prob=0.5) for each in (learning, before)]
    return joint_task(sharpener, denoiser, held[0], held[1], buckets, settings)


def _guide_decoder(config: TrainConfig) -> Any:
    from anisora.models.guide_decoder import GuideDecoder

    if start := _start(config):
        return GuideDecoder.from_pretrained(start / "guide_decoder", torch_dtype=torch.float32)
    torch.manual_seed(config.seed)
    return GuideDecoder(dims=config.model.sharpener.dims, features=config.model.sharpener.features)


def _text_and_transformer(config: TrainConfig, buckets: list[Bucket], out: Path) -> tuple[Any, Any, Any]:
    from transformers import AutoTokenizer

    from anisora.training.text import build_text_encoder, fit_tokenizer

    denoiser = config.model.denoiser
    place = out / "tokenizer"
    if not place.exists():
        fit_tokenizer(all_captions(buckets), denoiser.vocab_size, denoiser.max_text_tokens).save_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    torch.manual_seed(config.seed)
    encoder = build_text_encoder(len(tokenizer), denoiser.text_dim, denoiser.text_layers)
    transformer = build_denoiser(denoiser, config.model.codec.z_dim)
    if start := _start(config):
        _begin_with(start, tokenizer, encoder, transformer)
    return tokenizer, encoder, transformer


def _start(config: TrainConfig) -> Path | None:
    """The folder of the checkpoint that is begun with. Raises UnknownModel, and BadConfig for one of another kind."""
    from anisora.models import catalog

    if config.start_from is None:
        return None
    folder = catalog.resolve(config.start_from).path
    if not (folder / "guide_decoder").is_dir():
        raise BadConfig("start_from: no guide_decoder/ in it", got=folder, expected="what `method: sft` exported")
    return folder


def _begin_with(start: Path, tokenizer: Any, encoder: Any, transformer: Any) -> None:
    """Takes over the weights of a checkpoint. Raises BadConfig where its networks have other sizes than the config says."""
    from diffusers import WanTransformer3DModel
    from transformers import AutoTokenizer, UMT5EncoderModel

    from anisora.training.text import keep_known_words

    known = WanTransformer3DModel.from_pretrained(start / "transformer", torch_dtype=torch.float32)
    known_encoder = UMT5EncoderModel.from_pretrained(start / "text_encoder", dtype=torch.float32)
    keep_known_words(known_encoder, AutoTokenizer.from_pretrained(start / "tokenizer"), encoder, tokenizer)
    for part, had, has in (("transformer", known, transformer), ("text encoder", known_encoder, encoder)):
        try:
            has.load_state_dict(had.state_dict())
        except RuntimeError as problem:
            raise BadConfig(
                f"start_from: its {part} has other sizes than the config's",
                got=str(problem).splitlines()[1].strip(),
                expected="model.denoiser as it was trained",
                hint=str(start),
            ) from None


def _load_stage(config: TrainConfig, out: Path, stage: str, modules: dict[str, Any]) -> None:
    """What a stage has learned, into the modules; without that stage they stay as they are begun with."""
    if stage in config.stages or config.start_from is None:
        load_averaged(out / stage, modules)


def _denoiser(config: TrainConfig, buckets: list[Bucket], out: Path) -> Task:
    from anisora.models.codec import Codec

    tokenizer, encoder, transformer = _text_and_transformer(config, buckets, out)
    codec = Codec(_linear_vae(config, buckets, out))
    return denoiser_task(transformer, encoder, tokenizer, codec, buckets, config.model.denoiser, recipe_times())


_TASKS = {"codec": _codec, "denoiser": _denoiser, "sharpener": _sharpener, "joint": _joint}


def export(config: TrainConfig, buckets: list[Bucket], out: Path, folder: Path) -> Path:
    """Writes the averaged weights of every stage as a checkpoint folder in fp16 and returns it."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline

    from anisora.models.parts import forget_origin, mend_index

    tokenizer, encoder, transformer = _text_and_transformer(config, buckets, out)
    last = "joint" if "joint" in config.stages else "denoiser"
    _load_stage(config, out, last, {"transformer": transformer, "text_encoder": encoder})
    pipeline = WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        transformer=transformer,
        vae=_trained_vae(config, buckets, out),
        scheduler=UniPCMultistepScheduler(
            prediction_type=config.model.denoiser.objective,
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
    mend_index(folder, type(pipeline).__name__)
    if config.start_from or {"sharpener", "joint"} & set(config.stages):
        decoder = _guide_decoder(config)
        _load_stage(config, out, "joint" if "joint" in config.stages else "sharpener", {"guide_decoder": decoder})
        _halve(decoder)
        decoder.save_pretrained(folder / "guide_decoder")
    forget_origin(folder)
    width, height, _ = config.data.buckets[0]
    card = {
        "family": "wan",
        "capabilities": ["text", "guides", "motion_area", "keep_video"],
        "recipe": RECIPE,
        "native": {"size": [width, height], "frames": max(config.model.denoiser.frames), "fps": config.data.fps},
        "negative_prompt": "",
        "motion_score_range": None,
        "max_text_tokens": config.model.denoiser.max_text_tokens,
        "snap": "exact",
    }
    (folder / "anisora.json").write_text(json.dumps(card, indent=2) + "\n")
    return folder


def _halve(module: Any) -> None:
    """Turns every parameter to fp16, also those that diffusers keeps in float32 for computing: files need no more."""
    for parameter in module.parameters():
        parameter.data = parameter.data.half()


# Found by benchmarks/bundled_model.py on held-out clips; docs/lab-notes.md has the table.
RECIPE: dict[str, Any] = {"steps": 2, "guidance": 1.5, "shift": 5.0, "sampler": "unipc", "boundary": None}


def recipe_times() -> tuple[float, ...]:
    """When the recipe's sampler calls the network, falling from 1."""
    return sampling_times(RECIPE["steps"], RECIPE["shift"])
