"""From a folder of videos to a training set, stage by stage; interrupted anywhere, the next run goes on from there.

    hash -> scan -> shots and cheap measures -> gate -> measures that see pixels -> crop -> files -> captions -> select
         -> mixtures, shards, report

A stage asks the store which results are missing under the present settings, has the engine make them, and writes no state
of its own: what is there is not made again, whoever made it. Clips that fall at a gate cost nothing after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from anisora.curation import table as clips
from anisora.curation.assemble import SOURCE, assemble, unique_spans
from anisora.curation.cells import CellStore, cell_of, word_cell
from anisora.curation.config import CurateConfig, default_workers
from anisora.curation.executors import Executor, Unit, open_executor
from anisora.curation.executors.drive import Settled, drive
from anisora.curation.ledger import Ledger, locked
from anisora.curation.mixture import mix, save
from anisora.curation.parts import make_captioner, make_plan
from anisora.curation.plan import Plan
from anisora.curation.repeats import MARKS, find_marks
from anisora.curation.select import KEEP, Rules, Selection, select
from anisora.curation.shards import write_shards
from anisora.curation.sources import Source, find_sources, text_of
from anisora.curation.tasks import ClipBatch, ClipTask, caption_cell, caption_row, file_view, load_signals
from anisora.files import remove_partials, write_atomic
from anisora.settings import plain
from anisora.store import content_hash

Progress = Callable[[str, int, int], None]

#: clips of one source that travel together: enough to share an open file, few enough to lose
CLIPS_A_UNIT = 16
#: seconds any unit may take, beside what its length in video allows
BASE_S = 120.0

LEDGER, CLIPS, SOURCES, PURGED, RUN = "ledger.sqlite", "clips.parquet", "sources.parquet", "purged.txt", "run.json"
#: where workers note what they do; of no use once they have ended
NOTES = ".workers"


@dataclass(frozen=True, kw_only=True)
class Curated:
    """How a run ended: numbers of sources and clips, the funnel, the manifest hash, and what went wrong."""

    out: str
    sources: int
    clips: int
    kept: int
    kept_s: float
    manifest_hash: str
    funnel: tuple[tuple[str, int], ...]
    shards: dict[str, int]
    mixtures: dict[str, int]
    faults: dict[str, int]
    unmeasured: int
    nearest_miss: str | None
    passed_over: int
    seconds: float


def curate(
    named: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: CurateConfig | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    progress: Progress = lambda phase, done, total: None,
    say: Callable[[str], object] = lambda text: None,
) -> Curated:
    """Runs the pipeline on videos and folders of them; sources of earlier runs into the same folder stay part of the set.

    Raises BadInput and BadConfig before any work, Failed when another run holds the folder, WriteFailed when the disk is
    full; a video or clip that goes wrong is a row with a reason.
    """
    started = time.monotonic()
    config = config or CurateConfig()
    found, passed_over = find_sources(
        named, licence=config.licence, licences=Path(config.licences) if config.licences else None
    )
    folder = Path(out).absolute()
    with locked(folder) as dead:
        if dead:
            say(f"took over the lock of {dead}, which is gone")
        remove_partials(folder)
        shutil.rmtree(folder / NOTES, ignore_errors=True)
        plan = make_plan(config)
        with (
            Ledger(folder / LEDGER) as ledger,
            open_executor(
                engine,
                workers=workers or default_workers(),
                notes=str(folder / NOTES),
                memory_bytes=int(config.memory_gib * 2**30),
                address=address,
            ) as executor,
        ):
            run = _Run(folder, config, plan, ledger, executor, progress)
            run.take_in(found)
            run.scan()
            run.measure()
            run.find_repeats()
            while run.score() or run.crop():
                pass  # a clip that falls may leave its place to a copy that nobody has looked at yet
            run.apply_heads()
            run.encode()
            run.caption()
            selection = run.finish()
            shards = write_shards(
                folder, selection.table, config.shards, lambda done, total: progress("shards", done, total)
            )
            progress("report", 0, 1)
            mixtures = run.mix(selection.table)
            run.sweep(selection.table)
            run.review(selection.table)
        result = _result(folder, run, selection, shards, mixtures, passed_over, time.monotonic() - started)
        remember(folder, config, result)
        from anisora.curation.report import write_report

        write_report(folder, selection, config)
        shutil.rmtree(folder / NOTES, ignore_errors=True)
        remove_partials(folder)  # a worker on another machine may have outlived a driver that was killed
        progress("report", 1, 1)
    return result


class _Run:
    """One run: where, with which settings, and what has been made so far."""

    def __init__(
        self, out: Path, config: CurateConfig, plan: Plan, ledger: Ledger, executor: Executor, progress: Progress
    ) -> None:
        self.out, self.config, self.plan = out, config, plan
        self.ledger, self.executor, self.progress = ledger, executor, progress
        self.store = CellStore(out)
        self.sources = _read_sources(out)
        self.cropped: set[str] = set()
        self.marks = MARKS.empty_table()

    # ----------------------------------------------------------------------------------------------------- machinery

    def _drive(self, stage: str, units: Sequence[Unit]) -> Iterator[Settled]:
        self.progress(stage, 0, len(units))
        settled = drive(self.executor, units, self.ledger, stage=stage)
        for done, one in enumerate(settled, start=1):
            yield one
            self.progress(stage, done, len(units))

    def _make(self, stage: str, units: Sequence[tuple[Unit, Sequence[tuple[str, str, str, str]]]]) -> None:
        """Has units made; one that fails as a whole leaves its cells (clip, name, key, view) with its reason."""
        cells_of = {unit.key: cells for unit, cells in units}
        for settled in self._drive(stage, [unit for unit, _ in units]):
            if settled.state == "done":
                continue
            outcome = settled.outcome
            rows = [
                word_cell(
                    clip, name, key, None, view=view, reason=outcome.reason, message=outcome.message, is_fault=True
                )
                for clip, name, key, view in cells_of[settled.unit.key]
            ]
            self.store.write("cells", "fault-" + settled.unit.key, rows)
        self.store.compact("cells")
        self.store.compact("spans")

    def _deadline_s(self, video_s: float) -> float:
        return BASE_S + self.config.deadline_factor * video_s

    def _have(self, name_prefix: str = "") -> set[tuple[str, str, str, str]]:
        """(clip_id, name, key, view) of every cell there is."""
        cells = self.store.read("cells")
        if name_prefix:
            cells = cells.filter(pc.starts_with(cells["name"], name_prefix))
        names = ("clip_id", "name", "key", "view")
        return set(zip(*(cells[name].to_pylist() for name in names), strict=True))

    # --------------------------------------------------------------------------------------------------------- stages

    def take_in(self, found: Sequence[Source]) -> None:
        """Hashes what is new or changed and brings `sources.parquet` up to date."""
        digests: dict[bytes, tuple[str, int, float | None]] = {}
        old = {row["path_bytes"]: row for row in self.sources.to_pylist()}
        units = []
        for source in found:
            path = os.fsencode(source.path)
            digest = None if source.fault else self._known_hash(source.path)
            if digest and path in old and old[path]["source_sha256"] == digest:
                digests[path] = (digest, old[path]["num_bytes"], old[path]["duration_s"])
            elif not source.fault:
                size = os.stat(source.path).st_size
                units.append(
                    Unit(
                        key=content_hash(["hash", text_of(source.path), size, os.stat(source.path).st_mtime_ns]),
                        task="anisora.curation.tasks:hash_source",
                        arguments={"path": source.path},
                        deadline_s=BASE_S + size / 2**20,
                    )
                )
        faults: dict[bytes, tuple[str, str]] = {}
        for settled in self._drive("hash", units):
            path = settled.unit.arguments["path"]
            value = settled.outcome.value
            if settled.state != "done":
                faults[os.fsencode(path)] = (_unreadable(settled), settled.outcome.message)
                continue
            self.ledger.remember(path, value["size"], value["mtime_ns"], value["sha256"])
            digests[os.fsencode(path)] = (value["sha256"], value["size"], value["duration_s"])
        self.sources = _merged_sources(self.sources, found, digests, faults, self.config, _purged(self.out))
        clips.write(self.sources, self.out / SOURCES)

    def _known_hash(self, path: Path) -> str | None:
        try:
            return self.ledger.sha256(path)
        except OSError:
            return None

    def _usable(self) -> list[dict[str, Any]]:
        return [row for row in self.sources.to_pylist() if row["fault"] in (None, "no_shots")]

    def scan(self) -> None:
        """Decodes each source once, for the observers whose signals are not there yet."""
        have = self._have("signal:")
        units = []
        for source in sorted(self._usable(), key=lambda row: -(row["duration_s"] or 0)):
            sha = source["source_sha256"]
            lacking = [w for w in self.plan.watches if (sha, f"signal:{w.name}", w.key, "") not in have]
            if not lacking:
                continue
            key = content_hash(["scan", sha, sorted([w.name, w.key] for w in lacking)])
            unit = Unit(
                key=key,
                task="anisora.curation.tasks:scan_source",
                arguments={
                    "out": self.out, "unit_key": key, "path": _path(source), "sha256": sha, "watches": lacking,
                },
                deadline_s=self._deadline_s(source["duration_s"] or source["num_bytes"] / 1e5),
            )  # fmt: skip
            units.append((unit, [(sha, f"signal:{w.name}", w.key, "") for w in lacking]))
        self._make("scan", units)
        self._note_damage()

    def _note_damage(self) -> None:
        """How many frames each source has, and how many errors it took to decode them, for `sources.parquet`."""
        cells = self.store.read("cells").select(["clip_id", "name", "key", "details"])
        keys = pa.array([f"signal:{w.name} {w.key}" for w in self.plan.watches])
        is_present = pc.is_in(pc.binary_join_element_wise(cells["name"], cells["key"], " "), keys)
        found = cells.filter(pc.and_(is_present, pc.is_valid(cells["details"]))).to_pylist()
        counted = {row["clip_id"]: json.loads(row["details"]) for row in found}
        rows = [row | counted.get(row["source_sha256"], {}) for row in self.sources.to_pylist()]
        self.sources = pa.Table.from_pylist(rows, schema=SOURCE)

    def _signals(self) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        """source -> (observer -> file, observer -> reason)."""
        keys = {f"signal:{w.name}": w for w in self.plan.watches}
        cells = self.store.read("cells")
        cells = cells.filter(pc.starts_with(cells["name"], "signal:"))
        found: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        for row in cells.select(["clip_id", "name", "key", "word", "reason", "message"]).to_pylist():
            if row["name"] not in keys or keys[row["name"]].key != row["key"]:
                continue
            files, errors = found.setdefault(row["clip_id"], ({}, {}))
            name = row["name"].removeprefix("signal:")
            if row["word"]:
                files[name] = row["word"]
            else:
                errors[name] = f"{row['reason']}: {row['message']}" if row["message"] else row["reason"]
        return found

    def measure(self) -> None:
        """Shots and cheap measures, from stored signals; a source whose scan failed has a fault from here on."""
        signals = self._signals()
        self._note_faults(signals)
        spans = self.store.read("spans")
        have_spans = set(spans.filter(pc.equal(spans["key"], self.plan.spans_key))["source_sha256"].to_pylist())
        clips_by_source: dict[str, list[str]] = {}
        for row in (
            spans.filter(pc.equal(spans["key"], self.plan.spans_key)).select(["source_sha256", "clip_id"]).to_pylist()
        ):
            clips_by_source.setdefault(row["source_sha256"], []).append(row["clip_id"])
        have = self._have()
        units = []
        for source in self._usable():
            sha = source["source_sha256"]
            ids = clips_by_source.get(sha, [])
            lacking = [u for u in self.plan.cheap if any((c, u.name, u.key, "") not in have for c in ids)]
            is_known = sha in have_spans or (sha, "shots", self.plan.spans_key, "") in have
            if is_known and not lacking:
                continue
            files, errors = signals[sha]
            uses = lacking if is_known else list(self.plan.cheap)
            key = content_hash(["measure", sha, self.plan.spans_key, sorted(files.items()), [u.key for u in uses]])
            unit = Unit(
                key=key,
                task="anisora.curation.tasks:measure_source",
                arguments={
                    "out": self.out, "unit_key": key, "path": _path(source), "sha256": sha,
                    "files": files, "errors": errors, "spans_key": self.plan.spans_key, "find": self.plan.find,
                    "longest_s": self.config.longest_s, "measures": uses,
                },
                deadline_s=self._deadline_s(source["duration_s"] or 600),
            )  # fmt: skip
            units.append((unit, [(sha, "shots", self.plan.spans_key, "")]))
        self._make("measure", units)
        self._note_faults(signals)

    def _note_faults(self, signals: Mapping[str, tuple[dict[str, str], dict[str, str]]]) -> None:
        """Sources of which no signal is there, or no shot could be found, get the reason as their fault."""
        cells = self.store.read("cells")
        failed = cells.filter(pc.and_(pc.equal(cells["name"], "shots"), pc.equal(cells["key"], self.plan.spans_key)))
        reasons = {r["clip_id"]: (r["reason"], r["message"]) for r in failed.to_pylist() if r["reason"]}
        for sha, (files, errors) in signals.items():
            if not files:
                code, _, words = next(iter(errors.values()), "no_signals").partition(": ")
                reasons[sha] = (code, words)
        rows = self.sources.to_pylist()
        for row in rows:
            row["fault"], row["message"] = reasons.get(row["source_sha256"], (row["fault"], row["message"]))
        self.sources = pa.Table.from_pylist(rows, schema=SOURCE)

    def table(self, crops: Iterable[str] | None = None) -> pa.Table:
        """The table as it stands, without verdicts. `crops`: the clips whose crop counts (none by default)."""
        return assemble(
            self.sources,
            self.store.read("spans"),
            self.store.read("cells"),
            spans_key=self.plan.spans_key,
            measures=self.plan.measures,
            kinds=self.plan.kinds,
            crop=self.plan.crop,
            cropped=set(crops or ()),
            file=self.plan.file,
            caption=self.plan.caption,
            marks=self.marks,
        )

    def find_repeats(self) -> None:
        """Which clips show the same as others, or as the benchmark: from signals, over all sources at once."""
        signals = self._signals()
        sources = {row["source_sha256"]: row for row in self._usable()}
        spans = unique_spans(self.store.read("spans"), self.plan.spans_key, self.sources)
        self.marks = find_marks(
            self.out,
            spans,
            lambda sha: load_signals(self.out, *signals[sha], _path(sources[sha])),
            benchmark=Path(self.config.benchmark) if self.config.benchmark else None,
            progress=lambda done, total: self.progress("repeats", done, total),
        )

    def candidates(self, table: pa.Table, rules: Rules | None = None) -> list[dict[str, Any]]:
        """The rows that fulfil every rule as far as it has been measured."""
        decided = select(table, rules or self.config.select, so_far=True).table
        return decided.filter(pc.equal(decided["verdict"], KEEP)).to_pylist()

    def score(self) -> int:
        """The measures that see pixels, one after the other: a clip that one of them drops does not reach the next.

        How many results were made.
        """
        made = 0
        for use in self.plan.heavy:
            have = self._have(use.name)
            tasks = [ClipTask(row=row, lacks=(use.name,)) for row in self.candidates(self.table(self.cropped))]
            lacking = [
                t for t in tasks if (t.clip_id, use.name, use.key, t.view if use.follows_crop else "") not in have
            ]
            self._make(use.name, self._clip_units("score_clips", lacking, {"measures": [use]}, [use]))
            made += len(lacking)
        return made

    def _clip_units(
        self, task: str, tasks: Sequence[ClipTask], extra: Mapping[str, Any], uses: Sequence[Any]
    ) -> list[tuple[Unit, list[tuple[str, str, str, str]]]]:
        """Units of some clips of one source each, in the order of their spans."""
        signals = self._signals()
        sources = {row["source_sha256"]: row for row in self.sources.to_pylist()}
        by_source: dict[str, list[ClipTask]] = {}
        for one in sorted(tasks, key=lambda one: (one.row["source_sha256"], one.span)):
            by_source.setdefault(one.row["source_sha256"], []).append(one)
        units = []
        for sha, group in by_source.items():
            files, errors = signals[sha]
            for start in range(0, len(group), CLIPS_A_UNIT):
                part = group[start : start + CLIPS_A_UNIT]
                cells = [
                    (one.clip_id, use.name, use.key, one.view if use.follows_crop else "")
                    for one in part
                    for use in uses
                ]
                key = content_hash([task, cells])
                path = _path(sources[sha])
                batch = ClipBatch(out=self.out, key=key, path=path, files=files, errors=errors, tasks=part)
                unit = Unit(
                    key=key,
                    task=f"anisora.curation.tasks:{task}",
                    arguments={"batch": batch, **extra},
                    deadline_s=self._deadline_s(sum(float(one.span.duration_s) for one in part)),
                )
                units.append((unit, cells))
        return units

    def crop_candidates(self, table: pa.Table) -> set[str]:
        """The clips with text on them that nothing else drops: what a crop could save or, where the text is little enough to
        be kept, clean. A function of scores and rules, not of history."""
        rules = self.config.select
        bounds = rules.between.get("text_cover", (None, None))
        if not self.config.crop.enabled or bounds[1] is None or self.plan.crop.key == "":
            return set()
        without = replace(rules, between={n: b for n, b in rules.between.items() if n != "text_cover"})
        rows = self.candidates(table, without)
        return {row["clip_id"] for row in rows if row["text_cover"]}

    def crop(self) -> int:
        """Looks for a part of the picture without overlays, for clips with text on them; how many were looked at.

        Whose crop counts is a function of scores and rules, so it is found anew whenever scores have come.
        """
        table = self.table()
        before, self.cropped = self.cropped, self.crop_candidates(table)
        have = self._have(self.plan.crop.name)
        rows = [row for row in table.to_pylist() if row["clip_id"] in self.cropped]
        lacking = [
            ClipTask(row=row)
            for row in rows
            if (row["clip_id"], self.plan.crop.name, self.plan.crop.key, "") not in have
        ]
        extra = {"settings": self.config.crop, "key": self.plan.crop.key}
        units = self._clip_units("crop_clips", lacking, extra, [self.plan.crop])
        self._make("crop", self._with_middles(units) if units else [])
        return len(lacking) + len(self.cropped ^ before)

    def _with_middles(self, units: Sequence[tuple[Unit, Any]]) -> list[tuple[Unit, Any]]:
        """The units, each told the middle frame of every clip of its source, dropped ones too: what logos are known by."""
        spans = self.store.read("spans")
        spans = spans.filter(pc.equal(spans["key"], self.plan.spans_key))
        middles: dict[str, set[int]] = {}
        for row in spans.select(["source_sha256", "start_frame", "end_frame"]).to_pylist():
            middles.setdefault(row["source_sha256"], set()).add((row["start_frame"] + row["end_frame"]) // 2)
        told = []
        for unit, cells in units:
            frames = sorted(middles[unit.arguments["batch"].tasks[0].row["source_sha256"]])
            told.append((replace(unit, arguments={**unit.arguments, "middles": frames}), cells))
        return told

    def apply_heads(self) -> None:
        """What trained heads make of the features of every clip that has them: no pixels, no workers."""
        from anisora.curation.heads import apply_heads

        if not self.plan.heads:
            return
        features = self._features()
        rows = []
        for column in self.plan.heads:
            have = self._have(column.name)
            lacking = {
                f"{clip} {view}": values
                for (clip, view), values in features.items()
                if (clip, column.name, column.key, view) not in have
            }
            for name, scores in apply_heads(lacking, self.config.heads, only=[column.name]).items():
                clip, _, view = name.partition(" ")
                rows.append(cell_of(clip, column.key, scores[column.name], view=view))
        key = content_hash(["heads", sorted((r["clip_id"], r["name"], r["key"], r["view"]) for r in rows)])
        self.store.write("cells", key, rows)

    def _features(self) -> dict[tuple[str, str], dict[str, float]]:
        """(clip, crop) -> what heads read of it."""
        key = next((use.key for use in self.plan.heavy if use.name == "features"), "")
        cells = self.store.read("cells")
        wanted = pc.and_(pc.equal(cells["name"], "features"), pc.equal(cells["key"], key))
        cells = cells.filter(pc.and_(wanted, pc.is_valid(cells["details"])))
        rows = cells.select(["clip_id", "view", "details"]).to_pylist()
        return {(row["clip_id"], row["view"]): json.loads(row["details"]) for row in rows}

    def review(self, table: pa.Table) -> None:
        """The features of the clips, for training heads, and the page on which people label them."""
        from anisora.curation.heads import apply_heads, write_features
        from anisora.curation.review import FEATURES, PAGE, write_review

        rows = [row for row in table.to_pylist() if row["path"]]
        found = self._features()
        features = {
            row["clip_id"]: found[key] for row in rows if (key := (row["clip_id"], ClipTask(row=row).view)) in found
        }
        if not features:
            return
        write_features(self.out / FEATURES, features)
        write_review(
            [row | {"tags": dict(row["tags"] or [])} for row in rows],
            self.out / PAGE,
            scores=apply_heads(features, self.config.heads),
        )

    def encode(self) -> None:
        """A file for every clip that fulfils all rules; those that are there already stay."""
        rows = [row for row in self.kept() if not (row["path"] and (self.out / row["path"]).exists())]
        extra = {"encoding": self.config.encode, "key": self.plan.file.key}
        self._make(
            "encode", self._clip_units("encode_clips", [ClipTask(row=row) for row in rows], extra, [self.plan.file])
        )

    def kept(self) -> list[dict[str, Any]]:
        """The rows that fulfil every rule."""
        decided = select(self.table(self.cropped), self.config.select).table
        return decided.filter(pc.equal(decided["verdict"], KEEP)).to_pylist()

    def caption(self) -> None:
        """Captions of the clips that have files."""
        if self.plan.caption.key == "":
            return
        have = self._have("caption")
        tasks = [ClipTask(row=row) for row in self.kept() if row["path"]]
        key = self.plan.caption.key
        lacking = [task for task in tasks if (task.clip_id, "caption", key, task.view) not in have]
        if self.config.caption.backend == "bundled":
            extra = {"key": key, "make_captioner": partial(make_captioner, self.config)}
            self._make("caption", self._clip_units("caption_files", lacking, extra, [self.plan.caption]))
        elif lacking:
            self._caption_here(lacking, key)

    def _caption_here(self, tasks: Sequence[ClipTask], key: str) -> None:
        """Captions by a large model or an endpoint: one of it, in this process, for all clips."""
        from anisora.curation.captions import caption_clips

        by_id = {task.clip_id: task for task in tasks}
        captioned = caption_clips(
            [caption_row(task.row) for task in tasks],
            lambda clip_id: file_view(self.out, by_id[clip_id].row),
            make_captioner(self.config),
            self.out / "captions" / f"{key}.jsonl",
            progress=lambda done, total: self.progress("caption", done, total),
        )
        rows = [caption_cell(row, by_id[row["clip_id"]], key) for row in captioned]
        self.store.write("cells", content_hash(["caption", key, sorted(by_id)]), rows)

    def finish(self) -> Selection:
        """The final table with its verdicts, written; that of the sources too, with what was found out about them."""
        clips.write(self.sources, self.out / SOURCES)
        selection = select(self.table(self.cropped), self.config.select)
        clips.write(selection.table, self.out / CLIPS)
        return selection

    def mix(self, table: pa.Table) -> dict[str, int]:
        """The draws of every training stage that was asked for; a stage nothing fits is an error of its own."""
        made = {}
        for stage in self.config.all_stages():
            mixture = mix(table, stage)
            save(mixture, self.out / "mixtures")
            made[stage.name] = mixture.num_draws
        return made

    def sweep(self, table: pa.Table) -> None:
        """Removes files that no row of the table knows: leftovers of other settings, sources and interrupted runs."""
        known = set(table["path"].to_pylist())
        folder = self.out / "clips"
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and str(path.relative_to(self.out)) not in known:
                path.unlink()


# ------------------------------------------------------------------------------------------------------------- helpers


def _path(source: Mapping[str, Any]) -> Path:
    return Path(os.fsdecode(source["path_bytes"]))


def _unreadable(settled: Settled) -> str:
    """The code of a file that could not be hashed."""
    outcome = settled.outcome
    return "unreadable" if outcome.reason in ("permission_error", "os_error", "failed") else outcome.reason


def _read_sources(out: Path) -> pa.Table:
    """The sources of earlier runs; faults that scans found are left out, since their results say so themselves."""
    path = out / SOURCES
    if not path.exists():
        return SOURCE.empty_table()
    rows = [
        row if not row["num_bytes"] else row | {"fault": None, "message": None} for row in clips.read(path).to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=SOURCE)


def _purged(out: Path) -> set[str]:
    path = out / PURGED
    return set(path.read_text().split()) if path.exists() else set()


def _merged_sources(
    old: pa.Table,
    found: Sequence[Source],
    digests: Mapping[bytes, tuple[str, int, float | None]],
    faults: Mapping[bytes, tuple[str, str]],
    config: CurateConfig,
    purged: set[str],
) -> pa.Table:
    """Old and new sources, one a content: the first path that has it. What lies under an old path now replaces it."""
    named = {os.fsencode(source.path) for source in found}
    by_hash = {row["source_sha256"]: row for row in old.to_pylist() if row["path_bytes"] not in named}
    for source in found:
        path = os.fsencode(source.path)
        sha, size, duration_s = digests.get(path) or (hashlib.sha256(b"path:" + path).hexdigest(), 0, None)
        if sha in purged:
            continue
        known = by_hash.get(sha)
        if known is not None and known["path_bytes"] <= path:
            continue
        fault, message = faults.get(path, (source.fault, None))
        by_hash[sha] = {
            "source_sha256": sha,
            "source_id": sha[:16],
            "source_path": text_of(source.path),
            "path_bytes": path,
            "num_bytes": size,
            "duration_s": duration_s,
            "licence": source.licence,
            "provenance": source.provenance,
            "split": source.split or _split(sha, config.validation),
            "fault": fault,
            "message": message,
        }
    return pa.Table.from_pylist([by_hash[sha] for sha in sorted(by_hash)], schema=SOURCE)


def _split(sha256: str, validation: float) -> str:
    """All clips of a source are on one side, by its content."""
    return "validation" if int(sha256[:8], 16) / 2**32 < validation else "train"


def _result(
    out: Path,
    run: _Run,
    selection: Selection,
    shards: dict[str, int],
    mixtures: dict[str, int],
    passed_over: int,
    seconds: float,
) -> Curated:
    table = selection.table
    kept = table.filter(pc.equal(table["verdict"], KEEP))
    faults = pc.value_counts(table["fault"].drop_null()).to_pylist()
    return Curated(
        out=str(out),
        sources=run.sources.num_rows,
        clips=table.num_rows,
        kept=selection.num_kept,
        kept_s=float(pc.sum(kept["duration_s"]).as_py() or 0.0),
        manifest_hash=clips.manifest_hash(table),
        funnel=selection.funnel,
        shards=shards,
        mixtures=mixtures,
        faults={entry["values"]: entry["counts"] for entry in faults},
        unmeasured=selection.unmeasured,
        nearest_miss=selection.nearest_miss,
        passed_over=passed_over,
        seconds=seconds,
    )


def remember(out: Path, config: CurateConfig, result: Curated) -> None:
    """Writes the resolved settings and the result beside what they made."""
    text = json.dumps({"config": plain(config), "result": plain(result)}, indent=2, ensure_ascii=False)
    write_atomic(out / RUN, text.encode())
