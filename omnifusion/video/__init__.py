"""Pictures and clips in and out; nothing else in the package touches a codec.

Films are decoded and encoded through PyAV (FFmpeg's libraries), the sound is added by the ffmpeg of imageio-ffmpeg,
pictures go through Pillow. Sizes are read before pixels are decoded, and a frame is decoded when it is asked for: a
clip may be larger than the memory.
"""

from omnifusion.video.images import GRAY_SPREAD, IMAGES, is_gray, read_image, write_image
from omnifusion.video.reader import count_frames, read
from omnifusion.video.writer import CHROMA, FORMATS, Writer, write

__all__ = ["CHROMA", "FORMATS", "GRAY_SPREAD", "IMAGES", "Writer", "count_frames", "is_gray", "read"]
__all__ += ["read_image", "write", "write_image"]
