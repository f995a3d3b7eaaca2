"""A bucket of an S3-compatible object store: one file for each batch of records, and a manifest after it.

    PUT /BUCKET/contacts/EVENT-HASH.ndjson.gz
    PUT /BUCKET/contacts/_manifests/EVENT-HASH.json

A store has a file whole or not at all, and a file counts once its manifest is there. The same records in the same
versions are the same bytes under the same names, so a call can be made again. Where a batch cannot come again as it
was, because one of its records has changed, the others are in two files, in the same version: `(id, version)` says so,
and a version that comes late is older than one that is there (`docs/destinations-object.md`).

What is there is not read back: a file says nothing of records that are in others. The options are
`app.destinations.kinds.ObjectOptions`.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Unpack

from msgspec.structs import replace

from app.destinations.kinds import ObjectOptions
from app.destinations.options import read_options
from app.destinations.testing.rules import Step
from app.resources.declaration import Resource
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.answers import refused, step
from jobs.crm.exchange import Answer
from jobs.crm.object.answers import ObjectJudge, is_stored
from jobs.crm.object.bucket import Bucket
from jobs.crm.object.files import MOST_BYTES, Content, Files
from jobs.crm.port import (
    Access,
    CrmFactory,
    Headers,
    Health,
    Keep,
    Listing,
    Outcome,
    ReadBack,
    Reply,
    SentRecord,
    keep_nothing,
)

BATCH_SIZE: Final = 5_000
_CANARY: Final = "_canary"
_NOT_READ: Final = "files are not read back"


class ObjectStore:
    """One tenant's connection to one bucket (`jobs.crm.port.Crm`)."""

    reads_back = False
    repeatable = True  # a repetition writes the same bytes under the same names
    appends = True
    archives = True
    lists = False
    bulk = None
    updates_apart = False
    learns = False

    def __init__(
        self,
        *,
        resource: Resource,
        options: dict[str, Any],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        **access: Unpack[Access],
    ) -> None:
        chosen = read_options(options, ObjectOptions)
        self.batch_size = chosen.batch_size or BATCH_SIZE
        self._files = Files(chosen, resource)
        place = "/".join(part for part in (chosen.bucket or "BUCKET", self._files.folder))
        self._judge = ObjectJudge(access["authorizer"], now, place, chosen.region)
        self._bucket = Bucket(chosen, now, **access)

    async def push(self, records: list[SentRecord], headers: Headers, keep: Keep = keep_nothing) -> Reply:
        """A file; see `jobs.crm.port.Crm.push`. Whatever is there of a record, we have written."""
        return await self._write(records, headers)

    async def archive(self, records: list[SentRecord], headers: Headers) -> Reply:
        """A file of tombstones; see `jobs.crm.port.Crm.archive`."""
        return await self._write(records, headers)

    async def read_back(self, records: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        """It does not; see `jobs.crm.port.Crm.read_back`."""
        return ReadBack(seen=None, health=Health.WELL, detail=_NOT_READ)

    async def list_keys(self, after: str | None, headers: Headers) -> Listing:
        """It does not; see `jobs.crm.port.Crm.list_keys`."""
        return Listing(keys=None, health=Health.WELL, detail=_NOT_READ)

    async def check(self, headers: Headers) -> list[Step]:
        """List one file, for which deliveries do not need the right."""
        answer = await self._bucket.list_one(f"{self._files.folder}/", headers)
        body = answer.json() if isinstance(answer, Answer) else None
        if isinstance(answer, Answer) and answer.well and b"<ListBucketResult" in answer.body:
            return [step("bucket", True, "The bucket is there, and the access key may list it.", answer)]
        if isinstance(body, dict) and body.get("Code") == "AccessDenied":
            words = (
                "The access key is known, and may not list the bucket. Deliveries need only write; whether it may, a "
                "test with the canary shows."
            )
            return [step("bucket", None, words, answer)]
        return [refused("bucket", self._judge, answer)]

    async def write_test(self, headers: Headers) -> list[Step]:
        """Store a file where nobody looks for records, and remove it."""
        key = f"{self._files.folder}/{_CANARY}/{headers.event_id}.json"
        answer = await self._bucket.put(Content(key, b"{}\n", "application/json"), headers)
        if not is_stored(answer):
            return [refused("write", self._judge, answer)]
        steps = [step("write", True, f"The file {key} was stored.", answer)]
        gone = await self._bucket.delete(key, headers)
        if gone.well:
            steps.append(step("take away", True, "It was removed.", gone))
        else:
            words = f"Remove {key}: the access key may only write, which is all that deliveries need"
            steps.append(step("take away", None, f"{words}. {self._judge.verdict(gone).detail}", gone))
        return steps

    async def _write(self, records: list[SentRecord], headers: Headers) -> Reply:
        if not records:
            return Reply(outcomes=[], health=Health.WELL)
        made = await asyncio.to_thread(self._files.make, records, headers.event_id)
        if made is None:
            return _too_large(records)
        spent = 0.0
        for content in made:  # the manifest says of a file that it is there, so it comes after it
            answer = await self._bucket.put(content, headers, seconds=self._bucket.left(spent))
            spent += answer.seconds
            if not is_stored(answer):
                return replace(self._judge.reply(records, answer), seconds=spent)
        outcomes = [_stored(record) for record in records]
        return Reply(outcomes=outcomes, health=Health.WELL, seconds=spent, status=answer.status)


def _too_large(records: list[SentRecord]) -> Reply:
    """Without a call; halves of the batch are not."""
    words = f"the records are more than {MOST_BYTES} bytes, too much for one file"
    outcomes = [Outcome(c.record_id, EffectState.RETRY, ErrorCode.DESTINATION_REJECTED, words) for c in records]
    return Reply(outcomes=outcomes, health=Health.WELL, rejected_whole=True, detail=words)


def _stored(record: SentRecord) -> Outcome:
    """Nobody else has a record there."""
    if record.deleted:
        return Outcome(record.record_id, EffectState.OK)
    return Outcome(record.record_id, EffectState.OK, remote_id=record.record_id, created=True)


connect: Final[CrmFactory] = ObjectStore
