"""The previous speaker's face out of a video: the last seconds of it, tracked, as a motion beside its sound."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from diffdyad import rotation
from diffdyad.data.exchange import LONGEST_PREVIOUS_S
from diffdyad.data.importers.cutting import rest
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import Motion
from diffdyad.tracking.fit import NAME
from diffdyad.tracking.landmarker import Landmarker
from diffdyad.tracking.watch import track_video
from diffdyad.video import video_info

FPS = 25.0


@dataclass(frozen=True)
class TrackedTurn:
    """motion: it ends where the sound does, the head about its rest; about: for the record of a run."""

    motion: Motion
    about: dict


def check_video(path: str) -> Landmarker:
    """What tracks it. Raises UserError where the file has no pictures, or no landmarks can be found."""
    video_info(path)
    return Landmarker.find()


def track_turn(path: str, landmarker: Landmarker, head: HeadModel, seconds: float | None = None) -> TrackedTurn:
    """seconds: of the sound beside the pictures, None = as long as the pictures. head: in the model's basis.

    Raises UserError where no face is seen.
    """
    length = seconds if seconds is not None else video_info(path).seconds
    start = max(0.0, length - LONGEST_PREVIOUS_S)
    start = round(start * FPS) / FPS
    track = track_video(path, head, landmarker, FPS, start)
    motion, valid = track.motion, track.motion.valid.any(1)
    if not valid.any():
        raise UserError(f"expected a face in {path}, found none that the head fits; it should look towards the camera")
    layout, values = motion.layout, motion.values.clone()
    where = layout.slices["global_orient"]
    back = rotation.inverse(rest(values[:, where], valid)).expand(len(values), -1)
    values[:, where] = rotation.compose(back, values[:, where]) * valid[:, None]
    count = max(1, round((length - start) * FPS)) if seconds is not None else len(values)
    missing = max(0, count - len(values))
    values = torch.cat([values, values.new_zeros(missing, layout.dim)])[:count]
    flags = torch.cat([motion.valid, motion.valid.new_zeros(missing, len(layout.groups))])[:count]
    about = {
        "tracker": f"{NAME} (MediaPipe {landmarker.version()})", "seconds": round(count / FPS, 3),
        "valid_share": round(float(valid.float().mean()), 4),
        "reprojection_px": round(float(track.error_px.nanmedian()), 3),
    }  # fmt: skip
    return TrackedTurn(replace(motion, values=values, valid=flags), about)
