"""Dresses a skeleton: body, clothes, head, face, hair and extras, back to front, as primitives."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from anisora.synthetic.display import Color, Pen, Prim, mix
from anisora.synthetic.parts import COLORS, PALETTES, SKINS, Character
from anisora.synthetic.rig import Point, Skeleton

WHITE, INK, TEAR = (255, 255, 255), (44, 34, 52), (170, 218, 250)


class Looks:
    """The colours of one character."""

    def __init__(self, c: Character) -> None:
        hair, top, bottom, accent = (COLORS[name] for name in PALETTES[c.palette])
        self.hair, self.top, self.bottom, self.accent = hair, top, bottom, accent
        self.skin: Color = hair if c.is_animal else SKINS[c.skin]
        if c.kind == "rabbit":
            self.skin = mix(hair, WHITE, 0.6)
        self.muzzle = mix(self.skin, (255, 246, 230), 0.7)
        self.eye = COLORS[c.eye_color]
        self.shoe = mix(accent, (60, 40, 50), 0.25)
        self.sleeve = accent if c.outfit == "overalls" else top
        self.legs = self.skin if c.outfit in ("dress", "school uniform") else bottom


@lru_cache(maxsize=64)
def _looks(c: Character) -> Looks:
    return Looks(c)


def dress(c: Character, s: Skeleton, pen: Pen) -> list[Prim]:
    """The character in this pose, written with `pen`, in drawing order."""
    looks = _looks(c)
    front = math.cos(s.pose.yaw) >= -0.15
    near, far = ("left", "right") if math.sin(s.pose.yaw) < 0 else ("right", "left")
    if front:
        _behind_body(c, s, pen, looks)
    if not c.is_animal and not _is_away(s):
        _back_hair(c, s, pen, looks)
    hidden = [side for side in (far, near) if _arm_is_behind(s, side)]
    for side in hidden:
        _arm(c, s, pen, looks, side, side == far)
    for side in sorted((near, far), key=lambda side: s.depths[f"{side}_leg"]):
        _leg(c, s, pen, looks, side, side == far)
    _torso(c, s, pen, looks)
    if not front:
        _behind_body(c, s, pen, looks)
    raised = [side for side in (far, near) if side not in hidden]
    _head(c, s, pen, looks)
    for side in raised:
        _arm(c, s, pen, looks, side, False)
    return pen.prims


def _is_away(s: Skeleton) -> bool:
    """The head is seen from behind."""
    return math.cos(s.head_yaw) < -0.1


def _arm_is_behind(s: Skeleton, side: str) -> bool:
    """An arm on the far side, or swung back, is drawn before the torso."""
    if side in s.pose.before_face:
        return False
    left = 1 if side == "left" else -1
    depth = -left * math.sin(s.pose.yaw) * 0.12 + s.depths[f"{side}_arm"] * math.cos(s.pose.yaw)
    return depth < -0.03 or s.joints[f"{side}_elbow"][1] < s.joints[f"{side}_shoulder"][1]


# --- limbs and body -------------------------------------------------------------------------------------------------


def _flat(*points: Point) -> tuple[float, ...]:
    return tuple(v for p in points for v in p)


def _arm(c: Character, s: Skeleton, pen: Pen, looks: Looks, side: str, far: bool) -> None:
    shoulder, elbow, hand = (s.joints[f"{side}_{part}"] for part in ("shoulder", "elbow", "hand"))
    dim = 0.16 if far else 0.0
    if s.pose.finger == side:
        _finger(pen, mix(looks.skin, (60, 30, 80), dim), elbow, hand)
    skin, sleeve = mix(looks.skin, (60, 30, 80), dim), mix(looks.sleeve, (50, 30, 80), dim)
    if c.outfit in ("hoodie", "coat", "robe", "school uniform"):
        pen.oval(f"hand_{side}", *hand, 0.04, 0.04, skin)
        wide = 0.1 if c.outfit in ("robe", "coat") else 0.085
        pen.add("stroke", f"sleeve_{side}", _flat(shoulder, elbow, _between(elbow, hand, 0.75)), sleeve, wide)
        return
    pen.add("stroke", f"arm_{side}", _flat(shoulder, elbow, hand), skin, 0.062)
    pen.oval(f"hand_{side}", *hand, 0.038, 0.038, skin, plain=True)
    pen.add("stroke", f"sleeve_{side}", _flat(shoulder, _between(shoulder, elbow, 0.55)), sleeve, 0.085)


def _finger(pen: Pen, skin: Color, elbow: Point, hand: Point) -> None:
    """The index finger, along the forearm."""
    length = max(math.hypot(hand[0] - elbow[0], hand[1] - elbow[1]), 1e-3)
    pen.add("stroke", "finger", _flat(hand, _between(elbow, hand, 1 + 0.075 / length)), skin, 0.028)


def _between(p: Point, q: Point, u: float) -> Point:
    return p[0] + (q[0] - p[0]) * u, p[1] + (q[1] - p[1]) * u


def _leg(c: Character, s: Skeleton, pen: Pen, looks: Looks, side: str, far: bool) -> None:
    hip, knee, foot = (s.joints[f"{side}_{part}"] for part in ("hip", "knee", "foot"))
    color = mix(looks.legs, (50, 30, 80), 0.2 if far else 0.0)
    shoe = mix(looks.shoe, (50, 30, 80), 0.2 if far else 0.0)
    width = 0.07 if looks.legs is looks.skin else 0.092
    pen.add("stroke", f"leg_{side}", _flat(hip, knee, (foot[0], foot[1] - 0.02)), color, width)
    toe = 0.034 * math.sin(s.pose.yaw)
    pen.oval(f"shoe_{side}", foot[0] + toe, foot[1] - 0.024, 0.048 + abs(toe) * 0.5, 0.034, shoe)


def _torso(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    (hx, hy), (nx, ny) = s.joints["hips"], s.joints["neck"]
    dx, dy = nx - hx, ny - hy
    length = max(math.hypot(dx, dy), 1e-3)
    ax, ay = -dy / length, dx / length
    slim = 0.72 + 0.28 * abs(math.cos(s.pose.yaw))
    hem, flare = {
        "dress": (-0.42, 0.175), "school uniform": (-0.3, 0.16), "coat": (-0.5, 0.135), "robe": (-0.75, 0.15),
    }.get(c.outfit, (-0.08, 0.1))  # fmt: skip
    # A skirt shortens when its wearer sits and swings behind when she moves.
    hem *= max(0.25, min(1.0, 1 + s.pose.lift * 4.0))
    swing = s.lags[1][0] * (0.9 if hem < -0.15 else 0.0)

    def at(up: float, half: float, shift: float = 0.0) -> Point:
        return hx + dx * up + ax * half * slim + shift, hy + dy * up + ay * half * slim

    ring = [at(1.0, -0.06), at(0.86, -0.105), at(0.4, -0.092), at(hem, -flare, swing)]
    ring += [at(hem - 0.03, 0.0, swing), at(hem, flare, swing), at(0.4, 0.092), at(0.86, 0.105), at(1.0, 0.06)]
    body = looks.bottom if c.outfit == "overalls" else looks.top
    if c.outfit == "school uniform":
        _skirt(pen, looks, at, hem, flare, swing)
        ring = [at(1.0, -0.06), at(0.86, -0.105), at(0.1, -0.1), at(0.06, 0), at(0.1, 0.1), at(0.86, 0.105)]
        ring += [at(1.0, 0.06)]
    pen.add("blob", "torso", _flat(*ring), body)
    turned = 0.055 * math.sin(s.pose.yaw)
    if math.cos(s.pose.yaw) > -0.1:
        _front_of_clothes(c, pen, looks, at, turned, hem)


def _skirt(pen: Pen, looks: Looks, at: Callable[..., Point], hem: float, flare: float, swing: float) -> None:
    points = [at(0.22, -0.085), at(hem, -flare, swing), at(hem - 0.07, -flare * 0.5, swing), at(hem, -0.02, swing)]
    points += [at(hem - 0.07, flare * 0.5, swing), at(hem, flare, swing), at(0.22, 0.085)]
    pen.add("poly", "skirt", _flat(*points), looks.bottom)


def _front_of_clothes(
    c: Character, pen: Pen, looks: Looks, at: Callable[..., Point], turned: float, hem: float
) -> None:
    if c.outfit == "school uniform":
        tie = _flat(at(0.92, turned - 0.05), at(0.6, turned), at(0.92, turned + 0.05))
        pen.add("poly", "tie", tie, looks.accent, outlined=False, shaded=False)
    elif c.outfit == "hoodie":
        pen.mark(
            "stroke", "pocket", _flat(at(0.22, turned - 0.05), at(0.22, turned + 0.05)), mix(looks.top, INK, 0.3), 0.05
        )
    elif c.outfit in ("coat", "robe"):
        pen.mark("stroke", "seam", _flat(at(0.9, turned), at(hem, turned)), looks.accent, 0.022)
    elif c.outfit == "overalls":
        for name, side in (("l", -0.05), ("r", 0.05)):
            pen.mark(
                "stroke", f"strap_{name}", _flat(at(1.0, side + turned), at(0.55, side + turned)), looks.accent, 0.03
            )
    elif c.outfit == "dress":
        pen.mark("stroke", "belt", _flat(at(0.36, -0.085), at(0.36, 0.085)), looks.accent, 0.03)
    else:
        pen.mark("stroke", "stripe", _flat(at(0.5, -0.085), at(0.5, 0.085)), looks.accent, 0.045)


# --- behind the body: cape, tail, long hair -------------------------------------------------------------------------


def _trail(s: Skeleton, root: Point, tip: Point, gain: float) -> list[Point]:
    """Root, middle and tip of something loose that hangs from root to tip."""
    (ax, ay), (bx, by), (cx, cy) = s.lags
    mid = _between(root, tip, 0.5)
    return [
        (root[0] + 0.2 * gain * ax, root[1] + 0.2 * gain * ay),
        (mid[0] + gain * bx, mid[1] + gain * by),
        (tip[0] + gain * cx, tip[1] + gain * cy),
    ]


def _behind_body(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    neck, hips = s.joints["neck"], s.joints["hips"]
    back = -math.sin(s.pose.yaw)
    if c.extra == "cape":
        _, mid, tip = _trail(s, neck, (neck[0] + 0.1 * back, min(hips[1] + 0.16, -0.03)), 1.1)
        half = 0.12 + 0.05 * abs(math.cos(s.pose.yaw))
        points = [(neck[0] - 0.07, neck[1]), (mid[0] - half, mid[1]), (tip[0] - half * 1.25, tip[1])]
        points += [
            (tip[0], tip[1] + 0.02),
            (tip[0] + half * 1.25, tip[1]),
            (mid[0] + half, mid[1]),
            (neck[0] + 0.07, neck[1]),
        ]
        pen.add("blob", "cape", _flat(*points), looks.accent)
    if c.extra == "backpack":
        pen.oval("backpack", neck[0] + 0.1 * back, (neck[1] + hips[1]) / 2, 0.125, 0.12, looks.accent)
    if c.is_animal:
        _tail(c, s, pen, looks, hips, back)


def _tail(c: Character, s: Skeleton, pen: Pen, looks: Looks, hips: Point, back: float) -> None:
    wag = 0.05 * math.sin(2 * math.pi * 0.9 * s.time_s)
    side = back if abs(back) > 0.3 else -0.6
    if c.kind in ("bear", "rabbit"):
        pen.oval("tail", hips[0] + 0.1 * side, hips[1] - 0.01, 0.045, 0.045, looks.muzzle)
        return
    root, mid, tip = _trail(s, hips, (hips[0] + 0.27 * side, hips[1] - 0.12 + wag), 0.9)
    mid = (mid[0] + 0.02 * side, mid[1] + 0.08)
    width = 0.1 if c.kind == "fox" else 0.05
    pen.add("stroke", "tail", _flat(root, mid, _between(mid, tip, 0.6), tip), looks.skin, width)
    if c.kind == "fox":
        pen.oval("tail_tip", *tip, 0.05, 0.05, looks.muzzle, plain=True)


# --- head -----------------------------------------------------------------------------------------------------------


def _ball(lon: float, lat: float, s: Skeleton) -> tuple[float, float]:
    """Where longitude and latitude of the head (radians, 0 is between the eyes) are seen, in head radii. What lies on
    the far side is drawn in to the rim, so that shapes shrink away as the head turns."""
    lon += (s.head_yaw + math.pi) % (2 * math.pi) - math.pi
    lon = max(-math.pi / 2, min(math.pi / 2, lon))
    return math.sin(lon) * math.cos(lat * 0.92), -math.sin(lat) + 0.55 * s.pose.nod * math.cos(lon)


def _is_seen(lon: float, s: Skeleton) -> bool:
    return math.cos(lon + s.head_yaw) > 0.2


def _head(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    away = _is_away(s)
    if c.is_animal or c.extra == "cat ears":
        _ears(c, s, pen, looks)
    r = s.head_r
    (xx, xy), (yx, yy) = s.head_x, s.head_y
    x, y = s.joints["head"]
    if c.is_animal:
        pen.add("ellipse", "skull", (x, y, r * xx, r * xy, 0.93 * r * yx, 0.93 * r * yy), looks.skin)
    else:
        _hair_behind_face(c, s, pen, looks)
    if abs(math.cos(s.head_yaw)) > 0.05 or not away:
        _face(c, s, pen, looks)
    if not c.is_animal:
        _hair_on_top(c, s, pen, looks)
        if away:
            _back_hair(c, s, pen, looks)
    _on_head(c, s, pen, looks)


def _face(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    if math.cos(s.head_yaw) > -0.5:
        if c.is_animal:
            _muzzle(s, pen, looks)
        else:
            pen.add("poly", "face", _flat(*_face_patch(c, s)), looks.skin)
    for side, lon in (("l", 0.45), ("r", -0.45)):
        if _is_seen(lon, s):
            _cheek_eye_brow(c, s, pen, looks, side, lon)
    if _is_seen(0.0, s):
        _mouth(c, s, pen, looks)
    if s.pose.tears:
        for side, lon in (("l", 0.45), ("r", -0.45)):
            if _is_seen(lon, s):
                _tears(s, pen, side, lon)


FRINGES: dict[str, tuple[float, ...]] = {
    "short": (0.0, 0.5, 0.12, 0.55, 0.18, 0.6, 0.22, 0.5, 0.0),
    "bob": (-0.5, 0.32, 0.34, 0.36, 0.35, 0.36, 0.34, 0.32, -0.5),
    "long": (-0.7, 0.2, 0.5, 0.36, 0.6, 0.36, 0.5, 0.2, -0.7),
    "ponytail": (-0.2, 0.3, 0.6, 0.4, 0.3, 0.52, 0.36, 0.55, -0.2),
    "twin-tail": (-0.3, 0.4, 0.3, 0.5, 0.32, 0.5, 0.3, 0.4, -0.3),
    "spiky": (0.0, 0.55, 0.2, 0.62, 0.25, 0.62, 0.2, 0.55, 0.0),
    "bun": (-0.25, 0.3, 0.52, 0.62, 0.7, 0.62, 0.52, 0.3, -0.25),
    "curly": (-0.1, 0.3, 0.36, 0.46, 0.4, 0.46, 0.36, 0.3, -0.1),
    "braided": (-0.2, 0.3, 0.5, 0.6, 0.66, 0.6, 0.5, 0.3, -0.2),
    "swept": (0.0, 0.2, 0.3, 0.34, 0.4, 0.5, 0.62, 0.5, 0.1),
}
"""Latitude of the hairline from one ear to the other."""


def _face_patch(c: Character, s: Skeleton) -> list[Point]:
    fringe = FRINGES[c.hair]
    n = len(fringe) - 1
    patch = [s.on_head(*_ball(-1.25 + 2.5 * k / n, lat, s)) for k, lat in enumerate(fringe)]
    for lon in (1.3, 1.2, 0.95, 0.65, 0.33, 0.0, -0.33, -0.65, -0.95, -1.2, -1.3):
        chin = -0.25 - 1.12 * math.cos(lon * 0.95) ** 0.6
        a, b = _ball(lon, max(chin, -1.42), s)
        patch.append(s.on_head(a, min(b, 0.93 * math.sqrt(max(1 - a * a, 0.0)))))
    return patch


def _muzzle(s: Skeleton, pen: Pen, looks: Looks) -> None:
    a, b = _ball(0.0, -0.5, s)
    x, y = s.on_head(a * 0.85, b)
    wide = s.head_r * (0.42 * abs(math.cos(s.head_yaw)) + 0.14)
    pen.add("ellipse", "muzzle", (x, y, wide, 0.0, 0.0, s.head_r * 0.34), looks.muzzle, outlined=False, shaded=False)
    nx, ny = s.on_head(_ball(0.0, -0.28, s)[0] * 0.95, _ball(0.0, -0.28, s)[1])
    pen.oval("nose", nx, ny, s.head_r * 0.1, s.head_r * 0.07, (70, 44, 56), plain=True)


def _cheek_eye_brow(c: Character, s: Skeleton, pen: Pen, looks: Looks, side: str, lon: float) -> None:
    pose, r = s.pose, s.head_r
    narrow = 0.12 + 0.88 * max(math.cos(lon + s.head_yaw), 0.0)
    a, b = _ball(lon, -0.12, s)
    a *= 0.95
    (xx, xy), (yx, yy) = s.head_x, s.head_y

    def across(key: str, da: float, db: float, half_w: float, half_h: float, color: Color) -> None:
        x, y = s.on_head(a + da * narrow, b + db)
        w, h = half_w * narrow * r, half_h * r
        pen.mark("ellipse", f"{key}_{side}", (x, y, w * xx, w * xy, h * yx, h * yy), color)

    if pose.blush > 0.25:
        across(
            "blush",
            0.12 * (1 if lon > 0 else -1),
            0.36,
            0.17,
            0.085,
            mix(looks.skin, (250, 110, 110), 0.45 * pose.blush),
        )
    open_ = (1 - pose.blink) * {"sleepy": 0.62}.get(c.eyes, 1.0) * (1 + 0.15 * pose.wonder)
    w, h = {"big": (0.2, 0.29), "round": (0.185, 0.235), "dot": (0.095, 0.15), "sleepy": (0.2, 0.27)}[c.eyes]
    h *= open_
    lash_h = 0.0 if c.eyes == "dot" and open_ > 0.25 else 0.06
    if open_ > 0.18:
        gaze = 0.3 * w * pose.gaze + 0.12 * w * math.sin(s.head_yaw)
        if c.eyes == "dot":
            across("eye", gaze, 0.0, w, h, INK)
            across("glint", gaze - 0.03, -h * 0.42, 0.035, 0.04, WHITE)
        else:
            across("white", 0.0, 0.0, w, h, WHITE)
            across("iris", gaze, 0.02, w * 0.74, h * 0.88, mix(looks.eye, INK, 0.3))
            across("glow", gaze, 0.02 + h * 0.42, w * 0.5, h * 0.36, mix(looks.eye, WHITE, 0.35))
            across("pupil", gaze, 0.0, w * 0.34, h * 0.46, INK)
            across("glint", gaze - w * 0.3, -h * 0.42, w * 0.3, h * 0.24, WHITE)
    if lash_h:
        _lash(s, pen, side, a, b, narrow, w, h)
    _brow(c, s, pen, looks, side, lon, a, b, narrow)


def _lash(s: Skeleton, pen: Pen, side: str, a: float, b: float, narrow: float, w: float, h: float) -> None:
    """The upper eyelid; it comes down when the eye closes and ends as a smiling line."""
    shut = s.pose.blink
    top, end = -h + 0.14 * shut, 0.5 * -h + 0.02 * shut
    rounder = 0.05 * shut * min(s.pose.play - 1, 1.0)
    points = [s.on_head(a - w * 1.1 * narrow, b + end), s.on_head(a, b + top - 0.02 + 0.1 * shut)]
    points += [s.on_head(a + w * 1.1 * narrow, b + end)]
    mid_l, mid_r = (
        s.on_head(a - w * 0.66 * narrow, b + 0.28 * end + 0.72 * top + rounder),
        s.on_head(a + w * 0.66 * narrow, b + 0.28 * end + 0.72 * top + rounder),
    )
    pen.mark("stroke", f"lash_{side}", _flat(points[0], mid_l, points[1], mid_r, points[2]), INK, s.head_r * 0.075)


def _brow(
    c: Character, s: Skeleton, pen: Pen, looks: Looks, side: str, lon: float, a: float, b: float, narrow: float
) -> None:
    out = 1 if lon > 0 else -1
    up = -0.43 - 0.12 * s.pose.wonder
    slope = 0.1 * s.pose.brow * s.pose.play
    inner = s.on_head(a - out * 0.15 * narrow, b + up - slope)
    outer = s.on_head(a + out * 0.17 * narrow, b + up + slope)
    mid = s.on_head(a + out * 0.02 * narrow, b + up - 0.035)
    color = mix(looks.skin if c.is_animal else looks.hair, INK, 0.6)
    pen.mark("stroke", f"brow_{side}", _flat(inner, mid, outer), color, s.head_r * 0.055)


def _tears(s: Skeleton, pen: Pen, side: str, lon: float) -> None:
    """What wells up under an eye, and drops that run down from it; each grows where it starts and is gone where it ends."""
    a, b = _ball(lon, -0.12, s)
    r, tears = s.head_r, s.pose.tears
    pen.oval(f"well_{side}", *s.on_head(a, b + 0.19), 0.17 * r * tears, 0.055 * r * tears, TEAR, plain=True)
    for k in range(3):
        u = (0.9 * s.time_s + k / 3 + (0.17 if lon > 0 else 0.0)) % 1.0
        x, y = s.on_head(a * (1 + 0.25 * u), b + 0.22 + 0.75 * u)
        size = 0.1 * r * tears * math.sin(math.pi * u) + 1e-4
        pen.oval(f"tear_{side}{k}", x, y, 0.75 * size, size, TEAR, plain=True)


def _mouth(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    pose = s.pose
    a, b = _ball(0.0, -0.62 if not c.is_animal else -0.52, s)
    narrow = 0.2 + 0.8 * max(math.cos(s.head_yaw), 0.0)
    wide = (0.16 + 0.07 * max(pose.smile, 0.0) - 0.03 * pose.mouth) * narrow * (1 + 0.3 * (pose.play - 1))
    bend = 0.075 * pose.smile * (1 - 0.5 * pose.mouth) * pose.play
    open_ = 0.02 + 0.26 * pose.mouth
    upper = [s.on_head(a + wide * u, b + bend * (1 - 2 * u * u) - 0.15 * open_) for u in (-1, -0.5, 0, 0.5, 1)]
    lower = [
        s.on_head(a + wide * u, b + bend * (1 - 2 * u * u) + open_ * (1 - u * u * 0.8)) for u in (0.55, 0.0, -0.55)
    ]
    inside = mix((150, 40, 60), INK, max(0.0, 1 - 4 * pose.mouth))
    pen.prims.append(
        Prim("blob", pen.prefix + "mouth", pen.group, _flat(*upper, *lower), 0.0, inside, s.head_r * 0.022, INK)
    )
    if pose.mouth > 0.3:
        x, y = s.on_head(a, b + bend + open_ * 0.62)
        pen.mark("ellipse", "tongue", (x, y, wide * 0.55 * s.head_r, 0.0, 0.0, open_ * 0.3 * s.head_r), (240, 120, 130))


def _ears(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    color = looks.hair if not c.is_animal else looks.skin
    long_, wide, lon = {"rabbit": (1.15, 0.2, 0.32), "bear": (0.3, 0.28, 0.8), "dog": (0.1, 0.22, 1.25)}.get(
        c.kind, (0.55, 0.3, 0.62)
    )
    turn = math.cos(s.head_yaw)
    for name, side in (("l", 1), ("r", -1)):
        a = side * math.sin(lon) * turn
        b = -math.cos(lon) * 0.86
        sway = s.lags[2][0] / s.head_r * (0.7 if c.kind in ("rabbit", "dog") else 0.12)
        if c.kind == "bear":
            pen.oval(f"ear_{name}", *s.on_head(a * 0.98, b - 0.12), s.head_r * 0.3, s.head_r * 0.3, color)
            continue
        if c.kind == "dog":
            points = [
                (a, b - 0.05),
                (a * 1.25 + sway * 0.5, b + 0.5),
                (a * 1.1 + sway, b + 0.95),
                (a * 0.92 + sway * 0.4, b + 0.5),
            ]
            pen.add("blob", f"ear_{name}", _flat(*(s.on_head(*p) for p in points)), mix(color, INK, 0.25))
            continue
        tip = (a * 1.18 + sway, b - long_)
        kind = "blob" if c.kind == "rabbit" else "poly"
        if c.kind == "rabbit":
            points = [(a - wide, b + 0.1), (a * 1.1 - wide * 1.1 + sway * 0.5, b - long_ * 0.6), tip]
            points += [(a * 1.1 + wide * 1.1 + sway * 0.5, b - long_ * 0.6), (a + wide, b + 0.1)]
        else:
            points = [(a - wide, b + 0.1), tip, (a + wide, b + 0.1)]
        pen.add(kind, f"ear_{name}", _flat(*(s.on_head(*p) for p in points)), color)
        inner = [(a + (p[0] - a) * 0.55, b + 0.1 + (p[1] - b - 0.1) * 0.72) for p in points]
        if turn > 0:
            pen.mark(kind, f"ear_in_{name}", _flat(*(s.on_head(*p) for p in inner)), (250, 176, 176))


# --- hair -----------------------------------------------------------------------------------------------------------


def _lock(
    s: Skeleton,
    pen: Pen,
    key: str,
    color: Color,
    root: tuple[float, float],
    tip: tuple[float, float],
    width: float,
    gain: float = 1.0,
) -> None:
    """A strand of hair from root to tip (head radii), thick in the middle, that lags behind the head."""
    start, mid, end = _trail(s, s.on_head(*root), s.on_head(*tip), gain)
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(math.hypot(dx, dy), 1e-4)
    px, py = -dy / length * width * s.head_r, dx / length * width * s.head_r
    points = [(start[0] - px * 0.7, start[1] - py * 0.7), (mid[0] - px, mid[1] - py), end]
    points += [(mid[0] + px, mid[1] + py), (start[0] + px * 0.7, start[1] + py * 0.7)]
    pen.add("blob", key, _flat(*points), color)


def _back_hair(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    """What hangs behind the head, or over it when the head is seen from behind."""
    back = -math.sin(s.head_yaw)
    color = looks.hair
    if c.hair == "long":
        _curtain(s, pen, color, back, 2.05, 0.95)
    elif c.hair == "bob":
        _curtain(s, pen, color, back, 1.02, 1.06)
    elif c.hair == "ponytail":
        side = back if abs(back) > 0.25 else 0.35
        _lock(s, pen, "ponytail", color, (0.85 * side, -0.5), (1.5 * side, 1.15), 0.33, 1.3)
        pen.oval("hair_tie", *s.on_head(0.88 * side, -0.48), s.head_r * 0.14, s.head_r * 0.14, looks.accent)
    elif c.hair == "twin-tail":
        for name, out in (("l", 1.0), ("r", -1.0)):
            a = out * (0.35 + 0.6 * abs(math.cos(s.head_yaw))) + 0.3 * back
            _lock(s, pen, f"tail_{name}", color, (0.9 * a, -0.3), (1.32 * a, 1.45), 0.27, 1.3)
            pen.oval(f"tie_{name}", *s.on_head(0.9 * a, -0.32), s.head_r * 0.12, s.head_r * 0.12, looks.accent)
    elif c.hair == "braided":
        side = back if abs(back) > 0.3 else 0.7
        for k in range(4):
            x, y = _trail(s, s.on_head(0.7 * side, 0.5), s.on_head(0.9 * side, 1.9), 1.1)[min(k, 2)]
            pen.oval(
                f"braid_{k}",
                x,
                y + (0.2 * s.head_r if k == 3 else 0),
                s.head_r * (0.26 - 0.03 * k),
                s.head_r * 0.24,
                color,
            )


def _curtain(s: Skeleton, pen: Pen, color: Color, back: float, down: float, wide: float) -> None:
    root = s.on_head(0.12 * back, 0.0)
    _, mid, tip = _trail(s, root, s.on_head(0.35 * back, down), 1.0)
    r = s.head_r * wide
    points = [
        (root[0] - r, root[1]),
        (mid[0] - r * 1.05, mid[1]),
        (tip[0] - r * 0.85, tip[1]),
        (tip[0], tip[1] + 0.08 * r),
    ]
    points += [
        (tip[0] + r * 0.85, tip[1]),
        (mid[0] + r * 1.05, mid[1]),
        (root[0] + r, root[1]),
        (root[0], root[1] - r * 0.9),
    ]
    pen.add("blob", "curtain", _flat(*points), mix(color, (40, 20, 60), 0.14))


def _hair_behind_face(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    """The mass of hair around the skull; the face lies on it."""
    sway = s.lags[1][0] / s.head_r * 0.3
    if c.hair == "curly":
        for k in range(9):
            w = math.pi * (1.2 - 1.4 * k / 8)
            x, y = s.on_head(math.cos(w) * 0.95 + sway, -math.sin(w) * 0.9)
            pen.oval(f"curl_{k}", x, y, s.head_r * 0.34, s.head_r * 0.33, looks.hair)
    if c.hair in ("spiky", "swept"):
        lean = 0.0 if c.hair == "spiky" else 0.4
        points = []
        for k in range(13):
            w = math.pi * (1.12 - 1.24 * k / 12)
            out = 1.4 if k % 2 else 0.9
            shift = (1.6 * sway + lean) * (out - 0.9) * 2
            points.append(s.on_head(math.cos(w) * out + shift, -math.sin(w) * out * 0.97))
        points += [s.on_head(0.55, -0.62), s.on_head(0.0, -0.7), s.on_head(-0.55, -0.62)]
        pen.add("poly", "spikes", _flat(*points), looks.hair)
    if c.hair == "short":
        for name, a, lean in (
            ("0", -0.95, -0.3),
            ("1", 0.95, 0.3),
            ("2", -0.45, -0.2),
            ("3", 0.45, 0.2),
            ("4", 0.05, 0.12),
        ):
            top = -math.sqrt(1 - min(abs(a), 0.9) ** 2)
            tip = s.on_head(a * 1.06 + lean * 0.4 + sway, top * 1.16)
            tuft = (s.on_head(a - 0.22, top * 0.9 + 0.12), tip, s.on_head(a + 0.22, top * 0.9 + 0.12))
            pen.add("poly", f"tuft_{name}", _flat(*tuft), looks.hair)
    ring = [
        (1.0, 0.0),
        (0.8, 0.62),
        (0.0, 0.93),
        (-0.8, 0.62),
        (-1.0, 0.0),
        (-0.84, -0.68),
        (-0.45, -0.96),
        (0.0, -1.05),
    ]
    ring += [(0.45, -0.96), (0.84, -0.68)]
    pen.add("blob", "skull", _flat(*(s.on_head(*p) for p in ring)), looks.hair)


def _hair_on_top(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    color, sway = looks.hair, s.lags[1][0] / s.head_r * 0.5
    if c.hair == "bun":
        pen.oval(
            "bun", *s.on_head(-0.25 * math.sin(s.head_yaw) + sway * 0.4, -1.05), s.head_r * 0.38, s.head_r * 0.36, color
        )
    elif c.hair in ("long", "bob"):
        start, tip = s.on_head(0.02, -0.85), s.on_head(0.28 + sway * 1.5, -1.22)
        pen.mark(
            "stroke",
            "ahoge",
            _flat(start, s.on_head(0.04 + sway, -1.14), tip),
            pen.look(color, False)[0],
            s.head_r * 0.08,
        )
    if c.hair in ("long", "twin-tail", "bob", "braided"):
        for name, lon in (("l", 1.12), ("r", -1.12)):
            if math.cos(lon + s.head_yaw) > -0.2 and math.cos(s.head_yaw) > -0.2:
                a, _ = _ball(lon, 0.0, s)
                _lock(s, pen, f"side_{name}", color, (a * 0.93, -0.35), (a * 1.0, 0.95), 0.15, 0.6)
    if pen.style in ("cel", "painted") and math.cos(s.head_yaw) > -0.3:
        shine = [s.on_head(*_ball(lon, 0.95, s)) for lon in (-0.8, -0.4, 0.0)]
        pen.mark("stroke", "shine", _flat(*shine), mix(color, WHITE, 0.42), s.head_r * 0.09)


def _on_head(c: Character, s: Skeleton, pen: Pen, looks: Looks) -> None:
    r, neck = s.head_r, s.joints["neck"]
    seen = math.cos(s.head_yaw)
    if c.extra == "hat":
        side = 0.25 * math.sin(s.head_yaw)
        crown = [
            s.on_head(-0.78, -0.52),
            s.on_head(-0.6, -1.3),
            s.on_head(0.0, -1.46),
            s.on_head(0.6, -1.3),
            s.on_head(0.78, -0.52),
        ]
        pen.add("blob", "hat", _flat(*crown, s.on_head(0.0, -0.46)), looks.accent)
        pen.add(
            "stroke",
            "brim",
            _flat(s.on_head(-1.0 + side, -0.5), s.on_head(1.0 + side, -0.5)),
            mix(looks.accent, INK, 0.25),
            r * 0.2,
        )
    elif c.extra == "scarf":
        _, mid, tip = _trail(s, neck, (neck[0] - 0.22 * math.sin(s.pose.yaw) - 0.06, neck[1] + 0.14), 1.3)
        pen.add("stroke", "scarf_end", _flat((neck[0], neck[1]), mid, tip), looks.accent, 0.07)
        pen.add(
            "stroke", "scarf", (neck[0] - 0.075, neck[1] + 0.015, neck[0] + 0.075, neck[1] + 0.015), looks.accent, 0.075
        )
    elif c.extra == "ribbon":
        side = 0.62 * (seen if abs(seen) > 0.4 else 0.4)
        x, y = s.on_head(side, -0.82)
        for name, out in (("l", -1), ("r", 1)):
            wing = (x, y, x + out * 0.42 * r, y - 0.26 * r, x + out * 0.42 * r, y + 0.26 * r)
            pen.add("poly", f"ribbon_{name}", wing, looks.accent)
        pen.oval("knot", x, y, r * 0.12, r * 0.12, mix(looks.accent, WHITE, 0.3))
    elif c.extra == "glasses" and seen > 0.1:
        for name, lon in (("l", 0.45), ("r", -0.45)):
            if _is_seen(lon, s):
                a, b = _ball(lon, -0.12, s)
                wide = 0.27 * (0.3 + 0.7 * math.cos(lon + s.head_yaw))
                ring = [
                    s.on_head(a + wide * math.cos(k * math.pi / 8), b + 0.27 * math.sin(k * math.pi / 8))
                    for k in range(17)
                ]
                pen.mark("stroke", f"lens_{name}", _flat(*ring), mix(looks.accent, INK, 0.55), r * 0.05)
