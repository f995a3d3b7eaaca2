"""W3C Trace Context: what is taken from a client, and what is not."""

from __future__ import annotations

import pytest

from app.tracing import context
from app.tracing.context import TraceContext, begin, keep, parse, read, read_fields

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "00",
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "0",
        GOOD + "-more",
        f" {GOOD}",
        f"{GOOD}\n",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01\r\nX-Evil: 1",
        "\u0660" * 55,  # digits to Python
        "0" * 100_000,
    ],
)
def test_what_is_no_traceparent_is_ignored(hostile: str) -> None:
    assert parse(hostile) is None
    assert read_fields([(b"traceparent", hostile.encode("utf-8"))]) is None


def test_a_sane_one_is_read_and_handed_on() -> None:
    found = read_fields([(b"host", b"x"), (b"traceparent", GOOD.encode()), (b"tracestate", b"a=1, b@c=2 3")])
    assert found == TraceContext(TRACE, SPAN, 1, "a=1,b@c=2 3")
    assert found.fields() == {"traceparent": GOOD, "tracestate": "a=1,b@c=2 3"}
    child = found.child()
    assert (child.trace_id, child.flags, child.state) == (TRACE, 1, "a=1,b@c=2 3")
    assert child.span_id != SPAN


def test_a_later_version_is_read_as_far_as_this_one_goes() -> None:
    assert parse(f"cc-{TRACE}-{SPAN}-ff-what.comes.later") == TraceContext(TRACE, SPAN, 3)


def test_two_traceparents_are_none() -> None:
    assert read_fields([(b"traceparent", GOOD.encode())] * 2) is None


def test_not_sampled_remains_so() -> None:
    found = parse(f"00-{TRACE}-{SPAN}-00")
    assert found is not None
    assert found.child().traceparent.endswith("-00")


@pytest.mark.parametrize(
    "state", ["a", "=1", "a=1,,B=2", "a=" + "x" * 257, "a=1\r\nX: 1", "a=é", ",".join(f"a{i}=1" for i in range(33))]
)
def test_a_tracestate_that_is_none_is_left_out(state: str) -> None:
    assert parse(GOOD, state) == TraceContext(TRACE, SPAN, 1)


def test_several_tracestate_fields_are_one() -> None:
    fields = [(b"tracestate", b"a=1"), (b"traceparent", GOOD.encode()), (b"tracestate", b"b=2")]
    found = read_fields(fields)
    assert found is not None
    assert found.state == "a=1,b=2"


def test_what_a_job_keeps_comes_back() -> None:
    for trace in (begin(), TraceContext(TRACE, SPAN, 0, "a=1,b=2 3"), None):
        assert read(keep(trace)) == trace
    assert read("") is None


def test_traces_that_begin_here_differ_and_are_well_formed() -> None:
    made = {begin().trace_id for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(context.parse(begin().traceparent) for _ in range(100))
