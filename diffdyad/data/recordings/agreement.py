"""What is a sound without words: where voice activity, the recogniser and the tagger agree, those that were asked; and
what is a person's voice then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from diffdyad.data.recordings.frames import Span, merge
from diffdyad.data.recordings.hearing import Heard
from diffdyad.data.recordings.tagging import Tags
from diffdyad.data.recordings.words import Words


@dataclass(frozen=True)
class Evidence:
    """As `turns.find_turns` takes it. sounds: of each person, that are no speech; has_words: whether a span of a side
    is speech with words, None = nobody was asked."""

    sounds: list[list[Span]]
    has_words: Callable[[int, Span], bool] | None


def agreed(heard: Heard, words: Words, tags: Tags) -> Evidence:
    """Without a tagger, what voice activity or the recogniser says. With one, what it says too: a sound that is none of
    the voice (a door) is no turn, and what is taken for speech stays verbal, words or not, unless the tagger hears a
    laugh, say, rather than speech."""
    has_words = words.has_words if words.known else None
    if not tags.known:
        return Evidence(heard.sounds, has_words)
    sounds = [[span for span in own if tags.is_vocal(side, span)] for side, own in enumerate(heard.sounds)]
    if has_words is None:
        return Evidence(sounds, None)
    return Evidence(sounds, lambda side, span: words.has_words(side, span) or not tags.is_vocal(side, span))


def voiced(heard: Heard, evidence: Evidence) -> Heard:
    """With each person's sounds that make a turn, laughter say, as part of the person's voice."""
    return replace(heard, spans=[merge([*own, *more], 0.0) for own, more in zip(heard.spans, evidence.sounds)])
