"""Shots found against TransNetV2 asked everywhere: accuracy in all and by kind, and CPU time.

    python benchmarks/shots.py --work /tmp/shots --real path/to/real_clips --json

Two corpora with exact truth (see `joined_shots`): "real", pieces of real clips, and "drawn", procedural ones. A
transition is found when a boundary comes within one frame of it, each boundary counts once; flashes and pans count only
as false boundaries near them. CPU seconds, one thread: `everywhere` is decoding to small frames and the network on all
of them; `cascade` the same decoding with its signals, the rules, and the network where they are in doubt. What is costly
is kept in --work, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from joined_shots import KINDS, Mark, build

from anisora.curation.observers.cut import Cut, CutParams
from anisora.curation.scan import Scan, scan
from anisora.curation.shots import Boundary, ShotParams, boundaries

JOINS = ("cut", "fade", "dissolve")
ROUNDS = 52


def main() -> None:
    options = parse()
    corpora = ["drawn"] * (not options.no_drawn) + ["real"] * bool(options.real)
    result: dict[str, Any] = {"benchmark": "shots/1", "rounds": options.rounds, "seed": options.seed}
    result |= {corpus: figures(corpus, options) for corpus in corpora}
    print(json.dumps(result, indent=2) if options.json else result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for videos and stored signals")
    parser.add_argument("--real", type=Path, help="folder of real clips")
    parser.add_argument("--no-drawn", action="store_true", help="real clips only")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many of each kind")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def figures(corpus: str, options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy and cost of both on one corpus."""
    import torch

    torch.set_num_threads(1)
    video, marks = build(corpus, options.work, options.real, options.rounds, options.seed)
    found, scanned = kept(video, "all", lambda: scan(video, [Cut(CutParams(keep="all"))]))
    near, near_s = kept(video, "near", lambda: scan(video, [Cut()]))
    asked, network_s = probabilities(video, found)
    started = time.process_time()
    cascade = boundaries(near.signals["cut"])
    cascade_s = near_s + time.process_time() - started
    everywhere = boundaries(found.signals["cut"], ShotParams(network="everywhere"), lambda _tiny: asked)
    without = boundaries(near.signals["cut"], ShotParams(network="never"))
    return {
        "frames": found.num_frames,
        "marks": {kind: sum(mark.kind == kind for mark in marks) for kind in KINDS},
        "cascade": accuracy(marks, cascade) | {"cpu_s": round(cascade_s, 2)},
        "rules_alone": accuracy(marks, without),
        "everywhere": accuracy(marks, everywhere) | {"cpu_s": round(scanned + network_s, 2)},
        "cpu_ratio": round(cascade_s / (scanned + network_s), 3),
    }


def kept(video: Path, name: str, make: Callable[[], Scan]) -> tuple[Scan, float]:
    """A scan and the CPU seconds it took, from the work folder when it is there."""
    path = video.with_suffix(f".{name}.npz")
    cost = path.with_suffix(".json")
    if not cost.exists():
        started = time.process_time()
        found = make()
        seconds = time.process_time() - started
        found.save(path)
        cost.write_text(json.dumps(seconds))
    return Scan.load(path), float(json.loads(cost.read_text()))


def probabilities(video: Path, found: Scan) -> tuple[np.ndarray, float]:
    """TransNetV2's word on every frame, and the CPU seconds it took; in parts that are kept."""
    from anisora.measures.transnet import MARGIN, STEP, load, window_transitions

    load()
    tiny = found.signals["cut"]["tiny"]
    count = len(tiny)
    padded = np.concatenate([tiny[:1].repeat(MARGIN, 0), tiny, tiny[-1:].repeat(MARGIN + -count % STEP, 0)])
    path = video.with_suffix(".network.jsonl")
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    with path.open("a") as file:
        for start in range(len(done) * STEP, count, STEP):
            started = time.process_time()
            answer = window_transitions(padded[start : start + STEP + 2 * MARGIN])[MARGIN : MARGIN + STEP]
            done.append({"cpu_s": time.process_time() - started, "probability": answer.astype(float).tolist()})
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    answers = np.concatenate([part["probability"] for part in done])[:count].astype(np.float32)
    return answers, sum(part["cpu_s"] for part in done)


def accuracy(marks: list[Mark], found: list[Boundary]) -> dict[str, Any]:
    """F1, precision and recall; recall of each kind of join; false boundaries by the kind of mark they lie at."""
    joins = [mark for mark in marks if mark.kind in JOINS]
    used: set[int] = set()
    hits: list[str] = []
    for mark in joins:
        end = mark.start if mark.kind == "cut" else mark.end
        near = (i for i, b in enumerate(found) if i not in used and b.start - 1 <= end and b.end + 1 >= mark.start)
        if (first := next(near, None)) is not None:
            used.add(first)
            hits.append(mark.kind)
    false = [b for i, b in enumerate(found) if i not in used]
    precision, recall = len(hits) / max(1, len(found)), len(hits) / max(1, len(joins))
    return {
        "f1": round(2 * precision * recall / max(1e-9, precision + recall), 4),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "found": {kind: f"{hits.count(kind)} of {sum(m.kind == kind for m in joins)}" for kind in JOINS},
        "false_at": {kind: sum(_kind_at(b, marks) == kind for b in false) for kind in (*KINDS, "nothing")},
    }


def _kind_at(b: Boundary, marks: list[Mark]) -> str:
    return next((mark.kind for mark in marks if mark.start - 4 <= b.end and b.start <= mark.end + 4), "nothing")


if __name__ == "__main__":
    main()
