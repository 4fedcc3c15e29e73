"""Training on a handful of exchanges, end to end."""

import json
import sys
from itertools import pairwise
from shutil import copytree, ignore_patterns

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file
from small_exchanges import small_config, small_exchange, write_dataset

from diffdyad.cli import main
from diffdyad.config import TrainingConfig, load_config
from diffdyad.data import features
from diffdyad.data.batches import ExchangeWindows, keyed_generator
from diffdyad.errors import UserError
from diffdyad.learning import schedule, shifted
from diffdyad.lock import only_one
from diffdyad.motion import load_motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.training import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "talks")


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(small_config(folder, dataset, "training.sample_every=6"))
    return folder


def weights(folder, step: int = 6) -> dict[str, torch.Tensor]:
    return load_file(folder / "run" / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def windows(trained, dataset) -> ExchangeWindows:
    pipeline = DyadPipeline.from_pretrained(trained / "run" / "pipeline")
    items = [
        features.compute(
            small_exchange(seed), pipeline.speech_encoder, pipeline.context_encoder, pipeline.statistics
        )
        for seed in range(6)
    ]  # fmt: skip
    return ExchangeWindows(
        items, pipeline.speech_encoder, pipeline.context_encoder, pipeline.statistics,
        load_config(trained / "run.yaml").conditions,
    )  # fmt: skip


def test_trained_pipeline_samples_from_the_command_line(trained, voices, tmp_path):
    model, out = trained / "run" / "pipeline", tmp_path / "out"
    arguments = ["--audio", voices / "responder.wav", "--model", model, "--out", out, "--no-video", "--steps", 2]
    assert main(["sample", *map(str, arguments)]) == 0
    assert len(load_motion(out / "motion.npz")) == 38


def test_the_log_says_what_was_learnt_and_what_was_withheld(trained):
    lines = log(trained)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 6]
    assert {"validation/motion", "validation/context_gap"} <= lines[-1].keys()
    conditions = {"own_audio", "style", "prefix", "context", "audio", "motion"}
    assert {key for key in lines[0] if key.startswith("dropped/")} == {f"dropped/{name}" for name in conditions}
    assert all(0 <= line[f"dropped/{name}"] <= 1 for line in lines[:-1] for name in conditions)
    assert lines[0]["absent"] == 0 and {"loss", "grad_norm", "step_s", "waited_s"} <= lines[0].keys()


def test_a_sample_is_rendered_when_asked_for(trained):
    folder = trained / "run" / "samples"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000006.npz", "step-00000006.png"]
    assert len(load_motion(folder / "step-00000006.npz")) == 50


def test_running_again_changes_nothing(trained, dataset):
    before, lines = weights(trained), log(trained)
    train(small_config(trained, dataset))
    after = weights(trained)
    assert all(torch.equal(before[name], after[name]) for name in before) and log(trained) == lines


def test_a_pipeline_comes_with_its_card_which_may_be_edited(trained, dataset):
    told = trained / "run" / "pipeline" / "README.md"
    assert "diffdyad" in told.read_text() and (told.parent / "curves.png").is_file()
    told.write_text("# Mine\n")
    train(small_config(trained, dataset))
    assert told.read_text() == "# Mine\n"
    train(small_config(trained, dataset, "card.license=mit"))  # changed: written anew
    assert "license: mit" in told.read_text()


def test_a_pipeline_that_does_not_fit_leaves_nothing_half_written(trained, dataset, tmp_path, monkeypatch):
    copytree(trained / "run", tmp_path / "run", ignore=ignore_patterns("pipeline"))

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("diffdyad.card.write_card", full)
        with pytest.raises(OSError, match="No space left"):
            train(small_config(tmp_path, dataset))
    assert not {path.name for path in (tmp_path / "run").iterdir()} & {"pipeline", ".pipeline.partial"}
    train(small_config(tmp_path, dataset))
    weights = "pipeline/denoiser/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (trained / "run" / weights).read_bytes()


def test_a_second_run_in_the_same_folder_is_refused(dataset, tmp_path):
    config = small_config(tmp_path, dataset)
    (tmp_path / "run").mkdir()
    with only_one(tmp_path / "run"), pytest.raises(UserError, match="another output"):
        train(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".running"]
    with only_one(tmp_path / "run"):  # let go of again
        pass


def test_training_leaves_the_global_random_state_alone(dataset, tmp_path):
    before = torch.random.get_rng_state()
    train(small_config(tmp_path, dataset, "training.max_steps=2"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_resumed_run_forgets_what_it_logged_beyond_its_checkpoint(trained, dataset, tmp_path):
    train(small_config(tmp_path, dataset, "training.max_steps=2"))
    path = tmp_path / "run" / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "loss": 99}\n{"step": 4, "lo')
    # the schedule looks at max_steps, which the first two steps of a warm-up do not show
    train(small_config(tmp_path, dataset))
    losses = [(line["step"], line["loss"]) for line in log(tmp_path) if "loss" in line]
    assert losses == [(line["step"], line["loss"]) for line in log(trained) if "loss" in line]
    whole, resumed = weights(trained), weights(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_processes_that_load_give_the_same_batches(trained, dataset, tmp_path):
    train(small_config(tmp_path, dataset, "data.loader_workers=1"))
    whole, loaded = weights(trained), weights(tmp_path)
    assert all(torch.equal(whole[name], loaded[name]) for name in whole)


def test_unconditional_branches_occur_in_training(windows):
    """Each branch that sampling uses, with its statuses, is among the training examples."""
    batch = windows.batch([keyed_generator(0, 0, index) for index in range(300)], 30)
    status = torch.stack(list(batch.conditions.context.status.values()), -1)
    all_dropped, given = (status == 1).all(-1), (status == 0).all(-1)
    speech = batch.conditions.speech_given
    for seen in (all_dropped & ~speech, all_dropped & speech, given & speech):
        assert seen.any()
    partly = (status == 1).any(-1) & (status == 0).any(-1)
    assert partly.any() and batch.prefix.any(1).float().mean() > 0.3
    assert batch.dropped["own_audio"] == pytest.approx(0.05 + 0.05 * 0.95, abs=0.06)


def test_an_example_depends_on_its_key_alone(windows):
    one = windows.batch([keyed_generator(0, 3, index) for index in range(4)], 30)
    two = windows.batch([keyed_generator(0, 3, index) for index in (2, 3)], 30)
    assert torch.equal(one.target[2:], two.target) and torch.equal(one.noise[2:], two.noise)
    assert one.ids[2:] == two.ids
    assert torch.equal(one.conditions.speech[2:], two.conditions.speech)


def test_a_voice_may_be_heard_as_phones_too(dataset, tmp_path):
    pytest.importorskip("pocketsphinx", reason="pocketsphinx carries the acoustic model")
    train(small_config(tmp_path, dataset, "training.max_steps=2", "speech.phones=true", "speech.mask=0.2"))
    pipeline = DyadPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert pipeline.speech_encoder.config["phones"]
    assert pipeline.denoiser.config.speech_width == pipeline.speech_encoder.num_channels
    assert pipeline.context_encoder.config["widths"]["audio"] == 2 * 4 * 64  # means and deviations of bands alone
    voice = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert pipeline(voice, generator=torch.Generator().manual_seed(0)).motions[0].values.isfinite().all()


def test_accumulated_steps_are_the_whole_batch(trained, dataset, tmp_path):
    train(small_config(tmp_path, dataset, "training.accumulation_steps=2"))
    for one, two in zip(log(trained), log(tmp_path)):
        assert one.get("loss", 0) == pytest.approx(two.get("loss", 0), rel=1e-4)


@pytest.mark.parametrize("kind, last", [("cosine", 0.05), ("linear", 0.05), ("constant", 1.0)])
def test_schedules(kind, last):
    settings = TrainingConfig(warmup_steps=10, max_steps=110, schedule=kind)
    factors = [schedule(settings, step) for step in range(111)]
    assert factors[0] == pytest.approx(0.1) and factors[9:11] == pytest.approx([1.0, 1.0])
    assert factors[110] == pytest.approx(last)
    assert all(a >= b - 1e-6 for a, b in pairwise(factors[10:]))


def test_shifted_timesteps():
    uniform = torch.linspace(0, 0.999, 1000)
    assert torch.equal(shifted(uniform, 1.0), uniform)
    more = shifted(uniform, 4.0)
    assert bool((more >= uniform).all()) and more[0] == 0 and float(more.max()) < 1
    torch.testing.assert_close(shifted(more, 1 / 4.0), uniform)
    # signal over noise of flow matching, (1 - t) / t, falls to a quarter
    torch.testing.assert_close((1 - more[1:]) / more[1:], (1 - uniform[1:]) / uniform[1:] / 4, rtol=1e-3, atol=1e-6)


# --------------------------------------------------------------------------------------- what stops it


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(dataset, tmp_path, capsys):
    folder = tmp_path / "run"
    small_config(tmp_path, dataset)
    # weights of 1e30 after the third step; its gradient was fine
    changes = ["training.warmup_steps=3", "training.max_steps=40", "training.schedule=constant"]
    train(small_config(tmp_path, dataset, *changes, "training.max_steps=2"))
    argv = ["train", "--config", str(tmp_path / "run.yaml"), *changes, "training.learning_rate=1e30"]
    assert main(argv) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not finite" in message and "e-" in message and "step-00000002" in message
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000002"]


def test_a_tracker_that_is_missing_costs_a_warning(dataset, tmp_path, capsys):
    missing = "wandb" if "wandb" not in sys.modules else "aim"
    pytest.importorskip("accelerate")
    train(small_config(tmp_path, dataset, f"training.tracker={missing}", "training.max_steps=2"))
    assert missing in capsys.readouterr().err and (tmp_path / "run" / "pipeline").is_dir()


def test_an_unknown_tracker_is_a_mistake(dataset, tmp_path):
    with pytest.raises(UserError, match="training.tracker.*tensorboard.*chalkboard"):
        train(small_config(tmp_path, dataset, "training.tracker=chalkboard"))


def test_half_precision_without_a_gpu_is_refused(dataset, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="mixed_precision"):
        train(small_config(tmp_path, dataset, "training.mixed_precision=fp16"))


def test_a_batch_that_processes_do_not_divide_is_refused(trained, dataset):
    with pytest.raises(UserError, match="accumulation_steps"):
        train(small_config(trained, dataset, "training.accumulation_steps=3"))


def test_another_layout_in_the_checkpoint_is_refused(trained, dataset):
    with pytest.raises(UserError, match="another layout: model.width is 32 there and 16 here"):
        train(small_config(trained, dataset, "model.width=16"))
    with pytest.raises(UserError, match=r"context.modalities is \['audio', 'motion'\] there"):
        train(small_config(trained, dataset, "context.modalities=[motion]"))


def test_statistics_of_the_checkpoint_count_not_those_of_new_data(trained, dataset, tmp_path):
    """Data that were added to a dataset do not rescale what the weights have learnt to read."""
    copytree(trained / "run", tmp_path / "run")
    other = write_dataset(tmp_path / "other", first=50)
    train(small_config(tmp_path, other, "training.max_steps=8"))
    before, after = (
        load_file(folder / "run" / "checkpoints" / name / "statistics.safetensors")
        for folder, name in ((trained, "step-00000006"), (tmp_path, "step-00000008"))
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_missing_dataset_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing"):
        train(small_config(tmp_path, tmp_path / "nothing"))


def test_the_rehearsal_corpus_is_made_where_it_is_absent(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the extra `rehearse` is not installed")
    config = load_config(
        REPOSITORY / "configs" / "rehearsal.yaml",
        [f"output={tmp_path / 'run'}", f"data.dataset={tmp_path / 'corpus'}", "data.rehearse.hours=0.03",
         "data.window_s=[1.0, 1.2]", "data.validation_windows=1", "context.modalities=[motion]", "model.width=16",
         "model.num_heads=2", "model.depth=1", "training.max_steps=1", "training.batch_size=2",
         "training.mixed_precision='no'"],
    )  # fmt: skip
    train(config)
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()
