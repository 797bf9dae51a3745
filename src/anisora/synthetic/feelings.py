"""What a face does when the clip is about the face: a feeling that gives way to another, a slow blink."""

from __future__ import annotations

import math

from anisora.synthetic.person import EMOTIONS, Person, pace
from anisora.synthetic.pose import Pose, bump, smoothstep, there_and_back, wave


def _change(t: float, p: Person, before: str, after: str) -> tuple[Pose, float]:
    """A face on which one feeling follows another, and how far the second is there, 0 to 1. Between the two it blinks."""
    period = 7.0 / pace(p)
    at = t - 0.35 - 0.35 * p.phase
    v = there_and_back(at, period, 0.06, 0.62)
    start = at % period * pace(p)
    values = [a + (b - a) * v for a, b in zip(EMOTIONS[before], EMOTIONS[after], strict=True)]
    smile, brow, wonder, _, mouth = values
    pose = Pose(
        x=p.x,
        yaw=0.25 * p.yaw,
        head_yaw=0.1 * wave(t, 0.3, p.phase),
        side=0.02 * wave(t, 0.35, p.phase),
        smile=smile,
        brow=brow,
        wonder=wonder,
        mouth=mouth,
        # Eyes that close on the way are how animators turn one expression into another.
        blink=0.9 * bump(start, -0.02, 0.12, 0.34) if start < 1 else 0.0,
        play=2.1,
    )
    return pose, v


def surprise(t: float, p: Person) -> Pose:
    """Calm, then startled: brows up, eyes wide, mouth open, the head back."""
    pose, v = _change(t, p, "calm", "surprised")
    start = bump(v, 0.0, 0.7, 1.35)
    pose.mouth, pose.wonder, pose.smile = 0.8 * v, 1.4 * v, 0.35 - 0.7 * v
    pose.lean, pose.stretch, pose.nod = -0.14 * v - 0.08 * start, 1 + 0.07 * start, -0.14 * v
    pose.arm_l = pose.arm_r = (0.5 * v, 0.35 + 0.35 * v, 1.2 * v, 0.2 * v)
    return pose


def brighten(t: float, p: Person) -> Pose:
    """Sad, then happy: the head comes up, a smile opens."""
    pose, v = _change(t, p, "sad", "happy")
    glee = v * wave(t, 1.1, p.phase)
    pose.nod, pose.tilt = 0.26 * (1 - v) - 0.1 * v + 0.03 * glee, p.facing * 0.12 * v + 0.05 * glee
    pose.mouth, pose.lift, pose.stretch = 0.6 * v, -0.03 * (1 - v) + 0.008 * glee, 0.97 + 0.04 * v
    return pose


def sadden(t: float, p: Person) -> Pose:
    """Happy, then sad: the smile falls, the head sinks, tears come."""
    pose, v = _change(t, p, "happy", "sad")
    pose.nod, pose.tilt = 0.3 * v - 0.05, -p.facing * 0.12 * v
    pose.mouth = 0.45 * (1 - v) + 0.05 * v * (1 + wave(t, 2.2))
    pose.blink = max(pose.blink, 0.3 * v)
    pose.lift, pose.tears = -0.03 * v, max(0.0, 2 * v - 1)
    return pose


def anger(t: float, p: Person) -> Pose:
    """Calm, then angry: brows down, the mouth bent, the head forward and trembling."""
    pose, v = _change(t, p, "calm", "angry")
    pose.smile, pose.brow = 0.35 - 1.35 * v, -1.25 * v
    pose.nod, pose.lean = 0.16 * v, 0.12 * v
    pose.tilt = 0.035 * v * math.sin(2 * math.pi * 4.3 * t)
    pose.mouth = 0.16 * v * (1 + wave(t, 1.4, p.phase))
    return pose


def blink(t: float, p: Person) -> Pose:
    """Closes the eyes slowly and opens them, and again."""
    u = (1.1 * p.tempo * t + p.phase) % 1.0
    shut = smoothstep((u - 0.1) / 0.16) * (1 - smoothstep((u - 0.44) / 0.14))
    return Pose(
        x=p.x,
        yaw=0.25 * p.yaw,
        head_yaw=0.12 * wave(t, 0.4, p.phase),
        nod=0.07 * shut,
        tilt=0.07 * wave(t, 0.5 * p.tempo, p.phase),
        blink=shut,
        smile=0.6,
        play=1.4,
    )
