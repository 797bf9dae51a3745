"""What two do together. They stand on either side of x = 0 and meet there; one clock and one pace serve both, and where they
take turns the second is half a turn behind (`plan` sees to that), so that every blow meets its answer."""

from __future__ import annotations

import math

from anisora.synthetic.person import Person, arms, near_hand, pace, profile, spot
from anisora.synthetic.pose import HANGING, Pose, Spot, bump, keyed, smoothstep, there_and_back, wave

HIT = 0.27
"""Where in its turn a blow lands; half a turn later comes the answer."""

# How far from the middle of the picture each stands, and by how much of a turn the second is behind.
PLACES = {"fight": (0.36, 0.5), "hug": (0.38, 0.0), "high_five": (0.42, 0.0)}


def is_duet(action: str) -> bool:
    """True for what only two can do."""
    return action in PLACES


_GUARD: Spot = (-0.05, 0.02, 0.15)
_GUARD_FAR: Spot = (-0.03, -0.02, 0.17)


def turn_of(t: float, p: Person) -> float:
    """0 to 1: where in its turn somebody is who fights."""
    return (1.15 * p.tempo * t + p.phase) % 1.0


def fight(t: float, p: Person) -> Pose:
    """Strikes, is struck, and recoils."""
    u = turn_of(t, p)
    strike = bump(u, 0.19, HIT, 0.44)
    wind = bump(u, 0.0, 0.15, 0.24)
    hurt = bump(u, HIT + 0.49, HIT + 0.57, 0.99)
    long = 1 + 1.15 * strike
    there = spot(p, -0.07, 0.7, 0.47)
    hand = keyed(u, _GUARD, (0.0, 0.15, (0.06, 0.0, -0.1)), (0.18, HIT, there), (0.32, 0.46, _GUARD))
    ahead = p.facing * (0.12 * strike - 0.05 * wind - 0.08 * hurt)
    bounce = abs(wave(t, 1.15 * p.tempo * 2, p.phase))
    front, back = (0.1 + 0.08 * strike, 0.05 * bump(u, 0.16, 0.22, 0.28), 0.02), (-0.1, 0.03 * hurt, 0.02)
    return Pose(
        x=p.x + ahead,
        yaw=profile(p, 1.0),
        lift=-0.045 + 0.02 * bounce - 0.02 * strike,
        lean=0.1 + 0.2 * strike - 0.12 * wind - 0.45 * hurt,
        nod=0.05 - 0.2 * hurt,
        tilt=-0.3 * p.facing * hurt,
        stretch=1 - 0.03 * wind + 0.03 * strike,
        stretch_arms=long,
        before_face=(near_hand(p),),
        **arms(p, hand, _GUARD_FAR, long),
        foot_l=front if p.facing > 0 else back,
        foot_r=back if p.facing > 0 else front,
        mouth=max(0.55 * strike, 0.8 * hurt),
        smile=-0.4,
        brow=-0.6 + 1.2 * hurt,
        blink=0.95 * hurt,
        play=1.3,
    )


def hug(t: float, p: Person) -> Pose:
    """Comes with open arms, embraces the other and sways."""
    near = there_and_back(t - 0.05 - 0.25 * p.phase, 8.0 / pace(p), 0.11, 0.6)
    closed = smoothstep((near - 0.6) / 0.4)
    steps = math.sin(3 * math.pi * near)
    sway = wave(t, 0.55, p.phase) * closed
    open_: Spot = (0.15, 0.05, 0.12)
    around = keyed(near, HANGING, (0.0, 0.45, open_), (0.6, 1.0, (-0.09, -0.02, 0.3)))
    return Pose(
        x=p.x * (1 - 0.62 * near),
        yaw=profile(p, 1.0 + 0.2 * closed),
        lift=-0.012 * abs(steps),
        lean=0.12 * bump(near, 0.0, 0.5, 1.0) + 0.16 * closed,
        side=0.07 * sway,
        tilt=p.facing * 0.1 * closed + 0.06 * sway,
        stretch_arms=1 + 0.35 * closed,
        **arms(p, around, around, 1 + 0.35 * closed),
        foot_l=(0.0, 0.06 * max(steps, 0.0), 0.0),
        foot_r=(0.0, 0.06 * max(-steps, 0.0), 0.0),
        smile=0.95,
        blink=0.95 * closed,
        mouth=0.3 * (1 - closed),
        play=1.2,
    )


def meeting(t: float, p: Person) -> float:
    """0 to 1: how far two are who raise their hands; they meet at HIT."""
    return (0.8 * p.tempo * t + 0.1 + 0.2 * p.phase) % 1.0


def high_five(t: float, p: Person) -> Pose:
    """Swings a hand up to meet the other's."""
    u = meeting(t, p)
    up = smoothstep((u - 0.14) / 0.13) * (1 - smoothstep((u - 0.42) / 0.16))
    wind = bump(u, 0.0, 0.13, 0.24)
    glad = smoothstep((u - 0.24) / 0.08) * (1 - smoothstep((u - 0.75) / 0.2))
    hop = 0.09 * bump(u, 0.13, 0.27, 0.42)
    long = 1 + 1.6 * up
    there = spot(p, -0.04, 0.78, 1.2 * abs(p.x) - 0.06)
    hand = keyed(u, HANGING, (0.0, 0.13, (0.05, -0.1, -0.15)), (0.13, HIT, there), (0.4, 0.62, HANGING))
    return Pose(
        x=p.x + p.facing * 0.06 * up,
        yaw=profile(p, 0.95),
        lift=hop - 0.05 * wind,
        lean=-0.06 * wind - 0.08 * up,
        nod=-0.1 * up,
        stretch=1 + 0.05 * up - 0.04 * wind,
        stretch_arms=long,
        before_face=(near_hand(p),),
        **arms(p, hand, (0.08, -0.18 + 0.1 * glad, 0.05), long),
        foot_l=(0.0, hop, 0.02),
        foot_r=(-0.03 * up, hop, 0.02),
        smile=0.9,
        mouth=0.6 * glad,
        play=1.3,
    )
