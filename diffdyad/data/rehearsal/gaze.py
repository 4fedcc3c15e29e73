"""Where the eyes go: at the partner's face, and away from it while a thought is put into words.

Speakers look away as they begin and look back as they end (Kendon 1967); listeners mostly look. Between
fixations the eyes jump, both together, in a frame or two; while the head turns they counter-rotate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from diffdyad.data.rehearsal.curves import smoothstep
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.scene import Canvas, Turn


@dataclass(frozen=True)
class Fixation:
    """From `time_s` on, the eyes rest at (pitch down, yaw left), radians in the world; averted or not."""

    time_s: float
    pitch: float
    yaw: float
    averted: bool


def _averted_spans(habits: Habits, own: list[Turn], duration_s: float, rng: np.random.Generator) -> list:
    """Stretches in which the person looks elsewhere, (start_s, end_s), in order and apart."""
    spans: list[tuple[float, float]] = []

    def fill(start: float, end: float, share: float, contact_s: float) -> None:
        # alternate contact and aversion, so that `share` of the time is averted
        t = start + rng.exponential(contact_s)
        while t < end - 0.4:
            length = min(rng.uniform(0.5, 1.9), end - t)
            spans.append((t, t + length))
            t += length + rng.exponential(length * (1 - share) / share) + 0.3

    t = 0.0
    for turn in own:
        if turn.kind == "backchannel":
            continue
        fill(t, turn.start_s - 0.8, 0.10, 4.0)
        begin = turn.start_s
        if rng.random() < 0.65 and turn.end_s - turn.start_s > 1.5:
            away = turn.start_s + rng.uniform(-0.35, 0.1)
            begin = away + rng.uniform(0.6, 1.8)
            spans.append((away, begin))
        fill(begin, turn.end_s - rng.uniform(0.4, 0.9), habits.gaze_aversion, 1.2)
        t = turn.end_s
    fill(t, duration_s, 0.10, 4.0)
    spans.sort()
    return [span for k, span in enumerate(spans) if k == 0 or span[0] > spans[k - 1][1] + 0.15]


def fixations(habits: Habits, own: list[Turn], duration_s: float, rng: np.random.Generator) -> list[Fixation]:
    """All fixations of a session, in order, the first at 0 s."""
    result: list[Fixation] = []

    def dwell(start: float, end: float, centre: tuple[float, float], spread: tuple[float, float], averted: bool):
        t = start
        while t < end - 0.12:
            pitch, yaw = (c + rng.normal(0.0, s) for c, s in zip(centre, spread))
            result.append(Fixation(t, pitch, yaw, averted))
            t += 0.25 + rng.gamma(2.0, 0.35 if averted else 0.5)

    t = 0.0
    for start, end in _averted_spans(habits, own, duration_s, rng):
        dwell(t, start, (0.0, 0.0), (0.014, 0.018), False)
        side = 1.0 if rng.random() < 0.5 + 0.35 * habits.aversion_yaw else -1.0
        yaw = side * rng.uniform(0.09, 0.30)
        pitch = rng.normal(0.02, 0.075)
        dwell(start, end, (pitch, yaw), (0.015, 0.025), True)
        t = end
    dwell(t, duration_s, (0.0, 0.0), (0.014, 0.018), False)
    return result


def draw_gaze(canvas: Canvas, points: list[Fixation], rng: np.random.Generator) -> None:
    """Sets canvas.gaze from the fixations: minimum-jerk saccades, their length by the main sequence."""
    starts = np.array([p.time_s for p in points])
    goal = np.array([[p.pitch, p.yaw] for p in points])  # (N, 2)
    origin = np.vstack([goal[:1], goal[:-1]])
    # 21 ms and 2.2 ms per degree (Carpenter 1988)
    duration = 0.021 + 0.0022 * np.degrees(np.linalg.norm(goal - origin, axis=-1))
    k = np.maximum(np.searchsorted(starts, canvas.times, side="right") - 1, 0)
    progress = smoothstep((canvas.times - starts[k]) / duration[k])[:, None]
    canvas.gaze += origin[k] + (goal[k] - origin[k]) * progress
    canvas.gaze += rng.normal(0.0, 0.002, canvas.gaze.shape)


def head_follows(canvas: Canvas, points: list[Fixation], habits: Habits) -> None:
    """Part of every averted look is the head's: it starts with the eyes and arrives a third of a second later."""
    share = 0.28 * min(habits.head, 1.6)
    turned = np.zeros(2)
    for before, after in pairwise(points):
        if after.averted != before.averted:
            goal = share * np.array([after.pitch, after.yaw]) if after.averted else np.zeros(2)
            progress = smoothstep((canvas.times - after.time_s) / (0.42 / habits.tempo))
            canvas.head[:, :2] += (goal - turned) * progress[:, None]
            turned = goal


def eyes_and_lids(canvas: Canvas, habits: Habits) -> tuple[np.ndarray, np.ndarray]:
    """Left and right eye rotations (T, 3) within the head; the lids follow the gaze's pitch."""
    within = np.clip(canvas.gaze - canvas.head[:, :2], -0.42, 0.42)
    pitch, yaw = within.T
    canvas.add("eyeBlink", 1.1 * np.maximum(pitch, 0.0))
    canvas.add("eyeWide", 0.6 * np.maximum(-pitch, 0.0))
    # the left eye turns right and the right eye left, to meet at the partner; looking away, far things are parallel
    vergence = habits.vergence * np.exp(-((yaw / 0.15) ** 2))
    zeros = np.zeros_like(yaw)
    left = np.stack([pitch, yaw - vergence, zeros], axis=-1)
    right = np.stack([pitch, yaw + vergence, zeros], axis=-1)
    return left, right
