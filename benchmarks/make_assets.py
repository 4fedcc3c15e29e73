"""Makes what `assets/` carries out of a finished run of configs/rehearsal.yaml.

    python benchmarks/make_assets.py runs/rehearsal data/rehearsal

default/: the trained pipeline in half precision, with its card; exchanges/: a few exchanges of the corpus'
test split, whose people, voices and dialogues are in none of the training data.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import yaml

from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.media import SAMPLING_RATE, encode_flac
from diffdyad.motion import save_motion
from diffdyad.pipeline import DyadPipeline

ASSETS = Path(__file__).resolve().parents[1] / "assets"
NUM_EXCHANGES = 3


def last_validation(run: Path) -> dict:
    """The last line of the log that has validation figures, with its step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation/motion" in line][-1]


def first_stage(config: dict) -> str:
    return ", from the weights of a first stage" if config["training"]["start_from"] else ""


def card(run: Path, corpus: Path, pipeline: DyadPipeline) -> str:
    config = yaml.safe_load((run / "config.yaml").read_text())
    made = json.loads((corpus / "rehearsal.json").read_text())
    figures = last_validation(run)
    size = sum(p.numel() for p in pipeline.denoiser.parameters()) / 1e6
    rows = "\n".join(f"| {k.removeprefix('validation/')} | {v:.4g} |" for k, v in figures.items() if "/" in k)
    return f"""---
license: {config["card"]["license"]}
library_name: diffdyad
tags: [talking head, FLAME, ARKit, dyadic conversation, diffusion]
---
# The embedded default of diffdyad

{config["card"]["description"]} Generates 41 ARKit expression coefficients, head, neck, jaw and both eyes at
{pipeline.fps:g} fps from a voice, and from what is known of the previous speaker's turn
({", ".join(pipeline.context_encoder.modalities)}; any subset, or nothing). {size:.1f} million parameters.

**Trained on** the rehearsal corpus alone: two synthetic voices speaking written dialogues, motion by rule, a planted
effect of the previous turn on the answer. No real person is in it. Settings of the corpus: `{json.dumps(made)}`.
Dialogue templates, voices and people of the test split, which the embedded exchanges come from, are in none of the
training data.

**Trained by** `accelerate launch train.py` with the settings in `training.yaml` beside this card{first_stage(config)}:
{figures["step"]} steps of {config["training"]["batch_size"]} windows of 4 to 6 s; the averaged weights, stored in half
precision.

| validation split | |
|---|---|
{rows}

`motion` and `velocity` are mean squares of standardised channels, averaged over noise levels; `vertex` and `aperture`
are square millimetres on the clay head; `context_gap` is how much `motion` rises when the context is withheld.

**It cannot** know real people's reactions: it has learnt the corpus' rules. Claims about human behaviour need
training on real exchanges.
"""


def save_default(run: Path, corpus: Path) -> None:
    pipeline = DyadPipeline.from_pretrained(run / "pipeline")
    text = card(run, corpus, pipeline)
    pipeline.denoiser.half()
    target = ASSETS / "default"
    shutil.rmtree(target, ignore_errors=True)
    pipeline.save_pretrained(target, safe_serialization=True)
    for path in target.rglob("*.json"):  # where the run lay is nobody's business
        values = json.loads(path.read_text())
        values.pop("_name_or_path", None)
        path.write_text(json.dumps(values, indent=2) + "\n")
    (target / "README.md").write_text(text, encoding="utf-8")
    shutil.copy(run / "pipeline" / "training.yaml", target / "training.yaml")


def score(exchange: Exchange) -> float:
    """How well an exchange shows what the model does: a clear feeling, an answer of some 6 seconds in words."""
    if exchange.response_kind != "verbal" or not exchange.previous.text or not 5 < exchange.end_s < 9:
        return -1.0
    if not 3 < -exchange.start_s < 10 or not (exchange.previous.text + exchange.responder.text).isascii():
        return -1.0
    return abs(exchange.valence) + 0.3 * abs(exchange.arousal)


def save_exchange(exchange: Exchange, folder: Path) -> None:
    folder.mkdir(parents=True)
    begin = round(-exchange.start_s * SAMPLING_RATE)
    end = round((exchange.previous_end_s - exchange.start_s) * SAMPLING_RATE)
    (folder / "responder.flac").write_bytes(encode_flac(torch.from_numpy(exchange.responder.waveform[begin:])))
    (folder / "previous.flac").write_bytes(encode_flac(torch.from_numpy(exchange.previous.waveform[:end])))
    motion = exchange.motion("previous")
    num_frames = round((exchange.previous_end_s - exchange.start_s) * exchange.fps)
    motion.values, motion.valid = motion.values[:num_frames], motion.valid[:num_frames]
    save_motion(folder / "previous_motion.npz", motion)
    words = [
        {"word": w.word, "start_s": round(w.start_s, 3), "end_s": round(w.end_s, 3)} for w in exchange.previous.words
    ]
    record = {
        "previous_text": exchange.previous.text, "responder_text": exchange.responder.text,
        "gap_s": round(exchange.gap_s, 3), "words": words, "exchange_id": exchange.exchange_id,
        "valence": round(exchange.valence, 3), "arousal": round(exchange.arousal, 3),
    }  # fmt: skip
    (folder / "exchange.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def save_exchanges(corpus: Path) -> None:
    shards = ExchangeShards(corpus, "test")
    exchanges = [shards[number] for number in range(min(len(shards), 300))]
    target = ASSETS / "exchanges"
    shutil.rmtree(target, ignore_errors=True)
    chosen = {
        "1-good-news": max(exchanges, key=lambda e: score(e) * (e.valence > 0)),
        "2-bad-news": max(exchanges, key=lambda e: score(e) * (e.valence < 0)),
        "3-small-talk": min(
            (e for e in exchanges if score(e) >= 0), key=lambda e: abs(e.valence) + abs(e.arousal) + 9 * e.reactive
        ),
    }
    for name, exchange in chosen.items():
        save_exchange(exchange, target / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("corpus", type=Path, help="folder of its corpus")
    parser.add_argument("--only", choices=("default", "exchanges"))
    arguments = parser.parse_args()
    if arguments.only != "exchanges":
        save_default(arguments.run, arguments.corpus)
    if arguments.only != "default":
        save_exchanges(arguments.corpus)
