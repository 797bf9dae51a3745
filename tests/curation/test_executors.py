"""One conformance suite for every engine, with faults really injected into real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from anisora.curation.executors import Unit, open_executor
from anisora.curation.executors.drive import drive
from anisora.curation.ledger import Ledger
from anisora.errors import BadConfig, WriteFailed

from . import units

MEMORY_BYTES = 300 * 2**20
ENGINES = ["local", pytest.param("ray", marks=pytest.mark.slow)]


def unit(task: str, key: str | None = None, deadline_s: float = 60, **arguments: Any) -> Unit:
    name = key or f"{task}-{'-'.join(map(str, arguments.values()))}"
    return Unit(key=name, task=f"{units.__name__}:{task}", arguments=arguments, deadline_s=deadline_s)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an engine; one Ray is started for all its tests."""
    if request.param != "ray":
        yield request.param
        return
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error", object_store_memory=80 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
    )  # fmt: skip
    yield request.param
    ray.shutdown()


@pytest.fixture
def executor(engine: str, tmp_path: Path) -> Iterator[Any]:
    with open_executor(engine, workers=2, notes=str(tmp_path / "notes"), memory_bytes=MEMORY_BYTES) as opened:
        yield opened


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def run(executor: Any, ledger: Ledger, units: Any) -> dict[str, Any]:
    return {settled.unit.key: settled for settled in drive(executor, units, ledger, stage="test")}


def test_every_unit_ends_once_whatever_the_order(executor: Any, ledger: Ledger):
    todo = [unit("slow_square", number=n, seconds=0.05 * (n % 3)) for n in range(8)]
    settled = list(drive(executor, todo, ledger, stage="test"))
    assert sorted(s.outcome.value for s in settled) == [n * n for n in range(8)]
    assert {s.unit.key: s.outcome.value for s in settled} == {u.key: u.arguments["number"] ** 2 for u in todo}


def test_an_exception_fails_its_unit_alone(executor: Any, ledger: Ledger):
    ended = run(executor, ledger, [unit("raise_value_error", "bad"), unit("square", number=3)])
    assert ended["bad"].state == "failed"
    assert ended["bad"].outcome.reason == "value_error"
    assert "not this one" in ended["bad"].outcome.message
    assert ended["square-3"].outcome.value == 9
    assert ledger.settled() == {"bad": ("value_error", ended["bad"].outcome.message)}


@pytest.mark.parametrize("task", ["exit_hard", "segfault"])
def test_a_crash_is_tried_twice_then_quarantined_with_its_last_words(executor: Any, ledger: Ledger, task: str):
    started: list[str] = []
    todo = [unit(task, "poison"), *(unit("square", number=n) for n in range(3))]
    settled = list(drive(executor, todo, ledger, stage="test", on_start=lambda u: started.append(u.key)))
    ended = {s.unit.key: s for s in settled}
    assert ended["poison"].state == "quarantined"
    assert ended["poison"].outcome.reason == "crashed"
    assert ended["poison"].outcome.part in ("exit", "reading nothing")
    assert [ended[f"square-{n}"].outcome.value for n in range(3)] == [0, 1, 4]
    assert started.count("poison") == 3  # twice as it is, once without the part it died in


def test_a_part_that_crashes_costs_only_itself(executor: Any, ledger: Ledger):
    ended = run(executor, ledger, [unit("three_parts", "unit", bad="b")])
    assert ended["unit"].state == "done"
    assert ended["unit"].outcome.value == {"a": "fine", "b": "crashed", "c": "fine"}


def test_a_hang_is_stopped_at_its_deadline(executor: Any, ledger: Ledger):
    ended = run(executor, ledger, [unit("hang", "hang", deadline_s=0.5), unit("square", number=5)])
    assert ended["hang"].state == "quarantined"
    assert (ended["hang"].outcome.state, ended["hang"].outcome.part) == ("timed_out", "waiting")
    assert ended["square-5"].outcome.value == 25


def test_memory_without_end_is_ended(executor: Any, ledger: Ledger):
    ended = run(executor, ledger, [unit("balloon", "balloon"), unit("square", number=2)])
    assert ended["balloon"].state == "quarantined"
    assert ended["balloon"].outcome.reason == "memory"
    assert ended["square-2"].outcome.value == 4


def test_a_killed_worker_is_replaced_and_its_unit_done(executor: Any, ledger: Ledger, tmp_path: Path):
    todo = [unit("kill_once", "killed", marker=str(tmp_path / "marker")), *(unit("square", number=n) for n in range(4))]
    ended = run(executor, ledger, todo)
    assert ended["killed"].outcome.value == "finished"
    assert len(ended) == 5


def test_units_are_drawn_only_when_there_is_room(executor: Any, ledger: Ledger, tmp_path: Path):
    folder = tmp_path / "running"
    folder.mkdir()
    drawn = 0
    ended = 0

    def draw() -> Iterator[Unit]:
        nonlocal drawn
        for number in range(12):
            drawn += 1
            assert drawn - ended <= executor.capacity + 1
            yield unit("count_running", f"unit {number}", folder=str(folder))

    for settled in drive(executor, draw(), ledger, stage="test"):
        ended += 1
        assert settled.outcome.value <= executor.capacity
    assert drawn == ended == 12


def test_a_full_disk_stops_the_run_and_charges_nobody(executor: Any, ledger: Ledger):
    todo = [unit("full_disk", "full"), *(unit("square", number=n) for n in range(20))]
    with pytest.raises(WriteFailed, match="disk is full"):
        run(executor, ledger, todo)
    assert not ledger.settled()
    assert executor.in_flight == 0


# --------------------------------------------------------------------------------------------- the local engine alone


def test_no_worker_outlives_a_killed_driver(tmp_path: Path):
    code = f"""
import sys
from anisora.curation.executors import Unit, open_executor
executor = open_executor("local", workers=2, notes={str(tmp_path / "notes")!r})
for n in range(2):
    executor.submit(Unit(key=str(n), task="{units.__name__}:hang"))
print(*executor.process_ids(), flush=True)
executor.wait()
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert driver.stdout
    workers = [psutil.Process(int(word)) for word in driver.stdout.readline().split()]
    assert len(workers) == 2
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_workers_are_replaced_after_many_units(tmp_path: Path, ledger: Ledger):
    from anisora.curation.executors.local import LocalExecutor

    with LocalExecutor(workers=1, notes=tmp_path / "notes", units_per_worker=2) as executor:
        names = [
            s.outcome.worker for s in drive(executor, [unit("square", number=n) for n in range(4)], ledger, stage="t")
        ]
    assert names[0] == names[1] != names[2] == names[3]


def test_workers_stay_light(tmp_path: Path):
    """A worker that has run a unit of classical work has loaded none of the learned libraries."""
    with open_executor("local", workers=1, notes=str(tmp_path)) as executor:
        executor.submit(unit("square", number=1))
        executor.wait()
        executor.submit(unit("hang", deadline_s=0.2))
        process = psutil.Process(executor.process_ids()[0])  # type: ignore[attr-defined]
        time.sleep(0.05)
        libraries = {Path(entry.path).name for entry in process.memory_maps()}
        executor.wait()
    assert not [name for name in libraries if name.startswith(("libtorch", "libonnx"))]


def test_another_engine_is_refused(tmp_path: Path):
    with pytest.raises(BadConfig, match="local or ray"):
        open_executor("spark", workers=1, notes=str(tmp_path))
