"""`diffdyad data build`: a manifest of recordings into a dataset of exchanges."""

from __future__ import annotations

import os
import re
from pathlib import Path

from diffdyad.data.importers.corpus import Shard, import_dataset
from diffdyad.data.importers.report import ImportReport
from diffdyad.data.recordings.steps import STEPS, sweep
from diffdyad.errors import UserError


def build_dataset(
    manifest: str | os.PathLike, out_dir: str | os.PathLike, workers: int | None = None, shard: str | None = None,
    progress: bool = False,
) -> ImportReport:
    """Builds the dataset, or goes on with it; what changed in the manifest or in its files is done again, the rest is
    taken from `out_dir`/.steps.

    shard: "i/n", the i-th (from 1) of n parts, for as many machines on one folder. Unreadable recordings are in the
    report, and the others are done: `raise_for_failures` is exit code 3. Raises UserError for a wrong manifest, missing
    backends, and where no recording gave an exchange.
    """
    sweep(Path(out_dir) / STEPS)
    return import_dataset("recordings", manifest, out_dir, None, workers, progress, parse_shard(shard))


def parse_shard(text: str | None) -> Shard:
    """ "i/n" as a part of the work. Raises UserError for anything else."""
    if text is None:
        return Shard()
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"expected --shard i/n with i from 1 to n, found {text!r}")
    return Shard(int(match[1]) - 1, int(match[2]))
