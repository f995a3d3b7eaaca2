"""A stand-in for HubSpot's contacts: batch upsert, read and archive as HubSpot's reference describes them.

Any Bearer token but `bad-token` is accepted. E-mail addresses are kept trimmed and in lower case, as there.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from jobs.crm.sandbox.faults import Lock, RateLimit, Status, Unauthorized
from jobs.crm.sandbox.ledger import Effect, timestamp
from jobs.crm.sandbox.records import Record
from jobs.crm.sandbox.vendor import Answer, Refusal, Route, Vendor, Visit

MAX_INPUTS: Final = 100
NOT_UNIQUE: Final = frozenset({"firstname", "lastname", "phone", "company"})
POLICY_WORDS: Final = {
    "SECONDLY": "secondly",
    "TEN_SECONDLY_ROLLING": "ten_secondly_rolling",
    "DAILY": "daily",
}


MISSING_WORDS: Final = (
    "Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid."
)


class UpsertInput(msgspec.Struct, rename="camel", gc=False):
    id: str
    id_property: str
    properties: dict[str, str]
    object_write_trace_id: str | None = None


class Upsert(msgspec.Struct):
    inputs: list[UpsertInput]


class ReadInput(msgspec.Struct):
    id: str


class Read(msgspec.Struct, rename="camel"):
    inputs: list[ReadInput]
    properties: list[str]
    id_property: str | None = None


class Archive(msgspec.Struct):
    inputs: list[ReadInput]


class Result(
    msgspec.Struct, rename={"created_at": "createdAt", "updated_at": "updatedAt"}, omit_defaults=True
):
    id: str
    properties: dict[str, str | None]
    created_at: str
    updated_at: str
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    new: bool | msgspec.UnsetType = msgspec.UNSET
    objectWriteTraceId: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the wire's own name


class BadRequestError(Exception):
    """The whole batch is refused."""

    def __init__(self, message: str, **context: list[str]) -> None:
        super().__init__(message)
        self.context = context


B = TypeVar("B", Upsert, Read, Archive)
_upserts: Final = msgspec.json.Decoder(Upsert)
_archives: Final = msgspec.json.Decoder(Archive)
_reads: Final = msgspec.json.Decoder(Read)
_encode: Final = msgspec.json.Encoder().encode


class HubSpotSandbox:
    """`jobs.crm.sandbox.vendor.Vendor` for HubSpot."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable shuffle
        self.options: dict[str, Any] = {}
        self.locks_calls = True
        base = "/crm/v3/objects/contacts/batch"
        self.routes = [
            Route("POST", f"{base}/upsert", "write", self.upsert),
            Route("POST", f"{base}/read", "read", self.read),
            Route("POST", f"{base}/archive", "write", self.archive),
            Route("GET", "/crm/v3/properties/contacts/{name}", "read", self.property),
        ]

    def make_id(self, count: int) -> str:
        return str(100_001 + count)

    def authenticate(self, headers: Mapping[str, str]) -> Answer | None:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip() not in ("", "bad-token"):
            return None
        return self.refuse(Unauthorized())

    def refuse(self, fault: Refusal) -> Answer:
        if isinstance(fault, RateLimit):
            words = POLICY_WORDS[fault.policy_name]
            body = {
                "status": "error",
                "message": f"You have reached your {words} limit.",
                "errorType": "RATE_LIMIT",
                "correlationId": str(uuid.uuid4()),
                "policyName": fault.policy_name,
                "requestId": str(uuid.uuid4()),
            }
            return Answer(status=429, body=_encode(body), headers=_retry_after(fault.retry_after))
        if isinstance(fault, Lock):
            return _error(423, "LOCKED", "The resource is locked; try again later")
        if isinstance(fault, Status):
            headers = _retry_after(fault.retry_after)
            if fault.body == "html":
                page = f"<html><body><h1>{fault.code}</h1></body></html>".encode()
                return Answer(status=fault.code, body=page, headers=headers, content_type="text/html")
            answer = _error(fault.code, "INTERNAL_ERROR", "There was a problem with the request.")
            answer.headers = headers
            return answer
        if fault.code == 403:
            return _error(403, "MISSING_SCOPES", "This app hasn't been granted all required scopes.")
        return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found or invalid.")

    def not_found(self, path: str) -> Answer:
        return _error(404, "OBJECT_NOT_FOUND", f"No route {path}")

    def property(self, visit: Visit) -> Answer:
        """How the account has a property; of its own making it is one with unique values."""
        name = visit.path["name"]
        if visit.missing_field([name]) is not None:
            return _error(404, "OBJECT_NOT_FOUND", f'Property "{name}" does not exist')
        body = {"name": name, "type": "string", "fieldType": "text", "hasUniqueValue": name not in NOT_UNIQUE}
        return Answer(status=200, body=_encode(body | {"groupName": "contactinformation", "archived": False}))

    def upsert(self, visit: Visit) -> Answer:
        """Every input becomes a result or an error; only what HubSpot cannot parse fails the whole batch."""
        started = timestamp()
        try:
            inputs = _parse(_upserts, visit).inputs
            _check_upsert(inputs)
        except BadRequestError as error:
            return _error(400, "VALIDATION_ERROR", str(error), **error.context)
        whole = visit.rejected_whole((item.id, item.properties.get("email", "")) for item in inputs)
        if whole is not None:
            return _error(400, "VALIDATION_ERROR", whole.message)
        results: list[Result] = []
        errors: list[dict[str, Any]] = []
        effects: list[Effect] = []
        seq = visit.ledger.next_seq
        for item in inputs:
            wrong = _wrong(visit, item)
            if wrong is not None:
                errors.append(wrong)
                continue
            record, created, changed = visit.records.upsert(
                visit.portal, item.id_property, item.id, item.properties, started
            )
            effects.append(
                visit.effect(record, started, seq + len(effects), changed=changed, created=created)
            )
            if not visit.omitted(item.id, item.properties.get("email", "")):
                result = _result(record, {**item.properties, item.id_property: item.id})
                result.new = created
                result.objectWriteTraceId = item.object_write_trace_id or msgspec.UNSET
                results.append(result)
        visit.ledger.apply(effects)
        return self._answer(results, errors, started)

    def read(self, visit: Visit) -> Answer:
        """Found records are results; all others are one error that names their ids."""
        started = timestamp()
        try:
            body = _parse(_reads, visit)
        except BadRequestError as error:
            return _error(400, "VALIDATION_ERROR", str(error), **error.context)
        results: list[Result] = []
        missing: list[str] = []
        for item in body.inputs:
            record = visit.records.find(visit.portal, item.id, body.id_property)
            if record is None:
                missing.append(item.id)
            elif not visit.omitted(item.id, record.properties.get("email", "")):
                results.append(
                    _result(record, {name: record.properties.get(name) for name in body.properties})
                )
        errors: list[dict[str, Any]] = []
        if missing:
            errors.append(_item_error("OBJECT_NOT_FOUND", MISSING_WORDS, {"ids": missing}))
        return self._answer(results, errors, started)

    def archive(self, visit: Visit) -> Answer:
        """By record id; those that are not there are passed over. No word about single records."""
        try:
            inputs = _parse(_archives, visit).inputs
        except BadRequestError as error:
            return _error(400, "VALIDATION_ERROR", str(error), **error.context)
        gone = [visit.records.delete(visit.portal, item.id) for item in inputs]
        at, seq = timestamp(), visit.ledger.next_seq
        there = [record for record in gone if record is not None]
        visit.ledger.apply(
            [visit.effect(record, at, seq + n, changed=True, deleted=True) for n, record in enumerate(there)]
        )
        return Answer(status=204, body=b"")

    def _answer(self, results: list[Result], errors: list[dict[str, Any]], started: str) -> Answer:
        asked = [result.id for result in results]
        self._random.shuffle(results)
        if len(results) > 1 and [result.id for result in results] == asked:
            results.append(results.pop(0))
        body: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": started,
            "completedAt": timestamp(),
        }
        if errors:
            body |= {"numErrors": len(errors), "errors": errors}
        return Answer(status=207 if errors else 200, body=_encode(body))


def _parse(decoder: msgspec.json.Decoder[B], visit: Visit) -> B:
    try:
        body = decoder.decode(visit.body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"Invalid input JSON: {error}") from error
    visit.call.n = len(body.inputs)
    if not body.inputs:
        raise BadRequestError("inputs must not be empty")
    if len(body.inputs) > MAX_INPUTS:
        raise BadRequestError(
            f"The number of inputs is {len(body.inputs)}, more than the limit of {MAX_INPUTS}"
        )
    counted = Counter(item.id for item in body.inputs)
    if len(counted) < len(body.inputs):
        ids = [key for key, times in counted.items() if times > 1]
        raise BadRequestError(
            f"Duplicate IDs found in batch input: [{', '.join(ids)}]. IDs must be unique", ids=ids
        )
    return body


def _check_upsert(inputs: list[UpsertInput]) -> None:
    for item in inputs:
        if not item.id or not item.id_property:
            raise BadRequestError("id and idProperty must not be empty")
        if item.id_property in NOT_UNIQUE:
            raise BadRequestError(
                f"Unable to perform update/upsert by non-unique 0-1 property {item.id_property}"
            )
        email = item.properties.get("email")
        if email is not None:
            item.properties["email"] = email.strip().lower()


def _wrong(visit: Visit, item: UpsertInput) -> dict[str, Any] | None:
    email = item.properties.get("email", "")
    context = {"objectWriteTraceId": [item.object_write_trace_id]} if item.object_write_trace_id else None
    reject = visit.rejected(item.id, email)
    if reject is not None:
        category = "INTERNAL_ERROR" if reject.passing else reject.category
        return _item_error(category, reject.message, context)
    missing = visit.missing_field(item.properties)
    if missing is not None:
        words = f'Property values were not valid: Property "{missing}" does not exist'
        return _item_error("VALIDATION_ERROR", words, context)
    name, _, domain = email.partition("@")
    if email and not (name and domain):
        return _item_error("VALIDATION_ERROR", f"Email address {email} is invalid", context)
    return None


def _result(record: Record, properties: Mapping[str, str | None]) -> Result:
    return Result(
        id=record.id,
        properties={
            **properties,
            "createdate": record.created_at,
            "hs_object_id": record.id,
            "lastmodifieddate": record.updated_at,
        },
        created_at=record.created_at,
        updated_at=record.updated_at,
        archived=False,
    )


def _item_error(category: str, message: str, context: dict[str, list[str]] | None) -> dict[str, Any]:
    error: dict[str, Any] = {"status": "error", "category": category, "message": message}
    if context is not None:
        error["context"] = context
    return error


def _error(status: int, category: str, message: str, **context: list[str]) -> Answer:
    body = _item_error(category, message, context or None) | {"correlationId": str(uuid.uuid4())}
    return Answer(status=status, body=_encode(body))


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": f"{seconds:g}"}


Sandbox: Final[Callable[[], Vendor]] = HubSpotSandbox
