"""A CRM, Redis, PostgreSQL and the only worker go and come back, while Prometheus watches with the files of deploy/.

Prints which alerts fired in each phase, and what every query of the dashboard says at its end. Exits with 1 if other
alerts fired than should, and with 2 where Prometheus is not installed (Debian: apt-get install prometheus).

All of it is real: PostgreSQL, Valkey, API, worker, the sandbox CRM, Prometheus. Only time is shorter: each duration in
the rules (`for`, ranges, offsets) is divided by FACTOR. Seconds in a threshold stay as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
import yaml

from app.embedded import Child, Engines
from app.migrations.runner import migrate
from tests.acceptance.harness import Installation, Part, free_port, people, until
from tests.conftest import quick
from tests.deployment import RULES, dashboard_panels

FACTOR: Final = 30
SCRAPE: Final = 1
"""Seconds between two scrapes: few enough for the shortest range, and not so many that they are the load."""
TOKEN: Final = "metrics-of-this-run"
OF_THE_MACHINE: Final = {"TrancheEventLoopSlow", "TrancheImportsSlow"}
"""Alerts that a busy machine may cause by itself: shown, not judged."""
SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600}
PROMETHEUS: Final = shutil.which("prometheus")

Samples = list[tuple[dict[str, str], float]]


def shorten(duration: str) -> str:
    """A duration of Prometheus, divided by FACTOR."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return f"{int(number) * SECONDS[unit] * 1_000 / FACTOR:.0f}ms"


def shorten_query(query: str) -> str:
    return re.sub(r"(?<=\[)\d+[a-z]+|(?<=offset )\d+[a-z]+", lambda found: shorten(found[0]), query)


class Phase(msgspec.Struct):
    """A part of the run: which alerts should fire in it, which did, and the samples of each query at its end."""

    name: str
    expected: set[str]
    fired: set[str]
    seconds: float
    panels: list[Samples]

    @property
    def is_right(self) -> bool:
        return self.fired - OF_THE_MACHINE == self.expected


class Prometheus:
    """A Prometheus of its own with the rules and the scrape jobs of deploy/, on this machine's ports."""

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        self._folder = folder / "prometheus"
        self._targets = targets
        self._port = free_port()
        self._part: Part | None = None

    async def start(self) -> None:
        self._folder.mkdir()
        for name in ("rules.yaml", "alerts.yaml"):
            document = yaml.safe_load((RULES / name).read_text())
            for rule in itertools.chain.from_iterable(group["rules"] for group in document["groups"]):
                rule["expr"] = shorten_query(rule["expr"])
                if "for" in rule:
                    rule["for"] = shorten(rule["for"])
            (self._folder / name).write_text(yaml.safe_dump(document))
        config = yaml.safe_load((RULES / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": f"{SCRAPE}s", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(self._folder / Path(path).name) for path in config["rule_files"]]
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            job["authorization"] = {"credentials": TOKEN}
            job["static_configs"] = [{"targets": [self._targets[job["job_name"]]]}]
        file = self._folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        words = [f"--config.file={file}", f"--storage.tsdb.path={self._folder}/data", "--log.level=warn"]
        log = self._folder / "log"
        argv = [str(PROMETHEUS), *words, f"--web.listen-address=127.0.0.1:{self._port}"]
        self._part = Part(Child.spawn(argv, name="prometheus", log=log), log)
        await until(self._is_ready)

    async def stop(self) -> None:
        if self._part is not None:
            await self._part.child.stop(5)

    async def _is_ready(self) -> bool:
        assert self._part is not None
        assert self._part.child.returncode is None, self._part.text()
        try:
            return bool(await self.query("count(up == 1) == 2"))
        except aiohttp.ClientError:
            return False

    async def query(self, query: str) -> Samples:
        url = f"http://127.0.0.1:{self._port}/api/v1/query"
        async with aiohttp.ClientSession() as session, session.post(url, data={"query": query}) as answer:
            document = await answer.json()
        assert document["status"] == "success", f"{query}: {document}"
        return [(found["metric"], float(found["value"][1])) for found in document["data"]["result"]]

    async def firing(self, seconds: float = 0) -> set[str]:
        """The alerts that fire, or did within these last seconds."""
        alerts = 'ALERTS{alertstate="firing"}'
        query = f"last_over_time({alerts}[{seconds * 1_000:.0f}ms])" if seconds else alerts
        return {labels["alertname"] for labels, _ in await self.query(query)}


class Run:
    """The phases, one after the other, under steady imports."""

    def __init__(self, tranche: Installation, prometheus: Prometheus) -> None:
        self.phases: list[Phase] = []
        self.blind: list[str] = []
        """Queries without a sample in any phase, although all of their metrics have some: they are wrong."""
        self._tranche = tranche
        self._prometheus = prometheus

    async def import_steadily(self) -> None:
        """Eight imports a second, each with a row that is wrong; every fourth is sent twice. A job is read."""
        job = ""
        for number in itertools.count():
            items = [*people(5, number % 50 * 5, company=f"company {number}"), {"id": "wrong", "email": "nowhere"}]
            for _ in range(2 if number % 4 == 0 else 1):
                answer = await self._tranche.push(items, key=f"observed-{number}")
                job = answer.json()["job_id"] if answer.status == 207 else job
            await self._tranche.ask("GET", f"/v1/jobs/{job}")
            await asyncio.sleep(0.125)

    async def phase(self, name: str, expected: set[str], seconds: float, after: bool) -> None:
        """Wait until the alerts fire that should, and `seconds` more. `after`: what fired before it, does not count."""
        began = time.monotonic()

        async def is_so() -> bool:
            firing = await self._prometheus.firing() - OF_THE_MACHINE
            return firing == expected if after else expected <= firing

        await until(is_so, 120, every=0.5)
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        fired = await self._prometheus.firing(seconds if after else took)
        panels = [
            await self._prometheus.query(panel.query(shorten("5m"), shorten_query)) for panel in dashboard_panels()
        ]
        self.phases.append(Phase(name, expected, fired, took, panels))

    async def find_blind(self) -> None:
        for number, panel in enumerate(dashboard_panels()):
            if not any(phase.panels[number] for phase in self.phases):
                names = set(re.findall(r"\btranche[_:][\w:]+", panel.expr))
                if all([await self._prometheus.query(name) for name in names]):
                    self.blind.append(f"{panel.title}: {panel.expr}")


async def observe(tranche: Installation, engines: Engines | None = None) -> Run:
    """Start API, worker and Prometheus, take the CRM away and bring it back; with engines of its own these as well, and
    the worker."""
    port = free_port()

    async def start_worker() -> Part:
        return await tranche.start_worker(worker_port=port, metrics_token=TOKEN)

    serving = tranche.start_api(metrics_token=TOKEN, db_acquire_timeout=2.0, db_connect_timeout=2.0)
    _, worker = await asyncio.gather(serving, start_worker())
    targets = {"tranche-api": f"127.0.0.1:{tranche.port}", "tranche-worker": f"127.0.0.1:{port}"}
    prometheus = Prometheus(tranche.folder, targets)
    run = Run(tranche, prometheus)
    feeding = asyncio.create_task(run.import_steadily())
    steps: list[tuple[str, set[str], float, Callable[[], Awaitable[Any]] | None]] = [
        ("all is well", set(), 5, None),
        ("no CRM", {"TrancheCircuitOpen"}, 1, lambda: tranche.sandbox.misbehave(status={"code": 503})),
        ("CRM back", set(), 2, tranche.sandbox.recover),
    ]
    if engines is not None:
        stale = {"TranchePostgresAway", "TrancheImportErrors", "TrancheReadsStale"}
        steps += [
            ("no Redis", {"TrancheRedisAway"}, 1, engines.valkey.kill),
            ("Redis back", set(), 2, engines.restart),
            ("no PostgreSQL", stale, 1, engines.postgres.kill),
            ("PostgreSQL back", set(), 2, engines.restart),
            ("no worker", {"TrancheNoWorker", "TrancheTargetDown"}, 1, worker.child.kill),
            ("worker back", set(), 2, start_worker),
        ]
    try:
        await prometheus.start()
        for name, expected, seconds, act in steps:
            if act is not None:
                await act()
            await run.phase(name, expected, seconds, after=not expected)
        await run.find_blind()
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await prometheus.stop()
    return run


def show(run: Run, most: int = 4) -> None:
    """The alerts of each phase, and the dashboard: at most so many series of a query."""
    print("| phase | seconds | alerts that should fire | that fired | |\n|---|--:|---|---|---|")
    for phase in run.phases:
        words = (", ".join(sorted(names)) or "none" for names in (phase.expected, phase.fired))
        print(f"| {phase.name} | {phase.seconds:.0f} | {' | '.join(words)} | {'ok' if phase.is_right else 'WRONG'} |")
    print("".join(f"\nfinds nothing: {query}" for query in run.blind))
    print(f"\n| panel | series | {' | '.join(phase.name for phase in run.phases)} |")
    print(f"|---|---|{'--:|' * len(run.phases)}")
    for number, panel in enumerate(dashboard_panels()):
        columns = [{panel.legend(labels): value for labels, value in phase.panels[number]} for phase in run.phases]
        series = list(dict.fromkeys(itertools.chain.from_iterable(columns)))
        for name in series[:most] or ["(nothing happened)"]:
            cells = (f"{column[name]:.4g}" if math.isfinite(column.get(name, math.nan)) else "" for column in columns)
            print(f"| {panel.title} | {name} | {' | '.join(cells)} |")
        if len(series) > most:
            print(f"| {panel.title} | … {len(series) - most} more | {' | '.join('' for _ in columns)} |")


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if PROMETHEUS is None:
        print("Prometheus is not installed here (Debian: apt-get install prometheus).", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="tranche-observed-") as name:
        folder = Path(name)
        os.chmod(folder, 0o711)  # as root the engines run as somebody else
        async with Engines(folder / "engines") as engines:
            await migrate(engines.urls.database_url)
            async with Installation(quick(*engines.app_urls), folder, engines.urls.database_url) as tranche:
                run = await observe(tranche, engines)
                tranche.quiet = True
    show(run)
    return int(bool(run.blind) or not all(phase.is_right for phase in run.phases))


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
