"""The table of figures: as numbers in JSON, as text in Markdown. Undefined is said in words, never NaN."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from diffdyad.evaluation.theirs import Theirs
from diffdyad.staging import write_text

FORMAT = 1
_ROUNDING = 1e-8


@dataclass(frozen=True)
class Line:
    """What a figure is: aim is "lower", "higher" or "truth" (as the truth has it)."""

    name: str
    unit: str
    aim: str
    about: str


@dataclass(frozen=True)
class Cell:
    """A figure of one row in one slice; None = undefined, and `undefined` counts clips and samples by reason.

    low, high: None too where there are too few independent units for an interval.
    """

    value: float | None
    low: float | None
    high: float | None
    undefined: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, value: float, low: float, high: float, undefined: dict[str, int] | None = None) -> Cell:
        known = [float(x) if math.isfinite(x) else None for x in (value, low, high)]
        return cls(*known, dict(undefined or {}))

    @property
    def why(self) -> str:
        """The commonest reason, in a few words."""
        return max(self.undefined, key=self.undefined.get) if self.undefined else "no such clips"


@dataclass
class Report:
    """facts: how many clips and people, rate, basis, settings; rows: name -> what it is, the system first.

    cells: (slice, row, figure) -> Cell; slices: name -> number of clips; notes: what a reader should know first;
    theirs: other projects' figures, in tables of their own.
    """

    facts: dict
    lines: list[Line]
    rows: dict[str, str]
    slices: dict[str, int]
    cells: dict[tuple[str, str, str], Cell]
    notes: list[str] = field(default_factory=list)
    theirs: list[Theirs] = field(default_factory=list)

    def value(self, figure: str, row: str | None = None, part: str = "all") -> float | None:
        """One number; `row` defaults to the system's."""
        return self.cells[part, row or next(iter(self.rows)), figure].value

    def to_dict(self) -> dict:
        tables: dict = {}
        for (part, row, figure), cell in self.cells.items():
            entry = {"value": cell.value, "low": cell.low, "high": cell.high}
            if cell.undefined:
                entry["undefined"] = cell.undefined
            tables.setdefault(part, {}).setdefault(row, {})[figure] = entry
        return {
            "format": FORMAT, "facts": self.facts, "notes": self.notes, "rows": self.rows, "slices": self.slices,
            "figures": {line.name: {"unit": line.unit, "aim": line.aim, "about": line.about} for line in self.lines},
            "tables": tables,
            **({"compat": {found.mode: {"about": found.about, "tables": found.rows} for found in self.theirs}}
               if self.theirs else {}),
        }  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_markdown(self) -> str:
        """A table per slice, figures down, rows across; the system with its interval, controls without."""
        facts = self.facts
        text = [
            "# Motion metrics", "",
            f"{facts['clips']} clips, {facts['seconds'] / 60:.1f} min, {facts['units']} independent "
            f"{'people or pairs' if facts['independent'] == 'people' else 'clips'}, {facts['samples']} sample(s) a "
            f"clip, basis {facts['basis']}, {facts['fps']:g} Hz. Brackets: {100 * facts['confidence']:g} % intervals "
            "over independent units. `-`: undefined, the reasons are below each table.", "",
        ]  # fmt: skip
        text += [f"> {note}" for note in self.notes] + ([""] if self.notes else [])
        for part in self.slices:
            text += self._table(part)
        for found in self.theirs:
            text += [f"## As {found.mode}'s own code prints it", "",
                     f"For comparison with its papers only; the figures above are ours. {found.about}.", "",
                     *found.table(), ""]  # fmt: skip
        text += ["## What the figures are", "", "| figure | unit | better | meaning |", "|---|---|---|---|"]
        aims = {"lower": "lower", "higher": "higher", "truth": "as the truth"}
        text += [f"| {line.name} | {line.unit or '1'} | {aims[line.aim]} | {line.about} |" for line in self.lines]
        text += ["", "## What the rows are", "", "| row | meaning |", "|---|---|"]
        text += [f"| {row} | {about} |" for row, about in self.rows.items()]
        return "\n".join(text) + "\n"

    def _table(self, part: str) -> list[str]:
        rows = list(self.rows)
        lines = [line for line in self.lines if any((part, row, line.name) in self.cells for row in rows)]
        # a figure that no row has is one line below the table, not a line of dashes in it
        filled = [line for line in lines if any(self._cell(part, row, line).value is not None for row in rows)]
        text = [f"## {part} ({self.slices[part]} clips)", "", "| figure | " + " | ".join(rows) + " |",
                "|---|" + "---|" * len(rows)]  # fmt: skip
        for line in filled:
            cells = [self._cell(part, row, line) for row in rows]
            shown = [_number(cell, interval=number == 0) for number, cell in enumerate(cells)]
            text.append(f"| {line.name} | " + " | ".join(shown) + " |")
        reasons: dict[str, list[str]] = {}
        empty = [row for row in rows if all(self._cell(part, row, line).value is None for line in filled)]
        for row in empty if filled else ():
            cells = [cell for line in filled if (cell := self.cells.get((part, row, line.name))) is not None]
            for why in dict.fromkeys(cell.why for cell in cells[:1]):
                reasons.setdefault(why, []).append(f"every figure ({row})")
        for line in lines:
            for row in rows:
                if row in empty and line in filled:
                    continue
                cell = self.cells.get((part, row, line.name))
                if cell is not None and cell.value is None:
                    if line not in filled and row != rows[0]:
                        continue
                    where = line.name if line not in filled else f"{line.name} ({row})"
                    reasons.setdefault(cell.why, []).append(where)
        if reasons:
            text += ["", "Undefined: " + "; ".join(f"{why}: {', '.join(names)}" for why, names in reasons.items())]
        return [*text, ""]

    def _cell(self, part: str, row: str, line: Line) -> Cell:
        return self.cells.get((part, row, line.name), Cell(None, None, None))

    def save(self, folder: str | os.PathLike) -> list[Path]:
        """Writes `metrics.json` and `metrics.md`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, text in (("metrics.json", self.to_json()), ("metrics.md", self.to_markdown())):
            write_text(folder / name, text)
            written.append(folder / name)
        return written


def _number(cell: Cell, interval: bool) -> str:
    if cell.value is None:
        return "-"
    text = _three(cell.value)
    if interval and cell.low is not None and cell.high is not None:
        text += f" [{_three(cell.low)}, {_three(cell.high)}]"
    return text


def _three(value: float) -> str:
    """Three digits; what is only rounding is zero."""
    return "0" if abs(value) < _ROUNDING else f"{value:.3g}"
