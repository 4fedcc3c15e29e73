"""Events of a face: nods, smiles, blinks, brow raises, gaze shifts; when they happen and how long they last.

Every threshold is relative to the clip's own rest, so that a tracker's offset makes no event and a frozen face has
none. Tracks are (T,) at `fps` Hz; a track that stays below its threshold has no events, which is not an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.arrays import Array, as_array
from diffdyad.evaluation.dynamics import rotation_speed_per_frame_deg_s

BLINK_CLOSURE, LONGEST_BLINK_S = 0.2, 0.5
SMILE_RISE, SHORTEST_SMILE_S = 0.15, 0.3
BROW_RISE, SHORTEST_BROW_RAISE_S, LONGEST_BROW_RAISE_S = 0.15, 0.12, 4.0
NOD_RADIANS, NOD_HALF_S, NOD_APART_S = 0.026, 0.6, 0.8  # 1.5 degrees down and up again
SACCADE_DEG_S, SHIFT_DEGREES = 40.0, 3.0


@dataclass(frozen=True)
class Events:
    """times_s: onset (or for nods the lowest point), rising, (N,) seconds; durations_s: (N,)."""

    times_s: Array
    durations_s: Array

    def __len__(self) -> int:
        return len(self.times_s)


def blinks(lid_closure, fps: float) -> Events:
    """Lids closing by more than 0.2 above the clip's median and open again within 0.5 s; edges are interpolated."""
    track = as_array(lid_closure)
    found = stretches(track - np.median(track), BLINK_CLOSURE, BLINK_CLOSURE, fps)
    return _lasting(found, 0.0, LONGEST_BLINK_S)


def smiles(smile, fps: float) -> Events:
    """Onsets of smiles: a rise by 0.15 above the clip's tenth percentile that lasts 0.3 s; it ends at half of that."""
    track = as_array(smile)
    rest = np.percentile(track, 10) if len(track) else 0.0
    return _lasting(stretches(track - rest, SMILE_RISE, SMILE_RISE / 2, fps, open_end=True), SHORTEST_SMILE_S, np.inf)


def brow_raises(brow_raise, fps: float) -> Events:
    """Brows up by 0.15 above the clip's median for 0.12 to 4 s; it ends at half of that."""
    track = as_array(brow_raise)
    rest = np.median(track) if len(track) else 0.0
    found = stretches(track - rest, BROW_RISE, BROW_RISE / 2, fps, open_end=True)
    return _lasting(found, SHORTEST_BROW_RAISE_S, LONGEST_BROW_RAISE_S)


def nods(pitch, fps: float) -> Events:
    """Head down by at least 1.5 degrees and up again within 0.6 s each way; closer than 0.8 s they are one nod.

    pitch: (T,) radians, positive = down. times_s: the first lowest point; durations_s: to the last one, 0 = single.
    """
    track = as_array(pitch)
    lowest = np.array(peaks(track, NOD_RADIANS, max(1, round(NOD_HALF_S * fps)))) / fps
    if not len(lowest):
        return Events(np.zeros(0), np.zeros(0))
    first = np.concatenate([[True], np.diff(lowest) >= NOD_APART_S])
    last = np.concatenate([first[1:], [True]])
    return Events(lowest[first], lowest[last] - lowest[first])


def gaze_shifts(gaze, fps: float, speed_deg_s=None) -> Events:
    """Jumps of the eyes within the head: faster than 40 degrees/s, by at least 3 degrees in all.

    gaze: (T, 3) axis-angle, radians, of one eye or both eyes' mean; speed_deg_s: its
    `rotation_speed_per_frame_deg_s` (T - 1,), where it is at hand. Source: velocity threshold (I-VT), Salvucci and
    Goldberg 2000.
    """
    gaze = as_array(gaze)
    if len(gaze) < 2:
        return Events(np.zeros(0), np.zeros(0))
    speed = rotation_speed_per_frame_deg_s(gaze, fps) if speed_deg_s is None else speed_deg_s
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speed > SACCADE_DEG_S, [0]]).astype(int)))
    begin, end = edges[::2], edges[1::2]
    # small rotations: the difference of the vectors is the angle to a few per mille
    far = np.degrees(np.linalg.norm(gaze[end] - gaze[begin], axis=-1)) >= SHIFT_DEGREES
    return Events(begin[far] / fps, (end - begin)[far] / fps)


def stretches(track, on: float, off: float, fps: float, open_end: bool = False) -> Events:
    """Stretches that rise through `on` and last until the track falls through `off` <= `on`; edges interpolated.

    A stretch must begin inside the track (no event starts before it does); one that is still on at the end counts
    only with `open_end`.
    """
    track = as_array(track)
    rising = np.flatnonzero((track[:-1] <= on) & (track[1:] > on))
    falling = np.flatnonzero((track[:-1] > off) & (track[1:] <= off))
    times, durations = [], []
    free = 0.0
    for k in rising:
        start = k + (on - track[k]) / (track[k + 1] - track[k])
        if start < free:
            continue  # still within the last stretch
        after = falling[np.searchsorted(falling, k + 1) :]
        if len(after):
            end = after[0] + (track[after[0]] - off) / (track[after[0]] - track[after[0] + 1])
        elif open_end:
            end = len(track) - 1.0
        else:
            break
        times.append(start / fps)
        durations.append((end - start) / fps)
        free = end
    return Events(np.array(times), np.array(durations))


def peaks(track, prominence: float, reach: int) -> list[int]:
    """Local maxima (their middle, if flat) that stand out by `prominence` from both sides, within `reach` frames.

    Source: topographic prominence, as `scipy.signal.find_peaks` with `wlen` = 2 reach + 1.
    """
    track = as_array(track)
    if len(track) < 3:
        return []
    # the ends of runs of equal values
    change = np.flatnonzero(np.diff(track)) + 1
    starts, ends = np.concatenate([[0], change]), np.concatenate([change, [len(track)]]) - 1
    values = track[starts]
    is_top = np.zeros(len(values), bool)
    is_top[1:-1] = (values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])
    found = []
    for middle in ((starts + ends) // 2)[is_top]:
        height = track[middle]
        left, right = track[max(0, middle - reach) : middle], track[middle + 1 : middle + 1 + reach]
        higher = np.flatnonzero(left > height)
        left = left[higher[-1] + 1 :] if len(higher) else left
        higher = np.flatnonzero(right > height)
        right = right[: higher[0]] if len(higher) else right
        if height - max(left.min(initial=height), right.min(initial=height)) >= prominence:
            found.append(int(middle))
    return found


def _lasting(events: Events, shortest_s: float, longest_s: float) -> Events:
    keep = (events.durations_s >= shortest_s) & (events.durations_s <= longest_s)
    return Events(events.times_s[keep], events.durations_s[keep])
