"""The rows of `ablations.py`: what each strategy should do, how that is measured, and how its arms are trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ablation_measures import Measure, illustration_distance, in_between_distance, leakage, marks
from checkpoint_shots import Checkpoint, render
from looks import LOOKS
from PIL import Image

from anisora import geometry, synthetic
from anisora.media.writer import write_video


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the arms of a row have in common: the measured size, length and rate, the clips' folder, their number, the steps."""

    like: Checkpoint
    folder: Path
    num_clips: int
    steps: int

    def clips(self, look: str = "drawn") -> str:
        """The folder of training clips in a look."""
        return str(training_clips(self.folder / f"clips-{look}", self.like, self.num_clips, look))

    def stills(self, look: str) -> str:
        """A folder of stills in a look: the middle frame of each training clip."""
        return str(training_stills(self.folder / f"stills-{look}", self.like, self.num_clips, look))

    def data(self) -> dict[str, Any]:
        """What an arm is shown unless it says otherwise: the drawn clips at the size and length that is measured."""
        like = self.like
        shown = {"sizes": [list(like.size_px)], "frames": [like.num_frames], "fps": float(like.fps)}
        return {"videos": self.clips(), "batch": 4, "workers": 1, **shown}

    @property
    def tokens(self) -> int:
        """Video tokens of a clip as it is measured."""
        return self._tokens(self.like.size_px, self.like.num_frames)

    def weak(self) -> tuple[dict[str, Any], int]:
        """(the data of clips at about half the side and half the rate, video tokens of one)."""
        strides, size = self.like.info.strides, half_size(self.like)
        frames = (self.like.num_frames - 1) // 2 // strides.temporal * strides.temporal + 1
        data = {"sizes": [list(size)], "frames": [frames], "fps": self.like.fps / 2}
        return data, self._tokens(size, frames)

    def _tokens(self, size_px: tuple[int, ...], num_frames: int) -> int:
        from anisora.training.data import tokens_of

        return tokens_of(self.like.info.strides, (size_px[0], size_px[1]), num_frames)


def half_size(like: Checkpoint) -> tuple[int, int]:
    """About half the measured side, in px."""
    side = like.info.strides.size_multiple_px
    width, height = (max(side, length // 2 // side * side) for length in like.size_px)
    return width, height


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one arm is trained: a config, and fields laid over it that depend on the setting; None is the base as it is.

    `sampler_of_student` has the arm sampled as a few-step student of that many steps is; `makes_small` has it make shots at
    half the side.
    """

    config: dict[str, Any] | None
    sampler_of_student: int | None = None
    makes_small: bool = False
    more: Callable[[Setting], dict[str, Any]] = lambda setting: {}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy: what it should do, how that is measured, and the arms with and without it.

    `controls` are further arms without it, for other things that the difference could come from. `base(setting, checkpoint)`
    makes the checkpoint that the arms start from, where the one given knows already what the strategy teaches.
    """

    claim: str
    measure: Measure
    unit: str
    is_lower_better: bool
    on: Arm
    off: Arm
    recipe: dict[str, Any] = field(default_factory=dict)
    controls: dict[str, Arm] = field(default_factory=dict)
    base: Callable[[Setting, str], str] | None = None

    @property
    def arms(self) -> dict[str, Arm]:
        """By name, in the order in which they are made."""
        return {"on": self.on, "off": self.off, **self.controls}


def with_masks(setting: Setting) -> dict[str, Any]:
    """Video-mask pairs of the training clips."""
    from anisora.training.masks import build_masks

    pairs = setting.folder / "pairs"
    build_masks([Path(setting.clips())], pairs)
    return {"data": {"pairs": str(pairs)}}


def without_areas(setting: Setting, checkpoint: str) -> str:
    """The checkpoint, trained until motion areas mean nothing to it: they are given, and what lies outside of them moves as
    it does in the clip. The bundled weights hold areas so well that a LoRA has nothing to teach them."""
    from unittest.mock import patch

    from anisora.training import finetune
    from anisora.training.backbone import Backbone

    config = {
        "method": "full",
        "model": checkpoint,
        "output": str(setting.folder / "base"),
        "data": setting.data(),
        "conditions": {"motion_area_prob": 0.9},
        "loop": {"steps": setting.steps, **WHOLE_LOOP},
    }
    with patch.object(Backbone, "target", lambda backbone, video_BCTHW, plans: backbone.codec.encode(video_BCTHW)):
        return str(finetune.main(finetune.load_config(config, "ablation")))


def with_stills(look: str) -> Callable[[Setting], dict[str, Any]]:
    """A fifth of the steps show stills of a look, none of the clips has it."""
    return lambda setting: {"data": {"images": setting.stills(look), "image_share": 0.2}}


def from_weak_to_strong(setting: Setting) -> dict[str, Any]:
    """Half of the video tokens on small clips at half the rate, then half of them as measured."""
    weak, tokens = setting.weak()
    strong_steps = math.ceil(setting.steps / 2)
    weak_steps = max(1, geometry.round_half_up((setting.steps - strong_steps) * Fraction(setting.tokens, tokens)))
    return {"stages": {"weak": {"steps": weak_steps, "data": weak}, "strong": {"steps": strong_steps}}}


def small(setting: Setting) -> dict[str, Any]:
    """Clips at half the side, at full length and rate."""
    return {"data": {"sizes": [list(half_size(setting.like))]}}


def in_look(look: str) -> Callable[[Setting], dict[str, Any]]:
    """Training clips in another look."""
    return lambda setting: {"data": {"videos": setting.clips(look)}}


def subtitled_then(last: str) -> Callable[[Setting], dict[str, Any]]:
    """Clips with burnt-in subtitles for half of the steps, then clips in the look `last`."""

    def stages(setting: Setting) -> dict[str, Any]:
        first_steps = max(1, setting.steps // 2)
        return {
            "stages": {
                "first": {"steps": first_steps, "data": {"videos": setting.clips("subtitled")}},
                "last": {"steps": max(1, setting.steps - first_steps), "data": {"videos": setting.clips(last)}},
            }
        }

    return stages


def all_of(*parts: Callable[[Setting], dict[str, Any]]) -> Callable[[Setting], dict[str, Any]]:
    """The fields of several, laid over each other; those of `data` too."""

    def fields(setting: Setting) -> dict[str, Any]:
        laid: dict[str, Any] = {}
        for part in parts:
            more = part(setting)
            laid |= {**more, "data": {**laid.get("data", {}), **more.get("data", {})}}
        return laid

    return fields


#: A look that the base has not seen: what a strategy is for shows where there is something to learn.
NEW_LOOK = "pencil"

LORA = {"method": "lora", "lora": {"rank": 16}, "loop": {"learning_rate": 5e-4, "warmup_steps": 20}}
#: for all weights, where LORA is for adapters
WHOLE_LOOP = {"learning_rate": 2e-4, "warmup_steps": 20}


def student_arm(*, own_share: float) -> Arm:
    """A student of 8 steps; its controls see as many clips at the same learning rate."""
    return Arm(config={"method": "distill", "student": {"steps": 8, "own_share": own_share}, "loop": WHOLE_LOOP})


#: a new look learned and made at half the side
SMALL = Arm(config=LORA, more=all_of(in_look(NEW_LOOK), small), makes_small=True)

ROWS = {
    "mask-strategy": Row(
        claim="guides drawn at any frame teach in-betweening of a new look; frame 0 alone does not",
        measure=in_between_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=in_look(NEW_LOOK)),
        off=Arm(config={**LORA, "conditions": {"first_prob": 1.0}}, more=in_look(NEW_LOOK)),
    ),
    "motion-lora": Row(
        claim="a LoRA on video-mask pairs teaches a base that ignores areas to keep what lies outside of them still",
        measure=leakage("drawn"),
        unit="change outside of the area over change inside",
        is_lower_better=True,
        on=Arm(config={**LORA, "conditions": {"motion_area_prob": 0.9}}, more=with_masks),
        off=Arm(config={**LORA, "conditions": {"first_prob": 1.0}}),
        base=without_areas,
    ),
    "few-step": Row(
        claim="at 8 steps and guidance 1 the student is nearer to the truth than its teacher",
        measure=in_between_distance("drawn"),
        unit="perceptual distance",
        is_lower_better=True,
        on=student_arm(own_share=1.0),
        off=Arm(config=None),
        recipe={"steps": 8, "guidance": 1.0, "guidance_2": None},
        controls={
            "teacher by the student's sampler": Arm(config=None, sampler_of_student=8),
            "teacher trained on, not distilled": Arm(config={"method": "full", "loop": WHOLE_LOOP}),
            "student of the teacher's steps alone": student_arm(own_share=0.0),
        },
    ),
    "image-video": Row(
        claim="stills of a look among the clips teach to move illustrations in it",
        measure=illustration_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=with_stills(NEW_LOOK)),
        off=Arm(config=LORA),
    ),
    "weak-to-strong": Row(
        claim="small clips at a low rate first teach a new look better than the same number of tokens at full size and rate",
        measure=in_between_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=all_of(in_look(NEW_LOOK), from_weak_to_strong)),
        off=Arm(config=LORA, more=in_look(NEW_LOOK)),
    ),
    "resolution": Row(
        claim="learned and made at full size, a new look keeps the detail that it loses at half the side",
        measure=in_between_distance(NEW_LOOK),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA, more=in_look(NEW_LOOK)),
        off=SMALL,
        controls={"learned at half the side, made at full size": replace(SMALL, makes_small=False)},
    ),
    "resolution-shrunk": Row(
        claim="learned and made at full size, a new look holds together better, sharpness apart",
        measure=in_between_distance(NEW_LOOK, at_half=True),
        unit="perceptual distance at half the side",
        is_lower_better=True,
        on=Arm(config=LORA, more=in_look(NEW_LOOK)),
        off=SMALL,
    ),
    "2d-3d": Row(
        claim="drawn clips teach to move drawings; as many of the same clips with rounded, lit bodies do not",
        measure=in_between_distance("drawn"),
        unit="perceptual distance",
        is_lower_better=True,
        on=Arm(config=LORA),
        off=Arm(config=LORA, more=in_look("volumes")),
    ),
    "subtitle-free": Row(
        claim="a last stage on clips without subtitles takes what they left out of the shots",
        measure=marks,
        unit="error where a subtitle would stand, grey levels",
        is_lower_better=True,
        on=Arm(config=LORA, more=subtitled_then("drawn")),
        off=Arm(config=LORA, more=subtitled_then("subtitled")),
    ),
}


def training_clips(folder: Path, checkpoint: Checkpoint, count: int, look: str) -> Path:
    """A folder of `count` clips with captions at the checkpoint's size and rate, from the seeds for training."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in itertools.islice(synthetic.TRAIN_SEEDS, count):
        path = folder / f"{seed:06d}.mp4"
        if not path.with_suffix(".txt").exists():  # written last
            clip = render(checkpoint, seed, split="train", truth=True)
            write_video(path, LOOKS[look](clip), checkpoint.fps)
            path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")
    return folder


def training_stills(folder: Path, checkpoint: Checkpoint, count: int, look: str) -> Path:
    """A folder of the middle frames of those clips with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in itertools.islice(synthetic.TRAIN_SEEDS, count):
        path = folder / f"{seed:06d}.png"
        if not path.with_suffix(".txt").exists():
            clip = render(checkpoint, seed, split="train", truth=True)
            Image.fromarray(LOOKS[look](clip)[checkpoint.num_frames // 2]).save(path)
            path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")
    return folder
