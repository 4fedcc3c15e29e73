"""Two processes on one CPU, as `accelerate launch` starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch_two(script: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs the script twice, side by side. --cpu with --num_processes 2 would quietly run one."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", str(free_port()), str(script), *arguments,
    ]  # fmt: skip
    environment = {
        **os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *(p for p in sys.path if p)]),
    }  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
