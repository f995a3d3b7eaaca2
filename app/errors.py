"""Errors of the domain. They know nothing of HTTP: `app.http.problems` alone maps them to a status.

The docstring of a class is its message to the user unless one is given.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class TrancheError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        self.detail = detail or inspect.cleandoc(type(self).__doc__ or "")
        self.retry_after = retry_after
        """Seconds after which the same request may work; `None` where waiting does not help."""
        super().__init__(self.detail)


class SettingsError(TrancheError):
    """A setting has a value that cannot be used."""

    code = "SETTINGS"


class MigrationError(TrancheError):
    """The database could not be brought to this release's schema."""

    code = "MIGRATION"
