"""Pictures of a head: a small studio with a portrait lens, ray traced by Embree.

Why rays: `embreex` is a wheel that carries everything it needs, so a bare container without OpenGL, X or a
GPU renders the same picture as a laptop. One ray a pixel costs 15 ms for a head of 512 x 512 on one core,
which leaves time for what makes a head look real: ambient occlusion and a soft shadow of the key light
(traced per vertex, where they are smooth and free of noise), anti-aliasing where the picture needs it, and
one step of Loop subdivision, so that 5k vertices show no corners. A rasteriser in numpy would need as long
for the first hit alone, and have no shadows.

Lengths in metres, axes as FLAME: +y up, +z out of the face, +x to the character's left. The camera stands
at +z.
"""

from diffdyad.render.camera import Camera
from diffdyad.render.renderer import Renderer, neck_fade
from diffdyad.render.studio import Light, Studio
from diffdyad.render.workers import render_frames, render_panels

__all__ = ["Camera", "Light", "Renderer", "Studio", "neck_fade", "render_frames", "render_panels"]
