"""Checkpoints: whole or not at all, checked before they are read, a clear line where one is not as written."""

import json
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import REPOSITORY
from small_exchanges import write_dataset

from diffdyad import checkpoints
from diffdyad.errors import EXIT_FAILED, UserError


def tensors(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {name: {"weight": torch.randn(64, 32, generator=generator)} for name in ("model", "ema", "optimizer")}


def write(place, step: int):
    return checkpoints.write(place, step, tensors(step), {"seed": 7, "losses": [0.1, 1 / 3]})


def newest(place):
    warnings = []
    return checkpoints.newest(place, warnings.append), warnings


def test_what_was_written_is_read(tmp_path):
    write(tmp_path, 2)
    write(tmp_path, 4)
    found, warnings = newest(tmp_path)
    assert found.step == 4 and found.format == checkpoints.FORMAT and not warnings
    assert found.state["losses"] == [0.1, 1 / 3]  # to the bit
    for name, values in tensors(4).items():
        assert torch.equal(found.tensors(name)["weight"], values["weight"])
    assert found.tensors("statistics") is None


def test_an_empty_folder_has_none(tmp_path):
    assert newest(tmp_path) == (None, []) and newest(tmp_path / "nowhere") == (None, [])


def test_the_oldest_go(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
        checkpoints.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(folder):
    path = folder / "ema.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def forget(folder):
    (folder / "optimizer.safetensors").unlink()


def cut_the_state(folder):
    path = folder / "state.json"
    path.write_text(path.read_text()[:40])


def lose_the_state(folder):
    (folder / "state.json").unlink()


def claim_another_step(folder):
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 9}))


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, "model.safetensors has 8.* bytes"),
        (flip_a_bit, "ema.safetensors has another SHA-256"),
        (forget, "optimizer.safetensors is missing"),
        (cut_the_state, "state.json is missing or unreadable"),
        (lose_the_state, "state.json is missing or unreadable"),
        (claim_another_step, "says step 9"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage, words):
    write(tmp_path, 2)
    damage(write(tmp_path, 4))
    found, warnings = newest(tmp_path)
    assert found.step == 2
    assert len(warnings) == 1 and "step-00000004" in warnings[0] and "step-00000002" in warnings[0]
    assert re.search(words, warnings[0])
    again = write(tmp_path, 4)  # the run comes by once more
    assert newest(tmp_path) == (checkpoints.read(again), [])


def test_only_damaged_ones_are_no_new_beginning(tmp_path):
    truncate(write(tmp_path, 2))
    flip_a_bit(write(tmp_path, 4))
    with pytest.raises(UserError, match=r"only damaged ones: step-00000004 .*step-00000002") as caught:
        newest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_refused_not_passed_over(tmp_path):
    write(tmp_path, 2)
    path = write(tmp_path, 4) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": checkpoints.FORMAT + 1}))
    with pytest.raises(UserError, match=f"format {checkpoints.FORMAT + 1}.*newer diffdyad"):
        newest(tmp_path)


def test_the_first_format_is_still_read(tmp_path):
    folder = tmp_path / "step-00000002"
    folder.mkdir()
    from safetensors.torch import save_file

    for name in ("model", "ema"):
        save_file(tensors(2)[name], folder / f"{name}.safetensors")
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer.pt")
    (folder / "state.json").write_text('{"step": 2}')
    found, _ = newest(tmp_path)
    assert (found.step, found.format) == (2, 1)
    assert found.first_format_optimizer() == {"state": {}, "param_groups": []}
    truncate(folder)
    with pytest.raises(UserError, match="only damaged"):
        newest(tmp_path)


@contextmanager
def room_for(size: int):
    """Files may not grow beyond `size` bytes: writing fails halfway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_one_before_stays(tmp_path):
    write(tmp_path, 2)
    before = {path: path.read_bytes() for path in (tmp_path / "step-00000002").iterdir()}
    with room_for(4000), pytest.raises(checkpoints.SaveFailed, match="step-00000002 is kept") as caught:
        write(tmp_path, 4)
    assert caught.value.exit_code == EXIT_FAILED and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]  # nothing half-written
    assert {path: path.read_bytes() for path in before} == before
    write(tmp_path, 4)
    assert newest(tmp_path)[0].step == 4


def test_what_a_kill_left_behind_is_swept_up(tmp_path):
    write(tmp_path, 2)
    for name in (".step-00000003.partial", ".step-00000001.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert newest(tmp_path)[0].step == 2
    write(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_run_killed_twice_ends_as_if_it_had_not_been(tmp_path):
    """The campaign of benchmarks/ with two kills: one inside a checkpoint's writing, one anywhere."""
    write_dataset(tmp_path / "talks", train=2, validation=1)
    command = [
        sys.executable, REPOSITORY / "benchmarks" / "kill_campaign.py", "--kills", "2", "--steps", "12",
        "--width", "32", "--dataset", tmp_path / "talks", "--out", tmp_path / "runs",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(run.stdout)
    assert figures["equal"] and figures["kills"] >= 1
