"""From clips to captions: asks, joins the answers by id and frame digest, guards them, keeps them, goes on after a kill.

The store is a file of JSON lines, one an answer, kept or not. What stands there is not asked again, unless the captioner,
the question or the guards have changed, or the failure was a passing one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anisora.curation.captions.ask import PROMPT_VERSION, Ask, Captioner, Reply, frame_digest
from anisora.curation.captions.guards import GUARDS_VERSION, is_loop, is_refusal, objection
from anisora.curation.captions.schema import SCHEMA_VERSION, AnimeCaption, parse, parse_prose
from anisora.errors import BadInput, UnusableReply
from anisora.measures.clip import ClipView
from anisora.settings import setting
from anisora.store import append_jsonl, content_hash, read_jsonl

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """What a captioner is shown, and how often it is asked."""

    frames: int = setting(8, "frames of a clip that the captioner sees, spread evenly")
    longest_side_px: int = setting(768, "frames larger than this are made smaller")
    attempts: int = setting(2, "answers that are no caption before a clip is left without one")

    def __post_init__(self) -> None:
        for name in ("frames", "longest_side_px", "attempts"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} of captions", got=getattr(self, name), expected="1 or more")


def caption_clips(
    rows: Iterable[Mapping[str, Any]],
    clips: Mapping[str, ClipView] | Callable[[str], ClipView],
    captioner: Captioner,
    store: str | Path,
    settings: CaptionSettings | None = None,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """The rows, in their order, each with `caption`, `caption_backend`, `caption_reason` and `tags`.

    A row has `clip_id`, may have `tags` (measured ones, text by name) and crop_*_px; `clips` gives the view of a clip_id.
    `caption` is None exactly when `caption_reason` says why. Fields of the caption go into `tags` as `caption_action`
    and so on; `caption_kind` there is "seen" or "measured", `caption_frames` the digest of what was looked at.
    Answers are appended to `store` as they come. Raises BadInput for two rows of one clip, and what the captioner raises
    when it cannot work at all (a wrong address, no weights); a clip that fails only fails itself.
    """
    settings = settings or CaptionSettings()
    own = [dict(row) for row in rows]
    by_id = {row["clip_id"]: row for row in own}
    if len(by_id) < len(own):
        raise BadInput("two rows of one clip", got=len(own) - len(by_id), expected="clip_id to be unique")
    book = _Book(Path(store), captioner, settings, by_id)
    for attempt in range(settings.attempts):
        waiting = [row for row in own if book.wants(row["clip_id"], attempt)]
        if not waiting:
            continue
        for reply in captioner.caption(_asks(waiting, clips, settings, attempt, book)):
            book.take(reply)
            progress(book.num_done, len(own))
        book.close_round()
    progress(len(own), len(own))
    return [book.row(row) for row in own]


def _asks(
    rows: list[dict[str, Any]],
    clips: Mapping[str, ClipView] | Callable[[str], ClipView],
    settings: CaptionSettings,
    attempt: int,
    book: _Book,
) -> Iterator[Ask]:
    """The asks, made when they are drawn; a clip whose frames cannot be read is written down and passed over."""
    for row in rows:
        clip_id = row["clip_id"]
        try:
            ask = make_ask(
                clip_id, clips(clip_id) if callable(clips) else clips[clip_id], settings, row.get("tags"), attempt
            )
        except (BadInput, KeyError) as reason:
            book.fail(clip_id, "unreadable", str(reason))
            continue
        book.expect(ask)
        yield ask


def make_ask(
    clip_id: str, clip: ClipView, settings: CaptionSettings, tags: Mapping[str, str] | None = None, attempt: int = 0
) -> Ask:
    """The ask for one clip: its frames spread evenly and made small, with their times. Raises BadInput."""
    import cv2
    import numpy as np

    indices = clip.spread(settings.frames)
    frames = clip.frames_at(indices)
    scale = settings.longest_side_px / max(frames.shape[1:3])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in (frames.shape[2], frames.shape[1]))
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    return Ask(
        clip_id=clip_id,
        frame_digest=frame_digest(frames),
        frames_THWC=frames,
        times_s=tuple(float((index - clip.span.start_frame) / clip.fps) for index in indices),
        tags={key: str(value) for key, value in dict(tags or {}).items() if value is not None},
        attempt=attempt,
    )


class _Book:
    """What is known of each clip: kept answers, turned-away ones, and which asks are under way."""

    def __init__(
        self, path: Path, captioner: Captioner, settings: CaptionSettings, rows: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.path, self.captioner = path, captioner
        self.key = content_hash(
            {"captioner": dict(captioner.key), "frames": settings.frames, "longest_side_px": settings.longest_side_px}
            | {"prompt": PROMPT_VERSION, "guards": GUARDS_VERSION, "schema": SCHEMA_VERSION}
        )
        self.crops = {clip_id: _crop(row) for clip_id, row in rows.items()}
        self.kept: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, Any]] = {}
        self.attempts: dict[str, int] = {}
        self.under_way: dict[str, Ask] = {}
        self.lock = threading.Lock()
        self.seen_prose: dict[str, str] = {}
        for record in read_jsonl(path) if path.exists() else []:
            if record["key"] == self.key and self.crops.get(record["clip_id"], "") == record["crop"]:
                self._remember(record)

    @property
    def num_done(self) -> int:
        return len(self.kept)

    def wants(self, clip_id: str, attempt: int) -> bool:
        """Whether a clip is still to be asked about: no caption, and no more answers turned away than `attempt`."""
        return clip_id not in self.kept and self.attempts.get(clip_id, 0) <= attempt and not self._is_final(clip_id)

    def _is_final(self, clip_id: str) -> bool:
        return self.failed.get(clip_id, {}).get("reason") == "unreadable"

    def expect(self, ask: Ask) -> None:
        """An ask goes out. Its frames are not kept."""
        with self.lock:
            self.under_way[ask.clip_id] = Ask(
                clip_id=ask.clip_id, frame_digest=ask.frame_digest, frames_THWC=ask.frames_THWC[:0], tags=ask.tags
            )

    def take(self, reply: Reply) -> None:
        """Joins an answer to its clip by id and digest; one that nobody waits for is logged and dropped."""
        with self.lock:
            ask = self.under_way.pop(reply.clip_id, None)
        if ask is None:
            _log.warning("an answer for a clip that was not asked about, or a second one: %s", reply.clip_id)
            return
        if reply.frame_digest != ask.frame_digest:
            self.fail(reply.clip_id, "wrong_clip", "the answer is about other frames", digest=ask.frame_digest)
            return
        if reply.reason is not None or reply.text is None:
            reason = reply.reason or "no_answer"
            self.fail(reply.clip_id, reason, reply.detail, is_transient=reply.is_transient, digest=ask.frame_digest)
            return
        try:
            self._keep(ask, self._read(ask, reply.text))
        except UnusableReply as problem:
            self.fail(reply.clip_id, problem.reason, reply.text[:200], digest=ask.frame_digest)

    def _read(self, ask: Ask, text: str) -> AnimeCaption:
        """The caption in an answer. Raises UnusableReply with the reason code."""
        if self.captioner.answers == "prose":
            caption, code = parse_prose(text), None
        else:
            caption, code = self._parsed(text)
        if code is not None and code.strip().lower() != ask.code:
            raise UnusableReply("wrong_clip", text)
        if reason := objection(caption, ask.tags):
            raise UnusableReply(reason, text)
        if self.captioner.backend != "bundled":
            other = self.seen_prose.setdefault(caption.prose.casefold(), ask.frame_digest)
            if other != ask.frame_digest:  # one text for two clips: a stuck model or a cache that mixes them up
                raise UnusableReply("repeated", text)
        return caption

    def _parsed(self, text: str) -> tuple[AnimeCaption, str | None]:
        try:
            return parse(text)
        except UnusableReply as problem:
            # A refusal is no JSON, and a loop never closes it: say what it is rather than what it lacks.
            better = "refusal" if is_refusal(text) else "loop" if is_loop(text) else None
            raise UnusableReply(better, text) if better else problem from problem

    def _keep(self, ask: Ask, caption: AnimeCaption) -> None:
        self._write({"clip_id": ask.clip_id, "frame_digest": ask.frame_digest, "caption": asdict(caption)})

    def fail(
        self, clip_id: str, reason: str, detail: str, *, is_transient: bool = False, digest: str | None = None
    ) -> None:
        """Writes down why a clip has no caption."""
        record = {"clip_id": clip_id, "frame_digest": digest, "reason": reason, "detail": detail}
        self._write(record | {"transient": is_transient})

    def close_round(self) -> None:
        """What was asked and never answered."""
        for clip_id, ask in list(self.under_way.items()):
            self.fail(clip_id, "no_answer", "", is_transient=True, digest=ask.frame_digest)
        self.under_way.clear()

    def _write(self, record: dict[str, Any]) -> None:
        record = {"key": self.key, "crop": self.crops[record["clip_id"]]} | record
        append_jsonl(self.path, record)
        self._remember(record)

    def _remember(self, record: dict[str, Any]) -> None:
        clip_id = record["clip_id"]
        if "caption" in record:
            self.kept[clip_id] = record
            self.failed.pop(clip_id, None)
            self.seen_prose.setdefault(record["caption"]["prose"].casefold(), record["frame_digest"])
        else:
            self.failed[clip_id] = record
            self.attempts[clip_id] = self.attempts.get(clip_id, 0) + (not record["transient"])

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with its caption, or with the reason for having none."""
        clip_id, tags = row["clip_id"], dict(row.get("tags") or {})
        backend = self.captioner.backend
        if (record := self.kept.get(clip_id)) is None:
            reason = self.failed.get(clip_id, {"reason": "not_asked"})["reason"]
            return row | {"caption": None, "caption_backend": backend, "caption_reason": reason, "tags": tags}
        stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["caption"].items()}
        caption = AnimeCaption(**stored)
        tags |= {f"caption_{name}": text for name, text in caption.tags().items()}
        tags |= {
            "caption_kind": "measured" if backend == "bundled" else "seen",
            "caption_frames": record["frame_digest"],
        }
        return row | {"caption": caption.prose, "caption_backend": backend, "caption_reason": None, "tags": tags}


def _crop(row: Mapping[str, Any]) -> str:
    """The crop of a row as text: another crop shows another picture."""
    return ",".join(str(row.get(f"crop_{name}_px")) for name in ("x", "y", "w", "h"))
