"""The rasteriser: a skinned body into a picture of the room, on one core, in a few milliseconds.

A frame goes through four steps: skin the mesh and cast its shadows (both once a frame), then for each camera project the
vertices, fill a z-buffer with triangle numbers at twice the picture's resolution, and shade each pixel once (or twice,
where two depths meet). Vertices go through the camera's lens exactly as `Camera.project` has it, so a truth that is
projected by the reader of the dataset lands on the pixel that was drawn.
"""

from dataclasses import dataclass

import numpy as np

from refiner.geometry import Camera
from studio.bodies.body import Body
from studio.cameras import Box
from studio.pictures.light import Light
from studio.pictures.materials import as_paint
from studio.pictures.raster import SAMPLES, blur, darken_floor, fill, project, splat
from studio.pictures.shading import Lighting, Surface, resolve
from studio.pictures.skinning import dual_quaternions, skin

SHADOW_SIZE, SHADOW_SPAN = 256, 2.8  # texels and metres of the light's view of the dancer
FLOOR_SIZE, FLOOR_SPAN = 160, 4.0  # texels and metres of the shadow on the floor


def around(a: Box, b: Box) -> Box:
    """The smallest box that holds two; one from (width, height) to (0, 0) holds nothing."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


@dataclass(frozen=True)
class Posed:
    """A dancer at one moment, and the shadow it casts: the same for all cameras."""

    vertices: np.ndarray  # (V, 3) f32 world, metres
    normals: np.ndarray  # (V, 3) f32
    shadow: np.ndarray  # (S, S) f32 depth from the light
    to_light: np.ndarray  # (3, 4) world -> texel x, y and depth of `shadow`
    floor_shadow: np.ndarray  # (F, F) f32: 0 lit … 1 dark
    floor_corner: np.ndarray  # (2,) world x, z of its corner


class Renderer:
    """Draws one dancer under one light. Keeps its buffers between frames; one per thread."""

    def __init__(self, body: Body, light: Light, floor: float) -> None:
        """Args:
        body: who is drawn.
        light: what lights the dancer.
        floor: the floor's height in the world, metres.
        """
        self.body, self.mesh, self.floor = body, body.mesh, floor
        self._paint = as_paint(body)
        self._tints = np.empty((0, 4), np.float32) if body.mesh.tints is None else body.mesh.tints

        self._key = light.key_direction
        self._lights = np.stack(
            [light.key_direction, light.fill_direction, light.sky, light.ground, light.key, light.fill]
        )
        self._depth = np.empty(0, np.float32)
        self._number = np.empty(0, np.int32)

    def pose(self, turned: np.ndarray, placed: np.ndarray) -> Posed:
        """Skins the dancer and casts its shadows.

        Args:
            turned: (24, 3, 3) the bones' rotations in the world.
            placed: (24, 3) their positions, metres.
        """
        mesh = self.mesh
        vertices, normals = np.empty_like(mesh.vertices), np.empty_like(mesh.normals)
        dq = dual_quaternions(turned, placed, self.body.bind)
        skin(mesh.vertices, mesh.normals, mesh.bones, mesh.weights, dq, vertices, normals)

        shadow, to_light = self._light_view(vertices)
        dark, corner = self._floor_shadow(vertices)
        return Posed(vertices, normals, shadow, to_light, dark, corner)

    def _light_view(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The depth map of an orthographic camera around the dancer that looks along the light, and its matrix (3, 4)."""
        centre = (vertices.min(0) + vertices.max(0)).astype(np.float64) / 2
        side = np.cross([0.0, 1.0, 0.0], self._key)
        side /= np.linalg.norm(side)
        up = np.cross(self._key, side)
        scale = SHADOW_SIZE / SHADOW_SPAN
        to_light = np.empty((3, 4))
        to_light[:, :3] = side * scale, up * scale, -self._key
        to_light[:, 3] = -to_light[:, :3] @ centre + (SHADOW_SIZE / 2, SHADOW_SIZE / 2, 0)
        points = (vertices @ to_light[:, :3].T + to_light[:, 3]).astype(np.float32)
        shadow = np.full((SHADOW_SIZE, SHADOW_SIZE), 1e9, np.float32)
        number = np.empty((SHADOW_SIZE, SHADOW_SIZE), np.int32)
        fill(points, self.mesh.triangles, 1, 0.0, 0.0, shadow, number)

        return shadow, to_light

    def _floor_shadow(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(F, F) f32 how dark the floor is, 0 … 1, and (2,) world x and z of its corner.

        The vertices along the light onto the floor; and, softer, straight down (contact).
        """
        centre = (vertices.min(0) + vertices.max(0)).astype(np.float64) / 2

        texel = FLOOR_SPAN / FLOOR_SIZE
        reach = self._key[[0, 2]] / self._key[1]
        corner = centre[[0, 2]] - reach * (centre[1] - self.floor) / 2 - FLOOR_SPAN / 2
        cast = splat(vertices, self.floor, reach[0], reach[1], corner, texel, FLOOR_SIZE)
        soft = (cast < 10).astype(np.float32)
        blur(soft, 3)
        below = splat(vertices, self.floor, 0.0, 0.0, corner, texel, FLOOR_SIZE)
        near = np.exp(-below / 0.12)
        blur(near, 2)
        wide = np.exp(-below / 0.8)
        blur(wide, 12)
        key, ambient = self._lights[4].mean() * self._key[1], self._lights[2].mean()
        dark = 1 - (1 - soft * key / (key + ambient)) * (1 - 0.55 * near) * (1 - 0.35 * wide)
        # linear light -> what a picture's values are to be multiplied by
        dark = 1 - np.maximum(1 - dark, 0.02) ** (1 / 2.2)

        return dark.astype(np.float32), corner

    def draw(self, posed: Posed, camera: Camera, tone: np.ndarray, image: np.ndarray, floor_map: np.ndarray) -> Box:
        """Draws the dancer and the shadow on the floor into a picture of the empty room.

        Args:
            posed: the moment.
            camera: whose picture it is.
            tone: (3, 4096) the camera's `tone_curve`.
            image: (H, W, 3) uint8, changed in place.
            floor_map: (H, W, 2) f32 world x and z of the floor at each pixel; 1e9 where there is none.

        Returns:
            The box that was changed: x0, y0, x1, y1.
        """
        return around(self.draw_shadow(posed, camera, image, floor_map), self.draw_body(posed, camera, tone, image))

    def draw_body(self, posed: Posed, camera: Camera, tone: np.ndarray, image: np.ndarray) -> Box:
        """The dancer alone, over what is there; arguments as of `draw`."""
        mesh = self.mesh
        height, width = image.shape[:2]
        nothing = width, height, 0, 0
        points = np.empty_like(posed.vertices)
        # a dancer around the lens cannot be drawn, nor can anybody make sense of it
        if project(posed.vertices, camera.rotation, camera.translation, camera.matrix, camera.distortion, points):
            return nothing
        low = np.floor(points[:, :2].min(0) / SAMPLES).astype(int)
        high = np.ceil(points[:, :2].max(0) / SAMPLES).astype(int) + 1
        x0, y0 = max(low[0], 0), max(low[1], 0)
        x1, y1 = min(high[0], width), min(high[1], height)
        if x0 >= x1 or y0 >= y1:
            return nothing
        depth, number = self.rasterise(points, (x0, y0, x1, y1))
        scale = camera.matrix[0, 0] / float(np.median(points[:, 2]))  # pixels per metre on the dancer

        surface = Surface(
            points, mesh.triangles, posed.vertices, posed.normals, mesh.vertices, mesh.materials, self._tints,
            mesh.occlusion, self._paint,
        )  # fmt: skip
        lighting = Lighting(posed.shadow, posed.to_light, self._lights, camera.position)
        resolve(image, x0, y0, depth, number, surface, lighting, 0.5 / scale, tone)

        return x0, y0, x1, y1

    def rasterise(self, points: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Depth (metres, 1e9 where nothing is) and triangle numbers, `SAMPLES` times as fine as the box's pixels."""
        x0, y0, x1, y1 = box
        shape = (SAMPLES * (y1 - y0), SAMPLES * (x1 - x0))
        if self._depth.size < shape[0] * shape[1]:
            self._depth = np.empty(shape[0] * shape[1], np.float32)
            self._number = np.empty(shape[0] * shape[1], np.int32)
        depth = self._depth[: shape[0] * shape[1]].reshape(shape)
        number = self._number[: shape[0] * shape[1]].reshape(shape)
        depth.fill(1e9)
        fill(points, self.mesh.triangles, 1, float(SAMPLES * x0), float(SAMPLES * y0), depth, number)
        return depth, number

    def depth(self, posed: Posed, camera: Camera) -> np.ndarray:
        """(H, W) f32 the dancer's depth in the camera's frame at every pixel's centre, metres; inf where nobody is."""
        width, height = camera.size
        points = np.empty_like(posed.vertices)
        project(posed.vertices, camera.rotation, camera.translation, camera.matrix, camera.distortion, points)
        depth, _ = self.rasterise(points, (0, 0, width, height))
        # a pixel's centre lies between its four samples
        least = depth.reshape(height, SAMPLES, width, SAMPLES).min(axis=(1, 3))
        return np.where(least < 1e8, least, np.inf)

    def draw_shadow(self, posed: Posed, camera: Camera, image: np.ndarray, floor_map: np.ndarray) -> Box:
        """The shadow on the floor alone; arguments as of `draw`."""
        height, width = image.shape[:2]
        rows, columns = np.nonzero(posed.floor_shadow > 0.01)
        if len(rows) == 0:
            return width, height, 0, 0
        texel = FLOOR_SPAN / FLOOR_SIZE
        x = posed.floor_corner[0] + np.array([columns.min() - 1, columns.max() + 2]) * texel
        z = posed.floor_corner[1] + np.array([rows.min() - 1, rows.max() + 2]) * texel
        # the outline of the shadow's box, finely enough for the lens to bend it
        t = np.linspace(0, 1, 9)
        xs = np.concatenate([x[0] + t * (x[1] - x[0]), np.full(9, x[1]), x[1] - t * (x[1] - x[0]), np.full(9, x[0])])
        zs = np.concatenate([np.full(9, z[0]), z[0] + t * (z[1] - z[0]), np.full(9, z[1]), z[1] - t * (z[1] - z[0])])
        outline = np.stack([xs, np.full_like(xs, self.floor), zs], axis=1)
        seen = camera.project(outline)
        if not np.isfinite(seen).all():
            x0, y0, x1, y1 = 0, 0, width, height
        else:
            x0, y0 = np.clip(np.floor(seen.min(0)).astype(int) - 2, 0, (width, height))
            x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int) + 3, 0, (width, height))
        if x0 >= x1 or y0 >= y1:
            return width, height, 0, 0
        darken_floor(image, floor_map, posed.floor_shadow, posed.floor_corner, texel, x0, y0, x1, y1)
        return int(x0), int(y0), int(x1), int(y1)
