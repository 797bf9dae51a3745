"""Who is in a clip and how it does what it does there: what every action is told besides the time."""

from __future__ import annotations

import math
from typing import NamedTuple, TypedDict

from anisora.synthetic.parts import BUILDS, LEGS, Character
from anisora.synthetic.pose import ARM, LEG, Arm, Spot, reach


class Person(NamedTuple):
    """A character in a clip: who it is and what it does there."""

    character: Character
    action: str
    emotion: str
    x: float
    """Where it is at time 0, in character heights from the middle of the picture."""
    facing: int
    """+1 to the right of the picture, -1 to the left."""
    yaw: float
    """How far it is turned towards that side; 0 faces the viewer."""
    tempo: float
    """1 is the action's usual pace."""
    phase: float
    """0 to 1: where in its cycle it starts."""
    energy: float
    """1 is the action's usual size."""
    stride: float
    """Length of a step on the ground, in character heights."""
    before: Person | None = None
    """What it did up to time 0, in whose pose it begins; None: it has been doing the same all the time."""


def own_phase(person: Person) -> float:
    """0 to 1: where breath, blinking and the wind are at time 0; what somebody does next does not change that."""
    return (person.before or person).phase


# name: (smile, brow, wonder, blush, mouth)
EMOTIONS: dict[str, tuple[float, float, float, float, float]] = {
    "happy": (0.9, 0.1, 0.25, 0.8, 0.12),
    "calm": (0.35, 0.0, 0.0, 0.3, 0.0),
    "excited": (1.0, 0.2, 0.7, 0.8, 0.45),
    "surprised": (0.0, 0.35, 1.0, 0.2, 0.4),
    "sad": (-0.7, 0.9, 0.1, 0.0, 0.0),
    "angry": (-0.6, -1.0, 0.0, 0.2, 0.0),
    "shy": (0.3, 0.5, 0.1, 1.0, 0.0),
    "determined": (0.1, -0.55, 0.1, 0.0, 0.0),
}


def pace(person: Person) -> float:
    """How fast the person's clock runs: seconds of an action at its usual pace in one second."""
    return 1.72 * person.tempo


def ground_speed(person: Person, rate: float, stance: float) -> float:
    """Speed over the ground, heights a second, at which a foot that stands does not slip."""
    return person.stride * rate / stance * math.sin(abs(person.yaw))


def leg_length(person: Person) -> float:
    """Length of the person's legs, in character heights."""
    return LEGS.get(person.character.build, LEG)


def arm_length(person: Person) -> float:
    """Length of the person's arms, in character heights."""
    return ARM * math.sqrt(leg_length(person) / LEG)


def profile(person: Person, least: float) -> float:
    """The person's yaw, turned at least so far to its side: what is done with a thing is seen from the side."""
    return person.facing * max(abs(person.yaw), least)


def torso_length(person: Person) -> float:
    """From hips to neck, in character heights."""
    return 1 - 1.93 * BUILDS[person.character.build] - leg_length(person)


def spot(person: Person, out: float, height: float, forward: float) -> Spot:
    """The spot, for a hand of this person who stands upright, at a height above the ground. Spots count in arms of the
    usual length: so longer ones are not stretched as far."""
    up = height - leg_length(person) - 0.9 * torso_length(person)
    shorter = ARM / arm_length(person)
    return out * shorter, up * shorter, forward * shorter


def mouth_spot(person: Person) -> Spot:
    """Where a hand is that brings something to the mouth."""
    return spot(person, -0.088, leg_length(person) + torso_length(person) + 0.2 * BUILDS[person.character.build], 0.15)


class Arms(TypedDict):
    """Both arms of a pose."""

    arm_l: Arm
    arm_r: Arm


def arms(person: Person, near: Spot, far: Spot, long: float = 1.0) -> Arms:
    """The hand of the side that is nearer to the viewer at one spot, the other at another."""
    both = reach(near, long), reach(far, long)
    right, left = both if person.facing > 0 else both[::-1]
    return {"arm_r": right, "arm_l": left}


def near_hand(person: Person) -> str:
    """The side whose hand is nearer to the viewer, turned as the person is."""
    return "right" if person.facing > 0 else "left"
