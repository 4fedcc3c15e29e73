"""Parts of the context protocol: what is cut and swapped, what the critic sees, controls, doses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_effect import exchange

from diffdyad.context import TurnFeatures
from diffdyad.data import store
from diffdyad.data.exchange import to_row, write_shard
from diffdyad.data.intake import Format
from diffdyad.evaluation.clips import bilabials_of
from diffdyad.evaluation.effect import critic, gap, occlusion, protocol, retrieval
from diffdyad.evaluation.effect.answers import Answers, Ask
from diffdyad.evaluation.effect.bleed import without_bleed
from diffdyad.evaluation.effect.conditions import NEAR, NULL, PLACEBO, TRUE, mixed, scrambled
from diffdyad.evaluation.effect.dose import Dose, largest_usable
from diffdyad.evaluation.effect.planted import DOWN, UP, amplitude, with_reaction
from diffdyad.evaluation.effect.reading import Reading, cut_at_onset
from diffdyad.evaluation.effect.where import half_life_s
from diffdyad.motion import ARKIT_EXPRESSIONS
from diffdyad.text import TimedWord


def test_channels_a_few_samples_apart_are_gated():
    times = np.arange(32000) / 16000
    other = np.where(times > 1, 0.1 * np.sin(2 * np.pi * 200 * times) * (1 + np.sin(2 * np.pi * 4 * times)), 0)
    own = np.where(times < 0.8, 0.1 * np.sin(2 * np.pi * 120 * times), 0) + 0.1 * other
    whole, found = without_bleed(own.astype(np.float32), other.astype(np.float32))
    for part in (other[:-7], np.pad(other, (0, 7))):
        gated, again = without_bleed(own.astype(np.float32), part.astype(np.float32))
        assert found and again and len(gated) == len(own)
        assert np.abs(gated[16000 + 4000 : -800] - whole[16000 + 4000 : -800]).max() < 1e-3


def test_processes_leave_nothing_out_when_one_is_ahead(tmp_path):
    class Numbers(Answers):
        def __init__(self):
            self.folder = tmp_path

        def _path(self, ask):
            return self.folder / f"{ask.index}.safetensors"

        def _generate(self, ask):
            return torch.tensor([ask.index])

    asks = [Ask(index) for index in range(10)]
    # the second begins when the first has written some
    Numbers().make(asks, (0, 2), lambda done, total: Numbers().make(asks, (1, 2)) if done == 2 else None)
    assert all(Numbers()._path(ask).exists() for ask in asks)


def test_nothing_after_the_onset_is_context():
    overlapping = exchange(0, 0, gap_s=-0.4)
    late = [TimedWord("yes", -1.0, -0.5), TimedWord("indeed", -0.3, 0.2)]
    overlapping.previous = replace(overlapping.previous, text="yes indeed", words=late)
    cut = cut_at_onset(overlapping)
    assert cut.previous_end_s == 0 and cut.previous.text == "yes"
    apart = exchange(0, 1)
    assert cut_at_onset(apart).previous.text == "maybe" and cut_at_onset(apart).previous_end_s == -0.2


def test_bleed_is_found_and_gated_and_noise_is_not_bleed():
    one = exchange(0, 0)
    own, other = one.responder.waveform, one.previous.waveform
    assert not without_bleed(own, other)[1]
    heard = own + 0.05 * np.roll(other, 80)
    clean, found = without_bleed(heard, other)
    assert found
    before, after = slice(3200, 19200), slice(27200, 51200)  # the other speaks; the owner speaks
    assert np.square(clean[before]).sum() < 0.05 * np.square(heard[before]).sum()
    assert np.allclose(clean[after], heard[after])


def test_a_swapped_modality_is_the_donors_and_all_else_the_own():
    def turn(value: float, count: int) -> TurnFeatures:
        cells = {name: torch.full((count, 2), value) for name in ("prosody", "motion")}
        return TurnFeatures(cells, {name: torch.ones(count, dtype=torch.bool) for name in cells}, torch.tensor([value]))

    both = mixed(turn(1.0, 3), turn(2.0, 5), "motion")
    assert both.features["motion"].tolist() == [[2, 2]] * 5 and both.sentence.tolist() == [1]
    assert both.features["prosody"][:, 0].tolist() == [0, 0, 1, 1, 1]
    assert both.valid["prosody"].tolist() == [False, False, True, True, True]
    assert mixed(turn(1.0, 3), turn(2.0, 5), "text").sentence.tolist() == [2]
    cells = {"motion": torch.arange(18.0).view(9, 2)}
    order = scrambled(replace(turn(1.0, 9), features=cells), np.random.default_rng(0))
    assert sorted(order.features["motion"][:, 0].tolist()) == list(range(0, 18, 2))
    assert order.features["motion"][:, 0].tolist() != list(range(0, 18, 2))


def test_planted_reactions_have_the_size_that_was_asked_for():
    cues, std = np.random.default_rng(0).choice([-1.0, 1.0], 400), np.full(41, 0.1)
    size = amplitude(0.03, cues, np.full(41, 0.6), std, 100, 25.0)
    fade = np.exp(-np.arange(100) / 25 / 2.0)
    reaction = np.zeros((400, 100, 41))
    for names, side in ((UP, cues > 0), (DOWN, cues < 0)):
        for name in names:
            reaction[side, :, ARKIT_EXPRESSIONS.index(name)] = size * fade / 0.1
    explained = (reaction - reaction.mean(0)).var(0).mean()
    assert explained / (explained + 0.6) == pytest.approx(0.03, rel=1e-6)


def test_a_planted_cue_moves_the_upper_face_of_the_answer_alone():
    plain = exchange(0, 0)
    moved = with_reaction(plain, 1.0, 0.1)
    before, after = (x.responder.motion["expression"] for x in (plain, moved))
    channels = np.flatnonzero(np.abs(after - before).max(0) > 1e-6)
    assert {ARKIT_EXPRESSIONS[k] for k in channels} == set(UP)
    assert np.array_equal(before[:40], after[:40]) and not np.array_equal(before[40:], after[40:])
    assert np.array_equal(plain.previous.motion["expression"], moved.previous.motion["expression"])
    both = with_reaction(plain, -1.0, 0.1, session=True)
    assert not np.array_equal(plain.previous.motion["expression"], both.previous.motion["expression"])


def test_the_near_swap_is_in_the_gallery_of_a_long_session():
    items = [SimpleNamespace(session="s", previous_speaker="a") for _ in range(60)]
    items += [SimpleNamespace(session="t", previous_speaker="b") for _ in range(5)]
    donors = np.append((np.arange(60) + 45) % 60, [61, 60, 60, 60, -1])
    rows = retrieval.galleries(items, donors, np.random.default_rng(0))
    assert rows.shape == (65, 32) and (rows[:, 0] == np.arange(65)).all()
    assert all(donor in row for donor, row in zip(donors, rows) if donor >= 0)
    assert all(len(set(row)) == 32 for row in rows.tolist())


def test_the_critic_learns_of_no_turn_that_outlasts_the_onset_and_of_none_of_the_judged(tmp_path, tiny_pipeline):
    rows = [exchange(0, 0, "train"), exchange(0, 1, "train", gap_s=-0.4), exchange(1, 0, "train"),
            replace(exchange(2, 0, "train"), responder_name="test3b")]  # fmt: skip
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", list(map(to_row, rows)))
    reading = Reading.of(tiny_pipeline)

    def names() -> list[str]:
        pairs = critic.real_pairs(tmp_path / "data", "test", {"test3b"}, reading, tmp_path / "cache", 100)
        assert all(pair.features.previous_end_s <= 0 for pair in pairs)
        return [pair.features.exchange_id for pair in pairs]

    # read for the purpose, turns are cut at the onset; a training's features know what came after
    assert names() == ["train-0-0", "train-0-1", "train-1-0"]
    store.build(tmp_path / "data", "train", tmp_path / "data" / "features", reading.settings, Format(*reading.stats), 0)
    assert names() == ["train-0-0", "train-1-0"]


def test_the_critic_sees_nothing_of_a_turn_after_the_onset(tiny_pipeline):
    encoder, rng = tiny_pipeline.context_encoder, torch.Generator().manual_seed(0)
    width = encoder.config.widths["prosody"]
    cells, other = torch.randn((2, 20, width), generator=rng)
    valid = {"prosody": torch.ones(20, dtype=torch.bool)}

    def seen(cells, end_s):
        return critic.turn_vector(encoder, TurnFeatures({"prosody": cells}, valid, None), end_s)["prosody"]

    late = torch.cat([cells[:18], other[18:]])  # the last two of 0.2 s each lie after the onset
    assert torch.equal(seen(cells, 0.4), seen(late, 0.4)) and not torch.equal(seen(cells, 0.2), seen(late, 0.2))
    assert not torch.equal(seen(cells, 0.4), seen(torch.cat([cells[:17], other[17:]]), 0.4))
    assert seen(cells, 0.4)[:width] == pytest.approx(encoder.standardise(
        TurnFeatures({"prosody": cells[:18]}, {}, None)).features["prosody"].mean(0), abs=1e-5)  # fmt: skip


def test_a_critic_of_faces_that_never_move_guesses():
    rng = torch.Generator().manual_seed(0)
    turns = [{"prosody": torch.randn(6, generator=rng)} for _ in range(250)]
    judge = critic.fit_critic(turns, torch.ones(250, 10))
    scores = judge.scores(turns[:40], torch.ones(3, 10))
    assert np.isfinite(scores).all() and np.ptp(scores) == 0


def test_the_controls_of_a_model_that_knows_the_answer_find_nothing():
    rng = np.random.default_rng(0)
    truths = torch.from_numpy(rng.normal(size=(40, 10, 41))).float()
    known = torch.ones(40, 10, 41, dtype=torch.bool)
    layout = SimpleNamespace(slices={"expression": slice(0, 41)})
    network = SimpleNamespace(answer=10, pipeline=SimpleNamespace(layout=layout),
                              target=lambda index: (truths[index], known[index]))  # fmt: skip
    units = np.arange(40) // 2
    setting = SimpleNamespace(swaps=SimpleNamespace(far=np.roll(np.arange(40), 2)), items=range(40), units=units)
    wrong = rng.gamma(9.0, size=(3, 40, 9, 4, 1))
    errors = {TRUE: wrong[0] - 3, NEAR: wrong[0], PLACEBO: wrong[1], NULL: wrong[2]}
    gaps = gap.Gaps(errors, np.ones((40, 4, 1)), {TRUE: truths, NEAR: 0 * truths, NULL: 0 * truths}, known)
    found = protocol._r2_controls(gaps, network, setting, rng)
    assert all(row.high < 0 for row in found.values())  # what is right for the own answer is wrong for another's
    beside = protocol._modality_controls(gaps, units, rng)
    assert beside[NEAR].mean == pytest.approx(3) and beside[NEAR].p_value < 0.01 < beside[PLACEBO].p_value
    setting.swaps.far[3] = -1
    assert protocol._r2_controls(gaps, network, setting, rng) == {}


def test_what_hiding_does_is_told_per_window_however_many_cells_fall_into_it():
    found = occlusion.per_window(np.array([0.2, 0.3, 0.4, 0.1]), np.array([2, 3, 1, 0]), 5.0)
    assert found[:3] == pytest.approx([0.25, 0.25, 1.0]) and np.isnan(found[3])


def test_half_life():
    times = np.arange(100) / 25
    assert half_life_s(times, np.exp(-times)) == pytest.approx(np.log(2), abs=0.04)
    assert np.isnan(half_life_s(times, np.ones(100))) and np.isnan(half_life_s(times, np.zeros(100)))


def test_a_scale_is_usable_where_direction_lips_and_liveliness_stay():
    good = Dose(2.0, {}, {}, {}, {}, 0.0, (0, 0), 0.9, 0.8, 0.0, 0.0, 0.0, 0.1, (0, 0), True, 0.2, (0, 0), 1.1, 1.0)
    assert good.is_usable
    for less in ({"cosine_low": 0.5}, {"lips_hold": False}, {"jerk": 1.4}, {"jerk": 0.5}, {"speed": 0.5}):
        assert not replace(good, **less).is_usable and replace(good, scale=0.0, **less).is_usable
        # up to 1 the direction is what there is to be compared with
        assert replace(good, scale=1.0, **less).is_usable == ("cosine_low" in less)


def test_the_largest_usable_scale_is_before_the_first_that_is_not():
    class Fake:
        def __init__(self, scale, is_usable):
            self.scale, self.is_usable = scale, is_usable

    assert largest_usable([Fake(0, True), Fake(1, True), Fake(2, True), Fake(3, False), Fake(5, True)]) == 2


def test_bilabials_follow_from_spelling():
    words = [TimedWord("bump", 0.0, 0.4), TimedWord("apple", 1.0, 1.5), TimedWord("photo", 2.0, 2.5)]
    assert bilabials_of(words) == pytest.approx([0.05, 0.25, 0.35, 1.15])
