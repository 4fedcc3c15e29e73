"""What an import says of itself: counts, what failed and why, a line for every recording, the dataset card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffdyad.data.exchange import SPLITS
from diffdyad.data.filtering import Tally
from diffdyad.data.importers.recording import Importer
from diffdyad.errors import EXIT_OK, EXIT_PARTIAL, PartialFailure
from diffdyad.staging import write_text

REPORT, TO_TRACK = "sessions.jsonl", "to_track.jsonl"
_NAMED = 20  # failures that a message names; all of them are in the report


@dataclass
class ImportReport:
    """What an import did. failed: what each unreadable recording's trouble was; skipped: why others gave nothing.

    swapped: recordings whose voices were found on the wrong side; untold: those where it could not be told. tally: what
    filters say of the exchanges, once all are done.
    """

    out: Path
    name: str
    recordings: int = 0
    exchanges: dict[str, int] = field(default_factory=dict)
    hours: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    swapped: list[str] = field(default_factory=list)
    compared: int = 0
    untold: int = 0
    tally: Tally | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return EXIT_PARTIAL if self.failed else EXIT_OK

    def lines(self) -> list[str]:
        """The report, to be printed."""
        counts = ", ".join(f"{split} {count}" for split, count in self.exchanges.items() if count)
        used = self.recordings - len(self.failed) - len(self.skipped)
        total = sum(self.exchanges.values())
        lines = [f"{self.out}: {total} exchanges ({counts or 'none'}) of {used} recordings, {self.hours:.2f} h"]
        if self.compared:
            lines.append(f"sides: {len(self.swapped)} of {self.compared} recordings with the voices exchanged, "
                         f"{self.untold} cannot be told")  # fmt: skip
        for reason, count in Counter(reason.split(" (")[0] for reason in self.skipped.values()).most_common():
            lines.append(f"{count} recordings gave no exchange: {reason}")
        if self.tally is not None and self.tally.kept < self.tally.total:
            lines += self.tally.lines()
        lines += self.notes
        lines += [f"failed: {item}: {message}" for item, message in list(self.failed.items())[:_NAMED]]
        if len(self.failed) > _NAMED:
            lines.append(f"... and {len(self.failed) - _NAMED} more, named in {self.out / REPORT}")
        return lines

    def raise_for_failures(self) -> None:
        """PartialFailure (exit code 3) that names what failed, if anything did."""
        if self.failed:
            named = "; ".join(f"{item}: {message}" for item, message in list(self.failed.items())[:_NAMED])
            more = f"; {len(self.failed) - _NAMED} more are in {self.out / REPORT}" if len(self.failed) > _NAMED else ""
            raise PartialFailure(
                f"{len(self.failed)} of {self.recordings} recordings could not be read, the others are in {self.out}: "
                f"{named}{more}"
            )


def collect(
    out: Path, importer: Importer, journals: Iterable[tuple[str, dict[str, Any]]], notes: list[str], recordings: int
) -> ImportReport:
    """From the split and the journal of every shard; writes the report's lines and the list of videos to track."""
    report = ImportReport(out, importer.name, recordings, dict.fromkeys(SPLITS, 0), notes=notes)
    lines, videos = [], []
    for split, journal in journals:
        report.failed |= journal["failed"]
        report.exchanges[split] += journal["rows"]
        lines += [{"recording": item, "failed": message} for item, message in journal["failed"].items()]
        for line in journal["sessions"]:
            lines.append(line)
            report.hours += line["hours"]
            if "skipped" in line:
                report.skipped[line["recording"]] = line["skipped"]
            if "sides" in line:
                report.compared += 1
                report.untold += line["sides"]["verdict"] == "cannot tell"
                if line["sides"]["verdict"] == "swapped":
                    report.swapped.append(line["recording"])
            for person, video in line.get("videos", {}).items():
                videos.append({"session_id": line["session_id"], "person": person, "video": video})
    for name, content in ((REPORT, lines), (TO_TRACK, videos)):
        if content:
            write_text(out / name, "".join(json.dumps(line, sort_keys=True) + "\n" for line in content))
    return report


def card(importer: Importer, report: ImportReport, settings: dict[str, Any]) -> str:
    counts = "\n".join(f"| {split} | {count} |" for split, count in report.exchanges.items() if count)
    files = "\n".join(
        f"  - split: {split}\n    path: {split}-*.parquet" for split, count in report.exchanges.items() if count
    )
    notes = "\n".join(f"- {line}" for line in report.lines()[1:] if not line.startswith("failed: "))
    command = "build" if importer.rebuilds else f"import {importer.name}"
    return _CARD.format(
        title=importer.title, files=files, counts=counts, notes=notes or "- none", hours=report.hours,
        license=importer.license or "not stated by the source", consent=importer.consent or "not stated by the source",
        tracker=importer.tracker or "none", basis=importer.expression_basis, failed=len(report.failed),
        settings=json.dumps(settings, sort_keys=True), filters=report.tally.section(),
        command=command,
    )  # fmt: skip


_CARD = """---
license: other
pretty_name: {title}, as exchanges
tags: [dyadic conversation, talking head]
configs:
- config_name: default
  data_files:
{files}
---
# {title}, as exchanges

Made by `diffdyad data {command}`; {hours:.2f} h of exchanges. License of the source: {license}. Consent:
{consent}. Motion: tracker {tracker}, expression basis {basis}. Columns: as every dataset of diffdyad.

| split | exchanges |
|---|---|
{counts}

What that says of itself ({failed} recordings could not be read; `sessions.jsonl` has a line for each recording,
with the rotation that its heads rested at and the hashes of its files):

{notes}

Settings: `{settings}`.

{filters}
"""
