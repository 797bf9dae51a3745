"""What a model may write in place of a caption, and how it is told apart: refusals, loops, captions of other clips.

Each guard gives a short reason code; a clip whose answer is turned away has no caption, which is not a bad caption.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from anisora.curation.captions.schema import AnimeCaption

GUARDS_VERSION = 1

#: Looked for where an answer begins; further on a character may say such a thing.
_REFUSAL_WITHIN = 160
_REFUSAL = re.compile(
    r"\bI(?:['’]m| am) (?:sorry|unable|not able|afraid I)|\bI (?:cannot|can['’]t|can not|won['’]t|am not able)\b"
    r"|\bas an? (?:AI|language model|artificial)|\b(?:no|any) (?:image|video|frame)s? (?:was|were|is|are|has been) "
    r"(?:provided|attached|visible|given)|content policy|抱歉|对不起|作为一个(?:AI|人工智能)|我无法|无法(?:提供|协助|查看|描述)"
    r"|申し訳ありません",
    re.IGNORECASE,
)

#: Fewer words say nothing, more are no caption.
LEAST_WORDS, MOST_WORDS = 3, 400

#: From this share of four-word runs seen before on, a text of `LOOP_LEAST_WORDS` or more goes in circles. Honest captions
#: of up to 200 words stay below 0.1.
LOOP_SHARE, LOOP_LEAST_WORDS, LOOP_RUN_WORDS = 0.3, 12, 4

#: A text that ends in one and the same stretch this often has got stuck.
STUCK_REPEATS = 4


def objection(caption: AnimeCaption, tags: Mapping[str, str] | None = None) -> str | None:
    """Why this is no caption of a clip with these measured tags, as a reason code; None for a caption.

    Codes: empty, too_long, refusal, loop, wrong_clip (two or more fields deny what was measured).
    """
    prose = caption.prose
    if is_refusal(prose):
        return "refusal"
    if is_loop(" ".join([prose, *caption.tags().values()]) if not is_loop(prose) else prose):
        return "loop"
    count = len(words(prose))
    if count < LEAST_WORDS:
        return "empty"
    if count > MOST_WORDS:
        return "too_long"
    return "wrong_clip" if len(contradictions(caption, tags or {})) >= 2 else None


def is_refusal(text: str) -> bool:
    """Whether the text begins as an excuse does."""
    return bool(_REFUSAL.search(text[:_REFUSAL_WITHIN]))


def is_loop(text: str) -> bool:
    """Whether the text goes in circles: many runs of words come again, or its end is one stretch over and over."""
    tokens = words(text)
    if any(_repeats_at_end(tokens, length) >= STUCK_REPEATS for length in range(1, len(tokens) // STUCK_REPEATS + 1)):
        return True
    runs = Counter(tuple(tokens[i : i + LOOP_RUN_WORDS]) for i in range(len(tokens) - LOOP_RUN_WORDS + 1))
    again = sum(count - 1 for count in runs.values())
    return len(tokens) >= LOOP_LEAST_WORDS and again > LOOP_SHARE * runs.total()


def words(text: str) -> list[str]:
    """The words of a text in small letters; each Chinese or Japanese character is one."""
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+", text.lower())


def _repeats_at_end(tokens: list[str], length: int) -> int:
    """How often the last `length` tokens stand at the end in a row."""
    last, count = tokens[-length:], 0
    while tokens[len(tokens) - (count + 1) * length : len(tokens) - count * length] == last:
        count += 1
    return count


def contradictions(caption: AnimeCaption, tags: Mapping[str, str]) -> list[str]:
    """The measured tags that the caption denies, by name: camera, dimension, color.

    A captioner errs in one of them now and then; one that errs in two looked at something else.
    """
    denied = []
    said = {"camera": caption.camera.lower(), "dimension": caption.style.lower(), "color": caption.style.lower()}
    for name, groups in _OPPOSITES.items():
        measured = tags.get(name, "").lower()
        for one, other in (groups, groups[::-1]):
            if one.search(measured) and other.search(said[name]) and not one.search(said[name]):
                denied.append(name)
    return denied


_OPPOSITES = {
    "camera": (
        re.compile(r"\b(static|still|fixed|locked)\b"),
        re.compile(r"\b(pan\w*|tilt\w*|zoom\w*|shak\w*|track\w*|dolly|handheld)\b"),
    ),
    "dimension": (re.compile(r"\b2d\b"), re.compile(r"\b(3d|cgi)\b")),
    "color": (
        re.compile(r"\b(black and white|monochrome|gr[ae]yscale)\b"),
        re.compile(r"\b(colou?rful|saturated|vivid)\b"),
    ),
}
