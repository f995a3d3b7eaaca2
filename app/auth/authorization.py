"""Who calls: API keys and their scopes, and the operator's token."""

import hmac
from dataclasses import dataclass
from typing import Final

from app.auth.last_used import LastUsed
from app.auth.principals import Principals
from app.errors import Forbidden, Unauthorized
from app.http.headers import Fields
from app.http.operation import Access, Call
from app.http.principal import Principal
from app.kit.bearer import bears
from app.kit.postgres.fair_connections import ACTING, Actor
from app.settings import Settings

UNKNOWN_KEY: Final = "This API key is unknown, revoked or misspelled."


class Scopes(Access):
    """The holder of an API key with one of these scopes.

    The database is asked each time, so that a revoked key is out at once; for polls, which change nothing and come in
    thousands, an answer of the last second is good enough (`recent`).
    """

    def __init__(self, *scopes: str, recent: bool = False) -> None:
        self.scopes = frozenset(scopes)
        self._recent = recent
        *others, last = (f"`{scope}`" for scope in scopes)
        self.remark = f"Needs the scope {', '.join(others)}{' or ' if others else ''}{last}."
        self._refusal = f"This needs a key with the scope {' or '.join(sorted(scopes))}."

    async def admit(self, call: Call) -> Principal:
        """
        Raises:
            Unauthorized: there is no key, or it is unknown, revoked or misspelled.
            Forbidden: the key has none of the scopes.
        """
        return self._check(await identify(call, recent=self._recent))

    async def recall(self, call: Call) -> Principal:
        return self._check(await identify(call, recall=True))

    def _check(self, principal: Principal | None) -> Principal:
        if principal is None:
            raise Unauthorized()
        if self.scopes.isdisjoint(principal.scopes):
            raise Forbidden(self._refusal)
        return principal


FOLLOWING: Final = Scopes("read", "import", "admin")
"""Who may read jobs and idempotency keys: `import` alone those that it created (`app.job_status.ownership`); and the
types of record."""
POLLING: Final = Scopes("read", "import", "admin", recent=True)
CHANGING: Final = Scopes("import", "admin")
READING: Final = Scopes("read", "admin")
ADMIN: Final = Scopes("admin")


async def identify(call: Call, *, recent: bool = False, recall: bool = False) -> Principal | None:
    """Who calls; `None` without a key. `recall`: while the primary is away, see `Principals.recall`.

    Raises:
        Unauthorized: there is a key, but it is no good.
    """
    sent = call.fields.one("authorization")
    if sent is None:
        return None
    exchange = call.exchange
    exchange.presented = True
    scheme, _, token = sent.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized()
    principals, secret = call.resources[Principals], token.strip()
    principal = await (principals.recall(secret) if recall else principals.find(secret, recent=recent))
    if principal is None:
        raise Unauthorized(UNKNOWN_KEY)
    ACTING.set(Actor(principal.tenant_id, principal.weight))
    exchange.tenant_id, exchange.key_id = principal.tenant_id, principal.key_id
    call.resources[LastUsed].note(principal.tenant_id, principal.key_id)
    return principal


class _Operator(Access):
    """Whoever runs the service, with the token of TRANCHE_OPERATOR_TOKEN."""

    remark = "Needs the operator's token (TRANCHE_OPERATOR_TOKEN) in place of an API key."

    async def admit(self, call: Call) -> None:
        """
        Raises:
            Unauthorized: there is no token, or another one.
            Forbidden: the service has no operator's token.
        """
        expected = call.resources[Settings].operator_token
        if not expected:
            raise Forbidden(
                "Tenants are managed with `tranche tenants`, or here with the token of TRANCHE_OPERATOR_TOKEN, which "
                "is not set."
            )
        call.exchange.presented = call.fields.one("authorization") is not None
        if not is_operator(call.fields, expected):
            raise Unauthorized("This needs the operator's token: `Authorization: Bearer …`.")


OPERATOR: Final = _Operator()


def is_operator(fields: Fields, token: str) -> bool:
    """Whether the request carries this bearer token; an empty one is nobody's."""
    return bears(fields.one("authorization") or "", token)


@dataclass(frozen=True, slots=True)
class FirstSight:
    """A look at a secret before anything else is done."""

    principals: Principals
    tokens: tuple[str, ...]
    """Of the operator."""

    def may_be_good(self, secret: str) -> bool:
        """Whether this may be a key, or is a token of the operator."""
        return self.principals.may_be_good(secret) or self._is_token(secret)

    def knows(self, secret: str) -> bool:
        """Whether this is known as a good key, or is a token of the operator."""
        return self.principals.knows(secret) or self._is_token(secret)

    def recall(self, secret: str) -> Actor | None:
        """For whom a request with this key would be served, as far as it is known without a query."""
        principal = self.principals.last_known(secret)
        return None if principal is None else Actor(principal.tenant_id, principal.weight)

    def _is_token(self, secret: str) -> bool:
        return any(token and hmac.compare_digest(secret.encode(), token.encode()) for token in self.tokens)
