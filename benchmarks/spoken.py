"""Speech with the times of its bilabials: real recordings aligned with their transcripts, and voices of Festival.

Both come from outside the training: pocketsphinx carries an English acoustic model, Festival voices of diphones that
were cut from recordings of real people. Flite's voices are for models that did not train on them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad.media import SAMPLING_RATE, read_audio

BILABIALS = ("m", "b", "p")
VOICES = {"festival": ("ked_diphone", "kal_diphone"), "flite": ("awb", "rms", "slt")}


@dataclass(frozen=True)
class Spoken:
    """audio: (S,) at 16 kHz; bilabials: (N, 2), where each begins and ends, seconds."""

    name: str
    audio: Tensor
    bilabials: np.ndarray


def aligned(path: Path, text: str) -> Spoken:
    """A recording and its transcript, aligned by pocketsphinx. Words that its dictionary lacks are left out."""
    from pocketsphinx import Decoder

    decoder = Decoder(lm=None, loglevel="FATAL")
    words = [word for word in re.sub("[^a-z' ]", " ", text.lower()).split() if decoder.lookup_word(word)]
    audio = read_audio(path)
    samples = (audio.clamp(-1, 1) * 32767).numpy().astype("<i2").tobytes()
    decoder.set_align_text(" ".join(words))
    for align_phones in (False, True):
        if align_phones:
            decoder.set_alignment()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
    phones = [phone for word in decoder.get_alignment() for phone in word]
    found = [(p.start / 100, (p.start + p.duration) / 100) for p in phones if p.name.lower() in BILABIALS]
    return Spoken(path.name, audio, np.array(found).reshape(-1, 2))


def spoken_by(engine: str, text: str, voice: str) -> Spoken:
    """A sentence by one of `VOICES`, with the times that the engine itself reports."""
    program = shutil.which(engine)
    if program is None:
        raise SystemExit(f"expected the program {engine}, found none; install it (Debian: apt-get install {engine})")
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "speech.wav"
        ends = {"festival": _festival, "flite": _flite}[engine](program, text, voice, wave)
        audio = read_audio(wave)
    starts = [0.0, *(end for _, end in ends)]
    found = [(start, end) for (phone, end), start in zip(ends, starts) if phone in BILABIALS]
    return Spoken(f"{voice}: {text}", audio, np.array(found).reshape(-1, 2))


def _festival(program: str, text: str, voice: str, wave: Path) -> list[tuple[str, float]]:
    """Phones and where each ends, seconds. Voices: festvox-kdlpc16k and festvox-kallpc16k of Debian."""
    segments, script = wave.with_suffix(".segments"), wave.with_suffix(".scm")
    script.write_text(
        f"(voice_{voice})\n(set! said (Utterance Text {json.dumps(text)}))\n(utt.synth said)\n"
        f"(utt.save.wave said {json.dumps(str(wave))} 'riff)\n(utt.save.segs said {json.dumps(str(segments))})\n"
    )
    subprocess.run([program, "-b", str(script)], check=True)
    rows = [line.split() for line in segments.read_text().splitlines()[1:]]
    return [(phone, float(end)) for end, _, phone in rows]


def _flite(program: str, text: str, voice: str, wave: Path) -> list[tuple[str, float]]:
    command = [program, "-voice", voice, "-psdur", "-t", text, "-o", str(wave)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [(phone, float(end)) for phone, end in re.findall(r"([a-z]+):([\d.]+)", said)]


def pauses(audio: Tensor, fps: float, longer_than_s: float = 0.6, less_at_end_s: float = 0.2) -> np.ndarray:
    """Frames (T,) bool inside of pauses of the voice, the last part of each left out, without both ends' silence."""
    hop = round(SAMPLING_RATE / fps)
    count = len(audio) // hop
    level = audio[: count * hop].view(count, hop).square().mean(-1).clamp_min(1e-10).log10() * 10
    # speech stands 25 dB below its loud frames at least
    loud = (level > torch.quantile(level, 0.95) - 25).numpy()
    inside = np.zeros(count, bool)
    spoken = np.flatnonzero(loud)
    for before, after in pairwise(spoken):
        if (after - before - 1) / fps > longer_than_s:
            inside[before + 1 : after - round(less_at_end_s * fps)] = True
    return inside
