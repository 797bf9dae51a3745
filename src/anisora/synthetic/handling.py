"""What characters do with a thing: eat, drink, push, throw, pick up. Each says where the thing is as well, for `things`."""

from __future__ import annotations

import math

from anisora.synthetic.person import Person, arms, ground_speed, mouth_spot, pace, profile
from anisora.synthetic.pose import HANGING, Pose, Spot, bump, keyed, smoothstep, step, wave

AT_CHEST: Spot = (-0.04, -0.08, 0.13)


def eat(t: float, p: Person) -> Pose:
    """Brings food to the mouth, bites, and chews."""
    u = (1.05 * p.tempo * t + p.phase) % 1.0
    bite = bump(u, 0.1, 0.22, 0.34)
    chewing = smoothstep((u - 0.38) / 0.06) * (1 - smoothstep((u - 0.92) / 0.08))
    jaw = 0.5 - 0.5 * math.cos(2 * math.pi * 5 * u)
    hand = keyed(u, AT_CHEST, (0.0, 0.24, mouth_spot(p)), (0.33, 0.52, AT_CHEST))
    return Pose(
        x=p.x,
        yaw=0.7 * p.yaw,
        lean=0.08 * bite,
        lift=-0.01 * jaw * chewing,
        nod=0.22 * bite - 0.06 + 0.07 * jaw * chewing,
        tilt=0.07 * chewing * wave(u, 2),
        **arms(p, hand, HANGING),
        mouth=max(0.95 * bite, 0.34 * jaw * chewing),
        smile=0.75,
        # Eyes shut with pleasure.
        blink=0.85 * smoothstep((u - 0.42) / 0.08) * (1 - smoothstep((u - 0.8) / 0.1)),
        play=1.3,
    )


def food_of(p: Person) -> str:
    """What it eats."""
    return ("rice ball", "apple", "sandwich")[int(3 * p.phase) % 3]


def drink(t: float, p: Person) -> Pose:
    """Lifts a cup, drinks with the head back, and lowers it."""
    u = (0.75 * p.tempo * t + p.phase) % 1.0
    up = tipped(t, p)
    gulp = up * wave(u, 6)
    hand = keyed(u, AT_CHEST, (0.05, 0.24, mouth_spot(p)), (0.62, 0.8, AT_CHEST))
    glad = bump(u, 0.68, 0.8, 1.0)
    return Pose(
        x=p.x,
        yaw=0.8 * p.yaw,
        lean=-0.16 * up,
        nod=-0.5 * up + 0.04 * gulp,
        tilt=-0.12 * p.facing * up + 0.08 * glad,
        **arms(p, hand, HANGING),
        mouth=0.22 * up + 0.55 * glad,
        smile=0.9,
        blink=max(0.95 * up, 0.8 * glad),
        play=1.3,
    )


def tipped(t: float, p: Person) -> float:
    """How far the cup of somebody who drinks is tipped, 0 to 1."""
    u = (0.75 * p.tempo * t + p.phase) % 1.0
    return smoothstep((u - 0.2) / 0.14) * (1 - smoothstep((u - 0.56) / 0.12))


def push(t: float, p: Person) -> Pose:
    """Leans into a heavy box and pushes it over the ground."""
    rate, stance, stride = 1.25 * p.tempo, 0.72, 0.95 * p.stride
    u = rate * t + p.phase
    heave = math.sin(4 * math.pi * u)
    hand: Spot = (-0.02, 0.06, 0.21)
    return Pose(
        x=p.x + p.facing * stride / p.stride * ground_speed(p, rate, stance) * t,
        lift=-0.055 + 0.008 * heave,
        yaw=p.yaw,
        lean=0.5,
        nod=0.12 + 0.05 * heave,
        tilt=0.03 * heave,
        **arms(p, hand, hand),
        foot_l=_behind(step(u, stride, stance, 0.05)),
        foot_r=_behind(step(u + 0.5, stride, stance, 0.05)),
        smile=-0.3,
        brow=-0.6,
        blink=0.25 + 0.2 * heave,
    )


def _behind(foot: tuple[float, float, float]) -> tuple[float, float, float]:
    return foot[0] - 0.08, foot[1], foot[2]


def throw(t: float, p: Person) -> Pose:
    """Winds up, throws a ball away and follows through."""
    s = throwing(t, p)
    hand = keyed(
        s,
        AT_CHEST,
        (0.25, 0.7, (0.03, 0.12, -0.17)),
        (0.76, 0.95, (-0.02, 0.13, 0.19)),
        (0.95, 1.2, (-0.12, -0.13, 0.14)),
        (1.7, 2.3, AT_CHEST),
    )
    far = keyed(s, AT_CHEST, (0.3, 0.7, (0.0, 0.06, 0.2)), (0.82, 1.0, (0.04, -0.1, -0.14)), (1.7, 2.3, AT_CHEST))
    wind = smoothstep((s - 0.25) / 0.45) * (1 - smoothstep((s - 0.78) / 0.12))
    cast = smoothstep((s - 0.8) / 0.15) * (1 - smoothstep((s - 1.5) / 0.6))
    kick = bump(s, 0.3, 0.65, 0.9)
    front, back = (0.1 * kick + 0.12 * cast, 0.13 * kick, 0.02), (-0.07 * wind - 0.1 * cast, 0.02 * cast, 0.02)
    left_is_front = p.facing > 0
    return Pose(
        x=p.x + p.facing * (0.1 * cast - 0.05 * wind),
        yaw=profile(p, 0.9),
        lift=-0.03 * (wind + cast),
        lean=-0.42 * wind + 0.5 * cast,
        nod=0.1 * wind - 0.1 * cast,
        **arms(p, hand, far),
        foot_l=front if left_is_front else back,
        foot_r=back if left_is_front else front,
        mouth=0.7 * bump(s, 0.8, 0.95, 1.6),
        brow=-0.5 * wind,
    )


RELEASE = 0.95
"""When the ball leaves the hand, as `throwing` counts."""


def throwing(t: float, p: Person) -> float:
    """Where somebody who throws is in it: seconds at the usual pace, 0 to 4, from one ball to the next."""
    return (pace(p) * t + 0.35 * p.phase) % 4.0


def pick_up(t: float, p: Person) -> Pose:
    """Bends down, takes a ball from the ground and lifts it before the chest."""
    s, _ = picking(t, p)
    bend = smoothstep(s / 0.55) * (1 - smoothstep((s - GRASP) / 0.6))
    after = smoothstep((s - GRASP - 0.1) / 0.5)
    down: Spot = (-0.055, -0.1, 0.2)
    hand = keyed(s, HANGING, (0.0, 0.5, down), (GRASP, GRASP + 0.55, (-0.045, -0.03, 0.16)))
    return Pose(
        x=p.x,
        yaw=profile(p, 0.85),
        lift=-0.13 * bend,
        lean=1.12 * bend - 0.06 * after,
        nod=-0.25 * bend + 0.12 * after,
        **arms(p, hand, hand),
        foot_l=(0.02, 0.0, 0.03),
        foot_r=(-0.04, 0.0, 0.03),
        smile=0.3 + 0.6 * after,
        mouth=0.35 * after,
        play=1.2,
    )


GRASP = 0.8
"""When the hands close on the thing, as `picking` counts."""


def picking(t: float, p: Person) -> tuple[float, float]:
    """(seconds at the usual pace since it began, 0 to 2.8; when, on the clock of t, the hands are at the ground).
    Afterwards the thing is laid down again, the same way back."""
    period = 5.6
    q = (pace(p) * t - 0.1 + 0.3 * p.phase) % period
    s, grasp = (q, GRASP) if q < period / 2 else (period - q, period - GRASP)
    return s, t + (grasp - q) / pace(p)
