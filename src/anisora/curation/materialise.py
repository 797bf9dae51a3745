"""From a span of a source to a file of its own: every frame of the span and no other, encoded at most once more.

A span that is cut at key frames and stored as it would be encoded is taken as it is: no pixel changes, and nothing is
decoded. Otherwise the pixels stay as the decoder gave them (planes, matrix, range): cropping moves pointers, and no frame
goes through RGB unless its format asks for it. Time stamps are the source's, moved to begin at 0, so a varying rate stays
as it was and 24000/1001 stays 24000/1001. A file is counted and its stamps compared before it gets its name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anisora.errors import AnisoraError, BadConfig, BadVideo, Failed, WriteFailed
from anisora.files import atomic_file, sha256_file
from anisora.media.color import BT709, SMPTE170M, UNSPECIFIED, from_rgb
from anisora.media.container import display_matrix, opened
from anisora.media.encoders import ENCODERS, Encoder, open_encoder, pick_encoder, pick_pixel_format
from anisora.media.packets import PacketReader, decoding_times
from anisora.media.span import SpanFrame, SpanReader
from anisora.records import Span
from anisora.settings import setting

#: what writes H.264, so that H.264 may stand for it
_WRITE_H264 = ("libx264", "libopenh264")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How kept clips are encoded. `codec` is a key of `media.encoders.ENCODERS`, None for the best one there is.

    `copy_bits_per_px`: a clip that begins at a key frame of its source and needs none beyond its end, whole and H.264 in
    the pixel format that would be written, is copied instead when it has no more bits a pixel than this. 0.2 are 10 Mbit/s
    at 1920 x 1080 and 24 frames a second: what is offered for download is below, discs are above.
    """

    codec: str | None = setting(None, "libx264, libopenh264, libsvtav1, libvpx-vp9, ...; default: the best there is")
    quality: int = setting(18, "constant quality, lower is better")
    preset: str = setting("veryfast", "speed against size, for x264")
    copy_bits_per_px: float = setting(
        0.2, "clips that can be cut out of the file as they are, up to so many bits; 0: none"
    )
    suffix: Literal[".mp4", ".mkv", ".webm"] = ".mp4"

    def __post_init__(self) -> None:
        if not self.copy_bits_per_px >= 0:
            raise BadConfig("encode.copy_bits_per_px out of range", got=self.copy_bits_per_px, expected="0 or more")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip to make: its span, what of the upright picture to keep (None for all), and where."""

    clip_id: str
    span: Span
    crop_xywh_px: tuple[int, int, int, int] | None
    path: Path
    fps: Fraction


@dataclass(frozen=True, kw_only=True)
class Made:
    """A clip's file as it was made, or the reason why there is none."""

    clip_id: str
    sha256: str | None = None
    num_bytes: int = 0
    num_frames: int = 0
    is_copied: bool = False
    reason: str | None = None
    message: str = ""


def materialise(
    source: Path,
    jobs: Sequence[Job],
    encoding: Encoding,
    pts_T: np.ndarray | None = None,
    before: Callable[[Job], object] = lambda job: None,
) -> Iterator[Made]:
    """Makes the clips of one source, in the order of their spans; a clip that cannot be made costs only itself.

    `pts_T` are the source's time stamps as the scan saw them; the frames found are compared with them. `before` is told
    of each job before it begins. A full disk is not a clip's fault and is raised (WriteFailed).
    """
    with SpanReader(source) as reader, PacketReader(source) as stored:
        for job in sorted(jobs, key=lambda job: job.span):
            before(job)
            try:
                yield _make(reader, stored, job, encoding, pts_T)
            except WriteFailed:
                raise
            except AnisoraError as problem:
                yield Made(clip_id=job.clip_id, reason="encode_failed", message=str(problem))


def _make(reader: SpanReader, stored: PacketReader, job: Job, encoding: Encoding, pts_T: np.ndarray | None) -> Made:
    stamps = None if pts_T is None else [int(pts) for pts in pts_T[job.span.start_frame : job.span.end_frame]]
    packets = _as_stored(stored, job, encoding, stamps) if stamps else None
    with atomic_file(job.path) as partial:
        if packets is not None:
            written = _copy(partial, stored.stream, packets, job)
        else:
            written = _encode(partial, reader.iter(job.span, stamps), job, encoding)
        _check(partial, written, job.span)
        digest, size = sha256_file(partial), partial.stat().st_size
    return Made(
        clip_id=job.clip_id, sha256=digest, num_bytes=size, num_frames=len(written), is_copied=packets is not None
    )


def _as_stored(stored: PacketReader, job: Job, encoding: Encoding, stamps: Sequence[int]) -> list[Any] | None:
    """The packets that make the clip as they are; None where it must be encoded."""
    if not encoding.copy_bits_per_px or job.crop_xywh_px is not None or stored.pixel_format is None:
        return None
    encoder, context = _encoder(job.path, encoding), stored.stream.codec_context
    if encoder.name not in _WRITE_H264:
        return None
    if stored.pixel_format != pick_pixel_format(encoder, context.width, context.height):
        return None
    packets = stored.packets(job.span, stamps)
    bits = 8 * sum(packet.size for packet in packets or ())
    limit = encoding.copy_bits_per_px * context.width * context.height * job.span.num_frames
    return packets if bits <= limit else None


def _copy(path: Path, source: Any, packets: Sequence[Any], job: Job) -> list[int]:
    """Writes the packets and gives their time stamps, from 0 in the span's time base."""
    stamps = [packet.pts - job.span.start_pts for packet in packets]
    with _new_file(path, path.suffix) as container:
        stream = container.add_stream_from_template(source)
        for packet, pts, dts in zip(packets, stamps, decoding_times(stamps), strict=True):
            packet.stream, packet.pts, packet.dts = stream, pts, dts
            container.mux(packet)
    return sorted(stamps)


@contextlib.contextmanager
def _new_file(path: Path, writer: str) -> Iterator[Any]:
    """The container to write to. What FFmpeg refuses is an OSError where the disk is to blame, else Failed."""
    import av

    try:
        with av.open(str(path), "w", options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}) as container:
            yield container
    except av.error.FFmpegError as reason:
        if isinstance(reason, OSError) or (reason.errno and 0 < reason.errno < 200):
            raise OSError(reason.errno, reason.strerror, str(path)) from reason
        raise Failed(f"{writer} refused the frames", got=reason.strerror or reason) from reason


def _encode(path: Path, frames: Iterator[SpanFrame], job: Job, encoding: Encoding) -> list[int]:
    """Writes the frames and gives their time stamps, from 0 in the span's time base."""
    first = next(frames)
    shape = _Shape(first, job.crop_xywh_px)
    encoder = _encoder(job.path, encoding)
    pixel_format = pick_pixel_format(encoder, shape.width_px, shape.height_px)
    stamps: list[int] = []
    with _new_file(path, encoder.name) as container:
        stream: Any = None
        for decoded in _chain(first, frames):
            frame = shape(decoded, pixel_format)
            if stream is None:
                stream = _stream(container, encoder, encoding, job, frame)
            frame.pts, frame.time_base = decoded.pts - first.pts, job.span.time_base
            frame.duration = decoded.duration
            frame.pict_type = 0
            stamps.append(frame.pts)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return stamps


def _chain(first: SpanFrame, rest: Iterator[SpanFrame]) -> Iterator[SpanFrame]:
    yield first
    yield from rest


def _encoder(path: Path, encoding: Encoding) -> Encoder:
    encoder = pick_encoder(path, encoding.codec, lossless=False)
    options = dict(encoder.options)
    if encoder.quality_option:
        options[encoder.quality_option] = str(encoding.quality)
    if encoder.name == "libx264":
        options["preset"] = encoding.preset
    return replace(encoder, options=options)


def _stream(container: Any, encoder: Encoder, encoding: Encoding, job: Job, frame: Any) -> Any:
    stream = container.add_stream(encoder.name, rate=job.fps.limit_denominator(100_000), options=encoder.options)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
    stream.time_base = job.span.time_base
    context = stream.codec_context
    context.time_base = job.span.time_base
    context.thread_count = 1
    context.colorspace, context.color_range = frame.colorspace, frame.color_range
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    open_encoder(context)
    return stream


class _Shape:
    """Turns, crops and converts frames, all alike, as the first one needs it."""

    def __init__(self, first: SpanFrame, crop_xywh_px: tuple[int, int, int, int] | None) -> None:
        self._crop = crop_xywh_px
        self._graph: Any = None
        self._is_planar = _is_plain_yuv(first.picture)
        a, b, *_ = display_matrix(first.picture)
        width, height = first.picture.width, first.picture.height
        if b and not a:
            width, height = height, width
        self._source_px = width, height
        self.width_px: int = crop_xywh_px[2] if crop_xywh_px else width
        self.height_px: int = crop_xywh_px[3] if crop_xywh_px else height
        self._check_inside()

    def _check_inside(self) -> None:
        x, y, width, height = self._crop or (0, 0, *self._source_px)
        if (
            x < 0
            or y < 0
            or width < 1
            or height < 1
            or x + width > self._source_px[0]
            or y + height > self._source_px[1]
        ):
            raise BadVideo(
                "a crop outside the picture", got=self._crop, expected="inside {}x{}".format(*self._source_px)
            )

    def __call__(self, decoded: SpanFrame, pixel_format: str) -> Any:
        """The frame to encode. Raises BadVideo where it differs in kind from the first."""
        if not self._is_planar:
            return self._through_rgb(decoded.rgb_HWC(), pixel_format)
        frame = decoded.picture
        if self._graph is None:
            self._graph = _graph(frame, self._crop, pixel_format)
            self._kind = (frame.width, frame.height, frame.format.name)
        if (frame.width, frame.height, frame.format.name) != self._kind:
            raise BadVideo("the picture changes its size within the clip", got=f"frame {decoded.index}")
        source, sink = self._graph[1:]
        pts, frame.pts = frame.pts, decoded.index
        source.push(frame)
        frame.pts = pts
        shaped = sink.pull()
        if frame.colorspace == UNSPECIFIED:  # as readers take it, which see the size of the source and not of the crop
            shaped.colorspace = BT709 if frame.width >= 1280 or frame.height >= 720 else SMPTE170M
        return shaped

    def _through_rgb(self, rgb_HWC: np.ndarray, pixel_format: str) -> Any:
        from av.video.reformatter import VideoReformatter

        if rgb_HWC.shape[:2] != self._source_px[::-1]:
            raise BadVideo("the picture changes its size within the clip", got=f"{rgb_HWC.shape[1]}x{rgb_HWC.shape[0]}")
        x, y, width, height = self._crop or (0, 0, *self._source_px)
        return from_rgb(VideoReformatter(), rgb_HWC[y : y + height, x : x + width], pixel_format)


def _is_plain_yuv(frame: Any) -> bool:
    """Whether FFmpeg's filters can carry the frame as it is: upright YUV or grey planes without transparency.

    Turning planes would move the colours against the brightness by half a pixel, so turned pictures go through RGB.
    """
    name = frame.format.name
    if display_matrix(frame) != (1, 0, 0, 1):
        return False
    return name.startswith(("yuv4", "yuvj4", "gray", "nv12", "p010")) and not name.startswith("yuva")


def _graph(frame: Any, crop: tuple[int, int, int, int] | None, pixel_format: str) -> tuple[Any, Any, Any]:
    """(graph, source, sink): cropped, in the encoder's format."""
    import av.filter

    graph: Any = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 1000)
    )
    chain = [source]
    steps: list[tuple[str, str]] = []
    if crop is not None:
        x, y, width, height = crop
        steps.append(("crop", f"{width}:{height}:{x}:{y}:exact=1"))
    steps.append(("format", pixel_format))
    chain += [graph.add(name, options) for name, options in steps]
    chain.append(graph.add("buffersink"))
    for one, other in pairwise(chain):
        one.link_to(other)
    graph.configure()
    return graph, source, chain[-1]


def _check(path: Path, stamps: list[int], span: Span) -> None:
    """Raises Failed unless the file has exactly these frames at exactly these times."""
    if len(stamps) != span.num_frames:
        raise Failed("a clip lost frames", got=len(stamps), expected=span.num_frames)
    with opened(path) as container:
        stream = container.streams.video[0]
        found = sorted(packet.pts for packet in container.demux(stream) if packet.size)
        base = stream.time_base
    if len(found) != len(stamps):
        raise Failed("a clip came out with another number of frames", got=len(found), expected=len(stamps))
    # Matroska and WebM round to milliseconds
    slack = 0 if path.suffix == ".mp4" else Fraction(1, 1000)
    first = found[0] * base
    off = [abs((pts * base - first) - stamp * span.time_base) for pts, stamp in zip(found, stamps, strict=True)]
    if max(off) > slack:
        raise Failed("a clip came out with other times", got=f"{float(max(off)):.6f} s off", expected="exact times")


def describe(encoding: Encoding) -> Mapping[str, str]:
    """What goes into the key of a clip's file: everything that changes its bytes on purpose."""
    name = encoding.codec or next(key for key in ENCODERS if key == "libx264")
    return {
        "codec": name,
        "quality": str(encoding.quality),
        "preset": encoding.preset,
        "copy_bits_per_px": str(encoding.copy_bits_per_px),
        "suffix": encoding.suffix,
    }
