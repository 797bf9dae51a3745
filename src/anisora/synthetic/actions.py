"""What characters do: each action is a function of time and person that returns a pose.

Time is continuous, in seconds, and may be negative (sway looks back in time). Motion is periodic, ballistic or eased,
never noise: a viewer can guess what comes between two drawings.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from anisora.synthetic import duets, feelings, handling
from anisora.synthetic.person import (
    EMOTIONS,
    Person,
    arms,
    ground_speed,
    mouth_spot,
    near_hand,
    own_phase,
    profile,
)
from anisora.synthetic.pose import (
    HANGING,
    Arm,
    Pose,
    between,
    bump,
    hop,
    keyed,
    reach,
    smoothstep,
    step,
    there_and_back,
    wave,
)

RAISED = 2.55
"""Spread of an arm held up beside the head."""


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


def point(t: float, p: Person) -> Pose:
    """Stretches an arm out to the side, looks there, and points again."""
    u = (0.8 * p.tempo * t + 0.3 * p.phase) % 1.0
    out = smoothstep((u - 0.05) / 0.16) * (1 - smoothstep((u - 0.82) / 0.14))
    again = bump(u, 0.36, 0.44, 0.54) + bump(u, 0.54, 0.62, 0.72)
    hand = keyed(out, HANGING, (0.0, 0.5, (0.04, -0.05, 0.12)), (0.5, 1.0, (0.22, 0.05, 0.05)))
    pointing = reach((hand[0] - 0.09 * again, hand[1] + 0.02 * again, hand[2]))
    resting = (0.0, 0.35 + 0.2 * out, 0.4 * out, -0.6 * out)
    # Seen from the front, the left arm is on the right of the picture.
    left = p.facing > 0
    return Pose(
        x=p.x,
        yaw=0.25 * p.yaw,
        side=p.facing * (0.1 * out - 0.04 * again),
        head_yaw=p.facing * 0.65 * out,
        gaze=p.facing * 0.9 * out,
        tilt=p.facing * 0.05 * out,
        arm_l=pointing if left else resting,
        arm_r=resting if left else pointing,
        finger=("left" if left else "right") if out > 0.5 else "",
        mouth=0.55 * bump(u, 0.12, 0.24, 0.42) + 0.4 * again,
        wonder=0.5 * out,
    )


def cry(t: float, p: Person) -> Pose:
    """Sobs, rubs the eyes, and sheds tears."""
    sob = abs(wave(t, 0.95 * p.tempo, p.phase))
    rub = wave(t, 1.5 * p.tempo, p.phase)
    near, up, forward = mouth_spot(p)
    left, right = ((near + 0.03 + 0.02 * side * rub, up + 0.1 + 0.03 * side * rub, forward) for side in (1, -1))
    return Pose(
        x=p.x,
        yaw=0.4 * p.yaw,
        lift=-0.02 + 0.018 * sob,
        nod=0.12 + 0.1 * sob,
        lean=0.06 * sob,
        tilt=0.1 * wave(t, 0.5 * p.tempo, p.phase),
        stretch=0.97 + 0.04 * sob,
        arm_l=reach(left, 1.3, 0.9),
        arm_r=reach(right, 1.3, 0.9),
        stretch_arms=1.3,
        before_face=("left", "right"),
        mouth=0.45 + 0.35 * sob,
        smile=-1.0,
        brow=0.9,
        blink=0.97,
        tears=1.0,
        play=1.6,
    )


def sleep(t: float, p: Person) -> Pose:
    """Sits on the ground and nods off: the head sinks, starts up, and sinks again."""
    u = (0.6 * p.tempo * t + 0.6 * p.phase) % 1.0
    sunk = smoothstep(u / 0.66) * (1 - smoothstep((u - 0.72) / 0.07))
    start = bump(u, 0.72, 0.78, 0.95)
    breath = wave(t, 0.42, p.phase)
    return Pose(
        x=p.x,
        lift=-0.19 + 0.012 * start,
        yaw=profile(p, 0.75),
        lean=-0.08 + 0.28 * sunk,
        nod=0.1 + 0.6 * sunk - 0.2 * start,
        tilt=p.facing * 0.22 * sunk,
        stretch=1 + 0.02 * breath,
        arm_l=(0.15 + 0.2 * sunk, 0.3, 0.45, -0.4),
        arm_r=(0.15 + 0.2 * sunk, 0.3, 0.45, -0.4),
        foot_l=(0.25, 0.05, 0.03),
        foot_r=(0.22, 0.05, 0.05),
        blink=1.0 - 0.6 * start,
        mouth=0.14 + 0.1 * breath + 0.25 * start,
        smile=0.2,
        brow=0.2,
    )


def crawl(t: float, p: Person) -> Pose:
    """Goes on hands and knees."""
    rate, stance, stride = 1.25 * p.tempo, 0.6, 0.7 * p.stride
    u = rate * t + p.phase
    lean = 1.0
    swing_l, swing_r = (_crawling(u + k, stride, stance) for k in (0.5, 0.0))
    foot_l, foot_r = (step(u + k, stride, stance, 0.05) for k in (0.0, 0.5))
    return Pose(
        x=p.x + p.facing * 0.7 * ground_speed(p, rate, stance) * t,
        lift=-0.115 + 0.006 * math.cos(4 * math.pi * u),
        yaw=p.yaw,
        lean=lean,
        nod=-0.3 + 0.05 * math.sin(4 * math.pi * u),
        tilt=-0.25 * p.facing + 0.05 * math.sin(2 * math.pi * u),
        arm_l=swing_l,
        arm_r=swing_r,
        foot_l=(foot_l[0] - 0.2, 0.03 + foot_l[1], 0.02),
        foot_r=(foot_r[0] - 0.2, 0.03 + foot_r[1], 0.02),
    )


def _crawling(u: float, stride: float, stance: float) -> Arm:
    """An arm that goes like a foot, under a torso that lies forward."""
    forward, up, _ = step(u, stride, stance, 0.05)
    return 1.0 + 4.0 * forward, 0.1, 3.0 * up, 0.0


def yawn(t: float, p: Person) -> Pose:
    """Stretches and yawns, a hand before the mouth."""
    u = (0.55 * p.tempo * t + 0.5 * p.phase) % 1.0
    wide = smoothstep((u - 0.05) / 0.22) * (1 - smoothstep((u - 0.55) / 0.16))
    near, up, forward = mouth_spot(p)
    long = 1 + 0.3 * wide
    hand = keyed(wide, HANGING, (0.0, 1.0, (near + 0.02, up + 0.05, forward)))
    high = keyed(wide, HANGING, (0.0, 1.0, (0.1, 0.2, -0.02)))
    return Pose(
        x=p.x,
        yaw=0.4 * p.yaw,
        lean=-0.1 * wide,
        nod=-0.3 * wide,
        tilt=0.12 * p.facing * wide,
        stretch=1 + 0.04 * wide,
        stretch_arms=long,
        **arms(p, hand, high, long),
        before_face=(near_hand(p),),
        mouth=1.05 * wide,
        smile=0.1,
        blink=max(0.45, wide),
        brow=0.5 * wide,
        wonder=0.5 * wide,
        play=1.2,
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
    "point": point,
    "cry": cry,
    "sleep": sleep,
    "crawl": crawl,
    "yawn": yawn,
    "eat": handling.eat,
    "drink": handling.drink,
    "push": handling.push,
    "throw": handling.throw,
    "pick_up": handling.pick_up,
    "fight": duets.fight,
    "hug": duets.hug,
    "high_five": duets.high_five,
    "blink": feelings.blink,
    "surprise": feelings.surprise,
    "brighten": feelings.brighten,
    "sadden": feelings.sadden,
    "anger": feelings.anger,
}
"""Every action by name."""

TRAVELLING = ("walk", "run", "skip", "crawl", "push")
"""Actions that cross the ground."""

TURN_S = 0.35
"""How long it takes to go over from one action to another."""


def travel_speed(person: Person) -> float:
    """How fast the person crosses the picture, heights a second, to the right positive."""
    move = ACTIONS[person.action]
    return move(1.0, person).x - move(0.0, person).x if person.action in TRAVELLING else 0.0


def acted(t: float, person: Person) -> Pose:
    """The pose of the person's action; for a while after time 0 on the way there from what it did before."""
    if person.before is None:
        return ACTIONS[person.action](t, person)
    if t <= 0:
        return ACTIONS[person.before.action](t, person.before)
    then = ACTIONS[person.action](t, person)
    if t >= TURN_S:
        return then
    return between(ACTIONS[person.before.action](0.0, person.before), then, smoothstep(t / TURN_S))


def pose_at(t: float, person: Person) -> Pose:
    """The action's pose with the person's mood, breath and blinking on top."""
    pose = acted(t, person)
    smile, brow, wonder, blush, mouth = EMOTIONS[person.emotion]
    pose.smile = max(-1.0, min(1.0, smile if pose.smile == 0.4 else pose.smile))
    pose.brow += brow
    pose.wonder = max(pose.wonder, wonder)
    pose.blush = blush
    pose.mouth = max(pose.mouth, mouth)
    phase = own_phase(person)
    # A blink takes 0.3 s, so that it is seen at 8 frames a second too.
    eyelid = (t * 0.62 + phase * 3.7) % 1.0 / 0.62
    if eyelid < 0.3:
        pose.blink = max(pose.blink, math.sin(math.pi * eyelid / 0.3))
    pose.lift += 0.004 * wave(t, 0.4, phase)
    pose.side += 0.012 * wave(t, 0.3, phase + 0.4)
    return pose
