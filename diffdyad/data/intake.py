"""Datasets as they come in: shards that can be read, columns that are needed, and the layout that all share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from diffdyad.data.exchange import PEOPLE, Exchange, ExchangeShards, shards
from diffdyad.errors import UserError
from diffdyad.motion import MotionLayout

NEEDED = (
    "exchange_id", "session_id", "previous_speaker", "responder", "split", "start_s", "previous_end_s", "end_s",
    "basis", "fps",
    *(f"{who}_{what}" for who in PEOPLE for what in ("audio", "expression", "valid", "betas", "text", "words")),
)  # fmt: skip
"""Columns without which an exchange cannot be read; those of channel groups may be missing, they count as unknown."""

_LOOKED_AT = 16  # exchanges of a dataset, for its layout


class CorruptShard(UserError):
    """A shard, or an exchange in it, cannot be read. reason: why, in short."""

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason or message

    def __reduce__(self):
        return type(self), (str(self), self.reason)  # it comes out of worker processes


class Shard(ExchangeShards):
    """The exchanges of one file, checked as they are read.

    Raises CorruptShard where the file or one of its exchanges is damaged, UserError where columns are missing.
    """

    def __init__(self, path: Path, audio: bool = True):
        import pyarrow.parquet as parquet

        self.path, self.audio, self.paths, self._files = path, audio, [path], [None]
        try:
            metadata, columns = parquet.read_metadata(path), set(parquet.read_schema(path).names)
        except Exception as error:  # whatever arrow makes of damaged bytes
            raise self._corrupt(error) from None
        missing = [name for name in NEEDED if name not in columns]
        if missing:
            raise UserError(
                f"expected the column{'s' if len(missing) > 1 else ''} {', '.join(missing)} in {path}, found none of "
                f"{'these names' if len(missing) > 1 else 'this name'}; every column is described in "
                "diffdyad.data.exchange"
            )
        self._where = [
            (0, group, row)
            for group in range(metadata.num_row_groups)
            for row in range(metadata.row_group(group).num_rows)
        ]

    def __getitem__(self, index: int) -> Exchange:
        try:
            exchange = super().__getitem__(index)
            exchange.check()
        except MemoryError:
            raise
        except Exception as error:  # arrow's, FLAC's or the record's own: the bytes are not what was written
            raise self._corrupt(error) from None
        return exchange

    def __iter__(self) -> Iterator[Exchange]:
        return (self[index] for index in range(len(self)))

    def _corrupt(self, error: Exception) -> CorruptShard:
        reason = " ".join(str(error).split()) or type(error).__name__
        return CorruptShard(
            f"the shard {self.path} is damaged ({reason[:200]}); get or make it again, or train without it: "
            "data.skip_corrupt=true",
            reason[:200],
        )


@dataclass(frozen=True)
class Format:
    """What all exchanges of a training have in common."""

    layout: MotionLayout
    fps: float


def dataset_format(folder: str | Path, skip_corrupt: bool = False) -> Format:
    """Layout and rate of a dataset's motion, from its first exchanges.

    Raises UserError where it has none; CorruptShard where they cannot be read and `skip_corrupt` is off.
    """
    found: Format | None = None
    for path in shards(folder, "train"):
        try:
            for exchange in islice(Shard(path, audio=False), _LOOKED_AT):
                layout = exchange.layout
                if not layout.num_expression:
                    continue  # nobody's face was measured here
                eyelids = layout.eyelids or (found is not None and found.layout.eyelids)
                found = Format(replace(found.layout if found else layout, eyelids=eyelids), exchange.fps)
        except CorruptShard:
            if not skip_corrupt:
                raise
        if found is not None:
            return found
    raise UserError(f"expected at least one exchange with the responder's expression in {folder}, found none")


def shared_format(folders: Sequence[str], skip_corrupt: bool = False) -> Format:
    """The format of several datasets: the first one's rate; eyelids where one of them has them.

    Raises UserError that names both sides where their bases or numbers of expressions differ.
    """
    first, *others = [dataset_format(folder, skip_corrupt) for folder in folders]
    layout = first.layout
    for folder, other in zip(folders[1:], others):
        if (other.layout.basis, other.layout.num_expression) != (layout.basis, layout.num_expression):
            raise UserError(
                f"expected datasets of one expression basis, found {layout.basis} with {layout.num_expression} "
                f"expressions in {folders[0]}, and {other.layout.basis} with {other.layout.num_expression} in "
                f"{folder}; convert one of them first"
            )
        layout = replace(layout, eyelids=layout.eyelids or other.layout.eyelids)
    return Format(layout, first.fps)
