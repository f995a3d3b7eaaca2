"""The docs name files, commands and settings that exist, and link to pages and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click
import pytest

from app.cli.main import tranche
from app.settings import Settings

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
MAP: Final = ROOT / "docs" / "architecture.md"


def test_the_map_names_files_and_what_is_in_them() -> None:
    found = re.findall(r"`((?:app|jobs|tests|docs)(?:/[\w.*-]+)*)`(?: \(((?:`\w+`(?:, )?)+)\))?", MAP.read_text())
    wrong = [path for path, _ in found if not list(ROOT.glob(path))]
    for path, names in found:
        text = "".join(file.read_text() for file in ROOT.glob(path) if file.is_file() and names)
        wrong += [f"{path}: {name}" for name in re.findall(r"\w+", names) if not re.search(rf"\b{name}\b", text)]

    assert len(found) > 50
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _without_code(page.read_text())
    wrong = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]*)\)", text):
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and heading not in _headings(file)):
            wrong.append(target)

    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    known = {f"TRANCHE_{name.upper()}" for name in Settings.__struct_fields__}
    settings = {name for name in re.findall(r"\bTRANCHE_[A-Z_]*[A-Z]\b(?!…)", text) if name not in known}
    commands = re.findall(r"(?:^|`|\$ |bin/)tranche ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?(?=[ `\n)|])", text, re.MULTILINE)

    assert settings == set()
    assert sorted({" ".join(names).strip() for names in commands if not _exists(names)}) == []


def _exists(names: tuple[str, str]) -> bool:
    context = click.Context(tranche)
    command = tranche.get_command(context, names[0])
    if not isinstance(command, click.Group):
        return command is not None
    return not names[1] or command.get_command(context, names[1]) is not None


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def _without_code(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)


def test_the_evidence_for_security_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", text)
    wrong = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).is_file() or f"def {test}(" not in (ROOT / path).read_text()
    ]
    assert len(named) > 35
    assert wrong == []
