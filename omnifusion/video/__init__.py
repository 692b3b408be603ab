"""Pictures and clips in and out; nothing else in the package touches a codec.

Films are decoded and encoded through PyAV (FFmpeg's libraries), the sound is added by the ffmpeg of imageio-ffmpeg,
pictures go through Pillow. Sizes are read before pixels are decoded. ``stream`` decodes a frame when it is asked for;
``read`` decodes all into a temporary file that is mapped into memory. A clip may be longer than the memory is large.
"""

from omnifusion.video.pictures import (
    GRAY_SPREAD,
    PICTURES,
    chroma_picture,
    color_spread,
    is_gray,
    read_image,
    write_chroma,
    write_image,
)
from omnifusion.video.reader import count_frames, natural_sort, read
from omnifusion.video.stream import stream
from omnifusion.video.writer import CHROMA, FORMATS, Writer, write

__all__ = [
    "CHROMA",
    "FORMATS",
    "GRAY_SPREAD",
    "PICTURES",
    "Writer",
    "chroma_picture",
    "color_spread",
    "count_frames",
    "is_gray",
    "natural_sort",
    "read",
    "read_image",
    "stream",
    "write",
    "write_chroma",
    "write_image",
]
