"""The lamps, and how skin, lips and eyes answer them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffdyad.render.camera import Floats, unit

Color = tuple[float, float, float]

KEY_RAYS = 10
WANDERS = (0.6, 0.38, 0.26)  # how much of red, green and blue light comes out where the skin's depth sends it
MOTTLE, BUMP, STRANDS = np.float32(0.05), np.float32(0.035), np.float32(0.18)
MOTTLE_TINT = np.float32([[0.7], [1.0], [1.1]])
HAIR = np.float32([[0.12], [0.11], [0.105]])  # how much of the skin's colour is left where hair covers it
HAIR_GLOSS = -0.15  # gloss below 0 is hair: at this it covers, at 0 it begins
FLOOR = 0.12  # of the sky's light that finds its way in anywhere
MOIST = 0.46  # and into a mouth, from wall to wall and through the cheeks: gloss 0.6 to 0.85

FLUSH = (0.75, 0.25, 0.0)  # what a mouth's walls give to the light within it


@dataclass(frozen=True)
class Light:
    """A lamp far away.

    `direction` points to it in the camera's axes (right, up, backward), `spread_deg` is its half angle, and
    `wrap` (r, g, b) lets light creep round the terminator, as it does in skin. Without `shadow_rays` the lamp reaches
    what the sky reaches.
    """

    direction: tuple[float, float, float]
    color: Color
    spread_deg: float = 10.0
    wrap: Color = (0.0, 0.0, 0.0)
    shadow_rays: int = 0


@dataclass
class Fields:
    """What is seen at N places of a head."""

    normal: Floats  # (3, N), of any length
    soft: Floats  # (3, N), the normal of the blurred surface
    albedo: Floats  # (3, N)
    gloss: Floats  # (N,) 0..1, below 0 hair
    sky: Floats  # (N,) share of the sky that is open
    lamps: Floats  # (S, N) share that arrives of each lamp with a shadow


@dataclass(frozen=True)
class Studio:
    """A lighting set-up. The first lamp is the key: it always casts a soft shadow."""

    lights: tuple[Light, ...] = (
        Light((-0.56, 0.48, 0.80), (1.85, 1.68, 1.50), 15.0, (0.32, 0.19, 0.13)),  # key, warm
        Light((0.85, 0.10, 0.70), (0.26, 0.29, 0.34), 30.0, (0.60, 0.55, 0.50)),  # fill
        Light((0.62, 0.55, -1.20), (0.95, 1.05, 1.25), 16.0, shadow_rays=4),  # rim, cool, from behind
    )
    sky: Color = (0.25, 0.28, 0.33)
    ground: Color = (0.13, 0.10, 0.085)
    backdrop: tuple[Color, Color] = ((0.118, 0.130, 0.150), (0.014, 0.016, 0.021))  # centre, corners
    exposure: float = 0.56

    @staticmethod
    def frontal() -> Studio:
        """One lamp on the lens and an even sky: the same from left and right."""
        return Studio(lights=(Light((0.0, 0.0, 1.0), (1.5, 1.5, 1.5)),), sky=(0.3,) * 3, ground=(0.3,) * 3)

    def directions(self, axes: Floats) -> Floats:  # camera axes (3, 3) -> (lights, 3) in the world
        return unit(np.float32([light.direction for light in self.lights])) @ axes

    def paint_backdrop(self, size: tuple[int, int]) -> Floats:  # -> (H, W, 3) display linear
        width, height = size
        x, y = np.meshgrid((np.arange(width) + 0.5) / height, (np.arange(height) + 0.5) / height)
        distance = np.hypot(x - 0.5 * width / height, y - 0.46)
        glow = np.exp(-((distance / 0.48) ** 2))[..., None]
        inner, outer = np.asarray(self.backdrop)
        return (outer + (inner - outer) * glow).astype(np.float32)

    def shadow_rays(self, lamp: int) -> int:
        return self.lights[lamp].shadow_rays or (KEY_RAYS if lamp == 0 else 0)

    def shade(
        self,
        fields: Fields,
        view: Floats,  # (3, N) unit, towards the eye
        inside: NDArray[np.bool_],  # (N,) seen from behind
        axes: Floats,  # (3, 3) of the camera
        relief: Floats | None = None,  # (N, 5) of `grain`, the last for hair
    ) -> Floats:  # (3, N) display linear, 0..1
        cover, gloss = np.clip(fields.gloss / HAIR_GLOSS, 0, 1), np.clip(fields.gloss, 0, 1)
        albedo, normal = fields.albedo, _unit(fields.normal)
        hair = HAIR
        if relief is not None:
            cover = np.clip(1.3 * (cover + 0.8 * cover * (1 - cover) * relief[:, 4]), 0, 1)
            hair = HAIR * np.clip(1 + 0.24 * relief[:, 4], 0.3, 2.0)
            rough = np.clip(1.2 - np.abs(gloss - 0.25) / 0.2, 0, 1)
            albedo = albedo * (1 + (MOTTLE * rough * relief[:, 0])[None] * MOTTLE_TINT)
            normal = _unit(normal - (BUMP * rough + STRANDS * cover) * relief[:, 1:4].T)
        albedo = albedo * (1 - cover * (1 - hair))
        normal = np.where(inside, -normal, normal)
        soft = np.where(inside, normal, _unit(fields.soft))
        # What is seen through an open mouth without an inside is dark.
        wet = np.clip(10 * (gloss - 0.5), 0, 1) * np.clip(10 * (0.95 - gloss), 0, 1)
        floor = FLOOR + (MOIST - FLOOR) * wet
        sky = np.where(inside, np.float32(0.04), floor + (1 - floor) * np.clip(fields.sky, 0, 1))
        shadows = np.where(inside, np.float32(0), np.clip(fields.lamps, 0, 1))
        cosine = np.maximum((normal * view).sum(0), 0)
        mirrored = 2 * cosine * normal - view
        grazing = (1 - cosine) ** 2
        fresnel = 0.04 + 0.96 * grazing * grazing * (1 - cosine)

        up = axes[1]
        half = 0.5 + 0.5 * (up @ normal)
        occlusion = _bounced(sky, albedo)
        flush = wet * np.clip(1.2 - sky, 0, 1)
        # Lamps without a shadow of their own do not reach what sees little of the sky: teeth behind lips.
        reached = (0.25 + 0.75 * sky) * np.clip(3.0 * sky - 0.5, 0, 1)
        light = np.empty_like(normal)
        # The sky mirrored keeps eyes and lips alive between the highlights.
        sheen = fresnel * (0.25 + 0.75 * gloss) * (1 - 0.8 * cover) * sky * (0.5 + 0.5 * (up @ mirrored))
        shine = np.empty_like(normal)
        for c in range(3):
            light[c] = (self.ground[c] + (self.sky[c] - self.ground[c]) * half) * occlusion[c] * (1 + flush * FLUSH[c])
            shine[c] = self.sky[c] * sheen

        sharp = np.exp2(3.0 + 7.5 * gloss)
        polish = (1 - 0.6 * cover) * np.minimum(fresnel, 0.2) * (0.05 + 0.95 * gloss * gloss)
        column = 0
        for index, (lamp, direction) in enumerate(zip(self.lights, self.directions(axes), strict=True)):
            along, wandered = direction @ normal, direction @ soft
            visible = reached
            if self.shadow_rays(index):
                visible, column = shadows[column], column + 1
            # A lamp of some size: its highlight is a disc as bright as the lamp's face, seen sharp on an eye
            # and lost in the blur on skin.
            extent = math.sin(math.radians(lamp.spread_deg)) ** 2
            blur = 1 / (1 / sharp + 0.5 * extent * (1 - gloss))
            lobe = np.exp(np.minimum(blur * (direction @ mirrored - 1 + 0.5 * extent * gloss), 0))
            lobe *= polish / (extent + 2 / sharp) * np.sqrt(visible) * np.clip(1 + 8 * along, 0, 1)
            for c in range(3):
                wrap = lamp.wrap[c]
                facing = along + WANDERS[c] * (wandered - along)
                light[c] += lamp.color[c] / (1 + wrap) ** 2 * visible * np.maximum(facing + wrap, 0)
                shine[c] += lamp.color[c] * lobe
        return _film(np.float32(self.exposure) * (albedo * light + shine))


def _unit(x: Floats) -> Floats:  # (3, N)
    return x / np.sqrt(np.maximum((x * x).sum(0), 1e-12))


def _bounced(sky: Floats, albedo: Floats) -> Floats:  # (N,), (3, N) -> (3, N)
    """Occlusion with the light that bounces between a crease's walls (Jimenez et al. 2016, equation 10)."""
    a, b, c = 2.0404 * albedo - 0.3324, -4.7951 * albedo + 0.6417, 2.7552 * albedo + 0.6903
    return np.maximum(sky, ((sky * a + b) * sky + c) * sky)


def _film(x: Floats) -> Floats:
    """A film's toe and shoulder (Narkowicz 2015)."""
    return np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
