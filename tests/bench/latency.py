"""How long after an import its contact reaches the CRM, on an idle system: `python -m tests.bench.latency`.

50 imports of one contact, one after the other, through the real processes on engines of their own. Times are those
of one machine's clock: here when the request went out and when the 207 was there (after the commit), at the sandbox
CRM when the call arrived.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import rich
from rich.table import Table

from app.embedded import Engines
from app.migrations.runner import migrate
from app.settings import Settings
from tests.acceptance.harness import Installation
from tests.conftest import SECRET_KEY

IMPORTS = 50
PAUSE = 0.25
GOAL = 100.0
"""Milliseconds from the answer to the call, in the median."""


async def measure(folder: Path) -> tuple[list[float], list[float]]:
    """Milliseconds to the CRM call, from the answer and from the request, for each import."""
    from_answer, from_request = [], []
    async with Engines(folder / "engines") as engines:
        await migrate(engines.urls.database_url)
        settings = Settings(
            database_url=engines.urls.database_url,
            redis_url=engines.urls.redis_url,
            secret_key=SECRET_KEY,
            destination_private="127.0.0.0/8",
        )
        async with Installation(settings, folder) as tranche:
            await tranche.start_both()
            for n in range(-3, IMPORTS):
                asked = datetime.now(UTC)
                job_id = await tranche.imported([{"id": f"c{n}", "email": f"c{n}@example.com"}])
                answered = datetime.now(UTC)
                await tranche.finished(job_id)
                called = datetime.fromisoformat((await tranche.sandbox.calls())[-1]["at"])
                if n >= 0:  # the first few only warm up
                    from_answer.append((called - answered).total_seconds() * 1000)
                    from_request.append((called - asked).total_seconds() * 1000)
                # Not in step with the sweeper, which would otherwise find some of them first.
                await asyncio.sleep(PAUSE + 0.013 * (n % 7))
            tranche.quiet = True
    return from_answer, from_request


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-latency-") as folder:
        os.chmod(folder, 0o711)  # as root the engines run as somebody else
        from_answer, from_request = asyncio.run(measure(Path(folder)))
    table = Table(
        "to the CRM call, ms", "median", "p95", "most", title=f"{IMPORTS} imports of one contact, idle system"
    )
    for name, times in (("from the answer (after commit)", from_answer), ("from the request", from_request)):
        cuts = statistics.quantiles(times, n=20)
        table.add_row(name, f"{statistics.median(times):.0f}", f"{cuts[18]:.0f}", f"{max(times):.0f}")
    rich.print(table)
    median = statistics.median(from_answer)
    rich.print(f"goal: a median under {GOAL:.0f} ms after the answer: {'met' if median < GOAL else 'missed'}")


if __name__ == "__main__":
    main()
