"""How one destination names our fields and attributes, and whether what was read back is what we would send.

An attribute goes under the name that its kind makes of it, unless `fields` gives it another, or `null` to keep
it at home; so it is with the standard fields. What has no name at all stays at home as well. Where two sources
meet in one field, the key wins over a standard field, that over an attribute, and an attribute that is named in
`fields` over one that fell there by its name.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from app.deliveries.before_images import FieldBefore
from app.destinations.options import Options
from app.resources.declaration import Kind, Resource
from app.resources.documents import ATTRIBUTE
from jobs.crm.port import Difference, SentRecord

_MOST_PLANS: Final = 1000
_encoder: Final = msgspec.json.Encoder(order="sorted", decimal_format="number")


class FieldMap:
    """The names of one destination for records of one type, by its options. `name_of` names an attribute there, and
    `attributes` some of them in particular; names that differ in case alone are the same where the options say so."""

    def __init__(
        self,
        options: Options,
        resource: Resource,
        *,
        key: str,
        name_of: Callable[[str], str | None],
        attributes: Mapping[str, str | None] | None = None,
    ) -> None:
        self.key = key
        # A field that a tenant added has no name there but the one that an attribute would have.
        standard, fields = resource.named_at(options.KIND, name_of), options.fields_of(resource.name)
        self._standard = {ours: theirs for ours, usual in standard.items() if (theirs := fields.get(ours, usual))}
        self.folded = {self._standard.get(field.name) for field in resource.fields if field.kind is Kind.EMAIL}
        """Fields there whose case means nothing."""
        self._attributes = {**(attributes or {}), **{k: v for k, v in fields.items() if k not in standard}}
        self.mapped = {name for name in (*self._standard.values(), *self._attributes.values()) if name is not None}
        """Names there that records of this type can fill, as far as they are known beforehand."""
        self._excluded = {**standard, **fields}
        self._name_of = name_of
        self._normal: Callable[[str], str] = str if options.CASE_MATTERS else str.casefold
        self._taken = {self._normal(name) for name in (key, *options.taken(), *self._standard.values())}
        self._plans: dict[tuple[str, ...], list[tuple[str, str]]] = {}

    def names(self, records: Iterable[SentRecord]) -> list[str]:
        """Every name that a push of these records would set."""
        return sorted({name for record in records for name in self.sources(record)})

    def sources(self, record: SentRecord) -> dict[str, Any]:
        """Their name → our value, as it is here, `None` where it is to be cleared; the key is among them. What nobody
        named is not."""
        values = record.attributes
        found = {theirs: values[ours] for ours, theirs in self._plan(tuple(values))} if values else {}
        standard = self._standard
        for ours, value in record.fields.items():
            if ours in standard:
                found[standard[ours]] = value
        for field in record.restored:
            if len(field.path) == 1:
                found[field.path[0]] = field.value
        found[self.key] = None if record.released else record.record_id
        return found

    def fields(self, record: SentRecord, *, without: Container[str] = ()) -> dict[str, Any]:
        """Their name → our value of the fields alone, but for some of ours."""
        standard = self._standard
        return {standard[ours]: v for ours, v in record.fields.items() if ours in standard and ours not in without}

    def attributes(self, record: SentRecord, *, without: Container[str] = ()) -> dict[str, Any]:
        """Their name → our value of the attributes alone, but for some of ours."""
        values = record.attributes
        plan = self._plan(tuple(values)) if values else ()
        return {theirs: values[ours] for ours, theirs in plan if ours not in without}

    def excludes(self, ours: str) -> bool:
        """Whether a field or an attribute is not sent."""
        return self._excluded.get(ours, "") is None

    def places(self, record: SentRecord) -> list[tuple[str, str]]:
        """(our name, as in documents; their name) of everything that a push of the record sets, but for the key."""
        standard = [(name, self._standard[name]) for name in record.fields if name in self._standard]
        return standard + [(f"{ATTRIBUTE}{ours}", theirs) for ours, theirs in self._plan(tuple(record.attributes))]

    def before(self, record: SentRecord, values: Mapping[str, Any]) -> list[FieldBefore]:
        """What a record that was found holds in the fields that a push is to set; an empty text is nothing."""
        held = {self._normal(name): value for name, value in values.items()}
        return [
            FieldBefore(ours, (theirs,), value if (value := held.get(self._normal(theirs))) != "" else None)
            for ours, theirs in self.places(record)
        ]

    def name_at(self, ours: str) -> str | None:
        """What a field of the type is called there."""
        return self._standard.get(ours)

    def source_of(self, theirs: str, records: Iterable[SentRecord]) -> str | None:
        """Our field or attribute that goes there under this name, as far as one of these records has it."""
        wanted = self._normal(theirs)
        for ours, name in self._standard.items():
            if self._normal(name) == wanted:
                return ours
        for record in records:
            for ours, name in self._plan(tuple(record.attributes)):
                if self._normal(name) == wanted:
                    return ours
        return None

    def _plan(self, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """(attribute, their name) of all that go; records of one source mostly have the same attributes."""
        plan = self._plans.get(names)
        if plan is None:
            plan, taken = [], set(self._taken)
            for ours in sorted(names, key=lambda name: (name not in self._attributes, name)):
                theirs = self._attributes[ours] if ours in self._attributes else self._name_of(ours)
                if theirs is not None and self._normal(theirs) not in taken:
                    taken.add(self._normal(theirs))
                    plan.append((ours, theirs))
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[names] = plan
        return plan


def text(value: Any) -> str:
    """A value as a string: `true`/`false`, plain numbers, nested values as JSON, `None` as empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    written = _encoder.encode(value).decode()
    return format(Decimal(written), "f") if "E" in written.upper() and isinstance(value, float | Decimal) else written


def same(ours: Any, theirs: Any, *, fold: bool = False) -> bool:
    """Whether theirs is what became of ours: CRMs trim, and write numbers, booleans and line ends in their own way.

    `fold`: they may change its case as well, as they do with e-mail addresses.
    """
    mine, other = _plain(ours), _plain(theirs)
    if fold or isinstance(ours, bool):
        return mine.casefold() == other.casefold()
    if mine != other and isinstance(ours, int | float | Decimal):
        try:
            return Decimal(mine) == Decimal(other)
        except InvalidOperation:
            return False
    return mine == other


def differences(fields: Iterable[tuple[str, Any, Any]], folded: Container[str | None]) -> list[Difference]:
    """Of (name there, our value, theirs) those that are not the same; `folded`: names whose case means nothing."""
    return [
        Difference(name, ours, theirs) for name, ours, theirs in fields if not same(ours, theirs, fold=name in folded)
    ]


def _plain(value: Any) -> str:
    return text(value).replace("\r\n", "\n").strip()
