"""Tasks with every way of going wrong, run by the workers of the engines' tests."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any


def square(number: int, *, note: Any, skip: Any) -> int:
    note(f"number {number}")
    return number * number


def slow_square(number: int, seconds: float, *, note: Any, skip: Any) -> int:
    time.sleep(seconds)
    return number * number


def raise_value_error(*, note: Any, skip: Any) -> None:
    raise ValueError("not this one")


def exit_hard(*, note: Any, skip: Any) -> None:
    note("exit")
    os._exit(3)


def segfault(*, note: Any, skip: Any) -> None:
    note("reading nothing")
    ctypes.string_at(0)


def hang(*, note: Any, skip: Any) -> None:
    note("waiting")
    time.sleep(3600)


def balloon(*, note: Any, skip: Any) -> None:
    note("growing")
    held = []
    while True:
        held.append(bytearray(os.urandom(1)) * (8 << 20))
        time.sleep(0.001)


def kill_once(marker: str, *, note: Any, skip: Any) -> str:
    """Is killed from outside the first time (SIGKILL to itself), and finishes the second."""
    note("first try")
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "finished"


def three_parts(bad: str, *, note: Any, skip: Any) -> dict[str, str]:
    """The part `bad` takes the process down; the others are fine."""
    done = {}
    for part in ("a", "b", "c"):
        if part in skip:
            done[part] = skip[part]
            continue
        note(part)
        if part == bad:
            os._exit(4)
        done[part] = "fine"
    return done


def full_disk(*, note: Any, skip: Any) -> None:
    raise OSError(28, "No space left on device", "somewhere")


def count_running(folder: str, *, note: Any, skip: Any) -> int:
    """How many units run at this moment, this one among them."""
    mine = Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    time.sleep(0.02)
    running = len(os.listdir(folder))
    mine.unlink()
    return running
