"""Encryption at rest: several keys, ciphertexts that name theirs, and no other owner or address for a secret."""

from __future__ import annotations

import base64
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import SettingsError
from app.kit.encryption import DESTINATION, WEBHOOK_ENDPOINT, Vault

OLD = base64.b64encode(bytes(range(32))).decode()
NEW = base64.b64encode(bytes(range(1, 33))).decode()
CRM = "https://crm.example"


def seal_older(key: str, secret: str, *, tenant_id: int, name: str, kind: str = DESTINATION) -> bytes:
    """As the releases before keys had ids did."""
    nonce = os.urandom(12)
    context = f"tranche:{kind}:{tenant_id}:{name}".encode()
    return nonce + AESGCM(base64.b64decode(key)).encrypt(nonce, secret.encode(), context)


@pytest.mark.parametrize(
    "keys", ["", "short", "ä" * 44, "A" * 43, f"{OLD},", f",{OLD}", f"{OLD},short", f"{OLD},,{NEW}"]
)
def test_a_key_that_is_none_is_refused_with_what_it_should_be(keys: str) -> None:
    with pytest.raises(SettingsError, match=r"32 random bytes.*openssl rand -base64 32") as caught:
        Vault(keys)
    assert OLD not in str(caught.value)


def test_the_wrong_one_of_several_keys_is_named() -> None:
    with pytest.raises(SettingsError, match="key 2 of 2"):
        Vault(f"{OLD}, short")


def test_a_secret_opens_for_its_owner_and_its_address_alone() -> None:
    vault = Vault(OLD)
    sealed = vault.seal("s", tenant_id=1, name="x", address=CRM)
    assert vault.open(sealed, tenant_id=1, name="x", address=CRM) == "s"
    for tenant_id, name, kind, address in (
        (2, "x", DESTINATION, CRM),
        (1, "y", DESTINATION, CRM),
        (1, "x", WEBHOOK_ENDPOINT, CRM),
        (1, "x", DESTINATION, "https://evil.example"),
        (1, "x", DESTINATION, ""),
    ):
        with pytest.raises(SettingsError, match="another name, tenant or address"):
            vault.open(sealed, tenant_id=tenant_id, name=name, kind=kind, address=address)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SettingsError):
            vault.open(bytes(changed), tenant_id=1, name="x", address=CRM)


def test_the_first_key_encrypts_and_every_key_decrypts() -> None:
    before = Vault(OLD).seal("s", tenant_id=1, name="x", address=CRM)
    both = Vault(f"{NEW}, {OLD}")
    assert both.open(before, tenant_id=1, name="x", address=CRM) == "s"
    assert not both.is_current(before)
    after = both.seal("s", tenant_id=1, name="x", address=CRM)
    assert both.is_current(after)
    assert Vault(NEW).open(after, tenant_id=1, name="x", address=CRM) == "s"
    with pytest.raises(SettingsError, match="another TRANCHE_SECRET_KEY") as caught:
        Vault(OLD).open(after, tenant_id=1, name="x", address=CRM)
    assert both.key_ids[0] in str(caught.value), "the key that is missing is named"
    assert Vault.key_of(before) == Vault(OLD).key_ids[0]


def test_what_was_encrypted_before_keys_had_ids_still_opens() -> None:
    older = seal_older(OLD, "s", tenant_id=1, name="x")
    vault = Vault(f"{NEW},{OLD}")
    assert vault.key_of(older) is None
    assert not vault.is_current(older)
    assert vault.open(older, tenant_id=1, name="x", address=CRM) == "s"
    with pytest.raises(SettingsError, match="another TRANCHE_SECRET_KEY"):
        Vault(NEW).open(older, tenant_id=1, name="x", address=CRM)
    with pytest.raises(SettingsError):
        vault.open(older, tenant_id=2, name="x", address=CRM)


def test_an_older_ciphertext_that_happens_to_look_like_a_newer_one_still_opens() -> None:
    nonce = b"\x00TRN\x02" + bytes.fromhex(Vault(OLD).key_ids[0]) + b"abc"
    older = nonce + AESGCM(base64.b64decode(OLD)).encrypt(nonce, b"s", b"tranche:destination:1:x")
    assert Vault(OLD).open(older, tenant_id=1, name="x", address=CRM) == "s"


@pytest.mark.parametrize("sealed", [b"", b"x", b"\x00TRN\x02", b"\x00TRN\x02abcd", b"\x00TRN\x02abcd" + bytes(28)])
def test_what_is_no_ciphertext_is_an_error_of_settings(sealed: bytes) -> None:
    with pytest.raises(SettingsError):
        Vault(OLD).open(sealed, tenant_id=1, name="x", address=CRM)
