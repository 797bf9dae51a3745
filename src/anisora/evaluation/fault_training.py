"""The networks of `measures.faults` are learned here: from sound pictures beside the same ones spoiled on purpose.

They learn from stills and clips of the user's, of clips those that `validation.is_learned_from` allows, and from drawn ones
alike; from the kinds of spoiling that may be fitted on and, for pictures, from families of random faults, so that it is
no list that is learned; and from what is no fault (good compression, another size, a small
palette, dusk, no colour), so that it is none to them either. A picture is spoiled turned and mirrored in any way and at any
size, so that not the one direction and width of `corruptions` is learned. The loop that takes the steps is handed in, as
for scorers.

OUT/SUBJECT/                the run of the loop
OUT/SUBJECT.safetensors     the weights
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anisora.errors import BadInput
from anisora.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from anisora.evaluation.fault_families import FAMILIES, spoil
from anisora.evaluation.finetuning import Fit, Plan
from anisora.files import write_atomic
from anisora.measures.appeal import edges_fine, fadedness
from anisora.measures.faults import HIDDEN, FaultNetwork, Subject, load_weights
from anisora.measures.footage import LOOK_PX, resized, spread
from anisora.measures.perceptual import network as pretrained

Picture = NDArray[np.uint8]  # [H, W, 3]

#: Kinds of spoiling that are harder to see than others, and how much more often they are tried.
HARDER = {
    "veil": 12.0, "stain": 8.0, "tiles": 8.0, "posterize": 8.0, "watermark": 7.0, "denoise": 8.0, "ghost": 4.0, "run": 4.0,
    "bleed": 5.0, "fringe": 3.0, "halo": 2.0, "dropout": 2.0,
}  # fmt: skip

#: How often the families are tried, beside a kind of 1: four in ten tries, the subtle ones most.
FAMILY_SHARES = {
    "light": 12.0, "pattern": 8.0, "lettering": 8.0, "parts": 5.0, "bend": 4.0, "filter": 4.0, "grain": 3.0, "strokes": 3.0,
    "fused": 6.0,
}  # fmt: skip

#: What each network is to tell from sound pictures, and how often each is tried. `swap` and its seams are none of it: a
#: figure that is exchanged without a seam is exchanged all the same.
SPOILED: dict[Subject, dict[str, float]] = {
    "pictures": {
        kind: HARDER.get(kind, 1.0)
        for kind, corruption in CORRUPTIONS.items()
        if corruption.dimension == "anime.appeal" and corruption.use == "fitting"
    }
    | FAMILY_SHARES,
    "figures": {"melt": 1.0},
}

#: Pictures of a step, each once sound and twice spoiled, the second time worse; the square that is seen of each.
TRIOS, SEEN_PX = 10, 224

#: Of so many times as many tries a step must find its pictures: some kinds change nothing of some pictures.
MOST_TRIES = 20

#: A picture is spoiled at the size it is judged at, or, in so many, at another from the range, and is seen at the first.
OTHER_SIZE_SHARE, SIZES_PX = 0.4, (224, 400)

#: Pictures are kept at this short side at most; frames taken of a clip.
KEPT_PX, FRAMES = 400, 10

#: What of a user's stills is too faded, too flat or too soft to call it sound.
MOST_FADED, LEAST_LEVELS, LEAST_FINE = 0.15, 28.0, -1.6

#: From this severity on a picture is to be told from every sound one; milder ones count by so much.
HARD, MILD_WEIGHT = 3, 0.4

DRAWN_SEED, DRAWN_SIZES = 31, ((384, 256), (256, 256), (456, 256), (512, 384))


@dataclass(frozen=True, kw_only=True)
class FaultSettings:
    """How long a network learns, and how fast."""

    steps: int = 2000
    learning_rate: float = 1e-3
    start: Path | None = None
    """Weights to begin with, in place of EfficientNet-Lite0's."""
    seed: int = 0
    max_minutes: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is called sound: stills, drawn pictures, and frames of clips, which are taken in so large a share of the steps."""

    stills: Sequence[Picture]
    drawn: Sequence[Picture]
    clips: Sequence[Sequence[Picture]]

    def one(self, rng: np.random.Generator) -> Picture:
        """One of them: of twenty seven are of clips, two are drawn, eleven are stills, as far as there are any."""
        pools = [(0.35, self.clips), (0.1, self.drawn), (0.55, self.stills)]
        shares = np.array([share if pool else 0.0 for share, pool in pools])
        pool: Any = pools[int(rng.choice(3, p=shares / shares.sum()))][1]
        chosen = pool[int(rng.integers(len(pool)))]
        return chosen[int(rng.integers(len(chosen)))] if pool is self.clips else chosen


def learn(subject: Subject, pictures: Pictures, out: Path, fit: Fit, settings: FaultSettings) -> Path | None:
    """The file of the weights of one network; None when time was up: run again to go on.

    Raises BadInput without any pictures or with flat colours alone, AssetMissing or BadCheckpoint where the weights that it
    begins with cannot be had.
    """
    from safetensors.torch import save_file

    if not (pictures.stills or pictures.drawn or pictures.clips):
        raise BadInput("no picture to learn from", got="none", hint="stills and clips of your own, or --drawn above 0")
    torch.manual_seed(settings.seed)
    network, kinds = begun(settings.start), nn.Linear(HIDDEN, len(SPOILED[subject]))

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        shown_N3CHW, kind_N, severity_N2 = _batch(subject, pictures, np.random.default_rng([settings.seed, step]))
        network.train()
        return _loss(network, kinds, shown_N3CHW, kind_N, severity_N2), {}

    plan = Plan(
        name=f"faults of {subject}", modules={"faults": network, "kinds": kinds}, loss=loss, folder=out / subject,
        steps=settings.steps, batch=3 * TRIOS, learning_rate=settings.learning_rate, warmup_steps=40, weight_decay=0.001,
        seed=settings.seed, max_minutes=settings.max_minutes,
    )  # fmt: skip
    if not fit(plan):
        return None
    tensors = {n: t.half().contiguous() for n, t in network.state_dict().items() if t.is_floating_point()}
    return write_atomic(out / f"{subject}.safetensors", lambda path: save_file(tensors, path))


class _Steady(FaultNetwork):
    """The network while it learns: the statistics of its layers stay those of the weights it began with, for a step shows
    few pictures, and each of them three times."""

    def train(self, mode: bool = True) -> _Steady:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def begun(start: Path | None = None) -> FaultNetwork:
    """A network that begins with weights of its kind, or with the first stages of EfficientNet-Lite0.

    Raises AssetMissing, or BadCheckpoint for a file of anything else.
    """
    made = _Steady()
    if start is not None:
        made.load_state_dict(load_weights(start))
    else:
        whole = pretrained()
        made.stem.load_state_dict(whole._conv_stem.state_dict())
        made.stem_norm.load_state_dict(whole._bn0.state_dict())
        for own, learned in zip(made.blocks, whole._blocks, strict=False):
            own.load_state_dict(learned.state_dict())
    # a third less time a step on CPUs
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _loss(network: FaultNetwork, kinds: nn.Module, shown_N3CHW: Tensor, kind_N: Tensor, severity_N2: Tensor) -> Tensor:
    """Each picture by itself, every sound one against every spoiled one, more severity above less, and which kind it is."""
    summary = network.summary(shown_N3CHW.flatten(0, 1).float())
    odds_N3 = network.odds(summary).view(-1, 3)
    sound_N, spoiled_N2 = odds_N3[:, 0], odds_N3[:, 1:]
    weight_N2 = torch.where(severity_N2 >= HARD, 1.0, MILD_WEIGHT)
    each = functional.softplus(sound_N).mean() + (functional.softplus(-spoiled_N2) * weight_N2).mean()
    hard = spoiled_N2[severity_N2 >= HARD]
    across = functional.softplus(sound_N[:, None] - hard[None]).mean() if len(hard) else torch.zeros(())
    order = functional.softplus(3 * (odds_N3[:, :-1] - odds_N3[:, 1:])).mean()
    said_N2K = kinds(summary).unflatten(0, (-1, 3))[:, 1:]
    named = functional.cross_entropy(said_N2K.flatten(0, 1), kind_N.repeat_interleave(2), reduction="none")
    return each + across + order + 0.3 * (named * weight_N2.flatten()).mean()


# ------------------------------------------------------------------------------------------------ what is shown


def _batch(subject: Subject, pictures: Pictures, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(uint8 [N, 3, C, H, W]: sound, spoiled, spoiled worse; the kinds [N]; the severities [N, 2])."""
    names, share = list(SPOILED[subject]), np.array(list(SPOILED[subject].values()))
    shown: list[NDArray[np.uint8]] = []
    kinds, severities = [], []
    for _ in range(MOST_TRIES * TRIOS):
        kind = int(rng.choice(len(names), p=share / share.sum()))
        mild, hard = sorted(int(s) for s in rng.permutation(SEVERITIES)[:2])
        trio = _trio(pictures.one(rng), pictures.one(rng), names[kind], (mild, hard), rng)
        if not np.array_equal(trio[1], trio[2]):  # no colour to move, say
            shown.append(trio)
            kinds.append(kind)
            severities.append((mild, hard))
        if len(shown) == TRIOS:
            break
    else:
        raise BadInput("pictures on which nothing can be seen to be wrong", got="flat colours", expected="drawings")
    frames = torch.from_numpy(np.stack(shown)).permute(0, 1, 4, 2, 3)
    return frames, torch.tensor(kinds), torch.tensor(severities)


def _trio(
    picture: Picture, other: Picture, kind: str, severities: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A picture sound, spoiled and spoiled worse: the same square of all three, [3, `SEEN_PX`, `SEEN_PX`, 3]."""
    size_px = int(rng.integers(*SIZES_PX)) if rng.random() < OTHER_SIZE_SHARE else LOOK_PX
    picture = _part(picture, rng) if rng.random() < 0.3 else picture
    base, other = resized(picture, size_px), resized(other, size_px)
    turn, seed = _turn(rng), int(rng.integers(1 << 16))
    spoiled = [resized(_spoiled(base, other, kind, severity, turn, seed), LOOK_PX) for severity in severities]
    if rng.random() < 0.3:
        same = int(rng.integers(1 << 30))
        spoiled = [_unharmed(one, np.random.default_rng(same)) for one in spoiled]
    return _square([_unharmed(resized(base, LOOK_PX), rng), *spoiled], rng)


def _spoiled(base: Picture, other: Picture, kind: str, severity: int, turn: tuple[int, bool], seed: int) -> Picture:
    """The picture turned, spoiled and turned back; the last of two frames, which is where changes over time end."""
    quarters, mirrored = turn
    turned = np.rot90(base[:, ::-1] if mirrored else base, quarters)
    if kind in FAMILIES:
        spoiled = spoil(np.ascontiguousarray(turned), kind, severity, seed=seed)
    else:
        spoiled = corrupt(np.stack([turned, turned]), kind, severity, seed=seed, other_THWC=other[None])[1]
    back = np.rot90(spoiled, -quarters)
    return np.ascontiguousarray(back[:, ::-1] if mirrored else back)


def _turn(rng: np.random.Generator) -> tuple[int, bool]:
    """Quarter turns, and whether the picture is mirrored: any of the eight in half of the steps, upright in the others."""
    mirrored = bool(rng.random() < 0.5)
    return (int(rng.integers(4)) if rng.random() < 0.5 else 0), mirrored


def _part(picture: Picture, rng: np.random.Generator) -> Picture:
    height, width = (round(side * rng.uniform(0.7, 1)) for side in picture.shape[:2])
    y, x = (int(rng.integers(has - part + 1)) for has, part in zip(picture.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(picture[y : y + height, x : x + width])


def _square(same: list[Picture], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One square of pictures of one size, mirrored in half of the steps; what is too small is mirrored at its ends."""
    height, width = (min(one.shape[axis] for one in same) for axis in (0, 1))
    y, x = (int(rng.integers(max(1, side - SEEN_PX + 1))) for side in (height, width))
    cut = [one[y : min(y + SEEN_PX, height), x : min(x + SEEN_PX, width)] for one in same]
    missing = [(0, SEEN_PX - side) for side in cut[0].shape[:2]]
    whole = np.stack([np.pad(one, [*missing, (0, 0)], mode="reflect") for one in cut])
    return whole[:, :, ::-1] if rng.random() < 0.5 else whole


def _compressed(picture: Picture, rng: np.random.Generator) -> Picture:
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(86, 98))]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR))


def _smaller(picture: Picture, rng: np.random.Generator) -> Picture:
    """Once smaller, and in half of the steps brought to twice that size in between, as small clips are."""
    size_px = int(rng.integers(160, 250))
    small = resized(picture, size_px)
    return resized(resized(small, 2 * size_px) if rng.random() < 0.5 else small, LOOK_PX)


def _few_colors(picture: Picture, rng: np.random.Generator) -> Picture:
    from PIL import Image

    colors, dither = int(rng.choice([192, 256])), rng.choice([Image.Dither.NONE, Image.Dither.FLOYDSTEINBERG])
    return np.array(Image.fromarray(picture).quantize(colors, dither=dither).convert("RGB"))


def _dusk(picture: Picture, rng: np.random.Generator) -> Picture:
    share, tint, haze = rng.uniform(0.3, 1), rng.uniform(0.4, 1, 3), rng.uniform(0, 15, 3)
    return np.rint(np.clip((1 - share) * picture + share * (picture * tint + haze), 0, 255)).astype(np.uint8)


def _grey(picture: Picture, rng: np.random.Generator) -> Picture:
    import cv2

    return np.repeat(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)


#: What is no fault, and in how large a share of the steps it is done; else the picture stays as it is.
NO_FAULTS: tuple[tuple[float, Callable[[Picture, np.random.Generator], Picture]], ...] = (
    (0.15, _compressed), (0.16, _smaller), (0.12, _few_colors), (0.08, _dusk), (0.08, _grey),
)  # fmt: skip


def _unharmed(picture: Picture, rng: np.random.Generator) -> Picture:
    place = rng.random()
    for share, change in NO_FAULTS:
        if place < share:
            return change(picture, rng)
        place -= share
    return picture


# ------------------------------------------------------------------------------------------------ pictures


def gather(
    stills: Sequence[Path], clips: Sequence[Path], drawn: int, progress: Callable[[str, int, int], None] | None = None
) -> Pictures:
    """Pictures to learn from: of stills those that look sound, of those with holes each laid over another; frames of clips;
    drawn ones. Raises BadImage and BadVideo for what cannot be read."""
    from anisora.synthetic import render_clip

    def told(what: str, index: int, count: int) -> None:
        if progress:
            progress(what, index, count)

    opened = []
    for index, path in enumerate(stills):
        told("stills", index, len(stills))
        opened.append(_open(path))
    whole = [np.ascontiguousarray(still[..., :3]) for still in opened if still[..., 3].min() == 255]
    rng = np.random.default_rng(0)
    over = [_laid_over(whole, still, rng) for still in opened if whole and still[..., 3].min() < 255]
    made: list[Picture] = []
    for index in range(drawn):
        told("drawn", index, drawn)
        size_px = DRAWN_SIZES[index % len(DRAWN_SIZES)]
        clip = render_clip(DRAWN_SEED, index, n_frames=9, fps=8, size_px=size_px, version=3)
        made += [clip.video_THWC[0], clip.video_THWC[-1]]
    moving = []
    for index, path in enumerate(clips):
        told("clips", index, len(clips))
        moving.append(_frames(path))
    return Pictures(stills=[one for one in [*whole, *over] if looks_sound(one)], drawn=made, clips=moving)


def looks_sound(picture: Picture) -> bool:
    """Whether a still has black or white, contrast and sharp edges; textures and backdrops often have none."""
    small = resized(picture, LOOK_PX)
    contrast = float(small.mean(axis=-1).std())
    return fadedness(small) < MOST_FADED and contrast > LEAST_LEVELS and min(edges_fine(small)) > LEAST_FINE


def _open(path: Path) -> NDArray[np.uint8]:
    """A still, kept small, [H, W, 4]: what it adds to black, and how much it covers: from how it looks on black and on
    white."""
    from anisora.media.image import BLACK, WHITE, load_image

    on_black, on_white = (np.array(load_image(path, background=color)) for color in (BLACK, WHITE))
    covers = 255 - (on_white - on_black).max(axis=-1, keepdims=True)
    return _kept(np.concatenate([on_black, covers], axis=-1))


def _frames(path: Path) -> list[Picture]:
    from anisora.media.reader import read_video

    frames_THWC = read_video(path, num_frames=64, threads=1).frames_THWC
    return [_kept(frames_THWC[t]) for t in spread(len(frames_THWC), FRAMES)]


def _kept(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return resized(picture, KEPT_PX) if min(picture.shape[:2]) > KEPT_PX else picture


def _laid_over(scenes: Sequence[Picture], cut_out_HW4: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """The cut-out standing somewhere in one of the scenes, three to ten tenths as high."""
    import cv2

    laid = scenes[int(rng.integers(len(scenes)))].copy()
    height, width = laid.shape[:2]
    scale = min(0.8 * width / cut_out_HW4.shape[1], height * rng.uniform(0.3, 1) / cut_out_HW4.shape[0])
    size = (max(1, int(cut_out_HW4.shape[1] * scale)), max(1, int(cut_out_HW4.shape[0] * scale)))
    small = cv2.resize(cut_out_HW4, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    x, y = int(rng.integers(width - size[0] + 1)), height - size[1]
    behind = laid[y:, x : x + size[0]]
    behind[:] = np.rint(np.minimum(255, behind * (1 - small[..., 3:] / 255) + small[..., :3])).astype(np.uint8)
    return laid
