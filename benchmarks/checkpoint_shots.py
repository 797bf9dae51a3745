"""A checkpoint at work on synthetic clips: every arm that `clip_figures` compares, for one clip.

Shots go through the pipeline with what `generation.request.resolve` makes of a request without flags, so that the
figures are those of `anisora generate`.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clip_record import ClipRecord
from numpy.typing import NDArray
from PIL import Image

from anisora import runtime, synthetic
from anisora.assets import cache_folder
from anisora.files import write_atomic
from anisora.generation.request import ResolvedRequest, resolve
from anisora.generation.runner import Session
from anisora.measures import baselines, linear_code
from anisora.media.frames import to_float_CTHW, to_uint8_THWC
from anisora.models import catalog
from anisora.models.codec import Codec
from anisora.records import Guide, Request
from anisora.store import content_hash

Frames = NDArray[np.uint8]

#: How many training clips the linear code is fitted on: 48 of 17 frames at 96 px hold 34,560 blocks for 768 dimensions.
LINEAR_CODE_CLIPS = 48

#: The motion area is the largest character's, grown by this.
AREA_MARGIN_PX = 3

#: Owners of pixels below this are characters (synthetic.Truth.ids_THW).
FIRST_OBJECT = 10


class Checkpoint:
    """A loaded pipeline, and what is asked of it here: shots, latents, and its VAE's reconstructions."""

    def __init__(
        self,
        model: str,
        size_px: tuple[int, int],
        num_frames: int,
        fps: int | None,
        corpus_version: int = synthetic.TRAINED_VERSION,
    ) -> None:
        self.info = catalog.resolve(model)
        # As `anisora generate` loads it: device and dtype are part of what is measured.
        self.pipeline, _ = Session().pipeline(model)
        self.codec = Codec(self.pipeline.vae)
        self.weights_sha256 = catalog.weights_sha256(self.info.path)
        self.size_px, self.num_frames, self.fps = size_px, num_frames, fps or round(self.info.native.fps)
        self.corpus_version = corpus_version

    def about(self) -> dict[str, Any]:
        """What is the same for all clips, for run.json."""
        recipe = asdict(self._resolved("a figure", {}).recipe)
        return {
            "model": self.info.name,
            "weights_sha256": self.weights_sha256,
            "recipe": recipe,
            "recipe_sha256": content_hash(recipe),
            "device": str(self.pipeline.device),
            "dtype": str(self.pipeline.transformer.dtype).removeprefix("torch."),
            "size_px": list(self.size_px),
            "frames": self.num_frames,
            "fps": self.fps,
            "z_dim": self.codec.channels,
            "guide_decoder": self.pipeline.guide_decoder is not None,
            "corpus_version": self.corpus_version,
            "training_seeds": [synthetic.TRAIN_SEEDS.start, synthetic.TRAIN_SEEDS.stop],
        }

    def randomise_transformer(self) -> None:
        """Fresh random weights in place of the trained ones."""
        old = self.pipeline.transformer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.pipeline.transformer = type(old).from_config(old.config).to(old.device, old.dtype).eval()

    def shot(
        self,
        prompt: str,
        guides: dict[int, NDArray[np.uint8]],
        seed: int,
        *,
        steps: int | None = None,
        **controls: Any,
    ) -> tuple[Frames, NDArray[np.float32]]:
        """Frames uint8 THWC and the sampler's last latents [C, F, Y, X], as `anisora generate` would make them."""
        asked = self._resolved(prompt, guides)
        last: dict[str, torch.Tensor] = {}

        def keep_latents(_: Any, __: int, ___: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            last.update(tensors)
            return {}

        made = self.pipeline(
            asked.text.prompt,
            guides=[Guide(picture, frame) for frame, picture in guides.items()],
            negative_prompt=asked.text.negative if asked.recipe.guidance > 1 else None,
            width=self.size_px[0],
            height=self.size_px[1],
            num_frames=self.num_frames,
            fps=self.fps,
            num_inference_steps=steps or asked.recipe.steps,
            guidance_scale=asked.recipe.guidance,
            shift=asked.recipe.shift,
            fit=asked.request.fit,
            snap=asked.request.snap,
            generator=runtime.generator(seed),
            callback_on_step_end=keep_latents,
            callback_on_step_end_tensor_inputs=["latents"],
            output_type="np",
            **controls,
        )
        frames_THWC = np.rint(np.asarray(made.frames[0]) * 255).astype(np.uint8)
        return frames_THWC, last["latents"][0].float().cpu().numpy()

    def encode(self, frames_THWC: Frames) -> NDArray[np.float32]:
        """Normalised latents [C, F, Y, X]."""
        return self.codec.encode(to_float_CTHW(frames_THWC)[None])[0].float().cpu().numpy()

    @torch.no_grad()
    def decode(self, latent_CFYX: NDArray[np.float32], guides: dict[int, NDArray[np.uint8]] | None = None) -> Frames:
        """Frames of latents; with guides, through the decoder that sees them, where the checkpoint has one."""
        video_BCTHW = self.codec.decode(torch.from_numpy(latent_CFYX)[None])
        if guides and self.pipeline.guide_decoder is not None:
            reference_BCTHW, keep_BTHW = torch.zeros_like(video_BCTHW), torch.zeros_like(video_BCTHW[:, 0])
            for frame, picture in guides.items():
                reference_BCTHW[0, :, frame] = to_float_CTHW(picture[None])[:, 0]
                keep_BTHW[0, frame] = 1
            video_BCTHW = self.pipeline.guide_decoder.refine(video_BCTHW, reference_BCTHW, keep_BTHW)
        return to_uint8_THWC(video_BCTHW[0])

    def _resolved(self, prompt: str, guides: dict[int, NDArray[np.uint8]]) -> ResolvedRequest:
        """What `anisora generate --prompt ... --guide ...` resolves to, size and length being the clip's."""
        with tempfile.TemporaryDirectory() as scratch:
            files = []
            for frame, picture in guides.items():
                path = Path(scratch) / f"{frame}.png"
                Image.fromarray(picture).save(path)
                files.append(Guide(str(path), frame))
            request = Request(
                prompt=prompt, guides=tuple(files), size=self.size_px, frames=self.num_frames, fps=Fraction(self.fps)
            )
            return resolve(request, self.info, self.weights_sha256)


def make_record(checkpoint: Checkpoint, seed: int, code: linear_code.LinearCode) -> ClipRecord:
    """Every arm of one clip. Even seeds draw what training may see, odd ones what is reserved for measuring."""
    start = time.perf_counter()
    split = ("seen", "reserved")[seed % 2]
    clip = render(checkpoint, seed, split=split, truth=True)
    truth, prompt = clip.video_THWC, clip.caption
    first, middle, last = 0, checkpoint.num_frames // 2, checkpoint.num_frames - 1
    ends = {first: truth[first], last: truth[last]}
    area_HW = motion_area(clip.truth)
    seconds: dict[str, float] = {}
    arms: dict[str, Frames] = {"truth": truth, "pca": code.reconstruct(truth)}
    latents = {"truth": checkpoint.encode(truth)}

    def shoot(arm: str, guides: dict[int, NDArray[np.uint8]], **options: Any) -> None:
        begin = time.perf_counter()
        arms[arm], latents[arm] = checkpoint.shot(prompt, guides, seed, **options)
        seconds[arm] = time.perf_counter() - begin

    shoot("model", ends)
    shoot("model_one_step", ends, steps=1)
    shoot("three_guides", {**ends, middle: truth[middle]})
    only_first = {first: truth[first]}
    mask = area_HW.astype(np.float32)
    has_area = bool(area_HW.any())
    shoot("mask_composited", only_first, **({"motion_mask": mask} if has_area else {}))
    shoot("mask_raw", only_first, **({"motion_mask": mask, "composite": False} if has_area else {}))
    shoot("no_control", only_first)

    arms["vae"] = checkpoint.decode(latents["truth"])
    arms["vae_guided"] = checkpoint.decode(latents["truth"], ends)
    arms["cross_fade"] = baselines.cross_fade(ends, checkpoint.num_frames)
    arms["flow_warp"] = baselines.flow_warp(ends, checkpoint.num_frames)
    latents |= {arm: checkpoint.encode(arms[arm]) for arm in ("cross_fade", "flow_warp")}
    latents |= dict.fromkeys(("vae_cross_fade", "guided_cross_fade"), latents["cross_fade"])
    arms["vae_cross_fade"] = checkpoint.decode(latents["cross_fade"])
    arms["guided_cross_fade"] = checkpoint.decode(latents["cross_fade"], ends)
    seconds["clip"] = time.perf_counter() - start
    about = {
        "seed": seed,
        "split": split,
        "caption": prompt,
        "action": clip.action,
        "style": clip.style,
        "camera": clip.camera,
        "num_frames": len(truth),
        "fps": checkpoint.fps,
        "guides": {"model": [first, last], "three_guides": [first, middle, last], "no_control": [first]},
        "seconds": seconds,
        "peak_rss_bytes": runtime.peak_rss_bytes(),
    }
    foreground_THW = clip.truth.foreground_THW
    return ClipRecord(about=about, arms=arms, foreground_THW=foreground_THW, area_HW=area_HW, latents=latents)


def render(checkpoint: Checkpoint, seed: int, index: int = 0, **options: Any) -> Any:
    """A synthetic clip of the checkpoint's size, length, rate and corpus."""
    return synthetic.render_clip(
        seed,
        index,
        n_frames=checkpoint.num_frames,
        fps=checkpoint.fps,
        size_px=checkpoint.size_px,
        version=checkpoint.corpus_version,
        **options,
    )


def motion_area(truth: synthetic.Truth) -> NDArray[np.bool_]:
    """Where the largest character (or thing, without one) is at any time, grown by a margin: [H, W]."""
    import cv2

    owners = [owner for owner in np.unique(truth.ids_THW[truth.foreground_THW]) if owner > 0]
    if not owners:
        return np.zeros(truth.ids_THW.shape[1:], bool)
    characters = [owner for owner in owners if owner < FIRST_OBJECT]
    largest = max(characters or owners, key=lambda owner: int((truth.ids_THW == owner).sum()))
    union_HW = (truth.ids_THW == largest).any(axis=0).astype(np.uint8)
    side = 2 * AREA_MARGIN_PX + 1
    return cv2.dilate(union_HW, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0


def linear_code_for(checkpoint: Checkpoint) -> linear_code.LinearCode:
    """The best linear code of the VAE's rate, fitted on training clips; cached, as it depends on no weights."""
    strides, channels = checkpoint.codec.strides, checkpoint.codec.channels
    key = {
        "corpus": checkpoint.corpus_version,
        "clips": LINEAR_CODE_CLIPS,
        "channels": channels,
        "strides": [strides.temporal, strides.spatial],
        "shot": [*checkpoint.size_px, checkpoint.num_frames, checkpoint.fps],
    }
    path = cache_folder().parent / "linear_codes" / f"{content_hash(key)[:16]}.npz"
    if path.exists():
        with np.load(path) as file:
            mean, basis = file["mean"], file["basis"]
        return linear_code.LinearCode(mean=mean, basis=basis, temporal=strides.temporal, spatial=strides.spatial)
    seed = synthetic.TRAIN_SEEDS.start
    videos = (render(checkpoint, seed, index).video_THWC for index in range(LINEAR_CODE_CLIPS))
    code = linear_code.fit(videos, channels, strides.temporal, strides.spatial)
    write_atomic(path, lambda partial: np.savez(partial, mean=code.mean, basis=code.basis))
    return code
