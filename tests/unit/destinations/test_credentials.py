"""Credentials of destinations: how they are stored, which are refused, and when a token is renewed."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.destinations.access_tokens.rules import is_due, is_over
from app.destinations.credentials import (
    BasicCredentials,
    ClientCredentials,
    Credentials,
    CredentialsError,
    Grant,
    HeaderCredentials,
    RefreshTokenCredentials,
    SalesforceJwt,
    Stored,
    TokenCredentials,
    check,
    read,
    secrets_of,
    write,
)
from app.destinations.kinds import KINDS
from tests.conftest import LOOPBACK


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> str:
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode()


RSA = rsa.generate_private_key(65537, 2048)
OAUTH = {"token_url": "https://login.example.com/token", "client_id": "app", "client_secret": "s3cret-s3cret"}
EACH: list[Credentials] = [
    TokenCredentials(token="{token}"),
    BasicCredentials(username="ada", password="pässword"),
    HeaderCredentials(headers={"X-Api-Key": "k"}),
    ClientCredentials(**OAUTH, scope="a b"),
    RefreshTokenCredentials(**OAUTH, refresh_token="r"),
    SalesforceJwt(login_url="https://login.salesforce.com", client_id="app", username="ada", private_key=pem(RSA)),
]


@pytest.mark.parametrize("credentials", EACH, ids=lambda one: type(one).__name__)
def test_what_is_stored_is_read_again(credentials: Credentials) -> None:
    assert read(write(Stored(credentials=credentials))).credentials == credentials


def test_a_token_is_stored_as_earlier_releases_did() -> None:
    assert write(Stored(credentials=TokenCredentials(token="pat-1"))) == "pat-1"


def test_a_later_release_is_told_from_a_wrong_token() -> None:
    with pytest.raises(ValueError, match="release does not know"):
        read('\x01{"credentials":{"type":"quantum"}}')


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("credentials", EACH, ids=lambda one: type(one).__name__)
def test_each_kind_takes_what_it_says(kind: str, credentials: Credentials) -> None:
    allowed = KINDS[kind].credentials
    name = str(credentials.__struct_config__.tag)
    if name in allowed:
        check(credentials, allowed, ())
    else:
        with pytest.raises(CredentialsError, match="does not fit this kind"):
            check(credentials, allowed, ())


ALL = tuple(str(one.__struct_config__.tag) for one in EACH)


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (TokenCredentials(token="two words"), "printable ASCII"),
        (TokenCredentials(token="a\r\nX-Evil: 1"), "printable ASCII"),
        (TokenCredentials(token="x" * 5_000), "longer than 4096"),
        (BasicCredentials(username="a:b", password="p"), "no colon"),
        (BasicCredentials(username="a", password="p\n"), "printable"),
        (HeaderCredentials(headers={"Host": "evil"}), "cannot have 'Host'"),
        (HeaderCredentials(headers={"X-Forwarded-For-Key": "1"}), "cannot have"),
        (HeaderCredentials(headers={"Metadata-Flavor": "Google"}), "cannot have"),
        (HeaderCredentials(headers={"X-Api-Key": "a\nb"}), "printable"),
        (ClientCredentials(**(OAUTH | {"token_url": "https://169.254.169.254/token"})), "token_url"),
        (ClientCredentials(**(OAUTH | {"token_url": "http://login.example.com/token"})), "token_url"),
        (RefreshTokenCredentials(**(OAUTH | {"token_url": "https://localhost/token"}), refresh_token="r"), "token_url"),
        (
            SalesforceJwt(login_url="https://login.salesforce.com", client_id="a", username="u", private_key="x"),
            "no private key",
        ),
        (
            SalesforceJwt(
                login_url="https://login.salesforce.com",
                client_id="a",
                username="u",
                private_key=pem(ec.generate_private_key(ec.SECP256R1())),
            ),
            "no RSA key",
        ),
        (
            SalesforceJwt(
                login_url="https://login.salesforce.com", client_id="a", username="u", private_key=pem(RSA, b"secret")
            ),
            "passphrase",
        ),
    ],
)
def test_wrong_ones_are_refused_with_their_place(credentials: Credentials, words: str) -> None:
    with pytest.raises(CredentialsError, match=words) as refused:
        check(credentials, ALL, ())
    for secret in secrets_of(Stored(credentials=credentials)):
        assert secret not in str(refused.value) or len(secret) < 3


def test_a_token_endpoint_in_a_named_network_may_be_called() -> None:
    check(ClientCredentials(**(OAUTH | {"token_url": "http://127.0.0.1:8080/token"})), ALL, LOOPBACK)


def test_a_token_is_renewed_before_it_ends() -> None:
    long = Grant(access_token="t", issued_at=1_000.0, expires_at=2_800.0)
    assert not is_due(long, 2_739.0)
    assert is_due(long, 2_740.0), "a minute before"
    assert not is_over(long, 2_799.0)
    assert is_over(long, 2_800.0)
    short = Grant(access_token="t", issued_at=1_000.0, expires_at=1_020.0)
    assert not is_due(short, 1_018.9)
    assert is_due(short, 1_019.0), "a twentieth of its time before"
    untold = Grant(access_token="t", issued_at=1_000.0)
    assert not is_due(untold, 1e12)
    assert not is_over(untold, 1e12)
    assert is_due(None, 0.0)
    assert is_over(None, 0.0)
