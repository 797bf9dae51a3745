"""What a checkpoint makes of real pictures: a shot from each, what went wrong in numbers, and sheets to look at.

    python benchmarks/stills.py --stills path/to/pictures --out runs/stills --json

Each picture is the first frame of a shot made as `anisora generate --guide PICTURE` makes it. There is no truth to
compare with, so what is reported is collapse: a shot that went grey, froze, drifted in brightness, or did not show its
guide. The sheets (OUT/sheets) have eight frames a row, one row a shot, for the eye.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
FRAMES_IN_A_ROW, SHOTS_IN_A_SHEET = 8, 6

#: A shot is grey when a later frame keeps less than this share of the guide's contrast or colourfulness.
GREY_SHARE = 0.5
#: A shot is frozen when no frame differs from the first by more than this on average, in grey levels.
FROZEN_LEVELS = 0.5
#: The project's target for the departure of mean luma from the guide's.
DRIFT_SHARE = 0.05


def main() -> None:
    options = parse()
    pictures = sorted(path for path in options.stills.rglob("*") if path.suffix.lower() in SUFFIXES)
    # Masks lie beside their pictures under that name; they are not stills.
    pictures = [path for path in pictures if "mask" not in path.stem][: options.most]
    if not pictures:
        sys.exit(f"no pictures in {options.stills}: expected {', '.join(sorted(SUFFIXES))} files")
    shots = make_shots(pictures, options)
    result = {
        "benchmark": "stills/1",
        "model": options.model,
        "stills": len(shots),
        "failed": sum("error" in shot for shot in shots),
        **{name: sum(bool(shot.get(name)) for shot in shots) for name in ("is_grey", "is_frozen", "is_drifting")},
        "guide_psnr_db_median": median([shot["guide_psnr_db"] for shot in shots if "guide_psnr_db" in shot]),
        "brightness_drift_median": median([shot["brightness_drift"] for shot in shots if "brightness_drift" in shot]),
        "shots": shots,
    }
    (options.out / "stills.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2) if options.json else table(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stills", type=Path, required=True, metavar="DIR", help="a folder of pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument("--prompt", default="the character moves")
    parser.add_argument("--most", type=int, default=48, metavar="N", help="the first N pictures by path")
    parser.add_argument("--frames", type=int, help="default: the checkpoint's own")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def make_shots(pictures: list[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per picture; a finished shot is not made again. Writes the sheets."""
    from anisora.generation.runner import Session, run_shots
    from anisora.media.frames import contact_sheet, fit
    from anisora.media.image import load_image
    from anisora.media.reader import read_video
    from anisora.records import Guide, Request

    folder = options.out / "frames"
    requests = [
        Request(
            prompt=options.prompt,
            guides=(Guide(str(path.absolute())),),
            model=options.model,
            frames=options.frames,
            out=str((folder / f"{index:03d}_{path.stem}").absolute()),
        )
        for index, path in enumerate(pictures)
    ]
    rows: list[dict[str, Any]] = []
    strips: list[NDArray[np.uint8]] = []
    for path, outcome in zip(pictures, run_shots(requests, Session(), skip_finished=True), strict=True):
        name = f"{path.parent.name}/{path.name}"
        if outcome.generation is None:
            rows.append({"still": name, "error": str(outcome.problem)})
            continue
        frames_THWC = read_video(str(outcome.generation.out)).frames_THWC
        guide_psnr_db = outcome.generation.guides[0].psnr_db
        size_px = (frames_THWC.shape[2], frames_THWC.shape[1])
        guide_THWC, _ = fit(np.asarray(load_image(path))[None], size_px)
        rows.append({"still": name, **figures(frames_THWC, guide_THWC), "guide_psnr_db": guide_psnr_db})
        strips += list(frames_THWC[np.linspace(0, len(frames_THWC) - 1, FRAMES_IN_A_ROW).astype(int)])
    (options.out / "sheets").mkdir(parents=True, exist_ok=True)
    per_sheet = FRAMES_IN_A_ROW * SHOTS_IN_A_SHEET
    for number, start in enumerate(range(0, len(strips), per_sheet)):
        sheet = contact_sheet(strips[start : start + per_sheet], columns=FRAMES_IN_A_ROW)
        sheet.save(options.out / "sheets" / f"{number:02d}.png")
    return rows


def figures(frames_THWC: NDArray[np.uint8], guide_THWC: NDArray[np.uint8]) -> dict[str, Any]:
    """Whether and by how much a shot collapsed, beside its guide [1, H, W, 3] in the shot's size."""
    from anisora.measures.similarity import brightness_drift, luma

    grey_THW = luma(frames_THWC)
    contrast_T, colour_T = contrast(frames_THWC), colourfulness(frames_THWC)
    kept_contrast = float(contrast_T.min() / max(contrast(guide_THWC)[0], 1.0))
    colour = colourfulness(guide_THWC)[0]
    # A black and white drawing has no colour to lose.
    kept_colour = float(colour_T.min() / colour) if colour > 4 else None
    moved_levels = float(np.abs(grey_THW - grey_THW[0]).mean(axis=(1, 2)).max())
    drift = brightness_drift(frames_THWC, guide_THWC[0])
    return {
        "kept_contrast": kept_contrast,
        "kept_colour": kept_colour,
        "is_grey": min(kept_contrast, 1.0 if kept_colour is None else kept_colour) < GREY_SHARE,
        "moved_levels": moved_levels,
        "is_frozen": moved_levels < FROZEN_LEVELS,
        "brightness_drift": drift,
        "is_drifting": drift > DRIFT_SHARE,
    }


def contrast(frames_THWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The standard deviation of each frame's luma, in grey levels."""
    from anisora.measures.similarity import luma

    return luma(frames_THWC).std(axis=(1, 2), dtype=np.float64)


def colourfulness(frames_THWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean distance between the largest and the smallest channel of each frame, in levels."""
    return np.ptp(frames_THWC.astype(np.float64), axis=3).mean(axis=(1, 2))


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def table(result: dict[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in result.items() if key != "shots"]
    for shot in result["shots"]:
        flags = [name[3:] for name in ("is_grey", "is_frozen", "is_drifting") if shot.get(name)]
        said = shot.get("error") or f"drift {shot['brightness_drift']:.3f}, moved {shot['moved_levels']:.1f}"
        lines.append(f"{shot['still']}: {said} {' '.join(flags).upper()}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
