"""Files: found or a clear error, written whole or not at all, hashed.

The records (`store`) and the videos (`media`) both write files that a crash, a full disk or Ctrl-C must not leave half
done; the rule for that lives here, below both. A file is written under a hidden name in its own folder, flushed to the
disk and then renamed, which replaces an older file in one step.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from anisora.errors import BadInput, WriteFailed

_HINTS = {
    errno.ENOSPC: "freeing disk space or another folder",
    errno.EDQUOT: "freeing disk space or another folder",
    errno.EFBIG: "a smaller file or another file system",
    errno.EACCES: "a folder you may write to",
    errno.EPERM: "a folder you may write to",
    errno.EROFS: "a folder you may write to",
    errno.EISDIR: "another name",
    errno.ENOTDIR: "another name",
}


def existing_file(path: str | os.PathLike[str], error: type[BadInput], what: str) -> Path:
    """`path` when it is a readable file with something in it; else raises `error`, naming files of a like name."""
    path = Path(path)
    # os.path answers False where a Path would raise for want of rights or for an impossible name.
    if os.path.isdir(path):
        raise error(f"{what} cannot be read", got=f"the folder {path}", expected="a file")
    if not os.path.exists(path):
        raise error(f"{what} does not exist", got=path, expected="a file", hint=_like_named(path))
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise error(f"{what} is empty", got=f"{path} (0 bytes)", expected="a file with content")
    except OSError as reason:
        raise error(f"{what} cannot be read", got=f"{path} ({reason.strerror})", expected="a readable file") from reason
    return path


def _like_named(path: Path) -> str | None:
    """The files of the same folder whose names come close to `path`'s, as a hint; None without any."""
    if not os.path.isdir(path.parent):
        return f"a folder that exists ({path.parent} does not)"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return " or ".join(str(path.parent / name) for name in close) or None


def is_text(path: Path) -> bool:
    """Whether a file begins as text in UTF-8 does; for saying so when something else was expected."""
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str | os.PathLike[str], content: bytes | Callable[[Path], object]) -> Path:
    """Writes `content`, or lets the callback write to the path it is handed; the file appears whole or not at all.

    Raises WriteFailed when the disk is full or the folder may not be written to; nothing remains then.
    """
    with atomic_file(path) as partial:
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content)
    return Path(path)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, of the same suffix and folder, that becomes `path` when the block ends well.

    The suffix is kept because writers choose their format by it. Missing folders are made.
    """
    path = Path(path)
    with _whole_or_nothing(path) as partial:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        partial.touch(exist_ok=False)
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, members: str) -> Iterator[Path]:
    """A new folder to fill that becomes `path` when the block ends well.

    A folder that is there already is replaced only when all its names match the regular expression `members`, as an
    earlier run leaves them: nobody's other files are ever deleted.
    """
    path = Path(path)
    with _whole_or_nothing(path) as partial:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file", str(path))
        if path.is_dir() and (strange := [name for name in os.listdir(path) if not re.fullmatch(members, name)]):
            raise FileExistsError(errno.EEXIST, f"the folder holds other files, {strange[0]} for one", str(path))
        partial.mkdir()
        yield partial
        for entry in [*partial.iterdir(), partial]:
            _flush(entry)
        older = partial.with_name(partial.name + ".older")
        if path.is_dir():  # two renames: at no moment is the older folder half deleted under its name
            os.replace(path, older)
        os.replace(partial, path)
        shutil.rmtree(older, ignore_errors=True)
        _flush(path.parent)


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def _whole_or_nothing(path: Path) -> Iterator[Path]:
    """A hidden name beside `path`; what lies there is removed unless it was renamed. OSErrors become WriteFailed, also
    those that a library written in Rust (safetensors, tokenizers) tells in words of its own error."""
    partial = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as reason:
        raise write_failed(path, reason) from reason
    except Exception as reason:
        if (number := _OS_ERROR.search(str(reason))) is None:
            raise
        code = int(number[1])
        raise write_failed(path, OSError(code, os.strerror(code))) from reason
    finally:
        if os.path.isdir(partial):
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                partial.unlink()


def write_failed(path: Path, reason: OSError) -> WriteFailed:
    """The error for `path` that says why and what to do; nothing half-written is left when it is raised."""
    hint = _HINTS.get(reason.errno or 0, "another folder")
    return WriteFailed(f"{path} could not be written", got=reason.strerror or reason, hint=hint)


#: the name of a file that is being written: see `_whole_or_nothing`
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")


def remove_partials(folder: Path) -> int:
    """Removes what writers that were killed left half done anywhere under a folder; how many files there were.

    For folders that no other process writes to.
    """
    found = [path for path in folder.rglob(".*") if path.is_file() and _PARTIAL.fullmatch(path.name)]
    for path in found:
        path.unlink()
    return len(found)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises WriteFailed before the work rather than after it when `path` cannot be made (no right, a folder)."""
    path = Path(path)
    with _whole_or_nothing(path) as partial:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        partial.touch(exist_ok=False)


def _flush(path: Path) -> None:
    """Sends a file's or a folder's content to the disk, so that a rename never overtakes it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
