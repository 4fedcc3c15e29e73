"""Worker processes end with the process that they work for."""

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


def test_none_outlives_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as parent:
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
