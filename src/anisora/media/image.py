"""Stills: any picture file, PIL image or array becomes an upright RGB picture, or one clear BadImage.

What a viewer shows is what comes back: EXIF orientation and colour profiles are applied, 16 bits are scaled to 8 and
transparency is laid over a background (white unless said otherwise).
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anisora.errors import BadImage
from anisora.files import existing_file, is_text

if TYPE_CHECKING:
    from PIL import Image

#: pictures with more pixels are refused before they are decoded: 8192 x 8192, twice the area of an 8K frame
MAX_PX = 8192 * 8192

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)

# In these, further frames are further moments or pages; elsewhere (MPO, PSD, ICO) they are other views of one still.
_ANIMATED_FORMATS = {"GIF", "WEBP", "PNG", "AVIF", "TIFF", "FLI"}


def load_image(
    source: Any, *, background: tuple[int, int, int] = WHITE, frame: int | None = None, max_px: int = MAX_PX
) -> Image.Image:
    """An upright 8-bit RGB PIL image of a path, a PIL image or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].

    Transparent parts show `background`. `frame` picks one picture of an animated file, which is refused otherwise.
    Arrays are uint8 or uint16. Raises BadImage for anything that is missing, damaged, too large or not a picture.
    """
    return _flatten(_open(source, frame, max_px), background)


def load_mask(source: Any, *, frame: int | None = None, max_px: int = MAX_PX) -> np.ndarray:
    """A mask [H, W], float32 in [0, 1], from whatever `load_image` takes, or from a float array that is one already.

    White is 1. Colours count by their brightness (ITU-R 601 luma), transparent parts are 0, 16 bits stay exact.
    Raises BadImage.
    """
    if isinstance(source, np.ndarray) and (source.dtype == bool or np.issubdtype(source.dtype, np.floating)):
        return _checked_mask(source)
    image = _open(source, frame, max_px)
    if _is_16_bit(image):
        return (np.asarray(image, dtype=np.float64) / 65535).astype(np.float32)
    return np.asarray(_flatten(image, BLACK).convert("L"), dtype=np.float32) / 255


def pixels_sha256(image: Image.Image) -> str:
    """The sha256 of a picture's size and RGB pixels: equal for equal pictures, whatever file they came from."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def over(rgba_HWC: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """RGBA pixels [..., 4] laid over `background`, uint8 [..., 3], rounded to the nearest level."""
    alpha = rgba_HWC[..., 3:].astype(np.uint16)
    mixed = rgba_HWC[..., :3] * alpha + np.asarray(background, np.uint16) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _checked_mask(mask_HW: np.ndarray) -> np.ndarray:
    if mask_HW.ndim != 2 or not mask_HW.size:
        raise BadImage("a mask array of the wrong shape", got=list(mask_HW.shape), expected="[H, W]")
    mask_HW = mask_HW.astype(np.float32)
    if not (np.isfinite(mask_HW).all() and mask_HW.min() >= 0 and mask_HW.max() <= 1):
        raise BadImage("mask values out of range", got=f"{mask_HW.min():g} to {mask_HW.max():g}", expected="0 to 1")
    return mask_HW


def _open(source: Any, frame: int | None, max_px: int) -> Image.Image:
    """The decoded and upright picture in its own mode."""
    from PIL import Image, ImageOps

    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = "the picture"
    if not isinstance(source, Image.Image):
        if not isinstance(source, str | os.PathLike):
            raise BadImage(
                "unusable picture", got=type(source).__name__, expected="a path, a PIL image or a uint8 array [H, W, 3]"
            )
        path = existing_file(source, BadImage, "the picture")
        name, source = str(path), _identify(path)
    _check_area(source, name, max_px)
    # Codecs raise whatever they like on damaged data (OSError, SyntaxError, ValueError, struct.error, zlib.error, ...).
    try:
        with warnings.catch_warnings(action="ignore"):  # damaged metadata harms no pixel
            _pick_frame(source, name, frame)
            source.load()
            return ImageOps.exif_transpose(source) or source
    except (BadImage, MemoryError):
        raise
    except Exception as reason:
        raise BadImage(
            "the picture is damaged or cut short",
            got=f"{name} ({reason})",
            expected=f"a whole {source.format or 'picture'} file",
            hint="copying or exporting it again",
        ) from reason


def _identify(path: Path) -> Image.Image:
    """The opened, not yet decoded file."""
    from PIL import Image

    with warnings.catch_warnings(action="ignore"):  # of large pictures, where `_check_area` is stricter, and metadata
        try:
            return Image.open(path)
        except Image.DecompressionBombError as reason:
            raise _too_large(str(path), str(reason), MAX_PX) from reason
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as reason:
            raise BadImage(
                "not a picture", got=f"{path} ({_looks_like(path)})", expected="PNG, JPEG, WebP, TIFF, GIF, ..."
            ) from reason


def _looks_like(path: Path) -> str:
    """What a file that is no picture seems to hold."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3":
        return "a video"
    return "text" if is_text(path) else "unknown data"


def _check_area(image: Image.Image, name: str, max_px: int) -> None:
    if image.width * image.height > max_px:
        raise _too_large(name, f"{image.width}x{image.height}", max_px)
    if not image.width * image.height:
        raise BadImage("the picture has no pixels", got=f"{name}, {image.width}x{image.height}", expected="1x1 or more")


def _too_large(name: str, got: str, max_px: int) -> BadImage:
    return BadImage(
        "the picture is too large",
        got=f"{name}, {got}",
        expected=f"at most {max_px / 1e6:.0f} million pixels",
        hint="scaling it down first",
    )


def _pick_frame(image: Image.Image, name: str, frame: int | None) -> None:
    num_frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED_FORMATS else 1
    if frame is None and num_frames == 1:
        return
    if frame is None:
        raise BadImage(
            "an animated picture where a still is wanted",
            got=f"{name} with {num_frames} frames",
            expected="one frame",
            hint=f"saving the one you mean, 0 to {num_frames - 1}, as PNG (in Python: load_image(path, frame=0))",
        )
    if not 0 <= frame < num_frames:
        raise BadImage("no such frame", got=f"frame {frame} of {name}", expected=f"0 to {num_frames - 1}")
    image.seek(frame)


def _from_array(array: np.ndarray) -> Image.Image:
    from PIL import Image

    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.dtype not in (np.uint8, np.uint16):
        raise BadImage(
            "unusable picture array",
            got=f"{array.dtype} {list(array.shape)}",
            expected="uint8 or uint16 [H, W, 3] (or [H, W], or 4 channels with transparency)",
        )
    if not array.size:
        raise BadImage("the picture has no pixels", got=f"an array {list(array.shape)}", expected="1x1 or more")
    array = array[..., 0] if array.ndim == 3 and channels == 1 else array
    if array.dtype == np.uint16 and array.ndim == 3:
        array = _to_8_bit(array)
    return Image.fromarray(np.ascontiguousarray(array))


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    """65535 becomes 255: divided by 257 and rounded, so that nothing is clipped and every 8-bit level comes back."""
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """8-bit RGB of a picture in any mode."""
    from PIL import Image

    if image.mode in ("I", "F"):
        image = _from_wide(image)
    if _is_16_bit(image):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    image = _to_srgb(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return Image.fromarray(over(np.asarray(image.convert("RGBA")), background))
    return image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """16-bit grey of a 32-bit picture: integers in 0..65535 as they are, floats in 0..1 scaled, all else refused."""
    from PIL import Image

    values = np.asarray(image)
    limit = 1.0 if image.mode == "F" else 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= limit):
        raise BadImage(
            "a 32-bit picture of unknown scale", got=f"{values.min():g} to {values.max():g}", expected=f"0 to {limit:g}"
        )
    return Image.fromarray(np.rint(values * (65535 / limit)).astype(np.uint16))


def _to_srgb(image: Image.Image) -> Image.Image:
    """The picture as a colour-managed viewer shows it; unchanged without a profile, with sRGB's or a broken one."""
    from PIL import ImageCms

    profile_bytes = image.info.get("icc_profile")
    if not profile_bytes or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image
