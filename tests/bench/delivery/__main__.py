"""Delivery, measured: `make bench-delivery` (some five minutes), or `python -m tests.bench.delivery PART …`.

Real processes on embedded engines with fsync on: one API process, two workers, sandbox CRMs. Every part prints a table
and the goals that it is measured by.

| part | what |
|---|---|
| night | a night of 15 minutes in 30 seconds: one of two CRMs is down while contacts come in |
| lost | a CRM that does its work and drops one answer in five; then reads are dropped as well |
| late | a second CRM is added to records that are there, and a sync sends them |
| single | calls a second to a service that takes one record a call, 5 ms each |
| throughput | contacts a second with two workers, 50 ms a call, 100 contacts a call (`--profile`: processor time) |
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import uvloop

from tests.bench.delivery import late, lost, night, single, throughput
from tests.bench.delivery.site import opened

PARTS = ("night", "lost", "late", "single", "throughput")


async def main(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="tranche-delivery-", dir=arguments.folder) as name:
            os.chmod(name, 0o711)  # as root the engines run as somebody else
            async with opened(Path(name)) as site:
                if part == "night":
                    await night.measure(site, arguments.contacts, arguments.seconds)
                elif part == "lost":
                    await lost.measure(site, arguments.contacts)
                elif part == "single":
                    await single.measure(site, min(arguments.contacts, 40_000), arguments.concurrency)
                elif part == "late":
                    await late.measure(site, arguments.contacts, arguments.concurrency)
                else:
                    await throughput.measure(site, arguments.contacts, arguments.concurrency, profile=arguments.profile)
                site.tranche.quiet = True
    print(f"\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them by default")
    parser.add_argument("--contacts", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the night is")
    parser.add_argument("--concurrency", type=int, default=32, help="calls at a time (throughput)")
    parser.add_argument("--profile", action="store_true", help="processor time of every part (throughput)")
    parser.add_argument("--folder", type=Path, help="for data; in the folder for temporary files by default")
    uvloop.run(main(parser.parse_args()))
