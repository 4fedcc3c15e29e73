"""What `sample.py` can be asked for: every setting, its default and its bounds. Light: imports no torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from diffdyad.errors import UserError

SCHEDULERS = ("dpmsolver++", "ddim", "unipc", "ddpm", "euler")
"""Names for `--scheduler`; `euler` belongs to models trained with flow matching, the others to diffusion."""

DTYPES = ("float32", "bfloat16", "float16")
DEFAULT_GAP_S = 0.2
LARGEST_SCALE = 100.0
MOST_STEPS, MOST_SAMPLES, LARGEST_SEED = 1000, 64, 2**63 - 1
GAP_RANGE_S = (-20.0, 60.0)


@dataclass(frozen=True)
class SampleSettings:
    """One call of `diffdyad sample`; the fields are its flags, in seconds, Hz and numbers as `--help` says.

    Without `audio` the exchange named by `exchange` answers (None: the first embedded one). None for
    `steps`, `scheduler`, `out` means: the model's own, and a folder named after the audio.

    Raises UserError where a value is impossible or settings contradict each other.
    """

    audio: str | None = None
    exchange: str | None = None
    context_audio: str | None = None
    context_motion: str | None = None
    context_video: str | None = None
    context_text: str | None = None
    context_gap: float | None = None
    guidance_scale: tuple[float, ...] = (1.0,)
    audio_guidance_scale: float = 1.0
    start: str = "none"
    style: str | None = None
    steps: int | None = None
    scheduler: str | None = None
    seed: int = 0
    num_samples: int = 1
    model: str = "default"
    head: str = "clay"
    device: str = "auto"
    dtype: str = "float32"
    out: str | None = None
    video: bool = True

    def __post_init__(self):
        # `+ 0.0` makes -0.0 the same scale as 0.0, in the name of its file too
        object.__setattr__(self, "guidance_scale", tuple(float(w) + 0.0 for w in self.guidance_scale))
        for scale in self.guidance_scale or (math.nan,):
            _within("--guidance-scale", scale, -LARGEST_SCALE, LARGEST_SCALE)
        name, count = Counter(f"{w:g}" for w in self.guidance_scale).most_common(1)[0]
        if count > 1:
            raise UserError(f"expected different values for --guidance-scale, found {name} {count} times")
        _within("--audio-guidance-scale", self.audio_guidance_scale, -LARGEST_SCALE, LARGEST_SCALE)
        if self.steps is not None:
            _within("--steps", self.steps, 1, MOST_STEPS)
        _within("--num-samples", self.num_samples, 1, MOST_SAMPLES)
        _within("--seed", self.seed, 0, LARGEST_SEED)
        if self.context_gap is not None:
            _within("--context-gap", self.context_gap, *GAP_RANGE_S)
        if self.scheduler is not None and self.scheduler not in SCHEDULERS:
            raise UserError(f"expected --scheduler among {', '.join(SCHEDULERS)}, found {self.scheduler!r}")
        if self.dtype not in DTYPES:
            raise UserError(f"expected --dtype among {', '.join(DTYPES)}, found {self.dtype!r}")
        files = ("audio", "exchange", "context_audio", "context_motion", "context_video", "style")
        for flag in (*files, "start", "model", "head", "out"):
            if getattr(self, flag) == "":
                raise UserError(f"expected a value for --{flag.replace('_', '-')}, found an empty one")
        self._check_sources()

    def _check_sources(self) -> None:
        if self.context_video is not None:
            other = next((name for name in ("audio", "motion") if getattr(self, f"context_{name}")), None)
            if other is not None:
                raise UserError(f"expected --context-video or --context-{other}, found both; a video has its own")
        given = ("context_audio", "context_motion", "context_video", "context_text")
        files = [name for name in given if getattr(self, name)]
        if self.audio is None and files:
            raise UserError(f"--{files[0].replace('_', '-')} needs --audio FILE, the responder's speech")
        if self.audio is not None and self.exchange is not None:
            raise UserError("expected --audio or --exchange, found both; an exchange has its own audio")
        if self.audio is not None and not self.has_context:
            if self.context_gap is not None:
                raise UserError("--context-gap needs a previous turn: give --context-audio, -motion, -video or -text")
            if self.start == "listen":
                raise UserError(
                    "--start listen needs a previous turn to listen to: give --context-audio, -motion or -video"
                )

    @property
    def has_context(self) -> bool:
        given = self.context_audio or self.context_motion or self.context_video or (self.context_text or "").strip()
        return self.audio is None or bool(given)

    @property
    def is_sweep(self) -> bool:
        return len(self.guidance_scale) > 1

    def name(self, kind: str, scale: float, sample: int) -> str:
        """File name of one answer; kind: "motion" or "listening"."""
        scale_part = f"_w{scale:g}" if self.is_sweep else ""
        sample_part = f"_s{sample}" if self.num_samples > 1 else ""
        return f"{kind}{scale_part}{sample_part}.npz"

    @property
    def files(self) -> list[str]:
        """Names of all files that a run makes, sample.json, which lists them, last."""
        kinds = ["motion", "listening"] if self.start == "listen" else ["motion"]
        names = [
            self.name(kind, w, s) for kind in kinds for w in self.guidance_scale for s in range(self.num_samples)
        ]
        names += ["video.mp4"] if self.video else []
        names += ["sweep.png"] if self.is_sweep else []
        return [*names, "sample.json"]

    def to_dict(self) -> dict:
        return {**asdict(self), "guidance_scale": list(self.guidance_scale)}


def _within(flag: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UserError(f"expected {flag} from {low:g} to {high:g}, found {value:g}")


def folder_name(path: str) -> str:
    """A folder's name for the results of an audio file."""
    return Path(path).stem.lstrip(".") or "answer"
