"""Sample sheets: what the weights in training make of a few shots, through the pipeline that generation uses.

The shots are a request file's, or the first frames and captions of some of the run's own clips. Every process makes them
(their networks may be shared out), the first one writes them down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from anisora.errors import BadConfig, BadImage, BadVideo, Failed
from anisora.files import write_atomic
from anisora.generation.request import ResolvedRequest, resolve
from anisora.generation.request_files import load_requests
from anisora.generation.runner import make_shot
from anisora.media.frames import contact_sheet
from anisora.records import Guide, Request
from anisora.settings import setting
from anisora.training.backbone import Backbone
from anisora.training.data import Dataset, tokens_of
from anisora.training.log import SHEETS
from anisora.training.parallel import World

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """Sample sheets during training; they change no number of it."""

    every_steps: int = setting(0, "steps between two sheets; 0: none")
    shots: Path | None = setting(
        None, "request file, as `anisora generate` takes; `model` and `out` in it are not read; default: own clips"
    )
    clips: int = setting(3, "without `shots`: from how many of the run's clips the first frame and caption are taken")
    frames: int = setting(6, "frames of each shot on the sheet")


def sheet_maker(
    samples: SampleSettings, backbone: Backbone, data: Dataset, folder: Path, world: World, *, in_bfloat16: bool
) -> Callable[[], Image]:
    """`make()`: one picture, a row a shot, of what the backbone's networks make with the weights they hold then.

    Raises what a bad request raises, before anything is trained; BadConfig for requests that bring a LoRA.
    """
    requests = load_requests(samples.shots) if samples.shots else _own_shots(samples.clips, data, folder, world)
    if any(request.lora for request in requests):
        raise BadConfig("samples.shots bring a LoRA", expected="shots of the model in training alone")
    shots = [resolve(request, backbone.info, weights_sha256="in training") for request in requests]
    for shot in shots:
        tokens = tokens_of(
            backbone.info.strides, shot.size, min(shot.num_frames, shot.request.window or shot.num_frames)
        )
        if tokens % world.context:
            raise BadConfig(
                "context_parallel: a shot of samples.shots cannot be shared out",
                got=f"{tokens} tokens, context_parallel {world.context}",
                expected=f"tokens that are a multiple of {world.context}",
                hint="another size or length",
            )
    networks = list(backbone.networks.values())
    backbone.pipeline.set_progress_bar_config(disable=True)

    def make() -> Image:
        with _evaluating(networks, backbone.device if in_bfloat16 else None):
            made = [make_shot(shot, backbone.pipeline)[0].frames_THWC for shot in shots]
        return _sheet(shots, made, samples.frames)

    return make


def _sheet(shots: Sequence[ResolvedRequest], made: list[np.ndarray], columns: int) -> Image:
    frames: list[np.ndarray] = []
    labels: list[str] = []
    for shot, frames_THWC in zip(shots, made, strict=True):
        places = np.linspace(0, len(frames_THWC) - 1, columns).round().astype(int)
        frames += [frames_THWC[place] for place in places]
        labels += [shot.request.prompt[:24], *(f"frame {place}" for place in places[1:])]
    return contact_sheet(frames, columns, labels)


def _own_shots(num: int, data: Dataset, folder: Path, world: World) -> list[Request]:
    """A request for each of the first clips that can be read: its first frame, its caption, its size and length."""
    requests: list[Request] = []
    for bucket in data.buckets:
        for index in bucket.indices:
            if len(requests) == num or bucket.is_stills:
                break
            clip = bucket.source.clips[index]
            rng = np.random.default_rng(0)
            try:
                video_THWC = bucket.source.read(index, bucket.num_frames, bucket.size_px, data.fps, rng)
            except (BadVideo, BadImage):
                continue  # the loader tells of it when its turn comes
            path = folder / SHEETS / "guides" / f"{len(requests)}.png"
            if world.is_first:
                _write_png(path, video_THWC[0])
            requests.append(
                Request(
                    prompt=data.text_of(clip),
                    guides=(Guide(str(path), 0),),
                    size=bucket.size_px,
                    frames=bucket.num_frames,
                    fps=data.fps,
                )
            )
    if not requests:
        raise Failed("no clip can be decoded for sample sheets", got=f"{data.num_clips} tried", hint="samples.shots")
    world.wait()  # the others read what the first has written
    return requests


def _write_png(path: Path, picture_HWC: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda partial: Image.fromarray(picture_HWC).save(partial))


@contextmanager
def _evaluating(networks: list[nn.Module], autocast_on: torch.device | None) -> Iterator[None]:
    """The networks as they are used, not trained; in bfloat16 where training computes in it, as the VAE never does."""
    before: list[tuple[nn.Module, bool, Any]] = [
        (network, network.training, network.__dict__.get("forward")) for network in networks
    ]
    try:
        for network in networks:
            network.eval()
            if autocast_on is not None:
                network.forward = torch.autocast(autocast_on.type, torch.bfloat16)(network.forward)  # type: ignore[method-assign]
        yield
    finally:
        for network, was_training, forward in before:
            network.train(was_training)
            if forward is not None:
                network.forward = forward  # type: ignore[method-assign]
            else:
                network.__dict__.pop("forward", None)
