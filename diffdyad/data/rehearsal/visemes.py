"""Phonemes to mouth: coarticulated targets for the jaw and lips, and closures that close.

Each phone has targets for the mouth's channels and pulls towards them with a strength that is highest
within the phone and falls off around it, rounding earlier than the rest; the mouth is the weighted mean
of all pulls and of a weak one towards rest (dominance functions, Cohen & Massaro 1993). Contacts of lip
with lip and lip with teeth are laid over it as events of their own: a mean of targets would never close the
lips between two open vowels, and closing is what the eye looks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffdyad.data.rehearsal.curves import decimate, smoothstep
from diffdyad.data.rehearsal.phones import VOWELS
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS

MOUTH_CHANNELS = (
    "jaw", "funnel", "pucker", "rollLower", "rollUpper", "press", "lowerDown", "upperUp", "stretch", "spread",
    "shrugUpper", "tongueOut",
)  # fmt: skip
"""What a phone has targets for. jaw in radians, the rest ARKit coefficients; `spread` goes to smile and dimple."""

BILABIALS = frozenset({"M", "B", "P"})
LABIODENTALS = frozenset({"F", "V"})

INTERNAL_RATE = 100
CLOSURE_RAMP_S = 0.05
CLOSURE_MINIMUM_S = 0.055  # longer than a frame at 25 fps, so that every closure is seen
CLOSED_JAW = 0.03  # radians, upper bound while the lips are closed
BITING_JAW = 0.035  # likewise while the lower lip is at the upper teeth
BITING_ROLL = 0.3  # mouthRollLower while it is, at least
WIDEST_JAW = 0.3  # radians; shouting does not unhinge it
LIP_LEAD_S = 0.03  # the lips are in place before the sound is heard


class PhoneLike(Protocol):
    """A phone in time: `phone` is an ARPAbet class such as "AA" or "M"; stress 0, 1 (primary), 2 (secondary)."""

    phone: str
    start_s: float
    end_s: float
    stress: int


def _table(text: str) -> dict[str, dict[str, float]]:
    rows = (line.split() for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))
    return {row[0]: {k: float(v) for k, v in zip(row[1::2], row[2::2], strict=True)} for row in rows}


_TARGETS: dict[str, dict[str, float]] = _table("""
    # open and front vowels: the lips follow the jaw, upper teeth show a little
    AA     jaw 0.153  lowerDown 0.22  upperUp 0.08
    AE     jaw 0.144  lowerDown 0.25  upperUp 0.14  stretch 0.14  spread 0.1
    AH     jaw 0.099  lowerDown 0.17  upperUp 0.06
    AX     jaw 0.077  lowerDown 0.1  upperUp 0.04
    EH     jaw 0.104  lowerDown 0.21  upperUp 0.11  stretch 0.12  spread 0.08
    IH     jaw 0.077  lowerDown 0.17  upperUp 0.09  stretch 0.11  spread 0.09
    EE     jaw 0.077  lowerDown 0.2  upperUp 0.12  stretch 0.16  spread 0.14
    IY     jaw 0.061  lowerDown 0.19  upperUp 0.12  stretch 0.2  spread 0.18
    # rounded
    AO     jaw 0.131  funnel 0.34  pucker 0.12  lowerDown 0.12
    OW     jaw 0.095  funnel 0.38  pucker 0.25  lowerDown 0.08
    OO     jaw 0.077  funnel 0.36  pucker 0.36  lowerDown 0.05
    UH     jaw 0.068  funnel 0.28  pucker 0.24  lowerDown 0.08
    UW     jaw 0.05  funnel 0.32  pucker 0.52  lowerDown 0.03
    YY     jaw 0.036  funnel 0.3  pucker 0.5  lowerDown 0.04
    OE     jaw 0.068  funnel 0.34  pucker 0.34  lowerDown 0.06
    ER     jaw 0.068  funnel 0.22  pucker 0.16  lowerDown 0.1
    # consonants
    M      jaw 0.009  press 0.12  rollLower 0.06  rollUpper 0.05
    B      jaw 0.009  press 0.18  rollLower 0.1  rollUpper 0.08
    P      jaw 0.009  press 0.24  rollLower 0.12  rollUpper 0.1
    F      jaw 0.008  rollLower 0.38  upperUp 0.16
    V      jaw 0.009  rollLower 0.32  upperUp 0.14
    TH     jaw 0.017  lowerDown 0.14  upperUp 0.06  tongueOut 0.16
    DH     jaw 0.016  lowerDown 0.12  upperUp 0.05  tongueOut 0.1
    S      jaw 0.008  lowerDown 0.24  upperUp 0.12  stretch 0.15  spread 0.08
    Z      jaw 0.009  lowerDown 0.22  upperUp 0.11  stretch 0.13  spread 0.07
    SH     jaw 0.01  funnel 0.44  pucker 0.18  lowerDown 0.16  upperUp 0.1  shrugUpper 0.08
    ZH     jaw 0.011  funnel 0.4  pucker 0.17  lowerDown 0.15  upperUp 0.09  shrugUpper 0.07
    CH     jaw 0.01  funnel 0.42  pucker 0.18  lowerDown 0.15  upperUp 0.09  shrugUpper 0.08
    JH     jaw 0.011  funnel 0.38  pucker 0.16  lowerDown 0.14  upperUp 0.08  shrugUpper 0.07
    T      jaw 0.012  lowerDown 0.15  upperUp 0.06  stretch 0.05
    D      jaw 0.013  lowerDown 0.15  upperUp 0.06  stretch 0.05
    N      jaw 0.015  lowerDown 0.14  upperUp 0.05  stretch 0.04
    DX     jaw 0.017  lowerDown 0.14  upperUp 0.05
    L      jaw 0.024  lowerDown 0.16  upperUp 0.06  tongueOut 0.03
    R      jaw 0.02  funnel 0.26  pucker 0.2  lowerDown 0.08
    K      jaw 0.022  lowerDown 0.12  upperUp 0.05
    G      jaw 0.022  lowerDown 0.12  upperUp 0.05
    X      jaw 0.02  lowerDown 0.13  upperUp 0.06
    RX     jaw 0.022  lowerDown 0.13  upperUp 0.05
    NG     jaw 0.02  lowerDown 0.12  upperUp 0.05
    HH     jaw 0.03  lowerDown 0.12  upperUp 0.04
    Y      jaw 0.017  lowerDown 0.14  upperUp 0.08  stretch 0.14  spread 0.12
    W      jaw 0.014  funnel 0.26  pucker 0.58  lowerDown 0.02
    Q      jaw 0.019
    # sounds that are no speech; the rest of the face does its part elsewhere
    LAUGH  jaw 0.095  lowerDown 0.16  upperUp 0.2  stretch 0.08  spread 0.3
    SIGH   jaw 0.065  funnel 0.1  lowerDown 0.08
    GASP   jaw 0.12  lowerDown 0.16  upperUp 0.1
    BREATH jaw 0.03  lowerDown 0.03
""")
"""Phone class -> targets at full articulation: jaw in radians, coefficients; what is not named is zero."""

# Strength of the pull: (jaw, all lip channels); what a phone must do, it does against its neighbours.
_STRENGTH: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("M", "B", "P"), (4.0, 3.0)),
    **dict.fromkeys(("F", "V"), (3.0, 4.0)),
    **dict.fromkeys(("S", "Z"), (2.6, 1.0)),
    **dict.fromkeys(("SH", "ZH", "CH", "JH"), (2.4, 2.0)),
    **dict.fromkeys(("T", "D", "N", "TH", "DH", "DX"), (2.2, 0.45)),
    **dict.fromkeys(("K", "G", "NG", "HH", "Q", "X", "RX"), (0.9, 0.25)),
    "L": (1.4, 0.4), "R": (1.4, 1.2), "W": (1.6, 2.6), "Y": (1.0, 0.8), "AX": (0.6, 0.4),
    "LAUGH": (1.0, 0.8), "SIGH": (0.5, 0.5), "GASP": (0.8, 0.6), "BREATH": (0.25, 0.25),
}  # fmt: skip
_VOWEL_STRENGTH = (1.5, 1.0)
_DIPHTHONGS = {
    "AW": ("AA", "UH", 0.55), "AY": ("AA", "IH", 0.55), "OY": ("AO", "IH", 0.5), "EY": ("EH", "IY", 0.55),
    "OW": ("OW", "UW", 0.6),
}  # fmt: skip
_ROUNDING = ("funnel", "pucker")
_TONGUE = {"TH", "DH", "L"}

# Flanks of the dominance functions, seconds: how early a channel prepares, how long it lingers.
_LEAD_S = np.array([0.11 if name in _ROUNDING else 0.028 for name in MOUTH_CHANNELS])
_LAG_S = np.array([0.075 if name in _ROUNDING else 0.034 for name in MOUTH_CHANNELS])
_FLANK_POWER = 1.7  # between exponential (1: cusps, long memory) and Gaussian (2: forgets at once)
_REACH_S = 0.35
_REST_STRENGTH = np.array([0.06 if name in _ROUNDING else 0.012 for name in MOUTH_CHANNELS])

_PHONES = {name: index for index, name in enumerate(_TARGETS)}
_TARGET_TABLE = np.array([[t.get(name, 0.0) for name in MOUTH_CHANNELS] for t in _TARGETS.values()])
_STRENGTH_TABLE = np.array(
    [
        [(_STRENGTH.get(phone, _VOWEL_STRENGTH))[0 if name == "jaw" else 1] for name in MOUTH_CHANNELS]
        for phone in _TARGETS
    ]
)
for _phone in _TARGETS:  # the tongue's channel is nobody else's business: others pull it back in strongly
    _STRENGTH_TABLE[_PHONES[_phone], MOUTH_CHANNELS.index("tongueOut")] = 3.0 if _phone in _TONGUE else 1.0
    # rounded sounds claim the lips before the consonants on the way do
    if _TARGETS[_phone].get("pucker", 0) == 0 and _phone not in VOWELS and _phone not in ("S", "Z", "Y"):
        for _name in _ROUNDING:
            _STRENGTH_TABLE[_PHONES[_phone], MOUTH_CHANNELS.index(_name)] *= 0.3


@dataclass
class Mouth:
    """The articulating mouth at `rate` Hz: channels (T, 12) as MOUTH_CHANNELS, and contact (T, 2) in [0, 1]:
    of lip with lip (M, B, P), of lower lip with upper teeth (F, V)."""

    channels: np.ndarray
    contact: np.ndarray
    rate: float


def log_energy(waveform: np.ndarray, sampling_rate: int = 16000, rate: int = INTERNAL_RATE) -> np.ndarray:
    """Energy of frames centred at k / rate seconds, dB relative to full scale. (S,) -> (T,)"""
    hop, window = sampling_rate // rate, sampling_rate // 40
    power = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    centre = np.arange(0, len(waveform) + 1, hop)
    first, last = np.maximum(centre - window // 2, 0), np.minimum(centre + window // 2, len(waveform))
    return 10.0 * np.log10((power[last] - power[first]) / window + 1e-9)


def loudness(decibels: np.ndarray, floor: float = -50.0, ceiling: float = -14.0) -> np.ndarray:
    """dB relative to full scale -> 0 (silence) to 1 (loud speech), on a fixed scale: never per clip."""
    return np.clip((decibels - floor) / (ceiling - floor), 0.0, 1.0)


def split_diphthongs(phones: list[PhoneLike]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Sounding phones as (names, start_s, end_s, stress), diphthongs as the two targets that they glide between."""
    names, starts, ends, stress = [], [], [], []
    for phone in phones:
        name = phone.phone
        if name == "SIL" or phone.end_s <= phone.start_s:
            continue
        parts = [(name, phone.start_s, phone.end_s)]
        if name in _DIPHTHONGS:
            first, second, share = _DIPHTHONGS[name]
            middle = phone.start_s + share * (phone.end_s - phone.start_s)
            parts = [(first, phone.start_s, middle), (second, middle, phone.end_s)]
        for part, start, end in parts:
            if part not in _PHONES:
                raise ValueError(f"unknown phone {phone.phone!r}; expected one of {', '.join(sorted(_PHONES))}")
            names.append(part)
            starts.append(start)
            ends.append(end)
            stress.append(phone.stress)
    return names, np.array(starts), np.array(ends), np.array(stress)


def contacts(phones: list[PhoneLike], of: frozenset[str] = BILABIALS) -> list[tuple[float, float]]:
    """(start_s, end_s) of each interval in which these phones' contact is made, on the phones' clock."""
    intervals = []
    for phone in phones:
        if phone.phone not in of:
            continue
        # a stop lets go at its burst, near its end; the others hold to the end
        share = 0.75 if phone.phone in ("B", "P") else 0.95
        start = phone.start_s - LIP_LEAD_S
        end = phone.start_s + share * (phone.end_s - phone.start_s) - 0.5 * LIP_LEAD_S
        if end - start < CLOSURE_MINIMUM_S:
            middle = 0.5 * (start + end)
            start, end = middle - CLOSURE_MINIMUM_S / 2, middle + CLOSURE_MINIMUM_S / 2
        intervals.append((start, end))
    return intervals


def _contact_track(times: np.ndarray, intervals: list[tuple[float, float]]) -> np.ndarray:
    """1 within the intervals, with short flanks: (T,)"""
    track = np.zeros(len(times))
    for begin, end in intervals:
        first, last = np.searchsorted(times, (begin - CLOSURE_RAMP_S, end + CLOSURE_RAMP_S))
        t = times[first:last]
        ramp = smoothstep(np.minimum(1 + (t - begin) / CLOSURE_RAMP_S, 1 + (end - t) / CLOSURE_RAMP_S))
        track[first:last] = np.maximum(track[first:last], ramp)
    return track


def _flanks(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widths of the flanks in seconds, (P, 1, C) each: out of a pause the mouth opens late, into one it relaxes."""
    gap = starts[1:] - ends[:-1] > 0.14
    opening = np.concatenate([[True], gap])[:, None, None]
    closing = np.concatenate([gap, [True]])[:, None, None]
    slack = np.where(np.isin(MOUTH_CHANNELS, _ROUNDING), 1.2, 2.0)
    return _LEAD_S * np.where(opening, 0.75, 1.0), _LAG_S * np.where(closing, slack, 1.0)


def articulate(
    phones: list[PhoneLike],
    num_samples: int,
    *,
    start_s: float = 0.0,
    gain: float = 1.0,
    loudness_track: np.ndarray | None = None,  # (N,) at INTERNAL_RATE from start_s, in [0, 1]
    rng: np.random.Generator | None = None,
) -> Mouth:
    """The mouth for phones on the clock of `start_s`, at INTERNAL_RATE.

    `gain` scales the opening (habit x affect); loudness scales it phone by phone; `rng` adds the
    variation from token to token that real mouths have.
    """
    names, starts, ends, stress = split_diphthongs(phones)
    rate, width = INTERNAL_RATE, len(MOUTH_CHANNELS)
    times = start_s + np.arange(num_samples) / rate
    contact = np.stack([_contact_track(times, contacts(phones, of)) for of in (BILABIALS, LABIODENTALS)], axis=1)
    if not names:
        return Mouth(np.zeros((num_samples, width)), contact, rate)

    index = np.array([_PHONES[name] for name in names])
    is_vowel = np.array([name in VOWELS for name in names])
    scale = np.full(len(names), float(gain))
    scale *= np.where(is_vowel, np.where(stress == 1, 1.12, np.where(stress == 2, 0.95, 0.85)), 1.0)
    if loudness_track is not None and len(loudness_track):
        # running mean from a cumulative sum: the loudness of each phone
        total = np.concatenate([[0.0], np.cumsum(loudness_track)])
        a = np.clip(((starts - start_s) * rate).astype(int), 0, len(loudness_track) - 1)
        b = np.clip(np.maximum(((ends - start_s) * rate).astype(int), a + 1), 1, len(loudness_track))
        scale *= 0.55 + 0.65 * (total[b] - total[a]) / (b - a)
    if rng is not None:
        scale *= np.exp(rng.normal(0.0, 0.22, len(names)))
    targets = _TARGET_TABLE[index] * scale[:, None]  # (P, C)
    # pressing and rolling are what makes the sound: they do not grow with loudness
    for name in ("press", "rollLower", "rollUpper", "tongueOut"):
        column = MOUTH_CHANNELS.index(name)
        targets[:, column] = _TARGET_TABLE[index, column]
    targets[:, 0] = WIDEST_JAW * np.tanh(targets[:, 0] / WIDEST_JAW)
    strength = _STRENGTH_TABLE[index] * np.clip((ends - starts) / 0.07, 0.5, 1.3)[:, None]

    first = np.floor((starts - start_s - LIP_LEAD_S - _REACH_S) * rate).astype(int)
    longest = int(np.ceil((ends - starts).max() * rate + 2 * _REACH_S * rate)) + 1
    position = first[:, None] + np.arange(longest)  # (P, W)
    t = start_s + position / rate + LIP_LEAD_S
    before = np.maximum(starts[:, None] - t, 0.0)[..., None]
    after = np.maximum(t - ends[:, None], 0.0)[..., None]
    lead, lag = _flanks(starts, ends)
    pull = strength[:, None] * np.exp(-((before / lead) ** _FLANK_POWER) - (after / lag) ** _FLANK_POWER)  # (P, W, C)
    inside = (position >= 0) & (position < num_samples)
    flat = position[inside]
    pull_in = pull[inside]
    target_in = (pull * targets[:, None])[inside]
    channels = np.empty((num_samples, width))
    for c in range(width):
        weight = np.bincount(flat, pull_in[:, c], num_samples) + _REST_STRENGTH[c]
        channels[:, c] = np.bincount(flat, target_in[:, c], num_samples) / weight
    return Mouth(channels, contact, rate)


_OPENS_LIPS = ("mouthLowerDown", "mouthUpperUp", "tongueOut", "mouthFunnel", "mouthStretch")


def _columns(name: str) -> list[int]:
    return [k for k, full in enumerate(ARKIT_EXPRESSIONS) if full in (name, name + "Left", name + "Right")]


def mouth_motion(mouth: Mouth, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mouth at its own rate -> expression (T, 41), jaw opening (T,) in radians and contact (T, 2), at `fps`.

    The contact is sampled, not blurred, so that it stays whole in the frame it falls into; the rest is
    low-passed first. What the contact does to the lips is `make_contact`'s part, when all else is in place.
    """
    factor = round(mouth.rate / fps)
    values = dict(zip(MOUTH_CHANNELS, decimate(mouth.channels, factor).T, strict=True))
    expression = np.zeros((len(values["jaw"]), len(ARKIT_EXPRESSIONS)))
    for name, value in {
        "mouthFunnel": values["funnel"],
        "mouthPucker": values["pucker"],
        "mouthRollLower": values["rollLower"],
        "mouthRollUpper": values["rollUpper"],
        "mouthPress": values["press"],
        "mouthLowerDown": values["lowerDown"],
        "mouthUpperUp": values["upperUp"],
        "mouthStretch": values["stretch"],
        "mouthSmile": 0.6 * values["spread"],
        "mouthDimple": 0.4 * values["spread"],
        "mouthShrugUpper": values["shrugUpper"],
        "tongueOut": values["tongueOut"],
    }.items():
        expression[:, _columns(name)] += value[:, None]
    return expression, values["jaw"], mouth.contact[::factor]


def make_contact(expression: np.ndarray, jaw: np.ndarray, contact: np.ndarray) -> None:
    """Brings lip to lip and lip to teeth where the contact (T, 2) is 1, changing (T, 41) and (T,) in place.

    Lips shut: the jaw is small, mouthClose makes up for exactly what it leaves open, and nothing else parts
    them. Lower lip at the teeth: the jaw is small, the lip rolled in and not pulled down.
    """
    shut, bite = contact.T
    jaw[:] = (1.0 - bite) * jaw + bite * np.minimum(jaw, BITING_JAW)
    roll = _columns("mouthRollLower")
    expression[:, roll] = np.maximum(expression[:, roll], BITING_ROLL * bite[:, None])
    for name in ("mouthLowerDown", "mouthFunnel", "tongueOut"):
        expression[:, _columns(name)] *= (1.0 - 0.85 * bite)[:, None]
    jaw[:] = (1.0 - shut) * jaw + shut * np.minimum(jaw, CLOSED_JAW)
    for name in _OPENS_LIPS:
        expression[:, _columns(name)] *= (1.0 - shut)[:, None]
    expression[:, _columns("mouthClose")] = (shut * jaw / JAW_OPEN_RADIANS)[:, None]
