"""Films and folders of frames to ``Video``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import dropwhile, islice, pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from omnifusion.progress import InputError, check_canceled
from omnifusion.state import Video
from omnifusion.video.common import MAX_PIXELS, SWSCALE, check_size, reason, too_large
from omnifusion.video.pictures import PICTURES, read_image

_NOT_FILMS = frozenset({"tty", "hls", "dash", "concat"})  # text, and lists of other files


def read(
    path: Path | str,
    max_frames: int | None = None,
    start: int = 0,
    fps: Fraction = Fraction(24),
    max_pixels: int = MAX_PIXELS,
) -> Video:
    """Decode a film, a folder of frames (in natural order: 2 before 10), or a single picture.

    Rotation metadata is applied, alpha is laid over black, more than 8 bits are rounded to 8.

    Args:
        max_frames: decode at most so many.
        start: skip so many.
        fps: the frame rate of a folder; a film knows its own.
        max_pixels: largest frame; what is larger by its head is not decoded.

    Raises:
        InputError: there is nothing that can be decoded, or less of it than the file promises, or it is too large.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; check the name.")
    if start < 0 or (max_frames is not None and max_frames < 1):
        raise InputError(f"Cannot read {max_frames} frames from frame {start}; ask for at least one, from frame 0 on.")
    if path.is_dir() or path.suffix.lower() in PICTURES:
        files = natural_sort(path) if path.is_dir() else [path]
        pictures = (
            read_image(file, max_pixels) for file in files[start : None if max_frames is None else start + max_frames]
        )
        return Video(_gather(_same_size(pictures, path), path, start), fps)
    film = Film(path, max_pixels)
    stop = None if max_frames is None else start + max_frames
    return film.video(_gather(map(to_rgb, islice(film.frames(), start, stop)), path, start), start)


def count_frames(path: Path, most: int, max_pixels: int = MAX_PIXELS) -> int:
    """How many frames ``read`` would find, at most ``most``: a film's packets are counted, nothing is decoded.

    Raises:
        InputError: as ``read``, as far as that can be told undecoded.
    """
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return min(most, len(natural_sort(path)) if path.is_dir() else 1)
    return Film(path, max_pixels).count(most)


def natural_sort(folder: Path) -> list[Path]:
    """The pictures of a folder by name, numbers by value.

    Raises:
        InputError: there are none.
    """
    files = [f for f in folder.iterdir() if f.suffix.lower() in PICTURES and not f.name.startswith(".")]
    if not files:
        raise InputError(f"The folder {folder} holds no frames; put PNG or JPEG pictures in it.")

    def key(file: Path) -> list[tuple[int, int, str]]:
        parts = re.findall(r"\d+|\D+", file.name)
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]

    return sorted(files, key=key)


def _same_size(pictures: Iterable[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    size = None
    for picture in pictures:
        size = size or picture.shape
        if picture.shape != size:
            (h, w), (H, W) = picture.shape[1:], size[1:]
            raise InputError(f"The frames in {folder} differ in size ({W}x{H} and {w}x{h}); make them equal.")
        yield picture


def _gather(frames: Iterable[np.ndarray], path: Path, start: int) -> np.ndarray:
    """Write frames ``(3, H, W)`` to a temporary file and map it: ``(T, 3, H, W)`` uint8, copied on write."""
    shape: tuple[int, ...] | None = None
    count = 0
    with tempfile.TemporaryFile() as file:
        for frame in frames:
            check_canceled()
            if shape is not None and frame.shape != shape:
                raise InputError(f"{path} changes its frame size at frame {start + count}; convert it first.")
            shape = frame.shape
            try:
                file.write(np.ascontiguousarray(frame).data)
            except OSError as error:
                raise InputError(
                    f"The disk for temporary files ({tempfile.gettempdir()}) is full; make room there, "
                    "set TMPDIR to another folder, or take fewer frames."
                ) from error
            count += 1
        if shape is None:
            raise InputError(f"{path} holds no frame{f' from number {start} on' if start else ''}; choose another.")
        file.flush()
        return np.asarray(np.memmap(file, np.uint8, "c", shape=(count, *shape)))


class Film:
    """A film that is being decoded; ``times`` fills up with the frames' presentation times in seconds.

    Raises:
        InputError: it cannot be opened, or is too large.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path = path
        bound = {"max_pixels": str(max_pixels)}  # for the decoder, which sees the first frame in order to name its kind
        self.times: list[Fraction] = []
        try:
            self.container = av.open(str(path), options={"protocol_whitelist": "file", **bound})
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{path} cannot be read as a video ({reason(error)}); "
                "it may be damaged, cut short, or of another kind: convert it to MP4."
            ) from error
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self.container.streams.video if not s.disposition & cover and s.codec_context]
        self.has_audio = bool(self.container.streams.audio)
        if self.container.format.name in _NOT_FILMS or not (streams or self.has_audio):
            raise InputError(f"{path} is not a video; give a film file such as MP4, or a folder of frames.")
        if not streams:
            raise InputError(f"{path} holds sound but no pictures; give a file with a video track.")
        self.stream = streams[0]
        if not self.stream.width:
            raise too_large(path, "holds no frame that can be read, or one of", max_pixels)
        check_size(path, self.stream.width, self.stream.height, max_pixels)
        self.stream.codec_context.options = bound  # frames may grow on the way
        self.stream.thread_type = "AUTO"
        # PyAV crashes where a stream is asked after its container is closed
        self.time_base = Fraction(self.stream.time_base)
        rates = (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate)
        self.rates = [Fraction(rate) for rate in rates if rate] or [Fraction(24)]
        self.pixel_aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        self.promised = self._promised()

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame, its time into ``times``."""
        with self.container:
            try:
                for frame in self.container.decode(self.stream):
                    following = self.times[-1] + 1 / self.rates[0] if self.times else Fraction(0)
                    self.times.append(following if frame.pts is None else frame.pts * self.time_base)
                    self.end = self.times[-1] + (frame.duration or 0) * self.time_base
                    if len(self.times) == 1 and round(frame.rotation / 90) % 2:
                        self.pixel_aspect = 1 / self.pixel_aspect
                    yield frame
            except av.FFmpegError as error:
                raise self._broken(reason(error)) from error
            if self.times and self.end < self.promised * Fraction(99, 100) - 3 / self.rates[0]:
                raise self._broken(f"{float(self.end):.1f} of {float(self.promised):.1f} s")

    def since(self, time: Fraction) -> Iterator[av.VideoFrame]:
        """The frames from ``time`` on; later ones or none, where that place cannot be found."""
        with self.container, suppress(av.FFmpegError):
            self.container.seek(round(time / self.time_base), stream=self.stream)
            decoded = self.container.decode(self.stream)
            yield from dropwhile(lambda frame: frame.pts is None or frame.pts * self.time_base < time, decoded)

    def video(self, frames: np.ndarray, start: int = 0) -> Video:
        """``frames`` from number ``start`` on, which were decoded, with all else that is known of the film."""
        times = self.times[start : start + len(frames)]
        return Video(frames, *self.timing(times), self.path if self.has_audio else None, times[0], self.pixel_aspect)

    def count(self, most: int) -> int:
        """The packets with a frame to be shown, at most ``most``."""
        with self.container:
            try:
                shown = (p for p in self.container.demux(self.stream) if p.size and not p.is_discard)
                return sum(1 for _ in islice(shown, most))
            except av.FFmpegError as error:
                raise self._broken(reason(error)) from error

    def timing(self, times: list[Fraction]) -> tuple[Fraction, tuple[Fraction, ...] | None]:
        """The exact frame rate; and the times in seconds from the first frame on, where they do not follow it."""
        times = [time - times[0] for time in times]
        for rate in self.rates:
            if all(abs(time - k / rate) <= self.time_base for k, time in enumerate(times)):
                return rate, None
        if any(b <= a for a, b in pairwise(times)):  # broken time stamps
            return self.rates[0], None
        return ((len(times) - 1) / times[-1]).limit_denominator(100_000), tuple(times)

    def _promised(self) -> Fraction:
        """When, in seconds, the last frame ends by the file's head; 0 where that says nothing."""
        if self.stream.duration is not None:
            return (self.stream.duration + (self.stream.start_time or 0)) * self.time_base
        hours, minutes, seconds = self.stream.metadata.get("DURATION", "0:0:0").split(":")  # Matroska, WebM
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)

    def _broken(self, why: str) -> InputError:
        count = len(self.times)
        rest = f"or take its first {count} frames alone" if count else "for nothing of it can be decoded"
        return InputError(
            f"{self.path} is damaged or cut short: it ends after {count} frames ({why}); repair it, {rest}."
        )


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame, upright, as ``(3, H, W)`` uint8 sRGB."""
    matrix = Colorspace(frame.colorspace) if frame.colorspace in set(Colorspace) else None
    if matrix is None:  # untagged: what players assume, by size
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    has_alpha = any(component.is_alpha for component in frame.format.components)
    rgb = frame.reformat(
        format="rgba" if has_alpha else "rgb24",
        src_colorspace=matrix,
        dst_color_range=ColorRange.JPEG,
        interpolation=SWSCALE,
    ).to_ndarray()
    if has_alpha:
        rgb = (rgb[..., :3].astype(np.uint16) * rgb[..., 3:] + 127) // 255
    return np.rot90(rgb, round(frame.rotation / 90)).transpose(2, 0, 1).astype(np.uint8, copy=False)
