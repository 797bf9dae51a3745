"""What a step shows: captions found, windows drawn by seed, broken clips replaced, stills in proportion, shards by offset."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from fractions import Fraction
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from anisora.errors import BadConfig, BadInput, BadSize, Failed
from anisora.geometry import Strides
from anisora.media.reader import read_video
from anisora.training.data import DataSettings, Loader, open_data, tokens_of
from anisora.training.parallel import World
from anisora.training.sources import Shards, VideoFolder

NATIVE = ((48, 32), 9, Fraction(8))


def opened(tmp_path, seed=0, **fields):
    return open_data(DataSettings(**fields), Strides(), NATIVE, seed=seed, cache=tmp_path / "corpus")


def loader(data, tmp_path, world=None, seed=0):
    return Loader(data, seed=seed, world=world or World(), workers=1, folder=tmp_path)


@pytest.fixture
def copied(clip_folder, tmp_path):
    return shutil.copytree(clip_folder, tmp_path / "clips")


def test_batches_follow_from_seed_and_step(clip_folder, tmp_path):
    data = opened(tmp_path, videos=clip_folder, batch=2)
    shown = [loader(data, tmp_path).batch(step)[0] for step in (0, 1, 2)]
    again = [loader(data, tmp_path).batch(step)[0] for step in (2, 1, 0)][::-1]
    for a, b in zip(chain(*shown), chain(*again), strict=True):
        assert (a.name, a.caption) == (b.name, b.caption)
        assert np.array_equal(a.video_THWC, b.video_THWC)
        assert a.video_THWC.shape == (9, 32, 48, 3)
        assert a.caption == f"clip number {a.name[0]} drifts."  # as generation writes a prompt
    assert len({clip.name for clip in chain(*shown)}) == 6  # one pass


def test_processes_share_a_batch(clip_folder, tmp_path):
    data = opened(tmp_path, videos=clip_folder, batch=2)
    whole = loader(data, tmp_path).batch(1)[0]
    parts = [loader(data, tmp_path, World(rank=rank, size=2)).batch(1)[0] for rank in (0, 1)]
    for a, b in zip(whole, chain(*parts), strict=True):
        assert np.array_equal(a.video_THWC, b.video_THWC)


def test_tables_of_captions_and_captions_beside(copied):
    for path in copied.glob("[0-4].txt"):
        path.unlink()
    rows = [{"video": f"{n}.mp4", "caption": f"from the table {n}"} for n in range(6)]
    (copied / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    captions = [clip.caption for clip in VideoFolder(copied).clips]
    assert captions == [*(f"from the table {n}" for n in range(5)), "clip number 5 drifts"]
    (copied / "captions.jsonl").unlink()
    (copied / "captions.csv").write_text("video,caption\n" + "".join(f"{n}.mp4,row {n}\n" for n in range(5)))
    assert VideoFolder(copied).clips[3].caption == "row 3"
    (copied / "captions.csv").write_text("video,caption\nnine.mp4,nothing\n")
    with pytest.raises(BadInput, match=r"row 1 names a file that is not there: got nine.mp4"):
        VideoFolder(copied)


def test_missing_captions_are_refused_or_filled(copied, tmp_path):
    (copied / "2.txt").unlink()
    with pytest.raises(BadInput, match=r"1 of 6, 2.mp4 for one"):
        opened(tmp_path, videos=copied)
    data = opened(tmp_path, videos=copied, caption="in the house style", batch=6)
    assert "in the house style." in {clip.caption for clip in loader(data, tmp_path).batch(0)[0]}


def test_what_cannot_be_decoded_is_replaced_counted_and_told(copied, tmp_path, capsys):
    (copied / "1.mp4").write_bytes(b"no video at all")  # found before training
    broken = bytearray((copied / "3.mp4").read_bytes())
    start = broken.find(b"mdat") + 4
    broken[start : start + 3000] = bytes(len(broken[start : start + 3000]))  # found by decoding
    (copied / "3.mp4").write_bytes(bytes(broken))
    data = opened(tmp_path, videos=copied, batch=5)
    runs = [loader(data, tmp_path) for _ in range(2)]
    names = [[clip.name for clip in run.batch(0)[0]] for run in runs]
    assert names[0] == names[1]
    assert len(names[0]) == 5
    assert not {"1.mp4", "3.mp4"} & set(names[0])
    assert runs[0].num_unusable == 2
    noted = [json.loads(line)["name"] for line in (tmp_path / "unusable.jsonl").open()]
    assert noted == ["1.mp4", "3.mp4"]
    assert "left out: 3.mp4" in capsys.readouterr().err


def test_nothing_decodable_fails(copied, tmp_path):
    data = opened(tmp_path, videos=copied)
    for path in copied.glob("*.mp4"):
        path.write_bytes(b"gone bad since")
    with pytest.raises(Failed, match="no clip of 48x32, 9 frames can be decoded"):
        loader(data, tmp_path).batch(0)
    (copied / "0.txt").unlink()
    with pytest.raises(BadInput, match=r"no clip can be used: got 6 that cannot be read; 0.mp4: not a video"):
        opened(tmp_path, videos=copied)


def test_stills_have_their_share_of_the_steps(clip_folder, tmp_path):
    stills = tmp_path / "stills"
    stills.mkdir()
    for n in range(3):
        Image.new("RGB", (60, 40), (n * 40, 90, 200)).save(stills / f"{n}.png")
    data = opened(tmp_path, videos=clip_folder, images=stills, image_share=0.25, caption="flat")
    kinds = Counter(data.buckets[data.schedule.batch(step)[0]].is_stills for step in range(data.schedule.cycle_steps))
    assert kinds == {False: 6, True: 2}
    assert (data.passes, data.epoch_steps) == (1, 8)
    few = opened(tmp_path, videos=clip_folder, images=stills, image_share=0.2, caption="flat", batch=6)
    kinds = Counter(few.buckets[few.schedule.batch(step)[0]].is_stills for step in range(few.schedule.cycle_steps))
    assert kinds == {False: 4, True: 1}  # four passes over the clips, so that a fifth is stills
    assert (few.passes, few.epoch_steps) == (4, Fraction(5, 4))
    with pytest.raises(BadConfig, match="image_share is too small"):
        opened(tmp_path, videos=clip_folder, images=stills, image_share=0.001, caption="flat")
    step = next(step for step in range(8) if data.buckets[data.schedule.batch(step)[0]].is_stills)
    assert loader(data, tmp_path).batch(step)[0][0].video_THWC.shape == (1, 32, 48, 3)


def test_lengths_sizes_and_token_budget(clip_folder, tmp_path):
    data = opened(tmp_path, videos=clip_folder, frames=(5, 13, 17), sizes=((32, 48), (48, 32)), max_tokens=60)
    assert [(bucket.size_px, bucket.num_frames, len(bucket.indices)) for bucket in data.buckets] == [((48, 32), 13, 6)]
    assert tokens_of(Strides(), (48, 32), 13) == 24
    assert data.buckets[0].batch == 2
    with pytest.raises(BadInput, match="no clip is long enough"):
        opened(tmp_path, videos=clip_folder, frames=(17,))
    with pytest.raises(BadConfig, match="24 or more"):
        opened(tmp_path, videos=clip_folder, frames=(13,), max_tokens=20)
    with pytest.raises(BadSize):
        opened(tmp_path, videos=clip_folder, frames=(12,))
    with pytest.raises(BadSize):
        opened(tmp_path, videos=clip_folder, sizes=((50, 32),))
    with pytest.raises(BadConfig, match="one of videos, shards, synthetic"):
        opened(tmp_path)


def test_windows_move_and_a_lower_rate_skips_frames(clip_folder, tmp_path, numbers):
    source = VideoFolder(clip_folder)
    truth = read_video(clip_folder / "0.mp4").frames_THWC
    for seed in range(3):
        rng = np.random.default_rng(seed)
        start = int(np.random.default_rng(seed).integers(5))
        window = source.read(0, 9, (64, 48), Fraction(8), rng)
        assert np.array_equal(window, truth[start : start + 9])
    assert numbers(source.read(0, 5, (64, 48), Fraction(4), np.random.default_rng(1)))[1:] == [
        first + 2 for first in numbers(source.read(0, 5, (64, 48), Fraction(4), np.random.default_rng(1)))[:-1]
    ]


@pytest.fixture(scope="module")
def shards(clip_folder, tmp_path_factory):
    """The clips as curation's shards: two tars, the index, the table of clips, and a mixture."""
    from anisora.curation.shards import _write_index, write_tar

    folder = tmp_path_factory.mktemp("curated")
    entries, rows = [], []
    for shard, indices in (("000000.tar", (0, 1, 2)), ("000001.tar", (3, 4, 5))):
        members = []
        for n in indices:
            parts = {"mp4": (clip_folder / f"{n}.mp4").read_bytes(), "json": b"{}", "txt": f"shard clip {n}".encode()}
            members += [(f"id{n}", suffix, data) for suffix, data in parts.items()]
            facts = {"n_frames": 13, "fps_num": 8, "fps_den": 1, "crop_w_px": 64, "crop_h_px": 48}
            rows.append({"clip_id": f"id{n}", "caption": f"shard clip {n}", **facts})
        entries += write_tar(folder / "shards" / shard, members, bucket="tiny")
    _write_index(folder / "index.parquet", entries, {})
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "clips.parquet")
    draws = [{"clip_id": "id1", "draws": 2, "group": ""}, {"clip_id": "id4", "draws": 1, "group": ""}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(draws), folder / "mixture.parquet")
    return folder


def test_shards_give_what_the_folder_gives(shards, clip_folder):
    ours, theirs = Shards(shards), VideoFolder(clip_folder)
    for n in (0, 4):
        read = [source.read(n, 9, (48, 32), Fraction(8), np.random.default_rng(n)) for source in (ours, theirs)]
        assert np.array_equal(*read)
        assert ours.clips[n].caption == f"shard clip {n}"


def test_a_mixture_is_met_exactly(shards, tmp_path):
    data = opened(tmp_path, shards=shards, mixture=shards / "mixture.parquet")
    steps = range(data.schedule.cycle_steps)
    shown = Counter(clip.name for step in steps for clip in loader(data, tmp_path).batch(step)[0])
    assert shown == {"id1": 2, "id4": 1}


def test_torn_and_missing_shards_are_named(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "torn")
    tar = folder / "shards" / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"shard 000001.tar is torn"):
        Shards(folder)
    tar.unlink()
    with pytest.raises(BadInput, match=r"shard 000001.tar is missing.*anisora curate verify"):
        Shards(folder)


@pytest.mark.parametrize("name", ["index.parquet", "clips.parquet", "mixture.parquet"])
def test_damaged_tables_are_named(name, shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "torn")
    (folder / name).write_bytes(b"PAR1 and no more")
    with pytest.raises(BadInput, match=rf"not a table that can be read: got .*{name} "):
        Shards(folder, folder / "mixture.parquet")


def test_a_clip_damaged_in_its_shard_is_replaced_and_a_shard_that_goes_stops_the_run(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "torn")
    tar = folder / "shards" / "000000.tar"
    entry = Shards(folder)._members["id1"]["mp4"]
    whole = tar.read_bytes()
    middle = entry["offset"] + entry["length"] // 2
    tar.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])  # may well decode
    shown = loader(opened(tmp_path, shards=folder, batch=5), tmp_path)
    assert "id1" not in {clip.name for clip in shown.batch(0)[0]}
    (noted,) = (json.loads(line) for line in (tmp_path / "unusable.jsonl").open())
    assert (noted["name"], "000000.tar" in noted["problem"]) == ("id1", True)
    tar.write_bytes(whole)
    data = opened(tmp_path, shards=folder, batch=5)
    shutil.rmtree(folder / "shards")
    with pytest.raises(Failed, match=r"cannot be read any more.*running the same command again"):
        loader(data, tmp_path).batch(0)


def test_synthetic_clips_are_those_of_the_corpus(tmp_path):
    from anisora.training.corpus import CorpusSettings

    corpus = CorpusSettings(clips=2, frames=9, fps=16, buckets=((48, 32, 1.0),))
    data = opened(tmp_path, synthetic=corpus, frames=(5,), fps=8)
    clip = loader(data, tmp_path).batch(0)[0][0]
    assert clip.video_THWC.shape == (5, 32, 48, 3)
    assert clip.caption
    with pytest.raises(BadConfig, match="a mixture without shards"):
        opened(tmp_path, synthetic=corpus, mixture=tmp_path)
