"""The promise of the first minute: `tranche demo`."""

from __future__ import annotations

import time
from pathlib import Path

from app.settings import Settings
from tests.acceptance.harness import environment, processes, run


async def test_demo(folder: Path) -> None:
    """Ends well within a minute, tells the truth about every row, leaves no process and no file."""
    temporary = folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o711)
    began = time.monotonic()
    code, output = await run(folder, ["demo"], environment(Settings(), TMPDIR=str(temporary)))
    took = time.monotonic() - began
    print(output)
    assert code == 0, output
    assert took < 60
    assert "INVALID_EMAIL" in output
    assert "Traceback" not in output
    assert list(temporary.iterdir()) == []
    assert processes(folder) == []
