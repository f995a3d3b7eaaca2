"""A harmless look at a HubSpot account: a batch read of a key that nobody has, and the property that holds our key.

Sources: HubSpot's reference, Contacts batch read and Properties (`hasUniqueValue`).
"""

from __future__ import annotations

from urllib.parse import quote

from app.destinations.testing.rules import Step
from jobs.crm.answers import Judge
from jobs.crm.checking import NOBODY, refused, step
from jobs.crm.connection import Connection
from jobs.crm.hubspot.fields import read_request
from jobs.crm.port import Headers

PROPERTY = "/crm/v3/properties/contacts/"


async def check(connection: Connection, judge: Judge, id_property: str, read_path: str, headers: Headers) -> list[Step]:
    make = (
        f"Make a contact property {id_property!r} (single-line text, values must be unique), or name yours with "
        "the option id_property."
    )
    payload = read_request([NOBODY], [id_property], id_property)
    answer = await connection.call("POST", read_path, payload, headers)
    if not answer.well:
        return [refused("read", judge, answer)]
    read = step("read", True, "A read of a key that nobody has was answered as it should be.", answer)
    answer = await connection.call("GET", PROPERTY + quote(id_property, safe=""), None, headers)
    body = answer.json()
    ok: bool | None = False
    if answer.status == 404:
        words = f"There is no such contact property. {make}"
    elif answer.status in (401, 403, 407):
        ok = None
        words = "The token may not look at properties (scope crm.schemas.contacts.read); the read by it worked."
    elif not answer.well or not isinstance(body, dict):
        return [read, refused("id property", judge, answer)]
    elif body.get("hasUniqueValue") is not True:
        words = f"{id_property!r} may have a value twice. {make}"
    else:
        ok, words = True, f"{id_property!r} is there, and its values are unique."
    return [read, step("id property", ok, words, answer)]
