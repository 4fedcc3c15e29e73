"""Validation with sampled answers: what is measured, that it changes nothing, and that it never ends a run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_exchanges import END_S, FPS, small_config, small_exchange, write_dataset
from test_evaluation_score import make_clip

from diffdyad.card import write_card
from diffdyad.config import load_config
from diffdyad.data.exchange import shard_name, to_row, write_shard
from diffdyad.errors import UserError
from diffdyad.evaluation.answering import answerable, beginning
from diffdyad.evaluation.brief import MEANINGS, brief
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout
from diffdyad.pipeline import DyadPipeline
from diffdyad.training import train
from diffdyad.validation import Answers

CPU = torch.device("cpu")
NEEDS_A_HEAD = {"lip_vertex_error_max_mean_mm", "mouth_opening_error_mean_mm", "face_speed_ratio", "face_jerk_ratio"}


@pytest.fixture(scope="module")
def clips():
    return [make_clip(number) for number in range(12)]


@pytest.fixture(scope="module")
def gauge() -> FaceGauge:
    return FaceGauge(HeadModel.clay(), MotionLayout.arkit())


def answers_of(clips, change) -> dict[str, Motion]:
    return {clip.clip_id: replace(clip.truth, values=change(clip.truth.values)) for clip in clips}


def test_the_truth_is_no_error_and_as_lively_as_itself(clips, gauge):
    found = brief(clips, answers_of(clips, lambda values: values), gauge)
    expected = {name: 1.0 if name.endswith("ratio") else 0.0 for name in MEANINGS}
    del expected["frechet_expression_movement_per_channel"]  # 82 channels from 12 clips: a covariance of nobody
    assert found == pytest.approx(expected, abs=1e-6)


def test_half_the_movement_shows_as_half_the_speed_and_a_quarter_of_the_variance(clips, gauge):
    found = brief(clips, answers_of(clips, lambda values: values.mean(0) + (values - values.mean(0)) / 2), gauge)
    assert found["expression_variance_ratio"] == pytest.approx(0.25) == found["jaw_variance_ratio"]
    assert found["face_speed_ratio"] == pytest.approx(0.5, abs=0.02) == found["face_jerk_ratio"]
    assert found["head_speed_ratio"] == pytest.approx(0.5, abs=0.02)
    assert found["lip_vertex_error_max_mean_mm"] > 0.1 and found["frechet_head_movement_per_channel"] > 0.1
    assert "frechet_head_movement_per_channel" not in brief(clips[:11], answers_of(clips, torch.clone), gauge)


def test_what_was_not_measured_is_left_out(clips):
    blind = [MotionLayout.arkit().groups.index(group) for group in ("leye_pose", "reye_pose")]
    seen = []
    for clip in clips:
        valid = clip.truth.valid.clone()
        valid[:, blind] = False
        seen.append(replace(clip, truth=replace(clip.truth, valid=valid)))
    found = brief(seen, answers_of(clips, torch.clone), None)
    gaze = {name for name in MEANINGS if "gaze" in name}
    left_out = gaze | NEEDS_A_HEAD | {"frechet_expression_movement_per_channel"}
    assert gaze and found.keys() == MEANINGS.keys() - left_out


def test_the_beginning_of_an_exchange():
    exchange = small_exchange(0)
    early = beginning(exchange, 1.0)
    early.previous = early.responder  # which alone is cut
    early.check()
    assert early.end_s == 1.0 and early.responder.num_frames == round((1.0 - exchange.start_s) * FPS)
    assert np.array_equal(early.responder.waveform, exchange.responder.waveform[: len(early.responder.waveform)])
    assert beginning(exchange, 9.0).responder.num_frames == exchange.responder.num_frames and exchange.end_s == END_S
    assert answerable(early, early.layout) and not answerable(beginning(exchange, 0.3), early.layout)


# ---------------------------------------------------------------------------------------- in training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "talks", validation=3)


@pytest.fixture(scope="module")
def watched(dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    before = torch.random.get_rng_state()
    train(small_config(folder, dataset, "data.validation_answers=2", "training.validate_every=2"))
    assert torch.equal(torch.random.get_rng_state(), before)
    return folder


def validations(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation/motion" in line]


def figures(line: dict) -> dict[str, float]:
    return {name: line[f"validation/{name}"] for name in MEANINGS if f"validation/{name}" in line}


def test_answers_are_measured_at_every_validation(watched):
    found = [figures(line) for line in validations(watched)]
    assert [line["step"] for line in validations(watched)] == [2, 4, 6]
    assert all(each.keys() >= NEEDS_A_HEAD and np.isfinite(list(each.values())).all() for each in found)
    assert found[0] != found[1] != found[2]


def test_they_are_only_looked_at_and_their_failure_costs_a_warning(watched, tmp_path, capsys):
    few = write_dataset(tmp_path / "talks", validation=1)  # the same to train on
    train(small_config(tmp_path, few, "data.validation_answers=8"))
    assert "no answers at step 6" in (said := capsys.readouterr().err) and "at least 2 validation exchanges" in said
    assert not figures(validations(tmp_path)[0]) and (tmp_path / "run" / "pipeline" / "README.md").is_file()
    for name in ("model", "ema", "optimizer"):
        one, two = (load_file(folder / "run" / "checkpoints" / "step-00000006" / f"{name}.safetensors")
                    for folder in (watched, tmp_path))  # fmt: skip
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_figures_are_those_of_the_weights_that_are_kept(watched, dataset):
    config = load_config(watched / "run.yaml", ["data.validation_answers=2"])
    pipeline = DyadPipeline.from_pretrained(watched / "run" / "pipeline")
    answers = Answers(config.data, CPU)
    assert answers.figures(pipeline) == figures(validations(watched)[-1])
    assert answers.figures(pipeline) == figures(validations(watched)[-1])  # again, from what it has read


def test_a_card_shows_and_explains_them(watched, tmp_path):
    text = write_card(watched / "run" / "pipeline", watched / "run", out=tmp_path).read_text(encoding="utf-8")
    losses, answers = text.split("Answers to a few of these")
    assert "| motion |" in losses and "| jaw_variance_ratio |" in answers and "| motion |" not in answers
    assert MEANINGS["face_speed_ratio"] in answers


def test_faces_of_which_little_is_known(tmp_path, capsys):
    """A FLAME tracker without eyes that puts the neck into the head; one of the people is not heard."""
    options = {"basis": "flame2020", "groups": ("leye_pose", "reye_pose", "neck_pose"), "neck_folded": True}
    data = write_dataset(tmp_path / "talks", validation=0, **options)
    rows = [small_exchange(seed, split="validation", **options) for seed in range(4)]
    rows[0].responder.waveform = rows[0].responder.waveform[:0]
    write_shard(data / shard_name("validation", 0, 1), [to_row(row) for row in rows])
    train(small_config(tmp_path, data, "data.validation_answers=3", "training.max_steps=1"))
    assert "no answers" not in capsys.readouterr().err
    found = figures(validations(tmp_path)[0])
    assert set(found) == {"expression_error_rms", "head_rotation_error_mean_deg", "head_speed_ratio",
                          "expression_variance_ratio", "jaw_variance_ratio", "head_variance_ratio"}  # fmt: skip


def test_a_damaged_shard_is_passed_over_where_that_was_asked_for(watched, tmp_path):
    data = write_dataset(tmp_path / "talks", validation=3)
    (data / shard_name("validation", 1, 2)).write_bytes(b"PAR1 and nothing more")
    config = small_config(tmp_path, data, "data.validation_answers=2")
    pipeline = DyadPipeline.from_pretrained(watched / "run" / "pipeline")
    with pytest.raises(UserError, match="validation-00001-of-00002.parquet is damaged"):
        Answers(config.data, CPU).figures(pipeline)
    assert Answers(config.data.model_copy(update={"skip_corrupt": True}), CPU).figures(pipeline)


def test_one_answer_is_nothing_to_compare(tmp_path, dataset):
    with pytest.raises(UserError, match="validation_answers.*at least 2"):
        small_config(tmp_path, dataset, "data.validation_answers=1")
