"""Sound in and out of files: any format to 16 kHz mono, FLAC bytes for datasets, running loudness.

Everything streams: an hour of 44.1 kHz stereo never exists in memory at its own rate.
"""

from __future__ import annotations

import io
import math
import os
import struct
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.staging import whole

SAMPLING_RATE = 16000

_LATE_START_S = 0.002  # a track that begins later than the file by more than this is padded
_GAP_S = 0.1  # likewise inside: timestamps jitter by less, and codecs never skip so much by themselves
_LONGEST_GAP_S = 3600.0
_LARGEST_SAMPLE = 100.0  # floating-point files may exceed 1, but not by so much unless they hold integers
_EXACT_LENGTH = ("flac", "aiff", "caf", "au", "w64")  # demuxers that report the length the header declares
_STREAMED_WAV = 0x7FFF0000  # sizes from here up (and 0) are what programs write that cannot seek back


# ------------------------------------------------------------------------------------------- reading


def read_audio(path: str | Path, sampling_rate: int = SAMPLING_RATE) -> Tensor:
    """The first (best) audio track of a sound or video file, mono float32, (S,).

    Channels are averaged; sample 0 is the file's own time zero (the earliest start of its audio and video
    tracks), so a track that begins later is preceded by silence; a decoder's warm-up samples are dropped.
    S = round(seconds * sampling_rate), at least 1.

    Raises UserError with one line when the file is missing, empty, holds no audio or samples that are not
    finite, or is cut short. Cut short means: decoding fails, a packet is incomplete, or the header declares
    more than there is (WAV, AIFF, AU, CAF, W64, FLAC; MP3 with a Xing header; Matroska/WebM with audio
    only). Formats that declare no length (Ogg, ADTS, MPEG-TS, a streamed WAV) cannot tell.
    """
    return _whole(_pieces(*_source(path), sampling_rate=sampling_rate))


def _source(path: str | Path) -> tuple[str, str, bool, bool]:
    """(what FFmpeg opens, the file's name in messages, whether a Xing header may be there, whether it was streamed)"""
    path = Path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "nothing there"
        raise UserError(f"expected an audio or video file, found {kind}: {path}")
    if path.stat().st_size == 0:
        raise UserError(f"expected an audio or video file, found an empty one (0 bytes): {path}")
    with path.open("rb") as file:
        streamed = _check_wav_length(file, str(path))
        head = file.read(1 << 18)
    has_xing = b"Xing" in head or b"Info" in head
    return str(path.absolute()), str(path), has_xing, streamed


def stream_channels(path: str | Path, sampling_rate: int = SAMPLING_RATE) -> Iterator[np.ndarray]:  # (n, channels)
    """The same track piece by piece, its channels apart, so that hours need no memory; errors as of read_audio."""
    return _pieces(*_source(path), sampling_rate=sampling_rate, mono=False)


def decode_flac(data: bytes, sampling_rate: int = SAMPLING_RATE) -> Tensor:
    """What `encode_flac` made (any FLAC bytes, in fact) as mono float32, (S,). UserError when damaged."""
    if not data.startswith(b"fLaC"):
        raise UserError(f"expected FLAC bytes (fLaC...), found {bytes(data[:4])!r}... of {len(data)} bytes")
    return _whole(_pieces(io.BytesIO(data), "FLAC bytes", sampling_rate=sampling_rate))


def _whole(pieces: Iterable[np.ndarray]) -> Tensor:
    samples = bytearray()  # grows in place
    for piece in pieces:
        samples.extend(memoryview(piece).cast("B"))
    return torch.frombuffer(samples, dtype=torch.float32)


def _pieces(
    source, name: str, has_xing: bool = False, streamed: bool = False, *, sampling_rate: int, mono: bool = True
) -> Iterator[np.ndarray]:  # (n, channels) float32
    """Sound at `sampling_rate`, piece by piece. Raises UserError as `read_audio` does."""
    seconds = 0.0
    try:
        with av.open(source, metadata_errors="replace") as container:
            stream = container.streams.best("audio")
            if stream is None:
                raise UserError(f"expected an audio track, found none in {name} ({container.format.name})")
            declared_s, slack_s = _declared_seconds(container, stream, has_xing)
            seconds = yield from _resample(_blocks(container, stream, name, mono, streamed), sampling_rate)
    except (av.FFmpegError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {name}: {reason}; it is damaged, cut short, or not audio or video") from error
    if not seconds:
        raise UserError(f"expected at least one audio sample, found none in {name}")
    if declared_s is not None and seconds < declared_s - slack_s:
        raise UserError(
            f"{name} is cut short: its header declares {declared_s:.3f} s, it holds {seconds:.3f} s; get the whole file"
        )


def _blocks(container, stream, name: str, mono: bool, streamed: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, float32 samples (n, channels)) from the file's time zero on, silence where the track has a gap."""
    origin = _origin_seconds(container)
    seconds = 0.0
    width = None
    for packet in container.demux(stream):
        if packet.is_corrupt and not streamed:  # of unknown length, the last packet is always incomplete
            raise UserError(f"{name} is cut short or damaged: incomplete packet at {seconds:.3f} s")
        for frame in packet.decode():
            rate = frame.sample_rate
            if frame.pts is not None:
                gap = float(frame.pts * frame.time_base) - origin - seconds
                if gap > _LONGEST_GAP_S:
                    raise UserError(f"{name}: time jumps by {gap:.0f} s at {seconds:.3f} s; re-encode it")
                if gap > (_GAP_S if seconds else _LATE_START_S):
                    yield rate, np.zeros((round(gap * rate), width or (1 if mono else stream.channels)), np.float32)
                    seconds += gap
            block = _channels(frame, mono)
            if block.shape[1] != (width := width or block.shape[1]):
                raise UserError(f"{name}: expected {width} channels to the end, found {block.shape[1]} at "
                                f"{seconds:.3f} s; re-encode it")  # fmt: skip
            peak = max(block.max(initial=0.0), -block.min(initial=0.0))
            if not peak <= _LARGEST_SAMPLE:  # also where peak is NaN
                raise UserError(
                    f"{name}: expected samples of about -1..1, found NaN, infinite or huge ({peak:g}) "
                    f"near {seconds:.3f} s; write the file again, scaled"
                )
            yield rate, block
            seconds += len(block) / rate


def _channels(frame, mono: bool) -> np.ndarray:  # (n, channels)
    """An audio frame as float32 in [-1, 1] (floating-point files may exceed it); mono: its channels' average."""
    samples = frame.to_ndarray()
    kind = samples.dtype
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if mono and len(samples) > 1:
        samples = samples.mean(axis=0, keepdims=True, dtype=np.float32)
    samples = np.ascontiguousarray(samples.T, dtype=np.float32)
    if kind == np.uint8:
        return (samples - 128.0) / 128.0
    if kind.kind == "i":
        return samples / np.float32(2.0 ** (8 * kind.itemsize - 1))
    return samples


def _resample(blocks: Iterable[tuple[int, np.ndarray]], sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks (n, channels) at `sampling_rate`; returns the seconds that went in."""
    total_s = 0.0
    resampler, current, fed, given = None, None, 0, 0
    held = None  # what the end of a stretch may still cut short

    def last() -> np.ndarray:
        """The end of a stretch of constant rate, which makes its length exact."""
        rest = held if resampler is None else np.concatenate([held, resampler.resample_chunk(held[:0], last=True)])
        missing = max(1, round(fed * sampling_rate / current)) - given
        return np.pad(rest[:missing], ((0, max(0, missing - len(rest))), (0, 0)))

    for rate, block in blocks:
        if rate != current:
            if held is not None:
                yield last()
            same = rate == sampling_rate
            resampler = None if same else soxr.ResampleStream(rate, sampling_rate, block.shape[1], "float32")
            current, fed, given, held = rate, 0, 0, block[:0]
        fed += len(block)
        total_s += len(block) / rate
        piece = block if resampler is None else resampler.resample_chunk(block)
        if len(piece):
            if len(held):
                yield held
            given += len(held)
            held = piece
    if held is not None:
        yield last()
    return total_s


def _origin_seconds(container) -> float:
    """The earliest start among the audio and video tracks; cover pictures have no time."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if stream.type in ("audio", "video")
        and stream.start_time is not None
        and not stream.disposition & av.stream.Disposition.attached_pic
    ]
    return min(starts, default=0.0)


def _declared_seconds(container, stream, has_xing: bool) -> tuple[float | None, float]:
    """(seconds the header declares, or None where it does not; tolerance in seconds)."""
    kind = container.format.name
    if (kind in _EXACT_LENGTH or (kind == "mp3" and has_xing)) and stream.duration:
        exact = stream.codec_context.name.startswith(("pcm_", "flac"))
        return float(stream.duration * stream.time_base), 0.5 / stream.rate if exact else 0.1
    if kind.startswith("matroska") and len(container.streams) == 1 and container.duration:
        first = stream.start_time * stream.time_base if stream.start_time else 0
        return container.duration / av.time_base - float(first), 0.1
    return None, 0.0


def _check_wav_length(file, name: str) -> bool:
    """UserError for a short WAV; True for one that was streamed, of unknown length.

    FFmpeg quietly believes the file's size rather than a RIFF header: so the header is read here.
    """
    streamed = False
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        size = file.seek(0, os.SEEK_END)
        file.seek(12)
        while len(chunk := file.read(8)) == 8:
            kind, declared = struct.unpack("<4sI", chunk)
            held = size - file.tell()
            if kind == b"data":
                streamed = declared == 0 or declared >= _STREAMED_WAV
                if held < declared and not streamed:
                    raise UserError(
                        f"{name} is cut short: its header declares {declared} bytes of samples, "
                        f"it holds {held}; get the whole file"
                    )
                break
            file.seek(declared + declared % 2, os.SEEK_CUR)
    file.seek(0)
    return streamed


# ------------------------------------------------------------------------------------------- writing


def _pcm16(waveform: Tensor) -> np.ndarray:
    if waveform.ndim != 1:
        raise ValueError(f"expected a waveform (S,), got {tuple(waveform.shape)}")
    samples = waveform.detach().cpu().float().numpy()
    if not np.isfinite(samples.sum()):
        raise ValueError("expected finite samples, got NaN or infinity")
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")


def encode_flac(
    waveform: Tensor,  # (S,)
    sampling_rate: int = SAMPLING_RATE,
) -> bytes:
    """Mono 16-bit FLAC. Values outside [-1, 1] are clipped; `decode_flac` returns the rest to 2**-16."""
    samples = _pcm16(waveform)
    if not len(samples):
        raise ValueError("expected at least one sample, got none")
    buffer = io.BytesIO()
    # bitexact: no library version in the header, so the same sound gives the same bytes
    with av.open(buffer, "w", format="flac", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=sampling_rate, layout="mono", format="s16")
        stream.options = {"flags": "+bitexact"}
        block = 1 << 20
        for begin in range(0, len(samples), block):
            frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + block], "s16", "mono")
            frame.sample_rate = sampling_rate
            frame.pts = begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def write_wav(
    path: str | Path,
    waveform: Tensor,  # (S,)
    sampling_rate: int = SAMPLING_RATE,
) -> None:
    """Mono 16-bit WAV; appears whole or not at all."""
    samples = _pcm16(waveform)
    with whole(path, shared=True) as partial, wave.open(str(partial), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sampling_rate)
        writer.writeframes(samples.tobytes())


def padded_slice(
    waveform: Tensor,  # (..., S)
    begin: int,
    end: int,
) -> Tensor:
    """waveform[..., begin:end] with zeros wherever the bounds lie outside."""
    length = waveform.shape[-1]
    inside = waveform[..., max(0, min(begin, length)) : max(0, min(end, length))]
    left = min(max(0, -begin), end - begin)
    return F.pad(inside, (left, end - begin - left - inside.shape[-1]))


# ------------------------------------------------------------------------------------------ loudness

LOUDNESS_TARGET_DB = -26.0  # dB re full scale: the nominal active speech level of ITU-T P.56
SILENCE_DB = -60.0  # below it nothing is speech, whatever the recording


class RunningLoudness:
    """Brings a voice to `LOUDNESS_TARGET_DB`, from its past alone, slowly.

    Every 10 ms the level (mean square less the mean, smoothed over 100 ms) updates an estimate of how loud
    this voice is while it speaks; the gain of the next 10 ms follows from it, so no sample waits. The
    estimate starts at the target (gain 0 dB) and gives way to what is heard within a second or two; later it
    moves with a time constant of 5 s of speech, so phrases keep their dynamics. Levels below the estimate
    count half, far below it (another talker, a noise) less. It is held while nobody speaks: under -60 dB, or
    within 9 dB of the running noise floor (which takes a second or so to be known), so that silence is not
    amplified. The gain stays within +-24 dB.

    Feed a waveform in pieces of any size: the pieces put together are the whole, to the bit.
    """

    PRIOR_S = 0.4  # weight of the initial estimate, in seconds of speech
    MEMORY_S = 5.0
    BELOW, FAR_BELOW, FAR_DB = 0.5, 0.15, 18.0
    NOISE_MARGIN_DB = 9.0
    NOISE_RISE_DB = 8.0  # per second; it falls at once, in any gap of 10 ms
    GAIN_LIMIT_DB = 24.0

    def __init__(self, sampling_rate: int = SAMPLING_RATE):
        self.hop = max(1, round(sampling_rate / 100))
        self.level_db = LOUDNESS_TARGET_DB
        self._power = 0.0
        self._noise_db = SILENCE_DB
        self._weight = 0.0
        self._gain = self._next_gain = 1.0  # at the start and at the end of the current 10 ms
        self._pending = np.zeros(0, np.float64)  # samples of the current, unfinished 10 ms

    @property
    def gain_db(self) -> float:
        return max(-self.GAIN_LIMIT_DB, min(self.GAIN_LIMIT_DB, LOUDNESS_TARGET_DB - self.level_db))

    def process(self, waveform: Tensor) -> Tensor:
        """(S,) -> (S,): the next S samples, normalised."""
        result = np.empty(len(waveform), np.float32)
        samples = waveform.detach().cpu().numpy()
        block = 6000 * self.hop  # a minute: working memory does not grow with the waveform
        for begin in range(0, len(samples), block):
            piece = samples[begin : begin + block].astype(np.float64)
            result[begin : begin + len(piece)] = self._process(piece)
        return torch.from_numpy(result).to(waveform.device)

    def _process(self, samples: np.ndarray) -> np.ndarray:
        skip = len(self._pending)
        samples = np.concatenate([self._pending, samples])
        count = len(samples) // self.hop
        frames = samples[: count * self.hop].reshape(count, self.hop)
        powers = (frames * frames).mean(1) - frames.mean(1) ** 2
        gains = np.empty((count + 1, 2))
        for index, power in enumerate(powers.tolist()):
            gains[index] = self._gain, self._next_gain
            self._gain = self._next_gain
            self._listen(power)
            self._next_gain = 10.0 ** (self.gain_db / 20.0)
        gains[count] = self._gain, self._next_gain
        self._pending = samples[count * self.hop :].copy()
        ramp = np.arange(self.hop) / self.hop
        curve = (gains[:, :1] + (gains[:, 1:] - gains[:, :1]) * ramp).reshape(-1)
        return (samples * curve[: len(samples)])[skip:].astype(np.float32)

    def _listen(self, power: float) -> None:
        """One 10 ms frame's mean square into the running estimate."""
        power = max(power, 0.0)
        self._power += 0.1 * (power - self._power)
        level, momentary = (10.0 * math.log10(x + 1e-12) for x in (self._power, power))
        self._noise_db = min(momentary, self._noise_db + self.NOISE_RISE_DB / 100.0)
        if min(level, momentary) <= max(SILENCE_DB, self._noise_db + self.NOISE_MARGIN_DB):
            return
        below = self.level_db - level
        weight = 1.0 if below < 0 else self.BELOW if below < self.FAR_DB else self.FAR_BELOW
        self._weight = min(self._weight + weight, 1e9)
        # twice the share of a plain running mean: the initial estimate is forgotten quadratically
        share = max(1.0 / (100 * self.MEMORY_S), 2.0 / (self._weight + 200 * self.PRIOR_S))
        self.level_db += weight * share * (level - self.level_db)


def normalise_loudness(
    waveform: Tensor,  # (..., S)
    sampling_rate: int = SAMPLING_RATE,
) -> Tensor:
    """`RunningLoudness` over whole waveforms, each from the initial state; the same numbers to the bit."""
    if not waveform.numel():
        return waveform.float()
    if waveform.ndim == 1:
        return RunningLoudness(sampling_rate).process(waveform)
    rows = [RunningLoudness(sampling_rate).process(row) for row in waveform.reshape(-1, waveform.shape[-1])]
    return torch.stack(rows).reshape(waveform.shape)
