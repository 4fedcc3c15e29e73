"""What importers are made of: signs, sides, voices, splits, resting heads."""

from __future__ import annotations

import math

import dataset_fixtures as made
import numpy as np
import pytest
import torch

from diffdyad import rotation
from diffdyad.data import arkit
from diffdyad.data.importers import importer_of, swapped
from diffdyad.data.importers.cutting import cut, rest
from diffdyad.data.importers.react import head_rotation
from diffdyad.data.importers.recording import Item, Recording, Side
from diffdyad.data.importers.splits import assign, components
from diffdyad.data.recordings.frames import merge
from diffdyad.data.recordings.gate import speech_of
from diffdyad.data.recordings.turns import Turn, find_turns
from diffdyad.errors import UserError
from diffdyad.motion import Motion, MotionLayout
from diffdyad.text import TimedWord

LOOK = math.radians(35)
LEFT, DOWN = (0, 1, 0), (1, 0, 0)  # +y turns the face to its own left, +x turns it down


def recording(frames: int = 4, **columns: float) -> torch.Tensor:
    values = torch.zeros(frames, 61)
    for name, value in columns.items():
        values[:, arkit.COLUMNS.index(name)] = value
    return values


def forward(axis_angle: torch.Tensor) -> torch.Tensor:
    """Where a face that looked along +z looks."""
    return rotation.axis_angle_to_matrix(axis_angle)[..., :, 2]


def test_columns_are_those_of_the_app():
    assert [name.lower() for name in arkit.COLUMNS] == [n.lower() for n in (*made.ARKIT_52, *made.ANGLES_9)]


@pytest.mark.parametrize(("column", "group", "axis", "radians"), [
    ("JawOpen", "jaw_pose", (1, 0, 0), 0.4), ("JawLeft", "jaw_pose", (0, 1, 0), arkit.JAW_SIDE_RADIANS),
    ("JawRight", "jaw_pose", (0, -1, 0), arkit.JAW_SIDE_RADIANS),
    ("EyeLookDownLeft", "leye_pose", DOWN, LOOK), ("EyeLookUpRight", "reye_pose", (-1, 0, 0), LOOK),
    ("EyeLookOutLeft", "leye_pose", LEFT, LOOK), ("EyeLookInRight", "reye_pose", LEFT, LOOK),
    ("EyeLookInLeft", "leye_pose", (0, -1, 0), LOOK), ("EyeLookOutRight", "reye_pose", (0, -1, 0), LOOK),
])  # fmt: skip
def test_each_coefficient_turns_its_joint_the_right_way(column, group, axis, radians):
    motion, _ = arkit.to_motion(recording(**{column: 1.0}), 60.0)
    torch.testing.assert_close(motion.select(group)[0], torch.tensor(axis) * radians, atol=1e-6, rtol=0)


def test_the_app_s_head_angles_are_those_of_a_mirror_image():
    """As in a public recording: the left eye's blend shape goes with the right eye's angle, and yaw is negated."""
    eyes = {"EyeLookInLeft": 0.0514, "EyeLookInRight": 0.0657, "LeftEyeYaw": -0.0400, "RightEyeYaw": 0.0313}
    columns = dict(zip(arkit.COLUMNS, recording(**eyes).unbind(1)))
    assert arkit.yaw_sign(columns) == -1
    left = arkit.to_motion(recording(**eyes), 60.0)[0].select("leye_pose")[0, 1]
    assert left == pytest.approx(-0.0313, abs=2e-4)
    motion, notes = arkit.to_motion(recording(**eyes, HeadYaw=0.3, HeadPitch=0.1), 60.0)
    looks = forward(motion.select("global_orient"))[0]
    assert not notes and looks[0] < 0 and looks[1] < 0  # to its right, and down
    # another program, whose eyes say that yaw is that of the blend shapes' face
    eyes = {"EyeLookOutLeft": 0.2, "EyeLookInRight": 0.2, "LeftEyeYaw": 0.12, "RightEyeYaw": 0.12}
    motion, notes = arkit.to_motion(recording(**eyes, HeadYaw=0.3), 60.0)
    assert not notes and motion.select("global_orient")[0, 1] == pytest.approx(0.3)
    _, notes = arkit.to_motion(recording(HeadYaw=0.3), 60.0)
    assert "cannot be told" in notes[0]


def test_what_was_not_recorded_is_not_valid():
    motion, _ = arkit.to_motion(recording(JawOpen=0.5), 60.0)
    valid = dict(zip(motion.layout.groups, motion.valid[0].tolist()))
    assert valid == {"expression": True, "jaw_pose": True, "global_orient": False, "neck_pose": False,
                     "leye_pose": False, "reye_pose": False}  # fmt: skip


def test_motion_to_columns_and_back():
    layout, generator = MotionLayout.arkit(), torch.Generator().manual_seed(0)
    values = torch.zeros(50, layout.dim)
    values[:, layout.slices["expression"]] = torch.rand(50, 41, generator=generator)
    for group, scale in (("global_orient", 0.3), ("leye_pose", 0.2), ("reye_pose", 0.2)):
        values[:, layout.slices[group]] = scale * torch.randn(50, 3, generator=generator)
    for group in ("leye_pose", "reye_pose"):
        yaw, pitch, _ = arkit.yaw_pitch_roll(values[:, layout.slices[group]])
        values[:, layout.slices[group]] = arkit.turn(yaw.clamp(-0.6, 0.6), pitch.clamp(-0.6, 0.6))
    values[:, layout.slices["jaw_pose"]] = torch.rand(50, 3, generator=generator) * torch.tensor([0.4, 0, 0])
    motion = Motion(values, layout, 60.0)
    back, notes = arkit.to_motion(arkit.from_motion(motion), 60.0)
    assert not notes
    torch.testing.assert_close(back.values, values, atol=1e-5, rtol=0)


def test_faceverse_angles_turn_x_first():
    angles = np.array([[0.3, 0.2, 0.1]])
    about = [rotation.axis_angle_to_matrix(torch.eye(3)[k] * angles[0, k]) for k in range(3)]
    expected = (about[2] @ about[1] @ about[0]).float()
    found = rotation.axis_angle_to_matrix(torch.from_numpy(head_rotation(angles)))[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_head_rests_where_it_is_most_of_the_time():
    generator = torch.Generator().manual_seed(1)
    offset = torch.tensor([0.2, -0.9, 0.1])
    wiggle = 0.05 * torch.randn(2001, 3, generator=generator)
    wiggle[:300] += torch.tensor([0.0, 1.2, 0.0])  # a long look aside does not count
    head = rotation.compose(offset.expand_as(wiggle), wiggle)
    valid = torch.ones(2001, dtype=torch.bool)
    found = rest(head, valid)
    residual = rotation.compose(rotation.inverse(offset), found)
    assert residual.norm() < 0.03
    head[:500], valid[:500] = 3.0, False
    assert rotation.compose(rotation.inverse(offset), rest(head, valid)).norm() < 0.01


def test_of_a_long_turn_words_are_those_of_what_is_kept():
    said = {"a": {"gone": 2.0, "kept": 20.0}, "b": {"said": 40.0, "lost": 58.0}}
    sides = [Side(name, np.zeros(16000 * 62, np.float32), words=[TimedWord(w, at, at + 0.4) for w, at in own.items()])
             for name, own in said.items()]  # fmt: skip
    recording = Recording(sides, 62.0, turns=[Turn(0, 1.0, 30.0), Turn(1, 30.5, 60.0)])
    exchange, = cut(recording, Item("i", (), ("a", "b")), importer_of("seamless")("."), "train", "").exchanges
    assert (exchange.previous.text, exchange.responder.text) == ("kept", "said")


# --------------------------------------------------------------------------------------------------- voices and sides


@pytest.mark.parametrize("bleed_db", [None, -30.0, -12.0, -6.0])
def test_who_speaks_when_in_spite_of_bleed(bleed_db):
    talk = made.Talk(3)
    spans = speech_of([talk.waveform(side, bleed_db=bleed_db) for side in (0, 1)])
    grid = np.arange(0, talk.seconds, 0.01)
    wrong = 0.0
    for side in (0, 1):
        truth, found = np.zeros(len(grid), bool), np.zeros(len(grid), bool)
        for who, start, end in talk.turns:
            truth |= (who == side) & (grid >= start) & (grid < end)
        for start, end in merge(spans[side], 0.5):
            found |= (grid >= start) & (grid < end)
        wrong += (truth != found).mean() / 2
    assert wrong < 0.03
    assert [turn.side for turn in find_turns(spans)] == [0, 1, 0, 1]


def test_pauses_are_merged_and_backchannels_are_no_turns():
    spans = [[(0.0, 2.0), (2.4, 5.0)], [(3.0, 3.8), (5.2, 7.0)]]
    found = [turn for turn in find_turns(spans) if turn.kind != "backchannel"]
    assert [(turn.side, turn.start_s, turn.end_s) for turn in found] == [(0, 0.0, 5.0), (1, 5.2, 7.0)]


def test_silence_is_nobody_s():
    assert speech_of([np.zeros(16000, np.float32), np.zeros(0, np.float32)]) == [[], []]


def sides(talk: made.Talk):
    jaws, waves = (tuple(make(side) for side in (0, 1)) for make in (lambda s: talk.jaw(s, 25), talk.waveform))
    return jaws, waves


@pytest.mark.parametrize("turns", [made.DIALOGUE, [(0, 0.3, 16.5)]], ids=["dialogue", "one speaks"])
def test_swapped_sides_are_told_from_right_ones(turns):
    for seed in range(4):
        jaws, waves = sides(made.Talk(seed, turns=turns))
        assert swapped.compare(jaws, waves, 25.0).verdict == "as expected"
        assert swapped.compare(jaws, waves[::-1], 25.0).verdict == "swapped"


def test_mouths_that_follow_neither_voice_are_left_alone():
    """Also where turns alternate alike: being at turn at the same time is no evidence."""
    for seed in range(8):
        jaws, _ = sides(made.Talk(seed + 50))
        _, waves = sides(made.Talk(seed + 90, turns=made.MONOLOGUE))
        assert swapped.compare(jaws, waves, 25.0).verdict == "cannot tell"
    jaws, waves = sides(made.Talk(0))
    silent = (np.zeros_like(waves[0]), np.zeros_like(waves[1]))
    assert swapped.compare(jaws, silent, 25.0).verdict == "cannot tell"
    assert swapped.compare(jaws, (waves[0], waves[0]), 25.0).verdict == "cannot tell"


# ------------------------------------------------------------------------------------------------------------- splits


def items(*pairs: tuple[str, str], split: str | None = None) -> list[Item]:
    return [Item(f"{a}{b}{k}", (), (a, b), split, group=f"{a}{b}") for k, (a, b) in enumerate(pairs)]


def test_people_who_ever_met_are_in_one_split():
    chain = [("a", "b"), ("b", "c"), ("c", "d")]
    others = [(f"x{k}", f"y{k}") for k in range(40)]
    everything = items(*chain, *others)
    assert sorted(map(len, components(everything)))[-2:] == [1, 3]
    splits = assign(everything)
    assert len({splits.of[item.item_id] for item in everything[:3]}) == 1
    counts = [list(splits.of.values()).count(name) for name in ("train", "validation", "test")]
    assert counts[1] >= 1 and counts[2] >= 1 and counts[0] > 30
    assert assign(everything[::-1]).of == splits.of


def test_the_source_s_split_is_kept_and_leakage_is_said():
    train = items(*[(f"x{k}", f"y{k}") for k in range(8)], split="train")
    test = [Item("t", (), ("x0", "z"), "test")]
    splits = assign([*train, *test])
    assert splits.of["t"] == "test" and "validation" in splits.of.values()
    assert any("in training, too" in note for note in splits.notes)
    by_people = assign([*train, *test], own=False)
    held_out = {p for i in [*train, *test] if by_people.of[i.item_id] != "train" for p in i.people}
    assert not held_out & {p for i in [*train, *test] if by_people.of[i.item_id] == "train" for p in i.people}


def test_a_manifest_s_people_stay_in_one_split():
    monday, wednesday = Item("monday", (), ("anna", "ben")), Item("wednesday", (), ("anna", "dora"), "test")
    others = items(*[(f"x{k}", f"y{k}") for k in range(8)])
    splits = assign([monday, wednesday, *others], strict=True)
    assert splits.of["monday"] == splits.of["wednesday"] == "test" and "validation" in splits.of.values()
    assert not any("in training, too" in note for note in splits.notes)
    friday = Item("friday", (), ("ben", "carl"), "train")
    with pytest.raises(UserError, match=r"found test \(wednesday\) and train \(friday\)"):
        assign([monday, wednesday, friday], strict=True)


@pytest.mark.parametrize("listener", [1, None])
def test_who_listens_or_talks_alone_is_cut_at_shots(listener, tmp_path):
    talk = made.Talk(3, seconds=30.0, turns=[(0, 0.1, 29.9)])
    sides = [Side("anna", talk.waveform(0)), Side("ben")] if listener else [Side("anna", talk.waveform(0))]
    recording = Recording(sides, 30.0, listener=listener, cuts_s=[9.0, 9.4])
    session = cut(recording, Item("talk", (), ("anna", "ben")), importer_of("vico")(tmp_path), "train", "hash")
    spans = [(e.session_onset_s + e.start_s, e.session_onset_s + e.end_s) for e in session.exchanges]
    assert spans[0][0] == 0 and spans[-1][1] > 29
    assert not any(start < shot - 0.02 and end > shot + 0.02 for start, end in spans for shot in (9.0, 9.4))


@pytest.mark.parametrize("seen", [True, False])
def test_who_is_neither_heard_nor_seen_is_no_listener(seen, tmp_path):
    talk = made.Talk(3, seconds=30.0, turns=[(0, 0.1, 29.9)])
    silent = Side("ben", np.zeros(480000, np.float32), video="ben.mp4" if seen else "")
    recording, item = Recording([Side("anna", talk.waveform(0)), silent], 30.0), Item("talk", (), ("anna", "ben"))
    session = cut(recording, item, importer_of("vico")(tmp_path), "train", "hash")
    if seen:
        assert session.exchanges and {e.response_kind for e in session.exchanges} == {"silent"}
    else:
        assert not session.exchanges and "no turn that answers a turn" in session.skipped


def test_too_few_people_to_split():
    splits = assign(items(("a", "b"), ("b", "c")))
    assert set(splits.of.values()) == {"train"} and "1 connected component of" in splits.notes[0]
