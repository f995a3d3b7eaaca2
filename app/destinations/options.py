"""What every kind of destination lets one choose, and how wrong choices are explained."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, TypeVar

import msgspec
from msgspec import Meta

from app.kit.field_texts import read_field_texts
from app.resources.declaration import Kind, Resource
from app.resources.types.contacts import CONTACTS

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Names = Annotated[dict[Name, Name | None], Meta(max_length=1000)]
MatchOn = Name | Names | None
LIMITS: Final = ("batch_size", "concurrency", "rate", "connect_timeout", "total_timeout")
"""Options that say how a destination wants to be called; null leaves it to the settings."""
UNSENT: Final = (*LIMITS, "verify_every")
"""Options that make no difference to what a call contains."""


class OptionsError(ValueError):
    """The options cannot be used; the message names place and remedy."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every kind has. The text below a field is what a table of the options says of it."""

    KIND: ClassVar[str] = ""
    """The kind of destination, as types of records have it (`app.resources.declaration.Field.at`)."""
    CASE_MATTERS: ClassVar[bool] = True
    """Whether two names there may differ in case alone."""

    batch_size: Annotated[int, Meta(ge=1, le=5_000)] | None = None
    """most records per call"""
    concurrency: Annotated[int, Meta(ge=1, le=64)] | None = None
    """most calls at a time"""
    rate: Annotated[float, Meta(ge=0.001, le=10_000)] | None = None
    """most calls per second"""
    connect_timeout: Annotated[float, Meta(ge=0.1, le=60)] | None = None
    """seconds to wait for a connection"""
    total_timeout: Annotated[float, Meta(ge=1, le=60)] | None = None
    """seconds for the whole call"""
    verify_every: Annotated[float, Meta(ge=3600, le=31_536_000)] | None = None
    """seconds after which what it holds is compared with what is here once more (`sync` with the mode `verify`); null:
    only when somebody asks for it"""
    fields: Names = {}
    """our field or attribute → its name there, or null: it is not sent; `TYPE.NAME` for records of one type alone"""

    def __post_init__(self) -> None:
        connect, total = self.connect_timeout, self.total_timeout
        if connect is not None and total is not None and connect > total:
            raise ValueError("connect_timeout is within total_timeout, so it cannot be longer")
        sources: dict[str, str] = {}
        for source, target in {**CONTACTS.named_at(self.KIND), **self.fields_of(CONTACTS.name)}.items():
            if target is None:
                continue
            name = target if self.CASE_MATTERS else target.casefold()
            if name in [taken if self.CASE_MATTERS else taken.casefold() for taken in self.taken()]:
                raise ValueError(f"fields: {source!r} cannot go to {target!r}, which has another use")
            if name in sources:
                raise ValueError(f"fields: {sources[name]!r} and {source!r} cannot both go to {target!r}")
            sources[name] = source

    def fields_of(self, type: str) -> dict[str, str | None]:
        """What `fields` says of records of one type."""
        return of_type(self.fields, type)

    def taken(self) -> list[str]:
        """Names there that have another use."""
        return []


class MatchingOptions(Options, frozen=True, kw_only=True):
    """Of kinds whose services may have had a record before it first goes there."""

    match_on: MatchOn = None
    """field of ours by which a record is looked for before it first goes there: what is found without our key becomes
    ours; `{"TYPE":"FIELD"}` for several types; null or `{}`: it is not looked for"""

    def match_field(self, resource: Resource) -> str | None:
        """The field of this type that its records are looked for by."""
        if isinstance(self.match_on, str):
            return self.match_on if self.match_on in resource.names else None
        return (self.match_on or {}).get(resource.name)

    def check_match(self, types: Sequence[Resource]) -> None:
        """Raises `OptionsError`: none of these types, which can go there, can be looked for so."""
        if isinstance(self.match_on, str):
            chosen = [one for one in types if self.match_on in one.names]
            if not chosen:
                known = "; ".join(f"{one.name} by {_any_of(self._matchable(one))}" for one in types)
                raise OptionsError(f"options.match_on: there is no field {self.match_on!r}. {_MATCHED}: {known}.{_OWN}")
        by_name = {one.name: one for one in types}
        for name in self.match_on if isinstance(self.match_on, dict) else ():
            if name not in by_name:
                raise OptionsError(
                    f"options.match_on.{name}: records of this type do not go there, or a tenant declares it. There "
                    f"are: {', '.join(by_name) or 'none'}.{_OWN}"
                )
        for one in types:
            field, fields = self.match_field(one), self._matchable(one)
            if field is not None and field not in fields:
                place = "match_on" if isinstance(self.match_on, str) else f"match_on.{one.name}"
                raise OptionsError(
                    f"options.{place}: {one.name} cannot be looked for by {field!r}, only by a text that goes there: "
                    f"{_any_of(fields)}."
                )

    def _matchable(self, resource: Resource) -> list[str]:
        there = resource.named_at(self.KIND) | self.fields_of(resource.name)
        return [f.name for f in resource.fields if f.kind in MATCHABLE and f.many is None and there.get(f.name)]


MATCHABLE: Final = (Kind.TEXT, Kind.EMAIL, Kind.PHONE, Kind.URI, Kind.UUID)
_MATCHED: Final = "Records are looked for by a text of theirs"
_OWN: Final = " A type of your own names its field itself, in destinations.NAME.match_on of its definition."


def _any_of(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" or " if names[:-1] else "") + names[-1] if names else "nothing"


Chosen = TypeVar("Chosen", bound=Options)


def of_type(names: Mapping[str, str | None], type: str) -> dict[str, str | None]:
    """Names there, for records of one type: those of all types, and those that `TYPE.NAME` gives this one alone."""
    start = f"{type}."
    own = {name.removeprefix(start): theirs for name, theirs in names.items() if name.startswith(start)}
    return {name: theirs for name, theirs in names.items() if not name.startswith(start)} | own


def read_options(options: Mapping[str, Any], cls: type[Chosen]) -> Chosen:
    """Options as they are stored; those that this release does not know are passed over.
    Raises `OptionsError`: a value that cannot be used."""
    known = {name: value for name, value in options.items() if name in cls.__struct_fields__}
    return convert(cls, known, None)


def limits_of(options: Mapping[str, Any]) -> Options:
    """The limits among stored options of any kind. Raises `OptionsError`: a value that cannot be used."""
    return read_options({name: options.get(name) for name in LIMITS}, Options)


class Described(msgspec.Struct, frozen=True):
    """An option in words, with its default."""

    words: str
    default: Any


def describe(cls: type[Options]) -> dict[str, Described]:
    """Every option of a kind, for remedies and documents."""
    words, defaults = read_field_texts(cls), cls()
    return {name: Described(words[name], getattr(defaults, name)) for name in cls.__struct_fields__}


_UNKNOWN: Final = re.compile(r"unknown field `(.*?)`(?: - at `\$\.(.*)`)?$", re.DOTALL)
_PLACE: Final = re.compile(r"(.*) - at (?:`key` in )?`\$\.?(.*)`$", re.DOTALL)


def convert(cls: type[Chosen], options: Mapping[str, Any], kind: str | None) -> Chosen:
    try:
        return msgspec.convert(dict(options), cls)
    except msgspec.ValidationError as error:
        raise OptionsError(_explain(cls, str(error), kind)) from error


def _explain(cls: type[Options], message: str, kind: str | None) -> str:
    """What is wrong, where, and what would be right."""
    unknown = _UNKNOWN.search(message)
    if unknown is not None and unknown[2]:
        members = describe(cls)[re.split(r"[.\[]", unknown[2])[0]].words
        return f"options.{unknown[2]}.{unknown[1]}: there is no such member. ({members}.)"
    if unknown is not None:
        names = ", ".join(cls.__struct_fields__)
        return f"options.{unknown[1]}: {kind or 'this kind'} has no such option; there are: {names}."
    place = _PLACE.match(message)
    if place is None:
        return f"options: {message}."
    what = "It has characters that are not allowed there" if "matching regex" in place[1] else place[1]
    option = describe(cls).get(re.split(r"[.\[]", place[2])[0])
    words = option.words if option is not None else ""
    return f"options.{place[2]}: {what}." + (f" ({words[0].upper()}{words[1:]}.)" if words else "")
