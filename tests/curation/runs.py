"""A short run of the whole pipeline, as the tests of the pipeline and of its faults share it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from anisora.curation.config import CaptionChoice, CurateConfig
from anisora.curation.ledger import Ledger
from anisora.curation.select import Rules
from anisora.curation.upkeep import verify

RULES = Rules(between={"duration_s": (1.5, 8.0)}, without={})
CONFIG = CurateConfig(text="none", heads="none", aesthetic=None, caption=CaptionChoice(backend="none"), select=RULES)
YAML = """
{text: none, heads: none, aesthetic: null, caption: {backend: none},
 select: {between: {duration_s: [1.5, 8]}, without: {}}}
"""
PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def rows(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "clips.parquet").to_pylist()


def units_run(out: Path, work: Callable[[], Any]) -> dict[str, int]:
    """How many units of each stage some work took."""
    before = attempts(out)
    work()
    return {stage: n - before.get(stage, 0) for stage, n in attempts(out).items() if n != before.get(stage, 0)}


def attempts(out: Path) -> dict[str, int]:
    with Ledger(out / "ledger.sqlite") as ledger:
        return dict(ledger._db.execute("SELECT stage, sum(attempts) FROM units GROUP BY stage").fetchall())


def command(out: Path, episodes: Path, config: Path) -> list[str]:
    return [
        sys.executable, "-m", "anisora", "curate", str(episodes), "--out", str(out), "--config", str(config),
        "--workers", "2", "--json",
    ]  # fmt: skip


def check_whole(out: Path) -> None:
    """No duplicate, no orphan, nothing torn."""
    table = rows(out)
    assert len({row["clip_id"] for row in table}) == len(table)
    named = {str(out / row["path"]) for row in table if row["path"]}
    assert {str(path) for path in (out / "clips").rglob("*") if path.is_file()} == named
    assert verify(out).is_whole
    shards = {entry["shard"] for entry in pq.read_table(out / "index.parquet").to_pylist()}
    assert {path.name for path in (out / "shards").iterdir()} == shards
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]
