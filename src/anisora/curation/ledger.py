"""What has been tried, how it ended and what it cost: the state of a run, which the driver alone writes.

The truth of a run is in its files; the ledger (SQLite, WAL) holds what files cannot: attempts, written down before the
work starts, failures, and cost. Delete it and nothing but that is lost. Keep it on a local disk: WAL needs shared memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from anisora.curation.executors import Outcome
from anisora.errors import Failed, WriteFailed
from anisora.files import sha256_file, write_failed

_TABLES = """
CREATE TABLE IF NOT EXISTS units (
    key TEXT PRIMARY KEY, stage TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '', part TEXT NOT NULL DEFAULT '',
    worker TEXT NOT NULL DEFAULT '', since REAL, seconds REAL NOT NULL DEFAULT 0, cpu_s REAL NOT NULL DEFAULT 0,
    peak_rss_bytes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS charges (
    key TEXT NOT NULL, part TEXT NOT NULL, attempts INTEGER NOT NULL, PRIMARY KEY (key, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID;
"""


class Ledger:
    """The state of every unit by its key: todo -> running -> done | failed | quarantined.

    Opening it turns what a dead driver left running back into todo, uncharged: a unit is not to blame for that.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
            self._db.execute("UPDATE units SET state = 'todo', attempts = max(0, attempts - 1) WHERE state = 'running'")
        except sqlite3.DatabaseError as reason:
            self._db.close()
            if _is_no_room(reason):
                raise write_failed(self.path, OSError(28, "No space left on device")) from reason
            raise Failed(
                "the ledger cannot be read",
                got=f"{self.path} ({reason})",
                hint="deleting it: finished work is in the files and is found again",
            ) from reason

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.OperationalError as reason:
            if not _is_no_room(reason):
                raise
            raise write_failed(self.path, OSError(28, "No space left on device")) from reason

    def begin(self, key: str, stage: str) -> None:
        """Counts an attempt, on the disk before the work starts."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO units (key, stage, state, attempts, since) VALUES (?, ?, 'running', 1, ?) "
                "ON CONFLICT (key) DO UPDATE SET state = 'running', attempts = attempts + 1, since = excluded.since",
                (key, stage, time.time()),
            )

    def release(self, key: str) -> None:
        """Takes an attempt back that was cut short by something else than the unit."""
        with self._writing() as db:
            db.execute("UPDATE units SET state = 'todo', attempts = max(0, attempts - 1) WHERE key = ?", (key,))

    def charge(self, key: str, outcome: Outcome) -> int:
        """Counts a death or a hang against the part that was under way; how many it has by now."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO charges VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET attempts = attempts + 1",
                (key, outcome.part),
            )
            row = db.execute("SELECT attempts FROM charges WHERE key = ? AND part = ?", (key, outcome.part))
            return int(row.fetchone()[0])

    def finish(self, key: str, state: str, outcome: Outcome) -> None:
        """Writes how a unit ended and what it cost."""
        with self._writing() as db:
            db.execute(
                "UPDATE units SET state = ?, reason = ?, message = ?, part = ?, worker = ?, seconds = seconds + ?, "
                "cpu_s = cpu_s + ?, peak_rss_bytes = max(peak_rss_bytes, ?) WHERE key = ?",
                (state, outcome.reason, outcome.message, outcome.part, outcome.worker)
                + (outcome.seconds, outcome.cpu_s, outcome.peak_rss_bytes, key),
            )

    def settled(self, states: Iterable[str] = ("failed", "quarantined")) -> dict[str, tuple[str, str]]:
        """key -> (reason, message) of the units in those states: they are not tried again unless asked for."""
        states = tuple(states)
        marks = ", ".join("?" for _ in states)
        rows = self._db.execute(f"SELECT key, reason, message FROM units WHERE state IN ({marks})", states)
        return {key: (reason, message) for key, reason, message in rows}

    def retry(self, states: Iterable[str]) -> int:
        """Lets units in those states be tried again, with a clean slate; how many there were."""
        states = tuple(states)
        marks = ", ".join("?" for _ in states)
        with self._writing() as db:
            db.execute(f"DELETE FROM charges WHERE key IN (SELECT key FROM units WHERE state IN ({marks}))", states)
            return db.execute(f"DELETE FROM units WHERE state IN ({marks})", states).rowcount

    def forget(self, keys: Iterable[str]) -> None:
        """Drops what is known of these units."""
        with self._writing() as db:
            db.executemany("DELETE FROM units WHERE key = ?", [(key,) for key in keys])

    def costs(self) -> list[dict[str, Any]]:
        """Per stage: units by state, CPU and wall seconds, attempts beyond the first, the largest worker."""
        columns = ("stage", "done", "failed", "quarantined", "retries", "cpu_s", "seconds", "peak_rss_bytes")
        rows = self._db.execute(
            "SELECT stage, sum(state = 'done'), sum(state = 'failed'), sum(state = 'quarantined'), "
            "sum(max(0, attempts - 1)), sum(cpu_s), sum(seconds), max(peak_rss_bytes) FROM units GROUP BY stage"
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def problems(self) -> list[dict[str, Any]]:
        """The units that failed or were quarantined, with the reason."""
        columns = ("key", "stage", "state", "reason", "message", "part", "attempts")
        rows = self._db.execute(
            f"SELECT {', '.join(columns)} FROM units WHERE state IN ('failed', 'quarantined') ORDER BY stage, key"
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def sha256(self, path: Path) -> str | None:
        """The content hash of a file as it was last read; None when the file has another size or time since."""
        stat = os.stat(path)
        row = self._db.execute("SELECT size, mtime_ns, sha256 FROM files WHERE path = ?", (os.fsencode(path),))
        found = row.fetchone()
        return found[2] if found and found[:2] == (stat.st_size, stat.st_mtime_ns) else None

    def remember(self, path: Path, size: int, mtime_ns: int, sha256: str) -> None:
        """Keeps a file's content hash beside the size and time it had when it was read."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (os.fsencode(path), size, mtime_ns, sha256))


def _is_no_room(reason: Exception) -> bool:
    """Whether SQLite could not write for want of space, or because a file may grow no further."""
    return "database or disk is full" in str(reason) or "disk I/O error" in str(reason)


def hash_file(path: Path) -> tuple[int, int, str]:
    """(size, mtime_ns, sha256) of a file. Raises Failed when it changes while it is read."""
    before = os.stat(path)
    digest = sha256_file(path)
    after = os.stat(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Failed("the file changed while it was read", got=path, hint="running again when it is complete")
    return after.st_size, after.st_mtime_ns, digest


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str | None]:
    """Holds the output folder for this process; gives the words of a dead owner whose lock was taken over, if any.

    The lock is the kernel's, so it ends with its process, however that ends; the file only says whose it is.
    Raises Failed when a living process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    try:
        file = path.open("a+")
    except OSError as reason:
        raise WriteFailed(f"{folder} cannot be written to", got=reason.strerror, hint="another folder") from reason
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failed(
                "another run works on this folder",
                got=f"{folder}, held by {_owner(path) or 'another process'}",
                hint="waiting for it, or another --out",
            ) from None
        dead = _owner(path)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}, file)
        file.flush()
        yield dead
        file.truncate(0)


def _owner(path: Path) -> str | None:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return None
