"""From scores to verdicts: thresholds applied to the table, in one pass over columns, never to pixels.

A million clips are decided again in seconds, because nothing is measured here. Rules are asked in their order and the
first that a clip breaks is its reason; the funnel counts how many each one took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation.table import NOT_MEASURED, measures_of
from anisora.errors import BadConfig
from anisora.settings import setting

Bounds = tuple[float | None, float | None]

KEEP, DROP = "keep", "drop"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a clip must fulfil. Bounds are inclusive; None leaves a side open.

    A clip that a rule has no score for is dropped as `no_M`: no score is not a low score, nor a good one.
    """

    between: dict[str, Bounds] = setting(None, "measure: [least, most]; null leaves a side open", key="between")
    without: dict[str, tuple[str, ...]] = setting(None, "measure or tag: the words that drop a clip", key="without")
    damaged: bool = setting(True, "drop clips with frames that may not be as they were, since the file is damaged")
    repeats: bool = setting(True, "keep the best clip of each group that shows the same", flag="--repeats")
    opening_ending: bool = setting(True, "drop what runs through the openings and endings of several sources")

    def __post_init__(self) -> None:
        object.__setattr__(self, "between", dict(DEFAULT_BETWEEN if self.between is None else self.between))
        object.__setattr__(self, "without", dict(DEFAULT_WITHOUT if self.without is None else self.without))
        for name, (least, most) in self.between.items():
            if least is not None and most is not None and least > most:
                raise BadConfig(f"no clip can have such a {name}", got=f"[{least}, {most}]", expected="[least, most]")


#: Two to eight seconds is the paper's training range (S2.1). Flow: stills measure 0, with grain and codec noise too, and
#: the calmest of 71 real shots in which something moves 0.23. The others were set on the histograms of real clips.
DEFAULT_BETWEEN: dict[str, Bounds] = {
    "duration_s": (2.0, 8.0),
    "flow": (0.1, None),
    "text_cover": (None, 0.02),
    "quality": (0.2, None),
    "aesthetic": (None, None),
}
#: by the tag `camera.kind`; a still under a moving camera stays, it shows what cameras do
DEFAULT_WITHOUT: dict[str, tuple[str, ...]] = {"camera.kind": ("still", "slideshow")}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The table with its verdicts, and the funnel: (rule, how many it dropped), in the order in which rules were asked.

    `unmeasured` counts clips that only lack a measurement: running the pipeline again would decide them.
    `nearest_miss` says, when nothing was kept, which clip came closest and what it lacked.
    """

    table: pa.Table
    funnel: tuple[tuple[str, int], ...]
    num_kept: int
    unmeasured: int = 0
    nearest_miss: str | None = None


class _Verdicts:
    """The first reason of each clip so far, as a number into `words`; 0 is none."""

    def __init__(self, count: int) -> None:
        self.code = np.zeros(count, np.int32)
        self.words = [""]
        self.funnel: list[tuple[str, int]] = []

    def drop(self, rule: str, broken: np.ndarray) -> None:
        """Gives the clips that break a rule its name as reason, unless they have one."""
        self._mark(broken, len(self.words))
        self.words.append(rule)
        self.funnel.append((rule, int(np.count_nonzero(self.code == len(self.words) - 1))))

    def drop_faulty(self, faults: pa.ChunkedArray) -> None:
        """Gives the clips with a fault that fault as reason."""
        encoded = faults.combine_chunks().dictionary_encode()
        number = np.asarray(encoded.indices.fill_null(-1))
        self._mark(number >= 0, number + len(self.words))
        self.words += encoded.dictionary.to_pylist()
        self.funnel.append(("fault", int(np.count_nonzero(self.code))))

    def _mark(self, broken: np.ndarray, code: int | np.ndarray) -> None:
        self.code = np.where(broken & (self.code == 0), code, self.code).astype(np.int32)

    @property
    def kept(self) -> np.ndarray:
        return self.code == 0


def select(table: pa.Table, rules: Rules, *, so_far: bool = False) -> Selection:
    """Decides every clip anew. Raises BadConfig for a rule about a column that the table does not have.

    A measure that has not looked at a clip yet is asked last: only a clip that nothing else drops is dropped for want
    of it, so what has fallen out before never needs it. `so_far` leaves that last rule out: this is how the pipeline
    finds the clips that are worth the next measure.
    """
    _check_names(table, rules)
    verdicts = _Verdicts(table.num_rows)
    verdicts.drop_faulty(table["fault"])
    if rules.damaged and "damage" in table.column_names:
        verdicts.drop("damaged", np.asarray(pc.fill_null(table["damage"], 0.0)) > 0)
    for name, bounds in rules.between.items():
        if bounds == (None, None):
            continue
        for rule, broken in _outside(table, name, bounds).items():
            if rule == f"no_{name}":
                broken = broken & ~is_word(table, f"{name}_reason", NOT_MEASURED)
            verdicts.drop(rule, broken)
    for name, words in rules.without.items():
        column = _column_of_words(table, name)  # looked up once: tags of a million clips take their time
        for word in words:
            verdicts.drop(f"{name}={word}", _says(column, word))
    if rules.opening_ending:
        verdicts.drop("opening_ending", is_word(table, "repeat_kind", "opening_ending"))
    verdicts.drop("benchmark_leak", is_word(table, "repeat_kind", "leak"))
    if rules.repeats:
        verdicts.drop("repeat", _repeats(table, verdicts.kept))
    if not so_far:
        for name, bounds in rules.between.items():
            if bounds != (None, None):
                verdicts.drop(f"{name}_{NOT_MEASURED}", is_word(table, f"{name}_reason", NOT_MEASURED))
    return _finished(table, rules, verdicts)


def _finished(table: pa.Table, rules: Rules, verdicts: _Verdicts) -> Selection:
    kept = verdicts.kept
    indices = pa.array(verdicts.code, pa.int32(), mask=kept)
    reasons = pa.DictionaryArray.from_arrays(indices, pa.array(verdicts.words, pa.string())).cast(pa.string())
    words = pc.if_else(pa.array(kept), KEEP, DROP)
    decided = table.set_column(table.column_names.index("verdict"), "verdict", words)
    decided = decided.set_column(decided.column_names.index("reason"), "reason", reasons)
    num_kept = int(kept.sum())
    unmeasured = int(sum(count for rule, count in verdicts.funnel if rule.endswith(NOT_MEASURED)))
    return Selection(
        table=decided,
        funnel=tuple(verdicts.funnel),
        num_kept=num_kept,
        unmeasured=unmeasured,
        nearest_miss=None if num_kept or not table.num_rows else _nearest_miss(table, rules),
    )


def _check_names(table: pa.Table, rules: Rules) -> None:
    known = measures_of(table)
    for name in rules.between:
        if name not in known or not pa.types.is_floating(table.schema.field(name).type):
            numbers = [other for other in known if pa.types.is_floating(table.schema.field(other).type)]
            raise BadConfig("a rule about an unknown measure", got=name, expected=", ".join(numbers))


def _outside(table: pa.Table, name: str, bounds: Bounds) -> dict[str, np.ndarray]:
    """rule -> clips that break it, for the sides of one bound that are set; and those without a score."""
    column = table[name]
    missing = np.asarray(pc.is_null(column))
    values = np.asarray(pc.fill_null(column, 0.0), dtype=np.float32)
    least, most = bounds
    broken = {f"no_{name}": missing}
    if least is not None:
        broken[f"{name}_low"] = ~missing & (values < np.float32(least))
    if most is not None:
        broken[f"{name}_high"] = ~missing & (values > np.float32(most))
    return broken


def is_word(table: pa.Table, name: str, word: str) -> np.ndarray:
    """[n] whether a column of words, or the tag of that name, says `word`."""
    return _says(_column_of_words(table, name), word)


def _says(column: pa.ChunkedArray, word: str) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.equal(column, word), False))


def _column_of_words(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pc.map_lookup(table["tags"], name, "first")
    if pa.types.is_floating(table.schema.field(name).type):
        raise BadConfig("a rule of words about a number", got=name, hint=f"between: {{{name}: [least, most]}}")
    return table[name]


def words_of(table: pa.Table, name: str) -> np.ndarray:
    """[n] a column of words, or the tag of that name, as objects; nothing is ''."""
    column = _column_of_words(table, name)
    encoded = column.combine_chunks().dictionary_encode()
    words = np.array([*(word or "" for word in encoded.dictionary.to_pylist()), ""], dtype=object)
    return words[np.asarray(encoded.indices.fill_null(len(words) - 1))]


def _repeats(table: pa.Table, candidates: np.ndarray) -> np.ndarray:
    """The candidates that show what a better candidate of their group shows.

    Better is: more pixels, then higher quality, then the smaller id, so that the choice does not depend on order.
    """
    groups = table["repeat_group"].combine_chunks().dictionary_encode()
    code = np.asarray(groups.indices.fill_null(-1))
    rows = np.flatnonzero(candidates & (code >= 0))
    if not len(rows):
        return np.zeros(table.num_rows, bool)
    area = np.asarray(table["crop_w_px"].fill_null(0), np.int64) * np.asarray(table["crop_h_px"].fill_null(0), np.int64)
    quality = np.asarray(pc.fill_null(table["quality"], -1.0), np.float32)
    ids = np.argsort(np.argsort(np.asarray(table["clip_id"].take(pa.array(rows)), dtype=object)))
    order = rows[np.lexsort((ids, -quality[rows], -area[rows], code[rows]))]
    is_best = np.r_[True, code[order][1:] != code[order][:-1]]
    repeated = np.zeros(table.num_rows, bool)
    repeated[order[~is_best]] = True
    return repeated


def _nearest_miss(table: pa.Table, rules: Rules) -> str:
    """The clip that breaks the fewest rules, by the smallest margin, in words."""
    broken = np.zeros(table.num_rows)
    margin = np.zeros(table.num_rows)
    for name, bounds in rules.between.items():
        for rule, misses in _outside(table, name, bounds).items() if bounds != (None, None) else ():
            broken += misses
            values = np.asarray(pc.fill_null(table[name], 0.0), np.float64)
            bound = bounds[0] if rule.endswith("_low") else bounds[1]
            far = np.abs(values - (bound or 0)) / max(abs(bound or 0), 1e-6) if not rule.startswith("no_") else 1e3
            margin += np.where(misses, far, 0)
    for name, words in rules.without.items():
        broken += np.isin(words_of(table, name), words)
    faults = words_of(table, "fault")
    broken += 1000 * (faults != "")
    nearest = int(np.lexsort((margin, broken))[0])
    row = table.slice(nearest, 1).to_pylist()[0]
    if faults[nearest]:
        return f"no source could be used; {row['source_path']}: {faults[nearest]}"
    lacks = [
        f"{name} {_shown(row[name]) if row[name] is not None else 'is missing (' + str(row[name + '_reason']) + ')'}"
        f" (rule: {_range(bounds)})"
        for name, bounds in rules.between.items()
        if any(misses[nearest] for misses in _outside(table.slice(0), name, bounds).values()) and bounds != (None, None)
    ]
    lacks += [
        f"{name} is {words_of(table, name)[nearest]}"
        for name, words in rules.without.items()
        if words_of(table, name)[nearest] in words
    ]
    where = f"{row['source_path']}, frames {row['start_frame']} to {row['end_frame']}"
    return f"{where}: " + ("; ".join(lacks) or "dropped as a repeat")


def _range(bounds: Bounds) -> str:
    least, most = bounds
    parts = [f"at least {least:g}"] if least is not None else []
    return ", ".join(parts + ([f"at most {most:g}"] if most is not None else []))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def merged(rules: Rules, between: Mapping[str, Bounds], without: Mapping[str, tuple[str, ...]]) -> Rules:
    """`rules` with some of its entries replaced."""
    return replace(rules, between={**rules.between, **between}, without={**rules.without, **without})
