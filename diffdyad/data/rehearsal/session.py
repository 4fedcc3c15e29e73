"""One rehearsed session: two people, one dialogue, and the exchanges that its turns make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from diffdyad.data.exchange import LONGEST_PREVIOUS_S, SPLITS, Exchange, Person
from diffdyad.data.rehearsal.behaviour import perform
from diffdyad.data.rehearsal.curves import Streams
from diffdyad.data.rehearsal.dialogue import Turn as Line
from diffdyad.data.rehearsal.dialogue import draw_dialogue
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.reaction import LAYOUT, Reaction
from diffdyad.data.rehearsal.scene import Turn
from diffdyad.data.rehearsal.speech import Utterance, Voice, concatenate, draw_voice, silence, synthesise_turn
from diffdyad.data.rehearsal.visemes import log_energy, loudness
from diffdyad.media import SAMPLING_RATE
from diffdyad.text import TimedWord

FPS = 25
_GRID = SAMPLING_RATE // FPS  # samples a frame: turns begin on a frame, so that both clocks agree exactly
SESSIONS_PER_PAIR = 2


@dataclass(frozen=True)
class SessionKey:
    """Which session of which corpus; everything in it follows from this alone."""

    seed: int
    split: str
    number: int

    @property
    def pair(self) -> int:
        return self.number // SESSIONS_PER_PAIR

    @property
    def name(self) -> str:
        return f"{self.split}-{self.pair:05d}-{self.number % SESSIONS_PER_PAIR}"

    def streams(self) -> Streams:
        return Streams(self.seed, SPLITS.index(self.split), self.number)

    def person_name(self, index: int) -> str:
        return f"{self.split}-{self.pair:05d}{'ab'[index]}"

    def person_streams(self, index: int) -> Streams:
        """What is the same about a person in all sessions of the pair."""
        return Streams(self.seed, SPLITS.index(self.split), self.pair, 1000 + index)


@dataclass(frozen=True)
class Spoken:
    """A turn as it was said: the line, the sound, and where it lies in the session (seconds)."""

    line: Line
    utterance: Utterance
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.utterance.duration_s


def draw_gap(rng: np.random.Generator) -> float:
    """Seconds between turns, -0.5 to 1.5, mode 0.2 (Levinson & Torreira 2015)."""
    gap = rng.normal(0.2, 0.18) if rng.random() < 0.75 else 0.1 + rng.exponential(0.45)
    return float(np.clip(gap, -0.5, 1.5))


def _on_grid(seconds: float) -> float:
    return round(seconds * FPS) / FPS


def _scene_turn(spoken: Spoken, kind: str) -> Turn:
    shift = spoken.start_s
    phones = [replace(p, start_s=p.start_s + shift, end_s=p.end_s + shift) for p in spoken.utterance.phonemes]
    if kind == "silent":
        phones = []
    waveform = spoken.utterance.waveform
    return Turn(
        spoken.start_s, spoken.end_s, phones, loudness(log_energy(waveform)), spoken.line.valence,
        spoken.line.arousal, kind, spoken.line.text.rstrip().endswith("?"),
    )  # fmt: skip


def stage(key: SessionKey, voices: list[Voice]) -> tuple[list[Spoken], list[Spoken]]:
    """Speaks a dialogue: (turns in order, backchannels of listeners), on the session's clock."""
    streams = key.streams()
    dialogue = draw_dialogue(
        streams("dialogue"), key.split, languages=(voices[0].language, voices[1].language)
    )
    rng = streams("timing")
    turns: list[Spoken] = []
    backchannels: list[Spoken] = []
    onset = _on_grid(rng.uniform(0.8, 2.0))
    for number, line in enumerate(dialogue.turns):
        generator = streams("speech", number)
        voice = voices[line.speaker]
        utterance = synthesise_turn(
            line.text, voice, line.valence, line.arousal, line.kind, line.sound, generator
        )
        if line.kind == "nonverbal":  # a sound lasts a moment, the face that goes with it longer
            pause = silence(max(rng.uniform(1.5, 2.5) - utterance.duration_s, 0.3))
            utterance = replace(concatenate([utterance, pause]), sound=line.sound)
        if turns:
            # nobody overlaps by more than a third of what the other says, or answers before the other began
            gap = max(draw_gap(rng), -0.33 * turns[-1].utterance.duration_s)
            onset = _on_grid(turns[-1].end_s + gap)  # so the gap itself is within half a frame of the drawn one
        spoken = Spoken(line, utterance, onset)
        turns.append(spoken)
        pauses = _scene_turn(spoken, line.kind).phrase_ends[:-1]
        listener = 1 - line.speaker
        for pause in pauses:
            free = not backchannels or pause - backchannels[-1].start_s > 4.0
            if free and rng.random() < 0.25 and spoken.end_s - pause > 1.5:
                arousal = float(rng.normal(0.0, 0.2))
                sound = synthesise_turn("", voices[listener], 0.0, arousal, "nonverbal", "mmhm", generator)
                if sound.duration_s < spoken.end_s - pause - 0.6:
                    said = Line(listener, "", 0.0, arousal, "nonverbal", "mmhm")
                    backchannels.append(Spoken(said, sound, pause + rng.uniform(0.0, 0.25)))
    return turns, backchannels


def rehearse_session(
    key: SessionKey,
    effect: float,
    reactive_share: float,
    acoustics: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    config_hash: str = "",
    flite_share: float = 0.0,
) -> list[Exchange]:
    """All exchanges of one session. `effect`: K; `acoustics`: (waveform, generator) -> waveform, once a person;
    `flite_share`: of the people who train with English, how many speak with Flite's voices."""
    streams = key.streams()
    habits = [Habits.draw(key.person_streams(p)("habits")) for p in (0, 1)]
    voices = [draw_voice(key.person_streams(p)("voice"), key.split, flite_share=flite_share) for p in (0, 1)]
    turns, backchannels = stage(key, voices)
    seconds = _on_grid(max(turn.end_s for turn in turns) + 1.5)
    num_frames = round(seconds * FPS)

    scenes: list[list[Turn]] = [[], []]
    for spoken in turns:
        scenes[spoken.line.speaker].append(_scene_turn(spoken, spoken.line.kind))
    for spoken in backchannels:
        scenes[spoken.line.speaker].append(_scene_turn(spoken, "backchannel"))
    for scene in scenes:
        scene.sort(key=lambda turn: turn.start_s)

    reactions: list[Reaction | None] = []
    for number, (previous, answer) in enumerate(pairwise(turns)):
        rng = streams("reaction", number)
        reacts = bool(rng.random() < reactive_share) and effect != 0
        drawn = Reaction.draw(
            rng, previous.start_s, previous.end_s, answer.start_s, previous.line.valence, previous.line.arousal,
            effect,
        )  # fmt: skip
        reactions.append(drawn if reacts else None)

    tracks, motions = [], []
    for p in (0, 1):
        planted = [r for r, turn in zip(reactions, turns[1:]) if r is not None and turn.line.speaker == p]
        own = streams(f"person {p}").integers(1 << 31)
        motions.append(perform(habits[p], scenes[p], scenes[1 - p], planted, num_frames, FPS, Streams(int(own))))
        track = np.zeros(num_frames * _GRID, np.float32)
        for spoken in (*turns, *backchannels):
            if spoken.line.speaker == p:
                first = round(spoken.start_s * SAMPLING_RATE)
                part = spoken.utterance.waveform[: len(track) - first]
                track[first : first + len(part)] += part
        tracks.append(acoustics(track, streams("acoustics", p)) if acoustics else track)

    exchanges = []
    for number, (previous, answer) in enumerate(pairwise(turns)):
        reaction = reactions[number]
        # the window lies on frames; the onset is one
        first = max(round(previous.start_s * FPS), round((answer.start_s - LONGEST_PREVIOUS_S) * FPS))
        last = min(int(np.ceil(round(answer.end_s * FPS, 6))), num_frames)
        onset = answer.start_s
        start_s, end_s = (first - round(onset * FPS)) / FPS, (last - round(onset * FPS)) / FPS

        def person(index: int, spoken: Spoken, first=first, last=last, onset=onset) -> Person:
            said = [TimedWord(w.word, w.start_s + spoken.start_s - onset, w.end_s + spoken.start_s - onset)
                    for w in spoken.utterance.words]  # fmt: skip
            words = [w for w in said if (w.start_s + w.end_s) / 2 >= first / FPS - onset]  # of a long turn, its tail
            return Person(
                waveform=np.clip(tracks[index][first * _GRID : last * _GRID], -1.0, 1.0),
                motion={
                    group: motions[index][first:last, LAYOUT.slices[group]] for group in LAYOUT.groups
                },
                valid=np.ones(last - first, bool),
                betas=habits[index].betas,
                text=spoken.line.text if len(words) == len(said) else " ".join(w.word for w in words),
                words=words,
            )

        overlap = max(0.0, previous.end_s - onset)
        truth = {}
        if reaction is not None:
            truth = {
                "planted_time_constant_s": reaction.time_constant_s,
                "planted_rise_start_s": reaction.rise_start_s - onset,
                "planted_rise_end_s": reaction.rise_end_s - onset,
                "planted_nod_hz": reaction.nod_hz,
            }
        exchanges.append(
            Exchange(
                exchange_id=f"{key.name}-{number:02d}",
                session_id=key.name,
                previous_exchange_id=f"{key.name}-{number - 1:02d}" if number else "",
                next_exchange_id=f"{key.name}-{number + 1:02d}" if number + 2 < len(turns) else "",
                previous_speaker=key.person_name(previous.line.speaker),
                responder_name=key.person_name(answer.line.speaker),
                split=key.split,
                source="rehearsal",
                license="Apache-2.0",
                consent="synthetic people",
                start_s=start_s,
                previous_end_s=previous.end_s - onset,
                end_s=end_s,
                session_onset_s=onset,
                overlap_ratio=overlap / (end_s - start_s),
                previous=person(previous.line.speaker, previous),
                responder=person(answer.line.speaker, answer),
                basis=LAYOUT.basis,
                tracker="rehearsal",
                fps=float(FPS),
                config_hash=config_hash,
                response_kind=answer.line.kind,
                valence=previous.line.valence,
                arousal=previous.line.arousal,
                reactive=reaction is not None,
                planted_strength=effect if reaction is not None else 0.0,
                planted_response_valence=answer.line.valence,
                planted_response_arousal=answer.line.arousal,
                planted_dialogue=previous.line.topic,
                planted_voice=voices[answer.line.speaker].base,
                **truth,
            )
        )
    return exchanges


def reaction_of(exchange: Exchange) -> Reaction | None:
    """The planted reaction of a record, on the exchange's clock; None where there is none."""
    if not exchange.reactive:
        return None
    return Reaction(
        exchange.planted_rise_start_s, exchange.planted_rise_end_s, 0.0, exchange.planted_time_constant_s,
        exchange.valence, exchange.arousal, exchange.planted_strength, exchange.planted_nod_hz,
    )  # fmt: skip
