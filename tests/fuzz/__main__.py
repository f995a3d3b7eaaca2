"""Mutated requests through the whole application, and mutated bodies through its reading alone, by the million.

    python -m tests.fuzz --bodies 1000000 --seed 1

The first part (`--service`, a share) goes through the ASGI application as a server calls it, on a real PostgreSQL and a
real Valkey that the command starts. The rest goes through what reads a body of items: inflating, decoding, parsing and
checking, with no database, no router and no authentication; it is for volume. Fails on any answer of 5xx but 503, on
an answer that the OpenAPI document does not have, and on a body that takes more than a second of CPU (beyond 100 KB,
as sent or inflated: 10 µs a byte).
A case is repeated by its number: `--seed 1 --only 4711`. Ctrl-C ends a run early and prints what it has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import structlog
import uvloop

from app import telemetry
from app.auth import service
from app.embedded import Engines
from app.errors import TrancheError
from app.files.readers import Family, Form
from app.http.body.reader import Limits, open_body
from app.http.headers import Fields, read_type
from app.imports.workbooks import Workbooks
from app.migrations.privileges import privileges
from app.migrations.runner import migrate
from app.settings import Settings
from tests.bench.parsing.measure import work
from tests.conftest import quick
from tests.fuzz.mutations import SLOTS, Case, make_case
from tests.http.in_process import InProcess, in_process
from tests.http.world import World

LONGEST: Final = 1.0
"""Seconds of CPU that one body may take…"""
_DEAREST: Final = 10e-6
"""…and a byte of a long one, with room for a busy machine."""
OPERATOR_TOKEN: Final = "the-operators-own-token"
_OPERATIONS: Final = {one.operation.id: one.operation for one in SLOTS}
_READING: Final = "(reading alone)"


class Slow(msgspec.Struct, frozen=True, order=True):
    seconds: float
    number: int
    bytes: int
    operation: str


class Report(msgspec.Struct):
    """What one process saw."""

    answers: dict[str, dict[str, int]] = {}
    """By part or operation and status; of 503 also the code."""
    slowest: list[Slow] = []
    dearest: list[Slow] = []
    """By CPU a byte, of bodies of 2,000 bytes and more, as sent or inflated."""
    failures: list[str] = []
    cpu: float = 0.0
    early: int = 0
    """RSS in MB after a tenth of the bodies."""
    peak: int = 0

    def note(self, case: Case, number: int, status: str, cpu: float, size: int) -> None:
        counts = self.answers.setdefault(case.operation, {})
        counts[status] = counts.get(status, 0) + 1
        self.cpu += cpu
        slow = Slow(cpu, number, size, case.operation)
        if len(self.slowest) < 5 or slow > self.slowest[-1]:
            self.slowest = sorted([*self.slowest, slow], reverse=True)[:5]
        if size >= 2_000:
            dear = Slow(cpu / size, number, size, case.operation)
            if len(self.dearest) < 5 or dear > self.dearest[-1]:
                self.dearest = sorted([*self.dearest, dear], reverse=True)[:5]
        if cpu > max(LONGEST, size * _DEAREST):
            self.failures.append(f"{number}: {case.operation} took {cpu:.2f} s of CPU for {size} bytes")


def main() -> int:
    asked = _parse()
    if asked.share is not None:
        return _work_share(asked)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="tranche-fuzz-") as folder:
        reports, seconds = asyncio.run(_fuzz(asked, Path(folder)))
    return _print(asked, reports, seconds)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bodies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--service", type=float, default=0.25, help="share of the bodies that goes through everything")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="this case alone, shown whole")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only is not None:
        asked.processes = 1
    return asked


async def _fuzz(asked: argparse.Namespace, folder: Path) -> tuple[list[Report], float]:
    """Start the engines, fill them, and let processes work on them."""
    async with Engines(folder) as engines:
        admin = await asyncpg.connect(engines.urls.database_url)
        # A crash of the machine ends the run anyway.
        for name in ("synchronous_commit", "fsync", "full_page_writes"):
            await admin.execute(f"ALTER SYSTEM SET {name} = off")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.execute(privileges("tranche"))
        await migrate(engines.urls.database_url)
        settings = tune(quick(engines.app_urls.database_url, engines.urls.redis_url))
        shares = []
        for process in range(asked.processes):
            tenant = f"fuzz{process}"
            key = await service.create_key(admin, tenant, list(service.SCOPES))
            async with in_process(settings, key) as api:
                world = await World(api, "sound").build(admin, tenant)
            share = {
                "process": process,
                "key": key,
                "things": world.things,
                "settings": msgspec.to_builtins(settings),
                "report": str(folder / f"report-{process}"),
            }
            shares.append(msgspec.json.encode(share).decode())
        await admin.close()
        began = time.monotonic()
        running = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.fuzz", "--share", share, *sys.argv[1:]), stdout=subprocess.DEVNULL
            )
            for share in shares
        ]
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _pass_on, running)
        codes = await asyncio.gather(*(one.wait() for one in running))
        seconds = time.monotonic() - began
    if any(codes):
        raise SystemExit("a process ended early; what it said stands above")
    files = sorted(folder.glob("report-*"))
    return [msgspec.json.decode(file.read_bytes(), type=Report) for file in files], seconds


def _pass_on(running: list[asyncio.subprocess.Process]) -> None:
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            one.terminate()


def tune(settings: Settings) -> Settings:
    """Nothing waits, and nothing is refused for coming too often: every body is to be read."""
    changes: dict[str, Any] = {
        "operator_token": OPERATOR_TOKEN,
        "max_wait": 0.05,
        "max_unfinished_jobs": 10_000_000,
        "max_staged_bytes": 1 << 40,
        "log_level": "info",
        "limit_address": "0",
        "limit_key_requests": "0",
    }
    return msgspec.structs.replace(settings, **changes)


def _work_share(asked: argparse.Namespace) -> int:
    share = msgspec.json.decode(asked.share)
    settings = msgspec.convert(share["settings"], Settings)
    with Path(os.devnull).open("w") as nowhere:
        with contextlib.redirect_stderr(nowhere):
            telemetry.configure(settings)  # each request makes its line, which goes nowhere
        report = uvloop.run(_run(asked, settings, share["process"], share["key"], share["things"]))
    Path(share["report"]).write_bytes(msgspec.json.encode(report))
    return 0


async def _run(asked: argparse.Namespace, settings: Settings, process: int, key: str, things: dict[str, str]) -> Report:
    report = Report()
    numbers = [asked.only] if asked.only is not None else range(process, asked.bodies, asked.processes)
    through = int(asked.bodies * asked.service)
    gc.freeze()
    ended = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    async with in_process(settings, key) as api:
        for count, number in enumerate(numbers):
            if ended.is_set():
                break
            case = make_case(asked.seed, number, things, key, OPERATOR_TOKEN)
            if number < through or asked.only is not None:
                await call(api, case, number, report)
            else:
                await read(case, number, report)
            if count == len(numbers) // 10:
                report.early = _rss()
    report.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if asked.only is not None:
        print(case, file=sys.stderr)
    return report


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


async def call(api: InProcess, case: Case, number: int, report: Report) -> None:
    """The case through everything."""
    began = time.process_time()
    answer = await api.send(case.method, case.target, case.fields, case.body, case.piece)
    cpu = time.process_time() - began
    operation = _OPERATIONS[case.operation]
    status = str(answer.status)
    if answer.status == 503:
        status += " " + answer.json()["code"]
    report.note(case, number, status, cpu, case.size)
    told = {one.status for one in operation.answers} | set(operation.errors)
    if answer.status == 500 or answer.status > 503:
        report.failures.append(f"{number}: {case.operation} answered {answer.status}: {answer.body[:300]!r}")
    elif answer.status not in told:
        report.failures.append(f"{number}: {case.operation} answered {answer.status}, which is not documented")


async def read(case: Case, number: int, report: Report) -> None:
    """The case through the reading of items alone, whatever operation it is for."""
    began = time.process_time()
    outcome, size = "read", case.size
    pieces = [case.body[at : at + case.piece] for at in range(0, len(case.body), case.piece)] or [b""]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    fields = Fields(case.fields)
    try:
        family, charset = read_type(fields)
        async with contextlib.aclosing(
            open_body(receive, fields, Limits(size=5_000_000, remedy="", seconds=60))
        ) as parts:
            body = b"".join([part async for part in parts])
        size = max(size, len(body))
        if family is Family.XLSX:
            body = await Workbooks(Settings()).unfold(body, Form(family=family), atomic=False) or b""
        for _ in work(body, Form(family=family, charset=charset)):
            pass
    except TrancheError as error:
        outcome = f"refused {error.code}"
    except Exception as error:
        report.failures.append(f"{number}: {case.operation}: {error!r}")
        outcome = "failed"
    case = msgspec.structs.replace(case, operation=_READING)
    report.note(case, number, outcome, time.process_time() - began, size)


def _print(asked: argparse.Namespace, reports: list[Report], seconds: float) -> int:
    answers: dict[str, Counter[str]] = {}
    for report in reports:
        for operation, counts in report.answers.items():
            answers.setdefault(operation, Counter()).update(counts)
    reading = answers.pop(_READING, Counter())
    total = sum((counts for counts in answers.values()), Counter[str]())
    print(
        f"seed {asked.seed}, {asked.processes} processes, {seconds:.0f} s ({sum(r.cpu for r in reports):.0f} s of CPU)"
    )
    print(f"\nthrough the application, on PostgreSQL and Valkey: {total.total()}")
    for operation, counts in sorted(answers.items(), key=lambda one: -one[1].total()):
        print(f"  {operation:24} {_line(counts)}")
    print(f"  {'all':24} {_line(total)}")
    print(f"\nthrough the reading of items alone, without a database: {reading.total()}")
    for outcome, count in sorted(reading.items()):
        print(f"  {count:9} {outcome}")
    print("\nslowest, CPU in ms")
    for slow in sorted((one for report in reports for one in report.slowest), reverse=True)[:5]:
        print(f"  {slow.seconds * 1000:9.1f} {slow.operation}, {slow.bytes} bytes, number {slow.number}")
    print("most CPU a byte, of 2,000 bytes and more, in µs")
    for slow in sorted((one for report in reports for one in report.dearest), reverse=True)[:5]:
        print(f"  {slow.seconds * 1e6:9.2f} {slow.operation}, {slow.bytes} bytes, number {slow.number}")
    shown = ", ".join(f"{report.early} → {report.peak}" for report in reports)
    print(f"\nmemory of each process, MB after a tenth → at most: {shown}")
    failures = [failure for report in reports for failure in report.failures]
    print(f"failures: {len(failures)}")
    for failure in failures[:50]:
        print(f"  {failure}")
    return 1 if failures else 0


def _line(counts: Counter[str]) -> str:
    return "  ".join(f"{status}: {count}" for status, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
