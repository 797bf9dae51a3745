"""The drawn stills that the networks for faults learned from: art of games and desktops, out of Debian packages.

    cd debs && apt-get download $(python ../benchmarks/fault_stills.py --packages) && cd ..
    python benchmarks/fault_stills.py debs --out stills
    anisora evaluate train-faults pictures --stills stills --clips clips --out faults

Needs `dpkg-deb`. Of each package up to `SCENES` pictures and `CUT_OUTS` with holes in them are taken, always the same ones,
none twice, and no flags; those without contrast or sharp edges are left out by `train-faults`. Some 2 GB of packages.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

PACKAGES = (
    "caveexpress-data", "endless-sky-data", "fillets-ng-data", "flare-game", "freeorion-data", "frozen-bubble-data",
    "gcompris-qt-data", "gnome-backgrounds", "hedgewars-data", "ktuberling-data", "lincity-ng-data",
    "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds", "openclipart-png", "pingus-data",
    "plasma-workspace-wallpapers", "pokerth-data", "renpy-demo", "renpy-thequestion", "scratch", "supertux-data",
    "sway-backgrounds", "tuxmath-data", "tuxpaint-data", "tuxpaint-stamps-default", "ukui-wallpapers", "unknown-horizons",
    "wesnoth-1.16-data",
)  # fmt: skip

SCENES, CUT_OUTS = 120, 60

#: Smaller ones say little at the size looks are judged at; larger ones are kept at this short side.
LEAST_PX, KEPT_PX = 256, 800

#: A cut-out covers at least this share of its picture.
LEAST_COVERED = 0.05

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

#: Folders of what is no scene: flags are two flat colours, whole as they are and a fault in anything else.
LEFT_OUT = {"flags"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="DEBS", help="where the packages lie")
    parser.add_argument("--out", type=Path, default=Path("stills"), metavar="DIR")
    parser.add_argument("--packages", action="store_true", help="only say which packages")
    options = parser.parse_args()
    if options.packages:
        print(" ".join(PACKAGES))
        return
    if options.folder is None:
        parser.error("the folder of the packages is missing")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        found = sorted(options.folder.glob(f"{name}_*.deb"))
        if not found:
            raise SystemExit(f"no package {name} in {options.folder}: apt-get download {name}")
        with tempfile.TemporaryDirectory() as unpacked:
            subprocess.run(["dpkg-deb", "-x", found[0], unpacked], check=True)
            taken = 0
            for digest, picture in stills(name, Path(unpacked)):
                picture.save(options.out / f"{name}-{digest}.png")
                taken += 1
        print(f"{name}: {taken}")


def stills(name: str, folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """(hash of the file, picture) of those taken from an unpacked package."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not p.is_symlink())
    files = [path for path in files if not LEFT_OUT & set(path.parts)]
    random.Random(name).shuffle(files)
    left, seen = {"scenes": SCENES, "cut-outs": CUT_OUTS}, set()
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        picture = opened(path)
        if picture is None or digest in seen:
            continue
        covers = np.asarray(picture)[..., 3]
        kind = "scenes" if covers.min() == 255 else "cut-outs"
        if left[kind] and (covers > 128).mean() >= LEAST_COVERED:
            seen.add(digest)
            left[kind] -= 1
            yield digest, picture


def opened(path: Path) -> Image.Image | None:
    """The picture with its holes, kept small; None for what is no picture or too small a one."""
    try:
        with Image.open(path) as picture:
            if min(picture.size) < LEAST_PX:
                return None
            whole = picture.convert("RGBA")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None
    scale = KEPT_PX / min(whole.size)
    size = (round(whole.width * scale), round(whole.height * scale))
    return whole.resize(size, Image.Resampling.BOX) if scale < 1 else whole


if __name__ == "__main__":
    main()
