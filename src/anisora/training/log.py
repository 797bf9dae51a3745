"""What a run says about itself as it goes: rows, TensorBoard's events beside them, and sample sheets.

FOLDER/log.jsonl          {step, loss, grad_norm, seconds, ...} a line; steps count from 0
FOLDER/tensorboard/       the same figures and the sheets, where the `tensorboard` package is installed
FOLDER/samples/STEP.png   what the averaged weights make after STEP steps

A run that goes on drops what was logged after its checkpoint: those steps are done, and logged, again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anisora.files import write_atomic, write_failed
from anisora.store import read_jsonl

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS, EVENTS, SHEETS = "log.jsonl", "tensorboard", "samples"


class RunLog:
    """The log of a run that begins, or goes on, at `first_step`. Its methods raise WriteFailed when the disk is full."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder = folder
        _trim(folder / ROWS, first_step)
        with self._writing(EVENTS):
            self._events = _open_events(folder / EVENTS, first_step)

    def row(self, row: dict[str, Any]) -> None:
        """Figures of a step: `row["step"]`, numbers, and words that TensorBoard does not get."""
        with self._writing(ROWS), (self._folder / ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._writing(EVENTS):
            for name, value in row.items():
                if self._events and name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(f"train/{name}", value, row["step"])

    def sheet(self, steps_done: int, picture: Image) -> None:
        """A sample sheet; TensorBoard shows it at the row of the last step that went into it."""
        path = self._folder / SHEETS / f"{steps_done}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda partial: picture.save(partial))
        with self._writing(EVENTS):
            if self._events:
                step = max(0, steps_done - 1)
                self._events.add_image("samples", np.asarray(picture), step, dataformats="HWC")

    def flush(self) -> None:
        """Puts on the disk what TensorBoard's writer holds back; before each checkpoint, so that a kill loses no more of
        it than of the rows."""
        with self._writing(EVENTS):
            if self._events:
                self._events.flush()

    def close(self) -> None:
        """Ends TensorBoard's file."""
        with self._writing(EVENTS):
            if self._events:
                self._events.close()

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as reason:
            raise write_failed(self._folder / what, reason) from reason


def _trim(path: Path, first_step: int) -> None:
    if path.exists():
        rows = [row for row in read_jsonl(path) if row["step"] < first_step]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _open_events(folder: Path, first_step: int) -> Any:
    """torch's writer of TensorBoard events, None without the package: that is told."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        from rich.console import Console

        say = Console(stderr=True, highlight=False).print
        say("no TensorBoard events: pip install 'anisora[tensorboard]' brings them", markup=False)
        return None
    # What an earlier process logged from this step on, readers leave out (SessionLog.START, file version 2).
    return SummaryWriter(str(folder), purge_step=first_step)
