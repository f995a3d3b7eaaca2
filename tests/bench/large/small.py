"""A hundred rows while a million are on their way: of the same tenant, and of another one."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from tests.bench.large import files
from tests.bench.large.site import Site
from tests.bench.large.tables import show

GOAL = 5.0
_SEED = 3_000


async def measure(site: Site, folder: Path, rows: int, times: int) -> None:
    path = files.write(folder, "csv", rows, _SEED)
    await site.clear()
    await site.restart()
    await site.pause_destination()
    other = await site.other_tenant()
    upload = await site.upload(path)
    path.unlink()
    await site.first_progress(upload)
    lines = []
    for n in range(times):
        for name, key in (("the same", None), ("another", other)):
            tiny = files.write(folder, "csv", 100, _SEED + 1 + n)
            began = time.time()
            sent = await site.upload(tiny, key=key)
            seconds, _ = await site.applied(sent, every=0.05, key=key)
            lines.append((name, sent.taken - began, sent.taken + seconds - began))
            tiny.unlink()
    large = await site.look(upload.job_id)
    note = (
        f"Goal: within {GOAL:g} s. When the last one was done the large import had "
        f"{large['progress']['processed']:,} rows and was {large['state']}."
    )
    show(
        f"Small beside large: 100 rows, `Prefer: respond-async`, while {rows:,} rows are imported",
        ("tenant", "imports", "to the 202, s (median)", "to all applied, s (median)", "the slowest, s"),
        [
            (
                name,
                times,
                statistics.median(line[1] for line in lines if line[0] == name),
                statistics.median(line[2] for line in lines if line[0] == name),
                max(line[2] for line in lines if line[0] == name),
            )
            for name in ("the same", "another")
        ],
        [note],
    )
    await site.line.ask("POST", f"/v1/jobs/{upload.job_id}/cancel")
    await site.stop()
    await site.clear()
