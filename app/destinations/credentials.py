"""What a destination is called with: a token, a user, header fields, or a client of an OAuth 2 server.

They are stored as one text, which the vault seals: a token as it is, everything else as JSON behind a character that no
token has. The access token that was issued last is in it, so that one statement replaces a refresh token together with
what came with it.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Meta

from app.destinations.base_urls import base_url_fault
from app.vocabulary.addresses import Network

MOST_TOKEN: Final = 4_096
_MOST_KEY: Final = 16_384
_MARK: Final = "\x01"
_SECRET: Final = {"writeOnly": True, "minLength": 1}
_LEAST_BITS: Final = 2_048

Token = Annotated[str, Meta(extra_json_schema=_SECRET | {"pattern": "^[ -~]+$"})]
_Secret = Annotated[str, Meta(min_length=1, max_length=MOST_TOKEN, extra_json_schema=_SECRET)]
_PrivateKey = Annotated[str, Meta(min_length=1, max_length=_MOST_KEY, extra_json_schema=_SECRET)]
_Text = Annotated[str, Meta(min_length=1, max_length=1_000)]
_Url = Annotated[str, Meta(min_length=1, max_length=2_000, extra_json_schema={"pattern": "^https?://"})]
_HeaderName = Annotated[str, Meta(min_length=1, max_length=100)]


class _Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    pass


class TokenCredentials(_Credentials, frozen=True, kw_only=True, tag="token"):
    """A token that does not expire, or that somebody renews elsewhere; it goes out as it is."""

    token: Token


class BasicCredentials(_Credentials, frozen=True, kw_only=True, tag="basic"):
    """A user and a password (RFC 7617)."""

    username: _Text
    password: _Secret


class HeaderCredentials(_Credentials, frozen=True, kw_only=True, tag="headers"):
    """Header fields with secrets, such as a key and an id of an application."""

    headers: Annotated[dict[_HeaderName, _Secret], Meta(min_length=1, max_length=10)]


class ClientCredentials(_Credentials, frozen=True, kw_only=True, tag="oauth2_client_credentials"):
    """OAuth 2 client credentials (RFC 6749, 4.4)."""

    token_url: _Url
    client_id: _Text
    client_secret: _Secret
    scope: Annotated[str, Meta(max_length=1_000)] = ""
    """Names joined by spaces; empty: the client's default."""
    client_auth: Literal["body", "basic"] = "body"
    """How the client shows its secret to the token endpoint."""


class RefreshTokenCredentials(_Credentials, frozen=True, kw_only=True, tag="oauth2_refresh_token"):
    """An OAuth 2 refresh token (RFC 6749, 6), which `tranche destinations connect` obtains. One that the server
    replaces when it is used is replaced here as well."""

    token_url: _Url
    client_id: _Text
    client_secret: Annotated[str, Meta(max_length=MOST_TOKEN, extra_json_schema={"writeOnly": True})] = ""
    """Empty for a public client."""
    refresh_token: _Secret
    client_auth: Literal["body", "basic"] = "body"
    """How the client shows its secret to the token endpoint."""


class SalesforceJwt(_Credentials, frozen=True, kw_only=True, tag="salesforce_jwt"):
    """Salesforce's JWT bearer flow: a connected app with a certificate, and a user who approved it."""

    login_url: _Url
    """`https://login.salesforce.com`, `https://test.salesforce.com`, or the organisation's My Domain."""
    client_id: _Text
    """The consumer key of the connected app."""
    username: _Text
    private_key: _PrivateKey
    """PEM, RSA, without a passphrase: that of the certificate of the connected app."""


class NoCredentials(_Credentials, frozen=True, kw_only=True, tag="none"):
    """For a server that asks for none."""


Credentials = (
    TokenCredentials
    | BasicCredentials
    | NoCredentials
    | HeaderCredentials
    | ClientCredentials
    | RefreshTokenCredentials
    | SalesforceJwt
)
Renewed = ClientCredentials | RefreshTokenCredentials | SalesforceJwt
"""Those that a token is issued for, again and again."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token endpoint issued."""

    access_token: str
    issued_at: float
    """Seconds since 1970; likewise what follows."""
    expires_at: float | None = None
    """`None`: the server does not say."""
    instance_url: str | None = None
    """Where the account is, if the server says that."""


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sealed."""

    credentials: Credentials
    grant: Grant | None = None


class CredentialsError(ValueError):
    """The credentials cannot be used; the message names place and remedy, and never repeats a secret."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Stored).decode


def write(stored: Stored) -> str:
    """As it is sealed."""
    if isinstance(stored.credentials, TokenCredentials):
        return stored.credentials.token
    return _MARK + _encode(stored).decode()


def read(text: str) -> Stored:
    """Raises `ValueError`: a later release wrote it in a way that this one does not know."""
    if not text.startswith(_MARK):
        return Stored(credentials=TokenCredentials(token=text))
    try:
        return _decode(text.removeprefix(_MARK))
    except msgspec.ValidationError as error:
        raise ValueError("its credentials are of a kind that this release does not know") from error


def type_of(credentials: Credentials) -> str:
    return str(credentials.__struct_config__.tag)


def secrets_of(stored: Stored) -> list[str]:
    """What nobody may see, the longest first."""
    found: list[str] = []
    match stored.credentials:
        case TokenCredentials(token=token):
            found = [token]
        case BasicCredentials(password=password):
            found = [password]
        case HeaderCredentials(headers=headers):
            found = list(headers.values())
        case ClientCredentials(client_secret=secret):
            found = [secret]
        case RefreshTokenCredentials(client_secret=secret, refresh_token=token):
            found = [secret, token]
        case SalesforceJwt() | NoCredentials():
            found = []  # the key itself goes nowhere
    if stored.grant is not None:
        found.append(stored.grant.access_token)
    return sorted(filter(None, found), key=len, reverse=True)


def check(credentials: Credentials, allowed: Sequence[str], private: Sequence[Network]) -> None:
    """Raises `CredentialsError`: they cannot be used for a destination that takes the `allowed` types."""
    kind = type_of(credentials)
    if kind not in allowed:
        raise CredentialsError(
            f"credentials.type: {kind!r} does not fit this kind of destination; use {_list(allowed)}."
        )
    match credentials:
        case TokenCredentials(token=token):
            _check_token("The token", token)
        case BasicCredentials(username=username, password=password):
            if ":" in username or not username.isprintable() or not password.isprintable():
                raise CredentialsError(
                    "credentials: username and password are printable, and the username has no colon (RFC 7617)."
                )
        case HeaderCredentials(headers=headers):
            for name, value in headers.items():
                _check_header(name, value)
        case SalesforceJwt(login_url=url, private_key=key):
            _check_url("login_url", url, private)
            _check_key(key)
        case ClientCredentials(token_url=url) | RefreshTokenCredentials(token_url=url):
            _check_url("token_url", url, private)


def _list(names: Sequence[str]) -> str:
    *others, last = (repr(name) for name in names)
    return f"{', '.join(others)} or {last}" if others else last


def is_sendable(token: str) -> bool:
    """Whether a header can carry it."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def _check_token(what: str, token: str) -> None:
    if not is_sendable(token):
        raise CredentialsError(f"{what} must be printable ASCII without spaces.")
    if len(token) > MOST_TOKEN:
        raise CredentialsError(f"{what} is longer than {MOST_TOKEN} characters; no CRM would take the header.")


_SECRET_HEADER: Final = re.compile(
    r"authorization|ocp-apim-subscription-key|(x-)?((api|auth|access|app|application|account|client)-?(key|token|id))"
    r"|x-(?!aws|amz|forwarded|proxy)(?!.*metadata)[a-z0-9-]+-(api-?key|key|token|id)",
    re.IGNORECASE | re.ASCII,
)
"""Headers that carry credentials and nothing else. A free choice could pose as a proxy, carry a session, or unlock a
cloud's metadata service."""


def _check_header(name: str, value: str) -> None:
    if not _SECRET_HEADER.fullmatch(name):
        raise CredentialsError(
            f"credentials.headers cannot have {name!r}: it is Authorization, Api-Key, X-Api-Key, X-Auth-Token, or a "
            "vendor's own like X-Acme-Api-Key, X-Acme-Token and X-Acme-App-Id."
        )
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise CredentialsError(f"credentials.headers.{name} must be printable ASCII without spaces around it.")


def _check_url(name: str, url: str, private: Sequence[Network]) -> None:
    if (fault := base_url_fault(url, private)) is not None:
        raise CredentialsError(f"credentials.{name}: {fault}")


def _check_key(pem: str) -> None:
    how = "give the PEM text of an RSA key without a passphrase (openssl genrsa 2048)"
    try:
        key: Any = load_pem_private_key(pem.encode(), password=None)
    except TypeError as error:
        raise CredentialsError(f"credentials.private_key has a passphrase; {how}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"credentials.private_key is no private key; {how}.") from error
    if not isinstance(key, RSAPrivateKey) or key.key_size < _LEAST_BITS:
        raise CredentialsError(f"credentials.private_key is no RSA key of {_LEAST_BITS} bits or more; {how}.")
