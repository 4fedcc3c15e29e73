"""The planted effect: what the previous turn's affect does to the face of the one who answers.

One table says all of it. The change is linear in the strength K and in the four affect terms, rises late in
the listening, stands at its full size when the previous turn ends, and fades exponentially from the onset
of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.data.rehearsal.curves import smoothstep
from diffdyad.data.rehearsal.scene import channels_of
from diffdyad.motion import MotionLayout

LAYOUT = MotionLayout.arkit()


@dataclass(frozen=True)
class Gain:
    """Change at K = 1 per unit of each affect term; coefficients, or radians for rotations."""

    positive_valence: float = 0.0  # max(v, 0)
    negative_valence: float = 0.0  # max(-v, 0)
    high_arousal: float = 0.0  # max(a, 0)
    low_arousal: float = 0.0  # max(-a, 0)


PLANTED_EFFECTS: dict[str, Gain] = {
    "mouthSmile": Gain(positive_valence=0.25),
    "cheekSquint": Gain(positive_valence=0.15),
    "mouthFrown": Gain(negative_valence=0.20),
    "browDown": Gain(negative_valence=0.10),
    "browInnerUp": Gain(negative_valence=0.20, high_arousal=0.15),
    "browOuterUp": Gain(high_arousal=0.15),
    "eyeWide": Gain(high_arousal=0.15),
    "eyeSquint": Gain(low_arousal=0.10),
    "head_pitch": Gain(negative_valence=0.04, high_arousal=-0.03),
    "head_roll": Gain(positive_valence=-0.05, negative_valence=0.05),
    "nod": Gain(positive_valence=0.05, high_arousal=0.02),
    "gaze_pitch": Gain(negative_valence=0.06),
}
"""Names without a side stand for both. head_pitch and head_roll: the composed head rotation about x (+ down)
and z (+ towards the right shoulder); nod: depth of nods at `nod_hz`; gaze_pitch: both eyes (+ down)."""

NECK_SHARE = 1.0 / 3.0
"""Of every head rotation, the part that is neck_pose; the rest is global_orient."""


@dataclass(frozen=True)
class Reaction:
    """A planted reaction on one clock (seconds), and the affect of the turn that it answers."""

    rise_start_s: float
    rise_end_s: float  # end of the previous turn, or the onset where they overlap
    onset_s: float  # of the answer
    time_constant_s: float
    valence: float
    arousal: float
    strength: float
    nod_hz: float = 1.6

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        previous_start_s: float,
        previous_end_s: float,
        onset_s: float,
        valence: float,
        arousal: float,
        strength: float,
    ) -> Reaction:
        """Affect becomes clear in the last 0.5 to 1 s of the previous turn; half of it fades in 1 to 1.7 s."""
        lead, time_constant, nod_hz = rng.uniform(0.5, 1.0), rng.uniform(1.5, 2.5), rng.uniform(1.4, 2.0)
        rise_end = min(previous_end_s, onset_s)
        rise_start = max(rise_end - lead, min(previous_start_s, rise_end - 0.2))
        return cls(rise_start, rise_end, onset_s, time_constant, valence, arousal, strength, nod_hz)

    def envelope(self, times: np.ndarray) -> np.ndarray:
        """Size of the effect over time, 0 to 1: (T,) seconds -> (T,)"""
        rise = smoothstep((times - self.rise_start_s) / (self.rise_end_s - self.rise_start_s))
        return rise * np.exp(-np.maximum(times - self.onset_s, 0.0) / self.time_constant_s)


def affect_terms(valence: float, arousal: float) -> np.ndarray:
    """(positive valence, negative valence, high arousal, low arousal), each >= 0: (4,)"""
    return np.array([max(valence, 0.0), max(-valence, 0.0), max(arousal, 0.0), max(-arousal, 0.0)])


def planted_size(name: str, valence: float, arousal: float, strength: float) -> float:
    """Change of one entry of PLANTED_EFFECTS at the envelope's top."""
    gain = PLANTED_EFFECTS[name]
    gains = np.array([gain.positive_valence, gain.negative_valence, gain.high_arousal, gain.low_arousal])
    return float(strength * gains @ affect_terms(valence, arousal))


def planted_delta(reaction: Reaction, times: np.ndarray) -> np.ndarray:
    """What the reaction adds to the motion, before expressions are kept within [0, 1]: (T,) -> (T, 56)"""
    envelope = reaction.envelope(times)
    delta = np.zeros((len(times), LAYOUT.dim))
    slices = LAYOUT.slices

    def turn_head(axis: int, track: np.ndarray) -> None:
        delta[:, slices["global_orient"].start + axis] += (1.0 - NECK_SHARE) * track
        delta[:, slices["neck_pose"].start + axis] += NECK_SHARE * track

    for name in PLANTED_EFFECTS:
        track = planted_size(name, reaction.valence, reaction.arousal, reaction.strength) * envelope
        if name == "head_pitch":
            turn_head(0, track)
        elif name == "head_roll":
            turn_head(2, track)
        elif name == "nod":
            phase = 2.0 * np.pi * reaction.nod_hz * (times - reaction.rise_start_s)
            turn_head(0, track * 0.5 * (1.0 - np.cos(phase)))
        elif name == "gaze_pitch":
            for eye in ("leye_pose", "reye_pose"):
                delta[:, slices[eye].start] += track
        else:
            for channel in channels_of(name):
                delta[:, slices["expression"].start + channel] += track
    return delta


def effects_table() -> str:
    """PLANTED_EFFECTS as a Markdown table, as it stands in docs/rehearsal.md."""
    lines = [
        "| channel | valence > 0 | valence < 0 | arousal > 0 | arousal < 0 | unit |",
        "|---|---|---|---|---|---|",
    ]
    for name, gain in PLANTED_EFFECTS.items():
        gains = (gain.positive_valence, gain.negative_valence, gain.high_arousal, gain.low_arousal)
        cells = " | ".join(f"{value:+.2f}" if value else "" for value in gains)
        unit = "rad" if name in ("head_pitch", "head_roll", "nod", "gaze_pitch") else "coefficient"
        lines.append(f"| {name} | {cells} | {unit} |")
    return "\n".join(lines)
