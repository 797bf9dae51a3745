"""What the text encoder reads: the user's words, and the phrases each model family was trained to find beside them.

AniSora captions end in "aesthetic score: 5.5. motion score: 3.0. There is no text in the video." Users set fields;
this module writes the sentence. A checkpoint that knows the convention says so by its `motion_score_range`; for one
that does not, scores are written only when asked for and the wish for no text moves to the negative prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from anisora.errors import BadRequest
from anisora.records import Request

#: the aesthetic score the public AniSora prompts use
USUAL_AESTHETIC_SCORE = 5.5
NO_TEXT_SENTENCE = "There is no text in the video."
NO_TEXT_NEGATIVE = "text, subtitles, watermark"

#: what each family's caption convention ends in (public scripts: V1 has no sentence about text, V2 and later do)
SENTENCES: dict[str, tuple[str, ...]] = {
    "wan": ("aesthetic", "motion", "no_text"),
    "vace": ("aesthetic", "motion", "no_text"),
    "cogvideox": ("aesthetic", "motion"),
    "cogvideox_mask": ("aesthetic", "motion"),
}

#: Wan's published default, in the language it was trained with; without effect at guidance 1
_WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
NEGATIVE_PROMPTS: dict[str, str] = {"wan": _WAN_NEGATIVE, "vace": _WAN_NEGATIVE, "cogvideox": "", "cogvideox_mask": ""}


@dataclass(frozen=True, kw_only=True)
class PromptText:
    """The two texts the encoder reads, and the scores that stand in them (None: not written)."""

    prompt: str
    negative: str
    aesthetic_score: float | None
    motion_score: float | None


def compose(
    request: Request,
    family: str,
    *,
    motion_score_range: tuple[float, float] | None = None,
    negative_prompt: str | None = None,
) -> PromptText:
    """The texts for one request.

    motion_score_range: what the checkpoint was trained on, None if it knows no scores. negative_prompt: the
    checkpoint's own default, None for the family's. Raises BadRequest if a score is given as a field and in the prompt.
    """
    knows_scores = motion_score_range is not None
    aesthetic = _score(request, "aesthetic", USUAL_AESTHETIC_SCORE if knows_scores else None)
    motion = _score(request, "motion", sum(motion_score_range) / 2 if motion_score_range else None)
    sentences = {
        "aesthetic": f"aesthetic score: {aesthetic}." if aesthetic is not None else "",
        "motion": f"motion score: {motion}." if motion is not None else "",
        "no_text": NO_TEXT_SENTENCE if request.no_text and knows_scores and not _says_no_text(request.prompt) else "",
    }
    wanted = [sentences[name] for name in SENTENCES[family]]
    negative = request.negative_prompt
    if negative is None:
        negative = NEGATIVE_PROMPTS[family] if negative_prompt is None else negative_prompt
        if request.no_text and not knows_scores and negative_prompt is None:
            negative = ", ".join(filter(None, (negative, NO_TEXT_NEGATIVE)))
    return PromptText(
        prompt=" ".join(filter(None, (whole_sentence(request.prompt), *wanted))),
        negative=negative,
        aesthetic_score=aesthetic,
        motion_score=motion,
    )


def _score(request: Request, name: str, usual: float | None) -> float | None:
    """The score to write: the field, else the usual one; None where the prompt already has it."""
    asked = getattr(request, f"{name}_score")
    if f"{name} score:" not in request.prompt.lower():
        return usual if asked is None else asked
    if asked is not None:
        raise BadRequest(
            f"the {name} score is given twice", got=f"in the prompt and as {asked}", expected="one of them"
        )
    return None


def _says_no_text(prompt: str) -> bool:
    return any(phrase in prompt.lower() for phrase in ("no text in the video", "has no subtitles"))


def whole_sentence(text: str) -> str:
    """`text` with one space between words and a full stop, so that a phrase can follow."""
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?。！？…\"'”" else text + "."
