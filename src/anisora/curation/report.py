"""One page about a set: the funnel, how scores are spread, what other thresholds would keep, and what lies at the line.

Everything comes from the table, the ledger and the thumbnails of the scan: no video is opened, no server is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation.cells import CellStore
from anisora.curation.config import CurateConfig
from anisora.curation.ledger import Ledger
from anisora.curation.scan import Scan
from anisora.curation.select import KEEP, Bounds, Selection, select
from anisora.curation.table import measures_of
from anisora.errors import BadInput
from anisora.files import write_atomic
from anisora.store import Figure, Section, Table, report_page

#: how many clips on each side of a threshold are shown
_EXAMPLES = 4
_BINS = 40
#: rows beyond which all but the funnel is drawn from a sample
_SAMPLE = 100_000

_WORDS = {
    "text_cover": "share of the picture under text",
    "quality_filter": "probability that people would keep it",
    "professional": "probability that a studio made it",
    "borders": "share of the picture in borders",
    "edge_cover": "text-like edges, for ranking",
    "flow": "motion between distinct drawings, % of the width a second",
    "aesthetic": "aesthetic score",
    "quality": "technical quality",
    "duration_s": "length in seconds",
    "damage": "share of frames that may be damaged",
    "drawing_fps": "drawings a second, camera motion taken out",
}


def write_report(out: Path, selection: Selection, config: CurateConfig) -> Path:
    """Writes `report.html` and returns its path."""
    table, rules = selection.table, config.select
    sample = table.slice(0, _SAMPLE)  # ids are hashes: the first ones are any ones
    sections = [
        _funnel(selection),
        _histograms(sample, rules.between),
        _what_if(sample, config),
        *_cut_lines(out, sample, rules.between),
        _classes(sample),
        _faults(table),
        _sources(table),
        _cost(out),
    ]
    kept_s = float(pc.sum(pc.if_else(pc.equal(table["verdict"], KEEP), table["duration_s"], 0.0)).as_py() or 0)
    lead = f"{selection.num_kept} of {table.num_rows} clips kept, {length_text(kept_s)}."
    if table.num_rows > _SAMPLE:
        lead += f" Below the funnel, {_SAMPLE} of them stand for all."
    if selection.nearest_miss:
        lead += f" Nearest miss: {selection.nearest_miss}."
    page = report_page("Curation", [section for section in sections if section is not None], lead=lead)
    return write_atomic(out / "report.html", page.encode())


def length_text(seconds: float) -> str:
    """A time span in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


# ------------------------------------------------------------------------------------------------------------ sections


def _funnel(selection: Selection) -> Section:
    left, rows = selection.table.num_rows, []
    total = max(1, left)
    bars = [("found", left, 0)]
    for rule, dropped in selection.funnel:
        if not dropped:
            continue
        left -= dropped
        rows.append((rule, dropped, left, f"{left / total:.1%}"))
        bars.append((rule, left, dropped))
    table = Table(columns=("rule", "dropped", "left", "of all"), rows=[("found", None, total, "100.0%"), *rows])
    return Section(
        heading="The funnel",
        paragraphs=["Rules are asked in this order; a clip counts under the first that it breaks."],
        figures=[Figure(source=funnel_svg(bars), width_px=760)],
        tables=[table],
    )


def _numbers(table: pa.Table) -> list[str]:
    """The measures that are numbers and have any."""
    return [
        name
        for name in measures_of(table)
        if pa.types.is_floating(table.schema.field(name).type) and table[name].null_count < table.num_rows
    ]


def _values(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(values, which rows have one)."""
    return np.asarray(pc.fill_null(table[name], 0.0), np.float64), np.asarray(pc.is_valid(table[name]))


def _histograms(table: pa.Table, between: Mapping[str, Bounds]) -> Section:
    kept = np.asarray(pc.equal(table["verdict"], KEEP))
    figures = []
    for name in _numbers(table):
        values, has = _values(table, name)
        picture = histogram_svg(values[has], values[has & kept], between.get(name, (None, None)))
        missing = int((~has).sum())
        caption = f"{name}: {_WORDS.get(name, '')}" + (f"; {missing} without a score" if missing else "")
        figures.append(Figure(source=picture, caption=caption, width_px=360))
    return Section(
        heading="How scores are spread",
        paragraphs=[
            "Light: all clips with a score. Dark: those kept. Lines: the thresholds. Ends gather the outer 1\u00a0%."
        ],
        figures=figures,
    )


def _what_if(table: pa.Table, config: CurateConfig) -> Section:
    """For each threshold: how many clips would be kept if it alone were moved."""
    tables = []
    for name, bounds in config.select.between.items():
        if name not in _numbers(table):
            continue
        others = {other: b for other, b in config.select.between.items() if other != name}
        rules = type(config.select)(
            between={**others, name: (None, None)}, without=config.select.without,
            repeats=config.select.repeats, opening_ending=config.select.opening_ending,
        )  # fmt: skip
        passes = np.asarray(pc.equal(select(table, rules).table["verdict"], KEEP))
        values, has = _values(table, name)
        pool = values[passes & has]
        if not len(pool):
            continue
        steps = np.unique(np.quantile(values[has], np.linspace(0, 1, 9)).round(4))
        now = _passing(pool, bounds)
        tables.append(
            Table(
                caption=f"{name}: kept now {now}",
                columns=("threshold", "kept if at least", "kept if at most"),
                rows=[(float(s), _passing(pool, (s, bounds[1])), _passing(pool, (bounds[0], s))) for s in steps],
            )
        )
    return Section(
        heading="What if",
        paragraphs=[
            "Clips kept if one threshold were moved and all other rules stayed, other bounds of the same measure included."
            " Try it without deciding: anisora curate select DIR --keep flow=0.2: --dry-run"
        ],
        tables=tables,
    )


def _passing(values: np.ndarray, bounds: tuple[float | None, float | None]) -> int:
    least, most = bounds
    fits = np.ones(len(values), bool)
    if least is not None:
        fits &= values.astype(np.float32) >= np.float32(least)
    if most is not None:
        fits &= values.astype(np.float32) <= np.float32(most)
    return int(fits.sum())


def _cut_lines(out: Path, table: pa.Table, between: Mapping[str, Bounds]) -> Iterator[Section]:
    """The clips nearest to each threshold, on both sides of it."""
    pictures = _Thumbnails(out)
    for name, bounds in between.items():
        if name not in _numbers(table):
            continue
        values, has = _values(table, name)
        for side, bound in zip(("least", "most"), bounds, strict=True):
            if bound is None:
                continue
            far = np.where(has, np.abs(values - bound), np.inf)
            passes = values >= bound if side == "least" else values <= bound
            figures = []
            for inside in (False, True):
                order = np.argsort(np.where(passes == inside, far, np.inf), kind="stable")[:_EXAMPLES]
                rows = table.take(pa.array(order[np.isfinite(far[order]) & (passes[order] == inside)])).to_pylist()
                figures += [_example(pictures, row, name, inside) for row in rows]
            figures = [figure for figure in figures if figure is not None]
            if figures:
                yield Section(
                    heading=f"At the line: {name} at {side} {bound:g}",
                    paragraphs=["First what it just drops, then what it just keeps."],
                    figures=figures,  # type: ignore[arg-type]
                )


def _example(pictures: _Thumbnails, row: Mapping[str, Any], name: str, inside: bool) -> Figure | None:
    picture = pictures.of(row)
    if picture is None:
        return None
    verdict = row["verdict"] if row["verdict"] == KEEP else f"{row['verdict']}: {row['reason']}"
    words = f"{'passes' if inside else 'breaks'}: {name} {row[name]:.4g} ({verdict}); frames {row['start_frame']}"
    return Figure(
        source=picture, caption=f"{words} to {row['end_frame']} of {Path(row['source_path']).name}", width_px=240
    )


def _classes(table: pa.Table) -> Section | None:
    """How often each word was said, of all clips and of those kept."""
    tables = []
    kept = table.filter(pc.equal(table["verdict"], KEEP))
    for name in measures_of(table):
        if pa.types.is_floating(table.schema.field(name).type) or table[name].null_count == table.num_rows:
            continue
        among = {entry["values"]: entry["counts"] for entry in pc.value_counts(kept[name].drop_null()).to_pylist()}
        counts = pc.value_counts(table[name].drop_null()).to_pylist()
        rows = sorted(((e["values"], e["counts"], among.get(e["values"], 0)) for e in counts), key=lambda row: -row[1])
        tables.append(Table(caption=name, columns=("word", "clips", "kept"), rows=rows))
    return Section(heading="What the clips are", tables=tables) if tables else None


def _faults(table: pa.Table) -> Section | None:
    faulty = table.filter(pc.is_valid(table["fault"]))
    if not faulty.num_rows:
        return None
    rows = [
        (
            row["source_path"],
            None if row["n_frames"] is None else f"{row['start_frame']} to {row['end_frame']}",
            row["fault"],
        )
        for row in faulty.slice(0, 200).to_pylist()
    ]
    paragraphs = [f"{faulty.num_rows} in all; anisora curate retry DIR lets them be tried again."]
    return Section(
        heading="What could not be used",
        paragraphs=paragraphs,
        tables=[Table(columns=("source", "frames", "reason"), rows=rows)],
    )


def _sources(table: pa.Table) -> Section:
    kept = pc.equal(table["verdict"], KEEP).cast(pa.int64())
    grouped = table.select(["source_path", "licence", "split"]).append_column("kept", kept)
    totals = grouped.group_by(["source_path", "licence", "split"]).aggregate([("kept", "sum"), ("kept", "count")])
    rows = sorted(
        ((r["source_path"], r["licence"], r["split"], r["kept_count"], r["kept_sum"]) for r in totals.to_pylist()),
        key=lambda row: (-row[4], row[0] or ""),
    )[:200]
    return Section(
        heading="Sources", tables=[Table(columns=("source", "licence", "split", "clips", "kept"), rows=rows)]
    )


def _cost(out: Path) -> Section | None:
    if not (out / "ledger.sqlite").exists():
        return None
    with Ledger(out / "ledger.sqlite") as ledger:
        costs = ledger.costs()
    rows = [
        (c["stage"], c["done"], c["failed"], c["quarantined"], c["retries"], c["cpu_s"], c["seconds"],
         (c["peak_rss_bytes"] or 0) / 2**20)
        for c in costs
    ]  # fmt: skip
    columns = ("stage", "units done", "failed", "quarantined", "tried again", "CPU s", "wall s", "largest worker, MiB")
    return Section(heading="Cost", tables=[Table(columns=columns, rows=rows)])


class _Thumbnails:
    """The picture of a clip nearest to its middle, from the strip that the scan stored."""

    def __init__(self, out: Path) -> None:
        self._out = out
        cells = CellStore(out).read("cells")
        cells = cells.filter(pc.and_(pc.equal(cells["name"], "signal:thumbnails"), pc.is_valid(cells["word"])))
        self._files = dict(zip(cells["clip_id"].to_pylist(), cells["word"].to_pylist(), strict=True))
        self._strips: dict[str, Any] = {}

    def of(self, row: Mapping[str, Any]) -> Any:
        """A PIL image; None where the scan has none for the clip."""
        from PIL import Image

        source = row["source_sha256"]
        if source not in self._files:
            return None
        if source not in self._strips:
            try:
                self._strips[source] = Scan.load(self._out / self._files[source]).signals["thumbnails"]
            except (BadInput, KeyError):
                return None
        strip = self._strips[source]
        middle = (row["start_frame"] + row["end_frame"]) // 2
        nearest = int(np.argmin(np.abs(strip["index"] - middle)))
        data = strip["jpeg"][strip["start"][nearest] : strip["end"][nearest]].tobytes()
        return Image.open(io.BytesIO(data)).convert("RGB")


# ------------------------------------------------------------------------------------------------------------ pictures


def histogram_svg(values: np.ndarray, kept: np.ndarray, bounds: Bounds) -> bytes:
    """A histogram as SVG: all values, the kept ones over them, and the bounds as lines."""
    low, high = np.quantile(values, [0.01, 0.99]) if len(values) > 20 else (values.min(), values.max())
    for bound in bounds:
        if bound is not None:
            low, high = min(low, bound), max(high, bound)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    all_counts, _ = np.histogram(np.clip(values, low, high), edges)
    kept_counts, _ = np.histogram(np.clip(kept, low, high), edges)
    width, height, floor = 360, 160, 130
    step, scale = width / _BINS, 120 / max(1, all_counts.max())
    bars = [
        f'<rect x="{i * step:.1f}" y="{floor - count * scale:.1f}" width="{step - 1:.1f}" height="{count * scale:.1f}"'
        f' fill="{color}"/>'
        for counts, color in ((all_counts, "#b9c4d0"), (kept_counts, "#2b6cb0"))
        for i, count in enumerate(counts)
        if count
    ]
    lines = [
        f'<line x1="{(b - low) / (high - low) * width:.1f}" x2="{(b - low) / (high - low) * width:.1f}" y1="4"'
        f' y2="{floor}" stroke="#c53030" stroke-width="1.5"/>'
        for b in bounds
        if b is not None
    ]
    text = [
        f'<text x="{x}" y="{floor + 18}" font-size="12" text-anchor="{anchor}" fill="#777">{_tick(value, high - low)}</text>'
        for x, anchor, value in ((2, "start", low), (width / 2, "middle", (low + high) / 2), (width - 2, "end", high))
    ]
    return _svg(width, height, [*bars, *lines, f'<path d="M0 {floor}H{width}" stroke="#777"/>', *text])


def _tick(value: float, span: float) -> str:
    """A number as finely as an axis of that length needs it."""
    return f"{round(value, max(0, 2 - math.floor(math.log10(span)))) + 0.0:g}"


def funnel_svg(bars: Sequence[tuple[str, int, int]]) -> bytes:
    """The funnel as SVG: one bar a step, (name, left, dropped)."""
    total, height = max(1, bars[0][1]), 26
    drawn = []
    for number, (name, left, dropped) in enumerate(bars):
        y = number * height
        wide, lost = 460 * left / total, 460 * dropped / total
        drawn.append(f'<rect x="180" y="{y + 3}" width="{wide:.1f}" height="{height - 6}" fill="#2b6cb0"/>')
        drawn.append(
            f'<rect x="{180 + wide:.1f}" y="{y + 3}" width="{lost:.1f}" height="{height - 6}" fill="#e2b6b6"/>'
        )
        drawn.append(f'<text x="172" y="{y + 18}" font-size="13" text-anchor="end" fill="#777">{name}</text>')
        drawn.append(f'<text x="{186 + wide + lost:.1f}" y="{y + 18}" font-size="13" fill="#777">{left}</text>')
    return _svg(760, height * len(bars), drawn)


def _svg(width: int, height: int, shapes: Sequence[str]) -> bytes:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">'
    )
    return (head + "".join(shapes) + "</svg>").encode()
