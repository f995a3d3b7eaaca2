"""Kinds of destination that another package brings: they are there once it is installed, and harm nobody if broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = '''
import asyncio
from app.destinations.adapters import Adapter, Kind
from app.destinations.options import Options


class AcmeOptions(Options, frozen=True, kw_only=True):
    KIND = "acme"

    colour: str = "red"
    """colour of everything there"""


def connect(**access):
    return ("acme", access["options"])


ADAPTER = Adapter(kind=Kind(AcmeOptions, 10, "Acme's people", takes_any=True), connect=connect)
OTHER = Adapter(kind=Kind(AcmeOptions, 10, "under another name"), connect=connect)
NOTHING = None
'''
SHOW = """
from app.destinations.kinds import KINDS, parse
from jobs.crm import ADAPTERS
print(sorted(set(KINDS) - {"hubspot", "salesforce", "http", "postgres", "object", "kafka"}))
print(ADAPTERS["acme"](options=parse("acme", {"colour": "blue"})), ADAPTERS["http"].__module__)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed package."""
    (tmp_path / "tranche_acme.py").write_text(MODULE)
    about = tmp_path / "tranche_acme-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tranche-acme\nVersion: 1.0\n")
    install(tmp_path, acme="tranche_acme:ADAPTER")
    return tmp_path


def install(site: Path, **entries: str) -> None:
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (site / "tranche_acme-1.0.dist-info" / "entry_points.txt").write_text("\n".join(["[tranche.adapters]", *lines, ""]))


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    environment = {"PYTHONPATH": f"{root}:{site}", "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_installed_kind_is_there_for_everybody(site: Path) -> None:
    done = run(site, "-c", SHOW)
    assert done.returncode == 0, done.stderr
    kinds, made = done.stdout.splitlines()
    assert kinds == "['acme']"
    assert "blue" in made
    assert "jobs.crm.http.adapter" in made
    shown = run(site, "-c", "from app.cli.main import main; main()", "destinations", "kinds")
    assert shown.returncode == 0, shown.stderr
    assert "Acme's people" in shown.stdout
    assert "colour of everything there" in shown.stdout


def test_a_broken_package_is_left_out_and_named(site: Path) -> None:
    install(
        site, acme="tranche_acme:ADAPTER", gone="tranche_acme:MISSING", http="tranche_acme:ADAPTER",
        nothing="tranche_acme:NOTHING", other="tranche_acme:OTHER", away="tranche_away:ADAPTER",
    )  # fmt: skip
    done = run(site, "-c", SHOW)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['acme']\n")
    for name, why in {
        "gone": "AttributeError", "http": "there is a kind 'http' already", "nothing": "is no app.destinations.adap",
        "other": "options are of the kind 'acme'", "away": "ModuleNotFoundError",
    }.items():  # fmt: skip
        assert f"The package tranche-acme brings no destinations of the kind '{name}': " in done.stderr
        assert why in done.stderr
