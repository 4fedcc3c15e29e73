"""How the embedded model behaves against the corpus that it learnt from, as JSON: spread, jitter, planted reactions.

    python benchmarks/behaviour.py --dataset data/rehearsal [--emotions DIR ...]

Answers to the test split's verbal turns, whose people, voices and dialogues no training saw. Each DIR holds turns of
real people: recordings and labels.csv (file, emotion), or recordings that say it in their names (Ann_joy.wav).
Intervals: 95 %, over answers; of real turns over these.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from figures import resampled, rounded
from real_turns import EARLY_S, real_turns
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad.context import Context, PreviousTurn
from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.data.rehearsal.reaction import Reaction, planted_delta
from diffdyad.data.sides import previous_turn
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import MotionLayout
from diffdyad.pipeline import DyadPipeline
from diffdyad.sample import load_pipeline

FPS = 25
SECONDS = (0.0, 1.0, 2.0, 3.0, 4.0)
RIDGES = np.logspace(1, 5, 17)
MEASURES = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"), "brows": ("browInnerUp",),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "tilt": (),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a rehearsal corpus")
    parser.add_argument("--model", default="default", help="default, a folder, or USER/REPO (default: default)")
    parser.add_argument("--answers", type=int, default=150, help="of the test split (default 150)")
    parser.add_argument("--train", type=int, default=1500, help="exchanges of the regression (default 1500)")
    parser.add_argument("--emotions", type=Path, nargs="+", default=[], help="folders of turns (default: none)")
    arguments = parser.parse_args()
    pipeline = load_pipeline(arguments.model, "cpu")
    figures = {"benchmark": "behaviour", "model": arguments.model}
    tests = answered(arguments.dataset, "test", arguments.answers)
    generated = {}
    for name in ("own", "swapped", "none"):
        generated[name] = answers(pipeline, tests, name)
    truth = [one.truth for one in tests]
    figures["answers"] = len(tests)
    figures["spread"] = spread(generated["own"], truth, pipeline)
    figures["jerk"] = jerk(generated["own"], truth, pipeline)
    figures["reaction"] = reactions(pipeline, arguments, tests, generated)
    if arguments.emotions:
        figures["real_turns"] = real_turns(pipeline, arguments.emotions, [one.audio for one in tests])
    print(json.dumps(figures, indent=2))


@dataclass(frozen=True)
class Answered:
    """An exchange: audio (S,) and true motion (T, D) of the answer, the turn before, what was planted."""

    audio: Tensor
    truth: Tensor
    turn: PreviousTurn
    valence: float
    arousal: float
    reactive: bool


def answered(dataset: str, split: str, count: int) -> list[Answered]:
    """Verbal answers, those where the person reacts first, in the order of the dataset."""
    shards = ExchangeShards(dataset, split)
    kept = []
    for index in range(len(shards)):
        about = shards.row(index, ["response_kind", "reactive", "end_s"])
        if about["response_kind"] == "verbal" and about["end_s"] > EARLY_S + 0.5:
            kept.append((not about["reactive"], index))
    return [load(shards[index]) for _, index in tqdm(sorted(kept)[:count], desc=f"reading {split}")]


def load(exchange: Exchange) -> Answered:
    onset = -exchange.start_s
    motion = exchange.motion("responder").values[round(onset * exchange.fps) :]
    audio = torch.from_numpy(exchange.responder.waveform)[round(onset * SAMPLING_RATE) :]
    return Answered(audio, motion, previous_turn(exchange), exchange.valence, exchange.arousal, exchange.reactive)


def answers(pipeline: DyadPipeline, tests: list[Answered], context: str) -> list[Tensor]:
    """Answers (T, D) with their own turn before, that of another exchange, or none, from the same noise."""
    made = []
    for number, one in enumerate(tqdm(tests, desc=context)):
        turn = {"own": one.turn, "swapped": swapped(tests, number).turn, "none": None}[context]
        generator = torch.Generator().manual_seed(number)
        made.append(pipeline(one.audio, turn, generator=generator).motions[0].values)
    return made


def swapped(tests: list[Answered], number: int) -> Answered:
    return tests[(number + len(tests) // 2) % len(tests)]


# ------------------------------------------------------------------------------------ spread, jitter


def spread(made: list[Tensor], truth: list[Tensor], pipeline: DyadPipeline) -> dict:
    """Variance ratios of standardised channels, generated to corpus, by group: between and within clips."""
    layout = pipeline.layout
    clips = [[clip / pipeline.statistics.std for clip in kind] for kind in (made, truth)]
    means = [torch.stack([clip.mean(0) for clip in kind]) for kind in clips]
    within = [torch.stack([clip.var(0) for clip in kind]) for kind in clips]

    def figures_of(group: str) -> dict:
        ours, true = (layout.select(x, group).numpy() for x in means)
        own, corpus = (layout.select(x, group).sum(1).numpy() for x in within)
        return {
            "between": resampled(lambda drawn: ours[drawn].var(0).sum() / true[drawn].var(0).sum(), len(made)),
            "within": resampled(lambda drawn: own[drawn].sum() / corpus[drawn].sum(), len(made)),
        }

    return {group: figures_of(group) for group in layout.groups}


def jerk(made: list[Tensor], truth: list[Tensor], pipeline: DyadPipeline) -> dict:
    """Median and 95th percentile of the third difference's length, generated to corpus."""
    ours, true = (
        [(clip / pipeline.statistics.std).diff(n=3, dim=0).norm(dim=-1).numpy() for clip in clips]
        for clips in (made, truth)
    )

    def ratio(drawn: np.ndarray, q: float) -> float:
        return np.divide(*(np.percentile(np.concatenate([clips[n] for n in drawn]), q) for clips in (ours, true)))

    return {name: resampled(lambda drawn, q=q: ratio(drawn, q), len(made), draws=400)
            for name, q in (("median", 50), ("95 %", 95))}  # fmt: skip


# ----------------------------------------------------------------------------------------- reactions


def reactions(
    pipeline: DyadPipeline, arguments: argparse.Namespace, tests: list[Answered], made: dict[str, list[Tensor]]
) -> dict:
    """Slopes on the valence of the turn before where the person reacts, and those of the best linear regression."""
    learnt = answered_anywhere(arguments.dataset, arguments.train)
    inputs = np.stack([summary(pipeline, one.turn) for one in learnt + tests])
    centre, scale = inputs[: len(learnt)].mean(0), inputs[: len(learnt)].std(0) + 1e-6
    inputs = np.c_[(inputs - centre) / scale, np.ones(len(inputs))]
    react = np.array([one.reactive for one in tests])
    valence = np.array([one.valence for one in tests])
    other = np.array([swapped(tests, n).valence for n in range(len(tests))])
    results = {"reactive": int(react.sum())}
    for name, channels in MEASURES.items():
        size = lambda motion: early(motion, channels, pipeline.layout)  # noqa: B023, E731
        best = inputs[len(learnt) :] @ ridge(inputs[: len(learnt)], np.array([size(one.truth) for one in learnt]))
        values = {kind: np.array([size(motion) for motion in motions]) for kind, motions in made.items()}
        change = {kind: values[kind] - values["none"] for kind in ("own", "swapped")}
        truth = np.array([size(one.truth) for one in tests])

        def own_to_best(drawn: np.ndarray) -> float:
            drawn = drawn[react[drawn]]
            return slope(valence[drawn], change["own"][drawn]) / slope(valence[drawn], best[drawn])  # noqa: B023

        results[name] = {
            "truth": rounded(slope(valence[react], truth[react])),
            "best_regression": rounded(slope(valence[react], best[react])),
            "own_turn": rounded(slope(valence[react], change["own"][react])),
            "own_to_best": resampled(own_to_best, len(tests)),
            "swapped_on_the_other": rounded(slope(other, change["swapped"])),
            "swapped_on_the_true": rounded(partial_slope(valence, other, change["swapped"])),
        }
    results["fading"] = fading(pipeline, tests, made)
    return results


def answered_anywhere(dataset: str, count: int) -> list[Answered]:
    """Verbal answers of the training split, spread over it, reacting or not: as a regression would meet them."""
    shards = ExchangeShards(dataset, "train")
    step = max(1, len(shards) // (2 * count))
    kept = []
    for index in tqdm(range(0, len(shards), step), desc="reading train"):
        about = shards.row(index, ["response_kind", "end_s"])
        if about["response_kind"] == "verbal" and about["end_s"] > EARLY_S + 0.5 and len(kept) < count:
            kept.append(load(shards[index]))
    return kept


def summary(pipeline: DyadPipeline, turn: PreviousTurn) -> np.ndarray:
    """All that the model is given of a turn, its cells averaged, and those of its last second."""
    context: Context = pipeline.encode_context(turn)
    last = round(pipeline.context_encoder.config.rate_hz)
    parts = [context.sentence[0]]
    for name, cells in context.features.items():
        if name != "text":
            there = cells[0] * context.valid[name][0][:, None]
            parts += [there.sum(0) / context.valid[name].sum().clamp_min(1), there[-last:].mean(0)]
    return torch.cat(parts).numpy()


def ridge(inputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weights, the last one for the constant, at the price with the least error when each row is left out in turn."""
    mean = values.mean()
    left, sizes, right = np.linalg.svd(inputs[:, :-1], full_matrices=False)  # columns of zero mean
    along = left.T @ (values - mean)
    errors = []
    for price in RIDGES:
        kept = sizes**2 / (sizes**2 + price)
        leverage = (left**2) @ kept + 1 / len(values)
        errors.append((((values - mean - left @ (kept * along)) / (1 - leverage)) ** 2).mean())
    price = RIDGES[int(np.argmin(errors))]
    return np.append(right.T @ (sizes / (sizes**2 + price) * along), mean)


def early(motion: Tensor, channels: tuple[str, ...], layout: MotionLayout) -> float:
    """Mean over the first seconds; without channels, the tilt of the head (radians)."""
    part = motion[: round(FPS * EARLY_S)]
    if channels:
        return float(part[:, [layout.channel(name) for name in channels]].mean())
    return float((layout.select(part, "global_orient") + layout.select(part, "neck_pose"))[:, 2].mean())


def slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0])


def partial_slope(x: np.ndarray, besides: np.ndarray, y: np.ndarray) -> float:
    columns = np.c_[x, besides, np.ones(len(x))]
    return float(np.linalg.lstsq(columns, y, rcond=None)[0][0])


def fading(pipeline: DyadPipeline, tests: list[Answered], made: dict) -> dict:
    """The change along the planted direction by seconds since the onset, 1 = as planted, and its time constant."""
    rows = []
    for one, own, none in zip(tests, made["own"], made["none"], strict=True):
        if abs(one.valence) < 0.3 or len(own) < FPS * (SECONDS[-1] + 1):
            continue
        held = Reaction(-0.7, 0.0, 0.0, 1e9, one.valence, one.arousal, 1.0)
        along = planted_delta(held, np.arange(1) / FPS)[0, pipeline.layout.slices["expression"]]
        change = (own - none)[:, pipeline.layout.slices["expression"]].numpy() @ along / (along @ along)
        rows.append([change[round(FPS * s) : round(FPS * (s + 1))].mean() for s in SECONDS])
    rows, seconds = np.array(rows), np.array(SECONDS) + 0.5

    def time_constant(drawn: np.ndarray) -> float:
        """Seconds; infinite where nothing fades."""
        means = rows[drawn].mean(0)
        positive = means > max(0.02 * means[0], 0)
        if positive.sum() < 2:
            return np.inf
        rate = np.polyfit(seconds[positive], np.log(means[positive]), 1, w=means[positive])[0]
        return -1 / rate if rate < 0 else np.inf

    return {"by_second": [rounded(value) for value in rows.mean(0)],
            "time_constant_s": resampled(time_constant, len(rows)), "planted_s": 2.0}  # fmt: skip


if __name__ == "__main__":
    main()
