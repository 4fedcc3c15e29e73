"""Blinks: a renewal process of their own, and more of them at boundaries of speech and large gaze shifts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from diffdyad.data.rehearsal.curves import event_times, smoothstep
from diffdyad.data.rehearsal.gaze import Fixation
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.scene import Canvas, Turn, channels_of

MINIMUM_APART_S = 0.4
_CLOSING, _SHUT, _OPENING = 0.30, 0.24, 0.46  # shares of the whole movement
_WHOLE_PER_CLOSED = 1.30  # the whole movement lasts so much longer than its part above 0.2


def blink_times(
    habits: Habits, own: list[Turn], points: list[Fixation], duration_s: float, rng: np.random.Generator
) -> list[float]:
    """When the lids begin to close, in order, at least MINIMUM_APART_S apart.

    Boundaries attract about a third of all blinks; the background process supplies what is missing to the
    person's own rate. People blink more while they speak than while they listen.
    """
    attracted: list[float] = []
    eager = habits.blinks_per_minute / 19.0
    for before, after in pairwise(points):
        if np.hypot(after.pitch - before.pitch, after.yaw - before.yaw) > 0.12 and rng.random() < 0.2 * eager:
            attracted.append(after.time_s - rng.uniform(0.0, 0.06))
    for turn in own:
        attracted += [end + rng.uniform(0.0, 0.25) for end in turn.phrase_ends if rng.random() < 0.3 * eager]
        if rng.random() < 0.25 * eager:
            attracted.append(turn.start_s - rng.uniform(0.1, 0.4))
    wanted = habits.blinks_per_minute / 60.0
    background = max(1.1 * wanted - len(attracted) / duration_s, 0.3 * wanted)
    candidates = event_times(rng, 0.0, duration_s, background, 0.6)
    speaking = [(turn.start_s, turn.end_s) for turn in own if turn.kind != "backchannel"]
    kept = [t for t in candidates if any(a <= t <= b for a, b in speaking) or rng.random() < 0.82]
    times: list[float] = []
    for t in sorted(attracted + kept):
        if 0.0 < t < duration_s and (not times or t - times[-1] >= MINIMUM_APART_S):
            times.append(t)
    return times


def draw_blinks(canvas: Canvas, habits: Habits, times: list[float], rng: np.random.Generator) -> None:
    """Closes both lids at each time; sampled, not low-passed, as a camera's short exposure sees them."""
    track = np.zeros(len(canvas.times))
    for start in times:
        whole = _WHOLE_PER_CLOSED * habits.blink_seconds * rng.uniform(0.88, 1.15)
        depth = rng.uniform(0.9, 1.0) if rng.random() < 0.93 else rng.uniform(0.5, 0.8)
        first, last = np.searchsorted(canvas.times, (start, start + whole))
        t = (canvas.times[first:last] - start) / whole
        shape = smoothstep(t / _CLOSING) * smoothstep((1.0 - t) / _OPENING)
        track[first:last] = np.maximum(track[first:last], depth * shape)
    for channel in channels_of("eyeBlink"):
        lids = canvas.expression[:, channel]
        # a blink starts from where the lid is: the rest of the way, not the whole way again
        canvas.expression[:, channel] = lids + track * np.maximum(1.0 - lids, 0.0)
    for channel in channels_of("eyeWide"):
        canvas.expression[:, channel] *= 1.0 - track
