"""A trained pipeline to the Hugging Face Hub: what goes along, what must not, and its model card."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from diffdyad import card, hub
from diffdyad.errors import UserError, redact
from diffdyad.pipeline import DyadPipeline
from diffdyad.traces import without_machine, without_origin

PUBLISHED = (".json", ".safetensors", ".yaml", ".yml", ".md", ".txt", ".png", ".jpg", ".svg", ".webp", ".gif", ".mp4")
"""What is uploaded of a pipeline's folder, beside LICENSE and NOTICE."""

PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".joblib")
"""Files that run code when they are read, or may."""

_TEXT = (".json", ".yaml", ".yml", ".md", ".txt", ".svg", "")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def push(
    folder: str | os.PathLike,
    repository: str,
    license: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Uploads a pipeline's folder, or that of a training run, as one commit; returns the commit's address.

    The card is README.md of the folder, or is written from the run where there is none; `license` goes into it. The
    folder itself stays as it is. Settings lose the paths of this machine on the way.

    Raises UserError, before anything is sent, for a folder that is no pipeline or does not load, a card without a
    license, pickled weights, encoders that others cannot have and tokens in a file; afterwards for what the Hub says.
    """
    folder = find_pipeline(folder)
    check_names(repository, license, revision)
    names = _published(folder)
    _check_loads(folder)
    with tempfile.TemporaryDirectory() as written:
        files: dict[str, Path | bytes] = {name: folder / name for name in names}
        if card.CARD not in files:
            card.write_card(folder, _run_of(folder), license, out=written)
            files |= {path.name: path.read_bytes() for path in Path(written).iterdir()}
        files[card.CARD] = _card(files[card.CARD], repository, license, folder)
        for name in names:
            if name == card.SETTINGS:
                files[name] = _settings(folder / name)
            elif name.endswith(".json"):
                files[name] = _config(folder / name)
        _check_tokens(files)
        return hub.upload(files, repository, message or "Upload a diffdyad pipeline", revision, private)


def check_names(repository: str, license: str | None = None, revision: str | None = None) -> None:
    """What is known to be wrong before any work. Raises UserError."""
    name, inside = hub.split_name(repository)
    if inside is not None:
        raise UserError(f"expected USER/REPO to push to, found {repository!r}; give the branch as --revision {inside}")
    if revision is not None:
        hub.split_name(f"{name}@{revision}")
    if license is not None and not _LICENSE.fullmatch(license):
        raise UserError(f"expected a license's name on the Hub, such as apache-2.0 or cc-by-nc-4.0, found {license!r}")


def check_beforehand(repository: str, license: str | None) -> None:
    """For a run that is to be pushed at its end: what would keep it from that, asked before the run.

    Raises UserError for a name that is none, no license, and a login that is none or cannot be asked for.
    """
    check_names(repository, license)
    if license is None:
        raise UserError("a pushed model needs a license: give card.license in the config, such as apache-2.0")
    hub.check_login(repository)


def find_pipeline(folder: str | os.PathLike) -> Path:
    """The folder of the pipeline: this one, or `pipeline` in that of a run. Raises UserError where there is none."""
    folder = Path(folder)
    for place in (folder, folder / "pipeline"):
        if (place / hub.INDEX).is_file():
            return place
    if (folder / "checkpoints").is_dir():
        raise UserError(f"expected a finished run in {folder}, found checkpoints and no pipeline yet; train to the end")
    found = f"no {hub.INDEX}" if folder.is_dir() else "no such folder"
    raise UserError(f"expected the folder of a diffdyad pipeline or of a training run, found {found}: {folder}")


def _run_of(pipeline: Path) -> Path | None:
    """The run that a pipeline lies in."""
    run = pipeline.absolute().parent
    return run if (run / "log.jsonl").is_file() and (run / "config.yaml").is_file() else None


# ---------------------------------------------------------------------------------------- what goes along


def _published(folder: Path) -> list[str]:
    """Names of the files to upload; hidden ones and strange ones stay. Raises UserError for pickled weights."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in Path(name).parts):
            continue
        if path.suffix.lower() in PICKLED:
            raise UserError(
                f"expected weights as safetensors in {folder}, found {name}, which may run code when it is read; save "
                "the pipeline with save_pretrained, or remove the file"
            )
        if path.suffix.lower() in PUBLISHED or path.name in ("LICENSE", "NOTICE"):
            names.append(name)
    return names


def _check_loads(folder: Path) -> None:
    try:
        pipeline = DyadPipeline.from_pretrained(folder)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged checkpoint makes its readers raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"expected a diffdyad pipeline in {folder}, found one that does not load: {reason}") from error
    speech, context = pipeline.speech_encoder.config, pipeline.context_encoder.config
    encoders = {"speech": speech.name}
    encoders |= {kind: context.get(f"{kind}_encoder") for kind in ("text", "affect") if kind in context.modalities}
    for kind, name in encoders.items():
        if name and (name != without_machine(name) or Path(name).is_dir()):
            raise UserError(
                f"expected a {kind} encoder that others can have, by its name on the Hub, found {name!r}, a folder of "
                "this machine; train with the encoder's name"
            )


def _card(text: Path | bytes, repository: str, license: str | None, folder: Path) -> bytes:
    text = (text if isinstance(text, bytes) else text.read_bytes()).decode("utf-8", errors="replace")
    front = card.front_matter(text)
    if license is not None and license != front.get("license"):
        text = card.with_front_matter(text, {**front, "license": license})
        # as write_card has it; what an author wrote there stays
        text = re.sub(r"(?<=\n## License\n\n)(`[^`\n]*`|None is given[^\n]*)(?=\n*\Z)", f"`{license}`", text)
    elif not front.get("license"):
        raise UserError(
            f"expected a license in the model card of {folder}, found none; give --license ID (such as apache-2.0), or "
            "card.license in the config"
        )
    return text.replace(card.PLACEHOLDER, repository).encode()


def _settings(path: Path) -> bytes:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"expected YAML in {path}, cannot read it; repair or remove it") from None
    return yaml.safe_dump(without_machine(values), sort_keys=False).encode()


def _config(path: Path) -> bytes:
    try:
        return without_origin(path.read_bytes())
    except ValueError:
        raise UserError(f"expected JSON in {path}, cannot read it; repair or remove it") from None


def _check_tokens(files: dict[str, Path | bytes]) -> None:
    found = [name for name, data in files.items() if Path(name).suffix.lower() in _TEXT and _has_token(data)]
    if found:
        raise UserError(f"expected no token in what is published, found one in {_listed(found)}; remove it there")


def _has_token(data: Path | bytes) -> bool:
    text = (data if isinstance(data, bytes) else data.read_bytes()).decode("utf-8", errors="replace")
    return redact(text) != text


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
