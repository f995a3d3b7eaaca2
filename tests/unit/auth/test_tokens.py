"""A key is taken apart as it was made, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import string
import zlib

from hypothesis import example, given
from hypothesis import strategies as st

from app.auth import tokens
from app.auth.tokens import SECRET_BYTES, Token

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase

tenants = st.integers(min_value=0, max_value=2**31 - 1)
key_ids = st.binary(min_size=6, max_size=6)
secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@given(tenants, key_ids, secrets)
@example(0, bytes(6), bytes(SECRET_BYTES))
@example(1, bytes(6), bytes(SECRET_BYTES))
@example(2**31 - 1, b"\xff" * 6, b"\xff" * SECRET_BYTES)
def test_round_trip(tenant_id: int, key_id: bytes, secret: bytes) -> None:
    """The whole range of tenants; every key has one length and characters that survive any copy and paste."""
    key, token = tokens.make(tenant_id, key_id, secret)
    assert token == Token(tenant_id, key_id.hex(), hashlib.sha256(secret).digest())
    assert tokens.parse(key) == token
    assert key.startswith("trn_")
    assert len(key) == 50
    assert set(key[4:]) <= set(_ALPHABET)


@given(tenants, key_ids, secrets)
def test_the_secret_is_not_what_is_stored(tenant_id: int, key_id: bytes, secret: bytes) -> None:
    _, token = tokens.make(tenant_id, key_id, secret)
    assert secret not in token.secret_hash
    assert secret.hex() not in token.key_id


@given(tenants, key_ids, secrets, st.data())
def test_any_changed_character_is_noticed(tenant_id: int, key_id: bytes, secret: bytes, data: st.DataObject) -> None:
    """Without asking the database."""
    key, _ = tokens.make(tenant_id, key_id, secret)
    place = data.draw(st.integers(0, len(key) - 1))
    others = st.sampled_from(_ALPHABET) | st.characters()
    other = data.draw(others.filter(lambda c: c != key[place]))
    assert tokens.parse(key[:place] + other + key[place + 1 :]) is None


def test_every_single_change_of_one_key() -> None:
    key, _ = tokens.make(7, b"abcdef", bytes(range(SECRET_BYTES)))
    for place in range(len(key)):
        for other in _ALPHABET + "_-. \n\0":
            if other != key[place]:
                assert tokens.parse(key[:place] + other + key[place + 1 :]) is None


@given(tenants, key_ids, secrets, st.integers(0, 49))
def test_a_cut_or_lengthened_key_is_noticed(tenant_id: int, key_id: bytes, secret: bytes, length: int) -> None:
    key, _ = tokens.make(tenant_id, key_id, secret)
    assert tokens.parse(key[:length]) is None
    assert tokens.parse(key[length + 1 :]) is None
    assert tokens.parse(key + key[length]) is None
    assert tokens.parse(key[:length] + key[length] + key[length:]) is None
    assert tokens.parse(f" {key}") is None
    assert tokens.parse(f"{key}\n") is None


@given(tenants, key_ids, secrets, st.integers(0, 44))
def test_swapped_neighbours_are_noticed(tenant_id: int, key_id: bytes, secret: bytes, place: int) -> None:
    key, token = tokens.make(tenant_id, key_id, secret)
    start = 4 + place
    swapped = key[:start] + key[start + 1] + key[start] + key[start + 2 :]
    assert tokens.parse(swapped) == (token if swapped == key else None)


@given(st.integers(min_value=2**31, max_value=2**32 - 1))
@example(2**31)
def test_a_forged_tenant_that_no_table_can_hold(tenant_id: int) -> None:
    """Anybody can work out the checksum; PostgreSQL must not be asked for such a number."""
    payload = tenant_id.to_bytes(4, "big") + bytes(6 + SECRET_BYTES)
    number = int.from_bytes(payload + zlib.crc32(payload).to_bytes(4, "big"), "big")
    forged = "".join(_ALPHABET[number // 62**place % 62] for place in range(45, -1, -1))
    assert tokens.parse(f"trn_{forged}") is None


@given(st.text() | st.text(_ALPHABET, min_size=46, max_size=46).map("trn_{}".format))
@example("")
@example("trn_")
@example("trn_" + "z" * 46)
@example("trn_" + "٣" * 46)
@example("ghp_" + "0" * 46)
def test_foreign_strings_are_no_keys(text: str) -> None:
    """Whatever comes in the header, it never raises."""
    assert tokens.parse(text) is None
