"""What is limited: the limits that are stored with keys and tenants, and the buckets that a request draws on."""

from typing import Any, Final, Literal, get_args

import msgspec

from app.settings import Settings
from app.vocabulary.rate_limits import Limit, parse_limit

Policy = Literal["items", "requests"]
Scope = Literal["key", "tenant", "address", "service"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Those that differ from the defaults of the service."""

    items: Limit | None = None
    """Items of imports."""
    requests: Limit | None = None

    def __str__(self) -> str:
        return ", ".join(f"{policy} {limit}" for policy in POLICIES if (limit := getattr(self, policy)))


NO_LIMITS: Final = Limits()


class LimitsChange(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be different about limits; absent leaves one as it is, null is the default of the service."""

    items: Limit | msgspec.UnsetType | None = msgspec.UNSET
    requests: Limit | msgspec.UnsetType | None = msgspec.UNSET


def parse_change(texts: tuple[str, ...]) -> LimitsChange:
    """Changes as the command line takes them: `items=60000/60`, `requests=0` (no limit), `items=default`.

    Raises:
        ValueError: one of them is something else.
    """
    found: dict[str, Any] = {}
    for text in texts:
        policy, _, value = text.partition("=")
        if policy not in POLICIES:
            raise ValueError(f"{text!r} is no limit: write {' or '.join(f'{name}=60000/60' for name in POLICIES)}")
        found[policy] = None if value == "default" else parse_limit(value) or Limit(0, 1)
    return LimitsChange(**found)


class Bucket(msgspec.Struct, frozen=True):
    """What one limit leaves to one key, tenant or address, or to all."""

    scope: Scope
    policy: Policy
    owner: str
    limit: Limit

    @property
    def name(self) -> str:
        """As header fields and problems name the policy."""
        return self.policy if self.scope == "key" else f"{self.scope}-{self.policy}"

    @property
    def key(self) -> str:
        """In Redis. A changed limit begins with a full bucket."""
        return f"tranche:limit:{self.scope}:{self.owner}:{self.policy}:{self.limit}"

    def describe(self) -> str:
        whose = {"service": "the service", "address": "this address"}.get(self.scope, f"this {self.scope}")
        return f"{self.limit.quota} {self.policy} in {self.limit.window_seconds} s for {whose}"


class Policies:
    """The limits of the service by its settings, and which of them apply to whom."""

    def __init__(self, settings: Settings) -> None:
        def read(scope: Scope) -> dict[Policy, Limit | None]:
            return {policy: parse_limit(getattr(settings, f"limit_{scope}_{policy}")) for policy in POLICIES}

        self._key, self._tenant, self._service = read("key"), read("tenant"), read("service")
        self._address = parse_limit(settings.limit_address)

    def of_key(self, policy: Policy, tenant_id: int, key_id: str, own: Limits, of_tenant: Limits) -> tuple[Bucket, ...]:
        """What a request of this key draws on; `own`, `of_tenant`: limits that are stored with key and tenant."""
        limits: tuple[tuple[Scope, str, Limit | None], ...] = (
            ("key", f"{tenant_id}:{key_id}", getattr(own, policy) or self._key[policy]),
            ("tenant", str(tenant_id), getattr(of_tenant, policy) or self._tenant[policy]),
            ("service", "", self._service[policy]),
        )
        return tuple(Bucket(scope, policy, owner, limit) for scope, owner, limit in limits if limit and limit.quota)

    def of_address(self, address: str) -> tuple[Bucket, ...]:
        """What a request without a good key draws on."""
        return (Bucket("address", "requests", address, self._address),) if self._address else ()
