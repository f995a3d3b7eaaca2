"""The OAuth 2 server of a sandbox: tokens that expire, refresh tokens that are replaced at each use, and its bad days.

Switched on by `PUT /__sandbox__/oauth` with what `Client` has. The token endpoint is where the vendor has it; the
authorization endpoint allows everything at once, as a person in a hurry does.
"""

import asyncio
import base64
import binascii
import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, unquote, urlencode

import jwt
import msgspec
from aiohttp import web
from msgspec import Meta

_ISSUED: Final = "sbx-"
_CODE_SECONDS: Final = 60.0
_LONGEST_ASSERTION: Final = 180.0 + 30.0


class Client(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The application that may ask for tokens, and what it meets."""

    client_id: str = "app"
    client_secret: str = "app-secret"  # noqa: S105 - of a sandbox
    refresh_token: str | None = None
    """One that was issued before."""
    username: str | None = None
    """Who approved the application (JWT bearer); likewise what follows."""
    public_key: str | None = None
    """PEM."""
    lifetime: Annotated[float, Meta(gt=0)] = 1_800.0
    """Seconds that an access token is good for."""
    says_lifetime: bool = True
    """In `expires_in`; Salesforce does not."""
    rotates: bool = False
    """Each use of a refresh token brings another one; the one before is good until that is used."""
    strict: bool = True
    """No other tokens than those that were issued are taken."""
    fail: int = 0
    """Requests for a token that are answered with `fail_status`; counted down."""
    fail_status: int = 503
    lose: int = 0
    """Requests for a token that are done and not answered; counted down."""
    latency: float = 0.0
    """Seconds."""


class _Refused(Exception):
    def __init__(self, code: str, words: str, status: int = 400) -> None:
        super().__init__(code)
        self.document = {"error": code, "error_description": words, "status": "error", "message": words}
        self.status = status


class TokenIssuer:
    """`instance_url`: whether an answer says where the account is."""

    def __init__(self, *, instance_url: bool) -> None:
        self._instance_url = instance_url
        self.client: Client | None = None
        self._tokens: dict[str, float] = {}
        """Access tokens, and when each expires, by the monotonic clock."""
        self._current: str | None = None
        self._before: str | None = None
        """Refresh tokens."""
        self._codes: dict[str, tuple[float, str, str]] = {}
        """Until when, challenge and redirect URI."""
        self.issued = self.refused = self.expired_calls = 0

    def configure(self, client: Client | None) -> None:
        """Everything as new."""
        self.client, self._tokens, self._codes = client, {}, {}
        self._current, self._before = (client.refresh_token if client else None), None
        self.issued = self.refused = self.expired_calls = 0

    def revoke(self, *, refresh: bool) -> None:
        """All access tokens, and with `refresh` what renews them."""
        self._tokens.clear()
        if refresh:
            self._current = self._before = None

    def show(self) -> dict[str, Any]:
        return {
            "issued": self.issued,
            "refused": self.refused,
            "expired_calls": self.expired_calls,
            "refresh_token": self._current,
        }

    def accepts(self, token: str | None) -> bool:
        """Whether a call with this token is let in."""
        if self.client is None or token is None:
            return True
        token = token.partition("@")[0]
        if not token.startswith(_ISSUED):
            return not self.client.strict
        if time.monotonic() < self._tokens.get(token, 0.0):
            return True
        self.expired_calls += 1
        return False

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """The authorization endpoint (RFC 6749, 3.1)."""
        query = request.query
        client = self.client
        if client is None or query.get("client_id") != client.client_id or query.get("response_type") != "code":
            return web.json_response({"error": "invalid_request"}, status=400)
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            return web.json_response({"error": "invalid_request", "error_description": "PKCE is missing"}, status=400)
        code = secrets.token_urlsafe(16)
        until = time.monotonic() + _CODE_SECONDS
        self._codes[code] = (until, query["code_challenge"], query.get("redirect_uri", ""))
        back = urlencode({"code": code, "state": query.get("state", "")})
        return web.Response(status=302, headers={"Location": f"{query.get('redirect_uri', '')}?{back}"})

    async def token(self, request: web.Request) -> web.StreamResponse:
        """The token endpoint (RFC 6749, 3.2)."""
        client = self.client
        text = (await request.read()).decode("utf-8", "replace")
        if client is not None and client.latency:
            await asyncio.sleep(client.latency)
        if client is None:
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        if client.fail > 0:
            client.fail -= 1
            return web.json_response({"error": "temporarily_unavailable"}, status=client.fail_status)
        if not request.content_type.startswith("application/x-www-form-urlencoded"):
            return web.json_response({"error": "invalid_request"}, status=415)
        form = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
        try:
            document = self._grant(client, form, request)
        except _Refused as refused:
            self.refused += 1
            return web.json_response(refused.document, status=refused.status)
        if client.lose > 0:
            client.lose -= 1
            if request.transport is not None:
                request.transport.abort()
        return web.json_response(document, headers={"Cache-Control": "no-store"})

    def _grant(self, client: Client, form: Mapping[str, str], request: web.Request) -> dict[str, Any]:
        kind = form.get("grant_type", "")
        if kind == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            self._check_assertion(client, form.get("assertion", ""), f"{request.scheme}://{request.host}")
            return self._issue(client, request, None)
        self._check_client(client, form, request.headers.get("Authorization", ""))
        if kind == "client_credentials":
            return self._issue(client, request, None)
        if kind == "refresh_token":
            given = form.get("refresh_token")
            if given is None or given not in (self._current, self._before):
                raise _Refused("invalid_grant", "expired access/refresh token")
            if client.rotates:
                if given == self._current:
                    self._before = given
                self._current = secrets.token_urlsafe(24)
                return self._issue(client, request, self._current)
            return self._issue(client, request, None)
        if kind == "authorization_code":
            until, challenge, redirect = self._codes.pop(form.get("code", ""), (0.0, "", ""))
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            shown = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if time.monotonic() > until or shown != challenge or redirect != form.get("redirect_uri"):
                raise _Refused("invalid_grant", "code, verifier or redirect URI do not fit")
            self._current, self._before = secrets.token_urlsafe(24), None
            return self._issue(client, request, self._current)
        raise _Refused("unsupported_grant_type", f"{kind!r} is not supported")

    @staticmethod
    def _check_client(client: Client, form: Mapping[str, str], authorization: str) -> None:
        found = (form.get("client_id", ""), form.get("client_secret", ""))
        if authorization.startswith("Basic "):
            try:
                pair = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                pair = ":"
            name, _, secret = pair.partition(":")
            found = (unquote(name), unquote(secret))
        if found != (client.client_id, client.client_secret):
            raise _Refused("invalid_client", "invalid client credentials", 401)

    @staticmethod
    def _check_assertion(client: Client, assertion: str, audience: str) -> None:
        try:
            claims = jwt.decode(
                assertion,
                client.public_key or "",
                algorithms=["RS256"],
                audience=audience,
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
        except (jwt.InvalidTokenError, ValueError) as error:
            raise _Refused("invalid_grant", f"invalid assertion: {error}") from error
        if claims["iss"] != client.client_id:
            raise _Refused("invalid_client_id", "client identifier invalid")
        if claims["sub"] != client.username:
            raise _Refused("invalid_grant", "user hasn't approved this consumer")
        if claims["exp"] > time.time() + _LONGEST_ASSERTION:
            raise _Refused("invalid_grant", "assertion is not valid for so long")

    def _issue(self, client: Client, request: web.Request, refresh_token: str | None) -> dict[str, Any]:
        token = f"{_ISSUED}{secrets.token_urlsafe(24)}"
        self._tokens[token] = time.monotonic() + client.lifetime
        self.issued += 1
        document: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
        if client.says_lifetime:
            document["expires_in"] = int(client.lifetime) if client.lifetime >= 1 else client.lifetime
        if refresh_token is not None:
            document["refresh_token"] = refresh_token
        if self._instance_url:
            document["instance_url"] = f"{request.scheme}://{request.host}"
        return document
