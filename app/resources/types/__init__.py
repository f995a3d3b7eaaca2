"""The types of record that the product brings along: each is one file here, and nothing else."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from app.resources.declaration import Resource

BUILT_IN: Final[dict[str, Resource]] = {
    one.name: one
    for module in iter_modules(__path__)
    for one in vars(import_module(f"{__name__}.{module.name}")).values()
    if isinstance(one, Resource)
}
"""By name."""
BY_ID: Final = {resource.type_id: resource for resource in BUILT_IN.values()}
FIRST_OWN: Final = 100
"""The first `type_id` of a tenant's own types."""
