"""How the embedded model does on voices that it never heard, as JSON: lips, mouth and voice, pauses, blinks, head.

    python benchmarks/real_voices.py --speech DIR

DIR holds recordings, and transcripts.tsv (file name, tab, text) for those with a transcript. Beside them, sentences of
the rehearsal corpus' test split spoken by Festival, an engine that no training used (it and its voices must be
installed; pocketsphinx, for the alignment, too; `--sentences 0` leaves it out). Intervals: 95 %, over recordings or
sentences; of a single recording's figures over its answers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from figures import interval, rounded
from spoken import VOICES, Spoken, aligned, pauses, spoken_by
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad.data.rehearsal.dialogue import draw_dialogue
from diffdyad.head import HeadModel
from diffdyad.media import SAMPLING_RATE, read_audio
from diffdyad.motion import Motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.rotation import compose
from diffdyad.sample import load_pipeline

CLOSED = 0.15  # of the 95th percentile of the opening
SHIFTS = 200  # random times, for chance
LAGS = range(-6, 7)
BLINK = 0.2  # a lid is in a blink above this
LONG_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", required=True, help="folder of recordings")
    parser.add_argument("--model", default="default", help="default, a folder, or USER/REPO (default: default)")
    parser.add_argument("--samples", type=int, default=16, help="answers per recording (default 16)")
    parser.add_argument("--sentences", type=int, default=60, help="of the engine, by its voices in turn (default 60)")
    parser.add_argument("--engine", choices=VOICES, default="festival", help="that speaks them (default: festival; "
                        "flite: for models that did not train on it)")  # fmt: skip
    arguments = parser.parse_args()

    face = Face(load_pipeline(arguments.model, "cpu"))
    folder = Path(arguments.speech)
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".wav", ".flac", ".mp3"))
    recordings = {path.name: read_audio(path) for path in paths}
    texts = folder / "transcripts.tsv"
    rows = [line.split("\t") for line in texts.read_text("utf-8").splitlines()] if texts.is_file() else []
    said = [aligned(folder / name, text) for name, text in rows if name in recordings]
    figures = {"benchmark": "real_voices", "model": arguments.model}
    figures["mouth_and_voice"] = mouth_and_voice(face, recordings, arguments.samples)
    figures["pauses"] = in_pauses(face, recordings, arguments.samples)
    figures["long"] = long_answers(face, recordings)
    figures["lips_of_recordings"] = lips(face, [s for s in said if len(s.bilabials)], arguments.samples)
    if arguments.sentences:
        said = sentences(arguments.sentences, arguments.engine)
        figures[f"lips_of_{arguments.engine}"] = lips(face, said, 4)
    print(json.dumps(figures, indent=2))


class Face:
    """Answers without a previous turn, and what their faces do."""

    def __init__(self, pipeline: DyadPipeline):
        self.pipeline, head = pipeline, HeadModel.clay()
        lips = torch.cat([head.vertex_sets["inner_lip_upper"], head.vertex_sets["inner_lip_lower"]])
        self.lips = head.subset(lips)
        self.rest = float(self.opening(Motion(torch.zeros(1, pipeline.layout.dim), pipeline.layout, pipeline.fps))[0])

    def answers(self, audio: Tensor, count: int) -> list[Motion]:
        return self.pipeline(audio, num_samples=count, generator=torch.Generator().manual_seed(0)).motions

    @torch.no_grad()
    def opening(self, motion: Motion) -> np.ndarray:
        """Of the inner lips, (T,) millimetres."""
        return 1000 * self.lips.lip_aperture(self.lips.from_motion(motion.values, motion.layout)).numpy()


# -------------------------------------------------------------------------------------------- lips


def sentences(count: int, engine: str) -> list[Spoken]:
    """Sentences with bilabials of the test dialogues, by the engine's voices in turn."""
    rng, texts = np.random.default_rng(0), []
    while len(texts) < count:
        lines = [turn.text for turn in draw_dialogue(rng, "test").turns if turn.text]
        texts += [text for text in lines if text not in texts and len(text) > 20]
    voices = VOICES[engine]
    spoken = [spoken_by(engine, text, voices[number % len(voices)]) for number, text in enumerate(texts[:count])]
    return [s for s in spoken if len(s.bilabials)]


def lips(face: Face, spoken: list[Spoken], count: int) -> dict:
    """Share of bilabials, and of random times as long, at which the lips close; means over answers."""
    rng = np.random.default_rng(0)
    closed, chance, numbers = [], [], []
    for one in tqdm(spoken, desc="lips"):
        ends = one.bilabials + 0.0
        for motion in face.answers(one.audio, count):
            shut = shut_frames(face.opening(motion))
            closed.append(share(shut, ends, motion.fps))
            room = len(shut) / motion.fps - ends.max()
            moved = [share(shut, ends - ends[:, :1].min() + at, motion.fps) for at in
                     rng.uniform(0, room + ends[:, 0].min(), SHIFTS)]  # fmt: skip
            chance.append(np.mean(moved))
            numbers.append(len(ends))
    weights = np.array(numbers, float)
    closed, chance = np.array(closed), np.array(chance)
    return {
        "bilabials": int(sum(len(s.bilabials) for s in spoken)),
        "closed": interval(closed, weights, count),
        "at_random_times": interval(chance, weights, count),
        "above_chance": interval(closed - chance, weights, count),
    }


def shut_frames(opening: np.ndarray) -> np.ndarray:
    return opening < CLOSED * np.percentile(opening, 95)


def share(shut: np.ndarray, times: np.ndarray, fps: float) -> float:
    """Share of the times (N, 2) with a shut frame in them, or one frame before or after."""
    first = np.maximum(np.floor(times[:, 0] * fps).astype(int) - 1, 0)
    stop = np.ceil(times[:, 1] * fps).astype(int) + 1
    return float(np.mean([shut[a:b].any() for a, b in zip(first, stop)]))


# -------------------------------------------------------------------------------------------- voice


def mouth_and_voice(face: Face, recordings: dict[str, Tensor], count: int) -> dict:
    """Correlation of the opening with the voice's log energy at lag 0, and the best lag (- = lips lead), in frames."""
    rows = {}
    for name, audio in tqdm(recordings.items(), desc="voices"):
        curves = [correlations(face.opening(motion), audio, motion.fps) for motion in face.answers(audio, count)]
        curves, mean = np.array(curves), np.mean(curves, 0)
        rows[name] = {"lag_0": interval(curves[:, LAGS.index(0)]), "best_lag": int(LAGS[int(mean.argmax())]),
                      "best": rounded(mean.max())}  # fmt: skip
    return rows


def correlations(opening: np.ndarray, audio: Tensor, fps: float) -> list[float]:
    hop = round(SAMPLING_RATE / fps)
    count = min(len(opening), len(audio) // hop)
    energy = audio[: count * hop].view(count, hop).square().mean(-1)
    energy = (energy + 1e-4 * energy.max()).log10().numpy()
    opening = opening[:count]
    pairs = ((opening[max(lag, 0) : count + min(lag, 0)], energy[max(-lag, 0) : count - max(lag, 0)]) for lag in LAGS)
    return [float(np.corrcoef(*pair)[0, 1]) for pair in pairs]


def in_pauses(face: Face, recordings: dict[str, Tensor], count: int) -> dict:
    """Opening in pauses over 0.6 s, their last 0.2 s left out, less that at rest, as a share of the 95th percentile."""
    rows = {}
    for name, audio in recordings.items():
        inside = pauses(audio, face.pipeline.fps)
        if inside.any():
            tracks = [face.opening(motion) for motion in face.answers(audio, count)]
            over = [(t[: len(inside)][inside[: len(t)]] - face.rest) / np.percentile(t, 95) for t in tracks]
            rows[name] = {"seconds": rounded(inside.sum() / face.pipeline.fps),
                          "opening": interval(np.array([x.mean() for x in over])),
                          "time_within_10_percent": interval(np.array([(np.abs(x) < 0.1).mean() for x in over]))}
    return rows


# ------------------------------------------------------------------------------------------- habits


def long_answers(face: Face, recordings: dict[str, Tensor]) -> dict:
    """Blinks, and deviations and mean speeds of head, gaze and brows, of answers of a minute."""
    found: dict[str, list[float]] = {}
    blinks, lengths = [], []
    for audio in tqdm(recordings.values(), desc="minutes"):
        minute = audio.repeat(int(LONG_S * SAMPLING_RATE / len(audio)) + 1)[: round(LONG_S * SAMPLING_RATE)]
        motion = face.answers(minute, 1)[0]
        lids = motion.values[:, motion.layout.channel("eyeBlinkLeft")].numpy() > BLINK
        starts, ends = (np.flatnonzero(np.diff(np.r_[0, lids.astype(int), 0]) == way) for way in (1, -1))
        blinks.append(60 * len(starts) / (len(lids) / motion.fps))
        lengths += ((ends - starts) / motion.fps).tolist()
        for name, track in tracks(motion).items():
            found.setdefault(f"{name}_sd", []).append(track.std())
            found.setdefault(f"{name}_speed", []).append(np.abs(np.diff(track)).mean() * motion.fps)
    return {
        "blinks_per_minute": {**interval(np.array(blinks)), "range": [rounded(min(blinks)), rounded(max(blinks))]},
        "blink_s": {name: rounded(np.percentile(lengths, q)) for name, q in (("5 %", 5), ("median", 50), ("95 %", 95))},
        **{name: interval(np.array(values)) for name, values in found.items()},
    }


def tracks(motion: Motion) -> dict[str, np.ndarray]:
    """Radians, and coefficients: head (neck composed in) and gaze by axis, and the brows."""
    head = compose(motion.select("global_orient"), motion.select("neck_pose")).numpy()
    eye = motion.select("leye_pose").numpy()
    brow = motion.values[:, motion.layout.channel("browInnerUp")].numpy()
    return {"head_yaw": head[:, 1], "head_pitch": head[:, 0], "head_roll": head[:, 2], "eye_yaw": eye[:, 1],
            "eye_pitch": eye[:, 0], "browInnerUp": brow}  # fmt: skip


if __name__ == "__main__":
    main()
