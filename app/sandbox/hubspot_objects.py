"""The objects of HubSpot that the stand-in knows: their properties, and which values these take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
"""No exponent: Atlas-Authority/marketing-automation 206 shows one refused."""


class HubSpotObject(msgspec.Struct, frozen=True, kw_only=True):
    """What HubSpot's reference says about one object."""

    type_id: str
    word: str
    """As `type_id`, in the words of refusals."""
    group: str
    """Of its properties."""
    own: frozenset[str]
    """Properties that every account has; there are some more."""
    modified: str
    """The property with the time of the last change."""
    emails: bool = False
    """Whether `email` must be an address, and one record's alone."""
    numbers: frozenset[str] = frozenset()
    options: Mapping[str, tuple[str, ...]] = {}
    """The values of a property that takes no others."""

    @property
    def unique(self) -> frozenset[str]:
        """The vendor's own properties with unique values."""
        return frozenset({"hs_object_id", "email"} if self.emails else {"hs_object_id"})

    @property
    def read_only(self) -> frozenset[str]:
        return frozenset({"hs_object_id", "createdate", self.modified})

    def described(self, name: str) -> dict[str, Any]:
        """The type of a property as `GET /crm/v3/properties` has it. The labels of options are made up."""
        if name in self.numbers:
            return {"type": "number", "fieldType": "number"}
        if name in self.options:
            options = [{"label": value.replace("_", " ").title(), "value": value} for value in self.options[name]]
            return {"type": "enumeration", "fieldType": "select", "options": options}
        return {"type": "string", "fieldType": "text"}

    def wrong_values(self, properties: Mapping[str, str]) -> list[dict[str, Any]]:
        """What HubSpot says about values that their property does not take, a detail each; empty ones clear.

        The words are those of Atlas-Authority/marketing-automation 206, gregorspan/csc-frodx 21 and HubSpot's change
        log of April 2025 (white space).
        """
        wrong = []
        for name, value in properties.items():
            if not value or (name not in self.numbers and name not in self.options):
                continue
            if value != value.strip():
                wrong.append(
                    (name, f'"{value}" includes leading or trailing whitespace.', "LEADING_TRAILING_WHITESPACE")
                )
            elif name in self.numbers and _NUMBER.fullmatch(value) is None:
                wrong.append((name, f"{value} was not a valid number.", "INVALID_INTEGER"))
            elif name in self.options and value not in self.options[name]:
                allowed = ", ".join(self.options[name])
                wrong.append((name, f"{value} was not one of the allowed options: [{allowed}]", "INVALID_OPTION"))
        return [detail(*each) | {"propertyValue": properties[each[0]]} for each in wrong]


def detail(name: str, words: str, code: str) -> dict[str, Any]:
    """One thing that speaks against a property, as HubSpot puts it into its message."""
    return {"isValid": False, "message": words, "error": code, "name": name, "localizedErrorMessage": words}


OBJECTS: Final = msgspec.json.decode(
    files(__package__).joinpath("hubspot_objects.json").read_bytes(), type=dict[str, HubSpotObject]
)
"""`domain` has no unique values: companies are not deduplicated by it through the API (HGData/mk-node-hubspot 194), and
nothing is upserted by it. Of the properties with options `industry` alone is checked."""
