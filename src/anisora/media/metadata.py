"""The request inside the result: a JSON object embedded in a video file, a GIF or a PNG sequence, and read back.

It is the `comment` tag of video files, the comment extension of a GIF and a text chunk of a sequence's first PNG.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from anisora.errors import BadVideo
from anisora.files import existing_file
from anisora.media.container import opened
from anisora.media.pictures import is_picture, is_sequence, sequence_paths

#: the PNG text chunk and the tag of video files
PNG_KEY, TAG = "anisora_metadata", "comment"


def to_json(metadata: dict[str, Any]) -> str:
    """One line of JSON. Raises ValueError for not-a-numbers, TypeError for what JSON cannot hold."""
    return json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object embedded in a file or PNG folder by `write_video`; empty when there is none. Raises BadVideo."""
    try:
        metadata = json.loads(_embedded_text(Path(path)))
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _embedded_text(path: Path) -> str:
    if is_sequence(path):
        return _picture_text(sequence_paths(path)[0])
    if is_picture(existing_file(path, BadVideo, "the video")):
        return _picture_text(path)
    with opened(path) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    return tags.get(TAG, "")


def _picture_text(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            comment = image.info.get(PNG_KEY) or image.info.get("comment") or b""
    except OSError as reason:
        raise BadVideo("the file is damaged", got=f"{path} ({reason})") from reason
    return comment.decode(errors="replace") if isinstance(comment, bytes) else comment


def gif_with_comment(gif: bytes, text: str) -> bytes:
    """A GIF with a comment extension behind its global palette (GIF89a specification, section 24).

    FFmpeg writes none. The text goes in sub-blocks of up to 255 bytes, UTF-8.
    """
    flags = gif[10]
    start = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    data = text.encode()
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return gif[:start] + b"\x21\xfe" + blocks + b"\x00" + gif[start:]
