"""A record as HubSpot properties, and whether what was read back carries them.

Property values are strings on this wire; the empty string clears a property. An attribute goes under its own
name in lower case with each run of other characters as one `_` ("Subscription Date" → `subscription_date`).
HubSpot refuses a record with a property that it does not know, and names it.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.destinations.kinds import HubSpotOptions
from app.resources.declaration import Resource
from jobs.crm.mapping import FieldMap, differences, text
from jobs.crm.port import Difference, SentRecord

_OTHER: Final = re.compile(r"[^a-z0-9]+")


class Fields(FieldMap):
    """How one HubSpot account names things."""

    def __init__(self, options: HubSpotOptions, resource: Resource) -> None:
        super().__init__(
            options, resource, key=options.id_property, attributes=options.properties, name_of=property_name
        )
        self.object = resource.objects[options.KIND]
        """What HubSpot calls records of this type, in paths."""
        self.noun = resource.singular

    def properties(self, record: SentRecord) -> dict[str, str]:
        """What an upsert of the record sets."""
        return {
            name: value if type(value) is str else text(value)  # most are, and a call for each costs more
            for name, value in self.sources(record).items()
        }

    def compare(self, record: SentRecord, result: Mapping[str, Any]) -> list[Difference]:
        """Where the result of a read does not carry what a push of the record would set."""
        pairs = ((name, value, result.get(name)) for name, value in self.sources(record).items())
        return differences(pairs, self.folded)


def read_request(ids: Iterable[str], properties: list[str], id_property: str | None) -> dict[str, Any]:
    """A batch read by a property with unique values; `None`: by record id."""
    request = {
        "properties": properties,
        "propertiesWithHistory": [],  # required, says its OpenAPI document
        "inputs": [{"id": id_} for id_ in ids],
    }
    return request if id_property is None else request | {"idProperty": id_property}


@functools.lru_cache(4096)
def property_name(attribute: str) -> str:
    """HubSpot's internal names are lower-case ASCII; a name without any such character is its to refuse."""
    return _OTHER.sub("_", attribute.lower()).strip("_") or attribute
