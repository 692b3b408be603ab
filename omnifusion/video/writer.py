"""``Video`` to films."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
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
        like: a clip whose frame rate or times, pixel shape and sound the film takes.
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
            raise InputError(f"Cannot write {self.path} ({reason(error)}); name another folder.") from error

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
            raise refused(self.path, problem) from problem
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
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=SWSCALE
        )
        picture.pts, picture.time_base = self._pts(self._count), self._time_base
        self._count += 1
        try:
            self._container.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise refused(self.path, error) from error

    @property
    def _time_base(self) -> Fraction:
        return 1 / self.like.fps if self.like.times is None else Fraction(1, 90_000)

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
