"""HubSpot: contacts and companies by batch upsert and batch read, keyed by a unique property of ours.

Of each object the account needs one property with unique values that holds our business key: `tranche_id`, or what the
destination's options name.

The options are `app.destinations.kinds.HubSpotOptions`.

Source: HubSpot's reference of the batch endpoints of contacts and companies. Every field of an answer is treated as
optional, as its page on error handling asks.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Unpack
from urllib.parse import urlencode

from msgspec.structs import replace

from app.deliveries.before_images import Adoption
from app.destinations.kinds import HubSpotOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.resources.types.contacts import CONTACTS
from app.vocabulary.states import EffectState
from jobs.crm.answers import nameless, objects, unlisted
from jobs.crm.exchange import Answer, Connection, NoAnswer
from jobs.crm.hubspot import adoption, check
from jobs.crm.hubspot.answers import HubSpotJudge
from jobs.crm.hubspot.fields import Fields, read_request
from jobs.crm.hubspot.outcomes import Outcomes, conflicts_of, context, items, next_page, not_found, properties
from jobs.crm.matching import NOT_KEPT, Found, absent, adopted, group, later, match, normal, refusal
from jobs.crm.port import (
    Access,
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
from jobs.crm.tally import Tally

BATCH_SIZE: Final = 100
_MANY: Final = BATCH_SIZE // 2
"""Records new to us that make a batch look like part of an import, which may be into an account with a history. A few
are everyday traffic, which a look beforehand would only cost a call more."""
_PAGE: Final = 200
"""Most results of a search."""


class HubSpot:
    """One tenant's connection to one HubSpot account (`jobs.crm.port.Crm`)."""

    reads_back = True
    repeatable = False
    appends = False
    archives = True
    lists = True
    bulk = None
    updates_apart = False
    write_test = None
    learns = True

    def __init__(
        self,
        *,
        resource: Resource,
        options: dict[str, Any],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        **access: Unpack[Access],
    ) -> None:
        chosen = read_options(options, HubSpotOptions)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self._fields = Fields(chosen, resource)
        self._objects = f"/crm/v3/objects/{self._fields.object}"
        self._base = f"{self._objects}/batch"
        self._judge = HubSpotJudge(access["authorizer"], self._fields, chosen.time_zone, now)
        # HubSpot knows contacts by their address as well, and companies by no property of its own.
        self._match = chosen.match_field(resource)
        name = None if self._match is None else self._fields.name_at(self._match)
        self._adopts = name == "email" and resource.type_id == CONTACTS.type_id
        self._searched_by = None if self._adopts else name
        """The property that records are looked for by, if HubSpot itself does not keep it unique."""
        self._outcomes = Outcomes(self._judge, self._fields.key, adopts=self._adopts)
        self._crowded = None if self._adopts else False
        """Whether most records of late were in the account before: then they are looked for first. `None`: nobody
        knows yet."""
        self._connection = Connection(**access)

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """Batch upsert. With `match_on`, records that HubSpot had before are updated by its own id: contacts whose
        address it has, which a refusal or a look beforehand shows, at one read and one update for a batch
        (`jobs.crm.hubspot.adoption`); others after one search. See `jobs.crm.port.Crm.push`."""
        tally = Tally(records)
        await self._update(tally, [c for c in records if c.adopted or c.released], headers)
        if self._searched_by is not None and tally.well:
            await self._search(tally, self._searched_by, headers, keep)
        fresh = [c for c in tally.open() if c.remote_id is None and adoption.address(self._fields, c) is not None]
        if tally.well and (self._crowded or (self._crowded is None and len(fresh) >= _MANY)):
            # Refused first, every batch would cost a call more.
            unnamed = dict.fromkeys((c.record_id for c in fresh), "")
            settled = len(tally.outcomes)
            await self._settle(tally, unnamed, headers, keep, optional=True)
            self._crowded = 2 * (len(tally.outcomes) - settled) >= len(fresh)
        rest = tally.open()
        if rest and tally.well:
            answer = await self._upsert(rest, headers, tally.seconds)
            if items(answer) is None:
                await self._refused(tally, rest, answer, headers, keep)
            else:
                await self._answered(tally, rest, answer, headers, keep)
        return tally.reply()

    async def _search(self, tally: Tally, name: str, headers: Headers, keep: Keep) -> None:
        """Look for records that have no unique property in common with ours, by the values of one that is not unique.
        The search lags by seconds, and what is looked for was there long before."""
        values = {c.record_id: self._fields.properties(c).get(name, "") for c in tally.open() if c.remote_id is None}
        pairs = [(c, values[c.record_id]) for c in tally.open() if normal(values.get(c.record_id, ""))]
        if not pairs:
            return
        wanted = sorted({normal(value) for _, value in pairs})
        filters = [{"propertyName": name, "operator": "IN", "values": wanted}]  # of texts in lower case
        names = sorted({name, self._fields.key, *self._fields.names(c for c, _ in pairs)})
        payload = {"filterGroups": [{"filters": filters}], "properties": names, "limit": _PAGE}
        left = self._connection.left(tally.seconds)
        answer = await self._connection.call("POST", f"{self._objects}/search", payload, headers, seconds=left)
        body = items(answer)
        if body is None:
            tally.add(self._judge.not_done([c for c, _ in pairs], answer))
            return
        if next_page(body) is not None and len(pairs) > 1:
            tally.add(self._judge.too_many([c for c, _ in pairs], answer))
            return
        tally.note(answer)
        found = [
            (held.get(name), Found(str(result["id"]), held.get(self._fields.key) or None, held))
            for result in objects(body["results"])
            if result.get("id") is not None and (held := properties(result)) is not None
        ]
        matches = match(pairs, group(found), field=self._match or "")
        tally.outcomes |= matches.refused
        await self._adopt(
            tally, [(c, matches.adopt[c.record_id]) for c, _ in pairs if c.record_id in matches.adopt], headers, keep
        )

    async def _answered(
        self, tally: Tally, records: list[SentRecord], answer: Answer | NoAnswer, headers: Headers, keep: Keep
    ) -> None:
        """An answer that speaks of each record; those whose addresses HubSpot knows already may be adopted."""
        reply, conflicts = self._read(records, answer), conflicts_of(records, items(answer) or {})
        if not self._adopts or not conflicts:
            tally.add(reply)
            return
        self._crowded = 2 * len(conflicts) >= len(records)
        tally.add(reply, but=conflicts)
        await self._settle(tally, conflicts, headers, keep)
        for outcome in reply.outcomes:
            # Not found now: HubSpot's own words are all that is known.
            tally.outcomes.setdefault(outcome.record_id, outcome)

    async def _refused(
        self, tally: Tally, records: list[SentRecord], answer: Answer | NoAnswer, headers: Headers, keep: Keep
    ) -> None:
        """An answer to the whole batch. If it is that an address is taken, those that are taken can be found."""
        body = answer.json() if answer.status == 409 else None
        conflict = adoption.existing_id(body) if isinstance(body, dict) else None
        settled = len(tally.outcomes)
        if conflict is not None:
            fresh = [c for c in records if adoption.address(self._fields, c) is not None]
            named = conflict if len(records) == 1 else ""  # of several nobody knows whose address it is
            tally.seconds += answer.seconds
            await self._settle(tally, dict.fromkeys((c.record_id for c in fresh), named), headers, keep)
            # One such record refuses the next batch as well, which costs a call more than to look for it first.
            self._crowded = self._adopts and len(tally.outcomes) > settled
        rest = tally.open()
        if not rest:
            return
        if len(tally.outcomes) == settled:  # it was about something else, or said nothing that helps
            tally.add(self._judge.reply(rest, answer))
        elif tally.well:
            tally.add(self._read(rest, await self._upsert(rest, headers, tally.seconds)))

    async def _settle(
        self, tally: Tally, conflicts: dict[str, str], headers: Headers, keep: Keep, *, optional: bool = False
    ) -> None:
        """Look for records that HubSpot may know by their address alone, and adopt them; who is not found stays open.
        `conflicts`: record id → the record that HubSpot named, or an empty string. `optional`: an upsert finds them as
        well, so a look that is refused leaves all of them open."""
        records = [c for c in tally.open() if c.record_id in conflicts]
        if not records:
            return
        by_id = all(conflicts.values())
        names = conflicts if by_id else {c.record_id: adoption.address(self._fields, c) or "" for c in records}
        ids = dict.fromkeys(names[c.record_id] for c in records)
        # With what is about to be overwritten.
        asked = sorted({"email", *self._fields.names(records)}) if self._adopts else ["email", self._fields.key]
        payload = read_request(ids, asked, None if by_id else "email")
        left = self._connection.left(tally.seconds)
        answer = await self._connection.call("POST", f"{self._base}/read", payload, headers, seconds=left)
        body = items(answer)
        if body is None:
            reply = self._judge.not_done(records, answer)
            refused = reply.pause is None and answer.status is not None and answer.status < 500
            if optional and refused:
                # A token may write and not read; if it is good for nothing, the upsert says so.
                tally.note(answer)
            else:
                tally.add(reply)
            return
        tally.note(answer)
        read = adoption.found_by_id if by_id else adoption.found_by_address
        found = read(body, self._fields.key)
        pairs = [(c, found[names[c.record_id]]) for c in records if names[c.record_id] in found]
        sorted_out = adoption.sort_out(pairs)
        for record in records:
            there = sorted_out.adopt.get(record.record_id)
            words = sorted_out.refused.get(record.record_id)
            if there is not None and not self._adopts:
                where = f"HubSpot has this e-mail address already, at record {there.remote_id}"
                words = f"{where}; to adopt it: {adoption.ADOPT}"
            if words is not None:
                tally.outcomes[record.record_id] = refusal(record, self._judge.words(words))
        if self._adopts:
            adopt = sorted_out.adopt
            await self._adopt(tally, [(c, adopt[c.record_id]) for c in records if c.record_id in adopt], headers, keep)

    async def _adopt(self, tally: Tally, pairs: list[tuple[SentRecord, Found]], headers: Headers, keep: Keep) -> None:
        """Keep what these records hold there, and write to them."""
        if not pairs:
            return
        adoptions = [Adoption(c.record_id, one.remote_id, self._fields.before(c, one.values)) for c, one in pairs]
        # What we know by its id, and only has lost our key, needs nothing kept: that would be what we wrote ourselves.
        unknown = [a for (c, _), a in zip(pairs, adoptions, strict=True) if c.remote_id is None]
        kept = {c.record_id for c, _ in pairs if c.remote_id is not None}
        if unknown:
            kept |= await keep(unknown)
        tally.outcomes |= {c.record_id: later(c, NOT_KEPT) for c, _ in pairs if c.record_id not in kept}
        ready = [adopted(c, a) for (c, _), a in zip(pairs, adoptions, strict=True) if c.record_id in kept]
        await self._update(tally, ready, headers)

    async def _update(self, tally: Tally, records: list[SentRecord], headers: Headers) -> None:
        """Write to records by HubSpot's own id; they were there before us."""
        if not records:
            return
        answer = await self._write("update", records, headers, tally.seconds, lambda c: {"id": c.remote_id or ""})
        reply = self._read(records, answer)
        gone = not_found(items(answer) or {})
        outcomes = [
            absent(c)
            if c.remote_id in gone and o.state is not EffectState.OK
            else replace(o, created=False)
            if o.state is EffectState.OK
            else o
            for c, o in zip(records, reply.outcomes, strict=True)
        ]
        tally.add(replace(reply, outcomes=outcomes))

    async def _upsert(self, records: list[SentRecord], headers: Headers, spent: float) -> Answer | NoAnswer:
        key = {"idProperty": self._fields.key}
        return await self._write("upsert", records, headers, spent, lambda c: {"id": c.record_id, **key})

    async def _write(
        self,
        action: str,
        records: list[SentRecord],
        headers: Headers,
        spent: float,
        name: Callable[[SentRecord], dict[str, str]],
    ) -> Answer | NoAnswer:
        """Send what the records name; `name` says which one there that is."""
        inputs = [
            {**name(c), "properties": self._fields.properties(c), "objectWriteTraceId": str(index)}
            for index, c in enumerate(records)
        ]
        left = self._connection.left(spent)
        return await self._connection.call("POST", f"{self._base}/{action}", {"inputs": inputs}, headers, seconds=left)

    def _read(self, records: list[SentRecord], answer: Answer | NoAnswer) -> Reply:
        body = items(answer)
        if body is None:
            return self._judge.reply(records, answer)
        lacking = self._judge.lacking(records, objects(body.get("errors")))
        return Reply(
            outcomes=self._outcomes.read(records, body),
            health=Health.SETUP_FAULT if lacking else Health.WELL,
            seconds=answer.seconds,
            status=answer.status,
            detail=lacking or "",
        )

    async def check(self, headers: Headers) -> list[Step]:
        """See `jobs.crm.hubspot.check`."""
        return await check.check(self._connection, self._judge, self._fields, headers)

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """Batch archive by HubSpot's id, which passes over what is not there; see `jobs.crm.port.Crm.archive`."""
        inputs = [{"id": record.remote_id} for record in records if record.remote_id is not None]
        if not inputs:
            return Reply(outcomes=[nameless(c) for c in records], health=Health.WELL)
        answer = await self._connection.call("POST", f"{self._base}/archive", {"inputs": inputs}, headers)
        if answer.status != 204:
            return self._judge.reply(records, answer)
        outcomes = [
            nameless(c) if c.remote_id is None else Outcome(c.record_id, EffectState.OK, remote_id=c.remote_id)
            for c in records
        ]
        return Reply(outcomes=outcomes, health=Health.WELL, seconds=answer.seconds, status=answer.status)

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """Batch read by our key, which knows no versions; see `jobs.crm.port.Crm.read_back`."""
        if not records:
            return ReadBack(seen={}, health=Health.WELL)
        ids = [record.record_id for record in records]
        payload = read_request(ids, self._fields.names(records), self._fields.key)
        answer = await self._connection.call("POST", f"{self._base}/read", payload, headers)
        body = items(answer)
        if body is None:
            return self._judge.unread(answer)
        by_key = {record.record_id: record for record in records}
        seen: dict[str, Seen] = {}
        remote_ids: dict[str, str] = {}
        differ: dict[str, list[Difference]] = {}
        for error in objects(body.get("errors")):
            if error.get("category") == "OBJECT_NOT_FOUND":
                seen |= {key: Seen.ABSENT for key in context(error, "ids") if key in by_key}
        for result in objects(body["results"]):
            values = properties(result)
            record = by_key.get(str(values.get(self._fields.key)))
            if record is not None:
                found = [] if record.deleted else self._fields.compare(record, values)
                seen[record.record_id] = Seen.DIFFERS if found or record.deleted else Seen.MATCHES
                if found:
                    differ[record.record_id] = found
                if result.get("id") is not None:
                    remote_ids[record.record_id] = str(result["id"])
        return ReadBack(
            seen=seen,
            remote_ids=remote_ids,
            differences=differ,
            health=Health.WELL,
            seconds=answer.seconds,
            status=answer.status,
        )

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """A page of all records of the account, which a search could not show: it ends after 10,000."""
        query = {"limit": str(BATCH_SIZE), "properties": self._fields.key, "archived": "false"}
        path = f"{self._objects}?{urlencode(query if after is None else query | {'after': after})}"
        answer = await self._connection.call("GET", path, None, headers)
        body = items(answer)
        if body is None:
            return unlisted(self._judge.unread(answer))
        keys = {
            str(key): str(result.get("id") or "")
            for result in objects(body["results"])
            if (key := properties(result).get(self._fields.key))
        }
        return Listing(
            keys=keys, after=next_page(body), health=Health.WELL, seconds=answer.seconds, status=answer.status
        )


connect: Final[CrmFactory] = HubSpot
