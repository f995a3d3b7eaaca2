"""A stand-in for a service that takes batches of contacts as JSON, with every default of the kind `http`.

| route | what it does |
|---|---|
| `POST`, `PUT` or `PATCH /contacts` | `{"contacts":[{"id","version","deleted",…}]}` → a result each, in any order |
| `POST /contacts/read` | `{"ids":[…]}` → `{"contacts":[…],"missing":[…]}` |
| `POST /contacts/archive` | `{"ids":[…]}` → a result an id |

Absent fields stay as they are, `null` clears, `attributes` merge key by key; an older version than the one it holds
changes nothing. A call with an `Idempotency-Key` that it has done is not done again: the first answer comes back, with
`Idempotency-Replayed: true`; the same key on another call is refused with 422. An answer that asks for a contact to be
sent again is not kept. Any Bearer token or `X-Api-Key` but `bad-token` is accepted.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from app.sandbox.faults import Lock, RateLimit, Status, Unauthorized
from app.sandbox.ledger import Effect, Kept, timestamp
from app.sandbox.vendor import ANY, BAD_TOKENS, Answer, Refusal, Route, Vendor, Visit, bearer

MAX_CONTACTS: Final = 1000


class Contacts(msgspec.Struct):
    contacts: list[dict[str, Any]]


class Ids(msgspec.Struct):
    ids: list[str]


class RefusedError(Exception):
    """The request as such is refused."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


Done = tuple[list[dict[str, Any]], list[Effect]]
"""Results and effects of a call."""

_contacts: Final = msgspec.json.Decoder(Contacts)
_ids: Final = msgspec.json.Decoder(Ids)
_encode: Final = msgspec.json.Encoder().encode


class HttpSandbox:
    """`app.sandbox.vendor.Vendor` for a service of one's own."""

    def __init__(self, seed: int = 0) -> None:
        self.options: dict[str, Any] = {
            "read_path": "/contacts/read",
            "archive_path": "/contacts/archive",
            "results": "required",
            "idempotent": True,
        }
        self.locks_calls = True
        self.own_fields = frozenset({ANY})
        self.key_field: str | None = None
        self.routes = [
            *(Route(method, "/contacts", "write", self.upsert) for method in ("POST", "PUT", "PATCH")),
            *(Route(method, "/contacts", "read", self.not_allowed) for method in ("GET", "HEAD")),
            Route("POST", "/contacts/read", "read", self.read),
            Route("POST", "/contacts/archive", "write", self.archive),
        ]
        self._random = random.Random(seed)  # noqa: S311 - a repeatable shuffle

    def make_id(self, count: int) -> str:
        return f"r{count + 1}"

    def authenticate(self, headers: Mapping[str, str]) -> Answer | None:
        token = bearer(headers)
        sent = headers.get("X-Api-Key") if token is None else token
        return self.refuse(Unauthorized()) if sent in BAD_TOKENS else None

    def refuse(self, fault: Refusal) -> Answer:
        if isinstance(fault, RateLimit):
            return _later(_error(429, "rate_limited", "Too many requests."), fault.retry_after)
        if isinstance(fault, Lock):
            return _error(423, "locked", "Somebody else holds these contacts.")
        if isinstance(fault, Status):
            if fault.body == "html":
                page = f"<html><body><h1>{fault.code}</h1></body></html>".encode()
                answer = Answer(status=fault.code, body=page, headers={}, content_type="text/html")
                return _later(answer, fault.retry_after)
            return _later(_error(fault.code, "error", "Something went wrong."), fault.retry_after)
        if fault.code == 403:
            return _error(403, "forbidden", "This token may not write contacts.")
        return _error(401, "unauthorized", "This token is not known.")

    def not_found(self, path: str) -> Answer:
        return _error(404, "not_found", f"There is no {path}.")

    def not_allowed(self, visit: Visit) -> Answer:
        """Contacts are sent here, not listed."""
        answer = _error(405, "not_allowed", "There are POST, PUT and PATCH.")
        answer.headers["Allow"] = "PATCH, POST, PUT"
        return answer

    def upsert(self, visit: Visit) -> Answer:
        return self._once(visit, self._upsert)

    def archive(self, visit: Visit) -> Answer:
        return self._once(visit, self._archive)

    def read(self, visit: Visit) -> Answer:
        try:
            body = _parse(_ids, visit.body)
        except RefusedError as error:
            return _error(error.status, error.code, str(error))
        visit.call.n = len(body.ids)
        contacts, missing = [], []
        for key in body.ids:
            record = visit.records.find(visit.portal, key, "id")
            if record is None:
                missing.append(key)
            elif not visit.omitted(key, str(record.properties.get("email"))):
                contacts.append({**record.properties, "remote_id": record.id})
        self._random.shuffle(contacts)
        return Answer(status=200, body=_encode({"contacts": contacts, "missing": missing}))

    def _once(self, visit: Visit, work: Callable[[Visit], Done]) -> Answer:
        """Do a call, unless one with its key is done already."""
        key = visit.headers.get("Idempotency-Key")
        digest = hashlib.blake2b(visit.call.path.encode() + b"\0" + visit.body, digest_size=16).hexdigest()
        kept = None if key is None else visit.ledger.kept.get((visit.portal, key))
        if kept is not None:
            if kept.digest != digest:
                return _error(422, "key_reused", "This Idempotency-Key was used for another call.")
            visit.call.replayed = True
            return Answer(
                status=kept.status, body=kept.body.encode(), headers={"Idempotency-Replayed": "true"}
            )
        try:
            results, effects = work(visit)
        except RefusedError as error:
            return _error(error.status, error.code, str(error))
        self._random.shuffle(results)
        status = 200 if all(result["ok"] for result in results) else 207
        body = _encode({"results": results})
        settled = not any(result.get("retry") for result in results)
        visit.ledger.apply(
            effects,
            Kept(portal=visit.portal, key=key, digest=digest, status=status, body=body.decode())
            if key is not None and settled
            else None,
        )
        return Answer(status=status, body=body)

    def _upsert(self, visit: Visit) -> Done:
        contacts = _parse(_contacts, visit.body).contacts
        visit.call.n = len(contacts)
        _check(visit, contacts)
        at, seq = timestamp(), visit.ledger.next_seq
        results: list[dict[str, Any]] = []
        effects: list[Effect] = []
        for contact in contacts:
            key, email = str(contact["id"]), str(contact.get("email"))
            wrong = _wrong(visit, key, email)
            if wrong is not None:
                results.append(wrong)
                continue
            if contact.pop("deleted", False):
                self._take_away(visit, key, at, seq, results, effects)
                continue
            held = visit.records.find(visit.portal, key, "id")
            if held is not None and held.properties.get("version", 0) > contact.get("version", 0):
                contact = {}
            if isinstance(contact.get("attributes"), dict):
                before = None if held is None else held.properties.get("attributes")
                contact["attributes"] = _merged(before, contact["attributes"])
            record, created, changed = visit.records.upsert(visit.portal, "id", key, contact, at)
            effects.append(visit.effect(record, at, seq + len(effects), changed=changed, created=created))
            if not visit.omitted(key, email):
                results.append({"id": key, "ok": True, "created": created, "remote_id": record.id})
        return results, effects

    def _archive(self, visit: Visit) -> Done:
        body = _parse(_ids, visit.body)
        visit.call.n = len(body.ids)
        results: list[dict[str, Any]] = []
        effects: list[Effect] = []
        at, seq = timestamp(), visit.ledger.next_seq
        for key in body.ids:
            self._take_away(visit, key, at, seq, results, effects)
        return results, effects

    def _take_away(
        self,
        visit: Visit,
        key: str,
        at: str,
        seq: int,
        results: list[dict[str, Any]],
        effects: list[Effect],
    ) -> None:
        """One that is not there is well."""
        record = visit.records.find(visit.portal, key, "id")
        if record is not None:
            visit.records.delete(visit.portal, record.id)
            effects.append(visit.effect(record, at, seq + len(effects), changed=True, deleted=True))
        results.append({"id": key, "ok": True})


def _parse(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "malformed", str(error)) from error


def _merged(held: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    merged = (held if isinstance(held, dict) else {}) | attributes
    return {name: value for name, value in merged.items() if value is not None}


def _check(visit: Visit, contacts: list[dict[str, Any]]) -> None:
    """What refuses a batch as a whole."""
    if not contacts:
        raise RefusedError(422, "empty", "There is no contact in it.")
    if len(contacts) > MAX_CONTACTS:
        raise RefusedError(413, "too_many", f"At most {MAX_CONTACTS} contacts a call.")
    for contact in contacts:
        if not isinstance(contact.get("id"), str) or not contact["id"]:
            raise RefusedError(422, "no_id", "Every contact needs an id, a string.")
        if not isinstance(contact.get("version", 0), int):
            raise RefusedError(422, "bad_version", "A version is a whole number.")
        missing = next(iter(visit.missing_fields([*contact, *(contact.get("attributes") or {})])), None)
        if missing is not None:
            raise RefusedError(422, "unknown_field", f"There is no field {missing!r}.")
    twice = [key for key, times in Counter(c["id"] for c in contacts).items() if times > 1]
    if twice:
        raise RefusedError(422, "twice", f"These ids appear twice in it: {', '.join(twice)}")
    whole = visit.rejected_whole((c["id"], str(c.get("email"))) for c in contacts)
    if whole is not None:
        raise RefusedError(400, "rejected", whole.message)


def _wrong(visit: Visit, key: str, email: str) -> dict[str, Any] | None:
    """What speaks against one contact."""
    reject = visit.rejected(key, email)
    if reject is not None:
        error = {"code": reject.category, "message": reject.message}
        return {"id": key, "ok": False, "error": error, "retry": reject.passing}
    if email not in ("", "None") and not all(email.partition("@")[::2]):
        error = {"code": "invalid_email", "message": f"{email} is no e-mail address"}
        return {"id": key, "ok": False, "error": error}
    return None


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status=status, body=_encode({"error": {"code": code, "message": message}}), headers={})


def _later(answer: Answer, seconds: float | None) -> Answer:
    if seconds is not None:
        answer.headers["Retry-After"] = f"{seconds:g}"
    return answer


Sandbox: Final[Callable[[], Vendor]] = HttpSandbox
