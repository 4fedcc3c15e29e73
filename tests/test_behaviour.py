"""Behaviour beyond the mouth, and the planted effect, on turns made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_visemes import Phone

from diffdyad.data.rehearsal import blink, gaze, ranges
from diffdyad.data.rehearsal.behaviour import perform
from diffdyad.data.rehearsal.curves import Streams, add_nods, decimate, event_times, smooth_noise, smoothstep
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.reaction import PLANTED_EFFECTS, Reaction, effects_table, planted_delta, planted_size
from diffdyad.data.rehearsal.scene import Canvas, Turn
from diffdyad.motion import ARKIT_EXPRESSIONS, MotionLayout

FPS = 25
LAYOUT = MotionLayout.arkit()
WORDS = "HH AH L OW1 SIL W EH1 R DH AX B IH1 G M AE1 N T UW K AX F IY1 SIL S T EY1 P UH T"


def turn(start_s: float, seconds: float, **options) -> Turn:
    sounds, t, phones = WORDS.split(), start_s, []
    while t < start_s + seconds - 0.3:
        for name in sounds:
            length = 0.3 if name == "SIL" else 0.085
            if t + length > start_s + seconds:
                break
            stress = int(name[-1]) if name[-1].isdigit() else 0
            phones.append(Phone(name.rstrip("1"), t, t + length, stress))
            t += length
    # a loudness that rises and falls over every phrase
    level = 0.6 + 0.2 * np.sin(np.arange(round(seconds * 100)) / 17)
    return Turn(start_s, start_s + seconds, phones, level, **options)


def conversation(num_turns: int = 8, seconds: float = 6.0) -> tuple[list[Turn], list[Turn], int]:
    turns = [turn(1.0 + k * (seconds + 0.2), seconds) for k in range(num_turns)]
    return turns[::2], turns[1::2], round((turns[-1].end_s + 1.0) * FPS)


def habits(seed: int = 0) -> Habits:
    return Habits.draw(np.random.default_rng(seed))


def expression(motion: np.ndarray, name: str) -> np.ndarray:
    return motion[:, ARKIT_EXPRESSIONS.index(name)]


# --- curves


def test_curves_do_what_they_say():
    assert smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    noise = smooth_noise(np.random.default_rng(0), 200_000, 25.0, 0.5)
    assert noise.std() == pytest.approx(1.0, abs=0.05) and abs(noise.mean()) < 0.05
    lag = round(0.5 * 25)
    assert np.corrcoef(noise[:-lag], noise[lag:])[0, 1] == pytest.approx(np.exp(-0.5), abs=0.05)
    track, times = np.zeros(100), np.arange(100) / 25
    add_nods(track, times, 1.0, 0.1, 2, 2.0)
    assert track[:25].max() == 0 and track[50:].max() < 1e-9 and 0.07 < track.max() <= 0.1
    signal = np.stack([np.ones(101), np.arange(101.0)], axis=1)
    low = decimate(signal, 4)
    assert np.allclose(low[:, 0], 1.0) and np.allclose(low[2:-2, 1], np.arange(8.0, 93.0, 4.0))


def test_event_times_have_their_rate_and_refractory_time():
    times = event_times(np.random.default_rng(0), 0.0, 10000.0, 0.3, 0.6)
    assert len(times) / 10000 == pytest.approx(0.3, rel=0.05)
    assert np.diff(times).min() >= 0.6


def test_streams_are_independent_by_name_and_reproducible():
    a = Streams(1, 2)
    assert a("x").random() == Streams(1, 2)("x").random()
    assert len({a("x").random(), a("y").random(), a("x", 1).random(), Streams(1, 3)("x").random()}) == 4


# --- the planted effect


@pytest.fixture
def planted() -> Reaction:
    return Reaction(4.0, 5.0, 5.2, 2.0, valence=0.8, arousal=0.5, strength=1.0)


def test_planted_delta_is_the_table_times_strength(planted):
    times = np.array([5.0, 5.1, 5.2])  # between the rise and the onset the effect is whole
    for strength in (0.0, 1.0, 2.5):
        delta = planted_delta(replace(planted, strength=strength), times)
        assert expression(delta, "mouthSmileLeft") == pytest.approx(0.25 * 0.8 * strength)
        assert expression(delta, "mouthSmileRight") == pytest.approx(0.25 * 0.8 * strength)
        assert expression(delta, "eyeWideLeft") == pytest.approx(0.15 * 0.5 * strength)
        assert expression(delta, "mouthFrownLeft") == pytest.approx(0.0)
        head = LAYOUT.select(delta, "global_orient") + LAYOUT.select(delta, "neck_pose")
        assert head[:, 2] == pytest.approx(-0.05 * 0.8 * strength)
    sad = planted_delta(replace(planted, valence=-0.6, arousal=0.0), times)
    assert expression(sad, "mouthFrownLeft") == pytest.approx(0.20 * 0.6)
    assert expression(sad, "mouthSmileLeft") == pytest.approx(0.0)
    assert LAYOUT.select(sad, "leye_pose")[:, 0] == pytest.approx(0.06 * 0.6)


def test_every_planted_entry_moves_something_and_nothing_moves_unlisted(planted):
    times = np.linspace(4.5, 6.0, 40)
    touched = np.zeros(LAYOUT.dim, bool)
    for valence, arousal in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        touched |= np.abs(planted_delta(replace(planted, valence=valence, arousal=arousal), times)).max(0) > 0
    names = {n for n, on in zip(ARKIT_EXPRESSIONS, touched) if on}
    listed = {n for n in ARKIT_EXPRESSIONS if n in PLANTED_EFFECTS or n.removesuffix("Left").removesuffix("Right")
              in PLANTED_EFFECTS}  # fmt: skip
    assert names == listed
    assert not touched[LAYOUT.slices["jaw_pose"]].any()
    assert planted_size("mouthSmile", 0.0, 0.0, 1.0) == 0.0


def test_planted_effect_rises_late_and_fades_with_its_time_constant(planted):
    times = np.arange(0.0, 15.0, 0.04)
    smile = expression(planted_delta(planted, times), "mouthSmileLeft")
    assert np.all(smile[times <= 4.0] == 0.0)
    after = times >= 5.2
    slope = np.polyfit(times[after] - 5.2, np.log(smile[after]), 1)[0]
    assert -1 / slope == pytest.approx(2.0, rel=1e-6)
    assert np.all(np.diff(smile[times <= 5.0]) >= 0)


@pytest.mark.parametrize("gap", [-0.5, 0.2, 1.5])
def test_drawn_reactions_are_whole_before_the_answer(gap):
    for seed in range(50):
        drawn = Reaction.draw(np.random.default_rng(seed), 2.0, 6.0, 6.0 + gap, 0.5, 0.5, 1.0)
        assert 1.5 <= drawn.time_constant_s <= 2.5
        assert 0.5 <= drawn.rise_end_s - drawn.rise_start_s <= 1.0
        assert drawn.rise_end_s <= drawn.onset_s
        assert drawn.envelope(np.array([drawn.rise_end_s, drawn.onset_s])) == pytest.approx(1.0)


def test_reaction_adds_its_delta_and_changes_nothing_else():
    own, partner, num_frames = conversation()
    plain, reacting = (
        perform(habits(), partner, own, planted, num_frames, FPS, Streams(5))
        for planted in ([], [Reaction(6.3, 7.0, 7.2, 2.0, 0.4, 0.3, 1.0)])
    )
    delta = planted_delta(Reaction(6.3, 7.0, 7.2, 2.0, 0.4, 0.3, 1.0), np.arange(num_frames) / FPS)
    free = (plain > 1e-3) & (reacting < 1 - 1e-3)
    free[:, 41:] = True
    assert np.allclose((reacting - plain)[free], delta[free], atol=1e-5)
    assert np.array_equal(plain[: round(6.3 * FPS)], reacting[: round(6.3 * FPS)])
    none = Reaction(6.3, 7.0, 7.2, 2.0, 0.4, 0.3, strength=0.0)
    nothing = perform(habits(), partner, own, [none], num_frames, FPS, Streams(5))
    assert np.array_equal(nothing, plain)


def test_the_table_in_the_docs_is_the_table():
    docs = Path(__file__).parent.parent / "docs" / "rehearsal.md"
    assert effects_table() in docs.read_text()


# --- the person


@pytest.fixture(scope="module")
def performed() -> list[np.ndarray]:
    own, partner, num_frames = conversation(12)
    return [perform(habits(seed), own, partner, [], num_frames, FPS, Streams(seed)) for seed in range(12)]


def test_motion_is_finite_in_range_and_reproducible(performed):
    own, partner, num_frames = conversation(12)
    again = perform(habits(0), own, partner, [], num_frames, FPS, Streams(0))
    assert np.array_equal(again, performed[0])
    for motion in performed:
        assert motion.shape == (num_frames, LAYOUT.dim) and motion.dtype == np.float32
        assert np.isfinite(motion).all()
        coefficients = LAYOUT.select(motion, "expression")
        assert coefficients.min() >= 0.0 and coefficients.max() <= 1.0
        head = LAYOUT.select(motion, "global_orient") + LAYOUT.select(motion, "neck_pose")
        assert np.abs(np.median(head, axis=0)).max() < 1e-6
        assert np.abs(head).max() < 0.5
        assert np.abs(LAYOUT.select(motion, "leye_pose")).max() < 0.46


def test_blinks_have_human_rates_and_lengths(performed):
    seconds = sum(len(motion) for motion in performed) / FPS
    lengths = np.concatenate(
        [ranges.crossing_seconds(expression(m, "eyeBlinkLeft"), np.median(expression(m, "eyeBlinkLeft")) + 0.2, FPS)
         for m in performed]
    )  # fmt: skip
    blinks = lengths[lengths < 0.5]
    assert 8 <= 60 * len(blinks) / seconds <= 30
    assert 0.12 <= np.median(blinks) <= 0.2


def test_blink_times_follow_the_habit_and_keep_apart():
    own, _, _ = conversation(20)
    for rate in (12.0, 25.0):
        person = replace(habits(), blinks_per_minute=rate)
        counts = []
        for seed in range(12):
            points = gaze.fixations(person, own, 125.0, np.random.default_rng(seed))
            times = blink.blink_times(person, own, points, 125.0, np.random.default_rng(seed))
            assert np.diff(times).min() >= blink.MINIMUM_APART_S
            counts.append(60 * len(times) / 125.0)
        assert np.mean(counts) == pytest.approx(rate, rel=0.3)


def test_eyes_turn_together_and_jump(performed):
    for motion in performed:
        left, right = (LAYOUT.select(motion, name) for name in ("leye_pose", "reye_pose"))
        assert np.allclose(left[:, 0], right[:, 0])
        vergence = right[:, 1] - left[:, 1]
        assert vergence.min() >= 0 and vergence.max() < 0.06
        assert np.abs(np.diff(left[:, 1])).max() * FPS > 1.0  # a saccade, rad/s
        assert not left[:, 2].any()


def test_gaze_averts_at_the_start_and_returns_by_the_end():
    own, _, _ = conversation(20)
    averted = {"start": 0, "end": 0}
    count = 0
    for seed in range(20):
        points = gaze.fixations(habits(seed), own, 130.0, np.random.default_rng(seed))
        starts = np.array([p.time_s for p in points])
        assert np.all(np.diff(starts) > 0) and starts[0] == 0.0
        for spoken in own:
            for name, t in (("start", spoken.start_s + 0.4), ("end", spoken.end_s - 0.05)):
                averted[name] += points[np.searchsorted(starts, t, side="right") - 1].averted
            count += 1
    assert averted["start"] / count > 0.45
    assert averted["end"] / count < 0.1


def test_lids_follow_the_gaze():
    canvas = Canvas.blank(100, FPS)
    canvas.gaze[50:, 0] = 0.3
    gaze.eyes_and_lids(canvas, habits())
    blinks = expression(canvas.expression, "eyeBlinkLeft")
    assert blinks[:50].max() < 0.05 and blinks[50:].min() > 0.2


def test_speakers_move_more_than_listeners_and_within_real_ranges(performed):
    own, _, _ = conversation(12)
    speaking, hearing = [], []
    for motion in performed:
        for spoken in own:
            a, b = round(spoken.start_s * FPS), round(spoken.end_s * FPS)
            speaking.append(ranges.Clip(motion[a:b]))
            hearing.append(ranges.Clip(motion[b + 5 : b + 5 + (b - a) - 10]))
    talk, listen = (ranges.figures([c for c in clips if len(c.motion) > 100]) for clips in (speaking, hearing))
    for axis in ("yaw", "pitch", "roll"):
        assert talk[f"head {axis} speed, rad/s"] > 1.2 * listen[f"head {axis} speed, rad/s"]
    # a third to three times the speaking capture's figures
    for name, real in {"head yaw sd, rad": 0.024, "head pitch sd, rad": 0.021, "head roll sd, rad": 0.015,
                       "head yaw speed, rad/s": 0.13, "head pitch speed, rad/s": 0.08,
                       "head roll speed, rad/s": 0.06, "eye yaw sd, rad": 0.078, "eye pitch sd, rad": 0.040,
                       "browInnerUp sd": 0.29}.items():  # fmt: skip
        assert real / 3 <= talk[name] <= 3 * real, name
    assert talk["jawOpen sd"] > 10 * listen["jawOpen sd"]


def test_affect_shows_on_the_speaker_and_laughter_on_the_whole_face():
    def mean(name, **options):
        spoken = turn(1.0, 6.0, **options)
        motions = [perform(habits(s), [spoken], [], [], 200, FPS, Streams(s)) for s in range(6)]
        return np.mean([expression(m, name)[40:160].mean() for m in motions])

    assert mean("mouthSmileLeft", valence=0.9) > mean("mouthSmileLeft", valence=0.0) + 0.15
    assert mean("browDownLeft", valence=-0.9, arousal=0.6) > mean("browDownLeft", valence=0.0, arousal=0.6) + 0.1
    assert mean("browInnerUp", valence=-0.9, arousal=-0.6) > mean("browInnerUp") + 0.1
    at = 2 + 0.2 * np.arange(8)
    bursts = [p for t in at for p in (Phone("HH", t, t + 0.09), Phone("LAUGH", t + 0.09, t + 0.2))]
    laugh = Turn(2.0, 3.6, bursts, np.full(160, 0.7), kind="nonverbal")
    assert len(laugh.sounds) == 1 and len(laugh.sounds[0].bursts) == 8
    motion = perform(habits(), [laugh], [], [], 150, FPS, Streams(0))
    middle = slice(60, 85)
    for name in ("mouthSmileLeft", "cheekSquintLeft", "eyeSquintLeft"):
        assert expression(motion, name)[middle].mean() > expression(motion, name)[:25].mean() + 0.2
    jaw = motion[middle, LAYOUT.slices["jaw_pose"].start]
    assert 4 <= np.sum((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:])) <= 6  # bursts in a second


def test_listening_is_over_when_the_answer_begins():
    """With and without a partner's turn, the answer's motion is the same: K = 0 plants nothing by the back door."""
    answer = [turn(8.2, 6.0)]
    for valence in (-0.9, 0.9):
        partner = [turn(1.0, 7.0, valence=valence)]
        heard, alone = (
            perform(habits(3), answer, others, [], 400, FPS, Streams(9)) for others in (partner, [])
        )
        onset = round(8.2 * FPS)
        # the head's zero is the median over the session: its level may differ, its movement may not
        head = slice(LAYOUT.slices["global_orient"].start, LAYOUT.slices["neck_pose"].stop)
        assert np.allclose(np.diff(heard[onset:, head], axis=0), np.diff(alone[onset:, head], axis=0), atol=1e-5)
        mouth = slice(7, 41)
        assert np.allclose(heard[onset:, mouth], alone[onset:, mouth], atol=1e-6)
        assert not np.allclose(heard[:onset], alone[:onset], atol=1e-3)


def test_habits_differ_between_people_and_stay():
    a, b = habits(1), habits(2)
    assert np.array_equal(a.rest, habits(1).rest) and not np.array_equal(a.rest, b.rest)
    for seed in range(200):
        person = habits(seed)
        assert 0.7 <= person.articulation <= 1.3 and 8 <= person.blinks_per_minute <= 30
        assert person.rest.min() >= 0 and person.rest.max() < 0.4
        lids = [ARKIT_EXPRESSIONS.index(n) for n in ("eyeBlinkLeft", "eyeBlinkRight")]
        assert np.all(person.asymmetry[lids] == 1)
