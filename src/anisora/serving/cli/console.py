"""Where the command speaks: lines and progress bars on stderr, the result alone on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

#: progress(phase, done, total): what long work calls; total 0 means unknown
Progress = Callable[[str, int, int], None]


@cache
def _stderr() -> Any:
    """The one console on stderr: lines said while bars run go above them."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, *, markup: bool = False) -> None:
    """One line on stderr; colour and width only where it is a terminal."""
    _stderr().print(text, markup=markup)


def print_json(value: Any) -> None:
    """The machine-readable result: the only thing on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[Progress]:
    """Bars for the phases of long work, on stderr; silent where stderr is not a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = _stderr()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    off = quiet or not console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=off) as bars:
        tasks: dict[str, Any] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total or None)
            bars.update(tasks[phase], completed=done, total=total or None)

        yield report


def show_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]], title: str | None = None) -> None:
    """A table on stdout: the result of a verb that has no file to write."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def show_pairs(facts: dict[str, Any]) -> None:
    """Names and values on stdout, one line each; values that are objects are spelled out in place."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        sys.stdout.write(f"{name.replace('_', ' '):{width}}  {'-' if value is None else value}\n")
