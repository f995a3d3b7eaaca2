"""Secrets for a command, from where neither `ps` nor the history of the shell shows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import rich_click as click

STDIN: Final = "-"
_MOST: Final = 65_536


def read_secret(name: str, value: str | None, file: str | None) -> str | None:
    """What `--NAME VALUE` or `--NAME-file FILE` gave, without the line end; `-` is standard input.

    Raises:
        UsageError: both are given, the file cannot be read, or it holds nothing or more than one line.
    """
    if value is not None and file is not None:
        raise click.UsageError(f"--{name} and --{name}-file say the same: give one of them")
    if file is None and value != STDIN:
        return value
    place = "standard input" if file in (None, STDIN) else str(file)
    try:
        if file is None or file == STDIN:
            content = sys.stdin.buffer.read(_MOST + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MOST + 1)
        text = content.decode()
    except OSError as error:
        raise click.UsageError(f"--{name}-file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{place} is not text, so it holds no {name}") from error
    lines = text.split("\n")
    secret = lines[0].removesuffix("\r")
    if not secret or any(line.strip() for line in lines[1:]) or len(content) > _MOST:
        raise click.UsageError(f"{place} must hold the {name} alone, on one line")
    return secret
