"""A stand-in for Salesforce's Contact and Account: sObject Collections, and SOQL by one field, alone or within a
composite call, as its REST API guide describes them.

Any Bearer token but `bad-token` is accepted. LastName and Name are required, and an e-mail address must look like one.
One column that the object does not have refuses the request: custom fields (`…__c`) exist when they are declared. So
does text in a number of an Account; what is too long or too large for its column is an error of its record. Every
answer counts against the day's calls.
"""

import csv
import itertools
import re
import time
from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from app.sandbox import salesforce_bulk as bulk
from app.sandbox.faults import Lock, RateLimit, Status, Unauthorized
from app.sandbox.records import Record
from app.sandbox.salesforce_bulk import Job, Jobs
from app.sandbox.salesforce_objects import CONTACT, DESCRIBED, KEY, NUMBERS, OBJECTS, Column, SObject
from app.sandbox.vendor import ANY, Answer, Refusal, RefusedError, Route, Vendor, Visit

MAX_RECORDS: Final = 200
MAX_KEY: Final = 255
MAX_QUERIES: Final = 5
"""Of one composite call."""
MAX_URI: Final = 16_384
MAX_SOQL: Final = 100_000
MAX_ROWS: Final = 2_000
"""Of one page of a query."""
MAX_CHUNKS: Final = 10
"""Of records of one object in a row, in one request."""
DAILY_CALLS: Final = 1_000_000

_QUERY: Final = re.compile(r"SELECT ([\w,]+) FROM (Contact|Account) WHERE (\w+) IN \((.*)\)", re.DOTALL | re.ASCII)
_LISTED: Final = re.compile(
    r"SELECT ([\w,]+) FROM (Contact|Account) WHERE (\w+) != null(?: AND Id > '(\w+)')? ORDER BY Id ASC LIMIT (\d{1,4})",
    re.ASCII,
)
_LITERAL: Final = re.compile(r"'((?:[^'\\]|\\.)*)'(?:,|$)", re.DOTALL)
_ALLOWS: Final = re.compile(r"\ballowSave=true\b", re.IGNORECASE)
_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
_QUERIED: Final = re.compile(r"/services/data/v[0-9]+[.]0/query/?[?]q=(.*)")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


class Collection(msgspec.Struct, rename="camel"):
    records: list[dict[str, Any]]
    all_or_none: bool = False


class SubRequest(msgspec.Struct, rename="camel"):
    method: str
    url: str
    reference_id: str


class Composite(msgspec.Struct, rename="camel"):
    composite_request: list[SubRequest]
    all_or_none: bool = False


_composites: Final = msgspec.json.Decoder(Composite)
_collections: Final = msgspec.json.Decoder(Collection)
_encode: Final = msgspec.json.Encoder().encode


class Sandbox(Vendor):
    locks_calls = False
    default_object = CONTACT.name
    key_field = KEY
    token_path = "/services/oauth2/token"  # noqa: S105 - an address
    authorize_path = "/services/oauth2/authorize"
    says_instance = True

    def __init__(self) -> None:
        base = "/services/data/{version:v[0-9]+[.]0}"
        self.routes = [
            Route("PATCH", f"{base}/composite/sobjects/{{object}}/{{field}}", "write", self.upsert),
            Route("POST", f"{base}/composite/sobjects", "write", self.create),
            Route("PATCH", f"{base}/composite/sobjects", "write", self.update),
            Route("POST", f"{base}/composite", "read", self.composite),
            Route("DELETE", f"{base}/composite/sobjects", "write", self.delete),
            Route("POST", f"{base}/jobs/ingest", "read", self.create_job),
            Route("PUT", f"{base}/jobs/ingest/{{job}}/batches", "read", self.fill_job),
            Route("PATCH", f"{base}/jobs/ingest/{{job}}", "write", self.change_job),
            Route("GET", f"{base}/jobs/ingest/{{job}}", "read", self.show_job),
            Route("GET", f"{base}/jobs/ingest/{{job}}/{{which}}/", "read", self.show_results),
            Route("GET", f"{base}/query", "read", self.query),
            Route("GET", f"{base}/query/", "read", self.query),
            Route("GET", f"{base}/sobjects/{{object:{'|'.join(OBJECTS)}}}/describe", "read", self.describe),
        ]
        self._calls = itertools.count(1)
        self.jobs = Jobs()
        self._keyed: set[tuple[str, str, str]] = set()
        """(account, object, field) of all upserts: with `KEY`, the fields whose values are unique."""

    def own_fields(self, of: str) -> AbstractSet[str]:
        return OBJECTS[of].columns.keys() if of in OBJECTS else frozenset()

    def make_id(self, count: int, of: str) -> str:
        return f"{OBJECTS[of].prefix}{count + 1:012d}AAA"

    def refusal(self, fault: Refusal) -> Answer:
        match fault:
            case RateLimit(policy_name="DAILY"):
                answer = self._error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
                answer.headers["Sforce-Limit-Info"] = f"api-usage={DAILY_CALLS}/{DAILY_CALLS}"
                return answer
            case RateLimit():
                words = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
                return self._error(403, "REQUEST_LIMIT_EXCEEDED", words)
            case Status():
                code = "SERVER_UNAVAILABLE" if fault.code == 503 else "UNKNOWN_EXCEPTION"
                return self._error(fault.code, code, "An unexpected error occurred.")
            case Lock():
                return self._error(503, "SERVER_UNAVAILABLE", "The server is busy.")
            case Unauthorized(code=403):
                return self._error(403, "API_DISABLED_FOR_ORG", "API is not enabled for this organization.")
        return self._error(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def not_found(self, path: str) -> Answer:
        return self._error(404, "NOT_FOUND", "The requested resource does not exist")

    def upsert(self, visit: Visit) -> Answer:
        """A result a record, in their order; what cannot be parsed refuses the request."""
        field = visit.path["field"]
        body, objects = self._parse(visit, field)
        self._keyed.add((visit.portal, visit.object, field))
        counted = Counter(record.get(field) for record in body.records)
        results: list[dict[str, Any]] = []
        wrongs = [self._wrong(visit, objects[0], field, r, counted[r.get(field)]) for r in body.records]
        if body.all_or_none and any(wrongs):
            return self._answer(200, [_failed(wrong or ROLLED_BACK) for wrong in wrongs])
        for values, wrong in zip(body.records, wrongs, strict=True):
            key, email = values.get(field), str(values.get("Email") or "")
            if wrong is not None:
                results.append(_failed(wrong))
                continue
            record, created, changed = visit.records.upsert(visit.portal, field, str(key), values, visit.at)
            visit.book(record, changed=changed, created=created)
            if not visit.omitted(str(key), email):
                results.append({"id": record.id, "success": True, "errors": [], "created": created})
        return self._answer(200, results)

    def create(self, visit: Visit) -> Answer:
        """A result a record, in their order; a record that has a value of another in a unique field is not made."""
        body, objects = self._parse(visit, None)
        results: list[dict[str, Any] | None] = []
        for of, values in zip(objects, body.records, strict=True):
            field, key = self._key_of(visit, of, values)
            wrong = self._uncreatable(visit, of, field, key, values)
            if wrong is not None:
                results.append(_failed(wrong))
                continue
            record = visit.objects.of(of.name).create(visit.portal, field, values, visit.at)
            visit.book(record, created=True)
            omitted = visit.omitted(key, str(values.get("Email") or ""))
            results.append(None if omitted else {"id": record.id, "success": True, "errors": []})
        if body.all_or_none and len(visit.effects) < len(body.records):
            for effect in visit.effects:
                visit.objects.of(effect.object).delete(visit.portal, effect.id)
            visit.effects.clear()
            undone = _failed(ROLLED_BACK)
            return self._answer(200, [undone if r is None or r["success"] else r for r in results])
        return self._answer(200, [r for r in results if r is not None])

    def update(self, visit: Visit) -> Answer:
        """Records by their Id; a result a record, in their order."""
        body, objects = self._parse(visit, None, by_id=True)
        results: list[dict[str, Any] | None] = []
        for of, values in zip(objects, body.records, strict=True):
            record_id = str(values.pop("Id", None) or values.pop("id", None) or "")
            records = visit.objects.of(of.name)
            record = records.find(visit.portal, record_id, None)
            wrong = self._unchangeable(visit, of, record_id, record, values)
            if wrong is not None or record is None:
                results.append(_failed(wrong or _item("ENTITY_IS_DELETED", "entity is deleted")))
                continue
            field = next((name for name in self._unique(visit, of) if values.get(name)), None)
            visit.book(record, changed=records.update(record, values, visit.at, field))
            omitted = visit.omitted(record.key, str(record.properties.get("Email") or ""))
            results.append(None if omitted else {"id": record.id, "success": True, "errors": []})
        return self._answer(200, [r for r in results if r is not None])

    def _unchangeable(
        self, visit: Visit, of: SObject, record_id: str, record: Record | None, values: dict[str, Any]
    ) -> dict[str, Any] | None:
        """What speaks against one record of an update."""
        if not record_id:
            return _item("MISSING_ARGUMENT", "Id not specified in an update call", "Id")
        if len(record_id) not in (15, 18):
            return _item("MALFORMED_ID", f"malformed id {record_id}", "Id")
        if record is None:
            return _item("ENTITY_IS_DELETED", "entity is deleted")
        held = record.properties
        key = str(values.get(KEY) or held.get(KEY) or "")
        wrong = self._reject(visit, of, KEY, key, {"Email": held.get("Email")} | values, new=False)
        if wrong is not None:
            return wrong
        for name in self._unique(visit, of):
            value = values.get(name)
            other = visit.objects.of(of.name).find(visit.portal, str(value), name) if value else None
            if other is not None and other is not record:
                words = f"duplicate value found: {name} duplicates value on record with id: {other.id}"
                return _item("DUPLICATE_VALUE", words)
        return None

    def composite(self, visit: Visit) -> Answer:
        """Queries as the requests of one call; others are not known here."""
        try:
            body = _composites.decode(visit.body)
        except (ValueError, RecursionError) as error:
            return self._error(400, "JSON_PARSER_ERROR", str(error))
        names = [request.reference_id for request in body.composite_request]
        if len(set(names)) < len(names) or not all(_REFERENCE.fullmatch(name) for name in names):
            return self._error(400, "JSON_PARSER_ERROR", "Each referenceId must be unique, of letters, digits and _.")
        if not 1 <= len(names) <= MAX_QUERIES:
            words = f"Specify 1 to {MAX_QUERIES} queries and collections in a composite request, not {len(names)}."
            return self._error(400, "LIMIT_EXCEEDED", words)
        results: list[dict[str, Any]] = []
        for request in body.composite_request:
            found = _QUERIED.fullmatch(request.url)
            if request.method != "GET" or found is None:
                status, result = 404, [{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}]
            elif len(request.url) > MAX_URI:
                status, result = (
                    414,
                    [{"message": "The length of the URI exceeds the limit.", "errorCode": "URI_TOO_LONG"}],
                )
            else:
                status, result = self._select(visit, unquote(found[1]))
            more = {"httpHeaders": {}, "httpStatusCode": status, "referenceId": request.reference_id}
            results.append({"body": result, **more})
        return self._answer(200, {"compositeResponse": results})

    def create_job(self, visit: Visit) -> Answer:
        try:
            made = self.jobs.create(visit.portal, msgspec.json.decode(visit.body))
        except (ValueError, RecursionError) as error:
            return self._error(400, "JSON_PARSER_ERROR", str(error))
        if isinstance(made, str):
            return self._error(400, "INVALIDJOB", made)
        if OBJECTS[made.object].missing_column(visit, [made.key]) is not None:
            return self._error(400, "INVALIDJOB", f"Field name provided, {made.key} does not match an External ID")
        return self._answer(200, made.shown())

    def fill_job(self, visit: Visit) -> Answer:
        job = self._job(visit)
        try:
            wrong = bulk.read(job, visit.body)
        except (ValueError, csv.Error) as error:
            wrong = str(error)
        if wrong:
            return self._error(400, "CLIENT_INPUT_ERROR", wrong)
        visit.call.n = len(job.rows or ())
        answer = self._answer(201, None)
        answer.body = b""
        return answer

    def change_job(self, visit: Visit) -> Answer:
        job, asked = self._job(visit), msgspec.json.decode(visit.body)
        state = asked.get("state") if isinstance(asked, dict) else None
        if state == "UploadComplete" and job.state == "Open" and job.rows is not None:
            job.state, job.closed_at = "UploadComplete", time.monotonic()
        elif state == "Aborted" and job.state in ("Open", "UploadComplete", "InProgress"):
            job.state = "Aborted"
        else:
            return self._error(400, "INVALIDJOBSTATE", f"Cannot change a job of the state {job.state} to {state}")
        return self._answer(200, job.shown())

    def show_job(self, visit: Visit) -> Answer:
        """Its state; one that has had its time is done now."""
        job = self._job(visit)
        if job.due:
            self._do(visit, job)
        elif job.state == "UploadComplete":
            job.state = "InProgress"
        return self._answer(200, job.shown())

    def show_results(self, visit: Visit) -> Answer:
        job = self._job(visit)
        if visit.path["which"] not in ("successfulResults", "failedResults", "unprocessedrecords"):
            raise RefusedError(self.not_found(visit.call.path))
        answer = self._answer(200, None)
        answer.body, answer.content_type = job.results(visit.path["which"]), "text/csv"
        answer.headers |= {"Sforce-Locator": "null", "Sforce-NumberOfRecords": str(len(job.written))}
        return answer

    def _job(self, visit: Visit) -> Job:
        job = self.jobs.find(visit.portal, visit.path["job"])
        if job is None:
            raise self._refused(404, "NOT_FOUND", "The requested resource does not exist")
        return job

    def _do(self, visit: Visit, job: Job) -> None:
        of, records = OBJECTS[job.object], visit.objects.of(job.object)
        missing = of.missing_column(visit, job.columns)
        if missing is not None:
            job.state, job.error = "Failed", f"InvalidBatch : Field name not found : {missing}"
            return
        self._keyed.add((visit.portal, job.object, job.key))
        visit.object, visit.call.on = job.object, "write"
        for row in job.rows or ():
            try:
                values = bulk.values_of(of, row)
            except ValueError as error:
                job.failed.append((row, f"INVALID_TYPE_ON_FIELD_IN_RECORD:{error}"))
                continue
            wrong = self._wrong(visit, of, job.key, values, 1)
            if wrong is not None:
                job.failed.append((row, f"{wrong['statusCode']}:{wrong['message']}:--"))
                continue
            record, created, changed = records.upsert(visit.portal, job.key, row[job.key], values, visit.at)
            visit.book(record, changed=changed, created=created)
            job.written.append((row, record.id, created))
        job.state = "JobComplete"

    def delete(self, visit: Visit) -> Answer:
        ids = [i for i in visit.query.get("ids", "").split(",") if i]
        visit.call.n = len(ids)
        if not ids or len(ids) > MAX_RECORDS:
            return self._error(400, "EXCEEDED_ID_LIMIT", f"Specify 1 to {MAX_RECORDS} ids.")
        results: list[dict[str, Any]] = []
        places = [visit.objects.of(_object_of(i)) for i in ids]
        absent = [visit.locked or at.find(visit.portal, i, None) is None for i, at in zip(ids, places, strict=True)]
        rolled_back = visit.query.get("allOrNone") == "true" and any(absent)
        for record_id, records, gone in zip(ids, places, absent, strict=True):
            record = None if rolled_back or visit.locked else records.delete(visit.portal, record_id)
            if record is not None:
                visit.book(record, deleted=True)
                results.append({"id": record_id, "success": True, "errors": []})
            elif not gone:
                results.append(_failed(ROLLED_BACK))
            elif visit.locked:
                results.append(_failed(LOCKED))
            elif len(record_id) not in (15, 18):
                results.append(_failed(_item("MALFORMED_ID", f"malformed id {record_id}")))
            else:
                results.append(_failed(_item("ENTITY_IS_DELETED", "entity is deleted")))
        return self._answer(200, results)

    def describe(self, visit: Visit) -> Answer:
        """Every custom field but that of the company is an external id: an upsert takes any of them for a key."""
        of = OBJECTS[visit.object]
        declared = sorted(visit.schema.declared_for(of.name) - {ANY}) or DESCRIBED
        fields = [
            {
                "name": name,
                **_described(of.columns.get(name)),
                "custom": name.endswith("__c"),
                **dict.fromkeys(
                    ("externalId", "unique", "caseSensitive"), name.endswith("__c") and name != "Company__c"
                ),
            }
            for name in [*sorted(of.columns), *declared]
            if of.missing_column(visit, [name]) is None
        ]
        return self._answer(200, {"name": of.name, "keyPrefix": of.prefix, "fields": fields})

    def query(self, visit: Visit) -> Answer:
        """`SELECT fields FROM object WHERE field IN (…)`, or `WHERE field != null` by Id, and nothing else."""
        if len(visit.call.path) + len(quote(visit.query.get("q", ""))) > MAX_URI:
            return self._error(414, "URI_TOO_LONG", "The length of the URI exceeds the limit.")
        status, body = self._select(visit, visit.query.get("q", ""))
        return self._answer(status, body)

    def _select(self, visit: Visit, soql: str) -> tuple[int, Any]:
        if len(soql) > MAX_SOQL:
            return 400, [
                {"message": "SOQL statements cannot be longer than 100000 characters.", "errorCode": "MALFORMED_QUERY"}
            ]
        listed, found = _LISTED.fullmatch(soql), _QUERY.fullmatch(soql)
        if listed is not None:
            return self._list(visit, listed)
        if found is None:
            return 400, [{"message": "unexpected token", "errorCode": "MALFORMED_QUERY"}]
        of, names = OBJECTS[found[2]], found[1].split(",")
        missing = self._no_column(visit, of, names, found[3])
        if missing is not None:
            return 400, missing
        keys = [
            _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), literal)
            for literal in _LITERAL.findall(found[4])
        ]
        visit.call.n += len(keys)
        rows = visit.objects.of(of.name)
        if found[3].endswith("__c"):
            there = [(key, record) for key in keys if (record := rows.find(visit.portal, key, found[3])) is not None]
        else:
            lowered = [key.casefold() for key in keys]
            there = [(record.key, record) for record in rows.find_all(visit.portal, found[3], lowered)]
        records = []
        for key, record in there[:MAX_ROWS]:
            held = record.properties
            if not visit.omitted(key, str(held.get("Email") or "")):
                records.append(_row(visit, of, names, record))
        page = {"totalSize": len(there), "done": len(there) <= MAX_ROWS, "records": records}
        more = {"nextRecordsUrl": f"/services/data/{visit.path['version']}/query/01gTRANCHE-{MAX_ROWS}"}
        return 200, page if page["done"] else page | more

    def _list(self, visit: Visit, found: re.Match[str]) -> tuple[int, Any]:
        """Records that have a value in a field, in the order of their Ids, after one of them."""
        of, names = OBJECTS[found[2]], found[1].split(",")
        missing = self._no_column(visit, of, names, found[3])
        if missing is not None:
            return 400, missing
        rows = visit.objects.of(of.name).after(visit.portal, found[4] or "")
        there = list(itertools.islice((r for r in rows if r.properties.get(found[3])), int(found[5])))
        visit.call.n = len(there)
        shown = [r for r in there if not visit.omitted(r.key, str(r.properties.get("Email") or ""))]
        records = [_row(visit, of, names, record) for record in shown]
        return 200, {"totalSize": len(there), "done": True, "records": records}

    @staticmethod
    def _no_column(visit: Visit, of: SObject, names: list[str], field: str) -> list[dict[str, str]] | None:
        """The refusal of a query that names a column which the object does not have."""
        missing = of.missing_column(visit, [*names, field])
        if missing is None:
            return None
        place = f"\nSELECT {','.join(names)} FROM\n^\nERROR at Row:1:Column:8\n"
        return [{"message": f"{place}No such column '{missing}' on entity '{of.name}'.", "errorCode": "INVALID_FIELD"}]

    def _parse(self, visit: Visit, field: str | None, *, by_id: bool = False) -> tuple[Collection, list[SObject]]:
        """The records of an upsert by this field, or without one those of a creation; and the object of each."""
        if visit.object not in OBJECTS:
            raise self._refused(404, "NOT_FOUND", "The requested resource does not exist")
        try:
            body = _collections.decode(visit.body)
        except (ValueError, RecursionError) as error:
            raise self._refused(400, "JSON_PARSER_ERROR", str(error)) from error
        visit.call.n = len(body.records)
        if not 1 <= len(body.records) <= MAX_RECORDS:
            words = f"record limit reached. cannot submit more than {MAX_RECORDS} records into this call"
            raise self._refused(400, "EXCEEDED_ID_LIMIT", words)
        if field is not None and (
            not field.endswith("__c") or OBJECTS[visit.object].missing_column(visit, [field]) is not None
        ):
            raise self._refused(
                404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}"
            )
        objects = [self._read(visit, record, field, by_id=by_id) for record in body.records]
        if len(list(itertools.groupby(objects, lambda of: of.name))) > MAX_CHUNKS:
            # The guide has the limit, and SFDO-Community/declarative-lookup-rollup-summaries 51 the words.
            words = f"Cannot have more than {MAX_CHUNKS} chunks in a single operation. "
            raise self._refused(400, "UNKNOWN_EXCEPTION", f"{words}Please rearrange the data to reduce chunking.")
        whole = visit.rejected_whole(
            (str(r.get(field) if field is not None else self._key_of(visit, of, r)[1]), str(r.get("Email")))
            for of, r in zip(objects, body.records, strict=True)
        )
        if whole is not None:
            raise self._refused(400, "JSON_PARSER_ERROR", whole.message)
        return body, objects

    def _read(self, visit: Visit, record: dict[str, Any], field: str | None, *, by_id: bool) -> SObject:
        """The object of one record, which loses its attributes; an upsert takes those of its path alone."""
        attributes = record.pop("attributes", None)
        of = OBJECTS.get(str(attributes.get("type"))) if isinstance(attributes, dict) else None
        if of is None or (field is not None and of.name != visit.object):
            raise self._refused(400, "INVALID_TYPE", "each record needs attributes with its type")
        missing = of.missing_column(visit, [name for name in record if not by_id or name.lower() != "id"])
        if missing is not None:
            raise self._refused(400, "INVALID_FIELD", f"No such column '{missing}' on sobject of type {of.name}")
        keys = [record.get(name) for name in self._unique(visit, of)] if field is None else []
        if any(isinstance(value, list | dict) for value in record.values()) or not all(
            isinstance(key, str | None) for key in keys
        ):
            raise self._refused(400, "JSON_PARSER_ERROR", "Cannot deserialize instance of string")
        unreadable = of.unreadable(record)
        if unreadable is not None:
            raise self._refused(400, "JSON_PARSER_ERROR", unreadable)
        return of

    def _wrong(
        self, visit: Visit, of: SObject, field: str, record: dict[str, Any], times: int
    ) -> dict[str, Any] | None:
        """What speaks against one record of an upsert."""
        key = record.get(field)
        if not isinstance(key, str) or not key:
            return _item("MISSING_ARGUMENT", f"{field} not specified", field)
        if times > 1 and len(key) <= MAX_KEY:
            return _item("DUPLICATE_VALUE", f"Duplicate external id specified: {key}", field)
        return self._reject(visit, of, field, key, record, new=visit.records.find(visit.portal, key, field) is None)

    def _uncreatable(
        self, visit: Visit, of: SObject, field: str, key: str, record: dict[str, Any]
    ) -> dict[str, Any] | None:
        """What speaks against one record of a creation."""
        if record.get("Id") is not None:
            return _item("INVALID_FIELD_FOR_INSERT_UPDATE", "cannot specify Id in an insert call", "Id")
        wrong = self._reject(visit, of, field, key, record, new=True)
        if wrong is not None:
            return wrong
        for name in self._unique(visit, of):
            value = record.get(name)
            held = visit.objects.of(of.name).find(visit.portal, str(value), name) if value else None
            if held is not None:
                words = f"duplicate value found: {name} duplicates value on record with id: {held.id}"
                return _item("DUPLICATE_VALUE", words)
        return None

    def _unique(self, visit: Visit, of: SObject) -> list[str]:
        """The fields whose values are unique in the account of a call."""
        keyed = {name for at, kind, name in self._keyed if (at, kind) == (visit.portal, of.name)}
        return [KEY, *sorted(keyed - {KEY})]

    def _key_of(self, visit: Visit, of: SObject, record: dict[str, Any]) -> tuple[str, str]:
        """The unique field by which a new record is found, and its value there; it may be empty."""
        names = self._unique(visit, of)
        field = next((name for name in names if record.get(name)), KEY)
        return field, str(record.get(field) or "")

    def _reject(
        self, visit: Visit, of: SObject, field: str, key: str, record: dict[str, Any], *, new: bool
    ) -> dict[str, Any] | None:
        """What speaks against the values of one record, whatever else there is."""
        email = record.get("Email")
        if len(key) > MAX_KEY:
            return _item("STRING_TOO_LONG", f"{field}: data value too large: {key} (max length=255)", field)
        reject = visit.rejected(key, str(email))
        if visit.locked or (reject is not None and reject.passing):
            return LOCKED
        if reject is not None:
            return _item(reject.category, reject.message)
        name = record.get(of.required)
        if (name is None or not str(name).strip()) and (of.required in record or new):
            return _item("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{of.required}]", of.required)
        if isinstance(email, str) and email and not all(email.partition("@")[::2]):
            return _item("INVALID_EMAIL_ADDRESS", f"Email: invalid email address: {email}", "Email")
        oversized = of.oversized(record)
        if oversized is not None:
            return _item(*oversized)
        rule = visit.looks_doubled(key, str(email))
        saved = _ALLOWS.search(visit.headers.get("Sforce-Duplicate-Rule-Header", "")) is not None
        if rule is None or (rule.action == "warn" and saved):
            return None
        words = "Use one of these records?" if rule.action == "warn" else "You're creating a duplicate record."
        return _item("DUPLICATES_DETECTED", words)

    def _answer(self, status: int, body: object) -> Answer:
        usage = f"api-usage={next(self._calls)}/{DAILY_CALLS}"
        return Answer(status=status, body=_encode(body), headers={"Sforce-Limit-Info": usage})

    def _refused(self, status: int, code: str, message: str) -> RefusedError:
        return RefusedError(self._error(status, code, message))

    def _error(self, status: int, code: str, message: str) -> Answer:
        return self._answer(status, [{"message": message, "errorCode": code}])


def _object_of(record_id: str) -> str:
    """The object of a record, by the beginning of its id."""
    return next((of.name for of in OBJECTS.values() if record_id.startswith(of.prefix)), CONTACT.name)


def _described(column: Column | None) -> dict[str, Any]:
    """What a description says of a column's type; of a custom one, and of one that is not checked, that it is text."""
    if column is None:
        return {"type": "string"}
    return {"type": column.type, "label": column.label, "digits" if column.type in NUMBERS else "length": column.size}


def _item(code: str, message: str, *fields: str) -> dict[str, Any]:
    return {"statusCode": code, "message": message, "fields": list(fields)}


def _row(visit: Visit, of: SObject, names: list[str], record: Record) -> dict[str, Any]:
    """A record as a query shows it."""
    url = f"/services/data/{visit.path['version']}/sobjects/{of.name}/{record.id}"
    values = {name: record.properties.get(name) for name in names} | {"Id": record.id}
    return {"attributes": {"type": of.name, "url": url}, **values}


def _failed(error: dict[str, Any]) -> dict[str, Any]:
    return {"success": False, "errors": [error]}


ROLLED_BACK: Final = _item(
    "ALL_OR_NONE_OPERATION_ROLLED_BACK", "Record rolled back because not all records were valid and allOrNone was true"
)
LOCKED: Final = _item("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records")
