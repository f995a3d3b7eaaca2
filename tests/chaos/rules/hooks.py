"""Webhooks: what was committed is told, once, as it is, and by whom it says."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import Counter
from typing import Any, Final

import msgspec

from tests.chaos.evidence import FINISHED, Evidence, Finding, Findings, Row

ATTEMPTS: Final = 7
"""That a message has before it is given up, as the stage is set up."""
_COUNTS: Final = ("total", "succeeded", "failed", "retry")


def messages_arrive(e: Evidence) -> Findings:
    """A message that is said to have arrived was answered well; one that is given up was tried often enough."""
    heard = {row["event_id"] for row in e.rows("hook") if row["mood"] == "ok"}
    for message in e.table("webhook_messages"):
        name = f"{message['type']} {message['event_id']}"
        if message["state"] == "pending":
            yield Finding("restless", f"the message {name} waits still, after {message['attempts']}")
        elif message["state"] == "ok" and message["event_id"] not in heard:
            yield Finding("untold", f"{name} is said to have arrived, but was never answered well")
        elif message["state"] == "failed":
            yield Finding("untold", f"{name} is given up for an answer that was never given: {message['attempts']}")
        elif message["state"] == "dead" and len(message["attempts"]) < ATTEMPTS:
            yield Finding("untold", f"{name} is given up after {message['attempts']}")


def receivers_are_told_what_is(e: Evidence) -> Findings:
    """Under an id that is known, to the byte what is written, and signed."""
    written = {row["event_id"]: row for row in e.table("webhook_messages")}
    for row in e.rows("hook"):
        message = written.get(row["event_id"])
        if message is None:
            yield Finding("told_of_nothing", f"no message has the id {row['event_id']}: {row['body'][:200]}")
        elif row["body"] != message["body"]:
            yield Finding("told_otherwise", f"{row['event_id']} says {row['body'][:200]}, not {message['body'][:200]}")
        if not _is_signed(e.secret, row):
            yield Finding("forged", f"the signature of {row['event_id']} is wrong: {row['signature']}")


def _is_signed(secret: str, row: Row) -> bool:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{row['event_id']}.{row['timestamp']}.{row['body']}".encode()
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return wanted in row["signature"].split()


def events_are_complete(e: Evidence) -> Findings:
    """Each finished job is told of once, as it ended, and each dead letter once."""
    ended: dict[str, list[dict[str, Any]]] = {}
    dead_letters: Counter[int] = Counter()
    unlisted = 0
    for message in e.table("webhook_messages"):
        data = msgspec.json.decode(message["body"])["data"]
        if message["type"] == "job.finished":
            ended.setdefault(data["job_id"], []).append(data)
        elif message["type"] == "item.dead":
            dead_letters.update(item["dead_letter_id"] for item in data["items"])
            unlisted += data.get("count", len(data["items"])) - len(data["items"])
    for job in e.jobs.values():
        told = ended.pop(job["job_id"], [])
        finished = job["state"] in FINISHED
        if len(told) != finished:
            yield Finding("untold", f"job {job['job_id']} is {job['state']}, of which was told {len(told)} times")
        elif told and (
            any(told[0][n] != job[n] for n in ("state", "type"))
            or any(told[0]["summary"][n] != job[n] for n in _COUNTS)
        ):
            yield Finding("told_otherwise", f"job {job['job_id']} was told of as {told[0]}, but is {job}")
    for job_id in ended:
        yield Finding("told_of_nothing", f"there is no job {job_id}")
    left = Counter(row["dead_letter_id"] for row in e.table("dead_letters"))
    if (dead_letters - left) or (left - dead_letters).total() != unlisted:
        yield Finding(
            "untold",
            f"letters without an event: {sorted((left - dead_letters).elements())[:5]}, "
            f"events without a dead letter or told twice: {sorted((dead_letters - left).elements())[:5]}",
        )
