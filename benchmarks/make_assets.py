"""Makes what `assets/` carries out of a finished run of configs/rehearsal-context.yaml.

    python benchmarks/make_assets.py runs/rehearsal-context data/rehearsal [--knob report/knob.json]

default/: the trained pipeline in half precision, with its card; exchanges/: a few exchanges of the corpus'
test split, whose people, voices and dialogues are in none of the training data.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import yaml

from diffdyad.card import write_card
from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.knob import KNOB
from diffdyad.media import SAMPLING_RATE, encode_flac
from diffdyad.motion import save_motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.traces import without_machine

ASSETS = Path(__file__).resolve().parents[1] / "assets"
NUM_EXCHANGES = 3


def save_default(run: Path, knob: Path | None) -> None:
    pipeline = DyadPipeline.from_pretrained(run / "pipeline")
    pipeline.denoiser.half()
    target = ASSETS / "default"
    shutil.rmtree(target, ignore_errors=True)
    pipeline.save_pretrained(target, safe_serialization=True)
    if knob is not None:
        shutil.copyfile(knob, target / KNOB)
    write_card(target, run)
    # where the run lay is nobody's business
    settings = without_machine(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    (target / "training.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


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
    parser.add_argument("--knob", type=Path, help="what `diffdyad context` found about the run's pipeline")
    arguments = parser.parse_args()
    if arguments.only != "exchanges":
        save_default(arguments.run, arguments.knob)
    if arguments.only != "default":
        save_exchanges(arguments.corpus)
