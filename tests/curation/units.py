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


# ---------------------------------------------------------------------------------------------------- bad observers


class _Observer:
    """Counts frames; its children go wrong at the tenth."""

    name, version, params = "bad", 1, None

    def __init__(self) -> None:
        from anisora.curation.observers import Needs

        self.needs = Needs(width_px=32)
        self.seen: list[int] = []

    def feed(self, index: int, pts: int, frame: Any) -> None:
        if len(self.seen) == 10:
            self.go_wrong()
        self.seen.append(index)

    def go_wrong(self) -> None: ...

    def finish(self) -> dict[str, Any]:
        import numpy as np

        return {"index": np.array(self.seen)}


class Raising(_Observer):
    def go_wrong(self) -> None:
        raise ValueError("no such frame")


class Crashing(_Observer):
    def go_wrong(self) -> None:
        os._exit(9)


class Hanging(_Observer):
    def go_wrong(self) -> None:
        time.sleep(3600)


class Growing(_Observer):
    def go_wrong(self) -> None:
        balloon(note=lambda part: None, skip={})


def crash_on_first_frame(clip: Any) -> Any:
    """A measure that takes its worker down for clips that begin their source, and gives 1 for others."""
    from anisora.records import Score

    if clip.span.start_frame == 0:
        os._exit(5)
    return Score(name="text_cover", version=1, unit="share", raw=0.0)


def text_in_a(clip: Any) -> Any:
    """A measure that finds text in the video a.mp4 and in no other."""
    from anisora.records import Score

    return Score(name="text_cover", version=1, unit="share", raw=0.5 if clip.path.name == "a.mp4" else 0.0)


def all_alike(clip: Any) -> Any:
    """A measure that gives every clip the same score."""
    from anisora.records import Score

    return Score(name="aesthetic", version=1, unit="", raw=5.0)


def text_unless_cropped(clip: Any) -> Any:
    """A measure that finds text in every whole picture and in no crop."""
    from anisora.records import Score

    return Score(name="text_cover", version=1, unit="share", raw=0.0 if clip.crop_xywh_px else 0.5)
