"""Episodes to curate: real clips joined behind one opening and before one ending, subtitles and credits burnt in.

    python benchmarks/episodes.py --data ../shared/data/real_clips --out episodes/ --episodes 3 --height 360 --seed 1

Every episode has the same opening and ending (some 22 s each, encoded anew, at other moments), shots of its own between
them, a third of which speak (a subtitle), and one cut that the others show as well, mirrored. Rates go round: 24 frames a
second, 24000/1001, and a varying rate (24 and 30 a second, shot by shot). `NAME.json` beside each video is the truth: per
shot its first and last frame, where it comes from, and what lies on it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from joined_shots import REAL
from numpy.typing import NDArray

#: pictures a second at which the clips are laid down, whatever the episode's own rate is
FPS = 24
#: what an opening or ending lasts at least, so that it counts as one
THEME_S = 22
RATES = ("24", "24000/1001", "varying")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Frames [start, end) of an episode. `part` is opening, body or ending; `on_it` names what is burnt in."""

    part: str
    source: str
    start: int
    end: int
    on_it: str = ""
    is_bank: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of real clips")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--shots", type=int, default=9, help="of its own, an episode")
    parser.add_argument("--height", type=int, default=360, help="px; the picture is 16:9")
    parser.add_argument("--theme", type=float, default=THEME_S, help="seconds of opening and of ending; 0 for none")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    size_px = (round(options.height * 16 / 9 / 2) * 2, options.height)
    for path in build(options.data, options.out, options.episodes, options.shots, size_px, options.theme, options.seed):
        print(path)


def build(
    data: Path, out: Path, episodes: int, shots: int, size_px: tuple[int, int], theme_s: float, seed: int
) -> Iterator[Path]:
    """Writes the episodes, one path each."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(REAL)]
    opening, names = _theme(data, names, size_px, theme_s)
    bank, names = names[0], names[1:]
    for number in range(episodes):
        own = [names[(number * shots + k) % len(names)] for k in range(shots)]
        path = out / f"episode {number + 1:02}.mp4"
        parts: list[tuple[Shot, NDArray[np.uint8]]] = []
        for name, frames in opening:
            _add(parts, "opening", name, frames)
        for place, name in enumerate(own):
            frames = pieces(data / name, size_px)
            speaks = place % 3 == 1
            if speaks:
                frames = _lettered(frames, "subtitle", int(rng.integers(1000)))
            _add(parts, "body", name, frames, on_it="subtitle" if speaks else "")
            if place == shots // 2:
                frames = pieces(data / bank, size_px)
                _add(parts, "body", bank, frames[:, :, ::-1] if number % 2 else frames, is_bank=True)
        if theme_s:
            _add(parts, "ending", opening[0][0], _ending(opening[0][1], theme_s), on_it="credits")
        rate = RATES[number % len(RATES)]
        write(path, [frames for _, frames in parts], rate)
        truth = {"rate": rate, "shots": [asdict(shot) for shot, _ in parts]}
        path.with_suffix(".json").write_text(json.dumps(truth, indent=1))
        yield path


def _add(parts: list[tuple[Shot, NDArray[np.uint8]]], part: str, name: str, frames: Any, **fields: Any) -> None:
    start = parts[-1][0].end if parts else 0
    parts.append((Shot(part=part, source=name, start=start, end=start + len(frames), **fields), frames))


def pieces(path: Path, size_px: tuple[int, int], most_s: float = 6.0) -> NDArray[np.uint8]:
    """The clip at 24 pictures a second, cut to the size, at most so long."""
    from anisora.media.frames import fit
    from anisora.media.reader import iter_frames

    frames = [frame.rgb_HWC for frame in islice(iter_frames(path, at_fps=FPS, threads=1), round(most_s * FPS))]
    return fit(np.stack(frames), size_px)[0]


def _theme(data: Path, names: list[str], size_px: tuple[int, int], theme_s: float) -> tuple[list[Any], list[str]]:
    """The shots of the opening, until it is long enough, and the clips that are left."""
    found: list[Any] = []
    while sum(len(frames) for _, frames in found) < theme_s * FPS:
        found.append((names[0], pieces(data / names[0], size_px)))
        names = names[1:]
    return found, names


def _ending(frames: NDArray[np.uint8], theme_s: float) -> NDArray[np.uint8]:
    """The camera sinks slowly over one picture while credits run."""
    import cv2

    count, (height, width) = round(theme_s * FPS), frames.shape[1:3]
    wide = cv2.resize(frames[0], (width * 5 // 4, height * 5 // 4), interpolation=cv2.INTER_CUBIC)
    rows = np.linspace(0, wide.shape[0] - height, count)
    shift = [np.float32([[1, 0, -(width // 8)], [0, 1, -row]]) for row in rows]
    still = np.stack([cv2.warpAffine(wide, move, (width, height)) for move in shift])
    return _lettered(still, "credits", 5)


def _lettered(frames: NDArray[np.uint8], kind: Any, seed: int) -> NDArray[np.uint8]:
    from anisora.synthetic.lettering import HELD_OUT_FONTS, languages, letter

    font = HELD_OUT_FONTS[seed % len(HELD_OUT_FONTS)]
    return letter(frames, kind, font, languages(font)[seed % len(languages(font))], seed=seed).frames_THWC


def write(path: Path, parts: Iterable[NDArray[np.uint8]], rate: str) -> None:
    """Encodes the shots one behind the other; a varying rate alternates between 24 and 30 a second with them."""
    import av

    base = Fraction(1, 120000)
    path.parent.mkdir(parents=True, exist_ok=True)
    pts = 0
    with av.open(str(path), "w") as container:
        stream: Any = None
        for number, frames in enumerate(parts):
            step = {"24": 5000, "24000/1001": 5005}.get(rate, 5000 if number % 2 else 4000)
            for rgb_HWC in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=24, options={"crf": "20", "preset": "veryfast"})
                    stream.height, stream.width = rgb_HWC.shape[:2]
                    stream.pix_fmt, stream.time_base = "yuv420p", base
                    stream.codec_context.time_base, stream.codec_context.thread_count = base, 1
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), "rgb24")
                frame.pts, frame.time_base, frame.duration = pts, base, step
                container.mux(stream.encode(frame))
                pts += step
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
