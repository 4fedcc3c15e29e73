"""eSpeak NG through ctypes: text in, samples and timed phoneme events out.

eSpeak NG keeps global state (flutter, noise, leftovers of the last glottal cycle), so that the same text gives other
samples the second time. Every call of `speak` therefore loads the shared library afresh, which costs 0.4 ms, and
seeds both of its random sources: the same call gives the same bytes, whatever was spoken before. A lock guards the
library within a process; each process has a data folder and a copy of the library of its own, so that nothing else
(a phonemizer in the same process, say) can keep the library's state alive or share it.

In the synchronous mode used here the library starts no thread, and the callback is held for as long as the process,
so that nothing can run in it once it is unloaded.

The library is GPL and an optional extra: it comes with `pip install 'diffdyad[rehearse]'`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError

_RETRIEVAL_SYNCHRONOUS = 2
_PHONEME_EVENTS_IPA_NO_EXIT = 0x1 | 0x2 | 0x8000
_UTF8_SSML = 0x1 | 0x10
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
_VARIANT = "dyad"  # the file below voices/!v in which the voice of the moment is written


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Phrase:
    """What is said in one breath group. `ssml` is escaped text with <prosody> marks; rate in words per minute;
    pitch and range 0..99, 50 = as the voice is; volume 0..200, 100 = normal."""

    ssml: str
    rate: int = 175
    pitch: int = 50
    range: int = 50
    volume: int = 100


@dataclass(frozen=True)
class Spoken:
    """Samples (S,) float32 in [-1, 1] at `sampling_rate`; phoneme events (sample, IPA name, '' = pause) in order;
    word events (sample, character position in the SSML, 0-based)."""

    waveform: np.ndarray
    sampling_rate: int
    phonemes: list[tuple[int, str]]
    words: list[tuple[int, int]]


@lru_cache(maxsize=1)
def _loader():
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "synthetic speech needs eSpeak NG, which is not installed here: pip install 'diffdyad[rehearse]'"
        ) from error
    return espeakng_loader


@lru_cache(maxsize=256)
def variant_text(name: str) -> str:
    """The text of one of eSpeak NG's own voice variants (voices/!v/NAME)."""
    path = Path(_loader().get_data_path()) / "voices" / "!v" / name
    if not path.is_file():
        raise UserError(f"expected an eSpeak NG voice variant, found no file {path}: install espeakng-loader >= 0.2.4")
    return path.read_text(encoding="utf-8", errors="replace")


class _Engine:
    """One process's door to eSpeak NG."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loader = _loader()
        self._data = self._private_data()
        # a copy, because a library that someone else holds open too would not go with our dlclose, nor would its state
        source = Path(self._loader.get_library_path())
        self._library = self._data.parent / source.name
        shutil.copyfile(source, self._library)
        self._libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, bytes]] = []
        self._callback = _Callback(self._receive)  # kept: the library holds only a pointer

    def _private_data(self) -> Path:
        """A copy of the data folder by links, with a voices/!v that we can write to."""
        source = Path(self._loader.get_data_path())
        root = Path(tempfile.mkdtemp(prefix="diffdyad-espeak-"))
        # atexit does not run in worker processes, this does in all
        Finalize(None, shutil.rmtree, (root, True), exitpriority=0)
        data = root / "espeak-ng-data"
        variants = data / "voices" / "!v"
        variants.mkdir(parents=True)
        for entry in source.iterdir():
            if entry.name == "voices":
                continue
            try:
                (data / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
            except OSError:  # no links on this file system
                (shutil.copytree if entry.is_dir() else shutil.copy2)(entry, data / entry.name)
        self._variant = variants / _VARIANT
        return data

    def _receive(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        k = 0
        while events[k].type != _EVENT_END:
            event = events[k]
            if event.type in (_EVENT_WORD, _EVENT_PHONEME):
                name = ctypes.string_at(ctypes.addressof(event) + _Event.id.offset, 8)
                self._events.append((event.type, event.sample, event.text_position, name))
            k += 1
        return 0

    def speak(self, phrases: list[Phrase], language: str, variant: str, seed: int) -> list[Spoken]:
        self._variant.write_text(variant, encoding="utf-8")
        library = ctypes.CDLL(str(self._library))
        try:
            rate = library.espeak_Initialize(
                _RETRIEVAL_SYNCHRONOUS, 200, str(self._data).encode(), _PHONEME_EVENTS_IPA_NO_EXIT
            )
            if rate <= 0:
                raise UserError(f"eSpeak NG did not start with the data in {self._data}: reinstall espeakng-loader")
            library.espeak_Synth.argtypes = [
                ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
                ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            library.espeak_SetSynthCallback(self._callback)
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            self._libc.srand(ctypes.c_uint(seed))
            if library.espeak_SetVoiceByName(f"{language}+{_VARIANT}".encode()) != 0:
                raise UserError(f"eSpeak NG has no voice {language!r}: name a file below espeak-ng-data/lang")
            return [self._speak_one(library, phrase, rate) for phrase in phrases]
        finally:
            library.espeak_Terminate()
            _unload(library)

    def _speak_one(self, library: ctypes.CDLL, phrase: Phrase, rate: int) -> Spoken:
        self._chunks.clear()
        self._events.clear()
        for name, code in _PARAMETERS.items():
            library.espeak_SetParameter(code, int(getattr(phrase, name)), 0)
        text = phrase.ssml.encode("utf-8") + b"\0"
        status = library.espeak_Synth(text, len(text), 0, 1, 0, _UTF8_SSML, None, None)
        if status != 0:
            raise RuntimeError(f"eSpeak NG answered {status} to {phrase.ssml!r}")
        chunks = self._chunks or [np.zeros(1, np.int16)]
        phonemes, words = [], []
        for kind, sample, position, name in self._events:
            if kind == _EVENT_PHONEME:
                # 8 bytes at most, not always terminated, so a long name may end within a character
                phonemes.append((sample, name.split(b"\0")[0].decode("utf-8", "ignore")))
            else:
                words.append((sample, position - 1))
        return Spoken(np.concatenate(chunks).astype(np.float32) / 32768, rate, phonemes, words)


def _unload(library: ctypes.CDLL) -> None:
    """Forget the library's global state: the next CDLL() maps it anew."""
    import _ctypes

    unload = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary
    unload(library._handle)


_lock = threading.Lock()
_engine: _Engine | None = None


def speak(phrases: list[Phrase], language: str, variant: str, seed: int) -> list[Spoken]:
    """Speaks phrases one after another with one voice; same arguments, same bytes.

    `language` names a file below espeak-ng-data/lang ('gmw/en-US'); `variant` is the text of a voice variant.
    Raises UserError where eSpeak NG or the voice is missing."""
    global _engine
    with _lock:
        if _engine is None or _engine.pid != os.getpid():  # a fork must not write into its parent's folder
            _engine = _Engine()
        return _engine.speak(phrases, language, variant, seed)
