"""What a listener does: nods where the partner's phrases end, flashes of the brows, smiles given back.

All of it is over before the listener's own answer begins: what the previous turn does to the answer is the
planted effect (reaction.py) and nothing else.
"""

from __future__ import annotations

import numpy as np

from diffdyad.data.rehearsal.curves import Streams, add_nods, add_pulse, event_times
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.scene import Canvas, Turn

PITCH = 0


def listening(canvas: Canvas, habits: Habits, own: list[Turn], partner: list[Turn], streams: Streams) -> None:
    t, rng = canvas.times, streams("listening")
    answers = sorted(turn.start_s for turn in own if turn.kind != "backchannel")
    for turn in partner:
        if turn.kind == "backchannel":
            continue
        # own speech that overlaps the partner's end, or follows it, ends the listening
        free_until = min([turn.end_s, *(start for start in answers if start > turn.start_s)]) - 0.1
        _nods(canvas, habits, turn, free_until, rng)
        for time in event_times(rng, turn.start_s + 0.5, free_until - 0.9, 5.0 / 60.0, 1.5):
            lift = habits.brow * rng.uniform(0.15, 0.4)
            for name, gain in (("browInnerUp", 1.0), ("browOuterUp", 0.9), ("eyeWide", 0.4)):
                track = np.zeros(len(t))
                add_pulse(track, t, time, gain * lift, 0.14, 0.4, 0.12)
                canvas.add(name, track)
        _mirror(canvas, habits, turn, free_until, rng)
        _restless_lips(canvas, habits, turn, free_until, rng)
    for turn in own:  # a backchannel is nodded as well as uttered
        if turn.kind == "backchannel":
            amplitude = habits.head * rng.uniform(0.03, 0.07)
            add_nods(canvas.head[:, PITCH], t, turn.start_s - 0.1, amplitude, 1.0 + (rng.random() < 0.4), 1.9)


def _nods(canvas: Canvas, habits: Habits, turn: Turn, free_until: float, rng: np.random.Generator) -> None:
    for end in turn.phrase_ends:
        if rng.random() > habits.nod:
            continue
        frequency = rng.uniform(1.6, 2.8) * habits.tempo
        cycles = int(rng.integers(1, 4))
        start = end + rng.uniform(-0.15, 0.3)
        # as many as still fit before the own answer; a nod is never cut
        cycles = min(cycles, int((free_until - start) * frequency))
        if cycles >= 1:
            amplitude = habits.head * rng.uniform(0.03, 0.09)
            add_nods(canvas.head[:, PITCH], canvas.times, start, amplitude, cycles, frequency)


def _mirror(canvas: Canvas, habits: Habits, turn: Turn, free_until: float, rng: np.random.Generator) -> None:
    """Gives back some of the partner's smile (or concern) for a while in mid-turn."""
    length = turn.end_s - turn.start_s
    if length < 3.0 or rng.random() > 0.5:
        return
    start = turn.start_s + rng.uniform(0.8, 0.4 * length)
    end = min(start + rng.uniform(1.0, 3.0), free_until - 0.9)
    if end - start < 0.5:
        return
    on = canvas.presence(start + 0.4, end, 0.4, 0.8)
    if turn.valence > 0.15:
        canvas.add("mouthSmile", 0.3 * habits.smile * turn.valence * on)
        canvas.add("cheekSquint", 0.15 * habits.smile * turn.valence * on)
    elif turn.valence < -0.15:
        canvas.add("browInnerUp", -0.25 * habits.brow * turn.valence * on)
        canvas.add("mouthFrown", -0.08 * turn.valence * on)
    else:
        canvas.add("mouthSmile", 0.12 * habits.smile * rng.random() * on)


def _restless_lips(canvas: Canvas, habits: Habits, turn: Turn, free_until: float, rng: np.random.Generator) -> None:
    """A closed mouth is not a still one: now and then lips are pressed, drawn in, pulled aside, or one swallows."""
    for time in event_times(rng, turn.start_s + 0.3, free_until - 1.5, 9.0 / 60.0, 1.5):
        size, hold = habits.tempo * rng.uniform(0.08, 0.3), rng.uniform(0.0, 0.6)
        side = "Left" if rng.random() < 0.5 else "Right"
        movement = (
            {"mouthPress": 1.0},
            {"mouthRollLower": 0.8, "mouthRollUpper": 0.4},
            {f"mouth{side}": 0.5, f"mouthDimple{side}": 0.7},
            {"mouthShrugLower": 0.9, "mouthPress": 0.3},
        )[int(rng.integers(4))]
        for name, gain in movement.items():
            track = np.zeros(len(canvas.times))
            add_pulse(track, canvas.times, time, gain * size, 0.25, 0.5, hold)
            canvas.add(name, track)
