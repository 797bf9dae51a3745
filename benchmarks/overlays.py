"""How surely overlays are found: on clips with lettering burnt in (exact truth), and on real clips judged by eye.

Half of the clips of the procedural corpus get a subtitle, a logo or credits in a font that was not looked at while the
rules were made (`lettering.HELD_OUT_FONTS`); the other half stay clean. A clip counts as found when the boxes cover
most of the truth; an overlay found on a clean clip, or mostly beside the truth, is a wrong one. With --data the real
clips listed here are tried, signs without letters are planted in their pictures, and the cheap edge proxy, PP-OCR and
CRAFT are compared on their frames. One JSON object.

    python benchmarks/overlays.py --clips 144 --data ../shared/data/real_clips --signs 40 --agreement 24 --craft
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from anisora.curation.crop import blocked_HW, free_crop
from anisora.curation.observers.text_edges import TextEdges
from anisora.curation.overlays import Overlay, find_logos, find_overlays
from anisora.measures.clip import ClipView
from anisora.measures.text_cover import text_cover
from anisora.media.reader import read_video
from anisora.synthetic import render_clip
from anisora.synthetic.lettering import HELD_OUT_FONTS, TUNING_FONTS, Lettered, languages, letter

KINDS = ("subtitle", "logo", "credits")
SIZES = ((640, 360), (854, 480), (480, 270))

#: Real clips that were looked at: with a subtitle in some frames, with a station's name in a corner, ...
SUBTITLED = (
    "anisora/132.gif",
    "anisora/133.gif",
    "anisora/cartoon_films_ren_wu_shuo_hua_34_firstmidlast.gif",
    "anisora/motion_comics_tui_la_5_firstlast.gif",
    "anisora/motion_comics_zhi_dong_xi_2_last.gif",
    "realesrgan/onepiece_demo.mp4",
)
LOGO = ("anita/00141_1_fps10.gif",)
#: ... with writing in the scene or on a storyboard, or too small to read: neither found nor missed counts ...
UNDECIDED = (
    "anisora/000000_225_.gif",
    "sakuga/216931-Scene-0011_1_fps10.gif",
    "sakuga/44449-Scene-0011_1_fps10.gif",
    "sakuga/miyamori.gif",
    "tooncrafter/03.gif",
    "tooncrafter/04.gif",
    "tooncrafter/05.gif",
)
#: ... and all others of these folders without any text.
FOLDERS = ("animatediff", "anisora", "anita", "pypi", "realesrgan", "sakuga", "tooncrafter")
TEXTUAL = ("subtitle", "logo", "credits", "title")


def judged(found: list[Overlay], truth_HW: np.ndarray | None, size: tuple[int, int]) -> tuple[bool, bool]:
    """(found, wrong): whether the truth is covered to 70 %, whether any overlay lies mostly beside it."""
    boxes = [o for o in found if o.kind in TEXTUAL]
    if truth_HW is None:
        return False, bool(boxes)
    covered = blocked_HW(size, [o.box_px for o in boxes], 3)
    own = [blocked_HW(size, [o.box_px]) for o in boxes]
    wrong = any((mask & truth_HW).sum() < 0.3 * mask.sum() for mask in own)
    return bool((covered & truth_HW).sum() >= 0.7 * truth_HW.sum()), wrong


def truth_of(lettered: Lettered, size: tuple[int, int]) -> np.ndarray:
    """Where lettering is in any frame."""
    return blocked_HW(size, [box for box in lettered.box_T if box])


def synthetic(clips: int, first_seed: int, fonts: tuple[str, ...]) -> dict:
    rows, cpu, kept = [], 0.0, []
    for number in range(clips):
        size = SIZES[number % len(SIZES)]
        clip = render_clip(first_seed + number, 0, split="seen", n_frames=32, fps=8, size_px=size)
        frames, truth, kind, font = clip.video_THWC, None, None, None
        if number % 2 == 0:
            font, kind = fonts[number // 2 % len(fonts)], KINDS[number // 6 % len(KINDS)]
            spoken = languages(font)
            lettered = letter(frames, kind, font, spoken[number // 2 % len(spoken)], seed=first_seed + number)
            frames, truth = lettered.frames_THWC, truth_of(lettered, size)
        logos = []
        if kind == "logo":  # a logo is the source's: its other shots carry it too
            logos = find_logos(np.stack([frames[0], *other_shots(first_seed + number, lettered, size)]))
        started = time.process_time()
        found = find_overlays(ClipView.of_frames(frames, 8), logos=logos)
        cpu += time.process_time() - started
        hit, wrong = judged(found, truth, size)
        kind_right = any(o.kind == kind for o in found) if kind else None
        seen = [[o.kind, o.text] for o in found]
        row = {"seed": first_seed + number, "kind": kind, "font": font, "hit": hit, "wrong": wrong, "seen": seen}
        rows.append(row | {"kind_right": kind_right})
        if kind == "subtitle" and hit:
            crop, _ = free_crop(size, [o.box_px for o in found if o.is_overlay])
            kept.append(crop.kept_area if crop and not crop.of_mask(truth).any() else 0.0)
    lettered_rows = [r for r in rows if r["kind"]]
    hits, wrong = sum(r["hit"] for r in lettered_rows), sum(r["wrong"] for r in rows)
    return {
        "clips": clips,
        "lettered": len(lettered_rows),
        "recall": hits / max(len(lettered_rows), 1),
        "precision": hits / max(hits + wrong, 1),
        "recall_by_kind": {k: by(lettered_rows, "kind", k, "hit") for k in KINDS},
        "kind_told_right": {k: by(lettered_rows, "kind", k, "kind_right") for k in KINDS},
        "recall_by_font": {f: by(lettered_rows, "font", f, "hit") for f in fonts},
        "clean_clips_with_a_wrong_hit": sum(r["wrong"] for r in rows if not r["kind"]),
        "subtitled_clips_cropped_free": f"{sum(k > 0 for k in kept)}/{len(kept)}",
        "kept_area_median": float(np.median(kept)) if kept else None,
        "cpu_s_per_clip": cpu / clips,
        "failures": [r for r in rows if r["wrong"] or (r["kind"] and not r["hit"])],
    }


def by(rows: list[dict], key: str, value: str, what: str) -> str:
    chosen = [r for r in rows if r[key] == value]
    return f"{sum(r[what] for r in chosen)}/{len(chosen)}"


def other_shots(seed: int, lettered: Lettered, size: tuple[int, int], count: int = 9) -> list[np.ndarray]:
    """Single frames of other shots that carry the same logo: the same seed of lettering on other pictures."""
    return [
        letter(
            render_clip(seed + 9000 + k, 0, split="seen", n_frames=1, fps=8, size_px=size).video_THWC,
            "logo", lettered.font, lettered.language, seed=seed,
        ).frames_THWC[0]
        for k in range(count)
    ]  # fmt: skip


def real(data: Path, max_frames: int) -> dict:
    """What is found on the real clips, against the lists above."""
    result: dict[str, list] = {"missed": [], "wrong": [], "undecided": []}
    clean = 0
    for name in names(data):
        video = read_video(data / name, num_frames=max_frames)
        found = [o for o in find_overlays(ClipView.of_frames(video.frames_THWC, video.fps)) if o.kind in TEXTUAL]
        what = [[o.kind, o.text] for o in found]
        if name in SUBTITLED or name in LOGO:
            wanted = "subtitle" if name in SUBTITLED else "logo"
            if not any(o.kind == wanted for o in found):
                result["missed"].append([name, what])
        elif name in UNDECIDED:
            result["undecided"].append([name, what])
        else:
            clean += 1
            if found:
                result["wrong"].append([name, what])
    return {"with_overlay": len(SUBTITLED) + len(LOGO), "clean": clean, **result}


def signs(data: Path, draws: int, seed: int) -> dict:
    """Frames of different real clips, with and without a sign of no letters in a corner: how often `find_logos` sees it,
    by the number of shots, and how often it sees one that is not there."""
    import cv2

    width, height = 640, 360
    rng = np.random.default_rng(seed)
    frames = []
    for name in names(data):
        if name not in (*SUBTITLED, *LOGO, *UNDECIDED):
            frame = read_video(data / name, num_frames=12).frames_THWC[-1]
            frames.append(cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=cv2.INTER_AREA))
    shape = np.zeros((height, width, 1), np.float32)
    cv2.circle(shape, (590, 40), 18, 1.0, 4)
    cv2.rectangle(shape, (586, 30), (594, 50), 1.0, -1)
    result: dict = {"pictures": len(frames), "draws": draws}
    for shots in (6, 8, 12):
        found = wrong = 0
        for _ in range(draws):
            clean = np.stack([frames[k] for k in rng.permutation(len(frames))[:shots]])
            alpha = rng.uniform(0.4, 1.0) * shape
            signed = np.rint(clean * (1 - alpha) + 255 * alpha).astype(np.uint8)
            found += any(np.allclose(logo.box_px, (568, 18, 612, 62), atol=12) for logo in find_logos(signed))
            wrong += bool(find_logos(clean))
        result[f"{shots}_shots"] = {"found": found, "wrong_on_clean": wrong}
    return result


def names(data: Path) -> list[str]:
    files = [p for folder in FOLDERS for p in sorted((data / folder).iterdir()) if p.suffix in (".gif", ".mp4")]
    return [str(p.relative_to(data)) for p in files]


def agreement(data: Path, clips: int, craft: bool) -> dict:
    """Edge proxy, PP-OCR and CRAFT on the same clips, half of them with a subtitle burnt in: rank correlation and verdicts.

    The verdict is "covered by more than 1 %"; the proxy's threshold is the one that agrees best, so its figure is the
    best it can do.
    """
    from scipy.stats import spearmanr

    columns: dict[str, list[float]] = {"edges": [], "pp-ocr": []} | ({"craft": []} if craft else {})
    cpu = dict.fromkeys(columns, 0.0)
    truth = []
    for number, name in enumerate(names(data)[:: max(1, len(names(data)) // clips)]):
        frames = read_video(data / name, num_frames=48).frames_THWC[::12]
        frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
        if number % 2:
            frames = letter(frames, "subtitle", "source-serif", "en", seed=number).frames_THWC
        truth.append(bool(number % 2) or name in SUBTITLED)
        clip = ClipView.of_frames(frames, 2)
        for column in columns:
            started = time.process_time()
            is_proxy = column == "edges"
            value = edge_share(frames) if is_proxy else text_cover(clip, detector=column, num_frames=2).raw
            columns[column].append(value)
            cpu[column] += time.process_time() - started
    values = {key: np.array(column) for key, column in columns.items()}
    reference = "craft" if craft else "pp-ocr"
    over = {key: value > 0.01 for key, value in values.items()}
    cuts = np.unique(values["edges"])
    best = {
        key: max((((values["edges"] >= cut) == over[key]).mean(), cut) for cut in cuts)
        for key in over
        if key != "edges"
    }
    return {
        "clips": len(truth),
        "rank_correlation_with_" + reference: {
            key: float(spearmanr(value, values[reference])[0]) for key, value in values.items() if key != reference
        },
        "same_verdict_frac": {f"edges/{key}": float(share) for key, (share, _) in best.items()}
        | ({"pp-ocr/craft": float((over["pp-ocr"] == over["craft"]).mean())} if craft else {}),
        "verdict_right_frac": {key: float((over[key] == np.array(truth)).mean()) for key in over if key != "edges"},
        "edges_threshold": {key: float(cut) for key, (_, cut) in best.items()},
        "cpu_s_per_clip": {key: value / len(truth) for key, value in cpu.items()},
    }


def edge_share(frames: np.ndarray) -> float:
    """The scan's text-edge cover of a few frames."""
    import cv2

    observer = TextEdges()
    for t, frame in enumerate(frames):
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        width = min(observer.params.width_px, grey.shape[1])
        size = (width, round(width * grey.shape[0] / grey.shape[1]))
        observer.feed(t, t, cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
    return float(observer.finish()["cover"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=120, help="clips of the procedural corpus, half of them lettered")
    parser.add_argument("--first-seed", type=int, default=8000)
    parser.add_argument(
        "--tuning", action="store_true", help="the fonts that were used while tuning, not the held-out ones"
    )
    parser.add_argument(
        "--extra-font", action="append", default=[], help="path of another font to letter with; repeatable"
    )
    parser.add_argument("--data", type=Path, help="folder of real clips")
    parser.add_argument("--max-frames", type=int, default=100_000, help="of each real clip")
    parser.add_argument(
        "--agreement", type=int, default=0, metavar="CLIPS", help="real clips to compare the detectors on"
    )
    parser.add_argument("--signs", type=int, default=0, metavar="DRAWS", help="signs without letters on real pictures")
    parser.add_argument("--craft", action="store_true", help="CRAFT too (slow)")
    args = parser.parse_args()
    result: dict = {}
    if args.clips:
        fonts = (*(TUNING_FONTS if args.tuning else HELD_OUT_FONTS), *args.extra_font)
        result["synthetic"] = synthetic(args.clips, args.first_seed, fonts)
    if args.data:
        result["real"] = real(args.data, args.max_frames)
    if args.data and args.signs:
        result["signs"] = signs(args.data, args.signs, args.first_seed)
    if args.data and args.agreement:
        result["agreement"] = agreement(args.data, args.agreement, args.craft)
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
