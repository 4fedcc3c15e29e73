"""The calibration battery: plants effects of known size, trains small models on them, and asks the protocol.

    python benchmarks/calibrate_context.py --out runs/calibration [--battery FILE] [--only affect-0.03 ...] [--seeds 0]

Every step is left out where its result lies there already. Prints the table of docs/context.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from diffdyad.data.exchange import ExchangeShards
from diffdyad.evaluation.effect.planted import CUES, Plant, amplitude, mood_of, plant_corpus
from diffdyad.evaluation.effect.power import residuals
from diffdyad.evaluation.effect.reading import Reading, read_items, usable
from diffdyad.sample import load_pipeline

ROOT = Path(__file__).resolve().parents[1]
_FRAMES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--battery", type=Path, default=ROOT / "configs/calibration/battery.yaml")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/calibration/small.yaml")
    parser.add_argument("--only", nargs="*", help="names of cells, such as affect-0.03")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--steps", type=int, help="of training, instead of the config's")
    arguments = parser.parse_args()
    battery = yaml.safe_load(arguments.battery.read_text(encoding="utf-8"))
    source = arguments.out / "corpora" / "none-0"
    if not (source / "rehearsal.json").exists():
        _run("data", "rehearse", "--out", source, "--hours", battery["hours"], "--seed", 0, "--effect", 0)
    share, std = _residual_share(source, arguments.out / "cache")
    print("| cell | seed | planted R2 | estimated R2 (90 %) | power at planted | loss gap p | verdict | expected |\n"
          "|---|---|---|---|---|---|---|---|")  # fmt: skip
    for cell in battery["cells"]:
        plant = Plant(cell["channel"], cell["partial_r2"])
        if arguments.only and plant.name not in arguments.only:
            continue
        corpus = arguments.out / "corpora" / plant.name
        plant_corpus(source, corpus, plant, _size(source, plant, share, std))
        for seed in arguments.seeds if arguments.seeds is not None else battery["seeds"]:
            run = arguments.out / "runs" / f"{plant.name}-seed{seed}"
            if not (run / "model_index.json").exists():
                steps = [] if arguments.steps is None else [f"training.max_steps={arguments.steps}"]
                _python(ROOT / "train.py", "--config", arguments.config, f"data.dataset={corpus}", f"output={run}",
                        f"training.seed={seed}", *steps)  # fmt: skip
            report = arguments.out / "reports" / f"{plant.name}-seed{seed}"
            if not (report / "report.json").exists():
                _run("context", corpus, "--model", run, "--out", report, "--no-video", "--seed", seed)
            print(_row(plant, seed, json.loads((report / "report.json").read_text()), cell["verdict"]), flush=True)


def _row(plant: Plant, seed: int, report: dict, expected: str) -> str:
    evidence, gaps = report["evidence"], report["evidence"]["gap"]["contrasts"]
    sizes = [f"{name}: {x['value']:.4f} [{x['low']:.4f}, {x['high']:.4f}]"
             for name, x in evidence["partial_r2"].items()]  # fmt: skip
    power = ", ".join(f"{100 * value:.0f} %" for value in evidence["power_at_smallest"].values())
    p = ", ".join(f"{gap['p_value']:.3f}" for gap in gaps.values())
    return (f"| {plant.name} | {seed} | {plant.partial_r2:g} | {'; '.join(sizes)} | {power} | {p} | "
            f"{report['verdict']['word']} | {expected} |")  # fmt: skip


def _residual_share(source: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Variance that the own audio leaves of each expression, over the channel's, and the channels' deviations."""
    pipeline = load_pipeline("default", "cpu")
    items = usable(read_items(source, "validation", cache, Reading.of(pipeline)), pipeline.fps)
    left, known = residuals(items, pipeline.statistics, _FRAMES)
    std = pipeline.statistics.std[pipeline.layout.slices["expression"]].numpy()
    return np.square(left[known]).mean(0), std


def _size(source: Path, plant: Plant, share: np.ndarray, std: np.ndarray) -> float:
    session = plant.channel == "confounded"
    shards = ExchangeShards(source, "validation", audio=plant.channel == "timing")
    exchanges = (shards[k] for k in range(len(shards)))
    find = (lambda x: mood_of(x.session_id, 0)) if session else CUES.get(plant.channel, CUES["affect"])
    cues = np.array([find(exchange) for exchange in exchanges])
    return amplitude(plant.partial_r2, cues, share, std, _FRAMES, 25.0, constant=session)


def _run(*words) -> None:
    _python("-m", "diffdyad.cli", *words)


def _python(*words) -> None:
    subprocess.run([sys.executable, *map(str, words)], check=True, cwd=ROOT, stdout=sys.stderr)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
