"""Kills a training with SIGKILL at random moments, resumes it each time, and compares its end with an undisturbed one.

    python benchmarks/kill_campaign.py --kills 20

Half of the kills wait for a checkpoint to be written, and hit the writing itself. Prints JSON; exits 1 where the final
weights, averages, optimizer, random state or losses differ by a single bit. Without --dataset it makes a few minutes
of rehearsal corpus (extra `rehearse`). CPU only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
POLL_S = 0.0005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="(default 20)")
    parser.add_argument("--steps", type=int, default=150, help="of the training (default 150)")
    parser.add_argument("--checkpoint-every", type=int, default=1, help="steps (default 1)")
    parser.add_argument("--width", type=int, default=128, help="of the network; wider is longer to write (default 128)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--dataset", help="a folder of exchanges (default: made)")
    parser.add_argument("--out", help="folder for the runs (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = campaign(arguments, folder)
    print(json.dumps(figures, indent=2))
    return 0 if figures["equal"] else 1


def campaign(arguments: argparse.Namespace, folder: Path) -> dict:
    configs = {name: write_config(arguments, folder, name) for name in ("whole", "killed")}
    if arguments.dataset is None:
        # made beforehand: the campaign is about training
        subprocess.run(command("data", "rehearse", "--out", str(folder / "corpus"), "--hours", "0.05"), check=True)
    began = time.perf_counter()
    subprocess.run(command("train", "--config", str(configs["whole"])), check=True, stderr=subprocess.DEVNULL)
    whole_s = time.perf_counter() - began
    losses = read_log(folder / "whole")
    step_s = (losses[-1]["time"] - losses[0]["time"]) / max(1, arguments.steps - 1)
    start_s = max(whole_s - arguments.steps * step_s, 0.1)

    draw = random.Random(arguments.seed)
    place = folder / "killed" / "checkpoints"
    moments = []
    for number in range(arguments.kills):
        process = subprocess.Popen(
            command("train", "--config", str(configs["killed"])), stderr=subprocess.DEVNULL, start_new_session=True
        )
        if number % 2 == 0:
            moment = await_write(process, place, draw)
        else:
            moment = "anywhere"
            wait(process, draw.uniform(0, start_s + 3 * step_s * arguments.checkpoint_every))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode:
            raise SystemExit(f"the training ended by itself with exit code {process.returncode}")
        else:
            moment = "too late: it had finished"
        process.wait()
        left = len(list(place.glob(".step-*")))
        moments.append({"moment": moment, "inside_a_write": bool(left), "last_checkpoint": last_checkpoint(place)})
    subprocess.run(command("train", "--config", str(configs["killed"])), check=True, stderr=subprocess.DEVNULL)
    differences = compare(folder / "whole", folder / "killed", arguments.steps)
    return {
        "benchmark": "kill_campaign",
        "kills": sum("too late" not in moment["moment"] for moment in moments),
        "inside_checkpoint_writes": sum(moment["inside_a_write"] for moment in moments),
        "steps": arguments.steps,
        "undisturbed_s": round(whole_s, 2),
        "equal": not differences,
        "differences": differences,
        "moments": moments,
    }


def command(*words: str) -> list[str]:
    program = "import sys; from diffdyad.cli import main; sys.exit(main(sys.argv[1:]))"
    sys_path = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); "
    return [sys.executable, "-c", sys_path + program, *words]


def write_config(arguments: argparse.Namespace, folder: Path, name: str) -> Path:
    width = arguments.width
    settings = {
        "output": str(folder / name),
        "data": {"dataset": arguments.dataset or str(folder / "corpus"), "window_s": [1.0, 1.4],
                 "validation_windows": 1, "workers": 1},
        "context": {"modalities": ["audio", "motion"]},
        "model": {"width": width, "num_heads": 2, "depth": 2, "speech_depth": 1, "context_depth": 1},
        "training": {"batch_size": 4, "max_steps": arguments.steps, "checkpoint_every": arguments.checkpoint_every,
                     "validate_every": arguments.steps, "log_every": 1, "mixed_precision": "no"},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def wait(process: subprocess.Popen, seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until and process.poll() is None:
        time.sleep(POLL_S)


def await_write(process: subprocess.Popen, place: Path, draw: random.Random) -> str:
    """Until a checkpoint that was not there before is being written, and a little into that."""
    files = draw.randint(0, 4)  # so many of its files are seen first
    known = {path: contents(path) for path in place.glob(".step-*")}  # left by the kill before
    while process.poll() is None:
        for path in place.glob(".step-*.partial"):
            there = contents(path)
            if path in known and known[path] <= there:
                continue  # not touched yet
            known.pop(path, None)
            if len(there) >= files:
                return f"a checkpoint's writing, from file {files} on"
        time.sleep(POLL_S)
    return "a checkpoint's writing"


def contents(folder: Path) -> set[tuple[str, int]]:
    """Names of a folder's files, with when they were written."""
    try:
        return {(path.name, path.stat().st_mtime_ns) for path in folder.iterdir()}
    except OSError:  # gone meanwhile
        return set()


def last_checkpoint(place: Path) -> str | None:
    return max((path.name for path in place.glob("step-*")), default=None)


def read_log(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def compare(one: Path, other: Path, steps: int) -> list[str]:
    """What differs at the end of two runs: files of checkpoint and pipeline, states, losses of every step."""
    differences = []
    name = Path("checkpoints") / f"step-{steps:08d}"
    for path in sorted([*(one / name).iterdir(), *(one / "pipeline").rglob("*.safetensors")]):
        if path.read_bytes() != (other / path.relative_to(one)).read_bytes():
            differences.append(str(path.relative_to(one)))
    logs = [[(line["step"], line["loss"], line["grad_norm"]) for line in read_log(run)] for run in (one, other)]
    if logs[0] != logs[1]:
        differences.append("log.jsonl")
    return differences


if __name__ == "__main__":
    sys.exit(main())
