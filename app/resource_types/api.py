"""`/v1/resource-types`: the types of record that a tenant may import."""

from typing import Annotated, Final

import msgspec

from app.auth.authorization import ADMIN, FOLLOWING
from app.http.operation import Answer, Path, Reply, operation
from app.http.principal import Principal
from app.kit.postgres.database import Connection
from app.resource_types import service
from app.resource_types.catalog import Catalog
from app.resource_types.service import ResourceType
from app.resources.json_schema import Definition

PATH: Final = "/v1/resource-types"
_TAG: Final = "resource types"

Name = Annotated[
    str, Path(description="The type.", schema={"type": "string", "pattern": "^[a-z][a-z0-9_-]*$"}, example="products")
]


class ResourceTypeList(msgspec.Struct):
    resource_types: list[ResourceType]


@operation("GET", PATH, tag=_TAG, access=FOLLOWING, answers=Answer("All of them, by name."))
async def list_resource_types(principal: Principal, catalog: Catalog, connection: Connection) -> ResourceTypeList:
    """The types of record that the tenant may import."""
    return ResourceTypeList(await service.list_types(connection, principal.tenant_id, catalog))


@operation("GET", PATH + "/{name}", tag=_TAG, access=FOLLOWING, answers=Answer("The type."))
async def read_resource_type(
    name: Name, principal: Principal, catalog: Catalog, connection: Connection
) -> ResourceType:
    """One type."""
    return await service.read_type(connection, principal.tenant_id, name, catalog)


@operation(
    "PUT",
    PATH + "/{name}",
    tag=_TAG,
    access=ADMIN,
    answers=(Answer("The type, changed."), Answer("The type, which is new.", 201)),
    errors=(409,),
)
async def declare_resource_type(
    name: Name, body: Definition, principal: Principal, connection: Connection
) -> Reply[ResourceType]:
    """Declare a type, or change it.

    A change may add optional fields, loosen bounds and add aliases; what could make stored records invalid is refused
    with 409. Of a built-in type the definition has the fields that the tenant adds to it.
    """
    declared, is_new = await service.declare_type(connection, principal.tenant_id, name, body, actor=principal.key_id)
    return Reply(declared, 201 if is_new else 200)
