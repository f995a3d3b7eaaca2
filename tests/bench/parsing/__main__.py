"""`python -m tests.bench.parsing`: CPU per byte of hostile bodies beside that of ordinary ones, at three sizes.

What is measured is all that the service's loop does with a body before the database is asked: cutting, decoding and
validating, with every error explained. The least of some runs counts. No database is needed.

A row of a few bytes costs more a byte than a long one, also where it is correct. So an input whose rows are smaller
than the smallest correct one is compared with that one as well, row by row.
"""

from __future__ import annotations

import argparse

from app.domain.files.pieces import Family
from tests.bench.parsing.inputs import Input, hostile, ordinary, smallest
from tests.bench.parsing.measure import Cost, measure

SIZES = {10_000: 3, 100_000: 2, 1_000_000: 1}
"""Bytes of a body and runs of it."""
MOST = 20
"""Times the CPU per byte of ordinary bodies that a hostile one may cost."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=[family.value for family in Family], action="append")
    parser.add_argument(
        "--show", type=int, default=8, help="hostile inputs listed of each format, the worst first"
    )
    options = parser.parse_args()
    for family in [Family(name) for name in options.format or [family.value for family in Family]]:
        report(family, options.show)


def report(family: Family, shown: int) -> None:
    usual = {size: _measure(ordinary(family), size, runs) for size, runs in SIZES.items()}
    small = {size: _measure(smallest(family), size, runs) for size, runs in SIZES.items()}
    inputs = hostile(family)
    costs = {one.name: {size: _measure(one, size, runs) for size, runs in SIZES.items()} for one in inputs}
    print(
        f"\n{family}: ns of CPU per byte (times ordinary), longest stretch in ms; {len(costs)} hostile inputs"
    )
    print(f"  {'ordinary':<48}" + "".join(_show(usual[size], usual[size], size) for size in SIZES))
    print(
        f"  {'the smallest correct items':<48}"
        + "".join(_show(small[size], usual[size], size) for size in SIZES)
    )
    worst = sorted(costs, key=lambda name: -max(_times(costs[name][size], usual[size]) for size in SIZES))
    for name in worst[:shown]:
        print(f"  {name[:48]:<48}" + "".join(_show(costs[name][size], usual[size], size) for size in SIZES))
    above = [name for name in worst if any(_times(costs[name][size], usual[size]) > MOST for size in SIZES)]
    print(f"  beyond {MOST} times ordinary: {len(above)}{': ' if above else ''}{', '.join(above)}")
    for name in above:
        rows = [_times_a_row(costs[name][size], small[size]) for size in SIZES]
        beside = [f"{times:.1f}" for times in rows if times is not None]
        print(f"    a row beside the smallest correct one, {name[:40]}: {' '.join(beside) or 'not smaller'}")


def _times_a_row(cost: Cost, small: Cost) -> float | None:
    """How many smallest correct rows a row costs; None where it is no smaller."""
    if not cost.rows or cost.size / cost.rows >= small.size / small.rows:
        return None
    return (cost.cpu * cost.size / cost.rows) / (small.cpu * small.size / small.rows)


def _measure(one: Input, size: int, runs: int) -> Cost:
    """Per byte, and the longest stretch of the best run."""
    body = one.make(size)
    best = min((measure(body, one.form) for _ in range(runs)), key=lambda cost: cost.cpu)
    return Cost(best.cpu / len(body), best.longest, best.rows, len(body))


def _times(cost: Cost, usual: Cost) -> float:
    return cost.cpu / usual.cpu


def _show(cost: Cost, usual: Cost, size: int) -> str:
    return f" | {size // 1000:>4} KB {cost.cpu * 1e9:6.0f} ({_times(cost, usual):4.1f}) {cost.longest * 1e3:5.1f} ms"


if __name__ == "__main__":
    main()
