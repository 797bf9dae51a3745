"""Records on disk: canonical JSON and its hash, JSON lines that survive a crash, and the one HTML report page.

Writing whole files is `anisora.files`' business; its names that callers of the store need are offered here too.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anisora.errors import BadInput
from anisora.files import existing_file, sha256_file, write_atomic

__all__ = [
    "Figure",
    "Section",
    "Table",
    "append_jsonl",
    "canonical_json",
    "content_hash",
    "read_jsonl",
    "report_page",
    "sha256_file",
    "weights_hash",
    "write_atomic",
]

_log = logging.getLogger(__name__)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, floats as Python prints them, UTF-8 kept.

    Equal values give equal texts, and 1 differs from 1.0. Fractions become "24000/1001", paths their text.
    Raises ValueError for not-a-numbers and infinities, TypeError for all else that JSON cannot hold, keys included.
    """
    _check_keys(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_json_default
    )


def content_hash(value: Any) -> str:
    """The sha256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def weights_hash(*folders: Path | None) -> str:
    """The hash of the hashes of all .safetensors files of folders."""
    files = sorted(file for folder in folders if folder for file in folder.glob("*.safetensors"))
    return content_hash([sha256_file(file) for file in files])


def _json_default(value: Any) -> str:
    if isinstance(value, Fraction | os.PathLike):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON")


def _check_keys(value: Any) -> None:
    """JSON would turn the keys 1 and "1" into the same text."""
    if isinstance(value, Mapping):
        if strange := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"JSON keys are strings, not {type(strange[0]).__name__}")
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for item in value:
            _check_keys(item)


def append_jsonl(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Appends one record as one line, on the disk when this returns. Processes may append to one file side by side.

    A line that a crash left torn is cut off first (and logged), so that the new one stands on its own.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_json_default).encode() + b"\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes
        _mend_end(file, path)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _mend_end(file: io.BufferedRandom, path: Path) -> None:
    """Ends the file on a whole line: a whole record without its newline gets one, a torn record goes."""
    size = file.seek(0, os.SEEK_END)
    start = _last_line_start(file, size)
    file.seek(start)
    tail = file.read(size - start)
    if not tail:
        return
    if _parsed(tail) is not None:
        file.write(b"\n")
        return
    _log.warning("%s: cut off a torn last line of %d bytes", path, len(tail))
    file.truncate(start)


def _last_line_start(file: io.BufferedRandom, size: int) -> int:
    """The offset behind the last newline, looked for backwards in blocks."""
    end = size
    while end > 0:
        begin = max(0, end - 65536)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a torn last line, as a crash leaves it, is dropped and logged.

    Raises BadInput for a missing file, and for a line before the last that is no JSON object, by its number.
    """
    path = Path(path)
    if path.is_file() and not path.stat().st_size:
        return []
    lines = existing_file(path, BadInput, "the file of records").read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is None and number == len(lines):
            _log.warning("%s: skipped a torn last line of %d bytes", path, len(line))
        elif record is None:
            raise BadInput(
                "unreadable record",
                got=f"{path}, line {number}: {line[:40].decode(errors='replace')}",
                expected="a JSON object",
            )
        else:
            records.append(record)
    return records


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


# --------------------------------------------------------------------------------------------------------------------
# The report page


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture or video with its caption.

    `source` is a path, the bytes of a PNG or SVG, or a PIL image. It is embedded in the page; with `is_beside` a path is
    linked as it stands, relative to the page.
    """

    source: Any
    caption: str = ""
    width_px: int | None = None
    is_beside: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under column names; numbers are set flush right, None is shown as a dash."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with paragraphs, then figures side by side, then tables."""

    heading: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


_MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}


def report_page(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """One HTML page, self-contained but for figures that are beside it. All texts are escaped: they may be anyone's.

    Follows the reader's light or dark setting. Raises BadInput for a figure that is missing or of an unknown kind.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anisora", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"source": _figure_source, "is_video": _is_video, "cell": _cell, "is_number": _is_number}
    return environment.get_template("report.html").render(title=title, lead=lead, sections=sections)


def _figure_source(figure: Figure) -> str:
    """The value of a figure's src attribute."""
    if figure.is_beside:
        _mime(figure)
        return quote(Path(figure.source).as_posix())
    return f"data:{_mime(figure)};base64,{base64.b64encode(_figure_bytes(figure.source)).decode()}"


def _figure_bytes(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return existing_file(source, BadInput, "the figure").read_bytes()
    buffer = io.BytesIO()
    source.save(buffer, "PNG")
    return buffer.getvalue()


def _mime(figure: Figure) -> str:
    if not isinstance(figure.source, str | os.PathLike):
        is_svg = isinstance(figure.source, bytes) and figure.source.startswith(b"<svg")
        return _MIME[".svg" if is_svg else ".png"]
    suffix = Path(figure.source).suffix.lower()
    if suffix not in _MIME:
        raise BadInput("a figure that a page cannot show", got=figure.source, expected=", ".join(_MIME))
    return _MIME[suffix]


def _is_video(figure: Figure) -> bool:
    return _mime(figure).startswith("video/")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    """A table cell's text: floats to four significant digits, for showing only."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
