"""The engine for clusters: one Ray Core actor a worker, nothing of Ray's own retrying.

Ray places the processes and carries the messages. Failures are ours to judge: actors are never restarted and calls never
repeated by Ray, whose own retries know nothing of units that kill every worker they meet.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anisora.curation.executors import MEMORY_BYTES, Outcome, Unit
from anisora.curation.executors.worker import Note, one_thread, perform, read_note, watch_memory
from anisora.errors import Failed, MissingExtra

#: how long every actor may wait for a free core before the cluster counts as too small
_START_S = 180.0
#: within this time Ray knows what became of an actor that no longer answers
_KNOWN_S = 45.0
#: an actor that has waited so long for a core is late: where another one has nothing to do, that one takes its unit
_LATE_S = 20.0
#: so many actors in a row that end before their first word mean that none ever will start
_FALSE_STARTS = 8
#: longest pause after one of them: Ray goes on placing actors on a lost node until it has noticed, some half a minute
_PAUSE_S = 15.0
#: how often a wait looks up from its references
_LOOK_S = 10.0


class _Actor:
    """What lives on the cluster: a note, a memory limit, and one unit at a time."""

    def __init__(self, note_path: str, memory_bytes: int, name: str) -> None:
        one_thread()
        self._note, self._name = Note(note_path), name
        watch_memory(self._note, memory_bytes)

    def is_ready(self) -> bool:
        return True

    def run(self, unit: Unit) -> Outcome:
        return perform(unit, self._note, self._name)

    def process_id(self) -> int:
        return os.getpid()


@dataclass(eq=False)
class _Worker:
    """An actor and its unit. `placed` is its first word, None once it has come: only then does the deadline run.

    `is_false_start`: it ended before its first word, so that its unit never ran.
    """

    actor: Any
    note: Path
    name: str
    placed: Any
    is_false_start: bool = False
    unit: Unit | None = None
    since: float = field(default_factory=time.monotonic)


class RayExecutor:
    """`workers` actors on the cluster at `address`, or on a Ray started here and ended by `close`.

    See the contract in `anisora.curation.executors`. Every node needs the package and the folders of sources and
    results under the same paths. A unit waits with its actor until there is a core for it: where nodes are lost, the
    others go on. Raises MissingExtra without ray, Failed when no actor at all can be placed.
    """

    def __init__(
        self,
        *,
        workers: int,
        notes: str | os.PathLike[str],
        memory_bytes: int = MEMORY_BYTES,
        address: str | None = None,
        units_per_worker: int = 200,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("the engine `ray` is not installed", hint="pip install 'anisora[ray]'") from None
        self.capacity = workers
        self._ray = ray
        self._notes = Path(notes).absolute()
        self._notes.mkdir(parents=True, exist_ok=True)
        self._memory_bytes = memory_bytes
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            self._connect(address or os.environ.get("RAY_ADDRESS"), workers)
        self._actor_class: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._busy: dict[Any, _Worker] = {}
        self._idle: list[_Worker] = []
        self._false_starts = 0

    def _connect(self, address: str | None, workers: int) -> None:
        """Joins the cluster at `address`, or starts one of this machine alone."""
        # Nodes that share this checkout find the package as the driver does; elsewhere the entry is simply not there.
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        options: dict[str, Any] = {
            "runtime_env": {"env_vars": {"PYTHONPATH": paths}},
            "log_to_driver": False,
            "logging_level": "error",
        }
        if address is None:
            options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        try:
            self._ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as reason:
            if isinstance(reason.__cause__ or reason.__context__, self._ray.exceptions.AuthenticationError) or (
                "InvalidAuthToken" in f"{reason} {reason.__cause__} {reason.__context__}"
            ):
                raise Failed(
                    "the Ray cluster there wants a token",
                    got=f"{address}, without one",
                    hint="RAY_AUTH_MODE=token in the environment, and the cluster's token in ~/.ray/auth_token",
                ) from reason
            raise Failed("no Ray cluster there", got=f"{address}: {reason}", hint="ray start --head") from reason

    @property
    def in_flight(self) -> int:
        return len(self._busy)

    def submit(self, unit: Unit) -> None:
        if self.in_flight >= self.capacity:
            raise RuntimeError("no room: wait() first")
        worker = self._idle.pop() if self._idle else self._start()
        worker.unit, worker.since = unit, time.monotonic()
        self._busy[worker.actor.run.remote(unit)] = worker

    def wait(self) -> Outcome:
        if not self._busy:
            raise RuntimeError("nothing is in flight")
        while True:
            self._relieve()
            starting = {worker.placed: worker for worker in self._busy.values() if worker.placed is not None}
            running = {reference: w for reference, w in self._busy.items() if w.placed is None}
            patience_s = max(0.0, min((_left_s(worker) for worker in running.values()), default=_LOOK_S))
            ended, _ = self._ray.wait([*running, *starting], num_returns=1, timeout=min(patience_s, _LOOK_S))
            for reference in ended:
                if reference in running:
                    return self._heard(reference)
                self._placed(starting[reference])
            for reference, worker in running.items():
                if _left_s(worker) <= 0:
                    return self._stopped(reference)
            if not running and not ended:
                self._check_placed(starting.values())

    def _placed(self, worker: _Worker) -> None:
        """Starts the clock of a worker that has reported. Raises Failed when, time after time, none lives so long."""
        reference, worker.placed, worker.since = worker.placed, None, time.monotonic()
        try:
            self._ray.get(reference)
            self._false_starts = 0
        except self._ray.exceptions.RayError as reason:
            worker.is_false_start = True
            self._false_starts += 1
            if self._false_starts >= _FALSE_STARTS:
                got = " ".join(str(reason).split())[:300]
                raise Failed(
                    "workers do not start on the cluster", got=got, expected="anisora on every node"
                ) from reason
            time.sleep(min(2.0 ** (self._false_starts - 1), _PAUSE_S))

    def _check_placed(self, starting: Iterable[_Worker]) -> None:
        """Raises Failed when no actor has a place and the youngest has waited long enough."""
        if min(time.monotonic() - worker.since for worker in starting) > _START_S:
            raise Failed(
                "no worker could be placed on the cluster",
                got=f"no free core within {_START_S:g} s",
                expected="a free core for a worker",
                hint="fewer --workers, or waiting for the other work there",
            )

    def close(self) -> None:
        for worker in [*self._busy.values(), *self._idle]:
            self._end(worker)
        self._busy, self._idle = {}, []
        if self._owns_ray:
            self._ray.shutdown()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def process_ids(self) -> list[int]:
        """The processes of the idle workers; an actor that works does not answer."""
        return [self._ray.get(worker.actor.process_id.remote()) for worker in self._idle]

    def _start(self) -> _Worker:
        name = f"ray-{os.getpid()}-{secrets.token_hex(3)}"
        note = self._notes / name
        actor = self._actor_class.remote(str(note), self._memory_bytes, name)
        return _Worker(actor=actor, note=note, name=name, placed=actor.is_ready.remote())

    def _heard(self, reference: Any) -> Outcome:
        worker = self._busy.pop(reference)
        unit, worker.unit = worker.unit, None
        assert unit is not None
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as first:
            reason = self._settled(worker, first)
            part, was_memory = read_note(worker.note)
            self._end(worker)
            lost = worker.is_false_start or _is_node_lost(reason)
            return Outcome(
                unit=unit,
                state="died",
                reason="memory" if was_memory else "node_lost" if lost else "crashed",
                message=" ".join(str(reason).split())[:300],
                part=part,
                worker=worker.name,
                seconds=time.monotonic() - worker.since,
            )
        self._idle.append(worker)
        return outcome

    def _relieve(self) -> None:
        """Gives units that have waited long for a core to idle workers, whose cores they may be waiting for."""
        for reference, waiting in list(self._busy.items()):
            if not self._idle:
                return
            if waiting.placed is not None and time.monotonic() - waiting.since > _LATE_S:
                assert waiting.unit is not None
                del self._busy[reference]
                self._end(waiting)
                self.submit(waiting.unit)

    def _settled(self, worker: _Worker, reason: Exception) -> Exception:
        """Why an actor is gone. "Unavailable" is what Ray says before it knows whether the process died or the machine."""
        until = time.monotonic() + _KNOWN_S
        while isinstance(reason, self._ray.exceptions.ActorUnavailableError) and time.monotonic() < until:
            try:
                self._ray.get(worker.actor.is_ready.remote(), timeout=_KNOWN_S)
                break  # it was the line to it, which nobody is to blame for
            except self._ray.exceptions.GetTimeoutError:
                break
            except self._ray.exceptions.RayError as later:
                reason = later
                time.sleep(0.2)
        return reason

    def _stopped(self, reference: Any) -> Outcome:
        worker = self._busy.pop(reference)
        part, _ = read_note(worker.note)
        unit = worker.unit
        assert unit is not None
        self._end(worker)
        return Outcome(
            unit=unit,
            state="timed_out",
            reason="timed_out",
            message=f"over {unit.deadline_s:g} s",
            part=part,
            worker=worker.name,
            seconds=time.monotonic() - worker.since,
        )

    def _end(self, worker: _Worker) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor, no_restart=True)
        with contextlib.suppress(OSError):
            worker.note.unlink()


def _is_node_lost(reason: Exception) -> bool:
    """Whether an actor went with its machine, as far as Ray can tell: either it says so, or nobody answers there."""
    words = str(reason).lower()
    named = "node" in words and ("terminated" in words or "its node has died" in words)
    return named or type(reason).__name__ == "ActorUnavailableError"


def _left_s(worker: _Worker) -> float:
    assert worker.unit is not None
    return worker.since + worker.unit.deadline_s - time.monotonic()
