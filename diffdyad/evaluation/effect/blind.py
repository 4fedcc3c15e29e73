"""A page on which people judge answers without knowing which is which; its answers are read back into the report."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.evaluation.effect.conditions import NEAR, NULL, TRUE
from diffdyad.evaluation.intervals import exact_binomial_interval

KEY, ANSWERS, PAGE = "key.json", "answers.json", "index.html"
_TEMPLATE = Path(__file__).with_name("blind.html")


@dataclass(frozen=True)
class Trial:
    """One exchange. videos: condition -> MP4; turns: the true previous turn's sound and another's (TRUE, NEAR), WAV."""

    name: str
    videos: dict[str, bytes]
    turns: dict[str, bytes]


def write_page(folder: Path, trials: Sequence[Trial], generator: np.random.Generator) -> None:
    """Writes the page, and apart from it the key that says what was shown where."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, key = [], []
    for trial in trials:
        order = [list(trial.videos)[k] for k in generator.permutation(len(trial.videos))]
        turns = [list(trial.turns)[k] for k in generator.permutation(len(trial.turns))]
        of = order[int(generator.integers(len(order)))]  # whose turn is asked for
        key.append({"name": trial.name, "videos": order, "turns": turns, "asked": of})
        shown.append({
            "videos": [_data("video/mp4", trial.videos[name]) for name in order],
            "turns": [_data("audio/wav", trial.turns[name]) for name in turns], "asked": order.index(of),
        })  # fmt: skip
    template = _TEMPLATE.read_text(encoding="utf-8")
    page = template.replace("__TRIALS__", json.dumps(shown)).replace("__COUNT__", str(len(shown)))
    (folder / PAGE).write_text(page, encoding="utf-8")
    (folder / KEY).write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read_answers(folder: Path, path: Path | None = None) -> dict | None:
    """Shares with exact intervals, by question; None where nobody has answered.

    Raises UserError where the answers do not belong to the page.
    """
    path = Path(path) if path is not None else folder / ANSWERS
    if not path.exists():
        if path != folder / ANSWERS:
            raise UserError(f"expected the blind page's answers in {path}, found no such file")
        return None
    try:
        key = json.loads((folder / KEY).read_text(encoding="utf-8"))
        answers = json.loads(path.read_text(encoding="utf-8"))
        people = answers if isinstance(answers[0], list) else [answers]
        preferred, turns = [], {TRUE: [], NEAR: [], NULL: []}
        for given in people:
            for row, answer in zip(key, given, strict=True):
                if answer.get("preferred") is not None:
                    preferred.append(row["videos"][answer["preferred"]])
                if answer.get("turn") is not None:
                    turns[row["asked"]].append(row["turns"][answer["turn"]] == TRUE)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"expected {path} to hold the answers of the page in {folder}, cannot read it: {error!r}"
        ) from None
    found = {f"fits best: {name}": _share(sum(p == name for p in preferred), len(preferred), 1 / 3)
             for name in (TRUE, NULL, NEAR)}  # fmt: skip
    found |= {f"took the true turn for that of an answer to {name}": _share(sum(right), len(right), 0.5)
              for name, right in turns.items()}  # fmt: skip
    return {name: row for name, row in found.items() if row["count"]}


def _share(successes: int, trials: int, chance: float) -> dict:
    interval = exact_binomial_interval(successes, trials)
    value = successes / trials if trials else 0.0
    return {"count": trials, "share": value, "low": interval.low, "high": interval.high, "chance": chance}
