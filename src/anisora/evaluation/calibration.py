"""From what is measured to scores from 0 to 100: the heads and scales of the bundled backend, kept as a versioned table.

A head weighs features that each have their place and spread: its value is the log-odds that a clip is sound. The place is
where faults begin; what is better than that counts little (`virtue`), so that no virtue pays for a fault. Each entry of the
table (`calibration.yaml`) says what it was fitted on; `anisora evaluate validate --fit` writes a new one. Metrics know
nothing of how clips are spoiled for that fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("calibration.yaml")


@cache
def table() -> dict[str, Any]:
    """The table that ships: `version`, and an entry for each metric."""
    import yaml

    return yaml.safe_load(TABLE.read_text())


def head_value(head: Mapping[str, Any], features: Mapping[str, float]) -> float:
    """The log-odds that a head gives features; a feature that is no number counts as at its place. Of a head with `marks`
    beside it the worse of the two decides: -log(exp(-a) + exp(-b))."""
    total = float(head["bias"])
    for name, part in head["features"].items():
        value = part["weight"] * (features.get(name, math.nan) - part["center"]) / part["scale"]
        total += min(value, head["virtue"] * value) if math.isfinite(value) else 0.0
    if "marks" not in head:
        return total
    low, high = sorted((total, head_value(head["marks"], features)))
    return low - math.log1p(math.exp(low - high))


def head_score(head: Mapping[str, Any], value: float) -> float:
    """The score of log-odds: 50 at the `midpoint`; `temperature` says how many make a step towards 0 or 100."""
    return 100 / (1 + math.exp(min(700.0, (head["midpoint"] - value) / head["temperature"])))


def share_score(raw: float, half: float) -> float:
    """raw / (raw + half) in percent: 50 at `half`, never quite 100."""
    return 100 * raw / (raw + half)
