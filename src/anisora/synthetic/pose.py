"""A pose: the few numbers by which an action moves a character, at one instant.

Lengths are in character heights, angles in radians. Directions are the character's own: forward, up, and to its left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Arm = tuple[float, float, float, float]
"""(swing forward, spread sideways, how much further the forearm swings, how much further it spreads)."""
Foot = tuple[float, float, float]
"""(forward, up, sideways) from its place under the hip on the ground."""

LEG = 0.27
"""Length of a leg."""


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


def smoothstep(u: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    u = 0.0 if u < 0 else 1.0 if u > 1 else u
    return u * u * (3 - 2 * u)


def there_and_back(t: float, period: float, share: float = 0.22, rest: float = 0.28) -> float:
    """0, then up to 1, rest there, back to 0; again after `period`. `share` of the period is each way."""
    u = (t / period) % 1.0
    return smoothstep(u / share) if u < share + rest else 1 - smoothstep((u - share - rest) / share)


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
