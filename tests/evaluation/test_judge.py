"""A judge behind a real HTTP server that misbehaves: what can be used is a score, anything else is null with its reason."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anisora.curation.endpoint import Answer
from anisora.errors import BadCheckpoint, BadConfig, UnusableReply
from anisora.evaluation import judge
from anisora.evaluation.records import read_records
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import read_card
from anisora.evaluation.scoring import open_scorers
from anisora.evaluation.suite import evaluate
from anisora.media.writer import write_video
from local_server import ChatHandler, ChatServer, serving

from .tiny_encoders import clip

RATED = {"smoothness": 4, "text_video": 2.5, "why": "the square keeps its shape"}


class Server(ChatServer):
    """Answers with `RATED`, or with what `faults` holds for the prompt, in turn."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.faults: dict[str, list[Any]] = {}
        self.at_once = self.most_at_once = 0
        self.meet: threading.Barrier | None = None  # where questions wait for another one


class _Handler(ChatHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.question()
        words = body["messages"][0]["content"][-1]["text"]
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.at_once, self.server.most_at_once)
            waiting = next((faults for prompt, faults in self.server.faults.items() if f"<{prompt}>" in words), [])
            fault = waiting.pop(0) if waiting else None
        if self.server.meet:
            self.server.meet.wait(30)
        with self.server.lock:
            self.server.at_once -= 1
        if isinstance(fault, int):
            return self.send(fault, b'{"error": "injected"}')
        if fault == "hang":
            time.sleep(1.0)
        text = json.dumps(RATED) if fault in (None, "hang") else fault
        self.answer(text, usage={"prompt_tokens": 900, "completion_tokens": 30})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with serving(made):
        yield made


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    write_video(path, np.repeat(np.repeat(clip("red", 10), 2, 1), 2, 2), 8, lossless=True)
    return [Sample(id=f"c{k}", video=path, prompt=f"<c{k}>") for k in range(8)]


def write_card(folder: Path, server: Server, **fields: Any) -> Path:
    endpoint = {"base_url": server.base_url, "model": "tiny", "in_flight": 4, "pause_s": 0.01} | fields
    outputs = [{"dimension": name, "low": 1, "high": 5} for name in ("smoothness", "text_video")]
    card = {"schema": 2, "layout": "endpoint", "unit": "rating", "outputs": outputs, "endpoint": endpoint}
    card |= {"question": "Frames of {prompt}. How good?", "look": {"num_frames": 3, "short_px": 64}}
    path = folder / "judge.json"
    path.write_text(json.dumps(card))
    return path


def run(folder: Path, card: Path, samples: list[Sample]) -> dict[tuple[str, str], Any]:
    evaluate(samples, folder / "out", metrics=["held_share"], scorers=open_scorers([card]))
    records = read_records(folder / "out" / "results.jsonl")
    return {(r.sample_id, r.metric): r for r in records if r.backend == "service"}


def test_answers_become_scores_several_at_once(server, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("ANISORA_API_KEY", "s3cret")
    server.meet = threading.Barrier(2)  # one question alone would wait in vain
    found = run(tmp_path, write_card(tmp_path, server), samples)
    assert [found[s.id, "anime.smoothness"].score for s in samples] == [75.0] * 8
    record = found["c3", "anime.text_video"]
    assert (record.raw, record.score, record.unit, record.backend) == (2.5, 37.5, "rating", "service")
    assert record.params["model"] == "tiny"
    assert record.details["why"] == RATED["why"]
    assert record.details["prompt_tokens"] == 900
    assert 2 <= server.most_at_once <= 4
    body = server.bodies[0]
    assert len(body["messages"][0]["content"]) == 4  # three frames and the question, one request for both dimensions
    assert len(server.bodies) == 8
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["smoothness"] == {"type": "number", "minimum": 1, "maximum": 5}
    assert "s3cret" not in (tmp_path / "out" / "results.jsonl").read_text()
    run(tmp_path, tmp_path / "judge.json", samples)
    assert len(server.bodies) == 8  # nothing is asked twice


def test_what_passes_is_waited_out_and_bad_answers_are_asked_again(server, samples, tmp_path):
    server.faults = {
        "c0": [500, 503], "c1": [429], "c2": ["hang"], "c3": ["Sorry, no."], "c4": ['{"smoothness": "high"}'],
        "c5": ['{"smoothness": 7, "text_video": 2}'],
    }  # fmt: skip
    found = run(tmp_path, write_card(tmp_path, server, timeout_s=0.5), samples)
    assert [found[s.id, "anime.smoothness"].score for s in samples] == [75.0] * 8
    assert [found[f"c{k}", "anime.smoothness"].details["attempts"] for k in range(6)] == [1, 1, 1, 2, 2, 2]
    assert {body["seed"] for body in server.bodies} == {0, 1}


def test_what_stays_bad_is_null_with_its_reason_and_only_what_may_pass_is_asked_again(server, samples, tmp_path):
    server.faults = {
        "c0": [500] * 20, "c1": ["no JSON"] * 20, "c2": ['{"smoothness": true, "text_video": 2}'] * 20,
        "c3": ['{"smoothness": 9, "text_video": 2}'] * 20, "c4": [400] * 20, "c5": ['{"smoothness": 4, "text_vi'] * 20,
    }  # fmt: skip
    card = write_card(tmp_path, server, tries=2)
    found = run(tmp_path, card, samples)
    reasons = [found[s.id, "anime.text_video"].reason for s in samples]
    assert reasons == ["no_answer", "not_json", "not_schema", "out_of_range", "http_400", "truncated", None, None]
    assert all(record.score is None for record in found.values() if record.reason)
    asked, server.faults = len(server.bodies), {}
    found = run(tmp_path, card, samples)
    assert found["c0", "anime.smoothness"].score == 75.0  # the server has recovered
    assert len(server.bodies) == asked + 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_wrong_for_every_clip_stops_the_run(server, samples, tmp_path, status: int):
    server.faults = {f"c{k}": [status] * 9 for k in range(8)}
    with pytest.raises(BadConfig, match=str(status)):
        run(tmp_path, write_card(tmp_path, server), samples)
    assert len(server.bodies) <= 5


def test_a_limit_leaves_the_rest_for_the_next_run(server, samples, tmp_path):
    card = write_card(tmp_path, server, max_requests=3, in_flight=1)
    found = run(tmp_path, card, samples)
    assert [record.reason for record in found.values()].count("no_answer") == 10
    assert len(server.bodies) == 3
    found = run(tmp_path, card, samples)
    assert len(server.bodies) == 6
    assert sum(record.score is not None for record in found.values()) == 12


def test_a_clip_without_a_prompt_is_not_asked_about(server, samples, tmp_path):
    bare = Sample(id="bare", video=samples[0].video)
    found = run(tmp_path, write_card(tmp_path, server), [bare])
    assert found["bare", "anime.text_video"].reason == "no_prompt"
    assert not server.bodies


def test_the_picture_a_clip_was_made_from_goes_first(server, samples, tmp_path):
    import base64
    import io

    from PIL import Image

    Image.new("RGB", (64, 64), (250, 10, 240)).save(tmp_path / "pink.png")
    path = write_card(tmp_path, server)
    path.write_text(path.read_text().replace("Frames of {prompt}", "After {image} come frames of {prompt}"))
    pink = Sample(id="pink", video=samples[0].video, prompt="it", image=tmp_path / "pink.png")
    record = run(tmp_path, path, [pink])["pink", "anime.smoothness"]
    assert record.params["reference"] == "image"
    *pictures, words = server.bodies[0]["messages"][0]["content"]
    assert len(pictures) == 4
    assert words["text"].startswith("After the first picture come frames of it.")
    first = base64.b64decode(pictures[0]["image_url"]["url"].split(",", 1)[1])
    assert np.asarray(Image.open(io.BytesIO(first))).mean((0, 1)) == pytest.approx([250, 10, 240], abs=4)


def test_a_server_that_is_not_there_is_no_answer(samples, tmp_path, server):
    card = write_card(tmp_path, server, base_url="http://127.0.0.1:9/v1", tries=1, timeout_s=2)
    assert run(tmp_path, card, samples[:1])["c0", "anime.smoothness"].reason == "no_answer"


def test_thoughts_and_fences_around_the_answer_are_left_aside(server, tmp_path):
    card = read_card(write_card(tmp_path, server))[0]
    text = f"<think>is it 1 {{or}} 2?</think> Sure:\n```json\n{json.dumps(RATED)}\n```"
    assert judge.parse(card, Answer(text=text))[0] == {"anime.smoothness": 4.0, "anime.text_video": 2.5}
    with pytest.raises(UnusableReply, match="refusal"):
        judge.parse(card, Answer(reason="refusal"))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": ""}, BadConfig),
        ({"max_requests": 0}, BadConfig),
        ({"colour": 1}, BadConfig),
    ],
)
def test_settings_are_checked(server, tmp_path, fields, error):
    with pytest.raises(error):
        judge.Judge(write_card(tmp_path, server, **fields))


def test_a_rating_needs_a_range_and_a_question(server, tmp_path):
    path = write_card(tmp_path, server)
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"outputs": [{"dimension": "appeal", "low": None, "high": None}]}))
    with pytest.raises(BadConfig, match="without a range"):
        judge.Judge(path)
    path.write_text(json.dumps(card | {"question": " "}))
    with pytest.raises(BadCheckpoint, match="no question"):
        judge.Judge(path)


def test_the_cards_that_ship_can_be_read(tmp_path):
    from anisora.evaluation.finetuning import load_recipe

    configs = Path(__file__).parents[2] / "configs"
    card = read_card(configs / "judge.yaml")[0]
    assert card.needs_prompt
    assert card.has_reference
    assert '"image_video" (a number from 1, the worst, to 5)' in judge.question(card)
    assert judge.Judge(configs / "judge.yaml").in_flight == 8
    assert load_recipe(configs / "scorer.yaml", [f"vision={tmp_path}"]).vision == tmp_path
