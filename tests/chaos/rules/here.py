"""What stands in PostgreSQL agrees with itself and with what was answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from typing import Final

import msgspec

from tests.chaos.evidence import FINISHED, WORDS, Evidence, Finding, Findings, Row, place_of, shown
from tests.chaos.resources import Place
from tests.chaos.rules.answers import WROTE, acknowledged

SETTLED: Final = frozenset("ofds")
_CONTENT: Final = ("deleted", "fields", "attributes")


def ledger_is_whole(e: Evidence) -> Findings:
    """A record's versions are 1, 2, 3 … without a gap, each knows the one before, and the last is the record."""
    for place, record in e.records.items():
        rows = e.ledger.get(place, [])
        if [row["version"] for row in rows] != list(range(1, record["version"] + 1)):
            yield Finding(
                "gap", f"{shown(place)} has version {record['version']}, its ledger {[row['version'] for row in rows]}"
            )
            continue
        for before, after in zip([None, *rows], rows, strict=False):
            wanted = (None, None) if before is None else (before["job_id"], before["item_index"])
            if (after["prev_job_id"], after["prev_item_index"]) != wanted:
                yield Finding("gap", f"version {after['version']} of {shown(place)} does not name the one before")
        differing = [name for name in _CONTENT if rows[-1][name] != record[name]]
        if differing:
            yield Finding("gap", f"{shown(place)} is not its newest ledger row: {', '.join(differing)}")
        yield from _source_versions_rise(e, place, rows)
    for place in e.ledger.keys() - e.records.keys():
        yield Finding("gap", f"{shown(place)} is in the ledger, but is no record")


def _source_versions_rise(e: Evidence, place: Place, rows: list[Row]) -> Findings:
    """Only an undo goes back, to that of what it restores."""
    newest = None
    for row in rows:
        number = row["source_version"]
        if e.jobs.get(row["job_id"], {}).get("kind") == "undo":
            newest = number
        elif number is not None:
            if newest is not None and number < newest:
                numbers = [row["source_version"] for row in rows]
                yield Finding("version_ignored", f"{shown(place)}: source versions went {numbers}")
                return
            newest = number


def _undone_by(job: Row) -> str | None:
    """The job whose items an undo takes back: all of them, or those that some destination refused."""
    if job.get("kind") != "undo":
        return None
    of: str | None = job.get("undo_of") or job.get("root_job_id")
    return of


def _standing_again(e: Evidence, rows: list[Row], version: int) -> list[int]:
    """This version, and those which stand again with it, because what came after them was undone."""
    found = [version]
    while (of := _undone_by(e.jobs.get(rows[version - 1]["job_id"], {}))) and version > 1:
        again = _standing_again(e, rows, version - 1)
        taken = next((v for v in again if rows[v - 1]["job_id"] == of), 1)
        if taken == 1:
            break  # it was created then: now it is gone
        version = taken - 1
        found.append(version)
    return found


def undone_is_undone(e: Evidence) -> Findings:
    """An undo gives each record its before-image back, unless somebody changed it since, and touches nothing else."""
    written = Counter(row["job_id"] for row in e.table("ledger"))
    undone = Counter(job["undo_of"] for job in e.jobs.values() if job.get("undo_of"))
    for job_id, count in undone.items():
        if count > 1:
            yield Finding("undone_twice", f"job {job_id} has {count} undos")
    for job in e.jobs.values():
        of = _undone_by(job)
        if of is None or job["state"] not in ("completed", "completed_with_failures"):
            continue
        every = job.get("undo_of") is not None
        if every and job["total"] != written[of]:
            yield Finding(
                "not_undone", f"{job['job_id']} has {job['total']} items, job {of} made {written[of]} versions"
            )
        for row in e.table("ledger"):
            place = f"version {row['version']} of {shown(place_of(row))}"
            record = e.records[place_of(row)]
            # A later item that said the same under a newer source version has confirmed it.
            stands = all(record[name] == row[name] for name in ("version", "source_version"))
            if row["job_id"] == of and stands and every:
                yield Finding("not_undone", f"{place} still stands, though job {of} was undone by {job['job_id']}")
            if row["job_id"] != job["job_id"]:
                continue
            rows = e.ledger[place_of(row)]
            again = _standing_again(e, rows, row["version"] - 1) if row["version"] > 1 else []
            taken = next((v for v in again if rows[v - 1]["job_id"] == of), None)
            if taken is None:
                yield Finding("undo_overwrote", f"{place} takes back what job {of} did not do")
                continue
            image = rows[taken - 2] if taken > 1 else None
            if image is None and not row["deleted"]:
                yield Finding("undo_wrong", f"{place} should be nothing, as before job {of}")
            elif image is not None and any(row[name] != image[name] for name in _CONTENT):
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
                yield Finding(
                    "sum",
                    f"{name} counts {job['succeeded']}/{job['failed']}/{job['retry']}, its items are {dict(counted)}",
                )
            changed = sum(i.get("result") in WROTE and "duplicate_of" not in i for i in items)
            dry = job["options"].get("dry_run")
            if written[job["job_id"]] != (0 if dry else changed):
                yield Finding(
                    "sum", f"{name}: {changed} items changed something, {written[job['job_id']]} are in the ledger"
                )
    for _, job_id, answer in acknowledged(e):
        job = e.jobs.get(job_id)
        if answer["status"] == 207 and job is not None:
            told = msgspec.json.decode(answer["body"])["summary"]
            if any(told[n] != job[n] for n in ("total", "succeeded", "failed", "retry")):
                yield Finding(
                    "sum", f"job {job_id} was answered {told}, but stands as {job['total']}/{job['succeeded']}"
                )


def effects_add_up(e: Evidence) -> Findings:
    """A job's counts at a destination are the states of its deliveries, and nothing pending is missing."""
    states: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    owed: dict[tuple[str, int], set[int]] = defaultdict(set)
    for d in e.table("deliveries"):
        place = (d["job_id"], d["destination_id"])
        states[place] += Counter(WORDS[code] for code in d["states"])
        if owed[place] & set(d["indexes"]):
            yield Finding("sum", f"delivery {d['delivery_id']} owes an item twice")
        owed[place] |= set(d["indexes"])
    counted = {(row["job_id"], row["destination_id"]): row for row in e.table("effects")}
    for place, row in counted.items():
        there = {word: row[word] for word in WORDS.values() if row[word]}
        if there != dict(states[place]):
            yield Finding(
                "sum",
                f"job {place[0]} counts {there} at {e.crm_of.get(place[1])}, its deliveries {dict(states[place])}",
            )
    written: dict[str, set[int]] = defaultdict(set)
    for row in e.table("ledger"):
        written[row["job_id"]].add(row["item_index"])
    for job_id, indexes in written.items():
        job = e.jobs.get(job_id)
        if job is None or job["kind"] not in ("import", "undo"):
            continue
        for number, crm in e.crm_of.items():
            missing = indexes - owed[job_id, number] if e.takes(crm, job["type"]) else set()
            if missing:
                yield Finding(
                    "not_owed",
                    f"items {sorted(missing)[:5]} of job {job_id} changed {job['type']}, but {crm} is not owed them",
                )


def deliveries_go_where_they_belong(e: Evidence) -> Findings:
    """A delivery is one of the records that its items changed, of their type, and to a CRM that has a place for it."""
    for d in e.table("deliveries"):
        name, crm = f"delivery {d['delivery_id']} of job {d['job_id']}", e.crm_of[d["destination_id"]]
        if not e.takes(crm, d["type"]):
            yield Finding("misdirected", f"{name} has {d['type']}, for which {crm} has no place")
        for record_id, index in zip(d["record_ids"], d["indexes"], strict=True):
            row = e.entered.get((d["job_id"], index))  # a retry has items of its own
            if row is not None and place_of(row) != (d["type"], record_id):
                yield Finding("misdirected", f"{name} has {record_id} of {d['type']}, but changed {place_of(row)}")


def everything_rests(e: Evidence) -> Findings:
    """All is settled, and each job has the state that its items say."""
    if e.restless is not None:
        yield Finding("restless", f"not everything was settled {e.restless:g} s after the last fault")
    for d in e.table("deliveries"):
        if d["state"] != "done" or set(d["states"]) - SETTLED:
            yield Finding(
                "restless",
                f"delivery {d['delivery_id']} of job {d['job_id']} is {d['state']} {d['states']} {d['errors']}",
            )
    bad: Counter[str] = Counter()
    for row in e.table("effects"):
        bad[row["job_id"]] += row["failed"] + row["dead"]
    for job in e.jobs.values():
        if job["state"] not in FINISHED or job["finished_at"] is None:
            yield Finding("restless", f"job {job['job_id']} ({job['kind']}) is {job['state']}")
        elif job["state"].startswith("completed"):
            clean = job["succeeded"] == job["total"] and not bad[job["job_id"]]
            if clean != (job["state"] == "completed"):
                yield Finding(
                    "sum", f"job {job['job_id']} is {job['state']} with {bad[job['job_id']]} lost effects, items: {job}"
                )


def nothing_surprises(e: Evidence) -> Findings:
    """Whatever was broken was foreseen: no process logs an error that it has no words for."""
    for line in e.surprises:
        yield Finding("surprised", line[:1_500])


def jobs_end_last(e: Evidence) -> Findings:
    """No item of a completed job moves any more."""
    job_of = {str(d["delivery_id"]): d["job_id"] for d in e.table("deliveries")}
    ended: set[str] = set()
    for move in sorted(e.table("chaos_moves"), key=lambda move: int(move["seq"])):
        if move["what"] == "job" and move["after"].startswith("completed"):
            ended.add(move["subject"])
        if move["what"] == "item" and job_of.get(move["subject"].split(".")[0]) in ended:
            yield Finding(
                "finished_early", f"item {move['subject']} became {WORDS[move['after']]} when its job was completed"
            )


def dead_letters_are_written(e: Evidence) -> Findings:
    """Whatever was given up has its dead letter, and nothing else has one."""
    given_up = {
        (d["delivery_id"], index): code
        for d in e.table("deliveries")
        for index, code in zip(d["indexes"], d["states"], strict=True)
        if code in "fd"
    }
    dead_letters = Counter(
        (row["delivery_id"], row["item_index"]) for row in e.table("dead_letters") if row.get("delivery_id") is not None
    )
    for place, code in given_up.items():
        if dead_letters[place] != 1:
            yield Finding(
                "no_dead_letter",
                f"item {place[1]} of delivery {place[0]} is {WORDS[code]}, and has {dead_letters[place]} dead letters",
            )
    for place in dead_letters.keys() - given_up.keys():
        yield Finding(
            "dead_letter_too_many", f"item {place[1]} of delivery {place[0]} has a dead letter, but was not given up"
        )


def conflicts_are_written(e: Evidence) -> Findings:
    """Whatever an undo left because somebody changed it since has its dead letter, and nothing else of it has one."""
    left = Counter(row["job_id"] for row in e.table("dead_letters") if row.get("delivery_id") is None)
    for job in e.jobs.values():
        wanted = job["failed"] if job["kind"] == "undo" else 0
        if left[job["job_id"]] != wanted:
            yield Finding(
                "no_dead_letter" if left[job["job_id"]] < wanted else "dead_letter_too_many",
                f"{job['kind']} {job['job_id']} left {wanted} records, and has {left[job['job_id']]} dead letters",
            )


def dead_letters_are_taken_once(e: Evidence) -> Findings:
    """A dead letter that a retry or replay took is that job's alone, and what ended otherwise has a reason."""
    dead_letters = {row["dead_letter_id"]: row for row in e.table("dead_letters") if row.get("delivery_id") is not None}
    held = {(row["destination_id"], *place_of(row)): row["synced_version"] for row in e.table("record_syncs")}
    owed: set[tuple[str, int, str, str]] = set()
    named: Counter[int] = Counter()
    for d in e.table("deliveries"):
        owed.update((d["job_id"], d["destination_id"], d["type"], record_id) for record_id in d["record_ids"])
        for number in d.get("dead_letters") or []:
            named[number] += 1
            taker = dead_letters[number]["replay_job_id"]
            if taker != d["job_id"]:
                yield Finding(
                    "taken_twice", f"dead letter {number} is sent by job {d['job_id']}, but was taken by {taker}"
                )
    for number, count in named.items():
        if count > 1:
            yield Finding("taken_twice", f"dead letter {number} is sent by {count} deliveries")
    for number, row in dead_letters.items():
        resolution = row.get("resolution")
        place = (row["destination_id"], *place_of(row))
        if resolution == "replayed" and (row["replay_job_id"], *place) not in owed:
            yield Finding(
                "dead_letter_lost", f"dead letter {number} was taken by {row['replay_job_id']}, which owes nothing"
            )
        if resolution == "superseded" and held.get(place, 0) < row["version"]:
            yield Finding(
                "dead_letter_lost",
                f"dead letter {number} of version {row['version']} was superseded, but {held.get(place, 0)} is there",
            )


def _was_open(dead_letter: Row, at: str) -> bool:
    """Whether a dead letter waited for somebody at this time."""
    left, resolved = dead_letter["created_at"], dead_letter.get("resolved_at")
    moment = datetime.fromisoformat(at)
    if datetime.fromisoformat(left) > moment:
        return False
    return resolved is None or datetime.fromisoformat(resolved) > moment


def all_have_it_or_none(e: Evidence) -> Findings:
    """Of an import that all destinations must take, what one of them refused is taken back, and nothing else is."""
    sagas = {row["subject"]: row for row in e.table("sagas") if row["workflow"] == "consistency"}
    by_job: dict[str, list[Row]] = defaultdict(list)
    refused: dict[str, set[Place]] = defaultdict(set)
    for dead_letter in e.table("dead_letters"):
        if dead_letter.get("delivery_id") is None:
            continue
        refused[dead_letter.get("root_job_id", "")].add(place_of(dead_letter))
        by_job[dead_letter.get("job_id", "")].append(dead_letter)
    written = {row["job_id"] for row in e.table("ledger")}
    for job_id, job in e.jobs.items():
        if job["options"].get("consistency") != "all_destinations" or job_id not in written:
            continue
        if not any(e.takes(crm, job["type"]) for crm in e.destinations):
            continue
        saga = sagas.get(job_id)
        if saga is None or saga["state"] != "done":
            yield Finding("half_there", f"nobody saw to it that all destinations take job {job_id}: {saga}")
            continue
        for dead_letter in by_job[job_id]:
            row = e.entered.get((job_id, dead_letter["item_index"]))
            record = e.records[place_of(row)] if row is not None else None
            untouched = row and record and all(record[n] == row[n] for n in ("version", "source_version"))
            if untouched and _was_open(dead_letter, saga["finished_at"]):
                yield Finding(
                    "half_there",
                    f"item {dead_letter['item_index']} of job {job_id} was refused by one destination, "
                    f"but is still there: {row}",
                )
    for row in e.table("ledger"):
        job = e.jobs.get(row["job_id"], {})
        in_part = job.get("kind") == "undo" and job.get("undo_of") is None
        if in_part and place_of(row) not in refused[job["root_job_id"]]:
            yield Finding(
                "undo_overwrote",
                f"version {row['version']} of {shown(place_of(row))} takes back what no destination refused",
            )


def reads_are_true(e: Evidence) -> Findings:
    """Lists and exports of a type have exactly its records, as they stand, and histories all versions of a record."""
    wanted: dict[str, dict[str, Row]] = defaultdict(dict)
    for (type, record_id), record in e.records.items():
        if not record["deleted"]:
            wanted[type][record_id] = record
    for told in e.rows("records"):
        name = f"the {told['how']} of {told['type']}"
        listed, there = Counter(record["id"] for record in told["records"]), Counter(wanted[told["type"]].keys())
        if listed != there:
            yield Finding("listed_wrongly", f"{name} has {listed - there}, and lacks {there - listed}")
        for shows in told["records"]:
            record = wanted[told["type"]].get(shows["id"], shows)
            of = record.get("fields", {})
            if any(shows.get(n) != record.get(n) for n in ("version", "attributes")) or any(
                shows.get(n) != value for n, value in of.items()
            ):
                yield Finding("listed_wrongly", f"{name} has {shows}, not {record}")
    for told in e.rows("history"):
        rows = e.ledger.get((told["type"], told["record_id"]), [])
        versions = [(one["version"], one["job_id"]) for one in reversed(told["versions"])]
        if versions != [(row["version"], row["job_id"]) for row in rows]:
            yield Finding("listed_wrongly", f"the history of {told['record_id']} of {told['type']} is {versions}")
