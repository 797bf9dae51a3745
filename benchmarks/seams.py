"""Do joins of windows show in long shots? One JSON object.

    python benchmarks/seams.py --first-seed 9000 --clips 8 --frames 41 --json

Each seed gives one held-out synthetic clip; its first, middle and last frames are the guides of a shot longer than the
checkpoint's window, made as `anisora generate` makes it. For every join the change of mean brightness and of the picture
is set against the other steps of the same shot (`generation.long_video.seam_report`): 1 is a step like any other. For
comparison the same ratios are given for a step drawn at random inside windows, and for the same place of the true clip.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

#: Steps below this, in grey levels, are not seen; a ratio to less would mean nothing.
UNSEEN = {"brightness": 0.25, "motion": 0.25}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=9000, metavar="N")
    parser.add_argument("--clips", type=int, default=8, metavar="K")
    parser.add_argument("--frames", type=int, default=41)
    parser.add_argument("--size", type=int, default=96, metavar="PX")
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the shots")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(options, options.keep or Path(scratch))
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ratios over all joins of all shots: medians and 90th percentiles."""
    from anisora.generation.long_video import seam_report
    from anisora.generation.runner import Session, run_shots
    from anisora.media.reader import read_video
    from anisora.records import Guide, Request
    from anisora.synthetic import TRAINED_VERSION, render_clip

    side, frames = options.size, options.frames
    requests, truths = [], []
    for seed in range(options.first_seed, options.first_seed + options.clips):
        clip = render_clip(seed, 0, split="seen", n_frames=frames, size_px=(side, side), version=TRAINED_VERSION)
        pictures = [_picture(clip.video_THWC[at], folder / f"{seed}_{at}.png") for at in (0, frames // 2, frames - 1)]
        guides = tuple(Guide(str(path), at) for path, at in zip(pictures, (0, frames // 2, frames - 1), strict=True))
        requests.append(
            Request(
                prompt=clip.caption, guides=guides, model=options.model, frames=frames, size=(side, side), seed=seed,
                out=str(folder / f"{seed}"),
            )
        )  # fmt: skip
        truths.append(clip.video_THWC)
    made: dict[str, list[float]] = {}
    for truth_THWC, outcome in zip(truths, run_shots(requests, Session(), skip_finished=True), strict=True):
        if outcome.generation is None:
            raise SystemExit(f"a shot failed: {outcome.problem}")
        frames_THWC = read_video(str(outcome.generation.out)).frames_THWC
        joins = [seam["frame"] for seam in outcome.generation.seams]
        elsewhere = np.random.default_rng(0).choice([t for t in range(1, frames) if t not in joins], len(joins), False)
        _add(made, "join", outcome.generation.seams)
        _add(made, "elsewhere", seam_report(frames_THWC, sorted(elsewhere.tolist())))
        _add(made, "truth", seam_report(truth_THWC, joins))
    summary = {
        name: {"median": round(float(np.median(values)), 3), "p90": round(float(np.percentile(values, 90)), 3)}
        for name, values in sorted(made.items())
    }
    return {
        "benchmark": "seams/1",
        "clips": options.clips,
        "frames": frames,
        "joins": len(made["motion.join"]),
        **summary,
    }


def _add(made: dict[str, list[float]], where: str, seams: Any) -> None:
    for seam in seams:
        for kind, unseen in UNSEEN.items():
            ratio = seam[f"{kind}_step"] / max(seam[f"{kind}_usual"], unseen)
            made.setdefault(f"{kind}.{where}", []).append(ratio)


def _picture(frame_HWC: np.ndarray, path: Path) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame_HWC).save(path)
    return path


if __name__ == "__main__":
    main()
