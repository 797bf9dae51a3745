"""Do the scores notice what they should, and nothing else? Clean clips against the same clips spoiled on purpose.

Everything is recorded, clip by clip, in the same file as any scores; the figures are made from it. Whether a clip or a
kind of corruption may be used for fitting is fixed before: a kind by the table of corruptions, a clip by its name.
What was measured stays good when the calibration changes: scores are then made again from the details. Scorers of the user's
are tried beside the metrics, under their dimension and backend.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import AnisoraError, BadInput
from anisora.evaluation.calibration import table
from anisora.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from anisora.evaluation.metrics import DIMENSIONS, METRICS, calibrated
from anisora.evaluation.plots import matrix_svg
from anisora.evaluation.records import RESULTS, MetricRecord, append_records, read_records
from anisora.evaluation.samples import Sample
from anisora.evaluation.scoring import Scorer, Waiting
from anisora.evaluation.suite import PASSING, answers, ask, label, run_id, score_sample
from anisora.measures.footage import LOOK_PX, Footage, resized
from anisora.store import content_hash, write_atomic

SCORED = tuple(name for name in DIMENSIONS if name != "anime.text_video")

#: The bars of the validation: pairwise order, order across clips (shuffle), what must not improve, held out.
ORDER, ACROSS, ACROSS_SHUFFLE, NOT_IMPROVED, HELD_OUT = 0.95, 0.90, 0.85, 0.55, 0.90

#: Half the size is tried of clips of which half is still all that is looked at, and from no larger ones than this; every
#: second drawing is held for two frames where that many a second are left to look like movement.
HALVED_PX, TWOS_FPS = 2 * LOOK_PX, 20

FIGURES, MATRIX = "validation.json", "matrix.svg"

#: How the ids of drawn clips begin.
DRAWN = "synthetic/"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to try. Clips are cut to `num_frames` and shrunk to `short_px`, which is what the cost depends on.

    Without `matrix` each corruption is measured by the dimension it belongs to and the one it must spare only.
    """

    kinds: tuple[str, ...] = tuple(CORRUPTIONS)
    severities: tuple[int, ...] = SEVERITIES
    metrics: tuple[str, ...] = SCORED
    num_frames: int = 32
    short_px: int = 256
    matrix: bool = True
    invariances: bool = True
    synthetic: int = 12


def clip_use(clip: str) -> str:
    """ "fitting" or "held_out" for a clip, by a hash of its name: the half that nothing may be fitted to."""
    return ("fitting", "held_out")[int(content_hash(clip)[:8], 16) % 2]


def is_learned_from(clip: str) -> bool:
    """Whether the networks for faults may learn from a real clip: half of the half for fitting, and no head that reads them
    is fitted on those. Of what was learned by heart a network is too sure."""
    is_real = not clip.startswith(DRAWN)
    return is_real and clip_use(clip) == "fitting" and int(content_hash(clip)[8:16], 16) % 2 == 1


def clip_seed(clip: str) -> int:
    """What decides where a clip is spoiled, by a hash of its name: one pattern for all clips would be one draw, not many."""
    return int(content_hash(clip)[8:14], 16)


def validate(
    samples: Sequence[Sample],
    out: str | os.PathLike[str],
    plan: Plan | None = None,
    *,
    scorers: Sequence[Scorer] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The figures of `figures`, also written to `out/validation.json`, and how far every score fell as a picture,
    `out/matrix.svg`; resumes from `out/results.jsonl`, where what other versions of a metric or other scorers measured
    counts as missing.

    A clip that cannot be read is left out and named. Raises BadInput when none can.
    """
    plan = plan or Plan()
    path = Path(out) / RESULTS
    clips = [*(_of_file(sample, plan) for sample in samples), *(_drawn(index, plan) for index in range(plan.synthetic))]
    clips.sort(key=lambda clip: clip_use(clip.id))  # those for fitting first: a fit need not wait for the others
    asked = {scorer.run_id for scorer in scorers}
    have = {r.key for r in measured_so_far(path, asked) if r.reason not in PASSING}
    unreadable, previous = {}, None
    with Waiting(scorers) as waiting:
        for index, clip in enumerate(clips):
            if progress:
                progress("clips", index, len(clips))
            try:
                came = clip.load()
            except AnisoraError as problem:
                unreadable[clip.id] = str(problem)
                continue
            clean = _cut(came.frames_THWC, plan.short_px)
            for variant in _variants(clip, clean, previous, plan, came):
                wanted = [metric for metric in variant.metrics if (variant.id, metric, "bundled") not in have]
                due = [scorer for scorer in scorers if variant.is_due(scorer, have)]
                if (wanted or due) and (footage := variant.make()) is not None:
                    append_records(path, _scored(variant, wanted, footage))
                    for scorer in due:
                        append_records(path, _asked(variant, scorer, footage, waiting))
            previous = clean
        append_records(path, map(_about, answers(waiting)))
    if previous is None:
        raise BadInput("no clip could be read", got="; ".join(unreadable.values()) or "no clips")
    result = figures(measured_so_far(path, asked)) | {"unreadable": unreadable}
    write_atomic(Path(out) / FIGURES, json.dumps(result, indent=1, allow_nan=False).encode() + b"\n")
    own = {kind: corruption.dimension for kind, corruption in CORRUPTIONS.items()}
    write_atomic(Path(out) / MATRIX, matrix_svg(result["all"]["fallen"], own))
    return result


def measured_so_far(path: Path, scorers: Collection[str] = ()) -> list[MetricRecord]:
    """The records of a validation that the metrics of today would make, with scores by the calibration in use; and those of
    `scorers`, by their run ids."""
    known, today = read_records(path) if path.exists() else [], run_id()
    own = [r for r in known if r.backend == "bundled" and r.metric in METRICS]
    current = [r for r in own if r.version == METRICS[r.metric].version]
    ours = [r if r.score is None or r.run_id == today else _recalibrated(r, today) for r in current]
    return ours + [r for r in known if r.backend != "bundled" and r.run_id in scorers]


def _recalibrated(record: MetricRecord, today: str) -> MetricRecord:
    raw, score = calibrated(record.metric, record.details)
    params = {**record.params, "calibration": table()["version"]}
    return replace(record, run_id=today, raw=raw, score=score, params=params)


@dataclass(frozen=True, kw_only=True)
class _Came:
    """A clip as it came, at any size."""

    frames_THWC: NDArray[np.uint8]
    fps: Fraction


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """A clip to try; `sample` is what is known of it, for scorers that read more than its frames."""

    id: str
    load: Callable[[], _Came]
    sample: Sample | None = None


def _of_file(sample: Sample, plan: Plan) -> _Clip:
    def load() -> _Came:
        from anisora.media.reader import read_video

        video = read_video(sample.video, num_frames=plan.num_frames, threads=1)
        return _Came(frames_THWC=video.frames_THWC, fps=video.fps)

    return _Clip(id=sample.id, load=load, sample=sample)


def _drawn(index: int, plan: Plan) -> _Clip:
    def load() -> _Came:
        from anisora.synthetic import render_clip

        clip = render_clip(700 + index, 0, n_frames=plan.num_frames, fps=16, size_px=(384, 256))
        return _Came(frames_THWC=clip.video_THWC, fps=Fraction(16))

    return _Clip(id=f"{DRAWN}{700 + index}", load=load)


def _cut(frames_THWC: NDArray[np.uint8], short_px: int) -> NDArray[np.uint8]:
    return np.stack([resized(frame, short_px) for frame in frames_THWC])


# ------------------------------------------------------------------------------------------------ what is tried


@dataclass(frozen=True, kw_only=True)
class _Variant:
    """One changed copy of a clip: `make` gives its footage, None where nothing changed. `only` are the dimensions that it is
    for; None is all."""

    clip: _Clip
    kind: str
    severity: int
    metrics: tuple[str, ...]
    make: Callable[[], Footage | None]
    only: tuple[str | None, ...] | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.severity}/{self.clip.id}"

    def is_due(self, scorer: Scorer, have: Container[tuple[str, str, str]]) -> bool:
        """Whether a scorer has yet to say something of a dimension that this is for."""
        wanted = [o.metric for o in scorer.outputs if self.only is None or o.metric in self.only]
        return any((self.id, metric, scorer.backend) not in have for metric in wanted)


def _variants(
    clip: _Clip, clean: NDArray[np.uint8], other: NDArray[np.uint8] | None, plan: Plan, came: _Came
) -> Iterator[_Variant]:
    footage = Footage.of_frames(clean)
    yield _Variant(clip=clip, kind="clean", severity=0, metrics=plan.metrics, make=lambda: footage)
    for kind in plan.kinds:
        corruption = CORRUPTIONS[kind]
        only = None if plan.matrix else (corruption.dimension, corruption.spares)
        own = tuple(m for m in plan.metrics if only is None or m in only)
        for severity in plan.severities:
            make = partial(_spoiled, clean, kind, severity, other, clip_seed(clip.id))
            yield _Variant(clip=clip, kind=kind, severity=severity, metrics=own, make=make, only=only)
    if plan.invariances:
        for kind, change in INVARIANCES.items():
            yield _Variant(clip=clip, kind=kind, severity=0, metrics=plan.metrics, make=partial(change, clean, came))


def _spoiled(
    clean: NDArray[np.uint8], kind: str, severity: int, other: NDArray[np.uint8] | None, seed: int
) -> Footage | None:
    """Footage of the spoiled clip; None where that is the clean clip still: a drawing without colours has no hue to turn."""
    spoiled = corrupt(clean, kind, severity, seed=seed, other_THWC=other)
    return None if np.array_equal(spoiled, clean) else Footage.of_frames(spoiled)


def _scored(variant: _Variant, metrics: Sequence[str], footage: Footage) -> Iterator[MetricRecord]:
    sample = Sample(id=variant.id, video=Path(variant.clip.id), group=variant.clip.id)
    return map(_about, score_sample(sample, metrics, footage=footage))


def _asked(variant: _Variant, scorer: Scorer, footage: Footage, waiting: Waiting) -> Iterator[MetricRecord]:
    """What a scorer says of a changed clip; of its sample it is told what is known of the clip as it was. A scorer that looks
    closer than the other metrics finds the changed clip in a file."""
    known = variant.clip.sample or Sample(id=variant.id, video=Path(variant.clip.id))
    with tempfile.TemporaryDirectory(prefix="anisora-") as folder:
        file = Path(variant.clip.id)
        if _looks_closer(scorer):
            from anisora.media.writer import write_video

            file = write_video(Path(folder) / "clip.mp4", footage.frames_THWC, footage.fps, lossless=True)
        sample = replace(known, id=variant.id, video=file, group=variant.clip.id, model=None, prompt_id=None)
        yield from map(_about, ask(scorer, sample, footage, None, None, waiting))


def _looks_closer(scorer: Scorer) -> bool:
    card = getattr(scorer, "card", None)
    return card is not None and card.look.short_px > LOOK_PX


def _about(record: MetricRecord) -> MetricRecord:
    """The record with what was done to which clip, and whether anything may be fitted to it."""
    changed, _, clip = record.sample_id.partition("/")
    kind, _, severity = changed.rpartition("-")
    kind_use = CORRUPTIONS[kind].use if kind in CORRUPTIONS else "held_out"
    uses = {"clip_use": clip_use(clip), "kind_use": "fitting" if kind == "clean" else kind_use}
    about = {"clip": clip, "kind": kind, "severity": int(severity), **uses}
    return replace(record, params={**record.params, **about})


def _rescaled(came: _Came, factor: float) -> Footage:
    """The clip as it came, or shrunk to `HALVED_PX`, at another size."""
    short = min(HALVED_PX, *came.frames_THWC.shape[1:3])
    return Footage.of_frames(_cut(_cut(came.frames_THWC, short), round(short * factor)))


def _half_size(clean: NDArray[np.uint8], came: _Came) -> Footage | None:
    return _rescaled(came, 0.5) if min(came.frames_THWC.shape[1:3]) >= HALVED_PX else None


def _held_twice(clean: NDArray[np.uint8], came: _Came) -> Footage:
    return Footage.of_frames(np.repeat(clean, 2, axis=0), fps=32)


def _on_twos(clean: NDArray[np.uint8], came: _Came) -> Footage | None:
    return Footage.of_frames(clean[np.arange(len(clean)) // 2 * 2]) if came.fps >= TWOS_FPS else None


def _encoded(clean: NDArray[np.uint8], came: _Came) -> Footage:
    from anisora.media.writer import write_video

    even = clean[:, : clean.shape[1] // 2 * 2, : clean.shape[2] // 2 * 2]
    with tempfile.TemporaryDirectory(prefix="anisora-") as folder:
        return Footage.read(write_video(Path(folder) / "clip.mp4", even, 16, quality=12))


INVARIANCES: dict[str, Callable[[NDArray[np.uint8], _Came], Footage | None]] = {
    "half_size": _half_size,
    "double_size": lambda clean, came: _rescaled(came, 2.0),
    "held_twice": _held_twice,
    "on_twos": _on_twos,
    "encoded": _encoded,
    "double_fps": lambda clean, came: Footage.of_frames(clean, fps=32),
}
"""What no score may notice, of the clip cut for trying and as it came: another size, each picture shown twice, every second
picture held for two frames and the others gone, good encoding (x264, crf 12), another stated rate. None where that would
take away what there is to see: half of few pixels, half of few drawings a second."""


# ------------------------------------------------------------------------------------------------ what came of it


def figures(records: Sequence[MetricRecord]) -> dict[str, Any]:
    """Every figure of the validation: of all records (`all`), of the held-out clips (`held_out`), and of the held-out kinds on
    those clips (`unseen`).

    `order`: kind -> metric -> share of pairs of severities of one clip, the clean one among them, in which more is
    worse (ties half). `across`: the same for severity 3 of a clip against other clean clips. `by_dimension`: both of
    each dimension, over the pairs of all its own kinds. `improved`: the share of spoiled clips scored above the clean
    one. `fallen`: the mean fall of the score at severity 3, in points. `changed`: invariance -> metric -> the median and
    95th percentile of the change, in percent of the range (the clean mean less the mean of the own corruptions at their
    worst). A scorer of another backend stands under `METRIC (BACKEND)`.
    """
    known = [r for r in records if "kind" in r.params and r.score is not None]
    free = [r for r in known if r.params["clip_use"] == "held_out"]
    fitted = {kind for kind, corruption in CORRUPTIONS.items() if corruption.use == "fitting"}
    ours = [r for r in records if r.params.get("kind") == "clean" and r.metric in SCORED and r.backend == "bundled"]
    nulls, cleans = sum(r.score is None for r in ours), len(ours)
    return {
        "clips": len({r.params["clip"] for r in known}),
        "clips_held_out": len({r.params["clip"] for r in free}),
        "null_share_clean": nulls / cleans if cleans else None,
        "all": _tables(known),
        "held_out": _tables(free),
        "unseen": _tables([r for r in free if r.params["kind"] not in fitted]),
        "changed": _changes(known),
    }


def _tables(records: Sequence[MetricRecord]) -> dict[str, Any]:
    tables: dict[str, dict[str, dict[str, float | None]]] = {
        "order": {}, "across": {}, "improved": {}, "fallen": {},
    }  # fmt: skip
    for metric in _labels(records):
        scores = _scores(records, metric)
        for kind in CORRUPTIONS:
            if not any(kind in by_kind for by_kind in scores.values()):
                continue
            by_name = {"order": _order, "across": _across, "improved": _improved, "fallen": _fallen}
            for name, figure in by_name.items():
                tables[name].setdefault(kind, {})[metric] = figure(scores, kind)
    return {**tables, "by_dimension": {name: _of_all_kinds(_scores(records, name), name) for name in _labels(records)}}


Scores = dict[str, dict[str, dict[int, float]]]  # clip -> kind -> severity -> score


def _labels(records: Sequence[MetricRecord]) -> list[str]:
    """What there are figures of: the dimensions, then the scorers of other backends."""
    return [*SCORED, *sorted({label(r.metric, r.backend) for r in records if r.backend != "bundled"})]


def _scores(records: Sequence[MetricRecord], metric: str) -> Scores:
    found: Scores = {}
    for r in records:
        if label(r.metric, r.backend) == metric and r.score is not None:
            by_kind = found.setdefault(r.params["clip"], {})
            by_kind.setdefault(r.params["kind"], {})[r.params["severity"]] = r.score
    return {clip: by_kind for clip, by_kind in found.items() if "clean" in by_kind}


def _share(pairs: Sequence[tuple[float, float]]) -> float | None:
    """How often the first of a pair is above the second, ties half; None without pairs."""
    difference = np.array([better - worse for better, worse in pairs])
    return float(((difference > 0) + 0.5 * (difference == 0)).mean()) if pairs else None


def _of_all_kinds(scores: Scores, metric: str) -> dict[str, float | None]:
    own = [kind for kind, corruption in CORRUPTIONS.items() if corruption.dimension == metric.partition(" ")[0]]
    by_name = {"order": _pairs_of_order, "across": _pairs_across}
    return {name: _share([p for kind in own for p in pairs(scores, kind)]) for name, pairs in by_name.items()}


def _order(scores: Scores, kind: str) -> float | None:
    return _share(_pairs_of_order(scores, kind))


def _pairs_of_order(scores: Scores, kind: str) -> list[tuple[float, float]]:
    pairs = []
    for by_kind in scores.values():
        levels = sorted({0: by_kind["clean"][0], **by_kind.get(kind, {})}.items())
        pairs += [(a, b) for i, (_, a) in enumerate(levels) for _, b in levels[i + 1 :]]
    return pairs


def _across(scores: Scores, kind: str) -> float | None:
    return _share(_pairs_across(scores, kind))


def _pairs_across(scores: Scores, kind: str) -> list[tuple[float, float]]:
    spoiled = {clip: by_kind[kind][3] for clip, by_kind in scores.items() if 3 in by_kind.get(kind, {})}
    return [(scores[a]["clean"][0], spoiled[b]) for a in scores for b in spoiled if a != b]


def _improved(scores: Scores, kind: str) -> float | None:
    return _share([(s, by_kind["clean"][0]) for by_kind in scores.values() for s in by_kind.get(kind, {}).values()])


def _fallen(scores: Scores, kind: str) -> float | None:
    falls = [b["clean"][0] - b[kind][3] for b in scores.values() if 3 in b.get(kind, {})]
    return float(np.mean(falls)) if falls else None


def _changes(records: Sequence[MetricRecord]) -> dict[str, dict[str, list[float] | None]]:
    changes: dict[str, dict[str, list[float] | None]] = {kind: {} for kind in INVARIANCES}
    for metric in _labels(records):
        scores = _scores(records, metric)
        clean = np.mean([by_kind["clean"][0] for by_kind in scores.values()]) if scores else 0.0
        own = [kind for kind, corruption in CORRUPTIONS.items() if corruption.dimension == metric.partition(" ")[0]]
        worst = [by_kind[kind][max(by_kind[kind])] for by_kind in scores.values() for kind in own if kind in by_kind]
        span = float(clean - np.mean(worst)) if worst else 0.0
        for kind in INVARIANCES:
            off = [abs(b[kind][0] - b["clean"][0]) for b in scores.values() if kind in b]
            percent = 100 * np.array(off) / span if span > 0 else np.array([])
            changes[kind][metric] = (
                [float(np.median(percent)), float(np.percentile(percent, 95))] if percent.size else None
            )
    return changes
