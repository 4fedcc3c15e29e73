"""The baselines in one harness: trains each by its config, scores all with the same code, and prints one table.

    python benchmarks/baselines.py --out runs/baselines --dataset data/rehearsal [--small] [--limit 120] [--jobs 1]

--small trains all of them through a quarter of the weights and a fifth of the updates (configs/calibration/small.yaml):
minutes each instead of hours. What lies there already is not done again. The table is that of docs/metrics.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "baselines"
FULL_UPDATES, FULL_RATE = 6000, 8e-4

STAGES = {"one-stage": ["one-stage"], "two-stage": ["two-stage-1", "two-stage-2"], "no-context": ["no-context"],
          "regression": ["regression"]}  # fmt: skip
"""Name of what is judged -> the configs that are trained for it, in order."""

ASKED = {
    "one stage": ("one-stage", []),
    "two stages": ("two-stage", []),
    "one stage, asked without context": ("one-stage", ["--guidance-scale", "0"]),
    "no context, trained so": ("no-context", []),
    "deterministic regression": ("regression", []),
    "one stage, asked for its mean": ("one-stage", ["--steps", "1"]),
    "nearest neighbour in audio": (None, []),
}
"""Row -> (what is judged, further options of `diffdyad evaluate`); None is the baseline without a training."""

CONTROLS = {"truth": "truth", "mean pose": "mean_pose", "mean of the clip, frozen": "frozen",
            "truth at half its size": "half_amplitude", "truth's frames shuffled": "frames_shuffled",
            "mirror of the partner": "mirror_of_partner", "another clip of the person": "same_person",
            "a clip of somebody else": "other_person"}  # fmt: skip

COLUMNS = {
    "face, mm": "face_vertex_error_mean_mm",
    "lips, mm": "lip_vertex_error_max_mean_mm",
    "energy score, mm": "energy_score_rms_mm",
    "expression's variance": "expression_variance_ratio",
    "head's variance": "head_variance_ratio",
    "Frechet, expression": "frechet_expression_movement_per_channel",
    "Frechet, head": "frechet_head_movement_per_channel",
    "partner's excess": "frechet_expression_partner_excess_per_channel",
    "smiles/min": "smiles_per_minute",
    "nods/min": "nods_per_minute",
}
"""Of the table: heading -> figure."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "baselines")
    parser.add_argument("--dataset", type=Path, default=ROOT / "data" / "rehearsal")
    parser.add_argument("--small", action="store_true", help="a quarter of the weights, a fifth of the updates")
    parser.add_argument("--limit", type=int, default=120, help="exchanges that are answered (default %(default)s)")
    parser.add_argument("--samples", type=int, default=2, help="answers to each (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings and scorings at a time (default %(default)s)")
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if not arguments.tables:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda name: train(arguments, out, name), STAGES))
            list(pool.map(lambda row: evaluate(arguments, out, row), ASKED))
            list(pool.map(lambda name: judge(arguments, out, name), ("one-stage", "two-stage", "no-context")))
    print_tables(out)


def train(arguments: argparse.Namespace, out: Path, name: str) -> None:
    """All stages of one baseline."""
    for stage in STAGES[name]:
        path = CONFIGS / f"{stage}.yaml"
        words = [f"data.dataset={arguments.dataset.resolve()}", f"output={out / stage}"]
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "start_from" in config["training"]:
            words.append(f"training.start_from={out / 'two-stage-1' / 'pipeline'}")
        words += small(config) if arguments.small else []
        words += ["data.rehearse=null"] if any(arguments.dataset.glob("train-*.parquet")) else []
        if not (out / stage / "pipeline" / "model_index.json").exists():
            words.append(f"data.workers={_threads(arguments.jobs)}")
            _run(arguments.jobs, ROOT / "train.py", "--config", path, *words)


def small(config: Mapping) -> list[str]:
    """Of the calibration's model, what is about size, for a baseline's config."""
    size = yaml.safe_load((ROOT / "configs/calibration/small.yaml").read_text(encoding="utf-8"))
    updates = round(config["training"]["max_steps"] * size["training"]["max_steps"] / FULL_UPDATES)
    rate = float(config["training"]["learning_rate"]) / FULL_RATE * float(size["training"]["learning_rate"])
    known = {"data.window_s": size["data"]["window_s"], "context.modalities": size["context"]["modalities"],
             "data.validation_answers": 0, "training.batch_size": size["training"]["batch_size"],
             "training.max_steps": updates, "training.warmup_steps": size["training"]["warmup_steps"],
             "training.learning_rate": rate, "training.ema_decay": size["training"]["ema_decay"],
             "training.validate_every": updates}  # fmt: skip
    known |= {f"model.{key}": value for key, value in size["model"].items()}
    return [f"{key}={json.dumps(value)}" for key, value in known.items()]


def evaluate(arguments: argparse.Namespace, out: Path, row: str) -> None:
    name, options = ASKED[row]
    report = out / "reports" / _file(row)
    if not (report / "metrics.json").exists():
        _diffdyad(arguments.jobs, "evaluate", arguments.dataset, "--model", _pipeline(out, name), "--start", "none",
                  "--limit", arguments.limit, "--num-samples", arguments.samples, "--out", report,
                  "--workers", _threads(arguments.jobs), *options)  # fmt: skip


def judge(arguments: argparse.Namespace, out: Path, name: str) -> None:
    """Does the context matter to it?"""
    report = out / "reports" / f"context-{name}"
    if not (report / "report.json").exists():
        _diffdyad(arguments.jobs, "context", arguments.dataset, "--model", _pipeline(out, name), "--out", report,
                  "--verdict-only", "--workers", _threads(arguments.jobs))  # fmt: skip


def print_tables(out: Path) -> None:
    """Of the reports that are there."""
    reports = {row: json.loads(path.read_text()) for row in ASKED
               if (path := out / "reports" / _file(row) / "metrics.json").exists()}  # fmt: skip
    print("| system | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (1 + len(COLUMNS)))
    for row, report in reports.items():
        _print_row(row, report["tables"]["all"]["model"])
    if reports:
        controls = next(iter(reports.values()))["tables"]["all"]
        for row, name in CONTROLS.items():
            _print_row(row, controls[name])
    print("\n| does the context matter to it? | against none, % | against another turn, % | verdict |")
    print("|---|---|---|---|")
    for name in STAGES:
        path = out / "reports" / f"context-{name}" / "report.json"
        if path.exists():
            report = json.loads(path.read_text())
            found = report["evidence"]["partial_r2"]
            print(f"| {name} | {_share(found['null'])} | {_share(found['swap-near'])} | {report['verdict']['word']} |")


def _print_row(row: str, figures: Mapping) -> None:
    cells = [figures.get(name, {}).get("value") for name in COLUMNS.values()]
    print(f"| {row} | " + " | ".join("-" if cell is None else f"{cell:.3g}" for cell in cells) + " |")


def _share(found: Mapping) -> str:
    return f"{100 * found['value']:.2f} ({100 * found['low']:.2f} to {100 * found['high']:.2f})"


def _file(row: str) -> str:
    return row.replace(",", "").replace(" ", "-")


def _pipeline(out: Path, name: str | None) -> str:
    return "nearest" if name is None else str(out / STAGES[name][-1] / "pipeline")


def _threads(jobs: int) -> int:
    return max(1, (os.cpu_count() or 1) // jobs)


def _diffdyad(jobs: int, *words) -> None:
    _run(jobs, "-m", "diffdyad.cli", *words)


def _run(jobs: int, *words) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(_threads(jobs))}
    subprocess.run([sys.executable, *map(str, words)], check=True, cwd=ROOT, stdout=sys.stderr, env=environment)


if __name__ == "__main__":
    main()
