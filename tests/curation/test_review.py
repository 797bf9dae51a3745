"""The review page: what it shows, that foreign text stays text, and that its labels come back as a CSV heads can read."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from anisora.curation.heads import HEADS, label_rows, read_labels
from anisora.curation.review import choose_clips, write_review
from anisora.errors import BadInput
from anisora.records import Score

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def score(name: str, sure: float) -> Score:
    classes = HEADS[name]
    details = {classes[0]: 1 - sure, classes[1]: sure}
    return Score(name=name, version=1, unit="class", raw=classes[1], details=details)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def rows() -> list[dict]:
    return [
        {"clip_id": "a", "path": "clips/a b#1.mp4", "caption": "A girl waves.", "flow": 0.5, "verdict": "keep"},
        {"clip_id": EVIL, "path": f"clips/{EVIL}.mp4", "caption": EVIL, "reason": EVIL},
        {"clip_id": "c", "path": None, "caption": None},
    ]


def test_foreign_text_stays_text(tmp_path: Path):
    page = write_review(rows(), tmp_path / "review.html", scores={"a": {"talking": score("talking", 0.7)}})
    parsed = Parsed(page.read_text())
    assert len(parsed.scripts) == 1
    assert "alert" not in parsed.scripts[0]
    assert not [tag for tag, attributes in parsed.tags if any(name.startswith("on") for name in attributes)]
    clips = [attributes["data-clip"] for tag, attributes in parsed.tags if tag == "article"]
    assert clips == ["a", EVIL, "c"]
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag in ("video", "img")]
    assert sources[0] == "clips/a%20b%231.mp4"
    assert "<" not in sources[1]
    assert len(sources) == 2
    policy = next(attributes for tag, attributes in parsed.tags if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy["content"]
    assert 'yes <small title="what the head guesses">70\u00a0%</small>' in page.read_text()
    assert "http:" not in page.read_text()


def test_the_unsure_come_first_and_some_are_drawn():
    ids = [f"{n:03}" for n in range(100)]
    scores = {clip_id: {"talking": score("talking", 0.5 + n / 200)} for n, clip_id in enumerate(ids)}
    chosen = choose_clips(ids, scores, 20, seed=0)
    assert len(set(chosen)) == 20
    assert sum(clip_id < "020" for clip_id in chosen) >= 15
    assert any(clip_id > "040" for clip_id in chosen)
    assert chosen == choose_clips(ids, scores, 20, seed=0)
    assert choose_clips(ids[:5], {}, 20, seed=0) == ids[:5]


def test_nothing_to_review_and_unknown_heads(tmp_path: Path):
    with pytest.raises(BadInput, match="no clips"):
        write_review([], tmp_path / "r.html")
    with pytest.raises(BadInput, match="beauty"):
        write_review(rows(), tmp_path / "r.html", heads=["beauty"])
    assert not (tmp_path / "r.html").exists()


DRIVER = """
const script = require("fs").readFileSync(0, "utf8");
const listeners = {};
const element = (data) => ({dataset: data, style: {}, classList: {toggle() {}}, setAttribute(n, v) { this[n] = v; },
  querySelectorAll: () => [], querySelector: () => element({}), addEventListener() {}, closest: () => null, value: ""});
const articles = CLIPS.map(clip => element({clip}));
const store = {};
global.document = {querySelectorAll: what => what === "article" ? articles : [], getElementById: () => element({}),
  addEventListener: (name, call) => { listeners[name] = call; }, activeElement: element({})};
global.localStorage = {getItem: name => store[name] ?? null, setItem: (name, value) => { store[name] = value; }};
global.window = {};
const page = new Function(script + "; return {mark, exported, toCSV};")();
for (const [clip, head, label] of MARKS) page.mark(articles[clip], head, label);
const again = new Function(script + "; return {exported, toCSV};")();
process.stdout.write(again.toCSV(again.exported(), 'me, "I"'));
"""


def labelled(page: Path, marks: list[tuple[int, str, str]], out: Path) -> Path:
    """The CSV that the page's own script exports after these clicks (clip, head, label) and after being opened again."""
    driver = DRIVER.replace("CLIPS", json.dumps(["a", EVIL, "c"])).replace("MARKS", json.dumps(marks))
    script = Parsed(page.read_text()).scripts[0]
    done = subprocess.run(["node", "-e", driver], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out.write_bytes(done.stdout.encode())
    return out


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_labels_come_back_as_csv_and_go_on(tmp_path: Path):
    """Marks, takes one mark back, is opened again, exports; heads read it; the next page starts from it."""
    page = write_review(rows(), tmp_path / "review.html")
    twice = [(2, "dimension", "2d"), (2, "dimension", "2d")]
    marks = [(0, "talking", "no"), (0, "talking", "yes"), (1, "dimension", "3d"), *twice]
    first = labelled(page, marks, tmp_path / "labels.csv")
    assert read_labels(first) == {"talking": {"a": "yes"}, "dimension": {EVIL: "3d"}}

    with first.open("a") as file:
        file.write("elsewhere,talking,no,you,\n")
    page = write_review(rows(), tmp_path / "review.html", labels=label_rows(first))
    marks = [(0, "talking", "no"), (1, "dimension", "3d"), (2, "talking", "yes")]
    second = labelled(page, marks, tmp_path / "more.csv")
    assert read_labels(second) == {"talking": {"a": "no", "c": "yes", "elsewhere": "no"}}
    assert {row["rater"] for row in label_rows(second)} == {'me, "I"', "you"}


def test_clips_without_labels_come_first(tmp_path: Path):
    def shown(labels: list[dict[str, str]], **options: Any) -> list[str | None]:
        page = write_review(rows(), tmp_path / "review.html", labels=labels, **options)
        return [attributes["data-clip"] for tag, attributes in Parsed(page.read_text()).tags if tag == "article"]

    labels = [{"clip_id": clip_id, "head": "talking", "label": "yes"} for clip_id in ("a", EVIL)]
    assert shown(labels, heads=["talking"], limit=2) == ["c", "a"]
    assert shown(labels, heads=["talking", "dimension"], limit=2) == shown([], limit=2)
    scripts = Parsed((tmp_path / "review.html").read_text()).scripts
    assert len(scripts) == 1
    assert "</script>" not in scripts[0]
