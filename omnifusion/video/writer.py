"""``Video`` to films: PyAV encodes the frames at their exact times, imageio-ffmpeg's ffmpeg adds the sound."""

from __future__ import annotations

import errno
import os
import subprocess
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from omnifusion.state import InputError, Video
from omnifusion.video.common import SWSCALE, reason, refused

COPIED_AUDIO = frozenset({"aac", "mp3"})
"""Sound that an MP4 file carries and browsers play as it is; any other is encoded anew as AAC."""

_BT709 = 1  # the code for primaries, transfer and matrix alike in ITU-T H.273


class Writer:
    """Encode a film frame by frame: H.264, yuv420p, BT.709, index in front, so that browsers play it.

    It appears under its name only once it is complete. An odd height or width grows by one repeated row or column,
    for yuv420p has none.

    Args:
        path: the file to write.
        like: a clip whose frame rate or times, pixel shape and sound tracks the film takes.
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
        self._part, self._silent = (self.path.with_name(f".{self.path.name}.{end}") for end in ("part", "silent"))
        self._stream: av.VideoStream | None = None
        self._count = 0
        self._time_base = 1 / like.fps if like.times is None else Fraction(1, 90_000)
        try:
            self._container = av.open(str(self._silent), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"Cannot write {self.path} ({reason(error)}); name another folder.") from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete = self._stream if kind is None else None
        try:
            if complete:
                self._container.mux(complete.encode(None))
            self._container.close()
            if complete:
                os.replace(self._with_sound(self.like.audio) if self.like.audio else self._silent, self.path)
        except (av.FFmpegError, OSError) as problem:
            raise refused(self.path, problem) from problem
        finally:
            self._part.unlink(missing_ok=True)
            self._silent.unlink(missing_ok=True)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, ``(3, H, W)`` uint8 sRGB; the first one sets the size."""
        rgb = np.ascontiguousarray(np.asarray(frame).transpose(1, 2, 0))
        rgb = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._open(rgb.shape[0], rgb.shape[1])
        if rgb.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(f"a film has one size, got a frame of {rgb.shape[1]}x{rgb.shape[0]}")
        picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=SWSCALE
        )
        picture.pts, picture.time_base = self._pts(self._count), self._time_base
        self._count += 1
        try:
            self._container.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise refused(self.path, error) from error

    def _pts(self, index: int) -> int:
        return index if self.like.times is None else round(self.like.times[index] / self._time_base)

    def _open(self, height: int, width: int) -> av.VideoStream:
        options = {"crf": str(self.crf), "preset": "fast"}
        stream = self._container.add_stream("libx264", rate=self.like.fps, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.sample_aspect_ratio = self.like.pixel_aspect
        context = stream.codec_context
        context.time_base = stream.time_base = self._time_base
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        return stream

    def _with_sound(self, source: Path) -> Path:
        """Join the silent film, untouched, with every sound track of ``source`` for as long as the film lasts."""
        with av.open(str(source)) as container:
            known = [(n, t.codec_context.codec) for n, t in enumerate(container.streams.audio) if t.codec_context]
        how = ["copy" if codec.canonical_name in COPIED_AUDIO else "aac" for _, codec in known]
        tracks = " ".join(f"-map 1:a:{n} -c:a:{k} {how[k]}" for k, (n, _) in enumerate(known))
        seconds = self._pts(self._count - 1) * self._time_base + 1 / self.like.fps
        start = float(self.like.audio_start)
        heard = f"-protocol_whitelist file -seek_timestamp 1 -ss {start:f} -t {float(seconds):f} -i"
        kept = f"-map 0:v -c:v copy {tracks} -copypriorss 0 -movflags +faststart -f mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-i", f"file:{self._silent}"]
        command += [*heard.split(), f"file:{source}", *kept.split(), f"file:{self._part}"]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if run.returncode:
            full = os.strerror(errno.ENOSPC) in run.stderr
            raise OSError(errno.ENOSPC if full else errno.EIO, run.stderr.strip().rpartition("\n")[2])
        return self._part


def write(path: Path | str, video: Video, overwrite: bool = False) -> None:
    """Encode a whole clip, sound included; see ``Writer``."""
    with Writer(path, video, overwrite) as film:
        for frame in video.frames:
            film.add(frame)
