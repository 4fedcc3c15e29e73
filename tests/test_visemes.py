"""The mouth: closures close, and only they; rounding comes early; pauses bring the mouth to rest."""

from dataclasses import dataclass

import numpy as np
import pytest

from diffdyad.data.rehearsal import visemes
from diffdyad.data.rehearsal.phones import PHONES, VOWELS
from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS

FPS = 25


@dataclass(frozen=True)
class Phone:
    phone: str
    start_s: float
    end_s: float
    stress: int = 0


def phones(sequence: str, start_s: float = 0.5, seconds: float = 0.09) -> list[Phone]:
    """'M AA1 M': phones of equal length, a digit is the stress."""
    out = []
    for name in sequence.split():
        stress = int(name[-1]) if name[-1].isdigit() else 0
        out.append(Phone(name.rstrip("012"), start_s, start_s + seconds, stress))
        start_s += seconds
    return out


def mouth(sequence: list[Phone], seconds: float, **options):
    made = visemes.articulate(sequence, round(seconds * visemes.INTERNAL_RATE), **options)
    expression, jaw, contact = visemes.mouth_motion(made, FPS)
    visemes.make_contact(expression, jaw, contact)
    return expression, jaw


def channel(expression: np.ndarray, name: str) -> np.ndarray:
    return expression[:, ARKIT_EXPRESSIONS.index(name)]


def frame(phone: Phone) -> int:
    return round(0.5 * (phone.start_s + phone.end_s) * FPS)


def test_every_phone_class_has_targets():
    assert set(PHONES) - {"SIL"} <= set(visemes._PHONES) | set(visemes._DIPHTHONGS)


def test_unknown_phone_is_named():
    with pytest.raises(ValueError, match="QQ"):
        mouth([Phone("QQ", 0.1, 0.2)], 1.0)


@pytest.mark.parametrize("shift", np.linspace(0.0, 0.04, 5))
@pytest.mark.parametrize("bilabial", sorted(visemes.BILABIALS))
@pytest.mark.parametrize("seconds", [0.04, 0.09])
def test_bilabials_close_wherever_they_fall_between_frames(bilabial, shift, seconds):
    sequence = phones(f"AA1 {bilabial} AA1 T AE1 {bilabial} OW1", 0.5 + shift, seconds)
    expression, jaw = mouth(sequence, 2.0)
    close = channel(expression, "mouthClose")
    for phone in sequence:
        if phone.phone != bilabial:
            continue
        near = slice(frame(phone) - 1, frame(phone) + 2)
        k = near.start + int(np.argmax(close[near] * JAW_OPEN_RADIANS / np.maximum(jaw[near], 1e-9)))
        assert close[k] * JAW_OPEN_RADIANS == pytest.approx(jaw[k], rel=1e-6)
        assert 0 < jaw[k] <= visemes.CLOSED_JAW
        assert channel(expression, "mouthLowerDownLeft")[k] == pytest.approx(0.0, abs=1e-9)
        assert channel(expression, "mouthPressLeft")[k] > 0.05


def test_nothing_else_closes():
    # two sets of sounds, so that every class but the bilabials is in it
    names = [p for p in PHONES if p not in visemes.BILABIALS | {"SIL"}]
    expression, jaw = mouth(phones(" ".join(names)), 0.09 * len(names) + 1.5)
    assert np.all(channel(expression, "mouthClose") == 0.0)
    assert jaw.min() >= 0.0


def test_labiodentals_bring_the_lip_to_the_teeth():
    sequence = phones("AA1 F AA1 V AE1 S AA1")
    expression, jaw = mouth(sequence, 2.0)
    roll = channel(expression, "mouthRollLower")
    for phone in sequence:
        if phone.phone in visemes.LABIODENTALS:
            assert roll[frame(phone)] > 0.25
            assert jaw[frame(phone)] < 0.05
        elif phone.phone in ("AE", "S"):
            assert roll[frame(phone)] < 0.2
    assert roll.max() == max(roll[frame(p) + d] for p in sequence if p.phone in "FV" for d in (-1, 0, 1))


def test_rounding_is_prepared_and_the_jaw_is_not():
    sequence = [*phones("S T AA1 T S", 0.5), Phone("UW", 0.95, 1.15, 1), Phone("S", 1.15, 1.25)]
    made = visemes.articulate(sequence, 200)
    pucker = made.channels[:, visemes.MOUTH_CHANNELS.index("pucker")]
    onset = np.argmax(pucker > 0.2 * pucker.max()) / visemes.INTERNAL_RATE
    assert 0.05 <= 0.95 - onset <= 0.25
    jaw = made.channels[:, 0]
    assert np.argmax(jaw > 0.1 * jaw.max()) / visemes.INTERNAL_RATE > 0.5 - 0.15


def test_mouth_rests_in_pauses_and_before_and_after():
    sequence = [*phones("HH AH L OW1", 0.5), Phone("SIL", 0.86, 1.8), *phones("W AE1 T", 1.8)]
    expression, jaw = mouth(sequence, 3.0)
    opening = np.array([jaw / 0.4, channel(expression, "mouthFunnel"), channel(expression, "mouthLowerDownLeft")])
    for start, end in ((0.0, 0.25), (0.86 + 0.3, 1.8 - 0.3), (2.07 + 0.35, 3.0)):
        assert opening[:, round(start * FPS) : round(end * FPS)].max() < 0.03
    assert opening[0].max() > 0.15


def test_loudness_habit_and_stress_scale_the_opening():
    def peak(stress=1, **options):
        sequence = [Phone("HH", 0.5, 0.6), Phone("AA", 0.6, 0.8, stress), Phone("T", 0.8, 0.9)]
        return mouth(sequence, 1.5, **options)[1].max()

    quiet, loud = (peak(loudness_track=np.full(150, level)) for level in (0.2, 0.9))
    assert loud > 1.3 * quiet
    assert peak(gain=1.3) > 1.5 * peak(gain=0.7)
    assert peak(stress=1) > peak(stress=0)


def test_same_generator_same_mouth_and_silence_is_still():
    sequence = phones("DH AX K AE1 T")
    a, b = (mouth(sequence, 1.5, rng=np.random.default_rng(1))[0] for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, mouth(sequence, 1.5, rng=np.random.default_rng(2))[0])
    expression, jaw = mouth([Phone("SIL", 0.0, 1.0)], 1.0)
    assert not expression.any() and not jaw.any()


def test_vowels_differ_as_they_look():
    def at_centre(name):
        sequence = [Phone("T", 0.4, 0.48), Phone(name, 0.48, 0.72, 1), Phone("T", 0.72, 0.8)]
        expression, jaw = mouth(sequence, 1.5)
        return {"jaw": jaw[15], "pucker": channel(expression, "mouthPucker")[15],
                "stretch": channel(expression, "mouthStretchLeft")[15]}  # fmt: skip

    shapes = {name: at_centre(name) for name in ("AA", "IY", "UW")}
    assert set(shapes) <= set(VOWELS)
    assert shapes["AA"]["jaw"] > 1.5 * shapes["IY"]["jaw"]
    assert shapes["UW"]["pucker"] > 0.3 > 0.05 > shapes["AA"]["pucker"]
    assert shapes["IY"]["stretch"] > 0.1 > shapes["UW"]["stretch"]


def test_log_energy_is_timed_by_its_centre():
    waveform = np.zeros(16000, np.float32)
    waveform[8000:8800] = 0.5
    decibels = visemes.log_energy(waveform)
    assert len(decibels) == 101
    loud = np.flatnonzero(decibels > -20) / 100
    assert 0.49 <= loud[0] <= 0.5 and 0.55 <= loud[-1] <= 0.56
    assert visemes.loudness(np.array([-80.0, -32.0, 0.0])).tolist() == pytest.approx([0.0, 0.5, 1.0])
