"""Procedural cartoon clips with exact ground truth: the corpus of the bundled model and the answer key of its judges.

rig (`pose`, `person`, `actions` with `handling`, `duets` and `feelings`, `rig`) -> display list (`costume`, `scenery`,
`things`, `display`) -> pixels (`draw_skia`, `draw_pillow`, `finish`); `plan` chooses from the tables of a version
(`versions`), `captions` tells, `truth` knows. Everything follows from (version, seed, index, split).
"""

from anisora.synthetic.actions import ACTIONS
from anisora.synthetic.camera import CAMERAS
from anisora.synthetic.captions import caption
from anisora.synthetic.clip import SyntheticClip, flows_between, render_clip, render_ids, render_plan
from anisora.synthetic.parts import RESERVED
from anisora.synthetic.plan import (
    HELD_OUT_SEEDS,
    RESERVED_COMBINATIONS,
    SPLITS,
    STYLES,
    TRAIN_SEEDS,
    ClipPlan,
    may_take_up,
    plan_clip,
    taken_up,
    whole_body_actions,
)
from anisora.synthetic.rig import JOINTS
from anisora.synthetic.truth import Truth
from anisora.synthetic.versions import CORPUS_VERSION, TRAINED_VERSION, VERSIONS

__all__ = [
    "ACTIONS",
    "CAMERAS",
    "CORPUS_VERSION",
    "HELD_OUT_SEEDS",
    "JOINTS",
    "RESERVED",
    "RESERVED_COMBINATIONS",
    "SPLITS",
    "STYLES",
    "TRAINED_VERSION",
    "TRAIN_SEEDS",
    "VERSIONS",
    "ClipPlan",
    "SyntheticClip",
    "Truth",
    "caption",
    "flows_between",
    "may_take_up",
    "plan_clip",
    "render_clip",
    "render_ids",
    "render_plan",
    "taken_up",
    "whole_body_actions",
]
