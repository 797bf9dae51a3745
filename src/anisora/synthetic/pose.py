"""A pose: the few numbers by which an action moves a character, at one instant.

Lengths are in character heights, angles in radians. Directions are the character's own: forward, up, and to its left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

Arm = tuple[float, float, float, float]
"""(swing forward, spread sideways, how much further the forearm swings, how much further it spreads)."""
Foot = tuple[float, float, float]
"""(forward, up, sideways) from its place under the hip on the ground."""

Spot = tuple[float, float, float]
"""Where a hand is from its shoulder: (outward, up, forward), in the frame of the torso."""

HANGING: Spot = (0.03, -0.215, 0.03)
"""Where the hand of an arm at rest is."""

LEG = 0.27
"""Length of a leg."""
ARM = 0.23
"""Length of an arm."""


@dataclass(slots=True)
class Pose:
    """Where the character is and how it holds itself. The defaults stand still, facing the viewer."""

    x: float = 0.0
    lift: float = 0.0
    """Height of the hips above their place in standing; negative crouches."""
    yaw: float = 0.0
    """0 faces the viewer, +pi/2 faces to the right of the picture."""
    lean: float = 0.0
    """Torso forward."""
    side: float = 0.0
    """Torso to the right of the picture."""
    roll: float = 0.0
    """Whole body about the hips, clockwise in the picture."""
    stretch: float = 1.0
    """Above 1 taller and thinner, below 1 squashed."""
    head_yaw: float = 0.0
    nod: float = 0.0
    """Head down."""
    tilt: float = 0.0
    """Head to the right of the picture."""
    arm_l: Arm = (0.0, 0.3, 0.15, -0.1)
    arm_r: Arm = (0.0, 0.3, 0.15, -0.1)
    foot_l: Foot = (0.0, 0.0, 0.0)
    foot_r: Foot = (0.0, 0.0, 0.0)
    mouth: float = 0.0
    """0 closed to 1 wide open."""
    smile: float = 0.4
    """-1 to 1."""
    blink: float = 0.0
    """0 open to 1 closed."""
    brow: float = 0.0
    """-1 angry, 0 at ease, 1 worried; lifted by `wonder`."""
    wonder: float = 0.0
    """Raised brows and wide eyes, 0 to 1."""
    blush: float = 0.0
    gaze: float = 0.0
    """Eyes to the right of the picture, -1 to 1."""
    stretch_arms: float = 1.0
    """How much longer than usual the arms are: large heads on short arms must give a little."""
    play: float = 1.0
    """How large the face acts: above 1 brows and mouth move further, as in a close-up that is about a feeling."""
    tears: float = 0.0
    """0 to 1."""
    before_face: tuple[str, ...] = ()
    """Sides ("left", "right") whose arm is before the face, even with the elbow raised."""
    finger: str = ""
    """"left" or "right": the hand whose index finger is stretched out."""


def smoothstep(u: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    u = 0.0 if u < 0 else 1.0 if u > 1 else u
    return u * u * (3 - 2 * u)


def there_and_back(t: float, period: float, share: float = 0.22, rest: float = 0.28) -> float:
    """0, then up to 1, rest there, back to 0; again after `period`. `share` of the period is each way."""
    u = (t / period) % 1.0
    return smoothstep(u / share) if u < share + rest else 1 - smoothstep((u - share - rest) / share)


def bump(u: float, start: float, top: float, end: float) -> float:
    """0 before start and after end, 1 at the top, smooth between."""
    return smoothstep((u - start) / (top - start)) if u < top else 1 - smoothstep((u - top) / (end - top))


def keyed(s: float, first: Spot, *moves: tuple[float, float, Spot]) -> Spot:
    """Where a hand is at s that begins at `first` and makes these moves, each (start, end, to where), one after another."""
    at = first
    for start, end, to in moves:
        u = smoothstep((s - start) / (end - start))
        at = (at[0] + (to[0] - at[0]) * u, at[1] + (to[1] - at[1]) * u, at[2] + (to[2] - at[2]) * u)
    return at


def reach(to: Spot, long: float = 1.0, apart: float = 0.4) -> Arm:
    """The arm whose hand is at a spot, or as near to it as it can.

    `long` is the pose's `stretch_arms`; `apart` turns the elbow away from the body.
    """
    half = ARM * long / 2
    share = min(1.0, 1.999 * half / max(math.hypot(*to), 1e-6))
    out, up, forward = (v * share for v in to)
    length = max(math.hypot(out, up, forward), 1e-6)
    # The elbow hangs down, a little out and back, as far off the straight line as two bones allow.
    along = (apart * out - up - 0.35 * forward) / length**2
    bend = (apart - along * out, -1 - along * up, -0.35 - along * forward)
    far = math.sqrt(max(half * half - length * length / 4, 0.0)) / max(math.hypot(*bend), 1e-6)
    elbow = (out / 2 + bend[0] * far, up / 2 + bend[1] * far, forward / 2 + bend[2] * far)
    swing, spread = _angles(*elbow)
    fore_swing, fore_spread = _angles(out - elbow[0], up - elbow[1], forward - elbow[2])
    return swing, spread, fore_swing - swing, fore_spread - spread


def _angles(out: float, up: float, forward: float) -> tuple[float, float]:
    """(swing, spread) of a bone in this direction."""
    length = max(math.hypot(out, up, forward), 1e-9)
    return math.atan2(forward, -up), math.asin(max(-1.0, min(1.0, out / length)))


def between(one: Pose, other: Pose, u: float) -> Pose:
    """The pose a share u of the way from one to the other; which arm is before the face, and which finger is stretched, changes
    in the middle."""

    def mixed(a: Any, b: Any) -> Any:
        if isinstance(a, float | int) and isinstance(b, float | int):
            return a + (b - a) * u
        if a and b and not isinstance(a, str) and not isinstance(a[0], str):
            return tuple(mixed(x, y) for x, y in zip(a, b, strict=True))
        return a if u < 0.5 else b

    return Pose(**{field.name: mixed(getattr(one, field.name), getattr(other, field.name)) for field in fields(Pose)})


def wave(t: float, rate: float, phase: float = 0.0) -> float:
    """A sine of `rate` turns a second; `phase` in turns."""
    return math.sin(2 * math.pi * (rate * t + phase))


def hop(t: float, rate: float, air: float = 0.55) -> tuple[float, float]:
    """(height 0..1 on a ballistic arc, crouch 0..1 on the ground) of somebody who jumps `rate` times a second."""
    u = (t * rate) % 1.0
    if u < air:
        s = u / air
        return 4 * s * (1 - s), 0.0
    s = (u - air) / (1 - air)
    return 0.0, math.sin(math.pi * s) ** 1.5


def step(u: float, stride: float, stance: float, height: float) -> Foot:
    """A foot at u turns into its cycle: on the ground it moves back at constant speed, then swings forward."""
    u %= 1.0
    if u < stance:
        return stride * (0.5 - u / stance), 0.0, 0.0
    s = (u - stance) / (1 - stance)
    return stride * (smoothstep(s) - 0.5), height * math.sin(math.pi * s), 0.0
