"""Seamless Interaction (Agrawal et al. 2025): conversations with a microphone, a transcript and a video per person."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from diffdyad.data.importers import checks
from diffdyad.data.importers.recording import Importer, Item, Recording, Side, Span
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.text import TimedWord

_NAME = re.compile(r"(V\d+_S\d+_I\d+)_(P\d+\w*)")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_RATE = 48000


class Seamless(Importer):
    """`V##_S####_I########_P####.{wav,mp4,json}` anywhere in the folder; sides of one V, S, I belong together.

    wav 48 kHz; videos at their own rate; json `metadata:transcript` (words with times) and `metadata:vad`. Its face
    features are not FLAME: the exchanges have sound, words and turns, and motion where a tracker has seen the videos.
    Folders called train, dev and test are its own splits.
    """

    name, title, license = "seamless", "Seamless Interaction", "CC-BY-NC-4.0"
    items_per_shard = 8
    has_videos = True
    expects = "V##_S####_I########_P####.wav and .json of two people"

    def notes(self) -> list[str]:
        if self.options.tracker:
            return []
        return ["face features of the source are not taken over: the videos in to_track.jsonl are to be tracked "
                "(--tracker)"]  # fmt: skip

    def videos(self, item: Item) -> tuple[str, ...]:
        return tuple(f"{stem}.mp4" for stem in item.about["stems"])

    def scan(self) -> Iterator[Item]:
        sides: dict[str, dict[str, str]] = defaultdict(dict)
        for path in sorted({*self.source.rglob("V*_S*_I*_P*.wav"), *self.source.rglob("V*_S*_I*_P*.json")}):
            if match := _NAME.fullmatch(path.stem):
                sides[match[1]].setdefault(match[2], str(path.relative_to(self.source).with_suffix("")))
        for interaction, people in sorted(sides.items()):
            names = tuple(sorted(people))
            stems = [people[name] for name in names]
            split = next((_SPLITS[part] for part in stems[0].split("/") if part in _SPLITS), None)
            files = tuple(f"{stem}{ending}" for stem in stems for ending in (".wav", ".json"))
            yield Item(interaction, files, names, split, about={"stems": stems})

    def load(self, item: Item) -> Recording:
        if len(item.people) != 2:
            raise UserError(f"expected two people in {item.item_id}, found {', '.join(item.people)}")
        sides = []
        for person, stem in zip(item.people, item.about["stems"]):
            waveform = checks.read_wav(self.path(f"{stem}.wav"), _RATE)
            where = self.path(f"{stem}.json")
            content = checks.read_json(where)
            if not isinstance(content, dict) or "metadata:vad" not in content:
                raise UserError(f"expected the key 'metadata:vad' in {where}, found {str(content)[:80]}")
            video = f"{stem}.mp4" if self.path(f"{stem}.mp4").is_file() else ""
            if video:
                checks.check_video(self.path(video), None, len(waveform) / SAMPLING_RATE)
            words = _words(content.get("metadata:transcript") or [], where)
            speech = _spans(content["metadata:vad"], where)
            sides.append(Side(person, waveform, words=words, speech=speech, video=video))
        lengths = [len(side.waveform) for side in sides]
        seconds = checks.same_length(*lengths, SAMPLING_RATE, item.item_id) / SAMPLING_RATE
        return Recording(sides, seconds)


def _spans(entries: Any, where: object) -> list[Span]:
    try:
        return sorted((float(entry["start"]), float(entry["end"])) for entry in entries)
    except (TypeError, KeyError, ValueError):
        raise UserError(
            f"expected 'metadata:vad' as a list of {{start, end}} in {where}, found {str(entries)[:80]}"
        ) from None


def _words(segments: Any, where: object) -> list[TimedWord]:
    words = []
    try:
        for segment in segments:
            for word in segment.get("words", []):
                if word.get("start") is not None and word.get("end") is not None:
                    text, score = str(word["word"]).strip(), word.get("score")
                    probability = 1.0 if score is None else float(score)
                    words.append(TimedWord(text, float(word["start"]), float(word["end"]), probability))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError(f"expected 'metadata:transcript' with words of word, start and end in {where}, found "
                        f"{str(segments)[:80]}") from None  # fmt: skip
    return sorted(words, key=lambda word: word.start_s)
