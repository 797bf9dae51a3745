"""What characters do: each action is a function of time and person that returns a pose.

Time is continuous, in seconds, and may be negative (sway looks back in time). Motion is periodic, ballistic or eased,
never noise: a viewer can guess what comes between two drawings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from anisora.synthetic.parts import Character
from anisora.synthetic.pose import Foot, Pose, hop, smoothstep, there_and_back, wave


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

RAISED = 2.55
"""Spread of an arm held up beside the head."""


def ground_speed(person: Person, rate: float, stance: float) -> float:
    """Speed over the ground, heights a second, at which a foot that stands does not slip."""
    return person.stride * rate / stance * math.sin(abs(person.yaw))


def step(u: float, stride: float, stance: float, height: float) -> Foot:
    """A foot at u turns into its cycle: on the ground it moves back at constant speed, then swings forward."""
    u %= 1.0
    if u < stance:
        return stride * (0.5 - u / stance), 0.0, 0.0
    s = (u - stance) / (1 - stance)
    return stride * (smoothstep(s) - 0.5), height * math.sin(math.pi * s), 0.0


def walk(t: float, p: Person) -> Pose:
    rate, stance = 1.15 * p.tempo, 0.6
    u = rate * t + p.phase
    swing = 0.75 * p.energy * math.sin(2 * math.pi * u)
    return Pose(
        x=p.x + p.facing * ground_speed(p, rate, stance) * t,
        lift=-0.028 + 0.016 * math.cos(4 * math.pi * (u - 0.05)),
        yaw=p.yaw,
        lean=0.06,
        side=0.03 * math.sin(2 * math.pi * u),
        tilt=0.05 * math.sin(2 * math.pi * u + 0.6),
        arm_l=(-swing, 0.18, 0.3, 0.0),
        arm_r=(swing, 0.18, 0.3, 0.0),
        foot_l=step(u, p.stride, stance, 0.07),
        foot_r=step(u + 0.5, p.stride, stance, 0.07),
    )


def run(t: float, p: Person) -> Pose:
    rate, stance = 1.75 * p.tempo, 0.36
    u = rate * t + p.phase
    swing = 1.05 * p.energy * math.sin(2 * math.pi * u)
    return Pose(
        x=p.x + p.facing * ground_speed(p, rate, stance) * t,
        lift=-0.01 - 0.035 * math.cos(4 * math.pi * (u - 0.18)),
        yaw=p.yaw,
        lean=0.28,
        nod=-0.12,
        arm_l=(-swing, 0.15, 1.5, 0.0),
        arm_r=(swing, 0.15, 1.5, 0.0),
        foot_l=step(u, p.stride * 1.15, stance, 0.15),
        foot_r=step(u + 0.5, p.stride * 1.15, stance, 0.15),
        mouth=0.25,
    )


def jump(t: float, p: Person) -> Pose:
    rate = 0.85 * p.tempo
    height, crouch = hop(t + p.phase / rate, rate, 0.52)
    h = 0.3 * p.energy * height
    spread = 0.35 + 2.0 * height
    return Pose(
        x=p.x,
        lift=h - 0.1 * crouch,
        yaw=p.yaw,
        lean=0.35 * crouch,
        stretch=1 + 0.07 * height - 0.1 * crouch,
        arm_l=(-0.8 * crouch, spread, 0.3, 0.2 * height),
        arm_r=(-0.8 * crouch, spread, 0.3, 0.2 * height),
        foot_l=(0.03 * height, h + 0.05 * height, 0.03),
        foot_r=(-0.06 * height, h + 0.02 * height, 0.03),
        mouth=0.7 * height,
        wonder=0.4 * height,
    )


def wave_hand(t: float, p: Person) -> Pose:
    beat = wave(t, 1.3 * p.tempo, p.phase)
    sway = wave(t, 0.65 * p.tempo, p.phase)
    return Pose(
        x=p.x,
        lift=-0.012 + 0.012 * beat,
        yaw=p.yaw * 0.5,
        side=0.09 * p.energy * sway,
        tilt=0.16 * p.energy * sway,
        arm_r=(0.1, 2.15 + 0.12 * sway, 0.0, 0.45 + 0.6 * p.energy * beat),
        arm_l=(0.1 * sway, 0.3, 0.2, 0.0),
        mouth=0.25 + 0.2 * sway,
    )


def turn(t: float, p: Person) -> Pose:
    """Looks from one side to the other, with the whole body."""
    period = 2.9 / p.tempo
    u = there_and_back(t + p.phase * period * 0.2, period, 0.26, 0.2)
    side = p.facing * 1.1 * (1 - 2 * u)
    # The head leads, the body follows.
    lead = p.facing * 1.1 * (1 - 2 * there_and_back(t + 0.12 + p.phase * period * 0.2, period, 0.26, 0.2))
    busy = 1 - abs(1 - 2 * u)
    return Pose(
        x=p.x,
        yaw=side,
        head_yaw=lead - side,
        nod=0.15 * busy,
        lift=-0.05 * busy,
        arm_l=(0.3 * busy, 0.3 + 0.5 * busy, 0.3, 0.0),
        arm_r=(-0.3 * busy, 0.3 + 0.5 * busy, 0.3, 0.0),
        foot_l=(0.0, 0.05 * busy, 0.0),
    )


def spin(t: float, p: Person) -> Pose:
    """Whirls around on the spot."""
    u = t * 0.55 * p.tempo + p.phase
    beat = 0.5 - 0.5 * math.cos(4 * math.pi * u)
    return Pose(
        x=p.x,
        yaw=p.facing * 2 * math.pi * u,
        lift=-0.02 + 0.03 * beat,
        side=0.05 * math.sin(2 * math.pi * u),
        arm_l=(0.0, 1.25 + 0.25 * beat, 0.0, 0.2),
        arm_r=(0.0, 1.25 + 0.25 * beat, 0.0, 0.2),
        foot_r=(-0.1 * beat, 0.1 * beat, 0.0),
        mouth=0.4,
    )


def sit(t: float, p: Person) -> Pose:
    """Sits down on the ground and gets up again."""
    u = there_and_back(t + 0.35 + 0.5 * p.phase, 4.2 / p.tempo, 0.2, 0.3)
    mid = 4 * u * (1 - u)
    return Pose(
        x=p.x,
        lift=-0.19 * u,
        yaw=p.yaw,
        lean=0.35 * mid - 0.12 * u,
        arm_l=(0.5 * mid - 0.35 * u, 0.3 + 0.2 * u, 0.2, 0.0),
        arm_r=(0.5 * mid - 0.35 * u, 0.3 + 0.2 * u, 0.2, 0.0),
        foot_l=(0.25 * u, 0.05 * u, 0.03 * u),
        foot_r=(0.22 * u, 0.05 * u, 0.05 * u),
        stretch=1 - 0.05 * mid,
        tilt=0.07 * wave(t, 0.5, p.phase) * u,
    )


def fall(t: float, p: Person) -> Pose:
    """Slips, lands on the bottom with a bounce, and gets up again later."""
    period = 3.4 / p.tempo
    s = (t + p.phase * 0.45) % period / period * 3.4
    wobble = smoothstep(s / 0.25) * (1 - smoothstep((s - 0.5) / 0.25))
    drop = min(max(s - 0.5, 0.0) / 0.42, 1.0) ** 2
    up = smoothstep((s - 2.4) / 0.7)
    down = drop * (1 - up)
    after = max(s - 0.92, 0.0)
    bounce = abs(math.sin(9 * after)) * math.exp(-4 * after) if s > 0.92 else 0.0
    kick = math.sin(math.pi * min(max((s - 0.5) / 0.6, 0.0), 1.0))
    return Pose(
        x=p.x + p.facing * 0.15 * down,
        lift=-0.19 * down + 0.1 * bounce * (1 - up),
        yaw=p.yaw,
        lean=-0.45 * down + 0.5 * wobble * math.sin(14 * s) + 0.35 * math.sin(math.pi * up),
        roll=-p.facing * 0.3 * kick,
        arm_l=(1.2 * wobble + 1.6 * kick - 0.5 * down, 0.4 + 1.3 * wobble, 0.2, 0.0),
        arm_r=(-1.2 * wobble + 1.6 * kick - 0.5 * down, 0.4 + 1.3 * wobble, 0.2, 0.0),
        foot_l=(0.26 * down, 0.05 * down + 0.2 * kick, 0.02),
        foot_r=(0.24 * down, 0.05 * down + 0.13 * kick, 0.02),
        mouth=0.8 * max(wobble, kick),
        wonder=max(wobble, kick),
        blink=0.9 * math.exp(-10 * (after - 0.1) ** 2) if s > 0.92 else 0.0,
        brow=0.6 * down,
        smile=0.3 - 0.9 * down,
    )


def syllables(t: float, tempo: float, phase: float) -> float:
    """How far a mouth is open that speaks: phrases made of syllables, 0 to 1."""
    phrase = smoothstep(0.5 + 1.6 * wave(t, 0.42 * tempo, phase + 0.1) + 0.6)
    return phrase * (0.5 + 0.5 * wave(t, 2.4 * tempo, phase)) * (0.75 + 0.25 * wave(t, 0.9 * tempo, phase))


def talk(t: float, p: Person) -> Pose:
    sway = wave(t, 0.55 * p.tempo, p.phase)
    hand = 0.5 + 0.5 * wave(t, 0.8 * p.tempo, p.phase + 0.3)
    return Pose(
        x=p.x,
        lift=-0.006 + 0.006 * wave(t, 1.1 * p.tempo, p.phase),
        yaw=p.yaw * 0.6,
        side=0.06 * p.energy * sway,
        head_yaw=0.25 * p.energy * wave(t, 0.4 * p.tempo, p.phase + 0.2),
        nod=0.1 * wave(t, 1.2 * p.tempo, p.phase),
        tilt=0.12 * p.energy * sway,
        arm_r=(0.35 + 0.5 * hand * p.energy, 0.45, 1.0 + 0.7 * hand, 0.1),
        arm_l=(0.2, 0.35, 0.6 * (1 - hand), 0.0),
        mouth=0.85 * syllables(t, p.tempo, p.phase),
    )


def nod(t: float, p: Person) -> Pose:
    beat = 0.5 - 0.5 * math.cos(2 * math.pi * (1.1 * p.tempo * t + p.phase))
    return Pose(
        x=p.x,
        yaw=p.yaw * 0.6,
        lean=0.1 * beat * p.energy,
        lift=-0.02 * beat,
        nod=0.5 * p.energy * beat - 0.12,
        side=0.03 * wave(t, 0.55 * p.tempo, p.phase),
        arm_l=(0.1 * beat, 0.3, 0.2, 0.0),
        arm_r=(0.1 * beat, 0.3, 0.2, 0.0),
    )


def shake_head(t: float, p: Person) -> Pose:
    beat = wave(t, 0.9 * p.tempo, p.phase)
    return Pose(
        x=p.x,
        yaw=p.yaw * 0.3 + 0.12 * beat,
        head_yaw=0.75 * p.energy * beat,
        tilt=0.06 * wave(t, 0.9 * p.tempo, p.phase + 0.25),
        side=0.04 * beat,
        arm_l=(0.3, 0.5, 0.9, -0.3),
        arm_r=(0.3, 0.5, 0.9, -0.3),
    )


def dance(t: float, p: Person) -> Pose:
    rate = 0.9 * p.tempo
    beat = wave(t, rate, p.phase)
    bounce = abs(wave(t, rate, p.phase + 0.25))
    return Pose(
        x=p.x + 0.1 * p.energy * beat,
        lift=-0.06 + 0.055 * bounce,
        yaw=0.5 * beat,
        side=0.16 * p.energy * beat,
        tilt=-0.2 * beat,
        stretch=0.97 + 0.05 * bounce,
        arm_l=(0.2, 1.4 + 1.0 * beat, 0.2, 0.35),
        arm_r=(0.2, 1.4 - 1.0 * beat, 0.2, 0.35),
        foot_l=(0.0, 0.1 * max(beat, 0.0), 0.02 - 0.1 * beat),
        foot_r=(0.0, 0.1 * max(-beat, 0.0), 0.02 + 0.1 * beat),
        mouth=0.3 + 0.2 * beat,
        blink=0.0,
    )


def cheer(t: float, p: Person) -> Pose:
    rate = 1.35 * p.tempo
    height, crouch = hop(t + p.phase / rate, rate, 0.5)
    h = 0.13 * p.energy * height
    pump = wave(t, rate, p.phase)
    return Pose(
        x=p.x,
        lift=h - 0.06 * crouch,
        yaw=p.yaw * 0.3,
        stretch=1 + 0.04 * height - 0.06 * crouch,
        arm_l=(0.1, RAISED - 0.25 * pump, 0.0, 0.1),
        arm_r=(0.1, RAISED - 0.25 * pump, 0.0, 0.1),
        foot_l=(0.0, h, 0.02),
        foot_r=(0.0, h, 0.02),
        mouth=0.55 + 0.25 * pump,
        tilt=0.1 * wave(t, rate / 2, p.phase),
    )


def clap(t: float, p: Person) -> Pose:
    gap = 0.5 + 0.5 * wave(t, 1.5 * p.tempo, p.phase)
    sway = wave(t, 0.75 * p.tempo, p.phase)
    arm = (0.75, 0.35 + 0.35 * gap, 0.75, -0.75 - 0.1 * gap)
    return Pose(
        x=p.x,
        yaw=p.yaw * 0.4,
        lift=-0.015 + 0.015 * sway,
        side=0.05 * sway,
        tilt=0.14 * sway,
        arm_l=arm,
        arm_r=arm,
        mouth=0.3 + 0.15 * sway,
    )


def bow(t: float, p: Person) -> Pose:
    u = there_and_back(t + 0.3 + p.phase * 0.4, 2.8 / p.tempo, 0.27, 0.14)
    return Pose(
        x=p.x,
        yaw=p.yaw * 0.75,
        lean=0.95 * p.energy * u,
        nod=0.35 * u,
        lift=-0.02 * u,
        arm_l=(0.1 * u, 0.25, 0.2, 0.0),
        arm_r=(1.0 * u, 0.25, 1.3 * u, -0.5 * u),
        blink=smoothstep(2 * u - 0.6),
    )


def bounce_ball(t: float, p: Person) -> Pose:
    push = 0.5 - 0.5 * math.cos(2 * math.pi * ball_phase(t, p))
    return Pose(
        x=p.x,
        yaw=p.facing * 0.55,
        lift=-0.035 + 0.03 * (1 - push),
        lean=0.18,
        nod=0.22,
        arm_r=(0.75 + 0.35 * (1 - push), 0.4, 0.55 + 0.35 * (1 - push), 0.0),
        arm_l=(-0.2, 0.45, 0.4, 0.0),
        foot_l=(0.06, 0.0, 0.02),
        foot_r=(-0.05, 0.0, 0.02),
    )


def ball_phase(t: float, p: Person) -> float:
    """Turns since the ball last left the hand; it touches the ground at one half."""
    return (1.2 * p.tempo * t + p.phase) % 1.0


def skip(t: float, p: Person) -> Pose:
    """Hops forward from foot to foot."""
    rate, stance = 1.0 * p.tempo, 0.5
    u = rate * t + p.phase
    lift = abs(math.sin(2 * math.pi * u))
    swing = 0.9 * math.sin(2 * math.pi * u)
    foot_l, foot_r = step(u, p.stride, stance, 0.16), step(u + 0.5, p.stride, stance, 0.16)
    high = 0.07 * p.energy * lift
    return Pose(
        x=p.x + p.facing * ground_speed(p, rate, stance) * t,
        lift=high - 0.02,
        yaw=p.yaw,
        tilt=0.12 * math.sin(2 * math.pi * u),
        arm_l=(-swing, 0.5, 0.5, 0.0),
        arm_r=(swing, 0.5, 0.5, 0.0),
        foot_l=(foot_l[0], foot_l[1] + 0.8 * high, 0.0),
        foot_r=(foot_r[0], foot_r[1] + 0.8 * high, 0.0),
        mouth=0.3,
    )


def look_around(t: float, p: Person) -> Pose:
    u = wave(t, 0.45 * p.tempo, p.phase)
    return Pose(
        x=p.x,
        yaw=0.35 * u,
        head_yaw=0.6 * p.energy * u,
        gaze=0.8 * wave(t, 0.45 * p.tempo, p.phase + 0.07),
        nod=-0.08 + 0.1 * wave(t, 0.9 * p.tempo, p.phase),
        side=0.07 * u,
        arm_r=(1.2, 0.5, 1.45, -0.55),
        arm_l=(0.0, 0.35, 0.2, 0.0),
    )


def laugh(t: float, p: Person) -> Pose:
    ha = wave(t, 2.3 * p.tempo, p.phase)
    slow = wave(t, 0.5 * p.tempo, p.phase)
    return Pose(
        x=p.x,
        yaw=p.yaw * 0.5,
        lift=-0.015 + 0.013 * ha,
        lean=-0.1 + 0.08 * slow,
        nod=-0.22 + 0.1 * slow + 0.04 * ha,
        tilt=0.12 * slow,
        arm_l=(0.6, 0.4, 1.2, -0.7),
        arm_r=(0.6, 0.4, 1.2, -0.7),
        mouth=0.75 + 0.2 * ha,
        blink=smoothstep(0.6 + slow),
    )


Action = Callable[[float, Person], Pose]

ACTIONS: dict[str, Action] = {
    "walk": walk,
    "run": run,
    "skip": skip,
    "jump": jump,
    "wave": wave_hand,
    "turn": turn,
    "spin": spin,
    "sit": sit,
    "fall": fall,
    "talk": talk,
    "nod": nod,
    "shake_head": shake_head,
    "dance": dance,
    "cheer": cheer,
    "clap": clap,
    "bow": bow,
    "bounce_ball": bounce_ball,
    "look_around": look_around,
    "laugh": laugh,
}
"""Every action by name."""

TRAVELLING = ("walk", "run", "skip")
"""Actions that cross the ground."""


def travel_speed(person: Person) -> float:
    """How fast the person crosses the picture, heights a second, to the right positive."""
    move = ACTIONS[person.action]
    return move(1.0, person).x - move(0.0, person).x if person.action in TRAVELLING else 0.0


def pose_at(t: float, person: Person) -> Pose:
    """The action's pose with the person's mood, breath and blinking on top."""
    pose = ACTIONS[person.action](t, person)
    smile, brow, wonder, blush, mouth = EMOTIONS[person.emotion]
    pose.smile = max(-1.0, min(1.0, smile if pose.smile == 0.4 else pose.smile))
    pose.brow += brow
    pose.wonder = max(pose.wonder, wonder)
    pose.blush = blush
    pose.mouth = max(pose.mouth, mouth)
    # A blink takes 0.3 s, so that it is seen at 8 frames a second too.
    eyelid = (t * 0.62 + person.phase * 3.7) % 1.0 / 0.62
    if eyelid < 0.3:
        pose.blink = max(pose.blink, math.sin(math.pi * eyelid / 0.3))
    pose.lift += 0.004 * wave(t, 0.4, person.phase)
    pose.side += 0.012 * wave(t, 0.3, person.phase + 0.4)
    return pose
