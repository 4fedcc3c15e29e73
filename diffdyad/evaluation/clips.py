"""A clip to be scored: the truth, who it is, what was heard and seen around it; and whether a set makes sense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from diffdyad.data.exchange import Exchange
from diffdyad.errors import UserError
from diffdyad.evaluation.people import independent_units
from diffdyad.evaluation.trim import cut
from diffdyad.evaluation.voice import frame_energy_db
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import Motion
from diffdyad.text import TimedWord

PHASES = ("listening", "speaking")
LENGTH_TOLERANCE = 2
"""Frames by which a prediction may be longer or shorter than the truth: encoders round differently."""

_SHORTEST = 5  # frames, for a speed, a jerk and a lag to exist


@dataclass
class Clip:
    """One person's motion over T frames, and what is known around it.

    person, partner: names, which decide what is independent of what; partner_motion: at the same rate and time;
    energy_db: (T,) level of the own voice; phases: (T,) bool by the names of `PHASES`; bilabials_s: times of p, b, m in
    the own speech; seams_s: times at which generation began a new window.
    """

    clip_id: str
    truth: Motion
    person: str
    partner: str = ""
    partner_motion: Motion | None = field(default=None, repr=False)
    energy_db: np.ndarray | None = field(default=None, repr=False)
    phases: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    response_kind: str = ""
    bilabials_s: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    seams_s: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def people(self) -> tuple[str, ...]:
        return tuple(name for name in (self.person, self.partner) if name)

    def cut(self, num_frames: int) -> Clip:
        """The first frames only."""
        partner = self.partner_motion
        return replace(
            self, truth=cut(self.truth, num_frames),
            partner_motion=None if partner is None else cut(partner, num_frames),
            energy_db=None if self.energy_db is None else self.energy_db[:num_frames],
            phases={name: mask[:num_frames] for name, mask in self.phases.items()},
        )  # fmt: skip


def from_exchange(exchange: Exchange, listening: bool = True) -> Clip:
    """The responder of an exchange; `listening=False`: from the response's onset on only.

    Phases: listening while the previous turn lasts (t < previous_end_s), speaking from the onset (t >= 0).
    """
    fps = exchange.fps
    first = 0 if listening else max(0, round(-exchange.start_s * fps))
    truth = exchange.motion("responder")
    count = len(truth)
    seconds = exchange.start_s + np.arange(count) / fps
    energy = None
    if len(exchange.responder.waveform):
        energy = frame_energy_db(exchange.responder.waveform, SAMPLING_RATE, fps, count)[first:]
    partner = exchange.motion("previous") if exchange.previous.num_frames == count else None
    begin_s = exchange.start_s + first / fps
    bilabials_s = bilabials_of(exchange.responder.words) - begin_s
    return Clip(
        exchange.exchange_id, cut(truth, count, first), exchange.responder_name, exchange.previous_speaker,
        None if partner is None else cut(partner, count, first), energy,
        {"listening": (seconds < exchange.previous_end_s)[first:], "speaking": (seconds >= 0)[first:]},
        exchange.response_kind, bilabials_s[(bilabials_s >= 0) & (bilabials_s < (count - first) / fps)],
    )  # fmt: skip


def bilabials_of(words: Sequence[TimedWord]) -> np.ndarray:
    """When p, b and m are said, as far as spelling tells: letters spread evenly over each word's time, (N,) seconds.

    Good to some 60 ms in English, which is within the tolerance of `lip_closure_bilabial_ratio`; what is silent (bomb)
    and what is not spelt counts wrong, in the truth's row as well.
    """
    times = []
    for word in words:
        letters = [letter for letter in word.word.lower() if letter.isalpha()]
        for place, letter in enumerate(letters):
            doubled = place > 0 and letters[place - 1] == letter
            spoken_ph = letter == "p" and letters[place + 1 : place + 2] == ["h"]
            if letter in "pbm" and not doubled and not spoken_ph:
                times.append(word.start_s + (place + 0.5) / len(letters) * (word.end_s - word.start_s))
    return np.array(times)


def check_clips(clips: Sequence[Clip], units: str = "people") -> np.ndarray:
    """The independent unit of each clip, (C,), after refusing sets that make no sense.

    units: "people", or "clips" to take every clip as independent. Raises UserError for fewer than two clips or units,
    repeated names, clips of different bases, layouts or rates, clips shorter than 5 frames, and truths of which no
    frame is known.
    """
    if units not in ("people", "clips"):
        raise UserError(f"expected --units people or clips, found {units!r}")
    if len(clips) < 2:
        raise UserError(f"expected at least 2 clips to score, found {len(clips)}: add clips")
    names = [clip.clip_id for clip in clips]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"expected every clip once, found {twice} twice")
    first = clips[0]
    for clip in clips:
        if clip.truth.layout.basis != first.truth.layout.basis:
            raise UserError(f"expected one expression basis in all clips, found {first.truth.layout.basis} in "
                            f"{first.clip_id} and {clip.truth.layout.basis} in {clip.clip_id}: score them apart")
        if clip.truth.layout != first.truth.layout:
            raise UserError(f"expected one layout in all clips, found {first.truth.layout.widths} in {first.clip_id} "
                            f"and {clip.truth.layout.widths} in {clip.clip_id}: score them apart")
        if clip.truth.fps != first.truth.fps:
            raise UserError(f"expected one frame rate in all clips, found {first.truth.fps:g} Hz in {first.clip_id} "
                            f"and {clip.truth.fps:g} Hz in {clip.clip_id}: resample them with --fps")
        if clip.response_kind in ("all", *PHASES):
            raise UserError(f"expected response kinds other than all, {', '.join(PHASES)}, found "
                            f"{clip.response_kind!r} of {clip.clip_id}: name it otherwise")  # fmt: skip
        if len(clip) < _SHORTEST:
            raise UserError(f"expected clips of at least {_SHORTEST} frames, found {len(clip)} in {clip.clip_id}")
    if not any(bool(clip.truth.valid.any()) for clip in clips):
        raise UserError(f"expected truths whose faces are known, found no known frame in any of {len(clips)} clips: "
                        "were they tracked?")  # fmt: skip
    if units == "clips":
        return np.arange(len(clips))
    return check_people([clip.people for clip in clips])


def check_people(people: Sequence[Sequence[str]]) -> np.ndarray:
    """The independent unit of each clip, (C,), by who is in it. Raises UserError for a single one."""
    found = independent_units(people)
    if found.max() == 0:
        names = sorted({name for own in people for name in own})
        named = f"({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        found = named if len(names) == 1 else f"of {len(names)} people {named}, whom talks connect"
        raise UserError(
            f"expected at least 2 independent people or pairs, found 1 {found}: intervals would say nothing about "
            "others; add people, or pass --units clips for intervals about these alone"
        )
    return found


def check_predictions(
    clips: Sequence[Clip], predictions: Mapping[str, Sequence[Motion]]
) -> tuple[list[Clip], list[list[Motion]]]:
    """Clips and their predictions, cut to the same lengths where they differ by at most `LENGTH_TOLERANCE` frames.

    Raises UserError for a clip without predictions, unequal numbers of samples, another basis, layout, rate or length.
    """
    missing = [clip.clip_id for clip in clips if not predictions.get(clip.clip_id)]
    if missing:
        raise UserError(f"expected a prediction for every clip of the truth, found none for {_names(missing)}")
    samples = {len(predictions[clip.clip_id]) for clip in clips}
    if len(samples) > 1:
        fewest = min(clips, key=lambda clip: len(predictions[clip.clip_id]))
        raise UserError(f"expected {max(samples)} samples of every clip, found {min(samples)} of {fewest.clip_id}")
    fitted, motions = [], []
    for clip in clips:
        own = list(predictions[clip.clip_id])
        for motion in own:
            _check_prediction(clip, motion)
        length = min(len(clip), *(len(motion) for motion in own))
        fitted.append(clip.cut(length))
        motions.append([cut(motion, length) for motion in own])
    return fitted, motions


def _check_prediction(clip: Clip, motion: Motion) -> None:
    truth = clip.truth
    if motion.layout.basis != truth.layout.basis:
        raise UserError(f"expected predictions in the truth's basis {truth.layout.basis}, found {motion.layout.basis} "
                        f"for {clip.clip_id}: convert one of them")  # fmt: skip
    if motion.layout != truth.layout:
        raise UserError(f"expected the truth's {truth.layout.num_expression} expressions (eyelids: "
                        f"{truth.layout.eyelids}), found {motion.layout.num_expression} (eyelids: "
                        f"{motion.layout.eyelids}) for {clip.clip_id}: codes of different length are different codes; "
                        "write both sides in one layout, or fit the truth anew in the prediction's")  # fmt: skip
    if abs(motion.fps - truth.fps) > 1e-6:
        raise UserError(f"expected predictions at the truth's {truth.fps:g} Hz, found {motion.fps:g} Hz for "
                        f"{clip.clip_id}: resample both with --fps")  # fmt: skip
    if abs(len(motion) - len(truth)) > LENGTH_TOLERANCE:
        raise UserError(f"expected {len(truth)} frames, as the truth has, found {len(motion)} for {clip.clip_id}: "
                        "frames are missing or too many; generate the whole clip, or cut the truth")  # fmt: skip
    for group, valid in zip(motion.layout.groups, motion.valid.T):
        if valid.any() and not valid.all():
            raise UserError(f"expected {group} in every frame of a prediction, found {int((~valid).sum())} frames "
                            f"without in {clip.clip_id}: what is left out cannot be scored")  # fmt: skip


def _names(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
