"""A stand-in for HubSpot's contacts: batch create, upsert, update, read and archive as HubSpot's reference has them.

Any Bearer token but `bad-token` is accepted. E-mail addresses are kept trimmed and in lower case, and are unique, as
there: `Contact already exists. Existing ID: N`. A property that the account does not have refuses the whole call, in
the JSON that HubSpot puts into its message. A contact property of the account's own making has unique values here.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.sandbox.faults import Lock, RateLimit, Status, Unauthorized
from app.sandbox.hubspot_wire import (
    ARCHIVES,
    CREATES,
    MISSING_WORDS,
    OWN,
    READS,
    UNIQUE,
    UPDATES,
    UPSERTS,
    BadRequestError,
    ConflictError,
    CreateInput,
    Input,
    InputT,
    Result,
    UpdateInput,
    UpsertInput,
    check_key,
    check_properties,
    conflict,
    encode,
    id_of,
    item_error,
    normalize,
    parse,
    refusal,
    result_of,
    taken,
)
from app.sandbox.ledger import Effect, timestamp
from app.sandbox.records import Record
from app.sandbox.vendor import BAD_TOKENS, Answer, Refusal, Route, Vendor, Visit, bearer

POLICY_WORDS: Final = {
    "SECONDLY": "secondly",
    "TEN_SECONDLY_ROLLING": "ten_secondly_rolling",
    "DAILY": "daily",
}


class HubSpotSandbox:
    """`app.sandbox.vendor.Vendor` for HubSpot."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable shuffle
        self.options: dict[str, Any] = {}
        self.locks_calls = True
        self.own_fields = OWN
        self.key_field: str | None = "tranche_id"
        self._keys = {"tranche_id"}
        """Properties of the account's own making that contacts were found by."""
        base = "/crm/v3/objects/contacts/batch"
        self.routes = [
            Route("POST", f"{base}/upsert", "write", self.upsert),
            Route("POST", f"{base}/create", "write", self.create),
            Route("POST", f"{base}/update", "write", self.update),
            Route("POST", f"{base}/read", "read", self.read),
            Route("POST", f"{base}/archive", "write", self.archive),
            Route("GET", "/crm/v3/properties/contacts/{name}", "read", self.property),
        ]

    def make_id(self, count: int) -> str:
        return str(100_001 + count)

    def authenticate(self, headers: Mapping[str, str]) -> Answer | None:
        return self.refuse(Unauthorized()) if bearer(headers) in BAD_TOKENS else None

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
            return Answer(status=429, body=encode(body), headers=_retry_after(fault.retry_after))
        if isinstance(fault, Lock):
            return refusal(423, "LOCKED", "The resource is locked; try again later")
        if isinstance(fault, Status):
            headers = _retry_after(fault.retry_after)
            if fault.body == "html":
                page = f"<html><body><h1>{fault.code}</h1></body></html>".encode()
                return Answer(status=fault.code, body=page, headers=headers, content_type="text/html")
            answer = refusal(fault.code, "INTERNAL_ERROR", "There was a problem with the request.")
            answer.headers = headers
            return answer
        if fault.code == 403:
            return refusal(403, "MISSING_SCOPES", "This app hasn't been granted all required scopes.")
        return refusal(401, "INVALID_AUTHENTICATION", "Authentication credentials not found or invalid.")

    def not_found(self, path: str) -> Answer:
        return refusal(404, "OBJECT_NOT_FOUND", f"No route {path}")

    def property(self, visit: Visit) -> Answer:
        """How the account has a property; of its own making it is one with unique values."""
        name = visit.path["name"]
        if visit.missing_fields([name]):
            return refusal(404, "OBJECT_NOT_FOUND", f'Property "{name}" does not exist')
        unique = name in UNIQUE or visit.schema.is_declared(name)
        body = {"name": name, "type": "string", "fieldType": "text", "hasUniqueValue": unique}
        return Answer(status=200, body=encode(body | {"groupName": "contactinformation", "archived": False}))

    def upsert(self, visit: Visit) -> Answer:
        """Every input becomes a result or an error; what HubSpot cannot parse, or has no property for, fails the whole
        batch."""
        try:
            inputs = parse(UPSERTS, visit).inputs
            for item in inputs:
                if not item.id or not item.id_property:
                    raise BadRequestError("id and idProperty must not be empty")
            names = {item.id_property for item in inputs}
            check_key(visit, names)
            self._keys |= names - UNIQUE
            for item in inputs:
                normalize(item.properties)
                if item.id_property == "email":
                    item.id = item.id.strip().lower()
                    item.properties["email"] = item.id
            check_properties(visit, (item.properties for item in inputs))
            self._check_untraced(visit, inputs)
        except BadRequestError as error:
            return error.answer

        def write(item: UpsertInput, at: str) -> tuple[Record, bool, bool]:
            known = visit.records.find(visit.portal, item.id, item.id_property)
            if known is not None and item.id_property in UNIQUE:
                return (
                    known,
                    False,
                    visit.records.update(known, item.properties, at, self._key_of(item.properties)),
                )
            return visit.records.upsert(visit.portal, item.id_property, item.id, item.properties, at)

        def name(item: UpsertInput) -> dict[str, str]:
            return {item.id_property: item.id}

        return self._write(visit, inputs, write, name)

    def create(self, visit: Visit) -> Answer:
        """New contacts; all or, where one is refused, none of those without a trace id."""
        try:
            inputs = parse(CREATES, visit).inputs
            for item in inputs:
                normalize(item.properties)
            check_properties(visit, (item.properties for item in inputs))
            self._check_untraced(visit, inputs)
        except BadRequestError as error:
            return error.answer

        def write(item: CreateInput, at: str) -> tuple[Record, bool, bool]:
            key = self._key_of(item.properties) or "email"
            return visit.records.create(visit.portal, key, item.properties, at)

        answer = self._write(visit, inputs, write, lambda _: {}, created=None)
        answer.status = 201 if answer.status == 200 else answer.status
        return answer

    def update(self, visit: Visit) -> Answer:
        """Contacts by record id, or by a unique property; one that is not there is an error of its own."""
        try:
            inputs = parse(UPDATES, visit).inputs
            check_key(visit, {item.id_property for item in inputs if item.id_property is not None})
            for item in inputs:
                normalize(item.properties)
            check_properties(visit, (item.properties for item in inputs))
            self._check_untraced(visit, inputs)
        except BadRequestError as error:
            return error.answer

        def write(item: UpdateInput, at: str) -> tuple[Record, bool, bool]:
            record = visit.records.find(visit.portal, item.id, item.id_property)
            assert record is not None, "checked by _wrong"
            return (
                record,
                False,
                visit.records.update(record, item.properties, at, self._key_of(item.properties)),
            )

        return self._write(visit, inputs, write, lambda _: {}, created=None)

    def _write(
        self,
        visit: Visit,
        inputs: Sequence[InputT],
        write: Callable[[InputT, str], tuple[Record, bool, bool]],
        name: Callable[[InputT], dict[str, str]],
        created: bool | None = True,
    ) -> Answer:
        """Do what nothing speaks against; `created`: whether results say so."""
        started = timestamp()
        whole = visit.rejected_whole((id_of(item), item.properties.get("email", "")) for item in inputs)
        if whole is not None:
            return refusal(400, "VALIDATION_ERROR", whole.message)
        results: list[Result] = []
        errors: list[dict[str, Any]] = []
        effects: list[Effect] = []
        seq = visit.ledger.next_seq
        for item in inputs:
            wrong = self._wrong(visit, item)
            if wrong is not None:
                errors.append(wrong)
                continue
            record, is_new, changed = write(item, started)
            effects.append(visit.effect(record, started, seq + len(effects), changed=changed, created=is_new))
            if not visit.omitted(record.key, record.properties.get("email", "")):
                result = result_of(record, {**item.properties, **name(item)})
                result.new = is_new if created is not None else msgspec.UNSET
                result.objectWriteTraceId = item.object_write_trace_id or msgspec.UNSET
                results.append(result)
        visit.ledger.apply(effects)
        return self._answer(results, errors, started)

    def _check_untraced(self, visit: Visit, inputs: Sequence[Input]) -> None:
        """Without trace ids HubSpot has no errors of single inputs for what is not unique: the first refuses all."""
        for item in inputs:
            if item.object_write_trace_id is None:
                words = conflict(visit, item)
                if words is not None:
                    raise ConflictError(words)

    def read(self, visit: Visit) -> Answer:
        """Found records are results; all others are one error that names their ids."""
        started = timestamp()
        try:
            body = parse(READS, visit)
            if body.id_property is not None:
                check_key(visit, {body.id_property})
        except BadRequestError as error:
            return error.answer
        results: list[Result] = []
        missing: list[str] = []
        for item in body.inputs:
            key = item.id.strip().lower() if body.id_property == "email" else item.id
            record = visit.records.find(visit.portal, key, body.id_property)
            if record is None:
                missing.append(item.id)
            elif not visit.omitted(item.id, record.properties.get("email", "")):
                results.append(
                    result_of(record, {name: record.properties.get(name) for name in body.properties})
                )
        errors: list[dict[str, Any]] = []
        if missing:
            errors.append(item_error("OBJECT_NOT_FOUND", MISSING_WORDS, {"ids": missing}))
        return self._answer(results, errors, started)

    def archive(self, visit: Visit) -> Answer:
        """By record id; those that are not there are passed over. No word about single records."""
        try:
            inputs = parse(ARCHIVES, visit).inputs
        except BadRequestError as error:
            return error.answer
        gone = [visit.records.delete(visit.portal, item.id) for item in inputs]
        at, seq = timestamp(), visit.ledger.next_seq
        there = [record for record in gone if record is not None]
        visit.ledger.apply(
            [visit.effect(record, at, seq + n, changed=True, deleted=True) for n, record in enumerate(there)]
        )
        return Answer(status=204, body=b"")

    def _wrong(self, visit: Visit, item: Input) -> dict[str, Any] | None:
        email = item.properties.get("email", "")
        context = {"objectWriteTraceId": [item.object_write_trace_id]} if item.object_write_trace_id else None
        reject = visit.rejected(id_of(item), email)
        if reject is not None:
            category = "INTERNAL_ERROR" if reject.passing else reject.category
            return item_error(category, reject.message, context)
        name, _, domain = email.partition("@")
        if email and not (name and domain):
            return item_error("VALIDATION_ERROR", f"Email address {email} is invalid", context)
        if isinstance(item, UpdateInput):
            mine = visit.records.find(visit.portal, item.id, item.id_property)
            if mine is None:
                return item_error("OBJECT_NOT_FOUND", MISSING_WORDS, {"ids": [item.id], **(context or {})})
            for key in self._keys & item.properties.keys():
                other = visit.records.find(visit.portal, item.properties[key], key)
                if other is not None and other is not mine:
                    return item_error("VALIDATION_ERROR", taken(key, item.properties[key], other.id), context)
        words = conflict(visit, item)
        return None if words is None else item_error("CONFLICT", words, context)

    def _key_of(self, properties: Mapping[str, str]) -> str | None:
        """The property among these that the contact is to be found by."""
        return next((name for name in sorted(self._keys) if properties.get(name)), None)

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
            # As its OpenAPI document has a StandardError: all of these are required.
            errors = [{"context": {}, "links": {}, "errors": []} | error for error in errors]
            body |= {"numErrors": len(errors), "errors": errors}
        return Answer(status=207 if errors else 200, body=encode(body))


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": f"{seconds:g}"}


Sandbox: Final[Callable[[], Vendor]] = HubSpotSandbox
