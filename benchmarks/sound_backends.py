"""CPU time of the networks behind `words: whisper`, `tags: ast`, `affect`, `separation: asteroid` and `face_affect`,
one core, as JSON: of the published sizes, with random weights (time does not depend on them). Nothing is downloaded."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
import transformers

WHISPER = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12), "medium": (1024, 24, 16)}
BLOCK_S, TOKENS, WINDOW_S = 25.0, 20, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    others = {"ast": ast, "affect": affect, "separation": separation, "face_affect": face_affect}
    known, usual = [*WHISPER, *others], ["tiny", "small", *others]
    parser.add_argument("what", nargs="*", default=usual, help=f"among {', '.join(known)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for what in arguments.what:
        found = others.get(what, lambda what=what: whisper(what))()
        print(json.dumps({what: {key: round(value, 3) for key, value in found.items()}}), flush=True)


def whisper(size: str) -> dict[str, float]:
    width, layers, heads = WHISPER[size]
    model = random_network(transformers.WhisperForConditionalGeneration, transformers.WhisperConfig(
        vocab_size=51865, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
    ))  # fmt: skip
    extractor = transformers.WhisperFeatureExtractor()
    features = extractor(noise(BLOCK_S), sampling_rate=16000, return_tensors="pt")["input_features"]
    encoded, encoder_s = timed(lambda: model.get_encoder()(features))
    count = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    _, decoder_s = timed(lambda: model.generate(encoder_outputs=encoded, num_beams=1, do_sample=False, **count))
    return {"encoder_s_per_block": encoder_s, "decoder_s_per_token": decoder_s / TOKENS}


def ast() -> dict[str, float]:
    model = random_network(transformers.ASTForAudioClassification, transformers.ASTConfig(num_labels=527))
    features = transformers.ASTFeatureExtractor()([noise(WINDOW_S)] * 2, sampling_rate=16000, return_tensors="pt")
    _, seconds = timed(lambda: model(features["input_values"]))
    return {"s_per_window": seconds / 2}


def affect() -> dict[str, float]:
    """wav2vec2-base, windows of 2 s."""
    config = transformers.Wav2Vec2Config(num_conv_pos_embeddings=128)
    model = random_network(transformers.Wav2Vec2ForSequenceClassification, config)
    windows = torch.from_numpy(np.stack([noise(2.0)] * 5))
    _, seconds = timed(lambda: model(windows))
    return {"s_per_second_of_sound": seconds}  # five windows a second


def separation() -> dict[str, float]:
    """Conv-TasNet as it is trained for 16 kHz, a chunk of 10 s."""
    from asteroid.models import ConvTasNet

    network = ConvTasNet(n_src=2, sample_rate=16000, kernel_size=32, stride=16).eval()
    sound = torch.from_numpy(noise(10.0))[None]
    _, seconds = timed(lambda: network(sound))
    return {"s_per_second_of_sound": seconds / 10}


def face_affect() -> dict[str, float]:
    """ViT-base, five faces a second."""
    model = random_network(transformers.ViTForImageClassification, transformers.ViTConfig())
    _, seconds = timed(lambda: model(pixel_values=torch.rand(5, 3, 224, 224)))
    return {"s_per_second_of_face": seconds}


def random_network(kind: type, config) -> torch.nn.Module:
    """Without the time that a proper initialisation takes."""
    with torch.device("meta"):
        model = kind(config)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    for buffer in model.buffers():
        buffer.data.zero_()
    return model.eval()


def noise(seconds: float) -> np.ndarray:
    return (0.05 * np.random.default_rng(0).normal(size=round(16000 * seconds))).astype(np.float32)


def timed(work: Callable[[], object]) -> tuple[object, float]:
    with torch.no_grad():
        start = time.process_time()
        result = work()
        return result, time.process_time() - start


if __name__ == "__main__":
    main()
