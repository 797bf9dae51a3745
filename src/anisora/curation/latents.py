"""Latents and text embeddings of a finished set, made once, in tars beside the shards: training then needs neither network.

The arrays are those that training would make: the video's latents normalised as the transformer sees them, the text's
states without padding. Their key holds the network's weights and how the video was read, so that another size or rate is
another set of tars and never a mix.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora import geometry
from anisora.curation.ledger import locked
from anisora.curation.shards import write_parallel
from anisora.curation.upkeep import existing_run
from anisora.errors import BadCheckpoint, BadConfig
from anisora.files import sha256_file
from anisora.models import catalog
from anisora.models.checkpoint import read_json
from anisora.settings import setting
from anisora.store import content_hash


@dataclass(frozen=True, kw_only=True)
class LatentSettings:
    """How videos are read before they are encoded."""

    height_px: int = setting(480, "short side; nothing is enlarged")
    fps: int = setting(16, "frames per second")
    most_frames: int = setting(129, "longer clips are cut behind so many frames")

    def __post_init__(self) -> None:
        if min(self.height_px, self.fps, self.most_frames) < 1:
            raise BadConfig("settings of latents out of range", got=asdict(self), expected="1 or more each")


def write_latents(
    out: str | os.PathLike[str],
    model: str,
    settings: LatentSettings | None = None,
    *,
    text: bool = True,
    progress: Callable[[str, int, int], object] = lambda phase, done, total: None,
) -> dict[str, dict[str, int]]:
    """Writes `latents/` and `text/` beside the shards with the networks of a checkpoint; what is there stays.

    Gives the numbers of tars written and kept. Raises BadInput without a finished run, Failed while another
    run holds it, UnknownModel, BadCheckpoint.
    """
    folder = existing_run(out)
    settings = settings or LatentSettings()
    checkpoint = Path(catalog.resolve(model).path)
    with locked(folder):
        key = content_hash([_hash_of(checkpoint / "vae"), asdict(settings)])
        encode = _video_encoder(checkpoint, settings)
        made = {"latents": write_parallel(folder, "latents", key, encode, lambda d, n: progress("latents", d, n))}
        if text:
            key = content_hash([_hash_of(checkpoint / "text_encoder")])
            encode = _text_encoder(checkpoint, catalog.resolve(model).max_text_tokens)
            made["text"] = write_parallel(folder, "text", key, encode, lambda d, n: progress("text", d, n))
    return made


def _hash_of(folder: Path) -> str:
    """The hash of a network's weights."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadCheckpoint("a checkpoint without weights to encode with", got=folder, expected="*.safetensors")
    return content_hash([sha256_file(path) for path in files])


def _part(checkpoint: Path, name: str) -> Any:
    """One part of a checkpoint, by the class that its index names."""
    library, class_name = read_json(checkpoint / "model_index.json")[name]
    return getattr(importlib.import_module(library), class_name).from_pretrained(checkpoint / name)


def _video_encoder(checkpoint: Path, settings: LatentSettings) -> Callable[[dict[str, bytes]], np.ndarray]:
    """Members of a sample to normalised latents, float16 [C, F, Y, X]."""
    import tempfile

    from anisora.media.frames import to_float_CTHW
    from anisora.models.codec import Codec
    from anisora.runtime import pick_device

    codec = Codec(_part(checkpoint, "vae").to(pick_device()).eval())

    def encode(members: dict[str, bytes]) -> np.ndarray:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(members["mp4"])
            file.flush()
            frames_THWC = _read(Path(file.name), settings, codec.strides)
        video_BCTHW = to_float_CTHW(frames_THWC)[None].to(codec.device)
        return codec.encode(video_BCTHW)[0].cpu().numpy().astype(np.float16)

    return encode


def _read(path: Path, settings: LatentSettings, strides: Any) -> np.ndarray:
    """uint8 [T, H, W, 3] at the rate and size asked for, T and size legal for the codec."""
    from anisora.media.frames import fit
    from anisora.media.reader import read_video

    frames_THWC = read_video(path, at_fps=settings.fps, num_frames=settings.most_frames).frames_THWC
    whole = (len(frames_THWC) - 1) // strides.temporal * strides.temporal + 1
    height, width = frames_THWC.shape[1:3]
    scale = min(Fraction(1), Fraction(settings.height_px, min(height, width)))
    multiple = strides.spatial * 2  # the patches of every transformer there is fold two by two
    size = geometry.size_for_aspect(Fraction(width, height), int(width * height * scale * scale), multiple)
    return fit(frames_THWC[:whole], size, "cover")[0]


def _text_encoder(checkpoint: Path, most_tokens: int) -> Callable[[dict[str, bytes]], np.ndarray]:
    """Members of a sample to the states of its caption's tokens, float16 [L, dim], without padding."""
    import torch

    tokenizer, encoder = _part(checkpoint, "tokenizer"), _part(checkpoint, "text_encoder").eval()

    def encode(members: dict[str, bytes]) -> np.ndarray:
        batch = tokenizer(members["txt"].decode(), truncation=True, max_length=most_tokens, return_tensors="pt")
        with torch.no_grad():
            states = encoder(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        return states[0].float().numpy().astype(np.float16)

    return encode
