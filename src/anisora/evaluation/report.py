"""One page about a folder of scores, and the same tables for a spreadsheet: report.html, report.xlsx, leaderboard.csv.

Everything comes from `results.jsonl` (with `facts.jsonl`, where a suite was run, and `votes.jsonl`, where people were
asked); the clips are opened only to show the best and the worst of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anisora.errors import AnisoraError
from anisora.evaluation.leaderboard import (
    DIMENSIONS,
    Row,
    Verdict,
    backends,
    board,
    by_fact,
    load_rows,
    metrics,
    mixed_versions,
    nulls,
    scores_by,
    table_1,
    table_4,
)
from anisora.evaluation.people import Figure as Agreement
from anisora.evaluation.people import human_scores, with_people
from anisora.evaluation.plots import dots_svg, intervals_svg, radar_svg
from anisora.evaluation.ranking import MIN_PROMPTS, Difference, Ranking
from anisora.evaluation.run_suite import REAL, SAMPLES
from anisora.evaluation.votes import VOTES, Vote, read_votes
from anisora.files import write_atomic
from anisora.store import Figure, Section, Table, read_jsonl, report_page

#: how many of the best and of the worst clips are shown for each dimension, and frames of each
_SHOWN, _FRAMES = 3, 5
_STRIP_PX = 520

_ABOUT = (
    "Scores run from 0 to 100, higher is better. A mean is over prompts, each counted once, and stands with its 95 % "
    "interval from drawing prompts anew. Models of one tier are not known to differ: the intervals of all their differences, "
    "taken prompt by prompt, hold together with 95 %."
)


def write_report(
    folder: str | Path, *, videos: Mapping[str, Path] | None = None, votes: str | Path | None = None
) -> list[Path]:
    """Writes the page and the tables of a folder of results into it, and returns their paths.

    `videos` says where the clip of a sample id lies, where neither `facts.jsonl` nor `samples.jsonl` in the folder do;
    clips that are not there are left out of the pictures. `votes` is a file of what people said of the clips, `votes.jsonl`
    in the folder where there is one. Raises BadInput without results or for a file that holds no votes, WriteFailed.
    """
    folder = Path(folder)
    rows = load_rows(folder)
    said = _votes(folder, votes)
    human = human_scores(said)
    boards = {backend: board([row for row in rows if row.record.backend == backend]) for backend in backends(rows)}
    clips = _videos(folder, rows) | dict(videos or {})
    sections: list[Section] = []
    for backend, rankings in boards.items():
        own = [row for row in rows if row.record.backend == backend]
        suffix = f" ({backend})" if len(boards) > 1 else ""
        sections += _sections(own, rankings, clips, suffix, human)
    agreement = with_people(rows, said) if said else []
    if agreement:
        sections.insert(1, _with_people(agreement))
    page = report_page("Evaluation", sections, lead=_lead(rows))
    written = [write_atomic(folder / "report.html", page.encode())]
    written.append(write_atomic(folder / "leaderboard.csv", _csv(leaderboard_lines(boards)).encode("utf-8")))
    written.append(write_atomic(folder / "scores.csv", _csv(score_lines(rows)).encode("utf-8")))
    if agreement:
        written.append(write_atomic(folder / "agreement.csv", _csv(agreement_lines(agreement)).encode("utf-8")))
    written.append(write_atomic(folder / "report.xlsx", lambda path: _write_xlsx(path, rows, boards, agreement, human)))
    return written


def _votes(folder: Path, votes: str | Path | None) -> list[Vote]:
    path = Path(votes) if votes is not None else folder / VOTES
    return read_votes(path) if votes is not None or path.is_file() else []


def _lead(rows: Sequence[Row]) -> str:
    clips = {row.record.sample_id for row in rows}
    models = {row.model for row in rows}
    prompts = {row.prompt for row in rows}
    return f"{len(clips)} clips of {len(prompts)} prompts, {len(models)} models or folders."


def _videos(folder: Path, rows: Sequence[Row]) -> dict[str, Path]:
    found = {line["id"]: folder / line["video"] for line in _lines(folder / SAMPLES) if line.get("video")}
    return found | {row.record.sample_id: folder / row.facts["video"] for row in rows if row.facts.get("video")}


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.is_file() else []


# -------------------------------------------------------------------------------------------------------- the page


def _sections(
    rows: Sequence[Row],
    rankings: Mapping[str, Ranking],
    clips: Mapping[str, Path],
    suffix: str,
    human: Mapping[str, float],
) -> list[Section]:
    parts = [
        _leaderboard(rows, rankings),
        _differences(rankings),
        _paper_table_1(rows, human),
        _paper_table_4(rows),
        *[
            _by(rows, fact, title)
            for fact, title in (("action", "By action"), ("style", "By style"), ("setting", "By guides"))
        ],
        *_best_and_worst(rows, clips),
        _unscored(rows),
    ]
    return [
        Section(heading=part.heading + suffix, paragraphs=part.paragraphs, figures=part.figures, tables=part.tables)
        for part in parts
        if part is not None
    ]


def _leaderboard(rows: Sequence[Row], rankings: Mapping[str, Ranking]) -> Section:
    models = sorted({row.model for row in rows}, key=lambda model: (-_average(rankings, model), model))
    named = [name for name in DIMENSIONS if name in rankings]
    cells = [[model, *(_cell(rankings[name], model) for name in rankings)] for model in models]
    figures = []
    if len(named) >= 3:
        radar = {model: [_mean(rankings[name], model) for name in named] for model in models}
        # wide enough to stand on a row of its own
        figures.append(Figure(source=radar_svg([DIMENSIONS[name] for name in named], radar), width_px=700))
    for name in named:
        figures.append(Figure(source=intervals_svg(rankings[name].means), caption=DIMENSIONS[name], width_px=460))
    notes = [_ABOUT]
    if mixed := mixed_versions(rows):
        notes.append(
            f"Scored by more than one version, so not comparable: {', '.join(mixed)}. Score those clips again."
        )
    return Section(
        heading="Leaderboard",
        paragraphs=notes,
        figures=figures,
        tables=[
            Table(columns=("model", *map(_short, rankings)), rows=cells, caption="mean [95 % interval], tier, prompts")
        ],
    )


def _cell(ranking: Ranking, model: str) -> str | None:
    if model not in ranking.means:
        return None
    tier = f", tier {ranking.tiers[model]}" if len(ranking.models) > 1 else ""
    return f"{_show(ranking.means[model])}{tier}, n {ranking.means[model]['n']}"


def _show(interval: Mapping[str, Any]) -> str:
    if interval["mean"] is None:
        return "–"
    return f"{interval['mean']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]"


def _mean(ranking: Ranking, model: str) -> float | None:
    mean = ranking.means.get(model, {}).get("mean")
    return None if mean is None else float(mean)


def _average(rankings: Mapping[str, Ranking], model: str) -> float:
    """The mean over the dimensions that a model has scores in; only orders the rows."""
    known = [mean for name in DIMENSIONS if name in rankings and (mean := _mean(rankings[name], model)) is not None]
    return sum(known) / len(known) if known else 0.0


def _short(metric: str) -> str:
    return DIMENSIONS.get(metric, metric)


def _differences(rankings: Mapping[str, Ranking]) -> Section | None:
    lines = [(name, difference) for name, ranking in rankings.items() for difference in ranking.differences]
    if not lines:
        return None
    table = Table(
        columns=(
            "dimension",
            "models",
            "difference",
            "95 % for this pair",
            "95 % for all pairs",
            "p (Holm)",
            "prompts",
            "says",
        ),
        rows=[
            (
                _short(name),
                f"{d.a} – {d.b}",
                d.mean,
                _ends(d.low, d.high),
                _ends(d.all_low, d.all_high),
                d.p_holm,
                d.n,
                says(d),
            )
            for name, d in lines
        ],
    )
    return Section(heading="Which differences are real", tables=[table])


def _ends(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:+.2f} to {high:+.2f}"


def says(difference: Difference) -> str:
    """What a difference allows to be said, in words."""
    if difference.n < MIN_PROMPTS:
        return f"too few shared prompts ({difference.n} of {MIN_PROMPTS})"
    if not difference.is_real:
        return "no difference shown"
    return f"{difference.a if (difference.mean or 0) > 0 else difference.b} is better"


_PEOPLE = (
    "What people said of these clips against the scores, with 95 % intervals from drawing prompts anew. Order: how often two "
    "clips of one prompt stand as people have them, ties counted; how small a difference is a tie was chosen on other prompts. "
    "Soft: whether the scores are as sure as people are of which model is better, 1 at best. Alpha: raters among themselves."
)


def _with_people(lines: Sequence[Mapping[str, Any]]) -> Section:
    cells = [
        (
            _short(line["dimension"]), line["backend"], f"{line['kind']}s of {line['raters']} people",
            *(_agreed(line[name]) for name in ("spearman", "kendall", "pairwise", "soft", "alpha")),
            line["clips"], line["prompts"], line["votes"], line["left_out"],
        )
        for line in lines
    ]  # fmt: skip
    columns = ("dimension", "backend", "votes", "Spearman", "Kendall", "order", "soft", "alpha")
    table = Table(columns=(*columns, "clips", "prompts", "votes counted", "left out"), rows=cells)
    return Section(heading="Agreement with people", paragraphs=[_PEOPLE], tables=[table])


def _agreed(figure: Agreement | None) -> str | None:
    if figure is None or figure["value"] is None:
        return None
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


_HUMAN = (
    "Human evaluation: ratings as opinion scores (each rater's strictness taken out), 1 to 5 as 0 to 100, averaged over the"
    " dimensions that were rated, or those of `overall` alone; over the clips of a system that people rated."
)
_NOBODY = "Human evaluation stands empty: no ratings of these clips were given (`report --votes`)."


def _paper_table_1(rows: Sequence[Row], human: Mapping[str, float]) -> Section | None:
    lines = table_1(rows, human)
    if not any(line[metric]["n"] for line in lines for metric in DIMENSIONS):
        return None
    cells = [
        [line["system"], line["human"]["mean"], *(line[metric]["mean"] for metric in DIMENSIONS)] for line in lines
    ]
    return Section(
        heading="As in the paper's Table 1",
        paragraphs=[_HUMAN if any(line["human"]["n"] for line in lines) else _NOBODY],
        tables=[Table(columns=("Models", "Human Evaluation", *DIMENSIONS.values()), rows=cells)],
    )


def _paper_table_4(rows: Sequence[Row]) -> Section | None:
    if not any(row.facts.get("dimension") for row in rows):
        return None
    tables = [
        Table(
            columns=("Dims", "3D", "2D", "All"),
            rows=[(DIMENSIONS[m], *(part[name]["mean"] for name in ("3d", "2d", "all"))) for m, part in by.items()],
            caption=model,
        )
        for model in sorted({row.model for row in rows})
        for by in [table_4(rows, model)]
    ]
    return Section(heading="As in the paper's Table 4", tables=tables)


def _by(rows: Sequence[Row], fact: str, title: str) -> Section | None:
    if len({row.facts.get(fact) for row in rows if row.facts.get(fact)}) < 2:
        return None
    figures = [
        Figure(source=dots_svg(by_fact(rows, metric, fact)), caption=DIMENSIONS[metric], width_px=520)
        for metric in metrics(rows)
        if metric in DIMENSIONS
    ]
    return Section(heading=title, figures=figures)


def _unscored(rows: Sequence[Row]) -> Section | None:
    lines = [
        (model, _short(metric), reason, count)
        for (model, metric), reasons in nulls(rows).items()
        for reason, count in reasons.items()
        if reason != "descriptive"
    ]
    if not lines:
        return None
    table = Table(columns=("model", "dimension", "reason", "clips"), rows=lines)
    return Section(
        heading="Not scored", paragraphs=["No score is not a low score: these count nowhere."], tables=[table]
    )


# ---------------------------------------------------------------------------------------------- best and worst clips


def _best_and_worst(rows: Sequence[Row], clips: Mapping[str, Path]) -> list[Section]:
    """For each dimension the worst and the best clips, and where the two leading models differ most, side by side."""
    strips = _Strips(clips)
    sections = []
    for metric in DIMENSIONS:
        scored = sorted(
            (row for row in rows if row.record.metric == metric and row.record.score is not None),
            key=lambda row: (row.record.score or 0.0, row.record.sample_id),
        )
        if len(scored) < 2:
            continue
        shown = min(_SHOWN, len(scored) // 2)
        figures = [strips.of(row, "worst") for row in scored[:shown]]
        figures += [strips.of(row, "best") for row in scored[::-1][:shown]]
        figures += _farthest_apart(scored, rows, metric, strips)
        found = [figure for figure in figures if figure is not None]
        if found:
            sections.append(Section(heading=f"{DIMENSIONS[metric]}: worst and best clips", figures=found))
    return sections


def _farthest_apart(scored: Sequence[Row], rows: Sequence[Row], metric: str, strips: _Strips) -> list[Figure | None]:
    """Both clips of the prompt on which the two best models differ most."""
    tables = scores_by([row for row in rows if row.model != REAL], metric, lambda row: row.model)
    leaders = sorted(tables, key=lambda model: -sum(tables[model].values()) / len(tables[model]))[:2]
    if len(leaders) < 2:
        return []
    a, b = leaders
    apart: dict[Hashable, float] = {p: abs(tables[a][p] - tables[b][p]) for p in tables[a] if p in tables[b]}
    if not apart:
        return []
    prompt = max(apart, key=lambda p: (apart[p], str(p)))
    pair = [next(row for row in scored if row.model == model and row.prompt == prompt) for model in leaders]
    return [strips.of(row, "most apart") for row in pair]


class _Strips:
    """A few frames of a clip in a row; each clip is decoded once, one that is absent or unreadable gives none."""

    def __init__(self, clips: Mapping[str, Path]) -> None:
        self._clips = clips
        self._made: dict[str, Any] = {}

    def of(self, row: Row, why: str) -> Figure | None:
        """The strip of a row's clip, captioned with its score."""
        name = row.record.sample_id
        if name not in self._made:
            self._made[name] = self._strip(self._clips.get(name))
        if self._made[name] is None:
            return None
        prompt = row.facts.get("prompt")
        caption = f"{why}: {row.record.score:.1f}, {name}" + (f": {prompt}" if prompt else "")
        return Figure(source=self._made[name], caption=caption, width_px=_STRIP_PX)

    @staticmethod
    def _strip(path: Path | None) -> bytes | None:
        from anisora.media.frames import contact_sheet
        from anisora.media.reader import read_video

        if path is None or not path.is_file():
            return None
        try:
            frames = read_video(path).frames_THWC
        except AnisoraError:
            return None
        chosen = [frames[round(k * (len(frames) - 1) / (_FRAMES - 1))] for k in range(_FRAMES)]
        sheet = contact_sheet(chosen, columns=len(chosen))
        sheet.thumbnail((2 * _STRIP_PX, 2 * _STRIP_PX))
        buffer = io.BytesIO()
        sheet.quantize(128).save(buffer, "PNG", optimize=True)  # a page with twenty strips stays below 3 MB
        return buffer.getvalue()


# --------------------------------------------------------------------------------------------------- for spreadsheets


def leaderboard_lines(boards: Mapping[str, Mapping[str, Ranking]]) -> list[dict[str, Any]]:
    """One line a backend, metric and model: mean, interval, tier, places, prompts."""
    return [
        {
            "backend": backend, "metric": metric, "model": model,
            **{key: ranking.means[model][key] for key in ("mean", "low", "high")},
            "tier": ranking.tiers[model], "best_place": ranking.places[model][0], "worst_place": ranking.places[model][1],
            "prompts": ranking.means[model]["n"],
        }
        for backend, rankings in boards.items()
        for metric, ranking in rankings.items()
        for model in ranking.models
    ]  # fmt: skip


def agreement_lines(agreement: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a dimension, backend and kind of vote: each figure with its ends."""
    ends = (("", "value"), ("_low", "low"), ("_high", "high"))
    lines = []
    for line in agreement:
        figures = {name: line[name] or {} for name in ("spearman", "kendall", "pairwise", "soft", "alpha")}
        flat = {f"{name}{end}": figure.get(key) for name, figure in figures.items() for end, key in ends}
        ties = {"pairwise_without_ties": "without_ties", "pairwise_tie_below": "epsilon"}
        flat |= {column: figures["pairwise"].get(key) for column, key in ties.items()}
        lines.append({key: value for key, value in line.items() if key not in figures} | flat)
    return lines


def difference_lines(boards: Mapping[str, Mapping[str, Ranking]]) -> list[dict[str, Any]]:
    """One line a backend, metric and pair of models."""
    return [
        {"backend": backend, "metric": metric, **vars(difference), "says": says(difference)}
        for backend, rankings in boards.items()
        for metric, ranking in rankings.items()
        for difference in ranking.differences
    ]


def score_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line a sample and metric, with what is known of the sample."""
    columns: Sequence[tuple[str, Callable[[Row], Any]]] = (
        ("sample_id", lambda row: row.record.sample_id),
        ("model", lambda row: row.model),
        ("prompt_id", lambda row: row.record.prompt_id),
        ("group", lambda row: row.record.group),
        *[(fact, lambda row, fact=fact: row.facts.get(fact)) for fact in ("action", "style", "dimension", "setting")],  # type: ignore[misc]
        ("backend", lambda row: row.record.backend),
        ("metric", lambda row: row.record.metric),
        ("version", lambda row: row.record.version),
        ("raw", lambda row: row.record.raw),
        ("unit", lambda row: row.record.unit),
        ("score", lambda row: row.record.score),
        ("reason", lambda row: row.record.reason),
    )
    return [{name: value(row) for name, value in columns} for row in rows]


def verdict_lines(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """One line a metric of a comparison of two, as plain data."""
    return [
        {
            "metric": v.metric, "a": v.difference.a, "b": v.difference.b, "mean_a": v.mean_a, "mean_b": v.mean_b,
            "difference": v.difference.mean, "low": v.difference.low, "high": v.difference.high, "p": v.difference.p,
            "p_holm": v.p_holm, "prompts": v.difference.n, "better": v.better, "would_see": v.would_see,
        }
        for v in verdicts
    ]  # fmt: skip


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _safe(value) for name, value in line.items()} for line in lines])
    return buffer.getvalue()


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is kept a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _write_xlsx(
    path: Path,
    rows: Sequence[Row],
    boards: Mapping[str, Mapping[str, Ranking]],
    agreement: Sequence[Mapping[str, Any]],
    human: Mapping[str, float],
) -> None:
    from openpyxl import Workbook
    from openpyxl.styles import Font

    sheets = {
        "leaderboard": leaderboard_lines(boards),
        "differences": difference_lines(boards),
        "people": agreement_lines(agreement),
        "table 1": _flat_table_1(rows, human),
        "table 4": _flat_table_4(rows),
        "scores": score_lines(rows),
    }
    book = Workbook()
    book.remove(book.active)
    for title, lines in sheets.items():
        if not lines:
            continue
        sheet = book.create_sheet(title)
        sheet.append(list(lines[0]))
        for cell in sheet[1]:
            cell.font = Font(bold=True)
        for line in lines:
            sheet.append([_safe(value) for value in line.values()])
        sheet.freeze_panes = "A2"
        sheet.auto_filter.ref = sheet.dimensions
    book.save(path)


def _flat_table_1(rows: Sequence[Row], human: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {"Models": line["system"], "Human Evaluation": line["human"]["mean"]}
        | {title: line[metric]["mean"] for metric, title in DIMENSIONS.items()}
        for line in table_1(rows, human)
    ]


def _flat_table_4(rows: Sequence[Row]) -> list[dict[str, Any]]:
    if not any(row.facts.get("dimension") for row in rows):
        return []
    return [
        {"Model": model, "Dims": DIMENSIONS[metric]} | {name.upper(): part["mean"] for name, part in parts.items()}
        for model in sorted({row.model for row in rows})
        for metric, parts in table_4(rows, model).items()
    ]
