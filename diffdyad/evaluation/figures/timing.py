"""Whether a face moves with its own voice, and with its partner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffdyad.evaluation.beats import audio_onsets_s, beat_alignment
from diffdyad.evaluation.clips import Clip
from diffdyad.evaluation.correlation import Directions, peak_correlation, pearson_correlation
from diffdyad.evaluation.figures.base import STILL, Figure, Scene, Sums, enough, moving
from diffdyad.evaluation.figures.liveliness import CHANNELS
from diffdyad.evaluation.tracks import Tracks, Undefined

_NO_FRAMES = np.zeros(0, bool)

LONGEST_LAG_S = 2.0
"""How long after the partner a reaction still counts as synchrony."""


def _energy(clip: Clip) -> np.ndarray:
    if clip.energy_db is None:
        raise Undefined("no own audio")
    return clip.energy_db


def _audio_correlation(side: Tracks, scene: Scene, frames: np.ndarray, who: str) -> tuple[float, float]:
    """Correlation of the jaw's opening with the own log energy, and over how many seconds."""
    energy = _energy(scene.clip)
    known = frames & side.known("jaw_pose")
    enough(known, scene.fps)
    jaw = moving(side.jaw_rad[known], f"{who}'s jaw")
    return pearson_correlation(jaw, moving(energy[known], "own audio")), float(known.sum() / scene.fps)


def _jaw_audio(scene: Scene, frames: np.ndarray) -> Sums:
    r, seconds = _audio_correlation(scene.prediction, scene, frames, "prediction")
    return Sums(r * seconds, seconds)


def _jaw_audio_error(scene: Scene, frames: np.ndarray) -> Sums:
    predicted, seconds = _audio_correlation(scene.prediction, scene, frames, "prediction")
    true, _ = _audio_correlation(scene.truth, scene, frames, "truth")
    return Sums(abs(predicted - true) * seconds, seconds)


def _beats(scene: Scene) -> np.ndarray:
    moving(scene.prediction.head_speed_deg_s, "head speed")
    return scene.prediction.head_beats_s


def _onsets(scene: Scene, clip: Clip) -> np.ndarray:
    energy = _energy(clip)
    return scene.once(f"onsets of {clip.clip_id}", _NO_FRAMES, lambda: audio_onsets_s(energy, clip.truth.fps))


def _alignment(scene: Scene, frames: np.ndarray) -> Sums:
    onsets = _onsets(scene, scene.clip)
    onsets = onsets[frames[scene.truth.frames_of(onsets)]] if len(onsets) else onsets
    if not len(onsets):
        raise Undefined("no onsets in the own audio")
    return Sums(beat_alignment(_beats(scene), onsets) * len(onsets), len(onsets))


def _alignment_over_chance(scene: Scene, frames: np.ndarray) -> Sums:
    own = _alignment(scene, frames)
    beats, end_s = _beats(scene), len(scene.truth) / scene.fps
    chance = []
    for other in scene.others:
        if other.clip.energy_db is not None:
            onsets = _onsets(scene, other.clip)
            chance.append(beat_alignment(beats, onsets[onsets < end_s]))
    chance = [value for value in chance if np.isfinite(value)]
    if not chance:
        raise Undefined("no other voice to compare with")
    return Sums(own.total - float(np.mean(chance)) * own.count, own.count)


def _smile(side: Tracks) -> np.ndarray:
    return side.actions.smile


def _head(side: Tracks) -> np.ndarray:
    return side.head_speed_deg_s


@dataclass(frozen=True)
class _Synchrony:
    """Peak correlation with the partner up to two seconds before, less its mean with partners of others."""

    track: Callable[[Tracks], np.ndarray]
    what: str

    def __call__(self, scene: Scene, frames: np.ndarray) -> Sums:
        if scene.partner is None:
            raise Undefined("no partner's motion")
        own = moving(self.track(scene.prediction), f"prediction's {self.what}")
        with_own = self._peak(scene.partner, own, scene.fps)
        chance = [self._peak(other.partner, own, scene.fps) for other in scene.others if other.partner is not None]
        chance = [value for value in chance if np.isfinite(value)]
        if not np.isfinite(with_own):
            raise Undefined(f"partner's {self.what} constant, or clip shorter than the lags")
        if not chance:
            raise Undefined("no other partner to compare with")
        seconds = len(scene.truth) / scene.fps
        return Sums((with_own - float(np.mean(chance))) * seconds, seconds)

    def _peak(self, partner: Tracks, own: np.ndarray, fps: float) -> float:
        try:
            theirs = self.track(partner)
        except Undefined:
            return float("nan")
        count = min(len(own), len(theirs))
        if np.ptp(theirs[:count]) < 1e-6:
            return float("nan")
        return peak_correlation(theirs[:count], own[:count], fps, LONGEST_LAG_S).correlation


def _partner_correlation_error(name: str) -> Callable[[Scene, np.ndarray], Sums]:
    def measure(scene: Scene, frames: np.ndarray) -> Sums:
        if scene.partner is None:
            raise Undefined("no partner's motion")
        try:
            partner, known = CHANNELS[name](scene.partner)
        except Undefined:
            raise Undefined(f"no partner's {name}") from None
        truth, truth_known = CHANNELS[name](scene.truth)
        prediction, predicted = CHANNELS[name](scene.prediction)
        if partner.shape[1] != truth.shape[1]:
            raise Undefined("partner's motion in another layout")
        count = min(len(partner), len(truth))
        both = frames[:count] & known[:count] & truth_known[:count] & predicted[:count]
        enough(both, scene.fps)
        theirs, true = (
            scene.once(f"{whose} {name} directions", both, lambda side=side: Directions.of(side[:count][both], STILL))
            for whose, side in (("partner's", partner), ("truth's", truth))
        )
        error = theirs.correlation_error(true, Directions.of(prediction[:count][both], STILL))
        if not np.isfinite(error):
            raise Undefined("truth, prediction or partner constant")
        seconds = float(both.sum() / scene.fps)
        return Sums(error * seconds, seconds)

    return measure


FIGURES = (
    Figure("jaw_audio_correlation_mean", "", "truth", "correlation of the jaw's opening with the own voice's log "
           "energy, mean over clips by their seconds", _jaw_audio),
    Figure("jaw_audio_correlation_error_mean", "", "lower", "absolute difference of that correlation from the truth's, "
           "clip by clip", _jaw_audio_error),
    Figure("beat_alignment_mean", "", "truth", "nearness of head beats to the own voice's onsets, 0..1, mean over "
           "onsets", _alignment),
    Figure("beat_alignment_over_chance_mean", "", "truth", "the same less its mean with other clips' voices; 0 = "
           "any voice would fit", _alignment_over_chance),
    Figure("smile_synchrony_over_chance_mean", "", "truth", "peak correlation with the partner's smile 0 to 2 s "
           "before, less its mean with other partners", _Synchrony(_smile, "smile"), by_phase=False),
    Figure("head_synchrony_over_chance_mean", "", "truth", "the same for the speed of the head",
           _Synchrony(_head, "head speed"), by_phase=False),
    *(Figure(f"partner_correlation_{name}_error_mean", "", "lower", f"absolute difference of the {name}'s correlation "
             "with the partner's, frame by frame, from the truth's; channel by channel, mean over channels and clips "
             "(rPCC, corrected)", _partner_correlation_error(name)) for name in CHANNELS),
)  # fmt: skip
