"""Clips and pictures of every kind, in and out."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import synthetic
import tifffile
from PIL import Image

from omnifusion import video
from omnifusion.progress import InputError
from omnifusion.state import Video
from omnifusion.video.common import SWSCALE

PATTERN = "testsrc2=size=64x48:rate=25:duration=2"


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def made(path: Path, *arguments: str, source: str = PATTERN, sound: bool = False) -> Path:
    noise = ["-f", "lavfi", "-i", "anoisesrc=duration=2:seed=1:sample_rate=44100"] if sound else []
    ffmpeg("-f", "lavfi", "-i", source, *noise, *arguments, path)
    return path


@pytest.fixture(scope="module")
def clip() -> Video:
    return synthetic.make("demo", frames=4, size=(96, 128)).video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("film") / "film.mp4", "-pix_fmt", "yuv420p", "-c:a", "aac", sound=True)


# --- there and back ---------------------------------------------------------------------------------------------------


def test_a_written_film_reads_back(tmp_path: Path, clip: Video) -> None:
    video.write(tmp_path / "a.mp4", Video(clip.frames, Fraction(30000, 1001)))
    back = video.read(tmp_path / "a.mp4")
    assert back.frames.shape == clip.frames.shape and back.fps == Fraction(30000, 1001) and back.times is None
    error = np.asarray(back.frames, float) - clip.frames
    assert np.abs(error).mean() < 5 and np.abs(error.mean((0, 2, 3))).max() < 0.5  # no tint
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


def test_browsers_play_it(tmp_path: Path, clip: Video) -> None:
    video.write(tmp_path / "a.mp4", clip)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("size", "written"), [((95, 127), (96, 128)), ((64, 36), (64, 36)), ((1, 1), (2, 2))])
def test_odd_sizes_grow_by_a_repeated_edge(tmp_path: Path, size: tuple[int, int], written: tuple[int, int]) -> None:
    frames = np.full((2, 3, *size), 90, np.uint8)
    frames[:, :, -1, -1] = 200
    video.write(tmp_path / "a.mp4", Video(frames))
    assert video.read(tmp_path / "a.mp4").size == written


def test_nothing_is_overwritten_or_left_half_done(tmp_path: Path, clip: Video) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        video.Writer(path, clip)
    wide = np.zeros((3, 96, 512), np.uint8)
    with pytest.raises(ValueError), video.Writer(path, clip, overwrite=True) as film:  # noqa: PT012
        film.add(clip.frames[0])
        film.add(wide)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
    video.write(path, clip, overwrite=True)
    assert len(video.read(path)) == len(clip)


def test_a_folder_that_is_not_there(tmp_path: Path, clip: Video) -> None:
    with pytest.raises(InputError, match="Cannot write"):
        video.Writer(tmp_path / "none" / "a.mp4", clip)


# --- time and sound ---------------------------------------------------------------------------------------------------


def test_exact_frame_rates(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv", "avi", "webm"):
        path = made(tmp_path / f"a.{ending}", source=PATTERN.replace("rate=25", "rate=30000/1001"))
        read = video.read(path)
        assert (read.fps, read.times, len(read)) == (Fraction(30000, 1001), None, 60)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_frame_rate_keeps_its_times(tmp_path: Path, ending: str) -> None:
    uneven = made(tmp_path / f"a.{ending}", "-vf", "select='not(eq(mod(n,3),1))'", "-fps_mode", "vfr")
    clip = video.read(uneven)
    assert clip.times is not None and [round(t * 25) for t in clip.times[:5]] == [0, 2, 3, 5, 6]
    video.write(tmp_path / "b.mp4", clip)
    again = video.read(tmp_path / "b.mp4").times
    assert again is not None and max(abs(a - b) for a, b in zip(again, clip.times, strict=True)) < Fraction(1, 10_000)


def loudness(path: Path) -> tuple[float, float]:
    """Seconds of sound, and its root mean square."""
    with av.open(str(path)) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].codec_context.sample_rate
    wave = np.concatenate(parts, axis=1)[0]
    return len(wave) / rate, float(np.sqrt((wave.astype(float) ** 2).mean()))


@pytest.mark.parametrize(
    ("name", "codec", "result"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.mkv", "libopus", "opus"),
        ("a.mkv", "libvorbis", "aac"),
        ("a.mov", "pcm_s16le", "aac"),
        ("a.avi", "libmp3lame", "mp3"),
    ],
)
def test_sound_comes_along(tmp_path: Path, name: str, codec: str, result: str) -> None:
    source = made(tmp_path / name, "-c:a", codec, sound=True)
    video.write(tmp_path / "b.mp4", video.read(source))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == result
    seconds, level = loudness(tmp_path / "b.mp4")
    assert 1.9 < seconds < 2.1 and level > 0.05


def test_a_part_of_a_film_takes_its_part_of_the_sound(tmp_path: Path, film: Path) -> None:
    part, whole = video.read(film, max_frames=20), video.read(film)
    assert (part.stop, whole.stop) == (Fraction(4, 5), None) and np.array_equal(part.frames, whole.frames[:20])
    video.write(tmp_path / "b.mp4", part)
    assert 0.75 < loudness(tmp_path / "b.mp4")[0] < 0.87


def test_every_track_comes_along_and_in_time(tmp_path: Path) -> None:
    """A beep from 1.0 to 1.2 s beside noise, in a film that begins at 0.4 s of its own clock."""
    beep = "aevalsrc=if(between(t\\,1\\,1.2)\\,sin(2000*t)\\,0):s=44100:d=2"
    tracks = ["-f", "lavfi", "-i", beep, "-map", "0", "-map", "1", "-map", "2", "-c:a:0", "aac", "-c:a:1", "pcm_s16le"]
    made(tmp_path / "a.mkv", *tracks, "-output_ts_offset", "0.4", sound=True)
    video.write(tmp_path / "b.mp4", video.read(tmp_path / "a.mkv"))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert [track.codec_context.name for track in container.streams.audio] == ["aac", "aac"]
        frames = list(container.decode(audio=1))
    loud = [float(frame.pts * frame.time_base) for frame in frames if np.abs(frame.to_ndarray()).max() > 0.1]
    assert loud[0] == pytest.approx(1.0, abs=0.05) and loud[-1] == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize(("name", "codec"), [("h265", "hevc"), ("prores", "prores"), ("ffv1", "ffv1")])
def test_other_formats_keep_time_sound_and_color(tmp_path: Path, name: str, codec: str) -> None:
    source = made(
        tmp_path / "a.mov", "-c:a", "pcm_s16le", source=PATTERN.replace("rate=25", "rate=30000/1001"), sound=True
    )
    clip, path = video.read(source), tmp_path / f"b{video.FORMATS[name].ending}"
    with video.Writer(path, clip, format=name) as film:
        for frame in clip.frames:
            film.add(frame)
    back = video.read(path)
    assert (back.fps, back.times, len(back), back.size) == (clip.fps, None, len(clip), clip.size)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == codec
        assert container.streams.audio[0].codec_context.name == ("aac" if name == "h265" else "pcm_s16le")
    error = np.abs(np.asarray(back.frames, int) - clip.frames)
    assert error.mean() < 8 and (name != "ffv1" or not error.any())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
@pytest.mark.parametrize("name", ["h264", "prores", "ffv1"])
def test_color_bars_come_back_unshifted(tmp_path: Path, matrix: str, levels: str, name: str) -> None:
    """The bars' mean colors, from a film of either matrix and range through ours and back."""
    scale = f"scale=in_color_matrix=bt709:in_range=tv:out_color_matrix={matrix}:out_range={levels},format=yuv420p"
    tags = ["-colorspace", matrix, "-color_range", levels, "-crf", "1"]
    bars = "smptehdbars=size=224x128:rate=25:duration=0.2"
    source = made(tmp_path / "a.mp4", "-vf", scale, *tags, source=bars)
    clip, path = video.read(source), tmp_path / f"b{video.FORMATS[name].ending}"
    with video.Writer(path, clip, format=name) as film:
        for frame in clip.frames:
            film.add(frame)
    for stage in (clip, video.read(path)):
        columns = stage.frames[2][:, 10:60, 28:196].reshape(3, 50, 7, 24)[..., 6:18].mean((1, 3))
        wanted = 191 * np.array([[1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0, 1]])
        assert np.abs(columns - wanted).max() < 3.5, columns.round(1)


# --- kinds of film ----------------------------------------------------------------------------------------------------


def test_rotation_is_applied(tmp_path: Path, film: Path) -> None:
    upright = video.read(film, max_frames=1).frames[0]
    for degrees, turns in ((90, 1), (180, 2), (270, 3)):
        ffmpeg("-display_rotation", str(degrees), "-i", film, "-c", "copy", tmp_path / "r.mp4")
        assert np.array_equal(video.read(tmp_path / "r.mp4", 1).frames[0], np.rot90(upright, turns, (1, 2)))


def test_squeezed_pixels_stay_squeezed(tmp_path: Path) -> None:
    clip = video.read(made(tmp_path / "a.mp4", "-vf", "setsar=16/11"))
    assert clip.pixel_aspect == Fraction(16, 11)
    video.write(tmp_path / "b.mp4", clip)
    assert video.read(tmp_path / "b.mp4").pixel_aspect == Fraction(16, 11)


def test_ten_bits(tmp_path: Path, film: Path) -> None:
    path = made(tmp_path / "a.mp4", "-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p10le")
    error = video.read(path, 1).frames[0].astype(float) - video.read(film, 1).frames[0]
    assert np.abs(error).mean() < 8


def test_alpha_lies_over_black(tmp_path: Path) -> None:
    half = "color=c=white:size=64x48:rate=25:duration=1,format=rgba,colorchannelmixer=aa=0.5"
    frames = video.read(made(tmp_path / "a.mov", "-c:v", "qtrle", source=half)).frames
    assert np.abs(np.asarray(frames, int) - 127).max() <= 2


def test_one_frame_and_raw_streams(tmp_path: Path) -> None:
    assert len(video.read(made(tmp_path / "a.mp4", "-frames:v", "1"))) == 1
    raw = video.read(made(tmp_path / "a.h264", "-c:v", "libx264"))
    assert (len(raw), raw.fps, raw.times) == (50, 25, None)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.gif", "a.h264", "a.m2v"])
def test_frames_are_counted_without_decoding_them(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / name, *(["-bf", "2"] if name in ("a.mp4", "a.h264") else []))
    assert len(video.read(path)) == 50
    monkeypatch.setattr("omnifusion.video.film.Film.decoded", None)
    assert (video.count_frames(path, 1000), video.count_frames(path, 7)) == (50, 7)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", "-bf 3 -g 20 -x264-params open-gop=1"),
        ("b.mp4", "-g 50 -x264-params intra-refresh=1"),
        ("c.h264", "-c:v libx264"),
        ("d.ts", "-c:v mpeg2video -bf 2"),
        ("e.mp4", "-vf select=mod(n\\,3) -fps_mode vfr"),
        ("f.mkv", "-output_ts_offset 0.4"),
    ],
)
def test_frames_are_found_in_any_order(tmp_path: Path, name: str, how: str) -> None:
    path = made(tmp_path / name, *how.split(), source=PATTERN.replace("duration=2", "duration=5"))
    clip, whole = video.read(path), list(video.read(path).frames)
    with av.open(str(path)) as container:
        options = {"format": "rgb24", "src_colorspace": "ITU601", "dst_color_range": "JPEG", "interpolation": SWSCALE}
        seen = [frame.reformat(**options).to_ndarray() for frame in container.decode(video=0)]
    assert np.array_equal(whole, np.stack(seen).transpose(0, 3, 1, 2))
    for i in [*range(0, 60), 80, 3, 3, 70, 59, len(whole) - 1]:
        assert np.array_equal(clip.frames[i], whole[i])
    sent = pickle.loads(pickle.dumps(clip))
    assert np.array_equal(sent.frames[-5:], clip.frames[-5:]) and len(video.read(path, 7)) == 7


# --- folders and pictures ---------------------------------------------------------------------------------------------


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        video.write_image(tmp_path / f"f{number}.png", np.full((3, 5, 7), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not a frame")
    assert video.read(tmp_path).frames[:][:, 0, 0, 0].tolist() == [1, 9, 10]
    assert video.read(tmp_path, max_frames=2).frames[[1, 0]][:, 0, 0, 0].tolist() == [9, 1]
    video.write_image(tmp_path / "f11.png", np.zeros((3, 5, 8), np.uint8))
    with pytest.raises(InputError, match="differ in size"):
        video.read(tmp_path)


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 33, 17)).astype(np.uint8)
    video.write_image(tmp_path / "a.png", picture)
    assert np.array_equal(video.read(tmp_path / "a.png").frames, picture[None])


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(video.read_image(tmp_path / "deep.png")[0], np.round(deep / 257))

    clear = np.full((4, 6, 4), 255, np.uint8)
    clear[..., 3] = 0
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert not video.read_image(tmp_path / "clear.png").any()

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert video.read_image(tmp_path / "turned.jpg").shape == (3, 6, 4)

    planes = {"data": deep[None].repeat(3, 0), "photometric": "rgb", "planarconfig": "separate"}
    for scan in (planes, {"data": 65535 - deep, "photometric": "miniswhite"}):
        tifffile.imwrite(tmp_path / "scan.tif", **scan)
        assert np.abs(video.read_image(tmp_path / "scan.tif")[0] - deep / 257).max() < 1

    for mode in ("L", "P", "CMYK", "1"):
        Image.new(mode, (6, 4)).save(tmp_path / "a.tif")
        assert video.read_image(tmp_path / "a.tif").shape == (3, 4, 6)


# --- bad input: one sentence each -------------------------------------------------------------------------------------


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        video.read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")


def test_bad_films(tmp_path: Path, film: Path) -> None:
    refused(tmp_path / "none.mp4", "no file or folder")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "cannot be read as a video")
    for name in ("text.mp4", "text.txt"):
        (tmp_path / name).write_text("not a film\n" * 100)
        refused(tmp_path / name, "video")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:2,\nfilm.mp4\n#EXT-X-ENDLIST\n")
    refused(tmp_path / "list.m3u8", "video")
    refused(made(tmp_path / "sound.m4a", "-map", "1:a", sound=True), "sound but no pictures")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "holds no frames")
    (tmp_path / "a.png").write_text("not a picture")
    refused(tmp_path / "a.png", "cannot be read as a picture")
    with pytest.raises(InputError, match="at least one"):
        video.read(film, max_frames=0)


@pytest.mark.slow
def test_what_is_too_large_is_refused_undecoded(tmp_path: Path, film: Path) -> None:
    """In a process of its own, whose peak memory tells; the pictures have few bytes."""
    for side in (6000, 13_000):
        Image.new("1", (side, side)).save(tmp_path / f"{side}.png")
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)  # beyond what Pillow itself opens
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "30000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\x09IDAT" + bytes(9))
    for name in ("a.jpg", "a.gif"):
        Image.new("L", (6000, 6000)).save(tmp_path / name)
    huge = "color=black:size=6000x6000"
    made(tmp_path / "a.mov", "-frames:v", "1", "-c:v", "png", source=huge)
    made(tmp_path / "a.ts", "-frames:v", "1", "-c:v", "libx264", "-preset", "ultrafast", source=huge)
    script = """
import resource, sys
from omnifusion import video
from omnifusion.progress import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        video.read(path)
    except InputError as error:
        print(error)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 64 * 1024
"""
    paths = [*sorted(tmp_path.glob("*.*")), tmp_path]
    run = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True)
    told = run.stdout.splitlines()
    assert len(told) == len(paths) and all("more than 33.6 million pixels; make it smaller." in line for line in told)
    assert f"{tmp_path / '13000.png'} is 13000x13000, more than" in run.stdout
    with pytest.raises(InputError, match=r"film.mp4 is 64x48, more than 0.0 million"):
        video.read(film, max_pixels=3000)


@pytest.mark.parametrize(("name", "flags"), [("a.mp4", ""), ("b.mp4", "+faststart"), ("c.mkv", ""), ("d.webm", "")])
def test_films_that_are_cut_short(tmp_path: Path, name: str, flags: str) -> None:
    source = PATTERN.replace("64x48", "160x120")
    path = made(tmp_path / name, *(["-movflags", flags] if flags else []), source=source)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    if name == "a.mp4":  # its index is lost
        refused(path, "cut short")
        return
    clip = video.read(path)
    assert 10 < len(clip) == len(list(clip.frames)) < 50, "what is there can be had"
    assert any("damaged" in warning or "cut short" in warning for warning in clip.warnings)
    assert not video.read(path, max_frames=10).warnings


# --- gray or not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", synthetic.SCENES)
def test_color_is_no_gray(name: str) -> None:
    assert not video.is_gray(synthetic.make(name, frames=1, size=(108, 192)).video)


def test_color_bars_are_no_toned_film() -> None:
    bars = np.array([[255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    assert not video.is_gray(Video(np.broadcast_to(bars.T.repeat(20, 1)[:, None], (2, 3, 90, 120))))


@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.87, 0.68), (0.75, 0.9, 1)], ids=["gray", "sepia", "blue"])
def test_toned_and_noisy_film_is_gray(tint: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    tone = synthetic.make("demo", frames=2, size=(108, 192)).video.frames.mean(axis=1, keepdims=True) / 255
    toned = 255 * tone ** np.reshape((0.8, 1, 1.25), (1, 3, 1, 1)) * np.reshape(tint, (1, 3, 1, 1))
    frames = np.clip(toned + rng.normal(0, 5, toned.shape), 0, 255).astype(np.uint8)
    assert video.is_gray(Video(frames))


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_real_clips_are_told_apart() -> None:
    clips = Path(os.environ["OMNIFUSION_CLIPS"])
    assert all(video.is_gray(video.read(path)) for path in (clips / "film").glob("*.mp4"))
    assert not any(video.is_gray(video.read(path)) for path in (clips / "davis").iterdir())
    assert not any(video.is_gray(video.read(path, 24)) for path in (clips / "mp4").iterdir())


def test_a_picture_keeps_its_alpha_where_that_is_asked_for(tmp_path: Path) -> None:
    painted = np.random.default_rng(0).integers(0, 255, (4, 6, 8), dtype=np.uint8)
    video.write_image(tmp_path / "painted.png", painted)
    assert np.array_equal(video.read_image(tmp_path / "painted.png", alpha=True), painted)
    painted[3] = 255
    video.write_image(tmp_path / "whole.png", painted)
    assert np.array_equal(video.read_image(tmp_path / "whole.png", alpha=True), painted[:3])


# --- what is said of a film may be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"reel1:take2", b"-y", b'it\'s "one"', b"caf\xe9", b"%03d [x]", "映画".encode()])
@pytest.mark.skipif(sys.platform == "win32", reason="names of bytes")
def test_any_name_that_the_system_allows(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    path, picture = Path(os.fsdecode(name + b".mp4")), Path(os.fsdecode(name + b".png"))
    shutil.copy(film, path)
    clip = video.read(path)
    video.write_image(picture, clip.frames[0])
    assert np.array_equal(video.read_image(picture), clip.frames[0])
    with video.Writer(Path(os.fsdecode(name + b"2.mp4")), clip) as writer:
        writer.add(clip.frames[0])
    assert not writer.warnings and video.read(writer.path).frames.shape[1:] == clip.frames.shape[1:]
    folder = Path(os.fsdecode(name))
    folder.mkdir()
    picture.rename(folder / picture)
    assert len(video.read(folder)) == 1


def test_tags_that_are_not_text_and_lengths_that_are_not_true(tmp_path: Path) -> None:
    title = made(tmp_path / "a.avi", "-c:v", "mpeg4", "-metadata", "title=QQQQQQQQ", "-metadata", "artist=WWWWWWWW")
    title.write_bytes(
        title.read_bytes().replace(b"QQQQQQQQ", b"Caf\xe9\xff\xfe\x01.").replace(b"WWWWWWWW", b"\x80" * 8)
    )
    clip = video.read(title)
    assert len(clip) == 50 and not clip.warnings
    video.write(tmp_path / "b.mp4", clip)
    stale = made(tmp_path / "a.mkv", "-c:a", "libvorbis", sound=True)
    for duration in (b"99:00:00.000000000", b"no number at all!!", b"1:2:3:4:5.........", b"\xff" * 18):
        data = stale.read_bytes()
        at = data.index(b"DURATION") + 8
        at = data.index(b"00:00:0" if b"00:00:0" in data[at:] else duration[:4], at) if b"00:00:0" in data[at:] else -1
        if at >= 0:
            stale.write_bytes(data[:at] + duration + data[at + 18 :])
        assert len(video.read(stale)) == 50


def test_random_bytes_cost_a_sentence_at_most(tmp_path: Path, film: Path) -> None:
    """In a process of its own, for a crash would take this one along: heads, tags and bodies with random bytes."""
    for ending in ("mkv", "avi", "ts", "webm", "mov"):
        made(tmp_path / f"a.{ending}", "-t", "0.4", "-metadata", "title=A title", "-metadata", "comment=A comment")
    shutil.copy(film, tmp_path / "a.mp4")
    pages = [Image.fromarray(np.full((9, 12, 3), 30 * k, np.uint8)) for k in range(3)]
    for ending in ("png", "webp", "tif", "gif"):
        pages[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=pages[1:], duration=40)
    pages[0].save(tmp_path / "a.jpg")
    script = """
import sys
from pathlib import Path
import numpy as np
from omnifusion import video
from omnifusion.progress import InputError
rng, told = np.random.default_rng(0), []
for path in sorted(Path(sys.argv[1]).glob("a.*")):
    good = np.frombuffer(path.read_bytes(), np.uint8)
    for round in range(12):
        bad = good.copy()
        reach = (200, 2000, len(bad))[round % 3]
        for at in rng.integers(0, min(reach, len(bad)), rng.integers(1, 40)):
            bad[at] = rng.integers(0, 256)
        bad = bad[: rng.integers(1, len(bad)) if round % 4 == 3 else None]
        file = path.with_name(f"bad{path.suffix}")
        file.write_bytes(bad.tobytes())
        try:
            clip = video.read(file, 20, max_pixels=10**6)
            with video.Writer(file.with_name("out.mp4"), clip, overwrite=True) as film:
                for frame in clip.frames:
                    film.add(frame)
        except InputError as error:
            told.append(str(error))
print(len(told), all(text.endswith(".") and "\\n" not in text for text in told))
"""
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    count, right = run.stdout.split() if not run.returncode else (0, run.stderr[-900:])
    assert right == "True" and 20 < int(count) < 130, right


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rec.mp4", "ffconcat version 1.0\nfile rec.mp4\n"),
        ("a.ffconcat", "ffconcat version 1.0\nfile film.mp4\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfilm.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ("%03d.mp4", "not a numbered picture"),
    ],
)
def test_what_names_other_files_is_not_opened(tmp_path: Path, film: Path, name: str, text: str) -> None:
    shutil.copy(film, tmp_path / "film.mp4")
    (tmp_path / name).write_text(text)
    gc.collect()  # what other tests have left open
    before = len(os.listdir("/proc/self/fd"))
    refused(tmp_path / name, "cannot be read as a video")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "neither a file nor a folder")
    for name in ("a\0b.mp4", "x" * 5000):
        with pytest.raises(InputError):
            video.read(name)


# --- light ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", ["-display_hflip", "-display_vflip", "-display_rotation 90 -display_hflip"])
def test_mirrored_films_are_seen_as_players_show_them(tmp_path: Path, film: Path, turn: str) -> None:
    ffmpeg(*turn.split(), "-i", film, "-c", "copy", tmp_path / "t.mp4")
    ffmpeg("-i", tmp_path / "t.mp4", "-frames:v", "1", tmp_path / "shown.png")
    shown = video.read_image(tmp_path / "shown.png").astype(int)
    clip = video.read(tmp_path / "t.mp4", 1)
    assert clip.frames[0].shape == shown.shape and np.abs(clip.frames[0] - shown).mean() < 12


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
def test_light_alone_has_its_range(tmp_path: Path, pixels: str, levels: str) -> None:
    ramp = "color=black:size=256x32:rate=25:duration=0.1,format=gray,geq=lum='X'"
    kept = f"scale=out_range={levels},format={pixels},extractplanes=y,setparams=range={levels}"
    path = made(tmp_path / "a.mkv", "-vf", kept, "-c:v", "ffv1", source=ramp)
    assert np.abs(video.read(path).frames[0][1, 0].astype(int) - np.arange(256)).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("transfer", "kind", "white"), [("smpte2084", "PQ", 0.58), ("arib-std-b67", "HLG", 0.75)])
def test_hdr_is_mapped_and_said(tmp_path: Path, transfer: str, kind: str, white: float) -> None:
    """White of 203 nits, by ITU-R BT.2408, in a picture."""
    plain = f"color=gray:size=64x64:rate=25:duration=0.1,format=yuv420p10le,geq=lum='64+876*{white}':cb=512:cr=512"
    params = f"log-level=error:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited"
    path = made(tmp_path / "a.mp4", "-c:v", "libx265", "-crf", "4", "-x265-params", params, source=plain)
    clip = video.read(path)
    assert np.abs(clip.frames[0].astype(int) - 250).max() < 12 and f"HDR ({kind})" in clip.warnings[0]


def test_floats_are_read_right_or_not_at_all(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert np.array_equal(video.read_image(tmp_path / "a.tif")[0].ravel(), np.arange(256))
    Image.fromarray(ramp * 4000).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="beyond 1"):
        video.read_image(tmp_path / "a.tif")


def test_exemplars_beyond_the_limit_are_made_smaller(tmp_path: Path) -> None:
    picture = np.zeros((40, 60, 4), np.uint8)
    picture[:, :30], picture[:, 30:] = (200, 40, 40, 255), (40, 200, 40, 90)
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = video.read_image(tmp_path / "a.png", max_pixels=1000, alpha=True)
    assert found.shape[0] == 4 and 900 < found[0].size <= 1000 and (found[0, :, 2] > 180).all()
    for limit, alpha in ((1000, False), (700, True)):
        with pytest.raises(InputError, match="make it smaller"):
            video.read_image(tmp_path / "a.png", limit, alpha)
    Image.fromarray(picture[..., :3]).save(tmp_path / "a.jpg")
    assert video.read_image(tmp_path / "a.jpg", max_pixels=100, alpha=True)[0].size <= 100


# --- many pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png", "a.avif"])
def test_a_file_of_several_pictures_is_a_clip(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(np.full((8, 12, 3), 40 * k, np.uint8)) for k in range(5)]
    options = {"a.webp": {"lossless": True}, "a.avif": {"quality": 100}}.get(name, {})
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], duration=[40, 40, 120, 40, 40], **options)
    clip = video.read(tmp_path / name)
    assert [int(clip.frames[k][0, 0, 0]) for k in (4, 0, 1, 3, 2)] == [160, 0, 40, 120, 80]
    assert len(pickle.loads(pickle.dumps(clip)).frames) == 5 and len(video.read(tmp_path / name, 3)) == 3
    if not name.endswith("tif"):
        assert clip.times is not None and [float(t) for t in clip.times] == pytest.approx([0, 0.04, 0.08, 0.2, 0.24])


def test_previews_are_no_frames(tmp_path: Path) -> None:
    pages = [Image.new("L", size, 90) for size in ((12, 8), (6, 4), (12, 8))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert len(video.read(tmp_path / "a.tif")) == 2
    pages[0].save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=pages[1:])
    assert len(video.read(tmp_path / "b.jpg")) == 1


def test_a_folder_says_what_it_holds_and_what_is_missing(tmp_path: Path) -> None:
    for number in (86400, 86401, 86402, 86405):
        video.write_image(tmp_path / f"shot_{number:08d}.png", np.full((3, 4, 4), number - 86400, np.uint8))
        Image.new("L", (4, 4)).save(tmp_path / f"shot_{number:08d}.jpg")
    clip = video.read(tmp_path)
    assert clip.frames[:][:, 0, 0, 0].tolist() == [0, 1, 2, 5], "each frame once"
    assert ".png is read" in clip.warnings[0] and "missing" in clip.warnings[1] and "86402" in clip.warnings[1]
    scans = tmp_path / "scans"
    scans.mkdir()
    for k in range(3):
        (scans / f"{k}.dpx").write_bytes(b"SDPX")
    refused(scans, r"3 \.dpx")
    for name in ("0.png", "1.png", "1_color.png"):
        Image.new("L", (4, 4)).save(scans / name)
    assert "1_color.png" in video.read(scans).warnings[0], "an exemplar beside the frames"


# --- damage, and all that is not frames -------------------------------------------------------------------------------


def test_a_dropout_leaves_a_gap_in_order_of_time(tmp_path: Path) -> None:
    path = made(tmp_path / "a.ts", "-c:v", "libx264", "-g", "5", "-bf", "2")
    good, shown = video.read(path), list(video.read(path).frames)
    data, count = bytearray(path.read_bytes()), len(path.read_bytes()) // 188
    rng = np.random.default_rng(1)
    for place in (0.02, 0.3, 0.6):
        start = int(place * count) * 188 + 40
        data[start : start + 500] = rng.integers(0, 256, 500, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(data))
    clip = video.read(path)
    times = clip.times or tuple(k / clip.fps for k in range(len(clip)))
    assert 30 < len(clip) <= 50 and "damaged" in clip.warnings[0]
    assert times[0] == 0 and all(b > a for a, b in pairwise(times)) and float(times[-1]) > 1.7
    exact = [round(float(t + clip.start - good.start) * 25) for t in times]
    off = [np.abs(clip.frames[k].astype(int) - shown[t]).mean() for k, t in enumerate(exact)]
    assert np.median(off) < 1, "what is whole is at its own time"
    again = video.read(path)
    for k in (len(clip) - 1, 3, 20, 4):
        assert np.array_equal(again.frames[k], clip.frames[k])


def test_frames_without_time_stamps_keep_their_order(tmp_path: Path) -> None:
    """AVI has none; what FFmpeg makes up for H.264 would exchange frames."""
    exact = list(video.read(made(tmp_path / "a.mkv", "-c:v", "libx264", "-g", "12", "-qp", "0")).frames)
    clip = video.read(made(tmp_path / "a.avi", "-c:v", "libx264", "-g", "12", "-qp", "0"))
    assert not clip.warnings and clip.fps == 25 and clip.times is None
    assert all(np.array_equal(a, b) for a, b in zip(clip.frames, exact, strict=True))
    again = video.read(clip.source).frames
    assert all(np.array_equal(again[k], exact[k]) for k in (48, 12, 49))
    dropped = ["-vf", "select='not(eq(n,5)+eq(n,6))'", "-fps_mode", "passthrough"]
    clip = video.read(made(tmp_path / "b.avi", "-c:v", "mjpeg", *dropped))
    assert len(clip) == 48 and clip.times and not clip.warnings, "a capture that repeats a frame is not damaged"


def test_joined_recordings_begin_with_the_first(tmp_path: Path) -> None:
    """Sound is laid beside the frames from where the film begins in its own time."""
    path = made(tmp_path / "a.mpg", "-c:v", "mpeg2video")
    one, data = video.read(path), path.read_bytes()
    path.write_bytes(data + data)
    both = video.read(path)
    assert len(both) == 2 * len(one) and both.start == one.start > 0 and both.times is None
    assert video.read(path, 60).stop == both.start + Fraction(60, 25)


@pytest.mark.parametrize(("delay", "name"), [("0.5", "a.ts"), ("0.5", "a.mkv"), ("-0.5", "a.mp4"), ("0", "a.mpg")])
def test_sound_is_whole_and_in_time(tmp_path: Path, delay: str, name: str) -> None:
    """A beep while the picture is white, and sound before the first frame or after the last one."""
    black = "color=black:size=64x48:rate=25:duration=2,drawbox=color=white:t=fill:enable='between(t,0.99,1.19)'"
    beep = "aevalsrc='if(between(t\\,1\\,1.2)\\,sin(6000*t)\\,0.01*sin(300*t))':s=48000:d=2.4"
    inputs = ["-f", "lavfi", "-itsoffset", delay, "-i", black, "-f", "lavfi", "-i", beep, "-map", "0", "-map", "1"]
    ffmpeg(*inputs, *(["-c:a", "mp2"] if name.endswith(("ts", "mpg")) else []), tmp_path / name)
    video.write(tmp_path / "b.mp4", video.read(tmp_path / name))

    def heard_and_seen(path: Path) -> tuple[float, float]:
        with av.open(str(path)) as container:
            sound = [(f.time, np.abs(f.to_ndarray()).max(), f.samples / f.rate) for f in container.decode(audio=0)]
        with av.open(str(path)) as container:
            white = [f.time for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 128]
        largest = max(level for _, level, _ in sound)
        loud = [time for time, level, _ in sound if level > 0.5 * largest]
        return loud[0] - white[0], sum(length for *_, length in sound)

    (before, length), (after, kept) = heard_and_seen(tmp_path / name), heard_and_seen(tmp_path / "b.mp4")
    assert abs(after - before) < 0.05 and abs(kept - length) < 0.06


def test_many_channels_cost_no_film(tmp_path: Path) -> None:
    many = "|".join(f"0.1*sin({400 + 40 * k}*t)" for k in range(16))
    sound = ["-f", "lavfi", "-i", f"aevalsrc={many}:d=2:s=48000"]
    clip = video.read(made(tmp_path / "a.mov", *sound, "-c:a", "pcm_s24le", "-map", "0", "-map", "1"), 10)
    for name in ("h264", "prores"):
        path = tmp_path / f"b{video.FORMATS[name].ending}"
        with video.Writer(path, clip, format=name) as film:
            for frame in clip.frames:
                film.add(frame)
        assert loudness(path)[1] > 0.01 and bool(film.warnings) == (name == "h264")
    frame = clip.frames[0]
    (tmp_path / "a.mov").unlink()
    with video.Writer(tmp_path / "c.mp4", clip) as film:
        film.add(frame)
    assert len(video.read(tmp_path / "c.mp4")) == 1 and "sound" in film.warnings[0]


@pytest.mark.parametrize(("name", "fonts"), [("h264", 0), ("ffv1", 1)])
def test_fonts_come_along_and_a_second_picture_is_told(tmp_path: Path, film: Path, name: str, fonts: int) -> None:
    (tmp_path / "a.ttf").write_bytes(bytes(99))
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\nA boat.\n")
    attached = ["-attach", tmp_path / "a.ttf", "-metadata:s:t", "mimetype=font/ttf", tmp_path / "a.mkv"]
    ffmpeg("-i", film, "-i", tmp_path / "a.srt", "-map", "0:v", "-map", "0:v", "-map", "1", *attached)
    clip, path = video.read(tmp_path / "a.mkv"), tmp_path / f"b{video.FORMATS[name].ending}"
    assert "2 tracks of pictures" in clip.warnings[0]
    with video.Writer(path, clip, format=name) as written:
        for frame in clip.frames:
            written.add(frame)
    with av.open(str(path)) as container:
        kinds = [stream.type for stream in container.streams]
    assert kinds.count("subtitle") == 1 and kinds.count("attachment") == fonts and not written.warnings


@pytest.mark.parametrize("name", ["h264", "prores", "ffv1"])
def test_titles_chapters_subtitles_and_timecode_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "meta.txt").write_text(
        ";FFMETADATA1\ntitle=Reel 2\n[CHAPTER]\nTIMEBASE=1/25\nSTART=0\nEND=20\ntitle=Quay\n"
    )
    (tmp_path / "words.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\nA boat.\n")
    made(tmp_path / "a0.mov", "-map", "0", "-map", "1", sound=True)
    ffmpeg(
        *("-i", tmp_path / "a0.mov", "-i", tmp_path / "words.srt", "-i", tmp_path / "meta.txt", "-map", "0:v"),
        *("-map", "0:a", "-map", "1", "-map_metadata", "2", "-c", "copy", "-c:s", "mov_text"),
        *("-metadata:s:a:0", "language=fra", "-timecode", "10:00:00:12", tmp_path / "a.mov"),
    )
    clip, path = video.read(tmp_path / "a.mov"), tmp_path / f"b{video.FORMATS[name].ending}"
    with video.Writer(path, clip, format=name) as film:
        for frame in clip.frames:
            film.add(frame)
    with av.open(str(path)) as container:
        tags = {key.lower(): value for x in (container, *container.streams) for key, value in x.metadata.items()}
        chapters = [chapter["metadata"]["title"] for chapter in container.chapters()]
        language = container.streams.audio[0].language
        words = [packet for packet in container.demux(subtitles=0) if b"A boat." in bytes(packet)]
        seconds = float(words[0].pts * words[0].time_base)
    assert tags["title"] == "Reel 2" and tags["timecode"] == "10:00:00:12" and chapters == ["Quay"]
    assert not film.warnings and language == "fra" and seconds == pytest.approx(0.5, abs=0.01)
