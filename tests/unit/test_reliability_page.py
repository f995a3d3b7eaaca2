"""docs/reliability.md gives defaults; they are those of the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings import PREFIX, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "days": 86_400.0}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("## Defaults and their reasons")[1].splitlines()
    if line.startswith("| `")
]


def number(text: str) -> float:
    value, _, unit = text.strip().partition(" ")
    return float(value) * UNITS.get(unit, 1.0)


def names(cell: str) -> list[str]:
    """`TRANCHE_A_B`, `_C`: the second one begins as the first does."""
    first, *others = re.findall(r"`([A-Z_]+)`", cell)
    stems = [first.rsplit("_", n)[0] for n in range(1, first.count("_"))]
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__}
    found = [first]
    for other in others:
        found += [other] if other in known else [stem + other for stem in stems if stem + other in known][:1]
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_default_on_the_page_is_that_of_the_setting(row: list[str]) -> None:
    settings = Settings()
    given = names(row[0])
    assert len(given) == row[0].count("`") // 2
    defaults = [getattr(settings, name.removeprefix(PREFIX).lower()) for name in given]
    shown = re.split(r"[;,] ", row[1])
    assert len(shown) == len(defaults)
    for text, default in zip(shown, defaults, strict=True):
        if "…" in text:
            assert str(default).startswith(text.split(" ")[0])
        elif isinstance(default, str):
            assert text == default
        else:
            assert number(text) == float(default)


def test_there_are_rows() -> None:
    assert len(ROWS) > 10
