"""A page on which people judge answers without knowing which is which; its answers are read back into the report."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.evaluation.effect.conditions import NEAR, NULL, TRUE
from diffdyad.evaluation.intervals import exact_binomial_interval
from diffdyad.staging import write_text

KEY, ANSWERS, PAGE = "key.json", "answers*.json", "index.html"
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
    page = template.replace("__TRIALS__", json.dumps(shown)).replace("__PAGE__", _name(key))
    for name, text in ((PAGE, page), (KEY, json.dumps(key, indent=1) + "\n")):
        write_text(folder / name, text)


def _name(key: list[dict]) -> str:
    """The page's, so that answers are never read with the key of another."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read_answers(folder: Path, paths: Sequence[Path | str] | None = None) -> dict | None:
    """Shares with exact intervals, by question; None where nobody has answered.

    paths: a file per person, as the page saved them; None = `answers*.json` beside the page. Raises UserError where one
    cannot be read, or was saved by another page.
    """
    found = sorted(folder.glob(ANSWERS)) if paths is None else [Path(path) for path in paths]
    if not found:
        return None
    try:
        key = json.loads((folder / KEY).read_text(encoding="utf-8"))
        page = _name(key)
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected {folder / KEY}, which says what the blind page shows where, cannot read it ({error}): make the "
            "page again, without --no-video"
        ) from None
    preferred, turns = [], {TRUE: [], NEAR: [], NULL: []}
    for path in found:
        for row, answer in zip(key, _read(path, folder, page, len(key))):
            if answer.get("preferred") is not None:
                preferred.append(row["videos"][answer["preferred"]])
            if answer.get("turn") is not None:
                turns[row["asked"]].append(row["turns"][answer["turn"]] == TRUE)
    shares = {f"liked best: {name}": _share(sum(p == name for p in preferred), len(preferred), 1 / 3)
              for name in (TRUE, NULL, NEAR)}  # fmt: skip
    shares |= {f"took the true turn for that of an answer to {name}": _share(sum(right), len(right), 0.5)
               for name, right in turns.items()}  # fmt: skip
    return {name: row for name, row in shares.items() if row["count"]}


def _read(path: Path, folder: Path, page: str, count: int) -> list[dict]:
    """What one person answered, a dict per trial."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"expected the blind page's answers in {path}, found no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"expected {path} to hold what the page in {folder} saved, cannot read it: {error}") from None
    answers = content.get("answers") if isinstance(content, dict) else None
    if not isinstance(answers, list) or not all(_is_answer(answer) for answer in answers):
        raise UserError(f"expected {path} to hold the answers of the page in {folder}, found something else")
    if content.get("page") != page or len(answers) != count:
        raise UserError(f"expected {path} to hold the answers of the page in {folder}, found those of another page: "
                        "the protocol was run with other settings since, or they belong to another report")  # fmt: skip
    return answers


def _is_answer(answer) -> bool:
    return isinstance(answer, dict) and all(
        answer.get(name) is None or (type(answer[name]) is int and 0 <= answer[name] < most)
        for name, most in (("preferred", 3), ("turn", 2))
    )


def _share(successes: int, trials: int, chance: float) -> dict:
    interval = exact_binomial_interval(successes, trials)
    value = successes / trials if trials else 0.0
    return {"count": trials, "share": value, "low": interval.low, "high": interval.high, "chance": chance}
