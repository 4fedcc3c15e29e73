"""Motion out, in the forms that other tools read: `diffdyad data export`.

A dataset of exchanges or one `motion.npz`, as DualTalk's npz and wav, as Live Link Face CSV, as drivers of GAGAvatar,
or as BFM coefficients for PIRender. What a form cannot hold is refused or said; bases are never mixed.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from diffdyad import rotation
from diffdyad.data import arkit
from diffdyad.data.exchange import PEOPLE, SPLITS, Exchange, shards
from diffdyad.data.intake import CorruptShard, Shard
from diffdyad.errors import EXIT_OK, EXIT_PARTIAL, PartialFailure, UserError
from diffdyad.media import SAMPLING_RATE, write_wav
from diffdyad.motion import Motion, load_motion
from diffdyad.staging import check_folder, whole

FORMATS = ("dualtalk", "arkit-csv", "gagavatar", "pirender")
ARKIT_FPS = 60.0  # as the app records
GAGAVATAR_FPS = DUALTALK_FPS = PIRENDER_FPS = 25.0
_SHOWN = 20


@dataclass
class ExportReport:
    """What was written. failed: what could not be, and why; notes: what the form does not hold."""

    out: Path
    files: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return EXIT_PARTIAL if self.failed else EXIT_OK

    def lines(self) -> list[str]:
        """The report, to be printed."""
        lines = [f"{self.out}: {len(self.files)} files", *self.notes]
        return lines + [f"failed: {name}: {reason}" for name, reason in list(self.failed.items())[:_SHOWN]]

    def raise_for_failures(self) -> None:
        """PartialFailure (exit code 3) that names what failed, if anything did."""
        if self.failed:
            named = "; ".join(f"{name}: {reason}" for name, reason in list(self.failed.items())[:_SHOWN])
            raise PartialFailure(f"{len(self.failed)} could not be written, the others are in {self.out}: {named}")


def export_dataset(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    format: str,
    split: str | None = None,
    limit: int | None = None,
    audio: Tensor | None = None,  # (S,) 16 kHz
    expression_map: str | os.PathLike | None = None,
    progress: bool = False,
) -> ExportReport:
    """Exports a dataset of exchanges, or one motion file.

    source: a dataset's folder, or a `motion.npz`, whose sound `audio` is. format: one of `FORMATS`. split: of a
    dataset, default all. limit: at most so many exchanges. expression_map: for pirender, an .npz with `matrix`
    (E, 64): our expressions times it are BFM's.

    Raises UserError where the source is none, or its basis does not fit the form.
    """
    if format not in FORMATS:
        raise UserError(f"expected a format among {', '.join(FORMATS)}, found {format!r}")
    if (expression_map is not None) != (format == "pirender"):
        raise UserError(
            "pirender takes BFM's 64 expression coefficients, and nothing here makes them from another basis: give "
            "an .npz with a matrix (E, 64) as --expression-map (and only for pirender)"
        )
    source, out = Path(source), Path(out_dir)
    check_folder(out)
    mapping = None if expression_map is None else _read_map(Path(expression_map))
    report = ExportReport(out, notes=list(_NOTES[format]))
    if source.is_file():
        motion = load_motion(source)
        _check_basis(motion, format, mapping, source)
        out.mkdir(parents=True, exist_ok=True)
        report.files += _WRITERS[format](out, source.stem, motion, audio, mapping)
        return report
    _export_exchanges(source, split, limit, format, mapping, report, progress)
    if not report.files:
        first = next(iter(report.failed.items()), ("nothing", "no exchange has motion"))
        raise UserError(f"expected at least one exchange to export from {source}, found none; {first[0]}: {first[1]}")
    _write(out / "export.json", json.dumps({"format": format, "files": sorted(report.files)}, indent=1).encode())
    return report


def _export_exchanges(
    source: Path, split: str | None, limit: int | None, format: str, mapping: Tensor | None, report: ExportReport,
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    splits = [name for name in SPLITS if any(source.glob(f"{name}-*-of-*.parquet"))] if split is None else [split]
    if not splits:
        raise UserError(f"expected a dataset of exchanges or a motion .npz, found neither at {source}")
    checked, left = False, limit
    for name in splits:
        for exchange in tqdm(islice(_readable(source, name, report), left), desc=f"exporting {name}",
                             disable=not progress):  # fmt: skip
            left = None if left is None else left - 1
            for who in PEOPLE:
                motion = exchange.motion(who)
                if not len(motion) or not motion.valid[:, motion.layout.groups.index("expression")].any():
                    continue  # nobody was there, or no face was tracked
                if not checked:
                    _check_basis(motion, format, mapping, source)
                    checked = True
                folder, stem = _place(report.out, exchange, name, who, format)
                folder.mkdir(parents=True, exist_ok=True)
                waveform = exchange.person(who).waveform
                sound = torch.from_numpy(waveform.copy()) if len(waveform) else None
                try:
                    report.files += [
                        str(Path(folder.relative_to(report.out)) / file)
                        for file in _WRITERS[format](folder, stem, motion, sound, mapping)
                    ]
                except (UserError, ValueError) as error:
                    report.failed[f"{exchange.exchange_id} ({who})"] = " ".join(str(error).split())


def _readable(source: Path, split: str, report: ExportReport) -> Iterator[Exchange]:
    """The exchanges of a split; what is damaged goes into the report, under the name of its file."""
    for path in shards(source, split):
        try:
            shard = Shard(path)
        except CorruptShard as error:
            report.failed[path.name] = str(error)
            continue
        for index in range(len(shard)):
            try:
                yield shard[index]
            except CorruptShard as error:
                report.failed[f"{path.name} row {index}"] = str(error)


def _place(out: Path, exchange: Exchange, split: str, who: str, format: str) -> tuple[Path, str]:
    if format != "dualtalk":
        return out / split, f"{exchange.exchange_id}_{who}"
    # speaker 1 is the one who spoke before
    session, _, number = exchange.exchange_id.rpartition("-")
    number = int(number) if number.isdigit() else 0
    return out / split, f"{session}_sub_video_{number}_speaker{PEOPLE.index(who) + 1}"


def _check_basis(motion: Motion, format: str, mapping: Tensor | None, where: Path) -> None:
    basis, wanted = motion.layout.basis, {"arkit-csv": "arkit", "dualtalk": "flame2020", "gagavatar": "flame2020"}
    if format in wanted and basis != wanted[format]:
        raise UserError(
            f"expected expressions in basis {wanted[format]} for {format}, found {basis} in {where}; convert them first"
        )
    if mapping is not None and len(mapping) != motion.layout.num_expression:
        raise UserError(
            f"expected a matrix ({motion.layout.num_expression}, 64) for the expressions of {where}, found "
            f"{tuple(mapping.shape)}"
        )


def _read_map(path: Path) -> Tensor:
    if path.is_file() and not is_zipfile(path):
        raise UserError(f"expected an .npz with the key 'matrix', found another kind of file, or half of one: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            matrix = np.asarray(archive["matrix"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"expected an .npz with the key 'matrix', cannot read {path}: {error}") from None
    if matrix.ndim != 2 or matrix.shape[1] != 64 or not np.isfinite(matrix).all():
        raise UserError(f"expected a finite matrix (expressions, 64) in {path}, found {matrix.shape}")
    return torch.from_numpy(matrix)


def _write(path: Path, data: bytes) -> None:
    with whole(path) as partial:
        partial.write_bytes(data)


def _sound(folder: Path, stem: str, audio: Tensor | None) -> list[str]:
    if audio is None:
        return []
    write_wav(folder / f"{stem}.wav", audio, SAMPLING_RATE)
    return [f"{stem}.wav"]


def _head(motion: Motion) -> Tensor:  # (T, 3)
    """Global rotation and neck as one."""
    return rotation.compose(motion.select("global_orient").float(), motion.select("neck_pose").float())


# ------------------------------------------------------------------------------------------------------------- formats


def _dualtalk(folder: Path, stem: str, motion: Motion, audio: Tensor | None, mapping: Tensor | None) -> list[str]:
    motion = motion.resample(DUALTALK_FPS)
    frames = len(motion)
    expression = torch.zeros(frames, 50)
    known = motion.select("expression")[:, :50]
    expression[:, : known.shape[1]] = known
    betas = torch.zeros(100)
    betas[: min(100, len(motion.betas))] = motion.betas[:100]
    buffer = io.BytesIO()
    np.savez(
        buffer, shape=betas.expand(frames, 100).numpy(), tex=np.zeros((frames, 50), np.float32),
        exp=expression.numpy(), pose=torch.cat([_head(motion), motion.select("jaw_pose")], 1).numpy(),
        cam=np.zeros((frames, 3), np.float32), light=np.zeros((frames, 9, 3), np.float32),
    )  # fmt: skip
    _write(folder / f"{stem}.npz", buffer.getvalue())
    if audio is None:
        audio = torch.zeros(round(frames / DUALTALK_FPS * SAMPLING_RATE))
    samples = audio.float().numpy().astype("<f4").tobytes()  # 32-bit floats, as DualTalk's own are
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 3, 1, SAMPLING_RATE,
                       4 * SAMPLING_RATE, 4, 32)  # fmt: skip
    _write(folder / f"{stem}.wav", head + struct.pack("<4sI", b"data", len(samples)) + samples)
    return [f"{stem}.npz", f"{stem}.wav"]


def _arkit_csv(folder: Path, stem: str, motion: Motion, audio: Tensor | None, mapping: Tensor | None) -> list[str]:
    columns = arkit.from_motion(motion.resample(ARKIT_FPS)).numpy()
    lines = ["Timecode,BlendshapeCount," + ",".join(arkit.COLUMNS)]
    for number, row in enumerate(columns):
        second, frame = divmod(number, round(ARKIT_FPS))
        code = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}:{frame:02d}.000"
        lines.append(f"{code},{len(row)}," + ",".join(f"{value:.10f}" for value in row))
    _write(folder / f"{stem}.csv", ("\n".join(lines) + "\n").encode())
    return [f"{stem}.csv", *_sound(folder, stem, audio)]


def _gagavatar(folder: Path, stem: str, motion: Motion, audio: Tensor | None, mapping: Tensor | None) -> list[str]:
    motion = motion.resample(GAGAVATAR_FPS)
    expression = torch.zeros(len(motion), 100)
    known = motion.select("expression")[:, :100]
    expression[:, : known.shape[1]] = known
    pose = torch.cat([_head(motion), motion.select("jaw_pose")], 1).numpy()
    eyes = torch.cat([motion.select("leye_pose"), motion.select("reye_pose")], 1).numpy()
    shape = np.zeros(300, np.float32)
    shape[: len(motion.betas)] = motion.betas[:300].numpy()
    # a camera straight ahead, 8.1 away, in PyTorch3D's axes
    camera = np.array([[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 8.1]], np.float32)
    frames = {
        f"frame_{k}": {
            "posecode": pose[k], "expcode": expression[k].numpy(), "eyecode": eyes[k], "shapecode": shape,
            "transform_matrix": camera, "bbox": np.array([0, 0, 512, 512], np.float32),
        }
        for k in range(len(motion))
    }  # fmt: skip
    target = folder / stem
    target.mkdir(exist_ok=True)
    _write(target / "smoothed.pkl", pickle.dumps(frames, protocol=4))
    files = [f"{stem}/smoothed.pkl"]
    return files + [f"{stem}/{file}" for file in _sound(target, "audio", audio)]


def _pirender(folder: Path, stem: str, motion: Motion, audio: Tensor | None, mapping: Tensor | None) -> list[str]:
    motion = motion.resample(PIRENDER_FPS)
    coefficients = np.zeros((len(motion), 257), np.float32)  # id 80, exp 64, tex 80, angle 3, gamma 27, trans 3
    coefficients[:, 80:144] = (motion.select("expression") @ mapping).numpy()
    coefficients[:, 224:227] = bfm_angles(_head(motion)).numpy()
    crop = np.tile(np.array([256, 256, 1, 128, 128], np.float32), (len(motion), 1))
    _write(folder / f"{stem}.mat", matlab({"coeff": coefficients, "transform_params": crop}))
    return [f"{stem}.mat", *_sound(folder, stem, audio)]


def bfm_angles(
    head: Tensor,  # (T, 3) axis-angle
) -> Tensor:  # (T, 3)
    """Angles about x, y and z in radians whose rotation is x first, then y, then z (Deng et al. 2019)."""
    matrix = rotation.axis_angle_to_matrix(head)
    about_x = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    about_y = torch.asin((-matrix[..., 2, 0]).clamp(-1, 1))
    return torch.stack([about_x, about_y, torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])], -1)


def matlab(arrays: dict[str, np.ndarray]) -> bytes:
    """Matrices of float32 as a MATLAB 5 file, which `scipy.io.loadmat` reads."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = [b"MATLAB 5.0 MAT-file, written by diffdyad".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")]
    for name, array in arrays.items():
        flags = struct.pack("<II", 7, 0)  # class single
        body = element(6, flags) + element(5, struct.pack("<ii", *array.shape)) + element(1, name.encode())
        parts.append(element(14, body + element(7, np.asarray(array, "<f4").tobytes(order="F"))))
    return b"".join(parts)


Writer = Callable[[Path, str, Motion, Tensor | None, Tensor | None], list[str]]
_WRITERS: dict[str, Writer] = {
    "dualtalk": _dualtalk, "arkit-csv": _arkit_csv, "gagavatar": _gagavatar, "pirender": _pirender,
}  # fmt: skip
_NOTES: dict[str, list[str]] = {
    "dualtalk": ["DualTalk has 50 expressions, no eyes and no masks: the rest is left out, and what was not measured "
                 "is 0; tex, cam and light are 0"],
    "arkit-csv": [],
    "gagavatar": ["GAGAvatar's drivers also want img_lmdb, the driving video's frames, which do not exist here; the "
                  "camera stands straight ahead, the head's turns are in posecode"],
    "pirender": ["identity, texture, light and translation are 0, and the crop is that of an aligned 256 x 256 "
                 "picture: take them from the portrait that is driven"],
}  # fmt: skip
