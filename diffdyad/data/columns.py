"""Columns of a shard: some of them read, or a few replaced, the rest left alone."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffdyad.data.exchange import cell
from diffdyad.staging import whole

_ROWS_AT_ONCE = 64  # a whole number of row groups, as shards are written


def read_rows(path: str | os.PathLike, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of one shard, these columns of them (those that it has), matrices as float32 arrays."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=there)
            for number in range(len(table)):
                row = table.slice(number, 1)
                yield {name: cell(row.column(name)) for name in there}


def replace_columns(source: Path, target: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A shard with other values in some of its columns, whole or not at all; target may be the source.

    The bytes are those that `write_shard` gives the same rows. Raises ValueError where the numbers of values and rows
    differ.
    """
    import datasets  # noqa: F401  its types of columns must be known, or the bytes would depend on who was imported
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with whole(target, shared=True) as partial, parquet.ParquetFile(source) as file:
        schema, rows = _schema(file), file.metadata.num_rows
        for name, values in columns.items():
            if len(values) != rows:
                raise ValueError(f"expected {rows} values of {name} for {source}, got {len(values)}")
        size = file.metadata.row_group(0).num_rows
        done, step = 0, max(1, _ROWS_AT_ONCE // size)
        with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
            for group in range(0, file.num_row_groups, step):
                table = file.read_row_groups(range(group, min(group + step, file.num_row_groups)))
                for name, values in columns.items():
                    index = schema.get_field_index(name)
                    array = pa.array(values[done : done + len(table)], schema.field(index).type)
                    table = table.set_column(index, schema.field(index), array)
                done += len(table)
                writer.write_table(table.cast(schema), row_group_size=size)


def _schema(file):
    """As it was when the file was written: parquet gives the elements of lists names of its own."""
    import pyarrow as pa

    stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
    return file.schema_arrow if stored is None else pa.ipc.read_schema(pa.BufferReader(base64.b64decode(stored)))
