"""The optional arms of the benchmark, each a group that is made for the same clips beside the usual arms.

guides   two, three, four and five guides, by the checkpoint, by a cross-fade and by a flow warp
rife     RIFE through the same guides
actions  one first frame and several prompts that differ in the action
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace

import action_classifier
import numpy as np
import rife
from action_classifier import ASKED, Shape
from checkpoint_shots import Checkpoint
from clip_record import ClipRecord, Extra, Frames

from anisora import synthetic
from anisora.measures import baselines
from anisora.synthetic import ClipPlan

COUNTS = ("two", "three", "four", "five")

#: The arms of the usual run that are a number of guides already.
USUAL = {
    ("model", "two"): "model",
    ("model", "three"): "three_guides",
    ("cross_fade", "two"): "cross_fade",
    ("flow_warp", "two"): "flow_warp",
}


# -------------------------------------------------------------------------------------------------------------- guides


def guide_sets(num_frames: int, seed: int) -> dict[str, list[int]]:
    """Which frames are given by each number of guides: those of the number before and one more.

    Five lie a quarter apart. The fourth is the first or the third quarter, by turns of the seeds.
    """
    first, early, middle, late, last = ((2 * k * (num_frames - 1) + 4) // 8 for k in range(5))
    fourth = (early, late)[seed // 2 % 2]
    return {
        "two": [first, last],
        "three": [first, middle, last],
        "four": sorted([first, middle, last, fourth]),
        "five": [first, early, middle, late, last],
    }


def free_frames(num_frames: int) -> list[int]:
    """The frames that are given in no arm, on which the numbers of guides are compared."""
    given = guide_sets(num_frames, 0)["five"]
    return [frame for frame in range(num_frames) if frame not in given]


def make_guides(checkpoint: Checkpoint, record: ClipRecord) -> Extra:
    """Shots and fades through four and five guides, and latents of all four numbers."""
    truth, seed, prompt = record.arms["truth"], record.about["seed"], record.about["caption"]
    sets = guide_sets(len(truth), seed)
    arms: dict[str, Frames] = {}
    for count in COUNTS:
        guides = {frame: truth[frame] for frame in sets[count]}
        if ("model", count) not in USUAL:
            arms[f"model_{count}"], _ = checkpoint.shot(prompt, guides, seed)
        if ("cross_fade", count) not in USUAL:
            arms[f"cross_fade_{count}"] = baselines.cross_fade(guides, len(truth))
            arms[f"flow_warp_{count}"] = baselines.flow_warp(guides, len(truth))
    latents = {
        f"{arm}_{count}": free_latents(checkpoint, record, guided_frames(record, arms, arm, count))
        for arm in ("model", "cross_fade", "flow_warp")
        for count in COUNTS
    }
    return Extra(about={"given": sets, "free": free_frames(len(truth))}, arms=arms, latents=latents)


def guided_frames(record: ClipRecord, made: dict[str, Frames], arm: str, count: str) -> Frames:
    """The frames of an arm with so many guides, out of the usual arms or of those made for this comparison."""
    usual = USUAL.get((arm, count))
    return record.arms[usual] if usual else made[f"{arm}_{count}"]


def free_latents(checkpoint: Checkpoint, record: ClipRecord, frames_THWC: Frames) -> np.ndarray:
    """Normalised latents of frames with the truth where any arm was given it: a latent frame holds several frames, and
    only those that no arm was given may make a difference."""
    return checkpoint.encode(freed(frames_THWC, record.arms["truth"]))


def freed(frames_THWC: Frames, truth_THWC: Frames) -> Frames:
    """The truth, and in it the frames that are given in no arm."""
    mixed = truth_THWC.copy()
    free = free_frames(len(mixed))
    mixed[free] = frames_THWC[free]
    return mixed


def make_rife(checkpoint: Checkpoint, record: ClipRecord) -> Extra:
    """RIFE through two to five guides."""
    truth = record.arms["truth"]
    sets = guide_sets(len(truth), record.about["seed"])
    arms = {count: rife.in_between({frame: truth[frame] for frame in sets[count]}, len(truth)) for count in COUNTS}
    latents = {count: free_latents(checkpoint, record, frames) for count, frames in arms.items()}
    about = {"weights": asdict(rife.WEIGHTS), "finer": rife.FINER}
    return Extra(about=about, arms=arms, latents=latents | {"whole": checkpoint.encode(arms["two"])})


# ------------------------------------------------------------------------------------------------------------- actions


def make_actions(checkpoint: Checkpoint, record: ClipRecord) -> Extra:
    """The shots of one first frame by prompts that ask for its own action and for others, from the same noise."""
    seed, split = record.about["seed"], record.about["split"]
    version = checkpoint.corpus_version
    shape = Shape(
        size_px=checkpoint.size_px, num_frames=checkpoint.num_frames, fps=checkpoint.fps, corpus_version=version
    )
    plan = next(action_classifier.scenes(seed, split, first_index=1, version=version))
    truth = action_classifier.rendered(plan, shape)
    answers = {
        action: plan if action == plan.action else synthetic.taken_up(plan, action) for action in asked_actions(plan)
    }
    prompts = {action: synthetic.caption(answer) for action, answer in answers.items()}
    arms = {action: checkpoint.shot(prompt, {0: truth[0]}, seed)[0] for action, prompt in prompts.items()}
    arms |= {f"truth_{action}": action_classifier.rendered(answer, shape) for action, answer in answers.items()}
    # What the judge sees of the truth once this checkpoint's codec has shown it.
    through = checkpoint.decode(checkpoint.encode(truth), {0: truth[0]})
    about = {
        "own": plan.action,
        "index": plan.index,
        "prompts": prompts,
        "body": asdict(action_classifier.body_of(plan, shape)),
        "shape": asdict(shape),
    }
    return Extra(about=about, arms=arms | {"truth": truth, "truth_vae": through}, latents={})


def asked_actions(plan: ClipPlan) -> list[str]:
    """The action that the plan has, and others drawn by its seed."""
    drawn = np.random.default_rng((plan.seed, plan.index)).choice(synthetic.may_take_up(plan), ASKED - 1, replace=False)
    return [plan.action, *map(str, drawn)]


MAKERS: dict[str, Callable[[Checkpoint, ClipRecord], Extra]] = {
    "guides": make_guides,
    "rife": make_rife,
    "actions": make_actions,
}


def make(name: str, checkpoint: Checkpoint, record: ClipRecord) -> Extra:
    """One group for one clip, with the seconds that it took."""
    start = time.perf_counter()
    extra = MAKERS[name](checkpoint, record)
    return replace(extra, about=extra.about | {"seconds": time.perf_counter() - start})
