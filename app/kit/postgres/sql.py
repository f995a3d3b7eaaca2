"""Named SQL, loaded once from the `.sql` files of all features.

A block starts with `-- name: some_query`; its comments stay with it.

What several statements share is a block `-- part: some_part`; each of them includes it as `{{some_part}}`.
The fields of a contact (`app.vocabulary.contact_fields`) are not spelled out: `{{fields c}}` is `c.email, c.first_name`
and so on, `{{each field: NAME = p.NAME}}` that for each of them, `{{each optional by OR: ...}}` for those that an item
need not name, joined by a word. NAME is the field, BIT its bit in the mask, NUMBER its position from 1.
A statement may name its parameters (`:job_id`) instead of numbering them; they are numbered as they first occur, with
`:tenant_id` before all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from app.vocabulary.contact_fields import BITS, OPTIONAL_FIELDS, STANDARD_FIELDS

_BLOCK: Final = re.compile(r"^-- (name|part): (\w+)\s*$", re.MULTILINE)
_NO_QUERIES: Final = {"migrations", "cli", "__pycache__"}
_PART: Final = re.compile(r"\{\{(\w+)\}\}")
_FIELDS: Final = re.compile(r"\{\{fields (\w+)\}\}")
_EACH: Final = re.compile(r"\{\{each (field|optional)(?: by (\w+))?: (.*?)\}\}", re.DOTALL)
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
        text = _EACH.sub(_spell_out, _FIELDS.sub(r"{{each field: \1.NAME}}", text))
        return _PART.sub(lambda match: fill(found["part"][match[1]]), text)

    return {name: _number(name, fill(text)) for name, text in found["name"].items()}


def _spell_out(match: re.Match[str]) -> str:
    names = STANDARD_FIELDS if match[1] == "field" else OPTIONAL_FIELDS
    separator = f"\n{match[2]} " if match[2] else ", "
    return separator.join(
        match[3].replace("NAME", name).replace("BIT", str(BITS[name])).replace("NUMBER", str(number))
        for number, name in enumerate(names, 1)
    )


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
