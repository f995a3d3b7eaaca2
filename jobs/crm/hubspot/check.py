"""A harmless look at a HubSpot account: a batch read of a key that nobody has, and the property that holds our key.

Sources: HubSpot's reference, Contacts batch read and Properties (`hasUniqueValue`).
"""

from urllib.parse import quote

from app.destinations.testing.rules import Step
from jobs.crm.answers import NOBODY, Judge, refused, step
from jobs.crm.exchange import Connection
from jobs.crm.hubspot.fields import Fields, read_request
from jobs.crm.port import Headers


async def check(connection: Connection, judge: Judge, fields: Fields, headers: Headers) -> list[Step]:
    id_property = fields.key
    make = (
        f"Make a {fields.noun} property {id_property!r} (single-line text, values must be unique), or name yours with "
        "the option id_property."
    )
    payload = read_request([NOBODY], [id_property], id_property)
    answer = await connection.call("POST", f"/crm/v3/objects/{fields.object}/batch/read", payload, headers)
    if not answer.well:
        return [refused("read", judge, answer)]
    read = step("read", True, "A read of a key that nobody has was answered as it should be.", answer)
    answer = await connection.call(
        "GET", f"/crm/v3/properties/{fields.object}/{quote(id_property, safe='')}", None, headers
    )
    body = answer.json()
    ok: bool | None = False
    if answer.status == 404:
        words = f"There is no such {fields.noun} property. {make}"
    elif answer.status in (401, 403, 407):
        ok = None
        words = f"The token may not look at properties (scope crm.schemas.{fields.object}.read); the read by it worked."
    elif not answer.well or not isinstance(body, dict):
        return [read, refused("id property", judge, answer)]
    elif body.get("hasUniqueValue") is not True:
        words = f"{id_property!r} may have a value twice. {make}"
    else:
        ok, words = True, f"{id_property!r} is there, and its values are unique."
    return [read, step("id property", ok, words, answer)]
