"""Video files through PyAV (FFmpeg): upright 8-bit RGB frames with exact times, and plain words for what is wrong.

Three things that players do and naive readers forget are done here: rotation metadata is applied, colours are converted
by the file's own matrix and range, and a file that ends too early is told from one that is short.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import BadVideo
from anisora.files import is_text
from anisora.media.color import to_rgb
from anisora.media.image import over
from anisora.media.pictures import check_area, check_same_size
from anisora.media.video import Frame, VideoInfo

# Named, because FFmpeg also "plays" text, playlists and scripts, some of which open further files or addresses.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,av1,ogg,asf,mxf,nut,yuv4mpegpipe,rm,"
    "gif,apng,mp3,wav,flac,aac"
)
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}

_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic


def probe_container(path: Path, max_px: int) -> VideoInfo:
    """What a video file holds: its header, its first frame, and, where the header has no count, its packets counted."""
    with opened(path) as container:
        stream = video_stream(container, path)
        check_area(path, stream.width, stream.height, max_px)
        first = next(decoded(container, stream, path, []), None)
        if first is None:
            raise BadVideo("no frame could be decoded", got=path, expected="a video")
        return _describe(path, container, stream, first)


def iter_container(
    path: Path,
    *,
    background: tuple[int, int, int],
    max_px: int,
    threads: int,
    keep_damaged: bool,
    notes: list[str],
    start_pts: int | None = None,
) -> Iterator[Frame]:
    """The frames of a video file in the order in which they are shown; with `start_pts` from the key frame before it.

    Raises BadVideo at the first damage, or after the last frame of a file that is cut short, saying how many frames
    were decoded; with `keep_damaged` the damage goes into `notes` and what can be decoded is yielded.
    """
    from av.video.reformatter import VideoReformatter

    with opened(path) as container:
        stream = video_stream(container, path)
        check_area(path, stream.width, stream.height, max_px)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        if start_pts is not None:
            container.seek(start_pts, stream=stream)
        damage: list[str] = []
        reformatter = VideoReformatter()
        first = previous = None
        num_frames = 0
        for picture in decoded(container, stream, path, damage):
            if damage and not keep_damaged:
                break
            rgb_HWC = upright(_pixels(reformatter, picture, background), display_matrix(picture))
            if first is None:
                first = rgb_HWC
                notes += remarks(stream, picture)
            check_same_size(f"{path}, frame {num_frames}", rgb_HWC, first)
            previous = _timed(picture, rgb_HWC, stream, previous)
            yield previous
            num_frames += 1
        if missing := missing_bytes(path):
            damage.append(f"the file ends {missing} bytes early")
        _judge(path, damage, num_frames, stream.frames, keep_damaged, notes)


def _judge(path: Path, damage: list[str], num_frames: int, announced: int, keep: bool, notes: list[str]) -> None:
    """Says what was wrong: as a note when it is to be kept and something is left, else as BadVideo."""
    if num_frames and not damage:
        return
    count = f"{num_frames} of {announced} frames decoded" if announced else f"{num_frames} frames decoded"
    if num_frames and keep:
        notes.append(f"damaged: {count} ({damage[0]})")
        return
    raise BadVideo(
        "the video is damaged or cut short" if damage else "the video holds no frames",
        got=f"{path}, {count}" + (f" ({damage[0]})" if damage else ""),
        expected="a whole file",
        hint="copying or exporting it again" + (", or keep_damaged=True for what is there" if num_frames else ""),
    )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The PyAV container of a local file, closed behind the block. Raises BadVideo for what is no video."""
    import av

    try:
        container = av.open(str(path), options=_OPTIONS, metadata_errors="replace")
    except av.error.FFmpegError as reason:
        cause = _looks_like(path) or f"{reason.strerror or reason}"
        raise BadVideo(
            "not a video that can be read",
            got=f"{path} ({cause})",
            expected="mp4, webm, mkv, mov, avi, gif, webp, a folder of stills, ...",
        ) from reason
    with container:
        yield container


def _looks_like(path: Path) -> str | None:
    """A better reason than FFmpeg's, where the bytes tell: text, or an mp4 whose index never got written."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] == b"ftyp":
        return "an mp4 without its index: cut short, or its recording was not finished"
    return "text" if is_text(path) else None


def video_stream(container: Any, path: Path) -> Any:
    """The first stream with moving pictures; cover art of a song is none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
    raise BadVideo("the file holds no video", got=f"{path} ({' and '.join(kinds)} only)", expected="a video stream")


def decoded(container: Any, stream: Any, path: Path, damage: list[str]) -> Iterator[Any]:
    """PyAV frames; what could not be decoded is described in `damage` and decoding goes on behind it."""
    import av

    decode = _decoder(stream)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError as reason:
            damage.append(reason.strerror or str(reason))
            if packet is None:
                return
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.append("a frame is incomplete")
            yield frame


def _decoder(stream: Any) -> Any:
    """Packets to frames; VP8 and VP9 with transparency need libvpx, FFmpeg's own decoders drop it."""
    import av

    name = {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(stream.codec_context.name)
    if name and stream.metadata.get("alpha_mode") == "1" and name in av.codecs_available:
        context: Any = av.CodecContext.create(name, "r")
        return lambda packet: context.decode(packet if packet.size else None)
    return lambda packet: packet.decode()


def _pixels(reformatter: Any, frame: Any, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 [H, W, 3] of a frame as it is stored, with transparency over `background`."""
    has_alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
    pixels = to_rgb(reformatter, frame, with_alpha=has_alpha)
    return over(pixels, background) if has_alpha else pixels


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) in {-1, 0, 1}: the pixel at x, y is shown at (a x + c y, b x + d y), moved into view."""
    for side in frame.side_data:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("<9i", bytes(side))
            return tuple(round(value / 65536) for value in (a, b, c, d))  # type: ignore[return-value]
    return 1, 0, 0, 1


def upright(picture_HWC: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """The picture turned and mirrored by a `display_matrix`; odd angles cannot be, and `remarks` says so."""
    a, b, c, d = matrix
    if abs(a * d - b * c) != 1 or (a and b):
        return picture_HWC
    if b:
        picture_HWC, flip_x, flip_y = picture_HWC.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(picture_HWC[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _timed(picture: Any, rgb_HWC: np.ndarray, stream: Any, previous: Frame | None) -> Frame:
    """The frame with its time; raw streams carry none and are counted at their rate."""
    time_base = picture.time_base or stream.time_base
    pts = picture.pts
    if pts is None:
        pts = 0 if previous is None else previous.pts + previous.duration
    return Frame(rgb_HWC=rgb_HWC, pts=pts, duration=picture.duration or frame_step(stream), time_base=time_base)


def frame_step(stream: Any) -> int:
    """How long a frame lasts at the stream's mean rate, in its time base."""
    return max(1, round(1 / (_rate(stream) * stream.time_base)))


def _rate(stream: Any) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def remarks(stream: Any, frame: Any) -> list[str]:
    """What a viewer would want to know of the clip."""
    found = []
    if frame.interlaced_frame:
        found.append("interlaced: both fields are kept as they are; deinterlace it first for clean motion")
    if (aspect := stream.sample_aspect_ratio) and aspect != 1:
        found.append(f"pixels are not square (aspect {aspect}): frames are as stored")
    if name := _HDR_TRANSFERS.get(frame.color_trc):
        found.append(f"high dynamic range ({name}): not tone-mapped, colours look flat")
    if frame.rotation % 90:
        found.append(f"turned by {frame.rotation} degrees, which is not a quarter turn: left as stored")
    return found


def _describe(path: Path, container: Any, stream: Any, first: Any) -> VideoInfo:
    a, b, *_ = display_matrix(first)
    width, height = (first.height, first.width) if b and not a else (first.width, first.height)
    num_frames = stream.frames or count_packets(path)
    fps = _rate(stream)
    duration_s = stream.duration * stream.time_base if stream.duration else None
    return VideoInfo(
        path=path,
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        width_px=width,
        height_px=height,
        fps=fps,
        num_frames=num_frames,
        duration_s=duration_s or num_frames / fps,
        time_base=stream.time_base,
        bit_depth=max(component.bits for component in first.format.components),
        rotation_deg=first.rotation,
        sample_aspect=stream.sample_aspect_ratio or Fraction(1),
        is_interlaced=bool(first.interlaced_frame),
        has_alpha=any(component.is_alpha for component in first.format.components),
        has_audio=bool(container.streams.audio),
    )


def count_packets(path: Path) -> int:
    """The number of frames by reading the file without decoding it."""
    with opened(path) as container:
        return sum(packet.size > 0 for packet in container.demux(video_stream(container, path)))


def missing_bytes(path: Path) -> int:
    """How many bytes the file's own length fields announce beyond its end; 0 where the format does not say.

    MP4 (ISO/IEC 14496-12 4.2): top-level boxes. Matroska (RFC 9559): the segment's size. AVI: the RIFF chunk's.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return max(0, _boxes_end(file, size) - size)
    if head.startswith(b"\x1aE\xdf\xa3"):
        return max(0, _segment_end(head) - size)
    if head.startswith(b"RIFF"):
        return max(0, struct.unpack_from("<I", head, 4)[0] + 8 - size)
    return 0


def _boxes_end(file: Any, size: int) -> int:
    """Where the last top-level box of an mp4 ends, or says it does."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        header = file.read(16)
        length = struct.unpack_from(">I", header)[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack_from(">Q", header, 8)[0]
        if length < 8 or not header[4:8].isalnum():  # 0: up to the end of the file; no name: padding behind the boxes
            return size
        offset += length
    return offset


def _segment_end(head: bytes) -> int:
    """Where a Matroska segment says it ends; 0 for one of unknown length, as live recordings have."""
    header_size, start = _vint(head, 4)
    offset = start + header_size
    if head[offset : offset + 4] != b"\x18\x53\x80\x67":
        return 0
    length, start = _vint(head, offset + 4)
    is_unknown = length == (1 << 7 * (start - offset - 4)) - 1
    return 0 if is_unknown else start + length


def _vint(data: bytes, offset: int) -> tuple[int, int]:
    """A Matroska integer of variable length, and the offset behind it."""
    width = 9 - data[offset].bit_length()
    return int.from_bytes(data[offset : offset + width], "big") & ((1 << 7 * width) - 1), offset + width
