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
    page = _HTML.replace("__TRIALS__", json.dumps(shown)).replace("__COUNT__", str(len(shown)))
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
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"expected {path} to hold the answers of the page in {folder}, cannot read it: {error!r}") from None
    found = {f"fits best: {name}": _share(sum(p == name for p in preferred), len(preferred), 1 / 3)
             for name in (TRUE, NULL, NEAR)}  # fmt: skip
    found |= {f"took the true turn for that of an answer to {name}": _share(sum(right), len(right), 0.5)
              for name, right in turns.items()}  # fmt: skip
    return {name: row for name, row in found.items() if row["count"]}


def _share(successes: int, trials: int, chance: float) -> dict:
    interval = exact_binomial_interval(successes, trials)
    value = successes / trials if trials else 0.0
    return {"count": trials, "share": value, "low": interval.low, "high": interval.high, "chance": chance}


_HTML = """<!doctype html><html lang=en><head><meta charset=utf-8><title>Which answer fits?</title><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
.row{display:flex;gap:1rem;flex-wrap:wrap}.row>div{flex:1 1 15rem}video{width:100%}button{font:inherit;padding:.4rem 1rem}
label{display:block;padding:.2rem 0}fieldset{border:1px solid #ccc;margin:1rem 0}</style></head><body>
<h1>Which answer fits?</h1><p>Listen to the two turns, watch the three answers. There is no right answer that you could
know. <span id=place></span></p><div id=trial></div><p><button id=next>Next</button></p>
<script>
const trials = __TRIALS__, answers = trials.map(() => ({preferred: null, turn: null}));
let at = 0;
const byId = id => document.getElementById(id), letters = "ABC";
function radio(name, values, texts) {
  return values.map((v, k) => `<label><input type=radio name=${name} value=${v}> ${texts[k]}</label>`).join("");
}
function show() {
  const t = trials[at], ids = t.videos.map((_, k) => k), turns = t.turns.map((_, k) => k);
  byId("place").textContent = `${at + 1} of __COUNT__`;
  byId("trial").innerHTML =
    `<div class=row>${t.turns.map((s, k) => `<div>Turn ${k + 1}<br><audio controls src="${s}"></audio></div>`).join("")}</div>` +
    `<div class=row>${t.videos.map((s, k) => `<div>Answer ${letters[k]}<video controls src="${s}"></video></div>`).join("")}</div>` +
    `<fieldset><legend>Which answer do you like best?</legend>${radio("preferred", ids, ids.map(k => "Answer " + letters[k]))}</fieldset>` +
    `<fieldset><legend>Which turn came before answer ${letters[t.asked]}?</legend>${radio("turn", turns, turns.map(k => "Turn " + (k + 1)))}</fieldset>`;
}
byId("next").onclick = () => {
  for (const name of ["preferred", "turn"]) {
    const chosen = document.querySelector(`input[name=${name}]:checked`);
    answers[at][name] = chosen ? Number(chosen.value) : null;
  }
  if (++at < trials.length) return show();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1)], {type: "application/json"}));
  link.download = "answers.json";
  link.textContent = "answers.json";
  document.body.innerHTML = "<h1>Thank you</h1><p>Save this file beside the page, and run the protocol again: </p>";
  document.body.append(link);
  link.click();
};
show();
</script></body></html>
"""
