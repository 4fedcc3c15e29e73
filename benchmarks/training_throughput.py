"""How fast training is, what it waits for and what it needs, for two networks in this code:

the embedded default (configs/rehearsal.yaml), and one of DiffPoseTalk's size (8 layers of width 512, windows of
100 + 10 frames). Prints JSON. On the GPU where there is one (bf16; --compile), else on the CPU, with nothing else
running. The data are a rehearsal corpus of a few minutes, made first (extra `rehearse`), or --dataset.

    python benchmarks/training_throughput.py --steps 40
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
WARM_UP = 5  # steps that do not count
HOURS, PASSES = (50, 1000), 9  # of exchanges, and how often each is seen (seven times by the embedded default)
SIZES = {
    "default": {"data": {"window_s": [4.0, 6.0]}},
    "diffposetalk_size": {
        "data": {"window_s": [4.4, 4.4]},  # 110 frames
        "model": {"width": 512, "num_heads": 8, "depth": 8, "speech_depth": 3, "context_depth": 2},
        "conditions": {"prefix_s": 0.4},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="measured, after the warm-up (default 40)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default 32)")
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], default="bf16", help="(default bf16)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network (default: not)")
    parser.add_argument("--loader-workers", type=int, default=0, help="(default 0: a thread)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="(default: both)")
    parser.add_argument("--dataset", help="a folder of exchanges (default: made)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = arguments.dataset or make_dataset(folder / "corpus")
        figures = {"benchmark": "training_throughput", "cpus": os.cpu_count()}
        figures |= {size: run(arguments, folder, size, dataset) for size in arguments.sizes}
    print(json.dumps(figures, indent=2))


def make_dataset(folder: Path) -> str:
    from diffdyad.data.rehearsal.corpus import rehearse

    return str(rehearse(folder, hours=0.2, progress=False))


def run(arguments: argparse.Namespace, folder: Path, size: str, dataset: str) -> dict:
    """One network in a process of its own, whose memory is its own."""
    settings = yaml.safe_load((REPOSITORY / "configs" / "rehearsal.yaml").read_text(encoding="utf-8"))
    settings["data"] = {}
    for section, values in SIZES[size].items():
        settings.setdefault(section, {}).update(values)
    steps = arguments.steps + WARM_UP
    settings["output"] = str(folder / size)
    settings["data"] |= {"dataset": dataset, "cache": str(folder / "features"), "validation_windows": 1,
                         "loader_workers": arguments.loader_workers}  # fmt: skip
    settings["training"] |= {
        "batch_size": arguments.batch_size, "max_steps": steps, "log_every": 1, "checkpoint_every": steps,
        "validate_every": steps, "mixed_precision": arguments.precision, "compile": arguments.compile,
        "learning_rate": 4e-4,
    }  # fmt: skip
    path = folder / f"{size}.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, __file__, "--child", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *(p for p in sys.path if p)])}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: str) -> dict:
    import torch

    from diffdyad.config import load_config
    from diffdyad.pipeline import DyadPipeline
    from diffdyad.training import train

    config = load_config(path)
    pipeline = DyadPipeline.from_pretrained(train(config))
    output = Path(config.output)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "step_s" in line][WARM_UP:]
    step_s = statistics.median(line["step_s"] for line in lines)
    window_s = sum(config.data.window_s) / 2
    examples_per_s = config.training.batch_size / step_s
    gpu = torch.cuda.is_available()
    checkpoint = sum(file.stat().st_size for file in next((output / "checkpoints").iterdir()).iterdir())
    return {
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "precision": config.training.mixed_precision,
        "compiled": config.training.compile,
        "parameters_million": round(sum(p.numel() for p in pipeline.denoiser.parameters()) / 1e6, 2),
        "batch_size": config.training.batch_size,
        "step_s": round(step_s, 4),
        "examples_per_s": round(examples_per_s, 2),
        "motion_s_per_s": round(examples_per_s * window_s, 1),
        "loader_share": round(sum(line["waited_s"] for line in lines) / sum(line["step_s"] for line in lines), 4),
        "memory_gb": round(
            torch.cuda.max_memory_allocated() / 1e9 if gpu
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2,
        ),
        "checkpoint_gb": round(checkpoint / 1e9, 3),
        f"hours_for_{PASSES}_passes": {
            f"{hours} h": round(PASSES * hours / (examples_per_s * window_s), 1) for hours in HOURS
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
