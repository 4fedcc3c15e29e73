"""The strong backends of `diffdyad data build` for sounds, each on a tiny network with random weights."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from killing import kill_in
from test_affect import save_speech_classifier
from test_recordings import conversation

from diffdyad.affect import AffectEncoder
from diffdyad.cli import main
from diffdyad.data.doctor import check_dataset
from diffdyad.data.exchange import ExchangeShards, open_exchanges
from diffdyad.data.recordings import inventions, tagging
from diffdyad.data.recordings.agreement import agreed, voiced
from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.recordings.hearing import Heard, own_voice
from diffdyad.data.recordings.pcm import Pcm
from diffdyad.data.recordings.source import Recordings
from diffdyad.data.recordings.tagging import KINDS, Tagger, Tags, Window, columns_of, windows_of
from diffdyad.data.recordings.turns import find_turns
from diffdyad.data.recordings.whisper import Whisper, join_words, within
from diffdyad.data.recordings.words import Words
from diffdyad.errors import UserError
from diffdyad.media import normalise_loudness
from diffdyad.text import TimedWord

LETTERS = "abcde"
SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|de|>", "<|en|>", "<|transcribe|>", "<|translate|>",
            "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")  # fmt: skip


def save_whisper(folder):
    import transformers

    vocab = {token: n for n, token in enumerate(("Ġ", *LETTERS, *(f"Ġ{x}" for x in LETTERS)))}
    tokenizer = transformers.WhisperTokenizer(vocab=vocab, merges=[("Ġ", x) for x in LETTERS])
    tokenizer.add_tokens([transformers.AddedToken(x, special=True) for x in SPECIALS], special_tokens=True)
    tokenizer.add_tokens([transformers.AddedToken(f"<|{n * 0.02:.2f}|>", special=False) for n in range(1501)])
    tokenizer.save_pretrained(folder)
    ids = dict(zip(SPECIALS, tokenizer.convert_tokens_to_ids(list(SPECIALS))))
    end = ids["<|endoftext|>"]
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_target_positions=32,
        decoder_start_token_id=ids["<|startoftranscript|>"], eos_token_id=end, bos_token_id=end, pad_token_id=end,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.WhisperForConditionalGeneration(config)
    settings = model.generation_config
    settings._from_model_config = False
    settings.no_timestamps_token_id = ids["<|notimestamps|>"]
    settings.lang_to_id = {token: ids[token] for token in ("<|de|>", "<|en|>")}
    settings.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    settings.is_multilingual, settings.max_length, settings.max_initial_timestamp_index = True, 24, 50
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def save_ast(folder, labels=("Door", "Speech", "Laughter", "Chuckle, chortle", "Sigh")):
    import transformers

    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, max_length=128,
        id2label=dict(enumerate(labels)), label2id={x: n for n, x in enumerate(labels)},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ASTForAudioClassification(config)
        model.classifier.dense.weight.data.normal_()
    model.save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=128).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder with `whisper`, `ast` and `affect` in it."""
    folder = tmp_path_factory.mktemp("networks")
    save_whisper(folder / "whisper")
    save_ast(folder / "ast")
    save_speech_classifier(folder / "affect")
    return folder


def noise(seconds, seed=0):
    return (0.05 * np.random.default_rng(seed).normal(size=round(seconds * 16000))).astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- words


def test_inventions_are_told_by_their_scores():
    said = "I have not been to the sea for years."
    assert not inventions.is_invented(said, no_speech=0.1, logprob=-0.3)
    assert inventions.is_invented("Thank you.", no_speech=0.9, logprob=-0.3)  # on noise, and quite sure
    assert inventions.is_invented(said, no_speech=0.1, logprob=-1.4)
    assert inventions.is_invented("I'm going to. " * 12, no_speech=0.1, logprob=-0.1)
    assert not inventions.is_invented("Yeah, yeah, yeah.", no_speech=0.1, logprob=-0.1)
    assert inventions.is_invented(" ♪ ...", no_speech=0.0, logprob=-0.1)
    assert inventions.is_invented(said, no_speech=0.1, logprob=float("nan"))


def test_tokens_become_words():
    tokens = [" I", "'m", " well", "-", "known", ",", " \u201c", "you", " \u266a"]
    times = [0.4, 0.6, 0.7, 1.0, 1.0, 1.6, 1.6, 1.9, 1.9, 5.0]
    words = join_words(range(9), [0.9, 0.5, 1, 1, 0.7, 1, 1, 1, 1], times, lambda ids: "".join(tokens[i] for i in ids),
                       False, 2.0)  # fmt: skip
    assert [(w.word, w.start_s, w.end_s) for w in words[:2]] == [("I'm", 0.4, 0.7), ("well-known,", 0.7, 1.6)]
    assert [w.probability for w in words[:2]] == pytest.approx([0.7, 0.925])
    assert [w.word for w in words[2:]] == ["\u201cyou"]
    # characters may be several tokens, and words of no length get one, inside the block
    raw = [bytes([x]) for x in "你好。".encode()]
    decode = lambda ids: b"".join(raw[i] for i in ids).decode("utf-8", "replace")  # noqa: E731
    words = join_words(range(9), [1.0] * 9, [3.0] * 10, decode, True, 3.0)
    assert [w.word for w in words] == ["你", "好。"]
    assert all(0 <= w.start_s < w.end_s <= 3.0 for w in words)


def test_pauses_at_a_segment_s_edges_are_no_words():
    words = [TimedWord("a", 0.0, 2.5), TimedWord("b", 2.5, 2.8), TimedWord("c", 2.8, 6.0)]
    assert [(w.start_s, w.end_s) for w in within(words, 2.0, 3.2)] == [(2.0, 2.5), (2.5, 2.8), (2.8, 3.2)]
    assert within(words, 2.6, 2.7) == words  # the two contradict each other: nothing is said by that
    assert within(words[:1], 1.0, 2.0) == [TimedWord("a", 1.0, 2.0)] and within([], 0.0, 1.0) == []


def test_a_token_s_time_is_where_it_ends(networks):
    """Of attention that is known: each step attends to what it predicts, and tokens follow the prompt's four."""
    from transformers.generation.utils import GenerateEncoderDecoderOutput

    edges = [0, 50, 80, 130, 180, 200]  # columns of 20 ms: a timestamp, three words, a timestamp, the end
    steps = []
    for begin, end in pairwise(edges):
        row = torch.full((1, 2, 1, 1500), 1e-3)
        row[..., begin:end] = 1.0
        steps.append((row / row.sum(-1, keepdim=True),) * 2)
    steps[0] = tuple(torch.cat([torch.full((1, 2, 4, 1500), 1 / 1500), row], 2) for row in steps[0])
    model = Whisper(str(networks / "whisper")).model
    out = GenerateEncoderDecoderOutput(sequences=torch.zeros(1, 4 + len(steps) + 1), cross_attentions=tuple(steps))
    found = model._extract_token_timestamps(out, [[0, 0], [1, 1]], num_frames=torch.tensor([400]), num_input_ids=4)
    assert found.shape == (1, 4 + len(steps) + 1)
    ends = found[0, 4:].tolist()
    # the step that is given token k attends to token k + 1: its time is where k ends
    assert ends[1:5] == pytest.approx([edge * 0.02 for edge in edges[1:5]], abs=0.1)


def test_whisper_s_words_lie_in_the_block_in_order(networks):
    whisper = Whisper(str(networks / "whisper"))
    segments = whisper.segments(noise(4.0), "en")
    words = [word for segment in segments for word in segment.words]
    assert words and all(set(word.word) <= set(LETTERS) for word in words)
    assert all(0 <= word.start_s < word.end_s <= 4.0 and 0 < word.probability < 1 for word in words)
    starts = [word.start_s for word in words]
    assert starts == sorted(starts) and starts[-1] > starts[0]
    assert all(0 < s.no_speech < 1 and s.logprob < 0 for s in segments)
    assert whisper.segments(noise(4.0), "en") == segments
    assert whisper.words(noise(4.0), "en") == []  # random weights are sure of nothing
    with pytest.raises(ValueError, match="at most"):
        whisper.segments(noise(31.0), "en")


def test_a_token_s_score_is_the_network_s(networks):
    import transformers

    whisper = Whisper(str(networks / "whisper"))
    first = whisper.segments(noise(2.0), "de")[0]
    model = transformers.WhisperForConditionalGeneration.from_pretrained(networks / "whisper").eval()
    features = transformers.WhisperFeatureExtractor()(noise(2.0), sampling_rate=16000, return_tensors="pt")
    start = torch.tensor([[model.generation_config.decoder_start_token_id]])
    with torch.no_grad():
        logits = model(features["input_features"], decoder_input_ids=start).logits[0, 0]
    number = whisper.tokenizer.convert_tokens_to_ids("<|nospeech|>")
    assert first.no_speech == pytest.approx(float(logits.softmax(0)[number]), rel=1e-3)
    ids = whisper.tokenizer.convert_tokens_to_ids(["<|de|>", "<|en|>"])
    assert whisper.detect([noise(2.0)]) == ("de", "en")[int(logits[ids].argmax())]


def test_languages_are_those_of_the_checkpoint(networks):
    whisper = Whisper(str(networks / "whisper"))
    assert [whisper.language(tag) for tag in ("", "de-AT", "EN")] == ["", "de", "en"]
    with pytest.raises(UserError, match=r"\(de, en\), found 'fr'"):
        whisper.language("fr")
    with pytest.raises(UserError, match="expected a Whisper checkpoint for words_model, found 'wav2vec2'"):
        Whisper(str(networks / "affect"))


# --------------------------------------------------------------------------------------------------------------- tags


def test_windows_stay_in_their_span():
    assert windows_of([(10.0, 10.4), (0.0, 2.0)]) == [(0.0, 2.0)]
    assert windows_of([(1.0, 4.5)]) == [(1.0, 2.75), (2.75, 4.5)]
    assert windows_of([(1.0, 1.7)]) == [(1.0, 1.7)]


def test_classes_become_kinds(networks):
    import transformers

    tagger = Tagger(str(networks / "ast"))
    sounds = [noise(1.0), 4 * noise(0.6, 1)]
    found = dict(zip(KINDS, tagger.kinds(sounds).T))
    model = transformers.ASTForAudioClassification.from_pretrained(networks / "ast").eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(networks / "ast")
    with torch.no_grad():
        features = extractor(sounds, sampling_rate=16000, return_tensors="pt")
        classes = model(features["input_values"]).logits.sigmoid().numpy()
    assert np.allclose(found["speech"], classes[:, 1], atol=1e-5)
    assert np.allclose(found["laughter"], classes[:, 2:4].max(1), atol=1e-5)
    assert np.allclose(found["sigh"], classes[:, 4], atol=1e-5) and not found["cough"].any()
    assert not np.allclose(classes[0], classes[1], atol=1e-3)


def test_a_classifier_of_other_things_is_refused(tmp_path, networks):
    assert columns_of({0: "Cough", 1: "throat clearing", 2: "Dog"})["cough"] == [0, 1]
    with pytest.raises(UserError, match="AudioSet's classes.*found Dog, Cat"):
        Tagger(str(save_ast(tmp_path, ("Dog", "Cat"))))
    with pytest.raises(UserError, match="expected an AST checkpoint for tags_model, found 'wav2vec2'"):
        Tagger(str(networks / "affect"))


def heard_of(spans, sounds):
    return Heard("channels", [], spans, np.zeros((2, 0)), 20.0, [], sounds)


def test_non_verbal_is_what_all_three_agree_on():
    laugh, talk, door = {"laughter": 0.8, "speech": 0.2}, {"laughter": 0.4, "speech": 0.7}, {"speech": 0.05}
    spans = [[(0.0, 4.0)], [(5.0, 6.5), (8.0, 9.5), (11.0, 15.0)]]
    sounds = [[(17.0, 18.0), (19.0, 20.0)], []]
    words = Words([[TimedWord("a", 0.0, 4.0)], [TimedWord("b", 11.0, 15.0)]], known=True, transcribed=True)
    tags = Tags([
        [Window(0.0, 2.0, talk), Window(2.0, 4.0, laugh), Window(17.0, 18.0, laugh), Window(19.0, 20.0, door)],
        [Window(5.0, 6.5, laugh), Window(8.0, 9.5, talk), Window(11.0, 13.0, laugh), Window(13.0, 15.0, laugh)],
    ], True)  # fmt: skip

    def kinds(words, tags):
        evidence = agreed(heard_of(spans, sounds), words, tags)
        return {turn.start_s: turn.kind for turn in find_turns(spans, evidence.sounds, evidence.has_words)}

    # voice activity takes a laugh at 5 s for speech; at 8 s the recogniser fails at speech; at 19 s a door falls shut
    assert kinds(words, tags) == {0.0: "verbal", 5.0: "nonverbal", 8.0: "verbal", 11.0: "verbal", 17.0: "nonverbal"}
    assert kinds(words, Tags()) == {
        0.0: "verbal", 5.0: "nonverbal", 8.0: "nonverbal", 11.0: "verbal", 17.0: "nonverbal", 19.0: "nonverbal",
    }  # fmt: skip
    assert kinds(Words(), tags) == {0.0: "verbal", 5.0: "verbal", 8.0: "verbal", 11.0: "verbal", 17.0: "nonverbal"}


def test_a_laugh_is_part_of_the_voice_and_a_door_is_not(tmp_path):
    np.full(20 * 16000, 1000, "<i2").tofile(tmp_path / "a.pcm")
    heard = heard_of([[(0.0, 2.0)], []], [[(3.0, 4.0), (5.0, 6.0)], []])
    heard.sound = [Pcm(tmp_path / "a.pcm")] * 2
    tags = Tags([[Window(3.0, 4.0, {"laughter": 0.8}), Window(5.0, 6.0, {})], []], True)

    def audible(tags: Tags) -> list[bool]:  # in the middle of each second
        voices = voiced(heard, agreed(heard, Words(), tags))
        sound = own_voice(voices, 0, 0, 8 * 16000).reshape(8, 16000)[:, 4000:12000]
        return (np.abs(sound).max(1) > 0.01).tolist()

    assert audible(tags) == [True, True, False, True, False, False, False, False]
    assert audible(Tags()) == [True, True, False, True, False, True, False, False]  # nobody says that it is a door


def test_without_a_tagger_nothing_is_weighed():
    heard, words = heard_of([[], []], [[(1.0, 2.0)], []]), Words(known=True)
    assert agreed(heard, words, Tags()).sounds is heard.sounds
    assert agreed(heard, words, Tags()).has_words == words.has_words
    assert agreed(heard, Words(), Tags()).has_words is None


def test_tags_of_a_record_are_joined_and_cut():
    windows = [Window(1.0, 3.0, {"laughter": 0.5, "speech": 0.9}), Window(2.0, 4.0, {"laughter": 0.7, "sigh": 0.2}),
               Window(8.0, 9.0, {"laughter": 0.4})]  # fmt: skip
    tags = Tags([windows, []], True).of(0, 2.5, 8.5)
    assert [(t.tag, t.start_s, t.end_s, t.probability) for t in tags] == [
        ("laughter", 0.0, 1.5, 0.7), ("laughter", 5.5, 6.0, 0.4),
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- build


def manifest(folder, **backends):
    conversation(folder / "talk.wav", 0)
    backends = {"activity": "energy", "prosody": "none", **backends}
    content = {"backends": backends, "sessions": [{"files": ["talk.wav"], "speakers": ["a", "b"], "split": "test"}]}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    return folder / "manifest.yaml"


def test_all_of_them_in_a_dataset(tmp_path, networks, monkeypatch):
    monkeypatch.setattr(inventions, "LEAST_LOGPROB", -99.0)  # random weights are sure of nothing
    monkeypatch.setattr(inventions, "MOST_COMPRESSION", 99.0)
    monkeypatch.setattr(tagging, "LEAST_PROBABILITY", 0.01)
    for name in ("whisper", "ast"):
        (tmp_path / name).symlink_to(networks / name)  # beside the manifest, and named so
    backends = {"words": "whisper", "words_model": "whisper", "tags": "ast", "tags_model": "ast",
                "affect": str(networks / "affect")}  # fmt: skip
    path = manifest(tmp_path, **backends)
    build_dataset(path, tmp_path / "out", workers=1)
    shards = ExchangeShards(tmp_path / "out", "test")
    exchange, row = shards[0], shards.row(0)
    assert exchange.language in ("de", "en")
    encoder = AffectEncoder(str(networks / "affect"))
    for who in ("previous", "responder"):
        person = exchange.person(who)
        seconds = exchange.end_s - exchange.start_s
        assert person.affect.shape == (int(seconds / 0.2 + 1e-6), 12)
        waveform = normalise_loudness(torch.from_numpy(person.waveform), 16000)
        assert np.allclose(person.affect, encoder.encode(waveform).features.numpy(), atol=0.02)  # FLAC is 16 bit
        assert person.words and person.text == " ".join(word.word for word in person.words)
        assert all(exchange.start_s <= w.start_s < w.end_s <= exchange.end_s + 0.05 for w in person.words)
        assert person.tags and {tag.tag for tag in person.tags} <= {"laughter", "sigh"}
        assert all(exchange.start_s <= tag.start_s < tag.end_s <= exchange.end_s for tag in person.tags)
    name, weights = exchange.affect_encoder.split("@")
    assert name == "affect" and len(weights) == 16 and row["affect_encoder"] == exchange.affect_encoder
    stored = open_exchanges(tmp_path / "out", "test", str(tmp_path / "cache"))
    assert stored.features["responder_affect"].shape == (None, 12)
    assert not any("contradict" in problem for problem in check_dataset(tmp_path / "out").problems)
    steps = json.loads((tmp_path / "out" / "sessions.jsonl").read_text().splitlines()[0])["steps"]
    assert {"words", "tags", "affect"} <= set(steps)
    assert steps["words"]["backend"] == "whisper" and steps["words"]["settings"]["most_no_speech"] == 0.6
    assert steps["words"]["version"].startswith("transformers ") and steps["tags"]["settings"]["window_s"] == 2.0
    before = (tmp_path / "out" / "test-00000-of-00001.parquet").read_bytes()
    for step in ("words", "tags", "affect"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            kill_in(patch, step)
            build_dataset(path, tmp_path / step, workers=1)
        build_dataset(path, tmp_path / step, workers=1)
        assert (tmp_path / step / "test-00000-of-00001.parquet").read_bytes() == before
    # done once: what was found is taken from the steps
    for part in (tmp_path / "out" / ".import").glob("*"):
        part.unlink()
    (tmp_path / "out" / "test-00000-of-00001.parquet").unlink()
    monkeypatch.setattr(Whisper, "segments", None)
    monkeypatch.setattr(Tagger, "kinds", None)
    marker = tmp_path / "out" / "import.json"
    marker.write_text(json.dumps({k: v for k, v in json.loads(marker.read_text()).items() if k != "finished"}))
    build_dataset(path, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "test-00000-of-00001.parquet").read_bytes() == before


def test_what_is_not_asked_for_leaves_no_trace(tmp_path):
    build_dataset(manifest(tmp_path), tmp_path / "out", workers=1)
    row = ExchangeShards(tmp_path / "out", "test").row(0)
    assert "affect_encoder" not in row and not any(column.endswith("_affect") for column in row)
    assert set(Recordings(tmp_path / "manifest.yaml").settings()["manifest"]["backends"]) == {
        "activity", "diarization", "words", "prosody", "motion", "mediapipe_model",
    }  # fmt: skip
    assert "weights" not in Recordings(tmp_path / "manifest.yaml").settings()


@pytest.mark.parametrize(
    ("backends", "message"),
    [
        ({"words": "whisper", "words_model": "nobody/nothing"}, "hf download nobody/nothing` once, online, or name "
         "another in `words_model`"),
        ({"words": "whisper"}, "openai/whisper-small"),
        ({"tags": "ast", "tags_model": "nobody/nothing"}, "another in `tags_model`"),
        ({"tags": "ast", "tags_model": "./nowhere"}, "check the path"),
        ({"affect": "nobody/nothing"}, "another in `affect`"),
        ({"words_model": "x"}, "words_model is for `words: whisper`, found `words: none`"),
        ({"words": "pocketsphinx", "words_revision": "x"}, "words_revision is for `words: whisper`"),
        ({"tags_model": "x"}, "tags_model is for `tags: ast`"),
        ({"affect_revision": "x"}, "affect_revision is for an encoder's name in `affect`"),
        ({"tags": "panns"}, "tags among none, ast"),
        ({"words": "wisper"}, "words among none, pocketsphinx, whisper"),
    ],
)
def test_what_is_not_at_hand_is_one_line(backends, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["data", "build", str(manifest(tmp_path, **backends)), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
