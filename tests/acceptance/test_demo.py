"""The promise of the first minute: `tranche demo`."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from app.settings import Settings
from tests.acceptance.harness import environment, processes, run


async def test_demo(folder: Path) -> None:
    """Ends well within a minute, tells the truth about every row, leaves no process and no file."""
    temporary = folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o711)
    began, before = time.monotonic(), _processor_seconds()
    code, output = await run(folder, ["demo"], environment(Settings(), TMPDIR=str(temporary)))
    took, spent = time.monotonic() - began, _processor_seconds() - before
    print(output, f"{took:.1f} s, of which a processor worked {spent:.1f} s")
    assert code == 0, output
    assert spent < 40
    assert took < 60 or os.getloadavg()[0] > 2 * (os.cpu_count() or 1), "a machine that does nothing else"
    assert "INVALID_EMAIL" in output
    assert "Traceback" not in output
    assert list(temporary.iterdir()) == []
    assert processes(folder) == []


def _processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
