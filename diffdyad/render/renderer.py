"""Vertices in, picture out."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffdyad.render.camera import Camera, Floats, unit
from diffdyad.render.grain import grain
from diffdyad.render.mesh import RowSums, loop_subdivision, vertex_normals
from diffdyad.render.studio import Fields, Studio

if TYPE_CHECKING:
    from diffdyad.head import HeadModel

SKY_RAYS, SMOOTHINGS, SOFTENINGS = 12, 2, 3
SKIN_OFFSET_M = 4e-4  # rays start this far off the surface, so that they do not hit where they start
TURN_RAD = 0.3  # a head that turns by so much stays in the frame
ROUGH = 0.09  # neighbours that differ by more than this (of about 1.7) are traced again, finer


@cache
def _device():
    from embreex.rtcore import EmbreeDevice

    return EmbreeDevice()


class Renderer:
    """Renders one head; what does not change between frames is prepared once.

    The same vertices give the same bytes.

    Args:
        faces: (F, 3) int.
        colors: (V, 3) linear albedo, 0..1.
        gloss: (V,) 0..1: skin about 0.3, lips 0.45, what is wet within the mouth 0.6 to 0.85, eyes 1; below 0, hair.
        size: (width, height) in pixels.
        camera: such as `Camera.portrait(template)`.
        fade: (V,) 0..1, opacity: dissolves the neck's cut edge into the backdrop.
        rest: (V, 3) metres, the head at rest: skin's grain is fixed to it; without it there is none.
        held: (V,) 0..1, how far a vertex stays where `rest` has it, whatever it is told: shoulders, that a head's
            rotation about the neck's base would sway.
        studio: the lamps.
        subdivisions: 0 or 1 steps of smoothing the mesh.
        samples: rays for a pixel on an edge.
    """

    def __init__(
        self,
        faces,
        colors,
        gloss,
        size: tuple[int, int] = (512, 512),
        camera: Camera | None = None,
        *,
        fade=None,
        rest=None,
        held=None,
        studio: Studio | None = None,
        subdivisions: int = 1,
        samples: int = 5,
    ):
        if camera is None:
            raise ValueError("expected a camera, such as Camera.portrait(template vertices), got None")
        faces, colors = np.asarray(faces, np.int64), np.asarray(colors, np.float32)
        if colors.ndim != 2 or colors.shape[1] != 3 or faces.max() >= len(colors):
            raise ValueError(f"expected colors (V, 3) with V > {faces.max()} for these faces, got {colors.shape}")
        self.size, self.camera = (int(size[0]), int(size[1])), camera
        self.studio = studio or Studio()
        self.num_vertices = len(colors)
        opacity = np.ones(len(colors)) if fade is None else np.asarray(fade)
        self._has_grain = rest is not None
        rest = np.zeros((len(colors), 3)) if rest is None else np.asarray(rest)
        self._rest = rest.astype(np.float32)
        self._held = None if held is None else np.asarray(held, np.float32)[:, None]
        # r, g, b, gloss, opacity, rest
        surface = np.column_stack([colors, np.asarray(gloss), opacity, rest]).astype(np.float32)
        self._soft = np.clip((0.55 - surface[:, 3:4]) / 0.1, 0, 1)  # skin lets light through, eyes and teeth do not
        self._coarse = faces.astype(np.int32)
        self._subdivide = None
        if subdivisions:
            faces, self._subdivide = loop_subdivision(faces, len(colors))
            surface = self._subdivide(surface)
        self._faces, self._surface = faces.astype(np.int32), surface
        edges = np.concatenate([self._coarse[:, [i, j]] for i in range(3) for j in range(3)])
        edges = np.unique(edges, axis=0).astype(np.int64)  # each vertex with its neighbours and itself
        self._neighbours = RowSums(self.num_vertices, edges[:, 0], edges[:, 1])
        self._around = RowSums(len(surface), faces.reshape(-1), np.arange(faces.size) // 3)

        width, height = self.size
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        self._eye = np.asarray(camera.eye, np.float32)
        self._rays = camera.directions(columns, rows, self.size)
        self._offsets = _spread(samples)
        self._backdrop = self.studio.paint_backdrop(self.size)
        # A grey level of fixed noise hides the steps of an 8 bit gradient.
        self._dither = np.random.default_rng(0).random((height, width, 1), np.float32)
        self._empty = _encode(self._backdrop, self._dither)

    @classmethod
    def for_head(cls, head: HeadModel, size: tuple[int, int] = (512, 512), yaw_deg: float = 0.0, **options) -> Renderer:
        """A renderer framed on a head model at rest.

        The neck's lower edge dissolves into the backdrop; shoulders, where the head has them, keep still.
        """
        template, faces, colors, gloss = (
            tensor.detach().cpu().numpy()
            for tensor in (head.template, head.faces, head.vertex_colors, head.vertex_gloss)
        )
        held = shoulder_hold(template)
        moving = template[held < 0.95]
        camera = Camera.portrait(moving, yaw_deg=yaw_deg, aspect=size[0] / size[1], turn_rad=TURN_RAD)
        defaults = {"camera": camera, "fade": neck_fade(template), "rest": template, "held": held}
        return cls(faces, colors, gloss, size, **(defaults | options))

    def render(self, vertices) -> NDArray[np.uint8]:  # (V, 3) metres -> (H, W, 3)
        points = np.asarray(vertices, np.float32)
        if points.shape != (self.num_vertices, 3):
            raise ValueError(f"expected vertices ({self.num_vertices}, 3), got {points.shape}")
        if self._held is not None:
            points = points + self._held * (self._rest - points)
        if self._subdivide is not None:
            points = self._subdivide(points)
        image = self._empty.copy()
        x0, y0, x1, y1 = self._box(points)
        if x0 >= x1 or y0 >= y1:
            return image
        normals = vertex_normals(points, self._faces, self._around)
        towards = unit(self._eye - points[: self.num_vertices])
        visible = np.einsum("nk,nk->n", towards, normals[: self.num_vertices]) > -0.2
        faces = self._wanted_faces(visible)
        scene = _Scene(points, faces)
        light = self._daylight(scene, points, normals, visible)
        table = np.concatenate([normals, self._softened(normals), self._surface, light], axis=1)

        backdrop = self._backdrop[y0:y1, x0:x1]
        rays = self._rays[y0:y1, x0:x1]
        picture, hit = self._trace(scene, table, rays.reshape(-1, 3), backdrop.reshape(-1, 3))
        picture, hit = picture.reshape(backdrop.shape), hit.reshape(backdrop.shape[:2])
        rows, columns = np.nonzero(_rough(picture, hit))
        if len(rows):
            x = (columns + x0)[:, None] + self._offsets[:, 0]
            y = (rows + y0)[:, None] + self._offsets[:, 1]
            behind = np.repeat(backdrop[rows, columns], len(self._offsets), axis=0)
            fine, _ = self._trace(scene, table, self.camera.directions(x.ravel(), y.ravel(), self.size), behind)
            picture[rows, columns] = fine.reshape(len(rows), -1, 3).mean(1)
        image[y0:y1, x0:x1] = _encode(picture, self._dither[y0:y1, x0:x1])
        return image

    def _box(self, points: Floats) -> tuple[int, int, int, int]:
        """The pixels that the head can touch: left, top, right, bottom."""
        where = self.camera.project(points, self.size)
        low = np.clip(np.floor(where.min(0)) - 1, 0, self.size).astype(int)
        high = np.clip(np.ceil(where.max(0)) + 1, 0, self.size).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _wanted_faces(self, visible: NDArray[np.bool_]):  # (V,) -> (F', 3)
        """Fine faces in front, the coarse ones for what only casts shadows: half the work for the same picture."""
        if self._subdivide is None:
            return self._coarse
        front = visible[self._coarse].any(1)
        fine = self._faces.reshape(-1, 4, 3)[front].reshape(-1, 3)
        return np.concatenate([fine, self._coarse[~front]])

    def _softened(self, normals: Floats) -> Floats:  # (V', 3) -> (V', 3)
        """Normals of a blurred surface: how light that wandered under the skin sees it."""
        result = normals[: self.num_vertices]
        for _ in range(SOFTENINGS):
            result = unit(self._neighbours(result))
        result = result * self._soft + normals[: self.num_vertices] * (1 - self._soft)
        return result if self._subdivide is None else self._subdivide(result)

    def _daylight(self, scene: _Scene, points: Floats, normals: Floats, visible) -> Floats:  # -> (V', 1 + shadows)
        """The share of the sky and of each lamp with a shadow that reaches each vertex.

        Traced for the given mesh's visible vertices, spread to the fine mesh.
        """
        shadows = [k for k, lamp in enumerate(self.studio.lights) if self.studio.shadow_rays(k)]
        result = np.zeros((self.num_vertices, 1 + len(shadows)), np.float32)
        seen = np.flatnonzero(visible)
        z = normals[seen]
        origins = points[seen] + np.float32(SKIN_OFFSET_M) * z
        x, y = _tangents(z)
        disc = _disc(SKY_RAYS)
        lift = np.sqrt(1 - (disc**2).sum(1))
        around = disc[:, 0, None, None] * x + disc[:, 1, None, None] * y + lift[:, None, None] * z
        result[seen, 0] = scene.openness(origins, around)
        for column, k in enumerate(shadows, start=1):
            towards = self.studio.directions(self.camera.axes)[k]
            u, v = _tangents(towards[None])
            spread = math.tan(math.radians(self.studio.lights[k].spread_deg)) * _disc(self.studio.shadow_rays(k))
            lamp = unit(towards + spread[:, :1] * u + spread[:, 1:] * v)
            lit = np.flatnonzero(z @ towards > -0.35)
            rays = np.broadcast_to(lamp[:, None], (len(lamp), len(lit), 3))
            result[seen[lit], column] = scene.openness(origins[lit], rays)
        # Few rays make steps in a soft shadow: even them out among visible neighbours.
        weight = visible[:, None].astype(np.float32)
        for _ in range(SMOOTHINGS):
            sums = self._neighbours(np.concatenate([result * weight, weight], axis=1))
            result = sums[:, :-1] / np.maximum(sums[:, -1:], 1)
        return result if self._subdivide is None else self._subdivide(result)

    def _trace(self, scene: _Scene, table: Floats, rays: Floats, behind: Floats):  # (N, 3), (N, 3) -> (N, 3), (N,)
        """Colours along rays from the eye in front of what is `behind`, and which rays hit the head."""
        face, u, v, outward = scene.first_hit(self._eye, rays)
        hits = np.flatnonzero(face >= 0)
        corner, u, v = scene.faces[face[hits]], u[hits, None], v[hits, None]
        values = np.take(table, corner[:, 0], axis=0) * (1 - u - v)
        values += np.take(table, corner[:, 1], axis=0) * u
        values += np.take(table, corner[:, 2], axis=0) * v
        view = -rays[hits]
        inside = np.einsum("nk,nk->n", outward[hits], view) < 0
        relief = grain(values[:, 11:14], values[:, 9] < 0) if self._has_grain else None
        values = np.ascontiguousarray(values.T)
        fields = Fields(values[:3], values[3:6], values[6:9], values[9], values[14], values[15:])
        colors = self.studio.shade(fields, np.ascontiguousarray(view.T), inside, self.camera.axes, relief)
        result = behind.copy()
        result[hits] += np.clip(values[10], 0, 1)[:, None] * (colors.T - result[hits])
        return result, face >= 0


class _Scene:
    """A mesh that answers rays."""

    def __init__(self, points: Floats, faces: NDArray[np.int32]):
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.faces = faces
        self._scene = EmbreeScene(_device())
        TriangleMesh(self._scene, points, faces)

    def first_hit(
        self, origin: Floats, rays: Floats
    ):  # (3,), (N, 3) -> face (N,), or -1, u (N,), v (N,), normal (N, 3)
        found = self._scene.run(np.ascontiguousarray(np.broadcast_to(origin, rays.shape)), rays, output=1)
        return found["primID"], found["u"], found["v"], found["Ng"]

    def openness(self, origins: Floats, directions: Floats) -> Floats:  # (N, 3), (rays, N, 3) -> (N,) 0..1
        count, number = directions.shape[:2]
        start = np.ascontiguousarray(np.broadcast_to(origins, directions.shape)).reshape(-1, 3)
        rays = np.ascontiguousarray(directions, np.float32).reshape(-1, 3)
        blocked = self._scene.run(start, rays, query="OCCLUDED") >= 0
        return 1 - blocked.reshape(count, number).mean(0, dtype=np.float32)


def neck_fade(template) -> Floats:  # (V, 3) -> (V,)
    """Opacity that falls to nothing over the lowest part of the neck, or of the chest where there are shoulders."""
    height, has_shoulders = _heights(template)
    low, high = (0.0, 0.05) if has_shoulders else (0.03, 0.19)
    return _smooth((height - low) / (high - low))


def shoulder_hold(template) -> Floats:  # (V, 3) -> (V,)
    """How far a vertex keeps still while the head turns: 1 on the shoulders, if there are any, to 0 up the neck."""
    height, has_shoulders = _heights(template)
    return has_shoulders * (1 - _smooth((height - 0.16) / 0.16))


def _heights(template) -> tuple[Floats, bool]:  # (V, 3) -> (V,) 0..1 from the lowest to the highest vertex
    x, y, _ = np.asarray(template, np.float32).T
    height = (y - y.min()) / np.ptp(y)
    return height, bool(np.ptp(x[height < 0.1]) > 1.2 * np.ptp(x[height > 0.4]))


def _smooth(x: Floats) -> Floats:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _tangents(z: Floats) -> tuple[Floats, Floats]:  # (N, 3) unit -> two unit vectors across
    helper = np.where(np.abs(z[:, 1:2]) < 0.9, np.float32([[0, 1, 0]]), np.float32([[1, 0, 0]]))
    x = unit(np.cross(helper, z))
    return x, np.cross(z, x)


def _disc(count: int) -> Floats:  # (count, 2), even over the unit disc (Vogel's spiral)
    k = np.arange(count)
    radius, angle = np.sqrt((k + 0.5) / count), k * math.pi * (3 - math.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)


def _spread(count: int) -> Floats:  # (count, 2), even over the unit square (Kronecker's sequence)
    k = np.arange(count)
    return np.stack([(k + 0.5) / count, (k * (math.sqrt(5) - 1) / 2 + 0.3) % 1], axis=1).astype(np.float32)


def _rough(picture: Floats, hit: NDArray[np.bool_]) -> NDArray[np.bool_]:  # (H, W, 3), (H, W) -> (H, W)
    """Pixels that differ from a neighbour: silhouettes, creases, highlights."""
    tone = np.sqrt(picture.sum(-1))
    down = (np.abs(tone[1:] - tone[:-1]) > ROUGH) | (hit[1:] != hit[:-1])
    right = (np.abs(tone[:, 1:] - tone[:, :-1]) > ROUGH) | (hit[:, 1:] != hit[:, :-1])
    rough = np.zeros_like(hit)
    rough[1:] |= down
    rough[:-1] |= down
    rough[:, 1:] |= right
    rough[:, :-1] |= right
    return rough


@cache
def _srgb() -> Floats:
    x = np.linspace(0, 1, 4096)
    return (255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.float32)


def _encode(picture: Floats, dither: Floats) -> NDArray[np.uint8]:  # display linear 0..1 -> 8 bit sRGB
    level = _srgb()[(np.clip(picture, 0, 1) * 4095 + 0.5).astype(np.int32)]
    return np.minimum(level + dither, 255).astype(np.uint8)
