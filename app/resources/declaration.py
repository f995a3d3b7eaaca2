"""How a type of record is declared: its fields, with all that is known of each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_ID: Final = 255
MAX_TEXT: Final = 1_000
MAX_EMAIL: Final = 254
"""Bytes of UTF-8: a path in SMTP has 256 with its angle brackets (RFC 5321, section 4.5.3.1.3)."""
MAX_PHONE: Final = 100
MAX_INT: Final = 2**63 - 1
FLOAT_BOUND: Final = 2.0**63
"""Numbers lie strictly within ± this, so that PostgreSQL and every CRM can hold them."""


class Kind(StrEnum):
    TEXT = "text"
    EMAIL = "email"
    PHONE = "phone"
    DATE = "date"
    DATE_TIME = "date-time"
    URI = "uri"
    UUID = "uuid"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


NUMERIC: Final = frozenset({Kind.INTEGER, Kind.NUMBER})
_LONGEST: Final = {Kind.EMAIL: MAX_EMAIL, Kind.PHONE: MAX_PHONE}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    """Every item names it; others may leave it out, or clear it by null."""
    shortest: int = 0
    """Characters of a text."""
    longest: int | None = None
    """Characters of a text; of an e-mail address bytes. `None`: as many as its kind allows."""
    least: float | None = None
    """Of a number, itself included."""
    most: float | None = None
    pattern: str | None = None
    """RE2, found anywhere in a text."""
    choices: tuple[Any, ...] = ()
    """The only values there are."""
    many: int | None = None
    """The value is a list of so many at most; `None`: it is none."""
    meant_by: str = ""
    """Words that people write in its place by mistake, in lower-case letters and digits."""
    headers: str = ""
    """What columns of files call it, separated by commas (`app.files.csv_headers`)."""
    fills: bool = True
    """Whether a column of one of these names fills it unasked. What identifies a record is left to people."""
    at: Mapping[str, str | None] = {}
    """By kind of destination, its name there; `None`: there is none. At other kinds it has its own."""

    @property
    def limit(self) -> int:
        """Characters of a text, at most."""
        return _LONGEST.get(self.kind, MAX_TEXT) if self.longest is None else self.longest

    @property
    def type(self) -> Any:
        """What a sound value of it is decoded as; what this does not say, `app.resources.rules` checks."""
        one = self._type_of_one()
        return one if self.many is None else Annotated[list[one], Meta(max_length=self.many)]  # type: ignore[valid-type]

    def _type_of_one(self) -> Any:
        if self.choices and self.kind is not Kind.NUMBER:
            return Literal[self.choices]
        if self.kind is Kind.BOOLEAN:
            return bool
        if self.kind in NUMERIC:
            low = -MAX_INT if self.least is None else max(self.least, -MAX_INT)
            high = MAX_INT if self.most is None else min(self.most, MAX_INT)
            whole = Annotated[int, Meta(ge=math.ceil(low), le=math.floor(high))]
            if self.kind is Kind.INTEGER:
                return whole
            bounds = Meta(gt=-FLOAT_BOUND) if self.least is None else Meta(ge=float(self.least))
            above = Meta(lt=FLOAT_BOUND) if self.most is None else Meta(le=float(self.most))
            return whole | Annotated[float, bounds, above]
        described: dict[str, Any] = {}
        if self.kind is Kind.PHONE:
            described["description"] = "Any text with a digit."
        elif self.kind is not Kind.TEXT:
            described["extra_json_schema"] = {"format": self.kind.value}
        return Annotated[str, Meta(min_length=self.shortest or None, max_length=self.limit, **described)]


ID: Final = Field(name="id", required=True, shortest=1, longest=MAX_ID, meant_by="externalid uid key", fills=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Resource:
    """A type of record. Beside its fields it has an id, which is the business key.

    Two are one only if they are the same object: what is compiled of one is found by that.
    """

    type_id: int
    """In the database. Those of the product are below 100, those of a tenant's own from there on."""
    name: str
    """As it is in paths: a plural."""
    singular: str
    fields: tuple[Field, ...]
    id: Field = ID
    attributes: bool = True
    """Whether a record has free attributes as well."""
    objects: Mapping[str, str] = field(default_factory=dict)
    """By kind of destination that has objects of its own (HubSpot, Salesforce), what it calls this one; at others of
    these kinds it has no place."""
    destinations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name of a destination, options that it has for this type; none: every destination that can takes it."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """An item."""
    version: int = 0
    """Of a tenant's declaration, from 1; 0: it is the product's own, and no tenant has added to it."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @cached_property
    def required(self) -> tuple[str, ...]:
        """What every item names."""
        return ("id", *(field.name for field in self.fields if field.required))

    @cached_property
    def title(self) -> str:
        """The name of a struct of one of them."""
        return "".join(word.capitalize() for word in self.singular.replace("-", "_").split("_"))

    def named_at(self, kind: str, name_of: Callable[[str], str | None] = str) -> dict[str, str | None]:
        """Each field and its name at destinations of a kind; `name_of` makes that of one which a tenant added."""
        return {field.name: field.at.get(kind, name_of(field.name) or field.name) for field in self.fields}

    def as_item(self) -> list[tuple[Any, ...]]:
        """The members of an item, for `define`."""
        return [(f.name, f.type) if f.required else (f.name, f.type | UnsetType | None, UNSET) for f in self.fields]

    def as_shown(self) -> list[tuple[Any, ...]]:
        """The members of a record that there is, for `define`."""
        return [("id", str)] + [(f.name, f.type if f.required else f.type | None) for f in self.fields]


def define(name: str, text: str, members: list[tuple[Any, ...]], *, module: str, **config: Any) -> Any:
    """A struct of these members; `text` is its docstring."""
    return msgspec.defstruct(name, members, module=module, namespace={"__doc__": text}, **config)
