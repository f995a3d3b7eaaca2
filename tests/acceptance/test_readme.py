"""The first request of the README, step by step, as it is written there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.harness import Installation

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()


def block(language: str, first: str) -> str:
    """The code block of the README whose text begins with `first`."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```", README, re.DOTALL | re.MULTILINE)
    (found,) = [text for _, text in blocks if text.lstrip().startswith(first)]
    return found


class Shell:
    """A second terminal in a copy of the repository, with the virtual environment activated."""

    def __init__(self, installation: Installation) -> None:
        self.folder = installation.folder
        (self.folder / "examples").symlink_to(ROOT / "examples")
        self.env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TRANCHE_URL": installation.url,
            "TRANCHE_API_KEY": installation.key,
            "XDG_STATE_HOME": str(self.folder / "state"),
        }

    async def run(self, *words: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, env=self.env, cwd=self.folder)
        out, _ = await process.communicate()
        return process.returncode, out.decode()


async def test_the_first_request_works_in_the_order_of_the_readme(tranche: Installation) -> None:
    await tranche.start_both()
    shell = Shell(tranche)

    code, first = await shell.run("sh", "-c", block("sh", "curl"))
    assert code == 0
    assert [item["status"] for item in json.loads(first)["items"]] == ["ok", "failed", "ok"]
    assert re.search(r'"summary":{.*?}', first)[0] in block("json", '{"job_id"')
    assert await shell.run("sh", "-c", block("sh", "curl")) == (0, first)

    assert (await tranche.finished(json.loads(first)["job_id"]))["state"] == "completed_with_failures"
    code, shown = await shell.run("sh", "-c", block("sh", "tranche jobs list"))
    assert code == 0
    assert "joan@example.com" in shown

    code, _ = await shell.run("sh", "-c", block("sh", "tranche push"))
    assert code == 1
    assert len((shell.folder / "failed.csv").read_text().splitlines()) == 4

    code, printed = await shell.run(sys.executable, "-c", block("python", "import json"))
    assert code == 0
    assert printed.splitlines() == ["c1 ok ", "c2 failed INVALID_EMAIL", "c3 ok "]
