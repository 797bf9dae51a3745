"""Renders one clip of the corpus: a pure function of its arguments."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from anisora.errors import BadConfig, MissingExtra
from anisora.synthetic.captions import caption
from anisora.synthetic.finish import finished
from anisora.synthetic.plan import DRAWING_RATES, ClipPlan, plan_clip
from anisora.synthetic.scene import Moment, Scene
from anisora.synthetic.truth import Truth, flow_HW2, ids_HW, truth
from anisora.synthetic.versions import CORPUS_VERSION

BACKENDS = {
    "skia": ("skia", "anisora.synthetic.draw_skia", "SkiaBackend"),
    "pillow": ("PIL", "anisora.synthetic.draw_pillow", "PillowBackend"),
}
"""name: (the package it needs, our module, its class); the first that is installed is the default."""


@dataclass(frozen=True, kw_only=True)
class SyntheticClip:
    """A rendered clip and what is known about it."""

    video_THWC: np.ndarray
    """uint8 RGB."""
    fps: Fraction
    caption: str
    action: str
    style: str
    camera: str
    character: str
    """Identity of the characters: equal strings look the same."""
    reserved: bool
    truth: Truth | None

    def __repr__(self) -> str:
        return f"SyntheticClip({self.video_THWC.shape}, {self.fps} fps, {self.caption!r})"


def render_clip(
    seed: int,
    index: int,
    *,
    split: str = "train",
    n_frames: int = 17,
    fps: Fraction | int = 8,
    size_px: tuple[int, int] = (96, 96),
    truth: bool = False,
    backend: str | None = None,
    version: int = CORPUS_VERSION,
) -> SyntheticClip:
    """Clip `index` of a seed. Frames sample one continuous story: 17 at 8 fps are every second of 33 at 16 fps.

    `size_px` is (width, height). `truth` adds the answer key. `backend` is "skia" or "pillow", by default the first of
    them that is installed. Raises BadConfig for a size, length, rate, split, seed or version that cannot be, MissingExtra
    for a backend that is not installed.
    """
    fps = Fraction(fps)
    if n_frames < 1 or fps <= 0 or min(size_px) < 8:
        raise BadConfig(
            "such a clip cannot be drawn",
            got=f"{n_frames} frames at {fps} fps of {size_px[0]}x{size_px[1]}",
            expected="at least 1 frame, a rate above 0, 8x8 pixels or more",
        )
    return render_plan(plan_clip(seed, index, split, version), n_frames, fps, size_px, truth, backend)


def render_plan(
    plan: ClipPlan,
    n_frames: int,
    fps: Fraction,
    size_px: tuple[int, int],
    with_truth: bool = False,
    backend: str | None = None,
) -> SyntheticClip:
    """A plan as a clip; `render_clip` is this of a plan made by `plan_clip`."""
    painter = _backend(backend)(*size_px)
    scene = Scene(plan, *size_px)
    moments = [scene.moment(i, i / fps) for i in range(n_frames + with_truth)]
    return SyntheticClip(
        video_THWC=_pictures(painter, plan, moments[:n_frames]),
        fps=fps,
        caption=caption(plan),
        action=plan.action,
        style=plan.style,
        camera=plan.view.camera,
        character="+".join(p.character.id for p in plan.people),
        reserved=plan.is_reserved,
        truth=truth(moments, painter, DRAWING_RATES[plan.drawing] or fps) if with_truth else None,
    )


def _pictures(painter: Any, plan: ClipPlan, moments: list[Moment]) -> np.ndarray:
    """The frames, uint8 [T, H, W, 3], drawn and finished."""
    rng = np.random.default_rng(np.random.SeedSequence((plan.rng_seed, 6)))
    return finished(np.stack([painter.draw(m.frame) for m in moments]), plan.finish, plan.mood, rng)


def flows_between(
    plan: ClipPlan,
    pairs: list[tuple[int, int]],
    fps: Fraction | int,
    size_px: tuple[int, int],
    backend: str | None = None,
) -> np.ndarray:
    """Exact flow of a plan between any two frames: float32 [pairs, H, W, 2], for each pixel of a pair's first frame how far
    away (x, y in px) in its second frame lies what it shows, in view there or not."""
    painter = _backend(backend)(*size_px)
    scene = Scene(plan, *size_px)
    moments = {t: scene.moment(t, t / Fraction(fps)) for t in sorted({t for pair in pairs for t in pair})}
    owners = {t: painter.owners(moments[t].frame) for t in {t for t, _ in pairs}}
    return np.stack([flow_HW2(owners[t], moments[t], moments[to]) for t, to in pairs]).astype(np.float32)


def _backend(name: str | None) -> type:
    if name is None:
        name = next(n for n, (package, _, _) in BACKENDS.items() if importlib.util.find_spec(package))
    if name not in BACKENDS:
        raise BadConfig("unknown drawing backend", got=name, expected=" or ".join(BACKENDS))
    package, module, cls = BACKENDS[name]
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"the {name} backend is not installed", hint="pip install 'anisora[render]'")
    return getattr(importlib.import_module(module), cls)


def render_ids(
    plan: ClipPlan, n_frames: int, fps: Fraction | int, size_px: tuple[int, int], backend: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a plan, uint8 [T, H, W, 3], and `Truth.ids_THW` of them, without what else truth costs."""
    painter = _backend(backend)(*size_px)
    scene = Scene(plan, *size_px)
    moments = [scene.moment(t, t / Fraction(fps)) for t in range(n_frames)]
    ids_THW = np.stack([ids_HW(painter.owners(m.frame), m) for m in moments])
    return _pictures(painter, plan, moments), ids_THW
