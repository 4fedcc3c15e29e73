"""The model card: what a pipeline is, on what it was trained, how well, and what may be done with it.

Written from the files of the pipeline and of its run alone: nothing in it depends on where they lie, and no
path of a machine gets into it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from diffdyad.data.exchange import shards
from diffdyad.errors import UserError
from diffdyad.evaluation.brief import MEANINGS
from diffdyad.journal import Log, read_log
from diffdyad.knob import card_section
from diffdyad.motion import MotionLayout
from diffdyad.staging import write_text
from diffdyad.traces import without_machine

CARD, CURVES, SETTINGS = "README.md", "curves.png", "training.yaml"
PLACEHOLDER = "USER/REPO"
"""Stands in a card for the repository, which is known when it is pushed."""

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_MOST_POINTS = 1000

FIGURES = {
    "motion": "mean squared error of the recovered motion, in standard deviations of its channels",
    "velocity": "the same of its change from frame to frame",
    "vertex": "mean squared distance of the face's vertices, mm²",
    "aperture": "mean squared error of the inner lips' opening, mm²",
    "forecast": "mean squared error of what the context alone makes one expect, in standard deviations",
    "speech_forecast": "mean squared error of what speech alone makes one expect, in standard deviations",
    "speech_aperture": "that of its lip opening, mm², less where the mouth is open",
    "context_gap": "how much `motion` rises when the context is withheld: what the context is worth",
}
"""What the losses of a validation mean; all are averages over noise levels, on exchanges that were not trained on."""

ANSWER_CURVES = ("lip_vertex_error_max_mean_mm", "expression_variance_ratio")
"""Figures of sampled answers that the picture shows: how near they are, and how lively."""


# -------------------------------------------------------------------------------------------- writing


def write_card(
    pipeline: str | os.PathLike,
    run: str | os.PathLike | None = None,
    license: str | None = None,
    description: str | None = None,
    out: str | os.PathLike | None = None,
) -> Path:
    """Writes README.md and, where the run has a log, curves.png into the pipeline's folder (or `out`).

    run: the folder of the training run with its log.jsonl and config.yaml; license, description: default to the
    run's own, of its section `card`. Returns the path of the card.

    Raises UserError where the folder is no pipeline.
    """
    pipeline, out = Path(pipeline), Path(out or pipeline)
    log = read_log(Path(run) / "log.jsonl") if run is not None else Log()
    settings = _settings(pipeline, run)
    panels = _panels(log)
    if panels:
        from diffdyad.export import plot_curves

        plot_curves(out / CURVES, panels)
    about = settings.get("card") or {}
    text = _text(
        pipeline, settings, log, license or about.get("license"), description or about.get("description") or "",
        bool(panels),
    )  # fmt: skip
    write_text(out / CARD, text)
    return out / CARD


def _settings(pipeline: Path, run: str | os.PathLike | None) -> dict[str, Any]:
    """The settings of the training, as they were resolved; {} where they are not there."""
    places = [pipeline / SETTINGS, *([Path(run) / "config.yaml"] if run is not None else [])]
    for place in places:
        try:
            values = yaml.safe_load(place.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(values, dict):
            return values
    return {}


def _panels(log: Log) -> dict[str, dict[str, tuple]]:
    panels: dict[str, dict[str, tuple]] = {}
    for name in ("loss", *FIGURES, *ANSWER_CURVES):
        curves = {"training": log.curves.get(name), "validation": log.curves.get(f"validation/{name}")}
        if found := {kind: _thin(*curve) for kind, curve in curves.items() if curve}:
            panels[name.replace("_", " ")] = found
    return panels


def _thin(steps: list[int], values: list[float]) -> tuple[list[float], list[float]]:
    """At most _MOST_POINTS points: means over stretches of a long curve."""
    stretch = -(-len(steps) // _MOST_POINTS)
    cut = [slice(first, first + stretch) for first in range(0, len(steps), stretch)]
    return tuple([sum(part) / len(part) for part in (numbers[s] for s in cut)] for numbers in (steps, values))


# --------------------------------------------------------------------------------------------- the text


def _text(pipeline: Path, settings: dict, log: Log, license: str | None, description: str, curves: bool) -> str:
    layout = _layout(pipeline)
    kind = "ARKit" if layout.basis == "arkit" else "FLAME"
    tags = ["talking-head", "dyadic-conversation", "listening-head", "diffusion", kind]
    front = {"library_name": "diffdyad", "tags": tags}
    if license:
        front = {"license": license, **front}
    name = Path(str(settings.get("output") or "")).name
    sections = [
        f"# {'diffdyad: ' + name if name else 'A diffdyad pipeline'}",
        " ".join(part for part in (description.strip(), _what(layout)) if part),
        "## Model\n\n" + _table(_model(pipeline, layout)),
        "## Data\n\n" + _data(settings.get("data") or {}),
        "## Training\n\n" + _training(settings, log),
        "## Figures\n\n" + _figures(log, curves),
        *card_section(pipeline),
        "## Use\n\n" + _USE,
        "## Limits\n\n" + _limits(settings, layout),
        "## License\n\n" + (f"`{license}`" if license else "None is given: ask the authors before you use it."),
    ]
    return with_front_matter("\n\n".join(sections) + "\n", front)


def _what(layout: MotionLayout) -> str:
    return (
        "From a voice, and from what is known of the previous speaker's turn, it generates how the answering person's "
        f"head moves: {layout.num_expression} expression coefficients in the basis `{layout.basis}`"
        f"{', the lids' if layout.eyelids else ''}, the head, the neck, the jaw and both eyes."
    )


def _model(pipeline: Path, layout: MotionLayout) -> dict[str, str]:
    denoiser, speech = _config(pipeline, "denoiser"), _config(pipeline, "speech_encoder")
    context, index = _config(pipeline, "context_encoder"), _json(pipeline / "model_index.json")
    count, dtype = _parameters(pipeline / "denoiser")
    modalities = list(context.get("modalities") or ())
    voice = _encoder(speech.get("name"), speech.get("revision"), speech.get("num_bands"))
    encoders = {"the voice": voice + " and chances of phones (pocketsphinx)" * bool(speech.get("phones"))}
    for modality in ("text", "affect"):
        if modality in modalities:
            named, revision = context.get(f"{modality}_encoder"), context.get(f"{modality}_revision")
            encoders[f"the context's {modality}"] = _encoder(named, revision)
    return {
        "expression basis": f"`{layout.basis}`, {layout.num_expression} coefficients",
        "channels": f"{layout.dim}: {', '.join(f'`{group}`' for group in layout.groups)}; rotations as axis-angle",
        "frames per second": f"{denoiser.get('fps', 25):g}",
        "context": f"{', '.join(modalities)}: any subset, or nothing; the last {context.get('longest_s', 20):g} s of "
                   f"the turn, {context.get('rate_hz', 5):g} cells per second" if modalities else "none",
        "encoders": "; ".join(f"{what}: {name}" for what, name in encoders.items()),
        "parameters": f"{count / 1e6:.1f} million, {dtype}" if count else "unknown",
        "sampling": f"{index.get('scheduler', ['', 'unknown'])[1]}, {index.get('num_inference_steps', '?')} steps",
    }  # fmt: skip


def _encoder(name: str | None, revision: str | None, num_bands: int | None = None) -> str:
    if name == "mel":
        return f"{num_bands or 64} mel bands"
    return f"`{without_machine(name or 'none')}`" + (f" at revision `{revision}`" if revision else "")


def _data(data: dict) -> str:
    lines = [_dataset(source, data.get("rehearse")) for source in _sources(data)] or ["The data are not known."]
    text = lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines)
    if window := data.get("window_s"):
        text += f"\n\nWindows of {window[0]:g} to {window[1]:g} s are drawn from whole exchanges, listening included."
    return text


def _sources(data: dict) -> list[dict]:
    """Every dataset of a config's section `data`: its `path`, and its `weight` where it has one."""
    several = [source for source in data.get("datasets") or () if source.get("path")]
    return several or ([{"path": data["dataset"]}] if data.get("dataset") else [])


def _dataset(source: dict, rehearse: dict | None) -> str:
    folder = Path(source["path"])
    text = f"`{folder.name}`."
    if source.get("weight"):
        text = f"`{folder.name}`, drawn with the weight {source['weight']:g}."
    made = _rehearsal(folder, rehearse)
    if made is not None:
        keys = ("hours", "seed", "effect", "reactive_share", "flite_share")
        known = ", ".join(f"{key.replace('_', ' ')} {made[key]:g}" for key in keys if key in made)
        text += (
            f" A rehearsal corpus ({known}): two synthetic voices speak written dialogues, their motion follows rules, "
            "and the affect of the previous turn has a planted effect on the answer. No real person is in it. People, "
            "voices and dialogues of its test split are in none of the training data."
        )
    return f"{text} {_count(folder)}".strip()


def _rehearsal(folder: Path, rehearse: dict | None) -> dict[str, Any] | None:
    """The settings of the synthetic corpus, where the data are one."""
    marker = folder / "rehearsal.json"
    return _json(marker).get("settings", {}) if marker.is_file() else rehearse


def _count(dataset: Path) -> str:
    """What the dataset's training split says of itself, where it is at hand."""
    columns = ["start_s", "end_s", "source", "license", "consent", "responder"]
    try:
        import pyarrow.parquet as parquet

        tables = (parquet.ParquetFile(path).read(columns=columns) for path in shards(dataset, "train"))
        rows = [row for table in tables for row in table.to_pylist()]
    except (UserError, OSError, ValueError, KeyError):
        return ""
    hours = sum(row["end_s"] - row["start_s"] for row in rows) / 3600
    text = f"{len(rows):,} training exchanges of {len({row['responder'] for row in rows}):,} people, {hours:.1f} h."
    for column, label in (("source", "Sources"), ("license", "Licenses of the data"), ("consent", "Consent")):
        named = Counter(without_machine(row[column]) for row in rows if row[column])
        if named:
            text += f" {label}: {', '.join(f'{value} ({count:,})' for value, count in named.most_common(20))}."
    return text


def _training(settings: dict, log: Log) -> str:
    training = settings.get("training") or {}
    if not training:
        return "The settings of the training are not known."
    rows = {
        "steps": f"{log.last_step or training.get('max_steps', '?'):,}",
        "examples per step": training.get("batch_size"),
        "learning rate": training.get("learning_rate"),
        "precision": training.get("mixed_precision"),
        "seed": training.get("seed"),
        "averaging": f"exponential, {training.get('ema_decay')}; the averaged weights are what is here",
    }
    conditions = settings.get("conditions") or {}
    dropped = {"drop_context": "all of the context", "drop_modality": "each modality of it", "drop_audio": "the voice",
               "drop_everything": "both"}  # fmt: skip
    shares = [f"{what} {conditions[key]:.0%}" for key, what in dropped.items() if key in conditions]
    if shares:
        rows["withheld in training"] = ", ".join(shares)
    if training.get("start_from"):
        rows["stage"] = "a later one: began from the weights of an earlier run"
        other = training.get("other_rate", 1)
        speech = other if training.get("speech_rate") is None else training["speech_rate"]
        context = training.get("context_rate", 1)
        rows["learning rate, times"] = (f"{speech:g} for what hears own speech, {context:g} for what reads the turn, "
                                        f"{other:g} for the rest")  # fmt: skip
    known = {name: str(value) for name, value in rows.items() if value is not None}
    return f"`accelerate launch train.py` with the settings in `{SETTINGS}`.\n\n{_table(known)}"


def _figures(log: Log, curves: bool) -> str:
    found = log.validation
    losses = {name: value for name, value in found.items() if name not in MEANINGS}
    answers = {name: value for name, value in found.items() if name in MEANINGS}
    text = "No validation was logged."
    if losses:
        text = "The last validation, on exchanges that were not trained on, averaged over noise levels:\n\n"
        text += _meant(losses, FIGURES)
    if answers:
        text += "\n\nAnswers to a few of these exchanges, compared with what the responders did:\n\n"
        text += _meant(answers, MEANINGS)
    return f"{text}\n\n![Curves of training and validation]({CURVES})" if curves else text


def _meant(found: dict[str, float], meanings: dict[str, str]) -> str:
    rows = [f"| {name} | {value:.4g} | {meanings.get(name, '')} |" for name, value in found.items()]
    return "\n".join(["| figure | found | meaning |", "|---|---|---|", *rows])


_USE = f"""    python sample.py --model {PLACEHOLDER} --audio answer.wav --context-audio question.wav

From Python:

    import torch
    from diffdyad.context import PreviousTurn
    from diffdyad.media import read_audio
    from diffdyad.pipeline import DyadPipeline

    pipeline = DyadPipeline.from_pretrained("{PLACEHOLDER}")
    output = pipeline(
        read_audio("answer.wav"),
        context=PreviousTurn(audio=read_audio("question.wav"), gap_s=0.2),
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    motion = output.motions[0]

At `guidance_scale` 0 the previous turn counts for nothing, at 1 as in training; more exaggerates it."""


def _limits(settings: dict, layout: MotionLayout) -> str:
    known = "It knows the people, languages and situations of its data, and no others."
    data = settings.get("data") or {}
    sources = _sources(data)
    if sources and all(_rehearsal(Path(source["path"]), data.get("rehearse")) is not None for source in sources):
        known = (
            "It has learnt a synthetic corpus' rules and knows no real person's reactions. Claims about human "
            "behaviour need training on real exchanges."
        )
    lines = [
        f"- {known}",
        f"- Its motion belongs to the basis `{layout.basis}` and drives no head in another one as it is.",
        "- A low loss does not say that a reaction is fitting; the context's effect wants a measurement of its own.",
        "- Motion of a real person can be used to deceive. Say that an answer is synthetic where you show one.",
    ]
    return "\n".join(lines)


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


# ----------------------------------------------------------------------------------------- front matter

_FRONT = re.compile(r"\A\ufeff?---\s*\n(.*?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def front_matter(text: str) -> dict[str, Any]:
    """The YAML mapping at the head of a card; {} where there is none. Raises UserError where it is not YAML."""
    found = _FRONT.match(text)
    try:
        values = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        raise UserError(f"expected YAML at the head of {CARD}, found {' '.join(str(error).split())[:200]}") from None
    return values if isinstance(values, dict) else {}


def with_front_matter(text: str, values: dict[str, Any]) -> str:
    """The text of a card with this at its head, in place of what was there."""
    body = _FRONT.sub("", text)
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n{body}"


# -------------------------------------------------------------------------------------------- the files


def _layout(pipeline: Path) -> MotionLayout:
    config = _config(pipeline, "statistics")
    try:
        return MotionLayout(config["basis"], int(config["num_expression"]), bool(config.get("eyelids")))
    except KeyError:
        raise UserError(f"expected a diffdyad pipeline in {pipeline}, found none with statistics") from None


def _config(pipeline: Path, part: str) -> dict[str, Any]:
    return _json(pipeline / part / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _parameters(folder: Path) -> tuple[int, str]:
    """How many numbers the weights of a folder hold, and of which kind most are, from the files' heads."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                counts[_DTYPES.get(tensor["dtype"], tensor["dtype"])] += math.prod(tensor["shape"])
    return sum(counts.values()), counts.most_common(1)[0][0] if counts else ""
