"""Affect of both from the face: a facial-expression network without its classifier, on what is cut out about the
landmarks of tracked videos, five times a second; columns of the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.affect import FaceAffectEncoder
from diffdyad.data.exchange import Exchange
from diffdyad.data.recordings.steps import StepResult, Steps
from diffdyad.data.recordings.weights import package_version, weights_identity
from diffdyad.pretrained import load_pretrained
from diffdyad.video import read_frames

EVERY = 5  # pictures, at 25 a second
HOP_S = 0.2
MARGIN = 1.3
"""The side of the square that is cut out, in widths or heights of the landmarks, whichever is larger."""

_CROP_PX = 224  # the encoder makes of it what it needs
_PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class FaceFeatures:
    """features: (N, C), row k of the picture k of 5 a second; NaN = no face; late_s: of the file's clock."""

    features: np.ndarray
    late_s: float = 0.0

    def at(self, times_s: np.ndarray) -> np.ndarray:  # (M,) on the recording's clock -> (M, C)
        """Of the last picture that was there at each time; NaN before the first and after the last."""
        rows = np.floor((times_s - self.late_s) / HOP_S - 0.1 + 1e-6).astype(int)  # shown in the middle of 40 ms
        there = (rows >= 0) & (rows < len(self.features))
        found = np.full((len(rows), self.features.shape[1]), np.nan, np.float32)
        found[there] = self.features[rows[there]]
        return found


@lru_cache(maxsize=1)
def load_face_affect(name: str, revision: str | None = None) -> tuple[FaceAffectEncoder, int]:
    """The encoder, and its number of channels. Raises UserError where it is neither a folder nor in the Hub's cache."""
    load_pretrained("AutoConfig", name, revision, advice="name another in `face_affect`")
    encoder = FaceAffectEncoder(name, revision)
    return encoder, encoder.encode(torch.zeros(1, 3, _CROP_PX, _CROP_PX)).shape[1]


def face_affect(
    path: Path, landmarks: Sequence[np.ndarray], size: tuple[int, int], fps: float, steps: Steps, faces: StepResult,
    name: str, revision: str | None = None,
) -> list[np.ndarray]:  # of each person (N, C)
    """landmarks: of each picture (people, 478, 3) pixels of pictures of `size`, NaN = not seen; a step after that which
    found them."""
    encoder, channels = load_face_affect(name, revision)
    people = len(landmarks[0]) if len(landmarks) else 0

    def encode(folder: Path) -> dict:
        rows = -(-len(landmarks) // EVERY)
        found = np.full((people, rows, channels), np.nan, np.float32)
        waiting: list[tuple[int, int, Tensor]] = []

        def flush() -> None:
            if waiting:
                features = encoder.encode(torch.stack([picture for _, _, picture in waiting]))
                for (side, row, _), feature in zip(waiting, features.float().numpy()):
                    found[side, row] = feature
                waiting.clear()

        for number, frame in enumerate(read_frames(path, fps, size)):
            if number % EVERY or number >= len(landmarks):
                continue
            for side, face in enumerate(landmarks[number]):
                if np.isfinite(face[:, :2]).all():
                    waiting.append((side, number // EVERY, crop(frame, face)))
            if len(waiting) >= _PICTURES_AT_ONCE:
                flush()
        flush()
        np.save(folder / "features.npy", found)
        return {"rows": rows, "channels": channels}

    config = load_pretrained("AutoConfig", name, revision)
    settings = {"weights": weights_identity(name, revision, config), "every": EVERY, "margin": MARGIN}
    version = f"transformers {package_version('transformers')}"
    made = steps.run("face_affect", config.model_type, version, settings, [faces.key], encode)
    return list(np.load(made.folder / "features.npy"))


def crop(frame: np.ndarray, face: np.ndarray) -> Tensor:  # (H, W, 3) uint8, (L, 2 or 3) -> (3, 224, 224), 0 to 1
    """The square about a face; what lies outside the picture is its edge's colour."""
    low, high = face[:, :2].min(0), face[:, :2].max(0)
    side = max(2, round(float((high - low).max()) * MARGIN))
    left, top = np.rint((low + high) / 2 - side / 2).astype(int)
    rows = np.clip(np.arange(top, top + side), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, frame.shape[1] - 1)
    picture = torch.from_numpy(frame[rows[:, None], columns]).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(picture, (_CROP_PX, _CROP_PX), mode="bilinear", antialias=True, align_corners=False)[0]


def add_face_affect(
    exchange: Exchange, seen: dict[str, FaceFeatures | None], name: str, revision: str | None = None
) -> None:
    """Sets `face_affect` of both people, row n of 0.2 (n + 1) s after the record's start, and the encoder's name.
    seen: by person; None = no video of that person."""
    _, channels = load_face_affect(name, revision)
    count = int((exchange.end_s - exchange.start_s) / HOP_S + 1e-6)
    times = exchange.session_onset_s + exchange.start_s + HOP_S * (1 + np.arange(count))
    for who, person in ((exchange.previous_speaker, exchange.previous), (exchange.responder_name, exchange.responder)):
        features = seen.get(who)
        person.face_affect = np.zeros((0, channels), np.float32) if features is None else features.at(times)
    identity = weights_identity(name, revision, load_pretrained("AutoConfig", name, revision))
    exchange.face_affect_encoder = identity if "@" in identity else f"{Path(name).name}@{identity}"
