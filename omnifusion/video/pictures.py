"""Single pictures in and out, and whether they have colors."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.geometry import fit_size, resize
from omnifusion.progress import InputError
from omnifusion.state import Video
from omnifusion.video.common import MAX_PIXELS, check_size, refused, too_large

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})
"""Endings of the files in a folder that are its frames."""

GRAY_SPREAD = 10.0
"""Below this ``color_spread`` a picture counts as gray. Measured: a gray film under sepia toning, chroma noise of 12 or
blotches of 4 (of 255) stays below 8.4; each of ten real color clips has a frame above 18."""


warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # sizes are checked here, in words of our own


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS, alpha: bool = False) -> np.ndarray:
    """A picture as ``(3, H, W)`` uint8 sRGB: upright by its EXIF data, alpha over black, 16 bits rounded to 8.

    With ``alpha`` one that is not opaque everywhere comes as ``(4, H, W)``.

    Raises:
        InputError: no such file, not a picture, or one of more than ``max_pixels`` (seen in its head, undecoded).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no picture {path}; check the name.")
    try:
        with Image.open(path) as opened:
            check_size(path, *opened.size, max_pixels)
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                image = Image.fromarray(((np.asarray(image).clip(0, 65535) + 128.0) / 257).astype(np.uint8))
            if profile := image.info.get("icc_profile"):
                image = _to_srgb(image, profile)
            if alpha and image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                return np.asarray(image.convert("RGBA")).transpose(2, 0, 1).copy()
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
    except Image.DecompressionBombError as error:  # so many that Pillow does not even tell how many
        raise too_large(path, "has far", max_pixels) from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a picture; save it as PNG or JPEG.") from error


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded color profile (phones save Display P3); a profile that cannot be used is ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        mode = "RGBA" if image.has_transparency_data else "RGB"
        return ImageCms.profileToProfile(image, source, target, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError):
        return image


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Save ``(3 or 4, H, W)`` uint8 sRGB; the ending decides the format. It appears only once it is complete."""
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        Image.fromarray(np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))).save(
            part, compress_level=1, compress_type=3
        )
        os.replace(part, path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def chroma_picture(ab: np.ndarray) -> np.ndarray:
    """Chroma ``(2, H, W)`` as a picture ``(3, H, W)`` uint16: green is a*, blue is b*, 256 steps a unit around 32768,
    which red is throughout."""
    steps = np.clip(np.rint(ab * 256 + 32768), 0, 65535).astype(np.uint16)
    return np.stack([np.full_like(steps[0], 32768), *steps])


def write_chroma(path: Path, ab: np.ndarray) -> None:
    """Save ``chroma_picture`` as a PNG."""
    image = np.ascontiguousarray(chroma_picture(ab)[::-1].transpose(1, 2, 0))  # OpenCV's order is blue, green, red
    try:
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    except OSError as error:
        raise refused(path, error) from error


def color_spread(image: np.ndarray) -> float:
    """How far the colors of a picture ``(3, H, W)`` uint8 lie from one tone scale, in units of a*, b*.

    A tinted or toned picture has one color for each lightness. So: the 99th percentile of the distance between a
    pixel's ab and the median ab of its lightness, at a size at which noise averages out.
    """
    rgb = from_uint8(image)[None]
    lab = rgb_to_lab(resize(rgb, fit_size(image.shape[1:], 128)))[0].reshape(3, -1).numpy()
    lab = lab[:, np.argsort(lab[0])]
    knots = np.stack([np.median(part, axis=1) for part in np.array_split(lab, min(24, lab.shape[1]), axis=1)], axis=1)
    tone = np.stack([np.interp(lab[0], knots[0], knots[channel]) for channel in (1, 2)])
    return float(np.percentile(np.hypot(*(lab[1:] - tone)), 99))


def is_gray(video: Video) -> bool:
    """Whether a clip has no colors of its own: gray, sepia, tinted, or with slight chroma noise (``GRAY_SPREAD``)."""
    frames = np.unique(np.linspace(0, len(video) - 1, 12).round().astype(int))
    return all(color_spread(video.frames[i]) < GRAY_SPREAD for i in frames)
