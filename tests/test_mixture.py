"""Several datasets in one training: weights, sources, unknown channels, monologues, and two stages."""

import json

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file
from small_exchanges import small_config, small_exchange, write_dataset

from diffdyad.audio import SpeechEncoder
from diffdyad.config import ConditionConfig, load_config
from diffdyad.context import ABSENT, DROPPED, ContextEncoder
from diffdyad.data import features
from diffdyad.data.batches import ExchangeWindows, Mixture, keyed_generator
from diffdyad.data.intake import dataset_format, shared_format
from diffdyad.data.sides import motion_of
from diffdyad.errors import UserError
from diffdyad.motion import MotionLayout, MotionStats
from diffdyad.pipeline import DyadPipeline
from diffdyad.training import train

LIDS = MotionLayout("flame2020", 50, eyelids=True)
CALM = ConditionConfig(drop_modality=0, drop_context=0, drop_everything=0, onset=0, live=0)


def windows(exchanges, layout=None, conditions=CALM, mixture=Mixture(), modalities=("motion",)):  # noqa: B008
    """Windows over (exchange, index of its dataset)."""
    layout = layout or MotionLayout.arkit()
    stats, speech = MotionStats.for_layout(layout, 25.0), SpeechEncoder()
    context = ContextEncoder(list(modalities), widths=dict.fromkeys(modalities, 2 * layout.dim))
    items = []
    for exchange, dataset in exchanges:
        items.append(features.compute(exchange, speech, context, stats))
        items[-1].dataset = dataset
    return ExchangeWindows(items, speech, context, stats, conditions, mixture)


def draw(drawn: ExchangeWindows, count: int = 400):
    return drawn.batch([keyed_generator(1, 0, index) for index in range(count)], 30)


def test_weights_are_shares_of_the_examples():
    exchanges = [(small_exchange(0), 0), (small_exchange(1), 0), (small_exchange(2), 0), (small_exchange(3), 1)]
    natural = draw(windows(exchanges)).ids
    assert natural.count("e-3") / 400 == pytest.approx(0.25, abs=0.07)
    weighed = draw(windows(exchanges, mixture=Mixture((1.0, 3.0)))).ids
    assert weighed.count("e-3") / 400 == pytest.approx(0.75, abs=0.07)
    assert weighed.count("e-0") / 400 == pytest.approx(0.25 / 3, abs=0.05)


def test_the_network_is_told_the_source_at_times():
    exchanges = [(small_exchange(0), 0), (small_exchange(1), 1), (small_exchange(2), 2)]
    conditions = CALM.model_copy(update={"drop_source": 0.25})
    batch = draw(windows(exchanges, conditions=conditions, mixture=Mixture(sources=(1, 2, 0))))
    names, told = batch.ids, batch.conditions.source
    for name, source in (("e-0", 1), ("e-1", 2)):
        here = told[torch.tensor([n == name for n in names])]
        assert set(here.tolist()) == {0, source}
        assert (here == 0).float().mean().item() == pytest.approx(0.25, abs=0.1)
    assert not told[torch.tensor([n == "e-2" for n in names])].any()  # of this one there is nothing to tell
    assert batch.dropped["source"] == pytest.approx((told == 0).float().mean().item())
    assert "source" not in draw(windows(exchanges[:1]), 4).dropped


def test_another_source_leaves_the_rest_of_an_example_as_it_is():
    exchanges = [(small_exchange(0), 0), (small_exchange(1), 0)]
    one, two = draw(windows(exchanges), 8), draw(windows(exchanges, mixture=Mixture(sources=(3,))), 8)
    assert one.ids == two.ids and torch.equal(one.target, two.target) and torch.equal(one.noise, two.noise)
    assert not one.conditions.source.any() and two.conditions.source.any()


def test_speakers_of_two_datasets_are_two_people():
    """A style is another clip of the same person: not of a namesake in another dataset."""
    drawn = windows([(small_exchange(0), 0), (small_exchange(2), 1)])  # both are called bob-0
    assert not draw(drawn, 20).conditions.style_given.any()


# ------------------------------------------------------------------------------- channels and bases


def test_groups_that_were_not_measured_are_unknown_and_do_not_keep_the_start_from_being_given():
    blind = small_exchange(0, groups=("leye_pose", "reye_pose"))
    batch = draw(windows([(blind, 0)], conditions=CALM.model_copy(update={"prefix": 1.0})), 20)
    known = dict(zip(MotionLayout.arkit().groups, batch.valid[:, 0].T))
    assert not known["leye_pose"].any() and not known["reye_pose"].any() and known["expression"].all()
    assert batch.prefix.any(1).all()
    eyes = MotionLayout.arkit().slices["leye_pose"]
    assert not batch.target[..., eyes].any()


def test_a_dataset_without_eyelids_joins_one_with_them(tmp_path):
    with_lids = write_dataset(tmp_path / "lids", basis="flame2020", eyelids=True, train=2)
    without = write_dataset(tmp_path / "none", basis="flame2020", train=2)
    assert shared_format([with_lids, without]).layout == shared_format([without, with_lids]).layout == LIDS
    exchange = small_exchange(0, basis="flame2020")
    motion = motion_of(exchange, "responder", LIDS)
    column = LIDS.groups.index("eyelids")
    assert motion.layout == LIDS and not motion.valid[:, column].any() and motion.valid[:, 0].all()
    assert torch.equal(motion.select("jaw_pose"), exchange.motion("responder").select("jaw_pose"))


def test_a_folded_neck_is_not_a_neck_that_never_moves():
    motion = motion_of(small_exchange(0, neck_folded=True), "responder", MotionLayout.arkit())
    assert not motion.valid[:, motion.layout.groups.index("neck_pose")].any()
    assert motion.valid[:, motion.layout.groups.index("global_orient")].all()


def test_mixed_bases_are_refused_naming_both(tmp_path):
    one, two = write_dataset(tmp_path / "one", train=2), write_dataset(tmp_path / "two", train=2, basis="flame2020")
    with pytest.raises(UserError, match=r"arkit with 41 .*one.*flame2020 with 50 .*two"):
        shared_format([one, two])
    with pytest.raises(UserError, match="arkit.*flame2020"):
        train(small_config(tmp_path, one, f"data.datasets=[{{path: {one}}}, {{path: {two}}}]", "data.dataset=null"))


def test_an_exchange_of_another_basis_inside_a_dataset_is_refused(tmp_path):
    folder = write_dataset(tmp_path / "one", train=2, shards=2)
    write_dataset(tmp_path / "two", train=2, shards=2, basis="flame2020")
    name = "train-00001-of-00002.parquet"
    (tmp_path / "two" / name).replace(folder / name)
    with pytest.raises(UserError, match="expected motion in basis arkit.*found basis flame2020.*exchange e-1"):
        train(small_config(tmp_path, folder))


@pytest.mark.parametrize(
    "override, words",
    [
        ("data.datasets=[{path: a}]", "either `dataset` or `datasets`"),
        ("data.dataset=null", "either `dataset` or `datasets`"),
        ("data={datasets: [{path: a, weight: 1.0}, {path: b}]}", "a weight for every one"),
        ("data={datasets: [{path: a, weight: 0.0}]}", "data.datasets.0.weight"),
        ("data={datasets: [{path: a}], rehearse: {}}", "rehearse"),
        ("data={datasets: []}", "data.datasets"),
        ("data={datasets: [{folder: a}]}", "data.datasets.0"),
        ("data={dataset: a, features: on_the_fly, loader_workers: 2}", "loader_workers"),
        ("data={dataset: a, stream: {shards: 0}}", "data.stream.shards"),
    ],
)
def test_configs_that_contradict_themselves(tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        small_config(tmp_path, tmp_path / "a", override)


# ------------------------------------------------------------------------ monologues and two stages


def test_a_monologue_s_context_is_absent_not_dropped():
    batch = draw(windows([(small_exchange(0, alone=True), 0), (small_exchange(1), 0)]), 40)
    status = batch.conditions.context.status["motion"]
    alone = torch.tensor([name == "e-0" for name in batch.ids])
    assert (status[alone] == ABSENT).all() and (status[~alone] == 0).all()
    assert batch.absent == pytest.approx(alone.float().mean().item()) and batch.dropped["motion"] == 0
    withheld = draw(windows([(small_exchange(0, alone=True), 0)], conditions=ConditionConfig(drop_context=1.0)), 10)
    assert (withheld.conditions.context.status["motion"] == DROPPED).all()


def test_a_turn_of_which_nothing_was_recorded_is_not_absent():
    exchange = small_exchange(0)
    exchange.previous = small_exchange(0, alone=True).previous
    batch = draw(windows([(exchange, 0)]), 5)
    assert (batch.conditions.context.status["motion"] == DROPPED).all()


def test_two_stages(tmp_path):
    """Monologues first, exchanges then: what reads the context learns, the rest is kept, statistics carry over."""
    talks = write_dataset(tmp_path / "talks", train=3)
    alone = write_dataset(tmp_path / "alone", train=3, alone=True, first=20)
    train(small_config(tmp_path / "first", alone, "training.max_steps=2"))
    first = tmp_path / "first" / "run" / "pipeline"
    settings = [f"training.start_from={first}", "training.other_rate=0.0", "training.context_rate=2.0"]
    train(small_config(tmp_path / "second", talks, *settings))
    before, after = DyadPipeline.from_pretrained(first), DyadPipeline.from_pretrained(tmp_path / "second/run/pipeline")
    one = before.denoiser.state_dict()
    two = load_file(tmp_path / "second/run/checkpoints/step-00000006/model.safetensors")
    moved = {name for name in one if not torch.equal(one[name], two[name])}
    assert moved and all("context" in name or name == "forecast_in.weight" for name in moved)
    assert torch.equal(before.statistics.mean, after.statistics.mean)
    assert torch.equal(before.speech_encoder.mean, after.speech_encoder.mean)
    # the first stage never saw a turn: these are the exchanges'
    assert not before.context_encoder.motion_mean.any() and after.context_encoder.motion_mean.any()

    settings[0] = f"training.start_from={tmp_path / 'second/run/pipeline'}"
    train(small_config(tmp_path / "third", write_dataset(tmp_path / "more", train=3, first=60), *settings))
    third = DyadPipeline.from_pretrained(tmp_path / "third/run/pipeline")
    assert torch.equal(third.context_encoder.motion_mean, after.context_encoder.motion_mean)  # now they are the model's


def test_new_ears(tmp_path):
    """Speech is read by other features than the first stage's; what reads them learns, and nothing else."""
    talks = write_dataset(tmp_path / "talks", train=3)
    unheard = "context.modalities=[motion]"
    train(small_config(tmp_path / "first", talks, "training.max_steps=2", unheard))
    first = tmp_path / "first" / "run" / "pipeline"
    settings = [unheard, "speech.num_bands=24", "speech.normalise_voice=true", f"training.start_from={first}",
                "training.other_rate=0", "training.context_rate=0", "training.speech_rate=1"]  # fmt: skip
    with pytest.raises(UserError, match="reads other features.*num_bands"):
        train(small_config(tmp_path / "refused", talks, *settings))
    train(small_config(tmp_path / "second", talks, *settings, "training.new_speech=true"))
    before, after = DyadPipeline.from_pretrained(first), DyadPipeline.from_pretrained(tmp_path / "second/run/pipeline")
    assert before.speech_encoder.config["num_bands"] != 24 == after.speech_encoder.config["num_bands"]
    one = before.denoiser.state_dict()
    two = load_file(tmp_path / "second/run/checkpoints/step-00000006/model.safetensors")
    moved = {name for name in one if one[name].shape != two[name].shape or not torch.equal(one[name], two[name])}
    assert "speech_trunk.project.weight" in moved and all(name.startswith("speech_trunk.") for name in moved)
    assert torch.equal(before.statistics.mean, after.statistics.mean)
    with pytest.raises(UserError, match="new_speech.*expected `start_from`"):
        small_config(tmp_path, talks, "training.new_speech=true")


def test_a_first_stage_of_another_kind_is_refused(tmp_path, tiny_model):
    talks = write_dataset(tmp_path / "talks", train=2)
    start = f"training.start_from={tiny_model}"  # which takes prosody, too
    with pytest.raises(UserError, match="start_from .* reads other features.*modalities"):
        train(small_config(tmp_path, talks, start))
    with pytest.raises(UserError, match="start_from"):
        train(small_config(tmp_path, talks, start, "context.modalities=[audio, prosody, motion]", "model.width=16"))


def test_the_shipped_stages_fit_together():
    one, two = (load_config(REPOSITORY / "configs" / "stages" / name) for name in ("1-monologue.yaml", "2-dyadic.yaml"))
    assert two.training.start_from == f"{one.output}/pipeline"
    assert one.model == two.model and one.speech == two.speech and one.context == two.context
    assert two.training.other_rate < two.training.context_rate


def test_several_datasets_train_together(tmp_path):
    talks = write_dataset(tmp_path / "talks", train=3)
    alone = write_dataset(tmp_path / "alone", train=2, validation=0, alone=True, first=20)
    assert dataset_format(alone) == dataset_format(talks)
    entries = [f"{{path: {talks}, weight: 1.0, source: studio}}", f"{{path: {alone}, weight: 3.0, source: web}}"]

    def config(folder, *datasets, start="null"):
        return small_config(folder, talks, f"data.datasets=[{', '.join(datasets)}]", "data.dataset=null",
                            f"data.cache={tmp_path / 'cache'}", f"training.start_from={start}")  # fmt: skip

    pipeline = train(config(tmp_path / "one", *entries))
    assert json.loads((pipeline / "sources.json").read_text()) == ["studio", "web"]
    entries[0] = entries[0].replace("studio", "dyadic")
    later = train(config(tmp_path / "two", *entries, start=pipeline))
    # a source that the first stage knew keeps its embedding
    assert json.loads((later / "sources.json").read_text()) == ["studio", "web", "dyadic"]
