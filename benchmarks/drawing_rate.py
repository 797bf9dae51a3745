"""How often the drawing rate is right within 1 fps: drawn clips on ones, twos and threes, under cameras and a codec.

    python benchmarks/drawing_rate.py --clips 72 --json

Each clip is drawn at 24 fps, its camera moving on every frame, up to two and a half times as far as the corpus has it,
encoded by x264 at one of three qualities, and scanned. The truth is the rate of the plan. Seeds are not those of tuning.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora.curation.observers.held import Held
from anisora.curation.scan import scan
from anisora.measures.timing import drawing_fps
from anisora.media.writer import write_video
from anisora.synthetic.clip import render_plan
from anisora.synthetic.plan import plan_clip

FPS = 24
CAMERAS = ("static", "pan", "tilt", "zoom_in", "shake", "pan")
RATES = {"ones": 24, "twos": 12, "threes": 8}
QUALITIES = (18, 26, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=72)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seed", type=int, default=9100)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(options.seed, index, options.frames, Path(folder)) for index in range(options.clips)]
    result = summary(rows)
    print(json.dumps(result, indent=2) if options.json else result)


def row(seed: int, index: int, num_frames: int, folder: Path) -> dict[str, Any]:
    """One clip: what it is, and what was measured."""
    plan = plan_clip(seed, index, "seen")
    move, drawing = CAMERAS[index % 6], list(RATES)[index // 6 % 3]
    view = plan.view._replace(camera=move, amount=plan.view.amount * (1 + index % 4 / 2))
    clip = render_plan(replace(plan, drawing=drawing, view=view), num_frames, Fraction(FPS), (480, 270))
    path = write_video(folder / "clip.mp4", clip.video_THWC, FPS, quality=QUALITIES[index % 3])
    found = scan(path, [Held()])
    measured = drawing_fps(found.clip(found.span(0, found.num_frames))).raw
    assert isinstance(measured, float)
    return {
        "camera": move, "drawing": drawing, "action": plan.action, "quality": QUALITIES[index % 3],
        "measured": round(measured, 2), "is_right": bool(np.abs(measured - RATES[drawing]) <= 1),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The share that is right, in all and by camera and drawing, and the clips that are wrong."""
    result: dict[str, Any] = {"benchmark": "drawing_rate/1", "clips": len(rows)}
    result["right"] = round(sum(row["is_right"] for row in rows) / len(rows), 4)
    for key in ("camera", "drawing", "quality"):
        right, count = Counter(), Counter()  # type: ignore[var-annotated]
        for row in rows:
            count[row[key]] += 1
            right[row[key]] += row["is_right"]
        result[key] = {str(name): f"{right[name]} of {count[name]}" for name in count}
    return result | {"wrong": [row for row in rows if not row["is_right"]]}


if __name__ == "__main__":
    main()
