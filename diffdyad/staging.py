"""Output that appears whole or not at all: files, and folders.

A folder's files are written to a temporary folder beside their destination (inside it, where the destination exists:
it may be a mount of its own), and moved into place at the end. Whatever ends the work early takes the
temporary folder along, and the parent folders that were made for it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from diffdyad.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def cleared(folder: Path) -> Iterator[Path]:
    """A folder for what is half-written: not there at first, and gone afterwards, whatever happens."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_folder(out: Path) -> None:
    """Raises UserError where a folder for output cannot be made: a file has its name, or that of a parent."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UserError(f"expected a folder for the output, found a file: {there}; give another --out")


def nobody_elses(path: Path) -> Path:
    """A hidden name beside `path`, ending in .partial. Numbers of processes would not do: machines share folders."""
    return path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")


@contextmanager
def whole(path: str | os.PathLike, shared: bool = False) -> Iterator[Path]:
    """A hidden name beside `path`, ending in .partial: what is written there is moved onto `path` when the block ends
    well, and gone otherwise. shared: other processes, of other machines too, may write the same file at the same time.
    """
    path = Path(path)
    partial = nobody_elses(path) if shared else path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The whole file, or what was there."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def staged(out: str | os.PathLike, names: Iterable[str], replaced: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder, whose files are moved to the folder `out` when the block ends well.

    names: the files that the block makes, in the order in which they are moved; replaced: files of an earlier
    run, removed once the new ones are there. Nothing else in `out` is touched.

    Raises UserError at once, before any work, where `out` cannot be written or one of the names is taken
    by a folder there.
    """
    out, names = Path(out), list(names)
    made: list[Path] = []
    try:
        existed, folder = _claim(out, names, made)
    except OSError as error:
        _remove_empty(made)
        if error.errno in DISK_FULL:
            raise
        raise UserError(f"cannot write to the output folder {out}: {error.strerror}; give another --out") from None
    except BaseException:
        _remove_empty(made)
        raise
    try:
        yield folder
        if existed:
            for name in names:
                os.replace(folder / name, out / name)
            for name in set(replaced) - set(names):
                (out / name).unlink(missing_ok=True)
            folder.rmdir()
        else:
            folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_empty(made)
        raise


def _claim(out: Path, names: list[str], made: list[Path]) -> tuple[bool, Path]:
    """Whether `out` exists, and a new temporary folder; folders that were made on the way go into `made`."""
    existed = out.is_dir()
    if not existed and os.path.lexists(out):
        raise UserError(f"expected a folder for the output, found a file: {out}; give another --out")
    if existed:
        for name in names:
            if (out / name).is_dir():
                raise UserError(f"cannot write {out / name}: a folder has this name; give another --out")
        return True, Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=out))
    missing = [parent for parent in out.absolute().parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir()
        made.append(parent)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.absolute().parent))
    folder.chmod(0o777 & ~_umask())  # mkdtemp makes it private, and it becomes the output
    return False, folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()
