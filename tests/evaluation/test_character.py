"""The character score by gallery: the right name above another, an exchange below none, null where nobody is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anisora.errors import BadCheckpoint, BadInput
from anisora.evaluation import characters, gallery
from anisora.evaluation.character import CharacterScorer
from anisora.evaluation.identity import EMBEDDED
from anisora.evaluation.metrics import Measured
from anisora.evaluation.records import RESULTS, read_records
from anisora.evaluation.report import write_report
from anisora.evaluation.samples import Sample, read_manifest
from anisora.evaluation.scoring import open_scorers
from anisora.evaluation.suite import evaluate
from anisora.measures.figures import remembering
from anisora.measures.footage import Footage
from anisora.measures.salience import salience
from anisora.media.writer import write_video

from .drawn_shots import shot


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of three drawn characters by the embedded encoder."""
    out = tmp_path_factory.mktemp("gallery")
    characters.draw_characters(3, out)
    gallery.build(out, characters.known(out), EMBEDDED)
    return out


@pytest.fixture(scope="module")
def detect() -> Callable[[np.ndarray], np.ndarray]:
    """The bundled network, which looks at each picture once for all tests."""
    return remembering(salience)


@pytest.fixture(scope="module")
def scorer(drawn: Path, detect: Callable) -> CharacterScorer:
    opened = CharacterScorer(drawn)
    opened.detect = detect
    return opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, detect: Callable) -> CharacterScorer:
    """The scorer against input pictures."""
    out = tmp_path_factory.mktemp("pictures")
    gallery.build(out, [], EMBEDDED)
    opened = CharacterScorer(out)
    opened.detect = detect
    return opened


def said(scorer: CharacterScorer, frames: np.ndarray, **of: object) -> Measured:
    sample = Sample(id="x", video=Path("x.mp4"), **of)  # type: ignore[arg-type]
    return scorer.prepare(sample, Footage.of_frames(frames, 4))()["anime.character"]


@pytest.fixture(scope="module")
def shots(scorer: CharacterScorer) -> dict[str, np.ndarray]:
    return {name: shot(name, 3) for name in scorer.stored.names[:2]}


def test_a_character_is_more_like_itself_than_like_another(scorer, shots):
    one, other = shots
    own = said(scorer, shots[one], characters=(one,))
    wrong = said(scorer, shots[one], characters=(other,))
    assert own.score == pytest.approx(100 * own.raw)
    assert own.raw > wrong.raw + 0.03
    assert own.details["identified"] == 1
    assert own.details["margin"] > 0 > wrong.details["margin"]
    assert own.details["characters"] == {one: pytest.approx(own.raw, abs=1e-5)}
    (moments,) = own.details["cosines"]
    assert moments["frames"] == [0, 1, 2, 3]
    assert np.mean(moments["cosines"]) == pytest.approx(own.raw, abs=1e-5)  # equation 6
    swapped = said(scorer, np.concatenate([shots[one][:2], shots[other][2:]]), characters=(one,))
    assert swapped.raw < own.raw
    assert swapped.details["identified"] < 1


def test_without_a_name_the_beginning_says_who_it_is(scorer, shots):
    one, other = shots
    found = said(scorer, np.concatenate([shots[other][:2], shots[one][2:]]))
    assert list(found.details["characters"]) == [other]
    assert found.params["reference"] == "gallery"
    assert found.params["threshold"] == scorer.stored.threshold
    scorer_of_strangers = CharacterScorer.__new__(CharacterScorer)
    scorer_of_strangers.__dict__ = scorer.__dict__ | {"stored": replace(scorer.stored, threshold=0.999)}
    stranger = said(scorer_of_strangers, shots[one])
    assert (stranger.raw, stranger.score, stranger.reason) == (None, None, "unknown_character")
    assert list(stranger.details["nearest"]) == [one]


def test_against_the_input_picture(pictures, shots, tmp_path):
    one, other = shots
    for name in shots:
        Image.fromarray(shots[name][0]).save(tmp_path / f"{name}.png")
    own, wrong = (said(pictures, shots[one], image=tmp_path / f"{name}.png") for name in (one, other))
    assert own.raw > wrong.raw
    assert own.params["reference"] == "image"
    alone = said(pictures, shots[one])
    assert alone.params["reference"] == "first_frame"
    assert alone.details["cosines"][0]["frames"] == [1, 2, 3]  # the first one is the reference
    Image.new("RGB", (64, 64), "white").save(tmp_path / "paper.png")
    assert said(pictures, shots[one], image=tmp_path / "paper.png").reason == "no_character"


def test_clips_of_nobody_are_null_with_the_reason(scorer, shots):
    paper = np.full((4, 96, 96, 3), 240, np.uint8)
    assert said(scorer, paper).reason == "blank"
    assert said(scorer, next(iter(shots.values()))[:1]).reason == "too_short"
    y, x = np.mgrid[:96, :96]
    slope = np.repeat(np.stack([x, y, x], -1)[None].astype(np.uint8), 4, 0)
    nobody = said(scorer, slope)
    assert (nobody.raw, nobody.reason) == (None, "no_character")
    unheard = said(scorer, next(iter(shots.values())), characters=("Nobody",))
    assert unheard.reason == "unknown_character"
    assert "Nobody" in unheard.details["problem"]


def test_a_run_writes_scores_of_the_backend_full_and_resumes(drawn, shots, tmp_path):
    for n, frames in enumerate(shots.values()):
        write_video(tmp_path / f"{n}.mp4", frames, 4)
    names = list(shots)
    lines = [{"video": f"{n}.mp4", "model": "m", "characters": [name]} for n, name in enumerate(names)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples, out = read_manifest(tmp_path / "m.jsonl"), tmp_path / "out"
    summary = evaluate(samples, out, metrics=["held_share"], scorers=open_scorers([drawn]))
    assert summary["models"]["m"]["anime.character (full)"]["score"]["n"] == 2
    records = [record for record in read_records(out / RESULTS) if record.metric == "anime.character"]
    assert {(r.backend, r.unit, r.weights_sha256) for r in records} == {
        ("full", "cosine", gallery.load(drawn).facts.encoder_sha256)
    }
    before = (out / RESULTS).read_bytes()
    evaluate(samples, out, metrics=["held_share"], scorers=open_scorers([drawn]))
    assert (out / RESULTS).read_bytes() == before
    write_report(out)
    assert "full" in (out / "report.html").read_text()
    other = [replace(samples[1], characters=(names[0],))]
    evaluate(other, out, metrics=["held_share"], scorers=open_scorers([drawn]))
    fresh = {r.sample_id: r.score for r in read_records(out / RESULTS) if r.metric == "anime.character"}
    assert fresh["1"] < {r.sample_id: r.score for r in records}["1"]  # another name was asked about: scored anew


def test_an_input_picture_that_is_none_is_a_reason_and_no_stop(drawn, shots, tmp_path):
    write_video(tmp_path / "a.mp4", next(iter(shots.values())), 4)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    sample = Sample(id="a", video=tmp_path / "a.mp4", image=tmp_path / "broken.png")
    evaluate([sample], tmp_path / "out", metrics=["held_share"], scorers=open_scorers([drawn]))
    reasons = {r.metric: r.reason for r in read_records(tmp_path / "out" / RESULTS)}
    assert reasons["anime.character"] == "unreadable_input"


def test_what_a_manifest_says_of_characters_is_checked(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"video": "a.mp4", "characters": "hero"}\n')
    with pytest.raises(BadInput, match="unreadable characters"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_gallery_whose_encoder_is_gone_is_refused(drawn, tmp_path):
    stored = gallery.load(drawn)
    gallery.save(replace(stored, facts=replace(stored.facts, encoder="gone")), tmp_path)
    with pytest.raises(BadCheckpoint, match="is gone"):
        open_scorers([tmp_path])
