"""Every rule of the checker is silent about a round in which all is well, and speaks when its promise is broken."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from tests.chaos import checker
from tests.chaos.evidence import STATES as STATES_PAGE
from tests.chaos.evidence import Evidence, reachable, read_states
from tests.chaos.rules import here, there

JOB = "0199-job"
SECRET = "whsec_" + base64.b64encode(b"of the endpoint of a round").decode()
STATES = read_states(
    """
## An item, here
    [*] --> ok
## An item, at one destination
    pending --> ok: told
    pending --> unknown
    unknown --> ok
    pending --> failed
## A delivery (one chunk of at most 100 items for one destination)
    pending --> sending
    sending --> done
## A job
    [*] --> syncing
    syncing --> completed
    syncing --> completed_with_failures
    running --> canceled
## A dead letter
    open --> replayed
## A saga
    running --> done
"""
)


def contact(record_id: str, mark: str, version: int = 1) -> dict[str, Any]:
    return {
        "type": "contacts",
        "record_id": record_id,
        "version": version,
        "deleted": False,
        "fields": {"email": f"{record_id}@example.com", "first_name": "Ada"},
        "attributes": {"mark": mark},
        "source_version": None,
    }


GONE: dict[str, Any] = {"deleted": True, "fields": {}, "attributes": {}}


def record(record_id: str, mark: str) -> dict[str, str]:
    return {"email": f"{record_id}@example.com", "firstname": "Ada", "mark": mark, "tranche_id": record_id}


def item(index: int, record_id: str) -> dict[str, Any]:
    return {"index": index, "id": record_id, "status": "ok", "result": "created", "version": 1}


def shows(row: dict[str, Any]) -> dict[str, Any]:
    """A record as it is listed."""
    return {"id": row["record_id"], "version": row["version"], "attributes": row["attributes"], **row["fields"]}


def effect(seq: int, key: str, mark: str, *, changed: bool = True) -> dict[str, Any]:
    return {
        "row": "effect",
        "type": "contacts",
        "seq": seq,
        "call": 1,
        "key": key,
        "id": f"record {key}",
        "properties": record(key, mark),
        "changed": changed,
    }


def typed(e: Evidence, key: str, *, created: bool = False) -> dict[str, Any]:
    """A user of the CRM typed a last name into a record, or made it."""
    row = effect(0, key, "m.0" if key == "a" else "m.1") | {"by": "user", "created": created}
    row["properties"] = row["properties"] | {"lastname": "Typed"}
    e.effects["crm_a"].insert(0 if created else len(e.effects["crm_a"]), row)
    return row


def message(job_id: str, **changes: Any) -> dict[str, Any]:
    """That a job is finished."""
    summary = {"total": 2, "succeeded": 2, "failed": 0, "retry": 0}
    data = {"job_id": job_id, "type": "contacts", "state": "completed", "summary": summary} | changes
    return {
        "event_id": f"of-{job_id}",
        "type": "job.finished",
        "state": "ok",
        "attempts": [{"status": 204}],
        "body": msgspec.json.encode({"type": "job.finished", "data": data}).decode(),
    }


def hook(sent: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """How a message came."""
    told: dict[str, Any] = {"row": "hook", "event_id": sent["event_id"], "timestamp": "1", "body": sent["body"]}
    signed = Webhook(SECRET).sign(told["event_id"], datetime.fromtimestamp(1, UTC), told["body"])
    return told | {"signature": signed, "mood": "ok"} | changes


def dead(e: Evidence, *dead_letters: int) -> None:
    """These dead letters were told of."""
    body = {"type": "item.dead", "data": {"items": [{"dead_letter_id": dead_letter} for dead_letter in dead_letters]}}
    sent = message(JOB) | {"event_id": "dead", "type": "item.dead", "body": msgspec.json.encode(body).decode()}
    e.tables["webhook_messages"].append(sent)
    e.journal.append(hook(sent))


def well() -> Evidence:
    """One import of two contacts to one CRM, without a fault."""
    body = msgspec.json.encode(
        {
            "job_id": JOB,
            "summary": {"total": 2, "succeeded": 2, "failed": 0, "retry": 0},
            "items": [item(0, "a"), item(1, "b")],
        }
    ).decode()
    sent = [
        {
            "index": n,
            "id": record_id,
            "mark": f"m.{n}",
            "poison": False,
            "fields": {"email": f"{record_id}@example.com", "first_name": "Ada", "attributes": {"mark": f"m.{n}"}},
        }
        for n, record_id in enumerate("ab")
    ]
    request = {
        "row": "request",
        "type": "contacts",
        "key": "k",
        "sha256": "x",
        "kind": "push",
        "expect": "batch",
        "atomic": False,
        "dry_run": False,
        "last_wins": False,
        "items": sent,
    }
    answer = {"row": "answer", "key": "k", "sha256": "x", "status": 207, "body": body}
    seen = {"a": "pending", "b": "pending"}
    place = {"job_id": JOB, "prev_job_id": None, "prev_item_index": None}
    return Evidence(
        journal=[
            request,
            answer | {"replayed": False, "final": False},
            {"row": "job", "job_id": JOB, "state": "syncing"},
            {
                "row": "items",
                "job_id": JOB,
                "final": False,
                "items": [item(n, i) | {"destinations": {"a": {"state": s}}} for n, (i, s) in enumerate(seen.items())],
            },
            {"row": "job", "job_id": JOB, "state": "completed"},
            answer | {"replayed": True, "final": True},
            {
                "row": "items",
                "job_id": JOB,
                "final": True,
                "items": [item(n, i) | {"destinations": {"a": {"state": "ok"}}} for n, i in enumerate("ab")],
            },
            {
                "row": "records",
                "type": "contacts",
                "how": "list",
                "records": [shows(contact(i, f"m.{n}")) for n, i in enumerate("ab")],
            },
            {"row": "history", "type": "contacts", "record_id": "a", "versions": [{"version": 1, "job_id": JOB}]},
            hook(message(JOB)),
        ],
        tables={
            "jobs": [
                {
                    "job_id": JOB,
                    "type": "contacts",
                    "kind": "import",
                    "state": "completed",
                    "options": {},
                    "total": 2,
                    "succeeded": 2,
                    "failed": 0,
                    "retry": 0,
                    "finished_at": "2026-01-01",
                }
            ],
            "idempotency_keys": [{"key": "k", "job_id": JOB, "status": 207}],
            "records": [contact("a", "m.0"), contact("b", "m.1")],
            "ledger": [contact(i, f"m.{n}") | place | {"item_index": n} for n, i in enumerate("ab")],
            "deliveries": [
                {
                    "delivery_id": 7,
                    "job_id": JOB,
                    "destination_id": 1,
                    "type": "contacts",
                    "request_id": "r",
                    "record_ids": ["a", "b"],
                    "versions": [1, 1],
                    "indexes": [0, 1],
                    "states": "oo",
                    "state": "done",
                    "errors": {},
                }
            ],
            "effects": [
                {"job_id": JOB, "destination_id": 1, "ok": 2}
                | dict.fromkeys(("pending", "retry", "failed", "unknown", "dead", "skipped"), 0)
            ],
            "record_syncs": [
                {"destination_id": 1, "type": "contacts", "record_id": i, "synced_version": 1} for i in "ab"
            ],
            "dead_letters": [],
            "sagas": [],
            "webhook_messages": [message(JOB)],
            "chaos_moves": [
                move(1, "job", JOB, "[*]", "syncing"),
                move(2, "delivery", "7", "pending", "sending"),
                move(3, "item", "7.0", "p", "u"),
                move(4, "item", "7.1", "p", "o"),
                move(5, "item", "7.0", "u", "o"),
                move(6, "delivery", "7", "sending", "done"),
                move(7, "job", JOB, "syncing", "completed"),
            ],
        },
        effects={"crm_a": [effect(1, "a", "m.0"), effect(2, "b", "m.1")]},
        calls={"crm_a": [{"row": "call", "call": 1, "request_id": "r", "faults": []}]},
        destinations={"crm_a": 1},
        kinds={"crm_a": "hubspot"},
        secret=SECRET,
    )


def retell(e: Evidence, sent: dict[str, Any]) -> None:
    e.tables["webhook_messages"] = [sent]
    e.journal[-1] = hook(sent)


def tell_all(e: Evidence) -> None:
    """Everything that ended was told of as it is."""
    e.tables["webhook_messages"] = []
    e.journal = [row for row in e.journal if row["row"] != "hook"]
    for job in e.jobs.values():
        summary = {name: job[name] for name in ("total", "succeeded", "failed", "retry")}
        sent = message(job["job_id"], state=job["state"], summary=summary)
        e.tables["webhook_messages"].append(sent)
        e.journal.append(hook(sent))
    dead(e, *(dead_letter["dead_letter_id"] for dead_letter in e.table("dead_letters")))


DEAD_LETTER: dict[str, Any] = {
    "dead_letter_id": 5,
    "delivery_id": 7,
    "item_index": 0,
    "destination_id": 1,
    "type": "contacts",
    "record_id": "a",
    "version": 1,
    "created_at": "2026-01-01T00:00:00+00:00",
}


def move(seq: int, what: str, subject: str, before: str, after: str) -> dict[str, Any]:
    return {"seq": seq, "what": what, "subject": subject, "before": before, "after": after}


def names(evidence: Evidence) -> set[str]:
    return {finding.name for finding in checker.check(evidence, STATES)}


def answer_body(e: Evidence, **changes: Any) -> str:
    return msgspec.json.encode(msgspec.json.decode(e.journal[1]["body"]) | changes).decode()


def lose_ledger(e: Evidence) -> None:
    del e.tables["ledger"][1]
    del e.tables["records"][1]


def second_version(e: Evidence) -> None:
    """Contact a has a version 2, which the CRM holds."""
    first = e.tables["ledger"][0]
    content = {"fields": dict(first["fields"]), "attributes": {"mark": "m.2"}}
    newer = first | content | {"version": 2, "item_index": 1, "job_id": "undo"}
    e.tables["ledger"].append(newer | {"prev_job_id": JOB, "prev_item_index": 0})
    e.tables["records"][0] |= {"version": 2, "attributes": {"mark": "m.2"}}
    e.effects["crm_a"].append(effect(3, "a", "m.2"))


def went_back(e: Evidence) -> None:
    second_version(e)
    e.effects["crm_a"].append(effect(4, "a", "m.0"))


def doubled(e: Evidence) -> None:
    e.effects["crm_a"].append(effect(3, "a", "m.0"))


def refuse_first_item(e: Evidence, **more: Any) -> None:
    for entry in e.journal:
        if entry["row"] == "items":
            entry["items"][0] |= {"status": "failed", "error_code": "INVALID_EMAIL"} | more


def give_up(e: Evidence) -> None:
    e.tables["deliveries"][0]["states"] = "fo"
    e.tables["effects"][0] |= {"ok": 1, "failed": 1}


def replay(e: Evidence) -> None:
    """The CRM refused contact a at first, and a replay of the dead letter brought it there."""
    give_up(e)
    e.tables["jobs"][0]["state"] = "completed_with_failures"
    e.tables["jobs"].append(e.tables["jobs"][0] | {"job_id": "again", "kind": "replay", "state": "completed"})
    e.tables["jobs"][1] |= {"total": 1, "succeeded": 1}
    e.tables["effects"].append(e.tables["effects"][0] | {"job_id": "again", "ok": 1, "failed": 0})
    e.tables["dead_letters"].append(DEAD_LETTER | {"resolution": "replayed", "replay_job_id": "again"})
    sent = {"delivery_id": 8, "job_id": "again", "states": "o", "dead_letters": [5]}
    again = {"record_ids": ["a"], "versions": [1], "indexes": [0]}
    e.tables["deliveries"].append(e.tables["deliveries"][0] | sent | again)
    e.tables["chaos_moves"] = [m for m in e.tables["chaos_moves"] if m["what"] != "job"]


ALL = {"consistency": "all_destinations"}
SAGA: dict[str, Any] = {
    "workflow": "consistency",
    "subject": JOB,
    "state": "done",
    "finished_at": "2026-01-01T00:00:01+00:00",
}


def refuse(e: Evidence) -> None:
    """One destination does not take contact a, which all must have."""
    give_up(e)
    e.tables["jobs"][0]["options"] |= ALL
    e.tables["dead_letters"].append(DEAD_LETTER | {"job_id": JOB, "root_job_id": JOB})


def undo(e: Evidence, **content: Any) -> None:
    """Contact a's creation was taken back."""
    first = e.tables["ledger"][0]
    e.tables["jobs"].append(e.tables["jobs"][0] | {"job_id": "undo", "kind": "undo", "undo_of": JOB})
    gone = GONE | content
    before = {"prev_job_id": JOB, "prev_item_index": 0}
    e.tables["ledger"].append(first | gone | before | {"version": 2, "item_index": 0, "job_id": "undo"})
    e.tables["records"][0] |= gone | {"version": 2}
    e.effects["crm_a"].append(effect(3, "a", "m.0") | {"deleted": True})


BROKEN: dict[str, tuple[str, Callable[[Evidence], Any]]] = {
    "another answer": ("answer_changed", lambda e: e.journal[5].update(body=answer_body(e, effects={}))),
    "served anew": ("replay_unmarked", lambda e: e.journal[5].update(replayed=False)),
    "two bodies under a key": (
        "key_taken_twice",
        lambda e: e.journal.extend([e.journal[0] | {"sha256": "y"}, e.journal[1] | {"sha256": "y"}]),
    ),
    "no answer": ("unanswered", lambda e: e.unanswered.append("k")),
    "a 500": ("unforeseen_status", lambda e: e.journal.insert(1, e.journal[1] | {"status": 500})),
    "taken, not refused": ("unforeseen_status", lambda e: e.journal[0].update(expect="422")),
    "no such job": ("lost", lambda e: e.tables.update(jobs=[])),
    "not in the ledger": ("lost", lose_ledger),
    "an item without outcome": ("lost", lambda e: e.journal[6]["items"].pop()),
    "told otherwise": ("told_otherwise", lambda e: e.journal[6]["items"][0].update(version=2)),
    "failed, but done": ("refused_but_done", refuse_first_item),
    "a dry run, but done": ("refused_but_done", lambda e: e.journal[0].update(dry_run=True)),
    "malformed, but done": ("refused_but_done", lambda e: e.journal[0].update(expect="400")),
    "poison taken": ("poison_taken", lambda e: e.journal[0]["items"][0].update(poison=True)),
    "sound refused": ("sound_refused", refuse_first_item),
    "half of an atomic one": (
        "half_done",
        lambda e: (e.journal[0].update(atomic=True), refuse_first_item(e, error_code="ATOMIC_ABORTED")),
    ),
    "another name": ("altered", lambda e: e.tables["ledger"][0]["fields"].update(first_name="Eve")),
    "deleted, but not by its item": ("altered", lambda e: e.tables["ledger"][0].update(GONE)),
    "a deletion that nobody sent": ("from_nowhere", lambda e: e.tables["ledger"][0].update(GONE)),
    "of another type": ("told_otherwise", lambda e: e.journal[0].update(type="companies")),
    "sent as another type": ("from_nowhere", lambda e: e.journal[0].update(type="companies")),
    "no field can be added": (
        "unforeseen_status",
        lambda e: e.journal.append({"row": "asked", "what": "declare", "job_id": None, "status": 400, "body": ""}),
    ),
    "expected version": ("version_ignored", lambda e: e.journal[0]["items"][0]["fields"].update(if_version=4)),
    "older source version": (
        "version_ignored",
        lambda e: (
            second_version(e),
            e.tables["ledger"][0].update(source_version=9),
            e.tables["ledger"][2].update(source_version=5),
        ),
    ),
    "nobody sent it": ("from_nowhere", lambda e: e.tables["ledger"][0]["attributes"].update(mark="?")),
    "done by two jobs": (
        "done_twice",
        lambda e: (
            e.tables["jobs"].append(e.tables["jobs"][0] | {"job_id": "other"}),
            e.tables["ledger"].append(e.tables["ledger"][0] | {"job_id": "other", "version": 2}),
        ),
    ),
    "no key": ("job_without_key", lambda e: e.tables.update(idempotency_keys=[])),
    "a key of nothing": ("key_without_job", lambda e: e.tables.update(jobs=[])),
    "a version is missing": ("gap", lambda e: e.tables["records"][0].update(version=2)),
    "a broken chain": ("gap", lambda e: e.tables["ledger"][0].update(prev_job_id="other")),
    "not the newest row": ("gap", lambda e: e.tables["records"][0]["fields"].update(phone="1")),
    "not undone": ("not_undone", undo),
    "undone wrongly": ("undo_wrong", lambda e: undo(e, fields={"email": "other@example.com"}, deleted=False)),
    "undone twice": (
        "undone_twice",
        lambda e: (undo(e), e.tables["jobs"].append(e.tables["jobs"][1] | {"job_id": "again"})),
    ),
    "undone what others did": ("undo_overwrote", lambda e: (undo(e), e.tables["jobs"][1].update(undo_of="other"))),
    "a total": ("sum", lambda e: e.tables["jobs"][0].update(total=3)),
    "an effect too many": ("sum", lambda e: e.tables["effects"][0].update(ok=3)),
    "the wrong end": ("sum", lambda e: e.tables["jobs"][0].update(state="completed_with_failures")),
    "at a CRM without a place for it": (
        "misdirected",
        lambda e: (e.tables["deliveries"][0].update(type="products"), e.tables["ledger"].clear()),
    ),
    "a delivery of another type": ("misdirected", lambda e: e.tables["deliveries"][0].update(type="companies")),
    "a record of another type is listed": ("listed_wrongly", lambda e: e.journal[-3]["records"].append({"id": "c"})),
    "a record is not listed": ("listed_wrongly", lambda e: e.journal[-3]["records"].pop()),
    "a record is listed as it was": ("listed_wrongly", lambda e: e.journal[-3]["records"][0].update(version=7)),
    "another type's history": ("listed_wrongly", lambda e: e.journal[-2]["versions"].clear()),
    "not owed": ("not_owed", lambda e: e.tables["deliveries"].clear()),
    "not settled": ("restless", lambda e: e.tables["deliveries"][0].update(state="sending")),
    "not finished": ("restless", lambda e: e.tables["jobs"][0].update(finished_at=None)),
    "no rest": ("restless", lambda e: setattr(e, "restless", 30.0)),
    "an error nobody foresaw": ("surprised", lambda e: e.surprises.append("w1.log: Traceback")),
    "an item moves on": ("finished_early", lambda e: e.tables["chaos_moves"][4].update(seq=9)),
    "no letter": ("no_dead_letter", give_up),
    "what an undo left has no letter": ("no_dead_letter", lambda e: (undo(e), e.tables["jobs"][1].update(failed=1))),
    "a letter of nothing that an undo left": (
        "dead_letter_too_many",
        lambda e: e.tables["dead_letters"].append(DEAD_LETTER | {"delivery_id": None, "job_id": JOB}),
    ),
    "a dead letter too many": ("dead_letter_too_many", lambda e: e.tables["dead_letters"].append(DEAD_LETTER)),
    "taken by two jobs": (
        "taken_twice",
        lambda e: (replay(e), e.tables["deliveries"].append(e.tables["deliveries"][1] | {"job_id": "other"})),
    ),
    "sent by two deliveries": (
        "taken_twice",
        lambda e: (replay(e), e.tables["deliveries"].append(e.tables["deliveries"][1] | {"indexes": [1]})),
    ),
    "taken for nothing": ("dead_letter_lost", lambda e: (replay(e), e.tables["deliveries"].pop())),
    "superseded by nothing": (
        "dead_letter_lost",
        lambda e: (
            replay(e),
            e.tables["dead_letters"][0].update(resolution="superseded"),
            e.tables["record_syncs"].pop(0),
        ),
    ),
    "a typed value is lost": (
        "typed_lost",
        lambda e: (typed(e, "a"), e.effects["crm_a"].append(effect(3, "a", "m.0", changed=False))),
    ),
    "another's record is archived": (
        "archived_foreign",
        lambda e: (typed(e, "a", created=True), e.effects["crm_a"].append(effect(3, "a", "m.0") | {"deleted": True})),
    ),
    "another's record is said to be ours": (
        "believed",
        lambda e: (typed(e, "a", created=True), e.tables["record_syncs"][0].update(created=True)),
    ),
    "said to be archived, but is not": ("not_there", lambda e: (undo(e), e.effects["crm_a"].pop())),
    "not all have it": ("half_there", lambda e: (refuse(e), e.tables["sagas"].append(SAGA))),
    "nobody sees to it": ("half_there", lambda e: e.tables["jobs"][0]["options"].update(ALL)),
    "taken back, but not refused": (
        "undo_overwrote",
        lambda e: (undo(e), e.tables["jobs"][1].update(undo_of=None, root_job_id=JOB)),
    ),
    "undone in part": ("not_undone", lambda e: (second_version(e), undo(e), e.tables["jobs"][1].update(total=1))),
    "refused there, but there": ("refused_but_done", give_up),
    "backwards": ("went_back", went_back),
    "twice": ("doubled", doubled),
    "again": ("sent_again", lambda e: e.effects["crm_a"].append(effect(3, "a", "m.0", changed=False))),
    "content of no version": ("never_stood", lambda e: e.effects["crm_a"][0]["properties"].update(phone="1")),
    "not there": ("not_there", lambda e: e.effects["crm_a"].pop()),
    "sent as another object": ("never_stood", lambda e: e.effects["crm_a"][0].update(type="companies")),
    "not there as what it is": ("not_there", lambda e: e.effects["crm_a"][0].update(type="companies")),
    "what was cleared is there still": (
        "not_there",
        lambda e: (
            second_version(e),
            e.tables["records"][0]["fields"].pop("first_name"),
            e.tables["ledger"][-1]["fields"].pop("first_name"),
        ),
    ),
    "deleted, but there": (
        "not_there",
        lambda e: (
            typed(e, "a", created=True),
            undo(e),
            e.tables["jobs"][1].update(kind="import"),
            e.effects["crm_a"].pop(),
        ),
    ),
    "older there": ("not_there", lambda e: (second_version(e), e.effects["crm_a"].pop())),
    "believed": ("believed", lambda e: e.tables["record_syncs"][0].update(synced_version=2)),
    "a job nobody was told of": ("untold", lambda e: e.tables["webhook_messages"].clear()),
    "a job told of twice": (
        "untold",
        lambda e: e.tables["webhook_messages"].append(message(JOB) | {"event_id": "again"}),
    ),
    "told of as a job of another type": ("told_otherwise", lambda e: retell(e, message(JOB, type="companies"))),
    "a job told of too early": ("told_otherwise", lambda e: retell(e, message(JOB, state="canceled"))),
    "told of no job": ("told_of_nothing", lambda e: e.tables["webhook_messages"].append(message("none"))),
    "a dead letter nobody was told of": ("untold", lambda e: e.tables["dead_letters"].append(DEAD_LETTER)),
    "no such dead letter": ("untold", lambda e: dead(e, 5)),
    "said to have arrived": ("untold", lambda e: e.journal[-1].update(mood="refuse")),
    "given up early": ("untold", lambda e: e.tables["webhook_messages"][0].update(state="dead")),
    "given up for nothing": ("untold", lambda e: e.tables["webhook_messages"][0].update(state="failed")),
    "not told yet": ("restless", lambda e: e.tables["webhook_messages"][0].update(state="pending")),
    "another body": ("told_otherwise", lambda e: e.journal[-1].update(body="{}")),
    "another id": ("told_of_nothing", lambda e: e.journal[-1].update(event_id="none")),
    "another signature": ("forged", lambda e: e.journal[-1].update(timestamp="2")),
    "hammered": (
        "hammered",
        lambda e: (
            e.faults.append({"target": "crm_a", "seconds": 1.0, "details": {"fault": "down"}}),
            e.calls["crm_a"].extend([{"faults": ["down"], "request_id": "r"}] * 36),
        ),
    ),
    "hammered after it did well": (
        "hammered",
        lambda e: (
            e.faults.append({"target": "crm_a", "seconds": 1.0, "details": {"fault": "down"}}),
            e.calls["crm_a"].extend(
                [{"faults": [], "request_id": "r"}] * 40 + [{"faults": ["down"], "request_id": "r"}] * 80
            ),
        ),
    ),
    "buried for what the account lacks": (
        "buried_for_setup",
        lambda e: (
            e.tables["dead_letters"].append(
                DEAD_LETTER | {"error_detail": 'HubSpot answered 400: Property "mark" does not exist'}
            ),
        ),
    ),
    "hammered for what the account lacks": (
        "hammered_for_setup",
        lambda e: (
            e.faults.append({"target": "crm_a", "seconds": 1.0, "details": {"fault": "missing_fields"}}),
            e.calls["crm_a"].extend([{"faults": ["missing_fields"], "request_id": "r", "on": "write"}] * 19),
        ),
    ),
    "held back by another tenant's calls": (
        "held_by_neighbour",
        lambda e: e.tables.update(
            shared_openings=[{"destination_id": 1, "at": 100.0}],
            bad_calls=[
                {"destination_id": 1, "sent_at": 90.0, "status": None},
                {"destination_id": 1, "sent_at": 99.0, "status": 429},
            ],
        ),
    ),
    "refused again": (
        "refused_again",
        lambda e: e.calls["crm_a"].extend([{"faults": ["reject"], "request_id": "r"}] * 4),
    ),
    "an edge nobody drew": ("undrawn", lambda e: e.tables["chaos_moves"].append(move(8, "item", "7.0", "o", "u"))),
    "a job goes back": ("seen_back", lambda e: e.journal.append(e.journal[2])),
    "an item goes back": ("seen_back", lambda e: e.journal.append(e.journal[3])),
    "an outcome changes": (
        "seen_back",
        lambda e: e.journal.append(
            {
                "row": "items",
                "job_id": JOB,
                "final": False,
                "items": [item(0, "a") | {"version": 3, "destinations": {}}],
            }
        ),
    ),
}


def test_a_round_in_which_all_is_well() -> None:
    assert checker.check(well(), STATES) == []


@pytest.mark.parametrize("what", BROKEN)
def test_each_broken_promise_is_found(what: str) -> None:
    name, spoil = BROKEN[what]
    evidence = copy.deepcopy(well())
    spoil(evidence)
    assert name in names(evidence)


def test_a_replayed_letter_is_well() -> None:
    evidence = well()
    replay(evidence)
    tell_all(evidence)
    assert checker.check(evidence, STATES) == []


def test_an_undo_takes_back_what_stands_again() -> None:
    """Two imports, undone one after the other, the newest first: each gives back what stood before it."""
    e = well()
    first = e.tables["ledger"][0]
    made = (("2nd", "2nd"), ("undo 2nd", "m.0"), ("undo", "gone"))
    for version, (job_id, mark) in enumerate(made, start=2):
        content: dict[str, Any] = {"attributes": {"mark": mark}}
        if mark == "gone":
            content = GONE
        e.tables["ledger"].append(first | content | {"version": version, "job_id": job_id, "item_index": 0})
    undos = (("undo 2nd", "2nd", 1), ("undo", JOB, 2))
    for job_id, of, total in undos:
        made_by = {"job_id": job_id, "kind": "undo", "undo_of": of, "total": total}
        e.tables["jobs"].append(e.tables["jobs"][0] | made_by)
    gone = e.tables["ledger"][-1]
    e.tables["records"][0] |= {name: gone[name] for name in ("version", *GONE)}
    found = list(here.undone_is_undone(e))
    assert [finding.name for finding in found] == ["not_undone"]  # contact b still stands
    assert "of b" in found[0].detail
    gone |= {"fields": {"email": "a@example.com"}, "deleted": False}
    assert "undo_wrong" in {finding.name for finding in here.undone_is_undone(e)}


def test_a_replaced_letter_says_why_a_contact_is_not_there() -> None:
    evidence = well()
    give_up(evidence)
    evidence.effects["crm_a"].pop(0)
    evidence.tables["jobs"][0]["state"] = "completed_with_failures"
    evidence.tables["record_syncs"].pop(0)
    evidence.tables["chaos_moves"] = [m for m in evidence.tables["chaos_moves"] if m["what"] != "job"]
    evidence.tables["dead_letters"].append(DEAD_LETTER)
    tell_all(evidence)
    assert checker.check(evidence, STATES) == []


@pytest.mark.parametrize("status", [None, 200, 502])
def test_a_call_of_ones_own_that_failed_may_open_what_tenants_share(status: int | None) -> None:
    evidence = well()
    evidence.tables |= {
        "shared_openings": [{"destination_id": 1, "at": 100.0}],
        "bad_calls": [{"destination_id": 1, "sent_at": 99.0, "status": status}],
    }
    assert checker.check(evidence, STATES) == []


@pytest.mark.parametrize("kind", ["hubspot", "salesforce", "http"])
def test_what_each_kind_of_crm_holds(kind: str) -> None:
    row = contact("a", "m.0", 3)
    row["fields"]["phone"] = "1"
    held = {
        "hubspot": {"tranche_id": "a", "email": "a@example.com", "firstname": "Ada", "phone": "1", "mark": "m.0"},
        "salesforce": {
            "Tranche_Id__c": "a",
            "Email": "a@example.com",
            "FirstName": "Ada",
            "Phone": "1",
            "mark__c": "m.0",
        },
        "http": {
            "id": "a",
            "version": 3,
            "email": "a@example.com",
            "first_name": "Ada",
            "phone": "1",
            "attributes": {"mark": "m.0"},
        },
    }[kind]
    assert there.record_of(kind, row) == there.held_of({"properties": held})
    assert there.record_of(kind, row | {"deleted": True}) is None


def test_every_rule_has_failed_once() -> None:
    """A rule that no case above breaks is no rule."""
    silent = set(checker.RULES)
    for _, spoil in BROKEN.values():
        evidence = copy.deepcopy(well())
        spoil(evidence)
        silent -= {rule for rule in silent if list(rule(evidence))}
    assert {rule.__name__ for rule in silent} == set()


def test_the_page_of_states_is_read() -> None:
    edges = read_states(STATES_PAGE.read_text("utf-8"))
    assert ("pending", "ok") in edges["item"]
    assert ("sending", "pending") in edges["delivery"]
    assert ("syncing", "completed") in edges["job"]
    assert reachable(edges["item"], "pending", "dead")
    assert not reachable(edges["item"], "ok", "retry")
    assert not reachable(edges["job"], "completed", "syncing")


def test_a_page_without_a_diagram_is_an_error() -> None:
    with pytest.raises(ValueError, match="item_here"):
        read_states("## A job\n    a --> b\n")
