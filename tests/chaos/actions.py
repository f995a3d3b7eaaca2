"""What a client may do, one small function each: a new kind is a function here and its weight in the plan.

A function gets the round, its action and randomness of its own. The records `s00` to `s24` of each type are
everybody's; those of an action alone begin with its `group`, which actions of other types have as well: the same ids,
and the same keys, are used in all types. Every item carries a `mark` that no other item has, so that whatever stands in
a record, in the ledger or at a CRM tells which item put it there. (A deletion leaves nothing that could carry one.)
"""

from __future__ import annotations

import asyncio
import csv
import io
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from tests.chaos.client import Item, Request, Round
from tests.chaos.plan import TYPES, Action
from tests.chaos.resources import ADDED

SHARED: Final = 25
_NEW_FIELDS: Final = (
    ({"type": "string", "maxLength": 40}, "très bleu"),
    ({"type": "integer"}, 7),
    ({"type": "number"}, 0.5),
    ({"type": "boolean"}, False),
    ({"type": "array", "items": {"type": "string"}}, ["a", "b"]),
    ({"enum": ["small", "large"]}, "large"),
)
"""What a tenant may add to a type, with a value."""
_encode = msgspec.json.Encoder().encode

Do = Callable[[Round, Action, random.Random, float], Awaitable[None]]


def group(action: Action) -> int:
    """Actions of different types have the same, those of one type do not."""
    return action.number // TYPES


def own(action: Action, n: int) -> str:
    return f"a{group(action):02}-{n:03}"


def shared(chance: random.Random, count: int) -> list[str]:
    return [f"s{n:02}" for n in chance.sample(range(SHARED), count)]


def write(
    action: Action, chance: random.Random, ids: Sequence[str], *, deletions: float = 0.0, **more: Any
) -> list[Item]:
    """Sound items with these ids, each with some fields and its mark; some of them delete their records."""
    items = []
    for n, record_id in enumerate(ids):
        mark = f"m{action.number}.{n}"
        fields = action.type.write(chance, record_id, f"{action.number:03}{n:03}") | {"attributes": {"mark": mark}}
        if chance.random() < deletions:
            items.append(Item(id=record_id, fields={"deleted": True}))
        else:
            items.append(Item(id=record_id, mark=mark, fields=fields | more))
    return items


def mark_anew(items: Sequence[Item], turn: str) -> None:
    """The same records once more, by another import of the action."""
    for item in items:
        if item.mark:
            item.mark = item.fields["attributes"]["mark"] = f"{item.mark}-{turn}"


def as_json(action: Action, items: Sequence[Item]) -> bytes:
    return _encode({"items": [{"id": item.id} | item.fields for item in items]})


def as_ndjson(action: Action, items: Sequence[Item]) -> bytes:
    return b"".join(_encode({"id": item.id} | item.fields) + b"\n" for item in items)


def as_csv(action: Action, items: Sequence[Item]) -> bytes:
    """A column that an item has not is an empty cell, which leaves the field alone."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = (*action.type.columns, "deleted")
    writer.writerow(["id", *names, "mark"])
    for item in items:
        found = {name: value for name in names if (value := item.fields.get(name)) is not None}
        writer.writerow([item.id, *(_cell(found.get(name, "")) for name in names), item.mark])
        item.fields = found | ({"attributes": {"mark": item.mark}} if item.mark else {})
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def request(action: Action, items: list[Item], body: bytes | None = None, *, turn: str = "", **more: Any) -> Request:
    """An import of these items under this action's key."""
    return Request(
        type=action.type.name,
        key=f"key-{group(action)}" + (f"-{turn}" if turn else ""),
        kind=action.kind,
        items=items,
        body=as_json(action, items) if body is None else body,
        **more,
    )


def some(action: Action, chance: random.Random) -> list[str]:
    """Ids of an ordinary import: some of everybody's, some of one's own."""
    return [*shared(chance, chance.randint(2, 12)), *(own(action, n) for n in range(chance.randint(1, 25)))]


async def push(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Of some all destinations must take every item: what one of them refuses is taken back."""
    items = write(action, chance, some(action, chance), deletions=0.05)
    query = "?consistency=all_destinations" if chance.random() < 0.4 else ""
    await round_.send(request(action, items, query=query), until=until)


async def push_csv(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    items = write(action, chance, some(action, chance), deletions=0.1)
    body = as_csv(action, items)
    await round_.send(request(action, items, body, content_type="text/csv"), until=until)


async def push_ndjson(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    items = write(action, chance, some(action, chance), deletions=0.1)
    body = as_ndjson(action, items)
    await round_.send(request(action, items, body, content_type="application/x-ndjson"), until=until)


async def repeat(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """What was sent before, to the byte, under the same key: perhaps while the first is under way."""
    known = [r for r in round_.requests if r.expect == "batch"]
    if known:
        again = chance.choice(known)
        for _ in range(chance.randint(1, 3)):
            await round_.send_once(again)


async def same_again(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """The same items under two keys, one after the other: the second time nothing changes."""
    items = write(action, chance, [own(action, n) for n in range(8)])
    first = request(action, items)
    await round_.send(first, until=until)
    await round_.send(request(action, items, turn="again"), until=until)


async def reuse_key(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Another body under a key that was answered: refused, and nothing of it is done."""
    first = request(action, write(action, chance, [own(action, n) for n in range(5)]))
    if await round_.send(first, until=until) is None:
        return
    items = write(action, chance, [own(action, n) for n in range(5, 9)])
    mark_anew(items, "other")
    await round_.send(request(action, items, expect="422"), until=until)


async def expect_version(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Changes that expect the version last seen: whoever comes first wins."""
    items = []
    for item in write(action, chance, shared(chance, chance.randint(1, 6)), deletions=0.1):
        items.append(item)
        seen = round_.versions.get((action.type.name, item.id), 0)
        item.fields["if_version"] = seen + chance.choice((0, 0, 0, 1))
    await round_.send(request(action, items), until=until)


async def source_version(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Changes in the sender's own order, which do not arrive in it."""
    items = write(action, chance, [f"v{n:02}" for n in range(chance.randint(1, 6))], deletions=0.15)
    for item in items:
        item.fields["source_version"] = chance.randint(1, 20)
    await round_.send(request(action, items), until=until)


async def clear_attributes(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """A note is set, and taken away again when it may have arrived."""
    ids = [*shared(chance, 2), *(own(action, n) for n in range(4))]
    for turn, note in (("set", f"note of {action.number}"), ("clear", None)):
        items = write(action, chance, ids)
        mark_anew(items, turn)
        for item in items:
            item.fields["attributes"]["note"] = note
        await round_.send(request(action, items, turn=turn), until=until)
        await asyncio.sleep(chance.choice((0, 0.2, 0.4)))


async def delete(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Records are deleted that may have arrived, or were never there; some are imported again, with other fields."""
    ids = [*shared(chance, 3), *(own(action, n) for n in range(6))]
    turns = (("there", 0.0), ("gone", 0.7), ("back", 0.2))
    for turn, deletions in turns[chance.randrange(2) : chance.randint(2, 3)]:
        items = write(action, chance, ids, deletions=deletions)
        mark_anew(items, turn)
        await round_.send(request(action, items, turn=turn), until=until)
        await asyncio.sleep(chance.choice((0, 0.1, 0.3)))


async def declare(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """The tenant adds a field to the type while others import, and names it at once."""
    name = f"{ADDED}{action.number}"
    schema, value = chance.choice(_NEW_FIELDS)
    if await round_.declare(action.type, {name: schema}, until=until):
        items = write(action, chance, some(action, chance), **{name: value})
        later = chance.choice(("", "respond-async"))  # a worker reads it then
        await round_.send(request(action, items, prefer=later), until=until)


async def poisoned(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Some items cannot be stored; the others are none the worse for it."""
    items = write(action, chance, some(action, chance))
    for item in chance.sample(items, min(len(items), chance.randint(1, 5))):
        item.poison = True
        common = ({"colour": "red"}, {"attributes": [item.mark]})
        item.fields |= chance.choice((*action.type.poison, *common))
    await round_.send(request(action, items), until=until)


async def duplicates(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """One id twice: equal items are one, differing ones fail or the last one wins."""
    items = write(action, chance, [own(action, n) for n in range(10)])
    last_wins = chance.random() < 0.5
    equal = msgspec.structs.replace(items[0])
    other = msgspec.structs.replace(items[1], mark=f"{items[1].mark}-other")
    other.fields = items[1].fields | {"attributes": {"mark": other.mark}}
    if not last_wins:
        other.poison = items[1].poison = True
    items += [equal, other]
    query = "?on_duplicate=last_wins" if last_wins else ""
    await round_.send(request(action, items, query=query, last_wins=last_wins), until=until)


async def atomic(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    items = write(action, chance, some(action, chance))
    await round_.send(request(action, items, query="?atomic=true", atomic=True), until=until)


async def atomic_poisoned(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """All or nothing, with one that cannot be: nothing."""
    items = write(action, chance, some(action, chance))
    chosen = chance.choice(items)
    chosen.poison = True
    chosen.fields |= action.type.poison[0]
    await round_.send(request(action, items, query="?atomic=true", atomic=True), until=until)


async def malformed(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """No batch at all."""
    items = write(action, chance, [own(action, 0)])
    body = chance.choice((as_json(action, items)[:-3], b'{"items": {}}', b"\xff\xfe\xfd", b""))
    await round_.send(request(action, items, body, expect="400"), until=until)


async def dry_run(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    items = write(action, chance, some(action, chance))
    await round_.send(request(action, items, query="?dry_run=true", dry_run=True), until=until)


async def held(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """The answer waits for the effects."""
    items = write(action, chance, some(action, chance), deletions=0.05)
    await round_.send(request(action, items, prefer="wait=1"), until=until)


async def large(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """More than is answered within the request, with an id here and there that stands twice."""
    ids = [*shared(chance, 5), *(own(action, n) for n in range(chance.randint(80, 200)))]
    items = write(action, chance, ids, deletions=0.03)
    if chance.random() < 0.4:
        items.append(msgspec.structs.replace(items[7]))
    kind = chance.choice(("json", "csv", "ndjson"))
    content_type = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}[kind]
    body = {"json": as_json, "csv": as_csv, "ndjson": as_ndjson}[kind](action, items)
    await round_.send(request(action, items, body, content_type=content_type, prefer="respond-async"), until=until)


async def large_atomic(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    items = write(action, chance, [own(action, n) for n in range(chance.randint(81, 120))])
    if chance.random() < 0.5:
        chosen = chance.choice(items)
        chosen.poison = True
        chosen.fields |= action.type.poison[0]
    await round_.send(request(action, items, query="?atomic=true", atomic=True), until=until)


async def cancel(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """A large import that is thought better of."""
    items = write(action, chance, [own(action, n) for n in range(chance.randint(200, 500))])
    asked = request(action, items, prefer="respond-async")
    told = await round_.send(asked, until=until)
    if told is not None:
        await asyncio.sleep(chance.choice((0, 0.1, 0.2, 0.3)))
        await round_.act("cancel", told["job_id"])


async def retry_job(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """Whatever failed of some job is tried again, where the API offers it."""
    if round_.can("POST", "/v1/jobs/{job_id}/retry") and round_.jobs:
        await round_.act("retry", chance.choice(round_.jobs))


async def undo(round_: Round, action: Action, chance: random.Random, until: float) -> None:
    """An import is taken back, where the API offers it; asked twice, it is one undo.

    Mostly one of its own, now and then after somebody changed some of it or with its undo taken back, too; else
    whatever was done.
    """
    if not round_.can("POST", "/v1/jobs/{job_id}/undo"):
        return
    if chance.random() < 0.3 and round_.jobs:
        await round_.act("undo", chance.choice(round_.jobs))
        return
    ids = [*shared(chance, 3), *(own(action, n) for n in range(6))]
    told = await round_.send(request(action, write(action, chance, ids, deletions=0.1)), until=until)
    if told is None:
        return
    if chance.random() < 0.4:
        items = write(action, chance, [ids[-1], ids[0]], deletions=0.2)
        mark_anew(items, "since")
        newer = await round_.send(request(action, items, turn="since"), until=until)
        if newer is not None and chance.random() < 0.5:
            # The newest first: then the older one stands again, and can be taken back as if nothing had been since.
            await round_.act("undo", newer["job_id"])
            await asyncio.sleep(chance.choice((0.2, 0.5)))
    undone = None
    for _ in range(chance.randint(1, 2)):
        undone = await round_.act("undo", told["job_id"])
    if undone is not None and "job_id" in undone and chance.random() < 0.3:
        await asyncio.sleep(chance.choice((0.2, 0.5)))
        await round_.act("undo", undone["job_id"])


async def do(round_: Round, action: Action, *, began: float, until: float) -> None:
    """Do an action at its time, or as soon after it as its client can."""
    await asyncio.sleep(max(0.0, began + action.at - time.monotonic()))
    deed: Do = globals()[action.kind]
    await deed(round_, action, random.Random(action.seed), until)
