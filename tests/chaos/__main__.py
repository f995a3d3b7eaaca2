"""`python -m tests.chaos`: rounds of chaos by seed, and `python -m tests.chaos bugs`: what the checker would catch."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

from tests.chaos import campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("rounds", "bugs"), default="rounds")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next ones count up from it")
    parser.add_argument("--rounds", type=int, help="how many (default 200; of bugs: at most so many each, 25)")
    parser.add_argument("--bug", action="append", help="plant this bug (see tests/chaos/planted.py)")
    parser.add_argument("--folder", type=Path, help="for logs and evidence (default: a new one, kept on a failure)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="tranche-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty: choose a new folder")
    folder.chmod(0o711)  # PostgreSQL runs as another user where this is root
    began = time.monotonic()
    if arguments.what == "bugs":
        work = campaign.hunt(folder, bugs=arguments.bug, first=arguments.seed, most=arguments.rounds or 25)
    else:
        bug = (arguments.bug or [""])[0]
        work = campaign.rounds(folder, first=arguments.seed, count=arguments.rounds or 200, bug=bug)
    failed = asyncio.run(_until_told(work))
    print(f"{time.monotonic() - began:.0f} s")
    if not failed and arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


async def _until_told(work: Coroutine[object, object, bool]) -> bool:
    """Ctrl-C and SIGTERM end it in good order: every process that was started is stopped."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    print("stopped", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
