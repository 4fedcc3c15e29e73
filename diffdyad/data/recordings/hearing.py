"""Files to who speaks when: sound at 16 kHz, voice activity, a gate across channels or diarization, each a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from diffdyad.data.recordings import activity, diarization, gate
from diffdyad.data.recordings.frames import Span, levels_db, mask_spans, spans_mask, total
from diffdyad.data.recordings.pcm import Pcm, write_pcm
from diffdyad.data.recordings.steps import StepResult, Steps, file_hash
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

if TYPE_CHECKING:
    from diffdyad.data.recordings.separation import Overlaps

ALIKE = 0.95
"""Two channels with a higher correlation are one microphone's."""

_EDGE_S = 0.3


@dataclass
class Heard:
    """A recording's sound and who speaks when.

    layout: "files", "channels" or "mixed"; sound: a channel per person, or the one that both are on; spans: speech of
    each, before pauses are merged; sounds: what else is heard of each and is no speech (laughter, say); levels:
    (channels, F) dB, every 10 ms; offset_db: by how much the first channel's gain is higher;
    overlaps: both voices taken apart where both speak into one microphone, None = they are not.
    """

    layout: str
    sound: list[Pcm]
    spans: list[list[Span]]
    levels: np.ndarray
    seconds: float
    keys: list[str]
    sounds: list[list[Span]] = field(default_factory=lambda: [[], []])
    offset_db: float = 0.0
    notes: list[str] = field(default_factory=list)
    overlaps: Overlaps | None = None


def hear(
    files: Sequence[Path], steps: Steps, layout: str | None = None, channels: Sequence[int] = (0, 1),
    offsets_s: Sequence[float] | None = None, activity_backend: str = "silero",
    diarization_backend: str = "resemblyzer", num_speakers: int = 2,
) -> Heard:
    """Who speaks when, in one file or in one per person. layout: None = as the files are.

    Raises UserError for files that cannot be read, a layout that they do not have, and missing backends.
    """
    backend = activity.activity_backend(activity_backend)
    media = [_media(path, steps) for path in files]
    layout = _layout(files, media, layout, channels)
    late = offsets_s or [0.0] * len(files)
    if layout == "files":
        sound = [Pcm(step.folder / "audio.pcm", 0 if step.values["channels"] == 1 else None, step.values["channels"],
                     late_s) for step, late_s in zip(media, late)]  # fmt: skip
    elif layout == "channels":
        path, width = media[0].folder / "audio.pcm", media[0].values["channels"]
        sound = [Pcm(path, number, width, late[0]) for number in channels]
    else:
        path, width = media[0].folder / "audio.pcm", media[0].values["channels"]
        sound = [Pcm(path, 0 if width == 1 else None, width, late[0])]
    keys = [step.key for step in media]

    def listen(folder: Path) -> dict:
        for number, pcm in enumerate(sound):
            levels = levels_db(pcm.blocks())
            np.save(folder / f"levels{number}.npy", levels.astype(np.float32))
            np.save(folder / f"speech{number}.npy", backend.run(pcm, levels))
        return {}

    settings = {"layout": layout, "channels": list(channels) if layout == "channels" else [], "late_s": list(late)}
    heard = steps.run("activity", activity_backend, backend.version(), settings, keys, listen)
    levels = [np.load(heard.folder / f"levels{n}.npy") for n in range(len(sound))]
    speech = [np.load(heard.folder / f"speech{n}.npy") for n in range(len(sound))]
    if layout == "mixed":
        who = _mixed(sound[0], speech[0], heard, steps, diarization_backend, num_speakers)
    else:
        who = _gated(speech, levels, heard, steps)
    length = max(len(level) for level in levels)
    return Heard(
        layout, sound, [[tuple(span) for span in own] for own in who.values["spans"]],
        np.stack([np.pad(level, (0, length - len(level)), constant_values=-120.0) for level in levels]),
        max(pcm.seconds for pcm in sound), [*keys, heard.key, who.key],
        [[tuple(span) for span in own] for own in who.values["sounds"]], who.values.get("offset_db", 0.0),
        _notes(layout, media),
    )  # fmt: skip


def _media(path: Path, steps: Steps) -> StepResult:
    if not path.is_file():
        raise UserError(f"expected an audio or video file, found {'a folder' if path.is_dir() else 'nothing'}: {path}")

    def decode(folder: Path) -> dict:
        info = write_pcm(path, folder / "audio.pcm")
        return {"channels": info.num_channels, "seconds": round(info.seconds, 6),
                "correlation": round(info.correlation, 4), "av_offset_s": av_offset_s(path)}  # fmt: skip

    return steps.run("media", "pyav", av.__version__, {"sampling_rate": SAMPLING_RATE}, [file_hash(path)], decode)


def channels_of(path: Path) -> int | None:
    """Of a file's sound, by its header; None where it cannot be read, or has none."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return container.streams.best("audio").codec_context.channels
    except (OSError, av.FFmpegError, AttributeError):
        return None


def av_offset_s(path: Path) -> float | None:
    """By how much a file's sound begins after its pictures, by their timestamps; None without pictures.

    What is decoded starts at the earlier of the two, so the offset is already made good.
    """
    with av.open(str(path), metadata_errors="replace") as container:
        video = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not video or not container.streams.audio:
            return None
        audio = container.streams.best("audio")
        starts = [float((stream.start_time or 0) * stream.time_base) for stream in (audio, video[0])]
    return round(starts[0] - starts[1], 6)


def _layout(files: Sequence[Path], media: Sequence[StepResult], layout: str | None, channels: Sequence[int]) -> str:
    """The layout asked for, if the files can have it; otherwise theirs."""
    widths = [step.values["channels"] for step in media]
    if len(files) == 2:
        if layout not in (None, "files"):
            raise UserError(f"expected one file for the layout {layout!r}, found 2: {', '.join(map(str, files))}")
        return "files"
    if layout == "files":
        raise UserError(f"expected two files for the layout 'files', found one: {files[0]}")
    if layout == "channels" and max(channels) >= widths[0]:
        raise UserError(f"expected the channels {list(channels)} in {files[0]}, found {widths[0]}: layout 'mixed' "
                        "takes one microphone")  # fmt: skip
    if layout is None:
        apart = widths[0] == 2 and media[0].values["correlation"] < ALIKE
        return "channels" if apart else "mixed"
    return layout


def _notes(layout: str, media: Sequence[StepResult]) -> list[str]:
    offsets = [step.values["av_offset_s"] for step in media]
    notes = [f"sound begins {offset:+.3f} s after the pictures; corrected" for offset in offsets if offset]
    if layout == "mixed" and media[0].values["channels"] > 1:
        notes.append(f"channels are alike (correlation {media[0].values['correlation']:.2f}): taken as one microphone")
    return notes


def _gated(speech: list[np.ndarray], levels: list[np.ndarray], heard: StepResult, steps: Steps) -> StepResult:
    def make(folder: Path) -> dict:
        found = gate.gated(speech, levels)
        sounds = gate.wordless_sounds(found, levels)
        return {"spans": _rounded(found.spans), "sounds": _rounded(sounds), "offset_db": round(found.offset_db, 2)}

    settings = {"gate_s": gate.GATE_S, "join_s": gate.JOIN_S, "shortest_s": gate.SHORTEST_S}
    return steps.run("speech", "gate", "1", settings, [heard.key], make)


def _mixed(
    pcm: Pcm, speech: np.ndarray, heard: StepResult, steps: Steps, backend: str, num_speakers: int
) -> StepResult:
    version = diarization.diarization_version(backend)
    spans = gate.tidy(mask_spans(activity.speaking(speech)), gate.MIXED_PAD_S)
    spans = [(start, min(end, pcm.seconds)) for start, end in spans]

    def embed(folder: Path) -> dict:
        voices = diarization.voices_of(pcm, spans)
        np.save(folder / "embeddings.npy", voices.embeddings)
        np.save(folder / "spans.npy", np.array(voices.spans, np.float64).reshape(-1, 2))
        return {}

    settings = {"window_s": diarization.WINDOW_S, "step_s": diarization.STEP_S}
    embedded = steps.run("voices", backend, version, settings, [heard.key], embed)

    def label(folder: Path) -> dict:
        voices = diarization.Voices(
            np.load(embedded.folder / "embeddings.npy"),
            [(float(a), float(b)) for a, b in np.load(embedded.folder / "spans.npy")],
        )
        return {"spans": _rounded(diarization.diarize(voices, num_speakers)), "sounds": [[]] * num_speakers}

    settings = {"speakers": num_speakers}
    return steps.run("speech", f"{backend}-clusters", "1", settings, [embedded.key], label)


def _rounded(spans: list[list[Span]]) -> list[list[list[float]]]:
    return [[[round(start, 4), round(end, 4)] for start, end in own] for own in spans]


# ---------------------------------------------------------------------------------------------------------- own voice


def own_voice(heard: Heard, side: int, begin: int, end: int) -> np.ndarray:  # (S,) float32
    """Samples `begin` to `end` of one person's voice alone: the person's channel while the person speaks, with soft
    edges, and silence elsewhere. With one microphone for both, what was said by both at once is in both, unless it was
    separated."""
    pcm = heard.sound[min(side, len(heard.sound) - 1)]
    first = begin // 160
    mask = spans_mask(((a - first / 100, b - first / 100) for a, b in heard.spans[side]), end // 160 - first + 2)
    gain = np.repeat(mask.astype(np.float32), 160)
    ramp = np.hanning(323)[1:-1].astype(np.float32)  # 20 ms
    gain = np.convolve(gain, ramp / ramp.sum(), mode="same")[begin - first * 160 :][: end - begin]
    samples = pcm[begin:end]
    if heard.overlaps is not None:
        samples = heard.overlaps.put(samples, side, begin)
    return samples * gain


def residual_db(heard: Heard, side: int, start_s: float, end_s: float) -> float:
    """How loud the other's voice still is in a person's own, against that person's: dB, an estimate.

    Where the person speaks alone the level is the person's; while the other speaks alone the person's channel holds the
    other by bleed. That bleed stays wherever both speak at once, and is gated away elsewhere. With one microphone, it
    is the other's own level, or what a separation network leaves of it in the person's stream. -inf where nothing of
    the other can be left; NaN where the person does not speak, and with one microphone that nothing has separated: who
    speaks at the same time is not known there.
    """
    levels = heard.levels[min(side, len(heard.sound) - 1)]
    masks = [spans_mask(spans, len(levels)) for spans in heard.spans]
    mine, theirs = masks[side], np.any([m for n, m in enumerate(masks) if n != side], axis=0)
    window = slice(round(start_s * 100), round(end_s * 100))
    power = 10 ** (levels / 10)
    if not (mine & ~theirs).any() or not mine[window].any():
        return float("nan")
    own = power[mine & ~theirs].mean()
    both = (mine & theirs)[window].sum()
    if not both or not (theirs & ~mine).any():
        told_apart = heard.layout != "mixed" or heard.overlaps is not None
        return float("-inf") if told_apart else float("nan")
    alone = theirs & ~mine
    if heard.overlaps is not None:
        power = 10 ** (heard.overlaps.levels[side] / 10)
        near = spans_mask(((start - _EDGE_S, end + _EDGE_S) for start, end in heard.spans[side]), len(levels))
        alone = alone & ~near if (alone & ~near).any() else alone  # where a voice begins is not known exactly
    bleed = power[alone].mean()
    return float(10 * np.log10(max(bleed * both, 1e-12) / (own * mine[window].sum())))


def speech_share(heard: Heard) -> list[float]:
    """Of the recording, by person."""
    return [total(spans) / max(heard.seconds, 1e-9) for spans in heard.spans]
