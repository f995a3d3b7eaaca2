"""Every operation of the service, by feature."""

from __future__ import annotations

from typing import Final

from litestar.handlers import HTTPRouteHandler

from app.http import (
    api_keys,
    audit_log,
    cancel,
    contacts,
    dead_letters,
    destination_tests,
    destinations,
    documents,
    events,
    health,
    history,
    imports,
    items,
    jobs,
    keys,
    metrics,
    retry,
    tenants,
    undo,
    version,
    webhooks,
)
from app.http.operation import Operation

_FEATURES: Final = (
    imports,
    contacts,
    history,
    audit_log,
    jobs,
    cancel,
    retry,
    undo,
    events,
    items,
    keys,
    dead_letters,
    destinations,
    destination_tests,
    webhooks,
    api_keys,
    tenants,
    health,
    metrics,
    version,
    documents,
)

OPERATIONS: Final = tuple(
    one for feature in _FEATURES for one in vars(feature).values() if isinstance(one, Operation)
)
ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (*(one.route for one in OPERATIONS), documents.favicon)
