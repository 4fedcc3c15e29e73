"""Datasets that cannot be trained on as they are: a clear line each."""

import pyarrow.parquet as parquet
import pytest
from small_exchanges import small_config, small_exchange, write_dataset

from diffdyad.cli import main
from diffdyad.data.exchange import shard_name, to_row, write_shard
from diffdyad.data.intake import NEEDED, CorruptShard, Shard
from diffdyad.errors import EXIT_PARTIAL, UserError
from diffdyad.training import train


def without(path, *columns: str) -> None:
    parquet.write_table(parquet.read_table(path).drop_columns(list(columns)), path)


@pytest.mark.parametrize("column", ["responder_audio", "basis", "previous_words", "start_s"])
def test_a_missing_column_is_named(tmp_path, column):
    dataset = write_dataset(tmp_path / "talks", train=2)
    path = dataset / shard_name("train", 0, 1)
    without(path, column)
    with pytest.raises(UserError, match=f"the column {column} in {path}") as caught:
        train(small_config(tmp_path, dataset, "data.skip_corrupt=true"))  # which a missing column is not
    assert "\n" not in str(caught.value)


def test_every_needed_column_is_one_that_a_dataset_has(tmp_path):
    dataset = write_dataset(tmp_path / "talks", train=1)
    assert set(NEEDED) <= set(parquet.read_schema(dataset / shard_name("train", 0, 1)).names)


def test_columns_of_unknown_channels_may_be_missing(tmp_path):
    dataset = write_dataset(tmp_path / "talks", train=1)
    path = dataset / shard_name("train", 0, 1)
    without(path, "responder_leye_pose", "previous_eyelids", "planted_nod_hz")
    motion = Shard(path)[0].motion("responder")
    assert not motion.valid[:, motion.layout.groups.index("leye_pose")].any() and motion.valid[:, 0].all()


def nothing_known(folder):
    """Exchanges whose trackers saw nobody."""
    folder.mkdir()
    for split in ("train", "validation"):
        exchange = small_exchange(0, split=split)
        exchange.responder.valid[:] = False
        write_shard(folder / shard_name(split, 0, 1), [to_row(exchange)])
    return folder


def test_without_a_usable_exchange(tmp_path):
    with pytest.raises(UserError, match="at least one usable exchange"):
        train(small_config(tmp_path, nothing_known(tmp_path / "blind")))


def test_empty_shards(tmp_path):
    dataset = write_dataset(tmp_path / "talks", train=1)
    for split in ("train", "validation"):
        path = dataset / shard_name(split, 0, 1)
        parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match=f"at least one exchange .*{dataset}"):
        train(small_config(tmp_path, dataset))


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def scramble(path) -> None:
    """The index at the end is whole, what it points to is not."""
    data = bytearray(path.read_bytes())
    for place in range(4000, len(data) - 30000, 97):
        data[place] ^= 0xFF
    path.write_bytes(data)


def garble_sound(path) -> None:
    rows = parquet.read_table(path)
    sound = rows.column("responder_audio").to_pylist()
    column = rows.schema.get_field_index("responder_audio")
    import pyarrow

    field = rows.schema.field(column)
    parquet.write_table(rows.set_column(column, field, pyarrow.array([b"no sound"] * len(sound), field.type)), path)


@pytest.mark.parametrize(
    "damage, features",
    [(truncate, "cached"), (scramble, "cached"), (garble_sound, "cached"), (garble_sound, "on_the_fly")],
)
def test_a_corrupt_shard_is_named_and_left_out_only_if_told_to(tmp_path, capsys, damage, features):
    dataset = write_dataset(tmp_path / "talks", train=6, shards=3)
    path = dataset / shard_name("train", 1, 3)
    damage(path)
    changes = ["training.max_steps=2", f"data.features={features}"]
    with pytest.raises(UserError, match=f"{path} is damaged.*data.skip_corrupt=true") as caught:
        train(small_config(tmp_path, dataset, *changes))
    assert "\n" not in str(caught.value)
    train(small_config(tmp_path, dataset, *changes, "data.skip_corrupt=true"))
    assert f"{path} is damaged" in capsys.readouterr().err
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()


def test_a_corrupt_first_shard_does_not_hide_the_layout(tmp_path):
    dataset = write_dataset(tmp_path / "talks", train=2, shards=2)
    truncate(dataset / shard_name("train", 0, 2))
    with pytest.raises(CorruptShard):
        train(small_config(tmp_path, dataset))
    train(small_config(tmp_path, dataset, "data.skip_corrupt=true", "training.max_steps=1"))


def test_features_of_a_dataset_with_a_corrupt_shard(tmp_path, capsys):
    from test_audio import save_backbone

    dataset = write_dataset(tmp_path / "talks", train=2, shards=2)
    truncate(dataset / shard_name("train", 1, 2))
    encoder = save_backbone(tmp_path / "encoder")
    assert main(["data", "features", str(dataset), "--encoder", encoder, "--workers", "1"]) == EXIT_PARTIAL
    message = capsys.readouterr().err
    assert "1 of 3 shards" in message and shard_name("train", 1, 2) in message
    assert len(list((dataset / "features").rglob("*.safetensors"))) == 2
