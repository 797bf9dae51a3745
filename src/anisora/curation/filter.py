"""The paper's second pass: a vision-language model, fine-tuned on clips that people kept and dropped, as a filter.

`training.captioner` with `task: filter` makes the adapter. The score is the probability of "keep" against "drop" as the
answer, so a threshold can move without running the model again. The trainable head of `curation.heads` is what does this
without a large model.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from anisora.curation.captions.run import CaptionSettings, make_ask
from anisora.errors import BadInput
from anisora.measures.clip import ClipView
from anisora.records import Score
from anisora.store import weights_hash

if TYPE_CHECKING:
    from anisora.curation.captions.vlm import VlmSettings

ANSWERS = ("keep", "drop")
QUESTION = (
    "These are frames of one animated clip. Is it of high quality: professionally produced, cleanly drawn, without"
    " overlaid text or artefacts? Answer with one word, keep or drop."
)


class VlmFilter:
    """Scores clips with a local model and its adapter."""

    def __init__(self, model: VlmSettings, clip: CaptionSettings | None = None) -> None:
        from anisora.curation.captions.vlm import load

        self.clip = clip or CaptionSettings()
        self.vlm: Any = load(model)

    @cached_property
    def weights_sha256(self) -> str:
        """The hash of the model's and the adapter's weight files."""
        return weights_hash(self.vlm.folder, self.vlm.adapter)

    def score(self, clip: ClipView) -> Score:
        """`quality_filter`: the probability of keep, in [0, 1]; no value for a clip that cannot be read."""
        about: dict[str, Any] = {"name": "quality_filter", "version": 1, "unit": "probability", "backend": "full"}
        try:
            ask = make_ask("", clip, self.clip)
        except BadInput:
            return Score(**about, raw=None, reason="unreadable", weights_sha256=self.weights_sha256)
        keep, _ = self.vlm.choose(ask.frames_THWC, QUESTION, ANSWERS)
        return Score(**about, raw=float(keep), weights_sha256=self.weights_sha256)
