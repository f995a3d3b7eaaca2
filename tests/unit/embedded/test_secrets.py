"""Secrets are made once, kept private, and the same for whoever asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.embedded.errors import EngineError
from app.embedded.secrets import load_or_create


def test_a_secret_is_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    secret = load_or_create(path, 32)
    assert len(secret) == 32
    assert load_or_create(path, 32) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_secret_that_became_readable_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    secret = load_or_create(path, 16)
    path.chmod(0o644)
    assert load_or_create(path, 16) == secret
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_secret_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"short")
    with pytest.raises(EngineError, match="5 bytes instead of 32"):
        load_or_create(path, 32)
    assert path.read_bytes() == b"short"


def test_processes_that_race_for_a_secret_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    gate = tmp_path / "gate"
    script = (
        "import sys, pathlib\n"
        "from app.embedded.secrets import load_or_create\n"
        "path, gate = map(pathlib.Path, sys.argv[1:])\n"
        "print('waiting', flush=True)\n"
        "while not gate.exists(): pass\n"
        "print(load_or_create(path, 32).hex())\n"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", script, path, gate], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "waiting\n"
    gate.touch()
    seen = {racer.communicate(timeout=20)[0].strip() for racer in racers}
    assert seen == {path.read_bytes().hex()}
    assert {entry.name for entry in tmp_path.iterdir()} == {"key", "gate"}
