"""A record as a Salesforce Contact or Account, and whether a row that was read back carries its values.

An attribute goes as a custom field: each run of characters that an API name cannot have becomes one `_`, and
`__c` follows ("Subscription Date" → `Subscription_Date__c`; a name that begins with a digit gets the `X` that
Salesforce's own setup would give it). Salesforce refuses a record with a field that it does not know, and names
it. Contact has no field for a company (it links to an Account), so a company stays at home unless `fields` names one.

Strings, numbers and booleans keep their JSON type, lists and objects become JSON text, `null` clears a field.

LastName cannot be empty there. A record that names none leaves it alone; only where Salesforce says that it cannot
make a record without one is `default_last_name` sent, so that no name which somebody typed there is lost.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from app.destinations.kinds import SalesforceOptions
from app.resources.declaration import Resource
from jobs.crm.mapping import FieldMap, differences, text
from jobs.crm.matching import Found
from jobs.crm.port import Difference, SentRecord

_OTHER: Final = re.compile(r"[^A-Za-z0-9]+")
_API_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ESCAPES: Final = str.maketrans(
    {"\\": r"\\", "'": r"\'", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\b": r"\b", "\f": r"\f"}
)


class Fields(FieldMap):
    """How one organisation names things."""

    def __init__(self, options: SalesforceOptions, resource: Resource) -> None:
        super().__init__(options, resource, key=options.external_id_field, name_of=field_name)
        self.object = resource.objects[options.KIND]
        """What Salesforce calls records of this type."""
        self._default_last_name = options.default_last_name
        self.last_name = self._standard.get("last_name") or ""
        """The field that a new record must have; empty where nothing goes there."""

    def sobject(self, record: SentRecord) -> dict[str, Any]:
        """What an upsert of the record sends."""
        return {"attributes": {"type": self.object}, **self._values(record)}

    def new_record(self, record: SentRecord) -> dict[str, Any] | None:
        """What a creation of the record sends: the same with a last name; `None`: there is none to give."""
        name = self.last_name
        if not name or self._default_last_name is None or name in self.sources(record):
            return None
        return {**self.sobject(record), name: self._default_last_name}

    def names(self, records: Iterable[SentRecord]) -> list[str]:
        """Those that a query can name."""
        return [name for name in super().names(records) if _API_NAME.fullmatch(name)]

    def value_at(self, field: str, record: SentRecord) -> str:
        """The text that a push of the record would write into a field there; empty if none."""
        return text(self.sources(record).get(field))

    def found(self, row: Mapping[str, Any], field: str) -> tuple[Any, Found]:
        """A row that was found by the value of a field, and that value."""
        # Salesforce answers with the field's own spelling, whichever of its names was asked for.
        held = {name.casefold(): value for name, value in row.items()}
        key = held.get(self.key.casefold())
        return held.get(field.casefold()), Found(str(held.get("id")), None if key is None else str(key), held)

    def compare(self, record: SentRecord, row: Mapping[str, Any]) -> list[Difference]:
        """Where the row does not have what a push of the record would set."""
        held = {name.casefold(): value for name, value in row.items()}
        pairs = ((name, value, held.get(name.casefold())) for name, value in self._values(record).items())
        return differences(pairs, self.folded)

    def _values(self, record: SentRecord) -> dict[str, Any]:
        values = {name: _typed(value) for name, value in self.sources(record).items()}
        name = self.last_name
        if name in values and self._default_last_name is not None and not (values[name] or "").strip():
            values[name] = self._default_last_name
        return values


@functools.lru_cache(4096)
def field_name(attribute: str) -> str:
    """The API name of a custom field; one that is an API name of such a field already stays."""
    if attribute.endswith("__c") and _API_NAME.fullmatch(attribute):
        return attribute
    name = _OTHER.sub("_", attribute).strip("_")
    if not name:
        return attribute + "__c"  # Salesforce's to refuse
    return f"X{name}__c" if name[0].isdigit() else f"{name}__c"


def _typed(value: Any) -> Any:
    return text(value) if isinstance(value, list | dict) else value


def literal(value: str) -> str:
    """A string in SOQL. Source: SOQL and SOSL Reference, Quoted String Escape Sequences."""
    return f"'{value.translate(_ESCAPES)}'"


def parcels(values: list[str], length: int) -> Iterator[list[str]]:
    """The values in order, as many together as fit into `length` characters; at least one."""
    parcel: list[str] = []
    filled = 0
    for value in values:
        if parcel and filled + len(value) > length:
            yield parcel
            parcel, filled = [], 0
        parcel.append(value)
        filled += len(value)
    if parcel:
        yield parcel
