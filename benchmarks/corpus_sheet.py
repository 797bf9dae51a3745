"""Contact sheets of the synthetic corpus, to be looked at: would a stranger name the action?

    python benchmarks/corpus_sheet.py --corpus-version 3 --out sheets              every action, a sheet each
    python benchmarks/corpus_sheet.py --corpus-version 3 --out sheets hug eat      these
    python benchmarks/corpus_sheet.py --corpus-version 3 --out docs/images --overview
    python benchmarks/corpus_sheet.py --corpus-version 3 --out docs/images --taken-up

Each row is one clip of a training seed, its frames a quarter of a second apart; the captions are printed. The overview
(corpus.webp) shows one clip of every action, small, its frames half a second apart; the other picture (taken_up.webp) first
frames that go over to another action, an eighth of a second apart.
"""

from __future__ import annotations

import argparse
import itertools
from fractions import Fraction
from pathlib import Path

from anisora.media.frames import contact_sheet
from anisora.synthetic import (
    TRAIN_SEEDS,
    TRAINED_VERSION,
    VERSIONS,
    ClipPlan,
    caption,
    may_take_up,
    plan_clip,
    render_plan,
    taken_up,
)

FRAMES, FPS = 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("actions", nargs="*", metavar="ACTION", help="default: all of the version")
    parser.add_argument("--corpus-version", type=int, default=TRAINED_VERSION, choices=VERSIONS)
    parser.add_argument("--clips", type=int, default=4, metavar="N", help="of each action")
    parser.add_argument("--seed", type=int, default=TRAIN_SEEDS.start)
    parser.add_argument("--size", type=int, default=128, metavar="PX")
    parser.add_argument("--overview", action="store_true", help="one picture of all actions in place of the sheets")
    parser.add_argument("--taken-up", action="store_true", help="one picture of characters that take up another action")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    known = VERSIONS[options.corpus_version].actions
    if unknown := set(options.actions) - set(known):
        parser.error(f"no such action: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.overview:
        plans = {action: first_plans(action, 1, options.seed, options.corpus_version)[0] for action in known}
        write_overview(plans, options.out / "corpus.webp")
        return
    if options.taken_up:
        write_taken_up(options.seed, options.corpus_version, options.out / "taken_up.webp")
        return
    for action in options.actions or known:
        plans = first_plans(action, options.clips, options.seed, options.corpus_version)
        write_sheet(plans, options.size, options.out / f"{action}.png")
        print(action, *(f"    {caption(plan)}" for plan in plans), sep="\n")


def first_plans(action: str, clips: int, seed: int, version: int) -> list[ClipPlan]:
    every = (plan_clip(seed, index, version=version) for index in itertools.count())
    return list(itertools.islice((plan for plan in every if plan.action == action), clips))


def write_sheet(plans: list[ClipPlan], size: int, path: Path) -> None:
    videos = [render_plan(plan, FRAMES, Fraction(FPS), (size, size)).video_THWC for plan in plans]
    contact_sheet([frame for video in videos for frame in video], FRAMES).save(path, optimize=True)


def write_overview(plans: dict[str, ClipPlan], path: Path) -> None:
    frames, labels = [], []
    for action, plan in sorted(plans.items()):
        frames += list(render_plan(plan, 4, Fraction(2), (72, 72)).video_THWC)
        labels += [action, "", "", ""]
    contact_sheet(frames, 12, labels, gap_px=2).save(path, quality=60)


def write_taken_up(seed: int, version: int, path: Path) -> None:
    every = (plan_clip(seed, index, version=version) for index in itertools.count())
    whole = itertools.islice((plan for plan in every if plan.shows_whole_body), 3)
    frames, labels = [], []
    for plan in whole:
        for action in may_take_up(plan)[::5]:
            frames += list(render_plan(taken_up(plan, action), 8, Fraction(8), (96, 96)).video_THWC)
            labels += [f"{plan.action}, {action}", *[""] * 7]
    contact_sheet(frames, 8, labels, gap_px=2).save(path, quality=70)


if __name__ == "__main__":
    main()
