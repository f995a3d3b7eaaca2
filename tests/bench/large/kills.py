"""Rounds of kill -9: what they leave is what a peaceful run leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from app.embedded import Engines
from app.migrations.runner import migrate
from tests.acceptance.harness import Installation
from tests.acceptance.large import Ordeal, Round, write_people
from tests.bench.large.tables import show
from tests.conftest import quick

_SEED = 4_000
VARIANTS = (("every id once", 0.0), ("ids repeat in 1 of 20 rows", 0.05))

_MEANING = (
    "Identical to a peaceful run of the same file: contacts, history (every field but job and times), every item's "
    "outcome, and the sandbox's effects, each contact once in its final state."
)


async def measure(folder: Path, rows: int, rounds: int) -> None:
    """On engines of its own. Half of the rounds are of a file in which ids repeat, with on_duplicate=last_wins."""
    place = folder / "kills"
    place.mkdir(mode=0o711)
    lines = []
    differences: list[str] = []
    async with Engines(place / "engines") as engines:
        await migrate(engines.urls.database_url)
        async with Installation(quick(*engines.urls), place) as tranche:
            ordeal = Ordeal(tranche, engines, seed=_SEED)
            await ordeal.start()
            for number, (words, repeated) in enumerate(VARIANTS):
                path = write_people(place / f"{number}.csv", rows, seed=_SEED + number, repeated=repeated)
                measure, times = await ordeal.undisturbed(path, on_duplicate="last_wins")
                suffered: list[Round] = []
                for n in range(rounds // 2 + (rounds % 2) * (1 - number)):
                    suffered.append(await ordeal.disturbed(path, measure, times, on_duplicate="last_wins"))
                    differences += [f"{words}, round {n + 1}: {found}" for found in suffered[-1].differences]
                kills: Counter[tuple[str, str]] = sum((each.kills for each in suffered), Counter())
                lines.append(
                    (
                        words,
                        rows,
                        len(suffered),
                        sum(not each.differences for each in suffered),
                        kills.total(),
                        _by(kills, 0),
                        _by(kills, 1),
                        sum(each.attempts for each in suffered),
                        times.receiving + times.processing + times.syncing,
                        sum(each.seconds for each in suffered) / max(len(suffered), 1),
                    )
                )
            tranche.quiet = True
    show(
        "Kills: kill -9 at random moments",
        ("file", "rows", "rounds", "identical", "kills", "of", "while", "uploads begun", "peaceful, s", "a round, s"),
        lines,
        [_MEANING, *differences],
    )


def _by(kills: Counter[tuple[str, str]], place: int) -> str:
    counts: Counter[str] = Counter()
    for key, count in kills.items():
        counts[key[place]] += count
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
