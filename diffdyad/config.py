"""The schema of `configs/*.yaml`, and where the package's own files lie.

The classes below ARE the schema: every key, its type, its bounds and its meaning. Unknown keys, wrong
types and impossible values are refused with one line that names the key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diffdyad.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def asset_path(name: str) -> Path:
    """A file or folder of `assets/`: inside an installed wheel, or at the root of a checkout."""
    return _find("assets", name)


def _find(folder: str, name: str) -> Path:
    places = [_PACKAGE / folder / name, _PACKAGE.parent / folder / name]
    for place in places:
        if place.exists():
            return place
    raise UserError(f"expected {folder}/{name} in the package, found none; reinstall diffdyad")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RehearseConfig(Section):
    """The synthetic corpus that is made where the dataset folder is absent; see docs/rehearsal.md."""

    hours: float = Field(1.0, gt=0, description="hours of exchanges")
    seed: int = Field(0, ge=0)
    effect: float = Field(1.0, ge=0, description="strength of the planted context effect; 0 = none")
    reactive_share: float = Field(0.25, ge=0, le=1, description="of the exchanges, in how many the responder reacts")
    flite_share: float = Field(0.0, ge=0, le=1, description="of the English people of training, how many speak with "
                               "Flite's voices, which must be installed")  # fmt: skip


class SourceConfig(Section):
    """One dataset among several."""

    path: str = Field(description="folder of a dataset of exchanges")
    weight: float | None = Field(None, gt=0, description="share of the examples, relative to others; none: by hours")
    source: str = Field("", description="dataset or tracker, as the network is told; empty: it is not")


class StreamConfig(Section):
    """Some shards of every dataset in memory at a time, in an order that depends on the seed alone."""

    shards: int = Field(8, ge=1, description="of each dataset, at once")
    steps: int = Field(100, ge=1, description="after so many the oldest shard makes room for the next")


class DataConfig(Section):
    dataset: str | None = Field(None, description="folder of a dataset of exchanges")
    datasets: list[SourceConfig] | None = Field(None, min_length=1, description="several, instead of `dataset`")
    rehearse: RehearseConfig | None = Field(None, description="make this corpus first where `dataset` is absent")
    cache: str | None = Field(None, description="folder for features; default: `features` beside the dataset")
    features: Literal["cached", "on_the_fly"] = Field(
        "cached", description="computed once and kept on disk, or whenever a shard comes into memory"
    )
    stream: StreamConfig | None = Field(None, description="none: all exchanges at hand, mapped from the disk")
    workers: int = Field(2, ge=1, description="processes that compute features")
    loader_workers: int = Field(0, ge=0, description="processes that make batches; 0: a thread of the training process")
    skip_corrupt: bool = Field(False, description="go on without shards that cannot be read")
    keep_only: bool = Field(True, description="leave out exchanges that the dataset's filters reject")
    permute_turns: bool = Field(False, description="every answer after another's turn, for a placebo: a model that "
                                "cannot have learnt what a turn does")  # fmt: skip
    window_s: tuple[float, float] = Field((4.0, 6.0), description="shortest and longest training window, seconds")
    validation_windows: int = Field(256, ge=1)
    validation_answers: int = Field(16, ge=0, description="sampled at every validation, and measured; 0: none")

    @property
    def sources(self) -> list[SourceConfig]:
        """All datasets, however they were given."""
        return self.datasets or [SourceConfig(path=self.dataset)]

    @model_validator(mode="before")
    @classmethod
    def _tuple(cls, values):
        # YAML has lists only
        if isinstance(values, dict) and isinstance(values.get("window_s"), list):
            values = {**values, "window_s": tuple(float(v) for v in values["window_s"])}
        return values

    @model_validator(mode="after")
    def _ordered(self):
        if not 0.4 <= self.window_s[0] <= self.window_s[1]:
            raise ValueError(f"window_s must rise from at least 0.4 s, found {list(self.window_s)}")
        if (self.dataset is None) == (self.datasets is None):
            raise ValueError("expected either `dataset` or `datasets`")
        if self.rehearse is not None and self.dataset is None:
            raise ValueError("`rehearse` makes the corpus of `dataset`; give that, and not `datasets`")
        if len({source.weight is None for source in self.sources}) > 1:
            raise ValueError("expected a weight for every one of `datasets`, or for none")
        if self.validation_answers == 1:
            raise ValueError("`validation_answers` are compared with the truth together: expected 0, or at least 2")
        if self.loader_workers and self.features == "on_the_fly":
            raise ValueError("`loader_workers` need `features: cached`: each would compute all features again")
        return self


class SpeechConfig(Section):
    encoder: str = Field("mel", description="`mel`, or a Hugging Face speech encoder")
    revision: str | None = None
    num_bands: int = Field(64, ge=8, le=256)
    normalise_voice: bool = Field(False, description="mel only: every clip by its own voice's mean and deviation")
    phones: bool = Field(False, description="mel only: what phones these may be, by pocketsphinx' acoustic model")
    warp: float = Field(0.0, ge=0, le=0.3, description="mel only, in training: most that formants are moved, a share")
    colour: float = Field(0.0, ge=0, le=2, description="mel only, in training: deviation of a random equaliser")
    contrast: float = Field(0.0, ge=0, le=0.5, description="mel only, in training: deviation of a factor on all bands")
    mask: float = Field(0.0, ge=0, le=0.5, description="mel only, in training: most of the bands that a mask covers")

    @model_validator(mode="after")
    def _mel(self):
        of_mel = ("normalise_voice", "phones", "warp", "colour", "contrast", "mask")
        if self.encoder != "mel" and any(getattr(self, name) for name in of_mel):
            raise ValueError(f"{', '.join(of_mel[:-1])} and {of_mel[-1]} are of the encoder mel; leave them out")
        return self


class ContextConfig(Section):
    modalities: list[Literal["audio", "prosody", "affect", "motion", "text"]] = ["audio", "prosody", "motion", "text"]
    rate_hz: float = Field(5.0, gt=0, le=25)
    longest_s: float = Field(20.0, gt=0, le=120)
    text_encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    text_revision: str | None = None
    affect_encoder: str | None = None
    affect_revision: str | None = None


class ModelConfig(Section):
    width: int = Field(256, ge=16)
    num_heads: int = Field(4, ge=1)
    depth: int = Field(6, ge=1)
    speech_depth: int = Field(3, ge=1)
    context_depth: int = Field(2, ge=1)
    speech_reach_s: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _heads(self):
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(f"width {self.width} must give each of {self.num_heads} heads an even size")
        return self


class NoiseConfig(Section):
    """Training noise, and the sampler that the checkpoint carries."""

    kind: Literal["diffusion", "flow"] = "diffusion"
    num_train_timesteps: int = Field(1000, ge=10)
    beta_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    flow_shift: float = Field(1.0, gt=0, description="timestep shift of flow matching")
    timestep_shift: float = Field(1.0, gt=0, description="over 1: training looks at high noise more often")
    num_inference_steps: int = Field(12, ge=1, description="default number of sampling steps")


class ConditionConfig(Section):
    """How often conditions are withheld in training; what is withheld is what guidance can use."""

    drop_modality: float = Field(0.15, ge=0, le=1, description="each context modality, independently")
    drop_context: float = Field(0.15, ge=0, le=1, description="all of the context")
    drop_cells: float = Field(0.1, ge=0, lt=1, description="each cell of the context, against learning turns by heart")
    context_noise: float = Field(0.0, ge=0, description="on the context, in deviations; against that, too")
    drop_everything: float = Field(0.05, ge=0, le=1, description="own audio and all of the context")
    drop_audio: float = Field(0.05, ge=0, le=1, description="own audio alone")
    drop_style: float = Field(0.3, ge=0, le=1)
    drop_source: float = Field(0.3, ge=0, le=1, description="which dataset it is from: sampling is not told")
    prefix: float = Field(0.5, ge=0, le=1, description="share of examples whose first frames are given")
    prefix_s: float = Field(1.2, gt=0, description="longest given prefix, seconds")
    prefix_noise: float = Field(0.1, ge=0, description="largest noise on given frames, in standard deviations")
    onset: float = Field(
        0.5, ge=0, le=1, description="share of windows that lie around the response's onset, where reactions are"
    )
    live: float = Field(0.3, ge=0, le=1, description="share of examples whose future is not yet heard")
    shortest_lookahead_s: float = Field(0.2, ge=0)


class LossConfig(Section):
    velocity: float = Field(1.0, ge=0)
    vertex: float = Field(0.02, ge=0, description="per square millimetre")
    aperture: float = Field(0.1, ge=0, description="per square millimetre of lip opening")
    forecast: float = Field(0.5, ge=0, description="of what the context alone makes one expect")
    speech_forecast: float = Field(0.3, ge=0, description="of what speech alone makes one expect")
    speech_aperture: float = Field(0.2, ge=0, description="per square millimetre, of the opening that speech alone "
                                   "makes one expect; wide open counts less")  # fmt: skip


class TrainingConfig(Section):
    seed: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1, description="examples per optimizer step, over all processes")
    accumulation_steps: int = Field(1, ge=1)
    max_steps: int = Field(10_000, ge=1)
    learning_rate: float = Field(4e-4, gt=0)
    warmup_steps: int = Field(300, ge=0)
    context_rate: float = Field(1.0, ge=0, description="learning rate of what reads the context, times this")
    other_rate: float = Field(1.0, ge=0, description="of everything else; 0 keeps a first stage's weights as they are")
    speech_rate: float | None = Field(None, ge=0, description="of what reads own speech; left out: `other_rate`")
    start_from: str | None = Field(None, description="folder of a trained pipeline whose weights are taken first")
    new_speech: bool = Field(False, description="with start_from: hear own speech by other features (`phones`, or any "
                             "without the context's `audio`), whose projection is learnt anew")  # fmt: skip
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="of the learning rate after the warm-up; the first two end at a twentieth"
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    compile: bool = Field(False, description="torch.compile the network; pays on a GPU")
    spike_factor: float = Field(
        10.0, ge=0, description="stop where the loss exceeds its running median so many times; 0: never"
    )
    spike_steps: int = Field(10, ge=1, description="for so many steps on end")
    checkpoint_every: int = Field(500, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    validate_every: int = Field(500, ge=1, description="steps")
    sample_every: int = Field(0, ge=0, description="steps between rendered samples in OUTPUT/samples; 0: none")
    log_every: int = Field(20, ge=1, description="steps")
    tracker: str | None = Field(None, description="one of Accelerate's, such as tensorboard or wandb, beside log.jsonl")

    @model_validator(mode="after")
    def _new(self):
        if self.new_speech and self.start_from is None:
            raise ValueError("`new_speech` is of a pipeline that is started from: expected `start_from`, found none")
        return self


class CardConfig(Section):
    """What the model card says and training cannot know."""

    license: str | None = None
    description: str = ""


class RunConfig(Section):
    """One training run."""

    output: str = Field(description="folder of checkpoints and of the trained pipeline")
    data: DataConfig
    speech: SpeechConfig = SpeechConfig()
    context: ContextConfig = ContextConfig()
    model: ModelConfig = ModelConfig()
    noise: NoiseConfig = NoiseConfig()
    conditions: ConditionConfig = ConditionConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    card: CardConfig = CardConfig()


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as a string and `no` as false; people mean a number, and mixed precision that is off."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$"),
    list("-+0123456789."),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file; `overrides` are `section.key=value` pairs, which win over the file.

    Raises UserError with one line that names the file, the key, what was expected and what was found.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from None
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"expected YAML in {path}, found {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"expected a mapping of sections in {path}, found {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"config {path}: {describe_first(error)}") from None


def _override(values: dict, override: str) -> None:
    key, sign, text = override.partition("=")
    names = key.strip().replace("-", "_").split(".")
    if not sign or not all(names):
        raise UserError(f"expected an override of the form section.key=value, found {override!r}")
    place = values
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise UserError(f"expected a section before {names[-1]!r} in the override {override!r}")
    try:
        place[names[-1]] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise UserError(f"expected a YAML value after = in the override {override!r}") from None


def describe_first(error: ValidationError) -> str:
    """The first problem of a validation as one line."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "the config"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{more}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, found {first['input']!r}{more}"


def save_config(config: RunConfig, path: str | Path) -> None:
    """Writes the resolved config, defaults included, as YAML."""
    Path(path).write_text(as_yaml(config), encoding="utf-8")


def as_yaml(config: RunConfig) -> str:
    """The resolved config, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
