"""A speaker's habits: what stays the same about a person from clip to clip. This is what `style` is to find."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from diffdyad.motion import ARKIT_EXPRESSIONS

# Spread of the resting face per channel: half-normal, so most faces rest near zero.
_REST_SPREAD = {
    "browInnerUp": 0.06, "browOuterUp": 0.05, "browDown": 0.06, "mouthSmile": 0.07, "mouthFrown": 0.05,
    "mouthPress": 0.05, "mouthDimple": 0.04, "mouthShrugLower": 0.05, "eyeSquint": 0.06, "eyeWide": 0.03,
    "eyeBlink": 0.05, "cheekSquint": 0.02, "mouthRollLower": 0.03, "noseSneer": 0.02,
}  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """Drawn once per speaker. Gains are factors around 1; rates per second or minute as named."""

    rest: np.ndarray = field(repr=False)  # (41,) resting expression
    asymmetry: np.ndarray = field(repr=False)  # (41,) factor per channel, left against right
    articulation: float  # 0.7 to 1.3, on jaw and lips
    tempo: float  # 0.85 to 1.15, how fast the head and brows move
    smile: float  # on affect, mirroring and laughter
    brow: float
    head: float
    sway: float
    nod: float  # probability of a nod at a phrase end of the partner
    gaze_aversion: float  # share of own speech spent looking elsewhere
    aversion_yaw: float  # preferred side, -1 to 1
    blinks_per_minute: float
    blink_seconds: float
    eye_opening: float
    vergence: float  # radians, each eye
    breath_hz: float
    betas: np.ndarray = field(repr=False)  # (num_betas,) identity

    @classmethod
    def draw(cls, rng: np.random.Generator, num_betas: int = 10) -> Habits:
        rest = np.zeros(len(ARKIT_EXPRESSIONS))
        asymmetry = np.ones(len(ARKIT_EXPRESSIONS))
        for name, spread in _REST_SPREAD.items():
            level = abs(rng.normal(0.0, spread))
            for side in ("", "Left", "Right"):
                if name + side in ARKIT_EXPRESSIONS:
                    rest[ARKIT_EXPRESSIONS.index(name + side)] = level * rng.uniform(0.8, 1.2)
        for index, name in enumerate(ARKIT_EXPRESSIONS):
            # lids move together; a crooked smile is common, a crooked jaw of visemes is not
            spread = 0.0 if name.startswith(("eyeBlink", "eyeWide", "mouthClose")) else 0.08
            factor = np.clip(1.0 + rng.normal(0.0, spread), 0.75, 1.25)
            asymmetry[index] = factor if name.endswith(("Left", "Right")) else 1.0
        uniform = rng.uniform
        return cls(
            rest=rest,
            asymmetry=asymmetry,
            articulation=uniform(0.7, 1.3),
            tempo=uniform(0.85, 1.15),
            smile=uniform(0.6, 1.4),
            brow=float(np.exp(rng.normal(0.0, 0.35))),
            head=float(np.exp(rng.normal(0.0, 0.3))),
            sway=float(np.exp(rng.normal(0.0, 0.25))),
            nod=uniform(0.3, 0.75),
            gaze_aversion=uniform(0.2, 0.5),
            aversion_yaw=uniform(-1.0, 1.0),
            blinks_per_minute=float(np.clip(rng.normal(19.0, 5.0), 11.0, 29.0)),
            blink_seconds=uniform(0.13, 0.175),
            eye_opening=uniform(0.7, 1.3),
            vergence=uniform(0.01, 0.025),
            breath_hz=uniform(0.2, 0.3),
            betas=rng.normal(0.0, 0.8, num_betas).astype(np.float32),
        )
