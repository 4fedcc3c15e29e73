"""What an answer is made from: files of the command line, or the folder of an exchange."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from diffdyad.config import asset_path
from diffdyad.context import PreviousTurn
from diffdyad.errors import UserError
from diffdyad.media import read_audio
from diffdyad.motion import Motion, load_motion
from diffdyad.pipeline import STARTS
from diffdyad.settings import DEFAULT_GAP_S, GAP_RANGE_S, SampleSettings
from diffdyad.text import TimedWord
from diffdyad.video import has_sound


@dataclass
class Inputs:
    """audio: (S,) the responder's, 16 kHz mono; start: one of `pipeline.STARTS`, or a motion that goes before."""

    audio: Tensor
    previous: PreviousTurn
    start: str | Motion = "none"
    style: Motion | None = None


def exchange_folder(name: str | None) -> Path:
    """The folder of an exchange: an embedded one by name (None: the first), or any folder."""
    if name is not None and Path(name).is_dir():
        return Path(name)
    embedded = sorted(path for path in asset_path("exchanges").iterdir() if (path / "exchange.json").is_file())
    found = embedded[:1] if name is None else [path for path in embedded if path.name == name]
    if not found:
        names = ", ".join(path.name for path in embedded) or "none"
        raise UserError(f"expected a folder or an embedded exchange ({names}), found {name!r}; or give --audio FILE")
    return found[0]


def read_inputs(settings: SampleSettings, exchange: Path | None) -> Inputs:
    if exchange is not None:
        inputs = read_exchange(exchange)
        if settings.context_gap is not None:
            # words carry times of their own, and move with their turn
            later_s = inputs.previous.gap_s - settings.context_gap
            words = [TimedWord(w.word, w.start_s + later_s, w.end_s + later_s) for w in inputs.previous.words]
            inputs.previous = replace(inputs.previous, gap_s=settings.context_gap, words=words)
    else:
        previous = PreviousTurn(
            audio=_context_audio(settings),
            motion=load_motion(settings.context_motion) if settings.context_motion else None,
            text=settings.context_text,
            gap_s=DEFAULT_GAP_S if settings.context_gap is None else settings.context_gap,
        )
        inputs = Inputs(read_audio(settings.audio), previous)
    if settings.start in STARTS:
        inputs.start = settings.start
    elif Path(settings.start).is_file():
        inputs.start = load_motion(settings.start)
    else:
        raise UserError(f"expected --start {', '.join(STARTS)} or a motion file, found {settings.start!r}")
    if settings.style is not None:
        inputs.style = load_motion(settings.style)
    return inputs


def _context_audio(settings: SampleSettings) -> Tensor | None:
    """The previous speaker's voice; that of a video, if it has any."""
    if settings.context_video and has_sound(settings.context_video):
        return read_audio(settings.context_video)
    return read_audio(settings.context_audio) if settings.context_audio else None


def read_exchange(folder: str | os.PathLike) -> Inputs:
    """An exchange's folder: responder.flac, and of the previous turn what there is among previous.flac,
    previous_motion.npz and exchange.json with previous_text, words and gap_s.

    Raises UserError that names the file and what is wrong with it.
    """
    folder = Path(folder)
    path = folder / "exchange.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        words = [TimedWord(str(w["word"]), float(w["start_s"]), float(w["end_s"])) for w in values.get("words", [])]
        gap_s, text = float(values.get("gap_s", DEFAULT_GAP_S)), str(values.get("previous_text", ""))
    except FileNotFoundError:
        raise UserError(f"expected an exchange in {folder}, found no exchange.json") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"expected JSON in {path}, cannot read it: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"expected previous_text, words with their times and gap_s in {path}: {error!r}") from None
    if not all(math.isfinite(time) for word in words for time in (word.start_s, word.end_s)):
        raise UserError(f"expected finite times of words in {path}, found NaN or infinity")
    if not GAP_RANGE_S[0] <= gap_s <= GAP_RANGE_S[1]:
        raise UserError(f"expected gap_s from {GAP_RANGE_S[0]:g} to {GAP_RANGE_S[1]:g} in {path}, found {gap_s}")
    audio, motion = folder / "previous.flac", folder / "previous_motion.npz"
    previous = PreviousTurn(
        audio=read_audio(audio) if audio.exists() else None,
        motion=load_motion(motion) if motion.exists() else None,
        text=text,
        words=words,
        gap_s=gap_s,
    )
    return Inputs(read_audio(folder / "responder.flac"), previous)
