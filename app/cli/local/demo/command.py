"""A short play: a messy file, a CRM that misbehaves and recovers, and the truth about every row.

Each scene is an ordinary command or an HTTP call that anybody could make. At the end the stand-in CRM's own ledger
is asked what really arrived; if that is not what Tranche said, the demo fails.
"""

import asyncio
import csv
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import rich_click as click
from rich.console import Console
from rich.rule import Rule

from app import settings as settings_module
from app.cli.local.stack import Stack, own_command
from app.embedded import identity
from app.errors import TrancheError

SAMPLE: Final = Path(__file__).with_name("contacts.csv")
MAP: Final = "Customer Id=id"
REFUSED: Final = "donald.hamilton1@example.com"
"""An address that the CRM does not take."""
CRM_FIELDS: Final = ("tranche_id", "plan")
"""What was added to the contacts of the CRM for this file; it refuses what it does not know."""
_OUTAGE_SECONDS: Final = 5

MENDED: Final = {
    "MISSING_FIELD": {"Customer Id": "CUS-99999", "E-Mail": "mended@example.com"},
    "INVALID_EMAIL": {"E-Mail": "mended@example.com"},
    "INVALID_PHONE": {"Phone": ""},
    "INVALID_FIELD": {"First Name": "Xavier"},
    "DESTINATION_REJECTED": {"E-Mail": "accepted@example.com"},
}
"""What a person would type into the failed rows, by the error that the file gives; an address gets the row's number."""


class DemoError(TrancheError):
    """What Tranche said and what the CRM has differ."""


@click.command()
@click.option("--keep", is_flag=True, help="Keep the folder with data and logs.")
def demo(keep: bool) -> None:
    """Watch a CSV with good and bad rows go in, a CRM misbehave and recover, and only what failed be retried."""
    folder = Path(tempfile.mkdtemp(prefix="tranche-demo-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(_play(folder))
    finally:
        if keep:
            click.echo(f"data and logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _play(folder: Path) -> None:
    console = Console(highlight=False)
    started = time.monotonic()
    settings = msgspec.structs.replace(
        settings_module.Settings(),
        data_dir=str(folder / "data"),
        log_level="warning",
        engine_user=identity.SHARED,  # the data is made up, and nothing is to be left on the machine
    )
    # An outage of seconds must not cost a watcher minutes: everything that waits, waits shorter.
    os.environ |= {
        "TRANCHE_BREAKER_OPEN": "1",
        "TRANCHE_BREAKER_OPEN_CAP": "2",
        "TRANCHE_BREAKER_MIN_CALLS": "3",
        "TRANCHE_DELIVERY_BACKOFF_CAP": "2",
        "TRANCHE_LOG_LEVEL": "warning",
    }
    (folder / "data").mkdir()
    _scene(console, "PostgreSQL, Valkey, API, worker and a stand-in CRM come up")
    async with Stack(
        settings, port=_free_port(), sandbox_port=_free_port(), sandbox_fields=CRM_FIELDS, log_dir=folder
    ) as stack:
        console.print(f"API at {stack.url}, CRM at {stack.sandbox_url}, after {time.monotonic() - started:.1f} s")
        async with aiohttp.ClientSession() as session:
            await _scenes(console, Stage(stack, session, folder))
    _scene(console, "Everything has stopped")
    console.print(f"the whole demo took {time.monotonic() - started:.0f} s")


class Stage:
    def __init__(self, stack: Stack, session: aiohttp.ClientSession, folder: Path) -> None:
        self.folder = folder
        self._session = session
        self._sandbox = f"{stack.sandbox_url}/__sandbox__"
        self._url = stack.url
        self._key = stack.first_key or ""

    async def command(self, *words: str) -> int:
        """Run `tranche …` as a person would, in front of the watcher."""
        click.echo(f"$ tranche {' '.join(f'{w!r}' if ' ' in w else w for w in words)}")
        process = await asyncio.create_subprocess_exec(
            *own_command(*words),
            env=os.environ
            | {"TRANCHE_URL": self._url, "TRANCHE_API_KEY": self._key, "XDG_STATE_HOME": str(self.folder / "state")},
        )
        try:
            return await process.wait()
        except BaseException:
            process.kill()
            raise

    async def misbehave(self, **faults: dict[str, Any]) -> None:
        async with self._session.put(f"{self._sandbox}/faults", json=faults) as answer:
            answer.raise_for_status()

    async def evidence(self, what: str) -> list[dict[str, Any]]:
        """`ledger` (effects), `calls` or `contacts` of the stand-in CRM."""
        async with self._session.get(f"{self._sandbox}/{what}") as answer:
            document = await answer.json()
        return list(document["effects" if what == "ledger" else what])


async def _scenes(console: Console, stage: Stage) -> None:
    file = stage.folder / "contacts.csv"
    shutil.copy(SAMPLE, file)
    failed, mended = stage.folder / "failed.csv", stage.folder / "mended.csv"
    rows = sum(1 for _ in csv.reader(file.open(encoding="utf-8-sig", newline=""))) - 1

    _scene(console, f"{rows} rows, some of them broken, meet a CRM that is down")
    await stage.misbehave(
        status={"code": 503, "seconds": _OUTAGE_SECONDS}, accept_then_drop={"times": 1}, reject={"emails": [REFUSED]}
    )
    console.print(
        f"the CRM answers 503 for {_OUTAGE_SECONDS} s, then takes one batch and drops its answer, and refuses {REFUSED}"
    )
    _equal("exit code", await stage.command("push", str(file), "--map", MAP, "--failed-out", str(failed)), 1)

    _scene(console, "What the CRM's own ledger says")
    first = await stage.evidence("ledger")
    _show_evidence(console, first, await stage.evidence("calls"))
    _check_once(first)

    _scene(console, "Every row that failed is in failed.csv, with the reason")
    reasons = _mend(failed, mended)
    for code, count in sorted(reasons.items()):
        console.print(f"  {count:3} x {code}")
    _equal("rows that arrived and rows that failed", len(first) + sum(reasons.values()), rows)

    _scene(console, "A person mends them and pushes that file: only these rows go")
    _equal("exit code", await stage.command("push", str(mended), "--map", MAP), 0)
    second = (await stage.evidence("ledger"))[len(first) :]
    console.print(f"contacts sent this time: {len(second)}, and none of them twice")
    _equal("contacts sent", len(second), sum(reasons.values()))
    _check_once(first + second)

    _scene(console, "The same file again changes nothing, so nothing is sent")
    calls = len(await stage.evidence("calls"))
    await stage.command("push", str(mended), "--map", MAP, "--quiet")
    _equal("calls to the CRM", len(await stage.evidence("calls")) - calls, 0)
    console.print("no call to the CRM was made")


def _scene(console: Console, title: str) -> None:
    console.print()
    console.print(Rule(title, align="left"))


def _show_evidence(console: Console, effects: list[dict[str, Any]], calls: list[dict[str, Any]]) -> None:
    answers = Counter(str(call["status"] if call["answered"] else "no answer") for call in calls)
    console.print(f"calls: {', '.join(f'{count} x {answer}' for answer, count in sorted(answers.items()))}")
    console.print(f"effects: {len(effects)}, on {len({e['key'] for e in effects})} contacts: each arrived once")


def _check_once(effects: list[dict[str, Any]]) -> None:
    doubled = [key for key, count in Counter(e["key"] for e in effects).items() if count > 1]
    # A contact that was mended after it had been refused arrives once all the same.
    _equal("contacts that arrived twice", len(doubled), 0)


def _mend(failed: Path, mended: Path) -> Counter[str]:
    reasons: Counter[str] = Counter()
    with (
        failed.open(encoding="utf-8-sig", newline="") as source,
        mended.open("w", encoding="utf-8", newline="") as target,
    ):
        reader = csv.DictReader(source, restkey="_more")
        fields = list(reader.fieldnames or [])
        writer = csv.DictWriter(target, fields, extrasaction="ignore")
        writer.writeheader()
        for number, row in enumerate(reader):
            code = str(row["error_code"])
            reasons[code] += 1
            writer.writerow(_mended(code, row, number))
    return reasons


def _mended(code: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    if code == "DUPLICATE_IN_BATCH":
        # Two people, so two addresses: the CRM has one contact for each.
        return row | {"Customer Id": f"{row['Customer Id']}-{number}", "E-Mail": f"mended-{number}@example.com"}
    changes = {k: v.replace("@", f"-{number}@") for k, v in MENDED.get(code, {}).items()}
    return row | {k: v for k, v in changes.items() if code != "MISSING_FIELD" or not row[k]}


def _equal(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise DemoError(f"{what}: {found} instead of {wanted}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
