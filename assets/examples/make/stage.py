"""What the three scenes share: materials, solids, light, the frame loop and the encoder.

A development-only tool: it needs Blender's Python module (``pip install bpy==5.0.1``, Python 3.11) and ffmpeg
(``pip install imageio-ffmpeg``); nothing of the product imports it.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
import imageio_ffmpeg
from mathutils import Vector

Vec = Sequence[float]
SIZE = (384, 216)


def rgb(code: str) -> tuple[float, float, float, float]:
    """A web color such as "#c8402f" as linear RGBA."""

    def linear(v: float) -> float:
        return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4

    r, g, b = (linear(int(code[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return r, g, b, 1.0


def clear() -> None:
    """An empty scene that Cycles renders on one thread."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.use_persistent_data = True
    scene.render.resolution_x, scene.render.resolution_y = SIZE
    scene.cycles.use_denoising = True
    scene.cycles.max_bounces = 5
    scene.cycles.seed = 0
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.look = "AgX - Medium High Contrast"


class Paint:
    """A material under construction: its nodes, and the shader at its end."""

    def __init__(self, color: str, roughness: float = 0.6, metallic: float = 0.0, coat: float = 0.0) -> None:
        self.material = bpy.data.materials.new("paint")
        self.material.use_nodes = True
        self.nodes, self.links = self.material.node_tree.nodes, self.material.node_tree.links
        self.shader = self.nodes["Principled BSDF"]
        self.shader.inputs["Base Color"].default_value = rgb(color)
        self.shader.inputs["Roughness"].default_value = roughness
        self.shader.inputs["Metallic"].default_value = metallic
        self.shader.inputs["Coat Weight"].default_value = coat

    def node(self, kind: str, **values: Any) -> Any:
        """A new node; upper-case names are inputs, others properties."""
        node = self.nodes.new(f"ShaderNode{kind}")
        for name, value in values.items():
            if name[0].isupper():
                node.inputs[name].default_value = value
            else:
                setattr(node, name, value)
        return node

    def coordinates(self, scale: Vec = (1, 1, 1), kind: str = "Object") -> Any:
        """Texture coordinates, scaled."""
        source, mapping = self.node("TexCoord"), self.node("Mapping", Scale=scale)
        self.links.new(source.outputs[kind], mapping.inputs["Vector"])
        return mapping.outputs["Vector"]

    def ramp(self, factor: Any, stops: Sequence[tuple[float, str]], constant: bool = False) -> Any:
        """Colors along a factor."""
        node = self.node("ValToRGB")
        node.color_ramp.interpolation = "CONSTANT" if constant else "LINEAR"
        elements = node.color_ramp.elements
        while len(elements) < len(stops):
            elements.new(1.0)
        for element, (position, color) in zip(elements, stops, strict=True):
            element.position, element.color = position, rgb(color)
        self.links.new(factor, node.inputs[0])
        return node.outputs[0]

    def noise(
        self, stops: Sequence[tuple[float, str]], scale: float = 4, stretch: Vec = (1, 1, 1), detail: float = 6
    ) -> Paint:
        """Color by fractal noise."""
        noise = self.node("TexNoise", Scale=scale, Detail=detail)
        self.links.new(self.coordinates(stretch), noise.inputs["Vector"])
        self.links.new(self.ramp(noise.outputs[0], stops), self.shader.inputs["Base Color"])
        return self

    def stripes(
        self, stops: Sequence[tuple[float, str]], scale: float = 1, axis: str = "X", distortion: float = 0
    ) -> Paint:
        """Color by bands across an axis."""
        wave = self.node("TexWave", Scale=scale, Distortion=distortion, bands_direction=axis)
        self.links.new(self.coordinates(), wave.inputs["Vector"])
        self.links.new(self.ramp(wave.outputs["Fac"], stops, distortion == 0), self.shader.inputs["Base Color"])
        return self

    def bump(self, scale: float = 30, strength: float = 0.2, stretch: Vec = (1, 1, 1)) -> Paint:
        """A rough surface."""
        noise, bump = (
            self.node("TexNoise", Scale=scale, Detail=4.0),
            self.node("Bump", Strength=strength, Distance=0.05),
        )
        self.links.new(self.coordinates(stretch), noise.inputs["Vector"])
        self.links.new(noise.outputs[0], bump.inputs["Height"])
        self.links.new(bump.outputs[0], self.shader.inputs["Normal"])
        return self

    def haze(self, color: str, start: float, end: float, most: float = 0.8) -> Paint:
        """Fade into the air with distance."""
        camera, remap = self.node("CameraData"), self.node("MapRange")
        remap.inputs["From Min"].default_value, remap.inputs["From Max"].default_value = start, end
        remap.inputs["To Max"].default_value = most
        air, mix = self.node("Emission", Color=rgb(color)), self.node("MixShader")
        self.links.new(camera.outputs["View Distance"], remap.inputs["Value"])
        self.links.new(remap.outputs["Result"], mix.inputs[0])
        self.links.new(self.shader.outputs[0], mix.inputs[1])
        self.links.new(air.outputs[0], mix.inputs[2])
        self.links.new(mix.outputs[0], self.nodes["Material Output"].inputs["Surface"])
        return self


def dress(thing: Any, paint: Paint, smooth: bool = False, bevel: float = 0.0, parent: Any = None) -> Any:
    """Give an object its material, round its edges, hang it on a parent."""
    thing.data.materials.append(paint.material)
    if smooth:
        for polygon in thing.data.polygons:
            polygon.use_smooth = True
    if bevel:
        modifier = thing.modifiers.new("bevel", "BEVEL")
        modifier.width, modifier.segments = bevel, 3
    thing.parent = parent
    return thing


def mesh(points: Sequence[Vec], faces: Sequence[Sequence[int]], paint: Paint, **kw: Any) -> Any:
    """An object from points and faces."""
    data = bpy.data.meshes.new("mesh")
    data.from_pydata([tuple(p) for p in points], [], [tuple(f) for f in faces])
    thing = bpy.data.objects.new("mesh", data)
    bpy.context.collection.objects.link(thing)
    return dress(thing, paint, **kw)


def box(at: Vec, size: Vec, paint: Paint, bevel: float = 0.02, turn: Vec = (0, 0, 0), **kw: Any) -> Any:
    """A block with its center ``at``."""
    x, y, z = (s / 2 for s in size)
    points = [(i * x, j * y, k * z) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    thing = mesh(points, faces, paint, bevel=bevel, **kw)
    thing.location, thing.rotation_euler = at, turn
    return thing


def lathe(
    at: Vec, profile: Sequence[tuple[float, float]], paint: Paint, around: int = 48, turn: Vec = (0, 0, 0), **kw: Any
) -> Any:
    """A solid of revolution: ``profile`` is (radius, height) from the bottom up."""
    points = [
        (r * math.cos(2 * math.pi * i / around), r * math.sin(2 * math.pi * i / around), z)
        for r, z in profile
        for i in range(around)
    ]
    faces = [
        (k * around + i, k * around + (i + 1) % around, (k + 1) * around + (i + 1) % around, (k + 1) * around + i)
        for k in range(len(profile) - 1)
        for i in range(around)
    ]
    thing = mesh(points, faces, paint, smooth=True, **kw)
    thing.location, thing.rotation_euler = at, turn
    return thing


def ball(at: Vec, radius: float, paint: Paint, squash: Vec = (1, 1, 1), **kw: Any) -> Any:
    """A sphere, perhaps squashed."""
    n = 24
    profile = [
        (max(1e-4, radius * math.sin(math.pi * i / n)), -radius * math.cos(math.pi * i / n)) for i in range(n + 1)
    ]
    thing = lathe(at, profile, paint, 32, **kw)
    thing.scale = squash
    return thing


def tube(at: Vec, radius: float, length: float, paint: Paint, turn: Vec = (0, 0, 0), **kw: Any) -> Any:
    """A closed cylinder along its own z."""
    h, edge = length / 2, min(0.1 * radius, 0.02)
    profile = [(1e-4, -h), (radius - edge, -h), (radius, -h + edge), (radius, h - edge), (radius - edge, h), (1e-4, h)]
    return lathe(at, profile, paint, 32, turn, **kw)


def group(at: Vec = (0, 0, 0)) -> Any:
    """An empty to hang things on."""
    thing = bpy.data.objects.new("group", None)
    bpy.context.collection.objects.link(thing)
    thing.location = at
    return thing


def copy(thing: Any, at: Vec, scale: float = 1.0, turn: float = 0.0) -> Any:
    """The same mesh once more."""
    other = thing.copy()
    bpy.context.collection.objects.link(other)
    other.location, other.rotation_euler = at, (0, 0, turn)
    other.scale = [s * scale for s in thing.scale]
    return other


def camera(lens: float = 35, f_stop: float | None = None) -> Any:
    """The camera of the scene."""
    data = bpy.data.cameras.new("camera")
    data.lens = lens
    if f_stop:
        data.dof.use_dof, data.dof.aperture_fstop = True, f_stop
    thing = bpy.data.objects.new("camera", data)
    bpy.context.collection.objects.link(thing)
    bpy.context.scene.camera = thing
    return thing


def look(thing: Any, at: Vec, target: Vec) -> None:
    """Put the camera somewhere and point it (and its focus) at a target."""
    thing.location = at
    way = Vector(target) - Vector(at)
    thing.rotation_euler = way.to_track_quat("-Z", "Y").to_euler()
    thing.data.dof.focus_distance = way.length


def sky(elevation: float, azimuth: float, strength: float = 0.15, sun: float = 1.0) -> None:
    """Daylight: a physical sky with its sun (angles in degrees)."""
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    air = nodes.new("ShaderNodeTexSky")
    air.sky_type = "MULTIPLE_SCATTERING"
    air.sun_elevation, air.sun_rotation = math.radians(elevation), math.radians(azimuth)
    air.sun_intensity = sun
    links.new(air.outputs[0], nodes["Background"].inputs["Color"])
    nodes["Background"].inputs["Strength"].default_value = strength


def lamp(at: Vec, target: Vec, power: float, size: float, color: str = "#ffffff") -> None:
    """A soft lamp."""
    data = bpy.data.lights.new("lamp", "AREA")
    data.energy, data.size, data.color = power, size, rgb(color)[:3]
    thing = bpy.data.objects.new("lamp", data)
    bpy.context.collection.objects.link(thing)
    thing.location = at
    thing.rotation_euler = (Vector(target) - Vector(at)).to_track_quat("-Z", "Y").to_euler()


def shoot(name: str, build: Callable[[], Callable[[float], None]], frames: int = 36, samples: int = 40) -> None:
    """Build the scene, render it, encode it: ``python NAME.py [--frame K --out picture.png]``.

    ``build`` returns what moves: a function of time in [0, 1].
    """
    args = argparse.ArgumentParser(description=f"Render the example clip {name}.mp4.")
    args.add_argument("--frame", type=int, help="render only this frame")
    args.add_argument("--out", type=Path, help="where the clip (or the frame) goes")
    args.add_argument("--samples", type=int, default=samples, help="light paths per pixel")
    given = args.parse_args()
    clear()
    move = build()
    scene = bpy.context.scene
    scene.cycles.samples = given.samples
    with tempfile.TemporaryDirectory() as folder:
        for frame in range(frames) if given.frame is None else [given.frame]:
            scene.frame_set(frame)
            move(frame / (frames - 1))
            single = given.frame is not None and given.out is not None
            scene.render.filepath = str(given.out.resolve() if single else Path(folder) / f"{frame:03d}.png")
            bpy.ops.render.render(write_still=True)
        if given.frame is None:
            out = given.out or Path(__file__).resolve().parent.parent / f"{name}.mp4"
            command = [
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-y",
                "-v",
                "error",
                "-framerate",
                "12",
                "-i",
                f"{folder}/%03d.png",
            ]
            command += ["-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-color_primaries", "bt709"]
            command += ["-color_trc", "bt709", "-c:v", "libx264", "-crf", "14", "-pix_fmt", "yuv420p"]
            subprocess.run([*command, "-movflags", "+faststart", str(out)], check=True)
