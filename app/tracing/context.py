"""W3C Trace Context (www.w3.org/TR/trace-context): which trace a piece of work belongs to, and what caused it."""

import random
import re
from collections.abc import Iterable
from typing import Final

import msgspec

SAMPLED: Final = 1
_RANDOM: Final = 2
"""Of Level 2: the trace id is random."""
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MOST: Final = 512
"""Characters of a `tracestate`, and its members: what the specification has everybody pass on."""
_MOST_MEMBERS: Final = 32
_KEY: Final = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER: Final = re.compile(_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


class TraceContext(msgspec.Struct, frozen=True):
    """A place in a trace. As text, which is how a job keeps it: the `traceparent`, and after a space the `tracestate`
    if there is one."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 of them: the operation that others continue from."""
    flags: int = SAMPLED
    state: str = ""
    """The `tracestate`, passed on as it came."""

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def __str__(self) -> str:
        return f"{self.traceparent} {self.state}".rstrip()

    def fields(self) -> dict[str, str]:
        """The header fields that hand it on."""
        return {"traceparent": self.traceparent} | ({"tracestate": self.state} if self.state else {})

    def child(self) -> "TraceContext":
        """The next operation in the same trace."""
        return TraceContext(self.trace_id, _random_hex(64), self.flags, self.state)


def begin() -> TraceContext:
    """A trace of its own. It counts as sampled: a receiver that samples as its caller does would record nothing else,
    though nobody decided so."""
    return TraceContext(_random_hex(128), _random_hex(64))


def _random_hex(bits: int) -> str:
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """`None`: it is no `traceparent`, and says nothing. A `tracestate` that is none is left out."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & (SAMPLED | _RANDOM), _read_state(tracestate))


def keep(trace: TraceContext | None) -> str | None:
    """As a job keeps it."""
    return None if trace is None else str(trace)


def read(kept: str | None) -> TraceContext | None:
    """What a job keeps, as text."""
    return parse(*kept.split(" ", 1)) if kept else None


def read_fields(fields: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
    """What a request says about its trace; `None`: nothing, or nothing that is sane."""
    fields = [(name, value) for name, value in fields if name in (b"traceparent", b"tracestate")]
    given = [value for name, value in fields if name == b"traceparent"]
    if len(given) != 1:
        return None
    states = [value for name, value in fields if name == b"tracestate"]
    return parse(given[0].decode("latin-1"), b",".join(states).decode("latin-1"))


def _read_state(text: str) -> str:
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    sane = len(text) <= _MOST and len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if sane else ""
