"""Motions to pictures: the heads of one or several answers side by side with their sound, and a sweep's curves.

Shapes: T frames, S samples of sound, D motion channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad.export import join_panels, plot_sweep, write_video
from diffdyad.head import HeadModel
from diffdyad.motion import Motion
from diffdyad.render import Renderer, render_frames, render_panels
from diffdyad.rotation import axis_angle_to_matrix

MOST_PANELS = 8
_CHUNK_FRAMES = 16  # vertices of so many frames exist at a time
_MOST_PROCESSES = 8


@dataclass(frozen=True)
class Panel:
    """One head of a video: parts are played one after the other; its lamp is lit from frame `speaks_from` on."""

    label: str
    parts: Sequence[Motion]
    speaks_from: int = 0

    @property
    def num_frames(self) -> int:
        return sum(len(part) for part in self.parts)

    def vertices(self, head: HeadModel) -> Iterator[np.ndarray]:
        """(t, V, 3) at a time."""
        for part in self.parts:
            for values in part.values.split(_CHUNK_FRAMES):
                with torch.no_grad():  # around the work, not the yield: the mode would reach the caller
                    vertices = head.from_motion(values, part.layout).numpy()
                yield vertices


def film(
    path: str | os.PathLike,
    head: HeadModel,
    panels: Sequence[Panel],
    sound: Tensor,  # (S,)
    sampling_rate: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes an MP4 of the panels side by side (one: without a label); returns the number of frames.

    Memory is bounded, however long the motions. progress: called with the number of frames done.
    """
    if not 1 <= len(panels) <= MOST_PANELS:
        raise ValueError(f"expected 1 to {MOST_PANELS} panels, got {len(panels)}")
    size = 512 if len(panels) == 1 else 384 if len(panels) <= 3 else 256
    renderer = Renderer.for_head(head, size=(size, size))
    processes = max(1, min(_MOST_PROCESSES, os.cpu_count() or 1))
    if len(panels) == 1:
        frames = render_frames(renderer, panels[0].vertices(head), processes, progress)
    else:
        rows = render_panels(renderer, [panel.vertices(head) for panel in panels], processes, progress)
        lamps = [_lamp(panel.speaks_from) if panel.speaks_from else None for panel in panels]
        frames = join_panels(rows, [panel.label for panel in panels], lamps)
    with closing(frames):  # ends the renderer's processes, whatever happens
        return write_video(path, frames, panels[0].parts[0].fps, sound.numpy(), sampling_rate)


def _lamp(first: int) -> Callable[[int], bool]:
    return lambda frame: frame >= first


def soundtrack(
    responder: Tensor,  # (S,)
    previous: Tensor | None,  # (S',)
    gap_s: float,
    lead_s: float,
    duration_s: float,
    sampling_rate: int,
) -> Tensor:
    """The responder's voice from `lead_s` on, and before it the previous speaker's, which ends `gap_s` earlier.

    -> (round((lead_s + duration_s) * sampling_rate),), within -1..1. Without a lead, the responder alone.
    """
    track = torch.zeros(round((lead_s + duration_s) * sampling_rate))
    onset = round(lead_s * sampling_rate)
    _mix(track, responder, onset)
    if previous is not None and lead_s > 0:
        _mix(track, previous, onset - round(gap_s * sampling_rate) - len(previous))
    return track.clamp_(-1, 1)


def _mix(track: Tensor, voice: Tensor, begin: int) -> None:
    first, last = max(begin, 0), min(begin + len(voice), len(track))
    if first < last:
        track[first:last] += voice[first - begin : last - begin]


def sweep_curves(answers: Sequence[Sequence[Motion]], scales: Sequence[float], head: HeadModel | None) -> dict:
    """What the guidance scale changes; answers: K motions per scale. -> curve's name -> (K, scales) array.

    Changes are measured against the answers at the lowest scale. head: in the motions' basis, or None.
    """
    lowest = min(range(len(scales)), key=lambda k: scales[k])
    reference, since = answers[lowest], f"from scale {scales[lowest]:g}"

    def measure(function: Callable[[Motion, Motion], float]) -> np.ndarray:
        return np.array([[function(a, r) for a, r in zip(row, reference)] for row in answers]).T

    curves = {
        f"expression: mean change {since}": measure(
            lambda a, r: (a.select("expression") - r.select("expression")).abs().mean().item()
        ),
        f"head: mean turn {since}, degrees": measure(_head_turn),
    }
    names = answers[0][0].layout.expression_names
    if names:
        for title, members in (("smile", ("mouthSmileLeft", "mouthSmileRight")),
                               ("brows raised", ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"))):  # fmt: skip
            channels = [answers[0][0].layout.channel(name) for name in members]
            curves[f"{title}: mean coefficient"] = measure(lambda a, _, c=channels: a.values[:, c].mean().item())
    if head is not None:
        lips = torch.cat([head.vertex_sets["inner_lip_upper"], head.vertex_sets["inner_lip_lower"]])
        part = head.subset(lips)
        curves["lip opening: standard deviation, mm"] = measure(lambda a, _: 1000 * _opening(part, a).std(0).item())
    return curves


def _opening(lips: HeadModel, motion: Motion) -> Tensor:  # -> (T,) metres
    with torch.no_grad():
        chunks = motion.values.split(1000)
        opening = torch.cat([lips.lip_aperture(lips.from_motion(values, motion.layout)) for values in chunks])
    return opening if len(opening) > 1 else opening.repeat(2)


def _head_turn(motion: Motion, reference: Motion) -> float:
    """Mean angle between two motions' head rotations, neck included, in degrees."""
    here, there = (
        axis_angle_to_matrix(m.select("global_orient")) @ axis_angle_to_matrix(m.select("neck_pose"))
        for m in (motion, reference)
    )
    # the chord |A - B| = 2 sqrt(2) sin(angle / 2): exact near zero, where the trace's arc cosine is not
    chord = (here - there).flatten(-2).norm(dim=-1)
    return torch.rad2deg(2 * (chord / 8**0.5).clamp(max=1).asin()).mean().item()


def plot(path: str | os.PathLike, answers: Sequence[Sequence[Motion]], scales: Sequence[float], head) -> None:
    """The curves of a sweep as a picture."""
    plot_sweep(Path(path), scales, sweep_curves(answers, scales, head), "What the context guidance scale changes")
