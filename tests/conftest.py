"""A tiny pipeline with random weights, voices made of tones, and an exchange of two of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffdyad.media import SAMPLING_RATE, encode_flac, write_wav
from diffdyad.motion import Motion, MotionLayout, save_motion

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

# the test machine's cores are few, and the models here are tiny: more threads would only get in each other's way
torch.set_num_threads(1)


def build_tiny_pipeline(seed: int = 0, modalities=("audio", "prosody", "motion"), kind: str = "diffusion"):
    """A DyadPipeline of width 32 and depth 1, whose random weights answer to speech and context."""
    from diffdyad.audio import SpeechEncoder
    from diffdyad.context import ContextEncoder
    from diffdyad.denoiser import MotionDenoiser
    from diffdyad.head import HeadModel
    from diffdyad.motion import MotionStats
    from diffdyad.objective import aperture_jacobian
    from diffdyad.pipeline import DyadPipeline
    from diffdyad.prosody import PROSODY_CHANNELS
    from diffdyad.schedulers import sampler, training_scheduler

    layout = MotionLayout.arkit()
    speech = SpeechEncoder(normalise_voice=True)  # as the embedded model's
    all_widths = {"audio": 2 * speech.num_channels, "prosody": 2 * len(PROSODY_CHANNELS),
                  "motion": 2 * layout.dim, "text": 384}  # fmt: skip
    widths = {name: all_widths[name] for name in modalities}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser = MotionDenoiser(
            motion_dim=layout.dim, width=32, num_heads=2, depth=1, speech_depth=1, context_depth=1,
            speech_width=speech.num_channels, context_widths=widths,
        )  # fmt: skip
        for name, parameter in denoiser.named_parameters():
            if not parameter.any():  # what starts at zero would make every answer the same
                torch.nn.init.normal_(parameter, std=0.1 if "motion_out" in name else 0.3)
    statistics = MotionStats.for_layout(layout, 25.0)
    mean, std = torch.zeros(layout.dim), torch.full((layout.dim,), 0.05)
    mean[layout.slices["expression"]] = 0.2
    statistics.fit(mean, std)
    statistics.aperture_jacobian.copy_(aperture_jacobian(HeadModel.clay(), layout, statistics))
    trained = training_scheduler(kind)
    return DyadPipeline(
        denoiser=denoiser.eval(),
        scheduler=sampler("euler" if kind == "flow" else "dpmsolver++", trained),
        statistics=statistics,
        speech_encoder=speech,
        context_encoder=ContextEncoder(modalities=modalities, widths=widths),
        num_inference_steps=2,
    )


@pytest.fixture(scope="session")
def tiny_pipeline():
    return build_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_model(tiny_pipeline, tmp_path_factory) -> Path:
    """The folder of the saved tiny pipeline."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def finished_run(tiny_model, tmp_path_factory) -> Path:
    """The folder of a finished training run, as training leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "evening"
    shutil.copytree(tiny_model, folder / "pipeline")
    settings = {
        "output": str(folder), "data": {"dataset": str(folder.parent / "talks"), "window_s": [4.0, 6.0]},
        "training": {"max_steps": 40, "batch_size": 8, "learning_rate": 0.001, "start_from": str(folder / "first")},
        "card": {"license": "mit", "description": "Learnt in an evening."},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "pipeline" / "training.yaml").write_text(yaml.safe_dump(settings))
    lines = [{"step": 10, "time": 1.0, "loss": 2.0, "motion": 1.5},
             {"step": 20, "time": 2.0, "loss": 9.0, "motion": 9.0},
             {"step": 20, "time": 3.0, "validation/motion": 1.25, "validation/context_gap": 0.0625},
             {"step": 20, "time": 4.0, "loss": 1.0, "motion": 0.5}, {"step": 40, "time": 5.0, "loss": float("nan")},
             {"step": 40, "time": 6.0, "validation/motion": 0.75, "validation/context_gap": 0.125}]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "lo')
    return folder


def tone(seconds: float, hertz: float = 140.0, sampling_rate: int = SAMPLING_RATE) -> torch.Tensor:
    """A buzz in syllables, 4 per second."""
    t = torch.arange(round(seconds * sampling_rate)) / sampling_rate
    buzz = sum(torch.sin(2 * torch.pi * hertz * k * t) / k for k in range(1, 8))
    return 0.1 * buzz * (1 - torch.cos(2 * torch.pi * 4 * t)) / 2


def wave_motion(seconds: float, fps: float = 25.0) -> Motion:
    """A head that nods and smiles."""
    layout = MotionLayout.arkit()
    t = torch.arange(round(seconds * fps)) / fps
    values = torch.zeros(len(t), layout.dim)
    values[:, layout.channel("mouthSmileLeft")] = 0.3 + 0.2 * torch.sin(2 * t)
    values[:, layout.slices["neck_pose"].start] = 0.1 * torch.sin(5 * t)
    return Motion(values, layout, fps)


@pytest.fixture(scope="session")
def voices(tmp_path_factory) -> Path:
    """A folder with responder.wav (1.5 s), previous.wav (2 s), previous.npz and another motion, style.npz."""
    folder = tmp_path_factory.mktemp("voices")
    write_wav(folder / "responder.wav", tone(1.5))
    write_wav(folder / "previous.wav", tone(2.0, 210.0))
    save_motion(folder / "previous.npz", wave_motion(2.0, 30.0))
    save_motion(folder / "style.npz", wave_motion(3.0))
    return folder


@pytest.fixture(scope="session")
def exchange(tmp_path_factory) -> Path:
    """An exchange's folder, as in assets/exchanges."""
    folder = tmp_path_factory.mktemp("exchanges") / "greeting"
    folder.mkdir()
    (folder / "responder.flac").write_bytes(encode_flac(tone(1.5)))
    (folder / "previous.flac").write_bytes(encode_flac(tone(2.0, 210.0)))
    save_motion(folder / "previous_motion.npz", wave_motion(2.0))
    words = [{"word": "good", "start_s": -2.0, "end_s": -1.5}, {"word": "morning", "start_s": -1.5, "end_s": -0.4}]
    record = {"previous_text": "Good morning!", "words": words, "gap_s": 0.4}
    (folder / "exchange.json").write_text(json.dumps(record))
    return folder


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
