"""A million rows of CSV and of NDJSON, end to end, beside a bare upsert of the same rows."""

from __future__ import annotations

import statistics
from pathlib import Path

import msgspec

from tests.bench.large import bare, files
from tests.bench.large.site import Site
from tests.bench.large.tables import show

SEED = 1
API_MB, WORKER_MB, RATIO, PROGRESS = 150, 250, 0.5, 2.0


class Run(msgspec.Struct):
    kind: str
    count: int
    megabytes: float
    upload: float
    progress: float
    applied: float
    api: float
    workers: list[float]

    @property
    def rate(self) -> float:
        return self.count / self.applied


async def imported(site: Site, path: Path, kind: str, count: int) -> Run:
    """One file into empty tables, by processes that did nothing before."""
    await site.clear()
    await site.restart()
    upload = await site.upload(path)
    progress = await site.first_progress(upload)
    applied, _ = await site.applied(upload)
    api, workers = site.peaks()
    return Run(kind, count, path.stat().st_size / 1e6, upload.seconds, progress, applied, api, workers)


async def measure(site: Site, folder: Path, count: int, small: int) -> None:
    """Bare runs stand before, between and after the large imports; each import has the two beside it as its measure."""
    await site.pause_destination()
    paths = {(kind, n): files.write(folder, kind, n, SEED) for kind in files.TYPES for n in (small, count)}
    runs = [await imported(site, paths[kind, small], kind, small) for kind in files.TYPES]
    bares = [await bare.rate(site.database_url, count, SEED)]
    for kind in files.TYPES:
        runs.append(await imported(site, paths[kind, count], kind, count))
        bares.append(await bare.rate(site.database_url, count, SEED))
    for path in paths.values():
        path.unlink()
    lines = []
    for i, run in enumerate(runs):
        beside = statistics.mean(bares[i - 2 : i]) if i >= 2 else 0.0
        lines.append(
            (
                run.kind,
                run.count,
                run.megabytes,
                run.upload,
                run.count / run.upload,
                run.progress,
                run.applied,
                run.rate,
                beside or "",
                run.rate / beside if beside else "",
                run.api,
                ", ".join(f"{worker:.0f}" for worker in run.workers),
            )
        )
    show(
        "Rows: from the file to all rows applied",
        (
            "file",
            "rows",
            "MB",
            "upload, s",
            "rows/s",
            "first progress, s",
            "202 to applied, s",
            "rows/s",
            "bare, rows/s",
            "ratio",
            "API peak, MB",
            "workers' peak, MB",
        ),
        lines,
        [
            f"Goals: ratio >= {RATIO}, first progress within {PROGRESS:g} s, API <= {API_MB} MB, each worker <= "
            f"{WORKER_MB} MB and the same for both sizes. Bare runs, in order: "
            + ", ".join(f"{rate:,.0f}" for rate in bares)
            + " rows/s."
        ],
    )
