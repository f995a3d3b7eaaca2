"""The queries of declared types, typed."""

from datetime import datetime

import msgspec

from app.kit.postgres.query import Json, Query
from app.resources.json_schema import Definition


class TypeRow(msgspec.Struct, frozen=True):
    type_id: int
    name: str
    version: int
    definition: Json[Definition] | None
    """None: the caller has this version."""


class DeclaredType(TypeRow, frozen=True):
    definition: Json[Definition]
    created_at: datetime
    updated_at: datetime


find_type = Query[[int, str | None, int | None, int], TypeRow | None]("find_resource_type")
"""(tenant_id, name, type_id, version)"""
list_types = Query[[int], list[DeclaredType]]("list_resource_types")
lock = Query[[int], int]("lock_types")
declare = Query[[int, int, str, Json[Definition]], None]("declare_type")
"""(tenant_id, type_id, name, definition)"""
