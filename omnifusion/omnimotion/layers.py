"""The layers that move apart, each as one affine motion per frame: where a volume starts."""

from __future__ import annotations

import numpy as np

from omnifusion.flow.dis import grid
from omnifusion.flow.features import affine_motion
from omnifusion.omnimotion.coordinates import to_pixels, to_volume
from omnifusion.omnimotion.flows import Flows, Pair

Array = np.ndarray
MOVES_APART = 2.0
"""Pixels by which something must leave the motions known so far to be another layer."""
LEAST_LAYER = 0.015
"""Share of the middle frame that another layer covers at least."""
LAYERS = 3
COVERED = 0.5
"""A hop of the dominant motion needs trusted flow on this share of the frame, if any pair of frames has it."""


def affine_starts(flows: Flows, frames: int) -> Array:
    """Affine maps ``(layers, T, 2, 3)`` in volume units from each frame to the middle one, the largest layer last.

    The largest layer is the dominant motion (RANSAC over trusted flow); each further one is the dominant motion of what
    moves apart from all before it in most frames. At most ``LAYERS``.
    """
    nearest = sorted(range(frames), key=lambda t: abs(t - frames // 2))
    layers = [_to_middle(flows, nearest, None)]
    while len(layers) < LAYERS:
        apart = _apart(flows, frames // 2, layers)
        if apart.mean() < LEAST_LAYER:
            break
        layers.append(_to_middle(flows, nearest, apart))
    return np.stack(layers[::-1]).astype(np.float32)


def affine_flow(source: Array, target: Array, size: tuple[int, int]) -> Array:
    """The flow ``(H, W, 2)`` between two frames whose affine maps ``(2, 3)`` lead to the same middle one."""
    whole = np.linalg.inv(_square(target)) @ _square(source)
    start = grid(*size)
    p = to_volume(start.reshape(-1, 2), size)
    return to_pixels((p @ whole[:2, :2].T + whole[:2, 2]).astype(np.float32), size).reshape(start.shape) - start


def _square(affine: Array) -> Array:
    return np.vstack([affine, [0, 0, 1]])


def _to_middle(flows: Flows, nearest: list[int], where: Array | None) -> Array:
    """Maps ``(T, 2, 3)`` to the first of ``nearest``, of its pixels ``where``; through a hop where there is no
    direct flow."""
    middle = nearest[0]
    out = np.tile(np.eye(3), (len(nearest), 1, 1))
    for n, t in enumerate(nearest[1:], 1):
        nearer = [m for m in nearest[:n] if (m, t) in flows.pairs and abs(m - middle) < abs(t - middle)]
        closest = min(nearer, key=lambda m: abs(m - t))
        hop = next((m for m in nearer if where is not None or flows.coverage((m, t)) > COVERED), closest)
        found = _dominant(flows, (hop, t), where if hop == middle else None)
        before = nearest[max(n - 2, 0)]
        whole = out[before] if found is None else out[hop] @ np.linalg.inv(_square(found))
        out[t] = whole if 0.1 < np.linalg.det(whole[:2, :2]) < 10 else np.eye(3)
    return out[:, :2]


def _apart(flows: Flows, middle: int, layers: list[Array]) -> Array:
    """Pixels ``(H, W)`` bool of the middle frame that leave the motions of all layers in most frames where they are
    trusted."""
    H, W = flows.size
    here = grid(H, W)
    left, trusted_in = np.zeros((H, W)), np.zeros((H, W))
    for t in range(len(layers[0])):
        if (middle, t) not in flows.pairs:
            continue
        there = to_volume((here + flows.of((middle, t))).reshape(-1, 2), (H, W))
        homes = [to_pixels(there @ m[t, :, :2].T + m[t, :, 2], (H, W)).reshape(H, W, 2) for m in layers]
        off = np.min([np.linalg.norm(home - here, axis=-1) for home in homes], axis=0)
        good = flows.trusted((middle, t))
        trusted_in += good
        left += good & (off > MOVES_APART)
    return (left > 0.5 * trusted_in) & (trusted_in > 0)


def _dominant(flows: Flows, pair: Pair, where: Array | None) -> Array | None:
    """The affine motion ``(2, 3)`` in volume units of the trusted pixels ``where`` of ``pair[0]``; None where it is
    not found."""
    good = flows.trusted(pair)
    y, x = np.nonzero(good if where is None else good & where)
    if len(x) < 50:
        return None
    pick = np.linspace(0, len(x) - 1, 2000).astype(int)
    p = np.stack([x[pick], y[pick]], -1).astype(np.float32)
    q = p + flows.of(pair)[y[pick], x[pick]]
    p, q = (to_volume(v, flows.size) for v in (p, q))
    found, _ = affine_motion(p, q, within=1.5 / (max(flows.size) / 2))
    return None if found is None or not 0.2 < np.linalg.det(found[:, :2]) < 5 else found
