"""Captions: what a clip shows, in fields and in prose, by a model that looks at frames or by what was measured of it.

`schema` says what a caption is, `guards` what is none, `ask` what a captioner is shown and answers; `measured`, `vlm` and
`endpoint` are the captioners, `run` joins their answers to clips and goes on where it was interrupted.
"""

from anisora.curation.captions.ask import Ask, Captioner, Reply
from anisora.curation.captions.run import CaptionSettings, caption_clips
from anisora.curation.captions.schema import AnimeCaption

__all__ = ["AnimeCaption", "Ask", "CaptionSettings", "Captioner", "Reply", "caption_clips"]
