"""What sounds are, by a tagger. Backends by name: `none`, `ast` (Audio Spectrogram Transformer, Gong et al. 2021, by
transformers: AudioSet's classes, of which those of the voice are kept, under fewer names)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch

from diffdyad.data.person import SoundTag
from diffdyad.data.recordings.frames import Span
from diffdyad.data.recordings.hearing import Heard
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.recordings.weights import package_version, weights_identity
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.pretrained import load_pretrained, quiet

TAGS = ("none", "ast")
DEFAULT_AST = "MIT/ast-finetuned-audioset-10-10-0.4593"

SPEECH = "speech"
KINDS: dict[str, tuple[str, ...]] = {
    SPEECH: ("Speech", "Male speech, man speaking", "Female speech, woman speaking", "Child speech, kid speaking",
             "Conversation", "Narration, monologue", "Whispering"),
    "laughter": ("Laughter", "Baby laughter", "Giggle", "Snicker", "Belly laugh", "Chuckle, chortle"),
    "crying": ("Crying, sobbing", "Baby cry, infant cry", "Whimper", "Wail, moan"),
    "sigh": ("Sigh",),
    "gasp": ("Gasp",),
    "breath": ("Breathing", "Wheeze", "Pant", "Snort", "Sniff"),
    "cough": ("Cough", "Throat clearing"),
    "sneeze": ("Sneeze",),
    "groan": ("Groan", "Grunt"),
    "humming": ("Humming",),
    "shout": ("Shout", "Bellow", "Whoop", "Yell", "Screaming", "Children shouting"),
    "whistling": ("Whistling",),
    "hiccup": ("Hiccup",),
}  # fmt: skip
"""Our names for AudioSet's classes of the voice; a kind is as probable as its likeliest class."""

WINDOW_S = 2.0
SHORTEST_S = 0.5  # of what is tagged at all: what may be a non-verbal turn
LEAST_PROBABILITY = 0.3
"""Below, nothing is said of a sound. Classes are not exclusive: probabilities of one sound do not add up to 1."""

_ADVICE = "name another in `tags_model`"
_KEPT = 0.01
_BATCH = 8


@dataclass(frozen=True)
class Window:
    """What a tagger says of a stretch of one person's sound: probabilities of kinds, less those that are nearly 0."""

    start_s: float
    end_s: float
    kinds: dict[str, float]

    @property
    def is_vocal(self) -> bool:
        """A sound of the voice that is likelier than speech."""
        other = max((p for kind, p in self.kinds.items() if kind != SPEECH), default=0.0)
        return other >= LEAST_PROBABILITY and other > self.kinds.get(SPEECH, 0.0)


@dataclass
class Tags:
    """Windows of each person, in order; known: whether anything was asked."""

    windows: list[list[Window]] = field(default_factory=lambda: [[], []])
    known: bool = False

    def is_vocal(self, side: int, span: Span) -> bool:
        """Whether at least half of a span's windows hold a sound of the voice rather than speech."""
        inside = [w for w in self.windows[side] if w.start_s >= span[0] - 1e-3 and w.end_s <= span[1] + 1e-3]
        return bool(inside) and sum(window.is_vocal for window in inside) * 2 >= len(inside)

    def of(self, side: int, start_s: float, end_s: float) -> list[SoundTag]:
        """What goes into the record, in seconds from `start_s`: kinds but speech, windows that touch as one."""
        found: dict[str, list[SoundTag]] = {}
        for window in self.windows[side]:
            begin, end = max(window.start_s, start_s) - start_s, min(window.end_s, end_s) - start_s
            for kind, probability in window.kinds.items():
                if kind == SPEECH or probability < LEAST_PROBABILITY or end <= begin:
                    continue
                tags = found.setdefault(kind, [])
                if tags and begin <= tags[-1].end_s + 1e-3:
                    before = tags.pop()
                    tags.append(SoundTag(kind, before.start_s, end, max(before.probability, probability)))
                else:
                    tags.append(SoundTag(kind, begin, end, probability))
        return sorted((tag for tags in found.values() for tag in tags), key=lambda tag: (tag.start_s, tag.tag))


def find_tags(heard: Heard, steps: Steps, backend: str, model: str | None = None, revision: str | None = None) -> Tags:
    """What everybody's speech and other sounds are. Raises UserError for a backend that is not known, and for weights
    that are not at hand."""
    if backend not in TAGS:
        raise UserError(f"expected a backend for tags among {', '.join(TAGS)}, found {backend!r}")
    if backend == "none":
        return Tags([[] for _ in heard.spans])
    tagger = load_tagger(model or DEFAULT_AST, revision)

    def tag(_) -> dict:
        return {"windows": [_tagged(heard, side, tagger) for side in range(len(heard.spans))]}

    settings = {"weights": tagger.identity, "window_s": WINDOW_S, "shortest_s": SHORTEST_S}
    found = steps.run("tags", backend, f"transformers {package_version('transformers')}", settings, heard.keys, tag)
    return Tags([[Window(*window) for window in own] for own in found.values["windows"]], True)


def _tagged(heard: Heard, side: int, tagger: Tagger) -> list[list]:
    pcm = heard.sound[min(side, len(heard.sound) - 1)]
    spans = windows_of([*heard.spans[side], *heard.sounds[side]])
    found = []
    for first in range(0, len(spans), _BATCH):
        batch = spans[first : first + _BATCH]
        sounds = [pcm[round(a * SAMPLING_RATE) : round(b * SAMPLING_RATE)] for a, b in batch]
        for (start, end), row in zip(batch, tagger.kinds(sounds)):
            kept = {kind: round(float(p), 3) for kind, p in zip(KINDS, row) if p >= _KEPT}
            found.append([round(start, 3), round(end, 3), kept])
    return found


def windows_of(spans: Sequence[Span]) -> list[Span]:
    """Each span that is long enough in equal windows of about 2 s (1.5 to 3 s, but for shorter spans); none reaches
    beyond its span, so that each is of one thing. The network takes as long for a short one as for 10 s."""
    found = []
    for start, end in sorted(spans):
        if end - start < SHORTEST_S:
            continue
        edges = np.linspace(start, end, max(1, round((end - start) / WINDOW_S)) + 1).tolist()
        found += pairwise(edges)
    return found


@lru_cache(maxsize=1)
def load_tagger(name: str, revision: str | None = None) -> Tagger:
    """Raises UserError where it is neither a folder nor in the Hub's cache, or knows none of our classes."""
    return Tagger(name, revision)


class Tagger:
    """A checkpoint of AST. identity: what stands for its weights."""

    def __init__(self, name: str, revision: str | None = None):
        config = load_pretrained("AutoConfig", name, revision, advice=_ADVICE)
        if config.model_type != "audio-spectrogram-transformer":
            raise UserError(f"expected an AST checkpoint for tags_model, found {config.model_type!r} in {name}")
        self._columns = columns_of(config.id2label)
        if not self._columns[SPEECH] or not any(self._columns[kind] for kind in KINDS if kind != SPEECH):
            labels = ", ".join(list(config.id2label.values())[:3])
            raise UserError(f"expected AudioSet's classes, such as Speech and Laughter, in {name}, found {labels}, ...")
        self.model, info = load_pretrained(
            "AutoModelForAudioClassification", name, revision, advice=_ADVICE, output_loading_info=True
        )
        if info["missing_keys"]:
            raise UserError(f"expected trained weights for all of {name}, found none for "
                            f"{sorted(info['missing_keys'])[0]}; give a checkpoint with its classifier")  # fmt: skip
        with quiet():  # it warns of its own mel bands
            self.extractor = load_pretrained("AutoFeatureExtractor", name, revision, advice=_ADVICE)
        self.identity = weights_identity(name, revision, config)

    @torch.no_grad()
    def kinds(self, sounds: Sequence[np.ndarray]) -> np.ndarray:  # (N, kinds)
        """Probabilities of `KINDS`, in their order, of waveforms at 16 kHz; 10 s of each at most are heard."""
        features = self.extractor(list(sounds), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        classes = self.model(features["input_values"]).logits.float().sigmoid().numpy()
        none = np.zeros(len(classes))
        return np.stack([classes[:, own].max(1) if own else none for own in self._columns.values()], 1)


def columns_of(id2label: dict[int, str]) -> dict[str, list[int]]:
    """Which of a checkpoint's classes are of each kind, by their labels."""
    by_label = {str(label).strip().lower(): int(number) for number, label in id2label.items()}
    return {kind: [by_label[x.lower()] for x in labels if x.lower() in by_label] for kind, labels in KINDS.items()}
