"""Generates an answer's head motion: `python sample.py`, or `python sample.py --help`."""

import sys

from diffdyad.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
