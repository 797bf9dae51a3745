"""Which videos go in: files and folders as they were named, each file once, with the licence it came under."""

from __future__ import annotations

import csv
import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anisora.errors import BadConfig, BadInput
from anisora.files import existing_file

#: what is taken from a folder; a file that is named itself is taken whatever its suffix
SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".vob",
    ".ogv", ".mxf", ".3gp", ".rm", ".rmvb", ".gif", ".h264", ".hevc", ".ivf", ".nut", ".y4m", ".apng",
})  # fmt: skip

#: columns of the table of licences
COLUMNS = ("path", "licence", "provenance", "split")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One video file. `fault` says why it cannot even be opened (not a regular file)."""

    path: Path
    licence: str | None = None
    provenance: str | None = None
    split: str | None = None
    fault: str | None = None


def text_of(path: str | os.PathLike[str]) -> str:
    """A path as text that any table can hold: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def find_sources(
    named: Sequence[str | os.PathLike[str]], *, licence: str | None = None, licences: Path | None = None
) -> tuple[list[Source], int]:
    """The videos under the names given, sorted by path, and how many other files were passed over.

    Folders are searched through, linked folders once; two names of one file give it once. `licences` is a CSV with a
    column `path` (a pattern, relative to the file itself or absolute) and any of `licence, provenance, split`; the last
    line that fits counts. Raises BadInput when a name does not exist or there is no video at all.
    """
    facts = _read_licences(licences) if licences else []
    seen: set[tuple[int, int]] = set()
    sources: list[Source] = []
    passed_over = 0
    for name in named:
        for path, was_named in _files(Path(name), set()):
            found = os.stat(path)
            if (identity := (found.st_dev, found.st_ino)) in seen:
                continue
            seen.add(identity)
            if not was_named and path.suffix.lower() not in SUFFIXES:
                passed_over += 1
                continue
            fault = None if stat.S_ISREG(found.st_mode) else "not_a_file"
            sources.append(Source(path=path, fault=fault, **{"licence": licence, **_fact(path, facts)}))
    if not sources:
        raise BadInput(
            "no videos",
            got=", ".join(map(str, named)) + (f" ({passed_over} other files)" if passed_over else " (empty)"),
            expected="files or folders with " + ", ".join(sorted(SUFFIXES)[:8]) + ", ...",
        )
    return sorted(sources, key=lambda source: os.fsencode(source.path)), passed_over


def _files(path: Path, visited: set[str]) -> Iterator[tuple[Path, bool]]:
    """(file, whether it was named itself) under a name. Links that lead in circles end where they began."""
    if not os.path.lexists(path):
        raise BadInput("no such file or folder", got=path, expected="videos, or a folder of them")
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise BadInput("a link that leads nowhere", got=path)
        yield path.absolute(), True
        return
    for folder, names, files in os.walk(path.absolute(), followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            names.clear()
            continue
        visited.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and os.path.exists(os.path.join(folder, file)):
                yield Path(folder, file), False


def _read_licences(path: Path) -> list[dict[str, str]]:
    with existing_file(path, BadInput, "the table of licences").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if "path" not in names or (strange := set(names) - set(COLUMNS)):
            got = ", ".join(names) or "no header"
            raise BadConfig("a table of licences with other columns", got=got, expected=", ".join(COLUMNS))
        del strange
        return [{**row, "path": os.path.join(path.absolute().parent, row["path"])} for row in reader]


def _fact(path: Path, facts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for fact in facts:
        if fnmatch.fnmatch(str(path), fact["path"]) or str(path) == fact["path"]:
            found |= {key: fact[key] for key in COLUMNS[1:] if fact.get(key)}
    return found
