"""Synthetic people: who speaks, in which language, with which voice.

A voice takes one of eSpeak NG's variants as its base and changes it (pitch, range, each formant, breath, tilt), so
that no two people sound alike. Bases are split by people: a base of the test split is in no other. Where asked, some
of those who train with English speak with Flite's voices, which are built from recordings of real speakers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.data.rehearsal.espeak import variant_text

SPLITS = ("train", "validation", "test")
CALM_RATE = 165.0  # words per minute
FLITE_VOICES = {True: ("slt",), False: ("awb", "rms")}  # by whether a woman speaks

# Human-sounding variants only: no robots, announcers or comic voices.
MALE_BASES: dict[str, tuple[str, ...]] = {
    "train": (
        "m1", "m2", "m3", "m4", "m6", "m7", "m8", "Alex", "Andy", "Denis", "Diogo", "Gene", "Marco", "Mario",
        "Michael", "Nguyen", "Reed", "adam", "antonio", "benjamin", "edward", "iven", "max", "paul", "pedro",
        "quincy", "rob", "sandro", "klatt2", "klatt4", "klatt6",
    ),
    "validation": ("m5", "Mike", "david", "miguel", "victor"),
    "test": ("boris", "Hugo", "ed", "robert", "travis", "mike2"),
}  # fmt: skip
FEMALE_BASES: dict[str, tuple[str, ...]] = {
    "train": ("f1", "f2", "f3", "f4", "Alicia", "Andrea", "anika", "aunty", "linda", "steph", "steph3", "shelby"),
    "validation": ("Annie", "steph2"),
    "test": ("f5", "belinda", "grandma"),
}
ENGLISH = (
    "gmw/en-US", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-GB-scotland", "gmw/en-029", "gmw/en-GB-x-gbclan",
    "gmw/en-GB-x-gbcwmd", "gmw/en-US-nyc",
)  # fmt: skip
_ENGLISH_WEIGHTS = (0.42, 0.16, 0.12, 0.06, 0.05, 0.05, 0.05, 0.09)
OTHER_LANGUAGES = {
    "de": "gmw/de", "fr": "roa/fr", "es": "roa/es", "it": "roa/it", "nl": "gmw/nl", "pt": "roa/pt-BR",
    "pl": "zlw/pl", "sv": "gmq/sv",
}  # fmt: skip
_OTHER_WEIGHTS = (0.36, 0.16, 0.14, 0.1, 0.08, 0.06, 0.05, 0.05)


@dataclass(frozen=True)
class Voice:
    """One person's voice.

    language: 'en', 'de', ...; accent: eSpeak NG's file of it; base: the variant, or Flite's voice, it is built on.
    pitch_hz: lowest pitch of calm speech; pitch_span: highest over lowest; rate: words per minute.
    resample: factor by which pitch and formants are raised together after synthesis (0.88 to 1.14).
    formants: per formant (frequency, height, width), in per cent of the base.
    breath: noise mixed in, relative to the voiced part, 0 to 0.45, or 1 = whisper. tilt: dB per octave about 1 kHz.
    level_db: how loud the person is against others. expressiveness: scales how pitch and rate wander.
    """

    language: str
    accent: str
    base: str
    female: bool
    pitch_hz: float
    pitch_span: float
    rate: float
    resample: float
    formants: tuple[tuple[int, int, int], ...]
    flutter: int
    roughness: int
    voicing: int
    consonants: int
    breath: float
    tilt: float
    level_db: float
    expressiveness: float
    pausing: float
    engine: str = "espeak"

    def variant(self) -> str:
        """The eSpeak NG variant file of this voice (pitch as it must be before `resample`)."""
        inherited: list[str] = []
        heights: dict[int, tuple[float, ...]] = {}
        for line in variant_text(self.base).splitlines():
            words = line.split()
            if not words or words[0] in _REPLACED or words[0].startswith(("/", "#")):
                continue
            if words[0] == "formant":
                numbers = [float(w) for w in words[1:] if _is_number(w)]
                heights[int(numbers[0])] = tuple(numbers[1:4])
                continue
            inherited.append(line.strip())
        lines = ["language variant", "name dyad", *inherited]
        low = self.pitch_hz / self.resample
        lines += [f"pitch {low:.0f} {low * self.pitch_span:.0f}", "echo 0 0"]
        lines += [f"flutter {self.flutter}", f"roughness {self.roughness}"]
        lines += [f"voicing {self.voicing}", f"consonants {self.consonants} {self.consonants}"]
        for k, changes in enumerate(self.formants):
            own = (*heights.get(k, ()), 100.0, 100.0, 100.0)[:3] if k in heights else (100.0, 100.0, 100.0)
            frequency, height, width = (round(o * c / 100) for o, c in zip(own, changes, strict=True))
            lines.append(f"formant {k} {frequency} {height} {width}")
        return "\n".join(lines) + "\n"


# lines of a base variant that the voice sets itself
_REPLACED = frozenset(
    ("language", "name", "gender", "pitch", "echo", "flutter", "roughness", "voicing", "consonants", "breath",
     "breathw", "intonation", "stressLength", "fast_test2")
)  # fmt: skip


def _is_number(word: str) -> bool:
    return word.lstrip("-").replace(".", "", 1).isdigit()


def draw_voice(
    generator: np.random.Generator, split: str, language: str | None = None, flite_share: float = 0.0
) -> Voice:
    """A new person of this split. `language`: 'en', 'de', ...; None draws English in four of five cases.
    flite_share: of those who train with English, how many speak with Flite's voices.

    Raises ValueError for an unknown split or language."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {SPLITS}, got {split!r}")
    if language is None:
        other = generator.random() < 0.2
        language = str(generator.choice(list(OTHER_LANGUAGES), p=_OTHER_WEIGHTS)) if other else "en"
    if language == "en":
        accent = str(generator.choice(ENGLISH, p=_ENGLISH_WEIGHTS))
    elif language in OTHER_LANGUAGES:
        accent = OTHER_LANGUAGES[language]
    else:
        raise ValueError(f"expected a language of {('en', *OTHER_LANGUAGES)}, got {language!r}")
    female = bool(generator.random() < 0.5)
    base = str(generator.choice((FEMALE_BASES if female else MALE_BASES)[split]))
    child = female and generator.random() < 0.06
    centre = 235.0 if child else 150.0 if female else 84.0
    resample = float(np.clip(generator.normal(1.0, 0.06), 0.88, 1.14))
    formants = tuple(
        (
            round(100 + generator.normal(0, 3.0)),
            round(100 * np.exp(generator.normal(0, 0.15))),
            round(100 * np.exp(generator.normal(0, 0.12))),
        )
        for _ in range(6)
    )
    whisper = generator.random() < 0.015
    engine = "espeak"
    if flite_share and split == "train" and language == "en" and generator.random() < flite_share:
        engine, base, child = "flite", str(generator.choice(FLITE_VOICES[female])), False
    return Voice(
        language=language,
        accent=accent,
        base=base,
        female=female,
        pitch_hz=float(centre * np.exp(generator.normal(0, 0.15))),
        pitch_span=float(np.exp(np.clip(generator.normal(0.42, 0.16), 0.15, 0.85))),
        rate=float(np.clip(CALM_RATE * np.exp(generator.normal(0, 0.14)), 105, 235)),
        resample=resample,
        formants=formants,
        flutter=int(generator.integers(0, 9)),
        roughness=int(generator.integers(0, 4)),
        voicing=int(np.clip(100 * np.exp(generator.normal(0, 0.2)), 55, 170)),
        consonants=int(np.clip(100 * np.exp(generator.normal(0, 0.25)), 50, 180)),
        breath=1.0 if whisper else float(min(0.45, generator.exponential(0.1))),
        tilt=float(generator.normal(-0.5, 1.2)),
        level_db=float(generator.normal(0, 2.5)),
        expressiveness=float(np.exp(generator.normal(0, 0.35))),
        pausing=float(np.exp(generator.normal(0, 0.3))),
        engine=engine,
    )
