"""Which addresses a destination may have: none within a network, in whatever way it is spelled."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.destinations.base_urls import base_url_fault
from app.destinations.kinds import OptionsError, parse
from app.vocabulary.addresses import parse_address, parse_networks, refusal

LOOPBACK = parse_networks("127.0.0.0/8, ::1/128")

INWARD = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0X7F.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "localhost",
    "LOCALHOST.",
    "crm.localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "10.0.0.1",
    "172.16.9.9",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",
    "0",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "metadata.google.internal",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "[fc00::1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:a9fe::1]",
    "192.88.99.1",
    "224.0.0.1",
    "255.255.255.255",
]


@pytest.mark.parametrize("host", INWARD)
def test_an_inward_address_is_refused_however_it_is_spelled(host: str) -> None:
    for url in (f"https://{host}", f"https://{host}:8443/v1"):
        fault = base_url_fault(url, ())
        assert fault is not None, url
        assert "TRANCHE_DESTINATION_PRIVATE" in fault


@pytest.mark.parametrize(
    "url",
    [
        "https://api.hubapi.com",
        "https://acme.my.salesforce.com/services/",
        "https://1.1.1.1",
        "https://[2606:4700::1111]:8443/base",
        "https://bücher.example",
        "https://crm",
    ],
)
def test_the_public_internet_is_fine(url: str) -> None:
    """What a name stands for is found out when it is called."""
    assert base_url_fault(url, ()) is None


def test_plain_http_is_for_networks_that_the_operator_names() -> None:
    for url in ("http://api.example.com", "http://1.1.1.1"):
        fault = base_url_fault(url, ())
        assert fault is not None
        assert "https://" in fault
    assert base_url_fault("http://1.1.1.1", LOOPBACK) is not None
    for host in ("127.0.0.1:8001", "[::1]:8001", "localhost:8001"):
        assert base_url_fault(f"http://{host}", LOOPBACK) is None, host
        assert base_url_fault(f"https://{host}", LOOPBACK) is None, host
    # A name may stand for an address within; it is held to that when it is called.
    assert base_url_fault("http://crm:8080", parse_networks("172.18.0.0/16")) is None
    assert base_url_fault("http://10.0.0.1", LOOPBACK) is not None


def test_a_disguised_address_must_be_named_as_such() -> None:
    assert base_url_fault("https://[::ffff:127.0.0.1]", LOOPBACK) is not None


@pytest.mark.parametrize(
    "url", ["https://user:pass@crm.example", "https://user@127.0.0.1", "ftp://x", "https://", "https://a..b"]
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    fault = base_url_fault(url, LOOPBACK)
    assert fault is not None
    assert "pass" not in fault.replace("password", "")


@given(st.integers(min_value=0, max_value=2**32 - 1), st.data())
def test_every_spelling_of_an_ipv4_address_is_that_address(number: int, data: st.DataObject) -> None:
    address = ipaddress.IPv4Address(number)
    parts = data.draw(st.integers(min_value=1, max_value=4))
    values = [*address.packed[: parts - 1], number & (2 ** (8 * (5 - parts)) - 1)]
    spell = [data.draw(st.sampled_from(["{:d}", "0{:o}", "0x{:x}", "0X{:08X}"])) for _ in values]
    host = ".".join(form.format(value) for form, value in zip(spell, values, strict=True))
    assert parse_address(host) == address
    assert parse_address(f"{host}.") == address
    assert (base_url_fault(f"https://{host}", ()) is None) == (refusal(address) is None)


@pytest.mark.parametrize("host", ["256.1.1.1", "1.2.3.4.5", "08.0.0.1", "0xg", "a.1", "1..2", "4294967296"])
def test_what_is_no_address_is_a_name(host: str) -> None:
    assert parse_address(host) is None


@pytest.mark.parametrize(
    "header",
    [
        "Authorization",
        "authorization",
        "X-Api-Key",
        "Api-Key",
        "ApiKey",
        "X-Auth-Token",
        "X-Shopify-Access-Token",
        "X-Acme-Api-Key",
        "X-Acme-Token",
    ],
)
def test_a_token_goes_in_a_header_for_tokens(header: str) -> None:
    parse("http", {"auth_header": header})


@pytest.mark.parametrize(
    "header",
    [
        "Cookie",
        "Host",
        "Content-Length",
        "X-Forwarded-For",
        "X-Forwarded-Token",
        "X-Forwarded-Access-Token",
        "Proxy-Authorization",
        "X-aws-ec2-metadata-token",
        "X-aws-ec2-metadata-token-ttl-seconds",
        "X-Amz-Security-Token",
        "Metadata",
        "Metadata-Flavor",
        "X-Metadata-Token",
        "X-Google-Metadata-Request",
        "X-Aliyun-Ecs-Metadata-Token",
        "Forwarded",
        "X-Real-Ip",
        "X-Http-Method-Override",
        "Range",
        "Colour",
    ],
)
def test_a_token_goes_in_no_other_header(header: str) -> None:
    with pytest.raises(OptionsError, match="auth_header"):
        parse("http", {"auth_header": header})
