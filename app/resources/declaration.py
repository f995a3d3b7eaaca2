"""How a type of record is declared: its fields, with all that is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_ID: Final = 255
MAX_TEXT: Final = 1_000
MAX_EMAIL: Final = 254
"""Bytes of UTF-8: a path in SMTP has 256 with its angle brackets (RFC 5321, section 4.5.3.1.3)."""
MAX_PHONE: Final = 100


class Kind(StrEnum):
    """What the value of a field is."""

    TEXT = "text"
    EMAIL = "email"
    PHONE = "phone"


_TYPES: Final[dict[Kind, Any]] = {
    Kind.TEXT: Annotated[str, Meta(max_length=MAX_TEXT)],
    Kind.EMAIL: Annotated[str, Meta(max_length=MAX_EMAIL, extra_json_schema={"format": "email"})],
    Kind.PHONE: Annotated[str, Meta(max_length=MAX_PHONE, description="Any text with a digit.")],
}

Member = tuple[str, Any] | tuple[str, Any, Any]
"""Of a struct: its name, its type and what it is unless it is given."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    """Every item names it; others may leave it out, or clear it by null."""
    meant_by: str = ""
    """Words that people write in its place by mistake, in lower-case letters and digits."""
    headers: str = ""
    """What columns of files call it, separated by commas (`app.files.csv_headers`)."""
    fills: bool = True
    """Whether a column of one of these names fills it unasked. What identifies a record is left to people."""
    at: Mapping[str, str | None] = {}
    """By kind of destination, its name there; `None`: there is none. At other kinds it has its own."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A type of record. Beside its fields it has an id, which is the business key, and attributes."""

    name: str
    id: Field
    fields: tuple[Field, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def required(self) -> tuple[str, ...]:
        """What every item names."""
        return ("id", *(field.name for field in self.fields if field.required))

    def named_at(self, kind: str) -> dict[str, str | None]:
        """Each field and its name at destinations of a kind."""
        return {field.name: field.at.get(kind, field.name) for field in self.fields}

    def of_kind(self, kind: Kind) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.kind is kind)

    def as_sent(self) -> list[Member]:
        """The fields as an item has them."""
        return [
            (f.name, _TYPES[f.kind]) if f.required else (f.name, _TYPES[f.kind] | UnsetType | None, UNSET)
            for f in self.fields
        ]

    def as_stored(self) -> list[Member]:
        """The fields of a record that there is."""
        return [(f.name, str if f.required else str | None) for f in self.fields]

    def as_delivered(self) -> list[Member]:
        """The fields as a destination receives them. `UNSET`: in no call; None: to be cleared there."""
        return [(f.name, str | None) if f.required else (f.name, str | UnsetType | None, UNSET) for f in self.fields]


def define(name: str, text: str, members: Sequence[Member], *, module: str, **config: bool) -> Any:
    """A struct of these members; `text` is its docstring."""
    return msgspec.defstruct(name, members, module=module, namespace={"__doc__": text}, **config)  # type: ignore[arg-type]
