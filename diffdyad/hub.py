"""Models from and to the Hugging Face Hub, and what can go wrong on the way as one line.

Whatever fails, nothing half-written is left: files of the cache appear whole, a push is one commit. Tokens
come from `hf auth login` or HF_TOKEN; none appears in a message, and none is sent but to the Hub.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from diffdyad import __version__
from diffdyad.errors import UserError, redact
from diffdyad.knob import KNOB

INDEX = "model_index.json"
"""The file that makes a folder or a repository a pipeline."""

_REVISION = re.compile(r"\w[\w.+/-]*")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_repository(name: str) -> bool:
    """Whether `name` has the form USER/REPO or USER/REPO@REVISION."""
    try:
        split_name(name)
    except UserError:
        return False
    return True


def split_name(name: str) -> tuple[str, str | None]:
    """USER/REPO[@REVISION] as (USER/REPO, REVISION or None). Raises UserError for anything else."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repository, sign, revision = name.partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError:
        valid = False
    else:
        valid = repository.count("/") == 1
    if not valid or (sign and not _is_revision(revision)):
        raise UserError(
            f"expected a repository of the form USER/REPO or USER/REPO@REVISION (letters, digits, '-', '_', '.'; at "
            f"most 96 of them), found {name!r}"
        )
    return repository, revision or None


def _is_revision(name: str) -> bool:
    return bool(_REVISION.fullmatch(name)) and ".." not in name and not name.endswith("/")


# ------------------------------------------------------------------------------------------ fetching


def fetch(
    name: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder, in the Hub's cache, of a pipeline given as USER/REPO[@REVISION]; downloads what is missing.

    The folder is named after the commit. Only the files of a diffdyad pipeline are downloaded, and only after its
    index was found to be one. What has been downloaded is used where the Hub cannot be reached. Files are
    checked against the hashes by which the Hub knows them.

    Raises UserError, one line, for whatever keeps the pipeline from being there, whole.
    """
    from huggingface_hub import snapshot_download

    repository, given = split_name(name)
    revision = revision or given
    if revision is not None and not _is_revision(revision):
        raise UserError(f"expected a revision (a branch, a tag or a commit), found {revision!r}")
    options = {
        "repo_id": repository, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only,
        "library_name": "diffdyad", "library_version": __version__,
    }  # fmt: skip
    place = f"{repository}@{revision}" if revision else repository
    with _explained(repository, revision, token):
        with _calm(bars=False):
            folder = Path(snapshot_download(revision=revision, allow_patterns=[INDEX], **options))
        _check_whole(folder, place)
        components = _components(folder / INDEX, place)
        patterns = [INDEX, "README.md", "training.yaml", "sources.json", KNOB]
        patterns += [f"{part}/*.{kind}" for part in components for kind in ("json", "safetensors")]
        with _calm(bars=sys.stderr.isatty()):
            # by its commit: all files are of one and the same, whatever is pushed meanwhile
            folder = Path(snapshot_download(revision=folder.name, allow_patterns=patterns, **options))
        _check_whole(folder, place)
    return folder


def _components(index: Path, place: str) -> list[str]:
    """Names of a pipeline's parts by its index, which comes from strangers: nothing but our own and Diffusers' classes.

    Raises UserError where it is no diffdyad pipeline.
    """
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
        if values["_class_name"] != "DyadPipeline":
            raise ValueError
        parts = {name: value for name, value in values.items() if isinstance(value, list)}
        for name, (module, _) in parts.items():
            if not name.isidentifier() or not (module == "diffusers" or module.split(".")[0] == "diffdyad"):
                raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = "another model" if index.is_file() else f"no {INDEX}"
        raise UserError(f"expected a diffdyad pipeline in {place} on {_hub()}, found {found}") from None
    return list(parts)


def _check_whole(folder: Path, place: str) -> None:
    """Removes files that are not what the Hub announced, so that they can be fetched again. Raises UserError then."""
    damaged = [path for path in sorted(folder.rglob("*")) if path.is_symlink() and not _is_whole(path)]
    for path in damaged:
        path.resolve().unlink()
        path.unlink()
    if damaged:
        names = ", ".join(str(path.relative_to(folder)) for path in damaged)
        raise UserError(
            f"{_hub()} sent other bytes than it announced for {names} of {place}; they were removed: run the command "
            "again"
        )


def _is_whole(path: Path) -> bool:
    """Whether a link of the cache leads to the bytes that it is named after: a SHA-256, or Git's SHA-1."""
    name = Path(os.readlink(path)).name
    if re.fullmatch(r"[0-9a-f]{64}", name):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", name):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return True  # another store: its names say nothing
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == name


# ------------------------------------------------------------------------------------------- pushing


def check_login(repository: str) -> None:
    """Asks the Hub who we are. Raises UserError where a push to the repository could not even begin."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError(f"pushing needs a login at {_hub()}, found none: {_LOG_IN}")
    with _explained(repository, None, None, writing=True), _calm(bars=False):
        who = HfApi(library_name="diffdyad", library_version=__version__).whoami()
        if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise UserError(f"pushing to {repository} needs a token that may write, found one that may only read")


def upload(
    files: Mapping[str, Path | bytes],
    repository: str,
    message: str,
    revision: str | None = None,
    private: bool = False,
) -> str:
    """Puts files, by their names in the repository, there as one commit, and returns the commit's address.

    The repository is made where it is missing, `private` or public; the branch `revision` too. Files that the
    Hub has already are not sent again.

    Raises UserError, one line, for whatever keeps the commit from being made.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise UserError(f"pushing needs a login at {_hub()}, found none: {_LOG_IN}")
    api = HfApi(library_name="diffdyad", library_version=__version__)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    with _explained(repository, revision, None, writing=True), _calm(bars=sys.stderr.isatty()):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(f"{repository} on {_hub()} is public; make it private there, or leave out --private")
        if revision not in (None, "main"):
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message=message, revision=revision)
    return str(commit.commit_url)


# -------------------------------------------------------------------------------------------- errors


def _hub() -> str:
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if place.hostname == "huggingface.co":
        return "the Hub"
    return f"the Hub at {place.scheme}://{place.hostname}{f':{place.port}' if place.port else ''}"


@contextmanager
def _explained(
    repository: str, revision: str | None, token: str | bool | None, writing: bool = False
) -> Iterator[None]:
    """Errors of huggingface_hub, and of what lies below it, as UserError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # an answer that is none can make the client raise anything
        if getattr(error, "errno", None) in _DISK_FULL:
            raise
        reason = _reason(error, repository, revision, _has_token(token), writing)
        raise UserError(redact(" ".join(reason.split()))) from error


def _has_token(token: str | bool | None) -> bool:
    from huggingface_hub import get_token

    return isinstance(token, str) or (token is not False and get_token() is not None)


def _reason(error: Exception, repository: str, revision: str | None, logged_in: bool, writing: bool) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    again = "run the command again" + ("; what has arrived is not sent twice" if writing else "; what is whole is kept")
    chain = list(_chain(error))
    if "metadata in README.md" in str(error):
        return f"{_hub()} does not take the model card: {' '.join(str(error).split())[:300]}"
    for cause in chain:
        if getattr(cause, "response", None) is not None:
            return _status(cause, repository, revision, logged_in, writing, again)
        if isinstance(cause, OfflineModeIsEnabled):
            missing = "" if writing else f", and {repository} is not whole in the Hub's cache"
            return f"cannot reach {_hub()}: HF_HUB_OFFLINE is set{missing}; unset it"
        if type(cause).__module__.split(".")[0] in ("httpx2", "httpx"):
            if type(cause).__name__.startswith("Connect"):
                where = "" if writing else f", and there is no folder {repository}"
                return f"cannot reach {_hub()} for {repository}{where} ({_first_line(cause)}); check the network"
            return f"the connection to {_hub()} broke ({_first_line(cause)}); {again}"
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno is not None:
            where = f": {cause.filename}" if cause.filename else ""
            return f"cannot use the Hub's cache, {cause.strerror}{where}; HF_HOME names another folder for it"
    if isinstance(error, LocalEntryNotFoundError):
        return f"expected {repository} in the Hub's cache, found it not, or in part; allow the download"
    if "onsistency check" in str(error):
        return f"{_hub()} sent only a part of a file; {again}"
    return f"{_hub()} gave an answer that makes no sense ({type(error).__name__}: {_first_line(error)}); check " \
           f"HF_ENDPOINT, or {again}"  # fmt: skip


def _status(error, repository: str, revision: str | None, logged_in: bool, writing: bool, again: str) -> str:
    """What the HTTP status of an error's response means here."""
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RevisionNotFoundError

    status, what = error.response.status_code, f"the model {repository}"
    if isinstance(error, GatedRepoError):
        return f"{repository} is given on request: ask for access on its page on {_hub()}, then {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"expected a branch, a tag or a commit {revision!r} in {repository} on {_hub()}, found none"
    if isinstance(error, EntryNotFoundError):
        return f"expected a diffdyad pipeline in {repository} on {_hub()}, found a file missing; {again}"
    if status == 401 and (logged_in or writing):
        return f"{_hub()} does not know this login (401): log in again with `hf auth login`, or correct HF_TOKEN"
    if status == 401:
        found = "none that shows without a login, nor a folder of that name"
        return f"expected {what} on {_hub()}, found {found}: check the name, or {_LOG_IN}"
    if status == 403:
        do = "write to" if writing else "read"
        return f"this login may not {do} {repository} on {_hub()} (403): use a token that may, or another repository"
    if status == 404:
        return f"expected {what} on {_hub()}, found none that this login may see (404): check the name"
    if status == 409:
        return f"someone else is changing {repository} on {_hub()} (409): {again} in a moment"
    if status == 429:
        seconds = error.response.headers.get("Retry-After", "")
        wait = f"{seconds} seconds" if seconds.isdigit() else "some minutes"
        return f"{_hub()} has had too many requests from here (429): wait {wait}, then {again}"
    if status >= 500:
        return f"{_hub()} is out of order ({status}): later, {again}"
    said = getattr(error, "server_message", None) or ""
    return f"{_hub()} refused ({status}){': ' if said else ''}{' '.join(said.split())[:200]}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:150]


# -------------------------------------------------------------------------------------- what is shown


class _Retries(logging.Filter):
    """huggingface_hub warns of each retry with its address, which may carry a signature: here it is said without.

    Its other warnings would be a second voice beside our own errors.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        if wait := re.search(r"(?:Waiting|Retrying in) ([\d.]+)s", text):
            print(f"note: {_hub()} did not take a request; again in {float(wait[1]):g} s", file=sys.stderr)
        elif "resume" in text:
            print(f"note: the connection to {_hub()} broke; going on where it stopped", file=sys.stderr)
        return False


@contextmanager
def _calm(bars: bool) -> Iterator[None]:
    """Progress bars only where wanted, retries as notes."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with ExitStack() as stack:
        if not bars and not are_progress_bars_disabled():
            disable_progress_bars()
            stack.callback(enable_progress_bars)
        library, retries = logging.getLogger("huggingface_hub"), _Retries()
        stack.callback(setattr, library, "propagate", library.propagate)
        library.propagate = False
        for handler in library.handlers:
            handler.addFilter(retries)
            stack.callback(handler.removeFilter, retries)
        yield
