"""`python -m diffdyad.clay --out assets/clay_head.npz` writes the clay head's asset."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from diffdyad.clay import make_clay


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m diffdyad.clay", description="Writes the clay head's asset.")
    default = Path("assets/clay_head.npz")
    parser.add_argument("--out", type=Path, default=default, help="file to write (default: %(default)s)")
    path = parser.parse_args().out
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **make_clay())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
