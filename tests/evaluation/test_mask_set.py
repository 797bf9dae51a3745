"""Motion-mask samples: a box for each thing that stands out, dropped ones stay dropped, and the set is a benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anisora.errors import BadInput
from anisora.evaluation.benchmark import read_benchmark
from anisora.evaluation.mask_set import build_mask_set, instance_boxes


def two_figures() -> np.ndarray:
    """A red disc and a smaller blue bar on paper, with a red speck."""
    picture = np.full((120, 200, 3), 245, np.uint8)
    y, x = np.mgrid[:120, :200]
    picture[(x - 50) ** 2 + (y - 60) ** 2 < 30**2] = (220, 30, 30)
    picture[40:80, 140:160] = (30, 30, 220)
    picture[5:8, 100:103] = (220, 30, 30)
    return picture


def colored(picture_HWC: np.ndarray) -> np.ndarray:
    """Stands out: what is not the colour of paper. A detector whose answer is known."""
    return (np.ptp(picture_HWC.astype(int), axis=-1) > 60).astype(np.float32)


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    folder = tmp_path / "stills"
    folder.mkdir()
    Image.fromarray(two_figures()).save(folder / "pair_1.png")
    Image.fromarray(np.full((64, 64, 3), 245, np.uint8)).save(folder / "paper_1.png")
    (folder / "broken_1.png").write_bytes(b"no picture")
    return folder


def test_boxes_hold_their_parts_exactly():
    assert instance_boxes(two_figures(), colored) == [(21, 31, 80, 90), (140, 40, 160, 80)]
    assert instance_boxes(two_figures(), lambda p: np.ones(p.shape[:2], np.float32)) == []


def test_a_set_is_built_reviewed_and_read_back(stills, tmp_path):
    out = tmp_path / "set"
    made = build_mask_set(read_benchmark(stills), out, detect=colored)
    assert (made["samples"], made["empty"], list(made["unreadable"])) == (2, ["paper_1"], ["broken_1"])
    items = read_benchmark(out)
    assert [item.id for item in items] == ["pair_1_1", "pair_1_2"]
    assert items[0].image == str(stills / "pair_1.png")
    area = np.asarray(Image.open(items[0].mask or "")) > 0
    assert area.shape == (120, 200)
    assert area[31:90, 21:80].all()
    assert area.sum() == 59 * 59
    assert "pair_1_2" in (out / "review.html").read_text()
    (out / "drop.txt").write_text("pair_1_1\n")
    again = build_mask_set(read_benchmark(stills), out, detect=colored)
    assert again["dropped"] == ["pair_1_1"]
    assert [item.id for item in read_benchmark(out)] == ["pair_1_2"]
    (out / "drop.txt").write_text("pair_1_1 pair_1_9")
    with pytest.raises(BadInput, match="pair_1_9"):
        build_mask_set(read_benchmark(stills), out, detect=colored)


def test_a_set_of_nothing_says_why(stills, tmp_path):
    with pytest.raises(BadInput, match="nothing stands out"):
        build_mask_set([i for i in read_benchmark(stills) if i.id == "paper_1"], tmp_path / "set", detect=colored)
    assert not (tmp_path / "set" / "suite.jsonl").exists()
