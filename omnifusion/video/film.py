"""Films, decoded through PyAV (FFmpeg's libraries). A film's metadata may be wrong."""

import math
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from omnifusion.progress import InputError, check_canceled, count
from omnifusion.video.common import OPENING, SWSCALE, Frames, check_size, reason, too_large

NEAR = 48  # frames up to which decoding on is quicker than seeking

LEADS = (0, 5)
"""Seconds before a frame to seek to, tried in turn; then the beginning of the film."""

BACKWARD = 1
"""Seconds by which time stamps may fall back (frames out of order); further back another recording was joined."""

HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
"""Transfer functions whose light is mapped to that of BT.709."""

LIMITED = frozenset({"h261", "h263", "h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs whose light lies between 16 and 235 unless the film says otherwise."""

UNSPECIFIED = 2  # FFmpeg's code for an unspecified matrix

EXPAND = np.rint((np.arange(256) - 16) * (255 / 219)).clip(0, 255).astype(np.uint8)
"""Light between 16 and 235 to 0 to 255: FFmpeg's scaler takes pictures of light alone as they are."""


class Film:
    """An opened film; InputError if it cannot be opened, or is too large."""

    def __init__(self, path: Path, max_pixels: int, threads: str = "AUTO") -> None:
        self.path = path
        bound = {"max_pixels": str(max_pixels)}  # for the decoder, which sees the first frame in order to name its kind
        try:
            self.container = av.open(f"file:{path}", options=OPENING | bound, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read as a video ({reason(error)}); "
                "it may be damaged, cut short, or of another kind: convert it to MP4."
            ) from error
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self.container.streams.video if not s.disposition & cover]
        if not streams:
            kind = "holds sound but no pictures; give a file with a video track"
            other = "is not a video; give a film file such as MP4, or a folder of frames"
            raise InputError(f"{path} {kind if self.container.streams.audio else other}.")
        decodable = [s for s in streams if s.codec_context]
        if not decodable:
            raise InputError(f"The pictures of {path} are coded in a way that cannot be decoded; convert it to MP4.")
        self.stream, self.tracks = max(decodable, key=lambda s: s.width * s.height), len(decodable)
        if not self.stream.width:
            raise too_large(path, "holds no frame that can be read, or one of", max_pixels)
        check_size(path, self.stream.width, self.stream.height, max_pixels)
        self.stream.codec_context.options = bound  # frames may grow on the way
        self.stream.thread_type = threads
        # PyAV crashes where a stream is asked after its container is closed
        self.codec, self.time_base = self.stream.codec_context.name, Fraction(self.stream.time_base)
        rates = (self.stream.average_rate, self.stream.base_rate, self.stream.guessed_rate)
        self.rates = [Fraction(rate) for rate in rates if rate and rate > 0] or [Fraction(24)]
        aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        self.pixel_aspect = aspect if Fraction(1, 8) < aspect < 8 else Fraction(1)
        self.begin = None if self.stream.start_time is None else self.stream.start_time * self.time_base
        self.promised = self._promised()
        self.errors: list[str] = []
        self.out_of_order = self.guessed = False
        self.latest, self.ascending = -math.inf, True  # of the packets' time stamps
        self.missing = 0
        self.gaps_repeat = self.container.format.name == "avi"  # an empty place there repeats the frame before

    def decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded from here on; failures are noted in ``errors``."""
        with self.container:
            packets = self.container.demux(self.stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    self.errors.append(reason(error))
                    packet = None
                if packet is not None:
                    if not packet.size:  # it repeats a frame; a decoder would take it for the end
                        continue
                    if packet.is_corrupt:
                        self.errors.append("a damaged packet")
                    if packet.pts is not None:
                        self.ascending, self.latest = self.ascending and packet.pts > self.latest, packet.pts
                try:
                    yield from self.stream.decode(packet)
                except EOFError:  # there is nothing left
                    return
                except av.FFmpegError as error:
                    self.errors.append(reason(error))
                if packet is None:
                    return

    def scan(self, most: int | None) -> tuple[av.VideoFrame | None, list[int | None]]:
        """Decode the first ``most`` frames: the first of them, and their time stamps."""
        first, stamps = None, list[int | None]()
        for frame in islice(self.decoded(), most):
            check_canceled()
            first = first or frame
            if (frame.width, frame.height) != (first.width, first.height):
                raise InputError(f"{self.path} changes its frame size at frame {len(stamps)}; convert it first.")
            if frame.is_corrupt:
                self.errors.append("a damaged frame")
            stamps.append(_stamp(frame))
        return first, stamps

    def in_time(self, stamps: list[int | None]) -> tuple[list[int], list[int] | None]:
        """The frames' numbers in the order of time, and their time stamps in it; None if the stamps are unusable."""
        valid = [stamp for stamp in stamps if stamp is not None]
        if self.ascending:  # as in AVI: they say nothing of the frames, which the decoder puts in the order of time
            self.guessed, valid = valid != sorted(valid), sorted(valid)
        numbers: dict[int, int] = {}
        for number, stamp in enumerate(valid):
            numbers.setdefault(stamp, number)  # of two for one moment the first is shown
        order = [numbers[stamp] for stamp in sorted(numbers)]
        self.out_of_order = order != list(range(len(order)))
        fall = max((highest - stamp for highest, stamp in zip(accumulate(valid, max), valid, strict=True)), default=0)
        if len(valid) < len(stamps) or len(numbers) < 0.9 * len(stamps) or fall * self.time_base > BACKWARD:
            return list(range(len(stamps))), None
        return order, sorted(numbers)

    def timing(self, times: list[Fraction]) -> tuple[Fraction, tuple[Fraction, ...] | None]:
        """The exact frame rate; and ``times``, seconds from the first frame on, where they do not follow it."""
        for rate in self.rates:
            if all(abs(time - k / rate) <= self.time_base for k, time in enumerate(times)):
                return rate, None
        off = [abs(time * self.rates[0] - round(time * self.rates[0])) for time in times]
        missing = round(times[-1] * self.rates[0]) + 1 - len(times)
        steady = max(off) <= self.time_base * self.rates[0] and missing < len(times)
        if steady and not self.gaps_repeat:  # a decoder may lose frames silently
            self.missing = missing
        return ((len(times) - 1) / times[-1]).limit_denominator(100_000), tuple(times)

    def warnings(self, first: av.VideoFrame, end: Fraction | None) -> Iterator[str]:
        """Warnings after ``scan``; the film ends at ``end`` seconds, None = it was not read so far."""
        if self.errors or self.out_of_order or self.missing:
            lost = f" ({count(self.missing, 'frame')})" if self.missing else ""
            yield f"The film is damaged: what cannot be decoded{lost} is left out, all else is shown at its own time."
        if end is not None and end < self.promised * Fraction(99, 100) - 2 / self.rates[0]:
            yield f"The film may be cut short: it ends after {float(end):.1f} of {float(self.promised):.1f} s."
        if self.tracks > 1:
            yield f"The film has {self.tracks} tracks of pictures: the largest is read, {first.width}x{first.height}."
        if kind := HDR.get(first.color_trc):
            yield f"The film is HDR ({kind}): its light is mapped to that of other films (BT.709), in the result, too."

    def _promised(self) -> Fraction:
        """The end of the last frame by the film's header, in seconds; 0 if it has none."""
        if self.stream.duration is not None:
            return (self.stream.duration + (self.stream.start_time or 0)) * self.time_base
        tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", self.stream.metadata.get("DURATION", ""))  # Matroska
        return sum((Fraction(x) * 60**k for k, x in enumerate(tag.groups()[::-1])), Fraction(0)) if tag else Fraction(0)


class FilmFrames(Frames):
    """The frames of a film in the order of time, with attributes like those of ``Video``.

    InputError if nothing of it can be decoded, it changes its size, or is too large.
    """

    def __init__(self, path: Path, max_frames: int | None, max_pixels: int) -> None:
        self.max_pixels, self._threads = max_pixels, "AUTO"
        most = None if max_frames is None else max_frames + 1  # one more tells where they end
        film = Film(path, max_pixels)
        first, stamps = film.scan(most)
        if film.errors:  # with threads, what is lost beside a damage is not always the same
            self._threads = "NONE"
            film = Film(path, max_pixels, self._threads)
            first, stamps = film.scan(most)
        if first is None:
            why = f" ({film.errors[0]})" if film.errors else ""
            raise InputError(f"{path} holds no frame that can be decoded{why}; repair it, or choose another.")
        order, ordered = film.in_time(stamps)
        begin = film.begin or Fraction(0)
        times = [begin + k / film.rates[0] for k in order] if ordered is None else [x * film.time_base for x in ordered]
        whole = max_frames is None or len(order) <= max_frames
        self.stop = None if whole else times[len(order[:max_frames])]
        self._order, times = order[:max_frames], times[:max_frames]
        self._stamps = [] if ordered is None or film.errors or film.guessed else ordered[:max_frames]
        self._codec = film.codec
        if film.errors and film.begin is not None:  # the first frame is shown also for what is lost before it
            times[0] = min(times[0], film.begin)
        self.start = times[0]
        self.fps, self.times = film.timing([time - self.start for time in times])
        self.pixel_aspect = 1 / film.pixel_aspect if _turns(first)[0] else film.pixel_aspect
        self.warnings = tuple(film.warnings(first, times[-1] + 1 / self.fps if whole else None))
        self._begin()
        super().__init__(path, (len(self._order), *self._rgb(first).shape))

    def _begin(self) -> None:
        """Forget what was decoded."""
        lowest = np.minimum.accumulate(self._order[::-1])[::-1]  # of the numbers that are still to come
        self._recent: deque[tuple[int, av.VideoFrame]] = deque(maxlen=min(32, int((self._order - lowest).max())))
        self._coming: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._next, self._reformatter = 0, VideoReformatter()

    def __getstate__(self) -> dict[str, Any]:
        passing = {"_recent", "_coming", "_next", "_reformatter"}
        return {name: value for name, value in super().__getstate__().items() if name not in passing}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()

    def _frame(self, i: int) -> np.ndarray | None:
        number = self._order[i]
        frame = next((frame for k, frame in self._recent if k == number), None)
        if frame is None and 0 <= number - self._next < (NEAR if self._stamps else len(self)):
            frame = self._advance(number)
        leads = LEADS if self._stamps and number >= NEAR else ()
        for lead in [*leads, None]:
            if frame is None:
                self._coming, self._next = self._enter(i, lead), 0
                frame = self._advance(number)
        return None if frame is None else self._rgb(frame)

    def _advance(self, number: int) -> av.VideoFrame | None:
        """Decode up to the frame ``number`` in the order of decoding; None if it does not come."""
        for k, frame in self._coming:
            self._next = k + 1
            self._recent.append((k, frame))
            if k >= number:
                return frame if k == number else None
        return None

    def _enter(self, i: int, lead: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames with their numbers, from ``lead`` seconds before frame ``i`` on; None = from the beginning."""
        film = Film(self.path, self.max_pixels, self._threads)
        if lead is None:
            yield from enumerate(film.decoded())
            return
        with suppress(av.FFmpegError):
            film.container.seek(self._stamps[i] - round(lead / film.time_base), stream=film.stream)
            for frame in film.decoded():
                stamp = _stamp(frame)
                place = len(self) if stamp is None else bisect_left(self._stamps, stamp)
                if place < len(self) and self._stamps[place] == stamp:
                    yield self._order[place], frame

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame, upright, as ``(3, H, W)`` uint8 sRGB."""
        matrix = None  # its own
        if frame.colorspace == UNSPECIFIED:  # what players assume, by size
            matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
        light = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
        has_alpha = any(component.is_alpha for component in frame.format.components)
        try:
            rgb = self._reformatter.reformat(
                frame,
                format="rgba" if has_alpha else "rgb24",
                src_colorspace=matrix,
                dst_color_range=ColorRange.JPEG,
                interpolation=SWSCALE,
                **(light if frame.color_trc in HDR else {}),
            ).to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise InputError(f"{self.path} has pixels of a kind that cannot be read; convert it to MP4.") from error
        levels = frame.color_range
        if levels == ColorRange.UNSPECIFIED and self._codec in LIMITED:
            levels = ColorRange.MPEG
        if frame.format.name.startswith(("gray", "ya")) and levels == ColorRange.MPEG:
            rgb[..., :3] = EXPAND[rgb[..., :3]]
        if has_alpha:
            rgb = (rgb[..., :3].astype(np.uint16) * rgb[..., 3:] + 127) // 255
        transposed, mirrored_x, mirrored_y = _turns(frame)
        rgb = rgb.transpose(1, 0, 2) if transposed else rgb
        rgb = rgb[:: -1 if mirrored_y else 1, :: -1 if mirrored_x else 1]
        return np.ascontiguousarray(rgb.transpose(2, 0, 1), np.uint8)


def count_packets(path: Path, most: int, max_pixels: int) -> int:
    """The packets of a film with a frame to be shown, at most ``most``."""
    film = Film(path, max_pixels)
    packets = 0
    with film.container, suppress(av.FFmpegError):
        for _ in islice((p for p in film.container.demux(film.stream) if p.size and not p.is_discard), most):
            packets += 1
    return packets


def _stamp(frame: av.VideoFrame) -> int | None:
    return frame.dts if frame.pts is None else frame.pts


def _turns(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether a frame is to be transposed, and then to be mirrored in x, and in y, to be seen upright."""
    data = frame.side_data.get(SideData.DISPLAYMATRIX)
    if data is None:
        return False, False, False
    (a, b), (c, d) = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].tolist()
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)
