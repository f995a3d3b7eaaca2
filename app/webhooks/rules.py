"""Webhooks, as rules: which URL is allowed, what an answer means, when to retry, how a message is signed.

Headers and signatures are those of Standard Webhooks (standardwebhooks.com): a receiver needs no code of ours.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec
from standardwebhooks import Webhook

from app.vocabulary.addresses import Network, is_named, parse_address, refusal
from app.vocabulary.states import EventType

TEST_EVENT: Final = "webhook.test"
"""What `test` sends, to whatever events an endpoint listens."""
MAX_URL: Final = 2_000
SECRET_BYTES: Final = 32
"""Standard Webhooks wants 24 to 64."""
JITTER: Final = 0.2
LONGEST_ASKED: Final = 3_600.0
"""Seconds that a receiver's Retry-After can put an attempt off."""
MOST_ATTEMPTS_KEPT: Final = 50
_URL: Final = re.compile(r"https?://[^\s/?#@\\\x00-\x1f]+([/?][^\s#\x00-\x1f]*)?", re.ASCII)


class EndpointState(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    """By an operator, or because the receiver answered 410."""
    REMOVED = "removed"


class MessageState(StrEnum):
    """The state of one event at one endpoint."""

    PENDING = "pending"
    OK = "ok"
    """The receiver answered 2xx."""
    FAILED = "failed"
    """Trying again would not help: the receiver refused it, or its endpoint was disabled or removed."""
    DEAD = "dead"
    """The last attempt failed."""


class Policy(StrEnum):
    """How patient an endpoint wants us to be."""

    SHORT = "short"
    """Five retries within 75 minutes; an answer of 4xx that no retry mends is final."""
    STANDARD = "standard"
    """As Standard Webhooks asks: all but 2xx and 410 is tried again, over three days; an endpoint that fails for five
    days is disabled."""


ALL_EVENTS: Final = tuple(sorted(event.value for event in EventType))


class Verdict(msgspec.Struct, frozen=True):
    """What one attempt made of a message."""

    state: MessageState
    wait: float = 0.0
    """Seconds before the next attempt, if it is pending."""
    disable: bool = False
    """The receiver never wants to hear from us again."""


def judge(
    status: int | None,
    attempt: int,
    waits: Sequence[float],
    random: Callable[[], float],
    *,
    policy: Policy = Policy.SHORT,
    retry_after: float | None = None,
) -> Verdict:
    """What the answer to attempt number `attempt` (from 1) means; no status: there was none.

    `waits` are those of the endpoint's policy. `retry_after` is what the receiver asked for: heeded with 429 and 503,
    as far as it is later than our own wait.
    """
    if status is not None and 200 <= status < 300:
        return Verdict(MessageState.OK)
    if status == 410:
        return Verdict(MessageState.FAILED, disable=True)
    final = policy is Policy.SHORT and status is not None and status < 500 and status not in (408, 429)
    if final:
        return Verdict(MessageState.FAILED)
    if attempt > len(waits):
        return Verdict(MessageState.DEAD)
    wait = waits[attempt - 1] * (1 + JITTER * (2 * random() - 1))
    if retry_after is not None and status in (429, 503):
        wait = max(wait, min(retry_after, LONGEST_ASKED))
    return Verdict(MessageState.PENDING, wait)


def url_fault(url: str, private: Iterable[Network]) -> str | None:
    """Why events cannot be sent to a URL, as a sentence; `None`: it can.

    A name is looked up only when a call is made, and its address is checked then (jobs.outbound.ssrf).
    """
    if len(url) > MAX_URL:
        return f"The URL is longer than {MAX_URL} characters."
    if "@" in url.partition("://")[2].partition("/")[0]:
        # Not repeated: a URL stands in lists and logs.
        return "A URL with a user or password cannot be used; the signature identifies the caller."
    host = _host_of(url) if _URL.fullmatch(url) else None
    if host is None:
        return f"{url[:200]!r} is not a URL to send to, such as https://example.com/webhooks."
    private = tuple(private)
    address = parse_address(host)
    if address is not None and (why := refusal(address, private)) is not None:
        return f"{address} {why}; webhooks go to the public internet, unless TRANCHE_WEBHOOK_PRIVATE names its network."
    if url.startswith("http://") and not (address is not None and is_named(address, private)):
        return "The URL must begin with https://; http:// is for addresses that TRANCHE_WEBHOOK_PRIVATE names."
    return None


def _host_of(url: str) -> str | None:
    """An IPv6 address without its bracket and port 99999 are none."""
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.port != 0 else None
    except ValueError:
        return None


def make_secret(random_bytes: bytes) -> str:
    return "whsec_" + base64.b64encode(random_bytes).decode()


SIGNATURE: Final = "webhook-signature"
WITHHELD: Final = "(not kept)"


def without_signature(headers: Mapping[str, str]) -> dict[str, str]:
    """As they may be kept beside the payload: with its signature, whoever reads both could send the message again."""
    return {name: WITHHELD if name == SIGNATURE else value for name, value in headers.items()}


def sign(secrets: Iterable[str], event_id: str, at: datetime, body: str) -> dict[str, str]:
    """The header fields that prove where a message comes from: one signature for each secret that is valid now.

    `at` must be aware. Each attempt is signed anew: a receiver refuses what is older than a few minutes.
    """
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        SIGNATURE: " ".join(Webhook(secret).sign(event_id, at, body) for secret in secrets),
        "X-Event-ID": event_id,
    }
