"""The ledger: attempts before work, what a dead driver leaves, and who holds a folder."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anisora.curation.executors import Outcome, Unit
from anisora.curation.ledger import Ledger, hash_file, locked
from anisora.errors import Failed

PATHS = {"PYTHONPATH": os.pathsep.join(sys.path)}


def outcome(state: str = "done", **fields: object) -> Outcome:
    return Outcome(unit=Unit(key="u", task="t"), state=state, **fields)  # type: ignore[arg-type]


def test_attempts_are_written_before_the_work(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.begin("u", "scan")
    seen = sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT state, attempts FROM units").fetchone()
    assert seen == ("running", 1)


def test_what_a_dead_driver_left_running_is_to_do_and_not_charged(tmp_path: Path):
    for _ in range(5):
        ledger = Ledger(tmp_path / "ledger.sqlite")
        ledger.begin("u", "scan")
        ledger.close()
    reopened = Ledger(tmp_path / "ledger.sqlite")
    assert reopened.settled(("todo",)) == {"u": ("", "")}
    reopened.begin("u", "scan")
    assert reopened._db.execute("SELECT attempts FROM units").fetchone() == (1,)


def test_charges_count_by_part_and_retry_wipes_them(tmp_path: Path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin("u", "score")
        assert [ledger.charge("u", outcome("died", part=part)) for part in ("a", "a", "b")] == [1, 2, 1]
        ledger.finish("u", "quarantined", outcome("died", reason="crashed", part="a"))
        assert ledger.problems()[0]["part"] == "a"
        assert ledger.retry(("quarantined",)) == 1
        assert ledger.charge("u", outcome("died", part="a")) == 1


def test_costs_sum_by_stage(tmp_path: Path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for key in "ab":
            ledger.begin(key, "scan")
            ledger.finish(key, "done", outcome(cpu_s=1.5, seconds=2.0, peak_rss_bytes=10))
        (cost,) = ledger.costs()
    assert (cost["stage"], cost["done"], cost["cpu_s"], cost["seconds"]) == ("scan", 2, 3.0, 4.0)


def test_a_replaced_file_is_noticed(tmp_path: Path):
    video = tmp_path / "odd\nname é.mp4"
    video.write_bytes(b"one")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.sha256(video) is None
        ledger.remember(video, *hash_file(video))
        assert ledger.sha256(video) == hash_file(video)[2]
        video.write_bytes(b"two")
        os.utime(video, ns=(1, 1))
        assert ledger.sha256(video) is None


def test_a_damaged_ledger_says_what_to_do(tmp_path: Path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Failed, match="deleting it"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_living_run_keeps_others_out(tmp_path: Path):
    code = f"import time; from pathlib import Path; from anisora.curation.ledger import locked\n" \
           f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True); time.sleep(60)"  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=PATHS)
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(Failed, match=f"process {holder.pid}"), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path) as dead:  # the dead one's lock is taken over
        assert dead is not None
        assert str(holder.pid) in dead
    with locked(tmp_path) as dead:
        assert dead is None


def test_a_file_that_changes_while_it_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video = tmp_path / "growing.mp4"
    video.write_bytes(b"x")
    import anisora.curation.ledger as module

    def grow(path: Path) -> str:
        time.sleep(0.01)
        video.write_bytes(b"xx")
        return "0"

    monkeypatch.setattr(module, "sha256_file", grow)
    with pytest.raises(Failed, match="changed while"):
        hash_file(video)
