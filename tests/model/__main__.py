"""Search by hand: `python -m tests.model --count 1000000 --seed 1`, or one seed with its trace."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.search import broken_by, first_failure_on_every_processor, plan_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=100_000, help="how many histories")
    parser.add_argument("--bug", action="append", default=[], help="what is to be broken on purpose")
    parser.add_argument("--trace", action="store_true", help="show the history of the one seed")
    given = parser.parse_args()
    bugs = frozenset(given.bug)
    if given.trace:
        trace: list[str] = []
        violation = broken_by(plan_of(given.seed), bugs, trace)
        sys.stdout.write("\n".join([*trace, violation or "no promise is broken", ""]))
        return int(violation is not None)
    began = time.perf_counter()
    failure = first_failure_on_every_processor(range(given.seed, given.seed + given.count), bugs)
    seconds = time.perf_counter() - began
    if failure is not None:
        sys.stdout.write(f"{failure}\n")
        return 1
    sys.stdout.write(
        f"{given.count} histories in {seconds:.1f} s: {given.count / seconds:.0f} histories/s, no promise is broken\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
