"""What a round does, as a pure function of its seed: who sends what when, and what breaks meanwhile."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from tests.chaos.resources import Type, types_of

LENGTH: Final = 2.2
"""Seconds in which actions and faults begin."""
CLIENTS: Final = 4
TYPES: Final = len(types_of(0))
"""Of records: the actions have them in turn."""

ACTIONS: Final[dict[str, float]] = {
    "push": 10,
    "push_csv": 3,
    "push_ndjson": 3,
    "repeat": 5,
    "same_again": 2,
    "reuse_key": 2,
    "expect_version": 4,
    "source_version": 4,
    "clear_attributes": 3,
    "delete": 4,
    "declare": 2,
    "poisoned": 3,
    "duplicates": 3,
    "atomic": 2,
    "atomic_poisoned": 2,
    "malformed": 1,
    "dry_run": 1,
    "held": 2,
    "large": 3,
    "large_atomic": 1,
    "cancel": 3,
    "retry_job": 1.5,
    "undo": 2,
}
"""Action → weight. The function of the same name in `tests.chaos.actions` does it."""

_LINKS: Final = ("front", "pg_api", "pg_w1", "pg_w2", "redis", "crm_a", "crm_b")
_MODES: Final = ("latency", "reset", "black_hole", "half_close", "lost_answers", "throttle", "cut")
KINDS: Final = ("hubspot", "salesforce", "http")
"""Of CRMs; one that Tranche does not know yet is a HubSpot instead."""
_CRMS: Final = ("crm_a", "crm_b")
_WORKERS: Final = ("w1", "w2")

FAULTS: Final[dict[str, float]] = {
    "network": 9,
    "kill_worker": 3,
    "kill_api": 2,
    "kill_crm": 2,
    "stop_worker": 1.2,
    "flush_redis": 2,
    "kill_redis": 1.5,
    "kill_postgres": 1.2,
    "crm": 9,
}
"""Fault → weight. `tests.chaos.faults` does it."""


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a client does, `at` seconds after the round began or once it is done with the one before."""

    number: int
    at: float
    client: int
    kind: str
    type: Type
    """Whose records it sends."""
    seed: int


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that breaks `at` seconds after the round began, and is whole again `seconds` later."""

    at: float
    seconds: float
    kind: str
    target: str
    details: dict[str, Any] = {}

    def __str__(self) -> str:
        more = "".join(f" {name}={value}" for name, value in self.details.items())
        return f"{self.at:4.2f} s: {self.kind} {self.target} for {self.seconds:g} s{more}"


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """Another tenant at the same CRM, under the same address: all of its calls fail, by no fault of the CRM."""

    crm: str
    bursts: list[float]
    """When it imports, in seconds after the round began."""
    orders: list[float]
    """When it opens one of its circuits by hand, and closes it again."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    crms: dict[str, str]
    """What stands at each place of a CRM: its kind."""
    types: tuple[Type, ...]
    actions: list[Action]
    faults: list[Fault]
    neighbour: Neighbour | None = None

    def describe(self) -> str:
        """For people."""
        lines = [f"seed {self.seed}: {', '.join(f'{kind} as {crm}' for crm, kind in self.crms.items())}"]
        lines += [f"  {fault}" for fault in self.faults]
        lines += [f"  a neighbour at {self.neighbour.crm}"] if self.neighbour else []
        for client in range(CLIENTS):
            mine = [action for action in self.actions if action.client == client]
            told = ", ".join(f"{a.kind} {a.type.name}({a.number})@{a.at:.2f}" for a in mine)
            lines.append(f"  client {client}: {told}")
        return "\n".join(lines)

    @property
    def features(self) -> set[str]:
        """Faults and actions by name."""
        slow = {"slow_before" for f in self.faults if f.details.get("parameters", {}).get("latency") == 0.95}
        stall = {"stall" for f in self.faults if f.kind == "stop_worker" and f.seconds > 1}
        long = {f"{f.details['fault']}_long" for f in self.faults if f.kind == "crm" and f.seconds >= 1.4}
        at = {f"{f.details['fault']}_{self.crms[f.target]}" for f in self.faults if f.kind == "crm"}
        near = self.neighbour
        # At an `http` service nothing is shared.
        shared = {"neighbour"} if near is not None and self.crms[near.crm] != "http" else set()
        return {*self.kinds, *(action.kind for action in self.actions)} | slow | stall | long | at | shared

    @property
    def kinds(self) -> list[str]:
        """The faults by name, for a table; of the network and of CRMs with what they do."""
        named = {"network": "mode", "crm": "fault"}
        return [str(f.details[named[f.kind]]) if f.kind in named else f.kind for f in self.faults]


def draw(seed: int) -> Plan:
    """The plan of a seed; the same for ever, unless this file changes."""
    chance = random.Random(f"tranche chaos {seed}")
    count = chance.randint(14, 26)
    names, weights = list(ACTIONS), list(ACTIONS.values())
    types = types_of(seed)
    times = sorted(chance.uniform(0, LENGTH) for _ in range(count))
    actions = [
        Action(
            number=number,
            at=round(at, 2),
            client=chance.randrange(CLIENTS),
            # Something must be there before it can be repeated, canceled or changed.
            kind="push" if number < 3 else chance.choices(names, weights)[0],
            type=types[number % TYPES],
            seed=chance.getrandbits(32),
        )
        for number, at in enumerate(times)
    ]
    faults = _untangle([_draw_fault(chance) for _ in range(chance.randint(2, 5))])
    kinds = random.Random(f"tranche chaos {seed}: CRMs")
    crms = {crm: kinds.choice(KINDS) for crm in _CRMS}
    faults += [twin for fault in faults for twin in _twins(fault)]
    faults += _draw_loss(seed, crms)
    return Plan(
        seed=seed,
        crms=crms,
        types=types,
        actions=actions,
        faults=sorted(faults, key=lambda f: f.at),
        neighbour=_draw_neighbour(seed),
    )


def _draw_neighbour(seed: int) -> Neighbour | None:
    """In two of five rounds. Drawn apart, so that it changes nothing else about a seed."""
    chance = random.Random(f"tranche chaos {seed}: neighbour")
    if chance.random() >= 0.4:
        return None
    return Neighbour(
        crm=chance.choice(_CRMS),
        bursts=sorted(round(chance.uniform(0, LENGTH), 2) for _ in range(3)),
        orders=sorted(round(chance.uniform(0.5, LENGTH), 2) for _ in range(chance.randint(0, 2))),
    )


def _draw_loss(seed: int, crms: dict[str, str]) -> list[Fault]:
    """In one of three rounds the account at a CRM lacks a field for a while. Drawn apart like the neighbour. What an
    `http` service means by its words nobody knows."""
    chance = random.Random(f"tranche chaos {seed}: fields")
    if chance.random() >= 1 / 3:
        return []
    crm = chance.choice(_CRMS)
    name = chance.choice(
        {"hubspot": ("tranche_id", "mark"), "salesforce": ("Tranche_Id__c", "mark__c")}.get(crms[crm], ("",))
    )
    details = {"fault": "missing_fields", "parameters": {"names": [name]}}
    at, seconds = round(chance.uniform(0.1, LENGTH - 0.5), 2), round(chance.uniform(0.8, 1.6), 2)
    return [Fault(at=at, seconds=seconds, kind="crm", target=crm, details=details)] if name else []


def _twins(fault: Fault) -> list[Fault]:
    """A worker that stands still past its lease does so in the middle of calls: they are slow just then."""
    if fault.kind != "stop_worker" or fault.seconds < 1:
        return []
    slow = {"fault": "slow", "parameters": {"latency": 0.6, "when": "after", "on": "write"}}
    at = round(max(0.0, fault.at - 0.4), 2)
    return [Fault(at=at, seconds=0.5, kind="crm", target=crm, details=slow) for crm in _CRMS]


def _untangle(faults: list[Fault]) -> list[Fault]:
    """Of an expensive kind one is enough."""
    kept: list[Fault] = []
    for fault in sorted(faults, key=lambda f: f.at):
        once = fault.kind in ("kill_postgres", "stop_worker", "kill_api", "kill_redis")
        if not (once and any(f.kind == fault.kind for f in kept)):
            kept.append(fault)
    return kept


def _draw_fault(chance: random.Random) -> Fault:
    kind = chance.choices(list(FAULTS), list(FAULTS.values()))[0]
    at = round(chance.uniform(0.1, LENGTH), 2)
    seconds = round(chance.uniform(0.2, 1.0), 2)
    if kind == "network":
        return _network(chance, at, seconds)
    if kind == "crm":
        return _crm(chance, at, seconds)
    if kind in ("kill_worker", "stop_worker"):
        target = chance.choice(_WORKERS)
        # Past the lease (`jobs.delivery.policy`: the longest call and five seconds), or just a hiccup.
        seconds = round(chance.choice((0.3, 6.6, 6.6)) if kind == "stop_worker" else chance.uniform(0, 0.8), 2)
        return Fault(at=at, seconds=seconds, kind=kind, target=target)
    target = {"kill_api": "api", "kill_crm": chance.choice(_CRMS), "kill_postgres": "postgres"}
    return Fault(at=at, seconds=seconds, kind=kind, target=target.get(kind, "redis"))


def _network(chance: random.Random, at: float, seconds: float) -> Fault:
    mode = chance.choice(_MODES)
    target = chance.choice(_LINKS)
    details: dict[str, Any] = {"mode": mode}
    if mode == "latency":
        # Less than the grace: a call that arrives later than that is nobody's promise.
        details |= {"low": 0.01, "high": round(chance.uniform(0.02, 0.12), 3)}
    elif mode == "throttle":
        details |= {"rate": chance.choice((3_000, 20_000, 80_000))}
    elif mode == "cut":
        details |= {"after": chance.choice((0, 1, 200, 1_000, 5_000))}
    return Fault(at=at, seconds=seconds, kind="network", target=target, details=details)


def _crm(chance: random.Random, at: float, seconds: float) -> Fault:
    target = chance.choice(_CRMS)
    often = {"probability": chance.choice((0.3, 0.7, 1.0)), "seed": chance.randrange(1_000)}
    fault, details = chance.choice(
        (
            ("accept_then_drop", often | {"on": "write"}),
            ("accept_then_drop", often | {"on": "any"}),
            ("drop_before", often | {"on": "any"}),
            ("status", often | {"code": chance.choice((500, 502, 503)), "apply": False}),
            ("status", often | {"code": chance.choice((500, 502, 504)), "apply": True}),
            ("rate_limit", often | {"retry_after": chance.choice((0.5, 0.8))}),
            ("slow", often | {"latency": chance.choice((0.2, 1.0)), "when": "after"}),
            ("slow", often | {"latency": 0.2, "when": "before"}),
            # It happens after its caller gave up, and before the grace is over.
            ("slow", often | {"latency": 0.95, "when": "before", "on": "write"}),
            ("latency", {"latency": 0.1, "jitter": 0.15}),
            ("down", {}),
            ("reject", {"keys": [f"s{n:02}" for n in range(25) if chance.random() < 0.2] or ["s00"]}),
            ("reject_batch", {"keys": [f"s{chance.randrange(25):02}"]}),
            ("omit", {"keys": [f"s{n:02}" for n in range(25) if chance.random() < 0.2] or ["s01"]}),
            ("unauthorized", often),
            ("garbage", often | {"mode": chance.choice(("truncated", "cut", "html", "empty", "shape"))}),
            ("lock", {"times": 1}),
            ("says_no", often | {"mode": chance.choice(("ok_false", "errors"))}),
            ("says_no", often | {"mode": chance.choice(("count", "task"))}),
        )
    )
    if fault in ("down", "reject", "omit", "says_no"):
        seconds = round(seconds * 2, 2)
    return Fault(at=at, seconds=seconds, kind="crm", target=target, details={"fault": fault, "parameters": details})
