"""A recording into exchanges: one rate, a head that rests at zero, sides as they should be, turns that answer turns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffdyad import rotation
from diffdyad.data.dynamics import moves
from diffdyad.data.exchange import LONGEST_PREVIOUS_S, Exchange, Person
from diffdyad.data.importers import swapped
from diffdyad.data.importers.recording import Importer, Item, Recording, Side, Span
from diffdyad.data.person import TurnSpan
from diffdyad.data.recordings.gate import speech_of
from diffdyad.data.recordings.turns import (
    LONGEST_RESPONSE_S,
    Turn,
    find_answers,
    find_silences,
    find_turns,
    within_shots,
)
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import POSE_GROUPS
from diffdyad.text import TimedWord

FPS = 25
_GRID = SAMPLING_RATE // FPS  # samples a frame: exchanges begin and end on frames, so that both clocks agree

_SHORTEST_LISTENING_S = 1.0
_SHORTEST_ALONE_S = 2.0
_SILENT_SHARE = 0.1  # somebody who speaks for less of a clip than this listens


@dataclass
class Session:
    """What became of one recording: its exchanges, and a line for the report.

    head_offset: per person, the head's resting rotation (axis-angle) that was taken out; foreign: arrays kept apart.
    """

    session_id: str
    exchanges: list[Exchange]
    duration_s: float
    sides: swapped.Sides | None = None
    exchanged: bool = False
    head_offset: dict[str, list[float]] = field(default_factory=dict)
    videos: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Track:
    """One side at 25 fps: groups that were measured -> (T, width), and where they are valid (T,)."""

    side: Side
    groups: dict[str, np.ndarray]
    valid: np.ndarray


def cut(recording: Recording, item: Item, importer: Importer, split: str, config_hash: str) -> Session:
    """Exchanges of one recording. What cannot be used is said in `skipped`, not raised."""
    session = Session(session_name(importer.name, item.item_id), [], recording.duration_s)
    session.notes, session.about = list(recording.notes), recording.about
    if len(recording.sides) == 2 and importer.compares_sides:
        session.sides = _compare_sides(recording.sides)
        if session.sides is not None and session.sides.verdict == "swapped" and importer.options.swapped != "keep":
            if importer.options.swapped == "drop":
                session.skipped = "the sides' voices are exchanged"
                return session
            _exchange_voices(recording.sides)
            session.exchanged = True
    tracks = []
    for side in recording.sides:
        track, offset = _track(side, importer)
        tracks.append(track)
        if offset is not None:
            session.head_offset[side.name] = [round(float(x), 6) for x in offset]
        if side.video:
            session.videos[side.name] = side.video
        if side.foreign:
            session.foreign[side.name] = side.foreign
    num_frames = min(
        [int(recording.duration_s * FPS + 1e-6)]
        + [len(track.valid) for track in tracks if track.groups]
        + [len(track.side.waveform) // _GRID for track in tracks if len(track.side.waveform)]
    )
    source = recording.source or importer.name
    maker = _Maker(session, tracks, num_frames, importer, split, source, config_hash, recording.turns, recording.cuts_s)
    if len(tracks) == 1:
        maker.alone()
    elif recording.listener is not None:
        maker.listening(recording.listener)
    else:
        maker.dialogue()
    importer.complete(recording, session.exchanges)
    return session


def session_name(source: str, item_id: str) -> str:
    return f"{source}-" + re.sub(r"[^A-Za-z0-9._-]+", "_", item_id).strip("_")


# ------------------------------------------------------------------------------------------------------ sides, motion


def _compare_sides(sides: list[Side]) -> swapped.Sides | None:
    if not all(len(side.waveform) and side.motion is not None for side in sides):
        return None
    openings = [side.motion.select("jaw_pose")[:, 0].numpy() for side in sides]
    fps = {side.motion.fps for side in sides}
    jaw = [side.motion.valid[:, side.motion.layout.groups.index("jaw_pose")].all() for side in sides]
    if len(fps) > 1 or not all(jaw):
        return None
    return swapped.compare(tuple(openings), tuple(side.waveform for side in sides), fps.pop())


def _exchange_voices(sides: list[Side]) -> None:
    """The sound and what was heard in it change sides; faces and names stay."""
    a, b = sides
    a.waveform, b.waveform = b.waveform, a.waveform
    a.words, b.words = b.words, a.words
    a.speech, b.speech = b.speech, a.speech


def rest(
    head: Tensor,  # (T, 3) axis-angle
    valid: Tensor,  # (T,) bool
) -> Tensor:  # (3,)
    """The rotation that a head rests at: the median of its rotations, taken about their mean."""
    head = head[valid].double()
    quaternions = rotation.axis_angle_to_quaternion(head)
    quaternions = quaternions * torch.sign((quaternions @ quaternions[0])[:, None])
    mean = quaternions.mean(0)
    mean = rotation.quaternion_to_axis_angle(mean / mean.norm())
    about = rotation.compose(rotation.inverse(mean).expand_as(head), head)
    return rotation.compose(mean, about.median(0).values).float()


def _track(side: Side, importer: Importer) -> tuple[_Track, Tensor | None]:
    """A side at 25 fps with its head at rest, and the rotation that was taken out."""
    if side.motion is None:
        return _Track(side, {}, np.zeros(0, bool)), None
    motion = side.motion.resample(FPS)
    layout = motion.layout
    if layout.basis != importer.expression_basis:
        raise UserError(f"expected expressions in basis {importer.expression_basis}, found {layout.basis}")
    measured = [group for group, there in zip(layout.groups, motion.valid.any(0).tolist()) if there]
    columns = [layout.groups.index(group) for group in measured]
    valid = motion.valid[:, columns].all(1) if columns else motion.valid.any(1)
    groups = {group: motion.select(group).clone() for group in measured}
    offset = None
    if "global_orient" in groups and valid.any():
        head = groups["global_orient"]
        if "neck_pose" in groups:
            head = rotation.compose(head, groups["neck_pose"])
        offset = rest(head, valid)
        back = rotation.inverse(offset).expand_as(groups["global_orient"])
        groups["global_orient"] = rotation.compose(back, groups["global_orient"])
    for array in groups.values():
        array[~valid] = 0.0
    return _Track(side, {group: array.numpy() for group, array in groups.items()}, valid.numpy()), offset


# ---------------------------------------------------------------------------------------------------------- exchanges


@dataclass
class _Maker:
    """Makes the exchanges of one recording of `num_frames` frames."""

    session: Session
    tracks: list[_Track]
    num_frames: int
    importer: Importer
    split: str
    source: str
    config_hash: str
    turns: list[Turn] | None = None
    cuts_s: list[float] = field(default_factory=list)

    def dialogue(self) -> None:
        """Turns that answer turns; where there are none and one of the two is silent, that one's listening, if seen."""
        spans = self._speech()
        self.turns = self.turns if self.turns is not None else find_turns(spans)
        turns = [*self.turns, *(self._silences(spans) if self.importer.takes_silences else [])]
        found = find_answers(sorted(turns, key=lambda turn: turn.start_s), self.num_frames / FPS)
        answers = list(within_shots(found, self.cuts_s))
        for answer in answers:
            self._add(answer.previous, answer.turn, answer.chained)
        if answers:
            return
        seconds = [sum(end - start for start, end in own) for own in spans]
        total = self.num_frames / FPS
        listeners = [
            i for i, track in enumerate(self.tracks)
            # nobody can learn anything of one who is neither heard nor seen
            if seconds[i] < _SILENT_SHARE * total and seconds[1 - i] > 0.3 * total
            and (track.groups or track.side.video)
        ]  # fmt: skip
        if listeners:
            self.listening(listeners[0])
        else:
            self.session.skipped = f"no turn that answers a turn (found {len(self.turns)} turns in {total:.1f} s)"

    def _silences(self, spans: list[list[Span]]) -> list[Turn]:
        """Silent answers: nobody is heard after a turn, and the other's face moves."""
        found = []
        for turn in find_silences(self.turns, spans, self.num_frames / FPS):
            track, frames = self.tracks[turn.side], slice(round(turn.start_s * FPS), round(turn.end_s * FPS))
            if moves(track.groups, track.valid, frames, self.importer.expression_basis):
                found.append(turn)
        return found

    def _speech(self) -> list[list[Span]]:
        given = [track.side.speech for track in self.tracks]
        if all(spans is not None for spans in given):
            return given
        heard = speech_of([track.side.waveform for track in self.tracks])
        return [own if spans is None else spans for spans, own in zip(given, heard)]

    def _add(self, previous: Turn, turn: Turn, chained: bool) -> None:
        onset = round(turn.start_s * FPS)
        first = max(round(previous.start_s * FPS), onset - round(LONGEST_PREVIOUS_S * FPS), 0)
        last = min(int(np.ceil(turn.end_s * FPS - 1e-6)), onset + round(LONGEST_RESPONSE_S * FPS), self.num_frames)
        previous_end_s = min(previous.end_s, last / FPS) - onset / FPS
        self._append(
            first, onset, last, previous.side, turn.side, previous_end_s, turn.kind, chained,
            (previous.start_s, previous.end_s), (turn.start_s, turn.end_s),
        )  # fmt: skip

    def _cuts(self) -> list[int]:
        """Frames that begin a shot, in order."""
        return sorted({frame for cut in self.cuts_s if 0 < (frame := round(cut * FPS)) < self.num_frames})

    def listening(self, listener: int) -> None:
        """One speaks, the other listens: the previous turn is what is heard, and no answer follows."""
        longest = round(LONGEST_PREVIOUS_S * FPS)
        for begin, end in pairwise([0, *self._cuts(), self.num_frames]):
            edges = np.linspace(begin, end, -(-(end - begin) // longest) + 1).round().astype(int)
            for number, (first, last) in enumerate(pairwise(edges)):
                if last - first < _SHORTEST_LISTENING_S * FPS:
                    continue
                span = (first / FPS, last / FPS)
                self._append(first, last, last, 1 - listener, listener, 0.0, "silent", number > 0, span, span)
        if not self.session.exchanges:
            self.session.skipped = f"too short: {self.num_frames / FPS:.2f} s"

    def alone(self) -> None:
        """Somebody talks and nobody spoke before: no previous turn exists, and its speaker has no name."""
        pauses = [
            round((end + start) / 2 * FPS)
            for (_, end), (start, _) in pairwise(self._speech()[0])
            if start - end > 0.2
        ]  # fmt: skip
        first = 0
        while self.num_frames - first >= _SHORTEST_ALONE_S * FPS:
            shot = next((cut for cut in self._cuts() if cut > first), self.num_frames)
            limit = first + round(LONGEST_RESPONSE_S * FPS)
            last = min(limit, shot)
            if last < first + _SHORTEST_ALONE_S * FPS:
                first = last
                continue
            if last < shot:
                # where the speaker pauses, if that leaves at least half of the length
                last = max([p for p in pauses if first + (limit - first) // 2 <= p <= limit], default=last)
            self._append(first, first, last, None, 0, 0.0, "verbal", False, (0.0, 0.0), (first / FPS, last / FPS))
            first = last
        if not self.session.exchanges:
            self.session.skipped = f"too short: {self.num_frames / FPS:.2f} s"

    def _append(
        self, first: int, onset: int, last: int, previous: int | None, responder: int, previous_end_s: float, kind: str,
        chained: bool, previous_span: Span, responder_span: Span,
    ) -> None:
        """One record, from frame `first` to frame `last`, the response beginning at `onset`."""
        exchanges = self.session.exchanges
        exchange_id = f"{self.session.session_id}-{len(exchanges):03d}"
        before = exchanges[-1] if chained and exchanges else None
        if before is not None:
            before.next_exchange_id = exchange_id
        speaker = self.tracks[previous] if previous is not None else None
        overlap_s = max(0.0, min(previous_end_s, (last - onset) / FPS))
        exchanges.append(Exchange(
            exchange_id=exchange_id,
            session_id=self.session.session_id,
            previous_exchange_id=before.exchange_id if before is not None else "",
            previous_speaker=speaker.side.name if speaker is not None else "",
            responder_name=self.tracks[responder].side.name,
            split=self.split,
            source=self.source,
            license=self.importer.license,
            consent=self.importer.consent,
            start_s=(first - onset) / FPS,
            previous_end_s=previous_end_s,
            end_s=(last - onset) / FPS,
            session_onset_s=onset / FPS,
            overlap_ratio=overlap_s * FPS / max(last - first, 1),
            previous=self._person(speaker, first, last, onset, previous_span),
            responder=self._person(self.tracks[responder], first, last, onset, responder_span),
            basis=self.importer.expression_basis,
            tracker=self.importer.tracker,
            neck_folded=self.importer.neck_folded,
            fps=float(FPS),
            config_hash=self.config_hash,
            response_kind=kind,
            turns=self._turns(previous, first, onset, last),
        ))  # fmt: skip

    def _turns(self, previous: int | None, first: int, onset: int, last: int) -> list[TurnSpan]:
        """What was found of turns in a record."""
        return [
            TurnSpan("previous" if turn.side == previous else "responder", turn.start_s - onset / FPS,
                     turn.end_s - onset / FPS, turn.kind)
            for turn in self.turns or ()
            if turn.end_s > first / FPS and turn.start_s < last / FPS
        ]  # fmt: skip

    def _person(self, track: _Track | None, first: int, last: int, onset: int, span: Span) -> Person:
        widths = {"expression": self.importer.num_expression, **dict.fromkeys(POSE_GROUPS, 3)}
        empty = {group: np.zeros((0, width), np.float32) for group, width in widths.items()}
        if track is None:
            return Person(np.zeros(0, np.float32), empty, np.zeros(0, bool))
        words = [
            TimedWord(word.word, word.start_s - onset / FPS, word.end_s - onset / FPS, word.probability)
            for word in track.side.words
            if max(span[0], first / FPS) <= (word.start_s + word.end_s) / 2 < min(span[1], last / FPS)
        ]
        return Person(
            waveform=track.side.cut(first * _GRID, last * _GRID),
            motion=empty | {group: array[first:last] for group, array in track.groups.items()},
            valid=track.valid[first:last] if track.groups else np.zeros(0, bool),
            betas=track.side.betas.astype(np.float32),
            text=" ".join(word.word for word in words),
            words=words,
        )
