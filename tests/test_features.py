"""Features: computed once and found again, or on the fly; pools that move over shards; pretrained encoders."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small_exchanges import small_config, small_exchange, write_dataset
from test_audio import save_backbone

from diffdyad.audio import SpeechEncoder
from diffdyad.cli import main
from diffdyad.config import StreamConfig
from diffdyad.context import ContextEncoder
from diffdyad.data import encoded, features, store
from diffdyad.data.columns import read_rows, replace_columns
from diffdyad.data.exchange import shards
from diffdyad.data.features import FeatureSettings
from diffdyad.data.filtering import rejected
from diffdyad.data.intake import Format, Shard
from diffdyad.data.pool import Files, Pool
from diffdyad.errors import UserError
from diffdyad.motion import MotionLayout, MotionStats
from diffdyad.training import train

ARKIT = Format(MotionLayout.arkit(), 25.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "talks", train=6, shards=3)


def build(dataset, cache, speech=None, **options):
    speech, context = speech or SpeechEncoder(), ContextEncoder(["audio", "motion"])
    return store.build(dataset, "train", cache, FeatureSettings.of(speech, context), ARKIT, workers=1, **options)


def same(one: features.ExchangeFeatures, two: features.ExchangeFeatures) -> bool:
    return (
        one.exchange_id == two.exchange_id
        and all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("motion", "valid", "speech"))
        and all(torch.equal(one.turn.features[name], two.turn.features[name]) for name in one.turn.features)
    )


# ---------------------------------------------------------------------------------------------- store


def test_what_is_stored_is_what_was_computed(dataset, tmp_path):
    items = [item for path in build(dataset, tmp_path) for item in store.read(path, dataset=3)]
    assert [item.exchange_id for item in items] == [f"e-{seed}" for seed in range(6)]
    assert {item.dataset for item in items} == {3}
    stats = MotionStats.for_layout(ARKIT.layout, 25.0)
    fresh = features.compute(small_exchange(4), SpeechEncoder(), ContextEncoder(["audio", "motion"]), stats)
    assert torch.equal(items[4].motion, fresh.motion) and items[4].valid.all() and not items[4].alone
    # FLAC keeps 16 bits of the sound, and the store 16 bits of its features
    assert torch.allclose(items[4].speech.float(), fresh.speech, atol=0.05, rtol=0.01)
    assert items[4].turn.features["motion"].shape == fresh.turn.features["motion"].shape == (7, 2 * 56)


def test_stopped_work_goes_on(dataset, tmp_path):
    paths = build(dataset, tmp_path)
    stamps = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    assert build(dataset, tmp_path) == paths and paths[1].exists()
    assert [path.stat().st_mtime_ns for path in (paths[0], paths[2])] == [stamps[0], stamps[2]]


def test_a_damaged_feature_file_is_named(dataset, tmp_path):
    path = build(dataset, tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=f"{path.name} is damaged.*delete it"):
        store.read(path)


# ----------------------------------------------------------------------------------------------- pool


def test_a_stream_moves_over_all_shards_and_depends_on_the_step_alone():
    pool = Pool(Files([[f"a{n}" for n in range(7)], ["b0", "b1"]]), StreamConfig(shards=3, steps=10), seed=4)
    seen, before = set(), None
    for step in range(0, 80, 10):
        members = pool.members(step)
        assert members == pool.members(step + 9) == Pool(pool.source, pool.stream, 4).members(step)
        assert len([m for m in members if m[0] == 0]) <= 3
        assert {m for m in members if m[0] == 1} == {(1, 0), (1, 1)}  # few enough to stay
        assert before is None or len(set(members) - before) <= 1  # one comes, one goes
        before = set(members)
        seen |= before
    assert {m for m in seen if m[0] == 0} == {(0, n) for n in range(7)}
    other = Pool(pool.source, pool.stream, 5)
    assert [other.members(step) for step in range(0, 80, 10)] != [pool.members(step) for step in range(0, 80, 10)]


def test_permuted_turns_are_all_anothers_and_the_same_in_every_run(dataset, tmp_path):
    paths = build(dataset, tmp_path)

    def turns(**options):
        items = Pool(Files([paths]), None, 4, **options).exchanges(0)
        return {item.exchange_id: item.turn.features["motion"].double().sum().item() for item in items}

    own, other = turns(), turns(permute_turns=True)
    assert own.keys() == other.keys() and len(set(own.values())) == len(own) > 1
    assert sorted(own.values()) == sorted(other.values()) and all(own[name] != other[name] for name in own)
    assert turns(permute_turns=True) == other


def test_what_filters_reject_is_left_out_however_old_the_features_are(dataset, tmp_path, capsys):
    folder = shutil.copytree(dataset, tmp_path / "dataset")
    first = f"data.cache={tmp_path / 'store'}"
    train(small_config(tmp_path / "all", folder, first))
    assert "left out" not in capsys.readouterr().err
    for path in shards(folder, "train"):  # as `data filter` does
        names = [row["exchange_id"] for row in read_rows(path, ["exchange_id"])]
        replace_columns(path, path, {"keep": [name != "e-4" for name in names]})
    assert list(rejected(shards(folder, "train"))) == ["e-4"]
    pool = Pool(Files([build(folder, tmp_path)]), None, 4, left_out=[{"e-4"}])
    assert {item.exchange_id for item in pool.exchanges(0)} == {f"e-{seed}" for seed in (0, 1, 2, 3, 5)}
    train(small_config(tmp_path / "kept", folder, first))
    said = capsys.readouterr().err
    assert "train: 1 exchanges are left out" in said and "data.keep_only=false" in said
    train(small_config(tmp_path / "again", folder, first, "data.keep_only=false"))
    assert "left out" not in capsys.readouterr().err
    everything, kept, again = (weights(tmp_path / name) for name in ("all", "kept", "again"))
    assert all(torch.equal(everything[name], again[name]) for name in again)
    assert not all(torch.equal(everything[name], kept[name]) for name in kept)


def weights(folder, step=6):
    return load_file(folder / "run" / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_on_the_fly_is_as_cached_and_keeps_nothing(dataset, tmp_path):
    train(small_config(tmp_path / "cached", dataset, f"data.cache={tmp_path / 'store'}"))
    train(small_config(tmp_path / "fly", dataset, "data.features=on_the_fly", f"data.cache={tmp_path / 'other'}"))
    one, two = weights(tmp_path / "cached"), weights(tmp_path / "fly")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "other").exists() and not (dataset / "features").exists()


def test_a_stream_that_was_interrupted_goes_on_to_the_same_weights(dataset, tmp_path):
    stream = ["data.stream={shards: 1, steps: 2}", f"data.cache={tmp_path / 'store'}"]
    train(small_config(tmp_path / "whole", dataset, *stream))
    train(small_config(tmp_path / "parts", dataset, *stream, "training.max_steps=2"))
    train(small_config(tmp_path / "parts", dataset, *stream))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


# ------------------------------------------------------------------------------- pretrained encoders


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return save_backbone(tmp_path_factory.mktemp("encoders") / "tiny-hubert")


def test_features_of_a_pretrained_encoder_are_computed_once(dataset, encoder, tmp_path, capsys):
    argv = ["data", "features", str(dataset), "--encoder", encoder, "--cache", str(tmp_path), "--workers", "1"]
    assert main(argv) == 0
    assert "4 shards (4 new)" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(files) == 4
    next(iter(files)).unlink()
    assert main(argv) == 0
    assert "4 shards (1 new)" in capsys.readouterr().out
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in files.items()) == 3


def test_they_are_keyed_by_encoder_revision_and_sound(dataset, encoder, tmp_path):
    speech, (path, *_) = SpeechEncoder(encoder), shards(dataset, "train")
    other = save_backbone(tmp_path / "tiny-hubert", seed=1)
    folders = [encoded.encoder_folder(tmp_path, SpeechEncoder(name, revision)) for name, revision in
               ((encoder, None), (other, None), ("some/hubert", None), ("some/hubert", "v2"))]  # fmt: skip
    assert len(set(folders)) == 4
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in path.parent.glob("*.parquet"):
        (moved / file.name).write_bytes(file.read_bytes())
    assert encoded.encode_shard(moved / path.name, tmp_path, speech) == encoded.encode_shard(path, tmp_path, speech)
    louder = write_dataset(tmp_path / "louder", train=2, first=40)
    assert encoded.sounds_key(Shard(shards(louder, "train")[0])) != encoded.sounds_key(Shard(path))


def test_training_learns_a_mix_of_the_layers_of_cached_features(dataset, encoder, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    assert main(["data", "features", str(dataset), "--encoder", encoder, "--cache", cache, "--workers", "1"]) == 0
    with monkeypatch.context() as patch:
        # whoever wanted the network now would not have it
        patch.setattr(SpeechEncoder, "_encode_hf", lambda *_: pytest.fail("encoded again"))
        train(small_config(tmp_path, dataset, f"speech.encoder={encoder}", f"data.cache={cache}",
                           "training.warmup_steps=0", "training.learning_rate=1e-2"))  # fmt: skip
    mix = weights(tmp_path)["speech_trunk.layer_logits"]
    assert len(mix) == 3 and mix.unique().numel() == 3  # three layers, each weighed for itself
    config = json.loads((tmp_path / "run" / "pipeline" / "speech_encoder" / "config.json").read_text())
    assert (config["num_layers"], config["num_channels"]) == (3, 16)


def test_a_pretrained_encoder_on_the_fly(dataset, encoder, tmp_path):
    speech, context = SpeechEncoder(encoder), ContextEncoder(["audio", "motion"])
    job = store.Job(shards(dataset, "train")[0], FeatureSettings.of(speech, context), ARKIT)
    tensors, index = store.shard_features(job)
    cached = store.read(build(dataset, tmp_path / "cache", speech)[0])
    for one, two in zip(features.unpack(tensors, index["exchanges"]), cached, strict=True):
        assert same(replace(one, turn=two.turn), two) and one.speech.shape[1:] == (3, 16)
        here, there = (item.turn.features["audio"].float() for item in (one, two))
        assert here.std() > 0.1 and torch.allclose(here, there, rtol=2e-3, atol=2e-3)  # rounded before pooling
    train(small_config(tmp_path, dataset, f"speech.encoder={encoder}", "data.features=on_the_fly",
                       "data.stream={shards: 1, steps: 3}", "training.max_steps=4"))  # fmt: skip
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()


@pytest.mark.parametrize(
    "argv, words",
    [
        (["{dataset}", "--encoder", "mel"], "mel features need no cache"),
        (["{dataset}", "--encoder", "no/such-encoder"], "no/such-encoder"),
        (["{tmp}", "--encoder", "{encoder}"], "parquet shards"),
        (["{dataset}"], "--encoder"),
        (["{dataset}", "--encoder", "{encoder}", "--workers", "0"], "--workers"),
    ],
)
def test_mistakes_of_the_command_are_one_line(dataset, encoder, tmp_path, capsys, argv, words):
    argv = [word.format(dataset=dataset, encoder=encoder, tmp=tmp_path) for word in argv]
    assert main(["data", "features", *argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
