"""What clients were answered is what was done: no more, no less, and once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from tests.chaos.evidence import PASSING, Evidence, Finding, Findings, Row, place_of, shown

WROTE: Final = ("created", "updated", "deleted")
"""Results of items that made a version."""


def answers_stand(e: Evidence) -> Findings:
    """A key has one answer, to the byte; who asks again is told that it is one."""
    answers: dict[str, list[Row]] = defaultdict(list)
    for answer in e.rows("answer"):
        if answer["status"] in (202, 207):
            answers[f"{answer['key']} {answer['sha256']}"].append(answer)
    for name, told in answers.items():
        first = told[0]
        for answer in told[1:]:
            if (answer["status"], answer["body"]) != (first["status"], first["body"]):
                yield Finding(
                    "answer_changed",
                    f"{name}: {first['status']} {first['body'][:300]} became {answer['status']} {answer['body'][:300]}",
                )
        if len(told) > 1 and told[-1]["final"] and not told[-1]["replayed"]:
            yield Finding("replay_unmarked", f"{name} was run again: {told[-1]['body'][:200]}")
    # Two bodies under one key are never both taken.
    taken = Counter(name.split(" ")[0] for name in answers)
    for key, count in taken.items():
        if count > 1:
            yield Finding("key_taken_twice", f"{key} was acknowledged for {count} different bodies")


def answers_are_foreseen(e: Evidence) -> Findings:
    """Never a 500; what cannot be taken is refused, what can be is not."""
    for key in e.unanswered:
        yield Finding("unanswered", f"{key} has no answer though everything is whole again")
    for answer in e.rows("answer"):
        request = e.requests[f"{answer['key']} {answer['sha256']}"]
        status = answer["status"]
        wanted = {202, 207} if request["expect"] == "batch" else {int(request["expect"])}
        if status not in wanted | PASSING:
            yield Finding(
                "unforeseen_status",
                f"{answer['key']} ({request['kind']}) was answered {status}, not {wanted}: {answer['body'][:300]}",
            )
    for asked in e.rows("asked"):
        status = asked["status"] or 0
        # 409 is among these: who declares a field too late would take away another one that was added since.
        refused = asked["what"] in ("declare", "read") and status >= 400 and status not in PASSING
        if refused or (status >= 500 and status != 503):
            yield Finding(
                "unforeseen_status", f"{asked['what']} {asked['job_id']}: {asked['status']} {asked['body'][:300]}"
            )


def acknowledged(e: Evidence) -> Iterator[tuple[Row, str, Row]]:
    """(request, job id, first answer) of every import that was taken."""
    seen: set[str] = set()
    for answer in e.rows("answer"):
        name = f"{answer['key']} {answer['sha256']}"
        if answer["status"] in (202, 207) and name not in seen:
            seen.add(name)
            yield e.requests[name], msgspec.json.decode(answer["body"])["job_id"], answer


def acknowledged_is_done(e: Evidence) -> Findings:
    """Each item of an acknowledged import is what it was said to be: in the ledger, or nowhere."""
    for request, job_id, answer in acknowledged(e):
        job = e.jobs.get(job_id)
        if job is None:
            yield Finding("lost", f"{request['key']}: the acknowledged job {job_id} does not exist")
            continue
        items = e.listed.get(job_id)
        if items is None:
            yield Finding("lost", f"{request['key']}: the items of job {job_id} cannot be listed")
            continue
        if job["type"] != request["type"]:
            yield Finding("told_otherwise", f"{request['key']}: job {job_id} is one of {job['type']}")
        if answer["status"] == 207:
            yield from _told_alike(request, msgspec.json.decode(answer["body"]), items)
        if len(items) != len(request["items"]) and job["state"] not in ("canceled", "failed"):
            yield Finding(
                "lost", f"{request['key']}: {len(request['items'])} items were sent, {len(items)} have an outcome"
            )
        for item in items:
            yield from _item_is_true(e, request, job, item)
        if request["atomic"] and len({item["status"] == "ok" for item in items}) > 1:
            yield Finding("half_done", f"{request['key']} is atomic, but some of its items are ok and some are not")


def _told_alike(request: Row, body: Row, items: list[Row]) -> Findings:
    for told, listed in zip(body["items"], items, strict=False):
        for name in ("index", "id", "status", "result", "version", "error_code"):
            if told.get(name) != listed.get(name):
                yield Finding(
                    "told_otherwise",
                    f"{request['key']}[{told['index']}]: {name} was {told.get(name)!r}, is {listed.get(name)!r}",
                )
                return


def _item_is_true(e: Evidence, request: Row, job: Row, item: Row) -> Findings:
    place = f"{request['key']}[{item['index']}] of job {job['job_id']}"
    if item["index"] >= len(request["items"]):
        yield Finding("told_otherwise", f"{place} was never sent")
        return
    sent = request["items"][item["index"]]
    row = e.entered.get((job["job_id"], item["index"]))
    wrote = item["status"] == "ok" and item.get("result") in WROTE and "duplicate_of" not in item
    if request["dry_run"]:
        if row is not None:
            yield Finding("refused_but_done", f"{place} is a dry run, but is in the ledger")
        return
    if row is not None and not wrote:
        yield Finding(
            "refused_but_done", f"{place} is {item['status']}/{item.get('result')}, but made version {row['version']}"
        )
    if wrote and row is None:
        yield Finding("lost", f"{place} is ok/{item['result']}, but is not in the ledger")
    if wrote and row is not None:
        yield from _row_is_true(place, sent, item, row)
    if sent["poison"] and item["status"] == "ok":
        yield Finding("poison_taken", f"{place} cannot be stored, but is ok")
    if not sent["poison"] and item["status"] != "ok" and not _may_fail(request, sent, item):
        yield Finding("sound_refused", f"{place} is sound, but {item['status']}: {item.get('errors')}")


def _may_fail(request: Row, sent: Row, item: Row) -> bool:
    code = item.get("error_code")
    return (
        (code == "VERSION_CONFLICT" and sent["fields"].get("if_version") is not None)
        or (code == "ATOMIC_ABORTED" and request["atomic"])
        or (code in ("LOCK_TIMEOUT", "OVERLOADED", "RATE_LIMIT") and item["status"] == "retry")
    )


def _row_is_true(place: str, sent: Row, item: Row, row: Row) -> Findings:
    if (row["record_id"], row["version"]) != (item["id"], item["version"]):
        yield Finding("told_otherwise", f"{place} was told {item['id']} version {item['version']}, made {row}")
    if row["deleted"] != sent["fields"].get("deleted", False):
        yield Finding("altered", f"{place}: deleted is {row['deleted']}, sent was {sent['fields']}")
    for name, value in sent["fields"].items():
        if name in ("if_version", "source_version", "attributes", "deleted"):
            continue
        if row["fields"].get(name) != value:
            yield Finding("altered", f"{place}: {name} was sent as {value!r}, stands as {row['fields'].get(name)!r}")
    for name, value in (sent["fields"].get("attributes") or {}).items():
        if row["attributes"].get(name) != value:
            yield Finding(
                "altered", f"{place}: attribute {name} was sent as {value!r}, stands as {row['attributes'].get(name)!r}"
            )
    expected = sent["fields"].get("if_version")
    if expected is not None and row["version"] != expected + 1:
        yield Finding("version_ignored", f"{place} expected version {expected}, but made version {row['version']}")


def refused_is_nowhere(e: Evidence) -> Findings:
    """What was refused as a whole left nothing, and nothing was done twice."""
    marks = {item["mark"]: request for request in e.requests.values() for item in request["items"] if item["mark"]}
    sent = {job_id: request["items"] for request, job_id, _ in acknowledged(e)}
    made: dict[str, set[str]] = defaultdict(set)
    for row in e.table("ledger"):
        job = e.jobs.get(row["job_id"])
        if job is None or job["kind"] != "import":
            continue
        version = f"version {row['version']} of {shown(place_of(row))}"
        if row["deleted"]:
            items = sent.get(row["job_id"], ())
            asked = items[row["item_index"]] if row["item_index"] < len(items) else None
            if asked is None or asked["id"] != row["record_id"] or not asked["fields"].get("deleted"):
                yield Finding("from_nowhere", f"{version} is a deletion that nobody sent")
            continue
        mark = row["attributes"].get("mark", "")
        request = marks.get(mark)
        if request is None or request["type"] != row["type"]:
            yield Finding("from_nowhere", f"{version} holds {mark!r}, which nobody sent")
            continue
        made[mark].add(row["job_id"])
        if request["expect"] != "batch":
            yield Finding("refused_but_done", f"{request['key']} ({request['kind']}) made {version}")
    for mark, jobs in made.items():
        if len(jobs) > 1:
            yield Finding(
                "done_twice", f"{mark} of {marks[mark]['key']} was applied by {len(jobs)} jobs: {sorted(jobs)}"
            )


def keys_and_jobs_agree(e: Evidence) -> Findings:
    """An import and its key are one: neither is there without the other."""
    keyed = {row["job_id"]: row["key"] for row in e.table("idempotency_keys")}
    for job in e.jobs.values():
        if (
            job["kind"] == "import"
            and job["job_id"] not in keyed
            and (job["total"] or job["state"] not in ("canceled", "failed"))
        ):
            yield Finding("job_without_key", f"job {job['job_id']} ({job['state']}) belongs to no key")
    for job_id, key in keyed.items():
        if job_id not in e.jobs:
            yield Finding("key_without_job", f"{key} names job {job_id}, which does not exist")
