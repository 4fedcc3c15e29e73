"""One microphone taken apart: on voices that a filter can tell from each other, and on tiny networks of Asteroid."""

from __future__ import annotations

import importlib.util
import json

import dataset_fixtures as made
import numpy as np
import pytest
import torch
import yaml
from killing import build_with_kills, shards_of

from diffdyad.cli import main
from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.recordings import diarization, separation, source
from diffdyad.data.recordings.build import build_dataset
from diffdyad.data.recordings.frames import levels_db, spans_mask
from diffdyad.data.recordings.hearing import Heard, own_voice, residual_db
from diffdyad.data.recordings.pcm import Pcm
from diffdyad.data.recordings.separation import Separator, belongs, separate, separated
from diffdyad.data.recordings.steps import Steps
from diffdyad.errors import UserError

HAVE = all(importlib.util.find_spec(name) for name in ("asteroid", "asteroid_filterbanks"))
needs_asteroid = pytest.mark.skipif(not HAVE, reason=f"needs Asteroid: {separation.INSTALL}")
needs_voices = pytest.mark.skipif(not importlib.util.find_spec("resemblyzer"), reason=f"needs {diarization.INSTALL}")
SECONDS = 30.0
TURNS = [[(1.0, 9.0), (16.0, 24.0)], [(8.0, 15.0), (19.0, 20.5), (24.5, 28.5)]]
BOTH = [(8.0, 9.0), (19.0, 20.5)]
TOLD = [[(1.0, 9.0), (16.0, 24.0)], [(9.0, 15.0), (24.5, 28.5)]]  # as diarization gives it: one at a time


class ByPitch(Separator):
    """Two voices that lie below and above 1 kHz; the order of the streams changes from call to call; they are too
    quiet, and of the other sign. leak: of the other's stream in each."""

    name, identity = "by pitch", "1"

    def __init__(self, leak: float = 0.0):
        self.leak, self.calls = leak, 0
        self.network = self._apart

    def _apart(self, sound: torch.Tensor) -> torch.Tensor:  # (1, S) -> (1, 2, S)
        self.calls += 1
        spectrum = torch.fft.rfft(sound[0])
        low = torch.arange(len(spectrum)) < 1000 * sound.shape[1] / 16000
        below, above = (torch.fft.irfft(spectrum * mask, sound.shape[1]) for mask in (low, ~low))
        streams = torch.stack([below + self.leak * above, above + self.leak * below])
        return (streams.flip(0) if self.calls % 2 else streams)[None] * -0.2


def voices() -> np.ndarray:  # (2, S)
    """Two people: harmonics of 130 Hz below 1 kHz, and of 1300 Hz, in syllables."""
    times = np.arange(round(SECONDS * 16000)) / 16000
    own = []
    for side, pitches in enumerate(([130, 260, 390], [1300, 2600, 3900])):
        sound = sum(np.sin(2 * np.pi * hz * times + hz) for hz in pitches) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * times))
        mask = np.repeat(spans_mask(TURNS[side], round(SECONDS * 100)), 160)
        own.append((0.05 if side else 0.08) * sound * mask)
    return np.array(own, np.float32)


def mixed(folder) -> tuple[Heard, np.ndarray]:
    own = voices()
    noise = 1e-4 * np.random.default_rng(0).normal(size=own.shape[1])
    np.rint((own.sum(0) + noise) * 32767).astype("<i2").tofile(folder / "mixed.pcm")
    pcm = Pcm(folder / "mixed.pcm")
    heard = Heard("mixed", [pcm], [list(spans) for spans in TOLD], levels_db(pcm.blocks())[None], SECONDS, ["key"])
    return heard, own


def apart(heard: Heard, folder, network: Separator, monkeypatch) -> Heard:
    monkeypatch.setattr(separation, "load_separator", lambda *_: network)
    return separate(heard, Steps(folder / "steps"), "asteroid", "x", None, "energy")


def level(sound: np.ndarray) -> float:
    return 10 * np.log10(max(float(np.square(sound).mean()), 1e-12))


def test_streams_come_back_in_place_whole_and_as_loud(tmp_path):
    heard, own = mixed(tmp_path)
    pieces = list(separated(heard.sound[0], heard.spans, ByPitch()))
    streams = np.concatenate(pieces, 1)
    assert streams.shape == own.shape and max(piece.shape[1] for piece in pieces) <= 10 * 16000
    for side in (0, 1):
        part = slice(16000, 28 * 16000)
        assert level(streams[side, part] - own[side, part]) < level(own[side, part]) - 25


def test_whose_a_stream_is_follows_who_speaks():
    streams = np.stack([np.r_[np.ones(1600), np.zeros(1600)], np.r_[np.zeros(1600), np.ones(1600)]])
    speaks = spans_mask([(0.0, 0.1)], 20), spans_mask([(0.1, 0.2)], 20)
    assert belongs(streams, np.stack(speaks)) == pytest.approx(2)
    assert belongs(streams[::-1], np.stack(speaks)) == pytest.approx(-2)
    assert belongs(streams[::-1], np.stack([speaks[0], np.zeros(20, bool)])) == pytest.approx(-1)
    assert belongs(streams, np.zeros((2, 20), bool)) == 0


def test_what_both_say_at_once_is_each_one_s_own(tmp_path, monkeypatch):
    heard, own = mixed(tmp_path)
    found = apart(heard, tmp_path, ByPitch(leak=0.05), monkeypatch)
    assert np.abs(np.array(found.overlaps.spans) - BOTH).max() < 0.1
    for side in (0, 1):
        truth, said = (spans_mask(spans, 3000) for spans in (TURNS[side], found.spans[side]))
        assert (truth != said).mean() < 0.01
        voice = own_voice(found, side, 0, own.shape[1])
        for start, end in BOTH:
            part = slice(round((start + 0.15) * 16000), round((end - 0.15) * 16000))
            assert level(voice[part] - own[side, part]) < level(own[side, part]) - 15
        alone = slice(3 * 16000, 7 * 16000) if side == 0 else slice(10 * 16000, 14 * 16000)
        assert np.array_equal(voice[alone], heard.sound[0][alone])  # nothing is separated there
        # a piece of it is what the whole has there
        piece, same = own_voice(found, side, 8 * 16000 + 77, 21 * 16000), voice[8 * 16000 + 77 : 21 * 16000]
        assert np.array_equal(piece[400:-400], same[400:-400])


def test_what_is_left_of_the_other_is_estimated(tmp_path, monkeypatch):
    heard, own = mixed(tmp_path)
    for leak in (0.02, 0.1):
        found = apart(heard, tmp_path / str(leak), ByPitch(leak), monkeypatch)
        for side in (0, 1):
            estimate = residual_db(found, side, 8.0, 9.0)
            part = slice(round(8.0 * 16000), round(9.0 * 16000))
            voice = own_voice(found, side, part.start, part.stop)
            low = np.arange(8001) < 1000
            power = np.square(np.abs(np.fft.rfft(voice)))
            left = 10 * np.log10(power[~low if side == 0 else low].sum() / power[low if side == 0 else ~low].sum())
            assert estimate == pytest.approx(left, abs=4.0), (leak, side)
    # a microphone alone has all of the other in it
    gated = Heard(**{**vars(found), "overlaps": None})
    assert residual_db(gated, 0, 8.0, 9.0) > residual_db(found, 0, 8.0, 9.0) + 10


def test_what_is_not_told_apart_stays_gated(tmp_path, monkeypatch):
    heard, _ = mixed(tmp_path)
    found = apart(heard, tmp_path, ByPitch(leak=0.9), monkeypatch)
    assert found.spans == heard.spans and "does not tell the voices apart" in found.notes[0]
    assert np.array_equal(own_voice(found, 0, 0, 480000), own_voice(heard, 0, 0, 480000))
    one = Heard(**{**vars(heard), "spans": [TOLD[0], []]})
    assert apart(one, tmp_path / "one", ByPitch(), monkeypatch).overlaps.spans == []


def test_it_is_done_once_and_keeps_the_overlaps_alone(tmp_path, monkeypatch):
    heard, _ = mixed(tmp_path)
    network = ByPitch()
    first = apart(heard, tmp_path, network, monkeypatch)
    calls = network.calls
    second = apart(heard, tmp_path, network, monkeypatch)
    assert network.calls == calls == 4 and second.keys == first.keys != heard.keys
    assert second.overlaps.spans == first.overlaps.spans
    (folder,) = (tmp_path / "steps").glob("separation-*")
    assert {path.name for path in folder.iterdir()} == {"overlaps.pcm", "levels.npy", "step.json"}
    seconds = sum(end - start for start, end in first.overlaps.spans)
    assert (folder / "overlaps.pcm").stat().st_size == pytest.approx(seconds * 16000 * 4, rel=0.05)
    two = Heard(**{**vars(heard), "layout": "channels"})
    assert apart(two, tmp_path, network, monkeypatch) is two


def test_killed_while_voices_are_taken_apart_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    made.pcm_wav(tmp_path / "talk.wav", voices().sum(0), 16000)
    content = {"backends": {"activity": "energy", "prosody": "none", "separation": "asteroid"},
               "sessions": [{"files": ["talk.wav"], "layout": "mixed", "split": "test"}]}  # fmt: skip
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(content))
    for module in (separation, source):
        monkeypatch.setattr(module, "load_separator", lambda *_: ByPitch())
    nobody = diarization.Voices(np.zeros((0, 4)), [])
    for name, found in (("diarization_version", "1"), ("voices_of", nobody), ("diarize", TOLD)):
        monkeypatch.setattr(diarization, name, lambda *_, found=found: found)
    build_dataset(tmp_path / "m.yaml", tmp_path / "out", workers=1)
    step = json.loads((tmp_path / "out" / "sessions.jsonl").read_text().splitlines()[0])["steps"]["separation"]
    spans = json.loads((tmp_path / "out" / ".steps" / step["key"] / "step.json").read_text())["values"]["overlaps"]
    assert np.abs(np.array(spans) - BOTH).max() < 0.1
    kills = [("voices", 1), ("speech", 1), ("separation", 1)]
    assert build_with_kills(tmp_path / "m.yaml", tmp_path / "killed", kills) == shards_of(tmp_path / "out")


# ----------------------------------------------------------------------------------------------------------- Asteroid


def save_separator(folder, kind="ConvTasNet", rate=16000, people=2):
    """A tiny network with random weights, as Asteroid publishes them."""
    import asteroid.models

    folder.mkdir(exist_ok=True)
    shape = {"n_filters": 16, "kernel_size": 32, "stride": 16, "n_repeats": 1, "bn_chan": 8}
    if kind == "ConvTasNet":
        shape |= {"n_blocks": 2, "hid_chan": 12, "skip_chan": 8}
    else:
        shape |= {"hid_size": 8, "chunk_size": 20}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(asteroid.models, kind)(n_src=people, sample_rate=rate, **shape)
    content = {"model_name": kind, "state_dict": network.state_dict(), "model_args": network.get_model_args()}
    torch.save(content, folder / "pytorch_model.bin")
    return network.eval()


@needs_asteroid
@pytest.mark.parametrize("kind", separation.NETWORKS)
def test_asteroid_s_networks_run(kind, tmp_path):
    network = save_separator(tmp_path, kind)
    sound = 0.02 * np.random.default_rng(0).normal(size=24000).astype(np.float32)
    separator = Separator(str(tmp_path))
    streams = separator.streams(sound)
    with torch.no_grad():
        found = network(torch.from_numpy(sound)[None] * (0.05 / np.sqrt(np.square(sound).mean())))[0].numpy()
    for mine, theirs in zip(streams, found):
        assert abs(np.corrcoef(mine, theirs)[0, 1]) > 0.999
    assert not separator.streams(np.zeros(1600, np.float32)).any()
    assert len(separator.identity) == 16 and separator.name == kind


@needs_asteroid
def test_foreign_weights_are_refused(tmp_path):
    save_separator(tmp_path / "8k", rate=8000)
    with pytest.raises(UserError, match="at 16000 Hz for separation_model, found ConvTasNet at 8000 Hz"):
        Separator(str(tmp_path / "8k"))
    save_separator(tmp_path / "one", people=1)
    with pytest.raises(UserError, match="two voices of one sound, found 1"):
        Separator(str(tmp_path / "one"))
    path = tmp_path / "one" / "pytorch_model.bin"
    torch.save({"model_name": print}, path)
    with pytest.raises(UserError, match="network that Asteroid has saved"):
        Separator(str(tmp_path / "one"))
    path.unlink()
    with pytest.raises(UserError, match="expected pytorch_model.bin in the folder"):
        Separator(str(tmp_path / "one"))
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        Separator("nobody/nothing")


def manifest(folder, **backends):
    talk = made.Talk(0)
    made.pcm_wav(folder / "talk.wav", np.clip(talk.waveform(0) + talk.waveform(1), -1, 1), 16000)
    content = {"backends": {"activity": "energy", "prosody": "none", **backends},
               "sessions": [{"files": ["talk.wav"], "layout": "mixed", "split": "test"}]}  # fmt: skip
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    return folder / "m.yaml"


@needs_asteroid
@needs_voices
def test_a_build_separates(tmp_path, monkeypatch):
    save_separator(tmp_path / "tasnet")
    turns = [[(a, b) for who, a, b in made.Talk(0).turns if who == side] for side in (0, 1)]
    monkeypatch.setattr(diarization, "diarize", lambda *_: turns)  # these voices are no people's
    path = manifest(tmp_path, separation="asteroid", separation_model="tasnet")
    build_dataset(path, tmp_path / "out", workers=1)
    step = json.loads((tmp_path / "out" / "sessions.jsonl").read_text().splitlines()[0])["steps"]["separation"]
    assert step["backend"] == "asteroid" and step["version"].startswith("asteroid 0.")
    assert step["settings"]["network"] == "ConvTasNet" and len(step["settings"]["weights"]) == 16
    assert len(ExchangeShards(tmp_path / "out", "test")) == 3
    assert "does not tell the voices apart" in (tmp_path / "out" / "sessions.jsonl").read_text()  # random weights


@pytest.mark.parametrize(
    ("backends", "message"),
    [({"separation": "sepformer"}, "separation among none, asteroid, found 'sepformer'"),
     ({"separation_model": "x"}, "separation_model is for `separation: asteroid`"),
     pytest.param({"separation": "asteroid"}, "name another in `separation_model`", marks=needs_asteroid)],
)  # fmt: skip
def test_a_wrong_separation_is_one_line(backends, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = manifest(tmp_path, diarization="resemblyzer", **backends)
    content = yaml.safe_load(path.read_text())
    del content["sessions"][0]["layout"]  # what diarization needs is not asked for yet
    path.write_text(yaml.safe_dump(content))
    assert main(["data", "build", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
