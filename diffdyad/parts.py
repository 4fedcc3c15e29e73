"""What a training run is built from, out of its config: data, statistics, encoders and the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad.audio import SpeechEncoder
from diffdyad.config import RunConfig, TrainingConfig
from diffdyad.context import ContextEncoder, PreviousTurn
from diffdyad.data import intake, store
from diffdyad.data.batches import ExchangeWindows, Mixture
from diffdyad.data.disguise import Disguise
from diffdyad.data.encoded import weights_of
from diffdyad.data.exchange import shards
from diffdyad.data.features import ExchangeFeatures, FeatureSettings
from diffdyad.data.filtering import rejected
from diffdyad.data.pool import Files, OnTheFly, Pool
from diffdyad.denoiser import OF_SPEECH_FEATURES, MotionDenoiser
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import Motion, MotionLayout, MotionStats
from diffdyad.objective import VertexLoss, aperture_jacobian
from diffdyad.pipeline import DyadPipeline
from diffdyad.text import TimedWord

SOURCES = "sources.json"
"""Of a pipeline that was told sources: their names, in the order of the network's embeddings from the second on."""

_MOST_SOURCES = 7  # that the network tells apart; 0 is "not told"
_SPEECH_FITTED_ON = 2000  # exchanges, of a pretrained encoder: all of them may be a terabyte


@dataclass
class Parts:
    """sources: names of the network's source embeddings, from the second on; nature: what a checkpoint must agree on,
    by config key."""

    denoiser: MotionDenoiser
    stats: MotionStats
    speech: SpeechEncoder
    context: ContextEncoder
    train: Pool
    validation: ExchangeWindows
    vertex_loss: VertexLoss | None
    num_exchanges: int
    sources: list[str]
    nature: dict[str, object]

    def statistics(self) -> dict[str, Tensor]:
        """All of the corpus that the weights were trained to read, for a checkpoint."""
        return {
            f"{name}/{key}": value
            for name, part in (("motion", self.stats), ("speech", self.speech), ("context", self.context))
            for key, value in part.state_dict().items()
        }


@dataclass(frozen=True)
class Saved:
    """What a checkpoint says of the parts: their nature, where it knows it, the statistics, likewise, and sources."""

    where: Path
    step: int
    sources: Sequence[str]
    nature: Mapping[str, object] | None
    statistics: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Surroundings:
    """Where a run takes place. first: the main process goes first inside; warn: told of what is passed over."""

    device: torch.device
    is_main: bool
    first: Callable[[], AbstractContextManager]
    warn: Callable[[str], None]


def build(config: RunConfig, around: Surroundings, saved: Saved | None = None) -> Parts:
    """Builds the parts; those of a checkpoint are given its statistics rather than the data's.

    Raises UserError for what config, data or checkpoint get wrong.
    """
    folders = [source.path for source in config.data.sources]
    form = intake.shared_format(folders, config.data.skip_corrupt)
    layout, fps = form.layout, form.fps
    speech = SpeechEncoder(
        config.speech.encoder, config.speech.revision, fps=fps, num_bands=config.speech.num_bands,
        normalise_voice=config.speech.normalise_voice, phones=config.speech.phones,
    )  # fmt: skip
    wanted = config.context
    settings = {
        "modalities": list(wanted.modalities), "rate_hz": wanted.rate_hz, "longest_s": wanted.longest_s, "fps": fps,
        "text_encoder": wanted.text_encoder, "text_revision": wanted.text_revision,
        "affect_encoder": wanted.affect_encoder, "affect_revision": wanted.affect_revision,
    }  # fmt: skip
    context = ContextEncoder(**settings)
    nature = _nature(config, form)
    if saved is not None and saved.nature is not None:
        _check_nature(saved, nature)
    sources = _sources(config, saved)
    train, validation = _pools(config, form, FeatureSettings.of(speech, context), around)
    restored = saved is not None and saved.statistics is not None
    exchanges = train.exchanges(saved.step if restored else 0)

    stats = MotionStats.for_layout(layout, fps)
    head = HeadModel.clay() if layout.basis == "arkit" else None
    if restored:
        stats, speech, context = _restored(saved, stats, speech, settings)
        widths = dict(context.config["widths"])
    else:
        _fit_motion(stats, exchanges)
        few = 1 if speech.config["name"] == "mel" else max(1, len(exchanges) // _SPEECH_FITTED_ON)
        speech.fit(exchange.speech.float() for exchange in exchanges[::few])
        widths = _context_widths(context, exchanges, speech, stats)
        context = ContextEncoder(**settings, widths=widths).fit(exchange.turn for exchange in exchanges)
        if head is not None:
            stats.aperture_jacobian.copy_(aperture_jacobian(head, layout, stats))
    wanted = any((config.loss.vertex, config.loss.aperture, config.loss.speech_aperture))
    vertex_loss = VertexLoss(head, layout).to(around.device) if head is not None and wanted else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)  # the initial weights; put back on leaving
        denoiser = MotionDenoiser(
            motion_dim=layout.dim, fps=fps, speech_width=speech.num_channels, speech_layers=speech.num_layers,
            context_widths=widths, **config.model.model_dump(),
        )
    if config.training.start_from and not restored:
        stats, speech, context = _start_from(config.training, denoiser, (stats, speech, context))
    make = partial(
        ExchangeWindows, speech=speech, context=context, stats=stats, conditions=config.conditions,
        mixture=_mixture(config, sources),
        disguise=Disguise(config.speech.warp, config.speech.colour, config.speech.contrast, config.speech.mask),
    )  # fmt: skip
    train.make = make
    return Parts(
        denoiser, stats, speech, context, train, make(validation), vertex_loss, len(exchanges), sources, nature
    )


# --------------------------------------------------------------------------------------------- data


def _sources(config: RunConfig, saved: Saved | None) -> list[str]:
    """Names of the sources: those that a checkpoint or the first stage knows keep their places."""
    known: Sequence[str] = ()
    if saved is not None:
        known = saved.sources
    elif config.training.start_from:
        path = Path(config.training.start_from) / SOURCES
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ()
    names = list(dict.fromkeys([*known, *(source.source for source in config.data.sources if source.source)]))
    if len(names) > _MOST_SOURCES:
        raise UserError(
            f"expected at most {_MOST_SOURCES} different sources in data.datasets, found {len(names)}: "
            f"{', '.join(names)}"
        )
    return names


def _mixture(config: RunConfig, names: Sequence[str]) -> Mixture:
    sources = config.data.sources
    told = any(source.source for source in sources)
    return Mixture(
        tuple(source.weight for source in sources if source.weight is not None),
        tuple(1 + names.index(source.source) if source.source else 0 for source in sources) if told else (),
    )


def _pools(
    config: RunConfig, form: intake.Format, settings: FeatureSettings, around: Surroundings
) -> tuple[Pool, Sequence[ExchangeFeatures]]:
    """The exchanges to train on, and those to validate on."""
    found = {}
    for split in ("train", "validation"):
        make = _cached if config.data.features == "cached" else _on_the_fly
        found[split] = make(config, split, form, settings, around)
    permute = config.data.permute_turns
    left_out = {split: _rejected(config, split, around) for split in found}
    train = Pool(found["train"], config.data.stream, config.training.seed, permute, left_out["train"])
    validation = Pool(found["validation"], None, config.training.seed, permute, left_out["validation"])
    exchanges = validation.exchanges(0)
    validation.close()
    return train, exchanges


def _shards(config: RunConfig, split: str) -> list[list[Path]]:
    """The files of each dataset; of several, some may have nothing to validate on."""
    found = []
    for source in config.data.sources:
        try:
            found.append(shards(source.path, split))
        except UserError:
            if split == "train" or not config.data.datasets:
                raise
            found.append([])
    if not any(found):
        raise UserError(f"expected parquet shards of the split {split!r} in one of data.datasets, found none")
    return found


def _rejected(config: RunConfig, split: str, around: Surroundings) -> list[set[str]]:
    """Ids of the exchanges of each dataset that its filters reject, as they are now, not when features were made."""
    if not config.data.keep_only:
        return [set() for _ in config.data.sources]
    found = []
    for source, paths in zip(config.data.sources, _shards(config, split)):
        found.append(ids := set(rejected(paths, config.data.skip_corrupt)))
        if ids and around.is_main:
            around.warn(f"{source.path}, {split}: {len(ids)} exchanges are left out, as the dataset's filters reject "
                        "them (data.keep_only=false takes them, too)")  # fmt: skip
    return found


def _cached(config: RunConfig, split: str, form: intake.Format, settings: FeatureSettings, around: Surroundings):
    data, files = config.data, []
    for source, there in zip(data.sources, _shards(config, split)):
        if not there:
            files.append([])
            continue
        cache = data.cache or Path(source.path) / "features"
        shared = data.cache is not None and data.datasets is not None
        bar = tqdm(desc=f"features, {split}", unit="shard", disable=not around.is_main)
        with around.first(), bar:
            files.append(store.build(
                source.path, split, cache, settings, form, data.workers, data.skip_corrupt, shared, around.warn,
                partial(_show, bar),
            ))  # fmt: skip
    return Files(files)


def _on_the_fly(config: RunConfig, split: str, form: intake.Format, settings: FeatureSettings, around: Surroundings):
    jobs = [[store.Job(path, settings, form) for path in there] for there in _shards(config, split)]
    if split == "validation" and config.data.stream is not None:
        jobs = [there[: config.data.stream.shards] for there in jobs]
    return OnTheFly(jobs, config.data.workers, config.data.skip_corrupt, around.warn)


def _show(bar: tqdm, done: int, count: int) -> None:
    bar.total = count
    bar.update(done - bar.n)


# --------------------------------------------------------------------------------------- statistics


def _fit_motion(stats: MotionStats, exchanges: Sequence[ExchangeFeatures]) -> None:
    """Mean and deviation over the valid entries of each channel."""
    count = total = squares = 0.0
    for exchange in exchanges:
        known = stats.layout.group_to_channels(exchange.valid).double()
        values = exchange.motion.double() * known
        count, total, squares = count + known.sum(0), total + values.sum(0), squares + (values * values).sum(0)
    count = torch.as_tensor(count).clamp_min(1)
    mean = total / count
    stats.fit(mean, (squares / count - mean**2).clamp_min(0).sqrt())


def _context_widths(
    context: ContextEncoder, exchanges: Sequence[ExchangeFeatures], speech: SpeechEncoder, stats: MotionStats
) -> dict[str, int]:
    """Features per cell of every modality, as found; in monologues alone, as the encoders make them."""
    modalities, widths = context.modalities, {}
    for exchange in exchanges:
        for name, cells in exchange.turn.features.items():
            widths.setdefault(name, cells.shape[-1])
        if len(widths) == len(modalities):
            break
    if all(exchange.alone for exchange in exchanges):
        turn = _some_turn(stats.layout, stats.config.fps)
        widths = {n: c.shape[-1] for n, c in context.raw_features(context.taken(turn), speech, stats).features.items()}
    missing = [name for name in modalities if name not in widths]
    if missing:
        raise UserError(
            f"the config asks for the context modalities {', '.join(missing)}, which no exchange of the dataset has; "
            "take them out of context.modalities"
        )
    return {name: widths[name] for name in modalities}


def _some_turn(layout: MotionLayout, fps: float) -> PreviousTurn:
    """A second of everything: what the encoders make of it has the widths of any other turn."""
    motion = Motion(torch.zeros(round(fps), layout.dim), layout, fps)
    return PreviousTurn(torch.zeros(16000), motion, "yes", [TimedWord("yes", -0.8, -0.4)])


def _restored(
    saved: Saved, stats: MotionStats, speech: SpeechEncoder, settings: dict
) -> tuple[MotionStats, SpeechEncoder, ContextEncoder]:
    """The parts with a checkpoint's statistics: the weights were trained to read these, whatever the data have now."""
    held: dict[str, dict[str, Tensor]] = {"motion": {}, "speech": {}, "context": {}}
    for key, value in saved.statistics.items():
        part, _, name = key.partition("/")
        held[part][name] = value
    layers, channels = held["speech"]["mean"].shape
    options = {k: v for k, v in speech.config.items() if not k.startswith("_")}
    speech = SpeechEncoder(**{**options, "num_layers": layers, "num_channels": channels})
    widths = {name: len(held["context"][f"{name}_mean"]) for name in settings["modalities"]}
    context = ContextEncoder(**settings, widths=widths)
    for part, name in ((stats, "motion"), (speech, "speech"), (context, "context")):
        part.load_state_dict(held[name])
    return stats, speech, context


# ------------------------------------------------------------------------------------ what was before


def _nature(config: RunConfig, form: intake.Format) -> dict[str, object]:
    """What weights and statistics depend on, by config key."""
    layout, encoder = form.layout, config.speech.encoder
    if weights := weights_of(encoder):
        encoder = f"{Path(encoder).name} ({weights})"  # wherever its folder lies
    found = {
        "basis": layout.basis, "num_expression": layout.num_expression, "eyelids": layout.eyelids, "fps": form.fps,
        "speech.encoder": encoder, "speech.revision": config.speech.revision,
        "speech.num_bands": config.speech.num_bands, "speech.normalise_voice": config.speech.normalise_voice,
        "speech.phones": config.speech.phones,
        **{f"context.{key}": value for key, value in config.context.model_dump().items()},
        **{f"model.{key}": value for key, value in config.model.model_dump().items()},
    }  # fmt: skip
    return json.loads(json.dumps(found))


def _check_nature(saved: Saved, nature: Mapping[str, object]) -> None:
    for key in sorted(nature.keys() & saved.nature.keys()):
        if nature[key] != saved.nature[key]:
            raise UserError(
                f"the checkpoint {saved.where} is of another layout: {key} is {saved.nature[key]!r} there and "
                f"{nature[key]!r} here; change it back, or give another output"
            )


Read = tuple[MotionStats, SpeechEncoder, ContextEncoder]


def _start_from(training: TrainingConfig, denoiser: MotionDenoiser, fitted: Read) -> Read:
    """Takes a first stage's weights, and the statistics that these were trained to read.

    Context statistics that the first stage never fitted, since it saw no previous turn, are those of the data. So is
    the speech encoder with `new_speech`; of the weights, those that fit its features alone stay as they are drawn.
    """
    folder = training.start_from
    first = DyadPipeline.from_pretrained(folder)
    stats, context = first.statistics, first.context_encoder
    speech = fitted[1] if training.new_speech else first.speech_encoder
    theirs, ours = FeatureSettings.of(first.speech_encoder, context), FeatureSettings.of(*fitted[1:])
    if training.new_speech:  # the previous turn's voice is heard as it was
        free = {"phones", "num_channels"} if "audio" in context.modalities else ours.speech_encoder.keys()
        theirs.speech_encoder.update({k: v for k, v in ours.speech_encoder.items() if k in free})
    for here, there in ((ours.speech_encoder, theirs.speech_encoder), (ours.context_encoder, theirs.context_encoder)):
        for key in sorted(here.keys() & there.keys()):
            same_weights = key == "name" and weights_of(here[key]) and weights_of(here[key]) == weights_of(there[key])
            if json.dumps(here[key]) != json.dumps(there[key]) and not same_weights:
                raise UserError(
                    f"training.start_from {folder} reads other features than the config asks for: {key} is "
                    f"{there[key]!r} there and {here[key]!r} here"
                )
    if stats.layout != fitted[0].layout:
        raise UserError(
            f"training.start_from {folder} is of another layout: {stats.layout} there, {fitted[0].layout} here"
        )
    weights = first.denoiser.state_dict()
    if training.new_speech:
        weights |= {k: v for k, v in denoiser.state_dict().items() if k.startswith(OF_SPEECH_FEATURES)}
    try:
        denoiser.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"training.start_from {folder} is of another layout than the config ({str(error).splitlines()[0]})"
        ) from None
    for name in context.modalities:
        mean, std = (getattr(context, f"{name}_{part}") for part in ("mean", "std"))
        if not mean.any() and bool((std == 1).all()):
            mean.copy_(getattr(fitted[2], f"{name}_mean"))
            std.copy_(getattr(fitted[2], f"{name}_std"))
    return stats, speech, context


def check_folders(config: RunConfig) -> None:
    """Raises UserError where there is no dataset, and none is to be made, or no first stage to start from."""
    first = config.training.start_from
    if first is not None and not Path(first).is_dir() and first.count("/") != 1:  # USER/REPO is one of the Hub
        raise UserError(f"training.start_from: expected the folder of a trained pipeline, found none at {first}")
    for source in config.data.sources:
        if config.data.rehearse is None and not any(Path(source.path).glob("train-*.parquet")):
            raise UserError(f"expected a dataset of exchanges in {source.path}, found none; see `diffdyad data --help`")


def make_dataset(config: RunConfig) -> None:
    """Makes the rehearsal corpus, or goes on making it; a finished one is left as it is."""
    if config.data.rehearse is None:
        return
    from diffdyad.data.rehearsal.corpus import rehearse

    wanted = config.data.rehearse
    rehearse(config.data.dataset, **wanted.model_dump())
