"""From a pose to points: a small three-dimensional skeleton, seen without perspective.

Everything a costume hangs on is computed here once per drawing: joints, torso and head frames, and how far loose parts
lag behind. The picture plane has x to the right and y down, the ground at y = 0; lengths are character heights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from anisora.synthetic.actions import acted, pose_at
from anisora.synthetic.parts import BUILDS
from anisora.synthetic.person import Person, arm_length, leg_length, own_phase
from anisora.synthetic.pose import LEG, Arm, Foot, Pose

JOINTS = (
    "hips", "neck", "head",
    "left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand",
    "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot",
)  # fmt: skip
"""Order of the joints in `Truth.joints_TKJ2`."""

DEPTH_TO_Y = 0.16
"""How far a point that is nearer to the viewer moves down the picture: we look down a little."""
LAGS_S = (0.07, 0.14, 0.22)
"""How far back in time the root, middle and tip of loose parts live."""

Point = tuple[float, float]


class Skeleton(NamedTuple):
    """One drawing's points."""

    pose: Pose
    joints: dict[str, Point]
    depths: dict[str, float]
    """Towards the viewer, for the order of drawing."""
    head_r: float
    head_x: Point
    """Unit vector across the head."""
    head_y: Point
    """Unit vector down the head."""
    head_yaw: float
    spine: Point
    """Unit vector from hips to neck."""
    lags: tuple[Point, Point, Point]
    time_s: float

    def on_head(self, a: float, b: float) -> Point:
        """The picture point at (a, b) head radii from the middle of the head."""
        x, y = self.joints["head"]
        r, (xx, xy), (yx, yy) = self.head_r, self.head_x, self.head_y
        return x + r * (a * xx + b * yx), y + r * (a * xy + b * yy)


def _direction(swing: float, spread: float, side: int) -> tuple[float, float, float]:
    """Unit vector (left, up, forward) of a limb that hangs down when both angles are 0."""
    return side * math.sin(spread), -math.cos(swing) * math.cos(spread), math.sin(swing) * math.cos(spread)


def _knee(hip_up: float, foot: Foot, length: float) -> tuple[float, float, float, float]:
    """(knee forward, knee up, foot forward, foot up) of a leg of two equal bones; the knee points forward."""
    fwd, up = foot[0], foot[1] - hip_up
    reach = math.hypot(fwd, up)
    if reach > length:
        fwd, up = fwd * length / reach, up * length / reach
        reach = length
    out = math.sqrt(max(length * length - reach * reach, 0.0)) / 2 / max(reach, 1e-6)
    return fwd / 2 - up * out, hip_up + up / 2 + fwd * out, fwd, hip_up + up


def _bent(lift: float, leg: float) -> float:
    """The height of the hips for legs of this length: what bends the usual legs bends these as far."""
    return lift if lift > 0 else lift * (leg / LEG)


def _spine(pose: Pose) -> tuple[Point, Point, float]:
    """Unit vectors of the torso in the picture (up, across) and how it is foreshortened."""
    angle = pose.side + pose.roll + pose.lean * math.sin(pose.yaw)
    return (math.sin(angle), -math.cos(angle)), (math.cos(angle), math.sin(angle)), angle


def _head_centre(pose: Pose, head_r: float, leg: float) -> Point:
    """Where the head is; alone, because sway asks for it at three earlier times."""
    (ux, uy), _, _ = _spine(pose)
    torso = 1 - 1.93 * head_r - leg
    towards = math.sin(pose.lean) * math.cos(pose.yaw)
    up = torso * math.cos(pose.lean * math.cos(pose.yaw) * 0.8) + head_r * 0.9
    up *= pose.stretch
    turned = math.sin(pose.yaw) * 0.05
    return pose.x + ux * up + turned, -(leg + pose.lift) * 1.0 + uy * up + 0.35 * towards * torso


def skeleton(person: Person, t: float) -> Skeleton:
    """The person's points at time t in seconds."""
    pose = pose_at(t, person)
    head_r, leg = BUILDS[person.character.build], leg_length(person)
    pose.lift = _bent(pose.lift, leg)
    sy, cy = math.sin(pose.yaw), math.cos(pose.yaw)
    (ux, uy), (ax, ay), angle = _spine(pose)
    hips = (pose.x, -(leg + pose.lift))
    torso = (1 - 1.93 * head_r - leg) * pose.stretch * math.cos(pose.lean * cy * 0.8)
    thin = 1 / math.sqrt(pose.stretch)
    towards = 0.35 * math.sin(pose.lean) * cy * torso
    joints: dict[str, Point] = {"hips": hips}
    depths: dict[str, float] = {}

    def torso_point(left: float, up: float, forward: float) -> Point:
        across = (left * cy + forward * sy) * thin
        depth = forward * cy - left * sy
        lift = towards * up / max(torso, 1e-3)
        return hips[0] + ux * up + ax * across, hips[1] + uy * up + ay * across + DEPTH_TO_Y * depth + lift

    joints["neck"] = torso_point(0, torso, 0)
    joints["head"] = _head_centre(pose, head_r, leg)
    for name, side, arm in (("left", 1, pose.arm_l), ("right", -1, pose.arm_r)):
        _arm(joints, depths, torso_point, name, side, arm, torso, arm_length(person) * pose.stretch_arms)
    for name, side, foot in (("left", 1, pose.foot_l), ("right", -1, pose.foot_r)):
        _leg(joints, depths, pose, name, side, foot, sy, cy, leg)
    head_angle = angle * 0.7 + pose.tilt
    lags = tuple(_lag(person, t, k, joints["head"], head_r) for k in range(3))
    return Skeleton(
        pose=pose,
        joints=joints,
        depths=depths,
        head_r=head_r,
        head_x=(math.cos(head_angle), math.sin(head_angle)),
        head_y=(-math.sin(head_angle), math.cos(head_angle)),
        head_yaw=pose.yaw + pose.head_yaw,
        spine=(ux, uy),
        lags=lags,  # type: ignore[arg-type]
        time_s=t,
    )


def _arm(joints, depths, torso_point, name: str, side: int, arm: Arm, torso: float, length: float) -> None:  # type: ignore[no-untyped-def]
    swing, spread, more_swing, more_spread = arm
    shoulder = (side * 0.088, torso * 0.9, 0.0)
    upper = _direction(swing, spread, side)
    fore = _direction(swing + more_swing, spread + more_spread, side)
    elbow = tuple(s + 0.5 * length * u for s, u in zip(shoulder, upper, strict=True))
    hand = tuple(e + 0.5 * length * f for e, f in zip(elbow, fore, strict=True))
    for part, (left, up, forward) in (("shoulder", shoulder), ("elbow", elbow), ("hand", hand)):
        joints[f"{name}_{part}"] = torso_point(left, up, forward)
    # Depth in torso space is enough: it only decides between before and behind.
    depths[f"{name}_arm"] = elbow[2] + hand[2]
    depths[f"{name}_side"] = side * 1.0


def _leg(joints, depths, pose: Pose, name: str, side: int, foot: Foot, sy: float, cy: float, length: float) -> None:  # type: ignore[no-untyped-def]
    left = side * 0.05
    knee_f, knee_u, foot_f, foot_u = _knee(length + pose.lift, foot, length)

    def point(lat: float, up: float, forward: float) -> Point:
        return pose.x + lat * cy + forward * sy, -up + DEPTH_TO_Y * (forward * cy - lat * sy)

    joints[f"{name}_hip"] = point(left, length + pose.lift, 0.0)
    joints[f"{name}_knee"] = point(left + side * foot[2] / 2, knee_u, knee_f)
    joints[f"{name}_foot"] = point(left + side * foot[2], foot_u, foot_f)
    depths[f"{name}_leg"] = foot_f * cy - left * sy


def _lag(person: Person, t: float, k: int, head: Point, head_r: float) -> Point:
    """How far the head was elsewhere a moment ago, limited, with some wind: loose parts hang there still."""
    then = acted(t - LAGS_S[k], person)
    then.lift = _bent(then.lift, leg_length(person))
    x, y = _head_centre(then, head_r, leg_length(person))
    wind = 0.008 * (k + 1) * math.sin(2 * math.pi * (0.55 * t + own_phase(person)) - 0.9 * k)
    limit = 0.1 * (k + 1)
    return limit * math.tanh((x - head[0]) / limit) + wind, limit * math.tanh((y - head[1]) / limit) * 0.8
