"""Vertices and triangles into z-buffers, and shadows onto the floor."""

import numpy as np

from studio.kernels import exact, fast

SAMPLES = 2  # per pixel and axis: coverage is told in quarters


@exact
def project(vertices, rotation, translation, matrix, distortion, out):
    """World -> samples (`SAMPLES` to a pixel) and depth, the same formula as `Camera.project`. True if anything is behind.

    A pixel's centre has whole coordinates, as OpenCV has it; its samples lie symmetrically about it.
    """
    k1, k2, p1, p2, k3 = distortion
    shift = (SAMPLES - 1) / 2
    for v in range(vertices.shape[0]):
        a, b, c = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        z = rotation[2, 0] * a + rotation[2, 1] * b + rotation[2, 2] * c + translation[2]
        if z < 0.2:
            return True
        x = (rotation[0, 0] * a + rotation[0, 1] * b + rotation[0, 2] * c + translation[0]) / z
        y = (rotation[1, 0] * a + rotation[1, 1] * b + rotation[1, 2] * c + translation[1]) / z
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        out[v, 0] = (matrix[0, 0] * xd + matrix[0, 1] * yd + matrix[0, 2]) * SAMPLES + shift
        out[v, 1] = (matrix[1, 1] * yd + matrix[1, 2]) * SAMPLES + shift
        out[v, 2] = z
    return False


@fast
def fill(points, triangles, facing, x0, y0, depth, number):
    """Draws triangles (pixel centres at whole numbers) into a z-buffer whose corner is (x0, y0); nearest wins.

    facing: +1 draws triangles that run clockwise on the screen (y down) only, 0 draws all.
    """
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = points[a, 0] - x0, points[a, 1] - y0, points[a, 2]
        bx, by, bz = points[b, 0] - x0, points[b, 1] - y0, points[b, 2]
        cx, cy, cz = points[c, 0] - x0, points[c, 1] - y0, points[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if facing != 0 and area * facing <= 0:
            continue
        if abs(area) < 1e-12:
            continue
        left = max(int(np.ceil(min(ax, bx, cx))), 0)
        right = min(int(np.floor(max(ax, bx, cx))), width - 1)
        top = max(int(np.ceil(min(ay, by, cy))), 0)
        bottom = min(int(np.floor(max(ay, by, cy))), height - 1)
        if left > right or top > bottom:
            continue
        inv = 1.0 / area
        # barycentric weights of b and c, and how they change with x and y
        ux, uy = (cy - ay) * inv, -(cx - ax) * inv
        vx, vy = -(by - ay) * inv, (bx - ax) * inv
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                u = (x - ax) * ux + (y - ay) * uy
                v = (x - ax) * vx + (y - ay) * vy
                if u < -1e-5 or v < -1e-5 or u + v > 1.00001:
                    continue
                z = az + u * (bz - az) + v * (cz - az)
                if z < depth[y, x]:
                    depth[y, x] = z
                    number[y, x] = t


@fast
def splat(vertices, floor, reach_x, reach_z, corner, texel, size):
    """(size, size) height above the floor of the lowest vertex over each texel, looking along a direction; 10 where none is.

    The mesh is finer than the texels, so that vertices do for triangles.
    """
    lowest = np.full((size, size), np.float32(10.0))
    for v in range(vertices.shape[0]):
        height = vertices[v, 1] - floor
        i = int((vertices[v, 0] - height * reach_x - corner[0]) / texel)
        j = int((vertices[v, 2] - height * reach_z - corner[1]) / texel)
        if 0 <= i < size and 0 <= j < size and height < lowest[j, i]:
            lowest[j, i] = max(height, 0.0)
    return lowest


@fast
def blur(image, rounds):
    """Box blur of three texels in both directions, several times: a soft edge."""
    h, w = image.shape
    other = np.empty_like(image)
    for _ in range(rounds):
        for y in range(h):
            for x in range(w):
                a = image[y, max(x - 1, 0)] + image[y, x] + image[y, min(x + 1, w - 1)]
                other[y, x] = a / 3
        for y in range(h):
            for x in range(w):
                image[y, x] = (other[max(y - 1, 0), x] + other[y, x] + other[min(y + 1, h - 1), x]) / 3


@fast
def darken_floor(image, floor, shade, corner, texel, x0, y0, x1, y1):
    """Multiplies floor pixels of a box by the shadow that lies on them (looked up bilinearly)."""
    size = shade.shape[0]
    for y in range(y0, y1):
        for x in range(x0, x1):
            fx = floor[y, x, 0]
            if fx > 1e8:
                continue
            u = (fx - corner[0]) / texel - 0.5
            v = (floor[y, x, 1] - corner[1]) / texel - 0.5
            if u < 0 or v < 0 or u >= size - 1 or v >= size - 1:
                continue
            i, j = int(u), int(v)
            a, b = u - i, v - j
            s = (1 - b) * ((1 - a) * shade[j, i] + a * shade[j, i + 1]) + b * (
                (1 - a) * shade[j + 1, i] + a * shade[j + 1, i + 1]
            )
            if s > 0.004:
                k = 1 - s
                for c in range(3):
                    image[y, x, c] = np.uint8(image[y, x, c] * k)
