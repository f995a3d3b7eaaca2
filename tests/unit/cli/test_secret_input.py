"""A token from a file or standard input, where `ps` does not show it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import rich_click as click

from app.cli.destinations import read_secret


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    given = io.BytesIO(b"from-stdin\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))
    return given


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"s3cret\n\n"])
def test_a_file_holds_the_secret_and_perhaps_a_line_end(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    assert read_secret("token", None, str(file)) == "s3cret"


@pytest.mark.parametrize(("value", "file"), [("-", None), (None, "-")])
def test_a_dash_is_standard_input(stdin: io.BytesIO, value: str | None, file: str | None) -> None:
    assert read_secret("token", value, file) == "from-stdin"


def test_without_either_there_is_none() -> None:
    assert read_secret("token", None, None) is None
    assert read_secret("token", "plain", None) == "plain"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe", b"x" * 70_000])
def test_what_is_not_one_line_of_text_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(click.UsageError) as caught:
        read_secret("token", None, str(file))
    assert "one\n" not in caught.value.message
    assert str(file) in caught.value.message


def test_both_or_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="give one of them"):
        read_secret("token", "a", "b")
    with pytest.raises(click.UsageError, match="No such file"):
        read_secret("token", None, str(tmp_path / "none"))
