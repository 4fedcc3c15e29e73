"""Trains a model: `accelerate launch train.py --config configs/rehearsal.yaml`. The same command again resumes."""

import sys

from diffdyad.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
