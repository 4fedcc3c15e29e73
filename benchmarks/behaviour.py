"""How the embedded model behaves against the corpus that it learnt from, as JSON: spread, jitter, planted reactions.

    python benchmarks/behaviour.py --dataset data/rehearsal [--emotions DIR]

Answers to the test split's verbal turns, whose people, voices and dialogues no training saw. DIR holds recordings and
labels.csv (file name, emotion, ...): turns of real people in anger or joy against sadness or boredom.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad.context import Context, PreviousTurn
from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.data.rehearsal.reaction import PLANTED_EFFECTS, Reaction, planted_delta
from diffdyad.data.sides import previous_turn
from diffdyad.media import SAMPLING_RATE, read_audio
from diffdyad.motion import MotionLayout
from diffdyad.pipeline import DyadPipeline
from diffdyad.sample import load_pipeline

FPS = 25
EARLY_S = 2.0  # of an answer, in which reactions are measured
SECONDS = (0.0, 1.0, 2.0, 3.0, 4.0)
RIDGES = np.logspace(1, 5, 17)
MEASURES = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"), "brows": ("browInnerUp",),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "tilt": (),
}  # fmt: skip
ROUSED, CALM = ("anger", "happiness"), ("sadness", "boredom")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="a rehearsal corpus")
    parser.add_argument("--model", default="default", help="default, a folder, or USER/REPO (default: default)")
    parser.add_argument("--answers", type=int, default=150, help="of the test split (default 150)")
    parser.add_argument("--train", type=int, default=1500, help="exchanges of the regression (default 1500)")
    parser.add_argument("--emotions", help="folder of recordings with labels.csv (default: left out)")
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
        figures["real_turns"] = real_turns(pipeline, Path(arguments.emotions), tests)
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
    std, layout = pipeline.statistics.std, pipeline.layout
    found = {}
    for name, clips in (("made", made), ("true", truth)):
        scaled = [clip / std for clip in clips]
        between = torch.stack([clip.mean(0) for clip in scaled]).var(0)
        within = torch.stack([clip.var(0) for clip in scaled]).mean(0)
        found[name] = {"between": between, "within": within}

    def ratio(part: str, group: str) -> float:
        made, true = (layout.select(found[name][part], group).sum() for name in ("made", "true"))
        return rounded(made / true)

    return {group: {part: ratio(part, group) for part in ("between", "within")} for group in layout.groups}


def jerk(made: list[Tensor], truth: list[Tensor], pipeline: DyadPipeline) -> dict:
    """Median and 95th percentile of the third difference's length, generated to corpus."""
    sizes = [
        torch.cat([(clip / pipeline.statistics.std).diff(n=3, dim=0).norm(dim=-1) for clip in clips]).numpy()
        for clips in (made, truth)
    ]
    made, true = (np.percentile(size, [50, 95]) for size in sizes)
    return {"median": rounded(made[0] / true[0]), "95 %": rounded(made[1] / true[1])}


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
        slopes = {
            "truth": slope(valence[react], np.array([size(one.truth) for one in tests])[react]),
            "best_regression": slope(valence[react], best[react]),
            "own_turn": slope(valence[react], (values["own"] - values["none"])[react]),
            "swapped_on_the_other": slope(other, values["swapped"] - values["none"]),
            "swapped_on_the_true": partial_slope(valence, other, values["swapped"] - values["none"]),
        }
        slopes["own_to_best"] = slopes["own_turn"] / slopes["best_regression"]
        results[name] = {key: rounded(value) for key, value in slopes.items()}
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
    means = np.mean(rows, 0)
    seconds, positive = np.array(SECONDS) + 0.5, means > 0.02 * means[0]
    rate = np.polyfit(seconds[positive], np.log(means[positive]), 1, w=means[positive])[0]
    return {"by_second": [rounded(value) for value in means], "time_constant_s": rounded(-1 / rate), "planted_s": 2.0}


# ---------------------------------------------------------------------------------------- real turns


def real_turns(
    pipeline: DyadPipeline, folder: Path, tests: list[Answered], num_answers: int = 4, seeds: int = 2
) -> dict:
    """Share of (roused, calm) pairs of turns whose answers differ as arousal was planted, at scales 1 and 2."""
    rows = list(csv.DictReader((folder / "labels.csv").open(encoding="utf-8")))
    groups = [[folder / row["file"] for row in rows if row["emotion"] in kinds] for kinds in (ROUSED, CALM)]
    turns = [[PreviousTurn(read_audio(path), gap_s=0.2) for path in paths] for paths in groups]
    contexts = [[pipeline.encode_context(turn) for turn in kind] for kind in turns]
    gains = {name: gain.high_arousal for name, gain in PLANTED_EFFECTS.items()}
    along = torch.zeros(pipeline.layout.dim)
    for channel in pipeline.layout.expression_names:
        base = channel.removesuffix("Left").removesuffix("Right")
        along[pipeline.layout.channel(channel)] = gains.get(base, 0.0)
    result = {}
    for scale in (1.0, 2.0):
        right = []
        for number in range(num_answers):
            audio = tests[number].audio
            for seed in range(seeds):
                sizes = []
                for kind in contexts:
                    made = [answer(pipeline, audio, context, scale, seed) for context in kind]
                    sizes.append([float((motion[: round(FPS * EARLY_S)] @ along).mean()) for motion in made])
                right += [roused > calm for roused in sizes[0] for calm in sizes[1]]
        result[f"scale_{scale:g}"] = {"pairs": len(right), "right": rounded(np.mean(right))}
    return result


def answer(pipeline: DyadPipeline, audio: Tensor, context: Context, scale: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return pipeline(audio, context, guidance_scale=scale, generator=generator).motions[0].values


def rounded(value: float) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
