"""A harmless look at a Salesforce organisation: what the object is made of, and a query for a key that nobody has.

Source: REST API Developer Guide, sObject Describe; Object Reference, DescribeSObjectResult (`externalId`, `unique`,
`caseSensitive`).
"""

from typing import Any

from app.destinations.testing.rules import Step
from jobs.crm.answers import Judge, objects, refused, step
from jobs.crm.exchange import Answer, Connection, NoAnswer
from jobs.crm.port import Headers
from jobs.crm.salesforce.fields import Fields


async def check(
    connection: Connection, judge: Judge, fields: Fields, base: str, query: str, headers: Headers
) -> list[Step]:
    """`query` is the path of a query by our key."""
    answer = await connection.call("GET", f"{base}/sobjects/{fields.object}/describe", None, headers)
    if not answer.well:
        return [refused("describe", judge, answer)]
    there = _fields(answer)
    if not there:
        return [step("describe", False, f"The description of {fields.object} lists no fields.", answer)]
    steps = [_key(fields, there, answer), *_mapped(fields, there, answer)]
    answer = await connection.call("GET", query, None, headers)
    if answer.well:
        words = "A query for a key that nobody has was answered as it should be."
        return [*steps, step("read", True, words, answer)]
    return [*steps, refused("read", judge, answer)]


def _fields(answer: Answer | NoAnswer) -> dict[str, dict[str, Any]]:
    body = answer.json()
    listed = objects(body.get("fields")) if isinstance(body, dict) else ()
    return {str(field.get("name")).casefold(): field for field in listed}


def _key(fields: Fields, there: dict[str, dict[str, Any]], answer: Answer | NoAnswer) -> Step:
    name = fields.key
    make = "It must be text of 255 characters, External ID, Unique and case-sensitive."
    field = there.get(name.casefold())
    if field is None:
        words = f"{fields.object} has no field {name}, or the user may not see it. {make}"
        return step("external id", False, words, answer)
    wanted = {"externalId": "an external id", "unique": "unique", "caseSensitive": "case-sensitive"}
    lacking = [words for flag, words in wanted.items() if field.get(flag) is not True]
    if lacking:
        return step("external id", False, f"{name} is not {' and not '.join(lacking)}. {make}", answer)
    words = f"{name} is there: an external id, unique and case-sensitive."
    return step("external id", True, words, answer)


def _mapped(fields: Fields, there: dict[str, dict[str, Any]], answer: Answer | NoAnswer) -> list[Step]:
    """Fields that standard fields and `fields` go to."""
    missing = sorted({name for name in fields.mapped if name.casefold() not in there})
    if not missing:
        return [step("fields", True, f"{fields.object} has every field that is mapped.", answer)]
    words = (
        f"{fields.object} has no field {', '.join(missing)}, or the user may not see it. Make it, name another "
        "(--field OURS=THEIRS), or exclude ours (--field OURS=)."
    )
    return [step("fields", False, words, answer)]
