"""Flite through ctypes: text in, samples and timed phones out.

Flite's statistical voices are built from recordings of real speakers, which eSpeak NG's formants are not. Its library
(Carnegie Mellon, a licence of BSD's kind) is no Python package: `apt-get install flite` brings it, Homebrew too.
The statistical voices excite with noise from the C library's `rand`, so every call seeds that: same call, same bytes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes.util import find_library
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffdyad.errors import UserError

PITCH_HZ: dict[str, float] = {"slt": 150.0, "awb": 100.0, "rms": 84.0}
"""Its statistical voices of English: lowest pitch of calm speech. (Its voices of diphones misreport their times.)"""

_TOKEN = b"R:SylStructure.parent.parent.R:Token.parent"


class _Wave(ctypes.Structure):
    """cst_wave of cst_wave.h."""

    _fields_ = [
        ("type", ctypes.c_char_p), ("sampling_rate", ctypes.c_int), ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int), ("samples", ctypes.POINTER(ctypes.c_short)),
    ]  # fmt: skip


class _Voice(ctypes.Structure):
    """The beginning of cst_voice of cst_voice.h."""

    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


@dataclass(frozen=True)
class Segment:
    """One phone. name: Flite's ('pau' = pause); end_s: from the beginning of the sound; stress: 1 or 0;
    word: the text that it belongs to, '' = none; token: tells words apart that are spelled alike."""

    name: str
    end_s: float
    stress: int
    word: str
    token: int


@dataclass(frozen=True)
class Said:
    """Samples (S,) float32 in [-1, 1] at `sampling_rate`, and what they say."""

    waveform: np.ndarray
    sampling_rate: int
    segments: list[Segment]


def _open(name: str) -> ctypes.CDLL:
    for candidate in (find_library(name), f"lib{name}.so.1", f"lib{name}.dylib"):
        try:
            if candidate:
                return ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise UserError(
        f"voices of Flite need its library {name}, which is not installed here: apt-get install flite (Debian), or "
        "a share of 0 of them (data.rehearse.flite_share=0, --flite-share 0)"
    )


class _Flite:
    """One process's door to the library."""

    def __init__(self) -> None:
        for name in ("flite", "flite_cmulex", "flite_usenglish"):
            _open(name)
        self._library = _open("flite")
        self._libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("flite_init", ctypes.c_int, []), ("flite_synth_text", pointer, [text, pointer]),
            ("utt_wave", ctypes.POINTER(_Wave), [pointer]), ("utt_relation", pointer, [pointer, text]),
            ("relation_head", pointer, [pointer]), ("item_next", pointer, [pointer]),
            ("ffeature_float", ctypes.c_float, [pointer, text]), ("ffeature_string", text, [pointer, text]),
            ("path_to_item", pointer, [pointer, text]), ("delete_utterance", None, [pointer]),
            ("feat_set_float", None, [pointer, text, ctypes.c_float]),
            ("get_param_float", ctypes.c_float, [pointer, text, ctypes.c_float]),
        ):  # fmt: skip
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._library.flite_init()
        self._voices: dict[str, tuple] = {}

    def _voice(self, name: str):
        if name not in self._voices:
            register = getattr(_open(f"flite_cmu_us_{name}"), f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_char_p]
            voice = register(None)
            features = voice.contents.features
            own_stretch = self._library.get_param_float(features, b"duration_stretch", 1.0)
            self._voices[name] = (voice, features, own_stretch)
        return self._voices[name]

    def speak(self, text: str, name: str, stretch: float, pitch: float, seed: int) -> Said:
        library = self._library
        voice, features, own_stretch = self._voice(name)
        library.feat_set_float(features, b"duration_stretch", own_stretch * stretch)
        library.feat_set_float(features, b"f0_shift", pitch)
        self._libc.srand(ctypes.c_uint(seed))
        utterance = library.flite_synth_text(text.encode("ascii", "replace"), ctypes.cast(voice, ctypes.c_void_p))
        if not utterance:
            raise RuntimeError(f"Flite's voice {name} said nothing to {text!r}")
        try:
            wave = library.utt_wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, (max(wave.num_samples, 1),)).astype(np.float32) / 32768
            return Said(samples, wave.sampling_rate, list(self._segments(utterance)))
        finally:
            library.delete_utterance(utterance)

    def _segments(self, utterance: int):
        library = self._library
        item = library.relation_head(library.utt_relation(utterance, b"Segment"))
        while item:
            token = library.path_to_item(item, _TOKEN) or 0
            word = library.ffeature_string(item, _TOKEN + b".name").decode("ascii", "replace") if token else ""
            stress = library.ffeature_string(item, b"R:SylStructure.parent.stress") == b"1"
            yield Segment(
                library.ffeature_string(item, b"name").decode(), library.ffeature_float(item, b"end"), int(stress),
                word, token,
            )  # fmt: skip
            item = library.item_next(item)


_lock = threading.Lock()


@lru_cache(maxsize=1)
def _flite() -> _Flite:
    return _Flite()


def check() -> None:
    """Raises UserError where Flite's library is not installed."""
    with _lock:
        _flite()


def speak(text: str, voice: str, stretch: float, pitch: float, seed: int) -> Said:
    """Speaks a text with one of `VOICES`; same arguments, same bytes.

    stretch: of durations, 1 = as the voice is; pitch: factor of its fundamental. Raises UserError where Flite is not
    installed."""
    with _lock:
        return _flite().speak(text, voice, stretch, pitch, seed)
