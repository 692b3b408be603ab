"""``Video`` to films: PyAV encodes the frames at their exact times, imageio-ffmpeg's ffmpeg adds what else the source
holds: sound, subtitles, chapters, titles, timecode."""

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from omnifusion.progress import InputError
from omnifusion.state import Video
from omnifusion.video.common import OPENING, SWSCALE, writing


@dataclass(frozen=True)
class Format:
    """How a film is encoded."""

    ending: str  # of the file
    container: str  # this and the next two as FFmpeg names them
    codec: str
    pixels: str
    options: Mapping[str, str]  # of the encoder
    copied: tuple[str, ...]  # beginnings of sound codecs that go into it as they are; others are encoded anew as AAC
    text: str  # the codec of subtitles that cannot go into it as they are


_WEB = ("aac", "mp3", "opus", "flac")  # what MP4 carries and browsers play
_QUICKTIME = ("aac", "mp3", "ac3", "eac3", "alac", "pcm_")

_X265 = {"crf": "17", "preset": "fast", "x265-params": "log-level=error"}

FORMATS = {
    "h264": Format(".mp4", "mp4", "libx264", "yuv420p", {"crf": "15", "preset": "fast"}, _WEB, "mov_text"),
    "h265": Format(".mp4", "mp4", "libx265", "yuv420p", _X265, _WEB, "mov_text"),
    "prores": Format(".mov", "mov", "prores_ks", "yuv422p10le", {"profile": "hq"}, _QUICKTIME, "mov_text"),
    "ffv1": Format(".mkv", "matroska", "ffv1", "bgr0", {"level": "3", "slicecrc": "1"}, ("",), "srt"),
}
"""The films that can be written; FFV1 alone loses nothing."""

CHROMA = Format(".mkv", "matroska", "ffv1", "gbrp16le", {"level": "3", "slicecrc": "1"}, ("",), "srt")
"""A film of 16 bits, for chroma alone."""

FIRST_TWO = "pan=stereo|c0=c0|c1=c1"

LEAD = Fraction(1, 10)  # seconds of sound before the first frame for which the picture is made to wait

UNUSED = ("-map", "1:v", "-c", "copy", "-f", "null", "-")
"""The source's own frames are read, too: ffmpeg counts the time of some films from the first track that is in use."""

_BT709 = 1  # the code for primaries, transfer and matrix alike in ITU-T H.273


class Writer:
    """Encode a film frame by frame, by default as H.264, yuv420p, BT.709, index in front, so that browsers play it.

    It appears under its name only once it is complete. An odd height or width grows by one repeated row or column
    where chroma is halved.

    Args:
        path: the file to write.
        like: a clip whose frame rate or times, pixel shape, sound and titles the film takes.
        overwrite: replace an existing file.
        format: the name of one of ``FORMATS``, or ``CHROMA``.

    ``warnings`` then say what of the source could not be taken over. InputError if the file exists, or cannot be
    written.
    """

    def __init__(self, path: Path | str, like: Video, overwrite: bool = False, format: str | Format = "h264") -> None:
        self.path, self.like = Path(path), like
        self.format = format if isinstance(format, Format) else FORMATS[format]
        if self.path.exists() and not overwrite:
            raise InputError(f"{self.path} exists already; name another file, or say that it may be overwritten.")
        if not self.path.parent.is_dir():
            raise InputError(f"Cannot write {self.path}: there is no such folder; make it, or name another.")
        self._part, self._silent = (self.path.with_name(f".{self.path.name}.{end}") for end in ("part", "silent"))
        self._stream: av.VideoStream | None = None
        self._count = 0
        self.warnings: list[str] = []
        self._time_base = 1 / like.fps if like.times is None else Fraction(1, 90_000)
        options = {} if self.format.container == "matroska" else {"movflags": "+faststart"}
        with writing(self.path):
            self._container = av.open(f"file:{self._silent}", "w", format=self.format.container, options=options)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        complete = self._stream if kind is None else None
        try:
            with writing(self.path):
                if complete:
                    self._container.mux(complete.encode(None))
                self._container.close()
                if complete:
                    os.replace(self._joined(self.like.source) if self.like.source else self._silent, self.path)
        finally:
            self._part.unlink(missing_ok=True)
            self._silent.unlink(missing_ok=True)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, ``(3, H, W)`` uint8 sRGB, or uint16 for ``CHROMA``; the first one sets the size."""
        rgb = np.ascontiguousarray(np.asarray(frame).transpose(1, 2, 0))
        if self.format.pixels.startswith("yuv"):
            rgb = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._open(rgb.shape[0], rgb.shape[1])
        if rgb.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(f"a film has one size, got a frame of {rgb.shape[1]}x{rgb.shape[0]}")
        yuv = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG, "interpolation": SWSCALE}
        picture = av.VideoFrame.from_ndarray(rgb, "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
        picture = picture.reformat(format=self.format.pixels, **(yuv if self.format.pixels.startswith("yuv") else {}))
        times, k = self.like.times, self._count
        picture.pts, picture.time_base = k if times is None else round(times[k] / self._time_base), self._time_base
        self._count += 1
        with writing(self.path):
            self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream(self.format.codec, rate=self.like.fps, options=dict(self.format.options))
        stream.height, stream.width, stream.pix_fmt = height, width, self.format.pixels
        stream.sample_aspect_ratio = self.like.pixel_aspect
        context = stream.codec_context
        context.time_base = stream.time_base = self._time_base
        if self.format.codec == "libx265":
            context.codec_tag = "hvc1"  # by which players on Apple's devices know it
        if self.format.pixels.startswith("yuv"):
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            context.color_range = ColorRange.MPEG
        return stream

    def _joined(self, source: Path) -> Path:
        """Join the silent film, untouched, with all else of the source that the container holds."""
        try:
            words, tries = self._taken(source)
        except (av.FFmpegError, OSError):  # it has gone meanwhile
            words, tries = [], []
        program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-i", f"file:{self._silent}"]
        for loss, tracks in tries:
            command = [*program, *words, *tracks, "-f", self.format.container, f"file:{self._part}", *UNUSED]
            run = subprocess.run(command, capture_output=True, text=True, errors="replace")
            if not run.returncode:
                self.warnings += [loss] if loss else []
                return self._part
            if os.strerror(errno.ENOSPC) in run.stderr:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.warnings.append(f"Neither sound nor titles could be taken over from {source.name}.")
        return self._silent

    def _taken(self, source: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
        """ffmpeg's arguments for what is taken over; ways to take sound and subtitles, best first, with their loss."""
        with av.open(f"file:{source}", options=OPENING, metadata_errors="replace") as container:
            # the sound's channel layouts are not looked at: PyAV does not survive some of them
            sound = [s.codec_context and s.codec_context.codec.canonical_name for s in container.streams.audio]
            heard = [s.start_time * s.time_base for s in container.streams.audio if s.start_time is not None]
            tags = [tag for x in (container, *container.streams) for tag in x.metadata.items()]
            begin = Fraction(container.start_time or 0, av.time_base)
        start, stop = self.like.start, self.like.stop
        words = [word for key, value in OPENING.items() for word in (f"-{key}", value)]
        words += ["-itsoffset", f"{float(begin - start):f}", "-i", f"file:{source}"]  # no seeking: it would lose some
        words += ["-map", "0:v", "-c:v", "copy", "-map_metadata", "1", "-map_chapters", "1"]
        words += [word for key, code in tags if key.lower() == "timecode" for word in ("-timecode", code)][:2]
        words += [] if stop is None else ["-t", f"{float(stop - start):f}"]
        words += [] if self.format.container == "matroska" else ["-movflags", "+faststart"]
        if min(heard, default=start) < start - LEAD:  # sound before the first frame: the picture waits for it
            words += ["-avoid_negative_ts", "make_zero"]
        hows = [name and ("copy" if name.startswith(self.format.copied) else "aac") for name in sound]
        copied, anew = _mapped(hows), [*_mapped([how and "aac" for how in hows]), "-filter:a"]
        self.warnings += ["Sound of a kind that nobody can decode is left out."] if None in hows else []
        return words, [
            ("", [*copied, "-map", "1:s?", "-map", "1:t?", "-c:s", "copy", "-c:t", "copy"]),  # t: fonts of subtitles
            ("", [*copied, "-map", "1:s?", "-c:s", self.format.text]),
            ("The subtitles could not be taken over.", copied),
            ("The sound is mixed to stereo: this film cannot hold its channels.", [*anew, "aformat=cl=stereo"]),
            ("Of the sound the first two channels are kept: which they are is unknown.", [*anew, FIRST_TWO]),
            ("The sound could not be taken over.", []),
        ]


def _mapped(codecs: Sequence[str | None]) -> list[str]:
    """The arguments that take over sound tracks, each by a codec, None = not at all."""
    chosen = enumerate((n, codec) for n, codec in enumerate(codecs) if codec)
    return [word for k, (n, codec) in chosen for word in ("-map", f"1:a:{n}", f"-c:a:{k}", codec)]


def write(path: Path | str, video: Video, overwrite: bool = False) -> None:
    """Encode a whole clip, sound included; see ``Writer``."""
    with Writer(path, video, overwrite) as film:
        for frame in video.frames:
            film.add(frame)
