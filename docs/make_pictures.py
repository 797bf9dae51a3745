"""Makes docs/images/: one strip per way of asking, guides framed, and the same as an animated WebP.

    python docs/make_pictures.py [--model NAME_OR_PATH] [--out DIR]

The guides are frames of held-out clips of the synthetic corpus, which the bundled model has not seen.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from anisora import synthetic
from anisora.generation.runner import Session, run_shots
from anisora.media.reader import read_video
from anisora.models import catalog
from anisora.records import Guide, Request

#: Held-out seeds, chosen by eye among 9000 to 9023: the clips, and what these weights make of them.
SEEDS = {"first_frame": 9007, "in_between": 9009, "motion_mask": 9006}
FRAMES_IN_STRIP = 8
FRAME_COLOUR = (250, 120, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        requests = [request(name, options.model, Path(scratch)) for name in SEEDS]
        for name, outcome in zip(SEEDS, run_shots(requests, Session()), strict=True):
            if outcome.generation is None:
                raise SystemExit(f"{name}: {outcome.problem}")
            frames_THWC = read_video(str(outcome.generation.out)).frames_THWC
            write_pictures(name, frames_THWC, [guide.frame for guide in outcome.generation.guides], options.out)


def request(name: str, model: str, folder: Path) -> Request:
    """A shot of the checkpoint's own size and length, with the guides of its kind drawn into `folder`."""
    native = catalog.resolve(model).native
    clip = synthetic.render_clip(
        SEEDS[name],
        0,
        split="seen",
        n_frames=native.frames,
        fps=native.fps,
        size_px=native.size,
        truth=True,
        version=synthetic.TRAINED_VERSION,
    )
    at = {"first_frame": [0], "in_between": [0, native.frames // 2, native.frames - 1], "motion_mask": [0]}[name]
    guides = []
    for frame in at:
        path = folder / f"{name}_{frame}.png"
        Image.fromarray(clip.video_THWC[frame]).save(path)
        guides.append(Guide(str(path), frame))
    mask = None
    if name == "motion_mask" and clip.truth is not None:
        mask = folder / "mask.png"
        Image.fromarray(clip.truth.motion_mask_HW).save(mask)
    return Request(
        prompt=clip.caption, guides=tuple(guides), model=model, motion_mask=mask and str(mask), out=str(folder / name)
    )


def write_pictures(name: str, frames_THWC: np.ndarray, guides: list[int], out: Path) -> None:
    """NAME.png: eight frames side by side, the guides framed; NAME.webp: the shot at twice its size."""
    shown = sorted({*np.linspace(0, len(frames_THWC) - 1, FRAMES_IN_STRIP).astype(int).tolist(), *guides})
    height, width = frames_THWC.shape[1:3]
    strip = Image.new("RGB", (len(shown) * (width + 4), height), "white")
    for column, frame in enumerate(shown):
        strip.paste(Image.fromarray(frames_THWC[frame]), (column * (width + 4), 0))
        if frame in guides:
            left = column * (width + 4)
            ImageDraw.Draw(strip).rectangle((left, 0, left + width - 1, height - 1), outline=FRAME_COLOUR, width=2)
    strip.save(out / f"{name}.png", optimize=True)
    pictures = [
        Image.fromarray(frame).resize((2 * width, 2 * height), Image.Resampling.LANCZOS) for frame in frames_THWC
    ]
    pictures[0].save(out / f"{name}.webp", save_all=True, append_images=pictures[1:], duration=125, loop=0, quality=80)


if __name__ == "__main__":
    main()
