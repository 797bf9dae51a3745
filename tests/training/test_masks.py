"""Video-mask pairs from clips whose truth is known: what is kept, what is dropped and why, and going on after a stop."""

from __future__ import annotations

import json

import numpy as np
import pytest

from anisora.assets import locate
from anisora.errors import AssetMissing, BadConfig, BadInput, Failed
from anisora.media.image import load_image
from anisora.media.reader import read_video
from anisora.media.writer import write_video
from anisora.training import masks
from anisora.training.masks import MaskSettings, build_masks, read_settings, verdict

WIDTH, HEIGHT, RADIUS = 160, 96, 22


def scene(t: int, *, move: float, pan: float = 0.0):
    """A red disc that moves up and down before a soft pattern that may move as well, and where the disc is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = np.sin((x + pan * t) / 3) * np.cos(y / 4)
    picture = np.stack([120 + 60 * waves if pan else 120 + 6 * waves, 150 + 0 * waves, 170 - 6 * waves], -1)
    disc = (x - 80) ** 2 + (y - 40 - move * t) ** 2 < RADIUS**2
    picture[disc] = (210, 40, 40)
    picture[disc & (np.abs(x - 74) < 4)] = (250, 230, 80)
    return picture.astype(np.uint8), disc


def clip(path, **how):
    drawn = [scene(t, **how) for t in range(9)]
    write_video(path, np.stack([picture for picture, _ in drawn]), 8)
    return np.stack([disc for _, disc in drawn])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One clip for each verdict, and the truth of the one that is kept."""
    try:
        locate("u2netp")
    except AssetMissing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("videos")
    truth = clip(folder / "moves.mp4", move=2.0)
    clip(folder / "still.mp4", move=0.0)
    clip(folder / "pans.mp4", move=0.5, pan=6.0)
    write_video(folder / "one.mp4", scene(0, move=0)[0][None], 8)
    (folder / "torn.mp4").write_bytes((folder / "moves.mp4").read_bytes()[:400])
    return folder, truth


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("pairs")
    return out, build_masks([videos[0]], out)


def by_name(records):
    return {record["video"].rsplit("/", 1)[1].removesuffix(".mp4"): record for record in records}


def test_each_clip_has_a_line_with_its_verdict_and_why(built):
    out, records = built
    found = by_name(records)
    assert {name: record["reason"] for name, record in found.items()} == {
        "moves": None,
        "still": "nothing_moves",
        "pans": "background_moves",
        "one": "unreadable",
        "torn": "unreadable",
    }
    assert all(found[name]["message"] for name in ("one", "torn"))
    assert found["moves"]["verdict"] == "keep"
    lines = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [record["key"] for record in records]


def test_the_area_holds_the_figure_at_every_frame_and_little_else(built, videos):
    out, records = built
    record = by_name(records)["moves"]
    area = np.asarray(load_image(out / record["area_file"]))[..., 0]
    assert area.shape == (HEIGHT, WIDTH)
    assert set(np.unique(area)) == {0, 255}
    truth = videos[1].any(axis=0)
    assert ((area > 0) & truth).sum() / truth.sum() > 0.95
    assert (area > 0).mean() < 1.5 * truth.mean()
    assert record["area"] == pytest.approx((area > 0).mean(), abs=0.01)
    assert record["precision"] > 0.95


def test_a_sheet_shows_every_clip_that_could_be_read(built):
    out, records = built
    sheet = load_image(out / "sheets" / "000.png")
    assert sheet.width > 2 * 4 * WIDTH
    assert sum("look_file" in record for record in records) == 3


def test_run_again_it_looks_at_nothing_and_says_the_same(built, videos, monkeypatch):
    out, records = built
    before = (out / "pairs.jsonl").read_bytes()
    monkeypatch.setattr(masks, "follow_clip", None)
    again = build_masks([videos[0]], out)
    assert [record["key"] for record in again] == [record["key"] for record in records]
    assert (out / "pairs.jsonl").read_bytes() == before


def test_after_a_stop_it_goes_on_and_ends_the_same(built, videos, tmp_path, monkeypatch):
    out = tmp_path / "pairs"
    calls = []
    follow_clip = masks.follow_clip

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return follow_clip(*args)

    monkeypatch.setattr(masks, "follow_clip", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_masks([videos[0]], out)
    with (out / "pairs.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    build_masks([videos[0]], out)
    assert len(calls) == 6  # the one that was done is not done again
    assert (out / "pairs.jsonl").read_bytes() == (built[0] / "pairs.jsonl").read_bytes()
    for area in (built[0] / "areas").iterdir():
        assert (out / "areas" / area.name).read_bytes() == area.read_bytes()


def test_a_changed_area_and_changed_settings_are_done_again(videos, tmp_path):
    out, one = tmp_path / "pairs", videos[0] / "moves.mp4"
    (record,) = build_masks([one], out)
    (out / record["area_file"]).write_bytes(b"something else")
    (again,) = build_masks([one], out)
    assert again == record
    assert load_image(out / again["area_file"]).size == (WIDTH, HEIGHT)
    (wider,) = build_masks([one], out, MaskSettings(grow_frac=0.05))
    assert wider["key"] != record["key"]
    assert wider["area"] > record["area"] + 0.02
    assert len((out / "pairs.jsonl").read_text().splitlines()) == 1


def test_two_runs_in_one_folder_are_refused(videos, tmp_path):
    from anisora.curation.ledger import locked

    with locked(tmp_path), pytest.raises(Failed, match="another run"):
        build_masks([videos[0]], tmp_path)


def test_settings_that_mean_nothing_are_refused(tmp_path):
    assert read_settings({"max_area": 0.5}).max_area == 0.5
    with pytest.raises(BadConfig, match="max_area"):
        read_settings({"max_area": 1.5})
    with pytest.raises(BadConfig, match="grow_frac"):
        read_settings({"grow_frc": 0.1})
    with pytest.raises(BadInput, match="no such file"):
        build_masks([tmp_path / "gone"], tmp_path / "pairs")


def test_verdicts_follow_from_the_figures():
    good = {"foreground": 0.1, "found": 1.0, "area": 0.2, "recall": 0.5, "precision": 0.9}
    assert verdict(good, MaskSettings()) is None
    for change, reason in [
        ({"foreground": 0.0}, "no_foreground"),
        ({"found": 0.2}, "lost"),
        ({"area": 0.9}, "area_too_large"),
        ({"recall": 0.0}, "nothing_moves"),
        ({"precision": None}, "nothing_moves"),
        ({"precision": 0.3}, "background_moves"),
    ]:
        assert verdict(good | change, MaskSettings()) == reason


@pytest.mark.usefixtures("videos")
def test_a_real_clip_has_a_verdict_and_an_area_when_it_is_kept(shared_data, tmp_path):
    real = shared_data / "real_clips" / "anita" / "00131_1_fps10.gif"
    (record,) = build_masks([real], tmp_path, MaskSettings(look_every_s=1.0))
    assert record["frames"] == len(read_video(real))
    assert (record["verdict"] == "keep") == (record["reason"] is None) == (record["area_file"] is not None)
    assert record["reason"] != "unreadable"
