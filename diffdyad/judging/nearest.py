"""A baseline that knows no context: the motion of the training answers whose sound is nearest."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.audio import SpeechEncoder
from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.data.sides import motion_of, responder_waveform
from diffdyad.errors import UserError
from diffdyad.evaluation.answering import answerable
from diffdyad.evaluation.clips import Clip, from_exchange
from diffdyad.evaluation.trim import cut, fit_length
from diffdyad.motion import Motion

NAME = "nearest"
LOOKED_AT = "train"
_LOOKED_AT_S = 4.0
_STEP_S = 0.2
_BANDS = 16


class NearestNeighbour:
    """Answers with other people's motion; what it looks at: `most` training exchanges, evenly spread."""

    def __init__(self, dataset: str | Path, most: int = 2000, split: str = LOOKED_AT):
        shards = ExchangeShards(dataset, split)
        step = max(1, -(-len(shards) // most))
        self._encoder, keys, self._motions = None, [], []
        for index in range(0, len(shards), step):
            exchange = shards[index]
            onset = round(-exchange.start_s * exchange.fps)
            motion = motion_of(exchange, "responder", exchange.layout)
            if len(motion) - onset < exchange.fps or not bool(motion.valid.any()):
                continue
            keys.append(self._key(exchange))
            self._motions.append(cut(motion, len(motion), onset))
        if not keys:
            raise UserError(f"expected exchanges of the split {split} in {dataset} whose answers' motion is known, for "
                            f"--model {NAME} to copy, found none among {len(shards)}")  # fmt: skip
        self._keys = torch.stack(keys)
        self._scale = self._keys.std(0).clamp_min(1e-3)

    def _key(self, exchange: Exchange) -> Tensor:
        """Mel bands of the answer's first seconds, coarse in time and pitch: (N,)"""
        if self._encoder is None:
            self._encoder = SpeechEncoder(fps=exchange.fps)
        features = self._encoder.encode(responder_waveform(exchange)[None], phones=False)[0].mean(1)
        onset, length = round(-exchange.start_s * exchange.fps), round(_LOOKED_AT_S * exchange.fps)
        features = features[onset : onset + length]
        features = F.pad(features, (0, 0, 0, length - len(features)), value=float(features.min()))
        steps = round(_LOOKED_AT_S / _STEP_S)
        return F.adaptive_avg_pool2d(features[None], (steps, _BANDS)).flatten()

    def answer(self, exchange: Exchange, num_samples: int) -> tuple[Clip | None, list[Motion]]:
        """The clip from the onset on, and the motions of the nearest training answers; None where there is no clip."""
        if not answerable(exchange, exchange.layout):
            return None, []
        if num_samples > len(self._motions):
            raise UserError(f"expected --num-samples up to the {len(self._motions)} training answers that --model "
                            f"{NAME} can copy, found {num_samples}")  # fmt: skip
        distance = ((self._keys - self._key(exchange)) / self._scale).square().sum(1)
        clip = from_exchange(exchange, listening=False)
        nearest = distance.topk(num_samples, largest=False).indices.tolist()
        return clip, [fit_length(self._motions[k], len(clip)) for k in nearest]
