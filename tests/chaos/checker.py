"""What must be true after a round, whatever broke in it: one function a rule, each with its findings.

The rules take the clients' word for what they sent and were told, the CRMs' ledgers for what happened there and the rows
of PostgreSQL for what Tranche believes; each is held against the others. `docs/chaos.md` tells them in words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from tests.chaos.evidence import STATES, WORDS, Edges, Evidence, Row, reachable, read_states

FINISHED: Final = frozenset({"completed", "completed_with_failures", "failed", "canceled"})
PASSING: Final = frozenset({408, 409, 429, 503})
"""Statuses that ask for the same again."""
SETTLED: Final = frozenset("ofds")
MOST: Final = 5
"""Findings of one rule that are told; more would hide the others."""


class Finding(msgspec.Struct, frozen=True):
    """A broken promise, with the evidence."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


Findings = Iterator[Finding]


def check(evidence: Evidence, states: dict[str, Edges] | None = None) -> list[Finding]:
    """Every rule; an empty list is a round in which every promise was kept."""
    edges = read_states(STATES.read_text("utf-8")) if states is None else states
    found: list[Finding] = []
    for rule in RULES:
        try:
            told = list(rule(evidence))
        except (LookupError, TypeError, ValueError) as error:
            # Evidence so strange that a rule cannot read it is none that all is well.
            told = [Finding("unreadable", f"{rule.__name__}: {type(error).__name__}: {error}")]
        found += told[:MOST]
        if len(told) > MOST:
            found.append(Finding(told[0].name, f"… and {len(told) - MOST} more of this rule"))
    for told in (list(moves_are_drawn(evidence, edges)), list(polls_never_go_back(evidence, edges))):
        found += told[:MOST]
    return found


# what clients were answered


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
        if asked["status"] is not None and asked["status"] >= 500 and asked["status"] != 503:
            yield Finding("unforeseen_status", f"{asked['what']} {asked['job_id']}: {asked['status']} {asked['body'][:300]}")


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
        if answer["status"] == 207:
            yield from _told_alike(request, msgspec.json.decode(answer["body"]), items)
        if len(items) != len(request["items"]) and job["state"] not in ("canceled", "failed"):
            yield Finding("lost", f"{request['key']}: {len(request['items'])} items were sent, {len(items)} have an outcome")
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
                    f"{request['key']}[{told['index']}].{name}: answered {told.get(name)!r}, listed {listed.get(name)!r}",
                )
                return


def _item_is_true(e: Evidence, request: Row, job: Row, item: Row) -> Findings:
    place = f"{request['key']}[{item['index']}] of job {job['job_id']}"
    if item["index"] >= len(request["items"]):
        yield Finding("told_otherwise", f"{place} was never sent")
        return
    sent = request["items"][item["index"]]
    row = e.entered.get((job["job_id"], item["index"]))
    wrote = item["status"] == "ok" and item.get("result") in ("created", "updated") and "duplicate_of" not in item
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
    if (row["contact_id"], row["version"]) != (item["id"], item["version"]):
        yield Finding("told_otherwise", f"{place} was told {item['id']} version {item['version']}, made {row}")
    for name, value in sent["fields"].items():
        if name in ("if_version", "source_version", "attributes"):
            continue
        if row[name] != value:
            yield Finding("altered", f"{place}: {name} was sent as {value!r}, stands as {row[name]!r}")
    for name, value in (sent["fields"].get("attributes") or {}).items():
        if row["attributes"].get(name) != value:
            yield Finding("altered", f"{place}: attribute {name} was sent as {value!r}, stands as {row['attributes'].get(name)!r}")
    expected = sent["fields"].get("if_version")
    if expected is not None and row["version"] != expected + 1:
        yield Finding("version_ignored", f"{place} expected version {expected}, but made version {row['version']}")


def refused_is_nowhere(e: Evidence) -> Findings:
    """What was refused as a whole left nothing, and nothing was done twice."""
    marks = {item["mark"]: request for request in e.requests.values() for item in request["items"] if item["mark"]}
    made: dict[str, set[str]] = defaultdict(set)
    for row in e.table("ledger"):
        job = e.jobs.get(row["job_id"])
        if job is None or job["kind"] != "import":
            continue
        mark = row["attributes"].get("mark", "")
        request = marks.get(mark)
        if request is None:
            yield Finding("from_nowhere", f"version {row['version']} of {row['contact_id']} holds {mark!r}, which nobody sent")
            continue
        made[mark].add(row["job_id"])
        if request["expect"] != "batch":
            yield Finding("refused_but_done", f"{request['key']} ({request['kind']}) made version {row['version']} of {row['contact_id']}")
    for mark, jobs in made.items():
        if len(jobs) > 1:
            yield Finding("done_twice", f"{mark} of {marks[mark]['key']} was applied by {len(jobs)} jobs: {sorted(jobs)}")


def keys_and_jobs_agree(e: Evidence) -> Findings:
    """An import and its key are one: neither is there without the other."""
    keyed = {row["job_id"]: row["key"] for row in e.table("idempotency_keys")}
    for job in e.jobs.values():
        if job["kind"] == "import" and job["job_id"] not in keyed and (job["total"] or job["state"] not in ("canceled", "failed")):
            yield Finding("job_without_key", f"job {job['job_id']} ({job['state']}) belongs to no key")
    for job_id, key in keyed.items():
        if job_id not in e.jobs:
            yield Finding("key_without_job", f"{key} names job {job_id}, which does not exist")


# what stands here


def ledger_is_whole(e: Evidence) -> Findings:
    """A contact's versions are 1, 2, 3 … without a gap, each knows the one before, and the last is the contact."""
    fields = ("email", "first_name", "last_name", "phone", "company", "attributes")
    for contact_id, contact in e.contacts.items():
        rows = e.ledger.get(contact_id, [])
        if [row["version"] for row in rows] != list(range(1, contact["version"] + 1)):
            yield Finding(
                "gap", f"{contact_id} has version {contact['version']}, its ledger {[row['version'] for row in rows]}"
            )
            continue
        for before, after in zip([None, *rows], rows, strict=False):
            wanted = (None, None) if before is None else (before["job_id"], before["item_index"])
            if (after["prev_job_id"], after["prev_item_index"]) != wanted:
                yield Finding("gap", f"version {after['version']} of {contact_id} does not name the one before")
        differing = [name for name in fields if rows[-1][name] != contact[name]]
        if differing:
            yield Finding("gap", f"{contact_id} is not its newest ledger row: {', '.join(differing)}")
        numbers = [row["source_version"] for row in rows if row["source_version"] is not None]
        if numbers != sorted(numbers):
            yield Finding("version_ignored", f"{contact_id}: source versions went {numbers}")
    for contact_id in e.ledger.keys() - e.contacts.keys():
        yield Finding("gap", f"{contact_id} is in the ledger, but is no contact")


def undone_is_undone(e: Evidence) -> Findings:
    """An undo gives each contact its before-image back, unless somebody changed it since, and touches nothing else."""
    fields = ("email", "first_name", "last_name", "phone", "company", "attributes")
    by_version = {(row["contact_id"], row["version"]): row for row in e.table("ledger")}
    undone = Counter(job["undo_of"] for job in e.jobs.values() if job.get("undo_of"))
    for job_id, count in undone.items():
        if count > 1:
            yield Finding("undone_twice", f"job {job_id} has {count} undos")
    for job in e.jobs.values():
        of = job.get("undo_of")
        if not of or job["state"] not in ("completed", "completed_with_failures"):
            continue
        for row in e.table("ledger"):
            place = f"version {row['version']} of {row['contact_id']}"
            if row["job_id"] == of and e.contacts[row["contact_id"]]["version"] == row["version"]:
                yield Finding("not_undone", f"{place} still stands, though job {of} was undone by {job['job_id']}")
            if row["job_id"] != job["job_id"]:
                continue
            taken = by_version.get((row["contact_id"], row["version"] - 1))
            image = by_version.get((row["contact_id"], row["version"] - 2))
            if taken is None or taken["job_id"] != of:
                yield Finding("undo_overwrote", f"{place} takes back what job {of} did not do")
            elif image is None and row["email"] != "":
                yield Finding("undo_wrong", f"{place} should be nothing, as before job {of}")
            elif image is not None and any(row[name] != image[name] for name in fields):
                yield Finding("undo_wrong", f"{place} is not what stood before job {of}: {row}, before: {image}")


def sums_are_right(e: Evidence) -> Findings:
    """Counts of jobs, of effects and of answers are those of the items."""
    written = Counter(row["job_id"] for row in e.table("ledger"))
    for job in e.jobs.values():
        name = f"job {job['job_id']} ({job['kind']}, {job['state']})"
        if job["total"] != job["succeeded"] + job["failed"] + job["retry"]:
            yield Finding("sum", f"{name}: {job['total']} is not {job['succeeded']} + {job['failed']} + {job['retry']}")
        items = e.listed.get(job["job_id"])
        if items is not None and job["kind"] == "import":
            counted = Counter(item["status"] for item in items)
            if (counted["ok"], counted["failed"], counted["retry"]) != (job["succeeded"], job["failed"], job["retry"]):
                yield Finding("sum", f"{name} counts {job['succeeded']}/{job['failed']}/{job['retry']}, its items are {dict(counted)}")
            changed = sum(i.get("result") in ("created", "updated") and "duplicate_of" not in i for i in items)
            dry = job["options"].get("dry_run")
            if written[job["job_id"]] != (0 if dry else changed):
                yield Finding("sum", f"{name}: {changed} items changed something, {written[job['job_id']]} are in the ledger")
    for _, job_id, answer in acknowledged(e):
        job = e.jobs.get(job_id)
        if answer["status"] == 207 and job is not None:
            told = msgspec.json.decode(answer["body"])["summary"]
            if any(told[n] != job[n] for n in ("total", "succeeded", "failed", "retry")):
                yield Finding("sum", f"job {job_id} was answered {told}, but stands as {job['total']}/{job['succeeded']}")


def effects_add_up(e: Evidence) -> Findings:
    """A job's counts at a destination are the letters of its deliveries, and nothing that is owed is missing."""
    letters: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    owed: dict[tuple[str, int], set[int]] = defaultdict(set)
    for d in e.table("deliveries"):
        place = (d["job_id"], d["destination_id"])
        letters[place] += Counter(WORDS[letter] for letter in d["states"])
        if owed[place] & set(d["indexes"]):
            yield Finding("sum", f"delivery {d['delivery_id']} owes an item twice")
        owed[place] |= set(d["indexes"])
    counted = {(row["job_id"], row["destination_id"]): row for row in e.table("effects")}
    for place, row in counted.items():
        there = {word: row[word] for word in WORDS.values() if row[word]}
        if there != dict(letters[place]):
            yield Finding("sum", f"job {place[0]} counts {there} at {e.crm_of.get(place[1])}, its deliveries {dict(letters[place])}")
    written: dict[str, set[int]] = defaultdict(set)
    for row in e.table("ledger"):
        written[row["job_id"]].add(row["item_index"])
    for job_id, indexes in written.items():
        job = e.jobs.get(job_id)
        if job is None or job["kind"] not in ("import", "undo"):
            continue
        for number, crm in e.crm_of.items():
            missing = indexes - owed[job_id, number]
            if missing:
                yield Finding("not_owed", f"items {sorted(missing)[:5]} of job {job_id} changed contacts, but {crm} is not owed them")


def everything_rests(e: Evidence) -> Findings:
    """All is settled, and each job has the state that its items say."""
    if e.restless is not None:
        yield Finding("restless", f"not everything was settled {e.restless:g} s after the last fault")
    for d in e.table("deliveries"):
        if d["state"] != "done" or set(d["states"]) - SETTLED:
            yield Finding("restless", f"delivery {d['delivery_id']} of job {d['job_id']} is {d['state']} {d['states']} {d['errors']}")
    bad: Counter[str] = Counter()
    for row in e.table("effects"):
        bad[row["job_id"]] += row["failed"] + row["dead"]
    for job in e.jobs.values():
        if job["state"] not in FINISHED or job["finished_at"] is None:
            yield Finding("restless", f"job {job['job_id']} ({job['kind']}) is {job['state']}")
        elif job["state"].startswith("completed") and job["kind"] == "import":
            clean = job["succeeded"] == job["total"] and not bad[job["job_id"]]
            if clean != (job["state"] == "completed"):
                yield Finding("sum", f"job {job['job_id']} is {job['state']} with {bad[job['job_id']]} lost effects and {job['failed'] + job['retry']} items that are not ok")


def jobs_end_last(e: Evidence) -> Findings:
    """No item of a completed job moves any more."""
    job_of = {str(d["delivery_id"]): d["job_id"] for d in e.table("deliveries")}
    ended: set[str] = set()
    for move in sorted(e.table("chaos_moves"), key=lambda move: int(move["seq"])):
        if move["what"] == "job" and move["after"].startswith("completed"):
            ended.add(move["subject"])
        if move["what"] == "item" and job_of.get(move["subject"].split(".")[0]) in ended:
            yield Finding("finished_early", f"item {move['subject']} became {WORDS[move['after']]} when its job was completed")


def letters_are_written(e: Evidence) -> Findings:
    """Whatever was given up has its dead letter, and nothing else has one."""
    given_up = {
        (d["delivery_id"], index): letter
        for d in e.table("deliveries")
        for index, letter in zip(d["indexes"], d["states"], strict=True)
        if letter in "fd"
    }
    letters = Counter((row["delivery_id"], row["item_index"]) for row in e.table("dead_letters"))
    for place, letter in given_up.items():
        if letters[place] != 1:
            yield Finding("no_letter", f"item {place[1]} of delivery {place[0]} is {WORDS[letter]}, and has {letters[place]} letters")
    for place in letters.keys() - given_up.keys():
        yield Finding("letter_too_many", f"item {place[1]} of delivery {place[0]} has a letter, but was not given up")


# what happened at the CRMs


STANDARD: Final = {
    "hubspot": ("email", "firstname", "lastname", "phone", "company", "tranche_id"),
    "salesforce": ("Email", "FirstName", "LastName", "Phone", "Company__c", "Tranche_Id__c"),
    "http": ("email", "first_name", "last_name", "phone", "company", "id"),
}
"""By kind of CRM, its names of our fields."""
NAMELESS: Final = "Nameless"
"""Last name that Salesforce is sent where there is none (an option of the destination)."""


def record_of(kind: str, row: Row) -> Row | None:
    """What a CRM should hold of a contact or a ledger row; `None`: nothing, it is a tombstone."""
    if row["email"] == "":
        return None
    fields = ("email", "first_name", "last_name", "phone", "company", "contact_id")
    found = {theirs: row[ours] for ours, theirs in zip(fields, STANDARD[kind], strict=True)}
    if kind == "http":
        found |= {"attributes": row["attributes"], "version": row["version"]}
    elif kind == "salesforce":
        found["LastName"] = found["LastName"] or NAMELESS
        found |= {f"{name}__c": value for name, value in row["attributes"].items()}
    else:
        found |= {name.lower(): str(value) for name, value in row["attributes"].items() if value is not None}
    return _filled(found)


def held_of(effect: Row) -> Row | None:
    """What the CRM held after an effect."""
    return None if effect.get("deleted") else _filled(effect["properties"])


def _filled(record: Row) -> Row:
    found = {name: value for name, value in record.items() if value not in (None, "")}
    if isinstance(found.get("attributes"), dict):
        found["attributes"] = {name: value for name, value in found["attributes"].items() if value is not None}
    return found


def histories(e: Evidence, crm: str) -> Iterator[tuple[str, list[Row], list[int | None]]]:
    """Of each contact at a CRM: its effects in order, and which version each of them was.

    The smallest version with this content that is not older than the one before; `None`: there is none. An undo makes
    new versions of old contents: what changed nothing is the next of these, if there is one.
    """
    kind = e.kinds.get(crm, "hubspot")
    by_key: dict[str, list[Row]] = defaultdict(list)
    for effect in e.effects.get(crm, []):
        by_key[effect["key"]].append(effect)
    for key, effects in by_key.items():
        versions = [(row["version"], record_of(kind, row)) for row in e.ledger.get(key, [])]
        found: list[int | None] = []
        newest = 0
        for effect in effects:
            held = held_of(effect)
            fitting = [v for v, record in versions if v >= newest and record == held]
            version = fitting[0] if fitting else None
            if version == newest and not effect["changed"] and len(fitting) > 1:
                version = fitting[1]
            found.append(version)
            newest = newest if version is None else version
        yield key, effects, found


def _mark_of(effect: Row) -> object:
    """Which item's content an effect brought."""
    properties = effect["properties"]
    return "gone" if effect.get("deleted") else (properties.get("attributes") or properties).get("mark", properties.get("mark__c"))


def effects_are_single(e: Evidence) -> Findings:
    """What a CRM holds is a version of the contact, never an older one than before, and each is sent but once."""
    for crm in e.destinations:
        kind = e.kinds.get(crm, "hubspot")
        for key, effects, found in histories(e, crm):
            told = [(_mark_of(x), version) for x, version in zip(effects, found, strict=True)]
            counts = Counter(v for x, v in zip(effects, found, strict=True) if x["changed"] and v is not None)
            for version, count in counts.items():
                if count > 1:
                    yield Finding("doubled", f"{crm}: version {version} of {key} took effect {count} times: {told}")
            for effect, version in zip(effects, found, strict=True):
                if version is None:
                    older = any(record_of(kind, row) == held_of(effect) for row in e.ledger.get(key, []))
                    yield Finding(
                        "went_back" if older else "never_stood",
                        f"{crm}: effect {effect['seq']} on {key} is {effect['properties']}; it went {told}",
                    )
                elif not effect["changed"]:
                    yield Finding("sent_again", f"{crm}: call {effect['call']} sent version {version} of {key} though it was there: {told}")


def destinations_hold_the_contacts(e: Evidence) -> Findings:
    """In the end each CRM holds each contact as it stands, or a dead letter says why not."""
    given_up = {(row["destination_id"], row["contact_id"], row["version"]) for row in e.table("dead_letters")}
    for crm, number in e.destinations.items():
        kind = e.kinds.get(crm, "hubspot")
        last = {effect["key"]: held_of(effect) for effect in e.effects.get(crm, [])}
        for contact_id, contact in e.contacts.items():
            wanted = record_of(kind, contact)
            if last.get(contact_id) != wanted and (number, contact_id, contact["version"]) not in given_up:
                yield Finding("not_there", f"{crm} holds {last.get(contact_id)} of {contact_id}, whose version {contact['version']} is {wanted}")
        for contact_id in last.keys() - e.contacts.keys():
            yield Finding("never_stood", f"{crm} holds {contact_id}, which is no contact")


def refused_there_is_not_there(e: Evidence) -> Findings:
    """A contact whose only delivery was refused by the CRM had no effect there."""
    named: dict[tuple[int, str], list[tuple[Row, int]]] = defaultdict(list)
    for d in e.table("deliveries"):
        for position, contact_id in enumerate(d["contact_ids"]):
            named[d["destination_id"], contact_id].append((d, position))
    for (number, contact_id), deliveries in named.items():
        crm = e.crm_of.get(number, "")
        delivery, position = deliveries[0]
        if len(deliveries) == 1 and delivery["states"][position] == "f":
            found = [x["seq"] for x in e.effects.get(crm, []) if x["key"] == contact_id]
            if found:
                yield Finding("refused_but_done", f"{crm} refused {contact_id} for good, but has its effects {found}")


def syncs_are_true(e: Evidence) -> Findings:
    """What Tranche believes a CRM to hold is there, or something newer is."""
    for crm, number in e.destinations.items():
        kind = e.kinds.get(crm, "hubspot")
        last = {effect["key"]: held_of(effect) for effect in e.effects.get(crm, [])}
        for row in e.table("contact_syncs"):
            if row["destination_id"] != number:
                continue
            held = last.get(row["contact_id"])
            fitting = [v["version"] for v in e.ledger.get(row["contact_id"], []) if record_of(kind, v) == held]
            if row["synced_version"] > max(fitting, default=0):
                yield Finding(
                    "believed",
                    f"{crm} is said to hold version {row['synced_version']} of {row['contact_id']}, but holds {held}",
                )


def crms_are_spared(e: Evidence) -> Findings:
    """A CRM that is down is left alone after some calls: its circuit opens."""
    for crm in e.destinations:
        seconds = sum(f["seconds"] for f in e.faults if f["target"] == crm and f.get("details", {}).get("fault") == "down")
        struck = sum("down" in call["faults"] for call in e.calls.get(crm, []))
        most = 25 + 25 * seconds
        if struck > most:
            yield Finding("hammered", f"{crm} was called {struck} times in {seconds:g} s while it was down; {most:g} would do")


def refusals_are_heeded(e: Evidence) -> Findings:
    """What a CRM refuses for good is not sent again by the same delivery."""
    owed: Counter[tuple[str, str]] = Counter()
    for d in e.table("deliveries"):
        owed[e.crm_of.get(d["destination_id"], ""), d["request_id"]] += 1
    for crm in e.destinations:
        refused = Counter(call["request_id"] for call in e.calls.get(crm, []) if "reject" in call["faults"])
        for request_id, count in refused.items():
            # One whose answer was lost on the way may be sent and refused once more.
            if count > 3 * owed[crm, request_id]:
                yield Finding("refused_again", f"{crm} refused contacts in {count} calls of request {request_id}, which has {owed[crm, request_id]} deliveries")


# how states moved


def moves_are_drawn(e: Evidence, edges: dict[str, Edges]) -> Findings:
    """Each change of a state that was committed is an edge of docs/states.md."""
    for move in e.table("chaos_moves"):
        before, after = move["before"], move["after"]
        if move["what"] == "item":
            before, after = WORDS[before], WORDS[after]
        if (before, after) not in edges[move["what"]]:
            yield Finding("undrawn", f"{move['what']} {move['subject']} went from {before} to {after}")


def polls_never_go_back(e: Evidence, edges: dict[str, Edges]) -> Findings:
    """What clients saw of a job and of its items moved along docs/states.md as well."""
    jobs: dict[str, str] = {}
    items: dict[tuple[str, int, str], str] = {}
    here: dict[tuple[str, int], tuple[Any, Any]] = {}
    for entry in e.journal:
        if entry["row"] == "job":
            before = jobs.get(entry["job_id"], entry["state"])
            if not reachable(edges["job"], before, entry["state"]):
                yield Finding("seen_back", f"job {entry['job_id']} was seen {before}, then {entry['state']}")
            jobs[entry["job_id"]] = entry["state"]
        if entry["row"] != "items":
            continue
        for item in entry["items"]:
            place = (entry["job_id"], item["index"])
            told = (item["status"], item.get("version"))
            if here.setdefault(place, told) != told:
                yield Finding("seen_back", f"item {place[1]} of job {place[0]} was {here[place]}, then {told}")
            for name, at in item["destinations"].items():
                before = items.get((*place, name), at["state"])
                if not reachable(edges["item"], before, at["state"]):
                    yield Finding("seen_back", f"item {place[1]} of job {place[0]} at {name} was {before}, then {at['state']}")
                items[*place, name] = at["state"]


RULES: Final[tuple[Callable[[Evidence], Findings], ...]] = (
    answers_stand,
    answers_are_foreseen,
    acknowledged_is_done,
    refused_is_nowhere,
    keys_and_jobs_agree,
    ledger_is_whole,
    undone_is_undone,
    sums_are_right,
    effects_add_up,
    everything_rests,
    jobs_end_last,
    letters_are_written,
    effects_are_single,
    destinations_hold_the_contacts,
    refused_there_is_not_there,
    syncs_are_true,
    crms_are_spared,
    refusals_are_heeded,
)
