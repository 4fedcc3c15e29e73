"""Published datasets as datasets of exchanges, a module each; `corpus.import_dataset` runs them."""

from __future__ import annotations

from importlib import import_module

from diffdyad.data.importers.recording import Importer
from diffdyad.errors import UserError

IMPORTERS = {
    "dualtalk": "DualTalk", "unilstalk": "UniLSTalk", "learning2listen": "Learning2Listen",
    "lm-listener": "LMListener", "beat2": "BEAT2", "livelink": "LiveLink", "react": "REACT", "vico": "ViCo",
    "seamless": "Seamless",
}  # fmt: skip
"""Names for `diffdyad data import`, and the class of each in the module of that name."""


def importer_of(name: str) -> type[Importer]:
    """The importer of that name; UserError names all of them."""
    if name == "recordings":  # of `diffdyad data build`, whose source is a manifest
        return import_module("diffdyad.data.recordings.source").Recordings
    if name not in IMPORTERS:
        raise UserError(f"expected a dataset among {', '.join(IMPORTERS)}, found {name!r}")
    return getattr(import_module(f"{__name__}.{name.replace('-', '_')}"), IMPORTERS[name])
