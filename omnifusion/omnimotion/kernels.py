# mypy: allow-untyped-defs
"""The grid volume's loss, gradients and rendering by hand, compiled by numba and kept on disk.

The mathematics of ``Volume`` (the tests hold this to it, by the same model in PyTorch), one sample at a time. All arrays
are flat and come with offsets, because every array view counts references, which costs more than the arithmetic here.
Constants are typed, so that no scalar is promoted to float64; they stand here, because what is kept on disk is renewed
when this file changes. No division is by anything that can vanish: scales lie within (1/3, 3), determinants are bounded
from below, and no transmittance is divided by. How sums are bracketed is free, so other cuts into functions may change
last bits.
"""

from __future__ import annotations

import numpy as np

from omnifusion.omnimotion.compiled import inlined, kernel

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
LAYERS = 5
"""Coupling layers; layer n changes coordinate n % 3."""
REACH, DEPTH = F(1.25), F(2.0)
"""Grids span [-REACH, REACH] in x and y and [0, DEPTH] in z; beyond them the border value holds."""
GAIN, BIAS, OPACITY = F(4.0), F(0.5), F(8.0)
"""Density is softplus(GAIN (coarse + fine) + BIAS); OPACITY is the thickness of the whole volume."""
MIX, RHO = F(0.75), F(0.05)  # as in ``volume``
LEAST_DET = F(1e-3)
"""Bound on an affine map's determinant: the knots have 0.05 or more, but what lies between two of them can vanish."""
LTAPE, STAPE, SCELL = 6, 6 * LAYERS + 2, LAYERS + 1
"""Floats noted per coupling layer; floats and cells noted per sample of a bijection."""


@inlined
def _cell(x, low, per, size):
    """Lower node, fraction and d(cell)/dx (0 where clamped) of ``x`` on a grid of ``size`` nodes, ``per`` nodes a unit."""
    u, top, slope = (x - low) * per, F(size - 1), per
    if not u > ZERO:
        u, slope = ZERO, ZERO
    elif u > top:
        u, slope = top, ZERO
    lower = min(int(u), size - 2)
    return lower, u - F(lower), slope


@inlined
def _layer(grids, base, A, B, x, y, z, axis, tape, o, cells, oc):
    """Conditioning of the coupling layer at ``base`` of ``grids``: code r of its scale and shift s; notes its cell."""
    a, fa, sa = _cell(y if axis == 0 else x, -REACH, F(A - 1) / (TWO * REACH), A)
    if axis == 2:
        b, fb, sb = _cell(y, -REACH, F(B - 1) / (TWO * REACH), B)
    else:
        b, fb, sb = _cell(z, ZERO, F(B - 1) / DEPTH, B)
    n = base + 2 * (a * B + b)
    m, ga, gb = n + 2 * B, ONE - fa, ONE - fb
    w00, w01, w10, w11 = ga * gb, ga * fb, fa * gb, fa * fb
    r = w00 * grids[n] + w01 * grids[n + 2] + w10 * grids[m] + w11 * grids[m + 2]
    s = w00 * grids[n + 1] + w01 * grids[n + 3] + w10 * grids[m + 1] + w11 * grids[m + 3]
    cells[oc], tape[o], tape[o + 1], tape[o + 2], tape[o + 3] = n, fa, fb, sa, sb
    return r, s


@inlined
def _layer_back(grids, ggrids, B, tape, o, n, gr, gs):
    """Adds the gradients of r and s to the grid's; returns those of its two conditioning coordinates."""
    fa, fb = tape[o], tape[o + 1]
    m, ga, gb = n + 2 * B, ONE - fa, ONE - fb
    for c, w in ((n, ga * gb), (n + 2, ga * fb), (m, fa * gb), (m + 2, fa * fb)):
        ggrids[c] += w * gr
        ggrids[c + 1] += w * gs
    v00, v01 = grids[n] * gr + grids[n + 1] * gs, grids[n + 2] * gr + grids[n + 3] * gs
    v10, v11 = grids[m] * gr + grids[m + 1] * gs, grids[m + 2] * gr + grids[m + 3] * gs
    return tape[o + 2] * ((v10 - v00) * gb + (v11 - v01) * fb), tape[o + 3] * ((v01 - v00) * ga + (v11 - v10) * fa)


@inlined
def _pick(axis, x, y, z):
    """One coordinate of three."""
    return x if axis == 0 else (y if axis == 1 else z)


@inlined
def _spread(axis, g, d0, d1, gx, gy, gz):
    """A coupling layer's gradient: ``g`` of the coordinate it changes, ``d0`` and ``d1`` more of the two others."""
    if axis == 0:
        return g, gy + d0, gz + d1
    if axis == 1:
        return gx + d0, g, gz + d1
    return gx + d0, gy + d1, g


@inlined
def _entry(affine, n, h, f):
    """An entry of the affine map between two knots, of which ``h`` and ``f`` are the shares."""
    return affine[n] * h + affine[n + 6] * f


@inlined
def _put(axis, v, x, y, z):
    """The point with one coordinate replaced."""
    return (v, y, z) if axis == 0 else ((x, v, z) if axis == 1 else (x, y, v))


@inlined
def _up(affine, grids, t, Z, A, B, x, y, z, tape, o, cells, oc):
    """M_theta: a local point of frame ``t`` to the canonical volume."""
    k, f, _ = _cell(z, ZERO, F(Z - 1) / DEPTH, Z)
    n, h, px, py = 6 * (t * Z + k), ONE - f, x, y
    x = (affine[n] * h + affine[n + 6] * f) * px + (affine[n + 1] * h + affine[n + 7] * f) * py
    x += affine[n + 2] * h + affine[n + 8] * f
    y = (affine[n + 3] * h + affine[n + 9] * f) * px + (affine[n + 4] * h + affine[n + 10] * f) * py
    y += affine[n + 5] * h + affine[n + 11] * f
    tape[o + LTAPE * LAYERS], cells[oc + LAYERS] = f, n
    for layer in range(LAYERS):
        axis, at = layer % 3, o + LTAPE * layer
        r, s = _layer(grids, 2 * A * B * (t * LAYERS + layer), A, B, x, y, z, axis, tape, at, cells, oc + layer)
        bottom = ONE / (ONE + abs(r) - HALF * r)
        scale, v = (ONE + abs(r) + HALF * r) * bottom, _pick(axis, x, y, z)
        tape[at + 4], tape[at + 5] = v * bottom * bottom, scale
        x, y, z = _put(axis, v * scale + s, x, y, z)
    return x, y, z


@inlined
def _map_back(gaffine, n, f, gx, gy, x, y):
    """Adds the gradients of the two knots' maps, from that of the mapped point (``x``, ``y``)."""
    h = ONE - f
    for row in range(2):
        g, at = gx if row == 0 else gy, n + 3 * row
        for c, w in ((at, h * g), (at + 6, f * g)):
            gaffine[c] += w * x
            gaffine[c + 1] += w * y
            gaffine[c + 2] += w


@inlined
def _up_back(grids, ggrids, gaffine, B, gx, gy, gz, px, py, tape, o, cells, oc):
    """Gradients of ``_up`` from that of the canonical point; the ray itself is given and gets none."""
    for layer in range(LAYERS - 1, -1, -1):
        axis, at = layer % 3, o + LTAPE * layer
        g = _pick(axis, gx, gy, gz)
        d0, d1 = _layer_back(grids, ggrids, B, tape, at, cells[oc + layer], g * tape[at + 4], g)
        gx, gy, gz = _spread(axis, g * tape[at + 5], d0, d1, gx, gy, gz)
    _map_back(gaffine, cells[oc + LAYERS], tape[o + LTAPE * LAYERS], gx, gy, px, py)


@inlined
def _down(affine, grids, t, Z, A, B, x, y, z, tape, o, cells, oc):
    """M_theta^-1: a canonical point to the local volume of frame ``t``."""
    for layer in range(LAYERS - 1, -1, -1):
        axis, at = layer % 3, o + LTAPE * layer
        r, s = _layer(grids, 2 * A * B * (t * LAYERS + layer), A, B, x, y, z, axis, tape, at, cells, oc + layer)
        top = ONE / (ONE + abs(r) + HALF * r)
        scale, v = (ONE + abs(r) - HALF * r) * top, _pick(axis, x, y, z) - s
        tape[at + 4], tape[at + 5] = v * top * top, scale
        x, y, z = _put(axis, v * scale, x, y, z)
    k, f, slope = _cell(z, ZERO, F(Z - 1) / DEPTH, Z)
    n, h = 6 * (t * Z + k), ONE - f
    m0, m1, m2 = _entry(affine, n, h, f), _entry(affine, n + 1, h, f), _entry(affine, n + 2, h, f)
    m3, m4, m5 = _entry(affine, n + 3, h, f), _entry(affine, n + 4, h, f), _entry(affine, n + 5, h, f)
    x, y = x - m2, y - m5
    inv = ONE / max(m0 * m4 - m1 * m3, LEAST_DET)
    tape[o + LTAPE * LAYERS], tape[o + LTAPE * LAYERS + 1], cells[oc + LAYERS] = f, slope, n
    return (m4 * x - m1 * y) * inv, (m0 * y - m3 * x) * inv, z


@inlined
def _down_back(affine, grids, gaffine, ggrids, B, gx, gy, gz, x, y, tape, o, cells, oc):
    """Gradients of ``_down``: from that of the local point, which is at (``x``, ``y``), to that of the canonical one."""
    f, slope, n = tape[o + LTAPE * LAYERS], tape[o + LTAPE * LAYERS + 1], cells[oc + LAYERS]
    h, bend = ONE - f, ZERO
    m0, m1 = _entry(affine, n, h, f), _entry(affine, n + 1, h, f)
    m3, m4 = _entry(affine, n + 3, h, f), _entry(affine, n + 4, h, f)
    inv = ONE / max(m0 * m4 - m1 * m3, LEAST_DET)
    gx, gy = (m4 * gx - m3 * gy) * inv, (m0 * gy - m1 * gx) * inv
    _map_back(gaffine, n, f, -gx, -gy, x, y)
    for row in range(2):
        c, d = n + 3 * row, n + 3 * row + 6
        along = (affine[d] - affine[c]) * x + (affine[d + 1] - affine[c + 1]) * y + affine[d + 2] - affine[c + 2]
        bend += (gx if row == 0 else gy) * along
    gz -= bend * slope
    for layer in range(LAYERS):
        axis, at = layer % 3, o + LTAPE * layer
        g = _pick(axis, gx, gy, gz)
        back = g * tape[at + 5]
        d0, d1 = _layer_back(grids, ggrids, B, tape, at, cells[oc + layer], -g * tape[at + 4], -back)
        gx, gy, gz = _spread(axis, back, d0, d1, gx, gy, gz)
    return gx, gy, gz


@inlined
def _density(grid, Y, X, Z, x, y, z, tape, o, cells, oc):
    """Trilinear value of one density grid ``(Y, X, Z)`` at a canonical point."""
    a, fa, sa = _cell(y, -REACH, F(Y - 1) / (TWO * REACH), Y)
    b, fb, sb = _cell(x, -REACH, F(X - 1) / (TWO * REACH), X)
    c, fc, sc = _cell(z, ZERO, F(Z - 1) / DEPTH, Z)
    n = (a * X + b) * Z + c
    cells[oc], gc, m = n, ONE - fc, n + X * Z
    tape[o], tape[o + 1], tape[o + 2], tape[o + 3], tape[o + 4], tape[o + 5] = fa, fb, fc, sa, sb, sc
    v00, v01 = grid[n] * gc + grid[n + 1] * fc, grid[n + Z] * gc + grid[n + Z + 1] * fc
    v10, v11 = grid[m] * gc + grid[m + 1] * fc, grid[m + Z] * gc + grid[m + Z + 1] * fc
    return (v00 * (ONE - fb) + v01 * fb) * (ONE - fa) + (v10 * (ONE - fb) + v11 * fb) * fa


@inlined
def _density_back(grid, ggrid, X, Z, tape, o, n, gv):
    """Adds the gradient ``gv`` of one density value to the grid's; returns that of the point."""
    fa, fb, fc = tape[o], tape[o + 1], tape[o + 2]
    da, db, dc = ZERO, ZERO, ZERO
    for i in range(2):
        wa, ea = (fa, ONE) if i else (ONE - fa, -ONE)
        for j in range(2):
            wb, eb = (fb, ONE) if j else (ONE - fb, -ONE)
            at = n + (i * X + j) * Z
            v0, v1 = grid[at], grid[at + 1]
            ggrid[at] += gv * wa * wb * (ONE - fc)
            ggrid[at + 1] += gv * wa * wb * fc
            along = v0 * (ONE - fc) + v1 * fc
            da, db, dc = da + ea * wb * along, db + wa * eb * along, dc + wa * wb * (v1 - v0)
    return gv * db * tape[o + 4], gv * da * tape[o + 3], gv * dc * tape[o + 5]


@inlined
def _clear(v, opacity):
    """1 - alpha of a sample whose density is softplus(v), and the sigmoid of v."""
    e = np.exp(-abs(v))
    one = ONE + e
    return np.exp(-opacity * (max(v, ZERO) + np.log(one))), (ONE if v > ZERO else e) / one


@kernel
def loss(shape, parameters, rays, scale, gradients):
    """The sum (float64) over rays of flow loss; adds its gradients.

    Args:
        shape: (T, knots, A, B, then Y, X, Z of the coarse and of the fine density).
        parameters, gradients: grids ``(T, 5, A, B, 2)``, affine ``(T, knots, 6)``, coarse, fine ``(Y, X, Z)``, all flat.
        rays: xy, i, j, q, confidence and depths z as in ``Volume.loss``; scale: px per volume unit.
    """
    grids, affine, coarse, fine = parameters
    ggrids, gaffine, gcoarse, gfine = gradients
    xy, i, j, q, confidence, z = rays
    R, K = z.shape
    _, Z, A, B, cY, cX, cZ, fY, fX, fZ = shape
    opacity = OPACITY / F(K)
    up, dn, de = np.empty(K * STAPE, F), np.empty(K * STAPE, F), np.empty(K * 12, F)
    upc, dnc, dec = np.empty(K * SCELL, np.int64), np.empty(K * SCELL, np.int64), np.empty(K * 2, np.int64)
    px, py = np.empty(K, F), np.empty(K, F)
    hx, hy, hz = np.empty(K, F), np.empty(K, F), np.empty(K, F)
    clear, sig, front = np.empty(K, F), np.empty(K, F), np.empty(K, F)
    w, G, rho = np.empty(K, F), np.empty(K, F), np.empty(K, F)
    total = 0.0
    for n in range(R):
        s, t, c = i[n], j[n], confidence[n]
        x0, y0, qx, qy = xy[n, 0], xy[n, 1], q[n, 0], q[n, 1]
        light, jx, jy = ONE, ZERO, ZERO
        for k in range(K):
            x, y, d = _up(affine, grids, s, Z, A, B, x0, y0, z[n, k], up, k * STAPE, upc, k * SCELL)
            v = _density(coarse, cY, cX, cZ, x, y, d, de, 12 * k, dec, 2 * k)
            v += _density(fine, fY, fX, fZ, x, y, d, de, 12 * k + 6, dec, 2 * k + 1)
            clear[k], sig[k] = _clear(GAIN * v + BIAS, opacity)
            x, y, _ = _down(affine, grids, t, Z, A, B, x, y, d, dn, k * STAPE, dnc, k * SCELL)
            px[k], py[k], front[k] = x, y, light
            w[k] = light if k == K - 1 else light * (ONE - clear[k])
            light *= clear[k]
            dx, dy = (x - qx) * scale, (y - qy) * scale
            rho[k] = np.sqrt(dx * dx + dy * dy + RHO)
            jx, jy = jx + w[k] * dx, jy + w[k] * dy
        joint = np.sqrt(jx * jx + jy * jy + RHO)
        flow = (ONE - MIX) * joint
        jx, jy = (ONE - MIX) * jx / joint, (ONE - MIX) * jy / joint
        for k in range(K):
            flow += MIX * w[k] * rho[k]
            dx, dy = (px[k] - qx) * scale, (py[k] - qy) * scale
            G[k] = c * (MIX * rho[k] + jx * dx + jy * dy)
            gx, gy = c * w[k] * scale * (MIX * dx / rho[k] + jx), c * w[k] * scale * (MIX * dy / rho[k] + jy)
            hx[k], hy[k], hz[k] = _down_back(
                affine, grids, gaffine, ggrids, B, gx, gy, ZERO, px[k], py[k], dn, k * STAPE, dnc, k * SCELL
            )
        total += c * flow
        rest = G[K - 1]
        for k in range(K - 1, -1, -1):
            gx, gy, gz = hx[k], hy[k], hz[k]
            if k < K - 1:
                gv = GAIN * -opacity * clear[k] * sig[k] * front[k] * (rest - G[k])
                rest = (ONE - clear[k]) * G[k] + clear[k] * rest
                ax, ay, az = _density_back(coarse, gcoarse, cX, cZ, de, 12 * k, dec[2 * k], gv)
                bx, by, bz = _density_back(fine, gfine, fX, fZ, de, 12 * k + 6, dec[2 * k + 1], gv)
                gx, gy, gz = gx + (ax + bx), gy + (ay + by), gz + (az + bz)
            _up_back(grids, ggrids, gaffine, B, gx, gy, gz, x0, y0, up, k * STAPE, upc, k * SCELL)
    return total


@kernel
def trace(shape, parameters, xy, i, j, z, near, points, front):
    """Fills ``points`` ``(N, 2)`` and ``front`` ``(N,)``, 1 - transmittance: see ``Volume.trace``; others as in ``loss``."""
    grids, affine, coarse, fine = parameters
    N, K = len(xy), len(z)
    _, Z, A, B, cY, cX, cZ, fY, fX, fZ = shape
    opacity = OPACITY / F(K)
    tape, cells = np.empty(STAPE, F), np.empty(SCELL, np.int64)
    px, py, pz, w = np.empty(K, F), np.empty(K, F), np.empty(K, F), np.empty(K, F)
    for n in range(N):
        light, best = ONE, 0
        for k in range(K):
            x, y, d = _up(affine, grids, i, Z, A, B, xy[n, 0], xy[n, 1], z[k], tape, 0, cells, 0)
            v = _density(coarse, cY, cX, cZ, x, y, d, tape, 0, cells, 0)
            v += _density(fine, fY, fX, fZ, x, y, d, tape, 0, cells, 0)
            c, _ = _clear(GAIN * v + BIAS, opacity)
            w[k] = light if k == K - 1 else light * (ONE - c)
            light *= c
            px[k], py[k], pz[k] = _down(affine, grids, j, Z, A, B, x, y, d, tape, 0, cells, 0)
            if w[k] > w[best]:
                best = k
        ax, ay, az, total = ZERO, ZERO, ZERO, ZERO
        for k in range(K):
            dx, dy = (px[k] - px[best]) * near, (py[k] - py[best]) * near
            v = w[k] * np.exp(-(dx * dx + dy * dy))
            ax, ay, az, total = ax + v * px[k], ay + v * py[k], az + v * pz[k], total + v
        ax, ay, az = ax / total, ay / total, az / total
        points[n, 0], points[n, 1] = ax, ay
        light, hidden = ONE, ZERO
        for k in range(K - 1):
            if z[k] + DEPTH / F(K) > az:
                break
            x, y, d = _up(affine, grids, j, Z, A, B, ax, ay, z[k], tape, 0, cells, 0)
            v = _density(coarse, cY, cX, cZ, x, y, d, tape, 0, cells, 0)
            v += _density(fine, fY, fX, fZ, x, y, d, tape, 0, cells, 0)
            c, _ = _clear(GAIN * v + BIAS, opacity)
            hidden += light * (ONE - c)
            light *= c
        front[n] = hidden
