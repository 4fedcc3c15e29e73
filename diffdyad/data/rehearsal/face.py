"""The speaking face and head beyond the mouth: accents, questions, affect, posture, breath, laughter."""

from __future__ import annotations

import numpy as np

from diffdyad.data.rehearsal.curves import Streams, add_nods, add_pulse, smooth_noise, smoothstep
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.scene import Canvas, Turn

PITCH, YAW, ROLL = 0, 1, 2


def posture(canvas: Canvas, habits: Habits, own: list[Turn], fps: float, streams: Streams) -> None:
    """Slow drift of the head, sway that speaking enlivens, a shift of posture at some turns, breath."""
    n, t = len(canvas.times), canvas.times
    talk = canvas.during([turn for turn in own if turn.kind != "backchannel"])
    excitement = 1.0 + 0.35 * canvas.during(own, lambda turn: turn.arousal)
    rng = streams("posture")
    for axis, drift, sway in ((PITCH, 0.014, 0.0100), (YAW, 0.018, 0.0190), (ROLL, 0.012, 0.0130)):
        slow = smooth_noise(rng, n, fps, 4.0)
        quick = smooth_noise(rng, n, fps, 0.28 / habits.tempo)
        lively = (0.45 + 0.55 * talk) * excitement
        canvas.head[:, axis] += habits.sway * (drift * slow + sway * quick * lively)
    stance = np.zeros(3)
    for turn in own:
        if rng.random() < 0.5 and turn.kind != "backchannel":
            taken = rng.normal(0.0, 1.0, 3) * np.array([0.016, 0.024, 0.02]) * habits.sway
            canvas.head += smoothstep((t - turn.start_s + 0.3) / 0.9)[:, None] * (taken - stance)
            stance = taken
    phase = 2.0 * np.pi * habits.breath_hz * t + rng.uniform(0.0, 6.28)
    canvas.head[:, PITCH] -= 0.003 * np.sin(phase + 0.6 * smooth_noise(rng, n, fps, 5.0))
    for turn in own:  # a breath before speaking: lips part, head lifts
        if turn.kind in ("verbal", "mixed") and rng.random() < 0.6:
            add_pulse(canvas.jaw, t, turn.start_s - 0.18, rng.uniform(0.012, 0.035), 0.22, 0.2)
            add_pulse(canvas.head[:, PITCH], t, turn.start_s - 0.15, -rng.uniform(0.006, 0.02), 0.3, 0.35)


def accents(canvas: Canvas, habits: Habits, own: list[Turn], streams: Streams) -> None:
    """Stressed syllables move the head, and some of them the brows; questions lift the brows at their end."""
    t, rng = canvas.times, streams("accents")
    inner, outer, wide, down = (np.zeros(len(t)) for _ in range(4))
    for turn in own:
        lively = habits.head * (1.0 + 0.4 * turn.arousal)
        for accent in turn.accents:
            rise, fall = rng.uniform(0.13, 0.2) / habits.tempo, rng.uniform(0.2, 0.34) / habits.tempo
            peak = accent.time_s + rng.normal(0.03, 0.03)
            draw = rng.normal(0.0, 1.0, 3)
            if rng.random() < 0.8:
                sign = 1.0 if rng.random() < 0.75 else -0.7
                amplitude = sign * lively * accent.weight * (0.030 + 0.010 * draw[0])
                add_pulse(canvas.head[:, PITCH], t, peak, amplitude, rise, fall)
                # most nods are prepared by a lift
                add_pulse(canvas.head[:, PITCH], t, peak - rise - 0.04, -0.35 * amplitude, 0.15, rise)
            if rng.random() < 0.6:
                add_pulse(canvas.head[:, YAW], t, peak, lively * accent.weight * 0.034 * draw[1], rise, fall * 1.2)
            if rng.random() < 0.5:
                add_pulse(canvas.head[:, ROLL], t, peak, lively * accent.weight * 0.018 * draw[2], rise, fall)
            if rng.random() < 0.5:
                lift = habits.brow * accent.weight * rng.uniform(0.14, 0.50) * (1.0 + 0.5 * max(turn.arousal, 0))
                hold = rng.uniform(0.0, 0.25)
                if turn.valence < -0.25 and rng.random() < 0.6:
                    add_pulse(down, t, peak, 0.8 * lift, 0.16, 0.4, hold)
                else:
                    add_pulse(inner, t, peak, lift, 0.16, 0.4, hold)
                    add_pulse(outer, t, peak, 0.8 * lift, 0.16, 0.4, hold)
                    add_pulse(wide, t, peak, 0.75 * lift, 0.14, 0.35, hold)
        if turn.question and rng.random() < 0.75:
            lift = habits.brow * rng.uniform(0.2, 0.4)
            for track, gain in ((inner, 1.0), (outer, 0.8), (wide, 0.3)):
                add_pulse(track, t, turn.end_s - 0.15, gain * lift, 0.4, 0.5, 0.3)
            tilt = rng.normal(0.0, 0.03)
            add_pulse(canvas.head[:, ROLL], t, turn.end_s - 0.1, tilt, 0.5, 0.8, 0.3)
    canvas.add("browInnerUp", inner)
    canvas.add("browOuterUp", outer)
    canvas.add("eyeWide", habits.eye_opening * wide)
    canvas.add("browDown", down)
    canvas.add("eyeSquint", 0.4 * down)


def affect(canvas: Canvas, habits: Habits, own: list[Turn], fps: float, streams: Streams) -> None:
    """The speaker's own feeling on the speaker's own face, coming and going while it lasts."""
    rng, n = streams("affect"), len(canvas.times)

    def strand(value, scale: float) -> np.ndarray:
        wave = np.clip(1.0 + 0.35 * smooth_noise(rng, n, fps, 1.2), 0.2, 1.8)
        return scale * wave * canvas.during(own, value, rise_s=0.45, fall_s=0.9)

    glad = strand(lambda turn: max(turn.valence, 0.0), habits.smile)
    angry = strand(lambda turn: max(-turn.valence, 0.0) * max(0.35 + turn.arousal, 0.0), 1.0)
    sad = strand(lambda turn: max(-turn.valence, 0.0) * max(0.35 - turn.arousal, 0.0), 1.0)
    lively = strand(lambda turn: max(turn.arousal, 0.0), habits.brow)
    for name, track in {
        "mouthSmile": 0.36 * glad,
        "cheekSquint": 0.24 * glad,
        "mouthDimple": 0.10 * glad,
        "eyeSquint": 0.12 * glad + 0.20 * angry,
        "mouthFrown": 0.18 * angry + 0.30 * sad,
        "browDown": 0.36 * angry,
        "noseSneer": 0.16 * angry,
        "mouthPress": 0.08 * angry,
        "browInnerUp": 0.38 * sad + 0.10 * lively,
        "eyeBlink": 0.10 * sad,
        "mouthShrugLower": 0.16 * sad,
        "browOuterUp": 0.09 * lively,
        "eyeWide": 0.14 * lively,
    }.items():
        canvas.add(name, track)
    # tone of the brows and the corners of the mouth: never quite still
    for name, scale in (
        ("browInnerUp", 0.10 * habits.brow), ("browOuterUp", 0.07 * habits.brow),
        ("eyeWide", 0.08 * habits.eye_opening), ("mouthSmile", 0.08 * habits.smile),
    ):  # fmt: skip
        canvas.add(name, scale * np.maximum(smooth_noise(rng, n, fps, 1.6), -0.3))
    canvas.add("eyeSquint", 0.05 * np.maximum(smooth_noise(rng, n, fps, 2.0), -0.3))
    canvas.head[:, PITCH] += 0.05 * sad - 0.015 * glad


def sounds(canvas: Canvas, habits: Habits, own: list[Turn], streams: Streams) -> None:
    """Laughter, sighs and gasps take the whole face; the mouth's opening comes with their phones."""
    t, rng = canvas.times, streams("sounds")
    for turn in own:
        for sound in turn.sounds:
            strength = rng.uniform(0.75, 1.1)
            if sound.kind == "laugh":
                on = strength * canvas.presence(sound.start_s + 0.1, sound.end_s, 0.35, 1.1)
                for name, gain in (
                    ("mouthSmile", 0.55 * habits.smile), ("cheekSquint", 0.50), ("eyeSquint", 0.40),
                    ("mouthDimple", 0.12), ("noseSneer", 0.10), ("browOuterUp", 0.08), ("eyeBlink", 0.14),
                ):  # fmt: skip
                    canvas.add(name, gain * on)
                canvas.head[:, PITCH] -= rng.uniform(0.06, 0.14) * on
                canvas.head[:, ROLL] += rng.normal(0.0, 0.03) * on
                for burst in sound.bursts:
                    add_pulse(canvas.head[:, PITCH], t, burst, 0.016 * strength, 0.09, 0.11)
            elif sound.kind == "sigh":
                on = strength * canvas.presence(sound.start_s, sound.end_s, 0.3, 0.7)
                for name, gain in (
                    ("browInnerUp", 0.22), ("eyeBlink", 0.22), ("mouthFrown", 0.12), ("cheekPuff", 0.10),
                ):  # fmt: skip
                    canvas.add(name, gain * on)
                canvas.head[:, PITCH] += 0.05 * on
            else:
                on = strength * canvas.presence(sound.start_s, sound.end_s, 0.12, 0.7)
                for name, gain in (("browInnerUp", 0.45), ("browOuterUp", 0.40), ("eyeWide", 0.50)):
                    canvas.add(name, gain * on)
                canvas.head[:, PITCH] -= 0.05 * on


def silent_answers(canvas: Canvas, habits: Habits, own: list[Turn], streams: Streams) -> None:
    """An answer without a sound: a nod or a shake, a smile or pressed lips."""
    t, rng = canvas.times, streams("silent")
    for turn in own:
        if turn.kind != "silent":
            continue
        length = max(turn.end_s - turn.start_s, 0.6)
        axis = PITCH if turn.valence > -0.2 else YAW
        frequency = rng.uniform(1.4, 2.0)
        cycles = max(1.0, np.floor(min(length, 2.0) * frequency))
        add_nods(canvas.head[:, axis], t, turn.start_s + 0.1, rng.uniform(0.06, 0.12) * habits.head, cycles, frequency)
        on = canvas.presence(turn.start_s + 0.1, turn.end_s - 0.2, 0.35, 0.5)
        canvas.add("mouthPress", rng.uniform(0.05, 0.3) * on)
        canvas.add("browInnerUp", rng.uniform(0.0, 0.3) * habits.brow * on)
        canvas.add("mouthSmile", 0.25 * habits.smile * max(turn.valence, 0.0) * on)
