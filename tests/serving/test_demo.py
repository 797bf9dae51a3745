"""The demo on a tiny random checkpoint: everything on the page exists and is what was measured."""

from __future__ import annotations

import html.parser
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from anisora.media.reader import read_video
from anisora.serving.demo import make_demo


class Page(html.parser.HTMLParser):
    """Headings, texts and sources of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_shows_what_was_made(tiny: Callable[..., Path], tmp_path: Path):
    index, shots = make_demo(tmp_path / "demo", model=str(tiny("wan")))
    page = Page(index)
    for title in ("One still", "Three keyframes", "A motion area", "A long shot"):
        assert title in page.texts
    beside = [source for source in page.sources if not source.startswith("data:")]
    assert len(beside) == 8
    assert all((index.parent / source).is_file() for source in beside)
    assert len(page.sources) > len(beside)  # inputs and contact sheets are in the page itself
    assert [len(shot["guides"]) for shot in shots] == [1, 3, 1, 5]
    assert shots[3]["frames"] == 17
    assert shots[3]["seams"]

    area = np.asarray(Image.open(tmp_path / "demo" / "inputs" / "area.png"))[..., 0] == 255
    still = np.asarray(Image.open(tmp_path / "demo" / "inputs" / "scene.png"))
    frames = read_video(tmp_path / "demo" / "motion_area").frames_THWC
    assert np.array_equal(frames[:, ~area], np.broadcast_to(still[~area], (len(frames), *still[~area].shape)))

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").glob("*.json")}
    _, again = make_demo(tmp_path / "demo", model=str(tiny("wan")))
    assert again == shots
    assert made == {path: path.stat().st_mtime_ns for path in made}
