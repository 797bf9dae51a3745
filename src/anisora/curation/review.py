"""A page to look at clips and label them, without a server: one HTML file beside the clips, and a CSV that comes back.

Labels stay in the browser until they are exported; the export is what `anisora train heads` reads, and it can be given to
the next page, which goes on where the last one ended. The clips shown are those that teach most: where the heads are
least sure, and some drawn at random so that the sure mistakes show too. File names and
captions come from anywhere, so everything is escaped and the page may load nothing but the clips.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from anisora.curation.heads import HEADS
from anisora.errors import BadInput
from anisora.files import write_atomic
from anisora.records import Score

#: The page, and the features that training reads with its labels, in the folder of a run.
PAGE, FEATURES = "review.html", "features.parquet"

#: The share of the clips on a page that are drawn at random.
RANDOM_SHARE = 0.25

#: Columns of a row that are shown under a clip, where it has them.
SHOWN = ("verdict", "reason", "text_cover", "flow", "aesthetic", "quality", "drawing_fps", "camera", "duration_s")


@dataclass(frozen=True, kw_only=True)
class ReviewClip:
    """One clip on the page. `media` is a path relative to the page; None shows the facts alone."""

    clip_id: str
    media: str | None
    caption: str
    facts: Mapping[str, str]
    guesses: Mapping[str, tuple[str, str]]  # head -> likeliest class, its probability in words


def write_review(
    rows: Iterable[Mapping[str, Any]],
    page: str | os.PathLike[str],
    *,
    scores: Mapping[str, Mapping[str, Score]] | None = None,
    heads: Iterable[str] = HEADS,
    labels: Sequence[Mapping[str, str]] = (),
    limit: int = 200,
    seed: int = 0,
) -> Path:
    """Writes the page for rows of clips.parquet. `path` in a row is taken as relative to the page's folder.

    `scores` are those of `curation.heads.apply_heads`: they order the clips and are shown as guesses. `labels` are those
    given before (`curation.heads.label_rows`): the page shows them and exports them again, and clips that lack one come
    first. Raises BadInput for no rows and for heads there are not; WriteFailed.
    """
    heads = list(heads)
    if unknown := set(heads) - set(HEADS):
        raise BadInput("unknown head", got=", ".join(sorted(unknown)), expected=", ".join(HEADS))
    rows = list(rows)
    if not rows:
        raise BadInput("no clips to review", expected="one at least", hint="`anisora curate report`, which says why")
    scores = scores or {}
    by_id = {str(row["clip_id"]): row for row in rows}
    chosen = _chosen(list(by_id), scores, _labelled(labels, heads), limit, seed)
    clips = [_clip(by_id[clip_id], scores.get(clip_id, {})) for clip_id in chosen]
    html = _render(clips, {name: HEADS[name] for name in heads}, labels, len(rows))
    return write_atomic(page, html.encode())


def _labelled(labels: Iterable[Mapping[str, str]], heads: Iterable[str]) -> set[str]:
    """The clips that have a label of every head."""
    of_head = [{row["clip_id"] for row in labels if row["head"] == head} for head in heads]
    return set.intersection(*of_head) if of_head else set()


def _chosen(
    clip_ids: list[str], scores: Mapping[str, Mapping[str, Score]], labelled: set[str], limit: int, seed: int
) -> list[str]:
    """Those without labels, and labelled ones where there is room for more."""
    fresh = choose_clips([clip_id for clip_id in clip_ids if clip_id not in labelled], scores, limit, seed)
    return fresh + [clip_id for clip_id in clip_ids if clip_id in labelled][: limit - len(fresh)]


def choose_clips(clip_ids: list[str], scores: Mapping[str, Mapping[str, Score]], limit: int, seed: int) -> list[str]:
    """At most `limit` clips: the least sure first, `RANDOM_SHARE` of them drawn; all in an order that hides which is which."""
    rng = np.random.default_rng(seed)
    if len(clip_ids) <= limit:
        return clip_ids
    drawn = set(rng.permutation(len(clip_ids))[: round(limit * RANDOM_SHARE)].tolist())
    unsure = sorted(range(len(clip_ids)), key=lambda i: (_sureness(scores.get(clip_ids[i], {})), clip_ids[i]))
    chosen = [*drawn, *[i for i in unsure if i not in drawn]][:limit]
    return [clip_ids[i] for i in sorted(chosen, key=lambda i: clip_ids[i])]


def _sureness(scores: Mapping[str, Score]) -> float:
    """The least margin between the two likeliest classes of any head; 1 without scores."""
    margins = [np.diff(np.sort(list(score.details.values()))[-2:])[0] for score in scores.values() if score.details]
    return float(min(margins, default=1.0))


def _clip(row: Mapping[str, Any], scores: Mapping[str, Score]) -> ReviewClip:
    guesses = {}
    for name, score in scores.items():
        if score.details:
            label = max(score.details, key=score.details.__getitem__)
            guesses[name] = label, f"{100 * float(score.details[label]):.0f}\u00a0%"
    path = row.get("path")
    return ReviewClip(
        clip_id=str(row["clip_id"]),
        media=quote(Path(path).as_posix()) if path else None,
        caption=row.get("caption") or "",
        facts={name: _fact(row[name]) for name in SHOWN if row.get(name) is not None},
        guesses=guesses,
    )


def _fact(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _render(
    clips: list[ReviewClip], heads: Mapping[str, tuple[str, ...]], labels: Sequence[Mapping[str, str]], total: int
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anisora", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("review.html").render(
        clips=clips,
        heads=heads,
        total=total,
        heads_json=_in_script({name: list(classes) for name, classes in heads.items()}),
        labels_json=_in_script([dict(row) for row in labels]),
    )


def _in_script(value: Any) -> str:
    """JSON that cannot end the script it stands in, whatever the names in it."""
    return json.dumps(value).replace("<", "\\u003c").replace("&", "\\u0026")
