"""What moves beside the characters: objects in their world and effects over the picture.

Objects are functions of (time, person, skeleton, pen); effects of (time, aspect, particles, pen), in coordinates where
the picture is 1 high and `aspect` wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from anisora.synthetic.actions import ball_phase
from anisora.synthetic.display import Pen, mix
from anisora.synthetic.duets import HIT, meeting, turn_of
from anisora.synthetic.handling import GRASP, RELEASE, food_of, picking, throwing, tipped
from anisora.synthetic.parts import COLORS
from anisora.synthetic.person import Person, near_hand, pace
from anisora.synthetic.pose import bump, smoothstep
from anisora.synthetic.rig import Point, Skeleton, skeleton

Particles = list[tuple[float, float, float, float]]
"""Four numbers in 0..1 for each particle: place across, place down, speed or phase, size."""


def _ball(pen: Pen, x: float, y: float, r: float, turn: float) -> None:
    pen.oval("ball", x, y, r, r, COLORS["red"])
    for k in (0.0, math.pi):
        sx, sy = r * 0.5 * math.cos(turn + k), r * 0.5 * math.sin(turn + k)
        pen.oval(f"spot{k:.0f}", x + sx, y + sy, r * 0.26, r * 0.26, (255, 244, 220), plain=True)


def bounced_ball(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """The ball of the action bounce_ball: falls, touches the ground, comes back to the hand."""
    u = ball_phase(t, p)
    hand = s.joints["right_hand"]
    # Thrown down and caught again: one parabola mirrored at the ground, fastest there.
    near = abs(2 * u - 1)
    height = 1.4 * near - 0.4 * near * near
    y = -0.09 + (hand[1] + 0.19) * height
    _ball(pen, p.x + p.facing * 0.3, y, 0.09, 1.5 * t)


def rolling_ball(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    x = p.x - p.facing * (0.75 - 0.75 * t * p.tempo)
    _ball(pen, x, 0.03, 0.1, p.facing * (x - p.x) / 0.1)


def balloon(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """A balloon on a string in the left hand; it lags behind."""
    x, y = s.joints["left_hand"]
    (lx, ly) = s.lags[2]
    bx = x + 1.2 * lx + 0.03 * math.sin(2 * math.pi * 0.45 * t) + 0.08 * math.copysign(1.0, math.cos(s.pose.yaw))
    by = min(y, -0.35) - 0.45 + 0.8 * ly
    pen.mark("stroke", "string", (x, y, (x + bx) / 2 - 0.3 * lx, (y + by) / 2, bx, by + 0.13), (120, 110, 120), 0.01)
    pen.oval("balloon", bx, by, 0.115, 0.14, COLORS["red" if p.phase < 0.5 else "sky blue"])
    pen.oval("shine", bx - 0.04, by - 0.05, 0.025, 0.035, (255, 255, 255), plain=True)


def bird(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """A bird that flies across, wings beating."""
    x = -p.facing * (0.8 - 0.62 * t)
    y = -1.02 + 0.05 * math.sin(2 * math.pi * 0.7 * t)
    beat = 0.1 * math.sin(2 * math.pi * 1.7 * t)
    color = COLORS["white" if p.phase < 0.5 else "blue"]
    pen.add("blob", "far_wing", (x - 0.03, y, x - 0.02, y - 1.1 * beat, x + 0.05, y), mix(color, (40, 40, 80), 0.2))
    pen.oval("body", x, y, 0.085, 0.05, color)
    pen.oval("head", x + 0.08 * p.facing, y - 0.035, 0.04, 0.038, color)
    bx = x + 0.115 * p.facing
    pen.add(
        "poly",
        "beak",
        (bx, y - 0.055, bx + 0.045 * p.facing, y - 0.03, bx, y - 0.015),
        COLORS["orange"],
        outlined=False,
    )
    pen.mark("dots", "eye", (x + 0.09 * p.facing, y - 0.045), (40, 30, 40), 0.014)
    pen.add("blob", "wing", (x - 0.05, y, x - 0.03, y - 1.3 * beat, x + 0.05, y), color)


def butterfly(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    x = p.x + 0.42 * math.cos(2 * math.pi * (0.3 * t + p.phase))
    y = -0.72 + 0.2 * math.sin(2 * math.pi * (0.6 * t + p.phase))
    fold = 0.35 + 0.6 * abs(math.sin(2 * math.pi * 1.6 * t))
    for name, side in (("l", -1), ("r", 1)):
        pen.add(
            "ellipse",
            f"upper_{name}",
            (x + side * 0.045 * fold, y - 0.03, 0.045 * fold, 0.0, 0.0, 0.05),
            COLORS["yellow"],
        )
        pen.add(
            "ellipse",
            f"lower_{name}",
            (x + side * 0.035 * fold, y + 0.035, 0.032 * fold, 0.0, 0.0, 0.035),
            COLORS["orange"],
        )
    pen.mark("stroke", "body", (x, y - 0.05, x, y + 0.05), (60, 40, 50), 0.018)


def box(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """A wooden box that stands beside the character."""
    _crate(pen, p.x - p.facing * 0.45, 0.04, 0.24)


def _crate(pen: Pen, x: float, y: float, h: float) -> None:
    pen.add("poly", "side", (x - h / 2, y, x - h / 2, y - h, x + h / 2, y - h, x + h / 2, y), (204, 152, 96))
    lid = (x - h / 2, y - h, x - h / 3, y - h * 1.25, x + h * 0.66, y - h * 1.25, x + h / 2, y - h)
    pen.add("poly", "lid", lid, (226, 180, 122))
    pen.mark("stroke", "slat", (x - h / 2, y - h / 2, x + h / 2, y - h / 2), (160, 112, 70), 0.016)


def pushed_crate(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """The box of the action push: where the hands are."""
    h = 0.46
    hands = [s.joints[f"{side}_hand"][0] for side in ("left", "right")]
    edge = max(hands) if p.facing > 0 else min(hands)
    _crate(pen, edge + p.facing * (h / 2 + 0.02) - (0.0 if p.facing > 0 else 0.16 * h), 0.03, h)


def food(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """What is eaten, in the hand that brings it to the mouth."""
    x, y = s.joints[f"{near_hand(p)}_hand"]
    y -= 0.035
    kind = food_of(p)
    if kind == "rice ball":
        pen.add(
            "blob", "rice", (x, y - 0.085, x + 0.085, y + 0.055, x, y + 0.07, x - 0.085, y + 0.055), (250, 248, 240)
        )
        pen.mark("poly", "leaf", (x - 0.035, y, x + 0.035, y, x + 0.035, y + 0.066, x - 0.035, y + 0.066), (46, 62, 52))
    elif kind == "apple":
        pen.oval("apple", x, y, 0.075, 0.07, COLORS["red"])
        pen.mark("stroke", "stem", (x, y - 0.06, x + 0.015, y - 0.1), (104, 70, 50), 0.016)
        pen.mark("ellipse", "leaf", (x + 0.04, y - 0.09, 0.03, -0.012, 0.006, 0.014), (110, 180, 84))
    else:
        pen.add(
            "blob",
            "bread",
            (x - 0.1, y - 0.03, x, y - 0.075, x + 0.1, y - 0.03, x + 0.09, y + 0.05, x - 0.09, y + 0.05),
            (232, 184, 116),
        )
        pen.mark("stroke", "salad", (x - 0.085, y + 0.0, x + 0.085, y + 0.0), (120, 190, 90), 0.026)
        pen.mark("stroke", "ham", (x - 0.08, y + 0.022, x + 0.08, y + 0.022), (240, 130, 130), 0.022)


def cup(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """The cup of the action drink, tipped as it is emptied."""
    x, y = s.joints[f"{near_hand(p)}_hand"]
    # Its opening turns to the face, which is behind the hand on the way up.
    w = 0.95 * p.facing * -tipped(t, p)
    c, n = math.cos(w), math.sin(w)

    def at(a: float, b: float) -> Point:
        return x + a * c - b * n, y - 0.03 + a * n + b * c

    corners = [at(-0.055, -0.075), at(0.055, -0.075), at(0.045, 0.065), at(-0.045, 0.065)]
    pen.add(
        "poly", "cup", tuple(v for point in corners for v in point), COLORS["sky blue" if p.phase < 0.5 else "orange"]
    )
    band = (*at(-0.05, -0.02), *at(0.05, -0.02))
    pen.mark("stroke", "band", band, (255, 250, 240), 0.022)


def thrown_ball(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """The ball of the action throw: in the hand, then on its way out of the picture; the next one comes from behind."""
    since = throwing(t, p) - RELEASE
    x, y = s.joints[f"{near_hand(p)}_hand"]
    size = 0.075
    if 0 < since < 1.6:
        flight_s = since / pace(p)
        x, y = skeleton(p, t - flight_s).joints[f"{near_hand(p)}_hand"]
        x, y = x + p.facing * 1.3 * flight_s, y - 0.75 * flight_s + 1.3 * flight_s**2
    elif since >= 1.6:
        size *= smoothstep((since - 1.6) / 0.3)
    _ball(pen, x, y, size + 1e-4, 4 * max(since, 0.0))


def picked_ball(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """The ball of the action pick_up: on the ground until the hands have it."""
    seconds, at_ground_s = picking(t, p)
    held = s if seconds >= GRASP else skeleton(p, at_ground_s)
    (ax, ay), (bx, by) = held.joints["left_hand"], held.joints["right_hand"]
    _ball(pen, (ax + bx) / 2 + 0.02 * p.facing, min((ay + by) / 2, -0.05), 0.085, 0.4)


def _burst(pen: Pen, key: str, x: float, y: float, r: float) -> None:
    """The star that cartoons draw where something hits."""
    points: list[float] = []
    for k in range(16):
        reach = r * (1.0 if k % 2 == 0 else 0.45)
        points += [x + reach * math.cos(math.pi * k / 8 + 0.2), y + reach * math.sin(math.pi * k / 8 + 0.2)]
    pen.mark("poly", key, tuple(points), (255, 232, 90))


def blows(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """Where the blows of the action fight land: at the end of one's own fist, and on one's own cheek."""
    u = turn_of(t, p)
    given, taken = bump(u, HIT - 0.04, HIT + 0.02, HIT + 0.15), bump(u, HIT + 0.46, HIT + 0.52, HIT + 0.65)
    (hx, hy), (fx, fy) = s.joints["head"], s.joints[f"{near_hand(p)}_hand"]
    _burst(pen, "given", fx + 0.05 * p.facing, fy - 0.02, 0.16 * given + 1e-4)
    _burst(pen, "taken", hx + 0.24 * p.facing, hy + 0.12, 0.16 * taken + 1e-4)


def clapped(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """The spark of two hands that meet."""
    u = meeting(t, p)
    _, y = s.joints[f"{near_hand(p)}_hand"]
    _burst(pen, "spark", 0.0, y, 0.13 * bump(u, HIT - 0.03, HIT + 0.02, HIT + 0.14) + 1e-4)


def snooze(t: float, p: Person, s: Skeleton, pen: Pen) -> None:
    """Letters Z that rise from a sleeper's head, grow, and are gone."""
    x, y = s.joints["head"]
    for k in range(3):
        u = (0.45 * t + p.phase + k / 3) % 1.0
        r = 0.075 * math.sin(math.pi * u) * (0.6 + 0.6 * u) + 1e-4
        cx, cy = x + p.facing * (0.2 + 0.2 * u) + 0.03 * math.sin(6 * u), y - 0.16 - 0.32 * u
        letter = (cx - r, cy - r, cx + r, cy - r, cx - r, cy + r, cx + r, cy + r)
        pen.mark("stroke", f"z{k}", letter, (96, 110, 190), 0.4 * r)


OBJECTS: dict[str, Callable[[float, Person, Skeleton, Pen], None]] = {
    "ball": bounced_ball,
    "rolling ball": rolling_ball,
    "balloon": balloon,
    "bird": bird,
    "butterfly": butterfly,
    "box": box,
    "crate": pushed_crate,
    "food": food,
    "cup": cup,
    "thrown ball": thrown_ball,
    "picked ball": picked_ball,
    "blows": blows,
    "spark": clapped,
    "snooze": snooze,
}
"""Every object by name."""


# --- effects --------------------------------------------------------------------------------------------------------


def _fall(t: float, aspect: float, particle: tuple, speed: float, drift: float) -> tuple[float, float]:
    """Where a particle is that falls through the picture and starts again above it."""
    u, v, w, _ = particle
    y = (v + speed * (0.75 + 0.5 * w) * t / 1.4) % 1.0 * 1.4 - 0.2
    x = (u + drift * t / (aspect + 0.6)) % 1.0 * (aspect + 0.6) - 0.3
    return x, y


def rain(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    pts: list[float] = []
    for particle in particles[:22]:
        x, y = _fall(t, aspect, particle, 1.5, -0.22)
        pts += [x, y, x - 0.012, y + 0.085]
    pen.mark("segments", "rain", tuple(pts), (214, 232, 250, 220), 0.011)


def snow(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    for size in range(2):
        pts: list[float] = []
        for particle in particles[size * 13 : size * 13 + 13]:
            x, y = _fall(t, aspect, particle, 0.32 + 0.12 * size, 0.05)
            pts += [x + 0.025 * math.sin(2 * math.pi * (0.5 * t + particle[3])), y]
        pen.mark("dots", f"snow{size}", tuple(pts), (255, 255, 255), 0.022 + 0.016 * size)


def _flutter(t: float, aspect: float, particles: Particles, pen: Pen, name: str, colors: tuple) -> None:
    for k, particle in enumerate(particles[:9]):
        x, y = _fall(t, aspect, particle, 0.34, -0.22)
        w = 2 * math.pi * (0.7 * t + particle[3])
        x += 0.04 * math.sin(w)
        r, turn = 0.02 + 0.012 * particle[2], 0.9 * math.sin(w + 1)
        c, s = math.cos(turn), math.sin(turn)
        thin = 0.35 + 0.25 * math.sin(w)
        pen.mark("ellipse", f"{name}{k}", (x, y, r * c, r * s, -r * thin * s, r * thin * c), colors[k % len(colors)])


def petals(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    _flutter(t, aspect, particles, pen, "petal", ((255, 190, 208), (255, 214, 224)))


def leaves(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    _flutter(t, aspect, particles, pen, "leaf", ((226, 130, 60), (206, 90, 60), (236, 180, 80)))


def sparkles(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    for k, (u, v, w, size) in enumerate(particles[:8]):
        glow = max(math.sin(2 * math.pi * (0.55 * t + w)), 0.0)
        r = (0.02 + 0.03 * size) * glow + 0.0005
        x, y = u * aspect, v
        n = 0.24 * r
        star = (x, y - r, x + n, y - n, x + r, y, x + n, y + n, x, y + r, x - n, y + n, x - r, y, x - n, y - n)
        pen.mark("poly", f"spark{k}", star, (255, 250, 190))


def bubbles(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    for k, (u, v, w, size) in enumerate(particles[:8]):
        y = (v - 0.3 * (0.6 + w) * t / 1.4) % 1.0 * 1.4 - 0.2
        x = u * aspect + 0.03 * math.sin(2 * math.pi * (0.4 * t + size))
        r = 0.02 + 0.03 * size
        pen.oval(f"bubble{k}", x, y, r, r, (214, 240, 255, 110), plain=True)
        pen.oval(f"gloss{k}", x - 0.35 * r, y - 0.35 * r, 0.24 * r, 0.24 * r, (255, 255, 255, 220), plain=True)


def speed_lines(t: float, aspect: float, particles: Particles, pen: Pen) -> None:
    pts: list[float] = []
    for u, v, w, size in particles[:12]:
        x = (u - 1.1 * (0.7 + 0.6 * w) * t / (aspect + 1.2)) % 1.0 * (aspect + 1.2) - 0.6
        pts += [x, v, x + 0.18 + 0.2 * size, v]
    pen.mark("segments", "lines", tuple(pts), (255, 255, 255, 200), 0.008)


EFFECTS: dict[str, Callable[[float, float, Particles, Pen], None]] = {
    "rain": rain,
    "snow": snow,
    "petals": petals,
    "leaves": leaves,
    "sparkles": sparkles,
    "bubbles": bubbles,
    "speed lines": speed_lines,
}
"""Every effect by name."""


def particles(rng: np.random.Generator, count: int = 26) -> Particles:
    """Random starts for an effect."""
    return [tuple(row) for row in rng.random((count, 4)).tolist()]
