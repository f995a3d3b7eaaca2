"""Salesforce: Contacts and Accounts by sObject Collections, keyed by an external id field of ours.

Of each object the organisation needs one custom field, text of 255 characters, marked External ID, Unique and
case-sensitive: `Tranche_Id__c`, or what the options name (`app.destinations.kinds.SalesforceOptions`).

A collection is done record by record (`allOrNone: false`), and its results are in the order of the request.
Reading back is SOQL on that field: it reads the database itself, where a search reads an index that lags.

Source: REST API Developer Guide, sObject Collections (Upsert, Create, Update, Delete), Query, and Composite,
whose requests count as one call (those of Composite Batch do not); Duplicate Rule Header.
"""

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Unpack
from urllib.parse import quote

from msgspec.structs import replace

from app.deliveries.before_images import Adoption
from app.destinations.kinds import SalesforceOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from jobs.crm.answers import NOBODY, nameless, objects, unlisted
from jobs.crm.exchange import Answer, Connection, NoAnswer
from jobs.crm.matching import NOT_KEPT, adopted, group, later, match
from jobs.crm.port import (
    Access,
    BulkWriter,
    CrmFactory,
    Difference,
    Headers,
    Health,
    Keep,
    Listing,
    Outcome,
    ReadBack,
    Reply,
    Seen,
    SentRecord,
    keep_nothing,
)
from jobs.crm.salesforce import check
from jobs.crm.salesforce.answers import NO_COLUMN, Quota, SalesforceJudge, lacks, rows_of
from jobs.crm.salesforce.bulk import BulkJobs
from jobs.crm.salesforce.fields import Fields, literal, parcels
from jobs.crm.tally import Tally

BATCH_SIZE: Final = 200
PAGE: Final = 2_000
"""Records of one page of a query, at most."""
MOST_QUERIES: Final = 5
"""Of one composite call."""
QUERY_LENGTH: Final = 14_000
"""Of the path of one of them, which no proxy on the way sees."""
URL_LENGTH: Final = 7000
"""Salesforce takes 16,384 bytes; proxies on the way often take 8,000."""


class Salesforce:
    """One tenant's connection to one Salesforce organisation (`jobs.crm.port.Crm`)."""

    reads_back = True
    repeatable = False
    appends = False
    archives = True
    lists = True
    updates_apart = False
    learns = False
    write_test = None

    def __init__(
        self,
        *,
        resource: Resource,
        options: dict[str, Any],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        **access: Unpack[Access],
    ) -> None:
        chosen = read_options(options, SalesforceOptions)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self._fields = Fields(chosen, resource)
        self._judge = SalesforceJudge(access["authorizer"], self._fields, now)
        self._matched_by = chosen.match_field(resource) or ""
        self._match = self._fields.name_at(self._matched_by)
        """The field there that new records are looked for by."""
        self._quota = Quota(chosen.quota_share, monotonic)
        self._own = {"Sforce-Duplicate-Rule-Header": "allowSave=true"} if chosen.duplicate_rules == "bypass" else None
        """Header fields of every write."""
        self._monotonic = monotonic
        self._connection = Connection(**access)
        self._base = f"/services/data/v{chosen.api_version.removeprefix('v')}"
        jobs = (self._connection, self._judge, self._fields, self._quota, self._base, self._own)
        self.bulk: BulkWriter | None = BulkJobs(*jobs, least=chosen.bulk_from, matches=self._match is not None)

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """Upsert of a collection, and creation of those new records that lack a last name. With `match_on` new records
        are looked for before, by one query; those that are there are updated by Id. See `jobs.crm.port.Crm.push`."""
        tally = Tally(records)
        await self._update(tally, [c for c in records if c.adopted or c.released], headers)
        if self._match is not None and tally.well:
            await self._look_for(tally, self._match, headers, keep)
        if tally.well:
            await self._upsert(tally, tally.open(), headers)
        return tally.reply()

    async def _upsert(self, tally: Tally, records: list[SentRecord], headers: Headers) -> None:
        if not records:
            return
        nameless: dict[str, dict[str, Any]] = {}

        def read(record: SentRecord, result: Any) -> Outcome:
            if self._fields.last_name and lacks(result, self._fields.last_name):
                row = self._fields.new_record(record)
                if row is not None:
                    nameless[record.record_id] = row
            return self._judge.written(record, result)

        path = f"{self._base}/composite/sobjects/{self._fields.object}/{self._fields.key}"
        payload = {"allOrNone": False, "records": [self._fields.sobject(c) for c in records]}
        left = self._connection.left(tally.seconds)
        tally.add(await self._collect("PATCH", path, payload, records, headers, read, seconds=left), but=nameless)
        if not nameless:
            return
        # Not an upsert: somebody may have made the record since, and its last name is theirs. Salesforce refuses such
        # a record, and the next attempt's upsert finds it.
        second = await self._collect(
            "POST",
            f"{self._base}/composite/sobjects",
            {"allOrNone": False, "records": list(nameless.values())},
            tally.open(),
            headers,
            self._judge.created,
            seconds=self._connection.left(tally.seconds),
        )
        tally.add(second)

    async def _update(self, tally: Tally, records: list[SentRecord], headers: Headers) -> None:
        """Write to records by their Id; they were there before us."""
        if not records:
            return
        rows = [self._fields.sobject(c) | {"Id": c.remote_id} for c in records]
        payload = {"allOrNone": False, "records": rows}
        path = f"{self._base}/composite/sobjects"
        tally.add(
            await self._collect(
                "PATCH",
                path,
                payload,
                records,
                headers,
                self._judge.updated,
                seconds=self._connection.left(tally.seconds),
            )
        )

    async def _look_for(self, tally: Tally, field: str, headers: Headers, keep: Keep) -> None:
        """Find new records by the values of a field, in one call, and write to those that are there."""
        pairs = [
            (c, value)
            for c in tally.open()
            if c.remote_id is None and (value := self._fields.value_at(field, c)).strip()
        ]
        if not pairs:
            return
        looked = [c for c, _ in pairs]
        names = sorted({field, *self._fields.names(looked)})
        values = [quote(literal(value) + ",", safe="") for value in dict.fromkeys(value.strip() for _, value in pairs)]
        query = functools.partial(self._query, names, by=field)
        queries = [query(parcel) for parcel in parcels(values, QUERY_LENGTH - len(query([])))]
        rows: list[dict[str, Any]] = []
        for start in range(0, len(queries), MOST_QUERIES):
            pause = self._quota.pause()
            if pause is not None:
                tally.add(self._quota.closed(looked, pause))
                return
            asked = queries[start : start + MOST_QUERIES]
            answer = await self._ask_together(asked, headers, self._connection.left(tally.seconds))
            found, complete, trouble = rows_of(answer, len(asked))
            if trouble is not None:
                tally.add(self._judge.not_done(looked, trouble))
                return
            if not complete and len(looked) > 1:
                tally.add(self._judge.too_many(looked, answer))
                return
            tally.note(answer)
            rows += found
        matches = match(pairs, group(self._fields.found(row, field) for row in rows), field=self._matched_by)
        tally.outcomes |= matches.refused
        adopt = [(c, one) for c in looked if (one := matches.adopt.get(c.record_id)) is not None]
        if not adopt:
            return
        adoptions = [Adoption(c.record_id, one.remote_id, self._fields.before(c, one.values)) for c, one in adopt]
        kept = await keep(adoptions)
        tally.outcomes |= {c.record_id: later(c, NOT_KEPT) for c, _ in adopt if c.record_id not in kept}
        ready = [adopted(c, a) for (c, _), a in zip(adopt, adoptions, strict=True) if c.record_id in kept]
        await self._update(tally, ready, headers)

    async def _ask_together(self, queries: list[str], headers: Headers, seconds: float | None) -> Answer | NoAnswer:
        """Queries as the requests of one call, which counts as one."""
        requests = [{"method": "GET", "url": url, "referenceId": f"q{n}"} for n, url in enumerate(queries)]
        payload = {"allOrNone": False, "compositeRequest": requests}
        answer = await self._connection.call("POST", f"{self._base}/composite", payload, headers, seconds=seconds)
        self._quota.note(answer)
        return answer

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.salesforce.check`."""
        query = self._query([self._fields.key], [quote(literal(NOBODY), safe="")])
        return await check.check(self._connection, self._judge, self._fields, self._base, query, headers)

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """Deletion by record id, into the recycle bin; see `jobs.crm.port.Crm.archive`."""
        named = [c for c in records if c.remote_id is not None]
        if not named:
            return Reply(outcomes=[nameless(c) for c in records], health=Health.WELL)
        ids = ",".join(quote(c.remote_id or "", safe="") for c in named)
        path = f"{self._base}/composite/sobjects?ids={ids}&allOrNone=false"
        reply = await self._collect("DELETE", path, None, named, headers, self._judge.deleted)
        of_named = iter(reply.outcomes)
        outcomes = [nameless(c) if c.remote_id is None else next(of_named) for c in records]
        return replace(reply, outcomes=outcomes)

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """SOQL by our key, which knows no versions, in as many queries as the length of a URL asks for, within one
        total timeout; see `jobs.crm.port.Crm.read_back`."""
        pause = self._quota.pause()
        if pause is not None:
            return self._quota.unread(pause)
        started = self._monotonic()
        names = self._fields.names(records)
        room = URL_LENGTH - len(self._query(names, []))
        keys = [quote(literal(c.record_id) + ",", safe="") for c in records]
        rows: list[dict[str, Any]] = []
        complete, status = True, None
        for parcel in parcels(keys, room):
            answer, names = await self._ask(names, parcel, headers, started)
            found = _records(answer)
            if found is None:
                return self._judge.unread(answer)
            rows += found[0]
            complete = complete and found[1]
            status = answer.status
        seen, remote_ids, differ = self._compare(records, rows, complete)
        return ReadBack(
            seen=seen,
            remote_ids=remote_ids,
            differences=differ,
            health=Health.WELL,
            seconds=self._monotonic() - started,
            status=status,
        )

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """A page by Id, which a query can begin after; its own pages are forgotten after some days, or when others are
        begun."""
        pause = self._quota.pause()
        if pause is not None:
            return unlisted(self._quota.unread(pause))
        key, further = self._fields.key, "" if after is None else f" AND Id > {literal(after)}"
        where = f"WHERE {key} != null{further} ORDER BY Id ASC LIMIT {PAGE}"
        soql = " ".join((f"SELECT Id,{key}", f"FROM {self._fields.object}", where))
        answer = await self._connection.call("GET", f"{self._base}/query/?q={quote(soql, safe=',')}", None, headers)
        self._quota.note(answer)
        found = _records(answer)
        if found is None or not found[1]:
            return unlisted(self._judge.unread(answer))
        folded = [{name.casefold(): value for name, value in row.items()} for row in found[0]]
        keys = {str(row.get(key.casefold())): str(row.get("id")) for row in folded}
        last = str(folded[-1].get("id")) if len(folded) == PAGE else None
        return Listing(keys=keys, after=last, health=Health.WELL, seconds=answer.seconds, status=answer.status)

    async def _collect(
        self,
        method: str,
        path: str,
        payload: object,
        records: list[SentRecord],
        headers: Headers,
        outcome: Callable[[SentRecord, Any], Outcome],
        *,
        seconds: float | None = None,
    ) -> Reply:
        """One call with a result a record, in their order."""
        pause = self._quota.pause()
        if pause is not None:
            return self._quota.closed(records, pause)
        answer = await self._connection.call(method, path, payload, headers, headers=self._own, seconds=seconds)
        self._quota.note(answer)
        results = answer.json() if answer.status == 200 else None
        if not isinstance(results, list) or len(results) != len(records):
            return self._judge.reply(records, answer)
        refused = (r.get("errors") for r in objects(results) if r.get("success") is False)
        lacking = self._judge.lacking(records, refused)
        return Reply(
            outcomes=[outcome(c, result) for c, result in zip(records, results, strict=True)],
            health=Health.SETUP_FAULT if lacking else Health.WELL,
            seconds=answer.seconds,
            status=answer.status,
            detail=lacking or "",
        )

    async def _ask(
        self, names: list[str], keys: list[str], headers: Headers, started: float
    ) -> tuple[Answer | NoAnswer, list[str]]:
        """One query; a field that is not there, and would fail it for all records, is left out."""
        while True:
            left = self._connection.timeouts.total - (self._monotonic() - started)
            answer = await self._connection.call(
                "GET", self._query(names, keys), None, headers, seconds=max(left, 0.001)
            )
            self._quota.note(answer)
            missing = NO_COLUMN.search(self._judge.said(answer.json())) if answer.status == 400 else None
            fewer = [n for n in names if missing is None or n.casefold() != missing[1].casefold()]
            if len(fewer) == len(names) or self._fields.key not in fewer:
                return answer, names
            names = fewer

    def _query(self, names: list[str], keys: list[str], *, by: str | None = None) -> str:
        """`keys` are encoded literals, each with its comma; of our key, or of the field `by`."""
        fields = ",".join(["Id", *names])
        where = f"FROM {self._fields.object} WHERE {by or self._fields.key} IN ("
        head = quote(f"SELECT {fields} {where}", safe=",")
        return f"{self._base}/query/?q={head}{''.join(keys).removesuffix('%2C')}%29"

    def _compare(
        self, records: list[SentRecord], rows: list[dict[str, Any]], complete: bool
    ) -> tuple[dict[str, Seen], dict[str, str], dict[str, list[Difference]]]:
        """Only if every record that was found is here is one that is not here not there."""
        held: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            # Salesforce answers with the field's own spelling, whichever of its names was asked for.
            folded = {name.casefold(): value for name, value in row.items()}
            held.setdefault(str(folded.get(self._fields.key.casefold())), []).append(row)
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        differ: dict[str, list[Difference]] = {}
        for record in records:
            found = held.get(record.record_id, [])
            if not found:
                if complete:
                    seen[record.record_id] = Seen.ABSENT
                continue
            unlike = [] if record.deleted else self._fields.compare(record, found[0])
            seen[record.record_id] = Seen.DIFFERS if unlike or record.deleted or len(found) > 1 else Seen.MATCHES
            if unlike:
                differ[record.record_id] = unlike
            if found[0].get("Id"):
                remote_ids[record.record_id] = str(found[0]["Id"])
        return seen, remote_ids, differ


def _records(answer: Answer | NoAnswer) -> tuple[list[dict[str, Any]], bool] | None:
    """The records of a query's answer, and whether they are all."""
    body = answer.json() if answer.status == 200 else None
    if not isinstance(body, dict) or not isinstance(body.get("records"), list):
        return None
    rows = list(objects(body["records"]))
    return rows, body.get("done") is True and body.get("totalSize") == len(rows)


connect: Final[CrmFactory] = Salesforce
