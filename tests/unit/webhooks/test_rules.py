"""Webhooks as rules: addresses, URLs, answers, waits and signatures."""

from __future__ import annotations

import ipaddress
import socket
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.errors import SettingsError
from app.settings import load
from app.vocabulary.addresses import parse_networks, refusal
from app.vocabulary.waits import parse_waits
from app.webhooks.rules import MessageState, Policy, Verdict, judge, make_secret, sign, url_fault
from jobs.outbound.ssrf import AddressRefused, PublicOnlySocketFactory

REFUSED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
]
OPEN = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]


def info(address: str) -> tuple[int, int, int, str, tuple[object, ...]]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, 0, "", (address, 443)


@pytest.mark.parametrize("address", REFUSED)
def test_the_guard_makes_no_socket_for_what_is_not_the_internet(address: str) -> None:
    with pytest.raises(AddressRefused, match="is not called"):
        PublicOnlySocketFactory()(info(address))


@pytest.mark.parametrize("address", OPEN)
def test_the_guard_lets_the_internet_pass(address: str) -> None:
    PublicOnlySocketFactory()(info(address)).close()


def test_networks_that_an_operator_names_are_let_pass() -> None:
    """And nothing that only looks like them: what is in a disguise must be named as such."""
    allowed = parse_networks("127.0.0.0/8, 10.0.0.0/24,fd00::/8")
    for address in ("127.0.0.1", "10.0.0.9", "fd00::1"):
        assert refusal(ipaddress.ip_address(address), allowed) is None
    for address in ("10.0.1.1", "::ffff:127.0.0.1", "192.168.0.1", "fe80::1"):
        assert refusal(ipaddress.ip_address(address), allowed) is not None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://example.com/hooks?key=1", None),
        ("https://example.com", None),
        ("https://example.com:8443?x", None),
        ("https://[2606:4700::1111]/x", None),
        ("http://example.com/", "must begin with https://"),
        ("http://8.8.8.8/", "must begin with https://"),
        ("http://127.0.0.1:9000/x", None),
        ("https://127.0.0.1/x", None),
        ("https://10.0.0.1/x", "is private"),
        ("http://[::1]/", "is loopback"),
        ("https://user:secret@example.com/", "user or password"),
        ("ftp://example.com/", "is not a URL"),
        ("https://example.com/#part", "is not a URL"),
        ("https://exa mple.com/", "is not a URL"),
        ("https://example.com:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https:///x", "is not a URL"),
        ("https://example.com\\@127.0.0.1/", "user or password"),
        ("https://example.com/\x00", "is not a URL"),
        ("", "is not a URL"),
        ("https://example.com/" + "x" * 2_000, "longer than"),
    ],
)
def test_urls_that_can_be_told(url: str, fault: str | None) -> None:
    found = url_fault(url, parse_networks("127.0.0.0/8"))
    assert found is None if fault is None else found is not None and fault in found
    assert "secret" not in (found or "")


WAITS = (5.0, 30.0)


@pytest.mark.parametrize(
    ("status", "attempt", "retry_after", "verdict"),
    [
        (200, 1, None, Verdict(MessageState.OK)),
        (204, 3, None, Verdict(MessageState.OK)),
        (301, 1, None, Verdict(MessageState.FAILED)),
        (400, 1, None, Verdict(MessageState.FAILED)),
        (404, 1, 60.0, Verdict(MessageState.FAILED)),
        (410, 1, None, Verdict(MessageState.FAILED, disable=True)),
        (408, 1, None, Verdict(MessageState.PENDING, 5.0)),
        (429, 1, 60.0, Verdict(MessageState.PENDING, 60.0)),
        (429, 2, 1.0, Verdict(MessageState.PENDING, 30.0)),
        (503, 1, 1e9, Verdict(MessageState.PENDING, 3_600.0)),
        (500, 1, 60.0, Verdict(MessageState.PENDING, 5.0)),
        (None, 2, None, Verdict(MessageState.PENDING, 30.0)),
        (None, 3, None, Verdict(MessageState.DEAD)),
        (503, 3, 60.0, Verdict(MessageState.DEAD)),
        (500, 9, None, Verdict(MessageState.DEAD)),
    ],
)
def test_what_an_answer_means(status: int | None, attempt: int, retry_after: float | None, verdict: Verdict) -> None:
    assert judge(status, attempt, WAITS, lambda: 0.5, retry_after=retry_after) == verdict


def test_waits_are_jittered_by_a_fifth() -> None:
    assert judge(500, 2, WAITS, lambda: 0.0).wait == pytest.approx(24)
    assert judge(500, 2, WAITS, lambda: 1.0).wait == pytest.approx(36)


def test_settings_that_make_no_sense_are_named() -> None:
    assert parse_waits("") == ()
    assert parse_waits("5, 30,") == (5.0, 30.0)
    for name, value in (
        ("TRANCHE_WEBHOOK_WAITS", "5,soon"),
        ("TRANCHE_WEBHOOK_WAITS", "-1"),
        ("TRANCHE_WEBHOOK_WAITS", "nan"),
        ("TRANCHE_WEBHOOK_PRIVATE", "10.0.0.1/8"),
        ("TRANCHE_WEBHOOK_PRIVATE", "localhost"),
    ):
        with pytest.raises(SettingsError, match=name):
            load({name: value})


def test_a_signature_is_that_of_the_published_example() -> None:
    """The test vector of the reference libraries (standard-webhooks)."""
    at = datetime.fromtimestamp(1614265330, UTC)
    secret, event_id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    fields = sign([secret], event_id, at, '{"test": 2432232314}')
    assert fields == {
        "webhook-id": event_id,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "X-Event-ID": event_id,
    }


def test_every_valid_secret_signs() -> None:
    old, new, other = (make_secret(bytes([n]) * 32) for n in range(3))
    fields = sign([new, old], "event", datetime.now(UTC), '{"a":"ü"}')
    for secret in (old, new):
        Webhook(secret).verify('{"a":"ü"}', fields)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify('{"a":"ü"}', fields)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify('{"a":"u"}', fields)


@pytest.mark.parametrize("status", [None, 301, 400, 401, 404, 408, 422, 429, 500, 503])
def test_a_patient_policy_tries_again_whatever_was_answered(status: int | None) -> None:
    waits = (5.0, 60.0)
    assert judge(status, 1, waits, lambda: 0.5, policy=Policy.STANDARD) == Verdict(MessageState.PENDING, 5.0)
    assert judge(status, 3, waits, lambda: 0.5, policy=Policy.STANDARD).state is MessageState.DEAD


def test_gone_is_gone_for_the_patient_too() -> None:
    assert judge(410, 1, (5.0,), lambda: 0.5, policy=Policy.STANDARD).disable


def test_the_patient_waits_are_three_days() -> None:
    assert 72 * 3_600 < sum(parse_waits(load({}).webhook_standard_waits)) < 80 * 3_600
