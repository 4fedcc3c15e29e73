"""Whisper (Radford et al. 2022), any size, by transformers: words with times and probabilities.

One greedy pass over each block of speech, of at most 30 s. Times are those of the cross-attention (dynamic time warping
over the alignment heads, 20 ms), probabilities the mean over a word's tokens. Inventions are left out (`inventions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffdyad.data.recordings.inventions import is_invented
from diffdyad.data.recordings.weights import weights_identity
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.pretrained import load_pretrained, quiet
from diffdyad.text import TimedWord

DEFAULT_WHISPER = "openai/whisper-small"

_ADVICE = "name another in `words_model`"
_NAMES = {"jv": "jw", "nb": "no", "cmn": "zh", "fil": "tl"}  # BCP 47's: Whisper's
_UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")  # languages that put no spaces between words
_SHORTEST_S = _STAMP_S = 0.02
_PROMPT, _SPARE_TOKENS, _TOKENS_PER_S = 4, 30, 15  # no one talks faster; what repeats itself would go on for ever
_UNFINISHED = "\ufffd"  # half a character


@dataclass(frozen=True)
class Segment:
    """Words that belong together. no_speech: probability that nobody speaks in the block that they are from; logprob:
    mean over the segment's tokens, nats."""

    words: list[TimedWord]
    text: str
    no_speech: float
    logprob: float


@lru_cache(maxsize=1)
def load_whisper(name: str, revision: str | None = None) -> Whisper:
    """Raises UserError where it is neither a folder nor in the Hub's cache."""
    return Whisper(name, revision)


class Whisper:
    """A checkpoint. identity: what stands for its weights; languages: its languages by code, () = English alone."""

    def __init__(self, name: str, revision: str | None = None):
        config = load_pretrained("AutoConfig", name, revision, advice=_ADVICE)
        if config.model_type != "whisper":
            raise UserError(f"expected a Whisper checkpoint for words_model, found {config.model_type!r} in {name}")
        self.model = load_pretrained("AutoModelForSpeechSeq2Seq", name, revision, advice=_ADVICE)
        self.tokenizer = load_pretrained("AutoTokenizer", name, revision, advice=_ADVICE)
        self.extractor = load_pretrained("AutoFeatureExtractor", name, revision, advice=_ADVICE)
        self.identity = weights_identity(name, revision, config)
        settings = self.model.generation_config
        if not hasattr(settings, "no_timestamps_token_id"):
            raise UserError(f"expected generation_config.json with Whisper's timestamps in {name}, found none; choose "
                            "a checkpoint that has it")  # fmt: skip
        if not getattr(settings, "alignment_heads", None):  # a fine-tuned one may lack them: the upper half of layers
            layers, heads = config.decoder_layers, config.decoder_attention_heads
            settings.alignment_heads = [[a, b] for a in range(layers // 2, layers) for b in range(heads)]
        known = getattr(settings, "lang_to_id", None) or {}
        self._language_ids = {token.strip("<|>"): number for token, number in known.items()}
        self.languages = tuple(sorted(self._language_ids)) if getattr(settings, "is_multilingual", True) else ()

    def language(self, tag: str) -> str:
        """The code of a BCP 47 tag, "" for "". Raises UserError for a language that the checkpoint does not have."""
        code = tag.split("-")[0].lower()
        code = _NAMES.get(code, code)
        known = self.languages or ("en",)
        if code and code not in known:
            named = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise UserError(f"expected a language that the words_model has ({named}), found {tag!r} in the manifest")
        return code

    @torch.no_grad()
    def detect(self, waveforms: Sequence[np.ndarray]) -> str:
        """The language that is likeliest in all of them together."""
        if not self.languages or not waveforms:
            return "" if self.languages else "en"
        ids = [self._language_ids[code] for code in self.languages]
        total = sum(self._start(self._encode(waveform)[0])[ids].log_softmax(0) for waveform in waveforms)
        return self.languages[int(total.argmax())]

    def words(self, waveform: np.ndarray, language: str = "") -> list[TimedWord]:
        """What was said, less what was invented, in seconds from the waveform's start."""
        segments = self.segments(waveform, language)
        return [
            word for segment in segments if not is_invented(segment.text, segment.no_speech, segment.logprob)
            for word in segment.words
        ]  # fmt: skip

    @torch.no_grad()
    def segments(self, waveform: np.ndarray, language: str = "") -> list[Segment]:
        """All that is heard, inventions too. waveform: (S,) at 16 kHz, at most 30 s; language: "" = detected."""
        encoded, mask = self._encode(waveform)
        settings = self.model.generation_config
        no_speech = float(self._start(encoded).softmax(0)[settings.no_timestamps_token_id - 1])
        options = {"language": language or None, "task": "transcribe"} if self.languages else {}
        seconds = len(waveform) / SAMPLING_RATE
        most = min(self.model.config.max_target_positions - _PROMPT, _SPARE_TOKENS + round(_TOKENS_PER_S * seconds))
        with quiet():
            found = self.model.generate(
                encoder_outputs=encoded, attention_mask=mask, return_timestamps=True, return_token_timestamps=True,
                return_dict_in_generate=True, force_unique_generate_call=True, num_beams=1, do_sample=False,
                max_new_tokens=most, **options,
            )  # fmt: skip
        count = len(found["scores"])
        tokens = found["sequences"][0, -count:].tolist()
        # a token's attention is that of the step which it is the input of: its time is where it ends
        ends = found["token_timestamps"][0, -count:].tolist()
        logprobs = [float(score[0].log_softmax(0)[token]) for score, token in zip(found["scores"], tokens)]
        stamps = [(token - settings.no_timestamps_token_id - 1) * _STAMP_S for token in tokens]
        segments = []
        for first, last in _runs(tokens, settings.eos_token_id):
            times = [0.0, *ends][first : last + 1]
            words = join_words(
                tokens[first:last], np.exp(logprobs[first:last]).tolist(), times, self._decode,
                language in _UNSPACED, seconds,
            )  # fmt: skip
            opens = stamps[first - 1] if first else 0.0  # below 0: no timestamp
            closes = stamps[last] if last < count and stamps[last] >= 0 else seconds
            words = within(words, max(opens, 0.0), closes)
            text = self._decode(tokens[first:last])
            segments.append(Segment(words, text, no_speech, float(np.mean(logprobs[first:last]))))
        return segments

    def _encode(self, waveform: np.ndarray) -> tuple:
        """The encoder's states, and which of its input's columns are sound."""
        longest = self.extractor.n_samples
        if len(waveform) > longest:
            raise ValueError(f"expected at most {longest} samples, got {len(waveform)}")
        features = self.extractor(
            waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True
        )
        return self.model.get_encoder()(features["input_features"]), features["attention_mask"]

    def _start(self, encoded) -> Tensor:  # (V,)
        """Logits of the first token, which is a language, or says that nobody speaks."""
        start = torch.tensor([[self.model.generation_config.decoder_start_token_id]])
        return self.model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[0, -1].float()

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def within(words: list[TimedWord], start_s: float, end_s: float) -> list[TimedWord]:
    """The first and the last word without what lies outside the segment's own times: attention alone gives a pause, or
    a laugh, to the word beside it."""
    words = list(words)
    if words and start_s < words[0].end_s:
        words[0] = replace(words[0], start_s=max(words[0].start_s, start_s))
    if words and end_s > words[-1].start_s:
        words[-1] = replace(words[-1], end_s=min(words[-1].end_s, end_s))
    return words


def _runs(tokens: Sequence[int], first_special: int) -> Iterator[tuple[int, int]]:
    """From and to of each run of text; timestamps and all other special tokens are the end of text and above."""
    start = 0
    for number, token in enumerate([*tokens, first_special]):
        if token >= first_special:
            if number > start:
                yield start, number
            start = number + 1


def join_words(
    tokens: Sequence[int],
    probabilities: Sequence[float],
    times: Sequence[float],  # one more: where the first begins, and where each ends
    decode: Callable[[Sequence[int]], str],
    unspaced: bool,
    seconds: float,
) -> list[TimedWord]:
    """Tokens as words: each begins with a space, or, in languages without, is a character; punctuation goes with the
    word before it. Words lie in 0 to `seconds`, in order, and last at least 20 ms."""
    pieces: list[tuple[str, int, int]] = []  # text, first token, last token + 1
    start = 0
    for number in range(len(tokens)):
        text = decode(tokens[start : number + 1])
        if _UNFINISHED in text and number + 1 < len(tokens):
            continue
        alone = unspaced and any(letter.isalnum() for letter in text)
        if pieces and not alone and not text.startswith(" "):
            before = pieces.pop()
            pieces.append((before[0] + text, before[1], number + 1))
        else:
            pieces.append((text, start, number + 1))
        start = number + 1
    words, earliest = [], 0.0
    for text, first, last in pieces:
        if not any(letter.isalnum() for letter in text):
            continue
        begin = min(max(times[first], earliest), max(seconds - _SHORTEST_S, 0.0))
        end = min(max(times[last], begin + _SHORTEST_S), seconds)
        earliest = begin
        words.append(TimedWord(text.strip(), begin, end, float(np.mean(probabilities[first:last]))))
    return words


