"""A captioner behind an endpoint: several questions are in flight, answers come in whatever order they like.

How an endpoint is asked, and what is tried again, is `curation.endpoint`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

from anisora.curation import endpoint
from anisora.curation.captions.ask import PROSE_QUESTION, Ask, Reply, question
from anisora.curation.captions.schema import JSON_SCHEMA
from anisora.records import Backend
from anisora.settings import setting


@dataclass(frozen=True, kw_only=True)
class EndpointSettings(endpoint.EndpointSettings):
    """Where an endpoint is, how it is asked, and for what."""

    answers: Literal["json", "prose"] = setting("json", "ask for fields and prose, or for prose alone")


class EndpointCaptioner:
    """Asks an endpoint. Use as a context manager, or `close` it."""

    backend: Backend = "service"

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self.answers = settings.answers
        self._endpoint = endpoint.Endpoint(settings)

    def __enter__(self) -> EndpointCaptioner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._endpoint.close()

    @property
    def key(self) -> Mapping[str, Any]:
        """What an answer depends on; not where the server is, nor how often it is asked."""
        names = ("model", "answers", "is_structured", "max_tokens", "temperature", "jpeg_quality")
        return {"name": "endpoint", "version": 1} | {name: getattr(self.settings, name) for name in names}

    def caption(self, asks: Iterable[Ask]) -> Iterator[Reply]:
        """One reply an ask, as they arrive. Raises BadConfig for an endpoint that would refuse every clip."""
        under_way: set[Future[Reply]] = set()
        pool = ThreadPoolExecutor(self.settings.in_flight, thread_name_prefix="caption")
        try:
            for ask in asks:
                under_way.add(pool.submit(self._answer, ask))
                if len(under_way) >= self.settings.in_flight:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, ask: Ask) -> Reply:
        """The frames, then the question; until there is an answer, a final no, or no try left."""
        pictures = [endpoint.data_url(frame, self.settings.jpeg_quality) for frame in ask.frames_THWC]
        is_json = self.answers == "json"
        words = question(ask) if is_json else PROSE_QUESTION
        schema = {"name": "caption", "strict": True, "schema": JSON_SCHEMA} if is_json else None
        said = self._endpoint.ask(pictures, words, code=ask.code, schema=schema, attempt=ask.attempt)
        return Reply(
            clip_id=ask.clip_id, frame_digest=ask.frame_digest, text=said.text, reason=said.reason, detail=said.detail,
            is_transient=said.is_transient,
        )  # fmt: skip
