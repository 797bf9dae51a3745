"""Many units through one engine: bounded in flight, tried again where that may help, and never for ever.

A unit that fails with an exception has failed: the same code on the same bytes will fail again. One that took its
worker down, or hung, gets a second try; a part of it that does so again is left out from then on, with the reason in
its column; and a unit that dies in no part of its own is quarantined. Attempts are written down before the work starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from anisora.curation.executors import Executor, Outcome, Unit
from anisora.curation.executors.worker import is_disk_full
from anisora.curation.ledger import Ledger
from anisora.errors import WriteFailed

#: tries of one part of one unit that ends its worker
MAX_ATTEMPTS = 2
#: lost machines are not the unit's fault, but not for ever
_MAX_LOST = 10


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A unit that is over: `done` (perhaps without the parts in `unit.skip`), `failed` or `quarantined`."""

    unit: Unit
    state: str
    outcome: Outcome


def drive(
    executor: Executor,
    units: Iterable[Unit],
    ledger: Ledger,
    *,
    stage: str,
    max_attempts: int = MAX_ATTEMPTS,
    on_start: Callable[[Unit], None] | None = None,
) -> Iterator[Settled]:
    """How each unit ended, in the order in which they end. Units are drawn from the iterable only when there is room.

    Raises WriteFailed when the disk is full: units that were under way end first, and none of theirs is lost.
    """
    waiting = iter(units)
    again: deque[Unit] = deque()
    lost: dict[str, int] = {}
    is_full: Outcome | None = None

    def fill() -> None:
        while executor.in_flight < executor.capacity and is_full is None:
            unit = again.popleft() if again else next(waiting, None)
            if unit is None:
                return
            ledger.begin(unit.key, stage)
            if on_start:
                on_start(unit)
            executor.submit(unit)

    fill()
    while executor.in_flight:
        outcome = executor.wait()
        unit = outcome.unit
        if is_disk_full(outcome):
            ledger.release(unit.key)
            is_full = outcome
            continue
        if outcome.state == "done":
            ledger.finish(unit.key, "done", outcome)
            yield Settled(unit=unit, state="done", outcome=outcome)
        elif outcome.state == "failed":
            ledger.finish(unit.key, "failed", outcome)
            yield Settled(unit=unit, state="failed", outcome=outcome)
        elif outcome.reason == "node_lost" and lost.get(unit.key, 0) < _MAX_LOST:
            lost[unit.key] = lost.get(unit.key, 0) + 1
            ledger.release(unit.key)
            again.append(unit)
        elif ledger.charge(unit.key, outcome) < max_attempts:
            again.append(unit)
        elif outcome.part and outcome.part not in unit.skip:
            again.append(replace(unit, skip={**unit.skip, outcome.part: outcome.reason}))
        else:
            ledger.finish(unit.key, "quarantined", outcome)
            yield Settled(unit=unit, state="quarantined", outcome=outcome)
        fill()
    if is_full is not None:
        raise WriteFailed(
            "the disk is full; what is finished is kept",
            got=is_full.message,
            hint="freeing space and running the same command again",
        )
