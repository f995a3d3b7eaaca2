"""The queries of tests of destinations, typed."""

import uuid
from typing import Any

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Query, Seconds, query


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A test that this worker makes."""

    destination_id: int
    canary: bool
    request_id: str
    trace_context: str | None
    left: bool
    """Another worker began it and is gone."""
    late: bool
    """Whoever asked for it does not wait any more."""


find_destination = Query[[int, str], tuple[int, str] | None]("find_destination_to_test")
"""(tenant_id, name) Id and state of a destination."""
forget = Query[[int], None]("forget_destination_tests")


@query("insert_destination_test")
async def insert(
    connection: Connection,
    tenant_id: int,
    test_id: uuid.UUID,
    destination_id: int,
    *,
    canary: bool,
    request_id: str,
    trace_context: str | None,
    most: int,
) -> Found:
    """False: the tenant has `most` of them under way."""


due = Query[[], list[tuple[int, uuid.UUID]]]("due_destination_tests")
"""(tenant, test)"""


@query("claim_destination_test")
async def claim(
    connection: Connection, tenant_id: int, test_id: uuid.UUID, *, lease: Seconds, late: Seconds
) -> Claimed | None:
    """`None`: somebody else has it, or it is done."""


finish = Query[[int, uuid.UUID, str], None]("finish_destination_test")
"""(tenant_id, test_id, steps) `steps`: JSON."""
withdraw = Query[[int, uuid.UUID], Found]("withdraw_destination_test")
"""(tenant_id, test_id) False: a worker makes it."""
read = Query[[int, uuid.UUID, str], dict[str, Any] | None]("read_destination_test")
"""(tenant_id, test_id, name) The columns of the query; `steps` is JSON."""
