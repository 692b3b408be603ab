"""Single pictures in and out, files of several pictures, and whether a picture has colors."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.geometry import fit_size, resize
from omnifusion.progress import Canceled, InputError
from omnifusion.state import Video
from omnifusion.video.common import MAX_PIXELS, check_size, replacing, too_large, writing

log = logging.getLogger(__name__)

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif"})
"""Endings of the files in a folder that are its frames."""

SEQUENCES = frozenset({"TIFF", "WEBP", "PNG", "AVIF"})
"""Formats in which one file may hold a clip (that of a JPEG or HEIC file is a preview or a second view)."""

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a TIFF tag, and its value in negatives
ORIENTATION = 0x0112  # the EXIF tag; from 5 on a picture lies on its side
SHRINKABLE = 3  # times the limit of pixels that an exemplar may have; it is scaled down

LARGEST_OVERLAY, NEUTRAL = 0.12, 3.0
"""Share of a gray clip that a logo or a timecode takes at most, and a*, b* that the rest then has at most."""

GRAY_SPREAD = 10.0
"""Below this 99th percentile of ``color_deviation`` a picture counts as gray. Measured: a gray film under sepia toning,
chroma noise of 12 or blotches of 4 (of 255) stays below 8.4; each of ten real color clips has a frame above 18."""


warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # sizes are checked here, with messages of our own
TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader garbles planes of 16 bits


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS, alpha: bool = False) -> np.ndarray:
    """A picture as ``(3, H, W)`` uint8 sRGB: upright by its EXIF data, alpha over black, 16 bits and floats rounded.

    With ``alpha``, as for exemplars and painted pictures: one that is not opaque everywhere comes as ``(4, H, W)``, and
    one of more than ``max_pixels`` is made smaller. InputError for no picture, or one that is too large by its head.
    """
    path = Path(path)
    with open_image(path, max_pixels, shrink=alpha) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if alpha and image.width * image.height > max_pixels:
            scale = (max_pixels / (image.width * image.height)) ** 0.5
            image = _eight_bits(image, path).resize((int(image.width * scale), int(image.height * scale)))
        return to_array(image, path, alpha)


@contextmanager
def open_image(path: Path, max_pixels: int, shrink: bool = False) -> Iterator[Image.Image]:
    """A picture whose head is read and whose size is checked; with ``shrink``, ``SHRINKABLE`` times as many pixels are
    allowed, or any number where the format can be decoded smaller."""
    if not path.is_file():
        raise InputError(f"There is no picture {path}; check the name.")
    with decoding(path, max_pixels), Image.open(path) as image:
        if shrink and image.width * image.height > max_pixels:
            image.draft(image.mode, fit_size((image.width, image.height), int(max_pixels**0.5)))  # JPEG alone can
        check_size(path, *image.size, max_pixels * (SHRINKABLE if shrink else 1))
        yield image


@contextmanager
def decoding(path: Path, max_pixels: int) -> Iterator[None]:
    """Turn failures inside into an InputError."""
    try:
        yield
    except (InputError, Canceled):
        raise
    except Image.DecompressionBombError as error:  # Pillow does not even tell how many
        raise too_large(path, "has far", max_pixels) from error
    except Exception as error:  # Pillow's readers raise all kinds for a damaged file
        raise InputError(f"{path} cannot be read as a picture; save it as PNG or JPEG.") from error


def to_array(image: Image.Image, path: Path, alpha: bool = False) -> np.ndarray:
    """An opened picture as ``read_image`` gives it."""
    profile, image = image.info.get("icc_profile"), _eight_bits(image, path)
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        if profile:  # phones save Display P3
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, target, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.warning("the color profile of %s cannot be used (%s): its colors are taken as sRGB", path, error)
    image = image.convert(mode)
    if mode == "RGBA" and not (alpha and np.asarray(image)[..., 3].min() < 255):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return np.asarray(image).transpose(2, 0, 1).copy()


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The picture with 8 bits a channel, as L, RGB, RGBA or CMYK."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        white = 1.0 if image.mode == "F" else 65535.0
        if not np.nanmax(values, initial=0) <= 2 * white:  # highlights may be beyond white
            raise InputError(f"{path} holds numbers beyond {white:g}, which is white; save it with 16 bits a channel.")
        levels = (np.nan_to_num(values).clip(0, white) * (255 / white) + 0.5).astype(np.uint8)
        negative = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO  # of 8 bits, Pillow sees to it
        return Image.fromarray(255 - levels if negative else levels)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode == "1" else "RGB")


def pages(path: Path, max_pixels: int) -> tuple[list[int], list[Fraction], tuple[int, int]]:
    """The pictures of a file that are one clip: their numbers, seconds that each is shown (0 = unknown), and (H, W).

    Pages of another size than the first (previews, masks) do not belong to it, nor does the still picture that an
    animated PNG shows where animation is unknown.
    """
    with open_image(path, max_pixels) as image:
        size = (image.height, image.width)
        if image.format not in SEQUENCES or getattr(image, "n_frames", 1) == 1:
            sideways = image.getexif().get(ORIENTATION, 1) >= 5
            return [0], [Fraction(0)], (image.width, image.height) if sideways else size
        numbers, seconds = [], []
        for k in range(bool(getattr(image, "default_image", False)), getattr(image, "n_frames", 1)):
            image.seek(k)
            if (image.height, image.width) == size:
                image.load()
                numbers.append(k)
                seconds.append(Fraction(image.info.get("duration") or 0) / 1000)
        return numbers, seconds, size


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Save ``(3 or 4, H, W)`` uint8 sRGB, or ``(3, H, W)`` uint16 as PNG; the ending decides the format."""
    pixels = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
    with writing(Path(path)), replacing(Path(path)) as part:
        if pixels.dtype == np.uint16:
            part.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())  # Pillow knows no color of 16 bits
        else:
            Image.fromarray(pixels).save(part, compress_level=1, compress_type=3)


def color_deviation(image: np.ndarray) -> np.ndarray:
    """How far the colors of a picture ``(3, H, W)`` uint8 lie from one tone scale, ``(h, w)`` in units of a*, b*.

    A tinted or toned picture has one color for each lightness, all of them on one line in ab. So: the distance between
    a pixel's ab and the median ab of its lightness on that line, at a size (128 px) at which noise averages out.
    """
    lab = rgb_to_lab(resize(from_uint8(image)[None], fit_size(image.shape[1:], 128)))[0].numpy()
    flat = lab.reshape(3, -1)
    parts = np.array_split(flat[:, np.argsort(flat[0])], min(24, flat.shape[1]), axis=1)
    knots = np.stack([np.median(part, axis=1) for part in parts], axis=1)
    center = knots[1:].mean(axis=1, keepdims=True)
    line = np.linalg.svd(knots[1:] - center)[0][:, :1]  # color bars have one color for each lightness, too
    tones = center + line @ (line.T @ (knots[1:] - center))
    tone = np.stack([np.interp(lab[0], knots[0], channel) for channel in tones])
    return np.hypot(*(lab[1:] - tone))


def overlay_of(deviations: Sequence[np.ndarray]) -> np.ndarray | None:
    """The colored parts of a gray clip, such as a logo, ``(h, w)`` bool, by ``color_deviation`` of some of its frames;
    None if the clip is in color."""
    stack = np.stack(deviations)
    if np.percentile(stack, 99, axis=(1, 2)).max() < GRAY_SPREAD:
        return np.zeros(stack.shape[1:], bool)
    overlay = cv2.dilate((stack > GRAY_SPREAD).any(0).astype(np.uint8), np.ones((5, 5))) > 0
    small = overlay.mean() < LARGEST_OVERLAY and np.percentile(stack[:, ~overlay], 95) < NEUTRAL
    return overlay if small else None


def is_gray(video: Video) -> bool:
    """Whether a clip has no colors of its own: gray, sepia, tinted, with chroma noise, or with a colored logo."""
    frames = np.unique(np.linspace(0, len(video) - 1, 12).round().astype(int))
    return overlay_of([color_deviation(video.frames[i]) for i in frames]) is not None
