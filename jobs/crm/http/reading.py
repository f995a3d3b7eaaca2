"""Reads records back, and compares them with what was sent."""

from collections.abc import Iterable, Iterator
from typing import Any

from app.destinations.expressions import Finder, TooLong
from app.destinations.http_options import HttpOptions, read_text
from jobs.crm.answers import Judge, objects, unlisted
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.http.items import GONE_STATUSES, key_of, remote_id_of
from jobs.crm.http.refusals import Reader, found, look
from jobs.crm.http.requests import Request, Requests
from jobs.crm.mapping import differences, same
from jobs.crm.port import Difference, Health, Listing, ReadBack, Seen, SentRecord


class RecordReader:
    """Of one destination; `emails` are the fields of ours whose case means nothing."""

    def __init__(self, options: HttpOptions, requests: Requests, judge: Judge, emails: Iterable[str]) -> None:
        self._options = options
        self._requests = requests
        self._judge = judge
        self._emails = tuple(emails)
        read = options.read
        self._records = (options.wrapper or "") if read is None else read.records
        self._id = options.id_field if read is None or read.id is None else read.id
        self._remote_id = options.result_remote_id if read is None or read.remote_id is None else read.remote_id
        self._missing = "missing" if read is None else read.missing
        path = () if read is None else read_text("read.path", read.path).placeholders()
        self._of_one = any(p.root in ("id", "remote_id", "fields", "attributes") for p in path)
        """Its path names one record, so that 404 says that there is none."""
        self._is_record = self._of_one and not self._records
        """Its answer is the record, which may have any words of a customer."""

    def request(self, records: list[SentRecord]) -> Request:
        """Raises `CannotRequestError`."""
        if self._options.read is not None:
            return self._requests.make("read", records)
        if self._options.read_path is None:
            raise ValueError("there is no read_path")
        payload = {"ids": [record.record_id for record in records]}
        return Request(method="POST", path=self._options.read_path, payload=payload)

    def is_absence(self, answer: Answer | NoAnswer) -> bool:
        """Whether the status says that the record of the path does not exist."""
        return self._of_one and answer.status in GONE_STATUSES

    def fault(self, answer: Answer | NoAnswer) -> str:
        """Why a 2xx cannot be read, in words for whoever sets the destination up; empty: it can."""
        finder, body = Finder(), answer.json()
        try:
            results = self._find(body, finder)
            if not isinstance(results, list):
                where = f"under {self._records!r}" if self._records else "at its top"
                which, option = ("read_path", "wrapper") if self._options.read is None else ("read", "read.records")
                return f"The answer of {which} has no list of records {where} (option {option})."
            refusals = Reader([], self._id, finder=finder).read(body, results=results)
        except TooLong:
            return "The expressions of the options take too many steps to read its answer."
        if refusals.unexplained and not self._is_record:
            return f"It answered {answer.status}, but {refusals.sign}."
        return ""

    def read(self, records: list[SentRecord], answer: Answer | NoAnswer, *, by_fields: bool = False) -> ReadBack:
        """What an answer shows of these records; for `by_fields` see `jobs.crm.port.Crm.read_back`."""
        if self.is_absence(answer):
            return self._reply(answer, {record.record_id: Seen.ABSENT for record in records}, {}, {})
        finder = Finder()
        try:
            return self._read(records, answer, finder, by_fields=by_fields)
        except TooLong:
            return self._judge.unread(answer)

    def read_page(self, answer: Answer | NoAnswer, after: str | None) -> Listing:
        """A page of the list of all records; those without a key of ours are the service's own."""
        finder, listed = Finder(), self._options.listing
        body = answer.json() if answer.well else None
        try:
            place = None if listed is None else listed.records
            results = look(body, (self._options.wrapper or "") if place is None else place, finder)
            if listed is None or not isinstance(results, list):
                return unlisted(self._judge.unread(answer))
            of_key = self._id if listed.id is None else listed.id
            of_remote = self._remote_id if listed.remote_id is None else listed.remote_id
            keys = {}
            for result in objects(results):
                key = key_of(result, of_key, finder)
                if key and not self._is_deleted(result):
                    keys[key] = remote_id_of(result, of_remote, finder) or ""
            following = found(body, listed.next, finder) if listed.next is not None and results else None
        except TooLong:
            return unlisted(self._judge.unread(answer))
        more = str(following) if isinstance(following, str | int) and not isinstance(following, bool) else ""
        # A service that does not understand the cursor returns the same page for ever.
        following = more if more and more != after else None
        return Listing(keys=keys, after=following, health=Health.WELL, seconds=answer.seconds, status=answer.status)

    def _find(self, body: Any, finder: Finder) -> Any:
        """The list of records, if there is one."""
        results = look(body, self._records, finder)
        return [results] if self._of_one and isinstance(results, dict) else results

    def _read(
        self, records: list[SentRecord], answer: Answer | NoAnswer, finder: Finder, *, by_fields: bool
    ) -> ReadBack:
        body = answer.json() if answer.well else None
        results = self._find(body, finder)
        if not isinstance(results, list):
            return self._judge.unread(answer)
        missing = found(body, self._missing, finder)
        named: dict[int, str] = {}
        if not self._is_record:
            refusals = Reader(records, self._id, finder=finder).read(body, results=results, passed=missing)
            if refusals.unexplained:
                return self._judge.unread(answer)  # an answer that says no shows nobody absent
            named = refusals.named
        by_key = {key_of(result, self._id, finder): result for result in reversed(list(objects(results)))}
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        differ: dict[str, list[Difference]] = {}
        for place, record in enumerate(records):
            result = by_key.get(record.record_id)
            if result is None and self._of_one and len(results) == 1 and isinstance(results[0], dict):
                result = results[0]
            if result is None and place in named:
                continue  # it could not be read, which is not to say that it is not there
            if result is None or self._is_deleted(result):
                if result is not None or not isinstance(missing, list) or record.record_id in missing:
                    seen[record.record_id] = Seen.ABSENT
                continue
            seen[record.record_id], unlike = self._compare(record, result, by_fields=by_fields)
            if unlike:
                differ[record.record_id] = unlike
            remote_id = remote_id_of(result, self._remote_id, finder)
            if remote_id is None and not self._requests.uses_remote_id:
                remote_id = record.record_id
            if remote_id is not None:
                remote_ids[record.record_id] = remote_id
        return self._reply(answer, seen, remote_ids, differ)

    def _reply(
        self,
        answer: Answer | NoAnswer,
        seen: dict[str, Seen],
        remote_ids: dict[str, str],
        differ: dict[str, list[Difference]],
    ) -> ReadBack:
        return ReadBack(
            seen=seen,
            remote_ids=remote_ids,
            differences=differ,
            health=Health.WELL,
            seconds=answer.seconds,
            status=answer.status,
        )

    def _is_deleted(self, result: dict[str, Any]) -> bool:
        return found(result, self._options.deleted_field or "deleted") is True

    def _compare(self, record: SentRecord, result: dict[str, Any], *, by_fields: bool) -> tuple[Seen, list[Difference]]:
        """By version; a service that does not receive ours, or returns none, is compared field by field. `by_fields`:
        one that returns the very version as well, as far as it returns fields."""
        if record.deleted:
            return Seen.DIFFERS, []
        options = self._options
        field = options.version_field if options.item is None else None
        version = found(result, field) if field is not None else None
        if not isinstance(version, int) or isinstance(version, bool):
            version = None
        if version is not None and (version > record.version or not by_fields):
            return (Seen.MATCHES if version >= record.version else Seen.DIFFERS), []
        unlike = self._differences(record, result, shown_alone=version is not None)
        if version is not None and version < record.version:
            unlike.append(Difference(str(field), record.version, version))
        return (Seen.DIFFERS if unlike else Seen.MATCHES), unlike

    def _differences(self, record: SentRecord, result: dict[str, Any], *, shown_alone: bool) -> list[Difference]:
        """`shown_alone`: the version has shown that it is there, so a service that returns none of its fields says
        nothing about them."""
        options = self._options
        folded = {str(record.fields[name]) for name in self._emails if record.fields.get(name)}
        if options.item is not None or (options.read is not None and options.read.item is not None):
            return list(_uncovered(self._requests.compared(record), result, folded))
        ours = self._requests.fields(record)
        nested = options.attributes_field
        attributes = ours.pop(nested, {}) if nested is not None else {}
        held = result.get(nested) if nested is not None else None
        theirs = held if isinstance(held, dict) else {}
        if shown_alone and not result.keys() & ours.keys() - set(options.taken()):
            ours = {}
        if shown_alone and not isinstance(held, dict):
            attributes = {}
        if options.dots == "nest":
            unlike = list(_uncovered(ours, result, folded))
        else:
            names = self._requests.map.folded
            unlike = differences(((name, value, result.get(name)) for name, value in ours.items()), names)
        pairs = ((f"{nested}.{name}", value, theirs.get(name)) for name, value in attributes.items())
        return unlike + differences(pairs, ())


def _uncovered(ours: Any, theirs: Any, folded: set[str], path: tuple[str, ...] = ()) -> Iterator[Difference]:
    """What of ours is not there as well, at the same place; the elements of a list in any order."""
    if isinstance(ours, dict):
        held = theirs if isinstance(theirs, dict) else {}
        for name, value in ours.items():
            yield from _uncovered(value, held.get(name), folded, (*path, name))
    elif isinstance(ours, list) and isinstance(theirs, list) and any(isinstance(one, dict) for one in ours):
        for one in ours:
            if not any(next(_uncovered(one, other, folded), None) is None for other in theirs):
                yield Difference(".".join(path), one, theirs)
    elif ours is None or ours == []:
        if theirs not in (None, "", []):
            yield Difference(".".join(path), ours, theirs)
    elif not same(ours, theirs, fold=isinstance(ours, str) and ours in folded):
        yield Difference(".".join(path), ours, theirs)
