"""The processes that live in an engine's folder, and how to end those that nobody supervises any more.

The process table is asked, never a pid file: a stale file, a pid that now belongs to another program and a
zombie cannot mislead it. psutil compares start times before it signals, so no other process is hit in error.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from app.embedded.errors import EngineError


async def evict(folder: Path, name: str, stop_signal: signal.Signals, grace: float) -> None:
    """End what runs in `folder`: `stop_signal` to the oldest, `grace` seconds later SIGKILL to all.

    Raises:
        EngineError: something is still there after that.
    """
    found = sorted(find(folder, name), key=lambda process: process.create_time())
    if not found:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        found[0].send_signal(stop_signal)
    await _await_end(found, grace)
    left = list(find(folder, name))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if alive := await _await_end(left, 5.0):
        raise EngineError(f"{name} (process {alive[0].pid}) was left in {folder} and cannot be stopped")


def find(folder: Path, name: str) -> Iterator[psutil.Process]:
    """The live processes called `name` whose working folder is `folder`."""
    home = folder.resolve()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and Path(process.cwd()) == home:
                yield process


async def _await_end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    limit = time.monotonic() + seconds
    while True:
        alive = [process for process in processes if _is_alive(process)]
        if not alive or time.monotonic() >= limit:
            return alive
        await asyncio.sleep(0.01)


def _is_alive(process: psutil.Process) -> bool:
    # A zombie is as good as gone; in a container whose first process never reaps it stays for ever.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
