"""The scan of `make lint` finds secrets, and nothing else."""

from __future__ import annotations

import pytest

from app.auth import tokens
from tests.audit import find_secrets, scan_files

_KEY, _ = tokens.make(1, bytes(range(6)), bytes(range(20)))  # the same in every process of a run


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE " + "KEY-----\n" + "A" * 64,
        "AKIA" + "A1B2" * 4,
        "ghp" + "_" + "a" * 36,
        "pat-" + "na1-00000000-0000-0000-0000-000000000000",
        "postgresql://tranche:correcthorse" + "@db7.internal/tranche",
        _KEY,
    ],
)
def test_a_secret_is_found_in_its_line(text: str) -> None:
    assert [line for line, _ in find_secrets(f"a = 1\nb = '{text}'\n")] == [2]


@pytest.mark.parametrize(
    "text",
    [
        "trn_" + "0" * 46,
        "https://user:password1@crm.example.com/",
        "pat-test",
        "-----BEGIN PRIVATE KEY-----\n…",
        _KEY[:-1],
    ],
)
def test_an_example_is_none(text: str) -> None:
    assert list(find_secrets(text)) == []


def test_there_is_none_in_the_tree() -> None:
    assert scan_files() == []
