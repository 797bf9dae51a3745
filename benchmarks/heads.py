"""How well the trainable heads do: cross-validated on drawn clips with exact truth and on real clips with labels.

    python benchmarks/heads.py --clips 240 --json               drawn clips only, needs nothing
    python benchmarks/heads.py --real ../shared/data/real_clips  and the real ones, labelled in benchmarks/head_labels.csv
    python benchmarks/heads.py ... --export                     writes the bundled heads

Truth of drawn clips: `talking` is whether an action is talking; `motion_grade` is the true flow of the foreground beyond the
camera, graded at `MOTION_LIMITS`; `quality_filter` is whether a clip was left as it is or spoiled in one of `SPOILERS`.
Features are kept in --cache, so that a second run only trains.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from anisora.curation.heads import (
    BUNDLED,
    HEADS,
    apply_heads,
    evaluate,
    load_heads,
    read_features,
    train_head,
    write_features,
)
from anisora.measures.appearance import clip_features
from anisora.measures.clip import ClipView
from anisora.synthetic import SyntheticClip, plan_clip, render_clip

SEED, FRAMES, FPS, SIZE_PX = 500, 33, 16, (192, 112)

#: Upper limits of still, small and medium: root mean square over the picture of own motion, in picture widths a second.
MOTION_LIMITS = (0.004, 0.03, 0.08)

LABELS = Path(__file__).with_name("head_labels.csv")


# -- drawn clips and their truth ---------------------------------------------------------------------------------------


def drawn_indices(clips: int) -> list[int]:
    """Clip numbers, a third of which show somebody who talks."""
    talks = {index: any(p.action == "talk" for p in plan_clip(SEED, index).people) for index in range(clips * 12)}
    yes = [index for index, talking in talks.items() if talking][: clips // 3]
    return sorted(yes + [index for index, talking in talks.items() if not talking][: clips - len(yes)])


def motion_grade(clip: SyntheticClip) -> str:
    """The grade of the foreground's true motion beyond the camera."""
    truth = clip.truth
    height, width = truth.ids_THW.shape[1:]
    y, x = np.mgrid[:height, :width] + 0.5
    squares = []
    for t in range(len(truth.ids_THW) - 1):
        now, later = (np.vstack([truth.camera_T23[k], (0, 0, 1)]) for k in (t, t + 1))
        step = later @ np.linalg.inv(now)
        points = np.stack([x, y, np.ones_like(x)], -1)
        own = truth.flow_THW2[t] - (points @ step[:2].T - points[..., :2])
        squares.append(((own**2).sum(-1) * truth.foreground_THW[t]).mean())
    amplitude = float(np.sqrt(np.mean(squares))) * FPS / width
    return HEADS["motion_grade"][int(np.searchsorted(MOTION_LIMITS, amplitude))]


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda frames, rng: np.stack([change(frame) for frame in frames])


def _upscaled(frame: np.ndarray) -> np.ndarray:
    import cv2

    height, width = frame.shape[:2]
    return cv2.resize(cv2.resize(frame, (width // 4, height // 4), interpolation=cv2.INTER_AREA), (width, height))


def _jpeg(frame: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 8])[1], cv2.IMREAD_COLOR)


def _blurred(frame: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(frame, (0, 0), frame.shape[1] / 110)


def _noisy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (frames + rng.normal(0, 14, frames.shape)).clip(0, 255).astype(np.uint8)


def _slideshow(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return frames[np.arange(len(frames)) // 16 * 16]


def _flickering(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (frames * rng.uniform(0.6, 1.2, (len(frames), 1, 1, 1))).clip(0, 255).astype(np.uint8)


def _faded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (frames * 0.3 + 170).astype(np.uint8)


def _cut_up(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Parts in another order: cuts where none belong."""
    return np.concatenate(
        [np.flip(part, axis=2) if i % 2 else part for i, part in enumerate(np.array_split(frames, 5))]
    )


SPOILERS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "upscaled": _each(_upscaled),
    "jpeg": _each(_jpeg),
    "blurred": _each(_blurred),
    "noisy": _noisy,
    "slideshow": _slideshow,
    "flickering": _flickering,
    "faded": _faded,
    "cut up": _cut_up,
}


def _panned_still(frames: np.ndarray) -> np.ndarray:
    """A window of three quarters that moves over the first frame."""
    height, width = frames.shape[1:3]
    tall, wide = height * 3 // 4, width * 3 // 4
    left = np.linspace(0, width - wide, len(frames)).round().astype(int)
    return np.stack([frames[0, :tall, x : x + wide] for x in left])


STILLS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "still": lambda frames: frames[:1].repeat(len(frames), axis=0),
    "panned still": _panned_still,
}


def drawn(clips: int) -> Iterator[tuple[str, dict[str, float], dict[str, str]]]:
    """(clip_id, features, labels) of drawn clips, of a spoiled copy of every second and a still of every other one."""
    for number, index in enumerate(drawn_indices(clips)):
        clip = render_clip(SEED, index, n_frames=FRAMES, fps=FPS, size_px=SIZE_PX, truth=True)
        talking = any(p.action == "talk" for p in plan_clip(SEED, index).people)
        labels = {"talking": "yes" if talking else "no", "motion_grade": motion_grade(clip), "quality_filter": "keep"}
        yield f"drawn-{index}", clip_features(ClipView.of_frames(clip.video_THWC, FPS)), labels
        if number % 2:
            name = list(SPOILERS)[number // 2 % len(SPOILERS)]
            spoiled = SPOILERS[name](clip.video_THWC, np.random.default_rng(index))
            features = clip_features(ClipView.of_frames(np.ascontiguousarray(spoiled), FPS))
            yield f"drawn-{index}-{name}", features, {"quality_filter": "drop"}
        else:
            name = list(STILLS)[number // 2 % len(STILLS)]
            still = np.ascontiguousarray(STILLS[name](clip.video_THWC))
            yield f"drawn-{index}-{name}", clip_features(ClipView.of_frames(still, FPS)), {"motion_grade": "still"}


# -- real clips --------------------------------------------------------------------------------------------------------


def real_labels() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """(head -> file -> label, file -> group) of benchmarks/head_labels.csv."""
    labels: dict[str, dict[str, str]] = {name: {} for name in HEADS}
    groups = {}
    with LABELS.open(newline="") as file:
        for row in csv.DictReader(file):
            groups[row["clip_id"]] = row["group"]
            labels[row["head"]][row["clip_id"]] = row["label"]
    return labels, groups


def real_features(folder: Path, file: str) -> dict[str, float]:
    """The features of the first two seconds of a file."""
    from anisora.media.reader import iter_frames, probe

    if file.endswith(".json"):
        return clip_features(_lottie(folder / file))
    frames = []
    info = probe(folder / file)
    for frame in iter_frames(folder / file):
        frames.append(frame.rgb_HWC.copy())
        if len(frames) >= 2 * info.fps + 1 or len(frames) >= 120:
            break
    return clip_features(ClipView.of_frames(np.stack(frames), info.fps))


def _lottie(path: Path) -> ClipView:
    """A vector animation, drawn on white; needs the package rlottie-python."""
    from PIL import Image
    from rlottie_python import LottieAnimation

    with LottieAnimation.from_file(str(path)) as animation:
        fps, total = animation.lottie_animation_get_framerate(), animation.lottie_animation_get_totalframe()
        frames = []
        for number in range(min(total, int(2 * fps) + 1)):
            picture = animation.render_pillow_frame(frame_num=number, width=480, height=360).convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            frames.append(np.asarray(Image.alpha_composite(white, picture).convert("RGB")))
    return ClipView.of_frames(np.stack(frames), round(fps) or 24)


# -- the run -----------------------------------------------------------------------------------------------------------


def cached(path: Path, make: Callable[[], Iterator[tuple[str, dict[str, float], dict[str, str]]]]):  # type: ignore[no-untyped-def]
    """Features and labels of `make`, kept in `path` and beside it."""
    beside = path.with_suffix(".json")
    if not path.exists() or not beside.exists():
        found = list(make())
        write_features(path, {clip_id: features for clip_id, features, _ in found})
        beside.write_text(json.dumps({clip_id: labels for clip_id, _, labels in found}))
    return read_features(path), json.loads(beside.read_text())


def figures(name: str, where: str, features: dict, labels: dict[str, str], groups: dict[str, str] | None) -> dict:
    """Cross-validation of a freshly trained head, and the bundled one on the same clips."""
    known = {clip_id: label for clip_id, label in labels.items() if clip_id in features}
    head, result = train_head(name, features, known, groups)
    row = {"head": name, "on": where, **asdict(result)}
    if name in load_heads():
        ids = sorted(known)
        scores = apply_heads({clip_id: features[clip_id] for clip_id in ids}, only=[name])
        odds = np.array([[scores[clip_id][name].details[c] for c in HEADS[name]] for clip_id in ids])
        truth = np.array([HEADS[name].index(known[clip_id]) for clip_id in ids])
        row["bundled_accuracy"] = evaluate(odds, truth).accuracy
        row["bundled_trained_on"] = load_heads()[name][0].trained_on.get("from")
    return row | {"_head": head}


def main() -> None:
    """Prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=240, help="drawn clips; half as many spoiled copies come on top")
    parser.add_argument("--real", type=Path, help="the folder of real clips that head_labels.csv names")
    parser.add_argument("--cache", type=Path, default=Path("runs/heads"), help="where features are kept")
    parser.add_argument("--export", action="store_true", help="write the bundled heads")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    source = hashlib.sha256(Path(sys.modules["anisora.measures.appearance"].__file__).read_bytes()).hexdigest()[:8]
    rows = []
    features, truth = cached(given.cache / f"drawn-{given.clips}-{source}.parquet", lambda: drawn(given.clips))
    groups = {clip_id: "-".join(clip_id.split("-")[:2]) for clip_id in features}
    for name in ("talking", "motion_grade", "quality_filter"):
        labels = {clip_id: of[name] for clip_id, of in truth.items() if name in of}
        rows.append(figures(name, "drawn clips", features, labels, groups))
    if given.real:
        labels_by_head, real_groups = real_labels()
        wanted = sorted({file for labels in labels_by_head.values() for file in labels})
        real, _ = cached(
            given.cache / f"real-{source}.parquet",
            lambda: ((file, real_features(given.real, file), {}) for file in wanted),
        )
        for name, labels in labels_by_head.items():
            if labels:
                rows.append(figures(name, "real clips", real, labels, real_groups))
    if given.export:
        for row in rows:
            if row["on"] == "drawn clips" or row["head"] in ("dimension", "professional"):
                head = row["_head"]
                head.trained_on["from"] = row["on"]
                print(head.save(BUNDLED), file=sys.stderr)
    for row in rows:
        row.pop("_head")
    report(rows, time.process_time() - begun, given.json)


def report(rows: list[dict], cpu_s: float, as_json: bool) -> None:
    """The figures, as a table or as JSON."""
    if as_json:
        print(json.dumps({"cpu_s": round(cpu_s, 1), "heads": rows}, indent=1))
        return
    columns = ("head", "on", "labels", "groups", "accuracy", "majority", "balanced_accuracy", "auc")
    columns += ("calibration_error", "bundled_accuracy")
    print(" | ".join(columns))
    for row in rows:
        cells = (row.get(name, "-") for name in columns)
        print(" | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))


if __name__ == "__main__":
    main()
