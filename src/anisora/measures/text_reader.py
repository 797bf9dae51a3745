"""Finds and reads lines of text in pictures: PP-OCR's detector and recogniser, on ONNX Runtime.

A detector alone takes cartoon line work for writing (it calls up to 94 % of some textless frames text), so a line counts
only when the recogniser can read it too. The detector is that of PP-OCRv4 mobile, which is the surer on drawings and three
times as fast; the recogniser that of PP-OCRv6, as version 4 knows no kana and so would miss Japanese subtitles. Both are
Apache-2.0 and come out of pip packages through `anisora.assets`; the packages themselves are not installed, because they
bring a second OpenCV. Their arithmetic is followed: differentiable binarisation (Liao et al. 2020) after detection,
greedy CTC after recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.assets import ASSETS, locate

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

#: Probability of text above which a pixel belongs to a line, and mean probability above which a line is one.
PIXEL_TEXT, LINE_TEXT = 0.3, 0.5
#: How much a detected core is grown, as area over circumference: the network is trained on shrunk lines.
UNCLIP = 1.6
#: Lines of fewer characters do not count: rings read as "C" or "O" and sticks as "A" or "八", with confidence.
FEWEST_CHARACTERS = 2
#: Height that the recogniser reads at, and the widest strip it is given, both in pixels.
READ_HEIGHT_PX, READ_WIDTH_MAX_PX = 48, 1600


@dataclass(frozen=True, kw_only=True, eq=False)
class TextLine:
    """One line of text: its corners in pixels (float [4, 2], clockwise from the top left), what it says, how surely.

    `confidence` in [0, 1] is the mean probability of the characters read.
    """

    corners: NDArray[np.float32]
    text: str
    confidence: float

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the upright rectangle around it."""
        (left, top), (right, bottom) = self.corners.min(axis=0), self.corners.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


def read_text(picture_HWC: Picture, *, max_side_px: int = 960, min_confidence: float = 0.6) -> list[TextLine]:
    """The lines of text in a picture that are read with at least `min_confidence`, from top to bottom.

    Larger pictures are shrunk to `max_side_px` for finding the lines and read at full size; small ones are enlarged to
    at least half of that, as letters of fewer than about 8 pixels are not found. Raises AssetMissing.
    """
    lines = []
    for corners in find_lines(picture_HWC, max_side_px=max_side_px):
        text, confidence = _read_line(_straightened(picture_HWC, corners))
        if len(text.strip()) >= FEWEST_CHARACTERS and confidence >= min_confidence:
            lines.append(TextLine(corners=corners, text=text.strip(), confidence=confidence))
    return sorted(lines, key=lambda line: line.box_xyxy[1])


def find_lines(picture_HWC: Picture, *, max_side_px: int = 960) -> list[NDArray[np.float32]]:
    """Where the detector alone sees text: corners float [4, 2] in pixels each. Raises AssetMissing."""
    import cv2

    height, width = picture_HWC.shape[:2]
    ratio = min(max_side_px / max(height, width), 2.0)
    size = [max(32, round(side * ratio / 32) * 32) for side in (width, height)]
    shrunk = cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    probability_HW = _session("pp-ocr-det").run(None, {"x": _network_input(shrunk)})[0][0, 0]
    scale = np.array([width / size[0], height / size[1]], np.float32)
    return [corners * scale for corners in _lines_of(probability_HW)]


def _lines_of(probability_HW: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The rectangles around the connected areas of text, grown back to the size of the letters."""
    import cv2

    mask = cv2.dilate((probability_HW > PIXEL_TEXT).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < 3:
            continue
        inside = np.zeros_like(mask)
        cv2.drawContours(inside, [cv2.boxPoints((centre, (width, height), angle)).astype(np.int32)], -1, 1, cv2.FILLED)
        if probability_HW[inside > 0].mean() < LINE_TEXT:
            continue
        grow = UNCLIP * width * height / (width + height)  # twice the offset of each side
        corners = cv2.boxPoints((centre, (width + grow, height + grow), angle))
        if min(width, height) + grow >= 5:
            found.append(_clockwise(corners.astype(np.float32)))
    return found


def _clockwise(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Top left, top right, bottom right, bottom left."""
    left, right = np.split(corners[np.argsort(corners[:, 0], kind="stable")], 2)
    (top_left, bottom_left), (top_right, bottom_right) = (half[np.argsort(half[:, 1])] for half in (left, right))
    return np.stack([top_left, top_right, bottom_right, bottom_left])


def _straightened(picture_HWC: Picture, corners: NDArray[np.float32]) -> Picture:
    """The line as an upright strip of the height that the recogniser reads; upright columns are turned on their side."""
    import cv2

    width = float(np.linalg.norm(corners[1] - corners[0]) + np.linalg.norm(corners[2] - corners[3])) / 2
    height = float(np.linalg.norm(corners[3] - corners[0]) + np.linalg.norm(corners[2] - corners[1])) / 2
    if height >= 1.5 * width:
        corners, width, height = np.roll(corners, -1, axis=0), height, width
    strip_width = int(np.clip(round(READ_HEIGHT_PX * width / max(height, 1)), 16, READ_WIDTH_MAX_PX))
    target = np.array([[0, 0], [strip_width, 0], [strip_width, READ_HEIGHT_PX], [0, READ_HEIGHT_PX]], np.float32)
    turn = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    strip = cv2.warpPerspective(
        picture_HWC, turn, (strip_width, READ_HEIGHT_PX), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(strip)


def _read_line(strip_HWC: Picture) -> tuple[str, float]:
    """What a strip says and the mean probability of its characters: greedy CTC, repeats and blanks removed."""
    width = max(320, -(-strip_HWC.shape[1] // 32) * 32)  # padded with grey, as in training
    padded = np.full((READ_HEIGHT_PX, width, 3), 127.5, np.float32)
    padded[:, : strip_HWC.shape[1]] = strip_HWC
    probability_TK = _session("pp-ocr-rec").run(None, {"x": _network_input(padded)})[0][0]
    best = probability_TK.argmax(axis=1)
    chosen = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
    alphabet = _alphabet()
    text = "".join(alphabet[index] for index in best[chosen])
    return text, float(probability_TK.max(axis=1)[chosen].mean()) if chosen.any() else 0.0


def _network_input(picture_HWC: NDArray[Any]) -> NDArray[np.float32]:
    """[1, 3, H, W] in [-1, 1], blue first: the networks were trained on OpenCV's order."""
    bgr_CHW = picture_HWC[..., ::-1].astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(bgr_CHW[None] / 127.5 - 1)


@cache
def _alphabet() -> Sequence[str]:
    """The recogniser's characters by class; class 0 is the blank, the last one the space."""
    stored = _session("pp-ocr-rec").get_modelmeta().custom_metadata_map["character"]
    return ["", *stored.splitlines(), " "]


@cache
def _session(asset: str) -> Any:
    from anisora.measures.onnx import session

    return session(locate(asset))


def weights_sha256() -> str:
    """One hash of both networks, for scores."""
    import hashlib

    return hashlib.sha256((ASSETS["pp-ocr-det"].sha256 + ASSETS["pp-ocr-rec"].sha256).encode()).hexdigest()
