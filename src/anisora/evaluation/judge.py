"""A judge behind an endpoint, backend `service`: a model that sees is shown a clip's frames and asked for ratings.

One question asks for all the dimensions of a card; the answer must be JSON with a number in range for each, else there is no
score. A judge is as good as its model: without ratings to hold it against (`anisora evaluate report --votes`) its scores are
opinions. Every clip costs a request of `look.num_frames` pictures; `max_requests` bounds a run.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from anisora import settings as plain_settings
from anisora.curation.captions.schema import first_object
from anisora.curation.endpoint import Answer, Endpoint, EndpointSettings, data_url
from anisora.errors import BadConfig, UnusableReply
from anisora.evaluation.look import Case
from anisora.evaluation.metrics import Measured
from anisora.evaluation.network_scorer import case_of, measured
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import Card, Output, read_card
from anisora.measures.footage import Footage
from anisora.records import Backend
from anisora.settings import setting
from anisora.store import content_hash

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(EndpointSettings):
    """Where the endpoint is, how it is asked, and how much may be asked."""

    attempts: int = setting(2, "questions about one clip, while answers cannot be used")
    max_requests: int | None = setting(None, "questions in one run; clips beyond are left for the next")
    temperature: float = setting(0.0, "0 gives the same answer again")
    max_tokens: int = setting(256, "the longest answer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attempts < 1 or (self.max_requests is not None and self.max_requests < 1):
            raise BadConfig("attempts or max_requests of the endpoint", got=self, expected="1 or more")


class Judge:
    """A scorer whose jobs wait for an endpoint."""

    backend: Backend = "service"

    def __init__(self, place: str | os.PathLike[str]) -> None:
        """Reads a card of layout `endpoint`. Raises BadCheckpoint, BadConfig."""
        self.card, _ = read_card(place)
        self.settings = plain_settings.read(JudgeSettings, self.card.endpoint, where="endpoint")
        for output in self.card.outputs:
            if output.low is None or output.high is None:
                raise BadConfig("a rating without a range", got=output.dimension, expected="low and high")
        self.in_flight = self.settings.in_flight
        self.spent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._endpoint = Endpoint(self.settings)

    @property
    def run_id(self) -> str:
        """The hash of what an answer depends on: not where the server is, nor how often it may be asked."""
        names = ("model", "is_structured", "max_tokens", "temperature", "jpeg_quality", "attempts")
        card = {k: v for k, v in plain_settings.plain(self.card).items() if k not in ("endpoint", "trained")}
        return content_hash({"v": VERSION, "card": card} | {name: getattr(self.settings, name) for name in names})[:12]

    @property
    def outputs(self) -> tuple[Output, ...]:
        return self.card.outputs

    def prepare(self, sample: Sample, footage: Footage) -> Callable[[], dict[str, Measured]]:
        """A job that asks about a clip. Raises BadVideo, BadImage."""
        if self.card.needs_prompt and not sample.prompt:
            return lambda: self._without("no_prompt", {})
        case = case_of(self.card, sample, footage)
        frames, words = case.asked(question(self.card))
        urls = [data_url(frame, self.settings.jpeg_quality) for frame in frames]
        code = content_hash({"sample": sample.id, "run": self.run_id})[:8]
        return lambda: self._judged(case, urls, words, code)

    def _judged(self, case: Case, urls: list[str], words: str, code: str) -> dict[str, Measured]:
        params: dict[str, Any] = {"model": self.settings.model, "frames": len(case.frames)}
        if self.card.has_reference:
            params["reference"] = "first_frame" if case.image is None else "image"
        schema = {"name": "ratings", "strict": True, "schema": json_schema(self.card)}
        for attempt in range(self.settings.attempts):
            if not self._may_ask():
                return self._without("no_answer", params, "max_requests is reached")
            said = self._endpoint.ask(urls, words, code=code, schema=schema, attempt=attempt)
            self._note(said)
            if said.text is None and said.is_transient:
                return self._without("no_answer", params, f"{said.reason}: {said.detail}")
            try:
                ratings, why = parse(self.card, said)
            except UnusableReply as problem:
                reason, detail = problem.reason, str(problem)
                continue
            cost = {"attempts": attempt + 1} | dict(said.usage)
            return {
                output.metric: measured(
                    output, ratings[output.metric], self.card.unit, None, params, details=cost | why
                )
                for output in self.outputs
            }
        return self._without(reason, params, detail)

    def _without(self, reason: str, params: Mapping[str, Any], detail: str = "") -> dict[str, Measured]:
        details = {"problem": detail} if detail else {}
        said = Measured(unit=self.card.unit, reason=reason, params=params, details=details)
        return {output.metric: said for output in self.outputs}

    def _may_ask(self) -> bool:
        """Whether a question may still be asked in this run; counts it."""
        with self._lock:
            if self.settings.max_requests is not None and self.spent["questions"] >= self.settings.max_requests:
                return False
            self.spent["questions"] += 1
            return True

    def _note(self, said: Answer) -> None:
        with self._lock:
            self.spent.update(said.usage)


def question(card: Card) -> str:
    """The card's question, and what the answer must be."""
    keys = "; ".join(f'"{_key(o)}" (a number from {o.low:g}, the worst, to {o.high:g})' for o in card.outputs)
    return (
        f"{card.question.strip()} Answer with one JSON object and nothing else. Its keys: {keys};"
        ' "why" (one sentence on what decided it).'
    )


def json_schema(card: Card) -> dict[str, Any]:
    """The answer as JSON schema; endpoints that can are held to it."""
    ranges = {o: sorted((o.low or 0.0, o.high or 0.0)) for o in card.outputs}
    numbers = {_key(o): {"type": "number", "minimum": low, "maximum": high} for o, (low, high) in ranges.items()}
    names = [*numbers, "why"]
    return {
        "type": "object", "properties": numbers | {"why": {"type": "string"}}, "required": names,
        "additionalProperties": False,
    }  # fmt: skip


def _key(output: Output) -> str:
    return output.metric.removeprefix("anime.")


def parse(card: Card, said: Answer) -> tuple[dict[str, float], dict[str, str]]:
    """(metric -> rating, {"why": its words}) of an answer. Raises UnusableReply with the reason: the server's, or truncated,
    not_json, not_schema, out_of_range."""
    if said.text is None:
        raise UnusableReply(said.reason or "empty", said.detail)
    found, ratings = first_object(said.text), {}
    for output in card.outputs:
        value = found.get(_key(output))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UnusableReply("not_schema", said.text)
        low, high = sorted((output.low or 0.0, output.high or 0.0))
        if not low <= value <= high:
            raise UnusableReply("out_of_range", said.text)
        ratings[output.metric] = float(value)
    why = found.get("why")
    return ratings, {"why": why[:500]} if isinstance(why, str) and why else {}
