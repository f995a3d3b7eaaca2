"""What HubSpot says of an account that lacks something, in the forms that were seen: no contact's fault."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Headers, Health
from tests.contract.conftest import contact, contacts
from tests.contract.scripted import Script
from tests.contract.test_hubspot import hubspot, result


def not_valid(name: str, error: str = "PROPERTY_DOESNT_EXIST", words: str = "") -> str:
    """HubSpot's message about a property: JSON in a string, with its quotes escaped once more on the wire."""
    words = words or f'Property "{name}" does not exist'
    detail = {"isValid": False, "message": words, "error": error, "name": name, "localizedErrorMessage": words}
    return f"Property values were not valid: {json.dumps([detail])}"


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "message",
    [
        "Unable to perform update/upsert by non-unique 0-1 property",
        'Property values were not valid: Property "tranche_id" does not exist',
        not_valid("tranche_id"),
        r'Property values were not valid: [{"isValid":false,"message":"Property \"tranche_id\" does not exist"}]',
    ],
)
async def test_a_missing_key_property_is_no_contacts_fault(
    session: aiohttp.ClientSession, script: Script, message: str, count: int
) -> None:
    """Failing every contact for a setting of the account would bury good data in dead letters."""
    script.status, script.body = 400, {"message": message, "category": "VALIDATION_ERROR"}
    reply = await hubspot(session, script.url).push(contacts(count), Headers("r", "event-1"))

    assert {o.state for o in reply.outcomes} == {EffectState.RETRY}
    assert reply.health == Health.SETUP_FAULT
    assert not reply.rejected_whole
    assert "--option id_property=" in reply.detail
    assert "isValid" not in reply.detail


@pytest.mark.parametrize(
    "body",
    [
        {"message": not_valid("subscription_date")},
        {"message": not_valid("subscription_date", "READ_ONLY_VALUE", '"subscription_date" is a read only property')},
        {
            "message": "Property values were not valid",
            "errors": [
                {
                    "message": "no such property",
                    "code": "PROPERTY_DOESNT_EXIST",
                    "context": {"propertyName": ["subscription_date"]},
                }
            ],
        },
        {"category": "PROPERTY_DOESNT_EXIST", "message": 'Property "subscription_date" does not exist'},
    ],
    ids=lambda body: str(body)[:60],
)
async def test_a_property_that_the_account_lacks_holds_it_with_words_and_remedy(
    session: aiohttp.ClientSession, script: Script, body: dict[str, Any]
) -> None:
    """Also where one contact alone names it: the next one that does would meet the same."""
    script.status, script.body = 400, {"status": "error", "category": "VALIDATION_ERROR"} | body
    batch = [contact("c0"), contact("c1", attributes={"Subscription Date": "2026-03-04"})]
    reply = await hubspot(session, script.url).push(batch, Headers("r", "event-1"))

    assert {(o.state, o.code) for o in reply.outcomes} == {(EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE)}
    assert reply.health == Health.SETUP_FAULT
    assert "HubSpot answered 400: " in reply.detail
    assert '--field "Subscription Date="' in reply.detail


async def test_a_property_that_single_items_lack_spares_the_others(
    session: aiohttp.ClientSession, script: Script
) -> None:
    refused = {
        "status": "error",
        "category": "VALIDATION_ERROR",
        "message": not_valid("plan"),
        "context": {"objectWriteTraceId": ["1"]},
    }
    script.status, script.body = 207, {"results": [result("c0", "0")], "errors": [refused]}
    reply = await hubspot(session, script.url).push(contacts(2), Headers("r", "event-1"))

    assert [o.state for o in reply.outcomes] == [EffectState.OK, EffectState.RETRY]
    assert reply.health == Health.SETUP_FAULT
    assert 'Property "plan" does not exist' in reply.detail


async def test_a_value_that_is_refused_is_the_contacts_own_fault(
    session: aiohttp.ClientSession, script: Script
) -> None:
    message = not_valid("hs_lead_status", "INVALID_OPTION", "x was not one of the allowed options")
    script.status, script.body = 400, {"status": "error", "category": "VALIDATION_ERROR", "message": message}
    reply = await hubspot(session, script.url).push([contact("c0")], Headers("r", "event-1"))

    assert (reply.outcomes[0].state, reply.health) == (EffectState.FAILED, Health.WELL)
    assert reply.outcomes[0].detail == (
        "HubSpot answered 400: Property values were not valid: x was not one of the allowed options"
    )


async def test_a_read_that_is_refused_holds_the_destination(session: aiohttp.ClientSession, script: Script) -> None:
    """Nothing of what was sent without an answer could ever be settled, and nobody would be told."""
    script.status, script.body = 400, {"status": "error", "category": "VALIDATION_ERROR", "message": "no"}
    back = await hubspot(session, script.url).read_back(contacts(2), Headers("r", "event-1"))

    assert (back.seen, back.health) == (None, Health.SETUP_FAULT)
    assert "HubSpot answered 400: no" in back.detail


async def test_a_read_has_every_field_that_hubspots_document_requires(
    session: aiohttp.ClientSession, script: Script
) -> None:
    script.body = {"results": []}
    await hubspot(session, script.url).read_back(contacts(1), Headers("r", "event-1"))

    [body] = script.bodies
    assert body["propertiesWithHistory"] == []
    assert body.keys() == {"idProperty", "inputs", "properties", "propertiesWithHistory"}
