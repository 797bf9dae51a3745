"""What VBench's networks say of a clip, for those who have their weights: the arrays of which `vbench_export` makes values.

A folder is as VBench's own cache (`~/.cache/vbench`) is after a run; a CLIP or DINO may also lie there as a folder of
transformers. Frames go in as VBench's transforms leave them: unlike the networks' own, these resize without smoothing,
do not round, and let DINO see the whole picture, not a square of it.
T frames, C channels, H W pixels, D features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anisora.errors import BadCheckpoint
from anisora.evaluation import dreamsim, published, vbench
from anisora.evaluation.identity import weights_sha256
from anisora.evaluation.samples import Sample
from anisora.files import sha256_file
from anisora.measures import aesthetic, raft
from anisora.measures.pretrained import load_clip_vision, load_strict
from anisora.runtime import pick_device
from anisora.store import content_hash

#: network -> where its weights lie in the folder: as VBench downloads them, or as a folder of transformers
PLACES: dict[str, tuple[str, ...]] = {
    "DINO": ("dino_model/dino_vitbase16_pretrain.pth", "dino-vitb16"),
    "CLIP B/32": ("clip_model/ViT-B-32.pt", "clip-vit-base-patch32"),
    "CLIP L/14": ("clip_model/ViT-L-14.pt", "clip-vit-large-patch14"),
    "LAION's head": ("aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",),
    "RAFT": ("raft_model/models/raft-things.pth",),
    "ViCLIP": ("ViCLIP/ViClip-InternVid-10M-FLT.pth",),
    "DreamSim": ("dreamsim",),
    "CLIP's vocabulary": ("ViCLIP/bpe_simple_vocab_16e6.txt.gz",),
}

#: dimension -> the networks that it takes
NEEDED: dict[str, tuple[str, ...]] = {
    "subject_consistency": ("DINO",),
    "background_consistency": ("CLIP B/32",),
    "dynamic_degree": ("RAFT",),
    "aesthetic_quality": ("CLIP L/14", "LAION's head"),
    "i2v_subject": ("DINO",),
    "i2v_background": ("DINO", "DreamSim"),
    "overall_consistency": ("ViCLIP", "CLIP's vocabulary"),
}

#: Dimensions of which no network is here, and why; all but the last can be computed from stored arrays.
WITHOUT = {
    "motion_smoothness": "AMT-S: its code is for non-commercial use only; store amt_THWC",
    "imaging_quality": "MUSIQ: the code that VBench runs is for non-commercial use only; store musiq_T",
    "camera_motion": "CoTracker: its code is for non-commercial use only",
}

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

#: Frames that go through a network at once.
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A clip as the networks are shown it; `prompt` and `image` where they are known."""

    frames_THWC: NDArray[np.uint8]
    fps: Fraction
    prompt: str | None = None
    image: Path | None = None


Arrays = dict[str, np.ndarray]
Frames = NDArray[np.uint8]


class Networks:
    """The networks of a folder, opened when first asked."""

    def __init__(self, folder: str | Path, device: str | None = None) -> None:
        """Raises BadCheckpoint for a folder in which the weights of no dimension lie."""
        self.device = pick_device(device)
        root = Path(folder)
        self._found = {
            name: root / place
            for name, places in PLACES.items()
            for place in reversed(places)
            if (root / place).exists()
        }
        self.dimensions = tuple(d for d, needed in NEEDED.items() if all(name in self._found for name in needed))
        if not self.dimensions:
            wanted = ", ".join(place for places in PLACES.values() for place in places[:1])
            raise BadCheckpoint("no weights of VBench's networks", got=folder, expected=f"some of {wanted}")
        self._open: dict[str, Any] = {}
        self.weights = {name: _sha256(path) for name, path in self._found.items()}

    def missing(self) -> dict[str, str]:
        """The dimensions that cannot be computed with this folder, and why."""
        lacking = {
            dimension: "no " + " and no ".join(PLACES[name][0] for name in needed if name not in self._found)
            for dimension, needed in NEEDED.items()
            if dimension not in self.dimensions
        }
        return lacking | WITHOUT

    @torch.inference_mode()
    def arrays(self, seen: Seen) -> Arrays:
        """Every array that the networks have for a clip (see `vbench_export.FORMULAS`)."""
        made: Arrays = {}
        for dimension in self.dimensions:
            made |= _RUNS[dimension](self, seen)
        return made

    def __getitem__(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = _OPENERS[name](self._found)
            self._open[name].to(self.device)
        return self._open[name]

    def batched(
        self, run: Callable[[Tensor], Tensor], show: Callable[[Frames], Tensor], frames_THWC: Frames
    ) -> NDArray[np.float32]:
        """What a network says of frames as they are shown to it, some at a time, [T, D]."""
        starts = range(0, len(frames_THWC), _BATCH)
        parts = [run(show(frames_THWC[at : at + _BATCH]).to(self.device)).float().cpu() for at in starts]
        return torch.cat(parts).numpy()


def seen_of(sample: Sample, clip: Any) -> Seen:
    """A sample's decoded clip with its prompt, from the manifest or from a name as VBench gives them, `PROMPT-0.mp4`."""
    named = vbench.prompt_of(sample.video.name) if re.search(r"-\d+$", sample.video.stem) else None
    return Seen(frames_THWC=clip.frames_THWC, fps=clip.fps, prompt=sample.prompt or named, image=sample.image)


def fingerprint(networks: Networks, sample: Sample, seen: Seen) -> str:
    """A hash of all that the arrays of a clip depend on: its bytes, the picture's, the prompt, the weights."""
    image = sha256_file(seen.image) if seen.image is not None and seen.image.is_file() else None
    return content_hash([sha256_file(sample.video), image, seen.prompt, networks.weights, _VERSION])


#: Of what this module makes of frames; another one makes stored arrays void.
_VERSION = 1


# --------------------------------------------------------------------------------------------------- what each is shown


def resized(frames_TCHW: Tensor, short_px: int, mode: str, *, smooth: bool = False) -> Tensor:
    """Frames [T, C, H, W] with the shorter side at `short_px`, the other cut to whole pixels, as torchvision resizes
    float tensors: neither rounded nor clamped. `smooth` takes in all pixels when it shrinks."""
    height, width = frames_TCHW.shape[-2:]
    short = min(height, width)
    size = tuple(short_px if side == short else int(short_px * side / short) for side in (height, width))
    if size == (height, width):
        return frames_TCHW
    return functional.interpolate(frames_TCHW, size=size, mode=mode, align_corners=False, antialias=smooth)


def centre(frames_TCHW: Tensor, side_px: int) -> Tensor:
    """The square in the middle; halves of a pixel go to the even side."""
    height, width = frames_TCHW.shape[-2:]
    top, left = round((height - side_px) / 2), round((width - side_px) / 2)
    return frames_TCHW[..., top : top + side_px, left : left + side_px]


def _normed(frames_TCHW: Tensor, by: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, spread = (torch.tensor(values)[:, None, None] for values in by)
    return (frames_TCHW / 255 - mean) / spread


def _floats(frames_THWC: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames_THWC)).movedim(-1, 1).float()


def for_dino(frames_THWC: NDArray[np.uint8], short_px: int = 224) -> Tensor:
    """The whole picture at a shorter side of 224, bilinear (subject consistency)."""
    return _normed(resized(_floats(frames_THWC), short_px, "bilinear"), _IMAGENET)


def for_dino_i2v(frames_THWC: NDArray[np.uint8], short_px: int = 256, side_px: int = 224) -> Tensor:
    """The middle of the picture at a shorter side of 256, bicubic and smooth (I2V subject)."""
    return _normed(centre(resized(_floats(frames_THWC), short_px, "bicubic", smooth=True), side_px), _IMAGENET)


def picture_for_dino_i2v(picture: Any, short_px: int = 256, side_px: int = 224) -> Tensor:
    """The same of a PIL picture, resized by Pillow: [1, 3, 224, 224]."""
    from PIL import Image

    width, height = picture.size
    scale = (
        (short_px, int(short_px * height / width)) if width <= height else (int(short_px * width / height), short_px)
    )
    small = np.array(picture.resize(scale, Image.Resampling.BICUBIC))
    return _normed(centre(_floats(small[None]), side_px), _IMAGENET)


def for_dreamsim(frames_THWC: NDArray[np.uint8]) -> Tensor:
    """The whole picture squeezed to a square, bicubic and smooth, in [0, 1] or a little beyond (I2V background)."""
    side = (dreamsim.SIDE_PX, dreamsim.SIDE_PX)
    frames = _floats(frames_THWC)
    return functional.interpolate(frames, size=side, mode="bicubic", align_corners=False, antialias=True) / 255


def picture_for_dreamsim(picture: Any) -> Tensor:
    """The same of a PIL picture, resized by Pillow: [1, 3, 224, 224]."""
    from PIL import Image

    small = picture.resize((dreamsim.SIDE_PX, dreamsim.SIDE_PX), Image.Resampling.BICUBIC)
    return _floats(np.array(small)[None]) / 255


def for_clip(frames_THWC: NDArray[np.uint8], side_px: int = 224) -> Tensor:
    """The middle of the picture at a shorter side of 224, bicubic (background consistency, aesthetic quality)."""
    return _normed(centre(resized(_floats(frames_THWC), side_px, "bicubic"), side_px), _CLIP)


def for_viclip(frames_THWC: NDArray[np.uint8], num_frames: int, side_px: int = 224) -> Tensor:
    """The middles of `num_frames` equal parts of the clip, in whole grey levels; the last again in a shorter clip."""
    frames = _floats(frames_THWC[middles(len(frames_THWC), num_frames)])
    small = resized(frames, side_px, "bicubic").clamp(0, 255).round()
    return _normed(centre(small, side_px), _CLIP)


def middles(total: int, wanted: int) -> list[int]:
    """The frame in the middle of each of `wanted` equal parts; in a shorter clip all frames, the last one repeated."""
    ends = np.linspace(0, total, min(wanted, total) + 1).astype(int)
    found = [int(first + last - 1) // 2 for first, last in pairwise(ends)]
    return found + [found[-1]] * (wanted - len(found))


def thinned(frames_THWC: NDArray[np.uint8], fps: Fraction) -> NDArray[np.uint8]:
    """Every so manieth frame, to about 8 a second, at sides of multiples of 8, the edges repeated (dynamic degree)."""
    frames = frames_THWC[:: max(1, round(fps / 8))]
    down, across = (-side % 8 for side in frames.shape[1:3])
    around = ((0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    return np.pad(frames, around, mode="edge")


# ------------------------------------------------------------------------------------------------------- what each says


def _subject(networks: Networks, seen: Seen) -> Arrays:
    return {"dino_TD": networks.batched(_dino(networks["DINO"]), for_dino, seen.frames_THWC)}


def _i2v_subject(networks: Networks, seen: Seen) -> Arrays:
    from anisora.media.image import load_image

    if seen.image is None:
        return {}
    run = _dino(networks["DINO"])
    picture = picture_for_dino_i2v(load_image(seen.image)).to(networks.device)
    return {
        "i2v_dino_TD": networks.batched(run, for_dino_i2v, seen.frames_THWC),
        "image_dino_D": run(picture)[0].float().cpu().numpy(),
    }


def _i2v_background(networks: Networks, seen: Seen) -> Arrays:
    from anisora.media.image import load_image

    if seen.image is None:
        return {}
    network = networks["DreamSim"]
    picture = picture_for_dreamsim(load_image(seen.image)).to(networks.device)
    return {
        "dreamsim_TD": networks.batched(network, for_dreamsim, seen.frames_THWC),
        "image_dreamsim_D": network(picture)[0].cpu().numpy(),
    }


def _dino(network: Any) -> Callable[[Tensor], Tensor]:
    return lambda pixels: network(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]


def _background(networks: Networks, seen: Seen) -> Arrays:
    network = networks["CLIP B/32"]
    return {"clip_TD": networks.batched(lambda x: network(pixel_values=x).image_embeds, *_for(network, seen))}


def _aesthetic(networks: Networks, seen: Seen) -> Arrays:
    network, head = networks["CLIP L/14"], networks["LAION's head"]
    width, wanted = network.config.projection_dim, next(head.parameters()).shape[1]
    if width != wanted:
        raise BadCheckpoint("the aesthetic head is for another CLIP", got=f"features of {width}", expected=f"{wanted}")

    def score(pixels: Tensor) -> Tensor:
        return head(functional.normalize(network(pixel_values=pixels).image_embeds, dim=-1))

    return {"laion_T": networks.batched(score, *_for(network, seen))[:, 0]}


def _for(network: Any, seen: Seen) -> tuple[Callable[[Frames], Tensor], Frames]:
    """How a CLIP is shown frames, and the clip's."""
    return partial(for_clip, side_px=network.config.image_size), seen.frames_THWC


def _dynamic(networks: Networks, seen: Seen) -> Arrays:
    frames, network = thinned(seen.frames_THWC, seen.fps), networks["RAFT"]
    flows = (raft.raft_flow(network, a, b) for a, b in pairwise(frames))
    return {"raft_top5_T": np.array([vbench.dynamic_pair_score(flow) for flow in flows], np.float64)}


def _overall(networks: Networks, seen: Seen) -> Arrays:
    if not seen.prompt:
        return {}
    network = networks["ViCLIP"]
    pixels = for_viclip(seen.frames_THWC, network.num_frames, network.vision.config.image_size).to(networks.device)
    both = network.of_frames(pixels), network.of_text(seen.prompt)
    return dict(zip(("viclip_video_D", "viclip_text_D"), (tensor.cpu().numpy() for tensor in both), strict=True))


_RUNS: dict[str, Callable[[Networks, Seen], Arrays]] = {
    "subject_consistency": _subject,
    "background_consistency": _background,
    "dynamic_degree": _dynamic,
    "aesthetic_quality": _aesthetic,
    "i2v_subject": _i2v_subject,
    "i2v_background": _i2v_background,
    "overall_consistency": _overall,
}


# -------------------------------------------------------------------------------------------------------------- opening


def _open_dino(path: Path) -> Any:
    from transformers import ViTModel

    if path.is_file():
        return published.load_dino(path)
    return published.with_dino_places(load_strict(ViTModel, path, add_pooling_layer=False).eval())


def _open_dreamsim(dino: Path, folder: Path) -> Any:
    if not dino.is_file():
        raise BadCheckpoint("DreamSim is DINO in its own file", got=dino, expected=PLACES["DINO"][0])
    return dreamsim.load(dino, folder)


def _open_clip(path: Path) -> Any:
    return published.load_clip_vision(path) if path.is_file() else load_clip_vision(path)


_OPENERS: dict[str, Callable[[Mapping[str, Path]], Any]] = {
    "DINO": lambda found: _open_dino(found["DINO"]),
    "CLIP B/32": lambda found: _open_clip(found["CLIP B/32"]),
    "CLIP L/14": lambda found: _open_clip(found["CLIP L/14"]),
    "LAION's head": lambda found: aesthetic.load_head(found["LAION's head"]),
    "DreamSim": lambda found: _open_dreamsim(found["DINO"], found["DreamSim"]),
    "RAFT": lambda found: raft.load(found["RAFT"]),
    "ViCLIP": lambda found: published.load_viclip(found["ViCLIP"], found["CLIP's vocabulary"]),
}


def _sha256(path: Path) -> str:
    if path.is_file():
        return sha256_file(path)
    if (path / dreamsim.ADAPTER).is_dir():
        files = [path / dreamsim.CLIP, path / dreamsim.OPEN_CLIP, *sorted((path / dreamsim.ADAPTER).iterdir())]
        return content_hash([sha256_file(file) for file in files if file.is_file()])
    return weights_sha256(path)
