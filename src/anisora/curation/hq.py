"""The high-quality part of a data set: the quality filter plus stricter limits on all four scores (paper, section S1.1).

What is strict depends on the footage, so the limits on flow and aesthetics are percentiles of the clips that are kept; text and
duration have plain limits. A pure function of stored scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anisora.errors import BadConfig
from anisora.settings import setting


@dataclass(frozen=True, kw_only=True)
class HqRule:
    """What a kept clip must fulfil to count as high quality."""

    least_quality_filter: float = setting(0.5, "least probability of keep, by the filter that was run")
    most_text_cover: float = setting(0.005, "largest share of the picture under text")
    flow_percentiles: tuple[float, float] = setting(
        (20.0, 95.0), "neither stills nor flashes: percentiles of kept clips"
    )
    least_aesthetic_percentile: float = setting(50.0, "percentile of kept clips")
    duration_s: tuple[float, float] = setting((2.0, 8.0), "shortest and longest")

    def __post_init__(self) -> None:
        low, high = self.flow_percentiles
        if not 0 <= low < high <= 100 or not 0 <= self.least_aesthetic_percentile <= 100:
            raise BadConfig("percentiles of the hq rule", got=f"{low}, {high}", expected="0 to 100, in order")
        if not 0 <= self.duration_s[0] <= self.duration_s[1]:
            raise BadConfig("durations of the hq rule", got=self.duration_s, expected="shortest, longest")


def hq_reasons(rows: Iterable[Mapping[str, Any]], rule: HqRule | None = None) -> dict[str, str | None]:
    """clip_id -> None for high quality, else the first limit a clip misses, or `no_SCORE` for a score it does not have.

    Only rows with verdict "keep" (or none yet) set the percentiles; a dropped row is not of high quality ("dropped").
    """
    rule = rule or HqRule()
    rows = list(rows)
    kept = [row for row in rows if row.get("verdict", "keep") == "keep"]
    limits = _limits(kept, rule)
    return {row["clip_id"]: _miss(row, limits) if row.get("verdict", "keep") == "keep" else "dropped" for row in rows}


def _limits(kept: list[Mapping[str, Any]], rule: HqRule) -> dict[str, tuple[float, float]]:
    """score -> least and most."""

    def percentile(name: str, q: float) -> float:
        values = [row[name] for row in kept if row.get(name) is not None]
        return float(np.percentile(values, q)) if values else 0.0

    low, high = rule.flow_percentiles
    return {
        "quality_filter": (rule.least_quality_filter, np.inf),
        "text_cover": (-np.inf, rule.most_text_cover),
        "flow": (percentile("flow", low), percentile("flow", high)),
        "aesthetic": (percentile("aesthetic", rule.least_aesthetic_percentile), np.inf),
        "duration_s": rule.duration_s,
    }


def _miss(row: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> str | None:
    for name, (least, most) in limits.items():
        if (value := row.get(name)) is None:
            return f"no_{name}"
        if not least <= value <= most:
            return name
    return None
