"""Dialogues: chained turns, words that carry affect, splits that share nothing."""

import numpy as np
import pytest

from diffdyad.data.rehearsal import generic, phrases
from diffdyad.data.rehearsal.dialogue import KINDS, SOUNDS, draw_dialogue
from diffdyad.data.rehearsal.phrases import part
from diffdyad.data.rehearsal.topics import TOPICS

SPLITS = ("train", "validation", "test")


def many(split: str, count: int, seed: int = 0, **options):
    generator = np.random.default_rng(seed)
    return [draw_dialogue(generator, split, **options) for _ in range(count)]


def test_same_seed_same_dialogue():
    assert many("train", 5, seed=3) == many("train", 5, seed=3)
    assert many("train", 5, seed=3) != many("train", 5, seed=4)


def test_turns_alternate_and_exchanges_chain():
    for dialogue in many("train", 50):
        assert len(dialogue.exchanges) >= 4
        for (_, response), (previous, _) in zip(dialogue.exchanges[:-1], dialogue.exchanges[1:], strict=True):
            assert response is previous
        for previous, response in dialogue.exchanges:
            assert {previous.speaker, response.speaker} == {0, 1}


def test_turns_are_well_formed():
    for dialogue in many("train", 200):
        for turn in dialogue.turns:
            assert turn.kind in KINDS and turn.sound in SOUNDS
            assert -1 <= turn.valence <= 1 and -1 <= turn.arousal <= 1
            assert bool(turn.text.strip()) == (turn.kind in ("verbal", "mixed"))
            assert (turn.sound != "none") == (turn.kind in ("nonverbal", "mixed"))
            assert "{" not in turn.text and "}" not in turn.text


def test_every_list_is_cut_without_overlap():
    lists = [*phrases.SLOTS.values(), phrases.ACKNOWLEDGEMENTS, phrases.OPENERS, phrases.QUESTIONS]
    lists += [frames for signs in TOPICS.values() for frames in signs.values()]
    lists += [*phrases.FEELINGS.values(), *generic.SENTENCES.values(), generic._FRAMES, generic._NOUNS]
    for items in lists:
        shares = [set(part(items, split)) for split in SPLITS]
        assert all(shares)
        assert set().union(*shares) == set(items)
        assert sum(map(len, shares)) == len(set(items)) == len(items)


def test_splits_share_no_text():
    texts = {split: {t.text for d in many(split, 150) for t in d.turns if t.text} for split in SPLITS}
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not texts[a] & texts[b]


def test_thousands_of_distinct_texts():
    turns = [t for d in many("train", 500) for t in d.turns if t.text]
    assert len({t.text for t in turns}) > 0.9 * len(turns) > 2000


def test_nobody_tells_the_same_thing_twice():
    for dialogue in many("train", 50, num_exchanges=6, generic=0.0):
        texts = [t.text for t in dialogue.turns if t.text]
        assert len(set(texts)) == len(texts)


def test_words_carry_valence():
    """A bag of words learned on some dialogues tells the sign of the valence of others."""
    turns = [t for d in many("train", 600, generic=0.0) for t in d.turns if t.text and abs(t.valence) > 0.3]
    score: dict[str, float] = {}
    for turn in turns[::2]:
        for word in set(turn.text.lower().split()):
            score[word] = score.get(word, 0.0) + np.sign(turn.valence)
    right = [
        np.sign(sum(score.get(w, 0) for w in set(t.text.lower().split()))) == np.sign(t.valence) for t in turns[1::2]
    ]
    assert np.mean(right) > 0.8


@pytest.mark.parametrize("wanted", [0.0, 0.2, 0.8])
def test_answers_follow_the_affect_asked_for(wanted):
    pairs = [e for d in many("train", 700, generic=0.0, affect_correlation=wanted) for e in d.exchanges]
    pairs = [(a, b) for a, b in pairs if a.text and b.text]
    valence = np.corrcoef([a.valence for a, _ in pairs], [b.valence for _, b in pairs])[0, 1]
    assert abs(valence - wanted) < 0.12


def test_first_words_of_an_answer_say_nothing_of_the_turn_before():
    pairs = [e for d in many("train", 800, affect_correlation=0.0) for e in d.exchanges]
    starts: dict[str, list[float]] = {}
    for previous, response in pairs:
        for words in phrases.ACKNOWLEDGEMENTS:
            if response.text.startswith(words) and previous.text:
                starts.setdefault(words, []).append(previous.valence)
    assert len(starts) >= 8
    for values in starts.values():
        assert abs(np.mean(values)) < 4.5 * np.std(values) / np.sqrt(len(values)) + 1e-6


def test_generic_share_and_other_languages():
    turns = [t for d in many("train", 300) for t in d.turns if t.text]
    assert 0.12 < np.mean([t.generic for t in turns]) < 0.3
    german = draw_dialogue(np.random.default_rng(0), "test", languages=("de", "en"))
    mine = [t for t in german.turns if t.speaker == 0 and t.text]
    sentences = part(generic.SENTENCES["de"], "test")
    assert all(t.generic and any(s in t.text for s in sentences) for t in mine)


def test_wrong_arguments_are_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="split"):
        draw_dialogue(generator, "dev")
    with pytest.raises(ValueError, match="at least 4"):
        draw_dialogue(generator, "train", num_exchanges=3)
    with pytest.raises(ValueError, match="correlation"):
        draw_dialogue(generator, "train", affect_correlation=2.0)
