"""Large imports, measured: `make bench-large` (a quarter of an hour), or `python -m tests.bench.large PART … --rows N`.

Real processes on embedded engines with fsync on: one API process, two workers, a sandbox CRM. Every part prints a
table and the goal that it is measured by.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import uvloop

from tests.bench.large import bare, growth, idle, kills, pollers, rows, small
from tests.bench.large.site import Site, opened

PARTS = ("rows", "pollers", "small", "growth", "kills", "idle")


async def main(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tranche-large-", dir=arguments.folder) as name:
        os.chmod(name, 0o711)  # as root the engines run as somebody else
        folder = Path(name)
        async with opened(folder) as site:
            await bare.prepare(site.database_url)
            for part in arguments.parts or PARTS:
                await run(part, site, folder, arguments)
    print(f"\n{time.monotonic() - started:.0f} s in all")


async def run(part: str, site: Site, folder: Path, arguments: argparse.Namespace) -> None:
    if part == "rows":
        await rows.measure(site, folder, arguments.rows, arguments.rows // 10)
    elif part == "growth":
        most = arguments.contacts
        sizes = [size for size in (10_000, 1_000_000) if size < most] + [most]
        await growth.measure(site, folder, sizes, arguments.rows // 10, 4)
    elif part == "pollers":
        await pollers.measure(site, folder, arguments.rows, arguments.pollers)
    elif part == "small":
        await small.measure(site, folder, arguments.rows, 5)
    elif part == "idle":
        await idle.measure(site, [100, arguments.tenants], arguments.seconds)
    elif part == "kills":
        await site.stop()
        await kills.measure(folder, arguments.rows // 10, arguments.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them by default")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--contacts", type=int, default=10_000_000, help="the largest table")
    parser.add_argument("--pollers", type=int, default=1_000)
    parser.add_argument("--tenants", type=int, default=10_000, help="that are idle")
    parser.add_argument("--seconds", type=float, default=120, help="of being idle")
    parser.add_argument("--rounds", type=int, default=20, help="of kills")
    parser.add_argument("--folder", type=Path, help="for data and files; needs some 20 GB for all parts")
    uvloop.run(main(parser.parse_args()))
