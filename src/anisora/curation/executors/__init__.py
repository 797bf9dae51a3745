"""Where units of work run: one small contract, engines behind it.

An engine takes a unit and says how it ended; it never raises for one, never drops one and never tries one again by
itself. What to do about a unit that failed, died or took too long is decided once, in `drive`, for every engine.

    submit(unit)            hand over one unit; there must be room (`in_flight < capacity`)
    wait() -> Outcome       the next unit that has ended, in whatever order they end
    close()                 end the workers; what they were doing is abandoned
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from anisora.errors import BadConfig

State = Literal["done", "failed", "died", "timed_out"]

#: what a worker may hold before it is ended, in bytes
MEMORY_BYTES = 6 * 2**30


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work, small to send: paths, spans and settings, never pixels.

    `key` names its content (what it reads and how); `task` is "module:function", called in the worker as
    `function(note=..., skip=..., **arguments)`. The function calls `note(part)` before each part of the unit that could
    take the process down, and leaves out the parts in `skip`, which maps a part to the reason code why. `deadline_s` is
    wall time.
    """

    key: str
    task: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float = 600.0
    skip: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a unit ended.

    `value` is what the task returned when it is done. `reason` is a short code otherwise, `message` says more; `part`
    is what the unit noted last, for a worker that died or was stopped. `cpu_s` and `peak_rss_bytes` are the worker's.
    """

    unit: Unit
    state: State
    value: Any = None
    reason: str = ""
    message: str = ""
    part: str = ""
    worker: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0


class Executor(Protocol):
    """What every engine offers. Used as a context, it is closed behind the block."""

    @property
    def capacity(self) -> int:
        """How many units may be in flight."""
        ...

    @property
    def in_flight(self) -> int: ...

    def submit(self, unit: Unit) -> None: ...

    def wait(self) -> Outcome: ...

    def close(self) -> None: ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *problem: object) -> None: ...


def open_executor(
    engine: str,
    *,
    workers: int,
    notes: str,
    memory_bytes: int = MEMORY_BYTES,
    address: str | None = None,
) -> Executor:
    """The engine of that name: `local` or `ray`. `notes` is a folder that driver and workers share.

    Raises BadConfig for another name, MissingExtra where ray is not installed.
    """
    if engine == "local":
        from anisora.curation.executors.local import LocalExecutor

        return LocalExecutor(workers=workers, notes=notes, memory_bytes=memory_bytes)
    if engine == "ray":
        from anisora.curation.executors.ray import RayExecutor

        return RayExecutor(workers=workers, notes=notes, memory_bytes=memory_bytes, address=address)
    raise BadConfig("no engine of that name", got=engine, expected="local or ray")
