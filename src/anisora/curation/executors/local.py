"""The default engine: supervised processes on this machine.

Each worker is a fresh interpreter (never a fork, which would copy locks and threads) on the end of a pipe. It holds one
unit at a time; the supervisor sees it answer, die or pass its deadline, and puts a new one in its place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from anisora.curation.executors import MEMORY_BYTES, Outcome, Unit
from anisora.curation.executors.worker import read_note
from anisora.errors import Failed

#: decoders leak: a worker is replaced after so many units
UNITS_PER_WORKER = 200
#: so many workers that end before their first word mean that none ever will start
_FALSE_STARTS = 3


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen
    pipe: Connection
    lifeline: int
    note: Path
    name: str
    is_ready: bool = False
    num_units: int = 0
    unit: Unit | None = None
    since: float = field(default_factory=time.monotonic)


class LocalExecutor:
    """`workers` processes, started when they are first needed; see the contract in `anisora.curation.executors`."""

    def __init__(
        self,
        *,
        workers: int,
        notes: str | os.PathLike[str],
        memory_bytes: int = MEMORY_BYTES,
        units_per_worker: int = UNITS_PER_WORKER,
    ) -> None:
        self.capacity = workers
        self._notes = Path(notes)
        self._notes.mkdir(parents=True, exist_ok=True)
        self._memory_bytes = memory_bytes
        self._units_per_worker = units_per_worker
        self._busy: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._false_starts = 0

    @property
    def in_flight(self) -> int:
        return len(self._busy)

    def submit(self, unit: Unit) -> None:
        if self.in_flight >= self.capacity:
            raise RuntimeError("no room: wait() first")
        worker = self._idle.pop() if self._idle else self._start()
        try:
            worker.pipe.send(unit)
        except OSError:  # it died while it was idle: nobody's fault
            self._end(worker)
            worker = self._start()
            worker.pipe.send(unit)
        worker.unit, worker.since = unit, time.monotonic()
        self._busy.append(worker)

    def wait(self) -> Outcome:
        if not self._busy:
            raise RuntimeError("nothing is in flight")
        while True:
            by_pipe = {worker.pipe: worker for worker in self._busy}
            for pipe in wait_for(list(by_pipe), timeout=self._patience_s()):
                outcome = self._heard(by_pipe[pipe])  # type: ignore[index]
                if outcome is not None:
                    return outcome
            for worker in self._busy:
                if worker.is_ready and _left_s(worker) <= 0:
                    return self._stopped(worker)

    def close(self) -> None:
        for worker in [*self._busy, *self._idle]:
            self._end(worker)
        self._busy, self._idle = [], []

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def process_ids(self) -> list[int]:
        """The processes of the busy workers, in the order in which they took their units."""
        return [worker.process.pid for worker in self._busy]

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        lifeline_read, lifeline_write = os.pipe()
        name = f"{os.getpid()}-{secrets.token_hex(3)}"
        note = self._notes / name
        code = (
            "import sys; from anisora.curation.executors.worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno()), str(lifeline_read)],
            pass_fds=(theirs.fileno(), lifeline_read),
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        os.close(lifeline_read)
        pipe = Connection(ours.detach())
        with contextlib.suppress(OSError):  # dead already: wait() will see it
            pipe.send((sys.path, str(note), self._memory_bytes, name))
        return _Worker(process=process, pipe=pipe, lifeline=lifeline_write, note=note, name=name)

    def _patience_s(self) -> float:
        return max(0.0, min((_left_s(worker) for worker in self._busy if worker.is_ready), default=1.0))

    def _heard(self, worker: _Worker) -> Outcome | None:
        """What a worker's message means; None when it only reported for work, or is to be replaced."""
        try:
            said: Any = worker.pipe.recv()
        except (EOFError, OSError):
            return self._died(worker)
        if said == "ready":
            worker.is_ready, worker.since, self._false_starts = True, time.monotonic(), 0
            return None
        self._busy.remove(worker)
        worker.unit = None
        worker.num_units += 1
        if worker.num_units >= self._units_per_worker:
            self._end(worker)
        else:
            self._idle.append(worker)
        return said

    def _died(self, worker: _Worker) -> Outcome | None:
        if not worker.is_ready:
            self._false_start(worker)
            return None
        self._busy.remove(worker)
        unit, seconds = worker.unit, time.monotonic() - worker.since
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(5)
        part, was_memory = read_note(worker.note)
        code = worker.process.returncode
        self._end(worker)
        assert unit is not None
        return Outcome(
            unit=unit,
            state="died",
            reason="memory" if was_memory else "crashed",
            message=f"over {self._memory_bytes / 2**30:.2g} GiB" if was_memory else _how(code),
            part=part,
            worker=worker.name,
            seconds=seconds,
        )

    def _false_start(self, worker: _Worker) -> None:
        """Puts a fresh worker in the place of one that ended before its first word. Raises Failed when it never ends."""
        self._false_starts += 1
        unit = worker.unit
        self._busy.remove(worker)
        self._end(worker)
        if self._false_starts >= _FALSE_STARTS:
            raise Failed("worker processes do not start", got=_how(worker.process.returncode), hint="fewer --workers")
        assert unit is not None
        self.submit(unit)

    def _stopped(self, worker: _Worker) -> Outcome:
        self._busy.remove(worker)
        part, _ = read_note(worker.note)
        unit, seconds = worker.unit, time.monotonic() - worker.since
        self._end(worker)
        assert unit is not None
        return Outcome(
            unit=unit,
            state="timed_out",
            reason="timed_out",
            message=f"over {unit.deadline_s:g} s",
            part=part,
            worker=worker.name,
            seconds=seconds,
        )

    def _end(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError):
            worker.process.kill()
        worker.process.wait()
        worker.pipe.close()
        os.close(worker.lifeline)
        with contextlib.suppress(OSError):
            worker.note.unlink()


def _left_s(worker: _Worker) -> float:
    assert worker.unit is not None
    return worker.since + worker.unit.deadline_s - time.monotonic()


def _how(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "no longer answers"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
