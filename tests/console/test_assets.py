"""The files of the console: those of others are unchanged, ours are small, and nothing is inline."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.console import api

ASSETS = Path(api.__file__).with_name("assets")
MOST = 150_000
"""Bytes of everything, compressed."""


def test_files_of_others_are_as_they_came() -> None:
    listed = {}
    for line in (ASSETS / "vendor/VENDORED").read_text().splitlines():
        if len(parts := line.split()) == 5 and len(parts[4]) == 64:
            listed[parts[3]] = parts[4]
    there = {
        str(path.relative_to(ASSETS / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ASSETS / "vendor").rglob("*")
        if path.suffix in (".js", ".css")
    }
    assert there == listed


def test_all_of_it_is_small() -> None:
    sizes = {path: len(asset.compressed or asset.content) for path, asset in api.ASSETS.items()}
    assert sum(sizes.values()) < MOST
    first = [size for path, size in sizes.items() if "uPlot" not in path]
    assert sum(first) < 100_000


def test_nothing_is_inline() -> None:
    page = (ASSETS / "index.html").read_text()
    assert "<style" not in page
    assert "style=" not in page
    for path in ASSETS.rglob("*.js"):
        if "vendor" not in path.parts:
            text = path.read_text()
            assert "innerHTML" not in text, path
            assert " style=" not in text, path
            assert "://" not in text.replace("https://, or", "").replace("http://localhost", ""), path
