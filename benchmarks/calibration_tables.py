"""The tables of the calibration battery (benchmarks/calibrate_context.py), from the reports that lie there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from diffdyad.data.exchange import ExchangeShards
from diffdyad.evaluation.effect.conditions import NEAR, NULL
from diffdyad.evaluation.effect.critic import real_pairs
from diffdyad.evaluation.effect.planted import DOWN, UP, Plant, cues_of
from diffdyad.evaluation.effect.power import power_table
from diffdyad.evaluation.effect.reading import Item, Reading, read_items, usable
from diffdyad.evaluation.intervals import exact_binomial_interval
from diffdyad.motion import ARKIT_EXPRESSIONS
from diffdyad.pipeline import DyadPipeline

ALPHA, NUM_FRAMES = 0.05, 100
NOTHING_THERE = {"affect-0": (NEAR, NULL), "redundant-0.03": (NEAR, NULL), "confounded-0.03": (NEAR,),
                 "placebo-0.03": (NEAR, NULL)}  # fmt: skip
"""Cells, and the contrasts in which the planted corpus holds nothing to find."""

_PENALTIES = 10.0 ** np.arange(0, 7)


def print_tables(out: Path, cells: Mapping[Plant, str], seeds: Sequence[int]) -> None:
    """Of the cells and seeds that were judged."""
    reports = {plant: {seed: json.loads(path.read_text()) for seed in seeds
                       if (path := out / "reports" / f"{plant.name}-seed{seed}" / "report.json").exists()}
               for plant in cells}  # fmt: skip
    reports = {plant: found for plant, found in reports.items() if found}
    print("| planted | R², % | best possible, % | found against none, % | against another turn, % | power predicted | "
          "held: loss gap, energy, retrieval, lips | critic tells real turns | verdicts | expected |\n"
          "|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for plant, found in reports.items():
        known = beforehand(out, plant, next(iter(found)))
        estimates = {name: [r["evidence"]["partial_r2"][name]["value"] for r in found.values()]
                     for name in (NULL, NEAR)}  # fmt: skip
        words = [r["verdict"]["word"] for r in found.values()]
        said = ", ".join(f"{word} ({words.count(word)})" for word in sorted(set(words), key=words.index))
        held = ", ".join(str(sum(r["evidence"][name]["holds"] for r in found.values()))
                         for name in ("gap", "energy", "retrieval", "lips"))  # fmt: skip
        told = [r["evidence"]["retrieval"]["testable"] for r in found.values()]
        best = "-" if known["best"] is None else f"{100 * known['best']:.2f}"
        power = "-" if known["power"] is None else f"{100 * known['power']:.0f} %"
        print(f"| {plant.channel} | {100 * plant.partial_r2:g} | {best} | {_spread(estimates[NULL])} | "
              f"{_spread(estimates[NEAR])} | {power} | {held} of {len(found)} | {sum(told)} of {len(told)} | "
              f"{said} | {cells[plant]} |")  # fmt: skip
    _print_observed(reports)
    _print_alarms(reports)
    _print_limit(reports)
    _print_times(out, reports)


def _spread(values: Sequence[float]) -> str:
    """Mean over seeds, and the range."""
    values = 100 * np.array(values)
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def _print_observed(reports: Mapping[Plant, Mapping[int, dict]]) -> None:
    """Power observed, of what training has found: over models and seeds of the cells in which affect was planted."""
    found = [r["evidence"] for plant, by_seed in reports.items() for r in by_seed.values()
             if plant.channel == "affect" and plant.partial_r2 >= 0.03]  # fmt: skip
    if not found:
        return
    print("\n| endpoint, affect at 3 % and more | held | power observed | exact 95 % interval |\n|---|---|---|---|")
    for name in ("gap", "energy", "retrieval"):
        held = [part["holds"] for evidence in found if (part := evidence[name])["testable"]]
        rate = exact_binomial_interval(sum(held), len(held))
        print(f"| {found[0][name]['name']} | {sum(held)} of {len(held)} | {100 * rate.value:.0f} % | "
              f"{100 * rate.low:.0f} to {100 * rate.high:.0f} % |")  # fmt: skip


def _print_alarms(reports: Mapping[Plant, Mapping[int, dict]]) -> None:
    alarms: dict[str, list[bool]] = {}
    for plant, found in reports.items():
        for name in NOTHING_THERE.get(plant.name, ()):
            for report in found.values():
                for endpoint in ("gap", "energy", "retrieval"):
                    part = report["evidence"][endpoint]
                    if part["testable"] and name in part["contrasts"]:
                        label = f"{part['name']}, against {name}"
                        alarms.setdefault(label, []).append(part["contrasts"][name]["p_value"] < ALPHA)
    for found in reports.values():
        for report in found.values():
            for name, effect in report["evidence"]["placebo"].items():
                alarms.setdefault(f"placebo: {name}", []).append(effect["p_value"] < ALPHA)
    print("\n| endpoint, where nothing was planted | alarms | rate | exact 95 % interval |\n|---|---|---|---|")
    for label, raised in alarms.items():
        rate = exact_binomial_interval(sum(raised), len(raised))
        print(f"| {label} | {sum(raised)} of {len(raised)} | {100 * rate.value:.0f} % | "
              f"{100 * rate.low:.1f} to {100 * rate.high:.0f} % |")  # fmt: skip


def _print_limit(reports: Mapping[Plant, Mapping[int, dict]]) -> None:
    rows = sorted((plant.partial_r2, [r["verdict"]["word"] == "meaningful" for r in found.values()])
                  for plant, found in reports.items() if plant.channel == "affect")  # fmt: skip
    if not rows:
        return
    always = [size for size, found in rows if all(found)]
    ever = [size for size, found in rows if any(found)]
    print("\nDetection limit (affect): "
          + (f"found by every seed from {100 * min(always):g} % on, " if always else "found by every seed nowhere, ")
          + (f"by any seed from {100 * min(ever):g} % on." if ever else "by any seed nowhere."))


def _print_times(out: Path, reports: Mapping[Plant, Mapping[int, dict]]) -> None:
    training, judging = [], []
    for plant, found in reports.items():
        for seed, report in found.items():
            judging.append(sum(report["seconds"].values()))
            log = (out / "runs" / f"{plant.name}-seed{seed}" / "log.jsonl").read_text().splitlines()
            times = [json.loads(line)["time"] for line in log]
            training.append(times[-1] - times[0])
    print(f"Median of {len(judging)} runs: training {np.median(training):.0f} s, protocol {np.median(judging):.0f} s.")


# --------------------------------------------------------------------------- what could be found at best


def beforehand(out: Path, plant: Plant, seed: int) -> dict:
    """best: the planted share that can be told from the previous turn; power: of an ideal model; None where the turn
    tells nothing by construction. Kept in out/best."""
    path = out / "best" / f"{plant.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    found = {"best": None, "power": None}
    if plant.channel not in ("redundant", "confounded", "placebo") and plant.partial_r2 > 0:
        corpus, cache = out / "corpora" / plant.name, out / "reports" / f"{plant.name}-seed{seed}" / "cache"
        pipeline = DyadPipeline.from_pretrained(out / "runs" / f"{plant.name}-seed{seed}" / "pipeline")
        items = usable(read_items(corpus, "test", cache, Reading.of(pipeline)), pipeline.fps)
        best = plant.partial_r2 * told_share(corpus, cache, plant, pipeline, items)
        rows = power_table(items, pipeline.statistics, NUM_FRAMES, np.random.default_rng(0), [best])
        found = {"best": best, "power": min(row.power for row in rows)}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def told_share(corpus: Path, cache: Path, plant: Plant, pipeline: DyadPipeline, items: Sequence[Item]) -> float:
    """Of the planted reaction's variance, what a ridge regression from the previous turn tells of people it has not
    seen. Fitted on the other splits, its penalty chosen by halves of their people."""
    people = {name for item in items for name in (item.previous_speaker, item.responder)}
    pairs = real_pairs(corpus, "test", people, Reading.of(pipeline), cache, 10**6)
    cues = _cues(corpus, plant)
    learnt = np.stack([turn_features(pipeline, pair.features) for pair in pairs])
    wanted = np.stack([_sides(cues[pair.features.exchange_id]) for pair in pairs])
    everybody = sorted({pair.people for pair in pairs}, key=sorted)
    half = np.array([everybody.index(pair.people) % 2 == 0 for pair in pairs])
    errors = [np.square(_ridge(learnt[half], wanted[half], learnt[~half], penalty) - wanted[~half]).sum()
              for penalty in _PENALTIES]  # fmt: skip
    asked = np.stack([turn_features(pipeline, item.features) for item in items])
    truth = np.stack([_sides(cues[item.name]) for item in items])
    told = _ridge(learnt, wanted, asked, _PENALTIES[int(np.argmin(errors))])
    left, there = np.square(truth - told).mean(0), truth.var(0)
    std = pipeline.statistics.std[pipeline.layout.slices["expression"]].numpy()
    weight = np.array([(1 / std[[ARKIT_EXPRESSIONS.index(name) for name in names]] ** 2).sum() for names in (UP, DOWN)])
    return float(max(0.0, 1 - (weight * left).sum() / (weight * there).sum()))


def turn_features(pipeline: DyadPipeline, features) -> np.ndarray:
    """Means of every modality over quarters of the turn, deviations, and the sentence; zeros for what is not there."""
    turn, parts = pipeline.context_encoder.standardise(features.turn), []
    widths = dict(pipeline.context_encoder.config.widths)
    for name, width in sorted(widths.items()):
        cells = turn.features.get(name)
        if cells is None or len(cells) < 4:
            parts.append(np.zeros(5 * width))
            continue
        values = np.where(turn.valid[name][:, None], cells.float().numpy(), 0.0)
        parts += [quarter.mean(0) for quarter in np.array_split(values, 4)] + [values.std(0)]
    if "text" in widths:
        parts.append(np.zeros(widths["text"]) if turn.sentence is None else turn.sentence.float().numpy())
    return np.concatenate(parts)


def _cues(corpus: Path, plant: Plant) -> dict[str, float]:
    found = {}
    for split in ("train", "validation", "test"):
        shards = ExchangeShards(corpus, split, audio=plant.channel == "timing")
        names = [shards.row(k, ["exchange_id"])["exchange_id"] for k in range(len(shards))]
        found |= dict(zip(names, cues_of(shards, plant).tolist()))
    return found


def _sides(cue: float) -> np.ndarray:
    return np.array([cue > 0, cue < 0], float)


def _ridge(x: np.ndarray, y: np.ndarray, asked: np.ndarray, penalty: float) -> np.ndarray:
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, asked = torch.from_numpy((x - mean) / scale), torch.from_numpy((asked - mean) / scale)
    target = torch.from_numpy(y - y.mean(0))
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ target)
    return (asked @ weights).numpy() + y.mean(0)
