import io
import struct
import tracemalloc
import wave

import av
import numpy as np
import pytest
import torch

from diffdyad import media
from diffdyad.errors import UserError
from diffdyad.media import (
    LOUDNESS_TARGET_DB,
    RunningLoudness,
    decode_flac,
    encode_flac,
    normalise_loudness,
    padded_slice,
    read_audio,
    write_wav,
)


def tone(seconds=2.0, rate=44100, hz=440.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def clicks(seconds=2.0, rate=44100, at=0.5):
    """A 20 ms burst of 1 kHz that begins at `at` seconds."""
    x = np.zeros(round(seconds * rate))
    n = round(0.02 * rate)
    x[round(at * rate) :][:n] = 0.6 * np.sin(2 * np.pi * 1000 * np.arange(n) / rate)
    return x


def onset_s(waveform, rate=16000):
    return float((waveform.abs() > 0.15).nonzero()[0, 0]) / rate


def save_wav(path, channels, rate, width=2):
    """channels: (C, S) in [-1, 1]."""
    channels = np.atleast_2d(channels)
    scale = {1: 127, 2: 32767, 4: 2**31 - 1}[width]
    samples = np.rint(channels.T * scale)
    samples = (samples + 128).astype(np.uint8) if width == 1 else samples.astype(f"<i{width}")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def save_float_wav(path, samples, rate=16000):
    data = np.asarray(samples, "<f4").tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate,
                         rate * 4, 4, 32, b"data", len(data))  # fmt: skip
    path.write_bytes(header + data)
    return path


def save_encoded(path, samples, codec, rate=44100, video_frames=0, audio_start_s=0.0, **options):
    with av.open(str(path), "w", options=options) as container:
        picture = container.add_stream("mpeg4", rate=25) if video_frames else None
        if picture:
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout="stereo")
        for i in range(video_frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), "rgb24")
            container.mux(picture.encode(frame))
        if picture:
            container.mux(picture.encode(None))
        pcm = np.repeat(np.rint(samples * 32767).astype("<i2"), 2)[None]
        frame = av.AudioFrame.from_ndarray(pcm, "s16", "stereo")
        frame.sample_rate = rate
        frame.pts = round(audio_start_s * rate)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def cut(path, keep):
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * keep)])
    return path


# ------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_resampled_tone_is_the_tone(tmp_path, rate, width):
    path = save_wav(tmp_path / "a.wav", np.stack([tone(rate=rate)] * 2), rate, width)
    waveform = read_audio(path)
    assert waveform.shape == (32000,) and waveform.dtype == torch.float32
    inner = slice(800, -800)
    error = waveform.numpy()[inner] - tone(rate=16000)[inner]
    assert np.abs(error).max() < (0.02 if width == 1 else 1e-3)


def test_other_target_rate(tmp_path):
    path = save_wav(tmp_path / "a.wav", tone(1.0, 44100), 44100)
    assert read_audio(path, 24000).shape == (24000,)


def test_six_channels_are_averaged(tmp_path):
    gains = np.array([0.1, -0.2, 0.3, 0.4, 0.5, 0.7])
    path = save_wav(tmp_path / "a.wav", gains[:, None] * tone(0.5, 16000)[None], 16000)
    assert np.abs(read_audio(path).numpy() - gains.mean() * tone(0.5, 16000)).max() < 1e-4


def test_one_sample_and_silence(tmp_path):
    assert read_audio(save_wav(tmp_path / "a.wav", np.array([0.5]), 16000)).shape == (1,)
    assert read_audio(save_wav(tmp_path / "b.wav", np.array([0.5]), 48000)).shape == (1,)
    assert read_audio(save_wav(tmp_path / "c.wav", np.zeros(8000), 8000)).abs().max() == 0


@pytest.mark.parametrize(
    "name, codec, rate, tolerance_s",
    [
        ("a.flac", "flac", 44100, 5e-4),
        ("a.aiff", "pcm_s16be", 44100, 5e-4),
        ("a.mp3", "libmp3lame", 44100, 3e-3),
        ("a.opus", "libopus", 48000, 3e-3),
        ("a.webm", "libopus", 48000, 3e-3),
        ("a.mka", "flac", 44100, 2e-3),
        ("a.m4a", "aac", 44100, 0.026),  # this writer marks no priming samples: 1024 of them stay
    ],
)
def test_formats_keep_time(tmp_path, name, codec, rate, tolerance_s):
    path = save_encoded(tmp_path / name, clicks(rate=rate), codec, rate)
    assert onset_s(read_audio(path)) == pytest.approx(0.5, abs=tolerance_s)


def test_video_sound_starts_with_the_video(tmp_path):
    path = save_encoded(tmp_path / "a.mkv", clicks(rate=48000), "flac", 48000, video_frames=75, audio_start_s=0.7)
    assert onset_s(read_audio(path)) == pytest.approx(1.2, abs=3e-3)
    path = save_encoded(tmp_path / "b.mp4", clicks(rate=48000), "aac", 48000, video_frames=50)
    assert onset_s(read_audio(path)) == pytest.approx(0.5, abs=0.025)


def test_streamed_wav_without_a_length(tmp_path):
    path = save_wav(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert read_audio(path).shape == (16000,)


def test_memory_is_the_result(tmp_path):
    path = save_wav(tmp_path / "a.wav", np.stack([tone(120.0)] * 2), 44100)
    read_audio(path)
    tracemalloc.start()
    waveform = read_audio(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * waveform.numel() * 4 + 2**20


def broken(kind, folder):
    path = folder / "a.wav"
    if kind == "missing":
        return path
    if kind == "folder":
        return folder
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path = folder / "a.txt"
        path.write_text("to be, or not to be\n" * 50)
    elif kind == "picture":
        path = folder / "a.png"
        with av.open(str(path), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.width = stream.height = 16
            stream.pix_fmt = "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")))
            container.mux(stream.encode(None))
    elif kind == "no samples":
        save_wav(path, np.zeros(0), 16000)
    elif kind == "short wav":
        save_wav(path, tone(1.0, 16000), 16000)
        path.write_bytes(path.read_bytes()[:-2])
    elif kind == "nan":
        save_float_wav(path, [0.1, float("nan"), 0.2] * 100)
    elif kind == "inf":
        save_float_wav(path, [0.1, float("inf"), 0.2] * 100)
    elif kind == "integers as floats":
        save_float_wav(path, np.arange(-3000, 3000, 7.0))
    else:
        name, codec, options = kind
        rate = 48000 if codec == "libopus" else 44100
        rng = np.random.default_rng(0)
        cut(save_encoded(folder / name, rng.normal(0, 0.1, 3 * rate), codec, rate, **options), 0.6)
        path = folder / name
    return path


@pytest.mark.parametrize(
    "kind, says",
    [
        ("missing", "nothing there"),
        ("folder", "a folder"),
        ("empty", "0 bytes"),
        ("text", "audio track"),  # FFmpeg takes it for a picture in ANSI art
        ("picture", "audio track"),
        ("no samples", "at least one audio sample"),
        ("short wav", "cut short"),
        ("nan", "NaN"),
        ("inf", "infinite"),
        ("integers as floats", "scaled"),
        (("b.flac", "flac", {}), "cut short"),
        (("b.aiff", "pcm_s16be", {}), "cut short"),
        (("b.mp3", "libmp3lame", {}), "cut short"),
        (("b.webm", "libopus", {}), "cut short"),
        (("b.m4a", "aac", {}), "cut short"),
        (("b.m4a", "aac", {"movflags": "+faststart"}), "cut short"),
    ],
)
def test_one_clear_line(tmp_path, kind, says):
    path = broken(kind, tmp_path)
    with pytest.raises(UserError) as caught:
        read_audio(path)
    message = str(caught.value)
    assert says in message and str(path) in message and "\n" not in message


# ------------------------------------------------------------------------------------------- writing


def test_flac_round_trip():
    waveform = torch.from_numpy(tone(1.3, 16000, amplitude=1.2)).float()
    data = encode_flac(waveform)
    assert data == encode_flac(waveform)
    back = decode_flac(data)
    assert back.shape == waveform.shape
    assert (back - waveform.clamp(-1, 1 - 2**-15)).abs().max() <= 2**-16 + 1e-7
    assert torch.equal(decode_flac(encode_flac(back)), back)


def test_flac_lengths_and_rates():
    for length in (1, 2, 4607, 4608, 4609):
        assert decode_flac(encode_flac(torch.zeros(length))).shape == (length,)
    assert decode_flac(encode_flac(torch.zeros(800), 8000)).shape == (1600,)


def test_flac_damage():
    data = encode_flac(torch.randn(16000) * 0.1)
    for bad in (b"", b"nonsense", data[: len(data) // 2], data[:30]):
        with pytest.raises(UserError):
            decode_flac(bad)
    with pytest.raises(ValueError):
        encode_flac(torch.zeros(0))
    with pytest.raises(ValueError):
        encode_flac(torch.tensor([0.0, float("nan")]))
    with pytest.raises(ValueError):
        encode_flac(torch.zeros(2, 100))


def test_flac_holds_no_library_version():
    assert b"Lavf" not in encode_flac(torch.zeros(100)) and b"Lavc" not in encode_flac(torch.zeros(100))
    av.open(io.BytesIO(encode_flac(torch.zeros(100)))).close()


def test_write_wav(tmp_path):
    waveform = torch.from_numpy(tone(0.2, 16000)).float()
    write_wav(tmp_path / "a.wav", waveform)
    assert (read_audio(tmp_path / "a.wav") - waveform).abs().max() <= 2**-16 + 1e-7
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    with pytest.raises(ValueError):
        write_wav(tmp_path / "b.wav", torch.tensor([float("inf")]))
    assert not (tmp_path / "b.wav").exists()


def test_padded_slice():
    x = torch.arange(1.0, 5.0)
    assert padded_slice(x, -2, 2).tolist() == [0, 0, 1, 2]
    assert padded_slice(x, 3, 6).tolist() == [4, 0, 0]
    assert padded_slice(x, -1, 6).tolist() == [0, 1, 2, 3, 4, 0, 0]
    assert padded_slice(x, -9, -6).tolist() == [0, 0, 0]
    assert padded_slice(x, 9, 11).tolist() == [0, 0]


# ------------------------------------------------------------------------------------------ loudness


def voice(seconds, level_db=-26.0, seed=0, rate=16000):
    """Noise in syllables of 0.2 s, a pause of 0.6 s every 3 s, over a faint background."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * rate)) / rate
    envelope = (0.55 + 0.45 * torch.sin(2 * torch.pi * 5 * t)) * ((t % 3) < 2.4)
    sound = torch.randn(len(t), generator=generator) * envelope
    sound = sound / sound[(t % 3) < 2.4].square().mean().sqrt() * 10 ** (level_db / 20)
    return sound + torch.randn(len(t), generator=generator) * 10 ** ((level_db - 45) / 20)


def level_db(x):
    return float(10 * x.square().mean().log10())


def test_loudness_in_pieces_is_the_whole():
    waveform = voice(3.0)
    whole = normalise_loudness(waveform)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(waveform), 40)).tolist()
    running = RunningLoudness()
    pieces = [running.process(piece) for piece in torch.tensor_split(waveform, cuts)]
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(normalise_loudness(torch.stack([waveform, waveform]))[1], whole)


def test_loudness_in_long_blocks_is_the_whole():
    waveform = voice(65.0)
    running = RunningLoudness()
    pieces = [running.process(piece) for piece in waveform.split(100_001)]
    assert torch.equal(torch.cat(pieces), normalise_loudness(waveform))


def test_loudness_hears_the_past_only():
    waveform = voice(3.0)
    other = waveform.clone()
    other[24000:] *= 30
    assert torch.equal(normalise_loudness(waveform)[:24000], normalise_loudness(other)[:24000])


def test_gain_does_not_matter_after_a_few_seconds():
    waveform = voice(12.0)
    reference = normalise_loudness(waveform)
    for gain_db in (-12, -6, 6, 12):
        result = normalise_loudness(waveform * 10 ** (gain_db / 20))
        for begin, tolerance in ((3, 2.0), (5, 1.2), (9, 0.8)):
            window = slice(begin * 16000, (begin + 3) * 16000)
            assert abs(level_db(result[window]) - level_db(reference[window])) < tolerance, (gain_db, begin)
    speaking = reference[9 * 16000 :][: round(2.4 * 16000)]
    assert level_db(speaking) == pytest.approx(LOUDNESS_TARGET_DB, abs=2)


def test_first_second_at_a_usual_level_is_left_about_alone():
    waveform = voice(1.0)
    assert abs(level_db(normalise_loudness(waveform)) - level_db(waveform)) < 1.5


@pytest.mark.parametrize("floor_db", [-90.0, -65.0])
def test_silence_is_not_amplified(floor_db):
    noise = torch.randn(16000 * 20, generator=torch.Generator().manual_seed(0)) * 10 ** (floor_db / 20)
    assert level_db(normalise_loudness(noise)) < floor_db + 0.1
    assert normalise_loudness(torch.zeros(1000)).abs().max() == 0


def test_a_pause_with_noise_holds_the_gain():
    running = RunningLoudness()
    running.process(voice(9.0, -30.0))
    before = running.gain_db
    running.process(torch.randn(16000 * 30, generator=torch.Generator().manual_seed(0)) * 10 ** (-55 / 20))
    assert abs(running.gain_db - before) < 2.5  # of the 25 dB that the noise would ask for


def test_dynamics_within_an_utterance_survive():
    waveform = voice(12.0)
    waveform[10 * 16000 : 11 * 16000] *= 2  # an emphasised second: +6 dB
    result = normalise_loudness(waveform)
    plain = normalise_loudness(voice(12.0))
    rise = level_db(result[10 * 16000 : 11 * 16000]) - level_db(plain[10 * 16000 : 11 * 16000])
    assert 4.5 < rise <= 6.1


def test_gain_is_bounded():
    running = RunningLoudness()
    running.process(voice(30.0, -57.0))
    assert running.gain_db <= RunningLoudness.GAIN_LIMIT_DB
    assert media.RunningLoudness(8000).hop == 80
