"""Pictures and clips in and out; nothing else in the package touches a codec.

Films are decoded and encoded through PyAV (FFmpeg's libraries), pictures through Pillow. Decoded frames lie in a
temporary file that is mapped into memory, so that a clip may be longer than the memory is large.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image, ImageCms, ImageOps

from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.geometry import fit_size, resize
from omnifusion.state import InputError, Video

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})
"""Endings of the files in a folder that are its frames."""

COPIED_AUDIO = frozenset({"aac", "mp3"})
"""Sound that an MP4 file carries and browsers play as it is; any other is encoded anew as AAC."""

GREY_SPREAD = 10.0
"""Below this ``color_spread`` a picture counts as grey. Measured: a grey film under sepia toning, chroma noise of 12 or
blotches of 4 (of 255) stays below 8.4; the most subdued frames of eleven colour clips that decide reach 18 and more."""

# 7 dB better in colour than the default, which neither interpolates nor rounds chroma properly
_SWSCALE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_BT709 = 1  # the code for primaries, transfer and matrix alike in ITU-T H.273
_NOT_FILMS = frozenset({"tty", "hls", "dash", "concat"})  # text, and lists of other files


def read(path: Path | str, max_frames: int | None = None, start: int = 0, fps: Fraction = Fraction(24)) -> Video:
    """Decode a film, a folder of frames (in natural order: 2 before 10), or a single picture.

    Rotation metadata is applied, alpha is laid over black, more than 8 bits are rounded to 8.

    Args:
        max_frames: decode at most so many.
        start: skip so many.
        fps: the frame rate of a folder; a film knows its own.

    Raises:
        InputError: there is nothing that can be decoded, or less of it than the file promises.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; check the name.")
    if start < 0 or (max_frames is not None and max_frames < 1):
        raise InputError(f"Cannot read {max_frames} frames from frame {start}; ask for at least one, from frame 0 on.")
    if path.is_dir() or path.suffix.lower() in PICTURES:
        files = natural_sort(path) if path.is_dir() else [path]
        pictures = (read_image(file) for file in files[start : None if max_frames is None else start + max_frames])
        return Video(_gather(_same_size(pictures, path), path, start), fps)
    film = _Film(path)
    stop = None if max_frames is None else start + max_frames
    frames = _gather(islice(film.frames(), start, stop), path, start)
    times = film.times[start : start + len(frames)]
    return Video(frames, *film.timing(times), path if film.has_audio else None, times[0])


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


class _Film:
    """A film that is being decoded; ``times`` fills up with the frames' presentation times in seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: list[Fraction] = []
        try:
            self.container = av.open(str(path), options={"protocol_whitelist": "file"})
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{path} cannot be read as a video ({_reason(error)}); "
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
        self.stream.thread_type = "AUTO"
        # PyAV crashes where a stream is asked after its container is closed
        self.time_base = Fraction(self.stream.time_base)
        rates = (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate)
        self.rates = [Fraction(rate) for rate in rates if rate] or [Fraction(24)]
        self.promised = self._promised()

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame ``(3, H, W)`` uint8 sRGB, its time into ``times``."""
        with self.container:
            try:
                for frame in self.container.decode(self.stream):
                    following = self.times[-1] + 1 / self.rates[0] if self.times else Fraction(0)
                    self.times.append(following if frame.pts is None else frame.pts * self.time_base)
                    self.end = self.times[-1] + (frame.duration or 0) * self.time_base
                    yield _to_rgb(frame)
            except av.FFmpegError as error:
                raise self._broken(_reason(error)) from error
            if self.times and self.end < self.promised * Fraction(99, 100) - 3 / self.rates[0]:
                raise self._broken(f"{float(self.end):.1f} of {float(self.promised):.1f} s")

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

    def _broken(self, reason: str) -> InputError:
        count = len(self.times)
        return InputError(
            f"{self.path} is damaged or cut short: it ends after {count} frames ({reason}); "
            f"repair it, or take only its first {max(count, 1)} frames or fewer."
        )


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame, upright, as ``(3, H, W)`` uint8 sRGB."""
    matrix = Colorspace(frame.colorspace) if frame.colorspace in set(Colorspace) else None
    if matrix is None:  # untagged: what players assume, by size
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    has_alpha = any(component.is_alpha for component in frame.format.components)
    rgb = frame.reformat(
        format="rgba" if has_alpha else "rgb24",
        src_colorspace=matrix,
        dst_color_range=ColorRange.JPEG,
        interpolation=_SWSCALE,
    ).to_ndarray()
    if has_alpha:
        rgb = (rgb[..., :3].astype(np.uint16) * rgb[..., 3:] + 127) // 255
    return np.rot90(rgb, round(frame.rotation / 90)).transpose(2, 0, 1).astype(np.uint8, copy=False)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class Writer:
    """Encode a film frame by frame: H.264, yuv420p, BT.709, index in front, so that browsers play it.

    It appears under its name only once it is complete. An odd height or width grows by one repeated row or column,
    for yuv420p has none.

    Args:
        path: the file to write.
        like: a clip whose frame rate or times and whose sound the film takes.
        overwrite: replace an existing file.
        crf: x264's quality, smaller is better.

    Raises:
        InputError: the file exists, or the disk refuses.
    """

    def __init__(self, path: Path | str, like: Video, overwrite: bool = False, crf: int = 15) -> None:
        self.path, self.like, self.crf = Path(path), like, crf
        if self.path.exists() and not overwrite:
            raise InputError(f"{self.path} exists already; name another file, or say that it may be overwritten.")
        if not self.path.parent.is_dir():
            raise InputError(f"Cannot write {self.path}: there is no such folder; make it, or name another.")
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._stream: av.VideoStream | None = None
        self._count = 0
        try:
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"Cannot write {self.path} ({_reason(error)}); name another folder.") from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._count:
                self._finish()
                os.replace(self._part, self.path)
            else:
                self._container.close()
        except (av.FFmpegError, OSError) as problem:
            raise _full(self.path, problem) from problem
        finally:
            self._part.unlink(missing_ok=True)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, ``(3, H, W)`` uint8 sRGB; the first one sets the size."""
        rgb = np.ascontiguousarray(np.asarray(frame).transpose(1, 2, 0))
        rgb = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._open(rgb.shape[0], rgb.shape[1])
        if rgb.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(f"a film has one size, got a frame of {rgb.shape[1]}x{rgb.shape[0]}")
        picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=_SWSCALE
        )
        picture.pts, picture.time_base = self._pts(self._count), self._time_base
        self._count += 1
        try:
            self._container.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise _full(self.path, error) from error

    @property
    def _time_base(self) -> Fraction:
        return 1 / self.like.fps if self.like.times is None else Fraction(1, 90_000)

    def _pts(self, index: int) -> int:
        return index if self.like.times is None else round(self.like.times[index] / self._time_base)

    def _open(self, height: int, width: int) -> av.VideoStream:
        options = {"crf": str(self.crf), "preset": "fast"}
        stream = self._container.add_stream("libx264", rate=self.like.fps, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = self._time_base
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        self._sound = _Sound(self.like, self._container) if self.like.audio else None
        return stream

    def _finish(self) -> None:
        assert self._stream is not None
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            last = self._pts(self._count - 1) * self._time_base
            self._sound.copy(self.like.audio_start, self.like.audio_start + last + 1 / self.like.fps)
        self._container.close()


class _Sound:
    """The sound track on its way from ``like.audio`` into ``target``, as it is where MP4 allows, else as AAC."""

    def __init__(self, like: Video, target: av.container.OutputContainer) -> None:
        self.source, self.target = av.open(str(like.audio)), target
        self.track = self.source.streams.audio[0]
        self.as_is = self.track.codec_context.codec.canonical_name in COPIED_AUDIO
        if self.as_is:
            self.stream = target.add_stream_from_template(self.track)
        else:
            self.stream = target.add_stream("aac", rate=self.track.codec_context.sample_rate)

    def copy(self, start: Fraction, end: Fraction) -> None:
        """Bring over what sounds from ``start`` to ``end``, in seconds of the source."""
        with self.source:
            offset = round(start / Fraction(self.track.time_base))
            for packet in self.source.demux(self.track):
                if packet.dts is None or not start <= packet.pts * Fraction(self.track.time_base) < end:
                    continue
                if self.as_is:
                    packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, self.stream
                    self.target.mux(packet)
                    continue
                for frame in packet.decode():
                    frame.pts -= offset
                    self.target.mux(self.stream.encode(frame))
            if not self.as_is:
                self.target.mux(self.stream.encode(None))


def write(path: Path | str, video: Video, overwrite: bool = False) -> None:
    """Encode a whole clip, sound included; see ``Writer``."""
    with Writer(path, video, overwrite) as film:
        for frame in video.frames:
            film.add(frame)


def _full(path: Path, error: Exception) -> InputError:
    if getattr(error, "errno", None) == errno.ENOSPC:
        return InputError(f"The disk that is to hold {path} is full; make room and run again.")
    return InputError(f"Cannot write {path} ({_reason(error)}); check the folder and run again.")


def read_image(path: Path | str) -> np.ndarray:
    """A picture as ``(3, H, W)`` uint8 sRGB: upright by its EXIF data, alpha over black, 16 bits rounded to 8.

    Raises:
        InputError: no such file, or not a picture.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no picture {path}; check the name.")
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                image = Image.fromarray(((np.asarray(image).clip(0, 65535) + 128.0) / 257).astype(np.uint8))
            if profile := image.info.get("icc_profile"):
                image = _to_srgb(image, profile)
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture; save it as PNG or JPEG.") from error


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded colour profile (phones save Display P3); a profile that cannot be used is ignored."""
    import io

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        mode = "RGBA" if image.has_transparency_data else "RGB"
        return ImageCms.profileToProfile(image, source, target, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError):
        return image


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Save ``(3, H, W)`` uint8 sRGB; the ending decides the format. It appears only once it is complete."""
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        Image.fromarray(np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))).save(part, compress_level=3)
        os.replace(part, path)
    except OSError as error:
        raise _full(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def color_spread(image: np.ndarray) -> float:
    """How far the colours of a picture ``(3, H, W)`` uint8 lie from one tone scale, in units of a*, b*.

    A tinted or toned picture has one colour for each lightness. So: the 99th percentile of the distance between a
    pixel's ab and the median ab of its lightness, at a size at which noise averages out.
    """
    rgb = from_uint8(torch.from_numpy(np.ascontiguousarray(image)))[None]
    lab = rgb_to_lab(resize(rgb, fit_size(image.shape[1:], 128)))[0].reshape(3, -1).numpy()
    lab = lab[:, np.argsort(lab[0])]
    knots = np.stack([np.median(part, axis=1) for part in np.array_split(lab, min(24, lab.shape[1]), axis=1)], axis=1)
    tone = np.stack([np.interp(lab[0], knots[0], knots[channel]) for channel in (1, 2)])
    return float(np.percentile(np.hypot(*(lab[1:] - tone)), 99))


def is_grey(video: Video) -> bool:
    """Whether a clip has no colours of its own: grey, sepia, tinted, or with slight chroma noise (``GREY_SPREAD``)."""
    frames = np.unique(np.linspace(0, len(video) - 1, 12).round().astype(int))
    return all(color_spread(video.frames[i]) < GREY_SPREAD for i in frames)
