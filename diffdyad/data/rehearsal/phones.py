"""The fixed inventory of phone classes, and what eSpeak NG's IPA names map to.

A phone class says what the articulators do, not which language is spoken: German *ü* and French *u* are one class.
ARPAbet names are used where ARPAbet has the sound; the rest are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

VOWELS: dict[str, str] = {  # class: what it is (IPA)
    "AA": "open back unrounded, 'father' (ɑ)",
    "AE": "near-open front, 'cat' (æ)",
    "AH": "open-mid central, 'cut'; also the open central a of German, French, Spanish (ʌ, a, ɐ)",
    "AX": "schwa, the reduced vowel (ə)",
    "AO": "open-mid back rounded, 'thought', British 'lot' (ɔ, ɒ)",
    "AW": "diphthong, 'now' (aʊ)",
    "AY": "diphthong, 'my' (aɪ)",
    "EH": "open-mid front, 'bed' (ɛ)",
    "EE": "close-mid front monophthong, German 'See' (e)",
    "ER": "r-coloured or long central, 'bird' (ɚ, ɜː)",
    "EY": "diphthong, 'day' (eɪ)",
    "IH": "near-close front, 'bit' (ɪ, ɨ)",
    "IY": "close front, 'see' (i)",
    "OW": "diphthong, 'go' (oʊ, əʊ)",
    "OO": "close-mid back rounded monophthong, German 'Boot' (o)",
    "OY": "diphthong, 'boy', German 'neu' (ɔɪ, ɔø)",
    "UH": "near-close back rounded, 'book' (ʊ)",
    "UW": "close back rounded, 'too' (u, ʉ)",
    "YY": "close front rounded, German 'über', French 'tu' (y, ʏ)",
    "OE": "mid front rounded, German 'schön', French 'peur' (ø, œ)",
}
CONSONANTS: dict[str, str] = {
    "P": "bilabial stop",
    "B": "bilabial stop",
    "M": "bilabial nasal",
    "F": "labiodental fricative",
    "V": "labiodental fricative (v, ʋ)",
    "T": "alveolar stop",
    "D": "alveolar stop",
    "N": "alveolar nasal (n, ɲ)",
    "DX": "tap or trill (ɾ, r)",
    "L": "lateral (l, ɫ, ʎ)",
    "TH": "dental fricative (θ)",
    "DH": "dental fricative (ð)",
    "S": "alveolar fricative",
    "Z": "alveolar fricative",
    "SH": "rounded postalveolar fricative",
    "ZH": "rounded postalveolar fricative",
    "CH": "rounded postalveolar affricate",
    "JH": "rounded postalveolar affricate",
    "K": "velar stop",
    "G": "velar stop",
    "NG": "velar nasal",
    "X": "palatal to uvular fricative (ç, x, ɣ, χ)",
    "R": "English r, lips somewhat rounded (ɹ)",
    "RX": "uvular r, lips free (ʁ, ʀ)",
    "W": "labial glide, lips rounded (w, ɥ)",
    "Y": "palatal glide (j)",
    "HH": "breath, takes its neighbour's shape",
    "Q": "glottal stop, lips free (ʔ)",
}
SOUNDS: dict[str, str] = {
    "SIL": "silence",
    "LAUGH": "one burst of laughter: open mouth while it lasts",
    "SIGH": "audible breathing out, mouth half open",
    "GASP": "sudden breathing in, mouth open",
    "BREATH": "quiet breathing in between phrases, lips just parted",
}
PHONES: tuple[str, ...] = (*SOUNDS, *VOWELS, *CONSONANTS)

# Greedy, longest first: what is written with several letters stands before its parts.
IPA_TO_PHONE: dict[str, str] = {
    "aɪ": "AY",
    "ɑɪ": "AY",
    "ʌɪ": "AY",
    "aɛ": "AY",
    "aʊ": "AW",
    "ʌʊ": "AW",
    "æʊ": "AW",
    "ʌʉ": "AW",
    "ɑʊ": "AW",
    "eɪ": "EY",
    "ɛɪ": "EY",
    "æɪ": "EY",
    "oʊ": "OW",
    "əʊ": "OW",
    "ɔʊ": "OW",
    "ɔɪ": "OY",
    "ɔø": "OY",
    "ɔʏ": "OY",
    "oɪ": "OY",
    "ɒɪ": "OY",
    "ɔy": "OY",
    "œy": "OE",
    "ɑ": "AA",
    "æ": "AE",
    "a": "AH",
    "ʌ": "AH",
    "ɐ": "AH",
    "ə": "AX",
    "ɘ": "AX",
    "ᵊ": "AX",
    "ɔ": "AO",
    "ɒ": "AO",
    "ɛ": "EH",
    "e": "EE",
    "ɜ": "ER",
    "ɚ": "ER",
    "ɝ": "ER",
    "ɞ": "ER",
    "ɪ": "IH",
    "ɨ": "IH",
    "ᵻ": "IH",
    "i": "IY",
    "o": "OO",
    "ɵ": "UH",
    "ʊ": "UH",
    "u": "UW",
    "ʉ": "UW",
    "ɯ": "UW",
    "y": "YY",
    "ʏ": "YY",
    "ø": "OE",
    "œ": "OE",
    "ɤ": "AX",
    "tʃ": "CH",
    "dʒ": "JH",
    "tɕ": "CH",
    "dʑ": "JH",
    "tʂ": "CH",
    "dʐ": "JH",
    "p": "P",
    "b": "B",
    "ɓ": "B",
    "m": "M",
    "ɱ": "M",
    "f": "F",
    "ɸ": "F",
    "v": "V",
    "ʋ": "V",
    "β": "V",
    "ⱱ": "V",
    "t": "T",
    "ʈ": "T",
    "d": "D",
    "ɖ": "D",
    "n": "N",
    "ɲ": "N",
    "ɳ": "N",
    "ɾ": "DX",
    "r": "DX",
    "ɽ": "DX",
    "l": "L",
    "ɫ": "L",
    "ʎ": "L",
    "ɭ": "L",
    "ɬ": "L",
    "θ": "TH",
    "ð": "DH",
    "s": "S",
    "z": "Z",
    "ʃ": "SH",
    "ɕ": "SH",
    "ʂ": "SH",
    "ɧ": "SH",
    "ʒ": "ZH",
    "ʑ": "ZH",
    "ʐ": "ZH",
    "k": "K",
    "c": "K",
    "q": "K",
    "ɡ": "G",
    "g": "G",
    "ɟ": "G",
    "ŋ": "NG",
    "ɴ": "NG",
    "ç": "X",
    "x": "X",
    "ɣ": "X",
    "χ": "X",
    "ʝ": "Y",
    "ɹ": "R",
    "ɻ": "R",
    "ʁ": "RX",
    "ʀ": "RX",
    "w": "W",
    "ʍ": "W",
    "ɥ": "W",
    "j": "Y",
    "h": "HH",
    "ɦ": "HH",
    "ħ": "HH",
    "ʔ": "Q",
}
STOPS = frozenset(["P", "B", "T", "D", "K", "G", "CH", "JH"])
VOICELESS_STOPS = frozenset(["P", "T", "K", "CH"])
NASALS = frozenset(["M", "N", "NG"])
_LONGEST = max(map(len, IPA_TO_PHONE))


@dataclass(frozen=True)
class Parsed:
    """What one eSpeak name says: the phone classes in order, and the stress (0 none, 1 primary, 2 secondary)."""

    phones: tuple[str, ...]
    stress: int


@lru_cache(maxsize=4096)
def parse_ipa(symbol: str) -> Parsed:
    """Phone classes of an eSpeak IPA name: 'ˈaɪɚ' -> AY ER, primary stress. Marks of length, nasality, voicing,
    and language switches ('(en)') carry no class of their own; a name with none left is silence."""
    stress = 1 if "ˈ" in symbol else 2 if "ˌ" in symbol else 0
    if symbol.startswith("("):
        return Parsed((), 0)
    phones: list[str] = []
    position = 0
    while position < len(symbol):
        for length in range(min(_LONGEST, len(symbol) - position), 0, -1):
            phone = IPA_TO_PHONE.get(symbol[position : position + length])
            if phone is not None:
                phones.append(phone)
                position += length
                break
        else:
            position += 1  # a diacritic, a length or stress mark
    # 'ɔ̃' and the like keep their vowel; a syllabic or doubled consonant is still one gesture
    merged = tuple(p for k, p in enumerate(phones) if k == 0 or phones[k - 1] != p)
    return Parsed(merged, stress)
