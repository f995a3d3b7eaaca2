"""Settings: the only module that reads the environment.

`tranche settings` lists them; `TRANCHE_` plus the upper-case field name is the variable.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Final, get_args, get_origin, get_type_hints

import msgspec

from app.errors import SettingsError
from app.settings.fields import Doc, Settings
from app.vocabulary.addresses import parse_networks
from app.vocabulary.rate_limits import parse_limit
from app.vocabulary.waits import parse_waits

__all__ = ["PREFIX", "Row", "Settings", "check_names", "load", "parse_origins", "table"]

PREFIX: Final = "TRANCHE_"
_MOST: Final = 2**31 - 1
"""No number is larger: PostgreSQL and Redis take no more."""
_MOST_BYTES: Final = 2**53
"""More than any disk holds."""
_MASK: Final = "***"
_PASSWORD: Final = re.compile(r"(://[^:/@?#]*:).*(?=@)|([?&]password=)[^&#]*")
PROCESSES: Final = "TRANCHE_SERVER_PROCESSES"
_OURS: Final = frozenset({"TRANCHE_SERVER_PID", PROCESSES})
"""Set by this program for its own processes."""
_KUBERNETES: Final = re.compile(
    r"TRANCHE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT: Final = re.compile(r"TRANCHE_([A-Z0-9_]+_)?PORT")
_PORT_VALUE: Final = re.compile(r"(tcp|udp|sctp)://")


def check_names(environ: Mapping[str, str] | None = None) -> None:
    """Refuse a `TRANCHE_` variable that is no setting: a typing error would silently leave the default.

    Kubernetes makes variables for every service of a namespace, such as `TRANCHE_PORT_8000_TCP_ADDR` for one with
    the name `tranche`; these are left alone.

    Raises:
        SettingsError: there is one; the nearest setting is named.
    """
    env = os.environ if environ is None else environ
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__}
    for name, value in env.items():
        if not name.startswith(PREFIX) or name in known or name in _OURS or _KUBERNETES.fullmatch(name):
            continue
        if _KUBERNETES_PORT.fullmatch(name) and _PORT_VALUE.match(value):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        remedy = f"did you mean {near[0]}?" if near else "`tranche settings` lists all of them."
        raise SettingsError(f"{name} is no setting; {remedy}")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment. Other `TRANCHE_` variables are for `check_names`, and what Kubernetes says of a
    service with the name `tranche-worker` (`TRANCHE_WORKER_PORT=tcp://…`) is no value of ours.

    Raises:
        SettingsError: a value does not fit its type, or is a number that makes no sense.
    """
    env = os.environ if environ is None else environ
    given: dict[str, str] = {}
    for name in Settings.__struct_fields__:
        value = env.get(PREFIX + name.upper())
        if value is not None and value.strip() and not _PORT_VALUE.match(value):
            given[name] = value.strip()
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        path = str(error).rpartition("$.")[2].strip("`")
        raise SettingsError(
            f"{PREFIX}{path.upper()}={given.get(path, '')!r}: {str(error).partition(' - at')[0]}"
        ) from error
    for name, doc in _docs().items():
        fault = _number_fault(getattr(settings, name), doc) or _text_fault(name, getattr(settings, name))
        if fault:
            raise SettingsError(f"{PREFIX}{name.upper()}={given.get(name, '')!r}: {fault}")
    return settings


def processes() -> int:
    """How many processes `tranche serve` was asked for, where this is one of them."""
    return max(1, int(os.environ.get(PROCESSES) or 1))


def _docs() -> dict[str, Doc]:
    hints = get_type_hints(Settings, include_extras=True)
    return {
        name: next(a for a in get_args(hint) if isinstance(a, Doc)) if get_origin(hint) else Doc("")
        for name, hint in hints.items()
    }


def _number_fault(value: object, doc: Doc) -> str | None:
    if isinstance(value, str):
        return None
    number = float(str(value))
    most = 1 if doc.unit == "0-1" else _MOST_BYTES if doc.unit == "bytes" else _MOST
    if 0 < number <= most or (doc.zero and number == 0):
        return None
    span = "from 0" if doc.zero else "above 0"
    return f"must be a number {span} to {most}" + (f" ({doc.unit})" if doc.unit else "")


_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def parse_origins(text: str) -> frozenset[str]:
    """
    Raises:
        ValueError: one of them is no origin as browsers send it.
    """
    origins = [part.strip() for part in text.split(",") if part.strip()]
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin: write it as browsers send it, like https://app.example.com or "
                "http://localhost:3000, in lower case and without a path"
            )
    return frozenset(origins)


def _check_endpoint(text: str) -> None:
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://, like http://localhost:4318")


_PARSED: Final[dict[str, Callable[[str], object]]] = {
    "otlp_endpoint": _check_endpoint,
    "webhook_waits": parse_waits,
    "destination_private": parse_networks,
    "webhook_standard_waits": parse_waits,
    "webhook_private": parse_networks,
    "cors_origins": parse_origins,
    "trusted_proxies": parse_networks,
    **{name: parse_limit for name in Settings.__struct_fields__ if name.startswith("limit_")},
}
"""Texts that mean something: each function raises `ValueError` for one that does not."""
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("json", "console"),
    "forwarded_header": ("x-forwarded-for", "forwarded"),
}


def _text_fault(name: str, value: object) -> str | None:
    if name in _CHOICES and str(value).lower() not in _CHOICES[name]:
        return f"must be one of: {', '.join(_CHOICES[name])}"
    if name in _PARSED:
        try:
            _PARSED[name](str(value))
        except ValueError as error:
            return str(error)
    return None


class Row(msgspec.Struct, frozen=True):
    """One line of `tranche settings`."""

    variable: str
    default: str
    unit: str
    meaning: str
    value: str


def table(settings: Settings) -> list[Row]:
    """Every setting with its default, unit, meaning and present value (secrets and passwords are masked)."""
    rows = []
    for name, doc in _docs().items():
        value = str(getattr(settings, name))
        if doc.secret and value:
            value = _MASK
        elif doc.unit == "URL":
            value = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{_MASK}", value)
        rows.append(Row(PREFIX + name.upper(), str(getattr(Settings(), name)), doc.unit, doc.meaning, value))
    return rows
