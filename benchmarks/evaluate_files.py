"""How long `diffdyad evaluate --pred DIR --truth DIR` takes, on clips with partners, voices and millimetres.

    python benchmarks/evaluate_files.py [--clips 1000] [--seconds 10] [--workers 2]

Makes the clips first (half a gigabyte, in a temporary folder) and prints JSON: wall-clock and CPU seconds of the
command alone. CPU seconds over `workers` is what idle cores would need. Wanted: 1,000 clips of 10 s in two minutes on
two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from diffdyad.media import SAMPLING_RATE, write_wav
from diffdyad.motion import Motion, MotionLayout, save_motion

FPS = 25.0
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a clip (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--no-voices", dest="voices", action="store_false", help="motion alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments)
        command = [sys.executable, "-m", "diffdyad.cli", "evaluate", "--pred", f"{folder}/pred", "--truth",
                   f"{folder}/truth", "--out", f"{folder}/report", "--workers", str(arguments.workers)]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL)
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        facts = json.loads(Path(folder, "report", "metrics.json").read_text())["facts"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({
        "clips": facts["clips"], "minutes_of_motion": round(facts["seconds"] / 60, 1), "workers": arguments.workers,
        "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "largest_process_mib": round(after.ru_maxrss / 1024),
    }, indent=2))  # fmt: skip


def make(folder: Path, arguments: argparse.Namespace) -> None:
    """Pairs of people, four clips a pair, two each; predictions: another motion of the same kind."""
    entries = {}
    for name in ("truth", "pred"):
        (folder / name).mkdir()
    for number in range(arguments.clips):
        rng = np.random.default_rng(number)
        name, other = f"clip{number:05d}", f"clip{number ^ 1:05d}"
        save_motion(folder / "truth" / f"{name}.npz", walk(rng, arguments.seconds))
        save_motion(folder / "pred" / f"{name}.npz", walk(rng, arguments.seconds))
        pair, side = number // 4, number % 2
        entries[name] = {"person": f"p{2 * pair + side}", "partner": f"p{2 * pair + 1 - side}",
                         "onset_s": arguments.seconds / 2}  # fmt: skip
        if number ^ 1 < arguments.clips:
            entries[name]["partner_clip"] = other
        if arguments.voices:
            seconds = np.arange(round(arguments.seconds * SAMPLING_RATE)) / SAMPLING_RATE
            voice = 0.1 * np.sin(2 * np.pi * 150 * seconds) * np.sin(2 * np.pi * rng.uniform(1, 2) * seconds) ** 2
            write_wav(folder / "truth" / f"{name}.wav", torch.from_numpy(voice.astype(np.float32)))
    (folder / "truth" / "clips.json").write_text(json.dumps(entries))


def walk(rng: np.random.Generator, seconds: float) -> Motion:
    """Channels that wander smoothly: blinks, nods and smiles among what they do."""
    layout, frames = MotionLayout.arkit(), round(seconds * FPS)
    times = np.arange(frames)[:, None] / FPS
    values = sum(
        rng.normal(size=layout.dim) * np.sin(2 * np.pi * rng.uniform(0.2, 2.5, layout.dim) * times + rng.uniform(0, 6))
        for _ in range(3)
    )
    expression = layout.slices["expression"]
    values *= 0.05
    values[:, expression] = np.clip(0.2 + 4 * values[:, expression], 0, 1)
    return Motion(torch.from_numpy(values.astype(np.float32)), layout, FPS)


if __name__ == "__main__":
    main()
