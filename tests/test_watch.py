"""A loss that leaps, and trackers that fail."""

import json
import types

import pytest
from small_exchanges import small_config, write_dataset

from diffdyad.errors import UserError
from diffdyad.journal import Journal
from diffdyad.training import train
from diffdyad.watch import WINDOW, SpikeWatch


def losses(watch: SpikeWatch, *values: float) -> list[bool]:
    return [watch.saw(value) for value in values]


def test_a_spike_is_so_many_high_losses_on_end():
    watch = SpikeWatch(3.0, 3, [1.0] * 50)
    assert losses(watch, 3.1, 9.0, 1.0) == [False] * 3  # back in time
    assert losses(watch, 3.1, 9.0, 4.0) == [False, False, True]
    assert len(watch.recent) == 51  # what is high moves the median of none


def test_early_losses_are_not_judged_and_zero_is_never():
    assert not any(losses(SpikeWatch(2.0, 1), *[100.0 / (k + 1) ** 2 for k in range(19)], 50.0))
    assert not any(losses(SpikeWatch(0.0, 1, [1.0] * 50), 1e9, 1e9))


def test_a_slow_rise_is_no_spike():
    watch = SpikeWatch(3.0, 1, [1.0] * WINDOW)
    assert not any(losses(watch, *[1.0 + 0.02 * k for k in range(400)]))


def test_a_resumed_watch_judges_alike():
    values = [1.0 + 0.01 * (k % 7) for k in range(40)] + [2.5, 2.6]
    whole = SpikeWatch(2.0, 2)
    expected = losses(whole, *values)
    first = SpikeWatch(2.0, 2)
    losses(first, *values[:40])
    second = SpikeWatch(2.0, 2, json.loads(json.dumps(first.recent)))
    assert losses(second, *values[40:]) == expected[40:] == [False, True]


def test_a_spike_stops_the_run_before_the_good_checkpoint_is_lost(tmp_path):
    dataset = write_dataset(tmp_path / "talks")
    calm = ["training.warmup_steps=0", "training.schedule=constant", "training.learning_rate=1e-6"]
    train(small_config(tmp_path, dataset, *calm, "training.max_steps=24", "training.keep_checkpoints=1"))
    wild = [*calm[:2], "training.learning_rate=0.3", "training.max_steps=60", "training.keep_checkpoints=1",
            "training.spike_factor=3", "training.spike_steps=5", "training.checkpoint_every=1"]  # fmt: skip
    with pytest.raises(UserError, match=r"over 3 times its median for 5 steps at step .* the batch: e-\d") as error:
        train(small_config(tmp_path, dataset, *wild))
    assert "\n" not in str(error.value)
    # after step 25 the weights were bad, which step 26 showed: the one before is kept, though only one was wanted
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert kept == ["step-00000024"] and kept[0] in str(error.value)


# ------------------------------------------------------------------------------------------- trackers


class Service:
    """Stands in for Accelerate with a tracker that answers until `dies_after` calls."""

    def __init__(self, dies_after: int, is_main_process: bool = True):
        self.left, self.is_main_process, self.log_with = dies_after, is_main_process, ["wandb"]
        self.seen, self.trackers = [], [types.SimpleNamespace(finish=self._call)]

    def _call(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("no route\nto host")

    def init_trackers(self, name, config):
        self._call()
        self.seen.append(config)

    def log(self, values, step):
        self._call()
        self.seen.append((step, values))


@pytest.mark.parametrize("dies_after, warned", [(0, "cannot be reached"), (2, "fails"), (4, "fails"), (9, None)])
def test_a_tracker_that_dies_costs_one_warning_and_no_line_of_the_log(tmp_path, dies_after, warned):
    warnings, service = [], Service(dies_after)
    journal = Journal(tmp_path / "log.jsonl", service, warnings.append)
    journal.begin(0, "wandb", "run", {"training": {"max_steps": 3, "tracker": None}, "data": {"window_s": [1.0, 2.0]}})
    for step in (1, 2, 3):
        journal.write(step, {"loss": 0.5})
    journal.end()
    assert len(warnings) == (warned is not None)
    if warned:
        assert warned in warnings[0] and "no route to host" in warnings[0]
    else:
        settings = {"training.max_steps": 3, "training.tracker": "null", "data.window_s": "[1.0, 2.0]"}
        assert service.seen == [settings, *((step, {"loss": 0.5}) for step in (1, 2, 3))]
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [1, 2, 3]


def test_other_processes_write_nothing(tmp_path):
    journal = Journal(tmp_path / "log.jsonl", Service(9, is_main_process=False), pytest.fail)
    journal.begin(0, "wandb", "run", {})
    journal.write(1, {"loss": 0.5})
    journal.end()
    assert not journal.path.exists()


def test_tensorboard_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    dataset = write_dataset(tmp_path / "talks", train=2)
    train(small_config(tmp_path, dataset, "training.tracker=tensorboard", "training.max_steps=2"))
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
