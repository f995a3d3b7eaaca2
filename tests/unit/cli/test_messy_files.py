"""What a person with a messy file, or a folder of their own, met at the command line."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from app.cli.client.api_client import Response, refuse
from app.cli.client.errors import UsageError
from app.cli.client.source_file import FileOptions, open_file
from app.cli.local.stack import own_command
from tests.types import CONTACTS
from tests.unit.cli.fake_server import KEY, FakeApi

JOB = "01a1fb9b-c1aa-7595-9dad-be7042173d57"


def test_a_package_named_app_in_the_current_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    """`tranche up` starts its parts this way, and may well be typed in somebody's own project."""
    for name in ("app", "jobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not the one you meant')")
    done = subprocess.run(own_command("settings", "--json"), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("in.xlsx", b"PK\x03\x04" + bytes(range(256)), "damaged or cut off"),
        ("in.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as an Excel workbook"),
        ("in.csv.gz", gzip.compress(b"id,email\nc1,a@b.example\n", mtime=0), "gunzip"),
    ],
)
def test_a_workbook_or_an_archive_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, advice: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=advice):
        open_file(str(tmp_path / name), FileOptions(), CONTACTS)


def test_a_refusal_ends_in_one_full_stop() -> None:
    answer = Response(401, {}, b'{"detail":"This API key is unknown, revoked or misspelled."}')
    told = refuse(answer, "http://127.0.0.1:1").detail
    assert "misspelled. Check" in told


async def test_a_list_of_jobs_shows_whole_ids_in_a_narrow_window() -> None:
    """An id that is cut off is of no use to `tranche jobs show`."""
    api = FakeApi()
    api.jobs[JOB] = {}
    server = await api.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *own_command("jobs", "list", "--url", str(server.make_url("")), "--key", KEY),
            env=os.environ | {"COLUMNS": "80"},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    finally:
        await server.close()
    assert process.returncode == 0
    assert JOB in out.decode()
