"""From what was asked to what will be made: every open field filled in, everything checked, one hash for the whole.

`resolve(request, info)` needs the checkpoint's description only, no weights and no torch, so bad input is told before
anything slow starts. What is left open comes from the checkpoint and its recipe; what cannot be made is refused with
the nearest that can.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from anisora import geometry, settings
from anisora.errors import BadImage, BadInput, BadMask, BadRequest, BadVideo
from anisora.files import existing_file, sha256_file
from anisora.generation import prompts, recipes
from anisora.models.checkpoint import CheckpointInfo, Recipe
from anisora.records import Request
from anisora.store import content_hash


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """A request with nothing left open, on one checkpoint.

    guide_frames: the pixel frame of each guide; text: what the encoder reads; recipe: how it is sampled;
    inputs: path -> sha256 of every file it uses; request_hash: see `hash_of`; notes: things worth saying once.
    """

    request: Request
    info: CheckpointInfo
    recipe: Recipe
    text: prompts.PromptText
    guide_frames: tuple[int, ...]
    inputs: dict[str, str]
    weights_sha256: str
    request_hash: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        assert self.request.size
        return self.request.size

    @property
    def num_frames(self) -> int:
        assert self.request.frames
        return self.request.frames

    @property
    def fps(self) -> Fraction:
        assert self.request.fps
        return self.request.fps


def resolve(request: Request, info: CheckpointInfo, weights_sha256: str) -> ResolvedRequest:
    """The request with every field filled in for the checkpoint `info`, whose weights have the hash `weights_sha256`.

    Raises BadRequest, BadSize, BadPosition, BadImage or BadVideo, each naming what would do instead.
    """
    _check_capabilities(request, info)
    recipe = recipes.choose(request, info.recipe)
    fps = _fps(request, info)
    frames = _frames(request, info, fps)
    text = prompts.compose(
        request, info.family, motion_score_range=info.motion_score_range, negative_prompt=info.negative_prompt
    )
    if recipe.guidance <= 1 and request.negative_prompt is None:
        text = replace(text, negative="")  # one forward a step: nothing reads it
    window = request.window or min(frames, _legal_window(info))
    geometry.check_num_frames(window, info.frame_multiple)
    filled = replace(
        request,
        negative_prompt=text.negative,
        size=_size(request, info),
        frames=frames,
        fps=fps,
        steps=recipe.steps,
        guidance=recipe.guidance,
        shift=recipe.shift,
        motion_score=text.motion_score,
        aesthetic_score=text.aesthetic_score,
        recipe=request.recipe or "default",
        window=min(window, frames),
        snap=request.snap or ("anisora" if info.snap == "anisora" else "exact"),
    )
    inputs = {path: _content_sha256(path, what, error) for path, what, error in _inputs(filled)}
    return ResolvedRequest(
        request=filled,
        info=info,
        recipe=recipe,
        text=text,
        guide_frames=_guide_frames(filled, info),
        inputs=inputs,
        weights_sha256=weights_sha256,
        request_hash=hash_of(filled, inputs, weights_sha256),
        notes=(*recipes.misfits(recipe, info.recipe), *_text_notes(request, recipe, text, info)),
    )


def hash_of(request: Request, inputs: dict[str, str], weights_sha256: str) -> str:
    """sha256 of the canonical JSON of a resolved request: contents in place of paths, without `out`.

    Moving or renaming a file changes nothing; changing its content, or any field, changes the hash.
    """
    fields: dict[str, Any] = settings.plain(request)
    fields.pop("out")
    fields["model"] = weights_sha256
    for entry, name in ((fields, "motion_mask"), (fields, "video"), (fields, "keep_mask")):
        entry[name] = inputs[entry[name]] if entry[name] else None
    for guide in fields["guides"]:
        guide["image"] = inputs[guide["image"]]
    for lora in fields["lora"]:
        lora["path"] = inputs[lora["path"]]
    return content_hash(fields)


def _check_capabilities(request: Request, info: CheckpointInfo) -> None:
    needs = {"guides": request.guides, "motion_area": request.motion_mask, "keep_video": request.video}
    for capability, asked in needs.items():
        if asked and capability not in info.capabilities:
            raise BadRequest(
                f"the model {info.name} cannot use this",
                got=capability.replace("_", " "),
                expected=" or ".join(info.capabilities).replace("_", " "),
                hint="another --model (see `anisora models list`)",
            )


def _fps(request: Request, info: CheckpointInfo) -> Fraction:
    """The rate asked for, else the video's, else the checkpoint's."""
    if request.fps is not None:
        return request.fps
    if request.video:
        from anisora.media.reader import probe

        return probe(request.video).fps
    return Fraction(str(info.native.fps))


def _frames(request: Request, info: CheckpointInfo, fps: Fraction) -> int:
    """The number of frames asked for, else as many of the video's as are legal, else the checkpoint's. Raises BadSize."""
    stride = info.frame_multiple
    if request.frames is not None:
        geometry.check_num_frames(request.frames, stride)
        return request.frames
    if request.video:
        from anisora.media.reader import probe

        found = probe(request.video)
        length = geometry.round_half_up(found.num_frames / found.fps * fps)
        return max(0, length - 1) // stride * stride + 1
    return info.native.frames


def _legal_window(info: CheckpointInfo) -> int:
    geometry.check_num_frames(info.native.frames, info.frame_multiple)
    return info.native.frames


def _size(request: Request, info: CheckpointInfo) -> tuple[int, int]:
    """The size asked for, else the checkpoint's pixel area at the aspect of the earliest-listed guide or the video."""
    multiple = info.strides.size_multiple_px
    if request.size is not None:
        geometry.check_size(request.size, multiple)
        return request.size
    width, height = info.native.size
    aspect = _aspect(request)
    return (width, height) if aspect is None else geometry.size_for_aspect(aspect, width * height, multiple)


def _aspect(request: Request) -> Fraction | None:
    if request.guides:
        from anisora.media.image import load_image

        width, height = load_image(request.guides[0].image).size
        return Fraction(width, height)
    if request.video:
        from anisora.media.reader import probe

        found = probe(request.video)
        return Fraction(found.width_px, found.height_px)
    return None


def _guide_frames(request: Request, info: CheckpointInfo) -> tuple[int, ...]:
    """The pixel frame of each guide. Raises BadPosition for one outside the shot or two in one place."""
    assert request.frames is not None
    assert request.fps is not None
    frames = [geometry.resolve_position(guide.frame, request.frames, request.fps) for guide in request.guides]
    if request.snap == "anisora":
        frames = [geometry.snap_to_eighth(frame, request.frames) for frame in frames]
    if len(frames) > 1:
        from anisora.conditioning.checks import check_apart

        check_apart(frames, [guide.frame for guide in request.guides], info.strides, info.family)
    return tuple(frames)


def _inputs(request: Request) -> Iterator[tuple[str, str, type[BadInput]]]:
    """(path, what it is, what is raised if it cannot be read) of every file that a request uses."""
    yield from ((str(guide.image), "the guide", BadImage) for guide in request.guides)
    for name, error in (("motion_mask", BadMask), ("video", BadVideo), ("keep_mask", BadMask)):
        if path := getattr(request, name):
            yield path, f"the {name.replace('_', ' ')}", error
    yield from ((lora.path, "the low-rank weights", BadRequest) for lora in request.lora)


def _content_sha256(path: str, what: str, error: type[BadInput]) -> str:
    """The hash of a file, or of all files under a folder in the order of their names (a picture sequence)."""
    if os.path.isdir(path):
        names = sorted(str(entry.relative_to(path)) for entry in Path(path).rglob("*") if entry.is_file())
        return content_hash({name: sha256_file(os.path.join(path, name)) for name in names})
    return sha256_file(existing_file(path, error, what))


def _text_notes(request: Request, recipe: Recipe, text: prompts.PromptText, info: CheckpointInfo) -> Iterator[str]:
    if request.negative_prompt and recipe.guidance <= 1:
        yield f"the negative prompt has no effect at guidance {recipe.guidance:g}"
    if text.motion_score is not None and info.motion_score_range:
        low, high = info.motion_score_range
        if not low <= text.motion_score <= high:
            yield f"motion score {text.motion_score:g} lies outside the {low:g} to {high:g} this model was trained with"
