"""What reading and writing share."""

from __future__ import annotations

import errno
from pathlib import Path

from av.video.reformatter import Interpolation

from omnifusion.progress import InputError

SWSCALE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Interpolates chroma and rounds it: 7 dB better in color, there and back, than the default."""

MAX_PIXELS = 2**25
"""Largest frame and picture that is decoded: a little more than 8K (7680 x 4320)."""

DEMUXERS = (
    "amv,asf,av1,avi,cavsvideo,cine,dirac,dnxhd,dv,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,kux,live_flv,"
    "lxf,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,mxf,nsv,nut,nuv,obu,ogg,r3d,rm,roq,smjpeg,smk,swf,ty,"
    "vc1,vc1test,vvc,wtv,yuv4mpegpipe,"
    "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,w64,wav,wv"
)
"""FFmpeg's readers of films, then of sound (to be told from films), that open no other file.

FFmpeg asks the list once it has guessed a file's kind and before it reads more: playlists, lists of files, numbered
pictures, session descriptions and scripts, which may name any file or themselves, get no further.
"""

OPENING = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
"""Options with which FFmpeg opens a file of a person's, here and in the ffmpeg program."""


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Refuse, before a pixel is decoded, what would take the memory of the machine.

    Raises:
        InputError: more than ``max_pixels``.
    """
    if width * height > max_pixels:
        raise too_large(path, f"is {width}x{height},", max_pixels)


def too_large(path: Path, what: str, max_pixels: int) -> InputError:
    """What to tell the user of a picture or film of too many pixels."""
    return InputError(f"{path} {what} more than {max_pixels / 1e6:.1f} million pixels; make it smaller.")


def reason(error: Exception) -> str:
    """The system's words for an error."""
    return str(getattr(error, "strerror", None) or error)


def refused(path: Path, error: Exception) -> InputError:
    """What to tell the user where the disk refuses a file."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return InputError(f"The disk that is to hold {path} is full; make room and run again.")
    return InputError(f"Cannot write {path} ({reason(error)}); check the folder and run again.")
