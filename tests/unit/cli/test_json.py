"""Every command that ends has `--json`: what a person reads, a script can read as well."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click

from app.cli.jobs import _describe
from app.cli.main import _COMMANDS

ENDLESS = {"up", "demo", "serve", "worker", "sandbox-crm"}
"""They run until they are stopped, and what they say is a log or a story."""


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from walk(f"{name} {word}", inner)
    else:
        yield name, command


def test_every_command_that_ends_can_speak_json() -> None:
    lacking = set()
    for name, (module, attribute) in _COMMANDS.items():
        for words, command in walk(name, getattr(importlib.import_module(module), attribute)):
            if "--json" not in [option for parameter in command.params for option in parameter.opts]:
                lacking.add(words)
    assert lacking == ENDLESS


def test_the_list_of_jobs_marks_dry_runs() -> None:
    job = {"job_id": "j", "kind": "import", "state": "completed", "options": {"dry_run": True}}
    assert _describe(job)[1] == "import, dry run"
    assert _describe(job | {"options": {"dry_run": False}})[1] == "import"
