"""Kinds of destination that other packages bring.

A package registers one by an entry point of the group `tranche.adapters`, whose name is that of the kind:

    [project.entry-points."tranche.adapters"]
    acme = "tranche_acme:ADAPTER"

    ADAPTER = Adapter(kind=Kind(AcmeOptions, 100, "Acme's people", takes_any=True), connect=Acme)

Whoever cannot be loaded is left out, with a warning that names the package: its destinations then wait for a worker
that knows their kind.
"""

import warnings
from collections.abc import Callable, Container
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import msgspec

from app.destinations.base_urls import HTTP, UrlForm
from app.destinations.options import Options

GROUP: Final = "tranche.adapters"
OAUTH: Final = ("oauth2_client_credentials", "oauth2_refresh_token")


class Kind(msgspec.Struct, frozen=True):
    options: type[Options]
    batch_size: int
    """Most records a call, unless options say less."""
    description: str
    bulk_size: int = 0
    """Records of one delivery of a large sync, where many are cheaper at a time; 0: as of any other."""
    import_size: int = 0
    """The same of an import, which is processed by 1,000 records."""
    reads_back: bool = True
    """Whether it shows what it holds, if its options do not say otherwise."""
    takes_any: bool = False
    """Any type of record has a place there, and it may be any server: what it does says nothing to other tenants."""
    url: UrlForm = HTTP
    """How its base URLs are written."""
    credentials: tuple[str, ...] = ("token", *OAUTH)
    """Types of credentials that it takes."""
    authorize_url: str | None = None
    """Where an account allows an application to act for it, with `{base_url}` in its place; likewise what follows."""
    token_url: str | None = None


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """What a package brings."""

    kind: Kind
    """Its options say the same name, as `KIND`."""
    connect: Callable[..., Any]
    """A `jobs.crm.port.CrmFactory`."""


def load(taken: Container[str]) -> dict[str, Adapter]:
    """Those that are installed, by the names of their kinds; `taken`: names that are not theirs."""
    found: dict[str, Adapter] = {}
    for entry in entry_points(group=GROUP):
        fault = f"there is a kind {entry.name!r} already" if entry.name in taken or entry.name in found else ""
        if not fault:
            try:
                found[entry.name] = _load(entry)
                continue
            except Exception as error:  # whatever somebody else's module raises
                fault = f"{type(error).__name__}: {error}"
        package = entry.dist.name if entry.dist is not None else entry.value
        warnings.warn(f"The package {package} brings no destinations of the kind {entry.name!r}: {fault}", stacklevel=2)
    return found


def _load(entry: EntryPoint) -> Adapter:
    adapter = entry.load()
    if not isinstance(adapter, Adapter):
        raise TypeError(f"{entry.value} is no {Adapter.__module__}.{Adapter.__qualname__}")
    if entry.name != adapter.kind.options.KIND:
        raise ValueError(f"its options are of the kind {adapter.kind.options.KIND!r}")
    return adapter
