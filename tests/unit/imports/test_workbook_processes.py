"""Workbooks are read by few processes at a time, and none outlives whoever wanted its rows."""

from __future__ import annotations

import asyncio
import contextlib
import io
from pathlib import Path

import psutil
import pytest

from app.errors import Overloaded
from app.files.readers import Family, Form
from app.imports.workbooks import Workbooks, keep_workbook
from app.settings import Settings
from tests.workbooks import table

FORM = Form(family=Family.XLSX)
MANY = table([["id", "email"], *[[f"c{n}", f"c{n}@example.com"] for n in range(20_000)]])


def running() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "app.files.workbook.extract" in process.cmdline():
                found.append(process)
    return found


async def test_a_second_workbook_waits_for_the_first(tmp_path: Path) -> None:
    workbooks = Workbooks(Settings(workbook_processes=1))
    (tmp_path / "book").write_bytes(MANY)
    with open(tmp_path / "book", "rb") as stream:
        rows = workbooks.read(stream, FORM, atomic=False)
        async with contextlib.aclosing(rows):
            await anext(rows)
            second = asyncio.create_task(workbooks.unfold(table([["id"], ["1"]]), FORM, atomic=False))
            await asyncio.sleep(0.5)
            assert not second.done()
            assert len(running()) == 1
        assert b'["1"]' in (await second or b"")
    assert running() == []


async def test_a_request_that_is_given_up_ends_its_process() -> None:
    workbooks = Workbooks(Settings())
    reading = asyncio.create_task(workbooks.unfold(MANY, FORM, atomic=False))
    async with asyncio.timeout(60):
        while not running():
            await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(60):
        while running():
            await asyncio.sleep(0.01)


def test_a_full_folder_is_no_fault_of_the_workbook() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(Overloaded, match="no room for the workbook"):
        keep_workbook(Full(), b"x")


async def test_the_process_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANCHE_SECRET_KEY", "secret")
    workbooks = Workbooks(Settings())
    reading = asyncio.create_task(workbooks.unfold(MANY, FORM, atomic=False))
    seen: dict[str, str] = {}
    async with asyncio.timeout(60):
        while not seen:
            for process in running():
                with contextlib.suppress(psutil.Error):
                    seen = process.environ()
            await asyncio.sleep(0)
    assert not [name for name in seen if name.startswith("TRANCHE_")]
    await reading
