"""Salesforce: Contact records by sObject Collections, keyed by an external id field of ours.

The organisation needs one custom field of Contact, text of 255 characters, marked External ID, Unique and
case-sensitive: `Tranche_Id__c`, or what the options name (`app.destinations.kinds.SalesforceOptions`).

A collection is done record by record (`allOrNone: false`), and its results are in the order of the request.
Reading back is SOQL on that field: it reads the database itself, where a search reads an index that lags.

Source: REST API Developer Guide, sObject Collections (Upsert, Create, Delete) and Query.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from app.destinations.kinds import SalesforceOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from jobs.crm.answers import nameless
from jobs.crm.checking import NOBODY
from jobs.crm.connection import Connection
from jobs.crm.exchange import Answer, NoAnswer
from jobs.crm.port import Contact, CrmFactory, Headers, Health, Outcome, ReadBack, Reply, Seen, Timeouts
from jobs.crm.salesforce import check
from jobs.crm.salesforce.answers import Quota, SalesforceJudge, lacks
from jobs.crm.salesforce.fields import Fields, literal, parcels
from jobs.crm.tally import Tally

BATCH_SIZE: Final = 200
URL_LENGTH: Final = 7000
"""Salesforce takes 16,384 bytes; proxies on the way often take 8,000."""

_NO_COLUMN: Final = re.compile(r"No such column '([^']+)'")


class Salesforce:
    """One tenant's connection to one Salesforce organisation (`jobs.crm.port.Crm`)."""

    reads_back = True
    repeatable = False
    archives = True
    learns = False

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        base_url: str,
        token: str,
        options: dict[str, Any],
        timeouts: Timeouts,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        chosen = read_options(options, SalesforceOptions)
        self._options = chosen
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self._fields = Fields(chosen)
        self._judge = SalesforceJudge(token, self._fields, now)
        self._quota = Quota(chosen.quota_share, monotonic)
        self._monotonic = monotonic
        self._connection = Connection(session=session, base_url=base_url, token=token, timeouts=timeouts)
        self._base = f"/services/data/v{chosen.api_version.removeprefix('v')}"

    async def push(self, contacts: list[Contact], headers: Headers) -> Reply:
        """Upsert of a collection, and creation of those new records that lack a last name; see
        `jobs.crm.port.Crm.push`."""
        if len(contacts) > BATCH_SIZE:
            raise ValueError(f"at most {BATCH_SIZE} contacts a call")
        if not contacts:
            return Reply(outcomes=[], health=Health.WELL)
        nameless: dict[str, dict[str, Any]] = {}

        def read(contact: Contact, result: Any) -> Outcome:
            if lacks(result, self._fields.last_name):
                record = self._fields.new_record(contact)
                if record is not None:
                    nameless[contact.contact_id] = record
            return self._judge.written(contact, result)

        path = f"{self._base}/composite/sobjects/Contact/{self._fields.external_id_field}"
        payload = {"allOrNone": False, "records": [self._fields.record(c) for c in contacts]}
        reply = await self._collect("PATCH", path, payload, contacts, headers, read)
        if not nameless:
            return reply
        tally = Tally(contacts)
        tally.add(reply, but=nameless)
        second = await self._create(
            list(nameless.values()),
            [c for c in contacts if c.contact_id in nameless],
            headers,
            seconds=max(self._connection.timeouts.total - reply.seconds, 0.001),
        )
        tally.add(second)
        return tally.reply()

    async def _create(
        self, records: list[dict[str, Any]], contacts: list[Contact], headers: Headers, *, seconds: float
    ) -> Reply:
        """Not an upsert: somebody may have made the record since, and its last name is theirs. Salesforce refuses such
        a record, and the next attempt's upsert finds it."""
        path = f"{self._base}/composite/sobjects"
        payload = {"allOrNone": False, "records": records}
        return await self._collect(
            "POST", path, payload, contacts, headers, self._judge.created, seconds=seconds
        )

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.salesforce.check`."""

        async def get(path: str) -> Answer | NoAnswer:
            return await self._connection.call("GET", path, None, headers)

        query = self._query([self._fields.external_id_field], [quote(literal(NOBODY), safe="")])
        return await check.check(get, self._judge, self._options, self._base, query)

    async def archive(self, contacts: list[Contact], headers: Headers) -> Reply:
        """Deletion by record id, into the recycle bin; see `jobs.crm.port.Crm.archive`."""
        if len(contacts) > BATCH_SIZE:
            raise ValueError(f"at most {BATCH_SIZE} contacts a call")
        named = [c for c in contacts if c.remote_id is not None]
        if not named:
            return Reply(outcomes=[nameless(c) for c in contacts], health=Health.WELL)
        ids = ",".join(quote(c.remote_id or "", safe="") for c in named)
        path = f"{self._base}/composite/sobjects?ids={ids}&allOrNone=false"
        reply = await self._collect("DELETE", path, None, named, headers, self._judge.deleted)
        if len(named) == len(contacts):
            return reply
        outcomes = iter(reply.outcomes)
        return Reply(
            outcomes=[nameless(c) if c.remote_id is None else next(outcomes) for c in contacts],
            health=reply.health,
            pause=reply.pause,
            seconds=reply.seconds,
            rejected_whole=reply.rejected_whole,
            status=reply.status,
            detail=reply.detail,
        )

    async def read_back(self, contacts: list[Contact], headers: Headers) -> ReadBack:
        """SOQL by our key, in as many queries as the length of a URL asks for, within one total timeout; see
        `jobs.crm.port.Crm.read_back`."""
        if len(contacts) > BATCH_SIZE:
            raise ValueError(f"at most {BATCH_SIZE} contacts a call")
        if not contacts:
            return ReadBack(seen={}, health=Health.WELL)
        pause = self._quota.pause()
        if pause is not None:
            return self._quota.unread(pause)
        started = self._monotonic()
        names = self._fields.names(contacts)
        room = URL_LENGTH - len(self._query(names, []))
        keys = [quote(literal(c.contact_id) + ",", safe="") for c in contacts]
        records: list[dict[str, Any]] = []
        complete, status = True, None
        for parcel in parcels(keys, room):
            answer, names = await self._ask(names, parcel, headers, started)
            found = _records(answer)
            if found is None:
                return self._judge.unread(answer)
            records += found[0]
            complete = complete and found[1]
            status = answer.status
        seen, remote_ids = self._compare(contacts, records, complete)
        return ReadBack(
            seen=seen,
            remote_ids=remote_ids,
            health=Health.WELL,
            seconds=self._monotonic() - started,
            status=status,
        )

    async def _collect(
        self,
        method: str,
        path: str,
        payload: object,
        contacts: list[Contact],
        headers: Headers,
        outcome: Callable[[Contact, Any], Outcome],
        *,
        seconds: float | None = None,
    ) -> Reply:
        """One call with a result a contact, in their order."""
        pause = self._quota.pause()
        if pause is not None:
            return self._quota.closed(contacts, pause)
        answer = await self._connection.call(method, path, payload, headers, seconds=seconds)
        self._quota.note(answer)
        if isinstance(answer, Answer) and answer.status == 200:
            results = answer.json()
            if isinstance(results, list) and len(results) == len(contacts):
                lacking = self._judge.lacking(contacts, results)
                return Reply(
                    outcomes=[outcome(c, result) for c, result in zip(contacts, results, strict=True)],
                    health=Health.SETUP_FAULT if lacking else Health.WELL,
                    seconds=answer.seconds,
                    status=answer.status,
                    detail=lacking or "",
                )
        return self._judge.reply(contacts, answer)

    async def _ask(
        self, names: list[str], keys: list[str], headers: Headers, started: float
    ) -> tuple[Answer | NoAnswer, list[str]]:
        """One query; a field that is not there, and would fail it for all contacts, is left out."""
        while True:
            left = self._connection.timeouts.total - (self._monotonic() - started)
            answer = await self._connection.call(
                "GET", self._query(names, keys), None, headers, seconds=max(left, 0.001)
            )
            self._quota.note(answer)
            missing = _NO_COLUMN.search(self._judge.said(answer.json())) if answer.status == 400 else None
            fewer = [n for n in names if missing is None or n.casefold() != missing[1].casefold()]
            if len(fewer) == len(names) or self._fields.external_id_field not in fewer:
                return answer, names
            names = fewer

    def _query(self, names: list[str], keys: list[str]) -> str:
        """`keys` are encoded literals, each with its comma."""
        fields = ",".join(["Id", *names])
        where = f"FROM Contact WHERE {self._fields.external_id_field} IN ("
        head = quote(f"SELECT {fields} {where}", safe=",")
        return f"{self._base}/query/?q={head}{''.join(keys).removesuffix('%2C')}%29"

    def _compare(
        self, contacts: list[Contact], records: list[dict[str, Any]], complete: bool
    ) -> tuple[dict[str, Seen], dict[str, str]]:
        """Only if every record that was found is here is one that is not here not there."""
        held: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            # Salesforce answers with the field's own spelling, whichever of its names was asked for.
            folded = {name.casefold(): value for name, value in record.items()}
            held.setdefault(str(folded.get(self._fields.external_id_field.casefold())), []).append(record)
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        for contact in contacts:
            found = held.get(contact.contact_id, [])
            if not found:
                if complete:
                    seen[contact.contact_id] = Seen.ABSENT
                continue
            matches = len(found) == 1 and not contact.deleted and self._fields.match(contact, found[0])
            seen[contact.contact_id] = Seen.MATCHES if matches else Seen.DIFFERS
            if found[0].get("Id"):
                remote_ids[contact.contact_id] = str(found[0]["Id"])
        return seen, remote_ids


def _records(answer: Answer | NoAnswer) -> tuple[list[dict[str, Any]], bool] | None:
    """The records of a query's answer, and whether they are all."""
    body = answer.json() if isinstance(answer, Answer) and answer.status == 200 else None
    if not isinstance(body, dict) or not isinstance(body.get("records"), list):
        return None
    records = [record for record in body["records"] if isinstance(record, dict)]
    return records, body.get("done") is True and body.get("totalSize") == len(records)


connect: Final[CrmFactory] = Salesforce
