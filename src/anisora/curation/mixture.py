"""How much of what: a training stage as a table of clip ids, in exact proportions, without touching a video.

A stage says which of the kept clips it takes, the best share of them if it wants that, and the proportions of any tags
("60 % talking, a third of each grade of motion"). The counts come out as whole numbers that meet every proportion
exactly (to the clip: largest remainder), all of them at once, by integer programming over the few combinations of tags.
Which clips fill a combination is drawn by hash, so that another proportion changes no more than it must.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation.hq import hq_reasons
from anisora.curation.select import DROP, KEEP, Bounds, Rules, select, words_of
from anisora.curation.table import write
from anisora.errors import BadConfig
from anisora.settings import setting

#: what the rule of high quality looks at
HQ_SCORES = ("quality_filter", "text_cover", "flow", "aesthetic", "duration_s")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training stage: what it takes, in which proportions, at which size and rate it is to be read."""

    name: str
    height_px: int = setting(480, "short side at which the loader reads")
    fps: int = setting(16, "frames per second at which the loader reads")
    least_side_px: int | None = setting(
        None, "clips with a shorter side stay out; default: height_px, nothing is enlarged"
    )
    between: dict[str, Bounds] = field(default_factory=dict)
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hq: bool = setting(False, "only clips of high quality: see `curation.hq`")
    best: float | None = setting(None, "the best share of what is left, by rank_by, in (0, 1]")
    rank_by: tuple[str, ...] = setting(("aesthetic", "quality"), "measures whose mean percentile ranks clips")
    proportions: dict[str, dict[str, float]] = field(default_factory=dict)
    num_clips: int | None = setting(None, "how many draws; default: as many as the proportions allow")
    repeats: int = setting(1, "how often one clip may be drawn")
    epochs: float = setting(1.0, "how often the paper went through this stage; for the trainer")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.best is not None and not 0 < self.best <= 1:
            raise BadConfig(f"{self.name}: a share out of range", got=self.best, expected="above 0, at most 1")
        if self.repeats < 1 or (self.num_clips is not None and self.num_clips < 1):
            raise BadConfig(f"{self.name}: nothing would be drawn", expected="num_clips and repeats of 1 or more")
        for tag, shares in self.proportions.items():
            if not shares or any(share < 0 for share in shares.values()) or sum(shares.values()) <= 0:
                raise BadConfig(
                    f"{self.name}: unusable proportions of {tag}", got=shares, expected="ratios of 0 or more"
                )


#: the stages of the paper (S2.1), their order and epochs; the others are its fine-tuning sets (S1.1, S2.1)
PRESETS: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(name="480p-8fps", height_px=480, fps=8, epochs=3.0),
        Stage(name="480p-16fps", height_px=480, fps=16, epochs=1.9),
        Stage(name="720p-16fps", height_px=720, fps=16, epochs=2.3),
        Stage(name="best-10-percent", height_px=720, fps=16, best=0.1),
        Stage(name="high-quality", height_px=720, fps=16, hq=True),
        Stage(name="subtitle-free", height_px=480, fps=16, between={"text_cover": (None, 0.001)}),
    )
}


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a stage draws: `table` has clip_id, draws (1 or more), group (the combination of tags).

    `counts` are the draws by tag and word, `available` the clips by group.
    """

    stage: Stage
    table: pa.Table
    counts: dict[str, dict[str, int]]
    available: dict[str, int]

    @property
    def num_draws(self) -> int:
        return sum(self.table["draws"].to_pylist())


def mix(clips: pa.Table, stage: Stage) -> Mixture:
    """The draws of a stage from the kept clips of the table.

    Raises BadConfig when no clip is left, when a word that a proportion asks for has no clips, and when the proportions
    cannot be met together.
    """
    kept = candidates(clips, stage)
    if not kept.num_rows:
        raise BadConfig(f"{stage.name}: no kept clip fits the stage", hint="a lower least_side_px or wider bounds")
    tags = list(stage.proportions)
    columns = [words_of(kept, tag) for tag in tags]
    for tag, column in zip(tags, columns, strict=True):
        _check_words(stage, tag, column)
    wanted = np.ones(kept.num_rows, bool)
    for tag, column in zip(tags, columns, strict=True):
        wanted &= np.isin(column, [word for word, share in stage.proportions[tag].items() if share > 0])
    groups, group_of = _groups([column[wanted] for column in columns], int(wanted.sum()))
    available = np.bincount(group_of, minlength=len(groups))
    draws = _group_draws(stage, groups, available)
    rows = np.flatnonzero(wanted)
    ids = np.array(kept["clip_id"].take(pa.array(rows)).to_pylist(), dtype=object)
    chosen: list[dict[str, Any]] = []
    for number, group in enumerate(groups):
        chosen += _draw(ids[group_of == number], int(draws[number]), stage, "/".join(group))
    table = pa.Table.from_pylist(
        sorted(chosen, key=lambda row: row["clip_id"]),
        schema=pa.schema([("clip_id", pa.string()), ("draws", pa.int32()), ("group", pa.string())]),
    )
    counts = {
        tag: {
            word: int(sum(draws[n] for n, group in enumerate(groups) if group[place] == word))
            for word in stage.proportions[tag]
        }
        for place, tag in enumerate(tags)
    }
    named = {"/".join(group): int(count) for group, count in zip(groups, available, strict=True)}
    return Mixture(stage=stage, table=table, counts=counts, available=named)


def save(mixture: Mixture, folder: Path) -> Path:
    """Writes the draws as `NAME.parquet`, the stage beside them in the file's own metadata."""
    from anisora.settings import plain
    from anisora.store import canonical_json

    return write(
        mixture.table.replace_schema_metadata({"stage": canonical_json(plain(mixture.stage))}),
        folder / f"{mixture.stage.name}.parquet",
    )


def candidates(clips: pa.Table, stage: Stage) -> pa.Table:
    """The kept clips that a stage may draw from: large enough, within its bounds, the best share of them."""
    kept = clips.filter(pc.equal(clips["verdict"], KEEP))
    side = pc.min_element_wise(kept["crop_w_px"], kept["crop_h_px"])
    kept = kept.filter(pc.greater_equal(side, stage.least_side_px or stage.height_px))
    if stage.between or stage.without:
        rules = Rules(between=stage.between, without=stage.without, repeats=False, opening_ending=False)
        decided = select(kept, rules).table
        kept = kept.filter(pc.not_equal(decided["verdict"], DROP))
    if stage.hq:
        reasons = hq_reasons(kept.select(["clip_id", "verdict", *HQ_SCORES]).to_pylist())
        kept = kept.filter(pa.array([reasons[clip_id] is None for clip_id in kept["clip_id"].to_pylist()], pa.bool_()))
    return _best(kept, stage) if stage.best is not None else kept


def _best(kept: pa.Table, stage: Stage) -> pa.Table:
    """The best share by mean percentile over the measures; a clip without a score ranks last there."""
    ranks = np.zeros(kept.num_rows)
    for name in stage.rank_by:
        if name not in kept.column_names:
            raise BadConfig(f"{stage.name}: nothing to rank by", got=name, expected="a measure of the table")
        values = np.asarray(pc.fill_null(kept[name], -np.inf), np.float64)
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks += (np.cumsum(counts) - (counts + 1) / 2)[place]  # ties share their mean rank
    number = int(np.ceil(kept.num_rows * (stage.best or 1)))
    order = np.lexsort((np.array(kept["clip_id"].to_pylist(), dtype=object), -ranks))
    return kept.take(pa.array(np.sort(order[:number])))


def _check_words(stage: Stage, tag: str, column: np.ndarray) -> None:
    present = {word for word in set(column) if word}
    lacking = [word for word, share in stage.proportions[tag].items() if share > 0 and word not in present]
    if lacking:
        raise BadConfig(
            f"{stage.name}: no clip has {tag}={lacking[0]}",
            got=f"a share of {stage.proportions[tag][lacking[0]]:g} for it",
            expected=f"{tag} among {', '.join(sorted(present)) or 'nothing: no clip has this tag'}",
        )


def _groups(columns: list[np.ndarray], num_clips: int) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The combinations of words that occur, sorted, and the combination of each clip."""
    if not columns:
        return [()], np.zeros(num_clips, np.int64)
    combined = list(zip(*columns, strict=True))
    groups = sorted(set(combined))
    number = {group: index for index, group in enumerate(groups)}
    return groups, np.array([number[group] for group in combined], np.int64)


def _group_draws(stage: Stage, groups: list[tuple[str, ...]], available: np.ndarray) -> np.ndarray:
    """Draws of each combination: whole numbers that meet every proportion exactly."""
    room = available * stage.repeats
    if not stage.proportions:
        total = int(room.sum())
        if stage.num_clips is not None and stage.num_clips > total:
            raise _too_few(stage, total)
        return np.array([stage.num_clips or total])
    most = _largest_total(stage, groups, room)
    if stage.num_clips is not None:
        if stage.num_clips > most:
            raise _too_few(stage, most)
        candidates_ = [stage.num_clips]
    else:
        candidates_ = list(range(most, max(0, most - 50), -1))
    for total in candidates_:
        draws = _whole_draws(stage, groups, room, total)
        if draws is not None:
            return draws
    raise _too_few(stage, most)


def _too_few(stage: Stage, most: int) -> BadConfig:
    return BadConfig(
        f"{stage.name}: the proportions cannot be met together",
        got=f"num_clips {stage.num_clips or 'as many as there are'}, repeats {stage.repeats}",
        expected=f"at most {most} draws",
        hint="fewer num_clips, more repeats, or other proportions",
    )


def _largest_total(stage: Stage, groups: list[tuple[str, ...]], room: np.ndarray) -> int:
    """How many draws the proportions allow, by linear programming."""
    from scipy.optimize import linprog

    rows, shares = _marginals(stage, groups)
    equal = np.hstack([rows, -shares[:, None]])
    cost = np.r_[np.zeros(len(groups)), -1.0]
    solved = linprog(cost, A_eq=equal, b_eq=np.zeros(len(rows)), bounds=[*((0, n) for n in room), (0, None)])
    return int(np.floor(solved.x[-1] + 1e-6)) if solved.success else 0


def _marginals(stage: Stage, groups: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """One row a (tag, word): which combinations have it, and its share."""
    rows, shares = [], []
    for place, ratios in enumerate(stage.proportions.values()):
        for word, ratio in ratios.items():
            rows.append([group[place] == word for group in groups])
            shares.append(ratio / sum(ratios.values()))
    return np.array(rows, float), np.array(shares)


def largest_remainder(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that add up to `total` and differ from shares * total by less than one each (Hamilton)."""
    exact = shares / shares.sum() * total
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.lexsort((np.arange(len(shares)), -(exact - counts)))
    counts[order[: total - counts.sum()]] += 1
    return counts


def _whole_draws(stage: Stage, groups: list[tuple[str, ...]], room: np.ndarray, total: int) -> np.ndarray | None:
    """Draws with the rounded marginals, as near to proportional filling as they go; None where there are none."""
    from scipy.optimize import LinearConstraint, milp

    rows, _ = _marginals(stage, groups)
    sums = np.concatenate(
        [largest_remainder(np.array(list(ratios.values()), float), total) for ratios in stage.proportions.values()]
    )
    count = len(groups)
    target = room / max(1, room.sum()) * total
    # x - above + below = target: the cost is the distance from filling every combination alike
    even = np.hstack([np.eye(count), -np.eye(count), np.eye(count)])
    exact = np.hstack([rows, np.zeros((len(rows), 2 * count))])
    tie = 1e-6 * np.arange(1, count + 1) / count
    solved = milp(
        np.r_[tie, np.ones(2 * count)],
        constraints=[LinearConstraint(even, target, target), LinearConstraint(exact, sums, sums)],
        integrality=np.r_[np.ones(count), np.zeros(2 * count)],
        bounds=_bounds(room, count),
    )
    return np.rint(solved.x[:count]).astype(int) if solved.success else None


def _bounds(room: np.ndarray, count: int) -> Any:
    from scipy.optimize import Bounds as Box

    return Box(np.zeros(3 * count), np.r_[room.astype(float), np.full(2 * count, np.inf)])


def _draw(ids: np.ndarray, draws: int, stage: Stage, group: str) -> list[dict[str, Any]]:
    """Which clips of one combination are drawn, and how often: in the order of their hash with the seed."""
    order = sorted(ids, key=lambda clip_id: hashlib.sha256(f"{stage.seed}:{clip_id}".encode()).digest())
    whole, rest = divmod(draws, max(1, len(order)))
    rows = [{"clip_id": clip, "draws": whole + (place < rest), "group": group} for place, clip in enumerate(order)]
    return [row for row in rows if row["draws"]]
