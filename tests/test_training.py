"""Training on a rehearsal corpus of a few minutes, end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffdyad.cli import main
from diffdyad.config import load_config
from diffdyad.data import features
from diffdyad.data.batches import ExchangeWindows, keyed_generator
from diffdyad.data.exchange import ExchangeShards
from diffdyad.errors import UserError
from diffdyad.motion import load_motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.training import train

CONFIG = """
output: {output}
data: {{dataset: {dataset}, rehearse: {{hours: 0.03}}, window_s: [1.0, 1.4], validation_windows: 1}}
context: {{modalities: [audio, prosody, motion]}}
model: {{width: 32, num_heads: 2, depth: 1, speech_depth: 1, context_depth: 1}}
training: {{batch_size: 4, max_steps: 6, checkpoint_every: 2, validate_every: 6, log_every: 1, mixed_precision: "no"}}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    pytest.importorskip("espeakng_loader", reason="the extra `rehearse` is not installed")
    folder = tmp_path_factory.mktemp("training") / "corpus"
    assert main(["data", "rehearse", "--out", str(folder), "--hours", "0.03", "--seed", "0", "--effect", "1"]) == 0
    return folder


def config(folder: Path, corpus: Path, *overrides: str):
    path = folder / "run.yaml"
    path.write_text(CONFIG.format(output=folder / "run", dataset=corpus))
    return load_config(path, overrides)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "run" / "checkpoints" / "step-00000006" / "model.safetensors")


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(config(folder, corpus))
    return folder


def test_trained_pipeline_samples_from_the_command_line(trained, corpus, tmp_path):
    from diffdyad.media import write_wav

    exchange = ExchangeShards(corpus, "test")[0]
    write_wav(tmp_path / "answer.wav", torch.from_numpy(exchange.responder.waveform[-32000:]))
    model, out = trained / "run" / "pipeline", tmp_path / "out"
    arguments = ["--audio", tmp_path / "answer.wav", "--model", model, "--out", out, "--no-video", "--steps", 2]
    assert main(["sample", *map(str, arguments)]) == 0
    assert len(load_motion(out / "motion.npz")) == 50
    log = [json.loads(line) for line in (trained / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 6 and {"validation/motion", "validation/context_gap"} <= log[-1].keys()
    assert {"dropped/text", "dropped/context"} & log[0].keys() == {"dropped/context"}


def test_running_again_changes_nothing(trained, corpus):
    before = weights(trained)
    train(config(trained, corpus))
    after = weights(trained)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_killed_with_sigkill_goes_on_to_the_same_weights(trained, corpus, tmp_path):
    config(tmp_path, corpus)
    command = [sys.executable, "-c", "import sys; from diffdyad.cli import main; sys.exit(main(sys.argv[1:]))",
               "train", "--config", str(tmp_path / "run.yaml")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = tmp_path / "run" / "checkpoints" / "step-00000002"
    deadline = time.time() + 120
    while not first.exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(config(tmp_path, corpus))
    whole, resumed = weights(trained), weights(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_unconditional_branches_occur_in_training(trained, corpus):
    """Each branch that sampling uses, with its statuses, is among the training examples."""
    pipeline = DyadPipeline.from_pretrained(trained / "run" / "pipeline")
    layout, fps = features.dataset_layout(corpus)
    paths = features.build(
        corpus, "train", corpus / "features", pipeline.speech_encoder, pipeline.context_encoder, layout, fps, workers=1
    )
    chances = load_config(trained / "run.yaml").conditions
    windows = ExchangeWindows(
        features.load(paths), pipeline.speech_encoder, pipeline.context_encoder, pipeline.statistics, chances
    )
    batch = windows.batch([keyed_generator(0, 0, index) for index in range(300)], 30)
    status = torch.stack(list(batch.conditions.context.status.values()), -1)
    all_dropped, given = (status == 1).all(-1), (status == 0).all(-1)
    speech = batch.conditions.speech_given
    for seen in (all_dropped & ~speech, all_dropped & speech, given & speech):
        assert seen.any()
    partly = (status == 1).any(-1) & (status == 0).any(-1)
    assert partly.any() and batch.prefix.any(1).float().mean() > 0.3
    assert batch.dropped["own_audio"] == pytest.approx(0.05 + 0.05 * 0.95, abs=0.06)


def test_an_example_depends_on_its_key_alone(trained, corpus):
    pipeline = DyadPipeline.from_pretrained(trained / "run" / "pipeline")
    layout, fps = features.dataset_layout(corpus)
    paths = features.build(
        corpus, "train", corpus / "features", pipeline.speech_encoder, pipeline.context_encoder, layout, fps, workers=1
    )
    windows = ExchangeWindows(
        features.load(paths), pipeline.speech_encoder, pipeline.context_encoder, pipeline.statistics,
        load_config(trained / "run.yaml").conditions,
    )  # fmt: skip
    one = windows.batch([keyed_generator(0, 3, index) for index in range(4)], 30)
    two = windows.batch([keyed_generator(0, 3, index) for index in (2, 3)], 30)
    assert torch.equal(one.target[2:], two.target) and torch.equal(one.noise[2:], two.noise)
    assert one.ids[2:] == two.ids
    assert torch.equal(one.conditions.speech[2:], two.conditions.speech)


def test_a_second_stage_keeps_the_first_one_s_weights(trained, corpus, tmp_path):
    first = trained / "run" / "pipeline"
    settings = [f"training.start_from={first}", "training.other_rate=0.0", "training.context_rate=2.0"]
    train(config(tmp_path, corpus, *settings))
    before = DyadPipeline.from_pretrained(first).denoiser.state_dict()
    after = weights(tmp_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("context" in name for name in moved)
    with pytest.raises(UserError, match="start_from"):
        train(config(tmp_path, corpus, *settings, "model.width=16", f"output={tmp_path / 'other'}"))


def test_a_batch_that_processes_do_not_divide_is_refused(trained, corpus):
    with pytest.raises(UserError, match="accumulation_steps"):
        train(config(trained, corpus, "training.accumulation_steps=3"))


def test_another_layout_in_the_checkpoint_is_refused(trained, corpus):
    with pytest.raises(UserError, match="another"):
        train(config(trained, corpus, "model.width=16"))
    train(config(trained, corpus))


def test_a_missing_dataset_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"output: {tmp_path / 'run'}\ndata: {{dataset: {tmp_path / 'nothing'}}}\n")
    with pytest.raises(UserError, match="nothing"):
        train(load_config(path))
