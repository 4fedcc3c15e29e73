"""From recordings to exchanges: sound, who speaks when, turns, a dataset that training can read."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dataset_fixtures as made
import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, SHARED_DATA
from killing import kill_in

from diffdyad.cli import main
from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.importers import corpus
from diffdyad.data.intake import Shard
from diffdyad.data.recordings import diarization, features, hearing
from diffdyad.data.recordings.build import build_dataset, parse_shard
from diffdyad.data.recordings.frames import hysteresis, mask_spans, merge, spans_mask, viterbi
from diffdyad.data.recordings.gate import gain_offset, speech_of
from diffdyad.data.recordings.manifest import load_manifest
from diffdyad.data.recordings.pcm import Pcm, write_pcm
from diffdyad.data.recordings.rttm import diarization_error, read_rttm, write_rttm
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.recordings.turns import Turn, find_answers, find_turns
from diffdyad.errors import UserError
from diffdyad.media import read_audio, stream_channels
from diffdyad.staging import whole

CONVERSATION = SHARED_DATA / "conversation"
OFFLINE = all(importlib.util.find_spec(name) for name in ("silero_vad", "resemblyzer", "sklearn"))
needs_packages = pytest.mark.skipif(not OFFLINE, reason="needs the extra `data`, and Resemblyzer")


def stereo(path: Path, *channels: np.ndarray, rate: int = 16000) -> None:
    import wave

    samples = np.clip(np.rint(np.stack(channels, 1) * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(len(channels))
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.tobytes())


def conversation(path: Path, seed: int, bleed_db: float = -12.0) -> made.Talk:
    talk = made.Talk(seed)
    stereo(path, *(talk.waveform(side, bleed_db=bleed_db) for side in (0, 1)))
    return talk


def write_manifest(folder: Path, count: int = 3, **options) -> Path:
    sessions = []
    for seed in range(count):
        conversation(folder / f"talk{seed}.wav", seed)
        sessions.append({"files": [f"talk{seed}.wav"], "speakers": [f"a{seed}", f"b{seed}"]})
    content = {"name": "talks", "license": "CC0-1.0", "backends": {"activity": "energy"},
               "sessions": sessions, **options}  # fmt: skip
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


# -------------------------------------------------------------------------------------------------------------- sound


def test_channels_are_streamed_as_they_are_read_whole(tmp_path):
    talk = made.Talk(1, seconds=3.0, turns=[(0, 0.2, 1.4), (1, 1.5, 2.8)])
    stereo(tmp_path / "a.wav", talk.waveform(0, 44100), talk.waveform(1, 44100), rate=44100)
    channels = np.concatenate(list(stream_channels(tmp_path / "a.wav")))
    whole = read_audio(tmp_path / "a.wav").numpy()
    assert channels.shape == (len(whole), 2) == (48000, 2)
    assert np.abs(channels.mean(1) - whole).max() < 1e-4
    info = write_pcm(tmp_path / "a.wav", tmp_path / "a.pcm")
    assert (info.num_channels, info.seconds) == (2, 3.0) and abs(info.correlation) < 0.2
    left = Pcm(tmp_path / "a.pcm", 0, 2)
    assert len(left) == 48000 and np.abs(left[1000:2000] - channels[1000:2000, 0]).max() < 2**-15
    assert np.array_equal(np.concatenate(list(left.blocks(0.7))), left[:])
    assert np.abs(Pcm(tmp_path / "a.pcm", None, 2)[:] - whole).max() < 1e-4


def test_a_late_clock_is_set_right(tmp_path):
    np.arange(100, 200, dtype="<i2").tofile(tmp_path / "a.pcm")
    late = Pcm(tmp_path / "a.pcm", 0, 1, late_s=10 / 16000)
    assert len(late) == 110 and not late[:10].any()
    assert np.round(late[8:13] * 32768).tolist() == [0, 0, 100, 101, 102]
    early = Pcm(tmp_path / "a.pcm", 0, 1, late_s=-10 / 16000)
    assert len(early) == 90 and np.round(early[0:2] * 32768).tolist() == [110, 111]


# ------------------------------------------------------------------------------------------------------ who speaks when


def test_hysteresis_keeps_the_state_between_its_thresholds():
    values = np.array([0.4, 0.6, 0.4, 0.4, 0.2, 0.4, 0.7])
    assert hysteresis(values, 0.5, 0.3).tolist() == [False, True, True, True, False, False, True]


def test_viterbi_changes_only_where_it_pays():
    scores = np.array([[1.0, 0], [1, 0], [0, 1], [1, 0], [0, 1], [0, 1], [0, 1]])
    assert viterbi(scores, 0.0).tolist() == [0, 0, 1, 0, 1, 1, 1]
    assert viterbi(scores * [1, 0.99], 1.5).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert viterbi(scores, 99.0).tolist() == [1] * 7


def test_spans_and_masks_are_inverse():
    spans = [(0.1, 0.25), (0.5, 1.0)]
    assert mask_spans(spans_mask(spans, 200)) == spans
    assert merge([(2.0, 3.0), (0.0, 1.0), (1.4, 1.9)], 0.5) == [(0.0, 3.0)]


def test_difference_in_gain_lies_between_two_heaps():
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(15, 2, 3000), rng.normal(-5, 2, 1000)])
    assert gain_offset(heaps) == pytest.approx(5.0, abs=0.2)
    assert gain_offset(rng.normal(15, 1, 3000)) == 0.0  # one speaker alone: nothing is known of the other's gain


@pytest.mark.parametrize("gains_db", [(0, 0), (0, 9)])
def test_bleed_and_unequal_gains_do_not_move_turns(gains_db):
    talk = made.Talk(5)
    waveforms = [talk.waveform(side, bleed_db=-6.0) * 10 ** (gains_db[side] / 20) for side in (0, 1)]
    spans = speech_of(waveforms)
    for side in (0, 1):
        truth = spans_mask([(a, b) for who, a, b in talk.turns if who == side], 1700)
        found = spans_mask(merge(spans[side], 0.5), 1700)
        assert (truth != found).mean() < 0.08


def test_error_of_a_diarization_is_nist_s():
    reference = {"x": [(0.0, 4.0)], "y": [(3.0, 6.0)]}  # 7 s of speech, 1 s of it at once
    assert diarization_error(reference, {"B": [(3.0, 6.0)], "A": [(0.0, 4.0)]}).total == 0.0
    found = {"A": [(0.0, 3.0), (6.0, 6.5)], "B": [(3.0, 5.0)], "C": [(5.0, 6.0)]}
    error = diarization_error(reference, found)
    assert error.missed == pytest.approx(1 / 7, abs=1e-3)
    assert error.false_alarm == pytest.approx(0.5 / 7, abs=1e-3)
    assert error.confused == pytest.approx(1 / 7, abs=1e-3)
    with pytest.raises(ValueError, match="expected speech"):
        diarization_error({}, found)


def test_rttm_there_and_back(tmp_path):
    speakers = {"A": [(0.5, 1.25), (3.0, 4.0)], "B": [(1.5, 2.0)]}
    write_rttm(tmp_path / "x.rttm", "two words", speakers)
    assert read_rttm(tmp_path / "x.rttm", "two_words") == speakers
    assert [line.split()[7] for line in (tmp_path / "x.rttm").read_text().splitlines()] == ["A", "B", "A"]
    (tmp_path / "x.rttm").write_text("SPEAKER x 1 zero 1 <NA> <NA> A\n")
    with pytest.raises(UserError, match="line 1"):
        read_rttm(tmp_path / "x.rttm")


@pytest.mark.skipif(not CONVERSATION.is_dir(), reason="needs ../shared/data/conversation")
@needs_packages
@pytest.mark.parametrize("name", ["dev01", "trn03"])
def test_one_microphone_of_a_real_meeting(name, tmp_path):
    reference = read_rttm(CONVERSATION / "turns.rttm", name)
    assert main(["data", "turns", str(CONVERSATION / f"{name}.wav"), "--rttm", str(tmp_path / "out.rttm")]) == 0
    found = read_rttm(tmp_path / "out.rttm", name)
    assert set(found) == {"A", "B"}
    assert diarization_error(reference, found).total < 0.25


def test_voices_in_two_heaps_are_two_people():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, 256))
    truth = np.array([0] * 30 + [1] * 6 + [0] * 40)
    embeddings = centres[truth] + 0.4 * rng.normal(size=(len(truth), 256))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    voices = diarization.Voices(embeddings, [(k * 0.25, (k + 1) * 0.25) for k in range(len(truth))])
    assert diarization.diarize(voices) == [[(0.0, 7.5), (9.0, 19.0)], [(7.5, 9.0)]]


def test_a_missing_package_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("diffdyad.data.recordings.weights.importlib.util.find_spec", lambda name: None)
    hearing.activity.load_silero.cache_clear()
    conversation(tmp_path / "a.wav", 1)
    assert main(["data", "turns", str(tmp_path / "a.wav")]) == 2
    assert "pip install 'diffdyad[data]'" in capsys.readouterr().err
    hearing.activity.load_silero.cache_clear()


def test_one_microphone_is_noticed_before_anything_is_built(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("diffdyad.data.recordings.weights.importlib.util.find_spec", lambda name: None)
    diarization.load_voice_encoder.cache_clear()
    talk = conversation(tmp_path / "two.wav", 1)
    made.pcm_wav(tmp_path / "one.wav", talk.waveform(0), 16000)
    (tmp_path / "text.wav").write_text("no sound")
    out = tmp_path / "out"

    def build(*files: str, **more) -> str:
        content = {"backends": {"activity": "energy"}, "sessions": [{"files": [name], **more} for name in files]}
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(content))
        code = main(["data", "build", str(tmp_path / "m.yaml"), "--out", str(out), "--workers", "1"])
        return f"{code} {capsys.readouterr().err}"

    for found in (build("two.wav", "one.wav"), build("two.wav", layout="mixed")):
        assert found.startswith("2 ") and "one microphone" in found and "Resemblyzer" in found and not out.exists()
    assert build("two.wav", "text.wav").startswith("3 ")
    diarization.load_voice_encoder.cache_clear()


# -------------------------------------------------------------------------------------------------------------- turns


def test_turns_join_pauses_and_tell_laughter_and_backchannels():
    spans = [[(0.0, 2.0), (2.4, 5.0)], [(3.0, 3.8), (7.0, 10.0)]]
    sounds = [[], [(5.3, 6.1), (10.2, 10.9)]]
    found = find_turns(spans, sounds)
    assert [(t.side, t.start_s, t.end_s, t.kind) for t in found] == [
        (0, 0.0, 5.0, "verbal"), (1, 3.0, 3.8, "backchannel"), (1, 5.3, 6.1, "nonverbal"), (1, 7.0, 10.9, "mixed"),
    ]  # fmt: skip
    wordless = find_turns(spans, has_words=lambda side, span: side == 0)
    assert [turn.kind for turn in wordless] == ["verbal", "nonverbal", "nonverbal"]


def test_answers_are_adjacent_long_enough_and_chained():
    turns = [
        Turn(0, 0.0, 4.0), Turn(1, 3.8, 7.0), Turn(0, 7.2, 11.0), Turn(1, 13.0, 17.0), Turn(0, 17.1, 17.8, "nonverbal"),
        Turn(1, 18.0, 21.0), Turn(1, 21.6, 22.4, "backchannel"), Turn(0, 22.2, 24.0),
    ]  # fmt: skip
    answers = find_answers(turns)
    assert [(a.previous.start_s, a.turn.start_s, a.chained) for a in answers] == [
        (0.0, 3.8, False), (3.8, 7.2, True), (13.0, 17.1, False),
    ]  # fmt: skip
    # 7.2 -> 13.0: too long a gap; 17.1 -> 18.0: a laugh is no previous turn; 18.0 -> 22.2: too short an answer
    assert find_answers(turns, end_s=9.0)[-1].turn.start_s == 3.8


def test_what_lies_within_a_turn_does_not_come_between():
    laugh, question = Turn(1, 5.0, 5.6, "nonverbal"), Turn(1, 7.0, 8.2)
    answers = find_answers([Turn(0, 0.0, 10.0), laugh, question, Turn(1, 10.3, 14.0)])
    assert [(a.previous.start_s, a.turn.start_s) for a in answers] == [(0.0, 10.3)]


# -------------------------------------------------------------------------------------------------------------- build


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """(folder of the sources, folder of the dataset)"""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built") / "out"
    report = build_dataset(write_manifest(source), out, workers=1)
    assert report.exit_code == 0 and sum(report.exchanges.values()) == 9
    return source, out


def test_recordings_become_chained_exchanges(built):
    _, out = built
    exchanges = [e for split in ("train", "validation", "test") for e in ExchangeShards(out, split)]
    talk = made.Talk(0)
    first = sorted((e for e in exchanges if "talk0" in e.session_id), key=lambda e: e.session_onset_s)
    assert [e.responder_name for e in first] == ["b0", "a0", "b0"]
    assert [e.previous_exchange_id for e in first] == ["", first[0].exchange_id, first[1].exchange_id]
    assert [e.next_exchange_id for e in first] == [first[1].exchange_id, first[2].exchange_id, ""]
    for exchange, (_, start, end), before in zip(first, talk.turns[1:], talk.turns):
        assert exchange.session_onset_s == pytest.approx(start, abs=0.1)
        assert exchange.end_s == pytest.approx(end - start, abs=0.15)
        assert exchange.gap_s == pytest.approx(start - before[2], abs=0.15)
        assert (exchange.license, exchange.source, exchange.response_kind) == ("CC0-1.0", "talks", "verbal")
        assert exchange.keep and {turn.who for turn in exchange.turns} == {"previous", "responder"}
        assert -40 < exchange.responder.residual_db < -3 or exchange.responder.residual_db == -np.inf
    onset = round(-first[0].start_s * 16000)
    silent, spoken = (float(np.square(first[0].responder.waveform[part]).mean())
                      for part in (slice(8000, onset - 8000), slice(onset, None)))  # fmt: skip
    assert spoken > 1e4 * silent  # the other's voice is gated away while the other speaks
    splits = {e.session_id: e.split for e in exchanges}
    assert len(set(splits.values())) == 3


def test_training_reads_what_was_built(built):
    _, out = built
    for path in out.glob("*.parquet"):
        for exchange in Shard(path):
            assert exchange.layout.basis == "arkit" and exchange.num_frames == 0
            assert len(exchange.responder.waveform) == round((exchange.end_s - exchange.start_s) * 16000)


def test_sessions_say_what_was_used(built):
    _, out = built
    line = json.loads((out / "sessions.jsonl").read_text().splitlines()[0])
    assert line["layout"] == "channels" and set(line["steps"]) == {"media", "activity", "speech", "prosody"}
    assert all({"backend", "version", "settings"} <= set(step) for step in line["steps"].values())
    assert not list((out / ".steps").glob("media-*"))  # decoded sound is not kept


@pytest.mark.parametrize("step", ["media", "activity", "speech", "prosody", "rows"])
def test_killed_at_any_step_it_ends_with_the_same_bytes(built, tmp_path, monkeypatch, step):
    source, out = built
    if step == "rows":
        calls, real_rows = [], corpus.to_row

        def to_row(exchange):
            calls.append(exchange)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return real_rows(exchange)

        monkeypatch.setattr(corpus, "to_row", to_row)
    else:
        kill_in(monkeypatch, step, 2)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(source / "manifest.yaml", tmp_path / "out", workers=1)
    monkeypatch.undo()
    assert not contents(tmp_path / "out")
    build_dataset(source / "manifest.yaml", tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == contents(out)
    assert not list((tmp_path / "out" / ".steps").glob(".*"))


def test_sigkill_leaves_nothing_that_changes_the_end(built, tmp_path):
    source, out = built
    script = "import sys\nfrom diffdyad.data.recordings.build import build_dataset\nbuild_dataset(*sys.argv[1:], 1)"
    child = subprocess.Popen([sys.executable, "-c", script, source / "manifest.yaml", tmp_path / "out"])
    while child.poll() is None and not list((tmp_path / "out" / ".steps").glob("*activity-*")):
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL and not contents(tmp_path / "out")
    build_dataset(source / "manifest.yaml", tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == contents(out)


def test_machines_share_the_work_by_the_folder_alone(built, tmp_path):
    source, out = built
    first = build_dataset(source / "manifest.yaml", tmp_path / "out", 1, "2/2")
    assert first.recordings < 3 and not contents(tmp_path / "out") and "--shard" in "\n".join(first.lines())
    build_dataset(source / "manifest.yaml", tmp_path / "out", 1, "1/2")
    assert contents(tmp_path / "out") == contents(out)
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(UserError, match="i/n"):
            parse_shard(wrong)


def test_machines_with_the_same_process_number_do_not_meet(tmp_path, monkeypatch):
    """One machine begins a step, or a file, while another does the same, both as process 7."""
    monkeypatch.setattr("os.getpid", lambda: 7)
    here = Steps(tmp_path)

    def step(make):
        return here.run("words", "b", "1", {}, ["input"], make)

    def slow(folder: Path) -> dict:
        (folder / "made.txt").write_text("slow")
        found = step(quick)  # meanwhile, elsewhere
        assert (found.folder / "made.txt").read_text() == "quick" and (folder / "made.txt").read_text() == "slow"
        return {"by": "slow"}

    def quick(folder: Path) -> dict:
        (folder / "made.txt").write_text("quick")
        return {"by": "quick"}

    found = step(slow)
    assert found.values == {"by": "quick"} and (found.folder / "made.txt").read_text() == "quick"  # in use elsewhere
    with whole(tmp_path / "file", shared=True) as one:
        one.write_text("one")
        with whole(tmp_path / "file", shared=True) as other:
            other.write_text("other")
        assert one.read_text() == "one"
    assert (tmp_path / "file").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", found.folder.name])


def test_machines_that_begin_at_once_share_the_work(built, tmp_path):
    source, out = built
    shutil.copytree(source, tmp_path / "source")
    content = yaml.safe_load((source / "manifest.yaml").read_text())
    shutil.copytree(out, tmp_path / "out")  # of another manifest, which all of them find and clear away
    content["license"] = "CC-BY-4.0"
    (tmp_path / "source" / "manifest.yaml").write_text(yaml.safe_dump(content))
    words = ["data", "build", tmp_path / "source" / "manifest.yaml", "--out", tmp_path / "out", "--workers", "1"]
    command = [sys.executable, "-m", "diffdyad.cli", *map(str, words), "--shard"]
    runs = [subprocess.Popen([*command, f"{k}/3"], cwd=REPOSITORY) for k in (1, 2, 3)]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    alone = build_dataset(tmp_path / "source" / "manifest.yaml", tmp_path / "alone", 1)
    assert contents(tmp_path / "out") == contents(alone.out)


def test_a_corrupt_file_is_named_and_the_others_are_done(built, tmp_path, capsys):
    source, out = built
    shutil.copytree(source, tmp_path / "source")
    whole = (tmp_path / "source" / "talk1.wav").read_bytes()
    (tmp_path / "source" / "talk1.wav").write_bytes(whole[: len(whole) // 2])
    arguments = ["data", "build", str(tmp_path / "source" / "manifest.yaml"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--workers", "1"]) == 3
    shown = capsys.readouterr()
    assert "talk1" in shown.err and "cut short" in shown.err and "6 exchanges" in shown.out
    (tmp_path / "source" / "talk1.wav").unlink()
    assert main([*arguments, "--workers", "1"]) == 3 and "talk1" in capsys.readouterr().err
    (tmp_path / "source" / "talk1.wav").write_bytes(whole)
    assert main([*arguments, "--workers", "1"]) == 0
    assert contents(tmp_path / "out") == contents(out)


def test_a_recording_replaced_by_one_of_the_same_size_is_noticed(built, tmp_path, monkeypatch):
    source, out = built
    shutil.copytree(source, tmp_path / "source")
    shutil.copytree(out, tmp_path / "out")
    jobs = []
    real = corpus._do
    monkeypatch.setattr(corpus, "_do", lambda job, *rest: jobs.append(job) or real(job, *rest))

    def build() -> int:
        jobs.clear()
        build_dataset(tmp_path / "source" / "manifest.yaml", tmp_path / "out", workers=1)
        return len(jobs)

    assert build() == 0  # other times, the same content
    path = tmp_path / "source" / "talk1.wav"
    size = path.stat().st_size
    conversation(path, 7)
    assert path.stat().st_size == size and build() == 1
    now, before = contents(tmp_path / "out"), contents(out)
    assert sum(now[name] != before[name] for name in before) == 1 and build() == 0
    shutil.copyfile(source / "talk1.wav", path)
    assert build() == 1 and contents(tmp_path / "out") == before


@pytest.mark.parametrize("damage", [b"{", b"[]"])
@pytest.mark.parametrize("what", [".import/00000.json", ".import/*.json", ".steps/speech-*/step.json"])
def test_damaged_bookkeeping_is_made_again(built, tmp_path, what, damage):
    source, out = built
    shutil.copytree(out, tmp_path / "out")
    for path in (found := list((tmp_path / "out").glob(what))):
        path.write_bytes(damage)
    if "steps" in what:
        next((tmp_path / "out" / ".import").glob("*.json")).unlink()
    assert found
    build_dataset(source / "manifest.yaml", tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == contents(out)


def test_a_changed_manifest_is_built_anew_from_the_steps(built, tmp_path, monkeypatch):
    source, out = built
    shutil.copytree(source, tmp_path / "source")
    shutil.copytree(out, tmp_path / "out")
    content = yaml.safe_load((source / "manifest.yaml").read_text())
    del content["sessions"][2]
    (tmp_path / "source" / "manifest.yaml").write_text(yaml.safe_dump(content))
    made_steps = []
    for module, name in ((hearing.gate, "gated"), (features, "prosody")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, **named: made_steps.append(1) or real(*a, **named))
    report = build_dataset(tmp_path / "source" / "manifest.yaml", tmp_path / "out", workers=1)
    assert sum(report.exchanges.values()) == 6 and not made_steps


def test_a_file_per_person(tmp_path):
    talk = made.Talk(0)
    for side in (0, 1):
        made.pcm_wav(tmp_path / f"{side}.wav", talk.waveform(side)[1600 * side :], 16000)
    sessions = [{"id": "one", "files": ["0.wav", "1.wav"], "offsets_s": [0.0, 0.1]}]
    content = {"backends": {"activity": "energy", "prosody": "prosody"}, "sessions": sessions}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(content))
    build_dataset(tmp_path / "m.yaml", tmp_path / "out", workers=1)
    exchanges = list(ExchangeShards(tmp_path / "out", "train"))
    assert [e.session_onset_s for e in exchanges] == pytest.approx([4.3, 8.5, 12.7], abs=0.1)
    assert exchanges[0].responder.prosody.shape == (round((exchanges[0].end_s - exchanges[0].start_s) * 25), 8)
    assert exchanges[0].prosody_encoder == "prosody" and exchanges[0].responder_name == "one-B"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sessions": []}, "sessions"),
        ({"sessions": [{"files": ["a.wav"], "layout": "files"}]}, "layout 'files'"),
        ({"sessions": [{"files": ["a.wav"], "speakers": ["x", "x"]}]}, "two different speakers"),
        ({"sessions": [{"files": ["a.wav"], "speakers": ["", "b"]}]}, "sessions.0.speakers.0"),
        ({"sessions": [{"files": ["a.wav"], "speakers": ["x", "x "]}]}, "two different speakers"),
        ({"sessions": [{"files": [""]}]}, "sessions.0.files.0"),
        ({"sessions": [{"files": ["a.wav"], "offsets_s": [1e9]}]}, "less than or equal to 3600"),
        ({"sessions": [{"files": ["a.wav"], "offsets_s": [float("nan")]}]}, "finite number"),
        ({"sessions": [{"files": ["a.wav"], "channels": [0, 0]}]}, "two different channels"),
        ({"sessions": [{"files": ["a.wav"]}], "backends": {"sounds": "none"}}, "backends.sounds"),
        ({"sessions": [{"files": ["a.wav"]}, {"files": ["a.mp3"]}]}, "found 'a' twice"),
        ({"sessions": [{"files": ["a.wav"], "typo": 1}]}, "typo"),
        ({"sessions": [{"files": ["a.wav"]}], "backends": {"activity": "none"}}, "silero, energy"),
        ("a list", "mapping"),
    ],
)
def test_a_wrong_manifest_is_one_line(content, message, tmp_path, capsys):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(content))
    assert main(["data", "build", str(tmp_path / "m.yaml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_manifest_names_people_of_their_own(tmp_path):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"sessions": [{"files": ["day 1/talk.wav"]}]}))
    session = load_manifest(tmp_path / "m.yaml").sessions[0]
    assert session.name == "day_1_talk" and session.people == ("day_1_talk-A", "day_1_talk-B")


def test_turns_of_a_file_with_a_picture(tmp_path, capsys):
    conversation(tmp_path / "a.wav", 2)
    arguments = ["data", "turns", str(tmp_path / "a.wav"), "--activity", "energy", "--picture", str(tmp_path / "a.png")]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split()[:3] == ["SPEAKER", "a", "1"]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["data", "turns", str(tmp_path / "a.wav"), "--speakers", "3", "--layout", "channels"]) == 2
    for flag in ("--rttm", "--picture"):
        assert main([*arguments[:5], flag, str(tmp_path)]) == 2
        assert "found a folder" in capsys.readouterr().err
    assert torch.get_num_threads() == 1
