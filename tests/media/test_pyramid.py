"""Small pictures of decoded frames: means of what they stand for, colours as the reader has them, whatever was asked before."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from anisora.media.color import BT709, FULL, SMPTE170M, from_rgb, rgb_of_yuv, to_rgb
from anisora.media.pyramid import Pyramid


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def shown(rgb_HWC, pixel_format="yuv420p"):
    pyramid = Pyramid()
    pyramid.show(from_rgb(VideoReformatter(), rgb_HWC, pixel_format))
    return pyramid


def smooth(height, width):
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([255 * x, 255 * y, 128 + 100 * np.sin(6 * x)], axis=-1).clip(0, 255).astype(np.uint8)


def test_a_halved_picture_is_the_mean_of_four_pixels():
    pyramid = shown(noise(96, 160))
    full = pyramid.luma().astype(float)
    means = full.reshape(24, 4, 40, 4).mean(axis=(1, 3))
    assert pyramid.luma(40).shape == (24, 40)
    assert np.abs(pyramid.luma(40) - means).max() <= 1
    assert pyramid.luma(500).shape == (96, 160)


@pytest.mark.parametrize("width", [3, 16, 31, 50, 80, 159])
@pytest.mark.parametrize("size", [(90, 160), (61, 107), (160, 90)])
def test_any_size_keeps_the_whole_picture(size, width):
    pyramid = shown(smooth(*size))
    if width >= size[1]:
        return
    luma = pyramid.luma(width)
    assert luma.shape == (max(2, round(width * size[0] / size[1])), width)
    assert abs(float(luma.mean()) - float(pyramid.luma().mean())) < 1.5


def test_what_was_asked_before_changes_nothing():
    picture = noise(90, 160)
    for width in (20, 33, 80):
        alone, after = shown(picture), shown(picture)
        for other in (10, 40, 70, 159):
            after.luma(other), after.rgb(other)
        np.testing.assert_array_equal(alone.luma(width), after.luma(width))
        np.testing.assert_array_equal(alone.rgb(width), after.rgb(width))


def test_one_frame_leaves_nothing_to_the_next():
    pyramid, reformatter = Pyramid(), VideoReformatter()
    first, second = (np.full((64, 96, 3), level, np.uint8) for level in (40, 200))
    pictures = []
    for rgb_HWC in (first, second, noise(32, 48), second):
        pyramid.show(from_rgb(reformatter, rgb_HWC, "yuv420p"))
        pictures.append((pyramid.luma(12).copy(), pyramid.rgb(12).copy()))
    np.testing.assert_array_equal(pictures[1][0], pictures[3][0])
    np.testing.assert_array_equal(pictures[1][1], pictures[3][1])
    assert abs(int(pictures[0][1].mean()) - 40) <= 1
    assert abs(int(pictures[1][1].mean()) - 200) <= 1


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuvj420p", "rgb24", "gbrp"])
def test_colours_are_those_of_the_reader(pixel_format):
    reformatter, picture = VideoReformatter(), smooth(96, 128)
    if pixel_format in ("rgb24", "gbrp"):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format, threads=1)
    elif pixel_format == "yuvj420p":
        frame = from_rgb(reformatter, picture, "yuv420p")
        frame = reformatter.reformat(frame, format="yuvj420p", dst_color_range=FULL, threads=1)
        frame.color_range = FULL
    else:
        frame = from_rgb(reformatter, picture, pixel_format)
    truth = to_rgb(VideoReformatter(), frame).astype(float).reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    pyramid = Pyramid()
    pyramid.show(frame)
    assert np.abs(pyramid.rgb(32) - truth).mean() < 2
    luma = pyramid.luma(32)
    assert luma.min() >= 15
    assert luma.max() <= 236


def test_the_matrix_is_that_of_the_standard():
    """The primaries of BT.601 and BT.709 in 8 bit, limited range, as tables print them."""
    for matrix, red, blue in ((SMPTE170M, (81, 90, 240), (41, 240, 110)), (BT709, (63, 102, 240), (32, 240, 118))):
        for yuv, rgb in (
            (red, (255, 0, 0)),
            (blue, (0, 0, 255)),
            ((235, 128, 128), (255, 255, 255)),
            ((16, 128, 128), (0, 0, 0)),
        ):
            np.testing.assert_allclose(rgb_of_yuv(matrix) @ [*yuv, 1], rgb, atol=2.5)
