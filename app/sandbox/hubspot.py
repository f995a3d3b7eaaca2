"""A stand-in for HubSpot's contacts and companies: batch create, upsert, update, read and archive, and search by values
of one property, as its reference has them.

Any Bearer token but `bad-token` is accepted. A property that the object does not have refuses the whole call, in the
JSON that HubSpot puts into its message; a property of the account's own making has unique values here. E-mail addresses
of contacts are kept trimmed and in lower case, and are unique, as there: `Contact already exists. Existing ID: N`.
Companies have none, and nothing of HubSpot's own that is unique: they are upserted by a property of the account's own
making. A number or an industry that is none is an error of its input, and without a trace id of the whole call.
"""

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.sandbox import hubspot_wire as wire
from app.sandbox.faults import Lock, RateLimit, Status, Unauthorized
from app.sandbox.ledger import timestamp
from app.sandbox.records import Record
from app.sandbox.vendor import Answer, Refusal, Route, Vendor, Visit


class Sandbox(Vendor):
    key_field = "tranche_id"
    token_path = "/oauth/v1/token"  # noqa: S105 - an address

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable shuffle
        self._keys = {name: {"tranche_id"} for name in wire.OBJECTS}
        """By object, the properties of the account's own making that records were found by."""
        known = f"{{object:{'|'.join(wire.OBJECTS)}}}"
        base = f"/crm/v3/objects/{known}/batch"
        self.routes = [
            Route("POST", f"{base}/upsert", "write", self.upsert),
            Route("POST", f"{base}/create", "write", self.create),
            Route("POST", f"{base}/update", "write", self.update),
            Route("POST", f"{base}/read", "read", self.read),
            Route("POST", f"{base}/archive", "write", self.archive),
            Route("POST", f"/crm/v3/objects/{known}/search", "read", self.search),
            Route("GET", f"/crm/v3/objects/{known}", "read", self.list_page),
            Route("GET", f"/crm/v3/properties/{known}/{{name}}", "read", self.property),
        ]

    def own_fields(self, of: str) -> frozenset[str]:
        return wire.OBJECTS[of].own if of in wire.OBJECTS else frozenset()

    def make_id(self, count: int, of: str) -> str:
        """Two objects may have the same id, as in HubSpot."""
        return str(100_001 + count)

    def refusal(self, fault: Refusal) -> Answer:
        match fault:
            case RateLimit():
                words = f"You have reached your {fault.policy_name.lower()} limit."
                ids = {"correlationId": str(uuid.uuid4()), "requestId": str(uuid.uuid4())}
                body = {"status": "error", "message": words, "errorType": "RATE_LIMIT", "policyName": fault.policy_name}
                return Answer(status=429, body=wire.encode(body | ids))
            case Lock():
                return wire.refusal(423, "LOCKED", "The resource is locked; try again later")
            case Status():
                return wire.refusal(fault.code, "INTERNAL_ERROR", "There was a problem with the request.")
            case Unauthorized(code=403):
                return wire.refusal(403, "MISSING_SCOPES", "This app hasn't been granted all required scopes.")
        words = "Authentication credentials not found or invalid."
        return wire.refusal(401, "INVALID_AUTHENTICATION", words)

    def not_found(self, path: str) -> Answer:
        return wire.refusal(404, "OBJECT_NOT_FOUND", f"No route {path}")

    def property(self, visit: Visit) -> Answer:
        """How the account has a property; of its own making it is one with unique values."""
        name = visit.path["name"]
        if visit.missing_fields([name]):
            return wire.refusal(404, "OBJECT_NOT_FOUND", f'Property "{name}" does not exist')
        of = wire.of(visit)
        unique = name in of.unique or visit.schema.is_declared(name, visit.object)
        body = {"name": name, **of.described(name), "hasUniqueValue": unique, "groupName": of.group, "archived": False}
        return Answer(status=200, body=wire.encode(body))

    def upsert(self, visit: Visit) -> Answer:
        """Every input becomes a result or an error; what HubSpot cannot parse, or has no property for, fails the whole
        batch."""
        inputs = wire.parse(wire.Inputs[wire.UpsertInput], visit).inputs
        if not all(item.id and item.id_property for item in inputs):
            raise wire.bad_request("id and idProperty must not be empty")
        names = {item.id_property for item in inputs}
        wire.check_key(visit, names)
        of = wire.of(visit)
        self._keys[visit.object] |= names - of.unique
        for item in inputs:
            if of.emails and item.id_property == "email":
                item.id = item.properties["email"] = item.id.strip().lower()
        wire.check_inputs(visit, inputs)

        def write(item: wire.UpsertInput) -> tuple[Record, bool, bool]:
            known = visit.records.find(visit.portal, item.id, item.id_property)
            if known is not None and item.id_property in of.unique:
                return known, False, self._update(visit, known, item)
            return visit.records.upsert(visit.portal, item.id_property, item.id, item.properties, visit.at)

        return self._write(visit, inputs, write)

    def create(self, visit: Visit) -> Answer:
        """New records; all or, where one is refused, none of those without a trace id."""
        inputs = wire.parse(wire.Inputs[wire.CreateInput], visit).inputs
        wire.check_inputs(visit, inputs)

        def write(item: wire.CreateInput) -> tuple[Record, bool, bool]:
            key = self._key_of(visit, item.properties) or ("email" if wire.of(visit).emails else "hs_object_id")
            return visit.records.create(visit.portal, key, item.properties, visit.at), True, True

        answer = self._write(visit, inputs, write)
        answer.status = 201 if answer.status == 200 else answer.status
        return answer

    def update(self, visit: Visit) -> Answer:
        """Records by their id, or by a unique property; one that is not there is an error of its own."""
        inputs = wire.parse(wire.Inputs[wire.UpdateInput], visit).inputs
        wire.check_key(visit, {item.id_property for item in inputs if item.id_property is not None})
        wire.check_inputs(visit, inputs)

        def write(item: wire.UpdateInput) -> tuple[Record, bool, bool]:
            record = visit.records.find(visit.portal, item.id, item.id_property)
            assert record is not None, "checked by _wrong"
            return record, False, self._update(visit, record, item)

        return self._write(visit, inputs, write)

    def _update(self, visit: Visit, record: Record, item: wire.Input) -> bool:
        return visit.records.update(record, item.properties, visit.at, self._key_of(visit, item.properties))

    def _write(
        self, visit: Visit, inputs: Sequence[wire.InputT], write: Callable[[wire.InputT], tuple[Record, bool, bool]]
    ) -> Answer:
        """Do what nothing speaks against. The results of an upsert alone say what is new, and have the key."""
        whole = visit.rejected_whole((wire.id_of(item), item.properties.get("email", "")) for item in inputs)
        if whole is not None:
            return wire.refusal(400, "VALIDATION_ERROR", whole.message)
        results: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for item in inputs:
            wrong = self._wrong(visit, item)
            if wrong is not None:
                errors.append(wrong)
                continue
            record, is_new, changed = write(item)
            visit.book(record, changed=changed, created=is_new)
            if not visit.omitted(record.key, record.properties.get("email", "")):
                result = wire.result_of(record, item.properties)
                if isinstance(item, wire.UpsertInput):
                    result["new"] = is_new
                    result["properties"][item.id_property] = item.id
                if item.object_write_trace_id:
                    result["objectWriteTraceId"] = item.object_write_trace_id
                results.append(result)
        return self._answer(visit, results, errors)

    def read(self, visit: Visit) -> Answer:
        """Found records are results; all others are one error that names their ids."""
        body = wire.parse(wire.Read, visit)
        if body.id_property is not None:
            wire.check_key(visit, {body.id_property})
        results: list[dict[str, Any]] = []
        missing: list[str] = []
        for item in body.inputs:
            by_email = body.id_property == "email" and wire.of(visit).emails
            key = item.id.strip().lower() if by_email else item.id
            record = visit.records.find(visit.portal, key, body.id_property)
            if record is None:
                missing.append(item.id)
            elif not visit.omitted(item.id, record.properties.get("email", "")):
                results.append(wire.result_of(record, {name: record.properties.get(name) for name in body.properties}))
        return self._answer(visit, results, [wire.missing(visit, missing, {})] if missing else [])

    def search(self, visit: Visit) -> Answer:
        """Records with one of these values of a property, a page of them; values in capitals find nothing."""
        body, wanted = wire.parse_search(visit)
        visit.call.n = len(wanted.values)
        values = {value for value in wanted.values if value == value.lower()}
        found = visit.records.find_all(visit.portal, wanted.property_name, values)
        start = int(body.after or 0)
        page = [r for r in found[start : start + body.limit] if not visit.omitted(r.key, r.properties.get("email", ""))]
        results = [wire.result_of(r, {name: r.properties.get(name) for name in body.properties}) for r in page]
        answer: dict[str, Any] = {"total": len(found), "results": results}
        if len(found) > start + body.limit:
            answer["paging"] = {"next": {"after": str(start + body.limit)}}
        return Answer(status=200, body=wire.encode(answer))

    def list_page(self, visit: Visit) -> Answer:
        """All records in the order of their ids, a page after the last one of the page before."""
        limit, after = visit.query.get("limit", "10"), visit.query.get("after", "0")
        if not limit.isdecimal() or not 1 <= int(limit) <= wire.MAX_INPUTS or not after.isdecimal():
            raise wire.bad_request(f"limit must be 1 to {wire.MAX_INPUTS}, and after what paging.next says")
        names = [name for name in visit.query.get("properties", "").split(",") if name]
        further = visit.records.after(visit.portal, after, int(limit) + 1)
        page = further[: int(limit)]
        visit.call.n = len(page)
        shown = [r for r in page if not visit.omitted(r.key, r.properties.get("email", ""))]
        results = [wire.result_of(r, {name: r.properties.get(name) for name in names}) for r in shown]
        answer: dict[str, Any] = {"results": results}
        if len(further) > len(page):
            answer["paging"] = {"next": {"after": page[-1].id}}
        return Answer(status=200, body=wire.encode(answer))

    def archive(self, visit: Visit) -> Answer:
        """By record id; those that are not there are passed over. No word about single records."""
        for item in wire.parse(wire.Inputs[wire.Id], visit).inputs:
            record = visit.records.delete(visit.portal, item.id)
            if record is not None:
                visit.book(record, deleted=True)
        return Answer(status=204, body=b"")

    def _wrong(self, visit: Visit, item: wire.Input) -> dict[str, Any] | None:
        email = item.properties.get("email", "")
        context = {"objectWriteTraceId": [item.object_write_trace_id]} if item.object_write_trace_id else None
        reject = visit.rejected(wire.id_of(item), email)
        if reject is not None:
            category = "INTERNAL_ERROR" if reject.passing else reject.category
            return wire.item_error(category, reject.message, context)
        if wire.of(visit).emails and email and not all(email.partition("@")[::2]):
            return wire.item_error("VALIDATION_ERROR", f"Email address {email} is invalid", context)
        values = wire.of(visit).wrong_values(item.properties)
        if values:
            return wire.item_error("VALIDATION_ERROR", wire.not_valid(values), context)
        if isinstance(item, wire.UpdateInput):
            mine = visit.records.find(visit.portal, item.id, item.id_property)
            if mine is None:
                return wire.missing(visit, [item.id], context or {})
            for key in self._keys[visit.object] & item.properties.keys():
                other = visit.records.find(visit.portal, item.properties[key], key)
                if other is not None and other is not mine:
                    return wire.item_error("VALIDATION_ERROR", wire.taken(key, item.properties[key], other.id), context)
        words = wire.conflict(visit, item)
        return None if words is None else wire.item_error("CONFLICT", words, context)

    def _key_of(self, visit: Visit, properties: Mapping[str, str]) -> str | None:
        """The property among these that the record is to be found by."""
        return next((name for name in sorted(self._keys[visit.object]) if properties.get(name)), None)

    def _answer(self, visit: Visit, results: list[dict[str, Any]], errors: list[dict[str, Any]]) -> Answer:
        asked = [result["id"] for result in results]
        self._random.shuffle(results)
        if len(results) > 1 and [result["id"] for result in results] == asked:
            results.append(results.pop(0))
        times = {"startedAt": visit.at, "completedAt": timestamp()}
        body: dict[str, Any] = {"status": "COMPLETE", "results": results, **times}
        if errors:
            # As its OpenAPI document has a StandardError: all of these are required.
            errors = [{"context": {}, "links": {}, "errors": []} | error for error in errors]
            body |= {"numErrors": len(errors), "errors": errors}
        return Answer(status=207 if errors else 200, body=wire.encode(body))
