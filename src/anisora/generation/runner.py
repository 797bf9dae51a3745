"""Requests in, finished shots out: loads a model once, makes one shot after the other, skips what is finished.

A shot is a video file with its request embedded and a JSON of the same name beside it (`records.Generation`). Both
are written whole or not at all, so a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import anisora
from anisora import files, runtime, settings
from anisora.errors import AnisoraError, BadRequest, OutOfMemory
from anisora.generation import long_video
from anisora.generation.request import ResolvedRequest, resolve
from anisora.models import catalog
from anisora.models.checkpoint import CheckpointInfo
from anisora.records import Generation, Guide, GuideResult, Lora, Request

#: progress(phase, done, total)
Progress = Callable[[str, int, int], None]

#: float8 keeps the denoising network's weights in 8 bits and computes in bfloat16
DTYPES = ("float32", "bfloat16", "float16", "float8")
OFFLOADS = ("parts", "blocks")


def _silent(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


# -- loading -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Session:
    """Where shots are made: device, dtype, and the one pipeline that is loaded at a time.

    offload: "parts" keeps one component on the accelerator at a time, "blocks" a few layers; both are slower and small.
    """

    device: str | None = None
    dtype: str | None = None
    offload: str | None = None
    progress: Progress = _silent
    _model: str | None = field(default=None, repr=False)
    _pipeline: Any = field(default=None, repr=False)
    _lora: tuple[Lora, ...] = field(default=(), repr=False)

    def pipeline(self, model: str, lora: tuple[Lora, ...] = ()) -> tuple[Any, float]:
        """The pipeline of a model with its low-rank weights, and the seconds that loading took (0 if it was there)."""
        begin = time.perf_counter()
        if model == self._model and lora == self._lora:
            return self._pipeline, 0.0
        self.progress("load", 0, 1)
        if model != self._model:
            self._pipeline = self._model = None  # the old one's memory goes before the new one's comes
            self._lora = ()
            self._pipeline = self._load(model)
            self._model = model
        if lora != self._lora:
            self._pipeline.lora_notes = _put_lora(self._pipeline, self._lora, lora)
            self._lora = lora
        self.progress("load", 1, 1)
        return self._pipeline, time.perf_counter() - begin

    def _load(self, model: str) -> Any:
        info = catalog.resolve(model)
        device = _device(self.device)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise BadRequest("unknown dtype", got=repr(self.dtype), expected=" or ".join(DTYPES))
        hush_libraries()
        try:
            pipeline = getattr(anisora, info.pipeline_class).from_pretrained(
                model, dtype=runtime.pick_dtype(device, "bfloat16" if self.dtype == "float8" else self.dtype)
            )
            if self.dtype == "float8":
                _store_in_8_bits(pipeline)
            pipeline.set_progress_bar_config(disable=True)
            _place(pipeline, device, self.offload)
        except MemoryError as problem:
            raise OutOfMemory(
                f"the model {info.name} does not fit into memory", hint="--dtype bfloat16, or --offload blocks"
            ) from problem
        return pipeline


def hush_libraries() -> None:
    """Leaves progress and errors to us: their bars and advice for programmers would run through ours."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _device(wanted: str | None) -> Any:
    try:
        return runtime.pick_device(wanted)
    except RuntimeError as problem:
        raise BadRequest("unknown device", got=repr(wanted), expected=runtime.DEVICE_EXAMPLES) from problem


def _place(pipeline: Any, device: Any, offload: str | None) -> None:
    if offload not in (None, *OFFLOADS):
        raise BadRequest("unknown way to offload", got=repr(offload), expected=" or ".join(OFFLOADS))
    if offload is not None and device.type == "cpu":
        raise BadRequest("nothing to offload from", got=f"--offload {offload} on the cpu", expected="an accelerator")
    if offload == "parts":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "blocks":
        pipeline.enable_group_offload(onload_device=device, offload_type="block_level", num_blocks_per_group=1)
    else:
        pipeline.to(device)


def _store_in_8_bits(pipeline: Any) -> None:
    import torch

    for name in pipeline.networks:
        if (network := getattr(pipeline, name, None)) is not None:
            network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)


def _put_lora(pipeline: Any, old: tuple[Lora, ...], new: tuple[Lora, ...]) -> list[str]:
    """Replaces the low-rank weights of a pipeline; remarks about what of them matched nothing. Raises as `load_lora`."""
    from anisora.models.lora import load_lora

    if old:
        pipeline.unload_lora_weights()
    notes = []
    for lora in new:
        report = load_lora(pipeline, lora.path, lora.scale)
        if report.unmatched:
            notes.append(f"{report.name}: {len(report.unmatched)} of its modules are not in this network")
    return notes


# -- one shot ----------------------------------------------------------------------------------------------------------


def generate_shot(
    resolved: ResolvedRequest, pipeline: Any, *, progress: Progress = _silent, load_s: float = 0.0
) -> Generation:
    """Makes the shot, writes it and its JSON to `out`, and returns what the JSON holds.

    Raises what the pipeline raises (BadMask, BadVideo, OutOfMemory, ...) and WriteFailed; then nothing is written.
    """
    from anisora.media.writer import write_video

    request, info = resolved.request, resolved.info
    out = _checked_out(request.out)
    shot, notes = make_shot(resolved, pipeline, progress=progress)
    progress("write", 0, 1)
    begin = time.perf_counter()
    write_video(out, shot.frames_THWC, resolved.fps, metadata=_embedded(resolved))
    seconds = {"load": load_s, **_summed([output.seconds for output in shot.outputs])}
    seconds["write"] = time.perf_counter() - begin
    generation = Generation(
        out=str(out),
        request=request,
        request_hash=resolved.request_hash,
        model=info.name,
        weights_sha256=resolved.weights_sha256,
        guides=_guide_results(resolved, shot),
        frames=len(shot.frames_THWC),
        fps=resolved.fps,
        size=(shot.frames_THWC.shape[2], shot.frames_THWC.shape[1]),
        forwards=sum(output.forwards for output in shot.outputs),
        tokens=shot.outputs[0].tokens,
        seconds={name: round(value, 4) for name, value in seconds.items()},
        peak_rss_bytes=runtime.peak_rss_bytes(),
        composite=request.composite and shot.outputs[0].plan.still_TCHW is not None,
        seams=tuple(long_video.seam_report(shot.frames_THWC, shot.joins)),
        warnings=_warnings(resolved, pipeline, shot, notes),
    )
    text = json.dumps(settings.plain(generation), indent=2, ensure_ascii=False) + "\n"
    files.write_atomic(json_path(out), text.encode())
    progress("write", 1, 1)
    return generation


def make_shot(
    resolved: ResolvedRequest, pipeline: Any, *, progress: Progress = _silent
) -> tuple[long_video.LongShot, list[str]]:
    """The shot, written nowhere, and remarks about what of the request is not used. Raises what the pipeline raises."""
    request, info = resolved.request, resolved.info
    material, notes = _material(resolved)
    unit = 8 if request.snap == "anisora" else info.strides.temporal
    assert request.window
    planned = long_video.plan_windows(material, request.window, unit)
    if len(planned) > 1 and "guides" not in info.capabilities:
        raise BadRequest(
            f"the model {info.name} cannot go on from a shot's last frames",
            got=f"{material.num_frames} frames",
            expected=f"at most {request.window}",
        )
    make_window = _window_maker(resolved, pipeline, progress, len(planned))
    return long_video.make(material, planned, make_window, step=_guide_step(resolved)), notes


def _guide_step(resolved: ResolvedRequest) -> int:
    """How far apart guides must be so that each has its own place: 1 where every frame is one."""
    if resolved.request.snap == "anisora":
        return 8
    return resolved.info.strides.temporal if resolved.info.family in ("cogvideox", "cogvideox_mask") else 1


def _window_maker(
    resolved: ResolvedRequest, pipeline: Any, progress: Progress, num_windows: int
) -> long_video.MakeWindow:
    """The pipeline's call for one window; one noise generator runs through all of them."""
    request, recipe = resolved.request, resolved.recipe
    generator = runtime.generator(request.seed)
    width, height = resolved.size
    more: dict[str, Any] = {}
    if recipe.guidance_2 is not None and recipe.guidance == resolved.info.recipe.guidance:
        more["guidance_scale_2"] = recipe.guidance_2

    def make_window(part: long_video.Material, index: int) -> tuple[np.ndarray, Any]:
        done = index * recipe.steps

        def stepped(_pipeline: Any, step: int, _timestep: Any, _tensors: dict) -> dict:
            progress("denoise", done + step + 1, num_windows * recipe.steps)
            if step + 1 == recipe.steps:
                progress("decode", index, num_windows)
            return {}

        output = pipeline(
            prompt=resolved.text.prompt,
            negative_prompt=resolved.text.negative if recipe.guidance > 1 else None,
            guides=part.guides,
            motion_mask=part.motion_mask_THW,
            video=part.video_THWC,
            keep_mask=part.keep_mask_THW,
            width=width,
            height=height,
            num_frames=part.num_frames,
            fps=resolved.fps,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            shift=recipe.shift,
            generator=generator,
            fit=request.fit,
            snap=request.snap,
            composite=request.composite,
            output_type="np",
            callback_on_step_end=stepped,
            **more,
        )
        progress("decode", index + 1, num_windows)
        return np.rint(np.asarray(output.frames[0]) * 255).astype(np.uint8), output

    return make_window


def _material(resolved: ResolvedRequest) -> tuple[long_video.Material, list[str]]:
    """The pictures, masks and video of a request, read; and remarks about what of them is not used."""
    from anisora.media.image import load_image
    from anisora.media.reader import load_mask_video, probe, read_video

    request, num_frames = resolved.request, resolved.num_frames
    notes: list[str] = []
    masks: dict[str, np.ndarray | None] = {"motion_mask": None, "keep_mask": None}
    for name in masks:
        if path := getattr(request, name):
            mask_THW = load_mask_video(path)
            if len(mask_THW) > num_frames:
                notes.append(
                    f"the {name.replace('_', ' ')} has {len(mask_THW)} frames, its first {num_frames} are used"
                )
            masks[name] = mask_THW[: max(1, num_frames)]
    video_THWC = None
    if request.video:
        at_fps = resolved.fps if probe(request.video).fps != resolved.fps else None
        video = read_video(request.video, at_fps=at_fps)
        notes += [f"{Path(request.video).name}: {note}" for note in video.notes]
        if len(video) > num_frames:
            notes.append(f"the video has {len(video)} frames, its first {num_frames} are used")
        video_THWC = video.frames_THWC[:num_frames]
    guides = tuple(
        Guide(np.asarray(load_image(guide.image)), frame, guide.strength)
        for guide, frame in zip(request.guides, resolved.guide_frames, strict=True)
    )
    material = long_video.Material(
        num_frames=num_frames,
        guides=guides,
        motion_mask_THW=masks["motion_mask"],
        video_THWC=video_THWC,
        keep_mask_THW=masks["keep_mask"],
    )
    return material, notes


def _guide_results(resolved: ResolvedRequest, shot: long_video.LongShot) -> tuple[GuideResult, ...]:
    from anisora.geometry import channel, slot

    stride = resolved.info.strides.temporal
    return tuple(
        GuideResult(
            image_sha256=resolved.inputs[str(guide.image)],
            asked=guide.frame,
            frame=frame,
            slot=slot(frame, stride),
            channel=None if resolved.info.family == "cogvideox" else channel(frame, stride),
            psnr_db=_rounded(shot.psnr_db[frame]),
        )
        for guide, frame in zip(resolved.request.guides, resolved.guide_frames, strict=True)
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _summed(dicts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(entry[name] for entry in dicts) for name in dicts[0]}


def _warnings(resolved: ResolvedRequest, pipeline: Any, shot: long_video.LongShot, notes: list[str]) -> tuple[str, ...]:
    """Everything worth saying once about the shot, in the order of the work."""
    said = [*resolved.notes, *notes, *_unread_words(resolved, pipeline), *getattr(pipeline, "lora_notes", ())]
    said += [warning for output in shot.outputs for warning in output.warnings]
    for landing in shot.outputs[0].landings:
        levels = landing.static_difference_levels
        if levels is not None and levels > 8:
            said.append(
                f"the guide on frame {landing.frame} differs from the still area by {levels:.0f} of 255 levels: "
                "there the first guide shows"
            )
    if any(shot.matched):
        said.append(
            "brightness was matched at "
            + ", ".join(f"frame {join}" for join, matched in zip(shot.joins, shot.matched, strict=True) if matched)
        )
    return tuple(dict.fromkeys(said))


def _unread_words(resolved: ResolvedRequest, pipeline: Any) -> Iterator[str]:
    """A remark if the prompt is longer than the text encoder reads: the rest is cut off by the pipeline."""
    limit = resolved.info.max_text_tokens
    length = len(pipeline.tokenizer(resolved.text.prompt).input_ids)
    if length > limit:
        yield f"the prompt has {length} tokens, the model reads the first {limit}"


def _embedded(resolved: ResolvedRequest) -> dict[str, Any]:
    """What the video file carries: enough to make it again."""
    return {
        "anisora": {
            "version": anisora.__version__,
            "request": settings.plain(replace(resolved.request, out=None)),
            "request_hash": resolved.request_hash,
            "weights_sha256": resolved.weights_sha256,
            "inputs": resolved.inputs,
        }
    }


# -- where it goes -----------------------------------------------------------------------------------------------------


def json_path(out: str | Path) -> Path:
    """The JSON beside a shot: shot.mp4 -> shot.json; a folder of pictures has it beside the folder."""
    return Path(out).with_suffix(".json")


def _checked_out(out: str | None) -> Path:
    """The place to write to. Raises BadRequest for a kind of file that is not written, WriteFailed where writing is not
    possible: before the work, not after it."""
    from anisora.media.encoders import ENCODERS_BY_SUFFIX

    if out is None:
        raise BadRequest("nowhere to write the shot", expected="out", hint="--out shot.mp4")
    path = Path(out)
    kinds = (*ENCODERS_BY_SUFFIX, ".gif", "")
    if path.suffix.lower() not in kinds:
        raise BadRequest(
            "a kind of file that is not written",
            got=path.name,
            expected=f"{', '.join(kind for kind in kinds if kind)}, or a folder name for pictures",
            hint=f"--out {path.with_suffix('.mp4').name}",
        )
    if path.suffix:
        files.check_writable(path)
    files.check_writable(json_path(path))
    return path


def finished(resolved: ResolvedRequest) -> Generation | None:
    """What an earlier run made for this very request, if its video and its JSON are both there and whole."""
    from anisora.media.metadata import read_metadata
    from anisora.media.reader import iter_frames

    out = Path(resolved.request.out or "")
    try:
        made = settings.read(Generation, json.loads(json_path(out).read_text(encoding="utf-8")))
        embedded = read_metadata(out).get("anisora", {})
        is_whole = sum(1 for _ in iter_frames(out)) == made.frames  # decoded: a cut file keeps its index
    except (OSError, ValueError, AnisoraError):
        return None
    hashes = {made.request_hash, embedded.get("request_hash")}
    return made if is_whole and hashes == {resolved.request_hash} else None


# -- many shots --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one request: a generation, made now or earlier (`skipped`), or the problem."""

    request: Request
    generation: Generation | None = None
    skipped: bool = False
    problem: Exception | None = None

    def as_json(self) -> dict[str, Any]:
        """The generation's object, or the request with the error in place of a result."""
        if self.generation is not None:
            return settings.plain(self.generation)
        return {"out": self.request.out, "request": settings.plain(self.request), "error": str(self.problem)}


def run_shots(
    requests: Sequence[Request],
    session: Session,
    *,
    skip_finished: bool = True,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """One outcome a request, in their order; `told` hears of each as it ends.

    Shots of one model are made together, so that each model is loaded once. A shot that fails stops no other.
    """
    outcomes: dict[int, Outcome] = {}

    def end(index: int, **result: Any) -> None:
        outcomes[index] = Outcome(request=requests[index], **result)
        told(outcomes[index])

    waiting: list[tuple[int, ResolvedRequest]] = []
    for index, request in enumerate(requests):
        try:
            resolved = resolve_request(request)
            _checked_out(request.out)
            made = finished(resolved) if skip_finished else None
        except AnisoraError as problem:
            end(index, problem=problem)
            continue
        if made is not None:
            end(index, generation=made, skipped=True)
        else:
            waiting.append((index, resolved))
    for index, resolved in _by_model(waiting):
        try:
            pipeline, load_s = session.pipeline(resolved.request.model, resolved.request.lora)
            made = generate_shot(
                resolved, pipeline, progress=_titled(session.progress, resolved, len(requests)), load_s=load_s
            )
        except Exception as problem:
            end(index, problem=problem)
        else:
            end(index, generation=made)
    return [outcomes[index] for index in range(len(requests))]


def resolve_request(request: Request) -> ResolvedRequest:
    """The request on its checkpoint. Raises UnknownModel, BadCheckpoint and what `request.resolve` raises."""
    info: CheckpointInfo = catalog.resolve(request.model)
    return resolve(request, info, catalog.weights_sha256(info.path))


def _by_model(waiting: list[tuple[int, ResolvedRequest]]) -> list[tuple[int, ResolvedRequest]]:
    """Shots of one model and its low-rank weights next to each other, else in their order."""
    order = list(dict.fromkeys((resolved.request.model, resolved.request.lora) for _, resolved in waiting))
    return sorted(waiting, key=lambda entry: order.index((entry[1].request.model, entry[1].request.lora)))


def _titled(progress: Progress, resolved: ResolvedRequest, num_shots: int) -> Progress:
    """Progress that says which of many shots it is about."""
    if num_shots == 1:
        return progress
    name = Path(resolved.request.out or "").name
    return lambda phase, done, total: progress(f"{name} {phase}", done, total)
