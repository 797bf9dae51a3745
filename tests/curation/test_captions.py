"""Captions: what counts as one, joined by id and frame digest, gone on with after a kill, asked of a misbehaving server."""

from __future__ import annotations

import base64
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anisora.curation.captions import AnimeCaption, Ask, CaptionSettings, Reply, caption_clips
from anisora.curation.captions.ask import question
from anisora.curation.captions.endpoint import EndpointCaptioner, EndpointSettings
from anisora.curation.captions.guards import contradictions, is_loop, is_refusal, objection, words
from anisora.curation.captions.measured import MeasuredCaptioner, color_tags, compose
from anisora.curation.captions.schema import parse, parse_prose
from anisora.errors import BadConfig, BadInput, UnusableReply
from anisora.measures.clip import ClipView
from local_server import ChatHandler, ChatServer, serving

GOOD = AnimeCaption(
    prose="A girl with red hair walks through falling leaves.",
    characters=("a girl with red hair",),
    action="walks",
    scene="an autumn park",
    camera="static",
    style="2D, cel shading",
    effects=("falling leaves",),
)
SMALL = CaptionSettings(frames=2, attempts=2)


def clip(number: int) -> ClipView:
    """A clip of one colour; the colour is its number."""
    return ClipView.of_frames(np.full((4, 8, 12, 3), number, np.uint8), 8)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"clip_id": f"clip-{number}", "tags": {"camera": "static"}} for number in range(count)]


def view(clip_id: str) -> ClipView:
    return clip(int(clip_id.split("-")[1]) * 10)


class Writer:
    """A captioner made of a function from asks to replies, for what no server is needed for."""

    backend = "full"
    answers = "json"

    def __init__(self, write: Callable[[Ask], Reply], shuffled: bool = False) -> None:
        self.write, self.shuffled, self.asked = write, shuffled, []
        self.key = {"name": "writer", "version": 1}

    def caption(self, asks: Any) -> Iterator[Reply]:
        replies = []
        for ask in asks:
            self.asked.append(ask.clip_id)
            replies.append(self.write(ask))
        if self.shuffled:
            random.Random(0).shuffle(replies)
        yield from replies


def own(ask: Ask, caption: AnimeCaption = GOOD) -> Reply:
    caption = replace(caption, prose=f"{caption.prose} Number {int(ask.frames_THWC[0, 0, 0, 0])}.")
    return Reply(clip_id=ask.clip_id, frame_digest=ask.frame_digest, text=caption.to_json(ask.code))


# -- schema and guards -------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).map(str.strip).filter(lambda t: t.split() == [t])


@given(prose=texts, characters=st.lists(texts), action=texts)
def test_a_caption_comes_back_out_of_its_json(prose: str, characters: list[str], action: str):
    caption = AnimeCaption(prose=f"A{prose}", characters=tuple(characters), action=action)
    around = f"Sure!\n```json\n{caption.to_json('c0de')}\n```\nAnything else?"
    assert parse(around) == (caption, "c0de")


def test_json_cut_off_anywhere_is_truncated():
    whole = GOOD.to_json("c0de")
    for cut in range(1, len(whole)):
        with pytest.raises(UnusableReply) as problem:
            parse(whole[:cut])
        assert problem.value.reason == "truncated"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no braces", "not_json"),
        ("{'single': 'quotes'}", "not_json"),
        ('{"prose": 3}', "not_schema"),
        ("{}", "not_schema"),
    ],
)
def test_what_is_no_caption_says_why(text: str, reason: str):
    with pytest.raises(UnusableReply) as problem:
        parse(text)
    assert problem.value.reason == reason


def test_stock_openings_and_thoughts_go():
    assert parse_prose("<think>{hm}</think> This anime video shows a boy who runs.").prose == "A boy who runs."
    assert parse_prose("In this clip, a boy runs.").prose == "A boy runs."
    assert parse_prose("The video game hall is full.").prose == "The video game hall is full."


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am unable to view videos.",
        "As an AI language model, I do not see frames.",
        "抱歉，我无法描述这个视频。",
        "No image was provided.",
    ],
)
def test_refusals_are_refused(text: str):
    assert is_refusal(text)
    assert objection(AnimeCaption(prose=text)) == "refusal"


def test_a_character_may_be_sorry():
    long = (
        "A tall knight in silver armour kneels before the queen in a marble hall, lowers his sword and bows his head. "
    )
    long += "The light of two candles moves over the wall behind them and, while the "
    assert not is_refusal(long + 'camera pushes in, says "I am sorry".')
    assert not is_refusal("A boy who cannot reach the shelf jumps.")


@pytest.mark.parametrize(
    "text",
    [
        "A girl walks. " + "She smiles and " * 12,
        "the leaf falls, the wind blows and the leaf falls, " * 5,
        "女孩在走路。" * 6,
        "a a a a a a",
    ],
)
def test_loops_are_found(text: str):
    assert is_loop(text)


def test_synthetic_captions_are_no_loops_and_no_refusals():
    from anisora.synthetic import caption, plan_clip

    for index in range(60):
        text = caption(plan_clip(3, index))
        assert objection(AnimeCaption(prose=text)) is None, text


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), st.integers(4, 8))
def test_any_stretch_repeated_at_the_end_is_a_loop(stretch: list[str], times: int):
    assert is_loop("once upon a time " + " ".join(stretch * times))


def test_words_counts_characters_of_chinese():
    assert words("女孩 walks 走") == ["女", "孩", "walks", "走"]


def test_two_denied_measurements_make_a_wrong_clip():
    tags = {"camera": "static", "dimension": "2d"}
    other = replace(GOOD, camera="fast pan left", style="3D, photoreal")
    assert contradictions(GOOD, tags) == []
    assert contradictions(replace(GOOD, camera="a slow pan"), tags) == ["camera"]
    assert objection(replace(GOOD, camera="a slow pan"), tags) is None
    assert contradictions(other, tags) == ["camera", "dimension"]
    assert objection(other, tags) == "wrong_clip"


# -- measured descriptions ---------------------------------------------------------------------------------------------


def test_a_measured_caption_says_what_was_measured_and_no_more():
    caption = compose({"dimension": "2d", "camera": "pan_left", "motion_grade": "large", "drawing_fps": "12.0"})
    assert caption.prose == "2D animation. Strong motion. The camera pans left. About 12 drawings a second."
    assert caption.characters == ()
    assert caption.scene == ""
    assert compose({}).prose == "Animation."


@pytest.mark.parametrize(
    ("rgb", "name", "light"),
    [((250, 250, 250), "white", "bright"), ((200, 20, 20), "red", "bright"), ((20, 40, 220), "blue", "bright"),
     ((5, 5, 5), "black", "dark"), ((30, 130, 40), "green", "even")],
)  # fmt: skip
def test_colors_are_named(rgb: tuple[int, int, int], name: str, light: str):
    tags = color_tags(np.full((2, 16, 16, 3), rgb, np.uint8))
    assert tags["colors"] == name
    assert tags["light"] == light


def test_measured_captions_are_marked(tmp_path):
    [row] = caption_clips(rows(1), view, MeasuredCaptioner(), tmp_path / "captions.jsonl", SMALL)
    assert row["caption_backend"] == "bundled"
    assert row["tags"]["caption_kind"] == "measured"
    assert "Static camera" in row["caption"]
    assert row["caption_reason"] is None


# -- joining, guarding, resuming ---------------------------------------------------------------------------------------


def test_shuffled_answers_find_their_clips(tmp_path):
    done = caption_clips(rows(9), view, Writer(own, shuffled=True), tmp_path / "c.jsonl", SMALL)
    assert [row["clip_id"] for row in done] == [f"clip-{n}" for n in range(9)]
    assert [row["caption"].split()[-1] for row in done] == [f"{10 * n}." for n in range(9)]
    assert done[0]["tags"]["caption_action"] == "walks"
    assert done[0]["tags"]["camera"] == "static"
    assert done[0]["tags"]["caption_kind"] == "seen"


def test_an_answer_about_another_clip_is_never_kept(tmp_path):
    """Three ways of a mix-up: the id of one with the digest of another, the text of another, an unknown id."""
    asks: list[Ask] = []

    def mixed_up(ask: Ask) -> Reply:
        asks.append(ask)
        first = asks[0]
        if ask.clip_id == "clip-1":
            return Reply(clip_id="clip-1", frame_digest=first.frame_digest, text=GOOD.to_json(first.code))
        if ask.clip_id == "clip-2":
            return Reply(clip_id="clip-2", frame_digest=ask.frame_digest, text=GOOD.to_json(first.code))
        if ask.clip_id == "clip-3":
            return Reply(clip_id="clip-99", frame_digest=ask.frame_digest, text=GOOD.to_json(ask.code))
        return own(ask)

    done = caption_clips(rows(4), view, Writer(mixed_up), tmp_path / "c.jsonl", SMALL)
    assert [row["caption_reason"] for row in done] == [None, "wrong_clip", "wrong_clip", "no_answer"]
    assert [row["caption"] is None for row in done] == [False, True, True, True]


def test_one_text_for_two_clips_is_kept_once(tmp_path):
    same = lambda ask: Reply(clip_id=ask.clip_id, frame_digest=ask.frame_digest, text=GOOD.to_json(ask.code))  # noqa: E731
    done = caption_clips(rows(3), view, Writer(same), tmp_path / "c.jsonl", SMALL)
    assert [row["caption_reason"] for row in done] == [None, "repeated", "repeated"]


def test_a_killed_run_asks_only_for_the_rest(tmp_path):
    class Killed(BaseException):
        pass

    def until_third(ask: Ask) -> Reply:
        if ask.clip_id == "clip-3":
            raise Killed
        return own(ask)

    class OneByOne(Writer):
        def caption(self, asks: Any) -> Iterator[Reply]:
            for ask in asks:
                self.asked.append(ask.clip_id)
                yield self.write(ask)

    store = tmp_path / "c.jsonl"
    with pytest.raises(Killed):
        caption_clips(rows(6), view, OneByOne(until_third), store, SMALL)
    with store.open("ab") as file:
        file.write(b'{"key": "torn')
    second = OneByOne(own)
    done = caption_clips(rows(6), view, second, store, SMALL)
    assert second.asked == ["clip-3", "clip-4", "clip-5"]
    whole = caption_clips(rows(6), view, Writer(own), tmp_path / "whole.jsonl", SMALL)
    assert done == whole
    third = OneByOne(own)
    assert caption_clips(rows(6), view, third, store, SMALL) == whole
    assert third.asked == []


def test_another_captioner_or_crop_is_asked_anew(tmp_path):
    store = tmp_path / "c.jsonl"
    caption_clips(rows(2), view, Writer(own), store, SMALL)
    changed = Writer(own)
    changed.key = {"name": "writer", "version": 2}
    caption_clips(rows(2), view, changed, store, SMALL)
    assert len(changed.asked) == 2
    cropped = Writer(own)
    caption_clips([rows(2)[0] | {"crop_x_px": 2}, rows(2)[1]], view, cropped, store, SMALL)
    assert cropped.asked == ["clip-0"]


def test_rejected_answers_get_one_more_chance_over_all_runs(tmp_path):
    refuse = lambda ask: Reply(clip_id=ask.clip_id, frame_digest=ask.frame_digest, text="I'm sorry, I can't.")  # noqa: E731
    store, first = tmp_path / "c.jsonl", Writer(refuse)
    assert caption_clips(rows(1), view, first, store, SMALL)[0]["caption_reason"] == "refusal"
    assert first.asked == ["clip-0"] * 2
    second = Writer(own)
    assert caption_clips(rows(1), view, second, store, SMALL)[0]["caption_reason"] == "refusal"
    assert second.asked == []


def test_a_clip_that_cannot_be_read_fails_alone(tmp_path):
    def views(clip_id: str) -> ClipView:
        if clip_id == "clip-1":
            raise BadInput("gone")
        return view(clip_id)

    done = caption_clips(rows(3), views, Writer(own), tmp_path / "c.jsonl", SMALL)
    assert [row["caption_reason"] for row in done] == [None, "unreadable", None]
    with pytest.raises(BadInput, match="two rows"):
        caption_clips(rows(1) * 2, view, Writer(own), tmp_path / "c.jsonl", SMALL)


# -- an endpoint that misbehaves ---------------------------------------------------------------------------------------


class Endpoint(ChatServer):
    """An OpenAI-compatible server on this machine. `faults` give, per clip, what its first requests meet."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.faults: dict[int, list[str]] = {}
        self.headers: list[dict[str, str]] = []

    def fault(self, clip_number: int) -> str | None:
        with self.lock:
            waiting = self.faults.get(clip_number, [])
            return waiting.pop(0) if waiting else None


class _Handler(ChatHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.question()
        *pictures, words_part = body["messages"][0]["content"]
        jpeg = base64.b64decode(pictures[0]["image_url"]["url"].split(",", 1)[1])
        number = round(float(np.asarray(Image.open(io.BytesIO(jpeg))).mean()) / 10)
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
        code = words_part["text"].rsplit('"', 2)[1]
        good = replace(GOOD, prose=f"{GOOD.prose} Number {number}.").to_json(code)
        fault = self.server.fault(number)
        time.sleep(random.Random(number).random() * 0.02)  # answers overtake one another
        if fault and fault.isdigit():
            return self.send(int(fault), b'{"error": {"message": "injected"}}')
        if fault == "hang":
            time.sleep(1.0)
        if fault == "torn_body":
            return self.send(200, b'{"choices": [{"message": {"cont')
        answer = {
            "refusal": "I'm sorry, but I can't help with that.",
            "loop": "She walks and " * 80,
            "truncated": good[: len(good) // 2],
            "other_clip": good.replace(code, "00000000"),
        }.get(fault or "", good)
        self.answer(answer, "content_filter" if fault == "filtered" else "stop")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    with serving(server):
        yield server


def captioner(server: Endpoint, **fields: Any) -> EndpointCaptioner:
    settings = {"base_url": server.base_url, "model": "tiny", "in_flight": 4, "pause_s": 0.01} | fields
    return EndpointCaptioner(EndpointSettings(**settings))


def test_an_endpoint_captions_clips_in_any_order(endpoint: Endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("ANISORA_API_KEY", "s3cret")
    with captioner(endpoint) as asks:
        done = caption_clips(rows(12), view, asks, tmp_path / "c.jsonl", SMALL)
    assert [row["caption"].split()[-1] for row in done] == [f"{n}." for n in range(12)]
    assert {row["caption_backend"] for row in done} == {"service"}
    body = endpoint.bodies[0]
    assert body["response_format"]["json_schema"]["schema"]["required"][0] == "clip"
    assert len(body["messages"][0]["content"]) == SMALL.frames + 1
    assert endpoint.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in (tmp_path / "c.jsonl").read_text()


def test_faults_that_pass_are_waited_out(endpoint: Endpoint, tmp_path):
    endpoint.faults = {0: ["500", "503"], 1: ["torn_body"], 2: ["429"], 3: ["hang"], 4: ["502", "500", "torn_body"]}
    with captioner(endpoint, timeout_s=0.4) as asks:
        done = caption_clips(rows(6), view, asks, tmp_path / "c.jsonl", SMALL)
    assert [row["caption_reason"] for row in done] == [None] * 6
    assert [row["caption"].split()[-1] for row in done] == [f"{n}." for n in range(6)]


def test_bad_answers_are_asked_once_more_with_another_seed(endpoint: Endpoint, tmp_path):
    kinds = ["refusal", "loop", "truncated", "other_clip", "filtered"]
    endpoint.faults = {number: [kind] for number, kind in enumerate(kinds)}
    with captioner(endpoint) as asks:
        done = caption_clips(rows(5), view, asks, tmp_path / "c.jsonl", SMALL)
    assert [row["caption_reason"] for row in done] == [None] * 5
    assert sorted(body["seed"] for body in endpoint.bodies) == [0] * 5 + [1] * 5
    records = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    said = {record["clip_id"]: record["reason"] for record in records if "reason" in record}
    assert [said[f"clip-{n}"] for n in range(5)] == ["refusal", "loop", "truncated", "wrong_clip", "refusal"]


def test_what_stays_bad_is_left_without_a_caption(endpoint: Endpoint, tmp_path):
    endpoint.faults = {0: ["refusal"] * 9, 1: ["500"] * 99, 2: ["400"] * 9, 3: ["loop"] * 9}
    with captioner(endpoint, tries=2) as asks:
        done = caption_clips(rows(5), view, asks, tmp_path / "c.jsonl", SMALL)
        assert [row["caption_reason"] for row in done] == ["refusal", "http_500", "http_400", "loop", None]
        endpoint.faults[1] = []
        done = caption_clips(rows(5), view, asks, tmp_path / "c.jsonl", SMALL)  # the server has recovered
    assert [row["caption_reason"] for row in done] == ["refusal", None, "http_400", "loop", None]


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_what_is_wrong_for_every_clip_stops_at_once(endpoint: Endpoint, tmp_path, status: str):
    endpoint.faults = {number: [status] for number in range(40)}
    with captioner(endpoint) as asks, pytest.raises(BadConfig, match=status):
        caption_clips(rows(20), view, asks, tmp_path / "c.jsonl", SMALL)
    assert len(endpoint.bodies) <= 8


def test_a_server_that_is_not_there_leaves_the_clips_for_later(tmp_path):
    settings = EndpointSettings(base_url="http://127.0.0.1:9/v1", model="tiny", tries=1, timeout_s=2)
    with EndpointCaptioner(settings) as asks:
        done = caption_clips(rows(2), view, asks, tmp_path / "c.jsonl", replace(SMALL, attempts=1))
    assert [row["caption_reason"] for row in done] == ["unreachable"] * 2


@pytest.mark.parametrize("fields", [{"base_url": "localhost"}, {"model": ""}, {"in_flight": 0}])
def test_endpoint_settings_are_checked(fields: dict[str, Any]):
    with pytest.raises(BadConfig):
        EndpointSettings(**{"model": "tiny"} | fields)


def test_the_question_holds_the_code_and_the_times():
    ask = Ask(clip_id="a", frame_digest="b", frames_THWC=np.zeros((2, 4, 4, 3), np.uint8), times_s=(0.0, 1.5))
    assert f'"{ask.code}"' in question(ask)
    assert "0.0 s, 1.5 s" in question(ask)
