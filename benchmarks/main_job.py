"""The figures of the main job as JSON: speed, memory, what guidance does to face and lips, and long answers.

Dialogues, voices and people are those of the rehearsal corpus' test split, made on the fly: nothing that the
embedded model was trained on. Needs the extra `rehearse`, and `text` for models that take text.
Times are of this machine, with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad.context import PreviousTurn
from diffdyad.data.exchange import Exchange
from diffdyad.data.rehearsal.corpus import record
from diffdyad.data.rehearsal.reaction import Reaction, planted_delta
from diffdyad.data.rehearsal.session import SessionKey, rehearse_session
from diffdyad.head import HeadModel
from diffdyad.media import SAMPLING_RATE, write_wav
from diffdyad.motion import Motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.sample import load_pipeline
from diffdyad.windows import windows

REPOSITORY = Path(__file__).resolve().parents[1]
SCALES = (0.0, 1.0, 2.0, 4.0)
CLOSED_M, OPEN_M = 0.0007, 0.002  # inner lips: shut, and open before and after
REACTION_S = 3.0  # of an answer, in which the planted direction is looked for
SETTLED_S = 10.0  # after which a reaction has faded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="default, a folder, or USER/REPO (default: default)")
    parser.add_argument("--sessions", type=int, default=12, help="test sessions, 5 or so exchanges each (default 12)")
    parser.add_argument("--long-answers", type=int, default=12, help="answers of 60 s (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="of dialogues and noise (default 0)")
    arguments = parser.parse_args()

    figures = {"benchmark": "main_job", "model": arguments.model, "cpus": os.cpu_count()}
    figures["help_s"] = seconds_of_help()
    exchanges = [
        exchange
        for number in range(arguments.sessions)
        for exchange in rehearse_session(SessionKey(arguments.seed, "test", number), 1.0, 0.0, record)
        if exchange.response_kind == "verbal" and exchange.end_s > 1.5
    ]
    figures["exchanges"] = len(exchanges)
    speech = torch.cat([answer_audio(exchange) for exchange in exchanges])
    figures["cold_8_s_answer"] = cold_answer(arguments.model, repeated(speech, 8.0), exchanges[0])

    pipeline = load_pipeline(arguments.model, "cpu")
    figures["sampling"] = sampling_speed(pipeline, repeated(speech, 20.0), exchanges[0])
    figures["guidance"] = guidance(pipeline, exchanges, arguments.seed)
    figures["long"] = long_answers(pipeline, speech, exchanges, arguments.long_answers, arguments.seed)
    print(json.dumps(figures, indent=2))


# -------------------------------------------------------------------------------------------- inputs


def answer_audio(exchange: Exchange) -> Tensor:
    """The responder's voice from the onset on."""
    return torch.from_numpy(exchange.responder.waveform[round(-exchange.start_s * SAMPLING_RATE) :].copy())


def previous_turn(exchange: Exchange, pipeline: DyadPipeline) -> PreviousTurn:
    """What the model takes of the turn before."""
    seconds, motion = exchange.previous_end_s - exchange.start_s, exchange.motion("previous")
    turn = PreviousTurn(
        audio=torch.from_numpy(exchange.previous.waveform[: round(seconds * SAMPLING_RATE)].copy()),
        motion=Motion(motion.values[: round(seconds * motion.fps)], motion.layout, motion.fps),
        text=exchange.previous.text,
        words=exchange.previous.words,
        gap_s=exchange.gap_s,
    )
    return pipeline.context_encoder.taken(turn)


def repeated(speech: Tensor, seconds: float) -> Tensor:
    wanted = round(seconds * SAMPLING_RATE)
    return speech.repeat(-(-wanted // len(speech)))[:wanted]


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------- speed


def seconds_of_help() -> float:
    """Median of five runs of `python sample.py --help`."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, REPOSITORY / "sample.py", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)), 3)


def cold_answer(model: str, speech: Tensor, exchange: Exchange) -> dict:
    """The whole of `sample.py --no-video` for 8 s of speech and the voice before it: seconds and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        write_wav(Path(folder) / "answer.wav", speech)
        write_wav(Path(folder) / "previous.wav", torch.from_numpy(exchange.previous.waveform.copy()))
        flags = {"model": model, "out": "out", "audio": "answer.wav", "context-audio": "previous.wav"}
        command = [sys.executable, str(REPOSITORY / "sample.py"), "--no-video"]
        for flag, value in flags.items():
            command += [f"--{flag}", value if flag == "model" else f"{folder}/{value}"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": round(seconds, 2), "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3)}


def sampling_speed(pipeline: DyadPipeline, speech: Tensor, exchange: Exchange) -> dict:
    """Seconds of motion per second with both guidances on (three branches), models loaded; median of three."""
    context = pipeline.encode_context(previous_turn(exchange, pipeline))
    speeds = []
    for _ in range(3):
        start = time.perf_counter()
        pipeline(speech, context, guidance_scale=2.0, audio_guidance_scale=1.5, generator=noise(0))
        speeds.append(len(speech) / SAMPLING_RATE / (time.perf_counter() - start))
    return {"motion_s_per_s": round(float(np.median(speeds)), 2)}


# ------------------------------------------------------------------------------------------ guidance


def guidance(pipeline: DyadPipeline, exchanges: list[Exchange], seed: int) -> dict:
    """What scales 0, 1, 2 and 4 do on the same noise, over all exchanges."""
    head = HeadModel.clay()
    lips = head.subset(torch.cat([head.vertex_sets["inner_lip_upper"], head.vertex_sets["inner_lip_lower"]]))
    identical = True
    projections, spreads, closures = [], [], []
    moods = {"smile_after_good_news": [], "frown_after_bad_news": []}
    for number, exchange in enumerate(exchanges):
        speech = answer_audio(exchange)
        context = pipeline.encode_context(previous_turn(exchange, pipeline))
        answers = [
            pipeline(speech, context, guidance_scale=scale, generator=noise(seed + number)).motions[0].values
            for scale in SCALES
        ]
        without = pipeline(speech, None, generator=noise(seed + number)).motions[0].values
        identical &= torch.equal(without, answers[0])
        projections.append([along_planted(answer, answers[0], exchange, pipeline) for answer in answers[1:]])
        for name, values in moods.items():
            sign, channel = (1, "mouthSmile") if name.startswith("smile") else (-1, "mouthFrown")
            if sign * exchange.valence > 0.3:
                values.append([corners(answer, answers[0], channel, pipeline) for answer in answers[1:]])
        openings = [opening(lips, answer, pipeline) for answer in answers[1:]]
        spreads.append([track.var() for track in openings])
        for frame in bilabials(opening(lips, exchange.motion("responder").values, pipeline), exchange):
            closures.append([track[max(frame - 2, 0) : frame + 3].min() for track in openings if frame < len(track)])
    felt = [abs(exchange.valence) > 0.3 for exchange in exchanges]  # elsewhere the planted direction is next to nothing
    projected = np.nanmean(np.array(projections)[felt], 0)
    ratios = np.sqrt(np.mean(spreads, 0) / np.mean(spreads, 0)[0])
    shut = np.array([row for row in closures if len(row) == len(SCALES) - 1])
    closed = shut < CLOSED_M
    kept = [(closed[:, 0] & closed[:, k]).sum() / max(closed[:, 0].sum(), 1) for k in (1, 2)]
    return {
        "scale_0_is_no_context": bool(identical),
        "moved_along_planted_direction": dict(zip(("1", "2", "4"), np.round(projected, 3).tolist())),
        "moved_further_at_2_than_at_1": rounded(share(projections, 1, 0)),
        "moved_further_at_4_than_at_2": rounded(share(projections, 2, 1)),
        "the_same_where_the_turn_had_a_feeling": [
            sum(felt), *(rounded(share(np.array(projections)[felt], k + 1, k)) for k in (0, 1)),
        ],
        **{
            name: dict(zip(("exchanges", "1", "2", "4"), [len(values), *np.round(np.mean(values, 0), 4).tolist()]))
            for name, values in moods.items()
            if values
        },
        "lip_opening_ratio_to_scale_1": {"2": rounded(ratios[1]), "4": rounded(ratios[2])},
        "bilabials": len(shut),
        "bilabials_shut_at_scale_1": rounded(closed[:, 0].mean()),
        "of_these_still_shut": {"2": rounded(kept[0]), "4": rounded(kept[1])},
        "bilabial_opening_change_mm": {
            name: rounded(1000 * (shut[:, k] - shut[:, 0]).mean()) for name, k in (("2", 1), ("4", 2))
        },
    }


def along_planted(answer: Tensor, reference: Tensor, exchange: Exchange, pipeline: DyadPipeline) -> float:
    """Change of the expression along what a planted reaction of strength 1 would add; 1 = all of it."""
    end = min(exchange.previous_end_s, 0.0)
    reaction = Reaction(end - 0.7, end, 0.0, 2.0, exchange.valence, exchange.arousal, 1.0)
    frames = min(len(answer), round(REACTION_S * pipeline.fps))
    expression = pipeline.layout.slices["expression"]
    planted = planted_delta(reaction, np.arange(frames) / pipeline.fps)[:, expression]
    size = (planted**2).sum()
    return float(((answer - reference)[:frames, expression].numpy() * planted).sum() / size) if size > 1e-6 else np.nan


def corners(answer: Tensor, reference: Tensor, channel: str, pipeline: DyadPipeline) -> float:
    """Mean change of both corners of the mouth, in coefficients, while a reaction lasts."""
    frames = round(REACTION_S * pipeline.fps)
    both = [pipeline.layout.channel(channel + side) for side in ("Left", "Right")]
    return float((answer - reference)[:frames, both].mean())


def share(projections: list, higher: int, lower: int) -> float:
    values = np.array(projections)
    values = values[np.isfinite(values).all(1)]
    return float((values[:, higher] > values[:, lower]).mean())


def opening(lips: HeadModel, motion: Tensor, pipeline: DyadPipeline) -> np.ndarray:
    """Inner-lip opening (T,) in metres."""
    with torch.no_grad():
        return lips.lip_aperture(lips.from_motion(motion, pipeline.layout)).numpy()


def bilabials(track: np.ndarray, exchange: Exchange) -> list[int]:
    """Frames, counted from the onset, where the true lips shut between openings: M, B and P."""
    onset = round(-exchange.start_s * exchange.fps)
    track = track[onset:]
    return [
        frame
        for frame in range(5, len(track) - 5)
        if track[frame] < CLOSED_M / 2
        and track[frame] == track[frame - 2 : frame + 3].min()
        and track[frame - 1] != track[frame]  # a long closure counts once
        and track[frame - 5 : frame].max() > OPEN_M
        and track[frame + 1 : frame + 6].max() > OPEN_M
    ]


# -------------------------------------------------------------------------------------- long answers


def long_answers(pipeline: DyadPipeline, speech: Tensor, exchanges: list[Exchange], count: int, seed: int) -> dict:
    """Joins of 60 s answers against elsewhere (scale 1), and the drift of each group at scale 3 against scale 1."""
    std = pipeline.statistics.std
    joins, drifts = [], {1.0: [], 3.0: []}
    for number in range(count):
        exchange = exchanges[number % len(exchanges)]
        voice = repeated(speech.roll(-number * len(speech) // count), 60.0)
        context = pipeline.encode_context(previous_turn(exchange, pipeline))
        for scale in drifts:
            motion = pipeline(voice, context, guidance_scale=scale, generator=noise(seed + number)).motions[0].values
            drifts[scale].append(drift(motion / std, pipeline))
            if scale == 1.0:
                joins.append(motion / std)
    config = pipeline.config
    length, prefix, margin = (
        2 * round(s * pipeline.fps / 2) for s in (config.window_s, config.prefix_s, config.margin_s)
    )
    at = [w.start + w.prefix for w in windows(len(joins[0]), length, prefix, margin)][1:]
    return {
        "joins": len(at) * count,
        "at_joins_over_elsewhere": join_ratios(joins, at),
        "drift": {
            group: compared(*([found[group] for found in drifts[scale]] for scale in (1.0, 3.0)))
            for group in pipeline.layout.groups
        },
    }


def compared(one: list[float], three: list[float]) -> dict[str, float]:
    """Means at scales 1 and 3, and their difference over the same answers with its standard error."""
    rise = np.subtract(three, one)
    figures = {"1": np.mean(one), "3": np.mean(three), "rise": rise.mean()}
    figures["standard_error"] = rise.std(ddof=1) / np.sqrt(len(rise)) if len(rise) > 1 else np.nan
    return {name: rounded(value) for name, value in figures.items()}


def join_ratios(motions: list[Tensor], at: list[int]) -> dict:
    """Velocity, acceleration and change of level (0.2 s after against 0.2 s before), of standardised motion."""
    tracks = {"velocity": [], "acceleration": [], "level": []}
    for motion in motions:
        tracks["velocity"].append(motion.diff(dim=0).norm(dim=-1))  # k: from frame k to k + 1
        tracks["acceleration"].append(motion.diff(n=2, dim=0).norm(dim=-1))
        means = motion.unfold(0, 5, 1).mean(-1)
        tracks["level"].append((means[5:] - means[:-5]).norm(dim=-1))  # k: frames k .. k + 4 against the next five
    near = {"velocity": (-1,), "acceleration": (-2, -1), "level": (-5,)}  # what spans the join before frame j
    ratios = {}
    for name, rows in tracks.items():
        values = torch.stack(rows).numpy()
        joined = np.zeros(values.shape[1], bool)
        joined[[j + shift for j in at for shift in near[name] if j + shift < values.shape[1]]] = True
        here, elsewhere = values[:, joined].ravel(), values[:, ~joined].ravel()
        ratios[name] = {
            "median": rounded(np.median(here) / np.median(elsewhere)),
            "p95": rounded(np.percentile(here, 95) / np.percentile(elsewhere, 95)),
        }
    return ratios


def drift(motion: Tensor, pipeline: DyadPipeline) -> dict[str, float]:
    """Change of each group's mean from the first to the last quarter of the time after the reaction, in deviations."""
    settled = motion[round(SETTLED_S * pipeline.fps) :]
    quarter = len(settled) // 4
    change = settled[-quarter:].mean(0) - settled[:quarter].mean(0)
    layout = pipeline.layout
    return {group: layout.select(change, group).square().mean().sqrt().item() for group in layout.groups}


def rounded(value: float) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
