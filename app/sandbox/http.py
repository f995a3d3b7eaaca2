"""A stand-in for a service that takes batches of records as JSON, with every default of the kind `http`.

| route | what it does |
|---|---|
| `POST`, `PUT` or `PATCH /contacts` | `{"contacts":[{"id","version","deleted",…}]}` → a result each, in any order |
| `POST /contacts/read` | `{"ids":[…]}` → `{"contacts":[…],"missing":[…]}` |
| | `{"email":[…]}`, or any other field → `{"contacts":[…]}`: every record with one of these values |
| `POST /contacts/list` | `{"after":KEY,"limit":100}` → `{"contacts":[…],"next":KEY}`: all by their keys |
| `POST /contacts/archive` | `{"ids":[…]}` → a result an id |
| `GET`, `PUT` or `DELETE /by-key/contacts/KEY` | one record under our key: 200, 201 or 204; 404 if it is not there |
| `POST /rest/contacts` | `{"external_id","custom":{…},…}` → 201 `{"data":{"id":"r1",…}}`; 409 if it is there |
| `GET /rest/contacts?external_id=KEY` | `{"data":[…]}` |
| `GET`, `PATCH` or `DELETE /rest/contacts/ID` | one record by its id here: 200 or 204; 404 if it is not there |
| `POST /tasks/contacts` | as `POST /contacts`, but 202 `{"task":"t1","status":"queued"}` |
| `GET /tasks/contacts/t1` | `{"status":"processing"}` at first, then `{"status":"completed","results":[…]}` |
| `POST /lines/contacts` | the records as NDJSON, a line each → results |

A record of `/by-key` and `/rest` has texts, numbers, booleans and lists; only its `custom` is an object. What is
not JSON by its `Content-Type`, or not one object, is refused.

Any other name instead of `contacts`, in the path and in the body (`/companies`, `{"companies":[…]}`), is a collection
of its own, where everything is the same, but that no e-mail address is checked.

Absent fields stay as they are, `null` clears, `attributes` merge key by key; an older version than the one it holds
changes nothing. A call with an `Idempotency-Key` that it has done is not done again: the first answer comes back, with
`Idempotency-Replayed: true`; the same key on another call is refused with 422. An answer that asks for a contact to be
sent again is not kept. An item with `remote_id` is about the record of this id, which gets the `id` of the item, and
loses it to `null`. Any Bearer token or `X-Api-Key` but `bad-token` is accepted.
"""

import base64
import binascii
import contextlib
import functools
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from app.sandbox.faults import Lock, RateLimit, Status, Unauthorized
from app.sandbox.ledger import Kept
from app.sandbox.records import Record
from app.sandbox.vendor import ANY, Answer, Refusal, RefusedError, Route, Vendor, Visit

MAX_RECORDS: Final = 1000


class Ids(msgspec.Struct):
    ids: list[str]


class PageAsked(msgspec.Struct):
    after: str = ""
    limit: int = 100


Results = list[dict[str, Any]]

_ids: Final = msgspec.json.Decoder(Ids)
_page: Final = msgspec.json.Decoder(PageAsked)
_record: Final = msgspec.json.Decoder(dict[str, Any])
_values: Final = msgspec.json.Decoder(dict[str, list[str]])
_encode: Final = msgspec.json.Encoder().encode


class Sandbox(Vendor):
    """A service of one's own."""

    options: Mapping[str, Any] = {
        "read_path": "/{type}/read",
        "archive_path": "/{type}/archive",
        "listing": {
            "path": "/{type}/list",
            "method": "POST",
            "body": {"after": "{cursor}", "limit": 100},
            "next": "next",
        },
        "results": "required",
        "repeatable": True,
    }

    def __init__(self, seed: int = 0) -> None:
        base = "/{object:[A-Za-z][A-Za-z0-9_-]*}"
        rest, key = f"/rest{base}", "/{key:[^/]+}"
        self.routes = [
            Route("GET", f"/by-key{base}{key}", "read", self.read_one),
            Route("PUT", f"/by-key{base}{key}", "write", self.put_one),
            Route("DELETE", f"/by-key{base}{key}", "write", self.delete_one),
            Route("POST", rest, "write", self.create_one),
            Route("GET", rest, "read", self.search),
            Route("GET", rest + key, "read", functools.partial(self.read_one, by=None)),
            Route("PATCH", rest + key, "write", self.patch_one),
            Route("DELETE", rest + key, "write", functools.partial(self.delete_one, by=None)),
            Route("POST", f"/tasks{base}", "write", self.start_task),
            Route("GET", f"/tasks{base}{key}", "read", self.read_task),
            Route("POST", f"/lines{base}", "write", self.upsert_lines),
            *(Route(method, base, "write", self.upsert) for method in ("POST", "PUT", "PATCH")),
            *(Route(method, base, "read", self.not_allowed) for method in ("GET", "HEAD")),
            Route("POST", f"{base}/read", "read", self.read),
            Route("POST", f"{base}/archive", "write", self.archive),
            Route("POST", f"{base}/list", "read", self.list_page),
        ]
        self._random = random.Random(seed)  # noqa: S311 - a repeatable shuffle
        self._tasks: dict[str, tuple[int, Results]] = {}
        """By id: how often it was asked for, and its results."""

    def own_fields(self, of: str) -> frozenset[str]:
        return frozenset({ANY})

    def make_id(self, count: int, of: str) -> str:
        return f"r{count + 1}"

    def token(self, headers: Mapping[str, str]) -> str | None:
        """That of a bearer, an API key, or a user's password."""
        scheme, _, pair = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                return base64.b64decode(pair, validate=True).decode().partition(":")[2]
        token = super().token(headers)
        return headers.get("X-Api-Key") if token is None else token

    def refusal(self, fault: Refusal) -> Answer:
        match fault:
            case RateLimit():
                return _error(fault.code, "rate_limited", "Too many requests.")
            case Lock():
                return _error(423, "locked", "Somebody else holds these records.")
            case Status():
                return _error(fault.code, "error", "Something went wrong.")
            case Unauthorized(code=403):
                return _error(403, "forbidden", "This token may not write records.")
        return _error(401, "unauthorized", "This token is not known.")

    def not_found(self, path: str) -> Answer:
        return _error(404, "not_found", f"There is no {path}.")

    def not_allowed(self, visit: Visit) -> Answer:
        """Records are sent here, not listed."""
        answer = _error(405, "not_allowed", "There are POST, PUT and PATCH.")
        answer.headers["Allow"] = "PATCH, POST, PUT"
        return answer

    def upsert(self, visit: Visit) -> Answer:
        return self._once(visit, self._upsert)

    def archive(self, visit: Visit) -> Answer:
        return self._once(visit, self._archive)

    def read(self, visit: Visit) -> Answer:
        wanted = _parse(_values, visit.body)
        if len(wanted) != 1:
            raise _refused(422, "bad_read", "Name one field, with a list of its values.")
        ((name, values),) = wanted.items()
        visit.call.n = len(values)
        if name != "ids":
            there = visit.records.find_all(visit.portal, name, [value.casefold() for value in values])
            shown = [{**r.properties, "remote_id": r.id} for r in there]
            self._random.shuffle(shown)
            return Answer(status=200, body=_encode({visit.object: shown}))
        records, missing = [], []
        for key in values:
            record = visit.records.find(visit.portal, key, "id")
            if record is None:
                missing.append(key)
            elif not visit.omitted(key, str(record.properties.get("email"))):
                records.append({**record.properties, "remote_id": record.id})
        self._random.shuffle(records)
        return Answer(status=200, body=_encode({visit.object: records, "missing": missing}))

    # one record per call

    def list_page(self, visit: Visit) -> Answer:
        body = _parse(_page, visit.body)
        mine = (r for r in visit.records if r.portal == visit.portal and r.key > body.after)
        further = sorted(mine, key=lambda record: record.key)
        page = further[: body.limit]
        visit.call.n = len(page)
        shown = [
            {**r.properties, "remote_id": r.id}
            for r in page
            if not visit.omitted(r.key, str(r.properties.get("email") or ""))
        ]
        following = page[-1].key if len(further) > len(page) else None
        return Answer(status=200, body=_encode({visit.object: shown, "next": following}))

    def read_one(self, visit: Visit, by: str | None = "id") -> Answer:
        record = visit.records.find(visit.portal, visit.path["key"], by)
        return _no_record() if record is None else Answer(status=200, body=_encode(_shown(record)))

    def search(self, visit: Visit) -> Answer:
        key = visit.query.get("external_id", "")
        record = visit.records.find(visit.portal, key, "external_id")
        return Answer(status=200, body=_encode({"data": [] if record is None else [_shown(record)["data"]]}))

    def put_one(self, visit: Visit) -> Answer:
        """Upsert by the key in the path."""
        sent, key = _one(visit), visit.path["key"]
        if sent.setdefault("id", key) != key:
            raise _refused(422, "other_id", "The id in the body is not that of the path.")
        wrong = _wrong_one(visit, key, sent)
        if wrong is not None:
            return wrong
        record, created, changed = visit.records.upsert(
            visit.portal, "id", key, _over(visit, "id", key, sent), visit.at
        )
        visit.book(record, changed=changed, created=created)
        return Answer(status=201 if created else 200, body=_encode(_shown(record)))

    def create_one(self, visit: Visit) -> Answer:
        sent = _one(visit)
        key = sent.get("external_id")
        if not isinstance(key, str) or not key or "id" in sent:
            raise _refused(422, "no_external_id", "A new record needs an external_id, and no id.")
        wrong = _wrong_one(visit, key, sent)
        if wrong is not None:
            return wrong
        if visit.records.find(visit.portal, key, "external_id") is not None:
            return _error(409, "exists", f"There is a record with the external_id {key}.")
        record, _, _ = visit.records.upsert(visit.portal, "external_id", key, sent, visit.at)
        visit.book(record, created=True)
        return Answer(status=201, body=_encode(_shown(record)))

    def patch_one(self, visit: Visit) -> Answer:
        sent, record = _one(visit), visit.records.find(visit.portal, visit.path["key"], None)
        if record is None:
            return _no_record()
        if sent.setdefault("external_id", record.key) != record.key:
            raise _refused(422, "other_id", "The external_id of a record does not change.")
        wrong = _wrong_one(visit, record.key, sent)
        if wrong is not None:
            return wrong
        changed = visit.records.update(record, _over(visit, "external_id", record.key, sent), visit.at)
        visit.book(record, changed=changed)
        return Answer(status=200, body=_encode(_shown(record)))

    def delete_one(self, visit: Visit, by: str | None = "id") -> Answer:
        record = visit.records.find(visit.portal, visit.path["key"], by)
        if record is None:
            return _no_record()
        visit.call.n = 1
        visit.records.delete(visit.portal, record.id)
        visit.book(record, deleted=True)
        return Answer(status=204, body=b"")

    # other forms of a batch

    def start_task(self, visit: Visit) -> Answer:
        """The work is done at once, and nobody is to know."""
        results = self._upsert(visit)
        task = f"t{len(self._tasks) + 1}"
        self._tasks[task] = (0, results)
        return Answer(status=202, body=_encode({"task": task, "status": "queued"}))

    def read_task(self, visit: Visit) -> Answer:
        asked, results = self._tasks.get(visit.path["key"], (0, None))
        if results is None:
            return _error(404, "not_found", "There is no such task.")
        self._tasks[visit.path["key"]] = (asked + 1, results)
        done = {"status": "completed", "results": results}
        return Answer(status=200, body=_encode(done if asked else {"status": "processing"}))

    def upsert_lines(self, visit: Visit) -> Answer:
        if not visit.headers.get("Content-Type", "").startswith("application/x-ndjson"):
            raise _refused(415, "media_type", "The records are sent as application/x-ndjson.")
        lines = [line for line in visit.body.split(b"\n") if line]
        visit.body = b'{"' + visit.object.encode() + b'":[' + b",".join(lines) + b"]}"
        return self._once(visit, self._upsert)

    def _once(self, visit: Visit, work: Callable[[Visit], Results]) -> Answer:
        """Do a call, unless one with its key is done already."""
        key = visit.headers.get("Idempotency-Key")
        digest = hashlib.blake2b(visit.call.path.encode() + b"\0" + visit.body, digest_size=16).hexdigest()
        kept = None if key is None else visit.ledger.kept.get((visit.portal, key))
        if kept is not None:
            if kept.digest != digest:
                return _error(422, "key_reused", "This Idempotency-Key was used for another call.")
            visit.call.replayed = True
            return Answer(status=kept.status, body=kept.body.encode(), headers={"Idempotency-Replayed": "true"})
        results = work(visit)
        self._random.shuffle(results)
        status = 200 if all(result["ok"] for result in results) else 207
        body = _encode({"results": results})
        if key is not None and not any(result.get("retry") for result in results):
            visit.kept = Kept(portal=visit.portal, key=key, digest=digest, status=status, body=body.decode())
        return Answer(status=status, body=body)

    def _upsert(self, visit: Visit) -> Results:
        records = _parse(_body(visit.object), visit.body).records
        visit.call.n = len(records)
        _check(visit, records)
        results: Results = []
        for sent in records:
            if sent.get("remote_id") is not None:
                results.append(_write_by_id(visit, sent))
                continue
            key, email = str(sent["id"]), str(sent.get("email"))
            wrong = _wrong(visit, key, email)
            if wrong is not None:
                results.append(wrong)
                continue
            if sent.pop("deleted", False):
                results.append(_take_away(visit, key))
                continue
            held = visit.records.find(visit.portal, key, "id")
            if held is not None and held.properties.get("version", 0) > sent.get("version", 0):
                sent = {}
            if isinstance(sent.get("attributes"), dict):
                before = None if held is None else held.properties.get("attributes")
                sent["attributes"] = _merged(before, sent["attributes"])
            record, created, changed = visit.records.upsert(visit.portal, "id", key, sent, visit.at)
            visit.book(record, changed=changed, created=created)
            if not visit.omitted(key, email):
                results.append({"id": key, "ok": True, "created": created, "remote_id": record.id})
        return results

    def _archive(self, visit: Visit) -> Results:
        ids = _parse(_ids, visit.body).ids
        visit.call.n = len(ids)
        return [_take_away(visit, key) for key in ids]


def _shown(record: Record) -> dict[str, Any]:
    """One record, as it is answered."""
    return {"data": {**record.properties, "id": record.properties.get("id", record.id)}}


def _no_record() -> Answer:
    return _error(404, "not_found", "There is no such record.")


def _one(visit: Visit) -> dict[str, Any]:
    """The one record of a body."""
    if visit.headers.get("Content-Type", "").partition(";")[0] != "application/json":
        raise _refused(415, "media_type", "A record is sent as application/json.")
    sent: dict[str, Any] = _parse(_record, visit.body)
    visit.call.n = 1
    nested = [name for name, value in sent.items() if isinstance(value, dict) and name != "custom"]
    if nested or not isinstance(sent.get("custom", {}), dict):
        raise _refused(422, "bad_value", f"There is an object where none belongs: {', '.join(nested) or 'custom'}.")
    return sent


def _over(visit: Visit, key_property: str, key: str, sent: dict[str, Any]) -> dict[str, Any]:
    """What a record is to have, with `custom` merged key by key."""
    held = visit.records.find(visit.portal, key, key_property)
    if "custom" in sent:
        return sent | {"custom": _merged(held and held.properties.get("custom"), sent["custom"])}
    return sent


def _wrong_one(visit: Visit, key: str, sent: dict[str, Any]) -> Answer | None:
    """What speaks against the one record of a call."""
    email = str(sent.get("email"))
    whole = visit.rejected_whole([(key, email)])
    wrong = _wrong(visit, key, email)
    missing = next(iter(visit.missing_fields([*sent, *(sent.get("custom") or {})])), None)
    if whole is not None:
        return _error(400, "rejected", whole.message)
    if missing is not None:
        return _error(422, "unknown_field", f"There is no field {missing!r}.")
    if wrong is None:
        return None
    error = wrong["error"]
    return _error(503 if wrong.get("retry") else 422, error["code"], error["message"])


def _write_by_id(visit: Visit, sent: dict[str, Any]) -> dict[str, Any]:
    """What is sent about a record of this id; it gets our key, or loses it."""
    key, remote_id = sent["id"], str(sent.pop("remote_id"))
    named = {"id": key, "remote_id": remote_id}
    record = visit.records.find(visit.portal, remote_id, None)
    owner = None if key is None else visit.records.find(visit.portal, key, "id")
    wrong = _wrong(visit, str(key), str(sent.get("email")))
    if wrong is not None:
        return wrong | named
    if record is None:
        return {**named, "ok": False, "error": {"code": "not_found", "message": f"There is no record {remote_id}."}}
    if owner is not None and owner is not record:
        return {**named, "ok": False, "error": {"code": "conflict", "message": f"{owner.id} has this id already."}}
    if isinstance(sent.get("attributes"), dict):
        sent["attributes"] = _merged(record.properties.get("attributes"), sent["attributes"]) or None
    if key is None:
        sent["version"] = None
    sent.pop("deleted", None)
    changed = visit.records.update(record, sent, visit.at, "id")
    visit.book(record, changed=changed)
    return {**named, "ok": True, "created": False}


def _take_away(visit: Visit, key: str) -> dict[str, Any]:
    """One that is not there is well."""
    record = visit.records.find(visit.portal, key, "id")
    if record is not None:
        visit.records.delete(visit.portal, record.id)
        visit.book(record, deleted=True)
    return {"id": key, "ok": True}


@functools.lru_cache
def _body(of: str) -> msgspec.json.Decoder[Any]:
    """Reads `{"companies":[…]}` of the collection `companies`; gives something with `records`."""
    return msgspec.json.Decoder(msgspec.defstruct("Body", [("records", list[dict[str, Any]])], rename={"records": of}))


def _parse(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _refused(400, "malformed", str(error)) from error


def _merged(held: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    merged = (held if isinstance(held, dict) else {}) | attributes
    return {name: value for name, value in merged.items() if value is not None}


def _check(visit: Visit, records: list[dict[str, Any]]) -> None:
    """What refuses a batch as a whole."""
    if not records:
        raise _refused(422, "empty", "There is no record in it.")
    if len(records) > MAX_RECORDS:
        raise _refused(413, "too_many", f"At most {MAX_RECORDS} records a call.")
    for record in records:
        released = record.get("id", "") is None and record.get("remote_id") is not None
        if not released and (not isinstance(record.get("id"), str) or not record["id"]):
            raise _refused(422, "no_id", "Every record needs an id, a string.")
        if not isinstance(record.get("version", 0), int):
            raise _refused(422, "bad_version", "A version is a whole number.")
        missing = next(
            iter(
                visit.missing_fields(
                    [*(name for name in record if name != "remote_id"), *(record.get("attributes") or {})]
                )
            ),
            None,
        )
        if missing is not None:
            raise _refused(422, "unknown_field", f"There is no field {missing!r}.")
    twice = [key for key, times in Counter(r["id"] for r in records if r["id"] is not None).items() if times > 1]
    if twice:
        raise _refused(422, "twice", f"These ids appear twice in it: {', '.join(twice)}")
    whole = visit.rejected_whole((str(r["id"]), str(r.get("email"))) for r in records)
    if whole is not None:
        raise _refused(400, "rejected", whole.message)


def _wrong(visit: Visit, key: str, email: str) -> dict[str, Any] | None:
    """What speaks against one record."""
    reject = visit.rejected(key, email)
    if reject is not None:
        error = {"code": reject.category, "message": reject.message}
        return {"id": key, "ok": False, "error": error, "retry": reject.passing}
    if visit.object == "contacts" and email not in ("", "None") and not all(email.partition("@")[::2]):
        error = {"code": "invalid_email", "message": f"{email} is no e-mail address"}
        return {"id": key, "ok": False, "error": error}
    return None


def _refused(status: int, code: str, message: str) -> RefusedError:
    return RefusedError(_error(status, code, message))


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status=status, body=_encode({"error": {"code": code, "message": message}}))
