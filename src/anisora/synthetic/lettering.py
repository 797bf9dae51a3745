"""Burns subtitles, logos and credits into clips and says exactly where: the answer key of the overlay detectors.

Fonts come out of pip packages like other small files (`FONTS`); they are for tests and benchmarks only. A text is drawn
only in a font that has all of its glyphs, since empty boxes in place of letters would be another task.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from anisora.assets import Asset, locate
from anisora.errors import BadConfig

if TYPE_CHECKING:
    from PIL import ImageFont

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, half-open
Kind = Literal["subtitle", "logo", "credits"]

#: Fonts by name. `tuning` ones may be looked at while a detector is made, `held out` ones only when it is judged.
FONTS: dict[str, Asset] = {
    "ipaex-gothic": Asset(  # tuning: Japanese and Latin sans
        package="matplotlib-fontja",
        version="1.1.0",
        member="matplotlib_fontja/fonts/ipaexg.ttf",
        sha256="3b9955a5e437ffb24c41548e79296fa724822da21ee75dc1b94f6ccdb8f400dd",
        size_bytes=6_099_900,
        licence="IPA Font License 1.0",
    ),
    "source-serif": Asset(  # tuning: Latin serif
        package="font-source-serif-pro",
        version="0.0.1",
        member="font_source_serif_pro/files/SourceSerifPro-Semibold.otf",
        sha256="fa0fa85d115316bb1541607373a8e6676f2430f42d38806f2bc0b5f9a8424c91",
        size_bytes=227_008,
        licence="OFL-1.1",
    ),
    "noto-sans-cjk": Asset(  # held out: Chinese, Japanese and Latin sans
        package="cvttf-notosanscjk-regular",
        version="1.0",
        member="cvttf_NotoSansCJK_Regular/NotoSansCJKtc-Regular.otf",
        sha256="f57e46120a3dd025ac993801981849622405d1359b32093b1f046490f7885711",
        size_bytes=16_431_292,
        licence="OFL-1.1",
    ),
    "noto-serif-cjk": Asset(  # held out: Chinese, Japanese and Latin serif
        package="mplfonts",
        version="0.0.11",
        member="mplfonts/fonts/NotoSerifCJKsc-Regular.otf",
        sha256="efa5e49879a789c1ecad8f07e1813c7f9aa6c4b951fdbb5791d85d67345632d7",
        size_bytes=23_613_224,
        licence="OFL-1.1",
    ),
    "noto-serif-italic": Asset(  # held out: Latin serif italic
        package="fontpkg-noto-serif",
        version="2.15",
        member="fontpkg_noto_serif/files/NotoSerif-Italic[wdth,wght].ttf",
        sha256="e87acbc6c0efd0d9a20d6a8cbbda2b266c14be3a3a6f5af8ec9d7b2460570ad1",
        size_bytes=2_448_496,
        licence="OFL-1.1",
    ),
}
TUNING_FONTS = ("ipaex-gothic", "source-serif")
HELD_OUT_FONTS = ("noto-sans-cjk", "noto-serif-cjk", "noto-serif-italic")

#: What is said, by language: lines of dialogue, names of stations, and rows of credits.
DIALOGUE = {
    "en": (
        "Where did you put the lantern?",
        "I told you not to come here.",
        "Run!",
        "The train leaves at seven, and this time it will not wait.",
        "You never listen to me.",
        "What is that sound?",
        "We have been walking since morning.",
        "Give it back, please.",
    ),
    "ja": (
        "どこへ行くつもりだ?",
        "明日の朝までに戻ってきて。",
        "逃げろ!",
        "この町には誰もいないはずなのに。",
        "約束したでしょう。",
        "その音はなんだ?",
        "ずっと待っていたんだ。",
        "それを返してください。",
    ),
    "zh": (
        "你到底要去哪里?",
        "明天早上之前一定要回来。",
        "快跑!",
        "这个小镇上应该没有人才对。",
        "我们说好了的。",
        "那是什么声音?",
        "我一直在等你。",
        "请把它还给我。",
    ),
}
STATIONS = {"en": ("ANIME7", "TOONBOX", "KIDS TV"), "ja": ("東都放送", "アニメ館"), "zh": ("星空卫视", "动漫台")}
CREDITS = {
    "en": (
        "Director",
        "Jane Milford",
        "Key Animation",
        "Tom Arden",
        "Backgrounds",
        "Lena Voss",
        "Music",
        "Otto Brandt",
    ),
    "ja": ("監督", "山田太郎", "原画", "佐藤花子", "美術監督", "鈴木一郎", "音楽", "高橋次郎"),
    "zh": ("导演", "王小明", "原画", "李美玲", "美术指导", "张国强", "音乐", "陈志伟"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Lettered:
    """A clip with something burnt in: the frames, and which box it takes in each (None where it does not show)."""

    kind: Kind
    frames_THWC: NDArray[np.uint8]
    box_T: tuple[Box | None, ...]
    font: str
    language: str


def font_path(name: str) -> Path:
    """The file of a font of `FONTS`, or `name` itself where it is a path. Raises AssetMissing."""
    return locate(FONTS[name]) if name in FONTS else Path(name)


@functools.lru_cache(maxsize=64)
def open_font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    """The font at a size."""
    from PIL import ImageFont

    return ImageFont.truetype(font_path(name), size_px)


@functools.lru_cache(maxsize=4096)
def has_glyphs(name: str, text: str) -> bool:
    """Whether the font draws every character by a glyph of its own, and none as the box for missing ones."""
    font = open_font(name, 24)

    def drawn(character: str) -> bytes:
        return bytes(font.getmask(character))

    missing = {drawn("\U0010fffd"), drawn("\ufffe"), b""}
    return all(drawn(character) not in missing for character in text if not character.isspace())


def languages(name: str) -> list[str]:
    """The languages of the texts above for which the font has all glyphs."""
    return [key for key in DIALOGUE if has_glyphs(name, "".join(DIALOGUE[key] + CREDITS[key] + STATIONS[key]))]


def letter(frames_THWC: NDArray[np.uint8], kind: Kind, font: str, language: str, seed: int) -> Lettered:
    """The clip with one overlay of the kind; place, size and look follow from the seed.

    Raises BadConfig when the font lacks a glyph.
    """
    if language not in languages(font):
        raise BadConfig("the font lacks glyphs", got=f"{font} for {language}", expected=", ".join(languages(font)))
    rng = np.random.default_rng((seed, 77))
    draw = {"subtitle": _subtitle, "logo": _logo, "credits": _credits}[kind]
    frames, boxes = draw(frames_THWC, font, language, rng)
    return Lettered(kind=kind, frames_THWC=frames, box_T=boxes, font=font, language=language)


def _subtitle(frames: NDArray[np.uint8], font: str, language: str, rng: np.random.Generator) -> tuple[Any, Any]:
    """One or two centred lines at the bottom, now and then at the top, for at least half of the clip."""
    count, height, width = frames.shape[:3]
    size = max(11, round(height * rng.uniform(0.05, 0.085)))
    lines = _wrapped([str(rng.choice(DIALOGUE[language]))], font, size, width * 0.86)
    colour = ((255, 255, 255), (255, 255, 255), (255, 240, 90), (230, 240, 255))[rng.integers(4)]
    row = round(size * 1.25)
    top = round(height * 0.05) if rng.random() < 0.15 else height - round(height * 0.06) - row * len(lines)
    shown = round(count * rng.uniform(0.5, 1.0))
    start = int(rng.integers(0, count - shown + 1))
    stroke = max(1, round(size * rng.uniform(0.05, 0.11)))
    rows = [(line, width / 2, top + i * row) for i, line in enumerate(lines)]
    layer = _text_layer((width, height), rows, font, size, colour, stroke)
    return _shown(frames, [layer if start <= t < start + shown else None for t in range(count)])


def _logo(frames: NDArray[np.uint8], font: str, language: str, rng: np.random.Generator) -> tuple[Any, Any]:
    """A channel's name or sign in a corner, half transparent, all through the clip."""
    from PIL import Image, ImageDraw

    count, height, width = frames.shape[:3]
    size = max(11, round(height * rng.uniform(0.05, 0.08)))
    name = str(rng.choice(STATIONS[language]))
    text_width = open_font(font, size).getlength(name)
    sign = rng.random() < 0.5
    side = round(size * 1.4)
    total = text_width + (side * 1.2 if sign else 0)
    x = width * 0.04 if rng.random() < 0.5 else width * 0.96 - total
    y = height * 0.05 if rng.random() < 0.7 else height * 0.95 - size * 1.4
    colour = (255, 255, 255)
    layer = _text_layer((width, height), [(name, x + total - text_width / 2, y)], font, size, colour, 1)
    if sign:
        brush = ImageDraw.Draw(layer)
        box = (x, y, x + side, y + side)
        brush.ellipse(box, outline=(*colour, 255), width=max(2, side // 8))
        middle = (x + side / 2, y + side / 2)
        brush.regular_polygon((*middle, side / 3), int(rng.integers(3, 6)), fill=(*colour, 255))
    alpha = rng.uniform(0.55, 0.95)
    layer.putalpha(Image.fromarray((np.asarray(layer)[..., 3] * alpha).astype(np.uint8)))
    return _shown(frames, [layer] * count)


def _credits(frames: NDArray[np.uint8], font: str, language: str, rng: np.random.Generator) -> tuple[Any, Any]:
    """Rows of names: rolling upwards, or standing as a card."""
    count, height, width = frames.shape[:3]
    size = max(11, round(height * rng.uniform(0.045, 0.065)))
    row = round(size * 1.7)
    names = list(CREDITS[language])
    x = width * rng.choice([0.5, 0.5, 0.3, 0.7])
    if rng.random() < 0.6:
        names = names * 2
        speed = height * rng.uniform(0.8, 1.3) / count
        starts = [round(height * 0.75 - speed * t) for t in range(count)]
    else:
        starts = [round(height * 0.5 - row * len(names) / 2)] * count
    return _shown(
        frames,
        [
            _text_layer((width, height), [(n, x, y + i * row) for i, n in enumerate(names)], font, size, (255, 255, 255), 1)
            for y in starts
        ],
    )  # fmt: skip


def _wrapped(texts: Sequence[str], font: str, size: int, width_px: float) -> list[str]:
    """Lines no wider than `width_px`: broken at the spaces, in scripts without any anywhere."""
    opened, lines = open_font(font, size), []
    for text in texts:
        pieces, glue = (text.split(), " ") if " " in text else (list(text), "")
        line = pieces[0]
        for piece in pieces[1:]:
            if opened.getlength(line + glue + piece) > width_px:
                lines.append(line)
                line = piece
            else:
                line += glue + piece
        lines.append(line)
    return lines


def _text_layer(
    size_px: tuple[int, int], texts: Sequence[tuple[str, float, float]], font: str, size: int, colour: Any, stroke: int
) -> Any:
    """A transparent picture with texts, each centred on x with its top at y, outlined in black."""
    from PIL import Image, ImageDraw

    layer = Image.new("RGBA", size_px, (*colour, 0))
    brush = ImageDraw.Draw(layer)
    for text, x, y in texts:
        if -2 * size < y < size_px[1]:
            brush.text((x, y), text, font=open_font(font, size), fill=(*colour, 255), anchor="ma",
                       stroke_width=stroke, stroke_fill=(0, 0, 0, 255))  # fmt: skip
    return layer


def _shown(frames: NDArray[np.uint8], layers: Sequence[Any]) -> tuple[NDArray[np.uint8], tuple[Box | None, ...]]:
    """The frames under their layers, and the box of what each layer shows."""
    burnt, boxes = frames.copy(), []
    for frame, layer in zip(burnt, layers, strict=True):
        boxes.append(layer.getchannel("A").getbbox() if layer is not None else None)
        if layer is not None:
            rgba = np.asarray(layer).astype(np.float32)
            alpha = rgba[..., 3:] / 255
            frame[:] = np.rint(frame * (1 - alpha) + rgba[..., :3] * alpha)
    return burnt, tuple(boxes)
