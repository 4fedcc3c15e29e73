"""Figures of the preview tracker, as JSON: a film of the clay head, whose motion is known, tracked with MediaPipe.

Needs DIFFDYAD_MEDIAPIPE_PYTHON (docs/recordings.md). The film is rendered first, which takes most of the time."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad import rotation
from diffdyad.film import Panel, film
from diffdyad.head import HeadModel
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import ARKIT_EXPRESSIONS, Motion, MotionLayout
from diffdyad.tracking.landmarker import Landmarker
from diffdyad.tracking.watch import Watch, fit_track

FPS = 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of film (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=3, help="of its motion (default: %(default)d)")
    parser.add_argument("--film", help="keep the film there, or take it from there (default: a temporary one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    landmarker, head = Landmarker.find(), HeadModel.clay()
    planted = talk(round(FPS * arguments.seconds), arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments.film or Path(folder) / "clay.mp4")
        if not path.exists():
            sound = torch.zeros(round(SAMPLING_RATE * len(planted) / FPS))
            film(path, head, [Panel("", [planted])], sound, SAMPLING_RATE)
        began = time.perf_counter()
        watch = Watch(path, landmarker, FPS)
        landmarks = np.stack([faces[0] for faces in watch])
        seen, worked = time.perf_counter(), time.process_time()
        track = fit_track(head, landmarks, FPS, watch.size, watch.cuts)
    found = figures(track.motion, planted)
    found |= {"seconds": len(planted) / FPS, "mediapipe": landmarker.version(),
              "landmarks_s": round(seen - began, 2), "fit_cpu_s": round(time.process_time() - worked, 2),
              "reprojection_px": round(float(track.error_px.nanmedian()), 2)}  # fmt: skip
    print(json.dumps(found, indent=1))


def talk(count: int, seed: int) -> Motion:
    """Somebody who talks, looks about, blinks and turns by some 20 degrees."""
    generator, layout = torch.Generator().manual_seed(seed), MotionLayout.arkit()
    values, wave = torch.zeros(count, layout.dim), waves(count, 9, generator, 0.8)
    some = torch.rand(layout.num_expression, generator=generator) < 0.3
    expression = (0.5 * some * waves(count, layout.num_expression, generator, 1.0)).clamp(0, 1)
    expression[:, [ARKIT_EXPRESSIONS.index(name) for name in ("tongueOut", "mouthClose")]] = 0.0
    blinks = [ARKIT_EXPRESSIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    for begin in range(20, count - 5, 70):
        expression[begin : begin + 5, blinks] = torch.tensor([0.4, 1.0, 1.0, 0.6, 0.2])[:, None]
    values[:, layout.slices["expression"]] = expression
    values[:, layout.slices["global_orient"]] = wave[:, :3] * torch.tensor([0.10, 0.17, 0.06])
    values[:, layout.slices["jaw_pose"].start] = (0.12 + 0.12 * wave[:, 3]).clamp(0, 0.35)
    for eye in ("leye_pose", "reye_pose"):
        at = layout.slices[eye].start
        values[:, at : at + 2] = wave[:, 4:6] * torch.tensor([0.06, 0.12])
    return Motion(values, layout, FPS)


def waves(count: int, width: int, generator: torch.Generator, hz: float) -> Tensor:
    """(T, width) smooth curves of variance about 1/2."""
    times, total = torch.arange(count)[:, None] / FPS, torch.zeros(count, width)
    for _ in range(5):
        rate = hz * torch.rand(width, generator=generator) + 0.05
        phase = 2 * math.pi * torch.rand(width, generator=generator)
        total += torch.sin(2 * math.pi * rate * times + phase) / math.sqrt(5)
    return total


def figures(found: Motion, planted: Motion) -> dict:
    """Of valid frames; poses about their own means, as a dataset takes the head's rest out."""
    held = found.valid[:, 0]
    pose = [_about_mean(motion.select("global_orient")[held]) for motion in (found, planted)]
    chord = rotation.axis_angle_to_matrix(pose[0]) - rotation.axis_angle_to_matrix(pose[1])
    angle = torch.rad2deg(2 * (chord.flatten(1).norm(dim=1) / 8**0.5).clamp(max=1).asin())
    result = {"valid_share": round(float(held.float().mean()), 3), "pose_deg": round(float(angle.mean()), 2)}
    for name, group, axis in (("nod", "global_orient", 0), ("shake", "global_orient", 1), ("tilt", "global_orient", 2),
                              ("jaw", "jaw_pose", 0), ("gaze_up", "leye_pose", 0),
                              ("gaze_side", "leye_pose", 1)):  # fmt: skip
        result[name] = _alike(found.select(group)[held, axis], planted.select(group)[held, axis])
    layout = planted.layout
    for name in ("eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "browOuterUpLeft", "mouthPucker"):
        at = layout.channel(name)
        if planted.values[held, at].std() > 0.02:
            result[name] = _alike(found.values[held, at], planted.values[held, at])
    return result


def _about_mean(pose: Tensor) -> Tensor:
    return rotation.compose(rotation.inverse(pose.mean(0)).expand_as(pose), pose)


def _alike(found: Tensor, true: Tensor) -> dict[str, float]:
    """Correlation, and how much of the true motion is found (the slope of the line through both)."""
    slope = np.polyfit(true, found, 1)[0] if float(true.std()) else float("nan")
    return {"r": round(float(np.corrcoef(found, true)[0, 1]), 3), "slope": round(float(slope), 2)}


if __name__ == "__main__":
    main()
