"""Corpora with an effect whose size and channel are known, made of one without: what the protocol is calibrated on.

A cue of the previous turn, -1, 0 or 1, moves the upper face one way or the other, most at the onset, fading within
seconds. Its size is stated as the partial R2 of the expression given the own audio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffdyad.data.exchange import PEOPLE, SPLITS, Exchange, ExchangeShards, to_row, write_shard
from diffdyad.errors import UserError
from diffdyad.evaluation.voice import frame_energy_db
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import ARKIT_EXPRESSIONS

UP = ("browInnerUp", "browOuterUpLeft", "browOuterUpRight", "eyeWideLeft", "eyeWideRight")
DOWN = ("browDownLeft", "browDownRight", "eyeSquintLeft", "eyeSquintRight", "noseSneerLeft", "noseSneerRight")
"""What rises for a cue of 1 and of -1; articulation is not touched."""

FADE_S = 2.0
_OWN_WORDS = {"i", "my", "me", "mine", "we", "our", "us"}


@dataclass(frozen=True)
class Plant:
    """channel: one of CUES, "confounded" or "placebo"; partial_r2: 0 = none."""

    channel: str
    partial_r2: float

    def __post_init__(self):
        known = (*CUES, "confounded", "placebo")
        if self.channel not in known:
            raise UserError(f"expected a channel among {', '.join(known)}, found {self.channel!r}")
        if not 0 <= self.partial_r2 < 0.5:
            raise UserError(f"expected a partial R2 from 0 to 0.5, found {self.partial_r2}")

    @property
    def name(self) -> str:
        return f"{self.channel}-{self.partial_r2:g}"


def _affect(exchange: Exchange) -> float:
    """The sign of the previous turn's valence: in words and face."""
    return float(np.sign(exchange.valence)) if abs(exchange.valence) > 0.2 else 0.0


def _timing(exchange: Exchange) -> float:
    """Whether the turn is loudest in its second half or in its first: in no word, and in nothing that has no times."""
    count = max(2, round((exchange.previous_end_s - exchange.start_s) * exchange.fps))
    level = frame_energy_db(exchange.previous.waveform, SAMPLING_RATE, exchange.fps)[:count]
    power = 10 ** (level / 10)
    half = len(power) // 2
    return 1.0 if power[half:].mean() > power[:half].mean() else -1.0


def _text(exchange: Exchange) -> float:
    """Whether the turn speaks of its speaker: in words alone."""
    words = {word.strip(".,;!?'").lower() for word in exchange.previous.text.split()}
    return 1.0 if words & _OWN_WORDS else -1.0


def _redundant(exchange: Exchange) -> float:
    """The answer's own arousal, which the own voice tells."""
    return float(np.sign(exchange.planted_response_arousal))


CUES = {"affect": _affect, "timing": _timing, "text": _text, "redundant": _redundant}


def cue_of(exchange: Exchange, plant: Plant, seed: int = 0) -> float:
    """What moves the answer's face: -1, 0 or 1."""
    if plant.channel == "confounded":
        return mood_of(exchange.session_id, seed)
    return CUES.get(plant.channel, _affect)(exchange)


def cues_of(shards: ExchangeShards, plant: Plant) -> np.ndarray:
    """Of all exchanges: (N,)."""
    return np.array([cue_of(shards[k], plant) for k in range(len(shards))])


def amplitude(partial_r2: float, cues: np.ndarray, residual_share: np.ndarray, std: np.ndarray, num_frames: int,
              fps: float, constant: bool = False) -> float:  # fmt: skip
    """How far the coefficients go for the cues (N,) to explain so much of what the own audio leaves.

    residual_share, std: (E,) variance that the own audio leaves, in variances of the channel, and its deviation.
    """
    fade = np.ones(num_frames) if constant else np.exp(-np.arange(num_frames) / fps / FADE_S)
    explained = 0.0  # mean square over time and channels, at amplitude 1
    for names, side in ((UP, cues > 0), (DOWN, cues < 0)):
        channels = [ARKIT_EXPRESSIONS.index(name) for name in names]
        explained += side.mean() * (1 - side.mean()) * np.square(fade).mean() * (1 / std[channels] ** 2).sum()
    explained /= len(std)
    wanted = partial_r2 / (1 - partial_r2) * residual_share.mean()
    return float(np.sqrt(wanted / explained)) if explained > 0 else 0.0


def with_reaction(exchange: Exchange, cue: float, size: float, session: bool = False) -> Exchange:
    """The exchange with the planted change; session: both faces carry it all the time, as a shared mood would be."""
    seconds = exchange.start_s + np.arange(exchange.responder.num_frames) / exchange.fps
    fading = np.where(seconds >= 0, np.exp(-np.maximum(seconds, 0) / FADE_S), 0.0)
    envelope = np.ones(len(seconds)) if session else fading
    people = {}
    for who in ("responder", "previous") if session else ("responder",):
        person = exchange.person(who)
        expression = np.array(person.motion["expression"], np.float32)
        for name in UP if cue > 0 else DOWN if cue < 0 else ():
            channel = ARKIT_EXPRESSIONS.index(name)
            moved = expression[:, channel] + size * envelope[: len(expression)]
            expression[:, channel] = np.clip(moved, 0, 1)
        people[who] = replace(person, motion={**person.motion, "expression": expression})
    return replace(exchange, **people)


def plant_corpus(source: str | Path, out: str | Path, plant: Plant, size: float, seed: int = 0) -> Path:
    """Writes the corpus `source` with a planted effect of amplitude `size` to `out`, shard by shard.

    placebo: planted as affect is; its model is to be trained with `data.permute_turns`.
    """
    source, out = Path(source), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    hears, sounds = plant.channel == "timing", [f"{who}_audio" for who in PEOPLE]  # which are passed on as they are
    for split in SPLITS:
        shards = ExchangeShards(source, split, audio=hears)
        for number, path in enumerate(shards.paths):
            target = out / path.name
            if target.exists():
                continue
            members = [k for k, (shard, _, _) in enumerate(shards._where) if shard == number]
            rows = []
            for k in members:
                exchange, is_mood = shards[k], plant.channel == "confounded"
                made = with_reaction(exchange, cue_of(exchange, plant, seed), size, session=is_mood)
                rows.append(to_row(made) | shards.row(k, sounds))
            write_shard(target, rows)
    return out


def mood_of(session: str, seed: int) -> float:
    """-1 or 1, by the session's name."""
    return float(np.random.default_rng([seed, *session.encode()]).choice([-1.0, 1.0]))
