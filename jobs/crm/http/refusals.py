"""What a 2xx body says against its status: refusals, counted failures, a call that is only queued.

Services that answer 200 and mean no have no shape in common, but a small vocabulary: `ok: false` (Slack), `errors`
(GraphQL, Mailchimp, Braze), `failCount` (Iterable), `status: "enqueued"` (Meilisearch). The vocabulary is read wherever
an answer has objects; a record that a service echoes, an element of a list, is not searched for words of its own
customers.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from app.destinations.expressions import Finder, is_expression
from jobs.crm.mapping import text
from jobs.crm.port import SentRecord

_DEEPEST: Final = 4
_FLAGS: Final = frozenset({"ok", "success", "successful", "issuccess", "issuccessful", "succeeded"})
_STATUSES: Final = frozenset({"status", "state", "result", "outcome", "statuscode", "code"})
_NO: Final = frozenset(
    """
    error errors failed failure fail rejected refused denied invalid false ko
    """.split()
)
QUEUED: Final = frozenset(
    {"queued", "enqueued", "scheduled", "processing", "in_progress", "inprogress", "running", "waiting"}
)
"""Words of work that is not done."""
_BAD_LAST: Final = frozenset(
    {"error", "errors", "failure", "failures", "failed", "rejected", "rejections", "unprocessed", "errored"}
)
_BAD_FIRST: Final = frozenset({"failed", "rejected", "invalid", "unprocessed", "errored"})
_BAD: Final = _BAD_LAST | _BAD_FIRST | {"fail", "fails"}
_COUNTS: Final = frozenset({"count", "counts", "num", "number", "total", "n"})
_PROSE: Final = frozenset({"message", "msg", "description", "reason", "detail", "details", "text"})
_CODES: Final = frozenset({"errorcode", "errcode", "errno"})
_NO_CODES: Final = frozenset({"", "ok", "success", "none", "no_error"})
_INDEXES: Final = frozenset({"index", "batchindex", "itemindex", "inputindex", "recordindex", "position"})
_KEYS: Final = frozenset({"id", "key", "externalid", "externaluserid", "userid", "ref", "reference"})
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ACCOUNT: Final = re.compile(
    r"(invalid|expired|revoked|missing|bad|no)_?(auth|authentication|token|access_?token|api_?key|credentials?)"
    r"|not_?authed|not_?allowed_?token_?type|token_?(expired|revoked|invalid)|account_?(inactive|disabled)"
    r"|unauthori[sz]ed|unauthenticated|access_?denied|missing_?scope|forbidden",
    re.IGNORECASE,
)
"""Codes, as a whole, of a caller who is not let in: nothing was looked at, so nothing was done."""
_EXPLANATIONS: Final = "error message reason detail title description type code errors".split()
_STORED_IDS: Final = ("id", "_id", "uid", "objectId")
MISSING: Final = object()


class Refusals(msgspec.Struct):
    """What one body says against the records of its call."""

    named: dict[int, str] = msgspec.field(default_factory=dict)
    """Position of a record that failed → why."""
    nameless: list[str] = msgspec.field(default_factory=list)
    """Signs of a failure that name no record, or not for certain."""
    counted: int = 0
    """Failures, by the highest number that is given."""
    queued: str = ""
    """The sign of work that is accepted and not done."""
    account: str = ""
    """The code that refuses the caller."""
    stored: bool = False
    """The whole call was stored as one thing, which is none of the records."""

    @property
    def any(self) -> bool:
        return bool(self.named or self.nameless or self.counted or self.queued or self.account)

    @property
    def unexplained(self) -> bool:
        """Whether something is wrong beyond the records that are named."""
        return bool(self.nameless or self.queued or self.account or self.counted > len(self.named))

    @property
    def sign(self) -> str:
        """The first thing that it says, for people to read."""
        if self.account:
            return f"it says {self.account}"
        if self.nameless:
            return self.nameless[0]
        if self.queued:
            return self.queued
        return f"it counts {self.counted} failed" if self.counted else "it lists failures"


class Reader:
    """Reads one body; `result_id` is the field that holds our key, `by_position` makes it a place instead."""

    def __init__(
        self, records: list[SentRecord], result_id: str, *, by_position: bool = False, finder: Finder | None = None
    ) -> None:
        self._count = len(records)
        self._finder = finder
        self._result_id = result_id
        self._by_position = by_position
        self._by_id = {record.record_id: place for place, record in enumerate(records)}
        self._by_email: dict[str, int | None] = {}
        for place, record in enumerate(records):
            if record.fields.get("email"):
                email = str(record.fields["email"]).casefold()
                self._by_email[email] = None if email in self._by_email else place
        self._said = Refusals()

    def read(
        self, body: Any, *, results: Any = None, failures: Any = None, payload: Any = None, passed: Any = None
    ) -> Refusals:
        """All that a body says; `results` is the part of it that is read item by item, `failures` the part that
        lists failures whatever it is called, `payload` what was sent, where the whole of it may have been stored.
        `passed` is a part that says nothing here."""
        if failures is not None:
            self._blame(failures)
        self._walk(body, skip=[results, failures, passed], depth=0)
        said = self._said
        if said.counted >= self._count > 0:
            why = said.nameless[0] if said.nameless else f"it counts {said.counted} failed"
            for place in range(self._count):
                said.named.setdefault(place, why)
        if payload is not None and _stored_as_one(body, payload):
            said.stored = True
            said.nameless.append("it stored the call as one record, with an id for all of it")
        return said

    def place(self, entry: Any) -> int | None:
        """The record that an entry of a list names, by our key, its e-mail address or its index (from 0)."""
        if isinstance(entry, str):
            return self._place_of(entry)
        if isinstance(entry, int) and not isinstance(entry, bool):
            return self._index(entry) if self._by_position else self._by_id.get(str(entry))
        if not isinstance(entry, dict):
            return None
        chosen = found(entry, self._result_id, self._finder)
        if self._by_position and chosen is not None:
            return self._index(chosen)
        place = self._place_of(chosen)
        if place is not None:
            return place
        places = {place for place in self._hints(entry, depth=0) if place is not None}
        return places.pop() if len(places) == 1 else None

    def _hints(self, entry: dict[str, Any], depth: int) -> Iterator[int | None]:
        for name, value in entry.items():
            words = _words(name)
            plain = "".join(words)
            if plain in _INDEXES:
                yield self._index(value)
            elif plain in _KEYS or "email" in words or plain == "mail":
                yield self._place_of(value)
            elif plain == "path" and isinstance(value, list):  # GraphQL
                yield self._only_index(value)
            elif plain == "pointer" and isinstance(value, str):  # JSON:API, RFC 9457
                yield self._only_index([int(s) for s in value.split("/") if s.isascii() and s.isdigit()])
            elif isinstance(value, dict) and depth < 2:
                yield from self._hints(value, depth + 1)

    def _only_index(self, path: list[Any]) -> int | None:
        numbers = [step for step in path if isinstance(step, int) and not isinstance(step, bool)]
        return self._index(numbers[0]) if len(numbers) == 1 else None

    def _index(self, value: Any) -> int | None:
        return value if type(value) is int and 0 <= value < self._count else None

    def _place_of(self, value: Any) -> int | None:
        key = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if key in self._by_id:
            return self._by_id[key]
        return self._by_email.get(key.casefold()) if "@" in key else None

    # the vocabulary

    def _walk(self, value: Any, *, skip: list[Any], depth: int) -> None:
        if value is None or any(value is part for part in skip) or depth > _DEEPEST:
            return
        if isinstance(value, list):
            for entry in value:
                self._entry(entry)
        if not isinstance(value, dict):
            return
        for name, inner in value.items():
            if any(inner is part for part in skip if part is not None):
                continue
            if not self._sign(name, inner) and isinstance(inner, dict | list):
                self._walk(inner, skip=skip, depth=depth + 1)

    def _sign(self, name: str, value: Any) -> bool:
        """Whether a name speaks of failure, whatever it says of it."""
        words = _words(name)
        plain = "".join(words)
        said = self._said
        if plain in _FLAGS and (_says_no(value) or (plain == "ok" and value == 0)):
            said.nameless.append(f"it says {_quote(name, value)}")
            return True
        if plain in _CODES:
            if not _is_no_code(value):
                self._complain(name, value)
            return True
        if plain in _STATUSES or plain == "message":
            self._status(name, plain, value)
        if not words or not _BAD.intersection(words):
            return False
        self._weigh(name, words, value)
        return True

    def _status(self, name: str, plain: str, value: Any) -> None:
        word = value.strip().casefold() if isinstance(value, str) else ""
        if word in QUEUED:
            self._said.queued = self._said.queued or f"it is queued and not done ({_quote(name, value)})"
        elif (word in _NO or _is_http_error(value)) and plain != "message":
            self._complain(name, value)

    def _weigh(self, name: str, words: list[str], value: Any) -> None:
        """The value under a name of failures: a number of them, a list of them, or a word about all."""
        said, number = self._said, _number(value)
        if number is not None and (_COUNTS.intersection(words) or _is_bad(words)):
            said.counted = max(said.counted, number)
        elif words[-1] in _PROSE:
            if isinstance(value, str) and not _is_no_code(value):
                self._complain(name, value)
        elif _is_bad(words) and not _is_void(value):
            if value is True or isinstance(value, str):
                self._complain(name, value)
            elif words[-1] == "error" and isinstance(value, dict):
                self._whole(name, value)
            else:
                self._blame(value)

    def _complain(self, name: str, value: Any) -> None:
        self._note_account(name, value)
        self._said.nameless.append(f"it says {_quote(name, value)}")

    def _note_account(self, name: str, code: Any) -> None:
        if isinstance(code, str) and _ACCOUNT.fullmatch(code.strip()):
            self._said.account = self._said.account or _quote(name, code)

    def _whole(self, name: str, error: dict[str, Any]) -> None:
        """One error for all; it may name its record all the same."""
        place = self.place(error)
        if place is not None:
            self._said.named[place] = explain(error)
            return
        for inner in ("code", "type", "error"):
            self._note_account(inner, error.get(inner))
        self._said.nameless.append(f"it says {_quote(name, explain(error))}")

    def _blame(self, failures: Any) -> None:
        """Each entry of what lists failures is one, and it names its record or does not."""
        if isinstance(failures, dict):
            by_key = {name: self._place_of(name) for name in failures}
            if failures and all(place is not None for place in by_key.values()):
                for name, place in by_key.items():
                    if place is not None:
                        self._said.named.setdefault(place, explain(failures[name]))
                return
            lists = [inner for inner in failures.values() if isinstance(inner, list)]
            if lists and len(lists) == len(failures) and not any(map(_is_prose, lists)):
                for inner in lists:
                    self._blame(inner)
                return
            failures = [failures]
        entries = failures if isinstance(failures, list) else [failures]
        most = 4 * self._count + 100
        if len(entries) > most:
            self._said.nameless.append(f"it lists {len(entries)} failures of {self._count} records")
        for entry in entries[:most]:
            if not _is_void(entry):
                self._blame_one(entry)

    def _blame_one(self, entry: Any) -> None:
        place = self.place(entry)
        if place is not None:
            self._said.named.setdefault(place, explain(entry))
            return
        if isinstance(entry, dict):
            for code in (entry.get("code"), found(entry, "extensions.code")):  # the second is GraphQL's
                self._note_account("code", code)
        self._said.nameless.append(f"it lists a failure that names no record: {explain(entry)}")

    def _entry(self, entry: Any) -> None:
        """An element of any list: it may be a result under a name that the options do not give."""
        if isinstance(entry, dict) and len(entry) == 1:
            [inner] = entry.values()
            entry = inner if isinstance(inner, dict) and "error" not in entry else entry
        if not isinstance(entry, dict):
            return
        refused = any(
            ("".join(_words(name)) in _FLAGS and value is False)
            or (name in ("error", "errors") and not _is_void(value))
            or (name in ("status", "statusCode") and _is_http_error(value))
            for name, value in entry.items()
        )
        if refused:
            self._blame([entry])


def _stored_as_one(body: Any, payload: Any) -> bool:
    """Whether the answer is what was sent, with one id for all of it: a server that keeps whatever comes (json-server
    0.17) took the call for one record."""
    if not isinstance(body, dict):
        return False
    sent = payload if isinstance(payload, dict) else {str(n): item for n, item in enumerate(payload)}
    if not sent or any(body.get(name) != value for name, value in sent.items()):
        return False
    return any(name in body and name not in sent for name in _STORED_IDS)


def explain(entry: Any, depth: int = 0) -> str:
    """A failure in the service's words."""
    if depth > _DEEPEST:
        return "…"
    if isinstance(entry, dict):
        for name in _EXPLANATIONS:
            if not _is_void(entry.get(name)) and entry[name] is not True:
                return explain(entry[name], depth + 1)
    if isinstance(entry, list):
        return "; ".join(explain(one, depth + 1) for one in entry[:5])
    return text(entry)


def _is_void(value: Any, depth: int = 0) -> bool:
    """Nothing, or a structure of nothings."""
    if isinstance(value, dict | list) and depth < _DEEPEST:
        return all(_is_void(one, depth + 1) for one in (value.values() if isinstance(value, dict) else value))
    return value is None or value is False or value == "" or value == 0


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _is_bad(words: list[str]) -> bool:
    """`errors`, `userErrors`, `failedUpdates`; not `error_message` or `failsafe`."""
    return words[-1] in _BAD_LAST or words[0] in _BAD_FIRST


def _says_no(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().casefold() in _NO)


def _is_no_code(value: Any) -> bool:
    """Whether an error code says that there is no error."""
    if isinstance(value, str):
        return value.strip().casefold() in _NO_CODES or not value.strip().strip("0")
    return not isinstance(value, int) or value == 0


def _is_http_error(value: Any) -> bool:
    number = int(value) if isinstance(value, str) and re.fullmatch("[45][0-9]{2}", value) else value
    return type(number) is int and 400 <= number < 600


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _is_prose(entries: list[Any]) -> bool:
    """`{"email": ["is invalid"]}` is one failure in words, `{"invalidEmails": ["a@b"]}` lists them."""
    return any(isinstance(entry, str) and " " in entry.strip() for entry in entries)


def _quote(name: str, value: Any) -> str:
    return msgspec.json.encode({name: value}).decode()[1:-1]


def look(value: Any, path: str, finder: Finder | None = None) -> Any:
    """The value under names joined by dots; `MISSING` if it is not there. An empty path is the value itself. With a
    `finder` the path may be an expression, which finds null and nothing alike. Raises `TooLong`."""
    if finder is not None and is_expression(path):
        there = finder.find(value, path)
        return MISSING if there is None else there
    for name in path.split(".") if path else ():
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def found(value: Any, path: str, finder: Finder | None = None) -> Any:
    there = look(value, path, finder)
    return None if there is MISSING else there
