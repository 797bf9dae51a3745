"""What runs in a worker of any engine: one unit, its note, its limits, and every way of failing turned into words.

A process that dies cannot say what it was doing, so it says so before: the last noted part lies in a small mapped file
that outlives it.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import mmap
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from anisora.curation.executors import Outcome, Unit
from anisora.errors import AnisoraError, BadVideo

_NOTE_BYTES = 512
_FLAG_AT = 510
#: how often a worker looks at its own size
_LOOK_S = 0.1
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Note:
    """The last thing that a worker said it would do. Writing one costs about a microsecond and no system call."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.truncate(_NOTE_BYTES)
            self._map = mmap.mmap(file.fileno(), _NOTE_BYTES)

    def __call__(self, part: str) -> None:
        text = part.encode(errors="replace")[: _FLAG_AT - 2]
        self._map[: len(text) + 2] = len(text).to_bytes(2, "little") + text

    def flag_memory(self) -> None:
        """Marks that the worker ended itself because it had grown too large."""
        self._map[_FLAG_AT] = 1

    def clear(self) -> None:
        self._map[:] = bytes(_NOTE_BYTES)


def read_note(path: str | os.PathLike[str]) -> tuple[str, bool]:
    """(the last part, whether memory ran out) of a worker's note; empty where there is none."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return "", False
    if len(data) < _NOTE_BYTES:
        return "", False
    length = int.from_bytes(data[:2], "little")
    return data[2 : 2 + length].decode(errors="replace"), bool(data[_FLAG_AT])


def perform(unit: Unit, note: Note, worker: str) -> Outcome:
    """Runs one unit here and now. Whatever it raises becomes `failed` with a reason code."""
    note.clear()
    start, cpu = time.monotonic(), time.process_time()
    try:
        module, _, name = unit.task.partition(":")
        value = getattr(importlib.import_module(module), name)(note=note, skip=unit.skip, **unit.arguments)
        ended: dict[str, Any] = {"state": "done", "value": value}
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        ended = {"state": "failed", "reason": reason_code(problem), "message": _words(problem)}
    return Outcome(
        unit=unit,
        worker=worker,
        seconds=time.monotonic() - start,
        cpu_s=time.process_time() - cpu,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **ended,
    )


def reason_code(problem: BaseException) -> str:
    """A short code for tables: `disk_full`, `bad_video`, `memory`, else the exception's name in small letters."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
            return "disk_full"
        cause = cause.__cause__ or cause.__context__
    if isinstance(problem, BadVideo):
        return "bad_video"
    if isinstance(problem, MemoryError):
        return "memory"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(problem).__name__).lower()


def _words(problem: BaseException) -> str:
    if isinstance(problem, AnisoraError):
        return str(problem)
    frames = traceback.extract_tb(problem.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(problem).__name__}: {problem}"[:500] + place


def is_disk_full(outcome: Outcome) -> bool:
    """Whether the unit failed for want of space: nothing that more tries would mend."""
    return outcome.state == "failed" and outcome.reason == "disk_full"


def watch_memory(note: Note, memory_bytes: int) -> None:
    """From now on this process ends itself, with a flag in its note, when it holds more than `memory_bytes`."""
    import psutil

    process = psutil.Process()

    def look() -> None:
        while True:
            if process.memory_info().rss > memory_bytes:
                note.flag_memory()
                os._exit(137)
            time.sleep(_LOOK_S)

    threading.Thread(target=look, daemon=True).start()


def one_thread() -> None:
    """Libraries that ask the environment run one thread a worker: the engine has one worker a core already."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"


# ------------------------------------------------------------------------------------------ the local worker's process


def main(connection_handle: int, lifeline_handle: int) -> None:
    """The process of a local worker: units in, outcomes out, until the driver hangs up, however it does."""
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends its workers
    os.dup2(2, 1)  # the driver's stdout is for its result
    _end_by_the_kernel()
    threading.Thread(target=_end_with_driver, args=(lifeline_handle,), daemon=True).start()
    one_thread()
    pipe = Connection(connection_handle)
    path, note_path, memory_bytes, worker = pipe.recv()
    sys.path[:] = path
    note = Note(note_path)
    watch_memory(note, memory_bytes)
    pipe.send("ready")
    try:
        while True:
            pipe.send(perform(pipe.recv(), note, worker))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _end_by_the_kernel() -> None:
    """Asks Linux to end this process with its driver: a library that hangs may never let the thread below run."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def _end_with_driver(lifeline_handle: int) -> None:
    """The other end of this pipe closes when the driver ends, however it ends: no worker outlives it."""
    while True:
        try:
            if not os.read(lifeline_handle, 1):
                os._exit(0)
        except InterruptedError:
            continue
        except OSError:
            os._exit(0)
