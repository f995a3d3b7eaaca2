"""The rules of single fields and the words in which their faults are told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resources import rules
from app.resources.declaration import MAX_TEXT
from app.vocabulary.outcomes_wire import FieldError
from tests.types import CONTACTS


def check(name: str, value: object) -> FieldError | None:
    (field,) = [field for field in CONTACTS.fields if field.name == name]
    return next(rules.check_field(field, value), None)


@pytest.mark.parametrize(
    "address",
    [
        "zunigavanessa@smith.info",
        "a@b.co",
        "first.last+tag@sub.example.co.uk",
        "o'brien@example.com",
        "x_y-z@my-host.example",
        "jörg@example.de",
        "info@exämple.de",
        "info@xn--exmple-cua.de",
        "用户@例子.广告",
        "a" * 64 + "@" + "b" * 63 + ".example.com",
        "somebody@host.test",
        "somebody@printer.local",
    ],
)
def test_addresses_that_people_have_are_taken(address: str) -> None:
    assert rules.email_fault(address) is None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "is empty"),
        (" a@b.co", 'send "a@b.co"'),
        ("a@b.co\n", 'send "a@b.co"'),
        ("nope", "@-sign"),
        ("@example.com", "@-sign"),
        ("a@", "dot"),
        ("a@localhost", "dot"),
        ("a@b@c.com", "@"),
        ("a..b@example.com", "period"),
        (".a@example.com", "period"),
        ("a.@example.com", "period"),
        ("a@.example.com", "period"),
        ("a@example..com", "period"),
        ("a@-example.com", "hyphen"),
        ("a@example-.com", "hyphen"),
        ("a@exam_ple.com", "characters"),
        ("a b@example.com", "not an e-mail"),
        ("Ann <a@example.com>", "not an e-mail"),
        ('"a b"@example.com', "not an e-mail"),
        ("a@[127.0.0.1]", "not an e-mail"),
        ("a@b.co, c@d.co", "not an e-mail"),
        ("a" * 65 + "@example.com", "64"),
        ("a@" + "b" * 64 + ".com", "not an e-mail"),
        ("a@" + "b." * 158 + "com", "254"),
        ("a@" + "b." * 140 + "com", "254"),
        ("a@xn--zzzzzzzz.de", "not an e-mail"),
    ],
)
def test_what_is_no_address_is_told_with_the_reason(address: str, words: str) -> None:
    assert words in (rules.email_fault(address) or "")


@given(st.text(max_size=80) | st.from_regex(r"[a-zäA\".@ +-]{1,12}@[a-zß.-]{1,12}\.[a-z]{1,4}", fullmatch=True))
def test_any_text_is_judged_without_an_exception_and_always_alike(text: str) -> None:
    fault = rules.email_fault(text)
    assert fault == rules.email_fault(text)
    assert fault is None or fault.isprintable()


@pytest.mark.parametrize(
    "number", ["(496)978-3969x58947", "001-808-617-6467x12895", "+49 30 123456", "5153435776", "٠١٢", "x" * 99 + "1"]
)
def test_phones_in_the_wild_are_taken(number: str) -> None:
    assert check("phone", number) is None


@pytest.mark.parametrize(("number", "words"), [("", "no digit"), ("n/a", "no digit"), ("1" * 101, "at most 100")])
def test_text_without_digits_is_no_phone(number: str, words: str) -> None:
    error = check("phone", number)
    assert error is not None
    assert (error.code, error.pointer) == ("INVALID_PHONE", "/phone")
    assert words in error.detail


@pytest.mark.parametrize(
    ("tokens", "pointer"),
    [
        ((), ""),
        (("email",), "/email"),
        (("attributes", "foo/bar"), "/attributes/foo~1bar"),
        (("attributes", "a~b", 0), "/attributes/a~0b/0"),
        (("",), "/"),
        (("a\0b\ud800",), "/a\ufffdb\ufffd"),
    ],
)
def test_pointers_are_escaped_and_can_be_stored(tokens: tuple[str | int, ...], pointer: str) -> None:
    assert rules.pointer(*tokens) == pointer


def test_an_endless_pointer_is_cut() -> None:
    assert len(rules.pointer(*["x" * 255] * 40)) == 501


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("firstname", "first_name"),
        ("First Name", "first_name"),
        ("lastName", "last_name"),
        ("surname", "last_name"),
        ("e-mail", "email"),
        ("emial", "email"),
        ("Phone 1", "phone"),
        ("telephone", "phone"),
        ("Customer Id", "id"),
        ("attribute", "attributes"),
        ("compnay", "company"),
        ("version", "if_version"),
    ],
)
def test_the_field_that_was_meant_is_named(name: str, field: str) -> None:
    assert f'did you mean "{field}"?' in rules.Names(CONTACTS).unknown_field(name).detail


@pytest.mark.parametrize("name", ["favourite colour", "x", "", "日本", "z" * 5_000])
def test_own_data_is_sent_to_attributes(name: str) -> None:
    error = rules.Names(CONTACTS).unknown_field(name)
    assert error.code == "UNKNOWN_FIELD"
    assert "belongs in attributes" in error.detail
    assert len(error.detail) < 200


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
def test_counters_take_whole_numbers(value: int) -> None:
    assert rules.check_counter("if_version", value) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1, "from 0"),
        (2**63, "from 0"),
        (float("inf"), "from 0"),
        (1.5, "without fraction"),
        (1.0, "without fraction"),
        (True, "not a boolean"),
        ("1", "not a string"),
        ([], "not an array"),
    ],
)
def test_counters_refuse_the_rest(value: object, words: str) -> None:
    error = rules.check_counter("source_version", value)
    assert error is not None
    assert (error.code, error.pointer) == ("INVALID_FIELD", "/source_version")
    assert words in error.detail


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a\0b", "U+0000"),
        ("a\ud800", "\\ud800"),
        ("a\udcff", "UTF-8"),
        ("x" * 1_001, "1001 characters"),
        (5, "double quotes"),
        ({}, "an object"),
    ],
)
def test_text_that_cannot_be_stored_is_refused(value: object, words: str) -> None:
    detail = rules.check_text(value, longest=MAX_TEXT)
    assert detail is not None
    assert words in detail


def attributes(text: str) -> list[tuple[str, str]]:
    value = json.loads(text, object_pairs_hook=rules.Object)
    return [(error.pointer, error.detail) for error in rules.check_attributes(value)]


def test_every_fault_of_attributes_is_found_where_it_is() -> None:
    found = attributes(
        '{"ok":1,"nul":"\\u0000","":1,"deep":{"a/b":[1,1e400,{"x":1,"x":2}]},"big":9223372036854775808,'
        '"low":-9223372036854775808,"half":"\\ud800","' + "k" * 256 + '":null,"bad\\u0000":0}'
    )
    assert [place[:40] for place, _ in found] == [
        "/attributes/",
        "/attributes/" + "k" * 28,
        "/attributes/bad\ufffd",
        "/attributes/nul",
        "/attributes/deep/a~1b/1",
        "/attributes/deep/a~1b/2/x",
        "/attributes/big",
        "/attributes/low",
        "/attributes/half",
    ]


@pytest.mark.parametrize(("levels", "sound"), [(31, True), (32, False)])
def test_attributes_nest_32_levels(levels: int, sound: bool) -> None:
    for opener, closer in ("[", "]"), ('{"a":', "}"):
        text = '{"deep":' + opener * levels + "1" + closer * levels + "}"
        assert (attributes(text) == []) is sound
        assert (rules.count_names(json.loads(text)) is not None) is sound
        if not sound:
            assert attributes(text)[0][0] == "/attributes/deep"


@pytest.mark.parametrize("value", ["text", 1, True, []])
def test_attributes_must_be_an_object(value: object) -> None:
    (error,) = rules.check_attributes(value)
    assert (error.code, error.pointer) == ("INVALID_FIELD", "/attributes")
    assert "must be an object" in error.detail


LOCAL = "x" * 64


@pytest.mark.parametrize("length", [255, 308, 320])
def test_an_address_that_no_mail_server_takes_is_refused(length: int) -> None:
    """RFC 5321: 256 bytes with angle brackets, though local part and domain are each short enough."""
    domain = ".".join(["d" * 60] * 4) + ".example.com"
    value = f"{LOCAL}@{domain}"[: length - 12] + ".example.com"
    assert len(value) == length
    fault = rules.email_fault(value)
    assert fault is not None
    assert "254" in fault


def test_the_longest_address_is_taken() -> None:
    value = f"{LOCAL}@{'d' * 60}.{'d' * 60}.{'d' * 55}.example.com"
    assert len(value) == 254
    assert rules.email_fault(value) is None


def test_bytes_count_not_characters() -> None:
    value = f"{'ü' * 32}@{'ü' * 40}.{'ü' * 40}.{'ü' * 30}.example.com"
    assert len(value) < 254 < len(value.encode())
    assert rules.email_fault(value) is not None


@pytest.mark.parametrize(
    "value",
    ["test@123.123.123.123", "me@bad.tld-2", "a@example.123", "a@1.2", "a@example.\uff11\uff12", "a@[127.0.0.1]"],
)
def test_a_domain_that_ends_like_a_number_is_none(value: str) -> None:
    assert rules.email_fault(value) is not None


@pytest.mark.parametrize("value", ["a@123.com", "a@xn--80ak6aa92e.xn--p1ai", "\u0430@\u0444.\u0440\u0444"])
def test_numbers_elsewhere_are_fine(value: str) -> None:
    assert rules.email_fault(value) is None
