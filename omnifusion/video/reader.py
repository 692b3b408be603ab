"""Films, folders of frames and pictures to ``Video``, decoded frame by frame on demand."""

import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omnifusion.progress import InputError, check_canceled
from omnifusion.state import Video
from omnifusion.video.common import MAX_PIXELS, Frames, reason
from omnifusion.video.film import FilmFrames, count_packets
from omnifusion.video.images import IMAGES, decoding, pages, read_image, to_array

LOSSY = (".jpg", ".jpeg", ".webp", ".avif")
RATE = Fraction(24)  # frames a second of folders and scans, which do not know their own


def read(path: Path | str, max_frames: int | None = None, max_pixels: int = MAX_PIXELS) -> Video:
    """Open a film, a folder of frames (in natural order: 2 before 10), a picture, or a file of several pictures.

    Nothing is kept: a film is decoded once to list its frames and their times, and again on demand. Frames come
    upright, with alpha over black, HDR tone-mapped, and more than 8 bits rounded to 8.

    Args:
        max_frames: how many frames to take of a longer clip.
        max_pixels: largest frame; what is larger by its head is not decoded.

    Raises:
        InputError: nothing can be decoded, or it is too large; later, if a frame has changed or cannot be decoded.
    """
    path = Path(path)
    if max_frames is not None and max_frames < 1:
        raise InputError(f"Cannot read {max_frames} frames of {path}; ask for at least one.")
    try:
        if path.is_dir():
            return _folder(path, max_frames, max_pixels)
        if not path.exists():
            raise InputError(f"There is no file or folder {path}; check the name.")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}); check its name and its permissions.") from error
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder; give a film or a folder of frames.")
    if path.suffix.lower() in IMAGES:
        return _pages(path, max_frames, max_pixels)
    film = FilmFrames(path, max_frames, max_pixels)
    frames: Any = film
    return Video(frames, film.fps, film.times, path, film.start, film.stop, film.pixel_aspect, film.warnings)


def count_frames(path: Path, most: int, max_pixels: int = MAX_PIXELS) -> int:
    """How many frames ``read`` would find in a file, at most ``most``; a film's packets are counted, not decoded.
    InputError as ``read``, as far as that can be told undecoded."""
    if path.suffix.lower() in IMAGES:
        return len(read(path, most, max_pixels))
    return count_packets(path, most, max_pixels)


class _Pictures(Frames):
    """The pictures of a folder, or of one file: each a file and its number there, None where it is the only one."""

    def __init__(
        self, path: Path, pictures: list[tuple[Path, int | None]], size: tuple[int, int], max_pixels: int
    ) -> None:
        super().__init__(path, (len(pictures), 3, *size))
        self.pictures, self.max_pixels = pictures, max_pixels
        self._opened: Image.Image | None = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_opened": None}

    def _frame(self, i: int) -> np.ndarray:
        file, number = self.pictures[i]
        if number is None:
            return read_image(file, self.max_pixels)
        with decoding(file, self.max_pixels):
            if self._opened is None or self._opened.tell() > number:
                self._opened = Image.open(file)  # kept open: an animation is decoded from frame to frame
            for k in range(self._opened.tell(), number + 1):
                self._opened.seek(k)
                self._opened.load()
            return to_array(self._opened, file)


def _pages(path: Path, max_frames: int | None, max_pixels: int) -> Video:
    numbers, seconds, size = pages(path, max_pixels)
    numbers, seconds = numbers[:max_frames], seconds[:max_frames]
    pictures = [(path, None if numbers == [0] else number) for number in numbers]
    frames: Any = _Pictures(path, pictures, size, max_pixels)
    if not all(seconds) or len(numbers) == 1:
        return Video(frames, RATE)
    if len(set(seconds)) == 1:
        return Video(frames, 1 / seconds[0])
    times = tuple(sum(seconds[:k], Fraction(0)) for k in range(len(seconds)))
    return Video(frames, len(seconds) / sum(seconds, Fraction(0)), times)


def _folder(path: Path, max_frames: int | None, max_pixels: int) -> Video:
    files, warnings = _images(path)
    files, size = files[:max_frames], None
    for file in files:
        check_canceled()
        (h, w) = pages(file, max_pixels)[2]
        (H, W) = size = size or (h, w)
        if (h, w) != size:
            sizes = f"{W}x{H}, but {file.name} {w}x{h}"
            raise InputError(f"The frames in {path} differ in size ({sizes}); make them equal.")
    frames: Any = _Pictures(path, [(file, None) for file in files], size or (0, 0), max_pixels)
    return Video(frames, RATE, warnings=tuple(warnings))


def _images(folder: Path) -> tuple[list[Path], list[str]]:
    """The frames of a folder by name, numbers by value, and warnings; InputError if there are none."""
    there = [file for file in folder.iterdir() if not file.name.startswith(".")]
    files = [file for file in there if file.suffix.lower() in IMAGES]
    if not files:
        advice = "put PNG or JPEG pictures in it"
        if there:
            kinds = Counter(file.suffix.lower() or ("folders" if file.is_dir() else "other files") for file in there)
            content = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
            advice = f"it holds {content}: name one of them, or save them as PNG or JPEG"
        raise InputError(f"The folder {folder} holds no frames that can be read; {advice}.")
    warnings, endings = [], Counter(file.suffix.lower() for file in files)
    if len({file.stem for file in files}) < len(files):  # such as proxies beside scans
        best = max(endings, key=lambda ending: (endings[ending], ending not in LOSSY, ending))
        files = [file for file in files if file.suffix.lower() == best]
        others = ", ".join(sorted(set(endings) - {best}))
        warnings.append(f"The folder holds frames of one name in several formats: {best} is read, {others} is not.")
    files.sort(key=_natural)
    patterns = [re.sub(r"\d+", "#", file.stem.lower()) for file in files]
    common = Counter(patterns).most_common(1)[0][0]
    strange = next((file.name for file, pattern in zip(files, patterns, strict=True) if pattern != common), None)
    if strange and len(set(patterns)) < len(files):
        warnings.append(f"{strange} is named unlike other frames but counts as one: take it out if it is none.")
    numbers = [int(digits[-1]) for file in files if (digits := re.findall(r"\d+", file.stem))]
    steps = [b - a for a, b in pairwise(numbers)]
    if len(numbers) == len(files) > 2 and min(steps) > 0:
        usual = Counter(steps).most_common(1)[0][0]
        if gaps := [a for a, step in zip(numbers, steps, strict=False) if step > usual]:
            warnings.append(
                f"Numbers are missing in the folder, first after {gaps[0]}: what is there is shown without a gap."
            )
    return files, warnings


def _natural(file: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", file.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]
