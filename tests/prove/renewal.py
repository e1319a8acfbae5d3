"""Claim: in two years of outages no certificate expires and no limit is passed, and what is due is found at once among a million.

Three parts, of which `--only` takes one. `simulation`: ten thousand certificates for two years on a fake clock. `soak`:
certificates of 119 s on a real CA, renewed by the service itself. `due`: the workers' claims among up to a million
certificates."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.prove import renewal_due, renewal_simulation, renewal_soak
from tests.simulation.run import DAYS

PARTS = ("simulation", "soak", "due")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--certificates", type=int, help="in the simulation (10000) or the soak (60)")
    parser.add_argument("--days", type=int, default=DAYS, help="in the simulation")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation")
    parser.add_argument("--book", choices=("documented", "boulder"), default="boulder", help="how its CA counts")
    parser.add_argument("--minutes", type=float, default=6, help="of the soak")
    parser.add_argument("--sizes", type=int, nargs="+", default=renewal_due.SIZES, help="of the stores of `due`")
    wanted = parser.parse_args(words)
    parts: Mapping[str, Callable[[], tuple[bool, str]]] = {
        "simulation": lambda: renewal_simulation.holds(
            wanted.certificates or 10_000, wanted.seed, wanted.days, wanted.book
        ),
        "soak": lambda: renewal_soak.holds(wanted.certificates or 60, wanted.minutes),
        "due": lambda: renewal_due.holds(wanted.sizes),
    }
    results = []
    for part in [wanted.only] if wanted.only else PARTS:
        print(f"--- {part}")
        good, summary = parts[part]()
        print(f"{summary}: {'holds' if good else 'DOES NOT HOLD'}")
        results.append((good, part))
    failed = [part for good, part in results if not good]
    print(
        f"renewal: {len(results) - len(failed)} of {len(results)} parts hold{': not ' + ', '.join(failed) if failed else ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
