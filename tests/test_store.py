"""Records: one text per value, lines that survive a crash, a page that shows and escapes what it is given."""

import base64
import json
import logging
import multiprocessing
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anisora.errors import BadInput
from anisora.store import (
    Figure,
    Section,
    Table,
    append_jsonl,
    canonical_json,
    content_hash,
    read_jsonl,
    report_page,
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(values)
def test_canonical_json_is_json_and_stays_put(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), scalars))
def test_canonical_json_ignores_order(record):
    backwards = dict(reversed(record.items()))
    assert canonical_json(backwards) == canonical_json(record)
    assert content_hash(backwards) == content_hash(record)


def test_canonical_json_in_words():
    record = {"b": 1.0, "a": [0.1, 1, None, True], "é": Path("x/y"), "fps": Fraction(24000, 1001)}
    assert canonical_json(record) == '{"a":[0.1,1,null,true],"b":1.0,"fps":"24000/1001","é":"x/y"}'
    assert content_hash({"a": 1}) != content_hash({"a": 1.0})


def test_canonical_json_refuses_what_has_no_one_text():
    for bad in (float("nan"), [float("inf")]):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json(bad)
    for bad in ({1: 2}, {"a": [{None: 1}]}, {"a": object()}, {"a": b"bytes"}, {"a": {1, 2}}):
        with pytest.raises(TypeError):
            canonical_json(bad)


# ---- JSON lines

records = [{"index": index, "text": "ü\n\u2028" * index} for index in range(5)]


def test_lines_come_back(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    for record in records:
        append_jsonl(path, record)
    assert read_jsonl(path) == records
    assert path.read_bytes().count(b"\n") == len(records)


def test_a_file_torn_anywhere_loses_at_most_its_last_record(tmp_path, caplog):
    """Cut at every byte, read, then written on: what was whole stays, what comes later stands on its own line."""
    whole = b"".join(json.dumps(record).encode() + b"\n" for record in records[:3])
    path = tmp_path / "log.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        num_whole = whole[:cut].count(b"\n")
        is_whole_without_newline = cut < len(whole) and whole[cut : cut + 1] == b"\n"
        expected = records[: num_whole + is_whole_without_newline]
        assert read_jsonl(path) == expected
        append_jsonl(path, {"later": True})
        assert read_jsonl(path) == [*expected, {"later": True}]


def test_a_torn_line_is_said(tmp_path, caplog):
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n{"b": ')
    with caplog.at_level(logging.WARNING):
        assert read_jsonl(tmp_path / "log.jsonl") == [{"a": 1}]
        append_jsonl(tmp_path / "log.jsonl", {"c": 3})
    assert "skipped a torn last line of 6 bytes" in caplog.text
    assert "cut off a torn last line of 6 bytes" in caplog.text


def test_damage_before_the_end_is_refused_by_line(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n[1, 2]\n{"b": 2}\n')
    with pytest.raises(BadInput, match=r"line 2: \[1, 2\]"):
        read_jsonl(tmp_path / "log.jsonl")
    with pytest.raises(BadInput, match="does not exist"):
        read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    assert read_jsonl(tmp_path / "empty.jsonl") == []
    with pytest.raises(ValueError, match="JSON"):
        append_jsonl(tmp_path / "empty.jsonl", {"loss": float("nan")})
    assert read_jsonl(tmp_path / "empty.jsonl") == []


def _append_many(path, writer):
    for index in range(40):
        append_jsonl(path, {"writer": writer, "index": index, "padding": "x" * 3000})


def test_processes_append_side_by_side(tmp_path):
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, writer)) for writer in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = sorted((record["writer"], record["index"]) for record in read_jsonl(path))
    assert found == [(writer, index) for writer in range(3) for index in range(40)]


# ---- the report


class _Page(HTMLParser):
    """The tags of a page with their attributes, its texts, and whether they nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_report_shows_everything(tmp_path):
    Image.new("RGB", (4, 3), "red").save(tmp_path / "a.png")
    (tmp_path / "shot.mp4").write_bytes(b"not really a video")
    page = _Page(
        report_page(
            "Shots",
            [
                Section(
                    heading="First",
                    paragraphs=["what was seen"],
                    figures=[
                        Figure(source=tmp_path / "a.png", caption="a still"),
                        Figure(source=Image.new("L", (2, 2)), width_px=200),
                        Figure(source=tmp_path / "shot.mp4", caption="embedded"),
                        Figure(source="shots/b.webm", caption="beside", is_beside=True),
                    ],
                    tables=[Table(columns=["name", "psnr_db"], rows=[["x", 31.23456], ["y", None]], caption="figures")],
                )
            ],
            lead="made today",
        )
    )
    assert page.open == []
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert base64.b64decode(sources[0].removeprefix("data:image/png;base64,")) == (tmp_path / "a.png").read_bytes()
    assert sources[1].startswith("data:image/png;base64,")
    assert base64.b64decode(sources[2].removeprefix("data:video/mp4;base64,")) == b"not really a video"
    assert sources[3] == "shots/b.webm"
    assert [tag for tag, _ in page.tags if tag in ("img", "video")] == ["img", "img", "video", "video"]
    for text in ("Shots", "made today", "First", "what was seen", "a still", "figures", "psnr_db", "31.23", "–"):
        assert text in page.texts


def test_report_escapes_what_comes_from_outside(tmp_path):
    evil = "<script>alert(1)</script>\"' onerror=x"
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    section = Section(
        heading=evil,
        paragraphs=[evil],
        figures=[
            Figure(source=tmp_path / "a.png", caption=evil),
            Figure(source='x" onerror="alert(1).png', is_beside=True),
        ],
        tables=[Table(columns=[evil], rows=[[evil]], caption=evil)],
    )
    page = _Page(report_page(evil, [section], lead=evil))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert page.texts.count(evil) == 9  # title, two headings, lead, paragraph, two captions, two cells


def test_report_refuses_figures_it_cannot_show(tmp_path):
    for source in (tmp_path / "none.png", tmp_path / "a.exe"):
        with pytest.raises(BadInput):
            report_page("t", [Section(heading="h", figures=[Figure(source=source)])])
