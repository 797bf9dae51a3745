"""Chooses everything about a clip from (version, seed, index, split), before a single pixel: who, what, where, how drawn.

The splits are laws kept here. "train" and "seen" share one distribution: no RESERVED combination of action, style and
camera, no reserved character part. "reserved" clips hold one or the other. Training and held-out seeds never
meet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from anisora.errors import BadConfig
from anisora.synthetic.actions import ACTIONS, TRAVELLING, travel_speed
from anisora.synthetic.camera import CAMERAS, FRAMINGS, View
from anisora.synthetic.duets import PLACES, is_duet
from anisora.synthetic.finish import Finish, draw_finish
from anisora.synthetic.parts import BUILDS, choose, draw_character
from anisora.synthetic.person import EMOTIONS, Person
from anisora.synthetic.scenery import BACKGROUNDS, MOODS
from anisora.synthetic.things import EFFECTS
from anisora.synthetic.versions import CORPUS_VERSION, VERSIONS

Builds = tuple[str, ...]

TRAIN_SEEDS = range(1000)
HELD_OUT_SEEDS = range(1000, 2**31)
SPLITS = {"train": 0, "seen": 1, "reserved": 2}

STYLES = ("flat", "line", "cel", "painted")
# On ones nothing is held; twos and threes are counted at film speed, 24 frames a second.
DRAWING_RATES: dict[str, Fraction | None] = {"ones": None, "twos": Fraction(12), "threes": Fraction(8)}

# Lively actions, held back: two seconds at 8 frames a second must still read from drawing to drawing.
_PACE = {"dance": 0.65, "jump": 0.75, "cheer": 0.65, "run": 0.75, "skip": 0.8, "shake_head": 0.8}
_TOGETHER = ("talk", "wave", "nod", "clap", "cheer", "laugh", "shake_head", "dance", "bow", "jump")

# The thing that an action is done with, or that it leaves in the air.
_THINGS = {
    "bounce_ball": "ball", "eat": "food", "drink": "cup", "push": "crate", "throw": "thrown ball", "pick_up": "picked ball",
    "fight": "blows", "high_five": "spark", "sleep": "snooze",
}  # fmt: skip
# How far from the middle somebody stands who needs room on the side it faces, in character heights.
_ROOM = {"push": 0.3, "throw": 0.28, "pick_up": 0.1, "point": 0.06}
# Feelings that suit an action; a face that changes starts from none.
_GLAD = ("dance", "cheer", "clap", "laugh", "skip", "wave", "spin")
_FEELINGS = {
    "eat": ("happy", "calm"), "drink": ("happy", "calm"), "push": ("determined", "calm"), "cry": ("sad",),
    "sleep": ("calm",), "yawn": ("calm",), "fight": ("angry", "determined"), "hug": ("happy", "calm"),
    "high_five": ("happy", "excited"), "blink": ("calm", "happy"), "surprise": ("calm",), "brighten": ("calm",),
    "sadden": ("calm",), "anger": ("calm",),
}  # fmt: skip


def _is_reserved(action: str, style: str, camera: str) -> bool:
    digest = hashlib.sha256(f"anisora synthetic {action} {style} {camera}".encode()).digest()
    return digest[0] < 52


RESERVED_COMBINATIONS = frozenset((a, s, c) for a in ACTIONS for s in STYLES for c in CAMERAS if _is_reserved(a, s, c))
"""(action, style, camera) that never occur in training: about a fifth of all, chosen by a fixed hash."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Everything chosen about a clip."""

    version: int
    seed: int
    index: int
    split: str
    style: str
    people: tuple[Person, ...]
    framing: str
    view: View
    background: str
    mood: str
    item: str | None
    effect: str | None
    drawing: str
    finish: Finish
    rng_seed: int
    """For what is only decoration: where trees stand, which words a caption uses."""

    @property
    def action(self) -> str:
        return self.people[0].action

    @property
    def combinations(self) -> set[tuple[str, str, str]]:
        """(action, style, camera) of everybody in the clip."""
        return {(p.action, self.style, self.view.camera) for p in self.people}

    @property
    def shows_whole_body(self) -> bool:
        """True if somebody alone is seen as a whole body by a camera that stands still, and no thing tells the action."""
        alone = len(self.people) == 1 and self.item is None and self.effect is None
        return alone and self.framing == "full" and self.view.camera == "static"

    @property
    def is_reserved(self) -> bool:
        """True if anything in it is kept back from training."""
        return bool(self.combinations & RESERVED_COMBINATIONS) or self.has_reserved_part

    @property
    def has_reserved_part(self) -> bool:
        return any(p.character.has_reserved_part() for p in self.people)


def whole_body_actions(version: int = CORPUS_VERSION) -> tuple[str, ...]:
    """The actions of a version that clips which `shows_whole_body` can have, in the order of its table."""
    drawn = VERSIONS[version]
    seen_whole = (action for action in drawn.actions if "full" in drawn.framings.get(action, ("full",)))
    return tuple(action for action in seen_whole if action not in _THINGS and not is_duet(action))


def may_take_up(plan: ClipPlan) -> tuple[str, ...]:
    """The other actions that its only person may go over to, which can be seen of a whole body; in a plan that is not of the
    reserved split none that would make a reserved combination."""
    view = plan.style, plan.view.camera
    others = (action for action in whole_body_actions(plan.version) if action != plan.action)
    return tuple(a for a in others if plan.split == "reserved" or (a, *view) not in RESERVED_COMBINATIONS)


def taken_up(plan: ClipPlan, action: str) -> ClipPlan:
    """The plan in which its only person begins as it was drawn and goes over to another action at once: what a first frame
    and the prompt for another action ask for. The action starts from its beginning, so that only one thing can follow."""
    person = plan.people[0]
    is_travelling = action in TRAVELLING
    turned = person._replace(
        action=action,
        yaw=person.facing * (max if is_travelling else min)(abs(person.yaw), 0.85),
        tempo=person.tempo * _PACE.get(action, 1.0) / _PACE.get(person.action, 1.0),
        phase=0.0,
        stride=min(person.stride, _longest_step(action, plan.view.camera)),
        before=person,
    )
    return replace(plan, people=(turned, *plan.people[1:]))


def plan_clip(seed: int, index: int, split: str = "train", version: int = CORPUS_VERSION) -> ClipPlan:
    """The plan of clip `index` of a seed in a version of the corpus: the same arguments give the same plan.

    Raises BadConfig for an unknown version or split, a negative index, or a training clip asked of a held-out seed (and
    the reverse for "seen").
    """
    _check(seed, index, split, version)
    rng = np.random.default_rng(np.random.SeedSequence((version, seed, index, SPLITS[split])))
    by_part = split == "reserved" and rng.random() < 0.5
    while True:
        plan = _draw(rng, version, seed, index, split, by_part)
        has_combination = bool(plan.combinations & RESERVED_COMBINATIONS)
        if split != "reserved" and not plan.is_reserved:
            return plan
        # A reserved clip is new in one way only, so that figures can be told apart.
        if split == "reserved" and plan.has_reserved_part == by_part and has_combination != by_part:
            return plan


def _check(seed: int, index: int, split: str, version: int) -> None:
    if version not in VERSIONS:
        known = " or ".join(map(str, VERSIONS))
        raise BadConfig("unknown version of the corpus", got=version, expected=known, hint=str(CORPUS_VERSION))
    if split not in SPLITS:
        raise BadConfig("unknown split", got=split, expected=" or ".join(SPLITS), hint="train")
    if index < 0 or seed < 0:
        raise BadConfig("a clip's seed and index count from 0", got=f"seed {seed}, index {index}", expected="0 or more")
    if split == "train" and seed not in TRAIN_SEEDS:
        raise BadConfig(
            "a held-out seed cannot give training clips",
            got=f"seed {seed}",
            expected=f"{TRAIN_SEEDS.start} to {TRAIN_SEEDS.stop - 1}",
            hint='split="seen" for held-out clips of the same kind',
        )
    if split == "seen" and seed not in HELD_OUT_SEEDS:
        raise BadConfig(
            "a training seed cannot give held-out clips",
            got=f"seed {seed}",
            expected=f"{HELD_OUT_SEEDS.start} or more",
            hint="seed 1000",
        )


def _draw(rng: np.random.Generator, version: int, seed: int, index: int, split: str, with_reserved: bool) -> ClipPlan:
    drawn = VERSIONS[version]
    action = choose(rng, drawn.actions, tuple(drawn.actions.values()))
    style = choose(rng, STYLES, (0.22, 0.2, 0.36, 0.22))
    camera = choose(rng, CAMERAS, (0.58, 0.16, 0.07, 0.07, 0.06, 0.06))
    together = is_duet(action) or (action in _TOGETHER and rng.random() < 0.24)
    framing = "full" if together else choose(rng, drawn.framings.get(action, ("full",)))
    people = _cast(rng, action, camera, together, with_reserved, drawn.builds)
    background = choose(rng, BACKGROUNDS)
    view = _view(rng, people, framing, camera)
    mood = _mood(rng, background)
    item = _item(rng, action, together, framing)
    effect = _effect(rng, action, background)
    drawing = choose(rng, DRAWING_RATES, (0.6, 0.12, 0.28))
    rng_seed = int(rng.integers(2**31))
    finish = draw_finish(np.random.default_rng(np.random.SeedSequence((rng_seed, 5))), drawn)
    aside = 0.0 if together else finish.aside * view.height
    return ClipPlan(
        version=version,
        seed=seed,
        index=index,
        split=split,
        style=style,
        people=people,
        framing=framing,
        view=view._replace(middle_x=-aside),
        background=background,
        mood=mood,
        item=item,
        effect=effect,
        drawing=drawing,
        finish=finish,
        rng_seed=rng_seed,
    )


def _cast(
    rng: np.random.Generator, action: str, camera: str, together: bool, with_reserved: bool, builds: Builds
) -> tuple[Person, ...]:
    if is_duet(action):
        return _duet(rng, action, with_reserved, builds)
    if together:
        return _two(rng, action, with_reserved, builds)
    return (_person(rng, action, camera, with_reserved, builds),)


def _person(rng: np.random.Generator, action: str, camera: str, with_reserved: bool, builds: Builds) -> Person:
    facing = 1 if rng.random() < 0.5 else -1
    person = Person(
        character=draw_character(rng, with_reserved, builds),
        action=action,
        emotion=_emotion(rng, action),
        x=0.0,
        facing=facing,
        yaw=facing * float(rng.uniform(0.85, 1.25) if action in TRAVELLING else rng.uniform(0.2, 0.85)),
        tempo=float(rng.uniform(0.45, 0.72)) * _PACE.get(action, 1.0),
        phase=float(rng.random()),
        energy=float(rng.uniform(0.8, 1.1)),
        stride=float(rng.uniform(0.8, 1.0)) * _longest_step(action, camera),
    )
    # In the middle of the picture in the middle of the two seconds.
    return person._replace(x=-(travel_speed(person) + facing * _ROOM.get(action, 0.0)))


def _longest_step(action: str, camera: str) -> float:
    """Followed by the camera one may take long steps; otherwise two seconds must fit into the picture."""
    return 0.235 if camera == "pan" else {"run": 0.115, "skip": 0.165}.get(action, 0.215)


def _emotion(rng: np.random.Generator, action: str) -> str:
    if action in _FEELINGS:
        return choose(rng, _FEELINGS[action])
    if action in _GLAD:
        return choose(rng, ("happy", "excited", "calm"), (0.5, 0.35, 0.15))
    return choose(rng, EMOTIONS, (0.3, 0.22, 0.1, 0.1, 0.08, 0.06, 0.07, 0.07))


def _two(rng: np.random.Generator, action: str, with_reserved: bool, builds: Builds) -> tuple[Person, ...]:
    """Two who stand side by side, turned towards each other."""
    other = choose(rng, _TOGETHER)
    left = _person(rng, action, "static", with_reserved, builds)
    right = _person(rng, other, "static", with_reserved, builds)
    apart = float(rng.uniform(0.27, 0.32))
    return (
        left._replace(x=-apart, facing=1, yaw=abs(left.yaw)),
        right._replace(x=apart, facing=-1, yaw=-abs(right.yaw)),
    )


def _duet(rng: np.random.Generator, action: str, with_reserved: bool, builds: Builds) -> tuple[Person, ...]:
    """Two who do something together, on one clock."""
    apart, behind = PLACES[action]
    left, right = (_person(rng, action, "static", with_reserved, builds) for _ in range(2))
    return (
        left._replace(x=-apart, facing=1, yaw=abs(left.yaw)),
        right._replace(x=apart, facing=-1, yaw=-abs(right.yaw), tempo=left.tempo, phase=(left.phase + behind) % 1.0),
    )


def _view(rng: np.random.Generator, people: tuple[Person, ...], framing: str, camera: str) -> View:
    least, most, middle, share = FRAMINGS[framing]
    height = float(rng.uniform(least, most))
    if people[0].action in ("jump", "cheer", *PLACES) and framing == "full":
        height *= 1.12
    if framing == "face":
        # As much as a head of this size asks for, and where it is.
        head_r = BUILDS[people[0].character.build]
        height, middle = height * head_r / 0.24, 1 - 1.03 * head_r
    return View(
        camera=camera,
        height=height,
        middle_y=-(middle + share * height),
        amount=float(rng.uniform(0.5, 0.9)),
        direction=1 if rng.random() < 0.5 else -1,
        phase=float(rng.random()),
        follow=travel_speed(people[0]),
    )


def _mood(rng: np.random.Generator, background: str) -> str:
    if background == "night city":
        return "night"
    return choose(rng, MOODS, (0.4, 0.17, 0.19, 0.12, 0.12))


def _item(rng: np.random.Generator, action: str, together: bool, framing: str) -> str | None:
    if action in _THINGS:
        return _THINGS[action]
    if together or framing != "full" or rng.random() < 0.7:
        return None
    return choose(rng, ("balloon", "bird", "butterfly", "box", "rolling ball"))


def _effect(rng: np.random.Generator, action: str, background: str) -> str | None:
    if action == "run" and rng.random() < 0.35:
        return "speed lines"
    if rng.random() < 0.74:
        return None
    indoors = background in ("room", "classroom")
    names = ("sparkles", "bubbles") if indoors else tuple(name for name in EFFECTS if name != "speed lines")
    return choose(rng, names)
