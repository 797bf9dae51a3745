"""Scorers that the user names, beside the metrics that come with the package: their backends are `full` and `service`.

A scorer is a folder with a card, or a card alone. It is asked for a job on a clip; jobs of a network are done at once, those
of an endpoint wait for its answer while the next clips are read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

from anisora.errors import AnisoraError, BadInput, BadRequest, WriteFailed
from anisora.evaluation.characters import GALLERY
from anisora.evaluation.metrics import Measured
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import Output, is_linear, read_card
from anisora.measures.footage import Footage
from anisora.records import Backend

Job = Callable[[], dict[str, Measured]]


class Scorer(Protocol):
    """What scores one or more dimensions of a clip."""

    backend: Backend
    in_flight: int
    """How many of its jobs may wait at once; 0 for one whose jobs are work."""

    @property
    def run_id(self) -> str:
        """The hash of everything but the clips that its scores depend on."""
        ...

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What it scores."""
        ...

    def prepare(self, sample: Sample, footage: Footage) -> Job:
        """A job that says metric -> what was measured."""
        ...


def open_scorers(places: Sequence[str | os.PathLike[str]], device: str | None = None) -> list[Scorer]:
    """The scorers of folders and cards, and of galleries of characters. Raises BadCheckpoint; BadRequest for linear heads,
    which read scores and not clips, and for two scorers of one dimension and backend, whose scores could not be told apart.
    """
    opened: list[Scorer] = []
    for place in places:
        if (Path(place) / GALLERY).exists():
            opened.append(_gallery(place, device))
            continue
        if is_linear(place):
            raise BadRequest(
                "a head on what the metrics measured sees no clips",
                got=place,
                hint="anisora evaluate apply-scorer SCORER DIR, when the clips have been scored",
            )
        opened.append(_open(place, device))
    named = [(scorer.backend, output.metric) for scorer in opened for output in scorer.outputs]
    if twice := sorted({entry for entry in named if named.count(entry) > 1}):
        raise BadRequest("two scorers of one dimension", got=", ".join(f"{m} ({b})" for b, m in twice), expected="one")
    return opened


def _gallery(place: str | os.PathLike[str], device: str | None) -> Scorer:
    from anisora.evaluation.character import CharacterScorer

    return CharacterScorer(place, device)


def _open(place: str | os.PathLike[str], device: str | None) -> Scorer:
    if read_card(place)[0].layout == "endpoint":
        from anisora.evaluation.judge import Judge

        return Judge(place)
    from anisora.evaluation.network_scorer import NetworkScorer

    return NetworkScorer(place, device)


#: metric -> (what was measured, seconds it took)
Said = dict[str, tuple[Measured, float]]


class Waiting:
    """The jobs that wait for answers, of all scorers; use as a context manager."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.limit = max((scorer.in_flight for scorer in scorers), default=0)
        self._pool = ThreadPoolExecutor(max(1, self.limit), thread_name_prefix="scorer")
        self._under_way: dict[Future[Said], Any] = {}

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, key: Any, scorer: Scorer, sample: Sample, footage: Footage) -> Iterator[tuple[Any, Said]]:
        """Starts a job, and yields (key, what was said) of those that are done; waits while too many are under way."""
        try:
            job = scorer.prepare(sample, footage)
        except WriteFailed:
            raise
        except BadInput as problem:
            yield key, _unreadable(scorer, problem)
            return
        if not scorer.in_flight:
            yield key, _timed(job)
            return
        self._under_way[self._pool.submit(_timed, job)] = key
        while len(self._under_way) >= self.limit:
            yield from self._done()

    def rest(self) -> Iterator[tuple[Any, Said]]:
        """What is still to come, as it comes."""
        while self._under_way:
            yield from self._done()

    def _done(self) -> Iterator[tuple[Any, Said]]:
        for future in wait(self._under_way, return_when=FIRST_COMPLETED).done:
            yield self._under_way.pop(future), future.result()


def _timed(job: Job) -> Said:
    started = time.thread_time()
    said = job()
    spent = round((time.thread_time() - started) / max(1, len(said)), 3)
    return {metric: (measured, spent) for metric, measured in said.items()}


def _unreadable(scorer: Scorer, problem: AnisoraError) -> Said:
    said = Measured(unit="", reason="unreadable_input", details={"problem": str(problem)})
    return {output.metric: (said, 0.0) for output in scorer.outputs}
