"""sRGB and CIELAB (D65, IEC 61966-2-1), differentiable; no conversion changes luminance. And pictures of origins."""

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.geometry import stretch
from omnifusion.state import Origin

torch.set_num_threads(1)  # results depend on PyTorch's threads, which share a picture; ``pool`` runs frames in parallel

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
XYZ_TO_RGB = (
    (3.2404813432, -1.5371515163, -0.4985363262),
    (-0.9692549500, 1.8759900015, 0.0415559265),
    (0.0556466391, -0.2040413384, 1.0573110696),
)
"""Linear sRGB and CIE XYZ; one matrix is the other's inverse."""
WHITE = (0.95047, 1.0, 1.08883)  # D65 in XYZ

TINTS: dict[Origin, tuple[int, int, int]] = {
    Origin.EXEMPLAR: (0, 158, 115),
    Origin.PROPAGATED: (0, 114, 178),
    Origin.INPAINTED: (230, 159, 0),
}
"""Bluish green, blue and orange of Okabe and Ito's palette, which people with any color vision tell apart."""


def _times(matrix: tuple[tuple[float, ...], ...], image: Tensor) -> Tensor:
    """Apply a matrix to the channels of ``(..., 3, H, W)``."""
    channels = image.unbind(-3)
    return torch.stack([a * channels[0] + b * channels[1] + c * channels[2] for a, b, c in matrix], -3)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB ``(..., 3, H, W)`` in [0, 1] to CIELAB: L* in [0, 100], a* and b* in about [-110, 110]."""
    x, y, z = _lightness(_times(RGB_TO_XYZ, _linear(rgb)) / rgb.new_tensor(WHITE)[:, None, None]).unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def luminance(rgb: Tensor) -> Tensor:
    """CIE L* ``(..., 1, H, W)`` in [0, 100] of sRGB ``(..., 3, H, W)`` in [0, 1]."""
    return _luminance(_linear(rgb))


def _luminance(linear: Tensor) -> Tensor:
    return 116 * _lightness(_times(RGB_TO_XYZ[1:2], linear)) - 16


def _linear(rgb: Tensor) -> Tensor:
    return torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)


def _lightness(xyz: Tensor) -> Tensor:
    return torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 4 / 29)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIELAB ``(..., 3, H, W)`` to sRGB, clipped to [0, 1]."""
    linear = _linear_rgb(lab[..., :1, :, :], lab[..., 1:, :, :])
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


def from_uint8(image: np.ndarray | Tensor) -> Tensor:
    """uint8 sRGB, an array (of any strides) or a tensor, to a float32 tensor in [0, 1]."""
    tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
    return tensor.float() / 255.0


def to_uint8(rgb: Tensor) -> Tensor:
    """Float sRGB in [0, 1] to uint8 by rounding."""
    return (rgb.clamp(0, 1) * 255.0 + 0.5).floor().to(torch.uint8)


def _linear_rgb(L: Tensor, ab: Tensor) -> Tensor:
    """CIELAB to *linear* RGB without any clipping; L ``(..., 1, H, W)``, ab ``(..., 2, H, W)``."""
    fy = (L + 16.0) / 116.0
    f = torch.cat([fy + ab[..., :1, :, :] / 500.0, fy, fy - ab[..., 1:, :, :] / 200.0], dim=-3)
    xyz = torch.where(f > 6 / 29, f**3, (f - 4 / 29) / 7.787) * f.new_tensor(WHITE)[:, None, None]
    return _times(XYZ_TO_RGB, xyz)


def into_gamut(L: Tensor, ab: Tensor) -> Tensor:
    """Shrink ab ``(..., 2, H, W)`` toward gray, at constant L* and hue, just far enough to be a color of sRGB.

    Bisection on the scale; colors inside the gamut come back unchanged.
    """

    def fits(L: Tensor, ab: Tensor) -> Tensor:
        rgb = _linear_rgb(L, ab)
        return ((rgb >= -1e-4) & (rgb <= 1 + 1e-4)).all(dim=-3, keepdim=True)

    outside = ~fits(L, ab)
    if not bool(outside.any()):
        return ab
    light = L[outside][None, None]
    colors = torch.stack([ab[..., k : k + 1, :, :][outside] for k in (0, 1)])[:, None]
    low, high = torch.zeros_like(light), torch.ones_like(light)
    for _ in range(12):
        middle = (low + high) / 2
        good = fits(light, colors * middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    scale = torch.ones_like(L)
    scale[outside] = low.flatten()
    return ab * scale


def compose(L: Tensor, ab: Tensor) -> Tensor:
    """sRGB ``(..., 3, H, W)`` in [0, 1] of exactly this L ``(..., 1, H, W)`` and, gamut allowing, this ab."""
    return lab_to_rgb(torch.cat([L, into_gamut(L, ab)], dim=-3))


GRAYS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, 0)  # A picture of all grays, ``(3, 16, 16)``


def luminance_of(image: np.ndarray, gain: float = 1.0) -> Tensor:
    """CIE L* ``(1, H, W)`` of a picture ``(3, H, W)`` uint8 made ``gain`` times as bright."""
    linear = _linear((from_uint8(GRAYS) * gain).clamp_max(1))  # of every level: a table
    if np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2]):
        return torch.from_numpy(_luminance(linear).numpy().ravel()[image[:1]])
    light = cv2.LUT(image.reshape(3, -1), linear[0].numpy().ravel())
    return _luminance(torch.from_numpy(light).view(image.shape))


def gray(rgb: Tensor) -> Tensor:
    """The same picture without color, keeping its own L*: sRGB ``(..., 3, H, W)`` with three equal channels."""
    L = luminance(rgb)
    colorless = lab_to_rgb(torch.cat([L, torch.zeros_like(L), torch.zeros_like(L)], dim=-3))
    return colorless.mean(dim=-3, keepdim=True).expand_as(rgb)


def overlay(image: np.ndarray, kind: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Tint ``image`` ``(H, W, 3)`` uint8 by where each pixel's color came from, ``kind``: an ``Origin``, or -1 where it
    is still gray and stays as it is (``ColorState.kind`` of one frame, of any size)."""
    kind = stretch(kind, image.shape[:2])
    result, values = np.array(image, order="C"), np.arange(256, dtype=np.float32)[:, None, None]
    for origin, tint in TINTS.items():
        table = (values + opacity * (np.array(tint, np.float32) - values) + 0.5).astype(np.uint8)
        cv2.copyTo(cv2.LUT(image, table), np.uint8(kind == int(origin)), result)
    return result
