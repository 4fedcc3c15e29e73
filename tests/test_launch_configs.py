"""The launch configs are what Accelerate's own loader and launcher take."""

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from conftest import REPOSITORY

FOLDER = REPOSITORY / "configs" / "accelerate"
KINDS = {
    "one-machine.yaml": DistributedType.MULTI_GPU,
    "several-machines.yaml": DistributedType.MULTI_GPU,
    "fsdp.yaml": DistributedType.FSDP,
}


def test_these_are_all():
    assert {path.name for path in FOLDER.iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / name))  # which refuses unknown keys
    assert config.distributed_type == KINDS[name]
    assert config.num_processes % config.num_machines == 0
    assert (config.num_machines > 1) == (name == "several-machines.yaml")


@pytest.mark.parametrize("name", KINDS)
def test_the_launcher_takes_it(name):
    argv = ["--config_file", str(FOLDER / name), "train.py", "--config", "configs/rehearsal.yaml"]
    arguments, config, _ = _validate_launch_command(launch_command_parser().parse_args(argv))
    assert arguments.training_script == "train.py" and arguments.num_processes == config.num_processes
    assert arguments.use_fsdp == (name == "fsdp.yaml") and not arguments.use_cpu
    if arguments.use_fsdp:
        assert arguments.fsdp_version == 2


def test_fsdp_wraps_layers_that_exist():
    from diffdyad import layers

    names = yaml.safe_load((FOLDER / "fsdp.yaml").read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    assert all(hasattr(layers, name) for name in names.split(","))


def test_each_says_how_it_is_launched():
    for name in KINDS:
        text = (FOLDER / name).read_text()
        assert f"accelerate launch --config_file configs/accelerate/{name}" in text
