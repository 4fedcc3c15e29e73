"""How often each endpoint of the context protocol raises a false alarm, on simulated datasets without an effect.

    python benchmarks/context_statistics.py [--datasets 2000] [--seed 0]

Prints a table for docs/context.md; two minutes on one core. Wanted: 4 to 6 % for each.
"""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from diffdyad.evaluation.effect.nulls import false_alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tqdm(total=arguments.datasets, disable=not sys.stderr.isatty()) as bar:
        found = false_alarms(arguments.datasets, arguments.seed, lambda done, total: bar.update(done - bar.n))
    print("| endpoint | false alarms | rate | 95 % interval |\n|---|---|---|---|")
    for row in found:
        rate = row.rate
        print(f"| {row.endpoint} | {row.alarms} of {row.datasets} | {100 * rate.value:.2f} % | "
              f"{100 * rate.low:.1f} to {100 * rate.high:.1f} % |")  # fmt: skip


if __name__ == "__main__":
    main()
