"""Many rounds on one stage, and what is told of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Final

from tests.chaos import plan, play
from tests.chaos.play import Result
from tests.chaos.stage import Stage, opened

ENOUGH: Final = 5
"""Failed rounds after which no more are played."""


async def rounds(folder: Path, *, first: int, count: int, bug: str = "") -> bool:
    """Play the seeds `first`, `first` + 1 …; true: some round failed."""
    results: list[Result] = []
    async with opened(folder / "stage", bug=bug) as stage:
        for seed in range(first, first + count):
            result = await play_seed(stage, folder, seed)
            results.append(result)
            print(_line(result), flush=True)
            if result.findings:
                _tell(result)
            else:
                shutil.rmtree(result.folder, ignore_errors=True)
            if sum(bool(r.findings) for r in results) >= ENOUGH:
                print(f"{ENOUGH} rounds failed: enough")
                break
    _summarize(results)
    return any(result.findings for result in results)


async def play_seed(stage: Stage, folder: Path, seed: int) -> Result:
    """One seed on a stage that others were played on before."""
    await play.clean(stage)
    return await play.play_plan(stage, plan.draw(seed), folder / f"round-{seed}")


def _line(result: Result) -> str:
    c = result.counts
    verdict = f"{len(result.findings)} FINDINGS" if result.findings else "ok"
    return (
        f"{result.plan.seed:>6}  {verdict:<11} {result.seconds:5.1f} s, at rest after {result.rest:4.1f} s  "
        f"{c['requests']:3} requests {c['sent']:3} sent  {c['items']:4} items {c['versions']:4} versions  "
        f"{c['calls']:3} calls {c['effects']:4} effects {c['given_up']:3} given up  {' '.join(result.plan.kinds)}"
    )


def _tell(result: Result) -> None:
    print(result.plan.describe())
    for finding in result.findings:
        print(f"  ! {finding}")
    print(f"  evidence: {result.folder}, logs: {result.folder.parent / 'stage'}")
    print(f"  again: make chaos SEED={result.plan.seed} ROUNDS=1", flush=True)


def _summarize(results: list[Result]) -> None:
    faults: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for result in results:
        faults.update(result.plan.kinds)
        totals.update(result.counts)
    failed = [result.plan.seed for result in results if result.findings]
    print()
    print(f"{len(results)} rounds, {len(failed)} failed{': seeds ' + ', '.join(map(str, failed)) if failed else ''}")
    print("faults: " + ", ".join(f"{count} x {name}" for name, count in faults.most_common()))
    print("counts: " + ", ".join(f"{count} {name}" for name, count in totals.items()))


def suitable(wants: frozenset[str], first: int) -> Iterator[int]:
    """Seeds from `first` on whose plan has something of what a bug needs to show."""
    for seed in count_from(first):
        if not wants or wants & plan.draw(seed).features:
            yield seed


async def hunt(folder: Path, *, bugs: list[str] | None, first: int, most: int) -> bool:
    """Plant one bug after the other and play seeds until a round fails; true: some bug was not found."""
    from tests.chaos.planted import BUGS

    rows: list[tuple[str, str, str]] = []
    for bug in bugs or BUGS:
        async with opened(folder / bug / "stage", bug=bug) as stage:
            row = (bug, "NOT FOUND", f"in {most} seeds")
            for seed in islice(suitable(BUGS[bug].wants, first), most):
                result = await play_seed(stage, folder / bug, seed)
                if result.findings:
                    names = ", ".join(sorted({finding.name for finding in result.findings}))
                    row = (bug, names, f"seed {seed}")
                    break
            rows.append(row)
            print("  ".join(row), flush=True)
    print()
    width = max(len(bug) for bug, *_ in rows)
    for bug, names, seed in rows:
        print(f"{bug:<{width}}  {seed:<12}  {names}")
    return any(names == "NOT FOUND" for _, names, _ in rows)
