"""The record of a dataset: one exchange, both people on one clock, t = 0 s at the response's onset.

`Exchange` is the record in memory, `exchange_features` its columns on disk (parquet, readable with
`datasets.load_dataset("parquet", ...)`), `write_shard` and `open_exchanges` the way between them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffdyad.data.consistency import LONGEST_PREVIOUS_S as LONGEST_PREVIOUS_S
from diffdyad.data.consistency import PEOPLE, check_exchange
from diffdyad.data.consistency import RESPONSE_KINDS as RESPONSE_KINDS
from diffdyad.data.consistency import SPLITS as SPLITS
from diffdyad.data.dynamics import head_dynamics
from diffdyad.data.person import Person, SoundTag, TurnSpan
from diffdyad.errors import UserError
from diffdyad.media import decode_flac, encode_flac
from diffdyad.motion import POSE_GROUPS, Motion, MotionLayout
from diffdyad.staging import whole
from diffdyad.text import TimedWord

_ROWS_PER_GROUP = 4  # of parquet: what must be read to get at one row
_ROWS_AT_ONCE = 64  # that are in memory while a shard is written


@dataclass
class Exchange:
    """One previous turn and its response. Times in seconds on the exchange's clock unless named otherwise.

    language: BCP 47, "" = not known; turns: all that were found in the record; prosody_encoder, affect_encoder,
    face_affect_encoder: what made these of `Person`, "" = nothing did. Scores, NaN = not known: active_speaker_score,
    sync_lag_ms (sound against lips), reprojection_px (of the tracker), reactivity (predicted from the previous turn
    alone), head_percentile (of the responder's head speed, among the dataset's). keep, reject_reasons: what filters
    say.

    The last block is the truth of a rehearsal corpus, and NaN, False or "" everywhere else: the previous
    turn's affect, the response's own, whether the responder reacts, and how (see docs/rehearsal.md).
    """

    exchange_id: str
    session_id: str
    previous_speaker: str
    responder_name: str  # column `responder`
    split: str
    start_s: float
    previous_end_s: float
    end_s: float
    previous: Person
    responder: Person
    previous_exchange_id: str = ""
    next_exchange_id: str = ""
    session_onset_s: float = 0.0
    overlap_ratio: float = 0.0
    source: str = ""
    license: str = ""
    consent: str = ""
    basis: str = "arkit"
    tracker: str = ""
    neck_folded: bool = False
    fps: float = 25.0
    config_hash: str = ""
    response_kind: str = "verbal"
    language: str = ""
    turns: list[TurnSpan] = field(default_factory=list)
    prosody_encoder: str = ""
    affect_encoder: str = ""
    face_affect_encoder: str = ""
    active_speaker_score: float = math.nan
    sync_lag_ms: float = math.nan
    reprojection_px: float = math.nan
    reactivity: float = math.nan
    head_percentile: float = math.nan
    keep: bool = True
    reject_reasons: list[str] = field(default_factory=list)
    valence: float = math.nan
    arousal: float = math.nan
    reactive: bool = False
    planted_strength: float = math.nan
    planted_time_constant_s: float = math.nan
    planted_rise_start_s: float = math.nan
    planted_rise_end_s: float = math.nan
    planted_nod_hz: float = math.nan
    planted_response_valence: float = math.nan
    planted_response_arousal: float = math.nan
    planted_dialogue: str = ""
    planted_voice: str = ""

    @property
    def gap_s(self) -> float:
        """Silence between the turns; negative when they overlap."""
        return -self.previous_end_s

    @property
    def num_frames(self) -> int:
        return max(self.previous.num_frames, self.responder.num_frames)

    @property
    def layout(self) -> MotionLayout:
        """The layout of the motions: eyelids only where they were measured."""
        widths = {group: array.shape[1] for group, array in self.responder.motion.items()}
        lids = any(len(person.motion.get("eyelids", ())) for person in (self.previous, self.responder))
        return MotionLayout(self.basis, widths["expression"], lids)

    def motion(self, who: str) -> Motion:
        """The motion of "previous" or "responder"; groups that were not measured are zero and not valid."""
        person, layout = self.person(who), self.layout
        num_frames = person.num_frames
        values = torch.zeros(num_frames, layout.dim)
        valid = torch.zeros(num_frames, len(layout.groups), dtype=torch.bool)
        for column, group in enumerate(layout.groups):
            array = person.motion.get(group)
            if array is not None and len(array):
                values[:, layout.slices[group]] = torch.from_numpy(np.array(array, np.float32))
                valid[:, column] = torch.from_numpy(np.asarray(person.valid, bool))
        return Motion(values, layout, self.fps, torch.from_numpy(person.betas.copy()), valid, self.neck_folded)

    def person(self, who: str) -> Person:
        if who not in PEOPLE:
            raise ValueError(f"expected one of {', '.join(PEOPLE)}, got {who!r}")
        return self.previous if who == "previous" else self.responder

    def own_frames(self, who: str) -> slice:
        """Frames of somebody's own turn: the previous one's up to its end; the answer's from the onset on, or, where
        nothing follows it (who only listens), all of them."""
        onset, end = (max(0, round((at - self.start_s) * self.fps)) for at in (0.0, self.previous_end_s))
        if who == "previous":
            return slice(0, end)
        return slice(onset if round(self.end_s * self.fps) > 0 else 0, None)

    def check(self) -> None:
        """Raises ValueError, naming the exchange, where the record contradicts itself."""
        check_exchange(self)


_AFFECT = {"affect": "affect_encoder", "face_affect": "face_affect_encoder"}  # columns only where they were asked for
_OTHERWISE = (*PEOPLE, "responder_name", "turns", "reject_reasons", *_AFFECT.values())
_PLAIN = [f for f in fields(Exchange) if f.name not in _OTHERWISE]
_DTYPES = {"str": "string", "float": "float64", "bool": "bool"}
_FLOAT32 = {"overlap_ratio", "valence", "arousal", "active_speaker_score", "sync_lag_ms", "reprojection_px",
            "reactivity", "head_percentile"}  # fmt: skip


def group_widths(num_expression: int) -> dict[str, int]:
    """Channel groups that a record has columns for, and their widths. Eyelids are a column even where absent."""
    return {"expression": num_expression, "eyelids": 2, **dict.fromkeys(POSE_GROUPS, 3)}


def exchange_features(num_expression: int, num_prosody: int = 8, affect: Mapping[str, int] | None = None):
    """The columns on disk, a `datasets.Features`, for motions with so many expression coefficients.

    affect: channels of the affect features that there are, by name (affect, face_affect).
    """
    from datasets import Array2D, Features, List, Value

    timed = {"start_s": Value("float64"), "end_s": Value("float64"), "probability": Value("float32")}
    turn = {"who": Value("string"), "start_s": Value("float64"), "end_s": Value("float64"), "kind": Value("string")}
    columns: dict[str, Any] = {}
    for f in _PLAIN:
        columns[f.name] = Value("float32" if f.name in _FLOAT32 else _DTYPES[f.type])
    columns["responder"] = Value("string")
    columns["gap_s"] = Value("float64")
    columns["turns"] = List(turn)
    columns["reject_reasons"] = List(Value("string"))
    columns |= {_AFFECT[name]: Value("string") for name in affect or ()}
    for who in PEOPLE:
        columns[f"{who}_audio"] = Value("binary")
        for group, width in group_widths(num_expression).items():
            columns[f"{who}_{group}"] = Array2D((None, width), "float32")
        columns[f"{who}_valid"] = List(Value("bool"))
        columns[f"{who}_betas"] = List(Value("float32"))
        columns[f"{who}_text"] = Value("string")
        columns[f"{who}_words"] = List({"word": Value("string"), **timed})
        columns[f"{who}_tags"] = List({"tag": Value("string"), **timed})
        columns[f"{who}_prosody"] = Array2D((None, num_prosody), "float32")
        columns |= {f"{who}_{name}": Array2D((None, width), "float32") for name, width in (affect or {}).items()}
        for name in ("residual_db", "valid_share", "head_sd_deg", "head_speed_deg_s", "head_range_deg",
                     "head_peak_speed_deg_s"):  # fmt: skip
            single = name in ("residual_db", "valid_share")
            columns[f"{who}_{name}"] = Value("float32") if single else List(Value("float32"))
    return Features(columns)


def to_row(exchange: Exchange) -> dict[str, Any]:
    """An exchange as the columns of `exchange_features`; audio becomes FLAC bytes, b"" where there is none."""
    exchange.check()
    row: dict[str, Any] = {f.name: getattr(exchange, f.name) for f in _PLAIN}
    row["responder"], row["gap_s"] = exchange.responder_name, exchange.gap_s
    row["turns"] = [asdict(turn) for turn in exchange.turns]
    row["reject_reasons"] = list(exchange.reject_reasons)
    num_expression = exchange.responder.motion["expression"].shape[1]
    for who in PEOPLE:
        person = exchange.person(who)
        waveform = np.ascontiguousarray(person.waveform, dtype=np.float32)
        row[f"{who}_audio"] = encode_flac(torch.from_numpy(waveform)) if len(waveform) else b""
        for group, width in group_widths(num_expression).items():
            array = person.motion.get(group, np.zeros((0, width), np.float32))
            row[f"{who}_{group}"] = np.asarray(array, dtype=np.float32).reshape(-1, width)
        row[f"{who}_valid"] = np.asarray(person.valid, bool).tolist()
        row[f"{who}_betas"] = np.asarray(person.betas, np.float32).tolist()
        row[f"{who}_text"] = person.text
        row[f"{who}_words"] = [
            {"word": w.word, "start_s": w.start_s, "end_s": w.end_s, "probability": w.probability}
            for w in person.words
        ]
        row[f"{who}_tags"] = [asdict(tag) for tag in person.tags]
        row[f"{who}_prosody"] = np.asarray(person.prosody, np.float32)
        for name, encoder in _AFFECT.items():
            if getattr(exchange, encoder):
                row[encoder] = getattr(exchange, encoder)
                row[f"{who}_{name}"] = np.asarray(getattr(person, name), np.float32)
        row[f"{who}_residual_db"] = person.residual_db
        row[f"{who}_valid_share"] = float(np.mean(person.valid)) if len(person.valid) else math.nan
        head = head_dynamics(person.motion, person.valid, exchange.fps, exchange.own_frames(who))
        row |= {f"{who}_head_{name}": value for name, value in asdict(head).items()}
    return row


def from_row(row: Mapping[str, Any], audio: bool = True) -> Exchange:
    """A row, read unformatted, as an exchange. `audio=False` leaves the sound undecoded and empty."""
    people = {}
    for who in PEOPLE:
        motion = {}
        for column, value in row.items():
            group = column.removeprefix(f"{who}_")
            if column.startswith(f"{who}_") and (group in POSE_GROUPS or group in ("expression", "eyelids")):
                array = np.asarray(value, dtype=np.float32)
                # an empty list of lists has lost its width; only expressions' width is not known by name
                width = {"eyelids": 2, "expression": array.shape[-1] if array.ndim == 2 else 0}.get(group, 3)
                motion[group] = array.reshape(-1, width) if width else np.zeros((0, 0), np.float32)
        data = row[f"{who}_audio"]
        people[who] = Person(
            waveform=decode_flac(data).numpy() if audio and data else np.zeros(0, np.float32),
            motion=motion,
            valid=np.asarray(row[f"{who}_valid"], dtype=bool),
            betas=np.asarray(row[f"{who}_betas"], dtype=np.float32),
            text=row[f"{who}_text"],
            words=[TimedWord(**word) for word in row[f"{who}_words"]],
            tags=[SoundTag(**tag) for tag in row.get(f"{who}_tags", ())],
            residual_db=row.get(f"{who}_residual_db", math.nan),
        )
        for name in ("prosody", *_AFFECT):
            features = np.asarray(row.get(f"{who}_{name}", ()), np.float32)
            if features.ndim == 2 and len(features):
                setattr(people[who], name, features)
    # where one side has no expressions, its width is the other's
    widths = {who: person.motion["expression"].shape[1] for who, person in people.items()}
    for person in people.values():
        if not len(person.motion["expression"]):
            person.motion["expression"] = np.zeros((0, max(widths.values())), np.float32)
    plain = {f.name: row[f.name] for f in _PLAIN if f.name in row}
    plain |= {encoder: row.get(encoder, "") for encoder in _AFFECT.values()}
    plain["turns"] = [TurnSpan(**turn) for turn in row.get("turns", ())]
    plain["reject_reasons"] = list(row.get("reject_reasons", ()))
    return Exchange(responder_name=row["responder"], **plain, **people)


def shard_name(split: str, index: int, count: int) -> str:
    """The file name under which `datasets.load_dataset` finds the split by itself."""
    return f"{split}-{index:05d}-of-{count:05d}.parquet"


def write_shard(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> int:
    """Rows of `to_row` -> one parquet file, whole or not at all; equal rows give equal bytes. Returns their number.

    Rows are taken one after another, a few are in memory at a time. Raises ValueError without any row.
    """
    import pyarrow.parquet as parquet
    from datasets import Dataset

    rows, count, writer = iter(rows), 0, None
    with whole(path) as partial:
        try:
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                first = batch[0]
                asked = [name for name, encoder in _AFFECT.items() if encoder in first]
                affect = {name: max(first[f"{who}_{name}"].shape[1] for who in PEOPLE) for name in asked}
                features = exchange_features(first["responder_expression"].shape[1], _prosody_width(first), affect)
                columns = {name: [row[name] for row in batch] for name in features}
                table = Dataset.from_dict(columns, features=features).data.table
                # arrow stamps no time into the file: the bytes depend on the rows (and on arrow's version) alone
                writer = writer or parquet.ParquetWriter(partial, table.schema, compression="zstd")
                writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
                count += len(batch)
            if writer is None:
                raise ValueError(f"expected at least one exchange for {path}, got none")
        finally:
            if writer is not None:
                writer.close()
    return count


def _prosody_width(row: Mapping[str, Any]) -> int:
    return max(row[f"{who}_prosody"].shape[1] for who in PEOPLE)


def shards(folder: str | os.PathLike, split: str) -> list[Path]:
    """The parquet files of a split, in order. Raises UserError where there are none."""
    folder = Path(folder)
    found = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    if not found:
        there = sorted({path.name.split("-")[0] for path in folder.glob("*-of-*.parquet")})
        raise UserError(
            f"expected parquet shards of the split {split!r} in {folder}, found "
            f"{'the splits ' + ', '.join(there) if there else 'none'}; make a corpus with `diffdyad data rehearse`"
        )
    return found


class ExchangeShards:
    """Exchanges of one split, by index, straight from the parquet files: a random row costs one row group.

    For everything else (filtering, mapping, streaming) load the same files with `datasets.load_dataset`.
    """

    def __init__(self, folder: str | os.PathLike, split: str, audio: bool = True):
        import pyarrow.parquet as parquet

        self.audio = audio
        self.paths = shards(folder, split)
        self._where: list[tuple[int, int, int]] = []  # (shard, row group, row in group)
        self._files = [None] * len(self.paths)
        for number, path in enumerate(self.paths):
            metadata = parquet.read_metadata(path)
            for group in range(metadata.num_row_groups):
                self._where += [(number, group, row) for row in range(metadata.row_group(group).num_rows)]

    def __len__(self) -> int:
        return len(self._where)

    def row(self, index: int, columns: list[str] | None = None) -> dict[str, Any]:
        """One row, motions as float32 arrays (T, width), audio as FLAC bytes."""
        import pyarrow.parquet as parquet

        number, group, row = self._where[index]
        if self._files[number] is None:
            self._files[number] = parquet.ParquetFile(self.paths[number])
        table = self._files[number].read_row_group(group, columns=columns).slice(row, 1)
        return {name: cell(table.column(name)) for name in table.column_names}

    def __getitem__(self, index: int) -> Exchange:
        return from_row(self.row(index), self.audio)

    def __getstate__(self):
        return {**self.__dict__, "_files": [None] * len(self.paths)}  # workers open files of their own


def cell(column) -> Any:
    """One cell of an arrow column; matrices of numbers without a detour through Python lists."""
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    array = getattr(array, "storage", array)
    kind = array.type
    if pa.types.is_list(kind) and pa.types.is_list(kind.value_type):
        rows = array.flatten()
        values = rows.flatten().to_numpy(zero_copy_only=False)
        return values.reshape(len(rows), -1) if len(rows) else np.zeros((0, 0), np.float32)
    return array[0].as_py()


def open_exchanges(folder: str | os.PathLike, split: str, cache_dir: str | None = None):
    """The split as a `datasets.Dataset` (unformatted: numpy formatting would strip zeros off the FLAC bytes)."""
    from datasets import load_dataset

    files = [str(path) for path in shards(folder, split)]
    return load_dataset("parquet", data_files={split: files}, split=split, cache_dir=cache_dir)
