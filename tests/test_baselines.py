"""Every baseline of configs/baselines trains as shipped but for its size, and is scored by the same command."""

import json
import math

import pytest
import torch
from conftest import REPOSITORY
from small_exchanges import write_dataset

from diffdyad import learning
from diffdyad.config import load_config
from diffdyad.pipeline import DyadPipeline
from diffdyad.training import train

FOLDER = REPOSITORY / "configs" / "baselines"
NAMES = ["no-context", "one-stage", "regression", "two-stage-1", "two-stage-2"]
TINY = ["data.rehearse=null", "data.window_s=[1.0, 1.4]", "data.workers=1", "data.validation_windows=1",
        "data.validation_answers=0", "context.modalities=[audio, motion]", "model.width=32", "model.num_heads=2",
        "model.depth=1", "model.speech_depth=1", "model.context_depth=1", "training.batch_size=2",
        "training.max_steps=2", "training.log_every=1", "training.mixed_precision=no"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, tuple]:
    """Name -> folder of the trained pipeline, and losses."""
    folder = tmp_path_factory.mktemp("baselines")
    dataset = write_dataset(folder / "talks", train=4)
    found = {}
    for name in NAMES:
        changes = [*TINY, f"data.dataset={dataset}", f"output={folder / name}"]
        if name == "two-stage-2":  # the first one's output is where this test put it
            changes.append(f"training.start_from={folder / 'two-stage-1' / 'pipeline'}")
        pipeline = train(load_config(FOLDER / f"{name}.yaml", changes))
        log = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
        found[name] = pipeline, [entry["loss"] for entry in log if "loss" in entry]
    return found


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_trains_and_says_how_it_is_started(name, trained):
    _, losses = trained[name]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    text = (FOLDER / f"{name}.yaml").read_text()
    assert f"--config configs/baselines/{name}.yaml" in text
    config = load_config(FOLDER / f"{name}.yaml")
    assert config.output == f"runs/baselines/{name}"
    assert name == "two-stage-1" or f"--model {config.output}/pipeline" in text


def test_the_regression_answers_in_one_step(trained):
    pipeline = DyadPipeline.from_pretrained(trained["regression"][0])
    assert pipeline.config.num_inference_steps == 1


def test_baselines_are_the_defaults_size_on_the_same_data_at_as_many_updates():
    configs = {name: load_config(FOLDER / f"{name}.yaml") for name in NAMES}
    default = load_config(REPOSITORY / "configs" / "rehearsal.yaml")
    for config in configs.values():
        assert (config.model, config.context, config.speech) == (default.model, default.context, default.speech)
        assert config.data == default.data and config.training.batch_size == default.training.batch_size
    steps = {name: config.training.max_steps for name, config in configs.items()}
    assert steps["two-stage-1"] + steps["two-stage-2"] == steps["one-stage"] == default.training.max_steps
    assert steps["no-context"] == steps["regression"] == default.training.max_steps
    assert configs["two-stage-2"].training.start_from == f"{configs['two-stage-1'].output}/pipeline"
    assert configs["no-context"].conditions.drop_context == configs["two-stage-1"].conditions.drop_context == 1


def test_a_regression_is_trained_at_pure_noise_alone():
    noise = load_config(FOLDER / "regression.yaml").noise
    uniform = torch.linspace(1e-4, 1 - 2**-24, 100)
    shares = learning.shifted(uniform, noise.timestep_shift)
    levels = (shares * noise.num_train_timesteps).long().clamp_max(noise.num_train_timesteps - 1)
    assert (levels == noise.num_train_timesteps - 1).all()
