"""Writing videos: the name's suffix picks the kind of file, every frame given is a frame written, or nothing is.

A file is written beside its final place, its frames are counted, and only then does it get its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anisora.errors import BadVideo, WriteFailed
from anisora.files import atomic_file, atomic_folder
from anisora.geometry import round_half_up
from anisora.media.color import BT709, FULL, LIMITED, RGB, from_rgb
from anisora.media.container import count_packets
from anisora.media.encoders import ENCODERS_BY_SUFFIX, Encoder, open_encoder, pick_encoder, pick_pixel_format
from anisora.media.metadata import PNG_KEY, TAG, gif_with_comment, to_json
from anisora.media.pictures import FPS_KEY
from anisora.media.video import parse_fps

CENTISECOND = Fraction(1, 100)


def write_video(
    path: str | os.PathLike[str],
    frames_THWC: np.ndarray | Iterable[np.ndarray],
    fps: Any,
    *,
    codec: str | None = None,
    quality: int | None = None,
    lossless: bool = False,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Writes uint8 RGB frames [T, H, W, 3], or an iterable of [H, W, 3], and returns the path.

    The suffix picks the file: .mp4, .mov, .mkv, .webm, .gif, or none for a folder of PNGs (exact, frame_000000.png on).
    `fps` may be a fraction ("24000/1001"). mp4 and mov keep times exactly; webm and mkv round them to milliseconds, gif
    to hundredths of a second, frame by frame, so that they never drift.
    `codec` is a key of `encoders.ENCODERS` (else the best one there is), `quality` its constant-quality value (lower is
    better), `lossless` makes the frames read back bit for bit. gif has 256 colours, chosen once for the whole clip.
    `metadata` is embedded as JSON; `read_metadata` gets it back.

    Raises BadVideo for frames or settings that cannot be written, BadSize for a size the encoder cannot keep,
    WriteFailed when the disk is full or the place may not be written to. Nothing half-written remains, then or after
    Ctrl-C; an older file of that name stays as it was.
    """
    path, rate = Path(path), parse_fps(fps)
    text = to_json(metadata) if metadata is not None else None
    frames = _checked(frames_THWC)
    suffix = path.suffix.lower()
    if suffix in ENCODERS_BY_SUFFIX:
        encoder = pick_encoder(path, codec, lossless)
        with atomic_file(path) as partial:
            _write_container(partial, frames, rate, encoder, quality, text)
    elif suffix == ".gif" and not lossless and codec is None and quality is None:
        with atomic_file(path) as partial:
            _write_gif(partial, frames, rate, text)
    elif not suffix and codec is None and quality is None:
        with atomic_folder(path, members=r"frame_\d{6}\.png") as partial:
            _write_sequence(partial, frames, rate, text)
    else:
        raise BadVideo(
            "a video that cannot be written like this",
            got=f"{path}" + (f" with codec {codec}" if codec else "") + (", lossless" if lossless else ""),
            expected=f"{', '.join(ENCODERS_BY_SUFFIX)}, .gif (no settings) or no suffix for a folder of PNGs",
        )
    return path


def _checked(frames: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, each like the first. Raises BadVideo for another kind, and when there is none."""
    shape = None
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise BadVideo(
                "frames that cannot be written",
                got=f"frame {index}: {frame.dtype} {list(frame.shape)}",
                expected="uint8 [H, W, 3]",
                hint="anisora.media.frames.to_uint8_THWC",
            )
        shape = shape or frame.shape
        if frame.shape != shape:
            raise BadVideo(
                "the frames differ in size",
                got=f"frame {index}: {list(frame.shape)}",
                expected=f"{list(shape)} like the first",
            )
        yield frame
    if shape is None:
        raise BadVideo("no frames to write", got="0 frames", expected="1 or more")


def _write_container(
    path: Path, frames: Iterator[np.ndarray], fps: Fraction, encoder: Encoder, quality: int | None, text: str | None
) -> None:
    import av

    first = next(frames)
    pixel_format = pick_pixel_format(encoder, first.shape[1], first.shape[0])
    try:
        with av.open(str(path), "w", options=_container_options(path)) as container:
            if text is not None:
                container.metadata[TAG] = text
            stream = _add_stream(container, encoder, fps, pixel_format, quality, first)
            num_frames = _encode(container, stream, _chain(first, frames), pixel_format, 1 / fps)
    except av.error.FFmpegError as reason:
        raise _unwritten(path, reason, encoder) from reason
    if (counted := count_packets(path)) != num_frames:
        raise WriteFailed(f"{path.name} came out incomplete", got=f"{counted} frames", expected=num_frames)


def _container_options(path: Path) -> dict[str, str]:
    """The index goes in front, so that playing can start before loading ends; mov has no other room for long tags."""
    flags = {".mp4": "+faststart", ".mov": "+faststart+use_metadata_tags"}.get(path.suffix.lower())
    return {"movflags": flags} if flags else {}


def _add_stream(
    container: Any, encoder: Encoder, fps: Fraction, pixel_format: str, quality: int | None, first: np.ndarray
) -> Any:
    options = dict(encoder.options)
    if quality is not None and encoder.quality_option is None:
        raise BadVideo("an encoder without a quality setting", got=f"{encoder.name}, quality {quality}")
    if encoder.quality_option is not None:
        options[encoder.quality_option] = str(encoder.quality if quality is None else quality)
    stream = container.add_stream(encoder.name, rate=fps, options=options)
    stream.height, stream.width = first.shape[:2]
    stream.pix_fmt = pixel_format
    context = stream.codec_context
    context.time_base = 1 / fps
    is_yuv = pixel_format.startswith("yuv")
    context.colorspace, context.color_range = (BT709, LIMITED) if is_yuv else (RGB, FULL)
    context.color_primaries = context.color_trc = BT709
    open_encoder(context)
    return stream


def _encode(container: Any, stream: Any, frames: Iterable[np.ndarray], pixel_format: str, time_base: Fraction) -> int:
    from av.video.reformatter import VideoReformatter

    reformatter, index = VideoReformatter(), -1
    for index, rgb_HWC in enumerate(frames):
        frame = from_rgb(reformatter, rgb_HWC, pixel_format)
        frame.pts, frame.time_base = index, time_base
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    return index + 1


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _unwritten(path: Path, reason: Any, encoder: Encoder) -> Exception:
    """An OSError when the system refused (so that it is reported as such), else a BadVideo naming the encoder."""
    if isinstance(reason, OSError) or (reason.errno and 0 < reason.errno < 200):
        return OSError(reason.errno, reason.strerror, str(path))
    return BadVideo(
        f"{encoder.name} refused the frames or settings", got=reason.strerror or reason, hint="another size or codec"
    )


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: Fraction, text: str | None) -> None:
    """A GIF with one palette for the whole clip, so that held colours do not flicker."""
    import av

    if fps > 50:
        raise BadVideo("a GIF cannot be that fast", got=f"{fps} fps", expected="at most 50", hint=".mp4 or .webm")
    pictures = list(frames)
    palette = _palette(pictures)
    try:
        with av.open(str(path), "w", format="gif") as container:
            stream = container.add_stream("gif", rate=Fraction(100))
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "pal8"
            stream.codec_context.time_base = CENTISECOND
            for index, frame in enumerate(_with_palette(pictures, palette)):
                start, end = (round_half_up(100 * tick / fps) for tick in (index, index + 1))
                frame.pts, frame.time_base, frame.duration = start, CENTISECOND, end - start
                for packet in stream.encode(frame):
                    packet.duration = end - start
                    container.mux(packet)
            container.mux(stream.encode(None))
    except av.error.FFmpegError as reason:
        raise OSError(reason.errno, reason.strerror, str(path)) from reason
    if (counted := count_packets(path)) != len(pictures):
        raise WriteFailed(f"{path.name} came out incomplete", got=f"{counted} frames", expected=len(pictures))
    if text is not None:
        path.write_bytes(gif_with_comment(path.read_bytes(), text))


def _graph(width_px: int, height_px: int, name: str, options: str, palette: Any = None) -> tuple[Any, Any, Any]:
    """(graph, source, sink) of one filter, which takes a palette as its second input if one is given."""
    import av.filter

    graph: Any = av.filter.Graph()
    source = graph.add_buffer(width=width_px, height=height_px, format="rgb24", time_base=CENTISECOND)
    middle, sink = graph.add(name, options), graph.add("buffersink")
    source.link_to(middle, 0, 0)
    if palette is not None:
        entry = graph.add_buffer(width=16, height=16, format=palette.format, time_base=CENTISECOND)
        entry.link_to(middle, 0, 1)
    middle.link_to(sink)
    graph.configure()
    if palette is not None:
        palette.pts, palette.time_base = 0, CENTISECOND
        entry.push(palette)
        entry.push(None)
    return graph, source, sink


def _palette(pictures: list[np.ndarray]) -> Any:
    """The 256 colours that serve all the pictures best (FFmpeg's palettegen), as a 16x16 frame."""
    height, width = pictures[0].shape[:2]
    _graph_alive, source, sink = _graph(width, height, "palettegen", "reserve_transparent=0:stats_mode=full")
    for index, rgb_HWC in enumerate(pictures):
        source.push(_rgb_frame(rgb_HWC, index))
    source.push(None)
    return sink.pull()


def _with_palette(pictures: list[np.ndarray], palette: Any) -> Iterator[Any]:
    """The pictures in those colours, dithered by error diffusion (FFmpeg's paletteuse)."""
    height, width = pictures[0].shape[:2]
    _graph_alive, source, sink = _graph(width, height, "paletteuse", "dither=sierra2_4a", palette)
    for index, rgb_HWC in enumerate(pictures):
        source.push(_rgb_frame(rgb_HWC, index))
        yield from _pulled(sink)
    source.push(None)
    yield from _pulled(sink)


def _pulled(sink: Any) -> Iterator[Any]:
    import av

    while True:
        try:
            yield sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _rgb_frame(rgb_HWC: np.ndarray, index: int) -> Any:
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), "rgb24")
    frame.pts, frame.time_base = index, CENTISECOND
    return frame


def _write_sequence(folder: Path, frames: Iterator[np.ndarray], fps: Fraction, text: str | None) -> None:
    """PNGs from frame_000000.png on; the first one carries the rate and the metadata."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    for index, rgb_HWC in enumerate(frames):
        chunks = PngInfo()
        if index == 0:
            chunks.add_text(FPS_KEY, str(fps))
            if text is not None:
                chunks.add_itxt(PNG_KEY, text)
        Image.fromarray(rgb_HWC).save(folder / f"frame_{index:06d}.png", pnginfo=chunks)
