"""Files: written whole or not at all."""

import contextlib
import errno
import os
import stat

import pytest

from anisora.errors import BadImage, WriteFailed
from anisora.files import atomic_folder, check_writable, existing_file, remove_partials, sha256_file, write_atomic


def test_bytes_and_callbacks(tmp_path):
    path = write_atomic(tmp_path / "deep" / "a.bin", b"one")
    assert path.read_bytes() == b"one"
    write_atomic(path, lambda partial: partial.write_bytes(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.bin"]
    assert sha256_file(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_files_get_the_users_usual_rights(tmp_path):
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "ours", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failing_callback_leaves_the_older_file(tmp_path, error):
    path = write_atomic(tmp_path / "a.bin", b"old")

    def fail(partial):
        partial.write_bytes(b"half")
        raise error

    with pytest.raises(WriteFailed if error is OSError else error):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_reason_is_named(tmp_path):
    def full(partial):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteFailed, match=r"a.bin could not be written: got No space left on device; try freeing"):
        write_atomic(tmp_path / "a.bin", full)
    with pytest.raises(WriteFailed, match="folder"):
        write_atomic(tmp_path, b"")
    with pytest.raises(WriteFailed):
        write_atomic(tmp_path / ("x" * 300), b"")


def test_the_reason_is_named_where_a_library_tells_it_in_words_of_its_own(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    said = pytest.raises(WriteFailed, match=r"out could not be written: got No such file or directory")
    with said, atomic_folder(tmp_path / "out", members=".*") as partial:
        save_file({"a": np.zeros(1)}, partial / "no folder" / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_folders_replace_only_their_own_kind(tmp_path):
    for content in ("first", "second"):
        with atomic_folder(tmp_path / "out", members=r"\d\.txt") as partial:
            (partial / "1.txt").write_text(content)
    assert (tmp_path / "out" / "1.txt").read_text() == "second"
    (tmp_path / "out" / "diary.txt").touch()
    with pytest.raises(WriteFailed, match="diary"), atomic_folder(tmp_path / "out", members=r"\d\.txt"):
        pass
    with contextlib.suppress(RuntimeError), atomic_folder(tmp_path / "new", members="x") as partial:
        (partial / "x").touch()
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out"]


def test_checking_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "a.mp4")
    (tmp_path / "file").touch()
    for bad in (tmp_path, tmp_path / "file" / "a.mp4"):
        with pytest.raises(WriteFailed):
            check_writable(bad)
    assert not (tmp_path / "new" / "a.mp4").exists()


def test_impossible_names_are_missing_files():
    for name in ("x" * 5000, "nul\0byte"):
        with pytest.raises(BadImage, match="does not exist"):
            existing_file(name, BadImage, "the picture")


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in (".clip.0123abcd.mp4", "sub/.x.deadbeef", "sub/keep.mp4", ".lock", ".notes.txt", ".a.b.c"):
        (tmp_path / name).touch()
    assert remove_partials(tmp_path) == 2
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".a.b.c", ".lock", ".notes.txt", "keep.mp4"]
