"""The calibration battery: plants effects of known size, trains small models on them, and asks the protocol.

    python benchmarks/calibrate_context.py --out runs/calibration [--battery FILE] [--only affect-0.03 ...] [--seeds 0]

Every step is left out where its result lies there already: the same command goes on, or prints the tables again, which
are those of docs/context.md. Cells are worked on side by side, `--jobs` at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import yaml
from calibration_tables import print_tables

from diffdyad.data.exchange import ExchangeShards
from diffdyad.evaluation.effect.planted import Plant, amplitude, cues_of, plant_corpus
from diffdyad.evaluation.effect.power import residuals
from diffdyad.evaluation.effect.reading import Reading, read_items, usable
from diffdyad.sample import load_pipeline

ROOT = Path(__file__).resolve().parents[1]
PLANTED = "planted.json"
_FRAMES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--battery", type=Path, default=ROOT / "configs/calibration/battery.yaml")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/calibration/small.yaml")
    parser.add_argument("--only", nargs="*", help="names of cells, such as affect-0.03 (default: all)")
    parser.add_argument("--seeds", nargs="*", type=int, help="of training (default: the battery's)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, which share the cores (default 2)")
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    battery = yaml.safe_load(arguments.battery.read_text(encoding="utf-8"))
    cells = {Plant(cell["channel"], cell["partial_r2"]): cell["verdict"] for cell in battery["cells"]}
    cells = {plant: word for plant, word in cells.items() if not arguments.only or plant.name in arguments.only}
    seeds = battery["seeds"] if arguments.seeds is None else arguments.seeds
    if not arguments.tables:
        work(arguments, battery["hours"], list(cells), seeds)
    print_tables(arguments.out, cells, seeds)


def work(arguments: argparse.Namespace, hours: float, plants: Sequence[Plant], seeds: Sequence[int]) -> None:
    """Corpora, then models and reports, seed by seed."""
    source = arguments.out / "corpora" / "none-0"
    if not (source / "rehearsal.json").exists():
        _run(1, "data", "rehearse", "--out", source, "--hours", hours, "--seed", 0, "--effect", 0)
    plant_all(source, arguments.out, plants, arguments.jobs)
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)

    def learn(plant: Plant, seed: int) -> None:
        corpus, name = arguments.out / "corpora" / plant.name, f"{plant.name}-seed{seed}"
        model = arguments.out / "runs" / name
        if not (model / "pipeline" / "model_index.json").exists():
            _python(threads, ROOT / "train.py", "--config", arguments.config, f"data.dataset={corpus}",
                    f"data.workers={threads}", f"output={model}", f"training.seed={seed}",
                    f"data.permute_turns={str(plant.channel == 'placebo').lower()}")  # fmt: skip

    def judge(plant: Plant, seed: int) -> None:
        corpus, name = arguments.out / "corpora" / plant.name, f"{plant.name}-seed{seed}"
        model, report = arguments.out / "runs" / name, arguments.out / "reports" / name
        placebo = arguments.out / "runs" / f"placebo-{plant.partial_r2:g}-seed{seed}" / "pipeline"
        beside = ["--placebo", placebo] if plant.channel == "affect" and placebo.exists() else []
        if not (report / "report.json").exists():
            _run(threads, "context", corpus, "--model", model / "pipeline", "--out", report, "--verdict-only",
                 "--seed", seed, "--workers", threads, *beside)  # fmt: skip
        print(f"{name} done", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for seed in seeds:  # the placebo's model is judged beside that of affect
            for step in (learn, judge):
                list(pool.map(step, plants, [seed] * len(plants)))


def plant_all(source: Path, out: Path, plants: Sequence[Plant], jobs: int) -> None:
    """A corpus for each effect, as large as is needed for the share of what the own audio leaves."""
    missing = [plant for plant in plants if not (out / "corpora" / plant.name / PLANTED).exists()]
    if not missing:
        return
    pipeline = load_pipeline("default", "cpu")
    items = usable(read_items(source, "validation", out / "cache", Reading.of(pipeline)), pipeline.fps)
    left, known = residuals(items, pipeline.statistics, _FRAMES)
    share = (left[known] ** 2).mean(0)
    std = pipeline.statistics.std[pipeline.layout.slices["expression"]].numpy()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        work = [pool.submit(plant_one, source, out / "corpora" / plant.name, plant, share, std, pipeline.fps)
                for plant in missing]  # fmt: skip
        for future in work:
            future.result()


def plant_one(source: Path, corpus: Path, plant: Plant, share: np.ndarray, std: np.ndarray, fps: float) -> None:
    """One corpus. share, std: (E,) what the own audio leaves, in variances of the channel, and its deviation."""
    cues = cues_of(ExchangeShards(source, "validation"), plant)
    size = amplitude(plant.partial_r2, cues, share, std, _FRAMES, fps, constant=plant.channel == "confounded")
    plant_corpus(source, corpus, plant, size)
    (corpus / PLANTED).write_text(json.dumps({"amplitude": size, "partial_r2": plant.partial_r2}))


def _run(threads: int, *words) -> None:
    _python(threads, "-m", "diffdyad.cli", *words)


def _python(threads: int, *words) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *map(str, words)], check=True, cwd=ROOT, stdout=sys.stderr, env=environment)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    main()
