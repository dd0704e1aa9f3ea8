"""Light on a body: what the z-buffer holds becomes the pixels of a picture."""

from typing import NamedTuple

import numpy as np

from studio.bodies.looks import BOTTOM, HAIR, SKIN, TOP
from studio.kernels import fast
from studio.pictures.materials import albedo, step
from studio.pictures.raster import SAMPLES

EDGE = 0.03  # metres between two depths in a pixel from which both are shaded


class Surface(NamedTuple):
    """A body as a camera sees it. V vertices, T triangles."""

    points: np.ndarray  # (V, 3) f32 samples x, y and depth
    triangles: np.ndarray  # (T, 3) i32
    world: np.ndarray  # (V, 3) f32 m
    normals: np.ndarray  # (V, 3) f32
    rest: np.ndarray  # (V, 3) f32 m, in the bind pose
    materials: np.ndarray  # (V, 5) f32 distance to each
    tints: np.ndarray  # (V, 4) f32, or (0, 4)
    occlusion: np.ndarray  # (V,) f32
    paint: np.ndarray  # from `materials.as_paint`


class Lighting(NamedTuple):
    """What lights it."""

    shadow: np.ndarray  # (S, S) f32 depth from the light
    to_light: np.ndarray  # (3, 4) world -> texel x, y and depth of `shadow`
    lights: np.ndarray  # (6, 3) key's and fill's directions; sky, ground, key, fill
    eye: np.ndarray  # (3,) the camera, world


@fast
def _lit(shadow, px, py, pz, light):
    """Share of the key light that reaches a point: the light's depth map, filtered over three by three texels."""
    size = shadow.shape[0]
    u = light[0, 0] * px + light[0, 1] * py + light[0, 2] * pz + light[0, 3]
    v = light[1, 0] * px + light[1, 1] * py + light[1, 2] * pz + light[1, 3]
    d = light[2, 0] * px + light[2, 1] * py + light[2, 2] * pz + light[2, 3]
    x, y = int(np.floor(u)), int(np.floor(v))
    if x < 1 or y < 1 or x > size - 3 or y > size - 3:
        return 1.0
    fx, fy = u - x, v - y
    total = 0.0
    for j in range(-1, 3):
        wy = 1 - fy if j == -1 else fy if j == 2 else 1.0
        for i in range(-1, 3):
            wx = 1 - fx if i == -1 else fx if i == 2 else 1.0
            if shadow[y + j, x + i] > d - 0.012:
                total += wx * wy
    return total / 9


@fast
def _blend(values, a, b, c, w, u, v):
    return (
        w * values[a, 0] + u * values[b, 0] + v * values[c, 0],
        w * values[a, 1] + u * values[b, 1] + v * values[c, 1],
        w * values[a, 2] + u * values[b, 2] + v * values[c, 2],
    )


@fast
def _weights(a, b, c, x, y, points):
    """Barycentric weights of b and c at a sample."""
    ax, ay = points[a, 0], points[a, 1]
    bx, by, cx, cy = points[b, 0] - ax, points[b, 1] - ay, points[c, 0] - ax, points[c, 1] - ay
    inv = 1.0 / (bx * cy - by * cx)
    u = ((x - ax) * cy - (y - ay) * cx) * inv
    v = ((y - ay) * bx - (x - ax) * by) * inv
    return min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0)


@fast
def _painted(a, b, c, w, u, v, surface, soft, out):
    """Material and shine at a point of a triangle; its colour goes into `out`."""
    rx, ry, rz = _blend(surface.rest, a, b, c, w, u, v)
    material, least, skin = 0, 1e9, 0.0
    materials, tints = surface.materials, surface.tints
    for m in range(materials.shape[1]):
        d = w * materials[a, m] + u * materials[b, m] + v * materials[c, m]
        if m == SKIN:
            skin = d
        if d < least:
            material, least = m, d
    shine = albedo(material, rx, ry, rz, surface.paint, soft, out)
    if tints.shape[0] > 0:
        amount = w * tints[a, 3] + u * tints[b, 3] + v * tints[c, 3]
        if amount > 0:
            for i in range(3):
                tint = w * tints[a, i] + u * tints[b, i] + v * tints[c, i]
                out[i] += (tint - out[i]) * amount
    if material in (TOP, BOTTOM):  # hems: a seam runs along wherever cloth ends on skin
        seam = 1 - 0.22 * (1 - step(0.006, skin - least, 0.0015))
        for i in range(3):
            out[i] *= seam
    return material, shine


@fast
def _shade(t, x, y, surface, lighting, soft, out):
    """Colour (linear) of triangle t at the sample (x, y)."""
    a, b, c = surface.triangles[t, 0], surface.triangles[t, 1], surface.triangles[t, 2]
    u, v = _weights(a, b, c, x, y, surface.points)
    w = 1 - u - v
    nx, ny, nz = _blend(surface.normals, a, b, c, w, u, v)
    px, py, pz = _blend(surface.world, a, b, c, w, u, v)
    open_ = w * surface.occlusion[a] + u * surface.occlusion[b] + v * surface.occlusion[c]
    material, shine = _painted(a, b, c, w, u, v, surface, soft, out)
    lights, eye = lighting.lights, lighting.eye

    s = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx, ny, nz = nx * s, ny * s, nz * s
    ex, ey, ez = eye[0] - px, eye[1] - py, eye[2] - pz
    s = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
    ex, ey, ez = ex * s, ey * s, ez * s
    kx, ky, kz = lights[0, 0], lights[0, 1], lights[0, 2]
    key = nx * kx + ny * ky + nz * kz
    fill = max(nx * lights[1, 0] + ny * lights[1, 1] + nz * lights[1, 2], 0.0)
    wrap = 0.18 if material == SKIN else 0.05
    diffuse = max((key + wrap) / (1 + wrap), 0.0)

    visible = 0.0
    if diffuse > 0:  # offset along the normal instead of a depth bias: no acne, no peter-panning
        visible = _lit(lighting.shadow, px + 0.025 * nx, py + 0.025 * ny, pz + 0.025 * nz, lighting.to_light)
    up = 0.5 + 0.5 * ny
    # highlight (Blinn–Phong) and the light that grazes an edge
    hx, hy, hz = kx + ex, ky + ey, kz + ez
    s = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
    half = max((nx * hx + ny * hy + nz * hz) * s, 0.0)
    h2 = half * half
    h4 = h2 * h2
    h8 = h4 * h4
    h16 = h8 * h8
    spec = shine * h16 * h8 * visible * max(key, 0.0)
    facing = max(nx * ex + ny * ey + nz * ez, 0.0)
    rim = (1 - facing) ** 3 * (0.10 if material in (SKIN, HAIR) else 0.05)
    for c in range(3):
        red = 1.0 + (0.12 * (1 - visible * diffuse) if material == SKIN and c == 0 else 0.0)
        ambient = (lights[3, c] + (lights[2, c] - lights[3, c]) * up) * open_
        light_in = lights[4, c] * diffuse * visible + lights[5, c] * fill * (0.4 + 0.6 * open_) + ambient
        out[c] = out[c] * light_in * red + (spec + rim * open_) * lights[2, c]


@fast
def resolve(image, x0, y0, depth, number, surface, lighting, soft, tone):
    """Shades what the z-buffer holds into the picture; a pixel's colour is weighted by the share of it that is covered."""
    height, width = depth.shape
    colours = np.empty((2, 3))  # of what is in front, and of what is behind it
    samples = np.empty((2, 3), np.int64)  # x, y and triangle of each
    for py in range(height // SAMPLES):
        for px in range(width // SAMPLES):
            count, behind = _covering(depth, number, px, py, samples)
            if count == 0:
                continue
            for layer in range(2 if behind > 0 else 1):
                x, y = samples[layer, 0] + SAMPLES * x0, samples[layer, 1] + SAMPLES * y0
                _shade(samples[layer, 2], x, y, surface, lighting, soft, colours[layer])
            share = np.float64(count - behind) / (SAMPLES * SAMPLES)
            back = np.float64(behind) / (SAMPLES * SAMPLES)
            for c in range(3):
                value = share * tone[c, min(max(int(colours[0, c] * 2048), 0), 4095)]
                if behind > 0:
                    value += back * tone[c, min(max(int(colours[1, c] * 2048), 0), 4095)]
                value += (1 - share - back) * image[y0 + py, x0 + px, c]
                image[y0 + py, x0 + px, c] = np.uint8(min(value + 0.5, 255.0))


@fast
def _covering(depth, number, px, py, samples):
    """How many samples of a pixel are covered, how many of these lie behind; the nearest sample and the last behind it."""
    least, count, behind = np.float32(1e9), 0, 0
    for j in range(SAMPLES):
        for i in range(SAMPLES):
            z = depth[SAMPLES * py + j, SAMPLES * px + i]
            if z < 1e8:
                count += 1
                if z < least:
                    least = z
                    samples[0, 0], samples[0, 1] = SAMPLES * px + i, SAMPLES * py + j
                    samples[0, 2] = number[SAMPLES * py + j, SAMPLES * px + i]
    for j in range(SAMPLES):
        for i in range(SAMPLES):
            z = depth[SAMPLES * py + j, SAMPLES * px + i]
            if z < 1e8 and z > least + EDGE:
                behind += 1
                samples[1, 0], samples[1, 1] = SAMPLES * px + i, SAMPLES * py + j
                samples[1, 2] = number[SAMPLES * py + j, SAMPLES * px + i]
    return count, behind
