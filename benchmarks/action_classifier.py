"""Which action a clip shows: a small classifier, trained on true clips of training seeds, that judges the made ones.

    python benchmarks/action_classifier.py --json          its accuracy on held-out truth, and that of frame 0 alone

What it sees is motion alone: DIS flow in the body's own frame of reference (which place of the body moves, how fast, which
way, in which part of the clip), never a colour or an outline. The body's place is that of the first frame, which is given.
Beside it stands the same kind of classifier on the first frame alone: what a pose gives away before anything moves.

The scenes are those in which a whole body is seen by a camera that stands still: one character, full framing, no thing
and no effect that would tell the action. Talking, nodding and the like are only ever drawn nearer, and are not asked for.
Of every scene there are two clips to learn from: one of its action throughout, and one that begins in that action's pose
and goes over to another, which is what a first frame and a prompt for something else ask for.
Features are cached by everything they depend on; the classifiers are fitted anew, in seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora import synthetic
from anisora.assets import cache_folder
from anisora.evaluation.statistics import mean_interval
from anisora.files import write_atomic
from anisora.measures.flow import dis_flow
from anisora.store import content_hash
from anisora.synthetic import ClipPlan
from anisora.synthetic.camera import matrix

#: By version of the corpus.
ACTIONS = {version: synthetic.whole_body_actions(version) for version in synthetic.VERSIONS}

#: Scenes of each action to learn from, two clips of each.
TAUGHT_CLIPS, TAUGHT_SEED = 80, synthetic.TRAIN_SEEDS.stop - 1

#: Held-out scenes of each action and split by which the classifier itself is judged.
JUDGED_CLIPS, JUDGED_SEEDS = 15, {"seen": 9_100_000, "reserved": 9_100_001}

#: Frames are compared so many times a second: drawings held for two or three frames of film then move in every step.
STEPS_PER_S = 8

#: The part of the picture that is looked at, in body heights around the place where the body stands in the first frame.
HALF_WIDTH, ABOVE, BELOW = 0.75, 1.3, 0.1

#: It is sampled at (rows, columns) points, and averaged over cells: coarse ones for motion, finer ones for the still.
POINTS, MOTION_CELLS, STILL_CELLS = (42, 45), (7, 5), (14, 15)

#: Motion is brought to one mean size before it is judged, as made clips move less than true ones; a clip that moves less than
#: this, in body heights a second over the whole part looked at, stays small.
LEAST_MOTION = 0.01

#: Each clip is learned from twice, as it is and with this much noise in every cell (body heights a second): made clips
#: tremble. On true clips spoiled like that, 0.92 are recognised instead of 0.32, and as many as before of clean ones.
TREMBLE = 0.08

#: For one first frame so many actions are asked for.
ASKED = 4

#: Of the support vector machines, and of the principal components before them.
PENALTY, COMPONENTS = 5.0, 200

Frames = NDArray[np.uint8]
Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size, length and rate of the clips, and the version of the corpus that they are of."""

    size_px: tuple[int, int]
    num_frames: int
    fps: int
    corpus_version: int = synthetic.TRAINED_VERSION

    @property
    def actions(self) -> tuple[str, ...]:
        return ACTIONS[self.corpus_version]


@dataclass(frozen=True, kw_only=True)
class Body:
    """Where the character stands in the first frame, in pixels: its middle, the ground under it, and its height."""

    x_px: float
    ground_px: float
    height_px: float


# ---------------------------------------------------------------------------------------------------------- true clips


def scenes(
    seed: int, split: str, first_index: int = 0, *, version: int = synthetic.TRAINED_VERSION
) -> Iterator[ClipPlan]:
    """The plans of a seed in which one of `ACTIONS` can be seen by its motion alone."""
    for index in itertools.count(first_index):
        plan = synthetic.plan_clip(seed, index, split, version)
        if plan.shows_whole_body:
            yield plan


def balanced(seed: int, split: str, each: int, version: int) -> list[ClipPlan]:
    """The first `each` scenes of every action."""
    found: dict[str, list[ClipPlan]] = {action: [] for action in ACTIONS[version]}
    for plan in scenes(seed, split, version=version):
        if len(found[plan.action]) < each:
            found[plan.action].append(plan)
        elif all(len(plans) == each for plans in found.values()):
            break
    return [plan for plans in found.values() for plan in plans]


def going_over(plans: list[ClipPlan]) -> list[ClipPlan]:
    """Each scene once more, going over from its action to another one, by turns."""
    turns = itertools.count()
    return [
        synthetic.taken_up(plan, others[next(turns) % len(others)])
        for plan in plans
        if (others := synthetic.may_take_up(plan))
    ]


def rendered(plan: ClipPlan, shape: Shape) -> Frames:
    """The true clip, uint8 THWC."""
    return synthetic.render_plan(plan, shape.num_frames, Fraction(shape.fps), shape.size_px).video_THWC


def body_of(plan: ClipPlan, shape: Shape) -> Body:
    scale, _, x, _, _, y = matrix(plan.view, 0.0, 1.0, *shape.size_px)
    return Body(x_px=scale * plan.people[0].x + x, ground_px=y, height_px=scale)


# ------------------------------------------------------------------------------------------------------------ features


def motion_features(frames_THWC: Frames, body: Body, fps: int) -> Features:
    """[steps, 3, rows, columns]: in each cell the mean velocity (x, y) and the mean speed, in body heights a second."""
    step = max(1, round(fps / STEPS_PER_S))
    maps = []
    for first, second in itertools.pairwise(frames_THWC[::step]):
        flow = _sampled(dis_flow(first, second, fine=False), body) * (fps / step / body.height_px)
        both = np.concatenate([flow, np.linalg.norm(flow, axis=-1, keepdims=True)], axis=-1)
        maps.append(_means(both, MOTION_CELLS))
    return np.stack(maps).astype(np.float32)


def still_features(frame_HWC: Frames, body: Body) -> Features:
    """[6, rows, columns]: grey against its mean, its spread, and how strong edges of four directions are."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(frame_HWC), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    x, y = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength, direction = np.hypot(x, y), np.mod(np.arctan2(y, x), np.pi)
    off = [np.abs(direction - k * np.pi / 4) for k in range(4)]
    edges = [strength * (np.minimum(angle, np.pi - angle) < np.pi / 8) for angle in off]
    means = _means(_sampled(np.stack([grey, grey**2, *edges], axis=-1), body), STILL_CELLS)
    spread = np.sqrt(np.maximum(means[1] - means[0] ** 2, 0))
    return np.stack([means[0] - means[0].mean(), spread, *np.sqrt(means[2:])]).astype(np.float32)


def _sampled(picture_HWC: NDArray[np.floating], body: Body) -> NDArray[np.floating]:
    """What is seen around the body at `POINTS`, [rows, columns, C]; 0 outside of the picture."""
    import cv2

    rows, columns = POINTS
    x = body.x_px + body.height_px * HALF_WIDTH * (2 * (np.arange(columns) + 0.5) / columns - 1)
    y = body.ground_px + body.height_px * (BELOW - (ABOVE + BELOW) * (1 - (np.arange(rows) + 0.5) / rows))
    # Positions count from the corner of the picture, those of remap from the middle of the first pixel.
    map_x, map_y = np.meshgrid((x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32))
    # remap takes up to four channels at a time.
    parts = np.array_split(picture_HWC.astype(np.float32), range(4, picture_HWC.shape[-1], 4), axis=-1)
    return np.concatenate([
        cv2.remap(np.ascontiguousarray(part), map_x, map_y, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, 0).reshape(
            rows, columns, -1
        )
        for part in parts
    ], axis=-1)  # fmt: skip


def _means(points: NDArray[np.floating], cells: tuple[int, int]) -> NDArray[np.floating]:
    """[C, rows, columns]: the mean of each cell."""
    rows, columns = cells
    by_cell = points.reshape(rows, POINTS[0] // rows, columns, POINTS[1] // columns, -1)
    return by_cell.mean(axis=(1, 3)).transpose(2, 0, 1)


# --------------------------------------------------------------------------------------------------------- classifiers


class Judge:
    """The two classifiers, and how often each is right on held-out truth."""

    def __init__(self, shape: Shape, taught: Known, judged: Known) -> None:
        self.shape = shape
        moving, still, labels = taught.motion, taught.still, taught.action
        rng = np.random.default_rng(0)
        both = np.concatenate([moving, mirrored_motion(moving)])
        self._motion = _fit(np.concatenate([_vector(both), _vector(_trembling(both, rng))]), np.tile(labels, 4))
        self._still = _fit(_flat(np.concatenate([still, still[..., ::-1]])), np.tile(labels, 2))
        self.accuracy = _accuracy(
            self._motion.decision_function(_vector(judged.motion)),
            self._still.decision_function(_flat(judged.still)),
            judged,
            shape.actions,
        )

    def motion_scores(self, frames_THWC: Frames, body: Body) -> dict[str, float]:
        """A score for each action, the highest for the one that is seen."""
        features = motion_features(frames_THWC, body, self.shape.fps)
        return dict(
            zip(self.shape.actions, self._motion.decision_function(_vector(features[None]))[0].tolist(), strict=True)
        )

    def still_scores(self, frame_HWC: Frames, body: Body) -> dict[str, float]:
        """The same from the first frame alone."""
        features = still_features(frame_HWC, body)
        return dict(
            zip(self.shape.actions, self._still.decision_function(_flat(features[None]))[0].tolist(), strict=True)
        )


def mirrored_motion(motion: Features) -> Features:
    """The motion features [N, steps, 3, rows, columns] of the clips seen in a mirror."""
    return motion[..., ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]


def _trembling(motion: Features, rng: np.random.Generator) -> Features:
    noise = rng.normal(0, TREMBLE, motion.shape).astype(np.float32)
    noise[:, :, 2] = np.abs(noise[:, :, 2])  # speed is a length
    return motion + noise


def _vector(motion: Features) -> Features:
    """Motion of one mean size for all clips, and roots of it: slow parts of the body count too."""
    size = np.abs(motion).mean(axis=(1, 2, 3, 4), keepdims=True)
    even = motion / np.maximum(size, LEAST_MOTION)
    return _flat(np.sign(even) * np.sqrt(np.abs(even)))


def _flat(features: Features) -> Features:
    return features.reshape(len(features), -1)


def _fit(features: Features, labels: NDArray[np.int64]) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    components = min(COMPONENTS, *features.shape)
    reduced = PCA(components, svd_solver="randomized", random_state=0)
    return make_pipeline(reduced, SVC(C=PENALTY, decision_function_shape="ovr")).fit(features, labels)


def _accuracy(motion: Features, still: Features, judged: Known, actions: tuple[str, ...]) -> dict[str, Any]:
    """How often the scores [N, actions] are highest for the true action: of all, by split, by action, and among as many
    actions as a first frame is asked for."""
    rng = np.random.default_rng(1)
    right, first = motion.argmax(axis=1) == judged.action, still.argmax(axis=1) == judged.action
    few = []
    for scores, action in zip(motion, judged.action, strict=True):
        others = rng.choice([k for k in range(len(actions)) if k != action], ASKED - 1, replace=False)
        few.append(float(scores[action] > scores[others].max()))
    by_split = {
        split: {"motion": mean_interval(right[part].tolist()), "first_frame": mean_interval(first[part].tolist())}
        for split in JUDGED_SEEDS
        if (part := judged.split == split).any()
    }
    return {
        "clips": len(right),
        "chance": 1 / len(actions),
        "motion": mean_interval(right.tolist()),
        "motion_chosen": mean_interval(few),
        "first_frame": mean_interval(first.tolist()),
        "by_split": by_split,
        "going_over": mean_interval(right[judged.going_over].tolist()),
        "by_action": {action: float(right[judged.action == k].mean()) for k, action in enumerate(actions)},
        "first_frame_by_action": {action: float(first[judged.action == k].mean()) for k, action in enumerate(actions)},
    }


@dataclass(frozen=True, kw_only=True)
class Known:
    """Features of true clips and what they show."""

    motion: Features  # [N, steps, 3, rows, columns]
    still: Features  # [N, 6, rows, columns]
    action: NDArray[np.int64]  # [N], the place in Shape.actions
    split: NDArray[np.str_]  # [N]
    going_over: NDArray[np.bool_]  # [N]: begins in the pose of another action


@cache
def judge_for(shape: Shape) -> Judge:
    """The classifiers for clips of a shape. Features come from the cache, or take minutes to make."""
    taught = _known(shape, {"train": TAUGHT_SEED}, TAUGHT_CLIPS)
    return Judge(shape, taught, _known(shape, JUDGED_SEEDS, JUDGED_CLIPS))


def _known(shape: Shape, seeds: dict[str, int], each: int) -> Known:
    """Features of `each` true clips of every action and split, cached by all that they depend on."""
    import cv2

    key = {
        "corpus": shape.corpus_version,
        "shape": {"size_px": shape.size_px, "num_frames": shape.num_frames, "fps": shape.fps},
        "seeds": seeds,
        "each": each,
        "going_over": True,
        "actions": shape.actions,
        "seen": [STEPS_PER_S, HALF_WIDTH, ABOVE, BELOW, POINTS, MOTION_CELLS, STILL_CELLS],
        "opencv": cv2.__version__,
    }
    path = cache_folder().parent / "action_features" / f"{content_hash(key)[:16]}.npz"
    if not path.exists():
        known = _measured(shape, seeds, each)
        write_atomic(path, lambda partial: np.savez(partial, **vars(known)))
    with np.load(path) as file:
        return Known(**{name: file[name] for name in file.files})


def _measured(shape: Shape, seeds: dict[str, int], each: int) -> Known:
    plans = [plan for split, seed in seeds.items() for plan in balanced(seed, split, each, shape.corpus_version)]
    plans += going_over(plans)
    motion, still = [], []
    for number, plan in enumerate(plans):
        if number % 200 == 0:
            print(f"judge of actions: clip {number} of {len(plans)}", file=sys.stderr, flush=True)
        frames, body = rendered(plan, shape), body_of(plan, shape)
        motion.append(motion_features(frames, body, shape.fps))
        still.append(still_features(frames[0], body))
    return Known(
        motion=np.stack(motion),
        still=np.stack(still),
        action=np.array([shape.actions.index(plan.action) for plan in plans]),
        split=np.array([plan.split for plan in plans]),
        going_over=np.array([plan.people[0].before is not None for plan in plans]),
    )


# ------------------------------------------------------------------------------------------------------------- script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, metavar="PX", help="side of the square clips")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--fps", type=int, default=16)
    parser.add_argument("--corpus-version", type=int, default=synthetic.TRAINED_VERSION, choices=ACTIONS)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    start = time.process_time()
    size_px = options.size, options.size
    shape = Shape(size_px=size_px, num_frames=options.frames, fps=options.fps, corpus_version=options.corpus_version)
    judge = judge_for(shape)
    result = {"benchmark": "action_classifier/1", "shape": asdict(shape)}
    result |= {"corpus_version": shape.corpus_version, "taught_clips": 2 * TAUGHT_CLIPS * len(shape.actions)}
    result |= {**judge.accuracy, "cpu_s": round(time.process_time() - start, 1)}
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
