"""run.json: what a run was started with, and the refusal to go on with something else.

A run that goes on under another learning rate, or on other clips, is neither the old run nor a new one, and nothing in its
log would say so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from anisora.errors import BadConfig
from anisora.files import write_atomic
from anisora.store import canonical_json


def begin(described: Mapping[str, Any], out: Path, may_change: Collection[str]) -> None:
    """Writes `out/run.json`, plain data that describes a run.

    Raises BadConfig, naming the first field and what it was, where the folder holds a run that was started otherwise in
    more than the fields of `may_change`.
    """
    path = out / "run.json"
    if path.exists() and any((out / "checkpoints").glob("*")):
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in differences(before, described) if name not in may_change]
        if changed:
            was, now = (_at(values, changed[0]) for values in (before, described))
            raise BadConfig(
                "the run in this folder was started otherwise",
                got=f"{changed[0]} {now} (was {was})" + (f", and {', '.join(changed[1:])}" if changed[1:] else ""),
                expected="the config and the clips that it was started with",
                hint="another output folder",
            )
    write_atomic(path, (canonical_json(described) + "\n").encode())


def differences(before: Any, after: Any, at: str = "") -> list[str]:
    """Dotted names of the values that differ between two trees of plain data."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            name for key in keys for name in differences(before.get(key), after.get(key), f"{at}.{key}".lstrip("."))
        ]
    return [] if before == after else [at]


def _at(values: Any, name: str) -> Any:
    for key in name.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
