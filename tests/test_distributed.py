"""Two real processes compute what one does."""

import json
import subprocess
from pathlib import Path

import pytest
from launching import launch_two
from small_exchanges import small_config, write_dataset

from diffdyad.training import train

STEPS = 50
RANK = """
import json, sys
from pathlib import Path
import torch.distributed
from diffdyad.config import load_config
from diffdyad.training import train
folder = Path(sys.argv[1])
for overrides in json.loads(sys.argv[2]):
    train(load_config(folder / "run.yaml", overrides))
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
(folder / f"rank-{rank}.json").write_text(json.dumps({"rank": rank, "world_size": size}))
torch.distributed.destroy_process_group()
"""


def launch(folder: Path, *runs: list[str]) -> subprocess.CompletedProcess:
    """Two processes that train, one run after the other, each with its overrides."""
    script = folder / "rank.py"
    script.write_text(RANK)
    return launch_two(script, str(folder), json.dumps(runs))


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "talks")


def test_two_processes_give_the_losses_of_one(dataset, tmp_path):
    """Also where each goes through its half of the batch in two parts, and where the main one answers exchanges."""
    # an uneven split of valid frames: windows reach past the ends of the recordings
    changes = [f"training.max_steps={STEPS}", "training.warmup_steps=10", f"training.checkpoint_every={STEPS}",
               f"training.validate_every={STEPS}", "data.window_s=[1.0, 3.0]", "data.validation_answers=2"]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    train(small_config(one, dataset, *changes))
    small_config(two, dataset)
    in_parts = [*changes, f"output={two / 'parts'}", "training.accumulation_steps=2"]
    run = launch(two, changes, in_parts)
    assert run.returncode == 0, run.stderr[-2000:]
    for rank in (0, 1):
        assert json.loads((two / f"rank-{rank}.json").read_text()) == {"rank": rank, "world_size": 2}
    alone = log(one / "run")
    for together in (log(two / "run"), log(two / "parts")):
        assert [line["step"] for line in alone] == [line["step"] for line in together] == [*range(1, STEPS + 1), STEPS]
        for a, b in zip(alone, together):
            losses = [key for key in a if key in ("loss", "motion", "velocity", "vertex", "aperture", "grad_norm")]
            shares = [key for key in a if key.startswith("dropped/")]
            for key in losses:
                assert b[key] == pytest.approx(a[key], rel=1e-4), (a["step"], key)
            assert {key: b[key] for key in shares} == pytest.approx({key: a[key] for key in shares})
        assert alone[-1].keys() == together[-1].keys() and "validation/face_speed_ratio" in together[-1]
    assert max(line["loss"] for line in alone[:10] if "loss" in line) > alone[-2]["loss"]  # it did learn something


def test_more_processes_than_exchanges_are_refused(tmp_path):
    few = write_dataset(tmp_path / "one-exchange", train=1, validation=1)
    small_config(tmp_path, few)
    run = launch(tmp_path, [])
    assert run.returncode != 0
    assert "at least one exchange for each of 2 processes, found 1" in run.stderr
