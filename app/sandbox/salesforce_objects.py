"""The objects of Salesforce that the stand-in knows, their columns, and which values these take."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

from app.sandbox.vendor import Visit

KEY: Final = "Tranche_Id__c"
"""The external id field, by the default of a destination."""
DESCRIBED: Final = ("Company__c", KEY)
"""Of all the custom fields that there may be, where every name is declared."""
NUMBERS: Final = {"int": (int,), "currency": (int, float)}
"""Types of columns with numbers: the types of Python that JSON has for them."""


class Column(msgspec.Struct, frozen=True, array_like=True):
    label: str
    type: str
    """One of `NUMBERS`, or a kind of text."""
    size: int
    """Characters of a text, digits of a number."""


class SObject(msgspec.Struct, frozen=True, kw_only=True):
    """What Salesforce's object reference says about one object."""

    name: str
    prefix: str
    """The beginning of its record ids."""
    required: str
    columns: Mapping[str, Column | None]
    """Those that every organisation has; there are some more. `None`: its values are not checked."""

    def missing_column(self, visit: Visit, names: Iterable[str]) -> str | None:
        """A column that it does not have. What an organisation makes itself ends in `__c`, whatever was declared."""
        names = list(names)
        strange = [name for name in names if name not in self.columns and not name.endswith("__c")]
        return next(iter([*visit.missing_fields(names, self.name), *strange]), None)

    def unreadable(self, values: Mapping[str, Any]) -> str | None:
        """Salesforce's words for a value of another JSON type than its column's, which refuses a whole request
        (mautic/mautic 3048). Text is not read as a number, though Salesforce may do so."""
        for name, value in values.items():
            column = self.columns.get(name)
            if column is None or value is None or type(value) in NUMBERS.get(column.type, (str,)):
                continue
            shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            words = f"Cannot deserialize instance of {column.type} from {_token(value)} value {shown}"
            return f"{words} or request may be missing a required field at [line:1, column:1]"
        return None

    def oversized(self, values: Mapping[str, Any]) -> tuple[str, str, str] | None:
        """(code, words, column) of a value that its column has no room for (CoderDojo/community-platform 762)."""
        for name, value in values.items():
            column = self.columns.get(name)
            if column is None or value is None:
                continue
            if column.type not in NUMBERS:
                if len(value) > column.size:
                    words = f"{column.label}: data value too large: {value} (max length={column.size})"
                    return "STRING_TOO_LONG", words, name
            elif abs(value) >= 10**column.size or (value < 0 and column.type == "int"):
                words = f"{column.label}: value outside of valid range on numeric field: {value}"
                return "NUMBER_OUTSIDE_VALID_RANGE", words, name
        return None


def _token(value: str | float) -> str:
    """What a JSON parser calls a value."""
    if isinstance(value, bool):
        return f"VALUE_{str(value).upper()}"
    return {str: "VALUE_STRING", int: "VALUE_NUMBER_INT"}.get(type(value), "VALUE_NUMBER_FLOAT")


OBJECTS: Final = msgspec.json.decode(
    files(__package__).joinpath("salesforce_objects.json").read_bytes(), type=dict[str, SObject]
)
"""As the field reference has them. The `Industry` of an Account takes other values as well, unless an organisation
restricts it."""
CONTACT: Final = OBJECTS["Contact"]
