"""Named SQL, loaded once from the `.sql` files of all features.

A block starts with `-- name: some_query`; its comments stay with it.

What several statements share is a block `-- part: some_part`; each of them includes it as `{{some_part}}`, or as
`{{some_part x}}` with `x` in place of the part's word AT.
A statement may name its parameters (`:job_id`) instead of numbering them; they are numbered as they first occur, with
`:tenant_id` before all others.
"""

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

_BLOCK: Final = re.compile(r"^-- (name|part): (\w+)\s*$", re.MULTILINE)
_NO_QUERIES: Final = {"migrations", "cli", "__pycache__"}
_PART: Final = re.compile(r"\{\{(\w+)(?: (\w+))?\}\}")
_AT: Final = re.compile(r"\bAT\b")
_PARAMETER: Final = re.compile(r"--[^\n]*|(?<![:\w]):([a-z]\w*)")


def _files(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            if entry.name not in _NO_QUERIES:
                yield from _files(entry)
        elif entry.name.endswith(".sql"):
            yield entry


def _load() -> dict[str, str]:
    found: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    for file in _files(resources.files("app")):
        pieces = _BLOCK.split(file.read_text(encoding="utf-8"))
        for kind, name, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            if name in found[kind]:
                raise ValueError(f"{file.name}: {name} is defined twice")
            found[kind][name] = text.strip()

    def fill(text: str) -> str:
        return _PART.sub(lambda match: _AT.sub(match[2] or "AT", fill(found["part"][match[1]])), text)

    return {name: _number(name, fill(text)) for name, text in found["name"].items()}


def _number(query: str, text: str) -> str:
    found = dict.fromkeys(match[1] for match in _PARAMETER.finditer(text) if match[1])
    if not found:
        return text
    names = PARAMETERS[query] = tuple(sorted(found, key=lambda name: name != "tenant_id"))
    return _PARAMETER.sub(lambda m: f"${names.index(m[1]) + 1}" if m[1] else m[0], text)


PARAMETERS: Final[dict[str, tuple[str, ...]]] = {}
"""The parameters of queries that name them, in their order."""
QUERIES: Final = _load()
"""Every named query of the package, by name."""
