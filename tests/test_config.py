from pathlib import Path

import pytest

from diffdyad.config import load_config, save_config
from diffdyad.errors import UserError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
MINIMAL = "output: runs/x\ndata: {dataset: data/x}\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configs_are_valid_and_survive_a_round_trip(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_exponents_without_a_point_are_numbers(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL + "training: {learning_rate: 1e-4}")
    assert load_config(path).training.learning_rate == 1e-4
    assert load_config(path, ["training.learning-rate=2e-3"]).training.learning_rate == 2e-3


def test_no_is_a_word_and_false_is_not(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL + "training: {mixed_precision: bf16, compile: True}")
    resolved = load_config(path, ["training.mixed_precision=no", "training.compile=false"]).training
    assert resolved.mixed_precision == "no" and load_config(path).training.compile is True and not resolved.compile


@pytest.mark.parametrize(
    "text, words",
    [
        ("training: {learning_rat: 0.1}", "training.learning_rat"),
        ("training: {batch_size: many}", "training.batch_size.*many"),
        ("training: {batch_size: 2.5}", "training.batch_size.*2.5"),
        ("training: {batch_size: true}", "training.batch_size"),
        ("training: {learning_rate: -1.0}", "training.learning_rate.*-1.0"),
        ("noise: {kind: magic}", "noise.kind.*magic"),
        ("model: {width: 100, num_heads: 3}", "model.*100.*3"),
        ("context: {modalities: [smell]}", "context.modalities.*smell"),
        ("training: [", "YAML"),
        ("nonsense: 1", "nonsense"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL + text)
    with pytest.raises(UserError, match=words) as caught:
        load_config(path)
    assert "\n" not in str(caught.value) and "c.yaml" in str(caught.value)


def test_missing_file_and_missing_key(tmp_path):
    with pytest.raises(UserError, match="nowhere.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    (tmp_path / "c.yaml").write_text("output: x")
    with pytest.raises(UserError, match="'data' is missing"):
        load_config(tmp_path / "c.yaml")


def test_window_must_rise(tmp_path):
    (tmp_path / "c.yaml").write_text("output: x\ndata: {dataset: d, window_s: [6.0, 4.0]}")
    with pytest.raises(UserError, match="window_s"):
        load_config(tmp_path / "c.yaml")
