"""`python -m tests.bench.parsing`: CPU per byte of hostile bodies beside that of ordinary ones, at three sizes.

What is measured is all that the service's loop does with a body before the database is asked: cutting, decoding and
validating, with every error explained. The least of some runs counts, and an ordinary body takes its turn beside each
hostile one, because the speed of a processor changes from one second to the next. No database is needed.

A row of a few bytes costs more a byte than a long one, also where it is correct. So an input whose rows are smaller
than the smallest correct one is compared with that one as well, row by row.
"""

from __future__ import annotations

import argparse

import msgspec

from app.files.readers import Family
from tests.bench.parsing.inputs import TEXTS, Input, hostile, ordinary, smallest
from tests.bench.parsing.measure import Cost, measure

SIZES = {10_000: 7, 100_000: 5, 1_000_000: 3}
"""Bytes of a body and runs of it."""
MOST = 20
"""Times the CPU per byte of ordinary bodies that a hostile one may cost."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=[family.value for family in TEXTS], action="append")
    parser.add_argument("--show", type=int, default=8, help="hostile inputs listed of each format, the worst first")
    options = parser.parse_args()
    for family in [Family(name) for name in options.format or [family.value for family in TEXTS]]:
        report(family, options.show)


class Pair(msgspec.Struct, frozen=True):
    """Costs per byte of a hostile body and of an ordinary one of its size, measured in turn."""

    hostile: Cost
    ordinary: Cost

    @property
    def times(self) -> float:
        return self.hostile.cpu / self.ordinary.cpu


Pairs = dict[int, Pair]
"""By size."""


def report(family: Family, shown: int) -> None:
    small = _measure_all(smallest(family), family)
    pairs = {one.name: _measure_all(one, family) for one in hostile(family)}
    usual = {size: min((p[size].ordinary for p in pairs.values()), key=lambda c: c.cpu) for size in SIZES}
    print(f"\n{family}: ns of CPU per byte (times ordinary), longest stretch in ms; {len(pairs)} hostile inputs")
    _print_row("ordinary", {size: Pair(usual[size], usual[size]) for size in SIZES})
    _print_row("the smallest correct items", small)
    worst = sorted(pairs, key=lambda name: -_worst(pairs[name]))
    for name in worst[:shown]:
        _print_row(name, pairs[name])
    longest = max(pair.hostile.longest for of_sizes in pairs.values() for pair in of_sizes.values())
    print(f"  the longest stretch of all: {longest * 1e3:.0f} ms")
    above = [name for name in worst if _worst(pairs[name]) > MOST]
    print(f"  beyond {MOST} times ordinary: {len(above)}{': ' if above else ''}{', '.join(above)}")
    for name in above:
        rows = [_times_a_row(pairs[name][size].hostile, small[size].hostile) for size in SIZES]
        beside = [f"{times:.1f}" for times in rows if times is not None]
        print(f"    a row beside the smallest correct one, {name[:40]}: {' '.join(beside) or 'not smaller'}")


def _worst(pairs: Pairs) -> float:
    return max(pair.times for pair in pairs.values())


def _times_a_row(cost: Cost, small: Cost) -> float | None:
    """How many smallest correct rows a row costs; None where it is no smaller."""
    if not cost.rows or cost.size / cost.rows >= small.size / small.rows:
        return None
    return (cost.cpu * cost.size / cost.rows) / (small.cpu * small.size / small.rows)


def _measure_all(one: Input, family: Family) -> Pairs:
    return {size: _measure(one, ordinary(family), size, runs) for size, runs in SIZES.items()}


def _measure(one: Input, usual: Input, size: int, runs: int) -> Pair:
    body, beside = one.make(size), usual.make(size)
    costs = [(_measure_once(body, one), _measure_once(beside, usual)) for _ in range(runs)]
    hostile_costs, ordinary_costs = zip(*costs, strict=True)
    return Pair(*(min(of_one, key=lambda cost: cost.cpu) for of_one in (hostile_costs, ordinary_costs)))


def _measure_once(body: bytes, one: Input) -> Cost:
    """Per byte."""
    cost = measure(body, one.form)
    return Cost(cost.cpu / len(body), cost.longest, cost.rows, len(body))


def _print_row(name: str, pairs: Pairs) -> None:
    print(f"  {name[:48]:<48}" + "".join(_show(pair, size) for size, pair in pairs.items()))


def _show(pair: Pair, size: int) -> str:
    cost = pair.hostile
    return f" | {size // 1000:>4} KB {cost.cpu * 1e9:6.0f} ({pair.times:4.1f}) {cost.longest * 1e3:5.1f} ms"


if __name__ == "__main__":
    main()
