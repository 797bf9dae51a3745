"""Stills: what a viewer shows is what is loaded; what cannot be used is refused in plain words."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from anisora.errors import BadImage
from anisora.media.image import load_image, load_mask, pixels_sha256


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tga", ".gif", ".webp"])
def test_lossless_files_come_back_exactly(tmp_path, photo, suffix):
    photo = photo.quantize(200).convert("RGB") if suffix == ".gif" else photo
    photo.save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    loaded = load_image(tmp_path / f"a{suffix}")
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), np.asarray(photo))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, photo, orientation):
    """Each stored variant is made by undoing its orientation, so all eight must load as the same upright picture."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = photo.transpose(undo) if undo is not None else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(photo))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(photo, mode):
    image = photo.convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (8, 8), (128, 128, 128))
    assert load_image(image).mode == "RGB"
    assert load_image(image).size == image.size


def test_transparency_shows_the_background():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 128, 255)
    assert np.asarray(load_image(rgba))[0].tolist() == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]
    assert np.asarray(load_image(rgba, background=(0, 0, 0)))[0].tolist() == [[0, 0, 0], [100, 0, 0], [200, 0, 0]]


def test_palette_transparency_shows_the_background(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=0)
    assert np.asarray(load_image(tmp_path / "a.png"))[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.arange(256, dtype=np.uint16)[None] * 257
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png"))[0, :, 0], np.arange(256))
    assert np.array_equal(np.asarray(load_image(levels))[0, :, 1], np.arange(256))


def test_16_bit_rgb_png_keeps_every_8_bit_level(tmp_path):
    levels = np.stack([np.arange(256, dtype=">u2") * 257] * 3, -1)[None]
    (tmp_path / "a.png").write_bytes(_png(256, 1, 16, b"\0" + levels.tobytes()))
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png"))[0, :, 2], np.arange(256))


def test_colour_profile_is_applied(tmp_path, photo):
    """A profile whose red and green primaries are swapped swaps them; sRGB's own and a broken one change nothing."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?").replace(b"gXYZ", b"rXYZ").replace(b"?", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    photo.save(tmp_path / "srgb.png", icc_profile=profile)
    assert np.array_equal(np.asarray(load_image(tmp_path / "srgb.png")), np.asarray(photo))
    photo.save(tmp_path / "swapped.png", icc_profile=swapped)
    off = np.asarray(load_image(tmp_path / "swapped.png")).astype(int) - np.asarray(photo)[..., [1, 0, 2]]
    assert abs(off).max() <= 2
    inks = photo.convert("CMYK")
    inks.save(tmp_path / "broken.tif", icc_profile=b"no profile at all")
    assert np.array_equal(np.asarray(load_image(tmp_path / "broken.tif")), np.asarray(inks.convert("RGB")))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_arrays_are_pictures(shape):
    assert load_image(np.full(shape, 255, np.uint8)).size == (6, 4)


def test_pixel_hash_is_of_the_pixels(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    photo.save(tmp_path / "b.bmp")
    hashes = {pixels_sha256(load_image(source)) for source in (photo, tmp_path / "a.png", tmp_path / "b.bmp")}
    assert len(hashes) == 1
    assert pixels_sha256(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) not in hashes
    flat = Image.new("RGB", (6, 4))
    assert pixels_sha256(flat) != pixels_sha256(Image.new("RGB", (4, 6)))


# ---- masks


def test_mask_of_a_still(tmp_path):
    levels = np.array([[0, 51, 255]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "m.png")
    mask_HW = load_mask(tmp_path / "m.png")
    assert mask_HW.dtype == np.float32
    assert np.allclose(mask_HW, [[0, 0.2, 1]], atol=1e-7)
    assert mask_HW[0, 2] == 1


def test_mask_keeps_16_bits_and_drops_transparent_parts():
    assert load_mask(np.array([[0, 1, 65535]], np.uint16))[0].tolist() == pytest.approx([0, 1 / 65535, 1])
    white = np.full((1, 2, 4), 255, np.uint8)
    white[0, 1, 3] = 0
    assert load_mask(white)[0].tolist() == [1, 0]


def test_mask_arrays_are_checked():
    assert load_mask(np.array([[True, False]]))[0].tolist() == [1, 0]
    assert load_mask(np.array([[0.25]])).dtype == np.float32
    for bad in (np.array([[1.5]]), np.array([[np.nan]]), np.zeros((0, 3)), np.zeros((2, 2, 2))):
        with pytest.raises(BadImage):
            load_mask(bad)


# ---- bad input: each message names what was got


def _refused(source, *words, **options):
    with pytest.raises(BadImage) as error:
        load_image(source, **options)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert error.value.exit_code == 2


def test_missing_file_names_its_like(tmp_path, photo):
    photo.save(tmp_path / "hero.png")
    _refused(tmp_path / "hreo.png", "does not exist", "hreo.png", "try", "hero.png")
    _refused(tmp_path / "nowhere" / "a.png", "does not exist", "nowhere")


def test_empty_folder_and_text_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture\n" * 20)
    (tmp_path / "random.png").write_bytes(np.random.default_rng(0).bytes(5000))
    _refused(tmp_path / "empty.png", "empty", "0 bytes")
    _refused(tmp_path, "folder")
    _refused(tmp_path / "text.png", "not a picture", "text")
    _refused(tmp_path / "random.png", "not a picture")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_truncated_files(tmp_path, photo, suffix, kept):
    photo.save(tmp_path / f"a{suffix}", **({"compression": "tiff_lzw"} if suffix == ".tif" else {}))
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * kept)])
    _refused(tmp_path / f"a{suffix}", f"a{suffix}")


def test_a_flipped_byte_never_escapes_as_another_error(tmp_path, photo):
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(buffer.getvalue())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.png").write_bytes(data)
        with contextlib.suppress(BadImage):
            load_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_animated_pictures_name_their_frames(tmp_path, photo, suffix):
    others = [Image.new("RGB", photo.size, colour) for colour in ("red", "blue")]
    photo.save(tmp_path / f"a{suffix}", save_all=True, append_images=others, duration=50)
    _refused(tmp_path / f"a{suffix}", "3 frames", "0 to 2", "load_image(path, frame=0)")
    red, green, blue = load_image(tmp_path / f"a{suffix}", frame=2).getpixel((5, 5))
    assert blue > 200 > 60 > red + green
    _refused(tmp_path / f"a{suffix}", "frame 3", "0 to 2", frame=3)


def test_decompression_bombs_are_refused_before_decoding(tmp_path):
    """Small files that claim 10^10, 10^8 and 70 million pixels; the picture data behind the claim is never touched."""
    for side in (100_000, 10_000, 8_400):
        (tmp_path / "bomb.png").write_bytes(_png(side, side, 8, b"\0" * 100))
        _refused(tmp_path / "bomb.png", "too large", "67 million pixels")
    _refused(Image.new("L", (20, 10)), "too large", "20x10", max_px=199)


def test_unusable_objects_and_arrays():
    _refused(3.5, "float")
    _refused(np.zeros((2, 2), np.int64), "int64")
    _refused(np.zeros((2, 2, 5), np.uint8), "[2, 2, 5]")
    _refused(np.zeros((0, 4, 3), np.uint8), "no pixels")
    _refused(Image.fromarray(np.full((2, 2), 7.0, np.float32)), "unknown scale")


def test_a_video_is_named_as_such(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 64)
    _refused(tmp_path / "a.png", "a video")


def test_real_stills_load(real_clips):
    for path in sorted((real_clips / "anisora_images").iterdir())[:6]:
        assert load_image(path).mode == "RGB"


def _png(width: int, height: int, bit_depth: int, raw: bytes) -> bytes:
    """An RGB PNG file around `raw` scanlines, whatever its header claims."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
