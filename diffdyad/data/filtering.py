"""`diffdyad data filter`: which exchanges of a dataset are kept, judged anew by the scores that lie in it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffdyad.data.columns import read_rows, replace_columns
from diffdyad.data.exchange import SPLITS
from diffdyad.data.filters import COLUMNS, Filters, reject_reasons
from diffdyad.data.intake import CorruptShard
from diffdyad.errors import UserError
from diffdyad.lock import only_one
from diffdyad.staging import cleared, staged

CARD, SESSIONS = "README.md", "sessions.jsonl"

_JUDGED = ("keep", "reject_reasons")
_STAGED, _PARTIAL = ".filter", ".filter.partial"
_BEGIN, _END = "<!-- filters -->", "<!-- /filters -->"


@dataclass
class Tally:
    """What filters leave of a dataset. reasons: how many exchanges each of them rejects; several may reject one."""

    filters: Filters
    kept: int = 0
    total: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def judged(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with `keep` and `reject_reasons`, counted."""
        row["reject_reasons"] = reject_reasons(row, self.filters)
        row["keep"] = not row["reject_reasons"]
        self.kept, self.total = self.kept + row["keep"], self.total + 1
        self.reasons.update(row["reject_reasons"])
        return row

    def lines(self) -> list[str]:
        counts = [f"{count}: {reason}" for reason, count in self.reasons.most_common()]
        return [f"{self.kept} of {self.total} exchanges kept", *counts]

    def section(self) -> str:
        """For a dataset's card, between marks by which it is found again."""
        rows = "".join(f"| {reason} | {count} |\n" for reason, count in self.reasons.most_common())
        table = f"\n| not kept, since | exchanges |\n|---|---|\n{rows}" if rows else ""
        return (
            f"{_BEGIN}\n## Filters\n\n{self.kept} of {self.total} exchanges are kept (`keep`); `diffdyad data filter` "
            f"judges anew by other thresholds.\n{table}\nThresholds: `{json.dumps(asdict(self.filters))}`.\n{_END}"
        )


def filter_dataset(
    folder: str | os.PathLike, filters: Filters, out: str | os.PathLike | None = None, progress: bool = False
) -> Tally:
    """Writes `keep` and `reject_reasons` of all exchanges, and the thresholds into the dataset's card.

    out: a new folder for the dataset as it is then; None = it is changed itself, shard by shard whole or not at all:
    killed, it is as it was, or the next filter (or build) goes on to the end. Scores are not computed again.
    Raises UserError where there is no dataset, where a shard is damaged or lacks columns, and where `out` has one.
    """
    folder = Path(folder)
    if not any(folder.glob("*-of-*.parquet")):
        raise UserError(f"expected parquet shards of exchanges in {folder}, found none")
    if out is not None and Path(out).resolve() == folder.resolve():
        out = None
    with only_one(folder, "filter"):
        settle(folder)
        paths = [path for split in SPLITS for path in sorted(folder.glob(f"{split}-*-of-*.parquet"))]
        if out is not None:
            out = Path(out)
            if out.is_dir() and any(out.iterdir()):
                raise UserError(f"expected a new or empty folder, found other files in {out}; give another --out")
            names = [path.name for path in paths] + [CARD] + [SESSIONS] * (folder / SESSIONS).is_file()
            with staged(out, names) as target:
                tally = _write(folder, paths, filters, target, False, progress)
                if SESSIONS in names:
                    shutil.copyfile(folder / SESSIONS, target / SESSIONS)
            return tally
        with cleared(folder / _PARTIAL) as target:
            target.mkdir()
            tally = _write(folder, paths, filters, target, True, progress)
            os.rename(target, folder / _STAGED)
        settle(folder)
    return tally


def settle(folder: Path) -> None:
    """Puts in their places what a killed filter had made in full."""
    made = folder / _STAGED
    if made.is_dir():
        for path in sorted(made.iterdir(), key=lambda path: path.name == CARD):  # the card goes last
            os.replace(path, folder / path.name)
        made.rmdir()


def _write(
    folder: Path, paths: list[Path], filters: Filters, target: Path, only_changed: bool, progress: bool
) -> Tally:
    """Shards with new judgements, and the card, in the folder `target`."""
    from tqdm.auto import tqdm

    tally = Tally(filters)
    for path in tqdm(paths, desc="filtering", unit="shard", disable=not progress):
        _judge(path, target / path.name, tally, only_changed)
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {folder.resolve().name}\n"
    (target / CARD).write_text(_with_section(text, tally.section()), encoding="utf-8")
    return tally


def rejected(paths: Sequence[Path], skip_corrupt: bool = False) -> Iterator[str]:
    """Ids of the exchanges of these shards that `keep` leaves out; none where a shard has no such column."""
    for path in paths:
        try:
            for row in read_rows(path, ("exchange_id", "keep")):
                if row.get("keep") is False:
                    yield row["exchange_id"]
        except (OSError, ValueError):
            if not skip_corrupt:
                raise CorruptShard(f"cannot read {path}") from None


def judge_files(paths: Sequence[Path], filters: Filters) -> Tally:
    """Judges all exchanges of these shards where they lie; a shard that says the same already is left alone."""
    tally = Tally(filters)
    for path in paths:
        _judge(path, path, tally, True)
    return tally


def _judge(path: Path, target: Path, tally: Tally, only_changed: bool) -> None:
    try:
        before = list(read_rows(path, ["exchange_id", *_JUDGED, *COLUMNS]))
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever arrow makes of damaged bytes
        raise UserError(f"the shard {path} is damaged ({' '.join(str(error).split())[:200]}); nothing was "
                        "changed") from None  # fmt: skip
    missing = [name for name in _JUDGED if before and name not in before[0]]
    if missing:
        raise UserError(f"expected the columns {' and '.join(_JUDGED)} in {path}, found no {missing[0]}")
    after = [tally.judged(dict(row)) for row in before]
    columns = {name: [row[name] for row in after] for name in _JUDGED}
    if not only_changed or any(columns[name] != [row[name] for row in before] for name in _JUDGED):
        replace_columns(path, target, columns)


def _with_section(card: str, section: str) -> str:
    """A card whose section of filters is this one; put at its end where it has none."""
    marked = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END), re.DOTALL)
    if marked.search(card):
        return marked.sub(lambda _: section, card, count=1)
    return f"{card.rstrip()}\n\n{section}\n"
