"""A set to measure motion masks on, made as the paper's 200 samples were (section 5.4): saliency of each first picture,
its connected parts, a box around each as the area that may move; then somebody looks and throws out what is no good.

What comes out is a benchmark like any other: `run-suite --masks` makes it with the masks and without the option without
them, and the report has both beside each other. To throw out samples, write their ids into `drop.txt`, one a line, and run
again; what was found before is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import AnisoraError, BadInput
from anisora.evaluation.benchmark import MANIFEST, Item, write_benchmark
from anisora.files import write_atomic
from anisora.measures.salience import FOREGROUND, Detector
from anisora.store import Figure, Section, report_page

PAGE, DROP = "review.html", "drop.txt"

#: Smaller parts are specks and props; with a larger box there is hardly anything left that has to stay still.
LEAST_SHARE, MOST_SHARE = 0.01, 0.6

#: Width of a picture on the page, and the colour of the box.
_SHOWN_PX, _BOX_RGB = 480, (255, 40, 40)

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive


def instance_boxes(picture_HWC: NDArray[np.uint8], detect: Detector) -> list[Box]:
    """The boxes of a picture's salient parts, from the largest part to the smallest.

    Parts below `LEAST_SHARE` of the picture and boxes above `MOST_SHARE` are left out.
    """
    import cv2

    found = (detect(picture_HWC) >= FOREGROUND).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(found)
    parts = sorted(stats[1:].tolist(), key=lambda part: -part[cv2.CC_STAT_AREA])
    area = found.size
    return [
        (x, y, x + width, y + height)
        for x, y, width, height, size in parts
        if size >= LEAST_SHARE * area and width * height <= MOST_SHARE * area
    ]


def build_mask_set(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    *,
    detect: Detector | None = None,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes `out/suite.jsonl`, `masks/`, `pictures/` (first pictures of clips) and `review.html`; one sample an instance.

    `{samples, dropped, empty, unreadable, page, manifest}`: ids dropped by `out/drop.txt`, items without an instance,
    items whose picture cannot be read. `limit` stops at so many samples. `detect` is `measures.salience.salience` where
    none is given. Raises BadInput when no sample is left, or when `drop.txt` names one that there is not; AssetMissing.
    """
    from anisora.measures.salience import salience

    out = Path(out).absolute()
    dropped, seen = _dropped(out / DROP), set()
    samples: list[Item] = []
    empty: list[str] = []
    unreadable: dict[str, str] = {}
    for number, item in enumerate(items):
        if progress:
            progress("pictures", number, len(items))
        if limit is not None and len(samples) >= limit:
            break
        try:
            image, picture_HWC = _first_picture(item, out)
        except AnisoraError as problem:
            unreadable[item.id] = str(problem)
            continue
        boxes = instance_boxes(picture_HWC, detect or salience)
        if not boxes:
            empty.append(item.id)
        for count, box in enumerate(boxes, 1):
            name = f"{item.id}_{count}"
            seen.add(name)
            if name not in dropped:
                mask = _write_mask(out / "masks" / f"{name}.png", box, picture_HWC.shape[:2])
                samples.append(replace(item, id=name, image=image, mask=mask))
    samples = samples[:limit]
    if unknown := dropped - seen if limit is None else set():
        raise BadInput(f"no such samples in {DROP}", got=", ".join(sorted(unknown)), expected="ids of the page")
    if not samples:
        problems = "; ".join([*unreadable.values(), *(f"{name}: nothing stands out" for name in empty)])
        raise BadInput("no motion masks", got=problems or "all dropped", expected="pictures with a figure in them")
    manifest = write_benchmark(out / MANIFEST, samples)
    page = write_atomic(out / PAGE, _page(samples, empty, unreadable).encode())
    return {
        "samples": len(samples), "dropped": sorted(dropped & seen), "empty": empty, "unreadable": unreadable,
        "page": str(page), "manifest": str(manifest),
    }  # fmt: skip


def _dropped(path: Path) -> set[str]:
    return set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()


def _first_picture(item: Item, out: Path) -> tuple[str, NDArray[np.uint8]]:
    """The path of an item's first picture and its pixels; that of a clip is written under `pictures/`."""
    from PIL import Image

    from anisora.media.image import load_image
    from anisora.media.reader import read_video

    if item.image is not None:
        return item.image, np.array(load_image(item.image))
    if item.video is None:
        raise BadInput(f"{item.id} has neither a picture nor a clip", expected="one of them")
    picture_HWC = read_video(item.video, num_frames=1).frames_THWC[0]
    path = out / "pictures" / f"{item.id}.png"
    write_atomic(path, Image.fromarray(picture_HWC).save)
    return str(path), picture_HWC


def _write_mask(path: Path, box: Box, size: tuple[int, ...]) -> str:
    from PIL import Image

    left, top, right, bottom = box
    mask_HW = np.zeros(size, np.uint8)
    mask_HW[top:bottom, left:right] = 255
    return str(write_atomic(path, partial(Image.fromarray(mask_HW).save, format="PNG")))


def _page(samples: Sequence[Item], empty: Sequence[str], unreadable: dict[str, str]) -> str:
    figures = [Figure(source=_shown(item), caption=item.id, width_px=_SHOWN_PX) for item in samples]
    sections = [Section(heading="Motion areas", figures=figures)]
    left_out = [f"{name}: nothing stands out" for name in empty]
    left_out += [f"{name}: {problem}" for name, problem in unreadable.items()]
    if left_out:
        sections.append(Section(heading="Without a sample", paragraphs=left_out))
    lead = f"{len(samples)} samples. Write the ids of those that are no good into {DROP}, one a line, and run again."
    return report_page("Motion masks", sections, lead=lead)


def _shown(item: Item) -> bytes:
    """The picture, small, with what has to stay still dimmed and the box around what may move."""
    import cv2

    from anisora.media.image import load_image, load_mask

    picture = np.array(load_image(item.image))
    scale = _SHOWN_PX / picture.shape[1]
    size = (_SHOWN_PX, max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    area = cv2.resize(np.asarray(load_mask(item.mask), np.float32), size, interpolation=cv2.INTER_NEAREST) >= 0.5
    shown = np.where(area[..., None], small, small // 2).astype(np.uint8)
    outline = cv2.morphologyEx(area.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    shown[outline] = _BOX_RGB
    return cv2.imencode(".png", shown[..., ::-1])[1].tobytes()
