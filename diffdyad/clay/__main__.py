"""`python -m diffdyad.clay --out assets/clay_head.npz` writes the clay head's asset."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from diffdyad.clay import make_clay
from diffdyad.staging import whole


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m diffdyad.clay", description="Writes the clay head's asset.")
    default = Path("assets/clay_head.npz")
    parser.add_argument("--out", type=Path, default=default, help="file to write (default: %(default)s)")
    path = parser.parse_args().out
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **make_clay())


if __name__ == "__main__":
    main()
