"""What the service says of its rate limits (draft-ietf-httpapi-ratelimit-headers-11): nothing is sent in vain."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

_MEMBER: Final = re.compile(r'"([^"]*)"((?:\s*;\s*\w+=[^;,]*)*)')
_PARAMETER: Final = re.compile(r"(\w+)=(\d+)")


class _State(msgspec.Struct, frozen=True):
    quota: int
    window: int
    left: int
    at: float


class RateLimits:
    """The last state of each policy; `now` is in seconds from anywhere."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def note(self, fields: Mapping[str, str], now: float) -> None:
        """Header fields of an answer; what is not understood is left out."""
        policies = dict(_members(fields.get("RateLimit-Policy", "")))
        for name, state in _members(fields.get("RateLimit", "")):
            policy = policies.get(name, {})
            if policy.get("q") and policy.get("w") and "r" in state:
                self._states[name] = _State(policy["q"], policy["w"], state["r"], now)

    def wait(self, what: str, tokens: int, now: float) -> float:
        """Seconds until so many are there, or as many as there ever are at once; `what`: requests or items."""
        waits = [
            (min(tokens, state.quota) - state.left) * state.window / state.quota - (now - state.at)
            for name, state in self._states.items()
            if name.endswith(what)
        ]
        return max(0.0, *waits) if waits else 0.0

    def knows(self, what: str) -> bool:
        return any(name.endswith(what) for name in self._states)


def _members(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    for name, parameters in _MEMBER.findall(text):
        yield name, {key: int(value) for key, value in _PARAMETER.findall(parameters)}
