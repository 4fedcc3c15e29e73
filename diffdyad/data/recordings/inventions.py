"""What a recogniser made up: words in noise, laughter or silence, told by its own scores. Words that repeat themselves
compress well; words out of nothing are improbable, or come with the word that there is no speech.

The three scores and their limits are those of Radford et al. 2022, section 4.5, there for trying again; here, nothing
is tried again, and any one of them is enough: what is taken for words and is none makes laughter a verbal answer.
"""

from __future__ import annotations

import zlib

MOST_NO_SPEECH = 0.6
LEAST_LOGPROB = -1.0
MOST_COMPRESSION = 2.4

LIMITS = {"most_no_speech": MOST_NO_SPEECH, "least_logprob": LEAST_LOGPROB, "most_compression": MOST_COMPRESSION}


def is_invented(text: str, no_speech: float, logprob: float) -> bool:
    """Whether a segment is to be dropped. no_speech: probability that nobody speaks; logprob: mean over its tokens."""
    return (
        not any(letter.isalnum() for letter in text)
        or not no_speech <= MOST_NO_SPEECH  # NaN is no score to trust
        or not logprob >= LEAST_LOGPROB
        or compression_ratio(text) > MOST_COMPRESSION
    )


def compression_ratio(text: str) -> float:
    """Bytes over bytes when compressed; about 1 to 2 for a sentence, more where it repeats itself."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
