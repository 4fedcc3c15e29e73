"""Worker processes have a thread each, and end with the process that they work for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import time
from diffdyad.data.workers import spawned
if __name__ == "__main__":
    pool = spawned(1)
    pool.submit(time.sleep, 0).result()
    pool.submit(time.sleep, 60)
    print(*pool._processes, flush=True)
    time.sleep(60)
"""

THREADS = """
import os
WHEN_IMPORTED = os.environ.get("OMP_NUM_THREADS")
from diffdyad.data.workers import spawned
def seen(_):
    import torch
    return WHEN_IMPORTED, torch.get_num_threads()
if __name__ == "__main__":
    with spawned(1) as pool:
        print(*pool.submit(seen, 0).result(), os.environ.get("OMP_NUM_THREADS"))
"""


def run(code: str, folder: Path, **more) -> dict:
    script = folder / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **more}
    return {"args": [sys.executable, str(script)], "stdout": subprocess.PIPE, "env": environment}


def test_workers_have_one_thread_each_whatever_the_main_module_loads_first(tmp_path):
    done = subprocess.run(**run(THREADS, tmp_path, OMP_NUM_THREADS="2"), check=True, text=True)
    assert done.stdout.split() == ["1", "1", "2"]


def test_none_outlives_a_parent_that_was_killed(tmp_path):
    with subprocess.Popen(**run(PARENT, tmp_path)) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead, and not yet fetched by whoever inherited it
